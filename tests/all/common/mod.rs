//! What several test files use.

pub mod endpoint;
pub mod hub;
pub mod lab;
pub mod outcome;
pub mod process;
pub mod run_folder;
pub mod tiny;
pub mod values;
