//! How the marks and bars of dose-response curves stand for runs, and in what words.

use crate::claims::dose::Dose;

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
        true => "One run per ratio, without an interval.".into(),
        false => format!(
            "One run per ratio; bars are 95 % bootstrap intervals within the run, over its {items}: other seeds may \
             differ by more."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::dose::between;
    use crate::diff::statistics::Interval;

    #[test]
    fn bars_are_within_runs_only_where_every_ratio_has_one() {
        let dose = |mix: f64, n: usize, own: Option<Interval>| {
            let values = (0..n).map(|i| i as f64).collect();
            Dose::new(mix, values, vec!["run".into(); n], vec![own; n])
        };
        let own = Some([-1.0, 1.0]);
        let single = [dose(0.0, 1, own), dose(1.0, 1, own)];
        assert_eq!(bars(&single), [(0.0, -1.0, 1.0), (1.0, -1.0, 1.0)]);
        assert!(marks(&single, "texts").contains("within the run, over its texts"));
        let [low, high] = between(&[0.0, 1.0, 2.0]).unwrap();
        let several = [dose(0.0, 1, own), dose(1.0, 3, own)];
        assert_eq!(bars(&several), [(1.0, low, high)]);
        assert!(marks(&several, "texts").contains("between runs"));
        let without = [dose(0.0, 1, None)];
        assert!(bars(&without).is_empty() && marks(&without, "texts").contains("without an interval"));
    }
}
