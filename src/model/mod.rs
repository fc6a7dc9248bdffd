//! Language models: where they come from, their forward pass with hooks, adapters.

pub mod source;
