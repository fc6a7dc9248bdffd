//! Runs grouped by mix ratio, and statistics between the runs of a group: dose-response tables.

use serde::{Deserialize, Serialize};

use super::run::ClaimedRun;
use crate::diff::headline::TraceNumber;
use crate::diff::readout::mean;
use crate::diff::statistics::Interval;

/// A mix ratio, as reached, and its runs.
pub type Ratio<'a> = (f64, Vec<&'a ClaimedRun>);

/// The values of one measure at one mix ratio, one a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dose {
    /// Pretraining text per narrow text: the mean of what the runs reached, else what was asked for.
    pub mix: f64,
    mean: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    interval: Option<Interval>,
    /// One value a run.
    pub values: Vec<f64>,
    /// Their runs.
    pub runs: Vec<String>,
    /// The 95 % interval within each run, where it has one.
    pub own: Vec<Option<Interval>>,
    /// What the measure is where nothing is read, mean over the runs that say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null: Option<f64>,
    /// 95 % of that, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null_interval: Option<Interval>,
}

impl Dose {
    /// Of values with their runs and the intervals within them.
    pub fn new(mix: f64, values: Vec<f64>, runs: Vec<String>, own: Vec<Option<Interval>>) -> Self {
        let (mean, interval) = (mean(&values).unwrap_or(f64::NAN), between(&values));
        Self { mix, mean, interval, values, runs, own, null: None, null_interval: None }
    }

    /// Mean over runs.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// 95 % interval of the mean between runs, by Student's t; `None` of fewer than three, of which it says nothing.
    pub fn interval(&self) -> Option<Interval> {
        self.interval
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
pub fn groups<'a>(runs: &[&'a ClaimedRun]) -> Vec<Ratio<'a>> {
    let mut asked: Vec<f64> =
        runs.iter().filter_map(|c| c.mix().nominal()).filter(|m| m.is_finite()).collect();
    asked.sort_by(f64::total_cmp);
    asked.dedup_by(|a, b| (*a - *b).abs() <= 1e-9);
    let same = |run: &&ClaimedRun, ratio: f64| run.mix().nominal().is_some_and(|m| (m - ratio).abs() <= 1e-9);
    asked
        .into_iter()
        .map(|ratio| {
            let group: Vec<&ClaimedRun> = runs.iter().copied().filter(|c| same(c, ratio)).collect();
            let reached: Vec<f64> = group.iter().filter_map(|c| c.mix().realised).collect();
            (mean(&reached).unwrap_or(ratio), group)
        })
        .collect()
}

/// The numbers that `measure` gives at each ratio; a ratio without any is left out.
pub fn doses(groups: &[Ratio], measure: impl Fn(&ClaimedRun) -> Option<TraceNumber>) -> Vec<Dose> {
    let of_ratio = |(mix, runs): &Ratio| {
        let found = runs.iter().filter_map(|run| Some((run.id.clone(), measure(run)?.finite()?)));
        let (ids, numbers): (Vec<String>, Vec<TraceNumber>) = found.unzip();
        let null: Vec<f64> = numbers.iter().filter_map(|n| n.null).collect();
        let end = |end: usize| -> Option<f64> {
            mean(&numbers.iter().filter_map(|n| Some(n.null_interval?[end])).collect::<Vec<_>>())
        };
        let values = numbers.iter().map(|n| n.value).collect();
        let own = numbers.iter().map(|n| n.interval).collect();
        let dose = Dose::new(*mix, values, ids, own);
        Dose { null: mean(&null), null_interval: end(0).zip(end(1)).map(|(low, high)| [low, high]), ..dose }
    };
    groups.iter().map(of_ratio).filter(|dose| !dose.values.is_empty()).collect()
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
}
