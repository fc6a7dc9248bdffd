//! `readers` of `readability.json`: what both models say next, read without a grader and without a block.

use serde::{Deserialize, Serialize};

use super::measures::completion_ranking::CompletionRanking;
use super::measures::diff_mining::DiffMining;
use super::measures::logit_contrast::LogitContrast;
use super::measures::weights::Weights;

/// The readers beyond the mean difference, by name; one that was not run is absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Readers {
    /// Text that amplifies what sets the models apart.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logit_contrast: Option<LogitContrast>,
    /// Next-token differences, token by token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub diff_mining: Option<DiffMining>,
    /// Completions that the tuned model finds likelier.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub completion_ranking: Option<CompletionRanking>,
    /// The change of the weights by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<Weights>,
}

impl Readers {
    /// Whether none was run.
    pub fn is_empty(&self) -> bool {
        self.logit_contrast.is_none()
            && self.diff_mining.is_none()
            && self.completion_ranking.is_none()
            && self.weights.is_none()
    }
}
