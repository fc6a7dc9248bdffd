//! `trainer sweep`: the same organism with other values of some keys, trained, read and compared.

use std::collections::HashMap;
use std::io::stdout;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::{behave, datasets, diff, fit, self_sample};
use crate::atomic::write_atomically;
use crate::bail_input;
use crate::behaviour::Items;
use crate::claims;
use crate::corpus::Corpus;
use crate::data::mixture::Mixture;
use crate::error::{InputError, Interrupted, or_note};
use crate::interrupt::Interrupt;
use crate::model::load::source;
use crate::model::lora::LoraConfig;
use crate::progress;
use crate::recipe::{Recipe, SweepSection};
use crate::report;
use crate::sweep::{
    self, Axes, Cell, Combination, HELD, JobDir, Limits, Lock, Plan, Slurm, State, memory,
    must_be_this_sweep, stop_with_parent, write_slurm,
};

/// Train and read an organism at several values of any keys; finished cells are skipped
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer sweep recipes/sdf-cake.toml --mix 0,0.1,0.5,1 --seeds 0,1,2 --out runs/cake-sweep
  trainer sweep recipes/sdf-cake.toml --grid train.lora.r=4,32 --grid train.lr=1e-4,3e-4 --jobs 2 --out runs/rank
  trainer sweep --status runs/rank                      how far the cells are; --json for programs
  trainer sweep recipes/sdf-cake.toml --mix 0,1 --launcher slurm --sbatch=--partition=cpu --out runs/cluster

A recipe may name the axes instead: [sweep] mix = [0, 1], seeds = [0, 1], grid = { \"train.lora.r\" = [4, 32] }.
Each cell is a process of its own (trainer sweep --cell ID --out DIR). A sweep that was killed leaves none running;
the same command goes on, and tries the cells that failed again.")]
pub struct SweepArgs {
    /// The recipe (TOML)
    #[arg(required_unless_present_any = ["status", "summary", "cell"])]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    axes: AxesArgs,
    #[command(flatten)]
    limits: LimitsArgs,
    /// Change a key of the recipe; may be given several times. Paths are relative to the current folder (in a
    /// recipe: to the recipe)
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Sweep folder
    #[arg(long, value_name = "DIR", required_unless_present_any = ["status", "summary"])]
    out: Option<PathBuf>,
    /// What runs the cells: this machine, or a cluster, for which the jobs are written
    #[arg(long, value_name = "NAME", default_value = "local")]
    launcher: Launcher,
    /// Option of sbatch for every job, with --launcher slurm; may be given several times
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    sbatch: Vec<String>,
    /// Show how far each cell of a sweep folder is
    #[arg(long, value_name = "DIR", conflicts_with_all = ["recipe", "out", "summary", "cell"])]
    status: Option<PathBuf>,
    /// Write summary and report of a sweep folder again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["recipe", "out", "cell"])]
    summary: Option<PathBuf>,
    /// Work on one cell that a sweep has prepared
    #[arg(long, value_name = "ID", conflicts_with = "recipe")]
    cell: Option<String>,
    /// Stop when stdin closes: the process that started this one has gone
    #[arg(long, hide = true, requires = "cell")]
    with_parent: bool,
    /// Print the summary, or the status, as JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// What varies.
#[derive(Debug, Args)]
pub struct AxesArgs {
    /// Mix ratios: pretraining per narrow [default: the recipe's]
    #[arg(long, value_name = "R,R,...", value_delimiter = ',')]
    pub mix: Vec<f64>,
    /// Seeds [default: the recipe's]
    #[arg(long, value_name = "S,S,...", value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// Values of another key, as --set takes them; may be given several times
    #[arg(long, value_name = "KEY.PATH=V,V,...")]
    pub grid: Vec<String>,
}

impl AxesArgs {
    /// The axes, with those that the recipe names.
    ///
    /// # Errors
    /// An [`InputError`] with the faults of the flags and of the recipe's `[sweep]`.
    pub fn read(&self, recipe: &Path) -> Result<Axes> {
        let mut faults = Vec::new();
        let section = or_note(SweepSection::read(recipe), &mut faults)?;
        let has_flags = !(self.mix.is_empty() && self.seeds.is_empty() && self.grid.is_empty());
        let mut axes = Axes::default();
        // Without flags, a section that cannot be read leaves nothing to say of the axes.
        if section.is_some() || has_flags {
            let read = Axes::new(&section.unwrap_or_default(), &self.mix, &self.seeds, &self.grid);
            axes = or_note(read, &mut faults)?.unwrap_or_default();
        }
        InputError::unless_empty(faults)?;
        Ok(axes)
    }
}

/// How many cells at once.
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// Cells at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub jobs: u64,
    /// Memory that they may take together, in GiB [default: what is free]
    #[arg(long, value_name = "GIB")]
    pub memory: Option<f64>,
    /// Threads of each cell [default: the machine's, divided by --jobs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub threads: Option<u64>,
    /// How many times a cell that fails is tried again at once
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retry: usize,
}

impl LimitsArgs {
    /// The limits for some cells; they are said.
    ///
    /// # Errors
    /// An [`InputError`] if a cell alone takes more memory than `--memory`.
    pub fn resolve(&self, plans: &[Plan]) -> Result<Limits> {
        let largest = plans.iter().map(|plan| plan.memory_gib).fold(0.0, f64::max);
        let jobs = self.jobs as usize;
        let threads = match self.threads {
            Some(threads) => threads as usize,
            None => (rayon::current_num_threads() / jobs).max(1),
        };
        if let Some(given) = self.memory
            && (given.is_nan() || given < largest)
        {
            bail_input!(
                "--memory {given}: the largest cell takes about {largest:.1} GiB (estimated); expected at least that"
            );
        }
        let memory_gib = self.memory.or_else(memory::available_gib).unwrap_or(f64::INFINITY);
        progress::say(format_args!(
            "{} cells, at most {jobs} at once, {threads} threads each; the largest takes about {largest:.1} GiB \
             (estimated from parameters, method and tokens of a step) of {memory_gib:.1}",
            plans.len()
        ));
        Ok(Limits { jobs, threads, memory_gib, retry: self.retry })
    }
}

/// What runs the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Launcher {
    /// Processes on this machine.
    Local,
    /// Writes a job array for Slurm.
    Slurm,
}

/// Runs the subcommand.
///
/// # Errors
/// An input error before any work if a cell's recipe is wrong or the folder holds another sweep; if a cell failed, after
/// all others were worked on; [`Interrupted`]. What is finished stays finished.
pub fn run(args: SweepArgs) -> Result<()> {
    if let Some(dir) = &args.status {
        return print_status(dir, args.json);
    }
    if let Some(dir) = &args.summary {
        return summarise(dir, args.json);
    }
    let Some(out) = &args.out else { bail_input!("--out: missing") };
    let interrupt = Interrupt::on_signals()?;
    if let Some(id) = &args.cell {
        if args.with_parent {
            stop_with_parent(&interrupt);
        }
        return run_cell(out, id, &interrupt);
    }
    let Some(path) = &args.recipe else { bail_input!("expected a recipe") };
    if !args.sbatch.is_empty() && args.launcher != Launcher::Slurm {
        bail_input!("--sbatch: expected --launcher slurm with it");
    }
    let mut faults = Vec::new();
    let recipe = or_note(Recipe::read(path, &args.set), &mut faults)?;
    let axes = or_note(args.axes.read(path), &mut faults)?;
    let combinations = match axes {
        Some(axes) => or_note(axes.combinations(path, &args.set), &mut faults)?,
        None => None,
    };
    let (Some(recipe), Some(combinations)) = (recipe, combinations) else {
        return Err(InputError::of(faults));
    };
    let planned = plan_sweep(out, &recipe, combinations, &interrupt)?;
    if args.launcher == Launcher::Slurm {
        let jobs = args.limits.jobs as usize;
        let threads = args.limits.threads.map_or_else(rayon::current_num_threads, |n| n as usize);
        let name = if recipe.name.is_empty() { "sweep".into() } else { recipe.name.clone() };
        let slurm = Slurm { name, jobs, threads, options: args.sbatch };
        planned.write(out)?;
        let submit = write_slurm(out, &planned.cells, &planned.plans, &slurm)?;
        progress::say(format_args!("{} cells; hand them to the scheduler with:", planned.cells.len()));
        return super::print(&format!("bash {}", submit.display()));
    }
    let limits = args.limits.resolve(&planned.plans)?;
    planned.write(out)?;
    let Planned { cells, plans, .. } = planned;
    let failed = sweep::run(out, &cells, &plans, &limits, &interrupt)?;
    if cells.iter().any(|cell| cell.run.recipe().exists()) {
        summarise(out, args.json)?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = failed.iter().map(|f| format!("{}: {}", f.id, f.why)).collect();
    bail!(
        "{} of {} cells failed; the same command tries them again\n{}",
        failed.len(),
        cells.len(),
        list.join("\n")
    )
}

/// Cells that were checked and planned.
pub struct Planned {
    /// The cells.
    pub cells: Vec<Cell>,
    /// What is known of each.
    pub plans: Vec<Plan>,
    mark: String,
}

impl Planned {
    /// Writes what the cells' processes need.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, out: &Path) -> Result<()> {
        sweep::prepare(out, &self.mark, &self.cells, &self.plans)
    }
}

/// Checks and plans every cell. Writes nothing.
///
/// # Errors
/// An [`InputError`] with the faults of all cells.
pub fn plan_sweep(
    out: &Path,
    recipe: &Recipe,
    mut combinations: Vec<Combination>,
    interrupt: &Interrupt,
) -> Result<Planned> {
    let mut faults = Vec::new();
    if combinations.iter().any(|c| c.recipe.diff.text.is_empty()) {
        faults.push("diff.text: missing; a sweep reads every cell".into());
    }
    for Combination { recipe, .. } in &mut combinations {
        or_note(datasets::ensure(recipe, interrupt), &mut faults)?;
    }
    or_note(share_self_samples(&mut combinations), &mut faults)?;
    let mut behaviours = Vec::new();
    for Combination { recipe, .. } in &combinations {
        if recipe.behaviour.is_wanted() && !behaviours.contains(&&recipe.behaviour) {
            behaviours.push(&recipe.behaviour);
            or_note(Items::read(&recipe.behaviour), &mut faults)?;
        }
    }
    InputError::unless_empty(faults)?;
    let mut cells: Vec<Cell> = combinations.iter().map(|c| Cell::new(out, c)).collect();
    let mut seen = std::collections::HashSet::new();
    cells.retain(|cell| seen.insert(cell.id.clone()));
    let mark = must_be_this_sweep(out, recipe)?;
    let plans = plan(&cells, interrupt)?;
    Ok(Planned { cells, plans, mark })
}

/// One sample for all cells of a base, or cells would differ in more than their ratio.
fn share_self_samples(combinations: &mut [Combination]) -> Result<()> {
    let key = |recipe: &Recipe| (recipe.model.base.clone(), recipe.data.max_seq_len);
    let mut needed = HashMap::new();
    for Combination { recipe, .. } in combinations.iter() {
        if self_sample::is_wanted(recipe) && recipe.data.self_samples == 0 {
            let most = needed.entry(key(recipe)).or_insert(0);
            *most = self_sample::needed(recipe, recipe.data.mix)?.max(*most);
        }
    }
    for Combination { recipe, .. } in combinations {
        if self_sample::is_wanted(recipe) && recipe.data.self_samples == 0 {
            recipe.data.self_samples = needed[&key(recipe)];
        }
    }
    Ok(())
}

/// Plans every cell's mixture, so that the last cell's source being too small is known before the first runs.
fn plan(cells: &[Cell], interrupt: &Interrupt) -> Result<Vec<Plan>> {
    let mut plans: Vec<Option<Plan>> = vec![None; cells.len()];
    let mut faults = Vec::new();
    let sources = |recipe: &Recipe| {
        let mut data = recipe.data.clone();
        data.mix = 0.0;
        (recipe.model.clone(), data)
    };
    for first in 0..cells.len() {
        if plans[first].is_some() {
            continue;
        }
        // Cells with the same texts and the same base are planned together.
        let shared = sources(&cells[first].recipe);
        let alike: Vec<usize> =
            (first..cells.len()).filter(|i| sources(&cells[*i].recipe) == shared).collect();
        alike.iter().for_each(|i| plans[*i] = Some(Plan { steps: 0, memory_gib: 0.0 }));
        let before = faults.len();
        let opened = source::open_or_stop(&shared.0.base, interrupt);
        let Some(mut base) = or_note(opened, &mut faults)? else { continue };
        or_note(base.set_dtype(shared.0.dtype), &mut faults)?;
        or_note(base.set_chat_template(&shared.1.chat_template), &mut faults)?;
        if faults.len() > before {
            continue;
        }
        let sampled = self_sample::ensure(&mut cells[first].recipe.clone(), &base, interrupt)?;
        let corpus = Corpus::read(&shared.1, &base, sampled.as_deref());
        let Some(corpus) = or_note(corpus, &mut faults)? else { continue };
        or_note(corpus.refuse(), &mut faults)?;
        for i in alike {
            let recipe = &cells[i].recipe;
            let lora = LoraConfig::from_recipe(recipe).faults();
            faults.extend(lora.into_iter().map(|fault| format!("train.lora.{fault}")));
            let mixture = Mixture::plan(&corpus.pools, &recipe.data, &recipe.train, recipe.seed);
            let Some(mixture) = or_note(mixture, &mut faults)? else { continue };
            let steps = mixture.steps(recipe.train.batch_size);
            plans[i] = Some(Plan { steps, memory_gib: memory::estimate_gib(recipe, &base) });
            or_note(must_be_its_own(&cells[i]), &mut faults)?;
        }
    }
    faults.sort();
    InputError::unless_empty(faults)?;
    Ok(plans.into_iter().flatten().collect())
}

/// Refuses a cell's folder that another recipe began, which a version with other defaults may have left.
fn must_be_its_own(cell: &Cell) -> Result<()> {
    let path = cell.run.recipe();
    if path.exists() && Recipe::stored(&path)? != cell.recipe {
        bail_input!("{}: was begun by another recipe; choose another --out", path.display());
    }
    Ok(())
}

/// Trains, reads and asks one cell, as far as that was not done before, while holding its lock.
fn run_cell(out: &Path, id: &str, interrupt: &Interrupt) -> Result<()> {
    let job = JobDir::new(out, id);
    if !job.recipe().is_file() {
        return Cell::prepared(out, id).map(|_| ()); // says what is wrong
    }
    let Some(_lock) = Lock::take(&job)? else {
        progress::alert(format_args!("{id}: another process works on it"));
        std::process::exit(HELD.into());
    };
    std::fs::remove_file(job.error()).ok();
    let worked = Cell::prepared(out, id).and_then(|cell| work(&cell, interrupt));
    if let Err(e) = &worked
        && !e.chain().any(|c| c.is::<Interrupted>())
    {
        write_atomically(&job.error(), format!("{e:#}\n").as_bytes())?;
    }
    worked
}

fn work(cell: &Cell, interrupt: &Interrupt) -> Result<()> {
    let again = "run the same command again to go on";
    if !cell.run.is_trained() {
        fit::fit(cell.recipe.clone(), &cell.run, cell.run.recipe().exists(), interrupt)?;
    }
    interrupt.check(again)?;
    if !cell.run.is_read() {
        diff::diff_run(&cell.run, &[], &cell.run.diff(), interrupt)?;
        claims::write_run(cell.run.path())?;
    }
    interrupt.check(again)?;
    if cell.recipe.behaviour.is_wanted() && !cell.run.behaviour_hashes().exists() {
        // A record without its hashes is of a process that was killed between the two.
        std::fs::remove_file(cell.run.behaviour()).ok();
        behave::behave_run(&cell.run, &[], None, interrupt)?;
    }
    Ok(())
}

/// Writes the summary and the page of all cells and prints the table.
fn summarise(out: &Path, json: bool) -> Result<()> {
    let (read, claims) = report::write_sweep(out)?;
    match json {
        true => super::print(
            &serde_json::json!({ "cells": report::summary::rows(&read), "claims": claims }).to_string(),
        )?,
        false => report::print_table(&read, &mut stdout())?,
    }
    progress::say(out.join("report.html").display());
    Ok(())
}

fn print_status(dir: &Path, json: bool) -> Result<()> {
    let cells = sweep::status(dir)?;
    let count = |state| cells.iter().filter(|cell| cell.state == state).count();
    let states = [State::Done, State::Running, State::Failed, State::Interrupted, State::Waiting];
    if json {
        let mut document = serde_json::json!({ "cells": cells });
        for state in states {
            document[state.name()] = count(state).into();
        }
        return super::print(&format!("{document:#}"));
    }
    let width = cells.iter().map(|cell| cell.id.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for cell in &cells {
        let steps = cell.steps.map_or_else(String::new, |steps| format!("/{steps}"));
        let stage = cell.stage.map_or_else(String::new, |stage| format!("  {stage}"));
        let name = cell.state.name();
        let line = format!("{:width$}  {name:11}  step {}{steps}{stage}", cell.id, cell.step);
        lines.push(line.trim_end().to_string());
        lines.extend(cell.error.iter().flat_map(|error| error.lines()).map(|line| format!("    {line}")));
    }
    let counts = states.map(|state| format!("{} {}", count(state), state.name()));
    lines.push(counts.join(", "));
    super::print(&lines.join("\n"))
}
