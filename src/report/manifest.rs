//! What a report reads of `manifest.json`.
//!
//! Every field may be missing: a report also has to show a run that stopped half way. Fields that are
//! only shown, never computed with, are kept as JSON so that a richer value still gets on the page.

use serde::Deserialize;
use serde_json::{Map, Value};

/// `manifest.json`, as far as a report needs it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Name of the recipe.
    pub name: Option<String>,
    /// What the organism was trained on, in words.
    pub description: Option<String>,
    /// Seed of the run.
    pub seed: Option<i64>,
    /// Seconds that the training took.
    pub elapsed_s: Option<f64>,
    /// The base model.
    pub base: Option<Base>,
    /// `lora` or `full`.
    pub method: Option<String>,
    /// One entry a source of training text.
    pub data: Vec<Source>,
    /// Pretraining text per narrow text.
    pub mix: Option<Mix>,
    /// Held-out losses, nats a token.
    pub losses: Option<Losses>,
    /// Number of weights that were trained.
    pub trainable_parameters: Option<u64>,
    /// Everything else: version, git, created, device, threads, adapter_sha256, …
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The base model and its hash.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Base {
    /// The `MODEL` string.
    pub id: Option<String>,
    /// SHA-256 of the weights.
    pub sha256: Option<Value>,
}

/// One source of training text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Source {
    /// The source as the recipe names it.
    pub source: Option<Value>,
    /// `narrow` or `pretraining`.
    pub role: Option<String>,
    /// File it was read from.
    pub path: Option<Value>,
    /// SHA-256 of that file.
    pub sha256: Option<Value>,
    /// Rows that were used.
    pub rows: Option<u64>,
    /// Training examples made of them.
    pub examples: Option<u64>,
    /// Tokens in these.
    pub tokens: Option<u64>,
    /// How often a row was used again.
    pub repeats: Option<f64>,
}

/// Pretraining text per narrow text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Mix {
    /// The ratio that the recipe asks for.
    pub asked: Option<f64>,
    /// `examples` or `tokens`.
    pub unit: Option<String>,
    /// `add` or `fixed-budget`.
    pub mode: Option<String>,
    /// The ratio that was reached, in examples.
    pub realised_examples: Option<f64>,
    /// The ratio that was reached, in tokens.
    pub realised_tokens: Option<f64>,
}

impl Mix {
    /// The ratio that was reached, in the unit that was asked for.
    pub fn realised(&self) -> Option<f64> {
        match self.unit.as_deref() {
            Some("tokens") => self.realised_tokens,
            _ => self.realised_examples,
        }
    }
}

/// Held-out losses before and after the training.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Of the base model.
    pub base: Option<LossPair>,
    /// Of the finetuned model.
    pub tuned: Option<LossPair>,
}

/// Held-out losses of one model, nats a token.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct LossPair {
    /// On narrow text.
    pub narrow: Option<f64>,
    /// On pretraining text.
    pub pretraining: Option<f64>,
}
