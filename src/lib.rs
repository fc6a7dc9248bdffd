//! Make narrowly finetuned language models ("model organisms") and measure how readable the trace of
//! that finetuning is.
//!
//! Modules in dependency order; each uses only what stands before it:
//! [`error`], [`ops`], [`data`], [`model`], [`train`], [`sweep`], [`grader`], [`making`], [`diff`], [`grade`], [`audit`],
//! [`behaviour`], [`report`], [`verify`], [`cli`].
//! [`recipe`], [`run`], [`atomic`], [`http`], [`hub`], [`interrupt`], [`machine`], [`progress`], [`sha256`]
//! and [`text_file`] are leaves that all of them may use.

pub mod atomic;
pub mod audit;
pub mod behaviour;
pub mod cli;
pub mod corpus;
pub mod data;
pub mod datagen;
pub mod diff;
pub mod error;
pub mod grade;
pub mod http;
pub mod hub;
pub mod interrupt;
pub mod machine;
pub mod model;
pub mod ops;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod run;
pub mod sha256;
pub mod sweep;
pub mod text_file;
pub mod train;
pub mod verify;
pub mod workflow;
