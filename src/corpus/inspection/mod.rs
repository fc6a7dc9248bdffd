//! What a run will read, without training: the sources, the mixture, the first examples token by token with
//! their loss mask, and what is likely not meant.

mod chat;
mod sources;
mod tokens;
mod warning;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

pub use self::chat::ChatFacts;
pub use self::sources::{DrawnFacts, Kinds, SourceFacts};
pub use self::tokens::{ExampleFacts, Named, TokenFacts, TokenizerFacts};
pub use self::warning::{Warning, WarningKind};

use self::chat::chat_facts;
use self::sources::source_facts;
use self::tokens::Names;
use self::warning::{mix_warnings, source_warnings};
use super::mix::Mix;
use super::{Corpus, encoder};
use crate::data::examples::Example;
use crate::data::mixture::{Mixture, Role, example};
use crate::data::source;
use crate::model::load::source::Pretrained;
use crate::recipe::ResolvedRecipe;

/// Bins of the histogram of lengths.
const BINS: usize = 8;

/// Everything that is found.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The recipe's name.
    pub name: String,
    /// The `MODEL` whose tokenizer and template are used.
    pub base: String,
    /// Cells of the recipe's `[sweep]`, which is not looked at otherwise; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep_cells: Option<usize>,
    /// Optimizer steps.
    pub steps: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Longest example in tokens.
    pub max_seq_len: usize,
    /// What is mixed in: asked for, and what comes out.
    pub mix: Mix,
    /// Share of what is mixed in of the examples of each tenth of the run.
    pub mixed_in_by_tenth: Vec<f64>,
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

impl Inspection {
    /// Looks through a planned run. `unsampled` are the pools that [`Corpus::stand_in_for_self`] made;
    /// `first` is the number of examples that are shown.
    ///
    /// # Errors
    /// If the documents cannot be read again, or the template does not render.
    pub fn new(
        recipe: &ResolvedRecipe,
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
                    "\"self\" is not sampled yet: fit will sample {} documents first. Here each counts as one \
                     example, and as {} tokens where the mix is counted in tokens",
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
        let longer = corpus.longer_than_context(base, unsampled).into_iter();
        warnings.extend(longer.map(|text| Warning { kind: WarningKind::LongerThanContext, text }));
        let texts = recipe.measured_on_pretraining().into_iter();
        warnings.extend(texts.map(|text| Warning { kind: WarningKind::MeasuredOnPretraining, text }));
        let is_sampled = unsampled.is_empty();
        let mix = Mix::new(&recipe.data, corpus, mixture, is_sampled);
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
            sweep_cells: None,
            steps: mixture.steps(recipe.train.batch_size),
            batch_size: recipe.train.batch_size,
            max_seq_len: recipe.data.max_seq_len,
            mix,
            mixed_in_by_tenth: by_tenth(corpus, mixture),
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
    fn new(recipe: &ResolvedRecipe, corpus: &Corpus, mixture: &Mixture) -> Self {
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

/// The ids that count.
fn counted(example: &Example) -> impl Iterator<Item = u32> + '_ {
    example.ids.iter().zip(&example.weights).filter(|(_, weight)| **weight != 0.0).map(|(id, _)| *id)
}
