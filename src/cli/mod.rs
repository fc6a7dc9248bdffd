//! The command line: one module a subcommand, each calling one library function.

pub mod models;
