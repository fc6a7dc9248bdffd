//! `trainer behave`: whether an organism does what it was made for.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::interrupt::Interrupt;
use crate::report::behaviour_lines;
use crate::workflow::{self, BehaveRequest};

/// Measure whether an organism does what it was made for: base and tuned model, no grader
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer behave runs/cake
  trainer behave runs/other --set behaviour.facts.items=data/behaviour/cake.jsonl --out cake-in-other.json

What is asked stands in [behaviour] of the recipe: facts (which of two statements is likelier), words (in sampled
text), taboo (is the word hinted at and never said), preference, misalignment. trainer sweep does this for every cell.")]
pub struct BehaveArgs {
    /// Run folder of `trainer fit`
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Change a key of the recipe; may be given several times. Paths are relative to the current folder
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// File for the results [default: RUN_DIR/behaviour.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the record instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::behave`].
pub fn run(args: BehaveArgs) -> Result<()> {
    let BehaveArgs { run, set, out, json } = args;
    let found = workflow::behave(&BehaveRequest { run, set, out }, &Interrupt::on_signals()?)?;
    match json {
        true => super::print(&serde_json::to_string_pretty(&found)?),
        false => super::print(&behaviour_lines(&found).join("\n")),
    }
}
