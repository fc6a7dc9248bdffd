//! The `hf:` data sets of a recipe: their documents are in the cache before anything is read.

use anyhow::Result;

use crate::data::source::hub;
use crate::error::{InputError, or_note};
use crate::interrupt::Interrupt;
use crate::model::load::alias;
use crate::recipe::{Recipe, SourceSpec};

/// Whether a recipe names a data set of a hub.
pub fn are_wanted(recipe: &Recipe) -> bool {
    recipe.sources().into_iter().flat_map(|(_, side)| side).any(|spec| spec.hub_id().is_some())
}

/// Takes the documents that a recipe asks of data sets, unless they are in the cache, and pins their revisions.
///
/// # Errors
/// An [`InputError`] with the faults of all sources; [`crate::error::Interrupted`].
pub fn ensure(recipe: &mut Recipe, interrupt: &Interrupt) -> Result<()> {
    let mut faults = Vec::new();
    for (key, side) in recipe.sources_mut() {
        let before = faults.len();
        take(side, interrupt, &mut faults)?;
        faults[before..].iter_mut().for_each(|fault| *fault = format!("{key}: {fault}"));
    }
    InputError::unless_empty(faults)
}

/// The same for the sources of one key.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_side(side: &mut [SourceSpec], interrupt: &Interrupt) -> Result<()> {
    let mut faults = Vec::new();
    take(side, interrupt, &mut faults)?;
    InputError::unless_empty(faults)
}

fn take(side: &mut [SourceSpec], interrupt: &Interrupt, faults: &mut Vec<String>) -> Result<()> {
    for spec in side.iter_mut().filter(|spec| spec.hub_id().is_some()) {
        or_note(hub::take(spec, &alias::cache_dir()?, interrupt), faults)?;
    }
    Ok(())
}

/// Pins the revisions of a recipe to those with which a run began.
pub fn pin_as(recipe: &mut Recipe, began: &Recipe) {
    for ((_, side), (_, before)) in recipe.sources_mut().into_iter().zip(began.sources()) {
        for (spec, before) in side.iter_mut().zip(before) {
            if spec.is_branch_of(before) {
                spec.path.clone_from(&before.path);
            }
        }
    }
}
