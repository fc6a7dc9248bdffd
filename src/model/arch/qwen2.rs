//! Qwen2 and Qwen2.5 (`model_type` `qwen2`): Llama's block with biases on q, k and v.
//!
//! Yang et al., arXiv 2407.10671; transformers `models/qwen2/modeling_qwen2.py`.

use anyhow::Result;
use serde_json::{Value, json};

use super::architecture::{Architecture, Gguf, read_config};
use super::llama::{self, LlamaConfig, PreNormOptions};
use crate::bail_input;
use crate::model::decoder::Decoder;
use crate::model::load::gguf::Metadata;
use crate::model::load::gguf_model;
use crate::model::load::loader::Loader;

pub(super) static ARCHITECTURE: Architecture = Architecture {
    model_type: "qwen2",
    classes: &["Qwen2ForCausalLM"],
    gguf: Some(Gguf {
        name: "qwen2",
        block: llama::PRE_NORM_BLOCK,
        adds_one_to_norms: false,
        interleaves_heads: false,
        complete_config,
    }),
    attn_implementation: None,
    ties_by_default: false,
    has_enable_thinking: false,
    load,
};

fn complete_config(metadata: &Metadata, config: &mut Value) -> Result<()> {
    gguf_model::has_no_window(metadata)?;
    config["hidden_act"] = json!("silu");
    config["use_sliding_window"] = json!(false);
    Ok(())
}

fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    if config["use_sliding_window"] == true {
        bail_input!("config.json: use_sliding_window = true is not supported for qwen2");
    }
    let c: LlamaConfig = read_config(config)?;
    let windows = vec![None; c.num_hidden_layers];
    let options = PreNormOptions { qkv_bias: true, o_bias: false, mlp_bias: false, qk_norm: false, windows };
    llama::decoder(&c, config, options, loader)
}
