//! Sweeps: cells planned together, each trained, read and asked, and compared.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::analysis::check_floor;
use super::behave::{BehaveRequest, behave};
use super::diff::read_run;
use super::fit::fit_into;
use super::resolve::{Purpose, resolve};
use super::self_sample;
use crate::atomic::write_atomically;
use crate::bail_input;
use crate::behaviour::Items;
use crate::behaviour::matching::MatchedItems;
use crate::claims::{self, AcrossRuns, ClaimedRun};
use crate::corpus::Corpus;
use crate::corpus::measured::MeasuredText;
use crate::data::mixture::Mixture;
use crate::diff::hashes::{self, Hashes};
use crate::error::{InputError, Interrupted, or_collect};
use crate::interrupt::Interrupt;
use crate::model::load::source::{self, Pretrained};
use crate::model::lora::LoraConfig;
use crate::progress;
use crate::recipe::{Recipe, ResolvedRecipe, SweepSection};
use crate::report;
use crate::run::RunDir;
use crate::sha256::sha256_path;
pub use crate::sweep::status;
use crate::sweep::{
    self, Axes, Cell, CellPlan, Combination, Failed, JobDir, Limits, Lock, Slurm, memory, must_be_this_sweep,
    prepared, stop_with_parent, write_slurm,
};
use crate::train::manifest::Manifest;

/// What to vary, and where.
#[derive(Debug, Clone)]
pub struct SweepRequest {
    /// The recipe's file; its `[sweep]` may name axes too.
    pub recipe: PathBuf,
    /// Overrides of its keys, each `key.path=value`.
    pub set: Vec<String>,
    /// What varies.
    pub axes: AxesRequest,
    /// How many cells at once.
    pub limits: LimitsRequest,
    /// What runs them.
    pub runner: Runner,
    /// The sweep folder.
    pub out: PathBuf,
}

/// What varies, beside what the recipe's `[sweep]` says.
#[derive(Debug, Clone, Default)]
pub struct AxesRequest {
    /// Mix ratios.
    pub mix: Vec<f64>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Further keys, each `KEY.PATH=V,V,…`.
    pub grid: Vec<String>,
}

/// How many cells at once.
#[derive(Debug, Clone, Default)]
pub struct LimitsRequest {
    /// Cells at once; `None`: one on this machine, and as many as a cluster gives.
    pub jobs: Option<usize>,
    /// Memory that they may take together, in GiB; `None`: what is free.
    pub memory_gib: Option<f64>,
    /// Threads of each cell; `None`: the machine's, divided by `jobs`.
    pub threads: Option<usize>,
    /// How many times more a cell that fails is tried.
    pub retry: usize,
}

/// What runs the cells of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runner {
    /// A process for each, of the program that is running: `trainer sweep --cell ID --out DIR`. A cell that runs out of
    /// memory then takes no other one with it. Another program than `trainer` knows no such command.
    Processes,
    /// This process, one cell after the other: what a program that uses the library can do. `jobs` and `threads` have no
    /// effect.
    InProcess,
    /// A cluster: only the jobs are written.
    Slurm {
        /// Further options of `sbatch`.
        sbatch: Vec<String>,
    },
}

/// What became of a sweep.
#[derive(Debug)]
pub enum SweepOutcome {
    /// The script that hands the cells to the scheduler.
    Submit(PathBuf),
    /// The cells ran.
    Ran(Box<SweepResult>),
}

/// Cells that ran.
#[derive(Debug)]
pub struct SweepResult {
    /// What was measured, as a report reads it, and the claims on all cells; absent where no cell was begun.
    pub cells: Option<(Vec<ClaimedRun>, AcrossRuns)>,
    /// Number of cells.
    pub planned: usize,
    /// Those that failed.
    pub failed: Vec<Failed>,
}

impl SweepResult {
    /// Refuses a sweep of which a cell failed.
    ///
    /// # Errors
    /// With the reason of each.
    pub fn must_be_whole(&self) -> Result<()> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = self.failed.iter().map(|f| format!("{}: {}", f.id, f.why)).collect();
        bail!(
            "{} of {} cells failed; rerun the command to try them again\n{}",
            self.failed.len(),
            self.planned,
            list.join("\n")
        )
    }
}

/// One cell that a sweep has prepared.
#[derive(Debug, Clone)]
pub struct CellRequest {
    /// The sweep folder.
    pub sweep: PathBuf,
    /// Name of the cell.
    pub id: String,
    /// Whether to stop when stdin closes, as the process that started this one does when it goes.
    pub with_parent: bool,
}

/// What became of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellOutcome {
    /// Nothing is left to do.
    Finished,
    /// Another process works on it.
    Held,
}

/// Trains, reads and asks every combination of the axes' values; finished cells are skipped. Writes summary and report.
///
/// # Errors
/// An [`InputError`] before any work if a cell's recipe is wrong or the folder holds another sweep; [`Interrupted`]. Cells
/// that fail are in the result. What is finished stays finished.
pub fn sweep(request: &SweepRequest, interrupt: &Interrupt) -> Result<SweepOutcome> {
    let SweepRequest { recipe: path, set, out, .. } = request;
    let mut faults = Vec::new();
    let recipe = or_collect(Recipe::read(path, set), &mut faults)?;
    let axes = or_collect(request.axes.read(path), &mut faults)?;
    let combinations = match axes {
        Some(axes) => or_collect(axes.combinations(path, set), &mut faults)?,
        None => None,
    };
    let (Some(recipe), Some(combinations)) = (recipe, combinations) else {
        return Err(InputError::of(faults));
    };
    let planned = plan_sweep(out, &recipe, combinations, interrupt)?;
    if let Runner::Slurm { sbatch } = &request.runner {
        let threads = request.limits.threads.unwrap_or_else(rayon::current_num_threads);
        let name = if recipe.name.is_empty() { "sweep".into() } else { recipe.name.clone() };
        let slurm = Slurm { name, jobs: request.limits.jobs, threads, options: sbatch.clone() };
        planned.write(out)?;
        let submit = write_slurm(out, &planned.cells, &planned.plans, &slurm)?;
        progress::say(format_args!("{} cells; submit them with:", planned.cells.len()));
        return Ok(SweepOutcome::Submit(submit));
    }
    let failed = planned.run(out, &request.limits, &request.runner, interrupt)?;
    let is_begun = planned.cells.iter().any(|cell| cell.run.recipe().exists());
    let cells = is_begun.then(|| summarise(out)).transpose()?;
    Ok(SweepOutcome::Ran(Box::new(SweepResult { cells, planned: planned.cells.len(), failed })))
}

/// Writes claims, summary and report of a sweep folder, and gives its cells and the claims on all of them.
///
/// # Errors
/// An [`InputError`] if it holds no cell that can be read.
pub fn summarise(sweep: &Path) -> Result<(Vec<ClaimedRun>, AcrossRuns)> {
    report::write_sweep(sweep)
}

/// Trains, reads and asks one cell, as far as that was not done before, while holding its lock.
///
/// # Errors
/// An [`InputError`] if no sweep has prepared it; [`Interrupted`]; or what went wrong, which is written beside the cell.
pub fn sweep_cell(request: &CellRequest, interrupt: &Interrupt) -> Result<CellOutcome> {
    if request.with_parent {
        stop_with_parent(interrupt);
    }
    let CellRequest { sweep, id, .. } = request;
    let job = JobDir::new(sweep, id);
    if !job.recipe().is_file() {
        return prepared(sweep, id).map(|_| CellOutcome::Finished); // says what is wrong
    }
    let Some(_lock) = Lock::take(&job)? else {
        progress::alert(format_args!("{id}: another process works on it"));
        return Ok(CellOutcome::Held);
    };
    std::fs::remove_file(job.error()).ok();
    let worked = prepared(sweep, id).and_then(|(run, recipe)| work(&run, recipe, interrupt));
    if let Err(e) = &worked
        && !is_interrupt(e)
    {
        write_atomically(&job.error(), format!("{e:#}\n").as_bytes())?;
    }
    worked.map(|()| CellOutcome::Finished)
}

fn is_interrupt(e: &anyhow::Error) -> bool {
    e.chain().any(|c| c.is::<Interrupted>())
}

fn work(run: &RunDir, recipe: Recipe, interrupt: &Interrupt) -> Result<()> {
    let again = "rerun the command to resume";
    let asks = recipe.behaviour.is_wanted();
    if !run.is_trained() {
        fit_into(recipe, run, run.recipe().exists(), interrupt)?;
    }
    interrupt.check(again)?;
    if !run.is_read() {
        read_run(run, &[], &run.diff(), interrupt)?;
        claims::write_run(run.path())?;
    }
    interrupt.check(again)?;
    if asks && !run.behaviour_hashes().exists() {
        // A record without its hashes is of a process that was killed between the two.
        std::fs::remove_file(run.behaviour()).ok();
        behave(&BehaveRequest { run: run.path().into(), ..Default::default() }, interrupt)?;
    }
    Ok(())
}

impl AxesRequest {
    /// The axes, with those that the recipe names.
    ///
    /// # Errors
    /// An [`InputError`] with the faults of the flags and of the recipe's `[sweep]`.
    pub(super) fn read(&self, recipe: &Path) -> Result<Axes> {
        let mut faults = Vec::new();
        let section = or_collect(SweepSection::read(recipe), &mut faults)?;
        let has_flags = !(self.mix.is_empty() && self.seeds.is_empty() && self.grid.is_empty());
        let mut axes = Axes::default();
        // Without flags, a section that cannot be read leaves nothing to say of the axes.
        if section.is_some() || has_flags {
            let read = Axes::new(&section.unwrap_or_default(), &self.mix, &self.seeds, &self.grid);
            axes = or_collect(read, &mut faults)?.unwrap_or_default();
        }
        InputError::unless_empty(faults)?;
        Ok(axes)
    }
}

impl LimitsRequest {
    /// The limits for some cells; they are said.
    ///
    /// # Errors
    /// An [`InputError`] if a cell alone takes more memory than `--memory`.
    pub(super) fn resolve(&self, plans: &[CellPlan]) -> Result<Limits> {
        let largest = plans.iter().map(|plan| plan.memory_gib).fold(0.0, f64::max);
        let jobs = self.jobs.unwrap_or(1).max(1);
        let threads = self.threads.unwrap_or_else(|| (rayon::current_num_threads() / jobs).max(1));
        if let Some(given) = self.memory_gib
            && (given.is_nan() || given < largest)
        {
            bail_input!(
                "--memory {given}: the largest cell takes about {largest:.1} GiB (estimated); expected at least that"
            );
        }
        let memory_gib = self.memory_gib.or_else(memory::available_gib).unwrap_or(f64::INFINITY);
        progress::say(format_args!(
            "{} cells, at most {jobs} at once, {threads} threads each; the largest takes about {largest:.1} of \
             {memory_gib:.1} GiB (estimated from parameters, method and tokens of a step)",
            plans.len()
        ));
        Ok(Limits { jobs, threads, memory_gib, retry: self.retry })
    }
}

/// Cells that were checked and planned.
pub(super) struct Planned {
    /// The cells, each once.
    pub cells: Vec<Cell>,
    /// Of every combination, the place of its cell.
    pub of: Vec<usize>,
    /// What is known of each.
    pub plans: Vec<CellPlan>,
    mark: String,
}

impl Planned {
    /// Writes what the cells need, and runs those that are not finished; gives those that failed.
    ///
    /// # Errors
    /// An [`InputError`] if a cell alone takes more memory than is allowed; [`Interrupted`].
    pub(super) fn run(
        &self,
        out: &Path,
        limits: &LimitsRequest,
        runner: &Runner,
        interrupt: &Interrupt,
    ) -> Result<Vec<Failed>> {
        let limits = limits.resolve(&self.plans)?;
        self.write(out)?;
        match runner {
            Runner::InProcess => run_here(out, &self.cells, &limits, interrupt),
            Runner::Processes => sweep::run(out, &self.cells, &self.plans, &limits, interrupt),
            Runner::Slurm { .. } => bail_input!("cells that wait for a scheduler cannot be run here"),
        }
    }

    /// Writes what the cells' processes need.
    ///
    /// # Errors
    /// If the folder cannot be written.
    fn write(&self, out: &Path) -> Result<()> {
        sweep::prepare(out, &self.mark, &self.cells, &self.plans)
    }
}

/// Checks and plans every cell. Writes nothing.
///
/// # Errors
/// An [`InputError`] with the faults of all cells.
pub(super) fn plan_sweep(
    out: &Path,
    recipe: &Recipe,
    combinations: Vec<Combination>,
    interrupt: &Interrupt,
) -> Result<Planned> {
    let mut faults = Vec::new();
    if combinations.iter().any(|c| c.recipe.diff.text.is_empty()) {
        faults.push("diff.text: missing; a sweep reads every cell".into());
    }
    let shared = or_collect(shared_self_samples(&combinations), &mut faults)?.unwrap_or_default();
    let mut cells: Vec<Cell> = Vec::new();
    for Combination { mut recipe, values } in combinations {
        if leaves_self_open(&recipe) {
            recipe.data.self_samples = shared.get(&sampled_from(&recipe)).copied().unwrap_or_default();
        }
        let Some(resolved) = or_collect(resolve(recipe, Purpose::Training, interrupt), &mut faults)? else {
            continue;
        };
        cells.push(Cell::new(out, resolved, &values));
    }
    let mut behaviours = Vec::new();
    for Cell { recipe, .. } in &cells {
        if recipe.behaviour.is_wanted() && !behaviours.contains(&&recipe.behaviour) {
            behaviours.push(&recipe.behaviour);
            or_collect(Items::read(&recipe.behaviour), &mut faults)?;
        }
    }
    for Cell { recipe, .. } in &cells {
        if recipe.train.matching.is_on() {
            or_collect(MatchedItems::read(&recipe.behaviour, &recipe.train.matching.measure), &mut faults)?;
        }
    }
    InputError::unless_empty(faults)?;
    // A value counts once however it is spelled, and a file by whatever path.
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut of = Vec::with_capacity(cells.len());
    cells.retain(|cell| {
        let next = places.len();
        let place = *places.entry(sweep::identity(&cell.recipe)).or_insert(next);
        of.push(place);
        place == next
    });
    let mark = must_be_this_sweep(out, recipe)?;
    let plans = plan(&cells, interrupt)?;
    Ok(Planned { cells, of, plans, mark })
}

/// Whether the size of `"self"` is still to be decided.
fn leaves_self_open(recipe: &Recipe) -> bool {
    self_sample::is_wanted(recipe) && recipe.data.self_samples == 0
}

/// What decides the documents of `"self"` but for their number.
fn sampled_from(recipe: &Recipe) -> (String, usize) {
    (recipe.model.base.clone(), recipe.data.max_seq_len)
}

/// One sample for all cells of a base, or cells would differ in more than their ratio: the largest that one needs.
fn shared_self_samples(combinations: &[Combination]) -> Result<HashMap<(String, usize), usize>> {
    let mut needed = HashMap::new();
    for Combination { recipe, .. } in combinations.iter().filter(|c| leaves_self_open(&c.recipe)) {
        let most = needed.entry(sampled_from(recipe)).or_insert(0);
        *most = self_sample::needed(recipe, recipe.data.mix)?.max(*most);
    }
    Ok(needed)
}

/// Plans every cell's mixture, so that the last cell's source being too small is known before the first runs.
fn plan(cells: &[Cell], interrupt: &Interrupt) -> Result<Vec<CellPlan>> {
    let mut plans: Vec<Option<CellPlan>> = vec![None; cells.len()];
    let mut faults = Vec::new();
    let sources = |recipe: &ResolvedRecipe| {
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
        alike.iter().for_each(|i| plans[*i] = Some(CellPlan { steps: 0, memory_gib: 0.0 }));
        let before = faults.len();
        let opened = source::open_or_stop(&shared.0.base, interrupt);
        let Some(mut base) = or_collect(opened, &mut faults)? else { continue };
        or_collect(base.set_dtype(shared.0.dtype), &mut faults)?;
        or_collect(base.set_chat_template(&shared.1.chat_template), &mut faults)?;
        if faults.len() > before {
            continue;
        }
        let sampled = self_sample::ensure(&cells[first].recipe, &base, interrupt)?;
        let corpus = Corpus::read(&cells[first].recipe, &base, sampled.as_deref());
        let Some(corpus) = or_collect(corpus, &mut faults)? else { continue };
        or_collect(corpus.refuse(), &mut faults)?;
        let (mut measured, mut compared) = (Vec::new(), Vec::new());
        for i in alike {
            let recipe = &cells[i].recipe;
            let lora = LoraConfig::from_recipe(recipe).faults();
            faults.extend(lora.into_iter().map(|fault| format!("train.lora.{fault}")));
            let mixture = Mixture::plan(&corpus.pools, &recipe.data, &recipe.train, recipe.seed);
            let Some(mixture) = or_collect(mixture, &mut faults)? else { continue };
            let steps = mixture.steps(recipe.train.batch_size);
            plans[i] = Some(CellPlan { steps, memory_gib: memory::estimate_gib(recipe, &base) });
            or_collect(must_be_its_own(&cells[i]), &mut faults)?;
            faults.extend(changed_data(&cells[i], &corpus, &base)?);
            if !measured.contains(&&recipe.diff.text) {
                measured.push(&recipe.diff.text);
                faults.extend(MeasuredText::of(recipe, &base)?.unfit);
            }
            if !compared.contains(&&recipe.diff) {
                compared.push(&recipe.diff);
                or_collect(check_floor(recipe, &base), &mut faults)?;
            }
        }
    }
    faults.sort();
    InputError::unless_empty(faults)?;
    Ok(plans.into_iter().flatten().collect())
}

/// Refuses a cell's folder that another recipe began, which a version with other defaults may have left.
fn must_be_its_own(cell: &Cell) -> Result<()> {
    let path = cell.run.recipe();
    if path.exists() && Recipe::stored(&path)? != *cell.recipe {
        bail_input!("{}: was started with another recipe; choose another --out", path.display());
    }
    Ok(())
}

/// What has changed since a cell was trained or read: its results are of the old files, and would be compared with those of
/// cells that have the new ones.
fn changed_data(cell: &Cell, corpus: &Corpus, base: &Pretrained) -> Result<Vec<String>> {
    let mut changed: Vec<(String, &'static str)> = Vec::new();
    if let Some(manifest) = Manifest::read(&cell.run.manifest())?.filter(|_| cell.run.is_trained()) {
        for was in manifest.data.iter().map(|source| &source.provenance) {
            let is = corpus.provenance.iter().find(|p| (p.role, &p.source) == (was.role, &was.source));
            if is.is_some_and(|is| is.sha256 != was.sha256) {
                changed.push((was.path.clone(), "trained"));
            }
        }
        for (path, was) in manifest.matched.iter().flat_map(|matched| &matched.items) {
            if Path::new(path).exists() && sha256_path(Path::new(path))? != *was {
                changed.push((path.clone(), "trained"));
            }
        }
        if manifest.base.sha256 != base.sha256 {
            changed.push((base.id.clone(), "trained"));
        }
    }
    let read = Hashes::read(&cell.run.diff().join(hashes::FILE))?.filter(|_| cell.run.is_read());
    for (path, was) in read.iter().flat_map(|read| &read.texts) {
        let is_there = Path::new(path).exists() && !changed.iter().any(|(p, _)| p == path);
        if is_there && sha256_path(Path::new(path))? != *was {
            changed.push((path.clone(), "read"));
        }
    }
    let shown = cell.run.path().display();
    let fault = |(path, done)| {
        format!(
            "{path}: has changed since {shown} was {done} with it; put it back as it was, delete that folder, or choose another \
             --out"
        )
    };
    Ok(changed.into_iter().map(fault).collect())
}

/// Works on the cells that are not finished, one after the other; gives those that failed.
fn run_here(out: &Path, cells: &[Cell], limits: &Limits, interrupt: &Interrupt) -> Result<Vec<Failed>> {
    let (total, mut failed) = (cells.len(), Vec::new());
    for (i, cell) in cells.iter().enumerate() {
        let shown = cell.run.path().display();
        if cell.is_finished() {
            progress::say(format_args!("[{}/{total}] {shown}: finished before", i + 1));
            continue;
        }
        progress::say(format_args!("[{}/{total}] {shown}", i + 1));
        let request = CellRequest { sweep: out.into(), id: cell.id.clone(), with_parent: false };
        let mut worked = sweep_cell(&request, interrupt);
        for _ in 0..limits.retry {
            if worked.as_ref().is_err_and(|e| !is_interrupt(e)) {
                worked = sweep_cell(&request, interrupt);
            }
        }
        let why = match worked {
            Ok(CellOutcome::Finished) => continue,
            Ok(CellOutcome::Held) => "another process works on it".into(),
            Err(e) if is_interrupt(&e) => return Err(e),
            Err(e) => format!("{e:#}"),
        };
        failed.push(Failed { id: cell.id.clone(), why });
    }
    Ok(failed)
}
