//! `manifest.json`: what made a run, so that another lab can repeat it and check that it did.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::corpus::{Corpus, Provenance};
use crate::data::mixture::{Exposure, Mixture};
use crate::model::source::{Pretrained, sha256_file};
use crate::recipe::{Method, MixMode, MixUnit, Recipe};

/// Everything that decides a run, and its outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest {
    name: String,
    description: String,
    /// Version of this program.
    version: &'static str,
    seed: u64,
    /// Seconds since 1970 at the end of the run.
    created: u64,
    /// Seconds of training, evaluation and checkpoints excluded.
    elapsed_s: f64,
    device: String,
    threads: usize,
    base: Base,
    method: Method,
    /// The adapter that training started from.
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<Init>,
    data: Vec<Source>,
    mix: Mix,
    /// sha256 of the example order, as pool and example numbers.
    order_sha256: String,
    losses: Losses,
    trainable_parameters: usize,
    adapter_sha256: String,
}

#[derive(Debug, Clone, Serialize)]
struct Base {
    id: String,
    sha256: BTreeMap<String, String>,
}

/// An adapter that training starts from.
#[derive(Debug, Clone, Serialize)]
pub struct Init {
    path: String,
    sha256: BTreeMap<String, String>,
}

impl Init {
    /// The hashes of an adapter folder's two files.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of(dir: &Path) -> Result<Self> {
        let mut sha256 = BTreeMap::new();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            sha256.insert(file.to_string(), sha256_file(&dir.join(file))?);
        }
        Ok(Self { path: dir.display().to_string(), sha256 })
    }
}

#[derive(Debug, Clone, Serialize)]
struct Source {
    #[serde(flatten)]
    provenance: Provenance,
    /// Documents trained on.
    rows: usize,
    #[serde(flatten)]
    exposure: Exposure,
}

#[derive(Debug, Clone, Serialize)]
struct Mix {
    asked: f64,
    unit: MixUnit,
    mode: MixMode,
    realised_examples: f64,
    realised_tokens: f64,
}

/// Held-out losses of one model, nats a token.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct LossPair {
    /// On narrow text.
    pub narrow: Option<f64>,
    /// On pretraining text.
    pub pretraining: Option<f64>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Losses {
    base: LossPair,
    tuned: LossPair,
}

impl Manifest {
    /// What is known before the run.
    pub fn new(
        recipe: &Recipe,
        base: &Pretrained,
        corpus: &Corpus,
        mixture: &Mixture,
        init: Option<Init>,
    ) -> Self {
        let (realised_examples, realised_tokens) = mixture.realised(&corpus.pools);
        let data = corpus
            .provenance
            .iter()
            .zip(&mixture.exposure)
            .map(|(p, e)| Source { provenance: p.clone(), rows: p.tally.documents, exposure: e.clone() })
            .collect();
        let device = if cfg!(feature = "cuda") {
            "cuda"
        } else if cfg!(feature = "metal") {
            "metal"
        } else {
            "cpu"
        };
        Self {
            name: recipe.name.clone(),
            description: recipe.description.clone(),
            version: env!("CARGO_PKG_VERSION"),
            seed: recipe.seed,
            created: 0,
            elapsed_s: 0.0,
            device: device.into(),
            threads: rayon::current_num_threads(),
            base: Base { id: base.id.clone(), sha256: base.sha256.clone() },
            method: recipe.train.method,
            init,
            data,
            mix: Mix {
                asked: recipe.data.mix,
                unit: recipe.data.mix_unit,
                mode: recipe.data.mix_mode,
                realised_examples,
                realised_tokens,
            },
            order_sha256: order_sha256(mixture),
            losses: Losses::default(),
            trainable_parameters: 0,
            adapter_sha256: String::new(),
        }
    }

    /// The same with the outcome.
    pub fn finished(
        self,
        elapsed_s: f64,
        sha256: String,
        weights: usize,
        base: LossPair,
        tuned: LossPair,
    ) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            created: now.map(|d| d.as_secs()).unwrap_or_default(),
            elapsed_s,
            trainable_parameters: weights,
            adapter_sha256: sha256,
            losses: Losses { base, tuned },
            ..self
        }
    }

    /// A line that says how it went.
    pub fn outcome(&self) -> String {
        let shown = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.3}"));
        let (b, t) = (&self.losses.base, &self.losses.tuned);
        format!(
            "held-out loss in nats a token: narrow {} -> {}, pretraining {} -> {}; {:.0} s of training",
            shown(b.narrow),
            shown(t.narrow),
            shown(b.pretraining),
            shown(t.pretraining),
            self.elapsed_s
        )
    }
}

/// sha256 of the example order.
pub fn order_sha256(mixture: &Mixture) -> String {
    let mut hash = Sha256::new();
    for pick in &mixture.order {
        hash.update((pick.pool as u64).to_le_bytes());
        hash.update((pick.example as u64).to_le_bytes());
    }
    format!("{:x}", hash.finalize())
}
