//! `trainer sweep`: the same organism with other values of some keys, trained, read and compared.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::device::DeviceArg;
use crate::bail_input;
use crate::claims::{AcrossRuns, ClaimedRun};
use crate::interrupt::Interrupt;
use crate::progress;
use crate::report;
use crate::sweep::{HELD, State};
use crate::workflow::{
    self, AxesRequest, CellOutcome, CellRequest, LimitsRequest, Runner, SweepOutcome, SweepRequest,
};

/// Train and measure an organism at several values of any keys; finished cells are skipped
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer sweep recipes/sdf-cake.toml --mix 0,0.1,0.5,1 --seeds 0,1,2 --out runs/cake-sweep
  trainer sweep recipes/sdf-cake.toml --grid train.lora.r=4,32 --grid train.lr=1e-4,3e-4 --jobs 2 --out runs/rank
  trainer sweep --status runs/rank                      progress of the cells; --json for scripts
  trainer sweep recipes/sdf-cake.toml --mix 0,1 --launcher slurm --sbatch=--partition=cpu --out runs/cluster

A recipe may contain the axes instead: [sweep] mix = [0, 1], seeds = [0, 1], grid = { \"train.lora.r\" = [4, 32] }.
With [train.match] in the recipe, cells are compared at equal behaviour instead of equal exposure.
Each cell runs in its own process (trainer sweep --cell ID --out DIR). These processes end if the sweep is killed.
Rerun the command to resume; cells that failed are tried again.")]
pub struct SweepArgs {
    /// Recipe file (TOML)
    #[arg(required_unless_present_any = ["status", "summary", "cell"])]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    axes: AxesArgs,
    #[command(flatten)]
    limits: LimitsArgs,
    /// Set a key of the recipe; repeatable. Paths are relative to the current folder, those in a recipe to the recipe
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Sweep folder
    #[arg(long, value_name = "DIR", required_unless_present_any = ["status", "summary"])]
    out: Option<PathBuf>,
    /// Where the cells run: on this machine, or on a cluster, for which job scripts are written
    #[arg(long, value_name = "NAME", default_value = "local")]
    launcher: Launcher,
    /// Option for sbatch in every job, with --launcher slurm; repeatable
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    sbatch: Vec<String>,
    /// Show the progress of each cell of a sweep folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["recipe", "out", "summary", "cell", "device"])]
    status: Option<PathBuf>,
    /// Rewrite summary and report of a sweep folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["recipe", "out", "cell", "device"])]
    summary: Option<PathBuf>,
    /// Run one cell that a sweep has prepared
    #[arg(long, value_name = "ID", conflicts_with = "recipe")]
    cell: Option<String>,
    /// Stop when stdin closes, that is, when the parent process has ended
    #[arg(long, hide = true, requires = "cell")]
    with_parent: bool,
    #[command(flatten)]
    device: DeviceArg,
    /// Print the summary, or the status, as JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// What varies.
#[derive(Debug, Args)]
pub struct AxesArgs {
    /// Mix ratios, pretraining per narrow [default: that of the recipe]
    #[arg(long, value_name = "R,R,...", value_delimiter = ',')]
    mix: Vec<f64>,
    /// Seeds [default: that of the recipe]
    #[arg(long, value_name = "S,S,...", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Values of another key, in the syntax of --set; repeatable
    #[arg(long, value_name = "KEY.PATH=V,V,...")]
    grid: Vec<String>,
}

impl From<AxesArgs> for AxesRequest {
    fn from(args: AxesArgs) -> Self {
        Self { mix: args.mix, seeds: args.seeds, grid: args.grid }
    }
}

/// How many cells at once.
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// Cells to run in parallel [default: 1 on this machine, no limit on a cluster]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    jobs: Option<u64>,
    /// Memory limit for all cells together, in GiB [default: the free memory]
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
    /// Threads per cell [default: threads of the machine divided by --jobs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: Option<u64>,
    /// Number of immediate retries of a failed cell
    #[arg(long, value_name = "N", default_value_t = 0)]
    retry: usize,
}

impl From<LimitsArgs> for LimitsRequest {
    fn from(args: LimitsArgs) -> Self {
        Self {
            jobs: args.jobs.map(|jobs| jobs as usize),
            memory_gib: args.memory,
            threads: args.threads.map(|threads| threads as usize),
            retry: args.retry,
        }
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
/// As [`workflow::sweep`].
pub fn run(args: SweepArgs) -> Result<()> {
    if let Some(dir) = &args.status {
        return print_status(dir, args.json);
    }
    if let Some(dir) = &args.summary {
        return print_summary(dir, &workflow::summarise(dir)?, args.json);
    }
    let Some(out) = args.out else { bail_input!("--out: missing") };
    let interrupt = Interrupt::on_signals()?;
    if let Some(id) = args.cell {
        args.device.open()?;
        let request = CellRequest { sweep: out, id, with_parent: args.with_parent };
        return match workflow::sweep_cell(&request, &interrupt)? {
            CellOutcome::Finished => Ok(()),
            CellOutcome::Held => std::process::exit(HELD.into()),
        };
    }
    let Some(recipe) = args.recipe else { bail_input!("expected a recipe") };
    let runner = match args.launcher {
        Launcher::Slurm => Runner::Slurm { sbatch: args.sbatch },
        Launcher::Local if args.sbatch.is_empty() => Runner::Processes,
        Launcher::Local => bail_input!("--sbatch: expected --launcher slurm too"),
    };
    args.device.pass_on(runner == Runner::Processes)?;
    let (axes, limits) = (args.axes.into(), args.limits.into());
    let request = SweepRequest { recipe, set: args.set, axes, limits, runner, out };
    match workflow::sweep(&request, &interrupt)? {
        SweepOutcome::Submit(script) => super::print(&format!("bash {}", script.display())),
        SweepOutcome::Ran(result) => {
            if let Some(cells) = &result.cells {
                print_summary(&request.out, cells, args.json)?;
            }
            result.must_be_whole()
        }
    }
}

/// Prints the table of all cells.
fn print_summary(out: &Path, (cells, claims): &(Vec<ClaimedRun>, AcrossRuns), json: bool) -> Result<()> {
    match json {
        true => super::print(
            &serde_json::json!({ "cells": report::summary::rows(cells), "claims": claims }).to_string(),
        )?,
        false => super::print_runs(cells, claims)?,
    }
    progress::say(out.join("report.html").display());
    Ok(())
}

fn print_status(dir: &Path, json: bool) -> Result<()> {
    let cells = workflow::status(dir)?;
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
