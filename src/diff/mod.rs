//! Reading a finetuned model's activation differences (Minder et al., arXiv 2510.13900).
//!
//! [`diff`] is the whole analysis in order: activations of both models on the same unrelated tokens, their mean
//! difference, and every measure that the settings ask for: what the difference decodes to (logit lens, patchscope), what it
//! makes the model write (steering), and how much of that is about the narrow data. A measure is one file in
//! [`measures`], which says how to add one.

pub mod beginnings;
pub mod coherence;
pub mod collect;
pub mod columns;
pub mod corpora;
pub mod decode;
pub mod during_training;
pub mod eigen;
pub mod embedder;
pub mod estimate;
pub mod findings;
pub mod hashes;
pub mod inputs;
pub mod lexicon;
pub mod loss_texts;
pub mod losses;
pub mod mean_difference;
pub mod measure;
pub mod measures;
pub mod nmf;
pub mod once;
pub mod plot;
pub mod prompts;
pub mod reader_score;
pub mod reading;
pub mod readout;
pub mod record;
pub mod registry;
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

use self::embedder::Embedder;
use self::findings::Findings;
use self::hashes::Hashes;
pub use self::inputs::Inputs;
use self::mean_difference::Means;
use self::reading::{Prepared, Reading};
use self::record::Readability;
pub use self::registry::MEASURES;
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
    /// Mean activations and their difference; further ones by the prefix of their names.
    pub means: Vec<(&'static str, Means)>,
    /// Name and content of the files that measures write.
    pub files: Vec<(&'static str, String)>,
}

/// The whole analysis. `embedder` may be `None` where [`registry::needs`] says so.
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

    let mut found = Findings::default();
    for measure in registry::wanted(settings) {
        (measure.prepare)(inputs, &mut found)?;
    }
    let prepared = Prepared::new(inputs)?;
    let keeps_samples = registry::needs(settings).single_samples;
    let reading = Reading::new(inputs, &prepared, embedder, keeps_samples, interrupt)?;
    lap("activations");

    for measure in MEASURES {
        reading.check_interrupt()?;
        if (measure.is_wanted)(settings) {
            (measure.measure)(&reading, &mut found)?;
        }
        lap(measure.key);
    }

    let mut record = Readability::about(&reading);
    for measure in MEASURES {
        let units = measure.units.iter().map(|(key, unit)| (key.to_string(), unit.to_string()));
        record.units.extend(units);
        (measure.keep)(&mut found, &mut record);
    }
    record.elapsed_s = elapsed_s;
    found.means.insert(0, ("", reading.means));
    Ok(Analysis { record, means: found.means, files: found.files })
}

impl Analysis {
    /// Writes `readability.json`, `activations.safetensors`, the files of measures (`logit_lens.jsonl`, `patchscope.jsonl`,
    /// `steering.jsonl`, `logit_contrast.jsonl`, `completion_ranking.jsonl`) and, with their hashes, `sha256.json` into a new
    /// folder, which gets its name when it is whole. `read` says what was read.
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
            for (prefix, means) in &self.means {
                tensors.insert(format!("{prefix}mean_difference"), rows(&means.difference)?);
                tensors.insert(format!("{prefix}base_mean"), rows(&means.base)?);
                tensors.insert(format!("{prefix}tuned_mean"), rows(&means.tuned)?);
            }
            write_safetensors(&part.join("activations.safetensors"), &tensors)?;
            for (name, content) in &self.files {
                write_atomically(&part.join(name), content.as_bytes())?;
            }
            write_json(&part.join("readability.json"), &self.record)?;
            let files = sha256_tree(part, part)?;
            write_json(&part.join(hashes::FILE), &Hashes { files, ..read.clone() })
        })
    }
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
