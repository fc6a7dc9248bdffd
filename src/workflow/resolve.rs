//! From a recipe as it is written to one that leaves nothing open.
//!
//! A written recipe may name a model by a relative path, a data set by a branch, and text of the base model (`"self"`)
//! without saying how much. A run folder must say all of it, so that the run can be read, resumed and verified from
//! anywhere. [`resolve`] decides it once; nothing changes a [`ResolvedRecipe`] afterwards.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::self_sample;
use crate::bail_input;
use crate::data::source::hub;
use crate::error::{InputError, or_collect};
use crate::interrupt::Interrupt;
use crate::model::load::{alias, source};
use crate::recipe::{LocatedSource, Recipe, ResolvedRecipe, SourceSpec};
use crate::run::RunDir;

/// What a recipe is resolved for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// A training that begins. What is open is looked up, and the documents of data sets are taken into the cache.
    Training,
    /// A training that goes on in the run folder where it began. What is open stays as it was then; nothing is looked
    /// up, and the cache may lack documents until [`take_documents`].
    Resuming(&'a RunDir),
    /// An analysis. The documents of data sets are taken; models keep the names that they are given, and the size of
    /// `"self"`, which no analysis reads, stays open.
    Reading,
    /// A test of behaviour, which reads no source but those of its quality panel. Nothing is taken; every source is where the
    /// recipe names it.
    Asking,
}

/// Decides what a recipe leaves open.
///
/// # Errors
/// An [`InputError`] with the faults of all sources; if the size of `"self"` is not known beforehand; or, to resume, if
/// the run was begun by another recipe. [`crate::error::Interrupted`].
pub fn resolve(recipe: Recipe, purpose: Purpose, interrupt: &Interrupt) -> Result<ResolvedRecipe> {
    match purpose {
        Purpose::Training => {
            // The run folder is read again from wherever `diff` is called.
            let mut recipe = recipe.with_models(source::absolute);
            pin(&mut recipe, interrupt)?;
            if self_sample::is_wanted(&recipe) && recipe.data.self_samples == 0 {
                recipe.data.self_samples = self_sample::needed(&recipe, recipe.data.mix)?;
            }
            located(recipe)
        }
        Purpose::Resuming(run) => {
            let mut recipe = recipe.with_models(source::absolute);
            let began = Recipe::read(&run.recipe(), &[])?;
            fill_from(&mut recipe, &began);
            must_be_the_same(&recipe, &began, run)?;
            located(recipe)
        }
        Purpose::Reading => {
            let mut recipe = recipe;
            pin(&mut recipe, interrupt)?;
            located(recipe)
        }
        Purpose::Asking => Ok(ResolvedRecipe::new(recipe, |spec| spec.path.clone().into())),
    }
}

/// Takes the documents of a resolved recipe's data sets into the cache, unless they are there.
///
/// # Errors
/// An [`InputError`] with the faults of all sources; [`crate::error::Interrupted`].
pub fn take_documents(recipe: &ResolvedRecipe, interrupt: &Interrupt) -> Result<()> {
    pin(&mut Recipe::clone(recipe), interrupt)
}

/// The files that hold the documents of some sources; those of data sets are taken first.
///
/// # Errors
/// As [`take_documents`].
pub fn locate(sources: &[SourceSpec], interrupt: &Interrupt) -> Result<Vec<LocatedSource>> {
    let (mut pinned, mut faults) = (sources.to_vec(), Vec::new());
    take(&mut pinned, interrupt, &mut faults)?;
    InputError::unless_empty(faults)?;
    let cache = cache_of(&pinned)?;
    let located = |spec: SourceSpec| {
        let file = file(&spec, cache.as_deref());
        LocatedSource::new(spec, file)
    };
    Ok(pinned.into_iter().map(located).collect())
}

/// A recipe whose data sets name commits, with the files that hold their documents.
fn located(recipe: Recipe) -> Result<ResolvedRecipe> {
    let cache = cache_of(recipe.sources().into_iter().flat_map(|(_, side)| side))?;
    Ok(ResolvedRecipe::new(recipe, |spec| file(spec, cache.as_deref())))
}

/// The cache, where one of the sources is in it.
fn cache_of<'a>(sources: impl IntoIterator<Item = &'a SourceSpec>) -> Result<Option<PathBuf>> {
    sources.into_iter().any(|spec| spec.hub_id().is_some()).then(alias::cache_dir).transpose()
}

fn file(spec: &SourceSpec, cache: Option<&Path>) -> PathBuf {
    cache.map_or_else(|| PathBuf::from(&spec.path), |cache| hub::extract(spec, cache))
}

/// Takes the documents that a recipe asks of data sets, unless they are in the cache, and names the commits that they
/// are of.
fn pin(recipe: &mut Recipe, interrupt: &Interrupt) -> Result<()> {
    let mut faults = Vec::new();
    for (key, side) in recipe.sources_mut() {
        let before = faults.len();
        take(side, interrupt, &mut faults)?;
        faults[before..].iter_mut().for_each(|fault| *fault = format!("{key}: {fault}"));
    }
    InputError::unless_empty(faults)
}

fn take(side: &mut [SourceSpec], interrupt: &Interrupt, faults: &mut Vec<String>) -> Result<()> {
    for spec in side.iter_mut().filter(|spec| spec.hub_id().is_some()) {
        or_collect(hub::take(spec, &alias::cache_dir()?, interrupt), faults)?;
    }
    Ok(())
}

/// Decides what is open as it was decided when a run began: commits of data sets, and the size of `"self"`.
fn fill_from(recipe: &mut Recipe, began: &Recipe) {
    for ((_, side), (_, before)) in recipe.sources_mut().into_iter().zip(began.sources()) {
        for (spec, before) in side.iter_mut().zip(before) {
            if spec.is_branch_of(before) {
                spec.path.clone_from(&before.path);
            }
        }
    }
    if recipe.data.self_samples == 0 {
        recipe.data.self_samples = began.data.self_samples;
    }
}

/// Refuses to go on with a run that another recipe began. (Changed data show in the checkpoint.) `[diff]` alone may
/// differ, where training does not read it: it says how the organism is read afterwards.
fn must_be_the_same(now: &Recipe, began: &Recipe, run: &RunDir) -> Result<()> {
    let mut began = began.clone();
    if !now.trains_by_diff() {
        began.diff = now.diff.clone();
    }
    if now.to_toml() == began.to_toml() {
        return Ok(());
    }
    let changed: Vec<String> = now
        .differences(&began)
        .iter()
        .map(|(key, now, before)| format!("{key} = {now} (it started with {key} = {before})"))
        .collect();
    bail_input!(
        "{}: was started with another recipe; it cannot be resumed with {}",
        run.path().display(),
        changed.join(", ")
    )
}
