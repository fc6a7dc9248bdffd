//! Gemma 3, text (`model_type` `gemma3_text`): Gemma 2's block with normed query and key heads and no soft
//! caps, five blocks with a sliding window to one without, each kind with its own rotary base.
//!
//! Gemma Team, arXiv 2503.19786; transformers `models/gemma3/modeling_gemma3.py`.

use std::sync::Arc;

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::gemma2;
use super::gemma2::Variant;
use super::layer_types::{LayerType, layer_types};
use super::rotary;
use crate::model::Decoder;
use crate::model::load::loader::Loader;

/// The keys of `config.json` that Gemma 3 has besides those of [`gemma2::Config`], or means otherwise.
#[derive(Debug, Deserialize)]
struct Config {
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

pub(in crate::model) fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    let shared: gemma2::Config = crate::model::config(config)?;
    let c: Config = crate::model::config(config)?;
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
    let variant = Variant {
        layers: types.into_iter().map(|layer_type| (layer_type, rotary(layer_type))).collect(),
        qk_norm: true,
        attn_logit_softcapping: c.attn_logit_softcapping,
        final_logit_softcapping: c.final_logit_softcapping,
    };
    gemma2::decoder(&shared, variant, loader)
}
