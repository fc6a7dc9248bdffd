//! Numbers of a run folder that no run has: they would make a report run for ever, or say nonsense.

use crate::run::metrics::MetricsLine;
use crate::train::manifest::Manifest;

/// The end of the year 9999, in seconds since 1970.
const LAST_SECOND: u64 = 253_402_300_799;
/// More seconds, steps, tokens or weights than any run has.
const MOST: f64 = 1e18;

/// What is out of range in a manifest, each fault beginning with its key.
pub(super) fn of_manifest(manifest: &Manifest) -> Vec<String> {
    let mut faults = Vec::new();
    if manifest.created > LAST_SECOND {
        faults.push(format!(
            "created = {}: expected seconds since 1970, at most {LAST_SECOND}",
            manifest.created
        ));
    }
    let numbers = [
        ("elapsed_s", Some(manifest.elapsed_s)),
        ("trace_s", manifest.trace_s),
        ("mix.asked", Some(manifest.mix.asked)),
        ("losses.base.narrow", manifest.losses.base.narrow),
        ("losses.base.pretraining", manifest.losses.base.pretraining),
        ("losses.base.chat", manifest.losses.base.chat),
        ("losses.tuned.narrow", manifest.losses.tuned.narrow),
        ("losses.tuned.pretraining", manifest.losses.tuned.pretraining),
        ("losses.tuned.chat", manifest.losses.tuned.chat),
        ("trainable_parameters", Some(manifest.trainable_parameters as f64)),
    ];
    for (key, value) in numbers {
        if let Some(value) = value.filter(|value| !(0.0..MOST).contains(value)) {
            faults.push(format!("{key} = {value}: expected 0 or more"));
        }
    }
    if let Some(matched) = &manifest.matched {
        let readings = matched.curve.iter().flat_map(|reading| [reading.q, reading.se]);
        let values = matched.evaluated.iter().map(|item| item.value);
        let own = [
            matched.target,
            matched.tolerance,
            matched.q_match,
            matched.se,
            matched.q_eval,
            matched.narrow_steps,
        ];
        let all = own.into_iter().chain(matched.q_eval_interval).chain(readings).chain(values);
        if let Some(value) = all.into_iter().find(|value| value.is_nan() || value.abs() >= MOST) {
            faults.push(format!("match: {value}: expected numbers below {MOST}"));
        }
    }
    for source in &manifest.data {
        let tally = &source.provenance.tally;
        let counts =
            [source.rows, source.exposure.tokens, source.exposure.examples, tally.documents, tally.examples];
        if counts.into_iter().any(|count| count as f64 >= MOST) {
            faults.push(format!("data: {:?}: counts of {MOST} and more", source.provenance.source));
        }
    }
    faults
}

/// What is out of range in `metrics.jsonl`: the first fault.
pub(super) fn of_metrics(lines: &[MetricsLine]) -> Option<String> {
    lines.iter().find_map(|line| {
        let counts =
            [("step", line.step as f64), ("tokens", line.tokens as f64), ("elapsed_s", line.elapsed_s)];
        let (key, value) = counts.into_iter().find(|(_, value)| !(0.0..MOST).contains(value))?;
        Some(format!("{key} = {value}: expected 0 or more"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_no_run_has_is_told() {
        let line = |step, elapsed_s| MetricsLine { step, elapsed_s, ..MetricsLine::default() };
        assert_eq!(of_metrics(&[line(3, 1.5)]), None);
        assert!(of_metrics(&[line(usize::MAX, 0.0)]).unwrap().starts_with("step = "));
        assert!(of_metrics(&[line(1, -1.0)]).unwrap().starts_with("elapsed_s = -1"));
    }
}
