//! Text that a base model writes by itself. Its expected gradient is zero, so that mixing it in teaches nothing new.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use crate::atomic::write_atomically;
use crate::bail_input;
use crate::interrupt::Interrupt;
use crate::model::generate::{Sampling, generate};
use crate::model::hooks::NoHook;
use crate::model::load::alias;
use crate::model::load::loader::Tuning;
use crate::model::load::source::Pretrained;
use crate::model::{CausalLm, device};

/// Documents in one batch of sampling.
pub const BATCH: usize = 32;

/// A base model that writes, batch by batch. Finished batches are kept in the cache by what decides them.
pub struct Sampler<'a> {
    base: &'a Pretrained,
    tokens: usize,
    seed: u64,
    folder: PathBuf,
    model: Option<CausalLm>,
}

impl<'a> Sampler<'a> {
    /// A sampler of documents of at most `tokens` tokens. Loads and writes nothing.
    ///
    /// # Errors
    /// If there is no place for a cache.
    pub fn new(base: &'a Pretrained, tokens: usize, seed: u64) -> Result<Self> {
        let mut hash = Sha256::new();
        hash.update(serde_json::to_string(&base.sha256)?);
        hash.update(format!("temperature 1, {tokens} tokens, v2"));
        if seed != 0 {
            hash.update(format!(", seed {seed}"));
        }
        let key = format!("{:x}", hash.finalize());
        let folder = alias::cache_dir()?.join("self-sampled").join(&key[..16]);
        Ok(Self { base, tokens, seed, folder, model: None })
    }

    /// Where batches are kept.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// The documents of a batch, as JSON lines of `{"text": …}`: at most [`BATCH`] of at most `tokens` tokens, sampled at
    /// temperature 1 without truncation from the beginning-of-sequence token (or the end-of-sequence token where a model
    /// has no other start). Those that end at once are left out. A batch is decided by its number alone, so that a larger
    /// sample begins like a smaller one.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; an [`crate::error::InputError`] for a model that has no token to start with.
    pub fn batch(&mut self, number: usize, interrupt: &Interrupt) -> Result<String> {
        let first = number * BATCH;
        let part = self.folder.join(format!("batch-{first:06}.jsonl"));
        if part.exists() {
            return crate::input_file::read_to_string(&part)
                .with_context(|| format!("reading {}", part.display()));
        }
        let stopped = "rerun the command to resume; finished batches of self-sampled text are kept";
        interrupt.check(stopped)?;
        let start = start_token(self.base)?;
        let model = match self.model.take() {
            Some(model) => model,
            None => CausalLm::load(self.base, &Tuning::Frozen, &device()?)?.0,
        };
        let model = self.model.insert(model);
        let sampling = Sampling {
            max_new_tokens: self.tokens - 1,
            temperature: 1.0,
            // Far apart for neighbouring seeds, and the number itself for seed 0.
            seed: self.seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ first as u64,
            eos: self.base.eos_token_ids.clone(),
        };
        let prompts = vec![vec![start]; BATCH];
        let ids = generate(model, &prompts, &sampling, 0.0, &mut NoHook, |_| interrupt.check(stopped))?;
        let mut batch = String::new();
        for ids in ids {
            let text = fitting_text(self.base, ids, self.tokens)?;
            if !text.trim().is_empty() {
                batch.push_str(&serde_json::json!({ "text": text }).to_string());
                batch.push('\n');
            }
        }
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("creating {}", self.folder.display()))?;
        write_atomically(&part, batch.as_bytes())?;
        Ok(batch)
    }
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
