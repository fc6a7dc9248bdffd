//! A finished run, and what a command that looks at it may change: how it looks, not how the run was trained.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::bail_input;
use crate::data::mixture::Role;
use crate::error::{InputError, or_collect};
use crate::progress;
use crate::recipe::{LocatedSource, Recipe, ResolvedRecipe};
use crate::run::RunDir;
use crate::sha256::sha256_path;
use crate::verify::manifest;

/// Keys that say where the documents of a run are.
const PLACES: [&str; 3] = ["data.narrow", "data.pretraining", "data.chat"];

/// Refuses a folder that holds no finished run.
///
/// # Errors
/// An input error that says what to do.
pub fn must_be_trained(run: &RunDir) -> Result<()> {
    if !run.recipe().exists() {
        bail_input!("{}: not a run folder (it has no recipe.toml)", run.path().display());
    }
    if run.is_trained() { Ok(()) } else { Err(run.unfinished()) }
}

/// The recipe of a run for a command that looks at `table`, with what `--set` changes there.
///
/// # Errors
/// An [`InputError`] with every fault.
pub fn read_recipe(command: &str, table: &str, run: &RunDir, set: &[String]) -> Result<Recipe> {
    let mut faults = other_training(command, table, run, set);
    let recipe = or_collect(Recipe::read(&run.recipe(), set), &mut faults)?;
    match recipe {
        Some(recipe) if faults.is_empty() => Ok(recipe),
        _ => Err(InputError::of(faults)),
    }
}

/// Faults of `--set` that says how the run is to be trained: it would have no effect, or a wrong one. A command looks at
/// one table of its own, at the seed, and at the base.
fn other_training(command: &str, table: &str, run: &RunDir, set: &[String]) -> Vec<String> {
    let of_another_training = |set: &&String| {
        let key = key(set);
        let first = key.split('.').next().unwrap_or_default();
        // What is no key at all is told where it is read.
        set.contains('=') && ![table, "seed", "model", "sweep"].contains(&first) && !PLACES.contains(&key)
    };
    let recipe = run.recipe();
    let fault = |set: &String| {
        format!(
            "--set {set}: the run is trained, and {command} cannot change its training; expected a key of [{table}] \
             or [model], seed, or the new place of moved files of {}. To train again: trainer fit {} --set {set}",
            PLACES.join(", "),
            recipe.display()
        )
    };
    set.iter().filter(of_another_training).map(fault).collect()
}

/// Compares the files of the recipe's documents with those that the run was trained on. `known` are hashes that were
/// computed already, by path; the other files are looked at only where `set` names them. A file that changed in its place
/// is warned of; `set` may not name another one.
///
/// # Errors
/// An [`InputError`] with every key of `set` whose documents are others; if a file cannot be read.
pub fn must_be_trained_on(
    run: &RunDir,
    recipe: &ResolvedRecipe,
    known: &BTreeMap<String, String>,
    set: &[String],
) -> Result<()> {
    let Ok(manifest) = manifest(run) else { return Ok(()) }; // `trainer verify` says what is wrong with it
    let mut faults = Vec::new();
    let located = recipe.located();
    for (place, role, sources) in [
        (PLACES[0], Role::Narrow, &located.narrow),
        (PLACES[1], Role::Pretraining, &located.pretraining),
        (PLACES[2], Role::Chat, &located.chat),
    ] {
        let is_set = set.iter().any(|set| key(set) == place);
        let trained = manifest.data.iter().map(|source| &source.provenance);
        let trained: Vec<_> = trained.filter(|p| p.role == role && p.source != "self").collect();
        let sources: Vec<&LocatedSource> = sources.iter().filter(|source| !source.is_self()).collect();
        if is_set && sources.len() != trained.len() {
            faults.push(format!(
                "--set {place}: {} files, but the run was trained on {}; expected the same files in another place",
                sources.len(),
                trained.len()
            ));
            continue;
        }
        for (source, trained) in sources.iter().zip(&trained) {
            let path = source.file().to_string_lossy();
            let sha256 = match known.get(path.as_ref()) {
                Some(sha256) => sha256.clone(),
                None if is_set => sha256_path(source.file())?,
                None => continue,
            };
            if sha256 == trained.sha256 {
                continue;
            }
            let change = format!("sha256 {sha256}, in the run's manifest {}", trained.sha256);
            match is_set {
                true => faults.push(format!(
                    "--set {place}: {path} is not the file that the run was trained on ({change}); expected the same \
                     file in another place"
                )),
                false => progress::say(format_args!(
                    "warning: {place}: {path} has changed since the run was trained on it ({change}); the narrow \
                     words, the held-out documents and the losses come from the current file"
                )),
            }
        }
    }
    InputError::unless_empty(faults)
}

/// The key of `key.path=value`.
fn key(set: &str) -> &str {
    set.split('=').next().unwrap_or_default().trim()
}
