//! What may be said of runs together: of those that were made alike by mix ratio, and of all.

use std::collections::BTreeSet;

use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};

use super::dose::{self, Dose, Ratio, groups};
use super::file::{Dated, RestsOn, SCHEMA};
use super::frontier::{Frontier, frontiers};
use super::matching::{self, EqualBehaviour, EqualIn};
use super::meets_null::{MeetsNull, meets_null};
use super::power::{MixVerdict, ReaderPower, mix_verdicts, power};
use super::remaining::{Remaining, remaining};
use super::run::ClaimedRun;
use super::seeds::{SeedMeans, seed_means};
use super::setting::{TrainingSetting, settings};
use super::trace::trace_measures;
use super::training::{TrainingCurve, training_curves};
use super::verdict::VerdictState;
use crate::behaviour::BehaviourEffect;
use crate::diff::headline::TraceNumber;

/// `SWEEP/claims.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AcrossRuns {
    /// Version of the layout and of the rules.
    pub schema: u32,
    /// sha256 of the files that the claims rest on, by path from the sweep folder; see [`super::file`].
    pub rests_on: RestsOn,
    /// How many runs each claim holds of.
    pub counts: RunCounts,
    /// Runs that were matched to one behaviour, and which of them are comparable.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub matching: Vec<EqualBehaviour>,
    /// Runs that were made alike, seed and mix aside.
    pub settings: Vec<SettingClaims>,
    /// What was learned against what can be read, by base and measure.
    pub frontiers: Vec<Frontier>,
    /// Runs that differ in nothing but the seed, with means of what was measured.
    pub seeds: Vec<SeedMeans>,
}

/// How many runs each claim holds of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunCounts {
    /// All runs.
    pub runs: usize,
    /// Those in which a measure of activation differences ran.
    pub measured: usize,
    /// Those that are readable by one of them at least.
    pub readable: usize,
    /// What the verdict is, of those with an analysis.
    pub verdicts: Vec<VerdictCount>,
}

/// Runs of which the same holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictCount {
    /// What holds.
    pub state: VerdictState,
    /// Of how many runs.
    pub runs: usize,
}

/// Runs that were made alike, by mix ratio.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SettingClaims {
    /// What tells it from the others.
    #[serde(flatten)]
    pub setting: TrainingSetting,
    /// In what its runs are equal. The runs that it leaves out are in no number and no claim below, but in `training`.
    #[serde(default)]
    pub equal: EqualIn,
    /// Its mix ratios with all of its runs; runs of an unknown ratio are left out.
    pub groups: Vec<MixGroup>,
    /// Values by mix ratio with statistics between runs: of each measure of the trace by its key, and of the numbers beside
    /// it as `KEY.NAME`; of `behaviour.NAME`, the tuned model's value, and `behaviour_base.NAME`, its base's; and of
    /// `loss_narrow`, `loss_pretraining` and `loss_chat`, held-out loss, tuned minus base, nats a token.
    pub doses: IndexMap<String, Vec<Dose>>,
    /// What is left of each measure of the trace and of each behaviour, of those that are there at the
    /// lowest ratio; empty with fewer than two ratios.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub remaining: Vec<Remaining>,
    /// What was measured while training, by its key in `metrics.jsonl`: a curve a mix ratio.
    pub training: IndexMap<String, Vec<TrainingCurve>>,
    /// Where each measure of the trace meets its null, of those with two ratios or more.
    pub meets_null: Vec<MeetsNull>,
    /// Whether each reader reads the unmixed runs, of the readers that have a floor; empty without runs at mix 0.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub power: Vec<ReaderPower>,
    /// What the readers with power say at each ratio; empty where power is not known.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub verdicts: Vec<MixVerdict>,
}

/// The runs of one mix ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixGroup {
    /// Pretraining text per narrow text: the mean of what the runs reached, else what was asked for.
    pub mix: f64,
    /// Their names.
    pub runs: Vec<String>,
}

impl Dated for AcrossRuns {
    fn date(&self) -> (u32, &RestsOn) {
        (self.schema, &self.rests_on)
    }
}

impl AcrossRuns {
    /// Applies the rules to some runs.
    pub(super) fn of(runs: &[ClaimedRun], rests_on: RestsOn) -> Self {
        let settings = settings(runs);
        let matching = matching::compare(runs);
        let equal: Vec<EqualIn> = settings.iter().map(|(_, runs)| EqualIn::of(runs, &matching)).collect();
        let all: Vec<Vec<Ratio>> = settings.iter().map(|(_, runs)| groups(runs)).collect();
        let grouped: Vec<Vec<Ratio>> =
            equal.iter().zip(&all).map(|(equal, all)| equal.included(all)).collect();
        let bases: BTreeSet<&str> = settings.iter().map(|(setting, _)| setting.base.as_str()).collect();
        let of_base = |base: &str| {
            let all = settings.iter().zip(&grouped).enumerate();
            let those = all.filter(|(_, ((setting, _), _))| setting.base == base);
            those.map(|(i, (_, groups))| (i, groups.as_slice())).collect::<Vec<_>>()
        };
        let frontiers = bases.into_iter().flat_map(|base| frontiers(base, &of_base(base))).collect();
        let claims = |i: usize| {
            let groups = &grouped[i];
            let power = power(groups);
            let doses = doses(groups);
            SettingClaims {
                setting: settings[i].0.clone(),
                equal: equal[i].clone(),
                groups: all[i].iter().map(MixGroup::of).collect(),
                remaining: if groups.len() > 1 { remaining(&doses, groups) } else { Vec::new() },
                doses,
                training: training_curves(&all[i]),
                meets_null: trace_measures().filter_map(|m| meets_null(m, groups)).collect(),
                verdicts: mix_verdicts(groups, &power),
                power,
            }
        };
        Self {
            schema: SCHEMA,
            rests_on,
            counts: RunCounts::of(runs),
            settings: (0..settings.len()).map(claims).collect(),
            matching,
            frontiers,
            seeds: seed_means(runs),
        }
    }
}

impl MixGroup {
    fn of((mix, runs): &Ratio) -> Self {
        Self { mix: *mix, runs: runs.iter().map(|run| run.id.clone()).collect() }
    }
}

impl RunCounts {
    fn of(runs: &[ClaimedRun]) -> Self {
        let count = |of: &dyn Fn(&ClaimedRun) -> bool| runs.iter().filter(|run| of(run)).count();
        let is = |run: &ClaimedRun, state| run.claims.verdict.as_ref().is_some_and(|v| v.state == state);
        let verdicts =
            VerdictState::ALL.map(|state| VerdictCount { state, runs: count(&|run| is(run, state)) });
        Self {
            runs: runs.len(),
            measured: count(&|run| run.claims.readable.is_measured()),
            readable: count(&|run| !run.claims.readable.readable_by().is_empty()),
            verdicts: verdicts.into_iter().filter(|c| c.runs > 0).collect(),
        }
    }
}

/// The dose tables of a setting.
fn doses(groups: &[Ratio]) -> IndexMap<String, Vec<Dose>> {
    let mut tables = IndexMap::new();
    for m in trace_measures() {
        let value = |run: &ClaimedRun| Some(run.claims.trace.get(m.key)?.number);
        tables.insert(m.key.to_string(), dose::doses(groups, value));
        let all = groups.iter().flat_map(|(_, runs)| runs).filter_map(|run| run.claims.trace.get(m.key));
        for name in all.flat_map(|value| value.beside.keys()).collect::<IndexSet<_>>() {
            let value = |run: &ClaimedRun| run.claims.trace.get(m.key)?.beside.get(name).copied();
            tables.insert(format!("{}.{name}", m.key), dose::doses(groups, value));
        }
    }
    for name in behaviours(groups) {
        let effect = |run: &ClaimedRun| -> Option<BehaviourEffect> {
            let effects = run.behaviour.as_ref()?.effects();
            effects.into_iter().find(|(n, _)| *n == name).map(|(_, e)| e.clone())
        };
        let tuned = |run: &ClaimedRun| {
            effect(run).map(|e| TraceNumber { interval: e.tuned_interval, ..TraceNumber::new(e.tuned) })
        };
        let base = |run: &ClaimedRun| effect(run).map(|e| TraceNumber::new(e.base));
        tables.insert(format!("behaviour.{name}"), dose::doses(groups, tuned));
        tables.insert(format!("behaviour_base.{name}"), dose::doses(groups, base));
    }
    let losses = |run: &ClaimedRun| [run.base_losses(), run.tuned_losses()];
    let narrow = |run: &ClaimedRun| losses(run).map(|l| l.narrow);
    let pretraining = |run: &ClaimedRun| losses(run).map(|l| l.pretraining);
    let chat = |run: &ClaimedRun| losses(run).map(|l| l.chat);
    type Losses<'a> = &'a dyn Fn(&ClaimedRun) -> [Option<f64>; 2];
    let kinds: [(&str, Losses); 3] =
        [("loss_narrow", &narrow), ("loss_pretraining", &pretraining), ("loss_chat", &chat)];
    for (key, losses) in kinds {
        let change = |run: &ClaimedRun| match losses(run) {
            [Some(base), Some(tuned)] => Some(TraceNumber::new(tuned - base)),
            _ => None,
        };
        tables.insert(key.into(), dose::doses(groups, change));
    }
    tables.retain(|_, doses: &mut Vec<Dose>| !doses.is_empty());
    tables
}

/// The main value of each family of behaviour, as runs have them.
fn behaviours(groups: &[Ratio]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for found in groups.iter().flat_map(|(_, runs)| runs).filter_map(|run| run.behaviour.as_ref()) {
        let main = found.effects().first().map(|(name, _)| name.clone());
        names.extend(main.filter(|name| !names.contains(name)));
    }
    names
}
