//! Which runs were made alike, seed and mix aside: those are seeds or ratios of one series, others are not.

use std::collections::{BTreeMap, BTreeSet};

use crate::results::run_record::Cell;
use super::dose;
use super::dose::Ratio;
use crate::report::visible::one_line;

/// Keys of a recipe that do not change what is trained, or that make a series.
const ASIDE: &[&str] = &[
    "name",
    "description",
    "seed",
    "data.mix",
    "model.dtype",
    "train.micro_batch_size",
    "train.recompute",
    "train.eval_every",
    "train.eval_examples",
    "train.checkpoint_every",
];
/// Tables of a recipe that say what is measured.
const MEASURED: &[&str] = &["diff", "behaviour", "grader", "investigator"];
const BASE: &str = "model.base";
const METHOD: &str = "train.method";
/// Keys that a label names at most.
const NAMED: usize = 3;

/// Runs that were made alike.
pub struct Setting<'a> {
    /// What tells it from the others, in words.
    pub label: String,
    /// The base.
    pub base: &'a str,
    /// Its runs by mix ratio; those of an unknown ratio are left out.
    pub groups: Vec<Ratio<'a>>,
}

/// The settings of some runs, in the order of their first runs.
pub fn settings<'a>(cells: &[&'a Cell]) -> Vec<Setting<'a>> {
    let made: Vec<BTreeMap<String, String>> = cells.iter().map(|c| made_with(c)).collect();
    // Of a run without a recipe little is known, which makes it no other than the rest in every key.
    let known: Vec<&BTreeMap<String, String>> =
        cells.iter().zip(&made).filter(|(c, _)| c.recipe_table().is_some()).map(|(_, m)| m).collect();
    let keys: BTreeSet<&String> = known.iter().flat_map(|m| m.keys()).collect();
    let differs = |key: &&String| known.iter().any(|m| m.get(*key) != known[0].get(*key));
    let mut differing: Vec<&String> = keys.into_iter().filter(differs).collect();
    differing.sort_by_key(|key| *key != BASE && *key != METHOD);
    let values = |i: usize| match cells[i].recipe_table() {
        Some(_) => differing.iter().map(|key| made[i].get(*key)).collect::<Vec<_>>(),
        None => made[i].values().map(Some).collect(),
    };

    let mut alike: Vec<Vec<usize>> = Vec::new();
    for i in 0..cells.len() {
        match alike.iter_mut().find(|runs| values(runs[0]) == values(i)) {
            Some(runs) => runs.push(i),
            None => alike.push(vec![i]),
        }
    }
    // Names do where each setting has one of its own.
    let name_of = |runs: &Vec<usize>| one_line(cells[runs[0]].name(), 40);
    let names: BTreeSet<String> = alike.iter().map(name_of).collect();
    let named = names.len() == alike.len();
    let mut settings: Vec<Setting> = Vec::new();
    for runs in &alike {
        let mut label = name_of(runs);
        if !named && cells[runs[0]].recipe_table().is_some() {
            let parts = differing.iter().take(NAMED).map(|key| {
                let value = made[runs[0]].get(*key).map_or("not set", String::as_str);
                format!("{key} {}", one_line(value, 40))
            });
            let more = if differing.len() > NAMED { ", …" } else { "" };
            label = format!("{label}: {}{more}", parts.collect::<Vec<_>>().join(", "));
        }
        let plain = label.clone();
        let mut n = 2;
        while settings.iter().any(|s| s.label == label) {
            label = format!("{plain} ({n})");
            n += 1;
        }
        let of_setting: Vec<&Cell> = runs.iter().map(|i| cells[*i]).collect();
        let base = of_setting[0].base().unwrap_or_default();
        settings.push(Setting { label, base, groups: dose::groups(&of_setting) });
    }
    settings
}

/// Every value of the recipe that decides what is trained, by its path; of a run without one, what the manifest says.
fn made_with(cell: &Cell) -> BTreeMap<String, String> {
    let mut made = BTreeMap::new();
    if cell.recipe_table().is_some() {
        let decides = |key: &str, value: &toml::Value| {
            let table = key.split('.').next().unwrap_or_default();
            !MEASURED.contains(&table) && !ASIDE.contains(&key) && !value.is_table()
        };
        for (key, value) in cell.recipe_leaves().into_iter().filter(|(key, value)| decides(key, value)) {
            made.insert(key, value.as_str().map_or_else(|| value.to_string(), String::from));
        }
    } else {
        made.insert("name".into(), cell.name().into());
    }
    made.insert(BASE.into(), cell.base().unwrap_or_default().into());
    made.insert(METHOD.into(), cell.method().unwrap_or_default().into());
    made
}
