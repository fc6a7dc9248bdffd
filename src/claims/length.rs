//! How long the mean difference is: what is next to nothing decodes to nothing that says much.

use serde::{Deserialize, Serialize};

use super::rules::NEXT_TO_NOTHING;
use crate::diff::mean_difference::later;
use crate::diff::readout::mean;
use crate::diff::record::Readability;

/// The length of the mean difference, and where and on what it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DifferenceLength {
    /// ‖v_p‖ / η, mean over positions ≥ 1 (all, if there is no other).
    pub relative: f64,
    /// Whether that is below [`NEXT_TO_NOTHING`].
    pub is_next_to_nothing: bool,
    /// Zero-based block after which it was read.
    pub layer: usize,
    /// Blocks of the model.
    pub n_layers: usize,
    /// Texts that were averaged.
    pub samples: usize,
}

impl DifferenceLength {
    /// Of an analysis; `None` where η is 0.
    pub fn of(r: &Readability) -> Option<Self> {
        let relative =
            |&i: &usize| Some(r.delta_norm.get(i)? / r.expected_norm.get(i).filter(|eta| **eta > 0.0)?);
        let lengths: Vec<f64> = later(&r.positions).iter().filter_map(relative).collect();
        let relative = mean(&lengths)?;
        Some(Self {
            relative,
            is_next_to_nothing: relative < NEXT_TO_NOTHING,
            layer: r.layer,
            n_layers: r.n_layers,
            samples: r.samples,
        })
    }
}
