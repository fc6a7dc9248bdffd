//! Text that a model writes with and without a vector added at the block that is read, in batches that fit in memory.

use anyhow::{Result, anyhow};
use candle_core::Tensor;

use super::collect::to_tensor;
use super::mean_difference::{self, factor_to};
use super::reading::Reading;
use crate::model::View;
use crate::model::generate::{Sampling, generate_from};
use crate::model::hooks::Steer;
use crate::progress;

/// Tokens whose keys and values are held at once: bounds the texts that are written together.
const BATCH_TOKENS: usize = 16_384;

/// One text to write.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Index of the prompt.
    pub prompt: usize,
    /// Index of the vector that is added, if any.
    pub vector: Option<usize>,
    /// Number of the random stream: the same job with the same number gives the same text in any batch.
    pub stream: u64,
}

/// `samples` jobs for each prompt with one vector, in order, on streams from `first` on.
pub fn jobs(prompts: usize, samples: usize, vector: Option<usize>, first: usize) -> Vec<Job> {
    let job = |i: usize| Job { prompt: i / samples, vector, stream: (first + i) as u64 };
    (0..prompts * samples).map(job).collect()
}

/// A direction scaled to `strength` η, as `(hidden)` is added to the stream.
///
/// # Errors
/// If a tensor operation fails.
pub fn steering_vector(reading: &Reading, direction: &[f32], strength: f64) -> Result<Tensor> {
    let factor = factor_to(1.0, direction) * strength * reading.eta();
    to_tensor(&[mean_difference::scaled(direction, factor)], reading.inputs.tuned.model)
}

/// New token ids of each job.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn write(
    reading: &Reading,
    view: View,
    prompts: &[Vec<u32>],
    vectors: &[Tensor],
    jobs: &[Job],
    sampling: &Sampling,
) -> Result<Vec<Vec<u32>>> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + sampling.max_new_tokens;
    let rows = (BATCH_TOKENS / longest).max(1);
    let bar = progress::bar("writing", (jobs.len().div_ceil(rows) * sampling.max_new_tokens) as u64);
    let mut out = Vec::with_capacity(jobs.len());
    for (i, batch) in jobs.chunks(rows).enumerate() {
        let ids: Vec<Vec<u32>> = batch.iter().map(|job| prompts[job.prompt].clone()).collect();
        let streams: Vec<u64> = batch.iter().map(|job| job.stream).collect();
        let added = batch.iter().map(|job| job.vector.map(|v| vectors[v].clone())).collect();
        let mut hook = Steer::new(reading.layer, added);
        let done = (i * sampling.max_new_tokens) as u64;
        let new = generate_from(view.model, &ids, &streams, sampling, view.adapter, &mut hook, |n| {
            bar.set_position(done + n as u64);
            reading.check_interrupt()
        })?;
        out.extend(new);
    }
    bar.finish_and_clear();
    Ok(out)
}

/// The texts of token ids, without special tokens.
///
/// # Errors
/// If the tokenizer fails.
pub fn texts(reading: &Reading, ids: &[Vec<u32>]) -> Result<Vec<String>> {
    let tokenizer = &reading.inputs.pretrained.tokenizer;
    ids.iter().map(|ids| tokenizer.decode(ids, true).map_err(|e| anyhow!(e))).collect()
}
