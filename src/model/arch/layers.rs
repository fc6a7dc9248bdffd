//! The layers that decoder blocks are built from, each written once.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::model::lora::low_rank::LowRank;
use crate::model::pass::Pass;
use crate::ops::attention::Attention;
use crate::ops::gated_mlp::{Activation, gated};
use crate::ops::rope::Rotary;
use crate::ops::weight::Matrix;
use crate::ops::{linear, rms_norm};

/// A weight of the base model, and the copy of it that an adapter trained (PEFT's `modules_to_save`).
#[derive(Clone)]
pub struct Parameter<T = Tensor> {
    /// A [`Matrix`] `(out, in)` or `(vocab, hidden)`, or a tensor `(width)`.
    pub base: T,
    /// Takes the base's place while the adapter is on.
    pub saved: Option<T>,
}

impl<T> Parameter<T> {
    /// The weight with so much of the adapter: 0 is the base.
    pub fn at(&self, adapter: f64) -> &T {
        match &self.saved {
            Some(saved) if adapter != 0.0 => saved,
            _ => &self.base,
        }
    }
}

/// y = x·Wᵀ + b, plus a low-rank term where the layer is adapted.
#[derive(Clone)]
pub struct Linear {
    /// `(out, in)`.
    pub weight: Parameter<Matrix>,
    /// `(out)`.
    pub bias: Option<Parameter>,
    /// The low-rank term.
    pub low_rank: Option<LowRank>,
}

impl Linear {
    /// x `(tokens, in)` → `(tokens, out)`.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let weight = self.weight.at(pass.adapter);
        let bias = self.bias.as_ref().map(|bias| bias.at(pass.adapter));
        match &self.low_rank {
            Some(term) if pass.adapter != 0.0 => term.forward(x, weight, bias, pass),
            _ => linear::linear(x, weight, bias, pass.tape),
        }
    }
}

/// RMSNorm with its weight.
#[derive(Clone)]
pub struct RmsNorm {
    /// `(width)`.
    pub weight: Parameter,
    /// 1 where the checkpoint holds the gain minus one.
    pub offset: f32,
    /// ε under the root.
    pub eps: f64,
}

impl RmsNorm {
    /// Norm over groups of `width` elements of the last dimension; same shape out as in.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        rms_norm::rms_norm(x, self.weight.at(pass.adapter), self.offset, self.eps, pass.tape)
    }
}

/// Grouped-query self-attention with rotary positions.
#[derive(Clone)]
pub struct SelfAttention {
    /// Query projection.
    pub q_proj: Linear,
    /// Key projection.
    pub k_proj: Linear,
    /// Value projection.
    pub v_proj: Linear,
    /// Output projection.
    pub o_proj: Linear,
    /// Norms of each query and key head, where the architecture has them.
    pub qk_norm: Option<(RmsNorm, RmsNorm)>,
    /// The rotary embedding of this block.
    pub rotary: Arc<Rotary>,
    /// Heads, scale, window.
    pub attention: Attention,
}

impl SelfAttention {
    /// x `(tokens, hidden)` → `(tokens, hidden)`.
    pub fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass) -> Result<Tensor> {
        let mut q = self.q_proj.forward(x, pass)?; // (tokens, heads · head_dim)
        let mut k = self.k_proj.forward(x, pass)?; // (tokens, kv_heads · head_dim)
        let v = self.v_proj.forward(x, pass)?;
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            q = q_norm.forward(&q, pass)?;
            k = k_norm.forward(&k, pass)?;
        }
        let q = self.rotary.apply(&q, pass.segments, pass.tape)?;
        let k = self.rotary.apply(&k, pass.segments, pass.tape)?;
        let o = match &mut pass.cache {
            Some(cache) => {
                self.attention.apply_cached(&q, &k, &v, pass.segments, &mut cache.layers[layer])?
            }
            None => self.attention.apply(&q, &k, &v, pass.segments, pass.tape)?,
        };
        self.o_proj.forward(&o, pass)
    }
}

/// down(act(gate(x)) ∘ up(x)).
#[derive(Clone)]
pub struct GatedMlp {
    /// Gate projection.
    pub gate_proj: Linear,
    /// Up projection.
    pub up_proj: Linear,
    /// Down projection.
    pub down_proj: Linear,
    /// Activation of the gate.
    pub activation: Activation,
}

impl GatedMlp {
    /// x `(tokens, hidden)` → `(tokens, hidden)`.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let gate = self.gate_proj.forward(x, pass)?; // (tokens, intermediate)
        let up = self.up_proj.forward(x, pass)?;
        self.down_proj.forward(&gated(&gate, &up, self.activation, pass.tape)?, pass)
    }
}
