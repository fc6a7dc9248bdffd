//! What the commands do, as library functions.

pub mod export;
pub mod monitor;
pub mod of_run;
pub mod pair;
pub mod resolve;
pub mod self_sample;
pub mod texts;
pub mod tune;
