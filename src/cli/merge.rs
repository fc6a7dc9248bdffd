//! `trainer merge`: an adapter folded into its base, as a folder that transformers reads.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::workflow::{self, MergeRequest};

/// Merge a run's adapter into its base model and write the result as a Hugging Face folder
#[derive(Debug, Args)]
#[command(after_help = "Example:
  trainer merge runs/cake --out merged/cake")]
pub struct MergeArgs {
    /// Run folder of `trainer fit`
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Folder for the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::merge`].
pub fn run(args: MergeArgs) -> Result<()> {
    workflow::merge(&MergeRequest { run: args.run, out: args.out })
}
