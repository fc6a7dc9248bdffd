//! `trainer selftest`: whether a device computes what the CPU computes. Hidden: for those who bring a machine with a GPU.

use anyhow::{Result, bail};
use clap::Args;

use super::device::DeviceArg;
use crate::workflow;

/// Compare every operation on a device with the CPU, on random inputs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer selftest --device cuda
  trainer selftest --device cpu --json        the composed operations, which a GPU runs, against the fused ones

Each operation runs twice, forward and backward. It passes if outputs and gradients are within 1e-5 of the CPU's relative to
their length, and if both runs give the same bytes. Exit code 1: an operation does not pass.")]
pub struct SelftestArgs {
    #[command(flatten)]
    device: DeviceArg,
    /// Random seed of the inputs
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Print one JSON document per line and operation
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::selftest`]; if an operation does not pass.
pub fn run(args: SelftestArgs) -> Result<()> {
    args.device.open()?;
    let (mut all, mut wrong) = (0, 0);
    workflow::selftest(args.seed, |check| {
        all += 1;
        wrong += usize::from(!check.passes);
        if args.json {
            return super::print(&serde_json::to_string(&check)?);
        }
        let backward = check.backward.map_or("-".into(), |distance| format!("{distance:.1e}"));
        let verdict = match (check.passes, check.repeats) {
            (true, _) => "ok",
            (false, true) => "differs",
            (false, false) => "differs from run to run",
        };
        let what = format!("{}, {}", check.op, check.case);
        super::print(&format!("{what:64}  {:>8}  {backward:>8}  {verdict}", format!("{:.1e}", check.forward)))
    })?;
    match wrong {
        0 => Ok(()),
        _ => bail!("{wrong} of {all} comparisons differ from the CPU"),
    }
}
