//! What the registry holds of an architecture.

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bail_input;
use crate::model::decoder::Decoder;
use crate::model::load::gguf::Metadata;
use crate::model::load::loader::Loader;

/// An architecture: the names it goes by, and how to build it.
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Its classes in transformers, as `architectures` in `config.json` names them. An export writes the first.
    pub classes: &'static [&'static str],
    /// Its GGUF files; absent where llama.cpp stores it under the name of another architecture.
    pub gguf: Option<Gguf>,
    /// The `attn_implementation` that a config of transformers should ask for; absent for its default.
    pub attn_implementation: Option<&'static str>,
    /// Whether its head is its embeddings where `config.json` has no `tie_word_embeddings`.
    pub ties_by_default: bool,
    /// Whether its chat templates know `enable_thinking`.
    pub has_enable_thinking: bool,
    /// Builds the decoder from `config.json`.
    pub(in crate::model) load: fn(&Value, &mut Loader) -> Result<Decoder>,
}

/// How a GGUF file of an architecture differs from its Hugging Face folder.
pub struct Gguf {
    /// `general.architecture`, which is also the prefix of the metadata's keys.
    pub name: &'static str,
    /// The tensors of a block: their names in the file without `blk.N.`, and in Hugging Face's folder without
    /// `model.layers.N.`; both without `.weight` and `.bias`.
    pub(in crate::model) block: &'static [(&'static str, &'static str)],
    /// Whether llama.cpp stores the weights of norms (names that end in `norm`) as `1 + w`.
    pub(in crate::model) adds_one_to_norms: bool,
    /// Whether llama.cpp interleaves the two halves of each query and key head (`attn_q`, `attn_k`).
    pub(in crate::model) interleaves_heads: bool,
    /// Adds to a `config.json` that has the sizes what this architecture needs besides.
    pub(in crate::model) complete_config: fn(&Metadata, &mut Value) -> Result<()>,
}

/// The keys of `config.json` that an architecture reads.
///
/// # Errors
/// An [`crate::error::InputError`] for a key that is missing or has a value of the wrong kind.
pub(super) fn read_config<T: DeserializeOwned>(config: &Value) -> Result<T> {
    match T::deserialize(config) {
        Ok(config) => Ok(config),
        Err(e) => bail_input!("config.json: {e}"),
    }
}
