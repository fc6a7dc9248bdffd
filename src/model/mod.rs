//! Language models: where they come from, their forward pass with hooks, adapters, generation.
//!
//! To add an architecture: one file in [`arch`], and its line in [`arch::ARCHITECTURES`]. `config.json`'s
//! `model_type` names the file. Its `ARCHITECTURE` holds every name that the program knows it by and its
//! `load`, which reads the configuration and builds a [`Decoder`] from the layers of [`arch::layers`].
//! Nothing else lists architectures.

pub mod arch;
pub mod batch;
pub mod causal_lm;
pub mod changed;
pub mod contrast;
pub mod decoder;
pub mod export;
pub mod generate;
pub mod hooks;
pub mod load;
pub mod lora;
pub mod modules;
pub mod pass;
mod sampler;
pub mod trainables;
pub mod update;

pub use self::causal_lm::{CausalLm, View};
pub use self::decoder::{Block, Decoder};
pub use self::pass::{KvCache, Pass};
pub use crate::device::device;
