//! Measures of the trace that are one number a run: what frontiers are drawn of, and where each meets its null.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::readable::Readable;
use super::stronger::ProbeEvidence;
use crate::diff::measures::steering::Gain;
use crate::diff::readout::Relevance;
use crate::diff::record::Readability;
use crate::diff::statistics::Interval;

/// The value of one measure in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceValue {
    /// In the unit of the measure.
    pub value: f64,
    /// Its 95 % interval within the run, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<Interval>,
    /// What it is where nothing is read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null: Option<f64>,
    /// Whether the run is told from the null, by the rule of the claims; absent where nothing says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub is_told: Option<bool>,
}

/// A measure of the trace.
#[derive(Debug, Clone, Copy)]
pub struct TraceMeasure {
    /// Its key in `claims.json` and in file names.
    pub key: &'static str,
    /// Its name in a sentence.
    pub name: &'static str,
    value: fn(&Readability, &Readable) -> Option<TraceValue>,
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

/// All of them; those that are best told from finetuning as such come first, and get a frontier.
pub const TRACE_MEASURES: [TraceMeasure; 6] = [
    TraceMeasure { key: LIFT, name: "lift AUROC", value: lift },
    TraceMeasure { key: SPECIFIC_SHARE, name: "the specific bias share", value: specific_share },
    TraceMeasure { key: STEERING, name: "steering", value: steering },
    TraceMeasure {
        key: LENS,
        name: "the logit lens",
        value: |r, readable| decoding(Relevance::lens(r)?, readable.by(LENS)),
    },
    TraceMeasure {
        key: PATCHSCOPE,
        name: "the patchscope",
        value: |r, readable| decoding(Relevance::patchscope(r)?, readable.by(PATCHSCOPE)),
    },
    TraceMeasure { key: PROBE, name: "the probe with labelled examples", value: probe },
];

/// The values of a run, by [`TraceMeasure::key`]; a measure that was not run is absent.
pub fn values(r: &Readability, readable: &Readable) -> IndexMap<String, TraceValue> {
    let values = TRACE_MEASURES.iter().filter_map(|m| Some((m.key.to_string(), (m.value)(r, readable)?)));
    values.filter(|(_, found)| found.value.is_finite()).collect()
}

fn lift(r: &Readability, readable: &Readable) -> Option<TraceValue> {
    let lift = r.lift.as_ref()?;
    Some(TraceValue {
        value: lift.auroc_mean,
        interval: Some(lift.auroc_mean_interval),
        null: lift.auroc_null.first().copied(),
        is_told: readable.by(LIFT),
    })
}

fn specific_share(r: &Readability, _: &Readable) -> Option<TraceValue> {
    let shares = r.bias_share.as_ref()?.shares.as_ref()?;
    Some(TraceValue {
        value: shares.specific_share?,
        interval: shares.specific_share_interval,
        null: Some(0.0),
        is_told: shares.specific_share_interval.map(|[low, _]| low > 0.0),
    })
}

fn steering(r: &Readability, readable: &Readable) -> Option<TraceValue> {
    let gain = Gain::of(r)?;
    let (i, similarity) = (gain.best()?, &gain.record.similarity);
    Some(TraceValue {
        value: *similarity.steered_narrow.get(i)?,
        interval: similarity.steered_narrow_interval.get(i).copied(),
        null: similarity.null_narrow.get(i).copied(),
        is_told: readable.by(STEERING),
    })
}

fn decoding(m: Relevance, is_told: Option<bool>) -> Option<TraceValue> {
    let i = m.best()?;
    Some(TraceValue {
        value: *m.share.difference.get(i)?,
        interval: m.interval.get(i).copied(),
        null: m.null.get(i).copied(),
        is_told,
    })
}

fn probe(r: &Readability, _: &Readable) -> Option<TraceValue> {
    let probe = ProbeEvidence::of(r.probe.as_ref()?);
    Some(TraceValue {
        value: probe.auroc,
        interval: Some(probe.auroc_interval),
        null: Some(probe.auroc_null),
        // A probe that cannot tell the kinds of text apart says nothing.
        is_told: probe.is_able.then_some(probe.finds),
    })
}
