//! Successive halving for two goals: which settings are worth more steps, and which is chosen in the end.
//!
//! After Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"
//! (arXiv 1502.07943): all settings with few steps, a share of them with more. Here a setting is to be good enough twice
//! over and cheap, so settings stand in order of how far they are from both goals, then of cost. A setting that is set
//! aside is not lost: if none that were kept meets both goals, the next ones are tried, and then some cheaper ones.

use anyhow::Result;
use serde::Serialize;

use crate::bail_input;
use crate::error::input_error;

/// A bound on a measure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// Column of the summary.
    pub measure: String,
    /// Whether the bound is the greatest value allowed, or the least.
    pub at_most: bool,
    /// The bound.
    pub bound: f64,
}

impl Goal {
    /// Reads `MEASURE<=NUMBER` or `MEASURE>=NUMBER`.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let expected = || input_error(format!("{text:?}: expected MEASURE<=NUMBER or MEASURE>=NUMBER"));
        let (at_most, (measure, bound)) = match (text.split_once("<="), text.split_once(">=")) {
            (Some(parts), None) => (true, parts),
            (None, Some(parts)) => (false, parts),
            _ => return Err(expected()),
        };
        let (measure, bound) =
            (measure.trim().to_string(), bound.trim().parse::<f64>().map_err(|_| expected())?);
        if measure.is_empty() || !bound.is_finite() {
            bail_input!("{text:?}: expected MEASURE<=NUMBER or MEASURE>=NUMBER");
        }
        Ok(Self { measure, at_most, bound })
    }

    /// The value with its sign such that less is better.
    fn badness(&self, value: f64) -> f64 {
        if self.at_most { value } else { -value }
    }

    /// By how much a value misses the bound; 0 where it does not.
    pub fn excess(&self, value: f64) -> f64 {
        (self.badness(value) - self.badness(self.bound)).max(0.0)
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} {} {}", self.measure, if self.at_most { "≤" } else { "≥" }, self.bound)
    }
}

/// A setting's values for the two goals, and its cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Values of the two measures; `None` where it failed.
    pub values: Option<[f64; 2]>,
    /// Compared from the front.
    pub cost: Vec<f64>,
}

/// The points in order: nearest to both goals first (distances in units of the spread of all points), then cheapest. Those
/// that failed come last.
pub fn ranked(points: &[Point], goals: &[Goal; 2]) -> Vec<usize> {
    let spread = |i: usize| {
        let values = || points.iter().filter_map(|p| Some(p.values?[i]));
        let (low, high) =
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        if high > low { high - low } else { 1.0 }
    };
    let spreads = [spread(0), spread(1)];
    let distance = |p: &Point| {
        p.values.map_or(f64::INFINITY, |v| (0..2).map(|i| goals[i].excess(v[i]) / spreads[i]).sum::<f64>())
    };
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&points[a], &points[b]);
        distance(a).total_cmp(&distance(b)).then_with(|| cheaper(&a.cost, &b.cost))
    });
    order
}

/// The order of two costs.
pub fn cheaper(a: &[f64], b: &[f64]) -> std::cmp::Ordering {
    let parts = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
    parts.fold(std::cmp::Ordering::Equal, |order, part| order.then(part))
}

/// The cheapest point that meets both goals.
pub fn chosen(points: &[Point], goals: &[Goal; 2]) -> Option<usize> {
    let meets = |p: &Point| p.values.is_some_and(|v| (0..2).all(|i| goals[i].excess(v[i]) == 0.0));
    let those = (0..points.len()).filter(|&i| meets(&points[i]));
    those.min_by(|&a, &b| cheaper(&points[a].cost, &points[b].cost))
}

/// The points than which no other is better in one measure and as good in the other.
pub fn frontier(points: &[Point], goals: &[Goal; 2]) -> Vec<usize> {
    let bad = |p: &Point| p.values.map(|v| [goals[0].badness(v[0]), goals[1].badness(v[1])]);
    let dominated = |mine: [f64; 2]| {
        points
            .iter()
            .filter_map(bad)
            .any(|other| (0..2).all(|i| other[i] <= mine[i]) && (0..2).any(|i| other[i] < mine[i]))
    };
    (0..points.len()).filter(|&i| bad(&points[i]).is_some_and(|mine| !dominated(mine))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goals() -> [Goal; 2] {
        [Goal::parse("lift_auroc_mean<=0.55").unwrap(), Goal::parse("facts >= 1").unwrap()]
    }

    fn point(trace: f64, behaviour: f64, cost: f64) -> Point {
        Point { values: Some([trace, behaviour]), cost: vec![cost] }
    }

    #[test]
    fn goals_are_read_and_nonsense_is_refused() {
        let [trace, facts] = goals();
        assert_eq!(
            (trace.excess(0.5), trace.excess(0.75) > 0.19, facts.excess(2.0), facts.excess(0.25)),
            (0.0, true, 0.0, 0.75)
        );
        assert_eq!(trace.to_string(), "lift_auroc_mean ≤ 0.55");
        for text in ["x", "x<1", "<=1", "x<=nan", "x<=1>=0", "x<=", "x=>1"] {
            assert!(Goal::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_cheapest_that_meets_both_is_chosen_and_the_nearest_stay() {
        let failed = Point { values: None, cost: vec![0.0] };
        let points = [
            point(0.70, 2.0, 0.0),
            point(0.54, 1.5, 1.0),
            point(0.50, 1.2, 2.0),
            point(0.50, 0.1, 3.0),
            failed,
        ];
        assert_eq!(chosen(&points, &goals()), Some(1));
        assert_eq!(ranked(&points, &goals()), [1, 2, 3, 0, 4]);
        assert_eq!(frontier(&points, &goals()), [0, 1, 2]);
        assert_eq!(chosen(&points[..1], &goals()), None);
        assert_eq!(cheaper(&[1.0, 0.0], &[1.0, 2.0]), std::cmp::Ordering::Less);
    }
}
