//! `[diff.weights]`: what the change of the weights says by itself, without running either model.

use serde::{Deserialize, Serialize};

/// `[diff.weights]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightsSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Random changes of the same spectrum that are read the same way.
    pub null_draws: usize,
    /// The modules that changed most, so many, whose directions are shown.
    pub modules: usize,
    /// Leading singular directions of each.
    pub directions: usize,
    /// Words that are shown on either side of a direction.
    pub words: usize,
}

impl Default for WeightsSection {
    fn default() -> Self {
        Self { enabled: true, null_draws: 64, modules: 8, directions: 4, words: 20 }
    }
}

impl WeightsSection {
    /// What is out of range.
    pub(super) fn faults(&self) -> Vec<String> {
        let sizes = [
            ("null_draws", self.null_draws, 1, 10_000),
            ("modules", self.modules, 0, 10_000),
            ("directions", self.directions, 1, 64),
            ("words", self.words, 1, 1_000),
        ];
        let wrong = sizes.into_iter().filter(|(_, value, least, most)| !(least..=most).contains(&value));
        wrong
            .map(|(key, value, least, most)| {
                format!("diff.weights.{key} = {value}: expected {least} to {most}")
            })
            .collect()
    }
}
