//! What the readers of an analysis have in common: a score, what it is compared with, and where they stand in the record.

use serde::{Deserialize, Serialize};

use super::measures::weights::Weights;
use super::statistics::Null;

/// The readers beyond the mean difference, by name; one that was not run is absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Readers {
    /// The change of the weights by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<Weights>,
}

impl Readers {
    /// Whether none was run.
    pub fn is_empty(&self) -> bool {
        self.weights.is_none()
    }
}

/// What a reader scores where nothing is to be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReaderNull {
    /// What was read instead.
    pub kind: String,
    /// How many of these.
    pub n: usize,
    /// Mean score.
    pub mean: f64,
    /// Highest score.
    pub max: f64,
    /// (1 + those that score at least as high) / (1 + n).
    pub p: f64,
}

impl ReaderNull {
    /// Of the scores under a null, at least one, and the score that is compared with them.
    pub fn new(kind: &str, scores: Vec<f64>, score: f64) -> Self {
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let null = Null(scores);
        Self { kind: kind.into(), n: null.0.len(), mean: null.mean(), max, p: null.p(score) }
    }
}
