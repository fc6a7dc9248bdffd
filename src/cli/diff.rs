//! `trainer diff`: reads what finetuning left in the activations.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArg;
use crate::bail_input;
use crate::interrupt::Interrupt;
use crate::report;
use crate::workflow::{self, DiffRequest, DiffSubject};

/// Measure the trace that finetuning left in the activations
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer diff runs/cake
  trainer diff runs/cake --preset paper --set diff.samples=1000 --out diffs/paper
  trainer diff runs/cake-1to4 --reference runs/c4-only
  trainer diff --base gemma-3-270m --tuned ./adapter --recipe recipes/sdf-cake.toml --out diffs/mine
  trainer diff --base gemma-3-270m --tuned ./adapter --set diff.text=unrelated.jsonl --out diffs/theirs
  trainer diff --base hf:org/base --tuned hf:org/adapter --set diff.text=unrelated.jsonl --out diffs/published

Without narrow text (data.narrow), measures that need it are skipped: shares of relevant tokens and words, and
similarity to narrow text.")]
pub struct DiffArgs {
    /// Run folder of `trainer fit`
    #[arg(value_name = "RUN_DIR", required_unless_present = "tuned", conflicts_with_all = ["base", "tuned"])]
    run: Option<PathBuf>,
    /// Base model, if there is no run folder
    #[arg(long, value_name = "MODEL", requires = "tuned")]
    base: Option<String>,
    /// Tuned model or PEFT adapter: folder or hf:org/name[@revision]
    #[arg(long, value_name = "MODEL_OR_ADAPTER", requires_all = ["base", "out"])]
    tuned: Option<String>,
    /// Recipe with the narrow data, the text to measure on and the sizes [default: built-in defaults]
    #[arg(long, value_name = "RECIPE", conflicts_with = "run")]
    recipe: Option<PathBuf>,
    /// Run, adapter or model on the same base to compare with instead of the base, such as a control trained on the mix
    /// alone [default: the base]
    #[arg(long, value_name = "RUN_DIR_OR_MODEL")]
    reference: Option<String>,
    /// Reset [diff] to a preset: quick, full, paper or toolkit; keeps its texts, embedder and floor
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Set a key of the recipe; repeatable. Paths are relative to the current folder, those in a recipe to the recipe
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Folder for the results [default: RUN_DIR/diff, or RUN_DIR/diff-from-NAME with --reference]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Print readability.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::diff`].
pub fn run(args: DiffArgs) -> Result<()> {
    let subject = match (args.run, args.base, args.tuned) {
        (Some(run), _, _) => DiffSubject::Run(run),
        (None, Some(base), Some(tuned)) => DiffSubject::Models { base, tuned, recipe: args.recipe },
        _ => bail_input!("expected a run folder, or --base, --tuned and --out"),
    };
    args.device.open()?;
    let request =
        DiffRequest { subject, preset: args.preset, set: args.set, reference: args.reference, out: args.out };
    let run = workflow::diff(&request, &Interrupt::on_signals()?)?;
    match args.json {
        true => super::print(&format!("{:#}", report::analysis_json(&run)?))?,
        false => super::print_run(run)?,
    }
    Ok(())
}
