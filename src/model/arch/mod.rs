//! Architectures, one file each, and the layers that they are made of.

pub mod layers;
pub mod rotary;

pub(in crate::model) mod gemma2;
pub(in crate::model) mod gemma3;
pub(in crate::model) mod layer_types;
pub(in crate::model) mod llama;
pub(in crate::model) mod qwen2;
pub(in crate::model) mod qwen3;
