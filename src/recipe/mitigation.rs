//! `[train.mitigation]`: what is done against the trace while training, beside mixing. What each does, and whose idea it
//! is, stands in the file of its name in `train/mitigation/`.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// `[train.mitigation]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MitigationSection {
    /// Divergence from the base on pretraining text.
    pub divergence: LossTermSection,
    /// Length of the mean difference itself.
    pub difference: LossTermSection,
    /// Concept ablation.
    pub ablation: AblationSection,
    /// Decay toward the base.
    pub decay: DecaySection,
    /// Scaling what was learned, after training.
    pub scale: ScaleSection,
}

/// `[train.mitigation.divergence]`, `[train.mitigation.difference]`: a term of the loss on pretraining examples of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossTermSection {
    /// Factor on the term (0: it is not computed).
    pub weight: f64,
    /// Pretraining examples a step.
    pub examples: usize,
}

impl Default for LossTermSection {
    fn default() -> Self {
        Self { weight: 0.0, examples: 4 }
    }
}

/// `[train.mitigation.ablation]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AblationSection {
    /// A safetensors file with `directions`, `(directions, hidden)`; or `diff/activations.safetensors` of a pilot run, of
    /// which the mean differences count, but position 0 and what lies along the base's mean activations (empty: nothing
    /// is taken out).
    pub directions: String,
    /// Blocks after which they are taken out (none given: the block that `[diff]` reads).
    pub layers: Vec<usize>,
}

/// `[train.mitigation.decay]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecaySection {
    /// Share of the distance to the base that a step at learning rate 1 takes back (0: none).
    pub rate: f64,
}

/// `[train.mitigation.scale]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScaleSection {
    /// Factor on what was learned (1: as it is).
    pub factor: f64,
}

impl Default for ScaleSection {
    fn default() -> Self {
        Self { factor: 1.0 }
    }
}

impl MitigationSection {
    /// What is out of range or missing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(format!("train.mitigation.{fault}"));
            }
        };
        for (name, term) in [("divergence", &self.divergence), ("difference", &self.difference)] {
            check(
                (0.0..=1e9).contains(&term.weight),
                format!("{name}.weight = {}: expected 0 to 1000000000", term.weight),
            );
            check(
                (1..=1_000_000).contains(&term.examples),
                format!("{name}.examples = {}: expected 1 to 1000000", term.examples),
            );
        }
        let directions = &self.ablation.directions;
        check(
            directions.is_empty() || Path::new(directions).is_file(),
            format!(
                "ablation.directions: {directions}: no such file; expected a safetensors file, such as \
                 diff/activations.safetensors of a pilot run"
            ),
        );
        check(
            !directions.is_empty() || self.ablation.layers.is_empty(),
            "ablation.layers: given without ablation.directions".into(),
        );
        check(
            (0.0..=1e9).contains(&self.decay.rate),
            format!("decay.rate = {}: expected 0 to 1000000000", self.decay.rate),
        );
        check(
            (0.0..=100.0).contains(&self.scale.factor),
            format!("scale.factor = {}: expected 0 to 100", self.scale.factor),
        );
        faults
    }

    /// Whether a term needs pretraining examples.
    pub fn reads_pretraining(&self) -> bool {
        self.divergence.weight > 0.0 || self.difference.weight > 0.0
    }

    /// Whether something needs the base's weights beside those that learn.
    pub fn pulls_to_base(&self) -> bool {
        self.decay.rate > 0.0 || self.scale.factor != 1.0
    }
}
