//! Which runs were made alike, seed and mix aside: those are seeds or ratios of one series, others are not.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::run::ClaimedRun;
use crate::results::RunRecord;

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
/// Runs that were made alike.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingSetting {
    /// Name of the recipe of the first of its runs.
    pub name: String,
    /// The base.
    pub base: String,
    /// Whether its recipe is known; of a run without one, the manifest says what is known.
    pub has_recipe: bool,
    /// Its values of the keys in which the settings differ, the base and the method first.
    pub made_with: Vec<MadeWith>,
}

/// A key in which settings differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MadeWith {
    /// The key of the recipe.
    pub key: String,
    /// Its value; absent where the recipe has no such key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
}

/// The settings of some runs with their runs, in the order of their first runs.
pub(super) fn settings(runs: &[ClaimedRun]) -> Vec<(TrainingSetting, Vec<&ClaimedRun>)> {
    let mut made: Vec<BTreeMap<String, String>> = runs.iter().map(|run| made_with(run)).collect();
    // Files of one name that differ make two settings of one recipe.
    for (i, key, sha256) in differing_data(runs) {
        made[i].insert(key, sha256);
    }
    // Of a run without a recipe little is known, which makes it no other than the rest in every key.
    let known: Vec<&BTreeMap<String, String>> =
        runs.iter().zip(&made).filter(|(run, _)| run.recipe_table().is_some()).map(|(_, m)| m).collect();
    let keys: BTreeSet<&String> = known.iter().flat_map(|m| m.keys()).collect();
    let differs = |key: &&String| known.iter().any(|m| m.get(*key) != known[0].get(*key));
    let mut differing: Vec<&String> = keys.into_iter().filter(differs).collect();
    differing.sort_by_key(|key| *key != BASE && *key != METHOD);
    let values = |i: usize| match runs[i].recipe_table() {
        Some(_) => differing.iter().map(|key| made[i].get(*key)).collect::<Vec<_>>(),
        None => made[i].values().map(Some).collect(),
    };

    let mut alike: Vec<Vec<usize>> = Vec::new();
    for i in 0..runs.len() {
        match alike.iter_mut().find(|those| values(those[0]) == values(i)) {
            Some(those) => those.push(i),
            None => alike.push(vec![i]),
        }
    }
    let setting = |those: &Vec<usize>| {
        let (first, made) = (&runs[those[0]], &made[those[0]]);
        let value = |key: &&String| MadeWith { key: key.to_string(), value: made.get(*key).cloned() };
        let setting = TrainingSetting {
            name: first.name().into(),
            base: first.base().unwrap_or_default().into(),
            has_recipe: first.recipe_table().is_some(),
            made_with: differing.iter().map(value).collect(),
        };
        (setting, those.iter().map(|&i| &runs[i]).collect())
    };
    alike.iter().map(setting).collect()
}

/// The data of runs that have one name and several contents: number of the run, `ROLE SOURCE`, and the beginning of the
/// content's sha256.
fn differing_data(runs: &[ClaimedRun]) -> Vec<(usize, String, String)> {
    let mut contents: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut all = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let sources =
            run.manifest.iter().flat_map(|manifest| &manifest.data).map(|source| &source.provenance);
        // What a base wrote itself is another text for every base.
        for p in sources.filter(|p| p.source != "self" && !p.sha256.is_empty()) {
            let key = format!("data.{} {}", p.role.name(), p.source);
            contents.entry(key.clone()).or_default().insert(&p.sha256);
            all.push((i, key, p.sha256.get(..12).unwrap_or_default().to_string()));
        }
    }
    all.retain(|(_, key, _)| contents[key].len() > 1);
    all
}

/// Every value of the recipe that decides what is trained, by its path; of a run without one, what the manifest says.
fn made_with(cell: &RunRecord) -> BTreeMap<String, String> {
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
