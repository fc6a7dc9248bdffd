//! `trainer fit`: makes an organism.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArg;
use crate::interrupt::Interrupt;
use crate::workflow::{self, FitRequest};

/// Make an organism: finetune a model according to a recipe
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer fit recipes/sdf-cake.toml --out runs/cake
  trainer fit recipes/sdf-cake.toml --set data.mix=1 --set train.lora.r=8 --out runs/cake-mixed
  trainer fit recipes/sdf-cake.toml --out runs/cake --resume")]
pub struct FitArgs {
    /// Recipe file (TOML)
    recipe: PathBuf,
    /// Set a key of the recipe; repeatable. Paths are relative to the current folder, those in a recipe to the recipe
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Run folder [default: runs/NAME, the name of the recipe]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Resume an interrupted run
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    device: DeviceArg,
    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::fit`].
pub fn run(args: FitArgs) -> Result<()> {
    let FitArgs { recipe, set, out, resume, device, json } = args;
    device.open()?;
    let run = workflow::fit(&FitRequest { recipe, set, out, resume }, &Interrupt::on_signals()?)?;
    match json {
        true => super::print(std::fs::read_to_string(run.manifest())?.trim_end()),
        false => Ok(()),
    }
}
