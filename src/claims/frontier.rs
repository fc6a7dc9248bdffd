//! The frontier: how much of the behaviour there is against how much of the trace. A mitigation is worth something if it
//! takes the trace and leaves the behaviour.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::dose::{Ratio, between};
use super::run::ClaimedRun;
use super::trace::FRONTIER;
use crate::diff::readout::mean;
use crate::diff::statistics::Interval;

/// One measure of the trace against what was learned, of all runs of one base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frontier {
    /// The base.
    pub base: String,
    /// Key of the measure of the trace.
    pub measure: String,
    /// What runs are compared by.
    pub learned_by: LearnedBy,
    /// Whether no ratio of any setting has several runs: intervals are those within a run then, else those between runs.
    pub is_one_run_a_ratio: bool,
    /// The trace where nothing is read, mean over runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null: Option<f64>,
    /// By setting, as in `settings` of the claims across runs.
    pub settings: Vec<FrontierSetting>,
}

/// What was learned: the main value of behaviour, or the gain on held-out narrow text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LearnedBy {
    /// The value of `behaviour.json` whose change counts; absent where no such value is there at two points, and base minus
    /// tuned loss on held-out narrow text, nats a token, counts in its place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub behaviour: Option<String>,
    /// Its unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit: Option<String>,
}

/// The points of one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontierSetting {
    /// Its number in `settings` of the claims across runs, from 0.
    pub setting: usize,
    /// By mix ratio.
    pub points: Vec<FrontierPoint>,
}

/// The runs of one setting and one mix ratio that have both values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontierPoint {
    /// Pretraining text per narrow text.
    pub mix: f64,
    /// What was learned, mean over runs.
    pub learned: f64,
    /// Its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub learned_interval: Option<Interval>,
    /// What can be read of the trace, mean over runs.
    pub trace: f64,
    /// Its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_interval: Option<Interval>,
    /// Each run.
    pub runs: Vec<FrontierRun>,
}

/// One run of a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontierRun {
    /// Its name.
    pub run: String,
    /// What it learned.
    pub learned: f64,
    /// What can be read of it.
    pub trace: f64,
}

/// The settings of one base by number, each with its runs by mix ratio.
pub(super) type OfBase<'a, 'r> = [(usize, &'a [Ratio<'r>])];

/// One frontier a measure of the trace, where there are two points.
pub(super) fn frontiers(base: &str, settings: &OfBase) -> Vec<Frontier> {
    let learned_by = LearnedBy::of(settings);
    let all = FRONTIER.iter().map(|key| frontier(base, key, &learned_by, settings));
    all.filter(|f| f.settings.iter().map(|s| s.points.len()).sum::<usize>() > 1).collect()
}

impl LearnedBy {
    /// The value of behaviour that is there at most points; the gain on narrow text where none is there at two.
    fn of(settings: &OfBase) -> Self {
        let groups = || settings.iter().flat_map(|(_, groups)| groups.iter());
        let mut names: Vec<(String, usize)> = Vec::new();
        for (_, runs) in groups() {
            let mains = runs.iter().filter_map(|c| Some(c.behaviour.as_ref()?.effects().first()?.0.clone()));
            for name in mains.collect::<BTreeSet<String>>() {
                match names.iter_mut().find(|(n, _)| *n == name) {
                    Some((_, ratios)) => *ratios += 1,
                    None => names.push((name, 1)),
                }
            }
        }
        let Some((name, _)) = names.into_iter().rev().max_by_key(|n| n.1).filter(|n| n.1 > 1) else {
            return Self::default();
        };
        let mut found = groups().flat_map(|(_, runs)| runs).filter_map(|run| run.behaviour.as_ref());
        let unit = found.next().map(|found| found.unit(&name).to_string());
        Self { behaviour: Some(name), unit }
    }

    /// With its 95 % interval within the run.
    fn value(&self, run: &ClaimedRun) -> Option<(f64, Option<Interval>)> {
        match &self.behaviour {
            Some(name) => {
                let effects = run.behaviour.as_ref()?.effects();
                effects.iter().find(|(n, _)| n == name).map(|(_, e)| (e.change, e.change_interval))
            }
            None => Some((run.base_losses().narrow? - run.tuned_losses().narrow?, None)),
        }
    }
}

fn frontier(base: &str, measure: &str, learned_by: &LearnedBy, settings: &OfBase) -> Frontier {
    // What was learned and what is left of the trace, each with its interval within the run.
    let place = |run: &&ClaimedRun| {
        let trace = run.claims.trace.get(measure)?.number;
        Some((run.id.clone(), learned_by.value(run)?, (trace.value, trace.interval)))
    };
    let places = |runs: &[&ClaimedRun]| runs.iter().filter_map(place).collect::<Vec<_>>();
    let mut groups = settings.iter().flat_map(|(_, groups)| groups.iter());
    let is_one_run_a_ratio = groups.all(|(_, runs)| places(runs).len() <= 1);
    let point = |(mix, runs): &Ratio| {
        let found = places(runs);
        let learned: Vec<f64> = found.iter().map(|f| f.1.0).collect();
        let trace: Vec<f64> = found.iter().map(|f| f.2.0).collect();
        let (learned_interval, trace_interval) = match is_one_run_a_ratio {
            true => (found.first()?.1.1, found.first()?.2.1),
            false => (between(&learned), between(&trace)),
        };
        Some(FrontierPoint {
            mix: *mix,
            learned: mean(&learned)?,
            learned_interval,
            trace: mean(&trace)?,
            trace_interval,
            runs: found
                .into_iter()
                .map(|(run, learned, trace)| FrontierRun { run, learned: learned.0, trace: trace.0 })
                .collect(),
        })
    };
    let of_setting = |(setting, groups): &(usize, &[Ratio])| FrontierSetting {
        setting: *setting,
        points: groups.iter().filter_map(point).collect(),
    };
    let runs = settings.iter().flat_map(|(_, groups)| groups.iter()).flat_map(|(_, runs)| runs);
    let nulls: Vec<f64> = runs.filter_map(|run| run.claims.trace.get(measure)?.number.null).collect();
    Frontier {
        base: base.into(),
        measure: measure.into(),
        learned_by: learned_by.clone(),
        is_one_run_a_ratio,
        null: mean(&nulls),
        settings: settings.iter().map(of_setting).collect(),
    }
}
