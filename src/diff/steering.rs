//! Steering.
/// Neutral prompts.
pub const PROMPTS: [&str; 1] = ["x"];
