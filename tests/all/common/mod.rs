//! What several test files use.

pub mod endpoint;
pub mod hub;
pub mod lab;
pub mod optional;
pub mod run_folder;
