//! From a `MODEL` string (alias, `hf:org/name[@revision]`, folder, `.gguf` file) to weights under
//! Hugging Face names, a configuration, a tokenizer and a chat template.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::Tensor;
use tokenizers::Tokenizer;

/// A pretrained model as every source delivers it.
pub struct Pretrained {
    /// The `MODEL` string it was opened with.
    pub id: String,
    /// `config.json` of the model, or the same keys rebuilt from a GGUF file's metadata.
    pub config: serde_json::Value,
    /// The weights, under Hugging Face names (`model.layers.0.self_attn.q_proj.weight`).
    pub weights: Weights,
    /// The tokenizer; `encode(text, true)` adds the special tokens that transformers adds.
    pub tokenizer: Tokenizer,
    /// The Jinja chat template, if the model has one.
    pub chat_template: Option<String>,
    /// Text of the beginning-of-sequence token, as chat templates use it.
    pub bos_token: Option<String>,
    /// Text of the end-of-sequence token.
    pub eos_token: Option<String>,
    /// Ids that end a generation.
    pub eos_token_ids: Vec<u32>,
    /// sha256 of each weight file, by file name.
    pub sha256: BTreeMap<String, String>,
}

/// Named tensors, read on demand as f32 on the CPU.
pub struct Weights {}

impl Weights {
    /// All tensor names, sorted.
    pub fn names(&self) -> Vec<String> {
        todo!()
    }
    /// Shape of a tensor, if there is one of that name.
    pub fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        todo!()
    }
    /// The tensor as contiguous f32 on the CPU.
    ///
    /// # Errors
    /// If there is no such tensor or its bytes cannot be read.
    pub fn get(&self, _name: &str) -> Result<Tensor> {
        todo!()
    }
}

/// Opens a `MODEL`; an alias or `hf:` id that is not cached is fetched first, with progress on stderr.
///
/// # Errors
/// An [`crate::error::InputError`] for an unknown alias, a missing file, a hash that does not match, or
/// no network.
pub fn open(_model: &str) -> Result<Pretrained> {
    todo!()
}
