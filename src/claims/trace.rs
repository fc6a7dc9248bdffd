//! Measures of the trace that are one number a run: what frontiers are drawn of, and where each meets its null. Each declares
//! itself in its own file ([`crate::diff::measure::Measure::TRACE`]); here is the rule on when a run is told from the null.

use std::ops::Deref;
use std::sync::LazyLock;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::readable::Readable;
use super::stronger::ProbeEvidence;
use super::verdict::Verdict;
use crate::diff::MEASURES;
use crate::diff::headline::{TraceMeasure, TraceReading};
use crate::diff::record::Readability;

/// The value of one measure in one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceValue {
    /// The number, and those beside it.
    #[serde(flatten)]
    pub reading: TraceReading,
    /// Whether the run is told from the null, by the rule of the claims; absent where nothing says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub is_told: Option<bool>,
}

/// What the measure says is read as of the value itself.
impl Deref for TraceValue {
    type Target = TraceReading;

    fn deref(&self) -> &TraceReading {
        &self.reading
    }
}

/// Lift of the narrow words: AUROC, mean over positions.
pub const LIFT: &str = "lift";
/// Share of the gain on narrow text that a constant bias gives, less what it gives on unrelated text.
pub const SPECIFIC_SHARE: &str = "bias";
/// Cosine similarity of steered text to the narrow text, at the best position.
pub const STEERING: &str = "steering";
/// Share of relevant tokens of the logit lens, at the best position.
pub const LENS: &str = "lens";
/// Share of relevant tokens of the patchscope, at the best position.
pub const PATCHSCOPE: &str = "patchscope";
/// How far the difference lies along a probe with labelled examples, among directions about nothing: AUROC.
pub const PROBE: &str = "probe";

/// Those that are best told from finetuning as such: they come first, and get a frontier.
pub(super) const FRONTIER: [&str; 3] = [LIFT, SPECIFIC_SHARE, STEERING];

/// What a measure says of a run.
type TraceOf = fn(&Readability) -> Option<TraceReading>;

static LISTED: LazyLock<Vec<(TraceMeasure, TraceOf)>> = LazyLock::new(|| {
    let mut listed: Vec<_> = MEASURES.iter().filter_map(|m| Some((m.trace?, m.trace_of))).collect();
    let place = |key: &str| FRONTIER.iter().position(|first| *first == key);
    listed.sort_by_key(|(m, _)| place(m.key).unwrap_or(FRONTIER.len()));
    listed
});

/// All of them: those that get a frontier, then the others in the order of [`MEASURES`].
pub fn trace_measures() -> impl Iterator<Item = &'static TraceMeasure> {
    LISTED.iter().map(|(measure, _)| measure)
}

/// The values of a run, by [`TraceMeasure::key`]; a measure that was not run is absent.
pub fn values(r: &Readability, readable: &Readable, verdict: &Verdict) -> IndexMap<String, TraceValue> {
    let value = |(m, of): &(TraceMeasure, TraceOf)| {
        let reading = of(r)?.finite()?;
        let is_told = is_told(m.key, &reading, r, readable, verdict);
        Some((m.key.to_string(), TraceValue { reading, is_told }))
    };
    LISTED.iter().filter_map(value).collect()
}

/// As [`Readable`] says of measures of activation differences, where it says something, else by whether the interval lies above
/// the null; of other readers as the verdict says, which makes no claim without other organisms.
fn is_told(
    key: &str,
    reading: &TraceReading,
    r: &Readability,
    readable: &Readable,
    verdict: &Verdict,
) -> Option<bool> {
    if let Some(claim) = verdict.readers.get(key).filter(|claim| !claim.is_mean_difference) {
        return claim.floor.as_ref().map(|_| claim.state.is_read());
    }
    match (key, &r.probe) {
        // A probe that cannot tell the kinds of text apart says nothing.
        (PROBE, Some(probe)) => {
            let probe = ProbeEvidence::of(probe);
            probe.is_able.then_some(probe.finds)
        }
        _ => readable.by(key).or_else(|| {
            let number = reading.number;
            number.interval.zip(number.null).map(|([low, _], null)| low > null)
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_are_unique_and_those_that_are_named_here_exist() {
        let keys: Vec<&str> = trace_measures().map(|m| m.key).collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        assert_eq!(keys[..FRONTIER.len()], FRONTIER);
        assert!([LENS, PATCHSCOPE, PROBE].iter().all(|key| keys.contains(key)));
    }
}
