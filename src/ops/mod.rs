//! Differentiable operations with a fused forward and a hand-written backward on the CPU.
//!
//! Each file holds one operation: its formula and source, the fused version, which notes its backward on a
//! [`tape::Tape`], the composed version in plain candle ops (the reference in tests and the path on other devices),
//! and a test that checks the gradient of both by finite differences and holds them together. [`selftest`] compares them
//! on a device.
//!
//! Activations are `(tokens, width)`: the sequences of a batch lie end to end without padding, and
//! [`segments::Segments`] says where each begins.

pub mod adamw;
pub mod add;
pub mod attention;
pub mod cross_entropy;
pub mod divergence;
pub mod dora;
pub mod dropout;
pub mod embedding;
pub mod encoding;
pub mod gated_mlp;
pub mod kernels;
pub mod linear;
pub mod norm;
pub mod project;
pub mod rms_norm;
pub mod rope;
pub mod segments;
pub mod selftest;
pub mod tape;
pub mod weight;

#[cfg(test)]
mod testing;
