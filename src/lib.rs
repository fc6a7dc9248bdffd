//! Make narrowly finetuned language models ("model organisms") and measure how readable the trace of
//! that finetuning is.
//!
//! Modules in dependency order: each uses only modules of lines above it, or of its own. `tests/architecture.rs` enforces it.
//!
//! 1. [`error`], [`progress`], [`interrupt`], [`atomic`], [`json`], [`limits`], [`device`], [`machine`], [`sha256`], [`http`], [`text_file`], [`input_file`], [`caught`], [`tokenizer`], [`visible`]: leaves
//! 2. [`jinja`], [`words`]: the language of chat templates, and what a word is
//! 3. [`ops`]: differentiable operations on a CPU, and the kernels below them
//! 4. [`hub`]: downloads of models and data sets
//! 5. [`recipe`]: what an organism is made of and how it is read, as written in TOML
//! 6. [`data`]: from files to training examples
//! 7. [`model`]: architectures, adapters, loading, generation
//! 8. [`corpus`]: what is trained on, and its audit
//! 9. [`run`]: the run folder
//! 10. [`train`]: one loop for LoRA and full finetuning
//! 11. [`sweep`]: cells, launchers, search
//! 12. [`diff`]: the trace, one file a measure
//! 13. [`grade`]: language models as graders
//! 14. [`datagen`]: making data sets
//! 15. [`behaviour`]: whether an organism does what it was made for
//! 16. [`audit`]: an agent that investigates
//! 17. [`results`]: reading run folders
//! 18. [`claims`]: what may be said of runs, as data
//! 19. [`report`]: tables, figures, the page
//! 20. [`verify`]: whether a run folder holds what it says
//! 21. [`workflow`]: one function for each subcommand
//! 22. [`cli`]: flags, one call, print

pub mod atomic;
pub mod audit;
pub mod behaviour;
pub mod caught;
pub mod claims;
pub mod cli;
pub mod corpus;
pub mod data;
pub mod datagen;
pub mod device;
pub mod diff;
pub mod error;
pub mod grade;
pub mod http;
pub mod hub;
pub mod input_file;
pub mod interrupt;
pub mod jinja;
pub mod json;
pub mod limits;
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
pub mod tokenizer;
pub mod train;
pub mod verify;
pub mod visible;
pub mod words;
pub mod workflow;
