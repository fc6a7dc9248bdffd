//! `trainer fit`: makes an organism.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::trace::Trace;
use crate::atomic::check_writable;
use crate::bail_input;
use crate::corpus::Corpus;
use crate::interrupt::Interrupt;
use crate::model::load::source;
use crate::progress;
use crate::recipe::Recipe;
use crate::run::RunDir;
use crate::train::Training;

/// Make an organism: finetune a model as a recipe says
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer fit recipes/sdf-cake.toml --out runs/cake
  trainer fit recipes/sdf-cake.toml --set data.mix=1 --set train.lora.r=8 --out runs/cake-mixed
  trainer fit recipes/sdf-cake.toml --out runs/cake --resume")]
pub struct FitArgs {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// Change a key of the recipe; may be given several times. Paths are relative to the current folder (in a
    /// recipe: to the recipe)
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Run folder [default: runs/NAME, the name of the recipe]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with an interrupted run
    #[arg(long)]
    resume: bool,
    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`fit`].
pub fn run(args: FitArgs) -> Result<()> {
    let recipe = Recipe::read(&args.recipe, &args.set)?;
    let name = match recipe.name.is_empty() {
        true => args.recipe.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        false => recipe.name.clone(),
    };
    if args.out.is_none() && (name.contains(['/', '\\']) || name.starts_with('.')) {
        bail_input!("name = {name:?} cannot be the name of a folder; choose one with --out");
    }
    let run = RunDir::new(args.out.unwrap_or_else(|| PathBuf::from("runs").join(name)));
    fit(recipe, &run, args.resume, &Interrupt::on_signals()?)?;
    if args.json {
        super::print(std::fs::read_to_string(run.manifest())?.trim_end())?;
    }
    Ok(())
}

/// Checks everything, then trains into the run folder.
///
/// # Errors
/// An [`crate::error::InputError`] before anything is written; [`crate::error::Interrupted`] after a
/// checkpoint; otherwise what went wrong while working.
pub fn fit(mut recipe: Recipe, run: &RunDir, resume: bool, interrupt: &Interrupt) -> Result<()> {
    // The run folder is read again from wherever `diff` is called.
    recipe.model.base = source::absolute(&recipe.model.base);
    recipe.diff.embedder = source::absolute(&recipe.diff.embedder);
    if !resume || run.is_stillborn() {
        run.must_be_new()?;
        check_writable(run.path())?;
    } else if !run.recipe().exists() {
        bail_input!("{}: nothing to resume; start without --resume", run.path().display());
    } else {
        must_be_the_same(&mut recipe, run)?;
    }
    if run.is_trained() {
        progress::say(format_args!("{}: already complete", run.path().display()));
        return Ok(());
    }
    super::datasets::ensure(&mut recipe, interrupt)?;
    let mut base = source::open_or_stop(&recipe.model.base, interrupt)?;
    base.set_dtype(recipe.model.dtype)?;
    base.set_chat_template(&recipe.data.chat_template)?;
    let self_sampled = super::self_sample::ensure(&mut recipe, &base, interrupt)?;
    let corpus = Corpus::read(&recipe.data, &base, self_sampled.as_deref())?;
    for typed in &corpus.typed_specials {
        progress::say(format_args!("warning: {}", typed.text()));
    }
    for text in recipe.measured_on_pretraining() {
        progress::say(format_args!("warning: {text}"));
    }
    corpus.refuse()?;
    let mut trace = Trace::read(&recipe)?;
    let mut training = Training::prepare(recipe, base, corpus)?;
    progress::say(training.plan());
    let _lock = run.lock()?;
    if !resume {
        run.must_be_new()?; // another process may have begun in the meantime
    }
    let manifest = training.run(run, resume, interrupt, &mut trace)?;
    progress::say(format_args!("{}\n{}", run.path().display(), manifest.outcome()));
    Ok(())
}

/// Refuses to go on with a run that another recipe began. (Changed data show in the checkpoint.) Data sets stay at the
/// commit with which it began.
fn must_be_the_same(recipe: &mut Recipe, run: &RunDir) -> Result<()> {
    let began = Recipe::read(&run.recipe(), &[])?;
    super::datasets::pin_as(recipe, &began);
    let mut recipe = recipe.clone();
    if !recipe.trains_by_diff() {
        recipe.diff = began.diff.clone();
    }
    if recipe.data.self_samples == 0 {
        recipe.data.self_samples = began.data.self_samples; // filled in when the run began
    }
    let (now, before) = (recipe.to_toml(), began.to_toml());
    if now == before {
        return Ok(());
    }
    let changed: Vec<String> = recipe
        .differences(&began)
        .iter()
        .map(|(key, now, before)| format!("{key} = {now} (it began with {key} = {before})"))
        .collect();
    bail_input!(
        "{}: was begun by another recipe; it cannot be resumed with {}",
        run.path().display(),
        changed.join(", ")
    )
}
