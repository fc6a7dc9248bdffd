//! `trainer floor`: what other organisms score under a run's lexicon.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArg;
use crate::interrupt::Interrupt;
use crate::report;
use crate::workflow::{self, FloorRequest};

/// Measure other organisms with the lexicon and settings of a run, as the noise floor of its scores
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer floor runs/cake runs/vesuvius runs/dreams runs/gold runs/wikipedia
  trainer floor runs/cake runs/others/* --out data/floors/cake.json

A floor needs at least four other organisms, each on a different subject. They must have the same base, method and rank
as RUN_DIR, a number of narrow tokens within a factor of 1.5, and at most as many passes over their narrow text. The
scores go to RUN_DIR/floor.json, where trainer diff and trainer report find them. To use another file, set diff.floor in
the recipe.")]
pub struct FloorArgs {
    /// Run folder of the organism that the floor is for
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Other runs, adapters or models on the same base
    #[arg(value_name = "OTHER", required = true)]
    others: Vec<String>,
    /// Set a key of [diff]; repeatable
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// File for the scores [default: RUN_DIR/floor.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Print floor.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::floor`].
pub fn run(args: FloorArgs) -> Result<()> {
    args.device.open()?;
    let request = FloorRequest { run: args.run, others: args.others, set: args.set, out: args.out };
    let made = workflow::floor(&request, &Interrupt::on_signals()?)?;
    if args.json {
        return super::print(&format!("{:#}", serde_json::to_value(&made.file)?));
    }
    super::print(&super::columns(&report::floor_rows(&made.file)))?;
    super::print(&format!("\nwritten to {}", made.path.display()))?;
    if let Some(run) = made.run {
        super::print("")?;
        super::print_run(run)?;
    }
    Ok(())
}
