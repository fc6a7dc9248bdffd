//! `[claims]`: what is to be claimed, fixed before anything is read.

use serde::{Deserialize, Serialize};

/// Every reader that has a score, by the key of the score.
pub const READERS: [&str; 11] = [
    "logit_contrast",
    "diff_mining",
    "completion_ranking",
    "weights",
    "logit_lens",
    "lift",
    "patchscope",
    "steering",
    "steering_base",
    "bias_share",
    "probe",
];

/// The readers that a recipe names beforehand by default: the four headline scores.
pub fn default_primaries() -> &'static [&'static str] {
    &READERS[..4]
}

/// `[claims]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimsSection {
    /// The readers that are named beforehand: their p-values are corrected for each other, and the others only explore.
    pub primaries: Vec<String>,
}

impl Default for ClaimsSection {
    fn default() -> Self {
        Self { primaries: default_primaries().iter().map(|key| key.to_string()).collect() }
    }
}

impl ClaimsSection {
    /// What is out of range.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (i, key) in self.primaries.iter().enumerate() {
            if !READERS.contains(&key.as_str()) {
                faults.push(format!("claims.primaries: no reader {key:?}; there is: {}", READERS.join(", ")));
            } else if self.primaries[..i].contains(key) {
                faults.push(format!("claims.primaries: {key:?} is listed twice"));
            }
        }
        faults
    }
}
