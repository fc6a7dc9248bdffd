//! Runs that differ in nothing but the seed, and the means of what was measured over them.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::run::ClaimedRun;
use super::summary::rows;
use crate::diff::readout::mean;
use crate::results::RunRecord;

/// Keys of a recipe in which such runs may differ.
const ASIDE: [&str; 3] = ["name", "description", "seed"];
/// Columns that have no mean: what the runs differ in, and times, which no run repeats.
const WITHOUT_MEAN: [&str; 2] = ["seed", "elapsed_s"];

/// Runs of one recipe with several seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedMeans {
    /// Their names.
    pub runs: Vec<String>,
    /// Mean of each column of `summary.csv` that is a number, over the runs that have it.
    pub means: IndexMap<String, f64>,
}

/// The runs by recipe, in the order of their first runs. A run without a recipe is like no other.
pub(super) fn seed_means(runs: &[ClaimedRun]) -> Vec<SeedMeans> {
    let recipe = |run: &RunRecord| -> BTreeMap<String, toml::Value> {
        let keys = run.recipe_leaves().into_iter().filter(|(key, _)| !ASIDE.contains(&key.as_str()));
        keys.map(|(key, value)| (key, value.clone())).collect()
    };
    let recipes: Vec<_> = runs.iter().map(|run| recipe(run)).collect();
    let mut alike: Vec<Vec<usize>> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let same = |those: &&mut Vec<usize>| recipes[those[0]] == recipes[i];
        match alike.iter_mut().find(same).filter(|_| run.recipe_table().is_some()) {
            Some(those) => those.push(i),
            None => alike.push(vec![i]),
        }
    }
    let rows = rows(runs);
    let columns = rows.first().map(|row| row.keys()).into_iter().flatten();
    let columns: Vec<&String> = columns.filter(|column| !WITHOUT_MEAN.contains(&column.as_str())).collect();
    let of_those = |those: Vec<usize>| {
        let mean_of = |column: &&String| {
            let values: Vec<f64> = those.iter().filter_map(|&i| rows[i].get(*column)?.as_f64()).collect();
            Some((column.to_string(), mean(&values)?))
        };
        let means = columns.iter().filter_map(mean_of).collect();
        SeedMeans { runs: those.iter().map(|&i| runs[i].id.clone()).collect(), means }
    };
    alike.into_iter().map(of_those).collect()
}
