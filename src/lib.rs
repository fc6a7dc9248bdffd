//! Make narrowly finetuned language models ("model organisms") and measure how readable the trace of
//! that finetuning is.
//!
//! Modules in dependency order: each uses only modules of lines above it, or of its own. `tests/architecture.rs` enforces it.
//!
//! 1. [`error`], [`progress`], [`interrupt`], [`atomic`], [`json`], [`machine`], [`sha256`], [`http`], [`text_file`], [`jinja`],
//!    [`words`]: leaves
//! 2. [`ops`]: differentiable operations on a CPU, and the kernels below them
//! 3. [`hub`]: downloads of models and data sets
//! 4. [`recipe`]: what an organism is made of and how it is read, as written in TOML
//! 5. [`data`]: from files to training examples
//! 6. [`model`]: architectures, adapters, loading, generation
//! 7. [`corpus`]: what is trained on, and its audit
//! 8. [`run`]: the run folder
//! 9. [`train`]: one loop for LoRA and full finetuning
//! 10. [`sweep`]: cells, launchers, search
//! 11. [`diff`]: the trace, one file a measure
//! 12. [`grade`]: language models as graders
//! 13. [`datagen`]: making data sets
//! 14. [`behaviour`]: whether an organism does what it was made for
//! 15. [`audit`]: an agent that investigates
//! 16. [`results`]: reading run folders
//! 17. [`claims`]: what may be said of runs, as data
//! 18. [`report`]: tables, figures, the page
//! 19. [`verify`]: whether a run folder holds what it says
//! 20. [`workflow`]: one function for each subcommand
//! 21. [`cli`]: flags, one call, print

pub mod atomic;
pub mod audit;
pub mod behaviour;
pub mod claims;
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
pub mod jinja;
pub mod json;
pub mod machine;
pub mod model;
pub mod ops;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod results;
pub mod run;
pub mod sha256;
pub mod sweep;
pub mod text_file;
pub mod train;
pub mod verify;
pub mod words;
pub mod workflow;
