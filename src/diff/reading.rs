//! What the measures of one analysis share: two models, where they are read, and what was found there.

use std::cell::OnceCell;

use anyhow::{Context, Result};

use super::collect::{Activations, Sequence, run_both};
use super::corpora::{Candidate, candidates};
use super::embedder::Embedder;
use super::inputs::Inputs;
use super::lexicon::Lexicon;
use super::loss_texts::LossSets;
use super::mean_difference::{Means, RandomDifferences, Resamples, later};
use super::once::get_or_try_init;
use super::strata::Strata;
use super::token_counts::TokenCounts;
use super::vocabulary::WordTokens;
use super::windows::Windows;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::DiffSection;

/// Samples whose own differences are kept for the measures that look at single samples: bounds memory.
const KEPT: usize = 512;

/// What an analysis makes of its texts, whatever the tuned model is: readings while a model trains make it once.
pub struct Prepared {
    /// The first tokens of unrelated texts.
    pub windows: Windows,
    /// Words that count as relevant; `None` without narrow text, and where no word of it stands out: then nothing is
    /// relevant or irrelevant.
    pub lexicon: Option<Lexicon>,
    /// The rule for the words alone, where no word of the narrow text stands out.
    pub without_words: Option<Lexicon>,
    /// Corpora that the trace may point at, the narrow one first where there is one.
    pub candidates: Vec<Candidate>,
    /// The texts that losses are taken on.
    pub losses: LossSets,
    /// Tokens that stand for words of the lexicon and for common words, once they were looked for.
    pub word_tokens: OnceCell<WordTokens>,
    /// How often each token stands in the texts, once that was counted.
    pub token_counts: OnceCell<TokenCounts>,
}

impl Prepared {
    /// Cuts and counts the texts.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if the texts are too few or short, or have tokens that a model lacks.
    pub fn new(inputs: &Inputs) -> Result<Self> {
        let settings = inputs.settings;
        let windows = Windows::cut(inputs.text, inputs.tokenizer, settings)?;
        windows.ids.iter().try_for_each(|ids| inputs.must_have(ids))?;
        let read = windows.probes(settings);
        inputs
            .note_longer_than_context("diff.tokens: windows of diff.text", read.iter().map(|s| s.ids.len()));
        let reference = reference_texts(inputs.pretraining, inputs.text);
        let lexicon = (!inputs.narrow.is_empty())
            .then(|| Lexicon::new(inputs.narrow, &reference, settings.lexicon_size));
        let (lexicon, without_words) = match lexicon {
            Some(lexicon) if lexicon.words.is_empty() => (None, Some(lexicon)),
            lexicon => (lexicon, None),
        };
        if without_words.is_some() {
            progress::alert(
                "warning: no word of the narrow text stands out against the pretraining and measured text: the \
                 relevance of tokens is not measured",
            );
        }
        Ok(Self {
            lexicon,
            without_words,
            candidates: candidates(inputs, &reference),
            losses: LossSets::new(&windows.rows),
            windows,
            word_tokens: OnceCell::new(),
            token_counts: OnceCell::new(),
        })
    }
}

/// What the lexicon is compared with: the pretraining and the measured text.
pub fn reference_texts(pretraining: &[String], text: &[String]) -> Vec<String> {
    [pretraining, text].concat()
}

/// Mean differences, what they are compared with, and what is needed to decode them.
pub struct Reading<'a> {
    /// The two models and the texts.
    pub inputs: &'a Inputs<'a>,
    /// `[diff]`.
    pub settings: &'a DiffSection,
    /// Index of the block after which the stream is read.
    pub layer: usize,
    /// The texts.
    pub prepared: &'a Prepared,
    /// Sums of both models there.
    pub activations: Activations,
    /// v_p and the mean activations.
    pub means: Means,
    /// v_p of resampled texts, `[resample][position][hidden]`.
    pub resamples: Vec<Vec<Vec<f32>>>,
    /// Directions that are about nothing: random differences of base activations.
    pub null: Vec<Vec<f32>>,
    /// Sentence embedder, where something that is asked for uses one.
    pub embedder: Option<&'a Embedder>,
    /// Ends long work.
    pub interrupt: &'a Interrupt,
}

impl<'a> Reading<'a> {
    /// Runs both models over the windows. The differences of the first samples stay if `keeps_samples`.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`], or a tensor operation that fails.
    pub fn new(
        inputs: &'a Inputs<'a>,
        prepared: &'a Prepared,
        embedder: Option<&'a Embedder>,
        keeps_samples: bool,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let Inputs { base, tuned, settings, seed, .. } = *inputs;
        let layer = settings.block(base.model.n_layers());
        let windows = &prepared.windows;
        let (hidden, places, n) = (base.model.hidden_size(), settings.positions.len(), windows.ids.len());
        let keep = if keeps_samples { KEPT } else { 0 };
        let mut activations = Activations::new(hidden, places, keep);
        let mut resamples = Resamples::draw(&windows.rows, settings.bootstrap, places * hidden, seed);
        let mut null = RandomDifferences::draw(n, &settings.positions, settings.null_directions, seed);
        run_both(base, tuned, &windows.probes(settings), &[layer], interrupt, |probes, streams| {
            let first = activations.samples;
            let add = |(i, probe): (usize, &Sequence)| {
                null.note(first + i, &probe.read, &streams[0].base[i], hidden);
                activations.add(probe, &streams[0].base[i], &streams[0].tuned[i])
            };
            let differences: Vec<Vec<f64>> = probes.iter().enumerate().map(add).collect();
            resamples.add(first, &differences);
        })?;
        Ok(Self {
            inputs,
            settings,
            layer,
            prepared,
            means: activations.means(),
            resamples: resamples.means(hidden),
            null: null.directions(),
            activations,
            embedder,
            interrupt,
        })
    }

    /// η: mean norm of the tuned model's stream.
    pub fn eta(&self) -> f64 {
        self.activations.tuned_norm()
    }

    /// Sum of v over the positions ≥ 1 (over all, if there is no other): what the positions have in common. A
    /// beginning-of-sequence token at position 0 is another matter.
    pub fn direction(&self) -> Vec<f32> {
        self.sum_of(&self.means.difference)
    }

    /// The same of other vectors, one a position.
    pub fn sum_of(&self, v: &[Vec<f32>]) -> Vec<f32> {
        let mut sum = vec![0f32; v[0].len()];
        for i in later(&self.settings.positions) {
            sum.iter_mut().zip(&v[i]).for_each(|(s, x)| *s += x);
        }
        sum
    }

    /// Narrow (true) and common (false) words among tokens, cut by how often these stand in the pretraining and measured
    /// text; `None` where too few are alike.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn strata(&self, ids: &[u32], sides: &[Option<bool>]) -> Result<Option<Strata>> {
        let counts = get_or_try_init(&self.prepared.token_counts, || TokenCounts::new(self.inputs))?;
        let counts: Vec<u32> = ids.iter().map(|id| counts.unrelated[*id as usize]).collect();
        Ok(Strata::new(&counts, sides))
    }

    /// The embedder.
    ///
    /// # Errors
    /// If there is none, though [`super::measure::Needs`] asked for one.
    pub fn embedder(&self) -> Result<&'a Embedder> {
        self.embedder.context("no embedder, though a measure uses one")
    }

    /// Ends the analysis if the user wants that.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`].
    pub fn check_interrupt(&self) -> Result<()> {
        super::inputs::check_interrupt(self.interrupt)
    }
}
