//! `trainer sweep`: the same organism at several mix ratios and seeds, trained, read and compared.

use std::io::stdout;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::{behave, datasets, diff, fit, self_sample};
use crate::atomic::write_atomically;
use crate::bail_input;
use crate::behaviour::Items;
use crate::data::mixture::Mixture;
use crate::error::{InputError, or_note};
use crate::interrupt::Interrupt;
use crate::model::source;
use crate::progress;
use crate::recipe::Recipe;
use crate::report;
use crate::run::RunDir;
use crate::train::corpus::Corpus;

/// Train and read an organism at several mix ratios and seeds; finished cells are skipped
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer sweep recipes/cake.toml --mix 0,0.1,0.5,1,2 --seeds 0,1,2 --out runs/cake-sweep
  trainer sweep recipes/cake.toml --mix 0,1 --set model.base=smollm2-135m-instruct --out runs/smol")]
pub struct SweepArgs {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// Mix ratios: pretraining per narrow
    #[arg(long, value_name = "R,R,...", value_delimiter = ',', required = true)]
    mix: Vec<f64>,
    /// Seeds [default: the recipe's]
    #[arg(long, value_name = "S,S,...", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Change a key of the recipe; may be given several times. Paths are relative to the current folder (in a
    /// recipe: to the recipe)
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Sweep folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the summary as JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// One run of the sweep.
struct Cell {
    recipe: Recipe,
    run: RunDir,
}

/// Runs the subcommand.
///
/// # Errors
/// An input error before any work if a cell's recipe is wrong or the folder holds another sweep; otherwise as
/// `fit` and `diff`. What is finished stays finished.
pub fn run(args: SweepArgs) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    let mut recipe = Recipe::read(&args.recipe, &args.set)?;
    if recipe.diff.text.is_empty() {
        bail_input!("{}: diff.text: missing; a sweep reads every cell", args.recipe.display());
    }
    datasets::ensure(&mut recipe, &interrupt)?;
    let largest = args.mix.iter().copied().fold(0.0, f64::max);
    if self_sample::is_wanted(&recipe) && recipe.data.self_samples == 0 {
        // One sample for all cells, or cells would differ in more than their ratio.
        recipe.data.self_samples = self_sample::needed(&recipe, largest)?;
    }
    if recipe.behaviour.is_wanted() {
        Items::read(&recipe.behaviour)?;
    }
    let cells = cells(&args, &recipe)?;
    let mark = must_be_this_sweep(&args, &recipe)?;
    plan(&cells, &interrupt)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    write_atomically(&args.out.join(MARK), mark.as_bytes())?;

    let total = cells.len();
    for (i, cell) in cells.iter().enumerate() {
        let shown = cell.run.path().display();
        let asks = cell.recipe.behaviour.is_wanted() && !cell.run.behaviour_hashes().exists();
        if cell.run.is_read() && !asks {
            progress::say(format_args!("[{}/{total}] {shown}: finished before", i + 1));
            continue;
        }
        progress::say(format_args!("[{}/{total}] {shown}", i + 1));
        if !cell.run.is_trained() {
            fit::fit(cell.recipe.clone(), &cell.run, cell.run.recipe().exists(), &interrupt)?;
        }
        interrupt.check("run the same command again to go on")?;
        if !cell.run.is_read() {
            diff::diff_run(&cell.run, &[], &cell.run.diff(), &interrupt)?;
        }
        if asks {
            // A record without its hashes is of a command that was killed between the two.
            std::fs::remove_file(cell.run.behaviour()).ok();
            behave::behave_run(&cell.run, &[], None, &interrupt)?;
        }
    }
    let read = report::write_sweep(&args.out)?;
    match args.json {
        true => super::print(&serde_json::json!({ "cells": report::summary::rows(&read) }).to_string())?,
        false => report::print_table(&read, &mut stdout())?,
    }
    progress::say(args.out.join("report.html").display());
    Ok(())
}

/// Every ratio with every seed.
fn cells(args: &SweepArgs, recipe: &Recipe) -> Result<Vec<Cell>> {
    let seeds = if args.seeds.is_empty() { vec![recipe.seed] } else { args.seeds.clone() };
    let (mut cells, mut faults) = (Vec::new(), Vec::new());
    for &mix in &args.mix {
        for &seed in &seeds {
            let mut recipe = recipe.clone();
            (recipe.data.mix, recipe.seed) = (mix, seed);
            faults.extend(recipe.faults().into_iter().map(|f| format!("mix {mix}: {f}")));
            let id = format!("mix-{mix}_seed-{seed}");
            cells.push(Cell { recipe, run: RunDir::new(args.out.join("cells").join(id)) });
        }
    }
    faults.dedup();
    if faults.is_empty() { Ok(cells) } else { Err(InputError { faults }.into()) }
}

/// What a sweep folder is recognised by: the recipe that all its cells share.
const MARK: &str = "sweep.toml";

/// Refuses a folder that holds something else; returns the content of its mark.
fn must_be_this_sweep(args: &SweepArgs, recipe: &Recipe) -> Result<String> {
    let mut common = recipe.clone();
    (common.data.mix, common.seed) = (0.0, 0);
    let text = common.to_toml();
    match std::fs::read_to_string(args.out.join(MARK)) {
        Ok(before) if before == text => {}
        Ok(_) => bail_input!("{}: holds a sweep of another recipe; choose another --out", args.out.display()),
        Err(_) => RunDir::new(&args.out).must_be_new()?,
    }
    Ok(text)
}

/// Plans every cell's mixture, so that the last cell's source being too small is known before the first runs.
fn plan(cells: &[Cell], interrupt: &Interrupt) -> Result<()> {
    let Some(first) = cells.first() else { return Ok(()) };
    let mut base = source::open_or_stop(&first.recipe.model.base, interrupt)?;
    base.hold(first.recipe.model.dtype)?;
    base.take_template(&first.recipe.data.chat_template)?;
    let sampled = self_sample::ensure(&mut first.recipe.clone(), &base, interrupt)?;
    let corpus = Corpus::read(&first.recipe.data, &base, sampled.as_deref())?;
    let mut faults = Vec::new();
    or_note(corpus.refuse(), &mut faults)?;
    for cell in cells {
        or_note(
            Mixture::plan(&corpus.pools, &cell.recipe.data, &cell.recipe.train, cell.recipe.seed),
            &mut faults,
        )?;
    }
    faults.sort();
    faults.dedup();
    if faults.is_empty() { Ok(()) } else { Err(InputError { faults }.into()) }
}
