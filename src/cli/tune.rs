//! `trainer tune`: the cheapest setting that hides the trace and keeps the behaviour.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use strsim::levenshtein;

use super::runs::shown;
use super::sweep::{AxesArgs, LimitsArgs, Planned, plan_sweep};
use crate::atomic::{write_atomically, write_json};
use crate::bail_input;
use crate::claims;
use crate::error::InputError;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::Recipe;
use crate::report;
use crate::sweep::halving::{self, Goal, Point, chosen, frontier, ranked};
use crate::sweep::{self, Combination};

/// Find the cheapest setting whose trace is weak enough and whose behaviour is strong enough
#[derive(Debug, Args)]
#[command(after_help = "Example:
  trainer tune recipes/sdf-cake.toml --mix 0,0.5,1 --grid train.lora.r=4,32 \\
    --trace 'lift_auroc_mean<=0.55' --behaviour 'behaviour_facts_margin_change>=0.5' --out runs/tuned

Measures are columns of summary.csv. A setting costs its mix ratio first, then the place of its values in each --grid:
write cheap values first. All settings are trained for few steps, a share of them longer, the rest in full; those set
aside are gone back to if none of the others meets both goals, and to see whether a cheaper one does. Seeds are averaged. DIR is a sweep folder, with chosen.toml
and tune.json beside; the same command goes on where it was stopped.")]
pub struct TuneArgs {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// The trace that is allowed
    #[arg(long, value_name = "MEASURE<=NUMBER")]
    trace: String,
    /// The behaviour that is wanted
    #[arg(long, value_name = "MEASURE>=NUMBER")]
    behaviour: String,
    #[command(flatten)]
    axes: AxesArgs,
    #[command(flatten)]
    limits: LimitsArgs,
    /// Rungs: 1 trains every setting in full
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rungs: u64,
    /// Each rung trains this many times longer, and keeps one in this many settings
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=100))]
    factor: u64,
    /// Change a key of the recipe; may be given several times. Paths are relative to the current folder (in a
    /// recipe: to the recipe)
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Sweep folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print tune.json instead of the table
    #[arg(long)]
    json: bool,
}

/// One setting: what it is called, and what it costs.
#[derive(Debug, Clone)]
struct Setting {
    name: String,
    cost: Vec<f64>,
}

/// What a rung found of one setting.
struct Found {
    setting: usize,
    /// Means over seeds, and the values of each.
    values: Option<[f64; 2]>,
    seeds: Vec<[f64; 2]>,
}

/// Runs the subcommand.
///
/// # Errors
/// An input error before any work if a cell's recipe or a goal is wrong, after the first cells if a measure has no such
/// name; if no setting meets both goals (the results are written all the same).
pub fn run(args: TuneArgs) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    let goals = [Goal::parse(&args.trace)?, Goal::parse(&args.behaviour)?];
    let recipe = Recipe::read(&args.recipe, &args.set)?;
    if !recipe.behaviour.is_wanted() && goals.iter().any(|goal| goal.measure.starts_with("behaviour_")) {
        bail_input!("{}: asks for no behaviour; expected tables under [behaviour]", args.recipe.display());
    }
    let axes = args.axes.read(&args.recipe)?;
    if let Some((key, _)) =
        axes.grid.iter().find(|(key, _)| ["train.steps", "train.epochs"].contains(&key.as_str()))
    {
        bail_input!("{key} cannot be a key of the grid: it sizes the rungs");
    }
    must_be_columns(&goals, &recipe)?;
    // Every rung is checked before the first runs, and the longest planned: its sources must suffice.
    let rungs: Vec<Vec<Combination>> = (1..=args.rungs)
        .map(|rung| {
            let length = shorter(&recipe, args.factor.saturating_pow((args.rungs - rung) as u32));
            let set: Vec<String> = args
                .set
                .iter()
                .cloned()
                .chain(length.iter().map(|(key, value)| format!("{key}={value}")))
                .collect();
            let mut combinations = axes.combinations(&args.recipe, &set)?;
            combinations.iter_mut().for_each(|c| c.values.extend(length.clone()));
            Ok(combinations)
        })
        .collect::<Result<_>>()?;
    let (settings, of) = settings(&rungs[0], &axes.grid);
    let full = rungs.last().cloned().unwrap_or_default();
    args.limits.resolve(&plan_sweep(&args.out, &recipe, full, &interrupt)?.plans)?;

    let tuning = Tuning { args: &args, recipe: &recipe, goals: &goals, interrupt: &interrupt };
    let mut kept: Vec<usize> = (0..settings.len()).collect();
    let mut aside: Vec<usize> = Vec::new();
    let mut record = Vec::new();
    let mut last: Vec<Found> = Vec::new();
    for (n, combinations) in rungs.iter().enumerate() {
        let is_last = n + 1 == rungs.len();
        let found = tuning.rung(n, combinations, &of, &kept)?;
        let points = points(&found, &settings);
        let order = ranked(&points, &goals);
        let keep = if is_last { found.len() } else { found.len().div_ceil(args.factor as usize) };
        record.push(rung_json(n, combinations, &found, &settings, &order[..keep]));
        // The latest set aside are the nearest to the goals.
        aside.splice(0..0, order[keep..].iter().map(|&i| found[i].setting));
        kept = order[..keep].iter().map(|&i| found[i].setting).collect();
        if is_last {
            last = found;
        } else {
            let names: Vec<&str> = kept.iter().map(|&i| settings[i].name.as_str()).collect();
            progress::say(format_args!("rung {} of {}: kept {}", n + 1, rungs.len(), names.join("; ")));
        }
    }
    let combinations = &rungs[rungs.len() - 1];
    while chosen(&points(&last, &settings), &goals).is_none() && !aside.is_empty() {
        let next: Vec<usize> = aside.drain(..kept.len().max(1).min(aside.len())).collect();
        let names: Vec<&str> = next.iter().map(|&i| settings[i].name.as_str()).collect();
        progress::say(format_args!("none meets both goals; going back to {}", names.join("; ")));
        let found = tuning.rung(rungs.len() - 1, combinations, &of, &next)?;
        let all: Vec<usize> = (0..found.len()).collect();
        record.push(rung_json(rungs.len() - 1, combinations, &found, &settings, &all));
        last.extend(found);
    }
    // Few steps may favour what is dear: back to cheaper ones, halving them each time. A setting that misses the bound on
    // the trace speaks against all cheaper ones, as more mixing hides more.
    let mut cheaper: Vec<usize> = match chosen(&points(&last, &settings), &goals) {
        Some(best) => {
            let cost = &settings[last[best].setting].cost;
            aside.iter().copied().filter(|&i| halving::cheaper(&settings[i].cost, cost).is_lt()).collect()
        }
        None => Vec::new(),
    };
    cheaper.sort_by(|&a, &b| halving::cheaper(&settings[a].cost, &settings[b].cost));
    while !cheaper.is_empty() {
        let at = cheaper.len() / 2;
        let middle = cheaper[at];
        progress::say(format_args!("is a cheaper one enough? {}", settings[middle].name));
        let found = tuning.rung(rungs.len() - 1, combinations, &of, &[middle])?;
        record.push(rung_json(rungs.len() - 1, combinations, &found, &settings, &[0]));
        let excess = found[0].values.map(|v| [0, 1].map(|k| goals[k].excess(v[k])));
        match excess {
            Some([0.0, 0.0]) => cheaper.truncate(at),
            Some([trace, _]) if trace > 0.0 => drop(cheaper.drain(..=at)),
            _ => drop(cheaper.remove(at)),
        }
        aside.retain(|&i| i != middle);
        last.extend(found);
    }
    let not_run: Vec<&str> = aside.iter().map(|&i| settings[i].name.as_str()).collect();
    conclude(&tuning, &settings, &last, combinations, &of, record, &not_run)
}

/// What every rung needs.
struct Tuning<'a> {
    args: &'a TuneArgs,
    recipe: &'a Recipe,
    goals: &'a [Goal; 2],
    interrupt: &'a Interrupt,
}

impl Tuning<'_> {
    /// Trains and reads some settings at the length of a rung.
    fn rung(
        &self,
        n: usize,
        combinations: &[Combination],
        of: &[usize],
        kept: &[usize],
    ) -> Result<Vec<Found>> {
        let out = &self.args.out;
        let mine: Vec<usize> = (0..combinations.len()).filter(|&i| kept.contains(&of[i])).collect();
        progress::say(format_args!(
            "rung {} of {}: {} settings, {}",
            n + 1,
            self.args.rungs,
            kept.len(),
            length(&combinations[0].recipe)
        ));
        let combinations = mine.iter().map(|&i| combinations[i].clone()).collect();
        let planned = plan_sweep(out, self.recipe, combinations, self.interrupt)?;
        let limits = self.args.limits.resolve(&planned.plans)?;
        planned.write(out)?;
        let Planned { cells, plans, .. } = planned;
        let failed = sweep::run(out, &cells, &plans, &limits, self.interrupt)?;
        for failed in &failed {
            progress::alert(format_args!("{}: left out, for it failed: {}", failed.id, failed.why));
        }
        if failed.len() == cells.len() {
            bail!("every cell failed; the first: {}: {}", failed[0].id, failed[0].why);
        }
        let rows = report::summary::rows(&report::write_sweep(out)?.0);
        for goal in self.goals {
            must_be_measured(goal, &rows)?;
        }
        let rows: HashMap<&str, &report::summary::Row> =
            rows.iter().filter_map(|row| Some((row.get("id")?.as_str()?, row))).collect();
        let values = |i: usize| -> Option<[f64; 2]> {
            let cell = &cells[i];
            let row = rows.get(cell.id.as_str()).filter(|_| cell.is_finished())?;
            let value = |goal: &Goal| row.get(&goal.measure)?.as_f64();
            Some([value(&self.goals[0])?, value(&self.goals[1])?])
        };
        let of_setting = |&setting: &usize| {
            let seeds: Option<Vec<[f64; 2]>> =
                (0..cells.len()).filter(|&i| of[mine[i]] == setting).map(values).collect();
            let seeds = seeds.unwrap_or_default();
            let mean = |k: usize| claims::dose::mean_of(seeds.iter().map(|v| v[k]));
            Found { setting, values: (!seeds.is_empty()).then(|| [mean(0), mean(1)]), seeds }
        };
        Ok(kept.iter().map(of_setting).collect())
    }
}

/// The key that sizes a run, with its value for a run that many times shorter; nothing for the whole run.
fn shorter(recipe: &Recipe, times: u64) -> Option<(String, String)> {
    match (times, recipe.train.steps) {
        (1, _) => None,
        (_, 0) => Some(("train.epochs".into(), format!("{:?}", recipe.train.epochs / times as f64))),
        (_, steps) => Some(("train.steps".into(), (steps as u64).div_ceil(times).to_string())),
    }
}

fn length(recipe: &Recipe) -> String {
    match recipe.train.steps {
        0 => format!("{} epochs", recipe.train.epochs),
        steps => format!("{steps} narrow steps"),
    }
}

/// The settings without their seeds, and which one each combination is of.
fn settings(combinations: &[Combination], grid: &[(String, Vec<String>)]) -> (Vec<Setting>, Vec<usize>) {
    let mut settings: Vec<Setting> = Vec::new();
    let of = combinations.iter().map(|Combination { recipe, values }| {
        let value =
            |key: &String| values.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()).unwrap_or_default();
        let mut name = format!("mix {}", recipe.data.mix);
        let mut cost = vec![recipe.data.mix];
        for (key, all) in grid.iter().filter(|(key, _)| key != "data.mix" && key != "seed") {
            name.push_str(&format!(", {key} = {}", value(key)));
            cost.push(all.iter().position(|v| *v == value(key)).unwrap_or_default() as f64);
        }
        match settings.iter().position(|setting| setting.name == name) {
            Some(i) => i,
            None => {
                settings.push(Setting { name, cost });
                settings.len() - 1
            }
        }
    });
    let of = of.collect();
    (settings, of)
}

fn points(found: &[Found], settings: &[Setting]) -> Vec<Point> {
    found.iter().map(|f| Point { values: f.values, cost: settings[f.setting].cost.clone() }).collect()
}

/// Refuses names that no column of the summary can have, before any work.
fn must_be_columns(goals: &[Goal; 2], recipe: &Recipe) -> Result<()> {
    let columns = report::summary::columns(&recipe.diff);
    let fault = |goal: &Goal| {
        let name = &goal.measure;
        if name.starts_with("behaviour_") {
            return None; // what the recipe asks tells which there are
        }
        let near = || nearest(name, columns.iter().collect());
        (!columns.contains(name))
            .then(|| format!("{name}: no column of summary.csv; did you mean one of {}?", near()))
    };
    InputError::unless_empty(goals.iter().filter_map(fault).collect())
}

/// Five of some names: those that `name` is a part of first, then those that are spelt most like it.
fn nearest(name: &str, mut names: Vec<&String>) -> String {
    names.sort_by_key(|key| (!key.contains(name), levenshtein(key, name)));
    names.into_iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Refuses a measure that no cell has.
fn must_be_measured(goal: &Goal, rows: &[report::summary::Row]) -> Result<()> {
    let name = &goal.measure;
    if rows.iter().any(|row| row.get(name).is_some_and(Value::is_number)) {
        return Ok(());
    }
    let measured = |key: &&String| rows.iter().any(|row| row.get(*key).is_some_and(Value::is_number));
    let names = rows.first().map(|row| row.keys().filter(measured).collect()).unwrap_or_default();
    bail_input!(
        "{name}: not measured in any cell; expected a column of summary.csv with numbers, such as {}",
        nearest(name, names)
    )
}

fn rung_json(
    n: usize,
    combinations: &[Combination],
    found: &[Found],
    settings: &[Setting],
    kept: &[usize],
) -> Value {
    let entry = |(i, f): (usize, &Found)| {
        json!({
            "setting": settings[f.setting].name,
            "trace": f.values.map(|v| v[0]),
            "behaviour": f.values.map(|v| v[1]),
            "seeds": f.seeds,
            "kept": kept.contains(&i),
        })
    };
    let settings: Vec<Value> = found.iter().enumerate().map(entry).collect();
    json!({ "rung": n + 1, "length": length(&combinations[0].recipe), "settings": settings })
}

/// Writes what was found, prints it, and says why.
fn conclude(
    tuning: &Tuning,
    settings: &[Setting],
    last: &[Found],
    combinations: &[Combination],
    of: &[usize],
    record: Vec<Value>,
    not_run: &[&str],
) -> Result<()> {
    let goals = tuning.goals;
    let points = points(last, settings);
    let best = chosen(&points, goals);
    let front = frontier(&points, goals);
    let name = |i: usize| settings[last[i].setting].name.as_str();
    let why = match best {
        Some(i) => {
            let [trace, behaviour] = points[i].values.unwrap_or_default();
            let cheaper_ones: Vec<String> = (0..last.len())
                .filter(|&j| halving::cheaper(&points[j].cost, &points[i].cost).is_lt())
                .map(|j| match points[j].values {
                    None => format!("{} failed", name(j)),
                    Some(v) => {
                        let missed = (0..2).filter(|&k| goals[k].excess(v[k]) > 0.0);
                        let missed: Vec<String> = missed
                            .map(|k| format!("{} = {}", goals[k].measure, shown(&v[k].into())))
                            .collect();
                        format!("{} has {}", name(j), missed.join(" and "))
                    }
                })
                .collect();
            let mut why = format!(
                "{}: the cheapest of {} settings run in full that has {} ({}) and {} ({})",
                name(i),
                last.len(),
                goals[0],
                shown(&trace.into()),
                goals[1],
                shown(&behaviour.into())
            );
            if !cheaper_ones.is_empty() {
                why.push_str(&format!(". Cheaper, but: {}", cheaper_ones.join("; ")));
            }
            if !not_run.is_empty() {
                why.push_str(&format!(". Set aside after fewer steps: {}", not_run.join("; ")));
            }
            why
        }
        None => format!("no setting has {} and {}", goals[0], goals[1]),
    };
    let out = &tuning.args.out;
    let document = json!({
        "trace": goals[0],
        "behaviour": goals[1],
        "rungs": record,
        "frontier": front.iter().map(|&i| name(i)).collect::<Vec<_>>(),
        "not_run_in_full": not_run,
        "chosen": best.map(name),
        "why": why,
    });
    write_json(&out.join("tune.json"), &document)?;
    if let Some(i) = best {
        let at = of.iter().position(|&setting| setting == last[i].setting).unwrap_or_default();
        write_recipe(&out.join("chosen.toml"), &combinations[at].recipe, &why)?;
    } else {
        std::fs::remove_file(out.join("chosen.toml")).ok();
    }
    if tuning.args.json {
        super::print(&format!("{document:#}"))?;
    } else {
        let mut order: Vec<usize> = (0..last.len()).collect();
        order.sort_by(|&a, &b| halving::cheaper(&points[a].cost, &points[b].cost));
        let heading = ["setting, cheapest first", &goals[0].to_string(), &goals[1].to_string(), ""];
        let mut rows = vec![heading.map(String::from).to_vec()];
        for i in order {
            let value = |k: usize| points[i].values.map_or("failed".into(), |v| shown(&v[k].into()));
            let marks = [(best == Some(i), "chosen"), (front.contains(&i), "frontier")];
            let marks: Vec<&str> = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
            rows.push(vec![name(i).into(), value(0), value(1), marks.join(", ")]);
        }
        super::print(&format!("{}\n\n{why}", super::columns(&rows)))?;
    }
    match best {
        Some(_) => progress::say(out.join("chosen.toml").display()),
        None => bail!("{why}; all of them are in {}", out.join("tune.json").display()),
    }
    Ok(())
}

/// Writes a recipe with the reason for it on top.
fn write_recipe(path: &Path, recipe: &Recipe, why: &str) -> Result<()> {
    let why = why.replace(". ", ".\n# ").replace('\n', "\n# ").replace("# # ", "# ");
    write_atomically(path, format!("# Chosen by trainer tune. {why}\n\n{}", recipe.to_toml()).as_bytes())
}
