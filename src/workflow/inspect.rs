//! What a recipe would train on, token by token.

use std::path::PathBuf;

use anyhow::Result;

use super::resolve::{Purpose, resolve};
use super::self_sample;
use crate::corpus::Corpus;
use crate::corpus::inspection::Inspection;
use crate::corpus::measured::MeasuredText;
use crate::data::mixture::Mixture;
use crate::interrupt::Interrupt;
use crate::model::load::source;
use crate::recipe::{Recipe, ResolvedRecipe, SweepSection};

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct InspectRequest {
    /// The recipe's file.
    pub recipe: PathBuf,
    /// Overrides of its keys, each `key.path=value`.
    pub set: Vec<String>,
    /// How many of the first examples are shown.
    pub examples: usize,
}

/// Reads and plans as [`super::fit`] does. Nothing is trained, and nothing is written but the documents of data sets to
/// the cache: `interrupt` is called only where these must be taken, so that without them Ctrl-C ends the process at once.
///
/// # Errors
/// As those of [`super::fit`] that need no weights.
pub fn inspect(
    request: &InspectRequest,
    interrupt: impl FnOnce() -> Result<Interrupt>,
) -> Result<Inspection> {
    let recipe = Recipe::read(&request.recipe, &request.set)?;
    let takes_documents =
        recipe.sources().into_iter().flat_map(|(_, side)| side).any(|s| s.hub_id().is_some());
    let interrupt = if takes_documents { interrupt()? } else { Interrupt::default() };
    let recipe = resolve(recipe, Purpose::Reading, &interrupt)?;
    let mut inspection = inspection(&recipe, request.examples)?;
    inspection.sweep_cells = SweepSection::read(&request.recipe)?.cells();
    Ok(inspection)
}

/// Reads and plans as `fit` does, but samples nothing and loads no weights.
fn inspection(recipe: &ResolvedRecipe, examples: usize) -> Result<Inspection> {
    let mut base = source::open(&recipe.model.base)?;
    base.set_chat_template(&recipe.data.chat_template)?;
    let sample = self_sample::planned(recipe, &base)?;
    let cached = sample.as_ref().filter(|s| s.path.exists());
    let mut corpus = match cached {
        Some(sample) => Corpus::read(recipe, &base, Some(&sample.path))?,
        None => Corpus::read_without_self(recipe, &base)?,
    };
    if !recipe.diff.text.is_empty() {
        let measured = MeasuredText::of(recipe, &base)?;
        corpus.unfit.extend(measured.unfit);
        corpus.typed_specials.extend(measured.typed_specials);
    }
    let unsampled = match &sample {
        Some(s) if cached.is_none() => corpus.stand_in_for_self(&recipe.data, &s.path, s.documents),
        _ => Vec::new(),
    };
    let mixture = Mixture::plan(&corpus.pools, &recipe.data, &recipe.train, recipe.seed)?;
    Inspection::new(recipe, &base, &corpus, &mixture, &unsampled, examples)
}
