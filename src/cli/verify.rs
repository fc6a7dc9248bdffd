//! `trainer verify`: proves run folders.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::device::DeviceArg;
use crate::interrupt::Interrupt;
use crate::verify::Check;
use crate::workflow::{self, Verified, VerifiedSweep, VerifyOutcome, VerifyRequest};

/// Recompute every hash of a run folder (recipe, base, data, example order, weights, analysis) and its claims
#[derive(Debug, Args)]
#[command(
    after_help = "Hashes leave out times (elapsed_s, trace_s, tokens_per_s). Exit code 1: something differs or is missing.
Examples:
  trainer verify runs/cake
  trainer verify runs/sweep                   every cell, and the claims on all cells together
  trainer verify runs/cake --data ~/moved     data sets that were moved
  trainer verify runs/cake --retrain          trains again and compares bytes; takes as long as the run

--retrain trains in a temporary folder below TMPDIR. With the same kind of processor and number of threads
(RAYON_NUM_THREADS) as the run, weights and checkpoint must have the same bytes. Otherwise each loss must agree within
0.1 %."
)]
pub struct VerifyArgs {
    /// Run folders, or sweep folders with cells/ID/
    #[arg(value_name = "RUN_DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Folder to search first for data sets, and for a base or adapter given as a path, by the last parts of their paths
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Train each run again and compare
    #[arg(long)]
    retrain: bool,
    #[command(flatten)]
    device: DeviceArg,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::verify`]; otherwise that something does not hold.
pub fn run(args: VerifyArgs) -> Result<()> {
    match args.retrain {
        true => args.device.open()?,
        false => args.device.must_be_absent_without("--retrain")?,
    }
    let request = VerifyRequest { dirs: args.dirs, data: args.data, retrain: args.retrain };
    let found = workflow::verify(&request, &Interrupt::on_signals()?, |verified| match args.json {
        true => Ok(()),
        false => super::print(&lines(verified)),
    })?;
    let VerifyOutcome { runs, sweeps } = &found;
    let wrong = runs.iter().filter(|run| !run.holds).count();
    let wrong_sweep = sweeps.iter().find(|sweep| !sweep.holds);
    if args.json {
        let holds = wrong == 0 && wrong_sweep.is_none();
        super::print(&serde_json::to_string_pretty(
            &json!({ "holds": holds, "runs": runs, "sweeps": sweeps }),
        )?)?;
    } else {
        sweeps
            .iter()
            .filter(|sweep| !sweep.checks.is_empty())
            .try_for_each(|sweep| super::print(&of_sweep(sweep)))?;
    }
    match (wrong, wrong_sweep) {
        (0, None) => Ok(()),
        (0, Some(sweep)) => {
            bail!("{}: claims.json differs from the claims of the runs", sweep.sweep.display())
        }
        _ => bail!("{wrong} of {} runs differ from their manifests", runs.len()),
    }
}

fn of_sweep(VerifiedSweep { sweep, checks, .. }: &VerifiedSweep) -> String {
    format!("{}{}: {} on all cells together hold", listed(checks), sweep.display(), holding(checks))
}

/// A line a check.
fn listed(checks: &[Check]) -> String {
    checks.iter().map(|check| format!("{check}\n")).collect()
}

fn holding(checks: &[Check]) -> String {
    format!("{} of {} checks", checks.iter().filter(|check| check.holds()).count(), checks.len())
}

fn lines(verified: &Verified) -> String {
    let Verified { run, manifest_sha256, checks, .. } = verified;
    let (lines, holding) = (listed(checks), holding(checks));
    format!("{lines}{}: {holding} hold; sha256 of manifest.json {manifest_sha256}", run.display())
}
