//! What the operations compute with on a CPU: products of matrices, vector loops, threads. Nothing here is
//! differentiable.

#[cfg(test)]
mod guard;
pub mod teams;

pub(in crate::ops) mod bf16;
pub(in crate::ops) mod blocks;
pub(in crate::ops) mod cpu;
pub(crate) mod exp;
pub(in crate::ops) mod few_rows;
pub(in crate::ops) mod mat;
pub(in crate::ops) mod matmul;
pub(in crate::ops) mod panels;
pub(in crate::ops) mod stream;
pub(in crate::ops) mod transpose;
mod vectors;

pub use self::cpu::fused;
