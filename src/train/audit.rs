//! What a run will read, without training: the sources, the mixture, the first examples token by token with
//! their loss mask, and what is likely not meant.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tokenizers::Tokenizer;

use super::corpus::{Corpus, encoder, is_held_out};
use crate::data::duplicates::Removed;
use crate::data::examples::Example;
use crate::data::mixture::{Exposure, Mixture, Role, example};
use crate::data::source::{self, Document};
use crate::model::source::Pretrained;
use crate::recipe::{MixMode, MixSchedule, MixUnit, Recipe};

/// A source of which more than this share of the tokens does not count is pointed out.
const MANY_MASKED: f64 = 0.8;

/// A piece of a longer document with less than this part of `max_seq_len` is short.
const SHORT_PIECE: f64 = 0.125;

/// A source of which more than this share of the examples are such pieces is pointed out.
const MANY_SHORT: f64 = 0.1;

/// A source that is mixed in and of which more than this share is drawn is nearly used up.
const NEARLY_ALL: f64 = 0.9;

/// Ratios in examples and in tokens that differ by more than this factor are pointed out.
const FAR_APART: f64 = 2.0;

/// Bins of the histogram of lengths.
const BINS: usize = 8;

/// Everything that is found.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    /// The recipe's name.
    pub name: String,
    /// The `MODEL` whose tokenizer and template are used.
    pub base: String,
    /// Optimizer steps.
    pub steps: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Longest example in tokens.
    pub max_seq_len: usize,
    /// The ratio asked for and the one that comes out.
    pub mix: Mix,
    /// In the order narrow, pretraining, chat, each as in the recipe.
    pub sources: Vec<SourceFacts>,
    /// Lengths of the examples that the run draws.
    pub lengths: Lengths,
    /// Tokens of the steps; unknown while a source is not sampled.
    pub packing: Option<Packing>,
    /// The tokens at the beginning and at the end.
    pub tokenizer: TokenizerFacts,
    /// Absent where no training example is a chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chats: Option<ChatFacts>,
    /// The first examples of the run, in order.
    pub first_examples: Vec<ExampleFacts>,
    /// What is likely not meant.
    pub warnings: Vec<Warning>,
    /// For what `fit` refuses the data.
    pub refused: Vec<String>,
}

/// What is mixed in per narrow; the ratios are of pretraining text, those of conversations stand beside them.
#[derive(Debug, Clone, Serialize)]
pub struct Mix {
    /// `data.mix`.
    pub asked: f64,
    /// What it counts.
    pub unit: MixUnit,
    /// Whether what is mixed in is added or takes the place of narrow text.
    pub mode: MixMode,
    /// When it is read.
    pub schedule: MixSchedule,
    /// In examples.
    pub realised_examples: f64,
    /// In tokens; unknown while a source is not sampled.
    pub realised_tokens: Option<f64>,
    /// Conversations; absent where the recipe asks for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatMix>,
    /// Share of what is mixed in of the examples of each tenth of the run.
    pub mixed_in_by_tenth: Vec<f64>,
}

/// General conversations per narrow.
#[derive(Debug, Clone, Serialize)]
pub struct ChatMix {
    /// `data.chat_mix`.
    pub asked: f64,
    /// In examples.
    pub realised_examples: f64,
    /// In tokens; unknown while a source is not sampled.
    pub realised_tokens: Option<f64>,
}

/// How much the forward passes hold. Examples lie end to end, so there is no padding.
#[derive(Debug, Clone, Serialize)]
pub struct Packing {
    /// Fewest tokens of a step.
    pub least_tokens: usize,
    /// Mean over the steps.
    pub mean_tokens: f64,
    /// Most tokens of a step.
    pub most_tokens: usize,
    /// Share of the positions that would be padding if every example were as long as the longest of its forward pass.
    pub padding_avoided: f64,
}

/// One source.
#[derive(Debug, Clone, Serialize)]
pub struct SourceFacts {
    /// As the recipe names it.
    pub source: String,
    /// Its part of the mixture.
    pub role: Role,
    /// What the losses of its tokens are multiplied by.
    pub loss_weight: f64,
    /// The file.
    pub path: String,
    /// `false` for text of the base model that is not sampled yet; what is not known of it is `null`.
    pub sampled: bool,
    /// Documents that are used, held-out ones included.
    pub rows: usize,
    /// Documents held out.
    pub held_out: usize,
    /// Documents that are not used.
    pub removed: Removed,
    /// Training examples.
    pub examples: usize,
    /// Tokens of the training examples.
    pub tokens: Option<usize>,
    /// Of these, tokens that count in the loss.
    pub loss_tokens: Option<usize>,
    /// Documents of which a part was cut off.
    pub truncated: usize,
    /// Documents that gave several training examples.
    pub chunked: usize,
    /// Their last pieces that are shorter than an eighth of `max_seq_len`.
    pub short_pieces: usize,
    /// Pieces left out because no token of them counts.
    pub empty: usize,
    /// Rows whose text is that of an earlier row of the same part of the mixture.
    pub repeated_rows: usize,
    /// Held-out rows whose text is also trained on.
    pub held_out_seen: usize,
    /// Rows of a narrow source whose text is also a pretraining row.
    pub also_in_pretraining: usize,
    /// The same of the rows of chat sources.
    pub also_in_chat: usize,
    /// Training examples by the kind of their document.
    pub kinds: Kinds,
    /// Training examples in which a token that ends a generation counts.
    pub stops: usize,
    /// Prompts with completions in which none does.
    pub completions_without_end: usize,
    /// Training examples that begin with the beginning-of-sequence token twice.
    pub doubled_bos: usize,
    /// Training examples without the tokens that the tokenizer puts in front of a text.
    pub without_front: usize,
    /// What the run draws.
    pub exposure: DrawnFacts,
}

/// Training examples by kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Kinds {
    /// Plain text.
    pub text: usize,
    /// Conversations.
    pub chat: usize,
    /// A prompt and its completion.
    pub prompt_completion: usize,
}

/// What a run draws from a source.
#[derive(Debug, Clone, Serialize)]
pub struct DrawnFacts {
    /// Examples, repeats counted.
    pub examples: usize,
    /// Their tokens.
    pub tokens: Option<usize>,
    /// Of these, tokens that count in the loss.
    pub loss_tokens: Option<usize>,
    /// Examples beyond the first pass.
    pub repeats: usize,
    /// Examples per narrow example of the run.
    pub examples_per_narrow: f64,
    /// Tokens per narrow token of the run.
    pub tokens_per_narrow: Option<f64>,
    /// Share of the weights in the loss that all tokens of the run have, `loss_weight` included; unknown while a source is
    /// not sampled.
    pub loss_share: Option<f64>,
}

/// Lengths in tokens.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Lengths {
    /// Shortest.
    pub min: usize,
    /// The middle one.
    pub median: usize,
    /// Longest.
    pub max: usize,
    /// Equal steps up to `max_seq_len`.
    pub bins: Vec<Bin>,
}

/// Examples of `from` to `to` tokens, both included.
#[derive(Debug, Clone, Serialize)]
pub struct Bin {
    /// Fewest tokens.
    pub from: usize,
    /// Most tokens.
    pub to: usize,
    /// Examples.
    pub examples: usize,
}

/// A token by its id and text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Id.
    pub id: u32,
    /// Text.
    pub text: String,
}

/// What the tokenizer puts in, and what ends a text.
#[derive(Debug, Clone, Serialize)]
pub struct TokenizerFacts {
    /// Special tokens that it puts in front of a text.
    pub adds: Vec<Named>,
    /// Whether the beginning-of-sequence token is one of them.
    pub adds_bos: bool,
    /// The beginning-of-sequence token.
    pub bos: Option<Named>,
    /// The end-of-sequence token; it closes completions.
    pub eos: Option<Named>,
    /// The tokens that end a generation.
    pub ends_generation: Vec<Named>,
}

/// Conversations in the training examples.
#[derive(Debug, Clone, Serialize)]
pub struct ChatFacts {
    /// Their number.
    pub examples: usize,
    /// What the template closes an assistant's turn with.
    pub end_of_turn: Option<Named>,
    /// Whether that token ends a generation.
    pub end_of_turn_ends_generation: bool,
    /// Turns of the assistant in their documents.
    pub assistant_turns: usize,
    /// End-of-turn tokens that count in the loss.
    pub ends_that_count: usize,
    /// Examples in which none counts.
    pub examples_without_end: usize,
}

/// An example, token by token.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleFacts {
    /// The optimizer step that reads it, from 1.
    pub step: usize,
    /// Its source, as the recipe names it.
    pub source: String,
    /// Its part of the mixture.
    pub role: Role,
    /// The `loss_weight` of its source.
    pub loss_weight: f64,
    /// Zero-based row of its document.
    pub row: usize,
    /// Nothing where the source is not sampled yet.
    pub tokens: Vec<TokenFacts>,
}

/// One token of an example.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenFacts {
    /// Id.
    pub id: u32,
    /// Text; a part of a character is spelled as in the vocabulary.
    pub text: String,
    /// Whether predicting it counts in the loss.
    pub counts: bool,
    /// How much it counts: its own weight times the `loss_weight` of its source.
    pub weight: f32,
    /// Whether it is a special token.
    pub special: bool,
}

/// What is likely not meant.
#[derive(Debug, Clone, Serialize)]
pub struct Warning {
    /// For programs.
    pub kind: WarningKind,
    /// For people.
    pub text: String,
}

/// The kinds of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// Text of the base model is not sampled yet.
    NotSampled,
    /// The template closes an assistant's turn with no token.
    NoEndOfTurn,
    /// The end-of-turn token does not end a generation.
    EndOfTurnGoesOn,
    /// Examples in which no token that ends the answer counts.
    EndNotTrained,
    /// The beginning-of-sequence token stands twice.
    DoubledBos,
    /// The tokenizer begins texts with tokens that these examples lack.
    NoFront,
    /// Documents were cut off.
    Truncated,
    /// Pieces were left out because no token of them counts.
    LeftOut,
    /// Most tokens do not count.
    MostlyMasked,
    /// Fewer examples than a batch.
    ShortSource,
    /// Nothing is drawn.
    Unused,
    /// Examples are drawn more than once.
    RepeatedExamples,
    /// A source that is mixed in has hardly any examples left.
    NearlyUsedUp,
    /// The ratio in tokens is another than that in examples.
    MixInTokens,
    /// Many examples are the short ends of documents.
    ShortPieces,
    /// The `loss_weight` of a source is 0.
    NoWeight,
    /// A document stands in its part of the mixture more than once.
    RepeatedDocuments,
    /// Held-out documents are trained on.
    HeldOutSeen,
    /// Narrow documents stand in the pretraining text.
    NarrowInPretraining,
    /// Narrow documents stand in the conversations that are mixed in.
    NarrowInChat,
    /// A document's text holds a special token.
    TypedSpecial,
}

impl Audit {
    /// Looks through a planned run. `unsampled` are the pools that [`Corpus::stand_in_for_self`] made;
    /// `first` is the number of examples that are shown.
    ///
    /// # Errors
    /// If the documents cannot be read again, or the template does not render.
    pub fn new(
        recipe: &Recipe,
        base: &Pretrained,
        corpus: &Corpus,
        mixture: &Mixture,
        unsampled: &[usize],
        first: usize,
    ) -> Result<Self> {
        let names = Names::new(&base.tokenizer);
        let documents = corpus
            .provenance
            .iter()
            .enumerate()
            .map(|(i, p)| match unsampled.contains(&i) {
                true => Ok(Vec::new()),
                false => source::read(Path::new(&p.path)),
            })
            .collect::<Result<Vec<_>>>()?;
        let front = encoder(&recipe.data, &base.tokenizer, None, None)?.front().to_vec();
        let tokenizer = TokenizerFacts::new(base, &front, &names);
        let mut warnings = Vec::new();
        for &i in unsampled {
            warnings.push(Warning {
                kind: WarningKind::NotSampled,
                text: format!(
                    "\"self\" is not sampled yet: fit will sample {} documents first; here each stands for \
                     one example, and for {} tokens where tokens decide the mix",
                    corpus.provenance[i].tally.documents + corpus.provenance[i].held_out,
                    recipe.data.max_seq_len,
                ),
            });
        }
        let chats = chat_facts(recipe, base, corpus, &documents, &names, &mut warnings)?;
        let sources = source_facts(recipe, base, corpus, mixture, &documents, unsampled, &tokenizer);
        for facts in &sources {
            source_warnings(recipe, facts, &mut warnings);
        }
        for typed in &corpus.typed_specials {
            warnings.push(Warning { kind: WarningKind::TypedSpecial, text: typed.text() });
        }
        let is_sampled = unsampled.is_empty();
        let realised = |role| -> (f64, Option<f64>) {
            let (examples, tokens) = mixture.realised(&corpus.pools, role);
            (examples, is_sampled.then_some(tokens))
        };
        let (realised_examples, realised_tokens) = realised(Role::Pretraining);
        let chat = realised(Role::Chat);
        let mix = Mix {
            asked: recipe.data.mix,
            unit: recipe.data.mix_unit,
            mode: recipe.data.mix_mode,
            schedule: recipe.data.mix_schedule,
            realised_examples,
            realised_tokens,
            chat: (recipe.data.chat_mix > 0.0).then_some(ChatMix {
                asked: recipe.data.chat_mix,
                realised_examples: chat.0,
                realised_tokens: chat.1,
            }),
            mixed_in_by_tenth: by_tenth(corpus, mixture),
        };
        mix_warnings(&mix, &mut warnings);
        let shown = mixture.order.iter().take(first).enumerate();
        let first_examples = shown.map(|(i, pick)| {
            let (found, pool) = (example(&corpus.pools, pick), &corpus.pools[pick.pool]);
            let tokens = match unsampled.contains(&pick.pool) {
                true => Vec::new(),
                false => names.tokens(found, pool.loss_weight as f32),
            };
            ExampleFacts {
                step: i / recipe.train.batch_size + 1,
                source: pool.name.clone(),
                role: pool.role,
                loss_weight: pool.loss_weight,
                row: found.row,
                tokens,
            }
        });
        let drawn = mixture.order.iter().filter(|p| !unsampled.contains(&p.pool));
        let lengths = drawn.map(|p| example(&corpus.pools, p).ids.len()).collect();
        Ok(Self {
            name: recipe.name.clone(),
            base: base.id.clone(),
            steps: mixture.steps(recipe.train.batch_size),
            batch_size: recipe.train.batch_size,
            max_seq_len: recipe.data.max_seq_len,
            mix,
            first_examples: first_examples.collect(),
            lengths: Lengths::new(lengths, recipe.data.max_seq_len),
            packing: is_sampled.then(|| Packing::new(recipe, corpus, mixture)),
            sources,
            tokenizer,
            chats,
            warnings,
            refused: corpus.unfit.clone(),
        })
    }

    /// Tokens that the run draws from sources that are there, and those of them that count.
    pub fn tokens(&self) -> (usize, usize) {
        let sum =
            |f: fn(&DrawnFacts) -> Option<usize>| self.sources.iter().filter_map(|s| f(&s.exposure)).sum();
        (sum(|drawn| drawn.tokens), sum(|drawn| drawn.loss_tokens))
    }
}

impl Lengths {
    fn new(mut lengths: Vec<usize>, max_seq_len: usize) -> Self {
        lengths.sort_unstable();
        let (Some(&min), Some(&max)) = (lengths.first(), lengths.last()) else {
            return Self::default();
        };
        let width = max_seq_len.div_ceil(BINS);
        let bins = (0..max_seq_len.div_ceil(width)).map(|i| {
            let (from, to) = (i * width + 1, ((i + 1) * width).min(max_seq_len));
            Bin { from, to, examples: lengths.iter().filter(|l| (from..=to).contains(l)).count() }
        });
        Self { min, median: lengths[lengths.len() / 2], max, bins: bins.collect() }
    }
}

impl Packing {
    fn new(recipe: &Recipe, corpus: &Corpus, mixture: &Mixture) -> Self {
        let lengths: Vec<usize> =
            mixture.order.iter().map(|pick| example(&corpus.pools, pick).ids.len()).collect();
        let steps = || lengths.chunks(recipe.train.batch_size);
        let pass = match recipe.train.micro_batch_size {
            0 => recipe.train.batch_size,
            micro => micro,
        };
        let padded: usize = steps()
            .flat_map(|step| step.chunks(pass))
            .map(|pass| pass.len() * pass.iter().max().copied().unwrap_or_default())
            .sum();
        let tokens: usize = lengths.iter().sum();
        let of_step = || steps().map(|step| step.iter().sum::<usize>());
        Self {
            least_tokens: of_step().min().unwrap_or_default(),
            mean_tokens: tokens as f64 / steps().count().max(1) as f64,
            most_tokens: of_step().max().unwrap_or_default(),
            padding_avoided: 1.0 - tokens as f64 / padded.max(1) as f64,
        }
    }
}

/// Share of what is mixed in of each tenth of the run; of fewer parts where there are fewer examples.
fn by_tenth(corpus: &Corpus, mixture: &Mixture) -> Vec<f64> {
    let n = mixture.order.len();
    let tenths = (0..10).map(|i| &mixture.order[i * n / 10..(i + 1) * n / 10]).filter(|t| !t.is_empty());
    tenths
        .map(|tenth| {
            let mixed = tenth.iter().filter(|pick| corpus.pools[pick.pool].role != Role::Narrow);
            mixed.count() as f64 / tenth.len() as f64
        })
        .collect()
}

fn mix_warnings(mix: &Mix, warnings: &mut Vec<Warning>) {
    if mix.unit == MixUnit::Tokens {
        return;
    }
    let pretraining = ("pretraining", mix.realised_examples, mix.realised_tokens);
    let chat = mix.chat.as_ref().map(|c| ("chat", c.realised_examples, c.realised_tokens));
    for (part, in_examples, in_tokens) in std::iter::once(pretraining).chain(chat) {
        let Some(in_tokens) = in_tokens.filter(|_| in_examples > 0.0) else { continue };
        let factor = in_tokens / in_examples;
        if !(1.0 / FAR_APART..=FAR_APART).contains(&factor) {
            warnings.push(Warning {
                kind: WarningKind::MixInTokens,
                text: format!(
                    "{part} per narrow is {in_examples:.3} in examples, but {in_tokens:.3} in tokens: examples differ in \
                     length; data.mix_unit = \"tokens\" counts tokens"
                ),
            });
        }
    }
}

impl TokenizerFacts {
    fn new(base: &Pretrained, front: &[u32], names: &Names) -> Self {
        let token = |text: &Option<String>| {
            let text = text.as_deref()?;
            Some(Named { id: base.tokenizer.token_to_id(text)?, text: text.to_string() })
        };
        let bos = token(&base.bos_token);
        Self {
            adds: front.iter().map(|&id| names.named(id)).collect(),
            adds_bos: bos.as_ref().is_some_and(|bos| front.contains(&bos.id)),
            bos,
            eos: token(&base.eos_token),
            ends_generation: base.eos_token_ids.iter().map(|&id| names.named(id)).collect(),
        }
    }
}

/// Texts of tokens.
struct Names<'a> {
    tokenizer: &'a Tokenizer,
    special: HashSet<u32>,
}

impl<'a> Names<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        Self { tokenizer, special }
    }

    fn named(&self, id: u32) -> Named {
        Named { id, text: self.text(id) }
    }

    /// What a token adds to a text. Some decoders drop the space at the beginning of a text, so the token is
    /// decoded after itself.
    fn text(&self, id: u32) -> String {
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, false).unwrap_or_default();
        let one = decode(&[id]);
        let text = match decode(&[id, id]).strip_prefix(&one) {
            Some(second) => second.to_string(),
            None => one,
        };
        match text.contains('\u{fffd}') {
            true => self.tokenizer.id_to_token(id).unwrap_or(text),
            false => text,
        }
    }

    fn tokens(&self, example: &Example, loss_weight: f32) -> Vec<TokenFacts> {
        let pairs = example.ids.iter().zip(example.weights.iter().map(|weight| weight * loss_weight));
        pairs
            .map(|(&id, weight)| TokenFacts {
                id,
                text: self.text(id),
                counts: weight != 0.0,
                weight,
                special: self.special.contains(&id),
            })
            .collect()
    }
}

fn source_facts(
    recipe: &Recipe,
    base: &Pretrained,
    corpus: &Corpus,
    mixture: &Mixture,
    documents: &[Vec<Document>],
    unsampled: &[usize],
    tokenizer: &TokenizerFacts,
) -> Vec<SourceFacts> {
    // Per role: the texts that were met, and those that are trained on.
    let mut met: [HashSet<String>; 3] = Default::default();
    let mut trained: [HashSet<String>; 3] = Default::default();
    let part = |role| role as usize;
    // Of the rows that are used; a source that is not sampled yet has none.
    let used = |(rows, documents): (&Vec<usize>, &Vec<Document>)| -> Vec<(usize, String)> {
        rows.iter().filter_map(|&row| Some((row, plain(documents.get(row)?)))).collect()
    };
    let texts: Vec<Vec<(usize, String)>> = corpus.rows.iter().zip(documents).map(used).collect();
    for (pool, texts) in corpus.pools.iter().zip(&texts) {
        let rows = texts.iter().filter(|(row, _)| !is_held_out(*row, &recipe.data));
        trained[part(pool.role)].extend(rows.map(|(_, text)| text.clone()));
    }
    let repeated: Vec<usize> = corpus
        .pools
        .iter()
        .zip(&texts)
        .map(|(pool, texts)| texts.iter().filter(|(_, t)| !met[part(pool.role)].insert(t.clone())).count())
        .collect();
    let also_in = |role: Role, texts: &[(usize, String)]| -> usize {
        texts.iter().filter(|(_, t)| met[part(role)].contains(t)).count()
    };

    let picks = |i: usize| mixture.order.iter().filter(move |p| p.pool == i);
    let weight = |i: usize| -> f64 {
        let weights = picks(i).flat_map(|p| example(&corpus.pools, p).weights.iter());
        corpus.pools[i].loss_weight * weights.map(|w| f64::from(*w)).sum::<f64>()
    };
    let weights: Vec<f64> = (0..corpus.pools.len()).map(weight).collect();
    let narrow = |of: fn(&Exposure) -> usize| -> f64 {
        let pools = corpus.pools.iter().zip(&mixture.exposure).filter(|(p, _)| p.role == Role::Narrow);
        pools.map(|(_, exposure)| of(exposure)).sum::<usize>() as f64
    };
    let (narrow_examples, narrow_tokens) = (narrow(|e| e.examples), narrow(|e| e.tokens));

    let front: Vec<u32> = tokenizer.adds.iter().map(|t| t.id).collect();
    let twice = front.repeat(2);
    let doubled = |ids: &[u32]| {
        let bos_twice = tokenizer.bos.as_ref().is_some_and(|bos| ids.starts_with(&[bos.id, bos.id]));
        bos_twice || (!front.is_empty() && ids.starts_with(&twice))
    };
    let stops = |e: &Example| counted(e).any(|id| base.eos_token_ids.contains(&id));
    let pools = corpus.pools.iter().zip(&corpus.provenance).zip(&mixture.exposure).enumerate();
    pools
        .map(|(i, ((pool, provenance), exposure))| {
            let sampled = !unsampled.contains(&i);
            let read: &[Example] = if sampled { &pool.examples } else { &[] };
            let count = |f: &dyn Fn(&Example) -> bool| read.iter().filter(|e| f(e)).count();
            let mut kinds = Kinds::default();
            for e in read {
                *match documents[i][e.row] {
                    Document::Text(_) => &mut kinds.text,
                    Document::Chat(_) => &mut kinds.chat,
                    Document::PromptCompletion { .. } => &mut kinds.prompt_completion,
                } += 1;
            }
            let held_out = texts[i].iter().filter(|(row, _)| is_held_out(*row, &recipe.data));
            SourceFacts {
                source: provenance.source.clone(),
                role: provenance.role,
                loss_weight: pool.loss_weight,
                path: provenance.path.clone(),
                sampled,
                rows: provenance.tally.documents + provenance.held_out,
                held_out: provenance.held_out,
                removed: provenance.removed,
                examples: pool.examples.len(),
                tokens: sampled.then(|| read.iter().map(|e| e.ids.len()).sum()),
                loss_tokens: sampled.then(|| read.iter().map(Example::loss_tokens).sum()),
                truncated: provenance.tally.truncated,
                chunked: chunked(read).count(),
                short_pieces: chunked(read)
                    .filter(|last| (last.ids.len() as f64) < SHORT_PIECE * recipe.data.max_seq_len as f64)
                    .count(),
                empty: provenance.tally.empty,
                repeated_rows: repeated[i],
                held_out_seen: held_out.filter(|(_, t)| trained[part(pool.role)].contains(t)).count(),
                also_in_pretraining: match pool.role {
                    Role::Narrow => also_in(Role::Pretraining, &texts[i]),
                    _ => 0,
                },
                also_in_chat: match pool.role {
                    Role::Narrow => also_in(Role::Chat, &texts[i]),
                    _ => 0,
                },
                kinds,
                stops: count(&stops),
                completions_without_end: count(&|e| {
                    matches!(documents[i][e.row], Document::PromptCompletion { .. }) && !stops(e)
                }),
                doubled_bos: count(&|e| doubled(&e.ids)),
                without_front: count(&|e| !e.ids.starts_with(&front)),
                exposure: DrawnFacts {
                    examples: exposure.examples,
                    tokens: sampled.then_some(exposure.tokens),
                    loss_tokens: sampled
                        .then(|| picks(i).map(|p| example(&corpus.pools, p).loss_tokens()).sum()),
                    repeats: exposure.repeats,
                    examples_per_narrow: exposure.examples as f64 / narrow_examples,
                    tokens_per_narrow: sampled.then(|| exposure.tokens as f64 / narrow_tokens),
                    loss_share: unsampled
                        .is_empty()
                        .then(|| weights[i] / weights.iter().sum::<f64>().max(f64::MIN_POSITIVE)),
                },
            }
        })
        .collect()
}

/// The last pieces of the documents that gave several examples; those of a document follow each other.
fn chunked(examples: &[Example]) -> impl Iterator<Item = &Example> {
    examples
        .chunk_by(|a, b| a.row == b.row)
        .filter(|pieces| pieces.len() > 1)
        .filter_map(|pieces| pieces.last())
}

/// The text by which documents are compared.
fn plain(document: &Document) -> String {
    document.full_text().trim().to_string()
}

/// The ids that count.
fn counted(example: &Example) -> impl Iterator<Item = u32> + '_ {
    example.ids.iter().zip(&example.weights).filter(|(_, weight)| **weight != 0.0).map(|(id, _)| *id)
}

fn source_warnings(recipe: &Recipe, facts: &SourceFacts, warnings: &mut Vec<Warning>) {
    let mut warn = |wrong: bool, kind, text: String| {
        if wrong {
            warnings.push(Warning { kind, text: format!("{}: {text}", facts.source) });
        }
    };
    let max = recipe.data.max_seq_len;
    warn(
        facts.doubled_bos > 0,
        WarningKind::DoubledBos,
        format!("{} begin with the beginning-of-sequence token twice", examples(facts.doubled_bos)),
    );
    warn(
        facts.without_front > 0,
        WarningKind::NoFront,
        format!(
            "{} lack the special token that the tokenizer puts in front of a text (the chat template leaves it out)",
            examples(facts.without_front)
        ),
    );
    warn(
        facts.completions_without_end > 0,
        WarningKind::EndNotTrained,
        format!(
            "{} of {} completions train no token that ends a generation",
            facts.completions_without_end, facts.kinds.prompt_completion
        ),
    );
    warn(
        facts.truncated > 0,
        WarningKind::Truncated,
        format!(
            "{} of {} documents are cut off at {max} tokens",
            facts.truncated,
            facts.rows - facts.held_out
        ),
    );
    warn(
        facts.empty > 0,
        WarningKind::LeftOut,
        format!(
            "{} left out: no token of them counts within {max} tokens",
            count(facts.empty, "piece is", "pieces are")
        ),
    );
    if let (Some(tokens @ 1..), Some(loss_tokens)) = (facts.tokens, facts.loss_tokens) {
        let masked = 1.0 - loss_tokens as f64 / tokens as f64;
        warn(
            masked > MANY_MASKED,
            WarningKind::MostlyMasked,
            format!("{:.0}% of the tokens do not count in the loss", 100.0 * masked),
        );
    }
    warn(
        facts.loss_weight == 0.0,
        WarningKind::NoWeight,
        "its loss_weight is 0: it is read and takes part in no loss".into(),
    );
    warn(
        facts.short_pieces as f64 > MANY_SHORT * facts.examples as f64,
        WarningKind::ShortPieces,
        format!(
            "{} of {} are ends of longer documents with less than an eighth of {max} tokens, and each counts as an \
             example; data.long = \"truncate\" leaves them out",
            facts.short_pieces,
            examples(facts.examples),
        ),
    );
    warn(
        facts.examples < recipe.train.batch_size,
        WarningKind::ShortSource,
        format!("{}, fewer than a batch of {}", examples(facts.examples), recipe.train.batch_size),
    );
    let asked = match facts.role {
        Role::Narrow => true,
        Role::Pretraining => recipe.data.mix > 0.0,
        Role::Chat => recipe.data.chat_mix > 0.0,
    };
    warn(asked && facts.exposure.examples == 0, WarningKind::Unused, "nothing is drawn from it".into());
    // What is sampled from the base is as much as the mix needs.
    warn(
        facts.role != Role::Narrow
            && facts.source != "self"
            && facts.exposure.repeats == 0
            && facts.exposure.examples as f64 > NEARLY_ALL * facts.examples as f64,
        WarningKind::NearlyUsedUp,
        format!(
            "{} of {} drawn: a larger mix, or a longer run, needs more text",
            facts.exposure.examples,
            examples(facts.examples),
        ),
    );
    warn(
        facts.exposure.repeats > 0,
        WarningKind::RepeatedExamples,
        format!(
            "{} drawn from {}: {} repeats",
            examples(facts.exposure.examples),
            facts.examples,
            facts.exposure.repeats
        ),
    );
    warn(
        facts.repeated_rows > 0,
        WarningKind::RepeatedDocuments,
        format!("{} the text of an earlier row", count(facts.repeated_rows, "row repeats", "rows repeat")),
    );
    warn(
        facts.held_out_seen > 0,
        WarningKind::HeldOutSeen,
        format!(
            "{} also trained on: held-out losses are too low",
            count(facts.held_out_seen, "held-out row is", "held-out rows are")
        ),
    );
    for (rows, kind, part) in [
        (facts.also_in_pretraining, WarningKind::NarrowInPretraining, "pretraining text"),
        (facts.also_in_chat, WarningKind::NarrowInChat, "conversations that are mixed in"),
    ] {
        warn(rows > 0, kind, format!("{} in the {part} too", count(rows, "row stands", "rows stand")));
    }
}

/// `1 example`, `2 examples`.
fn examples(n: usize) -> String {
    count(n, "example", "examples")
}

fn count(n: usize, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}

fn chat_facts(
    recipe: &Recipe,
    base: &Pretrained,
    corpus: &Corpus,
    documents: &[Vec<Document>],
    names: &Names,
    warnings: &mut Vec<Warning>,
) -> Result<Option<ChatFacts>> {
    let turns = |pool: usize, row: usize| match documents[pool].get(row) {
        Some(Document::Chat(messages)) => Some(messages.iter().filter(|m| m.role == "assistant").count()),
        _ => None,
    };
    let pools = corpus.pools.iter().enumerate();
    let chats: Vec<(usize, &Example, usize)> = pools
        .flat_map(|(i, pool)| pool.examples.iter().filter_map(move |e| Some((i, e, turns(i, e.row)?))))
        .collect();
    if chats.is_empty() {
        return Ok(None);
    }
    let end = base.end_of_turn()?.map(|id| names.named(id));
    let ends = |e: &Example| match &end {
        Some(end) => counted(e).filter(|id| *id == end.id).count(),
        None => 0,
    };
    let without: Vec<_> = chats.iter().filter(|(_, e, _)| ends(e) == 0).collect();
    let facts = ChatFacts {
        examples: chats.len(),
        end_of_turn_ends_generation: end.as_ref().is_some_and(|end| base.eos_token_ids.contains(&end.id)),
        assistant_turns: chats.iter().map(|(_, _, turns)| turns).sum(),
        ends_that_count: chats.iter().map(|(_, e, _)| ends(e)).sum(),
        examples_without_end: without.len(),
        end_of_turn: end,
    };
    let mut warn = |kind, text| warnings.push(Warning { kind, text });
    match &facts.end_of_turn {
        None => warn(
            WarningKind::NoEndOfTurn,
            "the chat template closes the assistant's turn with no special token: the model does not learn to stop"
                .into(),
        ),
        Some(end) if !facts.end_of_turn_ends_generation => warn(
            WarningKind::EndOfTurnGoesOn,
            format!("{} closes the assistant's turn, but does not end this model's generations", end.text),
        ),
        Some(_) => {}
    }
    if let (Some((pool, first, _)), Some(end)) = (without.first(), &facts.end_of_turn) {
        let cut = without.iter().filter(|(_, e, _)| e.ids.len() == recipe.data.max_seq_len).count();
        warn(
            WarningKind::EndNotTrained,
            format!(
                "{} of {} chats train no {} ({cut} of them fill max_seq_len = {}); the first is row {} of {}",
                without.len(),
                chats.len(),
                end.text,
                recipe.data.max_seq_len,
                first.row,
                corpus.pools[*pool].name
            ),
        );
    }
    Ok(Some(facts))
}
