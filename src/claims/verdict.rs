//! What may be said of the trace in one run: readable, hidden, or not read, and by which readers.
//!
//! A reader reads the trace where its score exceeds the floor of other organisms: the one-sided tail of z under Student's t
//! with n − 1 degrees of freedom, corrected by Holm's method within its family, is at most [`ALPHA`]. The readers that the
//! recipe names beforehand (`claims.primaries`) are one family, all others that ran are another, which explores. A measure of
//! activation differences must exceed its own null too. Without a floor, a reader of logits, completions or weights makes
//! no claim, and a measure of activation differences is compared with its own null only, which is said: random directions
//! do not protect against "finetuned on something else".

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::holm::holm;
use super::learned::Learned;
use super::list;
use super::readable::{Readable, ReadableState};
use super::rules::ALPHA;
use super::stronger::StrongerReaders;
use crate::diff::floor::Floor;
use crate::diff::record::Readability;
use crate::diff::registry::scores;
use crate::diff::score::Score;
use crate::diff::statistics::Interval;

/// The claim on a run, with what each reader says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What holds.
    pub state: VerdictState,
    /// The claim in one phrase.
    pub headline: String,
    /// What each reader that has a score says, by its key.
    pub readers: IndexMap<String, ReaderClaim>,
    /// The readers that were named beforehand and have no score here, by their keys.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub without_score: Vec<String>,
    /// What limits the claim, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub limits: Vec<String>,
}

/// What holds of the trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictState {
    /// A measure of activation differences reads it.
    Readable,
    /// No measure of activation differences does, though some ran, and another reader does.
    Hidden,
    /// None that ran reads it.
    NotRead,
    /// None reads it, and the run learned nothing narrow, so that nothing is there to be read.
    CannotBeAsked,
    /// No reader could be compared with anything.
    NotCompared,
    /// Nothing was measured, or there was nothing to compare with.
    #[default]
    NotMeasured,
}

impl VerdictState {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 6] = [
        Self::Readable,
        Self::Hidden,
        Self::NotRead,
        Self::CannotBeAsked,
        Self::NotCompared,
        Self::NotMeasured,
    ];

    /// What holds, in a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Readable => "readable",
            Self::Hidden => "hidden from some readers",
            Self::NotRead => "not read",
            Self::CannotBeAsked => "cannot be asked",
            Self::NotCompared => "not compared",
            Self::NotMeasured => "not measured",
        }
    }
}

/// What one reader says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReaderClaim {
    /// The reader in a sentence.
    pub name: String,
    /// Whether it was named beforehand (`claims.primaries`).
    pub is_primary: bool,
    /// Whether it reads the mean difference of activations.
    pub is_mean_difference: bool,
    /// What it says.
    pub state: ReaderState,
    /// Its score.
    pub value: f64,
    /// The 95 % interval of the score within the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<Interval>,
    /// Whether it exceeds its own null; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exceeds_own_null: Option<bool>,
    /// The p-value against its own null, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub own_null_p: Option<f64>,
    /// What other organisms score.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub floor: Option<Floor>,
    /// The p-value against the floor, corrected by Holm's method for `tries` readers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holm_p: Option<f64>,
    /// Readers of its family that were compared with a floor.
    pub tries: usize,
}

/// Whether a reader reads the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReaderState {
    /// Above the floor of other organisms and, where it has one, its own null.
    Reads,
    /// Above its own null; not compared with other organisms.
    ReadsAgainstOwnNull,
    /// Not above what it was compared with.
    DoesNotRead,
    /// Not compared with other organisms, and without a null that is enough by itself.
    NotCompared,
}

impl ReaderState {
    /// Whether it reads the trace, against whatever it was compared with.
    pub fn is_read(self) -> bool {
        matches!(self, Self::Reads | Self::ReadsAgainstOwnNull)
    }
}

/// The readers of activation differences, by the keys of their scores, each with the key under which [`Readable`] has it.
const MEAN_DIFFERENCE: [(&str, Option<&str>); 7] = [
    ("logit_lens", Some("lens")),
    ("lift", Some("lift")),
    ("patchscope", Some("patchscope")),
    ("steering", Some("steering")),
    ("steering_base", None),
    ("bias_share", None),
    ("probe", None),
];

impl Verdict {
    /// Applies the rule to an analysis. `primaries` are the readers that the recipe names beforehand.
    pub fn of(
        r: &Readability,
        readable: &Readable,
        stronger: &StrongerReaders,
        learned: &Learned,
        primaries: &[String],
    ) -> Self {
        let claim = |score: Score| {
            let is_primary = primaries.iter().any(|key| key == score.key);
            (score.key.to_string(), ReaderClaim::new(r, readable, stronger, score, is_primary))
        };
        let mut readers: IndexMap<String, ReaderClaim> = scores(r).into_iter().map(claim).collect();
        for is_primary in [true, false] {
            correct(readers.values_mut().filter(|claim| claim.is_primary == is_primary).collect());
        }
        readers.values_mut().for_each(ReaderClaim::decide);
        let without_score = primaries.iter().filter(|key| !readers.contains_key(*key)).cloned().collect();
        let mut verdict = Self { readers, without_score, ..Self::default() };
        (verdict.state, verdict.headline) = verdict.conclude(r, learned);
        verdict.limits = verdict.limits(readable);
        verdict
    }

    /// Names of the readers of which something holds.
    fn names(&self, holds: impl Fn(&ReaderClaim) -> bool) -> Vec<&str> {
        self.readers.values().filter(|claim| holds(claim)).map(|claim| claim.name.as_str()).collect()
    }

    fn conclude(&self, r: &Readability, learned: &Learned) -> (VerdictState, String) {
        if self.readers.is_empty() {
            return (VerdictState::NotMeasured, "not measured: no reader has a score".into());
        }
        let mut by = ReadBy::default();
        for claim in self.readers.values().filter(|claim| claim.state != ReaderState::NotCompared) {
            by.add(&claim.name, claim.is_mean_difference, claim.state.is_read());
        }
        let (state, mut headline) = by.conclude();
        if state == VerdictState::NotRead && learned.learned == Some(false) {
            let phrase = "cannot be asked: nothing reads the trace, and the run learned nothing narrow";
            return (VerdictState::CannotBeAsked, phrase.into());
        }
        if state == VerdictState::NotRead && r.delta_norm.iter().all(|norm| *norm == 0.0) {
            let layer = r.layer;
            headline.push_str(&format!(
                "; up to block {layer}, where activations are read, the two models are the same"
            ));
        }
        (state, headline)
    }

    fn limits(&self, readable: &Readable) -> Vec<String> {
        let weak = readable.measures.values().filter(|m| m.state == ReadableState::WeaklyReadable);
        let mut limits: Vec<String> = weak
            .map(|m| {
                format!(
                    "The {} exceeds its own null at 1 of {} positions. Chance alone does this in up to {:.0} % of runs.",
                    m.name,
                    m.tried,
                    (ALPHA * m.tried as f64 * 100.0).min(100.0)
                )
            })
            .collect();
        let without = self.names(|c| c.floor.is_none());
        let with = self.readers.values().filter(|c| c.floor.is_some()).count();
        if with == 0 && !self.readers.is_empty() {
            limits.push(
                "No reader was compared with other organisms. Random directions do not protect against a model that \
                 was finetuned on something else. Run trainer floor to compare."
                    .into(),
            );
        } else if !without.is_empty() {
            limits.push(format!("Not compared with other organisms: {}.", list(&without)));
        }
        if let Some(floor) = self.readers.values().find_map(|claim| claim.floor.as_ref()) {
            let n = floor.values.len();
            limits.push(format!(
                "A rank among {n} other organisms cannot give a p below 1/{}. A lower p assumes scores that are close \
                 to normally distributed.",
                n + 1
            ));
            if self.readers.values().any(|c| c.state == ReaderState::DoesNotRead) {
                limits.push(
                    "One pair of models does not show whether a reader that fails on this run would read the unmixed \
                     organism. A sweep with mix 0 does."
                        .into(),
                );
            }
        }
        if !self.without_score.is_empty() {
            limits.push(format!(
                "Named in claims.primaries, but without a score: {}.",
                list(&self.without_score)
            ));
        }
        limits
    }
}

/// Names of readers, by what they say.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadBy {
    mean_difference: Vec<String>,
    others: Vec<String>,
    not_mean_difference: Vec<String>,
    not_others: Vec<String>,
}

impl ReadBy {
    /// Adds a reader that was compared with something.
    pub(super) fn add(&mut self, name: &str, is_mean_difference: bool, reads: bool) {
        let place = match (is_mean_difference, reads) {
            (true, true) => &mut self.mean_difference,
            (false, true) => &mut self.others,
            (true, false) => &mut self.not_mean_difference,
            (false, false) => &mut self.not_others,
        };
        place.push(name.into());
    }

    /// What they say together, with the claim in one phrase.
    pub(super) fn conclude(self) -> (VerdictState, String) {
        let Self { mean_difference, others, not_mean_difference, not_others } = self;
        if mean_difference.is_empty() && others.is_empty() {
            let none = [not_mean_difference, not_others].concat();
            return match none.is_empty() {
                true => (VerdictState::NotCompared, "not compared with other organisms".into()),
                false => (VerdictState::NotRead, format!("not read by any of {}", list(&none))),
            };
        }
        if mean_difference.is_empty() && !not_mean_difference.is_empty() {
            let (from, by) = (list(&not_mean_difference), list(&others));
            return (VerdictState::Hidden, format!("hidden from {from} but read by {by}"));
        }
        (VerdictState::Readable, format!("readable by {}", list(&[mean_difference, others].concat())))
    }
}

impl ReaderClaim {
    fn new(
        r: &Readability,
        readable: &Readable,
        stronger: &StrongerReaders,
        score: Score,
        is_primary: bool,
    ) -> Self {
        let mean_difference = MEAN_DIFFERENCE.iter().find(|(key, _)| *key == score.key);
        let measure = mean_difference.and_then(|(_, key)| readable.measures.get((*key)?));
        // A probe that cannot tell the kinds of text apart says nothing, nor does a share that few documents give.
        let says_nothing = match score.key {
            "probe" => stronger.probe.as_ref().is_some_and(|probe| !probe.is_able),
            "bias_share" => stronger.bias.as_ref().is_some_and(|bias| !bias.counts),
            _ => false,
        };
        let exceeds_own_null = match score.key {
            _ if says_nothing => None,
            "probe" => stronger.probe.as_ref().map(|probe| probe.finds),
            "bias_share" => stronger.bias.as_ref().map(|bias| bias.finds),
            "steering_base" => r.steering.as_ref().map(|steering| {
                let gains = &steering.similarity_base_gain_interval;
                !gains.is_empty() && gains.iter().all(|[low, _]| *low > 0.0)
            }),
            _ => measure.map(|measure| measure.is_readable()),
        };
        Self {
            name: score.name.into(),
            is_primary,
            is_mean_difference: mean_difference.is_some(),
            state: ReaderState::NotCompared,
            value: score.value,
            interval: score.interval,
            exceeds_own_null,
            own_null_p: measure.and_then(|measure| measure.p),
            floor: r.floor(score.key).filter(|_| !says_nothing).cloned(),
            holm_p: None,
            tries: 0,
        }
    }

    fn decide(&mut self) {
        self.state = match (self.holm_p, self.exceeds_own_null) {
            (Some(p), own) if p <= ALPHA && own != Some(false) => ReaderState::Reads,
            (Some(_), _) => ReaderState::DoesNotRead,
            (None, Some(true)) => ReaderState::ReadsAgainstOwnNull,
            (None, Some(false)) => ReaderState::DoesNotRead,
            (None, None) => ReaderState::NotCompared,
        };
    }
}

/// Whether each reader with a null of its own exceeds it in an analysis, by the key of the score.
pub fn exceed_own_null(r: &Readability) -> BTreeMap<String, bool> {
    let (readable, stronger) = (Readable::of(r), StrongerReaders::of(r));
    let own = |score: Score| {
        let key = score.key.to_string();
        Some((key, ReaderClaim::new(r, &readable, &stronger, score, false).exceeds_own_null?))
    };
    scores(r).into_iter().filter_map(own).collect()
}

/// Corrects a family of readers for as many tries as were compared with a floor.
fn correct(mut family: Vec<&mut ReaderClaim>) {
    family.retain(|claim| claim.floor.is_some());
    let p: Vec<f64> = family.iter().filter_map(|claim| Some(claim.floor.as_ref()?.p)).collect();
    let (corrected, tries) = (holm(&p), p.len());
    for (claim, p) in family.into_iter().zip(corrected) {
        (claim.holm_p, claim.tries) = (Some(p), tries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::measures::diff_mining::DiffMining;
    use crate::diff::measures::weights::Weights;
    use crate::diff::reader_score::ReaderScore;

    fn floor(score: f64) -> Option<Floor> {
        let others = (0..6).map(|i| (format!("o{i}"), 0.45 + 0.02 * i as f64)).collect();
        Floor::new(others, score, 1e-3)
    }

    fn reader(score: f64, floor: Option<Floor>) -> ReaderScore {
        ReaderScore { score: Some(score), floor, ..Default::default() }
    }

    fn record(mining: ReaderScore, weights: ReaderScore) -> Readability {
        let mut r = Readability { delta_norm: vec![1.0], ..Default::default() };
        r.readers.diff_mining = Some(DiffMining { reader: mining, ..Default::default() });
        r.readers.weights = Some(Weights { reader: weights, ..Default::default() });
        r
    }

    fn verdict(r: &Readability, primaries: &[&str]) -> Verdict {
        let primaries: Vec<String> = primaries.iter().map(|key| key.to_string()).collect();
        let learned = Learned { learned: Some(true), ..Default::default() };
        Verdict::of(r, &Readable::not_measured(), &StrongerReaders::default(), &learned, &primaries)
    }

    #[test]
    fn without_a_floor_there_is_no_claim_and_with_one_the_family_is_corrected() {
        let r = record(reader(0.9, None), reader(0.9, None));
        let found = verdict(&r, &["diff_mining", "weights"]);
        assert_eq!(found.state, VerdictState::NotCompared);
        assert!(found.limits[0].contains("trainer floor"), "{:?}", found.limits);

        let r = record(reader(0.9, floor(0.9)), reader(0.5, floor(0.5)));
        let found = verdict(&r, &["diff_mining", "weights", "completion_ranking"]);
        let (mining, weights) = (&found.readers["diff_mining"], &found.readers["weights"]);
        assert_eq!((mining.state, weights.state), (ReaderState::Reads, ReaderState::DoesNotRead));
        assert_eq!(mining.tries, 2);
        assert!((mining.holm_p.unwrap() - 2.0 * mining.floor.as_ref().unwrap().p).abs() < 1e-12);
        assert_eq!(found.without_score, ["completion_ranking"]);
        assert_eq!(
            (found.state, found.headline.as_str()),
            (VerdictState::Readable, "readable by diff mining")
        );
        // A reader that was not named beforehand is in the other family.
        assert_eq!(verdict(&r, &["diff_mining"]).readers["diff_mining"].tries, 1);
    }

    #[test]
    fn a_trace_that_only_other_readers_see_is_hidden_and_one_that_none_sees_is_not_read() {
        let with_lift = |weights: f64| {
            let mut r = record(reader(0.5, floor(0.5)), reader(weights, floor(weights)));
            r.lift = Some(crate::diff::measures::lift::Lift {
                auroc_mean_p: 0.4,
                auroc_stratified_mean: Some(0.5),
                ..Default::default()
            });
            let readable = Readable::of(&r);
            let learned = Learned { learned: Some(true), ..Default::default() };
            let primaries = ["diff_mining".to_string(), "weights".to_string()];
            Verdict::of(&r, &readable, &StrongerReaders::default(), &learned, &primaries)
        };
        let hidden = with_lift(0.95);
        assert_eq!(hidden.state, VerdictState::Hidden);
        assert_eq!(hidden.headline, "hidden from lift but read by the weights");
        let not_read = with_lift(0.5);
        assert_eq!(not_read.state, VerdictState::NotRead);
        assert_eq!(not_read.headline, "not read by any of lift, diff mining and the weights");
    }
}
