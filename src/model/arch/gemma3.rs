//! Gemma 3, text (`model_type` `gemma3_text`): Gemma 2's block with normed query and key heads and no soft
//! caps, five blocks with a sliding window to one without, each kind with its own rotary base.
//!
//! Gemma Team, arXiv 2503.19786; transformers `models/gemma3/modeling_gemma3.py`.

use std::sync::Arc;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use super::architecture::{Architecture, Gguf, read_config};
use super::gemma2::{self, Gemma2Config, GgufDefaults, SandwichOptions};
use super::layer_types::{LayerType, layer_types};
use super::rotary;
use crate::model::decoder::Decoder;
use crate::model::load::gguf::Metadata;
use crate::model::load::loader::Loader;

pub(super) static ARCHITECTURE: Architecture = Architecture {
    model_type: "gemma3_text",
    classes: &["Gemma3ForCausalLM"],
    gguf: Some(Gguf {
        name: "gemma3",
        block: gemma2::SANDWICH_BLOCK,
        adds_one_to_norms: true,
        interleaves_heads: false,
        complete_config,
    }),
    // Sliding windows are exact there.
    attn_implementation: Some("eager"),
    ties_by_default: true,
    has_enable_thinking: false,
    load,
};

fn complete_config(metadata: &Metadata, config: &mut Value) -> Result<()> {
    let defaults = GgufDefaults { layers_of_27b: 62, window: None, full_every: 6, caps: (None, None) };
    gemma2::complete_sandwich_config(metadata, config, &defaults)?;
    config["rope_local_base_freq"] = json!(metadata.float("rope.freq_base_swa").unwrap_or(10_000.0));
    Ok(())
}

/// The keys of `config.json` that Gemma 3 has besides those of [`Gemma2Config`], or means otherwise.
#[derive(Debug, Deserialize)]
struct Gemma3Config {
    #[serde(alias = "_sliding_window_pattern", default = "six")]
    sliding_window_pattern: usize,
    #[serde(default = "million")]
    rope_theta: f64,
    #[serde(default = "ten_thousand")]
    rope_local_base_freq: f64,
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

fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    let shared: Gemma2Config = read_config(config)?;
    let c: Gemma3Config = read_config(config)?;
    let types = layer_types(shared.layer_types.as_deref(), shared.num_hidden_layers, |i| {
        LayerType::sliding_if((i + 1) % c.sliding_window_pattern.max(1) != 0)
    })?;
    let head_dim = shared.head_dim;
    let scaling = &config["rope_scaling"];
    let full = rotary::for_layer_type(config, "full_attention", head_dim, c.rope_theta, scaling)?;
    let sliding =
        rotary::for_layer_type(config, "sliding_attention", head_dim, c.rope_local_base_freq, &Value::Null)?;
    let (full, sliding) = (Arc::new(full), Arc::new(sliding));
    let rotary = |layer_type| match layer_type {
        LayerType::FullAttention => full.clone(),
        LayerType::SlidingAttention => sliding.clone(),
    };
    let options = SandwichOptions {
        layers: types.into_iter().map(|layer_type| (layer_type, rotary(layer_type))).collect(),
        qk_norm: true,
        attn_logit_softcapping: c.attn_logit_softcapping,
        final_logit_softcapping: c.final_logit_softcapping,
    };
    gemma2::decoder(&shared, options, loader)
}
