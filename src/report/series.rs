//! Runs that were made alike, as figures and headings take them: what the claims say, and the runs themselves.

use std::collections::BTreeSet;
use std::ops::Deref;

use super::matching::told_by;
use super::visible::one_line;
use crate::claims::ClaimedRun;
use crate::claims::across::{AcrossRuns, SettingClaims};
use crate::claims::dose::{Dose, Ratio};

/// Keys that a label names at most.
const NAMED: usize = 3;

/// One setting with its runs by mix ratio.
pub struct MixSeries<'a> {
    /// What tells it from the others, in words.
    pub label: String,
    /// What may be said of it.
    pub claims: &'a SettingClaims,
    groups: Vec<Ratio<'a>>,
}

/// The runs of each ratio.
impl<'a> Deref for MixSeries<'a> {
    type Target = [Ratio<'a>];

    fn deref(&self) -> &[Ratio<'a>] {
        &self.groups
    }
}

impl<'a> MixSeries<'a> {
    /// The settings of some runs.
    pub fn all(across: &'a AcrossRuns, runs: &'a [ClaimedRun]) -> Vec<Self> {
        let of_setting = |(claims, label): (&'a SettingClaims, String)| {
            let find = |id: &String| runs.iter().find(|run| run.id == *id);
            let groups = claims.groups.iter().map(|g| (g.mix, g.runs.iter().filter_map(find).collect()));
            Self { label, claims, groups: groups.collect() }
        };
        across.settings.iter().zip(labels(&across.settings)).map(of_setting).collect()
    }

    /// The dose table of a measure; empty if it was not run.
    pub fn dose(&self, key: &str) -> &'a [Dose] {
        self.claims.doses.get(key).map_or(&[], Vec::as_slice)
    }

    /// That of a number beside a measure.
    pub fn dose_beside(&self, key: &str, name: &str) -> &'a [Dose] {
        self.dose(&format!("{key}.{name}"))
    }
}

/// Names of settings: those of their recipes where each has one of its own, else with what they differ in.
fn labels(settings: &[SettingClaims]) -> Vec<String> {
    let name_of = |s: &SettingClaims| one_line(&s.setting.name, 40);
    let names: BTreeSet<String> = settings.iter().map(name_of).collect();
    let named = names.len() == settings.len();
    let is_any_matched = settings.iter().any(|one| one.equal.behaviour.is_some());
    let mut labels: Vec<String> = Vec::new();
    for one in settings {
        let mut label = name_of(one);
        if !named && one.setting.has_recipe {
            let parts = told_by(one, is_any_matched);
            let more = if parts.len() > NAMED { ", …" } else { "" };
            label = format!("{label}: {}{more}", parts[..parts.len().min(NAMED)].join(", "));
        }
        let plain = label.clone();
        let mut n = 2;
        while labels.contains(&label) {
            label = format!("{plain} ({n})");
            n += 1;
        }
        labels.push(label);
    }
    labels
}
