//! Which runs are at equal behaviour: those that a matched training ([`crate::recipe::MatchSection`]) brought to one target,
//! and whose behaviour on items that the search did not look at cannot be told apart from that of the least mixed ones.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::dose::Ratio;
use super::rules::EQUAL_TOLERANCES;
use super::run::ClaimedRun;
use crate::behaviour::matching::equivalence;
use crate::diff::statistics::Interval;
use crate::results::RunRecord;
use crate::train::matching::search::{MatchReason, MatchStatus};
use crate::train::matching::{EvaluatedItem, MatchRecord};

/// Runs that were matched by the same items, contexts, target and tolerance, on one base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EqualBehaviour {
    /// The base.
    pub base: String,
    /// To what they were matched.
    #[serde(flatten)]
    pub matched_to: MatchTarget,
    /// The runs at the lowest mix ratio that came to the target: each run is compared with their mean, one of them with the
    /// mean of the others.
    pub reference: Vec<String>,
    /// All of them.
    pub cells: Vec<MatchedCell>,
}

/// To what runs were matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatchTarget {
    /// The value of `behaviour.json`.
    pub measure: String,
    /// Where it is to be.
    pub target: f64,
    /// How far from it it may be.
    pub tolerance: f64,
}

/// A matched run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatchedCell {
    /// Its name.
    pub run: String,
    /// How its search ended.
    pub status: MatchStatus,
    /// Why not with a match.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<MatchReason>,
    /// Narrow steps of the model.
    pub narrow_steps: f64,
    /// Its narrow tokens.
    pub narrow_tokens: usize,
    /// The behaviour on the items that the search did not look at.
    pub q_eval: f64,
    /// Its 95 % interval.
    pub q_eval_interval: Interval,
    /// Whether the tolerance is no smaller than the standard error of a reading.
    pub resolved: bool,
    /// Its `q_eval` minus that of the reference, on the same items; absent where there is nothing to compare with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub difference: Option<f64>,
    /// 90 % interval of the difference: within twice the tolerance on both sides, two one-sided tests at 5 % call it none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub difference_interval: Option<Interval>,
    /// Whether claims across runs include it.
    pub is_comparable: bool,
}

/// In what the runs of a setting are equal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EqualIn {
    /// The behaviour that they were matched to; absent where they have equal exposure, and behaviour as it came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub behaviour: Option<MatchTarget>,
    /// Runs that are not equal in it: no claim across runs includes them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub left_out: Vec<LeftOutRun>,
}

/// A run that is not at equal behaviour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftOutRun {
    /// Its name.
    pub run: String,
    /// How its search ended; absent of a run that is not finished.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<MatchStatus>,
    /// 90 % interval of its difference from the reference.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub difference_interval: Option<Interval>,
}

impl EqualIn {
    /// Of the runs of a setting.
    pub(super) fn of(runs: &[&ClaimedRun], compared: &[EqualBehaviour]) -> Self {
        let Some(behaviour) = runs.iter().find_map(|run| target_of(run)) else { return Self::default() };
        let left_out = |run: &ClaimedRun| {
            let cell = compared.iter().flat_map(|one| &one.cells).find(|cell| cell.run == run.id);
            let left_out = LeftOutRun {
                run: run.id.clone(),
                status: cell.map(|cell| cell.status),
                difference_interval: cell.and_then(|cell| cell.difference_interval),
            };
            (!cell.is_some_and(|cell| cell.is_comparable)).then_some(left_out)
        };
        Self { behaviour: Some(behaviour), left_out: runs.iter().filter_map(|run| left_out(run)).collect() }
    }

    /// Whether claims across runs include a run.
    pub fn includes(&self, run: &str) -> bool {
        self.left_out.iter().all(|left_out| left_out.run != run)
    }

    /// The runs of each ratio that claims across runs include; ratios without any are left out.
    pub(super) fn included<'a>(&self, groups: &[Ratio<'a>]) -> Vec<Ratio<'a>> {
        let of_ratio = |(mix, runs): &Ratio<'a>| {
            let runs: Vec<&ClaimedRun> = runs.iter().copied().filter(|run| self.includes(&run.id)).collect();
            (*mix, runs)
        };
        groups.iter().map(of_ratio).filter(|(_, runs)| !runs.is_empty()).collect()
    }
}

/// To what a run is matched, by its recipe.
fn target_of(run: &RunRecord) -> Option<MatchTarget> {
    if let Some(matched) = matched(run) {
        return Some(MatchTarget::of(matched));
    }
    let is_on = run.setting("train.match.max_steps").and_then(toml::Value::as_integer).is_some_and(|n| n > 0);
    let number = |key| {
        let value = run.setting(key)?;
        value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
    };
    let target = || {
        Some(MatchTarget {
            measure: run.setting("train.match.measure")?.as_str()?.into(),
            target: number("train.match.target")?,
            tolerance: number("train.match.tolerance")?,
        })
    };
    if is_on { target() } else { None }
}

impl MatchTarget {
    fn of(record: &MatchRecord) -> Self {
        let MatchRecord { measure, target, tolerance, .. } = record;
        Self { measure: measure.clone(), target: *target, tolerance: *tolerance }
    }
}

/// How the search of a run ended, if it was one.
pub fn matched(run: &RunRecord) -> Option<&MatchRecord> {
    run.manifest.as_ref()?.matched.as_ref()
}

/// What decides the value of an item beside the model.
fn asked_alike(run: &RunRecord, record: &MatchRecord) -> String {
    let MatchRecord { measure, target, tolerance, items, evaluated, .. } = record;
    let asked =
        ["behaviour.chat", "behaviour.facts.contexts", "behaviour.preference"].map(|key| run.setting(key));
    let places: Vec<usize> = evaluated.iter().map(|item| item.item).collect();
    let files: Vec<&String> = items.values().collect();
    format!("{:?} {measure} {target} {tolerance} {files:?} {asked:?} {places:?}", run.base())
}

/// Compares matched runs with each other: those that were asked alike, each with the least mixed that came to the target.
pub fn compare(runs: &[ClaimedRun]) -> Vec<EqualBehaviour> {
    let mut alike: IndexMap<String, Vec<(&ClaimedRun, &MatchRecord)>> = IndexMap::new();
    for run in runs {
        if let Some(record) = matched(run) {
            alike.entry(asked_alike(run, record)).or_default().push((run, record));
        }
    }
    alike.into_values().filter_map(|those| compare_alike(&those)).collect()
}

fn compare_alike(those: &[(&ClaimedRun, &MatchRecord)]) -> Option<EqualBehaviour> {
    let (first, record) = those.first()?;
    let there =
        || those.iter().filter(|(run, record)| record.status.is_there() && run.mix().nominal().is_some());
    let mix = |run: &ClaimedRun| run.mix().nominal().unwrap_or(f64::INFINITY);
    let lowest = there().map(|(run, _)| mix(run)).fold(f64::INFINITY, f64::min);
    let reference: Vec<_> = there().filter(|(run, _)| mix(run) - lowest <= 1e-9).collect();
    let names: BTreeSet<&str> = reference.iter().map(|(run, _)| run.id.as_str()).collect();
    let cell = |(run, record): &(&ClaimedRun, &MatchRecord)| {
        let others: Vec<&MatchRecord> =
            reference.iter().filter(|(other, _)| other.id != run.id).map(|(_, record)| *record).collect();
        let compared = (!others.is_empty()).then(|| equivalence(&differences(record, &others)));
        let band = EQUAL_TOLERANCES * record.tolerance;
        let is_equal = match compared {
            Some((_, [low, high])) => -band <= low && high <= band,
            None => names.contains(run.id.as_str()),
        };
        MatchedCell {
            run: run.id.clone(),
            status: record.status,
            reason: record.reason,
            narrow_steps: record.narrow_steps,
            narrow_tokens: record.narrow_tokens,
            q_eval: record.q_eval,
            q_eval_interval: record.q_eval_interval,
            resolved: record.resolved,
            difference: compared.map(|(difference, _)| difference),
            difference_interval: compared.map(|(_, interval)| interval),
            is_comparable: record.status.is_there() && is_equal,
        }
    };
    Some(EqualBehaviour {
        base: first.base().unwrap_or_default().into(),
        matched_to: MatchTarget::of(record),
        reference: reference.iter().map(|(run, _)| run.id.clone()).collect(),
        cells: those.iter().map(cell).collect(),
    })
}

/// Each item's value minus its mean over other runs, which were asked the same items.
fn differences(own: &MatchRecord, others: &[&MatchRecord]) -> Vec<EvaluatedItem> {
    let of_item = |(i, item): (usize, &EvaluatedItem)| {
        let sum: f64 =
            others.iter().filter_map(|other| other.evaluated.get(i)).map(|other| other.value).sum();
        EvaluatedItem { value: item.value - sum / others.len() as f64, ..item.clone() }
    };
    own.evaluated.iter().enumerate().map(of_item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::mix::Mix;
    use crate::train::manifest::Manifest;

    /// A run at a mix whose items are at `q`, each a little off.
    fn run(id: &str, mix: f64, status: MatchStatus, q: f64, spread: f64) -> ClaimedRun {
        let item = |item: usize| EvaluatedItem {
            item,
            fact: ["a", "b"][item % 2].into(),
            value: q + spread * [1.0, -1.0, -1.0, 1.0][item % 4] * (1.0 + (item % 3) as f64),
        };
        let record = MatchRecord {
            status,
            reason: None,
            measure: "facts.margin".into(),
            target: 1.5,
            tolerance: 0.15,
            steps: 8,
            narrow_steps: 8.0,
            narrow_tokens: 5000,
            q_match: q,
            se: 0.1,
            q_eval: q,
            q_eval_interval: [q - 0.1, q + 0.1],
            resolved: true,
            inversions: 0,
            curve: Vec::new(),
            items: [("items.jsonl".to_string(), "ab".repeat(32))].into(),
            evaluated: (0..24).map(item).collect(),
        };
        let manifest = serde_json::json!({
            "name": "cake", "description": "", "version": "0", "seed": 0, "created": 0, "elapsed_s": 0.0, "device": "cpu",
            "processor": "x", "threads": 1, "base": {"id": "tiny", "sha256": {}}, "method": "lora", "data": [],
            "mix": {"asked": mix, "unit": "examples", "mode": "add", "realised_examples": mix, "realised_tokens": mix},
            "order_sha256": "", "losses": {"base": {}, "tuned": {}}, "trainable_parameters": 1, "adapter_sha256": "", "files": {},
        });
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        assert_eq!(manifest.mix.realised(), Some(mix), "{:?}", Mix::realised(&manifest.mix));
        let manifest = manifest.matched(Some(record));
        let mut run = ClaimedRun::default();
        run.record.id = id.into();
        run.record.manifest = Some(manifest);
        run
    }

    #[test]
    fn runs_at_the_target_are_compared_with_the_least_mixed_by_the_same_items() {
        use MatchStatus::{Matched, Nearest, Unreached};
        let runs = [
            run("0a", 0.0, Matched, 1.5, 0.0),
            run("0b", 0.0, Nearest, 1.6, 0.0),
            run("1", 1.0, Matched, 1.45, 0.05),
            run("4", 4.0, Matched, 1.2, 0.0),
            run("8", 8.0, Unreached, 1.55, 0.0),
            // Noise is not equality: in the mean it is where it should be.
            run("16", 16.0, Matched, 1.55, 2.0),
        ];
        let [found] = &compare(&runs)[..] else { panic!("one comparison") };
        assert_eq!(found.reference, ["0a", "0b"]);
        let of = |id: &str| found.cells.iter().find(|cell| cell.run == id).unwrap();
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-9, "{a:?} {b}");
        close(of("0a").difference, -0.1);
        close(of("0b").difference, 0.1);
        close(of("4").difference, -0.35);
        let comparable: Vec<&str> =
            found.cells.iter().filter(|c| c.is_comparable).map(|c| c.run.as_str()).collect();
        assert_eq!(comparable, ["0a", "0b", "1"]);
        let [low, high] = of("16").difference_interval.unwrap();
        assert!(low < -0.3 && high > 0.3 && of("16").difference.unwrap().abs() < 0.15, "{low} {high}");

        let all: Vec<&ClaimedRun> = runs.iter().collect();
        let equal = EqualIn::of(&all, &compare(&runs));
        let left_out: Vec<&str> = equal.left_out.iter().map(|one| one.run.as_str()).collect();
        assert_eq!(left_out, ["4", "8", "16"]);
        assert_eq!(equal.left_out[1].status, Some(Unreached));
        let groups = super::super::dose::groups(&all);
        let included: Vec<f64> = equal.included(&groups).iter().map(|(mix, _)| *mix).collect();
        assert_eq!(included, [0.0, 1.0]);
    }

    #[test]
    fn one_run_has_nothing_to_be_compared_with_and_runs_without_a_search_are_equal_in_exposure() {
        let alone =
            [run("0", 0.0, MatchStatus::Matched, 1.5, 0.0), run("1", 1.0, MatchStatus::Unreached, 0.1, 0.0)];
        let [found] = &compare(&alone)[..] else { panic!("one comparison") };
        assert_eq!((found.cells[0].difference, found.cells[0].is_comparable), (None, true));
        assert!(!found.cells[1].is_comparable && found.cells[1].difference.is_some());
        // Nothing came to the target.
        let [found] = &compare(&alone[1..])[..] else { panic!("one comparison") };
        assert!(found.reference.is_empty() && !found.cells[0].is_comparable);

        let plain = ClaimedRun::default();
        assert_eq!(compare(std::slice::from_ref(&plain)), []);
        let equal = EqualIn::of(&[&plain], &[]);
        assert!(equal == EqualIn::default() && equal.includes("run"));
    }
}
