//! Where models come from: aliases, hubs, Hugging Face folders and GGUF files; and reading their tensors.

pub mod alias;
pub mod checkpoint;
pub mod hub;
pub mod loader;
pub mod source;

pub(super) mod added_tokens;
pub(super) mod folder;
pub(super) mod gguf;
pub(super) mod gguf_keys;
pub(super) mod gguf_model;
pub(super) mod gguf_split;
pub(super) mod gguf_tokenizer;
pub(super) mod sizes;
pub(super) mod tied;
pub(super) mod weights;
