//! Making an organism.

use std::path::PathBuf;

use anyhow::Result;

use super::monitor::Monitor;
use super::resolve::{Purpose, resolve, take_documents};
use super::self_sample;
use crate::atomic::check_writable;
use crate::bail_input;
use crate::corpus::Corpus;
use crate::interrupt::Interrupt;
use crate::model::load::source;
use crate::progress;
use crate::recipe::Recipe;
use crate::run::RunDir;
use crate::train::Training;

/// What to train, and where.
#[derive(Debug, Clone, Default)]
pub struct FitRequest {
    /// The recipe's file.
    pub recipe: PathBuf,
    /// Overrides of its keys, each `key.path=value`.
    pub set: Vec<String>,
    /// The run folder; `None`: `runs/NAME`, the name of the recipe.
    pub out: Option<PathBuf>,
    /// Whether an interrupted run goes on.
    pub resume: bool,
}

/// Finetunes a model as a recipe says, and gives the run folder.
///
/// # Errors
/// As [`fit_into`]; an [`crate::error::InputError`] with every fault of the recipe.
pub fn fit(request: &FitRequest, interrupt: &Interrupt) -> Result<RunDir> {
    let recipe = Recipe::read(&request.recipe, &request.set)?;
    let name = match recipe.name.is_empty() {
        true => request.recipe.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        false => recipe.name.clone(),
    };
    if request.out.is_none() && (name.contains(['/', '\\']) || name.starts_with('.')) {
        bail_input!("name = {name:?} cannot be the name of a folder; choose one with --out");
    }
    let run = RunDir::new(request.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(name)));
    fit_into(recipe, &run, request.resume, interrupt)?;
    progress::say(format_args!("To read the trace, run: trainer diff {}", run.path().display()));
    Ok(run)
}

/// Checks everything, then trains into a run folder. A run that has finished is left alone where `resume` is set.
///
/// # Errors
/// An [`crate::error::InputError`] before anything is written; [`crate::error::Interrupted`] after a
/// checkpoint; otherwise what went wrong while working.
pub fn fit_into(recipe: Recipe, run: &RunDir, resume: bool, interrupt: &Interrupt) -> Result<()> {
    run.must_hold_no_links()?;
    let recipe = if !resume || run.holds_only_leftovers() {
        run.must_be_new()?;
        check_writable(run.path())?;
        resolve(recipe, Purpose::Training, interrupt)?
    } else if !run.recipe().exists() {
        bail_input!("{}: nothing to resume; start without --resume", run.path().display());
    } else {
        let recipe = resolve(recipe, Purpose::Resuming(run), interrupt)?;
        if run.is_trained() {
            progress::say(format_args!("{}: already complete", run.path().display()));
            return Ok(());
        }
        take_documents(&recipe, interrupt)?;
        recipe
    };
    let mut base = source::open_or_stop(&recipe.model.base, interrupt)?;
    base.set_dtype(recipe.model.dtype)?;
    base.set_chat_template(&recipe.data.chat_template)?;
    let self_sampled = self_sample::ensure(&recipe, &base, interrupt)?;
    let corpus = Corpus::read(&recipe, &base, self_sampled.as_deref())?;
    for typed in &corpus.typed_specials {
        progress::say(format_args!("warning: {}", typed.text()));
    }
    for text in corpus.longer_than_context(&base, &[]) {
        progress::say(format_args!("warning: {text}"));
    }
    for text in recipe.measured_on_pretraining() {
        progress::say(format_args!("warning: {text}"));
    }
    corpus.refuse()?;
    let mut monitor = Monitor::read(&recipe, &base)?;
    let mut training = Training::prepare(recipe, base, corpus)?;
    progress::say(training.plan());
    let _lock = run.lock()?;
    if !resume {
        run.must_be_new()?; // another process may have begun in the meantime
    }
    let manifest = training.run(run, resume, interrupt, &mut monitor)?;
    progress::say(format_args!("{}: {}", run.path().display(), manifest.outcome()));
    Ok(())
}
