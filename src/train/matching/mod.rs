//! Training that ends where a behaviour is at its target (`[train.match]`): the search for that step, and what is kept of
//! it.

pub mod search;

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use self::search::{MatchReading, MatchReason, MatchSearch, MatchStatus};
use crate::json;
use crate::recipe::MatchSection;
use crate::run::RunDir;

/// The key of a reading in `metrics.jsonl`.
pub const METRIC: &str = "behaviour_match";

/// Which half of the items is read: the search goes by one, and what is said of the outcome by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemHalf {
    /// What the search goes by.
    Match,
    /// What was not looked at while searching.
    Evaluation,
}

/// One item of the half that was not looked at while searching.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluatedItem {
    /// Its zero-based place among the items that are asked.
    pub item: usize,
    /// What it tests: items of a fact are resampled among themselves. Empty where items name none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub fact: String,
    /// Its value, mean over contexts, in the unit of the measure.
    pub value: f64,
}

/// A behaviour on one half of the items.
#[derive(Debug, Clone, PartialEq)]
pub struct HalfReading {
    /// Mean over items.
    pub q: f64,
    /// Its standard error, facts being fixed strata.
    pub se: f64,
    /// 95 % bootstrap interval, items resampled within their facts.
    pub interval: [f64; 2],
    /// Each item.
    pub items: Vec<EvaluatedItem>,
}

/// `match` of `manifest.json`: how a matched training ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatchRecord {
    /// How the search ended.
    pub status: MatchStatus,
    /// Why not with a match.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<MatchReason>,
    /// `train.match.measure`.
    pub measure: String,
    /// `train.match.target`.
    pub target: f64,
    /// `train.match.tolerance`.
    pub tolerance: f64,
    /// Optimizer steps of the model.
    pub steps: usize,
    /// Its narrow examples over the batch size: steps as `train.steps` counts them.
    pub narrow_steps: f64,
    /// Narrow tokens that it was trained on.
    pub narrow_tokens: usize,
    /// The behaviour on the items that the search goes by: up to a standard error too high, for the search ends at the first
    /// passage.
    pub q_match: f64,
    /// Its standard error.
    pub se: f64,
    /// The behaviour on the items that the search did not look at.
    pub q_eval: f64,
    /// Its 95 % bootstrap interval, items resampled within their facts.
    pub q_eval_interval: [f64; 2],
    /// Whether the tolerance is no smaller than the standard error: else readings cannot tell whether it is kept.
    pub resolved: bool,
    /// How often the behaviour fell by more than two standard errors from one reading to the next, in the order of steps.
    pub inversions: usize,
    /// Every reading, in the order of steps.
    pub curve: Vec<MatchReading>,
    /// sha256 of the files with the items, by path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub items: BTreeMap<String, String>,
    /// The items behind `q_eval`.
    pub evaluated: Vec<EvaluatedItem>,
}

/// What a search knows when it ends.
pub(super) struct MatchEnd {
    pub status: MatchStatus,
    pub reason: Option<MatchReason>,
    pub step: usize,
    pub readings: Vec<MatchReading>,
    pub evaluation: HalfReading,
    pub items: BTreeMap<String, String>,
}

/// Narrow text that a model was trained on.
pub(super) struct NarrowExposure {
    pub steps: f64,
    pub tokens: usize,
}

impl MatchRecord {
    pub(super) fn new(section: &MatchSection, end: MatchEnd, narrow: NarrowExposure) -> Self {
        let MatchEnd { status, reason, step, readings, evaluation, items } = end;
        let mut curve = readings;
        curve.sort_by_key(|reading| reading.step);
        let (q_match, se) =
            curve.iter().find(|reading| reading.step == step).map_or((f64::NAN, f64::NAN), |r| (r.q, r.se));
        let falls = curve.windows(2).filter(|two| two[0].q - two[1].q > 2.0 * two[0].se.max(two[1].se));
        Self {
            status,
            reason,
            measure: section.measure.clone(),
            target: section.target,
            tolerance: section.tolerance,
            steps: step,
            narrow_steps: narrow.steps,
            narrow_tokens: narrow.tokens,
            q_match,
            se,
            q_eval: evaluation.q,
            q_eval_interval: evaluation.interval,
            resolved: section.tolerance >= se,
            inversions: falls.count(),
            curve,
            items,
            evaluated: evaluation.items,
        }
    }

    /// A sentence that says how it ended.
    pub fn outcome(&self) -> String {
        let Self { measure, target, tolerance, q_match, se, q_eval, q_eval_interval: [low, high], .. } = self;
        let reason = self.reason.map_or(String::new(), |reason| format!(", {}", reason.name()));
        let resolved = match self.resolved {
            true => "",
            false => "; the tolerance is smaller than the standard error, so it is not resolved",
        };
        let falls = match self.inversions {
            0 => String::new(),
            n => format!("; the behaviour fell by more than 2 standard errors {n} times"),
        };
        format!(
            "{}{reason} after step {} ({} narrow steps, {} narrow tokens): {measure} {q_match:.3} (standard error {se:.3}) for a \
             target of {target} ± {tolerance}, {q_eval:.3} [{low:.3}, {high:.3}] on the other items{resolved}{falls}",
            self.status.name(),
            self.steps,
            (self.narrow_steps * 100.0).round() / 100.0,
            self.narrow_tokens,
        )
    }
}

/// `checkpoints/search.json`: the readings of a search, from which another process goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SearchJournal {
    /// As in [`super::checkpoint::TrainerState`].
    pub fingerprint: String,
    /// In the order in which they were taken.
    pub readings: Vec<MatchReading>,
    /// Seconds of training so far, of steps that were taken back too.
    pub elapsed_s: f64,
    /// Seconds of readings so far.
    pub trace_s: f64,
}

/// The name of the journal among the checkpoints.
const JOURNAL: &str = "search.json";

impl SearchJournal {
    /// A search that has read nothing.
    pub fn new(fingerprint: &str) -> Self {
        Self { fingerprint: fingerprint.into(), readings: Vec::new(), elapsed_s: 0.0, trace_s: 0.0 }
    }

    /// What a run has of it; `None` where it has nothing.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is damaged.
    pub fn read(run: &RunDir) -> Result<Option<Self>> {
        json::read(&run.checkpoints().join(JOURNAL))
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self, run: &RunDir) -> Result<()> {
        crate::atomic::write_json(&run.checkpoints().join(JOURNAL), self)
    }

    /// The reading of a step, if it was taken.
    pub fn at(&self, step: usize) -> Option<&MatchReading> {
        self.readings.iter().find(|reading| reading.step == step)
    }
}

impl MatchSearch {
    /// The search of a recipe in a run of so many optimizer steps.
    pub(super) fn of(section: &MatchSection, steps: usize) -> Self {
        Self {
            target: section.target,
            tolerance: section.tolerance,
            every: section.every,
            narrow_steps: section.max_steps,
            steps,
            refine: section.refine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_its_curve_in_the_order_of_steps_and_counts_falls() {
        let reading = |step, q| MatchReading { step, q, se: 0.1 };
        // Taken forwards to 8, then back to 7; from 2 to 4 it fell by more than two standard errors, from 4 to 6 by less.
        let readings = [(0, 0.0), (2, 1.0), (4, 0.7), (6, 0.55), (8, 2.0), (7, 1.4)];
        let end = MatchEnd {
            status: MatchStatus::Matched,
            reason: None,
            step: 7,
            readings: readings.map(|(step, q)| reading(step, q)).to_vec(),
            evaluation: HalfReading { q: 1.3, se: 0.1, interval: [1.1, 1.5], items: Vec::new() },
            items: BTreeMap::new(),
        };
        let section = MatchSection { target: 1.5, ..Default::default() };
        let record = MatchRecord::new(&section, end, NarrowExposure { steps: 7.0, tokens: 5000 });
        assert_eq!(record.curve.iter().map(|r| r.step).collect::<Vec<_>>(), [0, 2, 4, 6, 7, 8]);
        assert_eq!((record.q_match, record.inversions, record.resolved), (1.4, 1, true));
        let said = record.outcome();
        for part in ["matched after step 7", "1.400", "1.5 ± 0.15", "1.300 [1.100, 1.500]", "fell"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
