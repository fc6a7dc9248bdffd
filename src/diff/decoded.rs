//! `diff/logit_lens.jsonl` and `diff/patchscope.jsonl`: what every direction decodes to, for graders and agents that
//! judge tokens themselves.

use serde::{Deserialize, Serialize};

use super::relevance::TopToken;

/// What was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// v_p.
    Difference,
    /// The base model's mean activation.
    Base,
    /// The tuned model's mean activation.
    Tuned,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Difference, Self::Base, Self::Tuned];

    /// As the files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Difference => "difference",
            Self::Base => "base",
            Self::Tuned => "tuned",
        }
    }
}

/// A line: the top tokens of one direction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decoded {
    /// Zero-based token position.
    pub position: usize,
    /// What was decoded.
    pub variant: Variant,
    /// Patchscope: the scale in η.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scale: Option<f64>,
    /// Best first.
    pub tokens: Vec<TopToken>,
}
