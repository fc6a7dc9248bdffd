//! Runs grouped by mix ratio, for dose-response curves.

use crate::results::run_record::Cell;
use crate::diff::readout::mean;
use crate::diff::statistics::Interval;

/// A mix ratio, as reached, and its runs.
pub type Ratio<'a> = (f64, Vec<&'a Cell>);

/// The values of one measure at one mix ratio, one a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Dose {
    /// Pretraining text per narrow text: the mean of what the runs reached, else what was asked for.
    pub mix: f64,
    /// One value a run.
    pub values: Vec<f64>,
    /// Their runs.
    pub runs: Vec<String>,
    /// The 95 % interval within each run, where it has one.
    pub own: Vec<Option<Interval>>,
}

impl Dose {
    /// Mean over runs.
    pub fn mean(&self) -> f64 {
        mean(&self.values).unwrap_or(f64::NAN)
    }

    /// 95 % interval of the mean between runs, by Student's t; `None` of fewer than three, of which it says nothing.
    pub fn interval(&self) -> Option<Interval> {
        between(&self.values)
    }
}

/// 97.5 % quantiles of Student's t with 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// 95 % interval of the mean of values of independent runs; `None` of fewer than three.
pub fn between(values: &[f64]) -> Option<Interval> {
    let n = values.len();
    let center = mean(values).filter(|_| n >= 3)?;
    let variance = values.iter().map(|v| (v - center).powi(2)).sum::<f64>() / (n - 1) as f64;
    // Beyond the table the quantile is 1.96 + 2.4 / df to three digits.
    let t = T.get(n - 2).copied().unwrap_or(1.96 + 2.4 / (n - 1) as f64);
    let half = t * (variance / n as f64).sqrt();
    Some([center - half, center + half])
}

/// Runs of the same ratio, by ratio. Runs whose ratio is unknown are left out.
pub fn groups<'a>(cells: &[&'a Cell]) -> Vec<Ratio<'a>> {
    let mut asked: Vec<f64> =
        cells.iter().filter_map(|c| c.mix().nominal()).filter(|m| m.is_finite()).collect();
    asked.sort_by(f64::total_cmp);
    asked.dedup_by(|a, b| (*a - *b).abs() <= 1e-9);
    let same = |cell: &&Cell, ratio: f64| cell.mix().nominal().is_some_and(|m| (m - ratio).abs() <= 1e-9);
    asked
        .into_iter()
        .map(|ratio| {
            let group: Vec<&Cell> = cells.iter().copied().filter(|c| same(c, ratio)).collect();
            let reached: Vec<f64> = group.iter().filter_map(|c| c.mix().realised).collect();
            (mean(&reached).unwrap_or(ratio), group)
        })
        .collect()
}

/// The values that `measure` gives at each ratio; a ratio without any is left out.
pub fn doses(groups: &[Ratio], measure: impl Fn(&Cell) -> Option<f64>) -> Vec<Dose> {
    doses_with(groups, |cell| Some((measure(cell)?, None)))
}

/// The value of a run, and its 95 % interval within the run where there is one.
pub type Measured = (f64, Option<Interval>);

/// The same of a measure that gives its interval within the run too.
pub fn doses_with(groups: &[Ratio], measure: impl Fn(&Cell) -> Option<Measured>) -> Vec<Dose> {
    let mut doses = Vec::new();
    for (mix, cells) in groups {
        let mut dose = Dose { mix: *mix, values: vec![], runs: vec![], own: vec![] };
        for cell in cells {
            if let Some((value, own)) = measure(cell).filter(|m| m.0.is_finite()) {
                dose.values.push(value);
                dose.runs.push(cell.id.clone());
                dose.own.push(own);
            }
        }
        if !dose.values.is_empty() {
            doses.push(dose);
        }
    }
    doses
}

/// Whether there is one run a ratio, so that nothing is known of what lies between runs.
pub fn are_single(doses: &[Dose]) -> bool {
    doses.iter().all(|d| d.values.len() == 1)
}

/// The bars `(mix, low, high)` of some doses: intervals between runs, or within them where there is one run a ratio.
/// Never both in one figure, for they mean different things.
pub fn bars(doses: &[Dose]) -> Vec<(f64, f64, f64)> {
    let single = are_single(doses);
    let of = |d: &Dose| if single { d.own[0] } else { d.interval() };
    doses.iter().filter_map(|d| of(d).map(|[low, high]| (d.mix, low, high))).collect()
}

/// What marks and bars are where ratios have several runs.
pub const BETWEEN: &str = "Small marks are single runs, large marks their mean; bars are 95 % intervals of the mean between \
runs (Student’s t), from three runs on.";

/// What the marks and bars of a figure of such doses are, in words; intervals within a run are over its `items`.
pub fn marks(doses: &[Dose], items: &str) -> String {
    if !are_single(doses) {
        return BETWEEN.into();
    }
    match bars(doses).is_empty() {
        true => "One run a ratio, without an interval.".into(),
        false => format!(
            "One run a ratio; bars are 95 % bootstrap intervals within the run, over its {items}: other seeds may differ by \
             more."
        ),
    }
}

/// Where a ratio stands on the axis: linear near zero, logarithmic beyond the smallest ratio above zero,
/// so that 0 has a place and 0.1 and 50 can both be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixScale {
    knee: f64,
}

impl MixScale {
    /// The scale for some ratios.
    pub fn over(groups: &[Ratio]) -> Self {
        let knee = groups.iter().map(|g| g.0).filter(|m| *m > 0.0).fold(f64::INFINITY, f64::min);
        Self { knee: if knee.is_finite() { knee } else { 1.0 } }
    }

    /// The place of a ratio.
    pub fn place(self, mix: f64) -> f64 {
        (mix / self.knee).asinh()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_between_runs_are_students() {
        assert_eq!(between(&[1.0, 2.0]), None);
        // R: t.test(c(1, 2, 4))$conf.int
        let [low, high] = between(&[1.0, 2.0, 4.0]).unwrap();
        assert!((low - -1.46125).abs() < 1e-3 && (high - 6.12792).abs() < 1e-3, "{low} {high}");
    }
    #[test]
    fn bars_are_within_runs_only_where_every_ratio_has_one() {
        let dose = |mix: f64, n: usize| Dose {
            mix,
            values: (0..n).map(|i| i as f64).collect(),
            runs: vec!["run".into(); n],
            own: vec![Some([-1.0, 1.0]); n],
        };
        let single = [dose(0.0, 1), dose(1.0, 1)];
        assert_eq!(bars(&single), [(0.0, -1.0, 1.0), (1.0, -1.0, 1.0)]);
        assert!(marks(&single, "texts").contains("within the run, over its texts"));
        let [low, high] = between(&[0.0, 1.0, 2.0]).unwrap();
        let several = [dose(0.0, 1), dose(1.0, 3)];
        assert_eq!(bars(&several), [(1.0, low, high)]);
        assert!(marks(&several, "texts").contains("between runs"));
        let without = [Dose { own: vec![None], ..dose(0.0, 1) }];
        assert!(bars(&without).is_empty() && marks(&without, "texts").contains("without an interval"));
    }
}
