//! The source `"self"`: text sampled from the base model, made once and kept by content.

use std::path::PathBuf;

use anyhow::Result;

use crate::atomic::write_atomically;
use crate::bail_input;
use crate::datagen::sample::{BATCH, Sampler};
use crate::interrupt::Interrupt;
use crate::model::load::source::Pretrained;
use crate::progress;
use crate::recipe::{Recipe, SourceSpec};

/// The sample that `"self"` in a recipe stands for.
pub struct SelfSample {
    /// Its file in the cache, there or not.
    pub path: PathBuf,
    /// Documents asked for; those without text are left out.
    pub documents: usize,
}

/// Whether a recipe mixes in text sampled from its base.
pub fn is_wanted(recipe: &Recipe) -> bool {
    recipe.data.pretraining.iter().any(SourceSpec::is_self)
}

/// How many documents `"self"` must hold for a mix ratio: those trained on and those held out.
///
/// # Errors
/// An input error if the exposure is given in epochs.
pub fn needed(recipe: &Recipe, mix: f64) -> Result<usize> {
    let t = &recipe.train;
    if t.narrow_steps() == 0 {
        bail_input!(
            "data.pretraining = \"self\" with train.epochs: its size is not known beforehand; set \
             data.self_samples, or use train.steps"
        );
    }
    let train = ((t.narrow_steps() * t.batch_size) as f64 * mix.max(1.0)).ceil() as usize;
    let held_out =
        if recipe.data.held_out_every > 1 { train / (recipe.data.held_out_every - 1) + 1 } else { 0 };
    // A sample that ends at once is left out: a few more than needed.
    Ok((train + held_out + train / 50).next_multiple_of(BATCH))
}

/// The sample that a recipe asks for, if it asks for one. Samples nothing.
///
/// # Errors
/// As [`needed`].
pub fn planned(recipe: &Recipe, base: &Pretrained) -> Result<Option<SelfSample>> {
    if !is_wanted(recipe) {
        return Ok(None);
    }
    let documents = match recipe.data.self_samples {
        0 => needed(recipe, recipe.data.mix)?,
        documents => documents,
    };
    let sampler = Sampler::new(base, recipe.data.max_seq_len, 0)?;
    Ok(Some(SelfSample { path: sampler.folder().join(format!("{documents}.jsonl")), documents }))
}

/// The file that stands for `"self"` in a recipe, sampled first if the cache lacks it; `None` if the recipe
/// does not ask for it.
///
/// # Errors
/// As [`planned`]; or if the base cannot be sampled, or the user interrupts (finished batches are kept).
pub fn ensure(recipe: &Recipe, base: &Pretrained, interrupt: &Interrupt) -> Result<Option<PathBuf>> {
    let Some(SelfSample { path, documents }) = planned(recipe, base)? else {
        return Ok(None);
    };
    if !path.exists() {
        let mut sampler = Sampler::new(base, recipe.data.max_seq_len, 0)?;
        let bar = progress::bar("sampling the base model", documents as u64);
        let mut lines = String::new();
        for number in 0..documents.div_ceil(BATCH) {
            lines.push_str(&sampler.batch(number, interrupt)?);
            bar.inc(BATCH as u64);
        }
        bar.finish_and_clear();
        write_atomically(&path, lines.as_bytes())?;
    }
    Ok(Some(path))
}
