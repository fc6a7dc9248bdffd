//! Batched generation with a KV cache; hooks see every pass.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::causal_lm::{CausalLm, View};
use super::hooks::Hook;
use super::pass::{KvCache, Pass};
use super::sampler::TokenSampler;
use crate::ops::kernels::teams;
use crate::ops::segments::{Segments, keep_flagged};

/// How tokens are drawn, and how many.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// At most this many new tokens a prompt.
    pub max_new_tokens: usize,
    /// 0 is greedy; otherwise plain sampling at this temperature, no truncation.
    pub temperature: f64,
    /// Each prompt draws from its own stream, decided by this and the stream's number.
    pub seed: u64,
    /// A token of these ends its sequence and is kept as its last.
    pub eos: Vec<u32>,
}

/// New token ids for each prompt, prompt `i` drawing from stream `i`; see [`generate_from`].
///
/// # Errors
/// As [`generate_from`].
pub fn generate(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    sampling: &Sampling,
    adapter: f64,
    hook: &mut dyn Hook,
    on_token: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<u32>>> {
    let streams: Vec<u64> = (0..prompts.len() as u64).collect();
    generate_from(model, prompts, &streams, sampling, adapter, hook, on_token)
}

/// New token ids for each prompt, whose draws are decided by the seed and its number in `streams`, so that the same
/// prompt gets the same text in whatever batch it is.
///
/// `adapter` scales the adapter (1 tuned, 0 base); `hook` sees `(tokens, hidden)` of the prompts first, then
/// one token of each sequence that is still going, named by [`Segments::id`]. `on_token` is called after
/// every pass with the number of passes done; its error ends the generation.
///
/// # Errors
/// If a prompt is empty, or a tensor operation fails.
pub fn generate_from(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    streams: &[u64],
    sampling: &Sampling,
    adapter: f64,
    hook: &mut dyn Hook,
    mut on_token: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<u32>>> {
    ensure!(prompts.iter().all(|p| !p.is_empty()), "a prompt has no tokens");
    ensure!(streams.len() == prompts.len(), "{} streams for {} prompts", streams.len(), prompts.len());
    let seed = sampling.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut samplers: Vec<TokenSampler> =
        streams.iter().map(|stream| TokenSampler::new(sampling.temperature, seed ^ stream)).collect();
    let mut new: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
    let mut going = Going::new(View { model, adapter }, prompts);
    teams::awake(|| -> Result<()> {
        for step in 0..sampling.max_new_tokens {
            if going.is_empty() {
                break;
            }
            // (sequences, vocab), in the host's memory: samplers run on several threads, a device's tensors on this one only.
            let logits = going.logits(hook)?.to_device(&Device::Cpu)?;

            // The samplers of those that have not ended, each with its row.
            let mut chosen: Vec<(usize, &mut TokenSampler)> = Vec::with_capacity(going.len());
            let mut rest = samplers.iter_mut().enumerate();
            for (row, id) in going.ids().enumerate() {
                chosen.extend(rest.find(|(i, _)| *i == id).map(|(_, sampler)| (row, sampler)));
            }
            let ids = chosen
                .into_par_iter()
                .map(|(row, sampler)| sampler.sample(&logits.get(row)?))
                .collect::<Result<Vec<u32>>>()?;
            for (i, &id) in going.ids().zip(&ids) {
                new[i].push(id);
            }
            on_token(step + 1)?;

            let keep: Vec<bool> = ids.iter().map(|id| !sampling.eos.contains(id)).collect();
            going.advance(ids, &keep);
        }
        Ok(())
    })?;
    Ok(new)
}

/// Sequences that a model is writing: their keys and values, and the tokens that it has not read yet.
pub(super) struct Going<'a> {
    view: View<'a>,
    cache: KvCache,
    segments: Segments,
    unread: Vec<u32>,
}

impl<'a> Going<'a> {
    /// The prompts, none read yet; sequence `i` has the id `i`.
    pub(super) fn new(view: View<'a>, prompts: &[Vec<u32>]) -> Self {
        let segments = Segments::new(prompts.iter().map(Vec::len).collect());
        Self { view, cache: KvCache::new(view.model.n_layers()), segments, unread: prompts.concat() }
    }

    /// Sequences that have not ended.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether all have ended.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Their ids, ascending.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(|i| self.segments.id(i))
    }

    /// Reads the tokens that are new: logits `(sequences, vocab)` of the next ones.
    pub(super) fn logits(&mut self, hook: &mut dyn Hook) -> Result<Tensor> {
        let View { model, adapter } = self.view;
        let mut pass = Pass { cache: Some(&mut self.cache), ..Pass::new(&self.segments, adapter, hook) };
        let x = model.embed(&self.unread, &pass)?;
        let x = model.run(x, 0..model.n_layers(), &mut pass)?;
        let last = Tensor::new(self.segments.last_rows(), model.device())?;
        let x = model.final_norm(&x.index_select(&last, 0)?, &pass)?; // (sequences, hidden)
        Ok(model.logits(&x, adapter)?)
    }

    /// Appends a token to each sequence; those whose flag is not set have ended with it.
    pub(super) fn advance(&mut self, mut ids: Vec<u32>, keep: &[bool]) {
        let kept: Vec<usize> = (0..self.len()).filter(|&i| keep[i]).collect();
        let past = kept.iter().map(|&i| self.segments.past(i) + self.segments.rows(i).len()).collect();
        let names = kept.iter().map(|&i| self.segments.id(i)).collect();
        self.cache.retain(keep);
        keep_flagged(&mut ids, keep);
        self.unread = ids;
        self.segments = Segments::with_past(vec![1; kept.len()], past).named(names);
    }
}
