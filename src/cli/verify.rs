//! `trainer verify`: proves run folders.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use crate::interrupt::Interrupt;
use crate::workflow::{self, Verified, VerifyRequest};

/// Compute every hash of a run folder again: recipe, base, data, example order, weights, analysis
#[derive(Debug, Args)]
#[command(
    after_help = "Times (elapsed_s, trace_s, tokens_per_s) are no part of a hash. Exit code 1: something differs or is missing.
Examples:
  trainer verify runs/cake
  trainer verify runs/sweep                   each of its cells
  trainer verify runs/cake --data ~/moved     data sets that are no longer where they were
  trainer verify runs/cake --retrain          trains again and compares bytes; takes as long as the run did

--retrain trains in a folder below TMPDIR and removes it. On the run's kind of processor and number of threads
(RAYON_NUM_THREADS) weights and checkpoint must have the same bytes; elsewhere each loss must agree within 0.1 %."
)]
pub struct VerifyArgs {
    /// Run folders, or sweep folders with cells/ID/
    #[arg(value_name = "RUN_DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Folder to look in first for data sets, and a base or adapter given as path: by the last parts of their paths
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Train each run again and compare
    #[arg(long)]
    retrain: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::verify`]; otherwise that something does not hold.
pub fn run(args: VerifyArgs) -> Result<()> {
    let request = VerifyRequest { dirs: args.dirs, data: args.data, retrain: args.retrain };
    let verified = workflow::verify(&request, &Interrupt::on_signals()?, |verified| match args.json {
        true => Ok(()),
        false => super::print(&lines(verified)),
    })?;
    let wrong = verified.iter().filter(|run| !run.holds).count();
    if args.json {
        super::print(&serde_json::to_string_pretty(&json!({ "holds": wrong == 0, "runs": verified }))?)?;
    }
    match wrong {
        0 => Ok(()),
        _ => bail!("{wrong} of {} runs do not hold what their manifests say", verified.len()),
    }
}

fn lines(verified: &Verified) -> String {
    let Verified { run, manifest_sha256, checks, .. } = verified;
    let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
    let holding = checks.iter().filter(|check| check.holds()).count();
    format!(
        "{lines}{}: {holding} of {} checks hold; sha256 of manifest.json {manifest_sha256}",
        run.display(),
        checks.len()
    )
}
