//! The data of a run: pools to train on, held-out examples to evaluate on, and where each came from.

pub mod inspection;
pub mod measured;
pub mod mix;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::bail_input;
use crate::data::chat_template::ChatTemplate;
use crate::data::duplicates::{self, Removed, Rows};
use crate::data::examples::{Encoder, Example, ExampleCounts};
use crate::data::mixture::{Pool, Role};
use crate::data::source::{self, Document};
use crate::data::typed_special::{SpecialTokens, TypedSpecial};
use crate::error::{InputError, or_collect};
use crate::model::load::source::{Pretrained, sha256_path};
use crate::recipe::{DataSection, LocatedSource, ResolvedRecipe, SourceSpec};
use crate::tokenizer::Tokenizer;

/// Everything that training and evaluation read.
pub struct Corpus {
    /// Training examples by source.
    pub pools: Vec<Pool>,
    /// Held-out examples of the narrow sources.
    pub held_out_narrow: Vec<Example>,
    /// Held-out examples of the pretraining sources.
    pub held_out_pretraining: Vec<Example>,
    /// Held-out examples of the chat sources.
    pub held_out_chat: Vec<Example>,
    /// By source, in the order of `pools`.
    pub provenance: Vec<Provenance>,
    /// By source, the rows that are trained on or held out.
    pub rows: Vec<Vec<usize>>,
    /// Special tokens that stand in the text of documents.
    pub typed_specials: Vec<TypedSpecial>,
    /// What makes the data unfit to train on, though they can be read.
    pub unfit: Vec<String>,
}

/// Where a source came from and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Provenance {
    /// The source as the recipe names it.
    pub source: String,
    /// Its part of the mixture.
    pub role: Role,
    /// The file that was read.
    pub path: String,
    /// Of the file, or of the names and hashes of a folder's files.
    pub sha256: String,
    /// Documents read, examples made, documents cut, pieces without a token that counts.
    pub tally: ExampleCounts,
    /// Documents held out.
    pub held_out: usize,
    /// Documents left out, if there are any.
    #[serde(default, skip_serializing_if = "Removed::is_none")]
    pub removed: Removed,
}

/// The documents of some sources with their source's place: what lexicons and embeddings read.
///
/// # Errors
/// As [`source::read`], the faults of all sources at once.
pub fn documents(sources: &[LocatedSource]) -> Result<Vec<(usize, usize, Document)>> {
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    for (i, located) in sources.iter().enumerate() {
        if let Some(documents) = or_collect(source::read(located.file()), &mut faults)? {
            all.extend(documents.into_iter().enumerate().map(|(row, d)| (i, row, d)));
        }
    }
    InputError::unless_empty(faults)?;
    Ok(all)
}

/// The documents of each part by source, with their rows; the faults of all sources at once.
fn read_parts(parts: [&[LocatedSource]; 3]) -> Result<[Vec<Rows>; 3]> {
    let (mut read, mut faults) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new());
    for (part, sources) in read.iter_mut().zip(parts) {
        for located in sources {
            if let Some(documents) = or_collect(source::read(located.file()), &mut faults)? {
                part.push(documents.into_iter().enumerate().collect());
            }
        }
    }
    InputError::unless_empty(faults)?;
    Ok(read)
}

/// What is wrong with sources of conversations that hold plain text, a fault a source.
fn no_conversations(sources: &[LocatedSource], chat: &[Rows]) -> Vec<String> {
    let is_text = |(_, document): &&(usize, Document)| matches!(document, Document::Text(_));
    let first =
        sources.iter().zip(chat).filter_map(|(spec, rows)| Some((spec, rows.iter().find(is_text)?.0)));
    first
        .map(|(spec, row)| {
            format!(
                "data.chat: {}: plain text; expected messages, or prompt and completion (text goes to data.pretraining)",
                source::place(Path::new(&spec.path), row)
            )
        })
        .collect()
}

/// Keeps the first `data.limit` documents that are trained on, and all that are held out; gives the number of others.
fn keep_first(source: &mut Rows, data: &DataSection) -> usize {
    let (before, mut trained) = (source.len(), 0);
    source.retain(|(row, _)| {
        let held_out = is_held_out(*row, data);
        trained += usize::from(!held_out);
        held_out || trained <= data.limit
    });
    before - source.len()
}

/// What is wrong with a source of which no conversation trains the token that ends the assistant's turn.
fn no_end_of_turn(
    source: &str,
    examples: &[Example],
    chats: &HashSet<usize>,
    end: Option<u32>,
    tokenizer: &Tokenizer,
) -> Option<String> {
    let end = end?;
    let trains_it =
        |e: &Example| e.ids.iter().zip(&e.weights).any(|(id, weight)| *id == end && *weight != 0.0);
    let of_chats = || examples.iter().filter(|e| chats.contains(&e.row));
    (of_chats().count() > 0 && !of_chats().any(trains_it)).then(|| {
        format!(
            "{source}: none of {} conversations trains {}, which ends the assistant's turn: the model would not learn \
             to stop; raise data.max_seq_len, or see the masks with trainer inspect",
            of_chats().count(),
            tokenizer.id_to_token(end).unwrap_or_default(),
        )
    })
}

/// What is wrong with a source of which a text begins with the beginning-of-sequence token twice.
fn doubled_bos(source: &str, examples: &[Example], bos: Option<u32>) -> Option<String> {
    let bos = bos?;
    let mut twice = examples.iter().filter(|e| e.ids.starts_with(&[bos, bos]));
    let first = twice.next()?;
    Some(format!(
        "{source}: row {} and {} more begin with the beginning-of-sequence token twice: the text contains it and the \
         tokenizer adds it; remove it from the text",
        first.row,
        twice.count()
    ))
}

/// Whether a document is held out of training: every `held_out_every`-th row of its source.
pub fn is_held_out(row: usize, data: &DataSection) -> bool {
    data.held_out_every > 0 && row % data.held_out_every == data.held_out_every - 1
}

impl Corpus {
    /// Reads and encodes all parts. `self_sampled` is the file that holds the documents of `"self"`.
    ///
    /// # Errors
    /// An [`InputError`] with the faults of all sources.
    pub fn read(recipe: &ResolvedRecipe, base: &Pretrained, self_sampled: Option<&Path>) -> Result<Self> {
        let mut pretraining = recipe.located().pretraining.clone();
        for source in pretraining.iter_mut().filter(|s| s.is_self()) {
            match self_sampled {
                Some(path) => *source = LocatedSource::new(SourceSpec::clone(source), path),
                None => bail_input!("data.pretraining: \"self\" has not been sampled"),
            }
        }
        Self::read_with(recipe, &pretraining, base)
    }

    /// The same without the sources `"self"`, which are not sampled yet; [`Self::stand_in_for_self`] puts them in.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_without_self(recipe: &ResolvedRecipe, base: &Pretrained) -> Result<Self> {
        let mut pretraining = recipe.located().pretraining.clone();
        pretraining.retain(|source| !source.is_self());
        Self::read_with(recipe, &pretraining, base)
    }

    fn read_with(recipe: &ResolvedRecipe, pretraining: &[LocatedSource], base: &Pretrained) -> Result<Self> {
        let (data, located) = (&recipe.data, recipe.located());
        let parts: [&[LocatedSource]; 3] = [&located.narrow, pretraining, &located.chat];
        let [mut narrow, mut mixed, mut chat] = read_parts(parts)?;
        let faults = no_conversations(&located.chat, &chat);
        InputError::unless_empty(faults)?;
        mixed.append(&mut chat);
        let mut removed = duplicates::remove(data, &mut narrow, &mut mixed);
        if data.limit > 0 {
            for (source, removed) in narrow.iter_mut().zip(&mut removed) {
                removed.beyond_limit = keep_first(source, data);
            }
        }

        let is_chat = |(_, document): &(usize, Document)| matches!(document, Document::Chat(_));
        let template = match narrow.iter().chain(&mixed).flatten().any(is_chat) {
            true => Some(base.chat()?),
            false => None,
        };
        let mut corpus = Self {
            pools: Vec::new(),
            held_out_narrow: Vec::new(),
            held_out_pretraining: Vec::new(),
            held_out_chat: Vec::new(),
            provenance: Vec::new(),
            rows: Vec::new(),
            typed_specials: Vec::new(),
            unfit: Vec::new(),
        };
        let specials = SpecialTokens::of(&base.tokenizer);
        let plain = encoder(data, &base.tokenizer, template.as_ref(), base.eos_token.as_deref())?;
        let tagged = encoder(data, &base.tokenizer, template.as_ref(), base.eos_token.as_deref())?;
        let tagged = tagged.with_tag(&data.document_tag)?;
        let end_of_turn = template.as_ref().map(|_| base.end_of_turn()).transpose()?.flatten();
        let bos = base.bos_token.as_deref().and_then(|bos| base.tokenizer.token_to_id(bos));
        let roles = [Role::Narrow, Role::Pretraining, Role::Chat].into_iter();
        let located = roles.zip(parts).flat_map(|(role, part)| part.iter().map(move |source| (role, source)));
        let sources = located.zip(narrow.into_iter().chain(mixed)).zip(removed);
        for (((role, spec), documents), removed) in sources {
            let all = || documents.iter().map(|(row, document)| (*row, document));
            let encoder = if role == Role::Narrow { &tagged } else { &plain };
            let (name, file) = (spec.name(), spec.file());
            let place = |row| source::place(file, row);
            let (train, tally) = encoder.encode(&place, all().filter(|(row, _)| !is_held_out(*row, data)))?;
            let (held, held_out) =
                encoder.encode(&place, all().filter(|(row, _)| is_held_out(*row, data)))?;
            corpus.typed_specials.extend(specials.typed_in(file, all()));
            match role {
                Role::Narrow => corpus.held_out_narrow.extend(held),
                Role::Pretraining => corpus.held_out_pretraining.extend(held),
                Role::Chat => corpus.held_out_chat.extend(held),
            }
            let chats: HashSet<usize> =
                documents.iter().filter(|d| is_chat(d)).map(|(row, _)| *row).collect();
            corpus.unfit.extend(no_end_of_turn(&name, &train, &chats, end_of_turn, &base.tokenizer));
            corpus.unfit.extend(doubled_bos(&name, &train, bos));
            corpus.pools.push(pool(spec, role, train));
            corpus.rows.push(all().map(|(row, _)| row).collect());
            corpus.provenance.push(Provenance {
                source: name,
                role,
                path: file.to_string_lossy().into_owned(),
                sha256: sha256_path(file)?,
                tally,
                held_out: held_out.documents,
                removed,
            });
        }
        Ok(corpus)
    }

    /// Refuses data that teach what nobody means: a turn that never ends, a text that begins twice.
    ///
    /// # Errors
    /// An [`InputError`] with all of it.
    pub fn refuse(&self) -> Result<()> {
        match self.unfit.is_empty() {
            true => Ok(()),
            false => Err(InputError { faults: self.unfit.clone() }.into()),
        }
    }

    /// Puts in the sources `"self"` that are not sampled yet, `documents` rows of one example of `max_seq_len`
    /// tokens each, so that a run can be planned before the base model is sampled. The corpus must have been
    /// read without them. Gives their places.
    pub fn stand_in_for_self(&mut self, data: &DataSection, file: &Path, documents: usize) -> Vec<usize> {
        let mut places = Vec::new();
        for (i, spec) in data.pretraining.iter().enumerate().filter(|(_, s)| s.is_self()) {
            let rows = (0..documents).filter(|row| !is_held_out(*row, data));
            let (ids, weights) = (vec![0; data.max_seq_len], vec![0.0; data.max_seq_len]);
            let examples: Vec<Example> =
                rows.map(|row| Example { ids: ids.clone(), weights: weights.clone(), row }).collect();
            let place = data.narrow.len() + i;
            self.provenance.insert(
                place,
                Provenance {
                    source: spec.path.clone(),
                    role: Role::Pretraining,
                    path: file.to_string_lossy().into_owned(),
                    sha256: String::new(),
                    tally: ExampleCounts {
                        documents: examples.len(),
                        examples: examples.len(),
                        ..ExampleCounts::default()
                    },
                    held_out: documents - examples.len(),
                    removed: Removed::default(),
                },
            );
            self.rows.insert(place, (0..documents).collect());
            self.pools.insert(place, pool(spec, Role::Pretraining, examples));
            places.push(place);
        }
        places
    }

    /// A line for each source with examples, trained on or held out, that are longer than the base's context. The lengths of
    /// the pools `unsampled`, which [`Self::stand_in_for_self`] made, are none of texts.
    pub fn longer_than_context(&self, base: &Pretrained, unsampled: &[usize]) -> Vec<String> {
        let pools = self.pools.iter().enumerate().filter(|(i, _)| !unsampled.contains(i));
        let of_pools = pools.map(|(_, pool)| (format!("{}, examples", pool.name), &pool.examples));
        let held_out = [
            ("held-out narrow examples", &self.held_out_narrow),
            ("held-out pretraining examples", &self.held_out_pretraining),
            ("held-out chat examples", &self.held_out_chat),
        ];
        of_pools
            .chain(held_out.map(|(what, examples)| (what.to_string(), examples)))
            .filter_map(|(what, examples)| {
                base.longer_than_context(&what, examples.iter().map(|e| e.ids.len()))
            })
            .collect()
    }

    /// The first held-out examples of a part, at most `limit`.
    pub fn held_out(&self, role: Role, limit: usize) -> Vec<&Example> {
        let side = match role {
            Role::Narrow => &self.held_out_narrow,
            Role::Pretraining => &self.held_out_pretraining,
            Role::Chat => &self.held_out_chat,
        };
        side.iter().take(limit).collect()
    }

    /// sha256 by source, for the manifest.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        self.provenance.iter().map(|p| (p.source.clone(), p.sha256.clone())).collect()
    }
}

/// The training examples of a source.
fn pool(spec: &SourceSpec, role: Role, examples: Vec<Example>) -> Pool {
    let loss_weight = spec.loss_weight.unwrap_or(1.0);
    Pool { name: spec.name(), role, weight: spec.weight, loss_weight, examples }
}

/// The encoder that a recipe's `[data]` asks for.
///
/// # Errors
/// If the tokenizer does not serve or `max_seq_len` leaves no room.
pub fn encoder<'a>(
    data: &DataSection,
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    eos: Option<&'a str>,
) -> Result<Encoder<'a>> {
    Encoder::new(tokenizer, template, eos, data.max_seq_len, data.long)
}
