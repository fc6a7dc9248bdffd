//! What was measured while training, mean over the runs of a mix ratio.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::dose::Ratio;
use crate::diff::readout::mean;

/// One value of `metrics.jsonl` by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingCurve {
    /// Pretraining text per narrow text.
    pub mix: f64,
    /// Step and mean over the runs that have the value there, at the steps that any of them has.
    pub points: Vec<(usize, f64)>,
}

/// Every `trace_…` and `behaviour_…` by its key, a curve a ratio; a ratio without the value has none.
pub(super) fn training_curves(groups: &[Ratio]) -> IndexMap<String, Vec<TrainingCurve>> {
    let measured = groups.iter().flat_map(|g| &g.1).flat_map(|run| &run.measured);
    let keys: BTreeSet<&String> = measured.flat_map(|m| m.values.keys()).collect();
    keys.into_iter().map(|key| (key.clone(), groups.iter().filter_map(|g| curve(key, g)).collect())).collect()
}

fn curve(key: &str, (mix, runs): &Ratio) -> Option<TrainingCurve> {
    let mut steps: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for m in runs.iter().flat_map(|run| &run.measured) {
        if let Some(value) = m.values.get(key) {
            steps.entry(m.step).or_default().push(*value);
        }
    }
    let points: Vec<(usize, f64)> =
        steps.iter().filter_map(|(step, values)| Some((*step, mean(values)?))).collect();
    (!points.is_empty()).then_some(TrainingCurve { mix: *mix, points })
}
