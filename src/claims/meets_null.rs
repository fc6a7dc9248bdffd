//! Where each measure meets its null as pretraining text is mixed in.

use serde::{Deserialize, Serialize};

use super::dose::Ratio;
use crate::diff::headline::TraceMeasure;

/// Where a measure meets its null, if it does: the first ratio from which on no more than half of the runs are told from
/// it. It is a statement about the ratios and runs that were made; the true ratio may lie between two of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeetsNull {
    /// Key of the measure.
    pub measure: String,
    /// Its name in a sentence.
    pub name: String,
    /// The first ratio at which it does; absent where it does not, or where it is told from it nowhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<f64>,
    /// The last ratio at which more than half of the runs are told from the null; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_told: Option<f64>,
    /// Lower ratios at which they are not.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gaps: Vec<f64>,
    /// How many runs are told from the null at each ratio.
    pub counts: Vec<ToldRuns>,
}

/// Runs that are told from the null at one ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToldRuns {
    /// Pretraining text per narrow text.
    pub mix: f64,
    /// Those that are.
    pub told: usize,
    /// All that were measured.
    pub runs: usize,
}

impl ToldRuns {
    /// Of the runs of a ratio that say something by a measure.
    pub(super) fn of(key: &str, (mix, runs): &Ratio) -> Self {
        let told: Vec<bool> = runs.iter().filter_map(|run| run.claims.trace.get(key)?.is_told).collect();
        Self { mix: *mix, told: told.iter().filter(|t| **t).count(), runs: told.len() }
    }

    /// Whether more than half are.
    pub(super) fn is_told(&self) -> bool {
        2 * self.told > self.runs
    }
}

/// Where a measure meets its null; `None` with fewer than two ratios.
pub fn meets_null(measure: &TraceMeasure, groups: &[Ratio]) -> Option<MeetsNull> {
    let count = |group: &Ratio| ToldRuns::of(measure.key, group);
    let counts: Vec<ToldRuns> = groups.iter().map(count).filter(|c| c.runs > 0).collect();
    if counts.len() < 2 {
        return None;
    }
    let last = counts.iter().rposition(ToldRuns::is_told);
    let gaps = counts[..last.unwrap_or(0)].iter().filter(|c| !c.is_told()).map(|c| c.mix).collect();
    Some(MeetsNull {
        measure: measure.key.into(),
        name: measure.name.into(),
        at: last.and_then(|last| counts.get(last + 1)).map(|c| c.mix),
        last_told: last.map(|last| counts[last].mix),
        gaps,
        counts,
    })
}
