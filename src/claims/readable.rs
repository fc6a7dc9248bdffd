//! The first claim: whether the trace is readable by measures of activation differences.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::list;
use super::rules::ALPHA;
use crate::diff::measures::lift::Lift;
use crate::diff::measures::steering::SteeringGain;
use crate::diff::readout::{DecodedRelevance, best};
use crate::diff::record::Readability;
use crate::diff::statistics::Interval;

/// What each measure that ran says. Nothing is corrected for trying several positions; how many pass is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Readable {
    /// The claim in one phrase.
    pub headline: String,
    /// Those of logit lens (`lens`), `patchscope`, `lift` and `steering` that ran and had narrow text to compare with, in
    /// this order.
    pub measures: IndexMap<String, ReadableBy>,
    /// Whether no word of the narrow text stood out, so that nothing could be read by words.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub without_words: bool,
}

/// Whether a measure tells the trace from its null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadableState {
    /// It does.
    Readable,
    /// It does at one of three or more positions, which chance alone does in up to [`ALPHA`] × positions of runs.
    WeaklyReadable,
    /// It does not, with this many samples.
    NotDistinguishable,
}

/// What one measure says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadableBy {
    /// The measure in words.
    pub name: String,
    /// Whether it reads the trace.
    pub state: ReadableState,
    /// Logit lens and patchscope: share of relevant tokens. Lift: AUROC, mean over positions. Steering: gain in cosine
    /// similarity to the narrow text over the same model's plain text.
    pub value: f64,
    /// 95 % bootstrap interval of the value, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<Interval>,
    /// Mean of random directions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null: Option<f64>,
    /// Their 2.5 % and 97.5 % quantiles.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null_interval: Option<Interval>,
    /// p-value against random directions; absent where intervals decide (steering).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p: Option<f64>,
    /// The position of the value: the highest of those that pass, else of all. Absent where the value is a mean.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<usize>,
    /// Positions at which the measure tells the trace from its null.
    pub passing: Vec<usize>,
    /// How many positions were tried; 0 where the value is a mean over them.
    pub tried: usize,
    /// What else a decoding says at that position.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decoding: Option<DecodingEvidence>,
    /// What else steering says at that position.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub steering: Option<SteeringEvidence>,
}

/// Beside the share of relevant tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecodingEvidence {
    /// How many tokens count as decoded.
    pub top: usize,
    /// The share among the tokens of the base model's own mean activation: such a trace was not put there by finetuning.
    pub base: f64,
}

/// Beside the gain in similarity. Similarities are mean cosines between embeddings of texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SteeringEvidence {
    /// Strength, in expected norms η.
    pub strength: f64,
    /// Steered text to narrow text.
    pub steered: f64,
    /// Plain (unsteered) text of the same model to narrow text.
    pub plain: f64,
    /// Narrow text to itself.
    pub ceiling: f64,
    /// 95 % interval of steered text's similarity over that of text steered by random directions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub over_null_interval: Option<Interval>,
}

impl ReadableBy {
    /// Whether the measure reads the trace, weakly or not.
    pub fn is_readable(&self) -> bool {
        self.state != ReadableState::NotDistinguishable
    }
}

impl Readable {
    /// Applies the rule to an analysis.
    pub fn of(r: &Readability) -> Self {
        let decodings = DecodedRelevance::all(r).filter_map(|m| Some((m.key, decoding(&m)?)));
        let lift = r.lift.as_ref().map(|lift| ("lift", of_lift(lift)));
        let steering = SteeringGain::of(r).and_then(|gain| Some(("steering", of_steering(&gain)?)));
        let measures = decodings.chain(lift).chain(steering);
        let without_words = !r.lexicon.rule.is_empty() && r.lexicon.words.is_empty();
        // Analyses of older versions took measures of words without any.
        let measures = measures.filter(|(key, _)| !without_words || *key == "steering");
        Self::by_measures(measures.map(|(key, found)| (key.to_string(), found)).collect(), without_words)
    }

    /// Of a run without an analysis.
    pub fn not_measured() -> Self {
        Self::by_measures(IndexMap::new(), false)
    }

    fn by_measures(measures: IndexMap<String, ReadableBy>, without_words: bool) -> Self {
        let mut readable = Self { headline: String::new(), measures, without_words };
        readable.headline = readable.phrase();
        readable
    }

    /// Whether any measure ran.
    pub fn is_measured(&self) -> bool {
        !self.measures.is_empty()
    }

    /// Whether the run is readable by a measure, given by its key; `None` if that one did not run.
    pub fn by(&self, key: &str) -> Option<bool> {
        self.measures.get(key).map(ReadableBy::is_readable)
    }

    /// The names of the measures that read the trace.
    pub fn readable_by(&self) -> Vec<&str> {
        self.names(true)
    }

    /// The names of those that ran and do not tell it from the null.
    pub fn not_by(&self) -> Vec<&str> {
        self.names(false)
    }

    fn names(&self, readable: bool) -> Vec<&str> {
        let those = self.measures.values().filter(|m| m.is_readable() == readable);
        those.map(|m| m.name.as_str()).collect()
    }

    fn phrase(&self) -> String {
        let (by, not_by) = (self.readable_by(), self.not_by());
        if !self.is_measured() {
            return match self.without_words {
                true => "not measured (no word of the narrow text stands out)".into(),
                false => "not measured".into(),
            };
        }
        if by.is_empty() {
            return format!("not distinguishable from the null by any measure run ({})", list(&not_by));
        }
        let name = |m: &ReadableBy| match m.state {
            ReadableState::WeaklyReadable => format!("{} (weakly: at 1 of {} positions)", m.name, m.tried),
            _ => m.name.clone(),
        };
        let names: Vec<String> = self.measures.values().filter(|m| m.is_readable()).map(name).collect();
        let mut phrase = format!("readable by {}", list(&names));
        if !not_by.is_empty() {
            phrase.push_str(&format!("; not distinguishable from the null by {}", list(&not_by)));
        }
        phrase
    }
}

/// The state of a measure that tries several positions.
fn over_positions(passing: usize, tried: usize) -> ReadableState {
    match passing {
        0 => ReadableState::NotDistinguishable,
        1 if tried > 2 => ReadableState::WeaklyReadable,
        _ => ReadableState::Readable,
    }
}

/// Readable if at one position at least the share of relevant tokens has p ≤ [`ALPHA`] against random directions.
fn decoding(m: &DecodedRelevance) -> Option<ReadableBy> {
    let passing: Vec<usize> = (0..m.p.len()).filter(|&i| m.p[i] <= ALPHA).collect();
    let i = best_of(&passing, m.positions, &m.share.difference).or_else(|| m.best())?;
    Some(ReadableBy {
        name: m.name.into(),
        state: over_positions(passing.len(), m.positions.len()),
        value: m.share.difference[i],
        interval: m.interval.get(i).copied(),
        null: Some(m.null[i]),
        null_interval: Some(m.null_interval[i]),
        p: Some(m.p[i]),
        position: Some(m.positions[i]),
        passing: passing.iter().map(|&i| m.positions[i]).collect(),
        tried: m.positions.len(),
        decoding: Some(DecodingEvidence { top: m.top, base: m.share.base[i] }),
        steering: None,
    })
}

/// Readable if the AUROC of the narrow words, mean over positions, has p ≤ [`ALPHA`] against single random directions.
fn of_lift(lift: &Lift) -> ReadableBy {
    let null = lift.auroc_null.first().zip(lift.auroc_null_interval.first());
    ReadableBy {
        name: "lift".into(),
        state: match lift.auroc_mean_p <= ALPHA {
            true => ReadableState::Readable,
            false => ReadableState::NotDistinguishable,
        },
        value: lift.auroc_mean,
        interval: Some(lift.auroc_mean_interval),
        null: null.map(|(null, _)| *null),
        null_interval: null.map(|(_, ends)| *ends),
        p: Some(lift.auroc_mean_p),
        position: None,
        passing: Vec::new(),
        tried: 0,
        decoding: None,
        steering: None,
    }
}

/// Readable if at one position at least the text is told from plain text and, where random directions were steered with,
/// from theirs: both 95 % intervals lie above 0.
fn of_steering(gain: &SteeringGain) -> Option<ReadableBy> {
    let (r, s) = (gain.record, &gain.record.similarity);
    let above = |i: usize| {
        let over_null = r.similarity_over_null_interval.get(i);
        r.similarity_gain_interval[i][0] > 0.0 && over_null.is_none_or(|ends| ends[0] > 0.0)
    };
    let passing: Vec<usize> = (0..r.similarity_gain_interval.len()).filter(|&i| above(i)).collect();
    let i = best_of(&passing, &r.positions, &gain.gain).or_else(|| best(&r.positions, &gain.gain))?;
    Some(ReadableBy {
        name: "steering".into(),
        state: over_positions(passing.len(), r.positions.len()),
        value: gain.gain[i],
        interval: Some(r.similarity_gain_interval[i]),
        null: None,
        null_interval: None,
        p: None,
        position: Some(r.positions[i]),
        passing: passing.iter().map(|&i| r.positions[i]).collect(),
        tried: r.positions.len(),
        decoding: None,
        steering: Some(SteeringEvidence {
            strength: r.strength[i],
            steered: s.steered_narrow[i],
            plain: s.unsteered_narrow[i],
            ceiling: s.narrow_narrow[i],
            over_null_interval: r.similarity_over_null_interval.get(i).copied(),
        }),
    })
}

/// The position that a claim is about, where some pass: the highest of those. A higher value with a wider interval may
/// fail, and would be a poor witness for "readable".
fn best_of(passing: &[usize], positions: &[usize], values: &[f64]) -> Option<usize> {
    let at: Vec<usize> = passing.iter().map(|&i| positions[i]).collect();
    let values: Vec<f64> = passing.iter().map(|&i| values[i]).collect();
    best(&at, &values).map(|i| passing[i])
}
