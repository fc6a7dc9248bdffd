//! Reading a finetuned model's activation differences.

pub mod record;
pub mod steering;
