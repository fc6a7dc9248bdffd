//! Qwen3, dense (`model_type` `qwen3`): Llama's block with normed query and key heads of a width of their
//! own; upper blocks may have a sliding window.
//!
//! Yang et al., arXiv 2505.09388; transformers `models/qwen3/modeling_qwen3.py`.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use super::architecture::{Architecture, Gguf, read_config};
use super::layer_types::{LayerType, layer_types};
use super::llama::{self, LlamaConfig, PreNormOptions};
use crate::bail_input;
use crate::model::decoder::Decoder;
use crate::model::load::gguf::Metadata;
use crate::model::load::gguf_model;
use crate::model::load::loader::Loader;

pub(super) static ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen3",
    classes: &["Qwen3ForCausalLM"],
    gguf: Some(Gguf {
        name: "qwen3",
        block: llama::PRE_NORM_BLOCK,
        adds_one_to_norms: false,
        interleaves_heads: false,
        complete_config,
    }),
    attn_implementation: None,
    ties_by_default: false,
    has_enable_thinking: true,
    load,
};

fn complete_config(metadata: &Metadata, config: &mut Value) -> Result<()> {
    gguf_model::has_no_window(metadata)?;
    config["hidden_act"] = json!("silu");
    config["attention_bias"] = json!(metadata.has_tensor("blk.0.attn_q.bias"));
    config["use_sliding_window"] = json!(false);
    Ok(())
}

/// Width of a head where the config states none.
const HEAD_DIM: usize = 128;

/// The keys of `config.json` that Qwen3 has besides those of [`LlamaConfig`].
#[derive(Debug, Deserialize)]
struct Qwen3Config {
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    /// Blocks below this one see everything.
    #[serde(default = "twenty_eight")]
    max_window_layers: usize,
    layer_types: Option<Vec<LayerType>>,
}

fn twenty_eight() -> usize {
    28
}

fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    let mut shared: LlamaConfig = read_config(config)?;
    shared.head_dim.get_or_insert(HEAD_DIM);
    let c: Qwen3Config = read_config(config)?;
    // The size stands in the config also where the window is off.
    let sliding_window = c.sliding_window.filter(|_| c.use_sliding_window);
    let types = layer_types(c.layer_types.as_deref(), shared.num_hidden_layers, |i| {
        LayerType::sliding_if(sliding_window.is_some() && i >= c.max_window_layers)
    })?;
    if !c.use_sliding_window && types.contains(&LayerType::SlidingAttention) {
        bail_input!("config.json: layer_types has sliding_attention, but use_sliding_window is not true");
    }
    let windows = types.into_iter().map(|t| t.window(sliding_window)).collect::<Result<_>>()?;
    let bias = shared.attention_bias;
    let options = PreNormOptions { qkv_bias: bias, o_bias: bias, mlp_bias: false, qk_norm: true, windows };
    llama::decoder(&shared, config, options, loader)
}
