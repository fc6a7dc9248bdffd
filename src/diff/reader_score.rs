//! What every reader of `readers` in `readability.json` says: one score, fixed before anything was read, with its interval
//! and its null.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::columns::Columns;
use super::floor::Floor;
use super::headline::{TraceNumber, TraceReading};
use super::score::Score;
use super::statistics::{Interval, Null};

/// Resamples of a reader's interval.
pub const RESAMPLES: usize = 1000;

/// The headline of a reader. A score that is not defined is absent, never 0: without narrow text, and between equal models,
/// where there is nothing to rank.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReaderScore {
    /// The score.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// Its bootstrap interval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<Interval>,
    /// What the reader scores where there is nothing to find.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null: Option<ReaderNull>,
    /// What other organisms score; absent where none were read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub floor: Option<Floor>,
    /// The unit of the score, in words.
    pub unit: String,
    /// The reader's table of the recipe: scores of other settings are not compared.
    pub settings: Value,
    /// Seconds that it took.
    pub seconds: f64,
}

impl ReaderScore {
    /// The columns of a score in `summary.csv`, the same ones with and without it: itself under `key`, and its interval.
    pub fn put_columns(reader: Option<&Self>, key: &str, row: &mut Columns) {
        let ends = reader.and_then(|reader| reader.interval);
        row.put_late(key, reader.and_then(|reader| reader.score));
        row.put_late(format!("{key}_low"), ends.map(|ends| ends[0]));
        row.put_late(format!("{key}_high"), ends.map(|ends| ends[1]));
    }

    /// The score as one number of the trace, beside what other organisms score, or `null` where none were read.
    pub fn trace(&self, null: Option<f64>) -> Option<TraceReading> {
        let floor = self.floor.as_ref();
        let number = TraceNumber {
            value: self.score?,
            interval: self.interval,
            null: floor.map(|floor| floor.mean).or(null),
            null_interval: floor.map(|floor| [2.0 * floor.mean - floor.bound, floor.bound]),
        };
        Some(TraceReading { number, p: floor.map(|floor| floor.p), ..TraceReading::default() })
    }

    /// The score with its key; none where it is not defined.
    pub fn scores(&self, key: &'static str, name: &'static str, resolution: f64) -> Vec<Score> {
        let of = |value| Score { key, name, value, interval: self.interval, resolution };
        self.score.map(of).into_iter().collect()
    }
}

/// Scores of models in which there is nothing to find.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReaderNull {
    /// What these models are, in words.
    pub kind: String,
    /// Number of scores.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// The highest.
    pub max: f64,
    /// (1 + scores at least as high as the model's own) / (1 + scores).
    pub p: f64,
}

impl ReaderNull {
    /// Of scores, for a model whose own is `score` at the same sizes; `None` without any.
    pub fn new(kind: &str, scores: Vec<f64>, score: f64) -> Option<Self> {
        let max = scores.iter().copied().reduce(f64::max)?;
        let null = Null(scores);
        Some(Self { kind: kind.into(), n: null.0.len(), mean: null.mean(), max, p: null.p(score) })
    }
}
