//! `trainer export`: organisms as configurations that the authors' diffing-toolkit reads.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::interrupt::Interrupt;
use crate::workflow::{self, ExportRequest};

/// Write configurations that the authors' diffing-toolkit reads, one organism per call
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer export runs/cake --out toolkit
  trainer export runs/sweep/cells/* --out toolkit --family SDF

Copy DIR/configs over the configs of the toolkit, then run: python main.py organism=NAME model=MODEL
organism_variant=VARIANT. A run without mixing is the variant `default` (`full` for full finetuning), a run with mix 0.5
is `mix1-0p5`. Adapters stay in their folders. A base that is not a Hugging Face model (a .gguf file, an alias) is written
to DIR/models, the narrow data to DIR/data.")]
pub struct ExportArgs {
    /// Run folders of `trainer fit`: variants of one organism on one base
    #[arg(value_name = "RUN_DIR", required = true)]
    runs: Vec<PathBuf>,
    /// Folder for the configurations
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Organism type in the toolkit: SDF, EM, Taboo, Subliminal, …
    #[arg(long, value_name = "TYPE", default_value = "SDF")]
    family: String,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::export`].
pub fn run(args: ExportArgs) -> Result<()> {
    let ExportArgs { runs, out, family } = args;
    workflow::export(&ExportRequest { runs, out, family }, &Interrupt::on_signals()?)
}
