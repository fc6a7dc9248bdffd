//! One source of text: what was read of it, and what the run draws.

use std::collections::HashSet;

use serde::Serialize;

use super::counted;
use super::tokens::TokenizerFacts;
use crate::corpus::{Corpus, is_held_out};
use crate::data::duplicates::Removed;
use crate::data::examples::Example;
use crate::data::mixture::{Exposure, Mixture, Role, example};
use crate::data::source::Document;
use crate::model::load::source::Pretrained;
use crate::recipe::Recipe;

/// A piece of a longer document with less than this part of `max_seq_len` is short.
const SHORT_PIECE: f64 = 0.125;

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

impl SourceFacts {
    /// Whether it is mixed into the narrow text.
    pub fn is_mixed_in(&self) -> bool {
        self.role != Role::Narrow
    }
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

pub(super) fn source_facts(
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
                        .then(|| (weights[i] + 0.0) / weights.iter().sum::<f64>().max(f64::MIN_POSITIVE)),
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
