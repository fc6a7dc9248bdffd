//! Gemma 2 (`model_type` `gemma2`): norms before and after each part, soft-capped scores and logits, a
//! sliding window in every second block.
//!
//! Gemma Team, arXiv 2408.00118; transformers `models/gemma2/modeling_gemma2.py`. Norm weights are stored
//! as the gain minus one.

use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::{Value, json};

use super::architecture::{Architecture, Gguf, read_config};
use super::layer_types::{LayerType, layer_types};
use super::layers::{GatedMlp, RmsNorm, SelfAttention};
use super::rotary;
use crate::bail_input;
use crate::model::decoder::{Block, Decoder};
use crate::model::hooks::Site;
use crate::model::load::gguf::{self, Metadata};
use crate::model::load::loader::Loader;
use crate::model::pass::{Pass, at_site};
use crate::ops::add::add;
use crate::ops::attention::Attention;
use crate::ops::gated_mlp::Activation;
use crate::ops::rope::Rotary;

pub(super) static ARCHITECTURE: Architecture = Architecture {
    model_type: "gemma2",
    classes: &["Gemma2ForCausalLM"],
    gguf: Some(Gguf {
        name: "gemma2",
        block: SANDWICH_BLOCK,
        adds_one_to_norms: true,
        interleaves_heads: false,
        complete_config,
    }),
    // Soft caps and sliding windows are exact there.
    attn_implementation: Some("eager"),
    ties_by_default: true,
    has_enable_thinking: false,
    load,
};

/// The tensors of a block with norms before and after each part: in GGUF, in Hugging Face's folder.
pub(super) const SANDWICH_BLOCK: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

fn complete_config(metadata: &Metadata, config: &mut Value) -> Result<()> {
    let base = |name: &str| metadata.float(name);
    let global = base("rope.freq_base").unwrap_or(10_000.0);
    if let Some(other) = base("rope.freq_base_swa").filter(|&other| other != global) {
        let key = metadata.key("rope.freq_base_swa");
        bail!("{key} = {other}: not supported; expected {global}, the base of the other blocks");
    }
    let defaults =
        GgufDefaults { layers_of_27b: 46, window: Some(4096), full_every: 2, caps: (Some(50.0), Some(30.0)) };
    complete_sandwich_config(metadata, config, &defaults)
}

/// What a GGUF file of Gemma 2 or 3 leaves to the program that reads it.
pub(super) struct GgufDefaults {
    /// Blocks of the model of 27B, by which llama.cpp knows it.
    pub layers_of_27b: u64,
    /// The window, where the metadata has none.
    pub window: Option<u64>,
    /// Every n-th block attends to everything, the others have a sliding window.
    pub full_every: u64,
    /// Soft caps on scores and logits where the metadata has none.
    pub caps: (Option<f64>, Option<f64>),
}

/// The part of `config.json` that Gemma 2 and 3 share.
///
/// # Errors
/// If the pattern of the windows does not fit the blocks.
pub(super) fn complete_sandwich_config(
    metadata: &Metadata,
    config: &mut Value,
    defaults: &GgufDefaults,
) -> Result<()> {
    let size = |key: &str| config[key].as_u64().unwrap_or_default();
    let (layers, head_dim) = (size("num_hidden_layers"), size("head_dim"));
    let per_head = size("hidden_size") / size("num_attention_heads").max(1);
    config["hidden_activation"] = json!("gelu_pytorch_tanh");
    config["attention_bias"] = json!(false);
    // Not in the file. llama.cpp (`llama_model_gemma2::load_arch_hparams`) scales scores by
    // 1/sqrt(head_dim), in the two 27B models, which it tells by their depth, by 1/sqrt(hidden/heads).
    config["query_pre_attn_scalar"] =
        json!(if layers == defaults.layers_of_27b { per_head } else { head_dim });
    // A window of 0 is none, as in llama.cpp.
    let window =
        metadata.integer("attention.sliding_window").or(defaults.window).filter(|&window| window > 0);
    config["sliding_window"] = json!(window);
    let sliding = match window {
        Some(_) => sliding_blocks(metadata, layers, defaults.full_every)?,
        None => vec![false; usize::try_from(layers)?],
    };
    config["layer_types"] =
        sliding.iter().map(|&sliding| if sliding { "sliding_attention" } else { "full_attention" }).collect();
    // A cap of 0 is none, as in llama.cpp.
    let cap = |name: &str, absent: Option<f64>| metadata.float(name).or(absent).filter(|&cap| cap > 0.0);
    config["attn_logit_softcapping"] = json!(cap("attn_logit_softcapping", defaults.caps.0));
    config["final_logit_softcapping"] = json!(cap("final_logit_softcapping", defaults.caps.1));
    Ok(())
}

/// Which blocks have the window: as a list says, or all but every n-th one (llama.cpp's `load_swa_pattern`; of a pattern of
/// 0 all of them).
fn sliding_blocks(metadata: &Metadata, layers: u64, full_every: u64) -> Result<Vec<bool>> {
    let key = metadata.key("attention.sliding_window_pattern");
    let listed: Vec<bool> = match metadata.header.metadata.get(&key) {
        Some(gguf::Value::Bools(list)) => list.clone(),
        Some(gguf::Value::Ints(list)) => list.iter().map(|&n| n != 0).collect(),
        _ => {
            let every = metadata.integer("attention.sliding_window_pattern").unwrap_or(full_every);
            return Ok((1..=layers).map(|layer| every == 0 || layer % every != 0).collect());
        }
    };
    if listed.len() as u64 != layers {
        bail!("{key}: {} entries for {layers} blocks", listed.len());
    }
    Ok(listed)
}

/// The keys of `config.json` that decide the computation in Gemma 2 and 3.
#[derive(Debug, Deserialize)]
pub(super) struct Gemma2Config {
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
    /// Settled when the model is opened.
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

fn fifty() -> Option<f32> {
    Some(50.0)
}
fn thirty() -> Option<f32> {
    Some(30.0)
}

fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    let c: Gemma2Config = read_config(config)?;
    let caps: Caps = read_config(config)?;
    let rotary = Arc::new(rotary::from_config(config, c.head_dim, 10_000.0)?);
    let types =
        layer_types(c.layer_types.as_deref(), c.num_hidden_layers, |i| LayerType::sliding_if(i % 2 == 0))?;
    let options = SandwichOptions {
        layers: types.into_iter().map(|layer_type| (layer_type, rotary.clone())).collect(),
        qk_norm: false,
        attn_logit_softcapping: caps.attn_logit_softcapping,
        final_logit_softcapping: caps.final_logit_softcapping,
    };
    decoder(&c, options, loader)
}

/// In what architectures with norms around each part differ.
pub(super) struct SandwichOptions {
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
pub(super) fn decoder(c: &Gemma2Config, options: SandwichOptions, loader: &mut Loader) -> Result<Decoder> {
    if c.use_bidirectional_attention == Some(true) {
        bail_input!("config.json: use_bidirectional_attention = true: not a causal language model");
    }
    for (key, cap) in [
        ("attn_logit_softcapping", options.attn_logit_softcapping),
        ("final_logit_softcapping", options.final_logit_softcapping),
    ] {
        if let Some(cap) = cap.filter(|cap| cap.is_nan() || *cap <= 0.0) {
            bail_input!("config.json: {key} is {cap}; expected a positive number, or null for no cap");
        }
    }
    let (embed_tokens, lm_head) =
        loader.embeddings_and_head([c.vocab_size, c.hidden_size], c.tie_word_embeddings)?;
    let mut blocks: Vec<Arc<dyn Block>> = Vec::with_capacity(c.num_hidden_layers);
    for (i, (layer_type, rotary)) in options.layers.iter().enumerate() {
        let attention = Attention {
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
            scale: (1.0 / c.query_pre_attn_scalar.sqrt()) as f32,
            window: layer_type.window(c.sliding_window)?,
            softcap: options.attn_logit_softcapping,
        };
        let prefix = format!("model.layers.{i}");
        blocks.push(Arc::new(SandwichBlock::load(c, options.qk_norm, attention, rotary, &prefix, loader)?));
    }
    let norm = loader.norm("model.norm", c.hidden_size, 1.0, c.rms_norm_eps)?;
    Ok(Decoder {
        embed_tokens,
        embed_scale: (c.hidden_size as f32).sqrt() as f64,
        blocks,
        norm,
        lm_head,
        final_logit_softcapping: options.final_logit_softcapping,
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
        c: &Gemma2Config,
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
}
