//! The layers that decoder blocks are built from, each written once.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use rand::Rng;

use super::Pass;
use crate::ops::attention::Attention;
use crate::ops::gated_mlp::{Activation, gated};
use crate::ops::rope::Rotary;
use crate::ops::{linear, rms_norm};

/// y = x·Wᵀ + b, plus a low-rank term where the layer is adapted.
pub struct Linear {
    /// `(out, in)`; from a `Var` where the layer is trained in full.
    pub weight: Tensor,
    /// `(out)`.
    pub bias: Option<Tensor>,
    /// The low-rank term.
    pub lora: Option<Lora>,
}

/// s·(dropout(x)·Aᵀ)·Bᵀ with s as PEFT scales it.
pub struct Lora {
    /// `lora_A`, `(r, in)`.
    pub a: Tensor,
    /// `lora_B`, `(out, r)`.
    pub b: Tensor,
    /// alpha / r, or alpha / √r with rsLoRA.
    pub scaling: f64,
    /// Share of inputs that training zeroes.
    pub dropout: f64,
}

impl Linear {
    /// x `(tokens, in)` → `(tokens, out)`.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let bias = self.bias.as_ref();
        let lora = match &self.lora {
            Some(lora) if pass.adapter != 0.0 => lora,
            _ if pass.train.is_some() && self.weight.track_op() => {
                return linear::trained(x, &self.weight, bias);
            }
            _ => return linear::frozen(x, &self.weight, bias),
        };
        let scaling = lora.scaling * pass.adapter;
        match &mut pass.train {
            None => linear::lora(x, Some(&self.weight), bias, &lora.a.detach(), &lora.b.detach(), scaling),
            Some(rng) if lora.dropout > 0.0 => {
                let dropped = dropout(x, lora.dropout, rng)?;
                let base = linear::frozen(x, &self.weight, bias)?;
                base + linear::lora(&dropped, None, None, &lora.a, &lora.b, scaling)?
            }
            Some(_) => linear::lora(x, Some(&self.weight), bias, &lora.a, &lora.b, scaling),
        }
    }
}

/// Zeroes a share `p` of the elements and scales the others by 1 / (1 − p).
fn dropout(x: &Tensor, p: f64, rng: &mut impl Rng) -> Result<Tensor> {
    let keep = (1.0 / (1.0 - p)) as f32;
    let mask: Vec<f32> =
        (0..x.elem_count()).map(|_| if rng.random::<f64>() < p { 0.0 } else { keep }).collect();
    x * Tensor::from_vec(mask, x.shape(), x.device())?
}

/// RMSNorm with its weight.
pub struct RmsNorm {
    /// `(width)`.
    pub weight: Tensor,
    /// 1 where the checkpoint holds the gain minus one.
    pub offset: f32,
    /// ε under the root.
    pub eps: f64,
}

impl RmsNorm {
    /// Norm over groups of `width` elements of the last dimension; same shape out as in.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match pass.train {
            Some(_) => rms_norm::rms_norm(x, &self.weight, self.offset, self.eps),
            None => rms_norm::rms_norm(x, &self.weight.detach(), self.offset, self.eps),
        }
    }
}

/// Grouped-query self-attention with rotary positions.
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
        let q = self.rotary.apply(&q, pass.segments)?;
        let k = self.rotary.apply(&k, pass.segments)?;
        let o = match &mut pass.cache {
            Some(cache) => {
                self.attention.apply_cached(&q, &k, &v, pass.segments, &mut cache.layers[layer])?
            }
            None => self.attention.apply(&q, &k, &v, pass.segments)?,
        };
        self.o_proj.forward(&o, pass)
    }
}

/// down(act(gate(x)) ∘ up(x)).
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
        self.down_proj.forward(&gated(&gate, &up, self.activation)?, pass)
    }
}
