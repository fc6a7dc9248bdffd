//! Language models: where they come from, their forward pass with hooks, adapters.

pub mod alias;
mod fetch;
mod folder;
mod gguf;
mod gguf_model;
mod gguf_tokenizer;
pub mod hub;
pub mod source;
mod weights;
