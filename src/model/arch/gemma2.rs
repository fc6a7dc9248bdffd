//! Gemma 2 (`model_type` `gemma2`): norms before and after each part, soft-capped scores and logits, a
//! sliding window in every second block.
//!
//! Gemma Team, arXiv 2408.00118; transformers `models/gemma2/modeling_gemma2.py`. Norm weights are stored
//! as the gain minus one.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::Value;

use super::layer_types::{LayerType, layer_types};
use super::layers::{GatedMlp, RmsNorm, SelfAttention};
use super::rotary;
use crate::bail_input;
use crate::model::hooks::Site;
use crate::model::load::loader::Loader;
use crate::model::modules::{Module, of_block};
use crate::model::{Block, Decoder, Pass, at_site};
use crate::ops::add::add;
use crate::ops::attention::Attention;
use crate::ops::gated_mlp::Activation;
use crate::ops::rope::Rotary;

/// The keys of `config.json` that decide the computation in Gemma 2 and 3.
#[derive(Debug, Deserialize)]
pub(in crate::model) struct Config {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub hidden_activation: Activation,
    pub query_pre_attn_scalar: f64,
    pub sliding_window: Option<usize>,
    pub layer_types: Option<Vec<LayerType>>,
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Biases of all four attention projections.
    #[serde(default)]
    pub attention_bias: bool,
    /// Text in both directions, as embedding models of this build have it.
    pub use_bidirectional_attention: Option<bool>,
}

/// Absent caps have these values, a cap of null is none.
#[derive(Debug, Deserialize)]
struct Caps {
    #[serde(default = "fifty")]
    attn_logit_softcapping: Option<f32>,
    #[serde(default = "thirty")]
    final_logit_softcapping: Option<f32>,
}

fn yes() -> bool {
    true
}
fn fifty() -> Option<f32> {
    Some(50.0)
}
fn thirty() -> Option<f32> {
    Some(30.0)
}

pub(in crate::model) fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    let c: Config = crate::model::config(config)?;
    let caps: Caps = crate::model::config(config)?;
    let rotary = Arc::new(rotary::from_config(config, c.head_dim, 10_000.0)?);
    let types =
        layer_types(c.layer_types.as_deref(), c.num_hidden_layers, |i| LayerType::sliding_if(i % 2 == 0))?;
    let variant = Variant {
        layers: types.into_iter().map(|layer_type| (layer_type, rotary.clone())).collect(),
        qk_norm: false,
        attn_logit_softcapping: caps.attn_logit_softcapping,
        final_logit_softcapping: caps.final_logit_softcapping,
    };
    decoder(&c, variant, loader)
}

/// How the architectures of this build differ.
pub(in crate::model) struct Variant {
    /// How far back each block sees and its rotary embedding.
    pub layers: Vec<(LayerType, Arc<Rotary>)>,
    /// Whether each query and key head is normed.
    pub qk_norm: bool,
    /// Soft cap on the scores.
    pub attn_logit_softcapping: Option<f32>,
    /// Soft cap on the logits.
    pub final_logit_softcapping: Option<f32>,
}

/// A decoder of blocks with norms before and after each part.
pub(in crate::model) fn decoder(c: &Config, variant: Variant, loader: &mut Loader) -> Result<Decoder> {
    if c.use_bidirectional_attention == Some(true) {
        bail_input!("config.json: use_bidirectional_attention = true: not a causal language model");
    }
    for (key, cap) in [
        ("attn_logit_softcapping", variant.attn_logit_softcapping),
        ("final_logit_softcapping", variant.final_logit_softcapping),
    ] {
        if let Some(cap) = cap.filter(|cap| cap.is_nan() || *cap <= 0.0) {
            bail_input!("config.json: {key} is {cap}; expected a positive number, or null for no cap");
        }
    }
    let (embed_tokens, lm_head) =
        loader.embeddings_and_head([c.vocab_size, c.hidden_size], c.tie_word_embeddings)?;
    let mut blocks: Vec<Arc<dyn Block>> = Vec::with_capacity(c.num_hidden_layers);
    for (i, (layer_type, rotary)) in variant.layers.iter().enumerate() {
        let attention = Attention {
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
            scale: (1.0 / c.query_pre_attn_scalar.sqrt()) as f32,
            window: layer_type.window(c.sliding_window)?,
            softcap: variant.attn_logit_softcapping,
        };
        let prefix = format!("model.layers.{i}");
        blocks.push(Arc::new(SandwichBlock::load(c, variant.qk_norm, attention, rotary, &prefix, loader)?));
    }
    let norm = loader.norm("model.norm", c.hidden_size, 1.0, c.rms_norm_eps)?;
    Ok(Decoder {
        embed_tokens,
        embed_scale: (c.hidden_size as f32).sqrt() as f64,
        blocks,
        norm,
        lm_head,
        final_logit_softcapping: variant.final_logit_softcapping,
    })
}

/// x + norm(attention(norm(x))), then x + norm(mlp(norm(x))).
struct SandwichBlock {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
}

impl SandwichBlock {
    fn load(
        c: &Config,
        qk_norm: bool,
        attention: Attention,
        rotary: &Arc<Rotary>,
        p: &str,
        loader: &mut Loader,
    ) -> Result<Self> {
        let (hidden, inner, head_dim) = (c.hidden_size, c.intermediate_size, c.head_dim);
        let bias = c.attention_bias;
        let mut norm =
            |name: &str, width: usize| loader.norm(&format!("{p}.{name}"), width, 1.0, c.rms_norm_eps);
        let input_layernorm = norm("input_layernorm", hidden)?;
        let post_attention_layernorm = norm("post_attention_layernorm", hidden)?;
        let pre_feedforward_layernorm = norm("pre_feedforward_layernorm", hidden)?;
        let post_feedforward_layernorm = norm("post_feedforward_layernorm", hidden)?;
        let qk_norm = match qk_norm {
            true => Some((norm("self_attn.q_norm", head_dim)?, norm("self_attn.k_norm", head_dim)?)),
            false => None,
        };
        Ok(Self {
            input_layernorm,
            self_attn: loader.self_attention(p, hidden, (bias, bias), qk_norm, rotary, attention)?,
            post_attention_layernorm,
            pre_feedforward_layernorm,
            mlp: loader.gated_mlp(p, hidden, inner, false, c.hidden_activation)?,
            post_feedforward_layernorm,
        })
    }
}

impl Block for SandwichBlock {
    fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass) -> candle_core::Result<Tensor> {
        let attn = self.self_attn.forward(&self.input_layernorm.forward(x, pass)?, layer, pass)?;
        let attn = at_site(pass, layer, Site::AttnOut, self.post_attention_layernorm.forward(&attn, pass)?)?;
        let x = at_site(pass, layer, Site::ResidMid, add(x, &attn, pass.tape)?)?;
        let mlp = self.mlp.forward(&self.pre_feedforward_layernorm.forward(&x, pass)?, pass)?;
        let mlp = at_site(pass, layer, Site::MlpOut, self.post_feedforward_layernorm.forward(&mlp, pass)?)?;
        add(&x, &mlp, pass.tape)
    }

    fn modules(&self) -> Vec<Module<'_>> {
        let before = [&self.input_layernorm, &self.pre_feedforward_layernorm];
        let after = [Some(&self.post_attention_layernorm), Some(&self.post_feedforward_layernorm)];
        of_block(&self.self_attn, &self.mlp, before, after)
    }
}
