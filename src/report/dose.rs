//! Runs grouped by mix ratio, for dose-response curves.

use super::cell::Cell;
use super::measure::mean;

/// The values of one measure at one mix ratio, one a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Dose {
    /// Pretraining text per narrow text: the mean of what the runs reached, else what was asked for.
    pub mix: f64,
    /// One value a run.
    pub values: Vec<f64>,
}

impl Dose {
    /// Mean over runs.
    pub fn mean(&self) -> f64 {
        mean(&self.values).unwrap_or(f64::NAN)
    }

    /// Lowest and highest.
    pub fn spread(&self) -> (f64, f64) {
        let low = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low, high)
    }
}

/// Runs of the same ratio, by ratio. Runs whose ratio is unknown are left out.
pub fn groups(cells: &[Cell]) -> Vec<(f64, Vec<&Cell>)> {
    let mut asked: Vec<f64> =
        cells.iter().filter_map(|c| c.mix().nominal()).filter(|m| m.is_finite()).collect();
    asked.sort_by(f64::total_cmp);
    asked.dedup_by(|a, b| (*a - *b).abs() <= 1e-9);
    let same = |cell: &&Cell, ratio: f64| cell.mix().nominal().is_some_and(|m| (m - ratio).abs() <= 1e-9);
    asked
        .into_iter()
        .map(|ratio| {
            let group: Vec<&Cell> = cells.iter().filter(|c| same(c, ratio)).collect();
            let reached: Vec<f64> = group.iter().filter_map(|c| c.mix().realised).collect();
            (mean(&reached).unwrap_or(ratio), group)
        })
        .collect()
}

/// The values that `measure` gives at each ratio; a ratio without any is left out.
pub fn doses(groups: &[(f64, Vec<&Cell>)], measure: impl Fn(&Cell) -> Option<f64>) -> Vec<Dose> {
    groups
        .iter()
        .map(|(mix, cells)| Dose { mix: *mix, values: cells.iter().filter_map(|c| measure(c)).collect() })
        .filter(|d| !d.values.is_empty())
        .collect()
}

/// Where a ratio stands on the axis: linear near zero, logarithmic beyond the smallest ratio above zero,
/// so that 0 has a place and 0.1 and 50 can both be read.
#[derive(Debug, Clone, Copy)]
pub struct MixScale {
    knee: f64,
}

impl MixScale {
    /// The scale for some ratios.
    pub fn over(groups: &[(f64, Vec<&Cell>)]) -> Self {
        let knee = groups.iter().map(|g| g.0).filter(|m| *m > 0.0).fold(f64::INFINITY, f64::min);
        Self { knee: if knee.is_finite() { knee } else { 1.0 } }
    }

    /// The place of a ratio.
    pub fn place(self, mix: f64) -> f64 {
        (mix / self.knee).asinh()
    }
}
