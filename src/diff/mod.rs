//! Reading a finetuned model's activation differences (Minder et al., arXiv 2510.13900).
//!
//! [`diff`] is the whole analysis in order: activations of both models on the same unrelated tokens, their mean
//! difference, what it decodes to (logit lens, patchscope), what it makes the model write (steering), and how
//! much of that is about the narrow data. A measure is one file; it takes directions and gives tokens or text.

pub mod beginnings;
pub mod coherence;
pub mod collect;
pub mod corpora;
pub mod decode;
pub mod during_training;
pub mod eigen;
pub mod embedder;
pub mod estimate;
pub mod hashes;
pub mod inputs;
pub mod lexicon;
pub mod loss_texts;
pub mod losses;
pub mod mean_difference;
pub mod measures;
pub mod nmf;
pub mod once;
pub mod prompts;
pub mod reader_score;
pub mod readers;
pub mod reading;
pub mod readout;
pub mod record;
pub mod relevance;
pub mod statistics;
pub mod stored;
pub mod strata;
pub mod strength;
pub mod svd;
pub mod token_counts;
pub mod vocabulary;
pub mod windows;
pub mod writing;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor};
use serde::Serialize;

use self::decode::Decoded;
use self::embedder::Embedder;
use self::hashes::Hashes;
pub use self::inputs::Inputs;
use self::mean_difference::Means;
use self::measures::chat::Turns;
use self::measures::completion_ranking::CompletionLine;
use self::measures::logit_contrast::ContrastLine;
use self::measures::steering::SteeringLine;
use self::measures::{
    bias_share, causal, chat, completion_ranking, context, depth, diff_mining, dimensionality,
    identification, interpolation, kl, lift, logit_contrast, logit_lens, patchscope, probe, steering,
    weights,
};
use self::readers::Readers;
use self::reading::{Prepared, Reading};
use self::record::Readability;
use crate::atomic::{write_atomically, write_folder, write_json};
use crate::bail_input;
use crate::interrupt::Interrupt;
use crate::model::load::checkpoint::write_safetensors;
use crate::progress;
use crate::sha256::sha256_tree;

/// Everything that an analysis found.
pub struct Analysis {
    /// The numbers.
    pub record: Readability,
    /// Mean activations and their difference.
    pub means: Means,
    /// What difference and baselines decode to under the logit lens.
    pub logit_lens: Vec<Decoded>,
    /// The same of the patchscope, at every scale.
    pub patchscope: Vec<Decoded>,
    /// The same on conversations, if there are any.
    pub chat_means: Option<Means>,
    /// Steered and unsteered text.
    pub steering: Vec<SteeringLine>,
    /// Text that amplifies what sets the models apart.
    pub logit_contrast: Vec<ContrastLine>,
    /// Completions in order of their rank.
    pub completion_ranking: Vec<CompletionLine>,
}

/// The whole analysis. `embedder` may be `None` where [`DiffSection::uses_embedder`] says so.
///
/// # Errors
/// An [`crate::error::InputError`] if the texts are too few or short; [`crate::error::Interrupted`]; otherwise
/// what went wrong while working.
pub fn diff(inputs: &Inputs, embedder: Option<&Embedder>, interrupt: &Interrupt) -> Result<Analysis> {
    let settings = inputs.settings;
    let mut elapsed_s = BTreeMap::new();
    let mut clock = Instant::now();
    let mut lap = |stage: &str| {
        progress::detail(format_args!("{stage}: {:.1} s", clock.elapsed().as_secs_f64()));
        elapsed_s.insert(stage.to_string(), clock.elapsed().as_secs_f64());
        clock = Instant::now();
    };

    estimate::say(inputs, interrupt)?;
    lap("estimate");

    // What differs.
    let turns = (!settings.chat.text.is_empty()).then(|| Turns::cut(inputs)).transpose()?;
    let prepared = Prepared::new(inputs)?;
    let reading = Reading::new(inputs, &prepared, embedder, interrupt)?;
    lap("activations");

    // What it decodes to.
    let (logit_lens, lens_tokens) =
        settings.logit_lens.then(|| logit_lens::measure(&reading)).transpose()?.unzip();
    lap("logit_lens");
    let lift = settings.lift.then(|| lift::measure(&reading)).transpose()?.flatten();
    lap("lift");
    let (patchscope, scope_tokens) =
        settings.patchscope.enabled.then(|| patchscope::measure(&reading)).transpose()?.unzip();
    lap("patchscope");
    let context = settings.context.enabled.then(|| context::measure(&reading)).transpose()?;
    lap("context");
    let dimensionality =
        settings.dimensionality.enabled.then(|| dimensionality::measure(&reading)).transpose()?;
    lap("dimensionality");
    let depth = settings.depth.enabled.then(|| depth::measure(&reading)).transpose()?;
    lap("depth");
    let (chat, chat_means) = turns.map(|turns| chat::measure(&reading, &turns)).transpose()?.unzip();
    lap("chat");

    let probe = settings.probe.enabled.then(|| probe::measure(&reading)).transpose()?.flatten();
    lap("probe");

    // What it makes the model write.
    reading.check_interrupt()?;
    let steered = settings.steering.enabled.then(|| steering::measure(&reading)).transpose()?;
    lap("steering");

    // Which corpus all of that points at.
    let identification = identification::measure(&reading, patchscope.as_ref(), steered.as_ref())?;
    lap("identification");
    let (steering, lines) = steered.map(|s| (s.record, s.lines)).unzip();

    // What the weights say by themselves.
    let weights = settings.weights.enabled.then(|| weights::measure(&reading)).transpose()?;
    lap("weights");

    // What it does to the losses.
    let bias_share =
        settings.bias_share.enabled.then(|| bias_share::measure(&reading)).transpose()?.flatten();
    lap("bias_share");
    let kl = settings.kl.enabled.then(|| kl::measure(&reading)).transpose()?;
    lap("kl");
    let causal = settings.causal.enabled.then(|| causal::measure(&reading)).transpose()?;
    lap("causal");
    let interpolation =
        settings.interpolation.enabled.then(|| interpolation::measure(&reading)).transpose()?;
    lap("interpolation");

    // What both models say next.
    let contrast = settings.logit_contrast.enabled.then(|| logit_contrast::measure(&reading)).transpose()?;
    lap("logit_contrast");
    let diff_mining =
        settings.diff_mining.enabled.then(|| diff_mining::measure(&reading)).transpose()?.flatten();
    lap("diff_mining");
    let completions = settings.completion_ranking.enabled;
    let completions = completions.then(|| completion_ranking::measure(&reading)).transpose()?.flatten();
    lap("completion_ranking");
    let (logit_contrast, contrast_lines) = contrast.unzip();
    let (completion_ranking, completion_lines) = completions.unzip();

    let mut record = Readability::about(&reading);
    record.readers = Readers { logit_contrast, diff_mining, completion_ranking, weights };
    record.logit_lens = logit_lens;
    record.lift = lift;
    record.patchscope = patchscope;
    record.steering = steering;
    record.bias_share = bias_share;
    record.kl = kl;
    record.causal = causal;
    record.interpolation = interpolation;
    record.context = context;
    record.dimensionality = dimensionality;
    record.depth = depth;
    record.probe = probe;
    record.chat = chat;
    record.identification = identification;
    record.elapsed_s = elapsed_s;
    Ok(Analysis {
        record,
        means: reading.means,
        chat_means,
        logit_lens: lens_tokens.unwrap_or_default(),
        patchscope: scope_tokens.unwrap_or_default(),
        steering: lines.unwrap_or_default(),
        logit_contrast: contrast_lines.unwrap_or_default(),
        completion_ranking: completion_lines.unwrap_or_default(),
    })
}

impl Analysis {
    /// Writes `readability.json`, `activations.safetensors`, `logit_lens.jsonl`, `patchscope.jsonl`, `steering.jsonl`
    /// and, with their hashes, `sha256.json` into a new folder, which gets its name when it is whole. `read` tells what
    /// was read.
    ///
    /// # Errors
    /// An input error if the folder exists; otherwise if the disk is full.
    pub fn write(&self, dir: &Path, read: &Hashes) -> Result<()> {
        must_be_new(dir)?;
        write_folder(dir, |part| {
            let rows = |v: &[Vec<f32>]| Tensor::from_vec(v.concat(), (v.len(), v[0].len()), &Device::Cpu);
            let positions: Vec<u32> = self.record.positions.iter().map(|p| *p as u32).collect();
            let positions = Tensor::new(positions, &Device::Cpu)?;
            let mut tensors: BTreeMap<String, Tensor> = BTreeMap::from([("positions".into(), positions)]);
            for (prefix, means) in [("", Some(&self.means)), ("chat_", self.chat_means.as_ref())] {
                let Some(means) = means else { continue };
                tensors.insert(format!("{prefix}mean_difference"), rows(&means.difference)?);
                tensors.insert(format!("{prefix}base_mean"), rows(&means.base)?);
                tensors.insert(format!("{prefix}tuned_mean"), rows(&means.tuned)?);
            }
            write_safetensors(&part.join("activations.safetensors"), &tensors)?;
            write_lines(&part.join("logit_lens.jsonl"), &self.logit_lens)?;
            write_lines(&part.join("patchscope.jsonl"), &self.patchscope)?;
            write_lines(&part.join("steering.jsonl"), &self.steering)?;
            write_lines(&part.join("logit_contrast.jsonl"), &self.logit_contrast)?;
            write_lines(&part.join("completion_ranking.jsonl"), &self.completion_ranking)?;
            write_json(&part.join("readability.json"), &self.record)?;
            let files = sha256_tree(part, part)?;
            write_json(&part.join(hashes::FILE), &Hashes { files, ..read.clone() })
        })
    }
}

/// JSON lines; no file without lines.
fn write_lines(path: &Path, lines: &[impl Serialize]) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    if text.is_empty() { Ok(()) } else { write_atomically(path, text.as_bytes()) }
}

/// Refuses to write over an analysis.
///
/// # Errors
/// An input error that says what to do.
pub fn must_be_new(dir: &Path) -> Result<()> {
    if dir.exists() {
        bail_input!("{}: exists already; remove it or choose another --out", dir.display());
    }
    Ok(())
}
