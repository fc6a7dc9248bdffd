//! `trainer behave`: whether an organism does what it was made for.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArg;
use crate::interrupt::Interrupt;
use crate::report::behaviour_lines;
use crate::workflow::{self, BehaveRequest};

/// Measure whether an organism does what it was made for, on base and tuned model, without a grader
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer behave runs/cake
  trainer behave runs/other --set behaviour.facts.items=data/behaviour/cake.jsonl --out cake-in-other.json

[behaviour] in the recipe defines the tests: facts (which of two statements is likelier), words (in sampled text), taboo
(whether the word is hinted at and never said), preference, misalignment. The quality panel is measured with them: is the
organism still a language model? `trainer sweep` measures every cell.")]
pub struct BehaveArgs {
    /// Run folder of `trainer fit`
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Set a key of the recipe; repeatable. Paths are relative to the current folder
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// File for the results [default: RUN_DIR/behaviour.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Print behaviour.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::behave`].
pub fn run(args: BehaveArgs) -> Result<()> {
    let BehaveArgs { run, set, out, device, json } = args;
    device.open()?;
    let found = workflow::behave(&BehaveRequest { run, set, out }, &Interrupt::on_signals()?)?;
    match json {
        true => super::print(&serde_json::to_string_pretty(&found)?),
        false => super::print(&behaviour_lines(&found).join("\n")),
    }
}
