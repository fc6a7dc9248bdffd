//! `manifest.json`: what made a run, so that another lab can repeat it and check that it did.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::matching::MatchRecord;
use crate::corpus::mix::Mix;
use crate::corpus::{Corpus, Provenance};
use crate::data::mixture::{Exposure, Mixture};
use crate::json;
use crate::machine::Machine;
use crate::model::load::source::Pretrained;
use crate::recipe::{Method, Recipe};
use crate::sha256::sha256_file;

/// Everything that decides a run, and its outcome; as training writes it and a report reads it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the recipe.
    pub name: String,
    /// What the organism was trained on, in words.
    pub description: String,
    /// Version of this program.
    pub version: String,
    /// Decides everything random.
    pub seed: u64,
    /// Seconds since 1970 at the end of the run.
    pub created: u64,
    /// Seconds of training, evaluation and checkpoints excluded.
    pub elapsed_s: f64,
    /// Seconds of readings of the trace while training; absent where there were none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_s: Option<f64>,
    /// What computed it.
    #[serde(flatten)]
    pub machine: Machine,
    /// The base model.
    pub base: Base,
    /// Which weights learned.
    pub method: Method,
    /// The adapter that training started from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<Init>,
    /// sha256 of the files of directions that were taken out of the stream while training, by path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub directions: BTreeMap<String, String>,
    /// Steps after which training ended before its time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stopped_after: Option<usize>,
    /// How a matched training ended.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none", default)]
    pub matched: Option<MatchRecord>,
    /// By source: narrow ones, pretraining, chat.
    pub data: Vec<Source>,
    /// What is mixed in per narrow text.
    pub mix: Mix,
    /// sha256 of the example order, as pool and example numbers.
    pub order_sha256: String,
    /// Held-out losses.
    pub losses: Losses,
    /// Number of weights that were trained.
    pub trainable_parameters: usize,
    /// Of the adapter's weights, or of the model's after full finetuning.
    pub adapter_sha256: String,
    /// [`crate::sha256::sha256_content`] of what the run wrote, by path in the run folder.
    pub files: BTreeMap<String, String>,
}

/// The base model and its hashes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// The `MODEL` string.
    pub id: String,
    /// Of each weight file, by file name.
    pub sha256: BTreeMap<String, String>,
}

/// An adapter that training starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// Its folder.
    pub path: String,
    /// Of its two files.
    pub sha256: BTreeMap<String, String>,
}

impl Init {
    /// The hashes of an adapter folder.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of(dir: &Path) -> Result<Self> {
        Ok(Self { path: dir.display().to_string(), sha256: adapter_sha256(dir)? })
    }
}

/// sha256 of the two files of an adapter folder, by name.
///
/// # Errors
/// If one cannot be read.
pub fn adapter_sha256(dir: &Path) -> Result<BTreeMap<String, String>> {
    let files = ["adapter_config.json", "adapter_model.safetensors"];
    files.into_iter().map(|file| Ok((file.to_string(), sha256_file(&dir.join(file))?))).collect()
}

/// One source of training text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// Where it came from.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Documents trained on.
    pub rows: usize,
    /// What the losses of its tokens are multiplied by, if the recipe says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_weight: Option<f64>,
    /// What the run saw of it.
    #[serde(flatten)]
    pub exposure: Exposure,
}

/// Held-out losses of one model, nats a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HeldOutLosses {
    /// On narrow text.
    pub narrow: Option<f64>,
    /// On pretraining text.
    pub pretraining: Option<f64>,
    /// On what the assistant says in general conversations.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chat: Option<f64>,
}

/// Held-out losses before and after the training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Of the base model.
    pub base: HeldOutLosses,
    /// Of the finetuned model.
    pub tuned: HeldOutLosses,
}

impl Manifest {
    /// Reads `manifest.json`; `None` if it is not there.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is damaged.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        json::read(path)
    }

    /// What is known before the run.
    pub fn new(
        recipe: &Recipe,
        base: &Pretrained,
        corpus: &Corpus,
        mixture: &Mixture,
        init: Option<Init>,
    ) -> Self {
        let weights = [&recipe.data.narrow, &recipe.data.pretraining, &recipe.data.chat];
        let weights = weights.into_iter().flatten().map(|spec| spec.loss_weight);
        let data = corpus
            .provenance
            .iter()
            .zip(weights)
            .zip(&mixture.exposure)
            .map(|((p, loss_weight), e)| Source {
                provenance: p.clone(),
                rows: p.tally.documents,
                loss_weight,
                exposure: e.clone(),
            })
            .collect();
        Self {
            name: recipe.name.clone(),
            description: recipe.description.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            seed: recipe.seed,
            created: 0,
            elapsed_s: 0.0,
            trace_s: None,
            machine: Machine::here(),
            base: Base { id: base.id.clone(), sha256: base.sha256.clone() },
            method: recipe.train.method,
            init,
            directions: BTreeMap::new(),
            stopped_after: None,
            matched: None,
            data,
            mix: Mix::new(&recipe.data, corpus, mixture, true),
            order_sha256: order_sha256(mixture),
            losses: Losses::default(),
            trainable_parameters: 0,
            adapter_sha256: String::new(),
            files: BTreeMap::new(),
        }
    }

    /// The same with the directions that were taken out of the stream.
    pub fn with_directions(self, directions: BTreeMap<String, String>) -> Self {
        Self { directions, ..self }
    }

    /// The same of a run that ended after so many steps, before its time.
    pub fn stopped(self, stopped_after: Option<usize>) -> Self {
        Self { stopped_after, ..self }
    }

    /// The same of a run that ended by its behaviour.
    pub fn matched(self, matched: Option<MatchRecord>) -> Self {
        Self { matched, ..self }
    }

    /// The same of a run that trained for so many seconds, readings not counted, which took `trace_s`.
    pub fn timed(self, elapsed_s: f64, trace_s: f64) -> Self {
        Self { elapsed_s, trace_s: (trace_s > 0.0).then_some(trace_s), ..self }
    }

    /// The same with the outcome: `files` are the hashes of what was written, `learned` names the one of them that
    /// holds the weights.
    pub fn finished(
        self,
        files: BTreeMap<String, String>,
        learned: &str,
        weights: usize,
        losses: Losses,
    ) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            created: now.map(|d| d.as_secs()).unwrap_or_default(),
            trainable_parameters: weights,
            adapter_sha256: files.get(learned).cloned().unwrap_or_default(),
            files,
            losses,
            ..self
        }
    }

    /// A line that says how it went.
    pub fn outcome(&self) -> String {
        let (b, t) = (&self.losses.base, &self.losses.tuned);
        let pools = [
            ("narrow", b.narrow, t.narrow),
            ("pretraining", b.pretraining, t.pretraining),
            ("chat", b.chat, t.chat),
        ];
        let loss = |(name, base, tuned): &(&str, Option<f64>, Option<f64>)| {
            let (base, tuned) = ((*base)?, (*tuned)?);
            Some(format!("{name} {base:.3} → {tuned:.3}"))
        };
        let losses: Vec<String> = pools.iter().filter_map(loss).collect();
        let losses = match losses.is_empty() {
            true => "no document was held out".into(),
            false => format!("held-out loss in nats per token: {}", losses.join(", ")),
        };
        let readings = self.trace_s.map_or(String::new(), |s| {
            let share = 100.0 * s / (self.elapsed_s + s);
            format!(", {s:.0} s for readings while training ({share:.0} % of both)")
        });
        format!("{losses}; training took {:.0} s{readings}", self.elapsed_s)
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
