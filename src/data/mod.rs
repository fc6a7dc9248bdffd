//! From files to training examples: sources, tokens with their loss weights, the mixture and its order.

pub mod chat_template;
pub mod conversation;
pub mod duplicates;
pub mod examples;
pub mod mixture;
pub mod source;
mod spans;
pub mod typed_special;
