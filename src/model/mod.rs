//! Language models: where they come from, their forward pass with hooks, adapters, generation.
//!
//! To add an architecture: one file named after `config.json`'s `model_type`, with a `Config`, a block and
//! a `load` that returns its [`Decoder`], and one line in [`CausalLm::load`].

pub mod arch;
pub mod batch;
pub mod export;
pub mod generate;
pub mod hooks;
pub mod load;
pub mod lora;
pub mod modules;
pub mod update;

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;

use self::arch::layers::{RmsNorm, Weight};
use self::arch::{gemma2, gemma3, llama, qwen2, qwen3};
use self::hooks::{Hook, NoHook, Site};
use self::load::loader::{Loader, Trainables, Tuning};
use self::load::source::Pretrained;
use self::modules::Module;
use crate::bail_input;
use crate::ops::attention::LayerCache;
use crate::ops::segments::Segments;
use crate::ops::tape::Tape;
use crate::ops::weight::Matrix;
use crate::ops::{embedding, linear};

/// One forward pass: which sequences, with how much of the adapter, watched by which hook.
pub struct Pass<'a> {
    /// Where the sequences lie in the `(tokens, …)` tensors.
    pub segments: &'a Segments,
    /// Factor on the adapter: 1 is the tuned model, 0 the base; any other scales the low-rank terms.
    pub adapter: f64,
    /// Called at every site of every block.
    pub hook: &'a mut dyn Hook,
    /// Keys and values of earlier tokens; takes up the new ones.
    pub cache: Option<&'a mut KvCache>,
    /// Where operations note their backward while training.
    pub tape: Tape<'a>,
    /// Present while training: dropout draws from it.
    pub dropout: Option<&'a mut ChaCha8Rng>,
    /// Whether the backward computes each block again instead of keeping what happened in it.
    pub recompute: bool,
}

impl<'a> Pass<'a> {
    /// A pass without cache and gradients.
    pub fn new(segments: &'a Segments, adapter: f64, hook: &'a mut dyn Hook) -> Self {
        Self { segments, adapter, hook, cache: None, tape: Tape::OFF, dropout: None, recompute: false }
    }
}

/// A model with its adapter on or off. Base and tuned are usually two views of one loaded model.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The model.
    pub model: &'a CausalLm,
    /// Factor on its adapter.
    pub adapter: f64,
}

/// Keys and values of every block for the tokens that earlier passes have seen.
#[derive(Debug, Clone)]
pub struct KvCache {
    /// By block index; a pass over some blocks fills these only.
    pub layers: Vec<LayerCache>,
}

impl KvCache {
    /// An empty cache for a model.
    pub fn new(model: &CausalLm) -> Self {
        Self { layers: vec![LayerCache::default(); model.n_layers()] }
    }

    /// The cache of the given sequences, in that order; a sequence may come several times.
    pub fn select(&self, sequences: &[usize]) -> Self {
        Self { layers: self.layers.iter().map(|l| l.select(sequences)).collect() }
    }

    /// Forgets the sequences for which `keep` is false.
    pub fn retain(&mut self, keep: &[bool]) {
        self.layers.iter_mut().for_each(|l| l.retain(keep));
    }
}

/// One block of a decoder.
pub trait Block: Send + Sync {
    /// The residual stream `(tokens, hidden)` through the block. Calls the hook at the sites inside
    /// ([`Site::AttnOut`], [`Site::ResidMid`], [`Site::MlpOut`]).
    ///
    /// # Errors
    /// If a tensor operation or the hook fails.
    fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass) -> candle_core::Result<Tensor>;

    /// The linear layers of the block.
    fn modules(&self) -> Vec<Module<'_>>;
}

/// Lets the hook see a value and gives back what flows on.
pub(crate) fn at_site(pass: &mut Pass, layer: usize, site: Site, x: Tensor) -> candle_core::Result<Tensor> {
    match pass.hook.at(layer, site, &x, pass.segments, pass.tape)? {
        Some(changed) if pass.tape.tracks(&x) && !pass.tape.tracks(&changed) => {
            candle_core::bail!("a hook changed a pass that is recorded, but did not record the change")
        }
        Some(changed) => Ok(changed),
        None => Ok(x),
    }
}

/// What an architecture file builds.
pub struct Decoder {
    /// Token embeddings `(vocab, hidden)`.
    pub embed_tokens: Weight<Matrix>,
    /// Factor on embeddings.
    pub embed_scale: f64,
    /// The blocks, lowest first.
    pub blocks: Vec<Arc<dyn Block>>,
    /// The norm before the head.
    pub norm: RmsNorm,
    /// The unembedding `(vocab, hidden)`; the embeddings themselves where they are tied.
    pub lm_head: Weight<Matrix>,
    /// Soft cap c on the logits, c·tanh(z / c).
    pub final_logit_softcapping: Option<f32>,
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
        let model_type = from.config["model_type"].as_str().unwrap_or("absent");
        let decoder = match model_type {
            "gemma2" => gemma2::load(&from.config, &mut loader),
            "gemma3_text" => gemma3::load(&from.config, &mut loader),
            "llama" => llama::load(&from.config, &mut loader),
            "qwen2" => qwen2::load(&from.config, &mut loader),
            "qwen3" => qwen3::load(&from.config, &mut loader),
            other => bail_input!(
                "{}: model_type {other:?} is not supported; supported: gemma2, gemma3_text, llama, qwen2, \
                 qwen3",
                from.id
            ),
        };
        let decoder = decoder.with_context(|| from.id.clone())?;
        let ties_head = !loader.has_read("lm_head.weight");
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

/// The device of this build: a GPU where a feature asks for one, else the CPU.
///
/// # Errors
/// If the GPU cannot be opened.
pub fn device() -> Result<Device> {
    if cfg!(feature = "cuda") {
        return Ok(Device::new_cuda(0)?);
    }
    if cfg!(feature = "metal") {
        return Ok(Device::new_metal(0)?);
    }
    Ok(Device::Cpu)
}

/// Reads an architecture's configuration.
pub(crate) fn config<T: serde::de::DeserializeOwned>(config: &serde_json::Value) -> Result<T> {
    match T::deserialize(config) {
        Ok(config) => Ok(config),
        Err(e) => bail_input!("config.json: {e}"),
    }
}
