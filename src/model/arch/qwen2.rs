//! Qwen2 and Qwen2.5 (`model_type` `qwen2`): Llama's block with biases on q, k and v.
//!
//! Yang et al., arXiv 2407.10671; transformers `models/qwen2/modeling_qwen2.py`.

use anyhow::Result;
use serde_json::Value;

use super::llama;
use super::llama::Variant;
use crate::bail_input;
use crate::model::Decoder;
use crate::model::load::loader::Loader;

pub(in crate::model) fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    if config["use_sliding_window"] == true {
        bail_input!("config.json: use_sliding_window = true is not supported for qwen2");
    }
    let c: llama::Config = crate::model::config(config)?;
    let windows = vec![None; c.num_hidden_layers];
    let variant = Variant { qkv_bias: true, o_bias: false, mlp_bias: false, qk_norm: false, windows };
    llama::decoder(&c, config, variant, loader)
}
