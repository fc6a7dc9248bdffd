//! Llama (`model_type` `llama`): Llama 2 and 3, SmolLM2 and others of that build.
//!
//! Touvron et al., arXiv 2307.09288; transformers `models/llama/modeling_llama.py`.

use std::sync::Arc;

use anyhow::Result;
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::{Value, json};

use super::architecture::{Architecture, Gguf, read_config};
use super::layers::{GatedMlp, Linear, RmsNorm, SelfAttention};
use super::rotary;
use crate::model::decoder::{Block, Decoder};
use crate::model::hooks::Site;
use crate::model::load::gguf::Metadata;
use crate::model::load::gguf_model;
use crate::model::load::loader::Loader;
use crate::model::modules::{Module, change_block, of_block};
use crate::model::pass::{Pass, at_site};
use crate::ops::add::add;
use crate::ops::attention::Attention;
use crate::ops::gated_mlp::Activation;
use crate::ops::rope::Rotary;

pub(super) static ARCHITECTURE: Architecture = Architecture {
    model_type: "llama",
    // The second is of conversions from before transformers had the class.
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    gguf: Some(Gguf {
        name: "llama",
        block: PRE_NORM_BLOCK,
        adds_one_to_norms: false,
        interleaves_heads: true,
        complete_config,
    }),
    attn_implementation: None,
    ties_by_default: false,
    has_enable_thinking: false,
    load,
};

/// The tensors of a pre-norm block: in GGUF, in Hugging Face's folder.
pub(super) const PRE_NORM_BLOCK: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

fn complete_config(metadata: &Metadata, config: &mut Value) -> Result<()> {
    gguf_model::has_no_window(metadata)?;
    config["hidden_act"] = json!("silu");
    config["attention_bias"] = json!(metadata.has_tensor("blk.0.attn_q.bias"));
    config["mlp_bias"] = json!(metadata.has_tensor("blk.0.ffn_up.bias"));
    Ok(())
}

/// The keys of `config.json` that decide the computation in Llama and in what has its block.
#[derive(Debug, Deserialize)]
pub(super) struct LlamaConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub rms_norm_eps: f64,
    pub hidden_act: Activation,
    /// Settled when the model is opened.
    pub tie_word_embeddings: bool,
    /// Biases of all four attention projections.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases of the MLP projections.
    #[serde(default)]
    pub mlp_bias: bool,
}

/// In what architectures with a pre-norm block differ.
pub(super) struct PreNormOptions {
    /// Whether the query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub o_bias: bool,
    /// Whether the MLP projections have a bias.
    pub mlp_bias: bool,
    /// Whether each query and key head is normed.
    pub qk_norm: bool,
    /// Number of keys that a query sees in each block; all earlier ones if absent.
    pub windows: Vec<Option<usize>>,
}

fn load(config: &Value, loader: &mut Loader) -> Result<Decoder> {
    let c: LlamaConfig = read_config(config)?;
    let bias = c.attention_bias;
    let windows = vec![None; c.num_hidden_layers];
    let options =
        PreNormOptions { qkv_bias: bias, o_bias: bias, mlp_bias: c.mlp_bias, qk_norm: false, windows };
    decoder(&c, config, options, loader)
}

/// A decoder of pre-norm blocks.
pub(super) fn decoder(
    c: &LlamaConfig,
    config: &Value,
    options: PreNormOptions,
    loader: &mut Loader,
) -> Result<Decoder> {
    let head_dim = c.head_dim.unwrap_or(c.hidden_size / c.num_attention_heads.max(1));
    let rotary = Arc::new(rotary::from_config(config, head_dim, 10_000.0)?);
    let (embed_tokens, lm_head) =
        loader.embeddings_and_head([c.vocab_size, c.hidden_size], c.tie_word_embeddings)?;
    let mut blocks: Vec<Arc<dyn Block>> = Vec::with_capacity(c.num_hidden_layers);
    for (i, window) in options.windows.iter().enumerate() {
        let heads = c.num_attention_heads;
        let attention = Attention {
            heads,
            kv_heads: c.num_key_value_heads.unwrap_or(heads),
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: *window,
            softcap: None,
        };
        let prefix = format!("model.layers.{i}");
        blocks.push(Arc::new(PreNormBlock::load(c, &options, attention, &rotary, &prefix, loader)?));
    }
    let norm = loader.norm("model.norm", c.hidden_size, 0.0, c.rms_norm_eps)?;
    Ok(Decoder { embed_tokens, embed_scale: 1.0, blocks, norm, lm_head, final_logit_softcapping: None })
}

/// x + attention(norm(x)), then x + mlp(norm(x)).
#[derive(Clone)]
struct PreNormBlock {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}

impl PreNormBlock {
    fn load(
        c: &LlamaConfig,
        options: &PreNormOptions,
        attention: Attention,
        rotary: &Arc<Rotary>,
        p: &str,
        loader: &mut Loader,
    ) -> Result<Self> {
        let (hidden, inner, head_dim) = (c.hidden_size, c.intermediate_size, attention.head_dim);
        let PreNormOptions { qkv_bias, o_bias, mlp_bias, qk_norm, .. } = *options;
        let mut norm =
            |name: &str, width: usize| loader.norm(&format!("{p}.{name}"), width, 0.0, c.rms_norm_eps);
        let input_layernorm = norm("input_layernorm", hidden)?;
        let post_attention_layernorm = norm("post_attention_layernorm", hidden)?;
        let qk_norm = match qk_norm {
            true => Some((norm("self_attn.q_norm", head_dim)?, norm("self_attn.k_norm", head_dim)?)),
            false => None,
        };
        Ok(Self {
            input_layernorm,
            self_attn: loader.self_attention(p, hidden, (qkv_bias, o_bias), qk_norm, rotary, attention)?,
            post_attention_layernorm,
            mlp: loader.gated_mlp(p, hidden, inner, mlp_bias, c.hidden_act)?,
        })
    }
}

impl Block for PreNormBlock {
    fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass) -> candle_core::Result<Tensor> {
        let attn = self.self_attn.forward(&self.input_layernorm.forward(x, pass)?, layer, pass)?;
        let attn = at_site(pass, layer, Site::AttnOut, attn)?;
        let x = at_site(pass, layer, Site::ResidMid, add(x, &attn, pass.tape)?)?;
        let mlp = self.mlp.forward(&self.post_attention_layernorm.forward(&x, pass)?, pass)?;
        let mlp = at_site(pass, layer, Site::MlpOut, mlp)?;
        add(&x, &mlp, pass.tape)
    }

    fn modules(&self) -> Vec<Module<'_>> {
        let before = [&self.input_layernorm, &self.post_attention_layernorm];
        of_block(&self.self_attn, &self.mlp, before, [None, None])
    }

    fn with_linears(&self, change: &mut dyn FnMut(&'static str, &mut Linear)) -> Arc<dyn Block> {
        let mut block = self.clone();
        change_block(&mut block.self_attn, &mut block.mlp, change);
        Arc::new(block)
    }
}
