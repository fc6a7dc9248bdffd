//! Gemma 3, text (`model_type` `gemma3_text`): norms before and after each part, normed query and key
//! heads, five blocks with a sliding window to one without.
//!
//! Gemma Team, arXiv 2503.19786; transformers `models/gemma3/modeling_gemma3.py`. Norm weights are stored
//! as the gain minus one.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::Value;

use super::hooks::Site;
use super::layers::{GatedMlp, RmsNorm, SelfAttention};
use super::loader::Loader;
use super::{Block, Decoder, Pass, at_site, rotary};
use crate::bail_input;
use crate::ops::attention::Attention;
use crate::ops::gated_mlp::Activation;
use crate::ops::rope::Rotary;

/// The keys of `config.json` that decide the computation.
#[derive(Debug, Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    vocab_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rms_norm_eps: f64,
    hidden_activation: Activation,
    query_pre_attn_scalar: f64,
    sliding_window: usize,
    layer_types: Option<Vec<LayerType>>,
    #[serde(alias = "_sliding_window_pattern", default = "six")]
    sliding_window_pattern: usize,
    #[serde(default = "million")]
    rope_theta: f64,
    #[serde(default = "ten_thousand")]
    rope_local_base_freq: f64,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    final_logit_softcapping: Option<f32>,
    attn_logit_softcapping: Option<f32>,
}

fn six() -> usize {
    6
}
fn million() -> f64 {
    1e6
}
fn ten_thousand() -> f64 {
    1e4
}
fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    SlidingAttention,
    FullAttention,
}

pub(super) fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    let c: Config = super::config(config)?;
    let layer_types = match &c.layer_types {
        Some(types) if types.len() == c.num_hidden_layers => types.clone(),
        Some(types) => {
            bail_input!("config.json: {} layer_types for {} layers", types.len(), c.num_hidden_layers)
        }
        None => (1..=c.num_hidden_layers)
            .map(|i| match i % c.sliding_window_pattern.max(1) {
                0 => LayerType::FullAttention,
                _ => LayerType::SlidingAttention,
            })
            .collect(),
    };
    let global =
        rotary::for_layer_type(config, "full_attention", c.head_dim, c.rope_theta, &config["rope_scaling"])?;
    let local = rotary::for_layer_type(
        config,
        "sliding_attention",
        c.head_dim,
        c.rope_local_base_freq,
        &Value::Null,
    )?;
    let (global, local) = (Arc::new(global), Arc::new(local));

    let embed_tokens = loader.tensor("model.embed_tokens.weight", &[c.vocab_size, c.hidden_size])?;
    let mut blocks: Vec<Box<dyn Block>> = Vec::with_capacity(c.num_hidden_layers);
    for (i, layer_type) in layer_types.into_iter().enumerate() {
        let (rotary, window) = match layer_type {
            LayerType::FullAttention => (&global, None),
            LayerType::SlidingAttention => (&local, Some(c.sliding_window)),
        };
        blocks.push(Box::new(SandwichBlock::load(&c, rotary, window, &format!("model.layers.{i}"), loader)?));
    }
    let norm = loader.norm("model.norm", c.hidden_size, 1.0, c.rms_norm_eps)?;
    let lm_head = match c.tie_word_embeddings {
        true => embed_tokens.clone(),
        false => loader.tensor("lm_head.weight", &[c.vocab_size, c.hidden_size])?,
    };
    Ok(Decoder {
        embed_tokens,
        embed_scale: (c.hidden_size as f32).sqrt() as f64,
        blocks,
        norm,
        lm_head,
        final_logit_softcapping: c.final_logit_softcapping,
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
        rotary: &Arc<Rotary>,
        window: Option<usize>,
        p: &str,
        loader: &mut Loader,
    ) -> Result<Self> {
        let (hidden, inner, head_dim) = (c.hidden_size, c.intermediate_size, c.head_dim);
        let (heads, kv_heads) = (c.num_attention_heads, c.num_key_value_heads);
        let bias = c.attention_bias;
        let mut norm =
            |name: &str, width: usize| loader.norm(&format!("{p}.{name}"), width, 1.0, c.rms_norm_eps);
        let input_layernorm = norm("input_layernorm", hidden)?;
        let post_attention_layernorm = norm("post_attention_layernorm", hidden)?;
        let pre_feedforward_layernorm = norm("pre_feedforward_layernorm", hidden)?;
        let post_feedforward_layernorm = norm("post_feedforward_layernorm", hidden)?;
        let qk_norm = Some((norm("self_attn.q_norm", head_dim)?, norm("self_attn.k_norm", head_dim)?));
        Ok(Self {
            input_layernorm,
            self_attn: SelfAttention {
                q_proj: loader.linear(&format!("{p}.self_attn.q_proj"), heads * head_dim, hidden, bias)?,
                k_proj: loader.linear(&format!("{p}.self_attn.k_proj"), kv_heads * head_dim, hidden, bias)?,
                v_proj: loader.linear(&format!("{p}.self_attn.v_proj"), kv_heads * head_dim, hidden, bias)?,
                o_proj: loader.linear(&format!("{p}.self_attn.o_proj"), hidden, heads * head_dim, bias)?,
                qk_norm,
                rotary: rotary.clone(),
                attention: Attention {
                    heads,
                    kv_heads,
                    head_dim,
                    scale: (1.0 / c.query_pre_attn_scalar.sqrt()) as f32,
                    window,
                    softcap: c.attn_logit_softcapping,
                },
            },
            post_attention_layernorm,
            pre_feedforward_layernorm,
            mlp: GatedMlp {
                gate_proj: loader.linear(&format!("{p}.mlp.gate_proj"), inner, hidden, false)?,
                up_proj: loader.linear(&format!("{p}.mlp.up_proj"), inner, hidden, false)?,
                down_proj: loader.linear(&format!("{p}.mlp.down_proj"), hidden, inner, false)?,
                activation: c.hidden_activation,
            },
            post_feedforward_layernorm,
        })
    }
}

impl Block for SandwichBlock {
    fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass) -> candle_core::Result<Tensor> {
        let attn = self.self_attn.forward(&self.input_layernorm.forward(x, pass)?, layer, pass)?;
        let attn = at_site(pass, layer, Site::AttnOut, self.post_attention_layernorm.forward(&attn, pass)?)?;
        let x = at_site(pass, layer, Site::ResidMid, (x + attn)?)?;
        let mlp = self.mlp.forward(&self.pre_feedforward_layernorm.forward(&x, pass)?, pass)?;
        let mlp = at_site(pass, layer, Site::MlpOut, self.post_feedforward_layernorm.forward(&mlp, pass)?)?;
        x + mlp
    }
}
