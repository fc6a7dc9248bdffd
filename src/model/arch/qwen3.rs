//! Qwen3, dense (`model_type` `qwen3`): Llama's block with normed query and key heads of a width of their
//! own; upper blocks may have a sliding window.
//!
//! Yang et al., arXiv 2505.09388; transformers `models/qwen3/modeling_qwen3.py`.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::layer_types::{LayerType, layer_types};
use super::llama;
use super::llama::Variant;
use crate::bail_input;
use crate::model::Decoder;
use crate::model::load::loader::Loader;

/// Width of a head where the config states none.
const HEAD_DIM: usize = 128;

/// The keys of `config.json` that Qwen3 has besides those of [`llama::Config`].
#[derive(Debug, Deserialize)]
struct Config {
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

pub(in crate::model) fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    let mut shared: llama::Config = crate::model::config(config)?;
    shared.head_dim.get_or_insert(HEAD_DIM);
    let c: Config = crate::model::config(config)?;
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
    let variant = Variant { qkv_bias: bias, o_bias: bias, mlp_bias: false, qk_norm: true, windows };
    llama::decoder(&shared, config, variant, loader)
}
