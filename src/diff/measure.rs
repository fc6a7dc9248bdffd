//! What a measure is.

use std::iter::Sum;
use std::ops::Add;

use anyhow::Result;

use super::columns::{ColumnPlaces, Columns};
use super::findings::Findings;
use super::headline::{TraceMeasure, TraceReading};
use super::inputs::Inputs;
use super::plot::{Number, Plot, TokenLists};
use super::reading::Reading;
use super::score::Score;
use crate::recipe::DiffSection;

/// A measure: the type is its record, which stands in `readability.json` under the key that [`super::measures`] lists it
/// with. The same key names its time in `elapsed_s`.
pub trait Measure: Sized + 'static {
    /// Unit of each value, by key path.
    const UNITS: &'static [(&'static str, &'static str)];

    /// Whether the settings ask for it.
    fn is_wanted(settings: &DiffSection) -> bool;

    /// What it needs beside the two models and the texts.
    fn needs(_settings: &DiffSection) -> Needs {
        Needs::default()
    }

    /// Tokens that it runs through whole models, at most, for a model of `n_layers`; none of what works on weights or on what
    /// is there already.
    fn cost(settings: &DiffSection, n_layers: usize) -> Work;

    /// Refuses what it cannot be taken on, before any model runs. What it made of the texts may stay in `found`.
    ///
    /// # Errors
    /// An [`crate::error::InputError`].
    fn prepare(_inputs: &Inputs, _found: &mut Findings) -> Result<()> {
        Ok(())
    }

    /// Takes it; `None` where something is missing that it needs, such as narrow text. `found` has what the measures above
    /// it in the list left; further files of the analysis go there.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`], or what went wrong while working.
    fn measure(reading: &Reading, found: &mut Findings) -> Result<Option<Self>>;

    /// Its columns in `summary.csv`, the same ones with and without a record.
    fn columns(record: Option<&Self>, places: &ColumnPlaces, row: &mut Columns);

    /// The numbers by which it is compared with other organisms, in an order that never changes; none where nothing is
    /// defined.
    fn scores(&self) -> Vec<Score> {
        Vec::new()
    }

    /// Its figures in the report. `positions` are those of the difference.
    fn figures(&self, positions: &[usize]) -> Vec<Plot>;

    /// Its lists of tokens in the report.
    fn tokens(&self, _positions: &[usize]) -> Vec<TokenLists> {
        Vec::new()
    }

    /// Its numbers in the report that are one for the whole run.
    fn numbers(&self) -> Vec<Number> {
        Vec::new()
    }

    /// What it is called as one number of the trace; `None` of a measure that is no one number. From it come its place in
    /// `claims.json`, its dose-response curve, and where it meets its null.
    const TRACE: Option<TraceMeasure> = None;

    /// That number of a run; `None` where it cannot be said, as without narrow text.
    fn trace(&self, _positions: &[usize]) -> Option<TraceReading> {
        None
    }

    /// Sentences in the report: what was left out, and why.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a measure needs that is made only where a measure needs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The sentence embedder.
    pub embedder: bool,
    /// The differences of single samples, of the first 512.
    pub single_samples: bool,
}

impl Needs {
    /// What two measures need together.
    pub fn or(self, other: Self) -> Self {
        Self {
            embedder: self.embedder || other.embedder,
            single_samples: self.single_samples || other.single_samples,
        }
    }
}

/// Tokens that run through whole models; of those that run through some of the blocks, the share.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// At once: activations.
    pub read: f64,
    /// One a sequence: patchscope.
    pub patched: f64,
    /// One after the other: generated text.
    pub written: f64,
    /// At once: losses, of either model and under each edit.
    pub losses: f64,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            patched: self.patched + other.patched,
            written: self.written + other.written,
            losses: self.losses + other.losses,
        }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(works: I) -> Self {
        works.fold(Self::default(), Self::add)
    }
}

/// Share of the blocks up to the one that is read.
pub fn share_read(settings: &DiffSection, n_layers: usize) -> f64 {
    (settings.block(n_layers) + 1) as f64 / n_layers as f64
}

/// Tokens of the texts of one kind that losses are taken on, each as long as it may be.
pub fn loss_tokens(settings: &DiffSection) -> f64 {
    (settings.losses.samples * settings.losses.max_tokens) as f64
}

/// Kinds of text that losses are taken on: narrow, unrelated and, if there are any, conversations.
pub fn loss_kinds(settings: &DiffSection) -> f64 {
    if settings.chat.text.is_empty() { 2.0 } else { 3.0 }
}
