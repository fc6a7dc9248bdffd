//! The model that everything above computes with: embeddings, blocks, norm and head.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::arch;
use super::arch::layers::{Linear, RmsNorm};
use super::decoder::{Block, Decoder};
use super::hooks::{NoHook, Site};
use super::load::loader::{HEAD, Loader, Tuning};
use super::load::source::Pretrained;
use super::modules::{Module, Stream};
use super::pass::{Pass, at_site};
use super::trainables::Trainables;
use crate::ops::tape::Tape;
use crate::ops::weight::Matrix;
use crate::ops::{embedding, linear};

/// A model with its adapter on or off. Base and tuned are usually two views of one loaded model.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The model.
    pub model: &'a CausalLm,
    /// Factor on its adapter.
    pub adapter: f64,
}

/// A causal language model with hooks at its residual sites.
pub struct CausalLm {
    decoder: Decoder,
    ties_head: bool,
    device: Device,
}

impl CausalLm {
    /// Builds the model that `config.json` names; also returns what is trained.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for an architecture that is not built here, a config without a needed
    /// key, or weights or an adapter that do not fit (all faults at once).
    pub fn load(from: &Pretrained, tuning: &Tuning, device: &Device) -> Result<(Self, Trainables)> {
        let mut loader = Loader::new(&from.weights, tuning, device);
        let architecture = arch::of_config(&from.id, &from.config)?;
        let decoder = (architecture.load)(&from.config, &mut loader).with_context(|| from.id.clone())?;
        let ties_head = !loader.has_read(HEAD);
        let trainables = loader.finish().with_context(|| from.id.clone())?;
        Ok((Self { decoder, ties_head, device: device.clone() }, trainables))
    }

    /// Number of blocks.
    pub fn n_layers(&self) -> usize {
        self.decoder.blocks.len()
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        self.decoder.embed_tokens.base.dims()[1]
    }

    /// Rows of the unembedding.
    pub fn vocab_size(&self) -> usize {
        self.decoder.lm_head.base.dims()[0]
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the base model's head is its embeddings.
    pub fn ties_head(&self) -> bool {
        self.ties_head
    }

    /// The unembedding `(vocab, hidden)`. `adapter` as in [`Pass`]: an adapter may bring a head of its own.
    pub fn unembedding(&self, adapter: f64) -> &Matrix {
        self.decoder.lm_head.at(adapter)
    }

    /// The table of embeddings `(vocab, hidden)`, without the factor of some architectures. `adapter` as in [`Pass`].
    pub fn embeddings(&self, adapter: f64) -> &Matrix {
        self.decoder.embed_tokens.at(adapter)
    }

    /// Whether the adapter has embeddings, a head or a norm before the head of its own.
    pub fn saves_tables(&self) -> bool {
        let Decoder { embed_tokens, norm, lm_head, .. } = &self.decoder;
        embed_tokens.saved.is_some() || norm.weight.saved.is_some() || lm_head.saved.is_some()
    }

    /// Whether the adapter has norms of blocks of its own.
    pub fn saves_norms(&self) -> bool {
        let is_saved = |norm: &RmsNorm| norm.weight.saved.is_some();
        self.modules().iter().any(|(_, module)| match module.stream {
            Stream::Reads(norm) => is_saved(norm),
            Stream::Writes(norm) => norm.is_some_and(is_saved),
        })
    }

    /// The norm before the head.
    pub fn norm(&self) -> &RmsNorm {
        &self.decoder.norm
    }

    /// The linear layers of every block, lowest block first, each with its block's number.
    pub fn modules(&self) -> Vec<(usize, Module<'_>)> {
        let blocks = self.decoder.blocks.iter().enumerate();
        blocks.flat_map(|(block, b)| b.modules().into_iter().map(move |module| (block, module))).collect()
    }

    /// The model with the linear layers of its blocks changed, each by its name (`model.layers.0.self_attn.q_proj`). What
    /// is not changed is shared with this one.
    pub fn with_linears(&self, mut change: impl FnMut(&str, &mut Linear)) -> Self {
        let changed = |(i, block): (usize, &Arc<dyn Block>)| {
            block.with_linears(&mut |name, linear| change(&format!("model.layers.{i}.{name}"), linear))
        };
        let blocks = self.decoder.blocks.iter().enumerate().map(changed).collect();
        let decoder = Decoder { blocks, ..self.decoder.clone() };
        Self { decoder, ties_head: self.ties_head, device: self.device.clone() }
    }

    /// Soft cap of the logits, where the architecture has one.
    pub fn logit_softcap(&self) -> Option<f32> {
        self.decoder.final_logit_softcapping
    }

    /// The residual stream before the first block, `(tokens, hidden)`.
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub fn embed(&self, ids: &[u32], pass: &Pass) -> candle_core::Result<Tensor> {
        let table = self.decoder.embed_tokens.at(pass.adapter);
        embedding::embedding(table, ids, self.decoder.embed_scale, pass.tape)
    }

    /// The stream through a range of blocks, calling the hook at every site.
    ///
    /// # Errors
    /// If a tensor operation or the hook fails.
    pub fn run(&self, mut x: Tensor, blocks: Range<usize>, pass: &mut Pass) -> candle_core::Result<Tensor> {
        for layer in blocks {
            x = at_site(pass, layer, Site::ResidPre, x)?;
            x = match pass.recompute {
                true => self.run_recomputed(&x, layer, pass)?,
                false => self.decoder.blocks[layer].forward(&x, layer, pass)?,
            };
            x = at_site(pass, layer, Site::ResidPost, x)?;
        }
        Ok(x)
    }

    /// One block, of which the tape keeps its input and where its dropout stream began.
    fn run_recomputed(&self, x: &Tensor, layer: usize, pass: &mut Pass) -> candle_core::Result<Tensor> {
        let block = &self.decoder.blocks[layer];
        let again = {
            let (block, x, segments) = (block.clone(), x.clone(), pass.segments.clone());
            let (adapter, mut rng) = (pass.adapter, pass.dropout.as_deref().cloned());
            move |tape: Tape| {
                let mut hook = NoHook; // the first pass was watched
                let mut pass =
                    Pass { tape, dropout: rng.as_mut(), ..Pass::new(&segments, adapter, &mut hook) };
                block.forward(&x, layer, &mut pass)
            }
        };
        let forward = |tape: Tape| {
            let mut pass = Pass {
                segments: pass.segments,
                adapter: pass.adapter,
                hook: &mut *pass.hook,
                cache: pass.cache.as_deref_mut(),
                tape,
                dropout: pass.dropout.as_deref_mut(),
                recompute: false,
            };
            block.forward(x, layer, &mut pass)
        };
        pass.tape.recomputed(forward, again)
    }

    /// The normed stream after the last block, `(tokens, hidden)`: what the head reads.
    ///
    /// # Errors
    /// As [`Self::embed`] and [`Self::run`].
    pub fn hidden(&self, ids: &[u32], pass: &mut Pass) -> candle_core::Result<Tensor> {
        let x = self.embed(ids, pass)?;
        let x = self.run(x, 0..self.n_layers(), pass)?;
        self.final_norm(&x, pass)
    }

    /// The norm before the head, with its gain.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn final_norm(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        self.decoder.norm.forward(x, pass)
    }

    /// Logits `(rows, vocab)` of normed rows `(rows, hidden)`, soft-capped where the architecture does so.
    /// `adapter` as in [`Pass`]: an adapter may bring a head of its own.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn logits(&self, normed: &Tensor, adapter: f64) -> candle_core::Result<Tensor> {
        let z = self.raw_logits(normed, adapter)?;
        match self.decoder.final_logit_softcapping {
            Some(cap) => (z / cap as f64)?.tanh()? * cap as f64,
            None => Ok(z),
        }
    }

    /// Logits before the soft cap, as the logit lens reads them.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn raw_logits(&self, normed: &Tensor, adapter: f64) -> candle_core::Result<Tensor> {
        linear::linear(normed, self.unembedding(adapter), None, Tape::OFF)
    }
}
