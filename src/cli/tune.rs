//! `trainer tune`: the cheapest setting that hides the trace and keeps the behaviour.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::device::DeviceArg;
use super::sweep::{AxesArgs, LimitsArgs};
use crate::interrupt::Interrupt;
use crate::progress;
use crate::report::value::shown;
use crate::workflow::{self, Runner, TuneOutcome, TuneRequest, TunedSetting};

/// Find the cheapest setting whose trace is weak enough and whose behaviour is strong enough
#[derive(Debug, Args)]
#[command(after_help = "Example:
  trainer tune recipes/sdf-cake.toml --mix 0,0.5,1 --grid train.lora.r=4,32 \\
    --trace 'lift_auroc_mean<=0.55' --behaviour 'behaviour_facts_margin_change>=0.5' --out runs/tuned

Measures are columns of summary.csv. The cost of a setting is its mix ratio first, then the position of its values in
each --grid: write cheap values first. All settings are trained for few steps, some of them longer, the finalists in
full. Short runs are noisy, so discarded settings are revisited if no finalist meets both goals, and to check whether a
cheaper setting meets them. Seeds are averaged. With [train.match], every setting is trained until its behaviour is at the
target, and settings with a run that is not comparable are left out. DIR is a sweep folder with chosen.toml and tune.json in addition. Rerun the
command to resume.")]
pub struct TuneArgs {
    /// Recipe file (TOML)
    recipe: PathBuf,
    /// Upper limit of the trace
    #[arg(long, value_name = "MEASURE<=NUMBER")]
    trace: String,
    /// Lower limit of the behaviour
    #[arg(long, value_name = "MEASURE>=NUMBER")]
    behaviour: String,
    /// Further bound that a setting has to meet, such as 'quality_neutral_nats_change<=0.1'; repeatable
    #[arg(long, value_name = "MEASURE<=NUMBER")]
    bound: Vec<String>,
    #[command(flatten)]
    axes: AxesArgs,
    #[command(flatten)]
    limits: LimitsArgs,
    /// Number of rungs; 1 trains every setting in full
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rungs: u64,
    /// Each rung trains N times longer than the one before and keeps one in N settings
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=100))]
    factor: u64,
    /// Set a key of the recipe; repeatable. Paths are relative to the current folder, those in a recipe to the recipe
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Sweep folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
    /// Print tune.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::tune`]; if no setting meets both goals (the results are written all the same).
pub fn run(args: TuneArgs) -> Result<()> {
    args.device.pass_on(true)?;
    let request = TuneRequest {
        recipe: args.recipe,
        set: args.set,
        trace: args.trace,
        behaviour: args.behaviour,
        bounds: args.bound,
        axes: args.axes.into(),
        limits: args.limits.into(),
        runner: Runner::Processes,
        rungs: args.rungs,
        factor: args.factor,
        out: args.out,
    };
    let found = workflow::tune(&request, &Interrupt::on_signals()?)?;
    match args.json {
        true => super::print(&serde_json::to_string_pretty(&found.record)?)?,
        false => super::print(&format!("{}\n\n{}", table(&found), found.record.why))?,
    }
    match found.record.chosen {
        Some(_) => progress::say(request.out.join("chosen.toml").display()),
        None => bail!("{}; all of them are in {}", found.record.why, request.out.join("tune.json").display()),
    }
    Ok(())
}

/// The settings that were run in full.
fn table(found: &TuneOutcome) -> String {
    let goals = [&found.record.trace, &found.record.behaviour];
    let heading = ["setting, cheapest first", &goals[0].to_string(), &goals[1].to_string(), ""];
    let row = |setting: &TunedSetting| {
        let without = if setting.unmatched.is_empty() { "failed" } else { "unmatched" };
        let value = |k: usize| setting.values.map_or(without.into(), |v| shown(&v[k].into()));
        let marks = [(setting.is_chosen, "chosen"), (setting.is_on_frontier, "frontier")];
        let marks = marks.iter().filter(|m| m.0).map(|m| m.1.to_string());
        let misses = setting.misses.iter().map(|measure| format!("misses {measure}"));
        let marks: Vec<String> = marks.chain(misses).collect();
        vec![setting.name.clone(), value(0), value(1), marks.join(", ")]
    };
    let rows = std::iter::once(heading.map(String::from).to_vec()).chain(found.settings.iter().map(row));
    super::columns(&rows.collect::<Vec<_>>())
}
