//! Make narrowly finetuned language models ("model organisms") and measure how readable the trace of
//! that finetuning is.
//!
//! Modules in dependency order; each uses only what stands before it:
//! [`error`], [`ops`], [`data`], [`model`], [`train`], [`diff`], [`report`], [`cli`].
//! [`recipe`] and [`run`] are leaves that all of them may read.

pub mod cli;
pub mod diff;
pub mod error;
pub mod model;
pub mod report;
