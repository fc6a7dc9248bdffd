//! The source `"self"`: text sampled from the base model, made once and kept by content.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use crate::atomic::write_atomically;
use crate::bail_input;
use crate::interrupt::Interrupt;
use crate::model::generate::{Sampling, generate};
use crate::model::hooks::NoHook;
use crate::model::loader::Tuning;
use crate::model::source::Pretrained;
use crate::model::{CausalLm, alias, device};
use crate::progress;
use crate::recipe::{Recipe, SourceSpec};

/// Documents in one batch of sampling.
const BATCH: usize = 32;

/// The sample that `"self"` in a recipe stands for.
pub struct SelfSample {
    /// Its file in the cache, there or not.
    pub path: PathBuf,
    /// Documents asked for; those without text are left out.
    pub documents: usize,
    folder: PathBuf,
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
    if t.steps == 0 {
        bail_input!(
            "data.pretraining = \"self\" with train.epochs: its size is not known beforehand; set \
             data.self_samples, or use train.steps"
        );
    }
    let train = ((t.steps * t.batch_size) as f64 * mix.max(1.0)).ceil() as usize;
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
    let mut hash = Sha256::new();
    hash.update(serde_json::to_string(&base.sha256)?);
    hash.update(format!("temperature 1, {} tokens, v2", recipe.data.max_seq_len));
    let key = format!("{:x}", hash.finalize());
    let folder = alias::cache_dir()?.join("self-sampled").join(&key[..16]);
    Ok(Some(SelfSample { path: folder.join(format!("{documents}.jsonl")), documents, folder }))
}

/// The file that stands for `"self"` in a recipe, sampled first if the cache lacks it; `None` if the recipe
/// does not ask for it. Fills in `data.self_samples`.
///
/// # Errors
/// As [`planned`]; or if the base cannot be sampled, or the user interrupts (finished batches are kept).
pub fn ensure(recipe: &mut Recipe, base: &Pretrained, interrupt: &Interrupt) -> Result<Option<PathBuf>> {
    let Some(SelfSample { path, documents, folder }) = planned(recipe, base)? else {
        return Ok(None);
    };
    recipe.data.self_samples = documents;
    if !path.exists() {
        sample(base, documents, recipe.data.max_seq_len, &folder, &path, interrupt)?;
    }
    Ok(Some(path))
}

/// Samples `count` documents of at most `tokens` tokens at temperature 1 without truncation, from the
/// beginning-of-sequence token (or the end-of-sequence token where a model has no other start).
fn sample(
    base: &Pretrained,
    count: usize,
    tokens: usize,
    folder: &Path,
    whole: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let start = start_token(base)?;
    let (model, _) = CausalLm::load(base, &Tuning::Frozen, &device()?)?;
    let bar = progress::bar("sampling the base model", count as u64);
    let mut lines = String::new();
    for first in (0..count.next_multiple_of(BATCH)).step_by(BATCH) {
        // A batch is decided by its number alone, so a larger sample begins like a smaller one.
        let part = folder.join(format!("batch-{first:06}.jsonl"));
        if !part.exists() {
            interrupt.check("run the same command again: finished batches of self-sampled text are kept")?;
            let prompts = vec![vec![start]; BATCH];
            let sampling = Sampling {
                max_new_tokens: tokens - 1,
                temperature: 1.0,
                seed: first as u64,
                eos: base.eos_token_ids.clone(),
            };
            let ids = generate(&model, &prompts, &sampling, 0.0, &mut NoHook, |_| Ok(()))?;
            let mut batch = String::new();
            for ids in ids {
                let text = fitting_text(base, ids, tokens)?;
                // A sequence that ends at once has no text; the batch's other rows stand for it.
                if !text.trim().is_empty() {
                    batch.push_str(&serde_json::json!({ "text": text }).to_string());
                    batch.push('\n');
                }
            }
            write_atomically(&part, batch.as_bytes())?;
        }
        lines.push_str(&std::fs::read_to_string(&part)?);
        bar.inc(BATCH as u64);
    }
    bar.finish_and_clear();
    write_atomically(whole, lines.as_bytes())
}

/// The text of sampled ids, shortened until it is read back as at most `tokens` tokens: what was sampled token
/// by token may be split otherwise when it is read.
fn fitting_text(base: &Pretrained, mut ids: Vec<u32>, tokens: usize) -> Result<String> {
    loop {
        let text = base.tokenizer.decode(&ids, true).map_err(|e| anyhow!(e))?;
        let length = base.tokenizer.encode(text.as_str(), true).map_err(|e| anyhow!(e))?.len();
        if length <= tokens || ids.is_empty() {
            return Ok(text);
        }
        ids.truncate(ids.len() - (length - tokens).min(ids.len()));
    }
}

fn start_token(base: &Pretrained) -> Result<u32> {
    let special = base.tokenizer.encode("", true).map_err(|e| anyhow!(e))?;
    if let Some(first) = special.get_ids().first() {
        return Ok(*first);
    }
    for name in ["<|endoftext|>"].into_iter().chain(base.bos_token.as_deref()) {
        if let Some(id) = base.tokenizer.token_to_id(name) {
            return Ok(id);
        }
    }
    bail_input!("{}: has no token to start a text with; \"self\" cannot be sampled from it", base.id)
}
