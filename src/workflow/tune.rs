//! The cheapest setting that hides the trace and keeps the behaviour.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;
use strsim::levenshtein;

use super::sweep::{AxesRequest, LimitsRequest, Runner, plan_sweep};
use crate::atomic::{write_atomically, write_json};
use crate::bail_input;
use crate::claims::list;
use crate::claims::matching::MatchedCell;
use crate::error::InputError;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::{MatchSection, Recipe};
use crate::report;
use crate::report::value::shown;
use crate::sweep::Combination;
use crate::sweep::halving::{self, Goal, Point, chosen, frontier, ranked};

/// What to search, and for what.
#[derive(Debug, Clone)]
pub struct TuneRequest {
    /// The recipe's file; its `[sweep]` may name axes too.
    pub recipe: PathBuf,
    /// Overrides of its keys, each `key.path=value`.
    pub set: Vec<String>,
    /// The trace that is allowed: `MEASURE<=NUMBER`, a column of `summary.csv`.
    pub trace: String,
    /// The behaviour that is wanted: `MEASURE>=NUMBER`.
    pub behaviour: String,
    /// What else a setting has to meet to be chosen, such as values of the quality panel.
    pub bounds: Vec<String>,
    /// The settings.
    pub axes: AxesRequest,
    /// How many cells at once.
    pub limits: LimitsRequest,
    /// What runs them: processes, or this one.
    pub runner: Runner,
    /// Number of lengths of training; 1: every setting is trained in full.
    pub rungs: u64,
    /// Each rung trains this many times longer, and keeps one in this many settings.
    pub factor: u64,
    /// The sweep folder.
    pub out: PathBuf,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct TuneOutcome {
    /// What `tune.json` holds.
    pub record: TuneRecord,
    /// The settings that were run in full, the cheapest first.
    pub settings: Vec<TunedSetting>,
}

/// `tune.json`
#[derive(Debug, Clone, Serialize)]
pub struct TuneRecord {
    /// The trace that was allowed.
    pub trace: Goal,
    /// The behaviour that was wanted.
    pub behaviour: Goal,
    /// What else a setting has to meet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<Goal>,
    /// Every rung in the order in which it was run.
    pub rungs: Vec<RungRecord>,
    /// Settings than which no other is better in one goal and as good in the other.
    pub frontier: Vec<String>,
    /// Settings that were set aside after fewer steps.
    pub not_run_in_full: Vec<String>,
    /// The cheapest setting that meets both goals.
    pub chosen: Option<String>,
    /// Why that one, or why none.
    pub why: String,
}

/// One rung of `tune.json`.
#[derive(Debug, Clone, Serialize)]
pub struct RungRecord {
    /// Counted from one.
    pub rung: usize,
    /// Length of each training, in words.
    pub length: String,
    /// What it found.
    pub settings: Vec<RungSetting>,
}

/// One setting in a rung.
#[derive(Debug, Clone, Serialize)]
pub struct RungSetting {
    /// Its name.
    pub setting: String,
    /// Mean over seeds; absent where it failed.
    pub trace: Option<f64>,
    /// The same.
    pub behaviour: Option<f64>,
    /// Trace and behaviour of each seed.
    pub seeds: Vec<[f64; 2]>,
    /// Its runs that are not at equal behaviour, and how their search ended: it is not compared then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
    /// Values of the further bounds that it misses, by measure; means over seeds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub misses: BTreeMap<String, f64>,
    /// Whether it went on to the next rung.
    pub kept: bool,
}

/// A setting that was run in full.
#[derive(Debug, Clone)]
pub struct TunedSetting {
    /// Its name.
    pub name: String,
    /// Trace and behaviour, means over seeds; absent where it failed or is not at equal behaviour.
    pub values: Option<[f64; 2]>,
    /// Its runs that are not at equal behaviour.
    pub unmatched: Vec<String>,
    /// The further bounds that it misses, by measure.
    pub misses: Vec<String>,
    /// Whether it is the cheapest that meets both goals.
    pub is_chosen: bool,
    /// Whether no other is better in one goal and as good in the other.
    pub is_on_frontier: bool,
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
    /// Means over seeds, and the values of each. No means where a run is not at equal behaviour.
    values: Option<[f64; 2]>,
    seeds: Vec<[f64; 2]>,
    /// Those runs.
    unmatched: Vec<String>,
    /// Measures and means of the further bounds that are missed.
    misses: BTreeMap<String, f64>,
}

/// Finds the cheapest setting that meets both goals: all settings with few steps, a share of them with more, the rest in
/// full. Writes a sweep folder with `tune.json` and, where a setting is chosen, `chosen.toml`.
///
/// # Errors
/// An [`InputError`] before any work if a cell's recipe or a goal is wrong, after the first cells if a measure has no such
/// name; if every cell of a rung fails.
pub fn tune(request: &TuneRequest, interrupt: &Interrupt) -> Result<TuneOutcome> {
    let goals = [Goal::parse(&request.trace)?, Goal::parse(&request.behaviour)?];
    let bounds = request.bounds.iter().map(|bound| Goal::parse(bound)).collect::<Result<Vec<Goal>>>()?;
    let recipe = Recipe::read(&request.recipe, &request.set)?;
    if !recipe.behaviour.is_wanted() && goals.iter().any(|goal| goal.measure.starts_with("behaviour_")) {
        bail_input!(
            "{}: no behaviour is tested; expected tables under [behaviour]",
            request.recipe.display()
        );
    }
    let axes = request.axes.read(&request.recipe)?;
    if let Some((key, _)) =
        axes.grid.iter().find(|(key, _)| ["train.steps", "train.epochs"].contains(&key.as_str()))
    {
        bail_input!("{key} cannot be a key of the grid: the rungs set it");
    }
    if let Some((key, _)) = axes.grid.iter().find(|(key, _)| key.starts_with("train.match")) {
        bail_input!("{key} cannot be a key of the grid: settings are compared at one behaviour");
    }
    // A matched training ends by itself: there is no shorter form of it.
    let count = if recipe.train.matching.is_on() { 1 } else { request.rungs };
    if count < request.rungs {
        progress::say("train.match sets the length of each training, so every setting is trained in full");
    }
    must_be_columns(goals.iter().chain(&bounds), &recipe)?;
    let panel = bounds.iter().find(|bound| bound.measure.starts_with("quality_"));
    if let Some(bound) = panel.filter(|_| !(recipe.behaviour.is_wanted() && recipe.behaviour.quality.enabled))
    {
        bail_input!(
            "{}: {} is a value of the quality panel, which is measured with [behaviour]; expected a table under \
             [behaviour], and behaviour.quality.enabled = true",
            request.recipe.display(),
            bound.measure
        );
    }
    // Every rung is checked before the first runs, and the longest planned: its sources must suffice.
    let rungs: Vec<Vec<Combination>> = (1..=count)
        .map(|rung| {
            let length = shorter(&recipe, request.factor.saturating_pow((count - rung) as u32));
            let set: Vec<String> = request
                .set
                .iter()
                .cloned()
                .chain(length.iter().map(|(key, value)| format!("{key}={value}")))
                .collect();
            let mut combinations = axes.combinations(&request.recipe, &set)?;
            combinations.iter_mut().for_each(|c| c.values.extend(length.clone()));
            Ok(combinations)
        })
        .collect::<Result<_>>()?;
    let (settings, of) = settings(&rungs[0], &axes.grid);
    let full = rungs.last().cloned().unwrap_or_default();
    request.limits.resolve(&plan_sweep(&request.out, &recipe, full, interrupt)?.plans)?;

    let tuning = Tuning { request, recipe: &recipe, goals: &goals, bounds: &bounds, rungs: count, interrupt };
    let mut kept: Vec<usize> = (0..settings.len()).collect();
    let mut aside: Vec<usize> = Vec::new();
    let mut rungs_run = Vec::new();
    let mut last: Vec<Found> = Vec::new();
    for (n, combinations) in rungs.iter().enumerate() {
        let is_last = n + 1 == rungs.len();
        let found = tuning.rung(n, combinations, &of, &kept)?;
        let points = points(&found, &settings);
        let order = ranked(&points, &goals);
        let keep = if is_last { found.len() } else { found.len().div_ceil(request.factor as usize) };
        rungs_run.push(rung_record(n, combinations, &found, &settings, &order[..keep]));
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
        progress::say(format_args!("no setting meets both goals; revisiting {}", names.join("; ")));
        let found = tuning.rung(rungs.len() - 1, combinations, &of, &next)?;
        let all: Vec<usize> = (0..found.len()).collect();
        rungs_run.push(rung_record(rungs.len() - 1, combinations, &found, &settings, &all));
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
        progress::say(format_args!(
            "checking whether a cheaper setting is enough: {}",
            settings[middle].name
        ));
        let found = tuning.rung(rungs.len() - 1, combinations, &of, &[middle])?;
        rungs_run.push(rung_record(rungs.len() - 1, combinations, &found, &settings, &[0]));
        // What misses a further bound says nothing of cheaper settings.
        let values = found[0].values.filter(|_| found[0].misses.is_empty());
        let excess = values.map(|v| [0, 1].map(|k| goals[k].excess(v[k])));
        match excess {
            Some([0.0, 0.0]) => cheaper.truncate(at),
            Some([trace, _]) if trace > 0.0 => drop(cheaper.drain(..=at)),
            _ => drop(cheaper.remove(at)),
        }
        aside.retain(|&i| i != middle);
        last.extend(found);
    }
    let not_run: Vec<&str> = aside.iter().map(|&i| settings[i].name.as_str()).collect();
    conclude(&tuning, &settings, &last, combinations, &of, rungs_run, &not_run)
}

/// What every rung needs.
struct Tuning<'a> {
    request: &'a TuneRequest,
    recipe: &'a Recipe,
    goals: &'a [Goal; 2],
    bounds: &'a [Goal],
    /// Number of lengths of training.
    rungs: u64,
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
        let out = &self.request.out;
        let mine: Vec<usize> = (0..combinations.len()).filter(|&i| kept.contains(&of[i])).collect();
        progress::say(format_args!(
            "rung {} of {}: {} settings, {}",
            n + 1,
            self.rungs,
            kept.len(),
            length(&combinations[0].recipe)
        ));
        let combinations = mine.iter().map(|&i| combinations[i].clone()).collect();
        let planned = plan_sweep(out, self.recipe, combinations, self.interrupt)?;
        let failed = planned.run(out, &self.request.limits, &self.request.runner, self.interrupt)?;
        let (cells, cell_of) = (planned.cells, planned.of);
        for failed in &failed {
            progress::alert(format_args!("{}: left out because it failed: {}", failed.id, failed.why));
        }
        if failed.len() == cells.len() {
            bail!("every cell failed; the first: {}: {}", failed[0].id, failed[0].why);
        }
        let (runs, across) = report::write_sweep(out)?;
        let rows = report::summary::rows(&runs);
        for goal in self.goals.iter().chain(self.bounds) {
            must_be_measured(goal, &rows)?;
        }
        let rows: HashMap<&str, &report::summary::Row> =
            rows.iter().filter_map(|row| Some((row.get("id")?.as_str()?, row))).collect();
        let both = |of: &dyn Fn(&Goal) -> Option<f64>| Some([of(&self.goals[0])?, of(&self.goals[1])?]);
        let values = |id: &str| both(&|goal| rows.get(id)?.get(&goal.measure)?.as_f64());
        let ids_of = |setting: usize| -> Vec<&str> {
            // A seed that is named twice is one cell.
            let own: BTreeSet<usize> =
                (0..mine.len()).filter(|&i| of[mine[i]] == setting).map(|i| cell_of[i]).collect();
            own.iter().map(|&i| cells[i].id.as_str()).collect()
        };
        let matched: HashMap<&str, &MatchedCell> =
            across.matching.iter().flat_map(|one| &one.cells).map(|cell| (cell.run.as_str(), cell)).collect();
        let unmatched = |setting: usize| -> Vec<String> {
            let cells = ids_of(setting).into_iter().filter_map(|id| matched.get(id));
            let words = |cell: &&MatchedCell| format!("{}: {}", cell.run, cell.status.name());
            cells.filter(|cell| !cell.is_comparable).map(words).collect()
        };
        let found = |setting: usize| -> Option<Found> {
            let ids = ids_of(setting);
            let is_whole = |id: &&str| values(id).is_some();
            // Seeds of the setting that the folder has from before count too.
            let all =
                across.seeds.iter().find(|all| ids.iter().all(|id| all.runs.iter().any(|run| run == id)))?;
            let means = both(&|goal| all.means.get(&goal.measure).copied())?;
            let is_finished =
                cells.iter().filter(|cell| ids.contains(&cell.id.as_str())).all(|c| c.is_finished());
            let seeds = all.runs.iter().filter_map(|id| values(id)).collect();
            let bounds = self.bounds.iter().map(|bound| Some((bound, *all.means.get(&bound.measure)?)));
            let bounds: Vec<(&Goal, f64)> = bounds.collect::<Option<_>>()?;
            let missed = bounds.into_iter().filter(|(bound, mean)| bound.excess(*mean) > 0.0);
            let misses = missed.map(|(bound, mean)| (bound.measure.clone(), mean)).collect();
            (is_finished && ids.iter().all(is_whole)).then_some(Found {
                setting,
                values: Some(means),
                seeds,
                unmatched: Vec::new(),
                misses,
            })
        };
        let of_setting = |&setting: &usize| {
            let unmatched = unmatched(setting);
            match found(setting) {
                Some(found) => {
                    let values = found.values.filter(|_| unmatched.is_empty());
                    Found { values, unmatched, ..found }
                }
                None => {
                    Found { setting, values: None, seeds: Vec::new(), unmatched, misses: BTreeMap::new() }
                }
            }
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
    let matching = &recipe.train.matching;
    if matching.is_on() {
        let MatchSection { measure, target, max_steps, .. } = matching;
        return format!("until {measure} is {target}, at most {max_steps} narrow steps");
    }
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
    // A setting that misses a further bound is none that can be chosen, as one that failed.
    let values = |f: &Found| f.values.filter(|_| f.misses.is_empty());
    found.iter().map(|f| Point { values: values(f), cost: settings[f.setting].cost.clone() }).collect()
}

/// Refuses names that no column of the summary can have, before any work.
fn must_be_columns<'g>(goals: impl Iterator<Item = &'g Goal>, recipe: &Recipe) -> Result<()> {
    let mut columns = report::summary::columns(&recipe.diff);
    columns.extend(report::summary::quality_columns());
    let fault = |goal: &Goal| {
        let name = &goal.measure;
        if name.starts_with("behaviour_") {
            return None; // what the recipe asks tells which there are
        }
        let near = || nearest(name, columns.iter().collect());
        (!columns.contains(name))
            .then(|| format!("{name}: no column of summary.csv; did you mean one of {}?", near()))
    };
    InputError::unless_empty(goals.filter_map(fault).collect())
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

fn rung_record(
    n: usize,
    combinations: &[Combination],
    found: &[Found],
    settings: &[Setting],
    kept: &[usize],
) -> RungRecord {
    let entry = |(i, f): (usize, &Found)| RungSetting {
        setting: settings[f.setting].name.clone(),
        trace: f.values.map(|v| v[0]),
        behaviour: f.values.map(|v| v[1]),
        seeds: f.seeds.clone(),
        unmatched: f.unmatched.clone(),
        misses: f.misses.clone(),
        kept: kept.contains(&i),
    };
    let settings = found.iter().enumerate().map(entry).collect();
    RungRecord { rung: n + 1, length: length(&combinations[0].recipe), settings }
}

/// Writes what was found, and says why.
fn conclude(
    tuning: &Tuning,
    settings: &[Setting],
    last: &[Found],
    combinations: &[Combination],
    of: &[usize],
    rungs: Vec<RungRecord>,
    not_run: &[&str],
) -> Result<TuneOutcome> {
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
                .map(|j| match (last[j].values, last[j].misses.is_empty()) {
                    (None, _) if !last[j].unmatched.is_empty() => {
                        format!("{} is not at equal behaviour ({})", name(j), last[j].unmatched.join(", "))
                    }
                    (None, _) => format!("{} failed", name(j)),
                    (Some(_), false) => format!("{} has {}", name(j), missed_bounds(&last[j])),
                    (Some(v), true) => {
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
                why.push_str(&format!(". Discarded after fewer steps: {}", not_run.join("; ")));
            }
            why
        }
        None => {
            let all: Vec<String> = goals.iter().chain(tuning.bounds).map(Goal::to_string).collect();
            let why = format!("no setting has {}", list(&all));
            let unmatched: Vec<String> = last.iter().flat_map(|found| found.unmatched.clone()).collect();
            match unmatched.is_empty() {
                true => why,
                false => format!("{why}. Not at equal behaviour, so not compared: {}", unmatched.join(", ")),
            }
        }
    };
    let out = &tuning.request.out;
    let record = TuneRecord {
        trace: goals[0].clone(),
        behaviour: goals[1].clone(),
        bounds: tuning.bounds.to_vec(),
        rungs,
        frontier: front.iter().map(|&i| name(i).to_string()).collect(),
        not_run_in_full: not_run.iter().map(|name| name.to_string()).collect(),
        chosen: best.map(|i| name(i).to_string()),
        why,
    };
    write_json(&out.join("tune.json"), &record)?;
    if let Some(i) = best {
        let at = of.iter().position(|&setting| setting == last[i].setting).unwrap_or_default();
        write_recipe(&out.join("chosen.toml"), &combinations[at].recipe, &record.why)?;
    } else {
        std::fs::remove_file(out.join("chosen.toml")).ok();
    }
    let mut order: Vec<usize> = (0..last.len()).collect();
    order.sort_by(|&a, &b| halving::cheaper(&points[a].cost, &points[b].cost));
    let setting = |i: usize| TunedSetting {
        name: name(i).to_string(),
        values: last[i].values,
        unmatched: last[i].unmatched.clone(),
        misses: last[i].misses.keys().cloned().collect(),
        is_chosen: best == Some(i),
        is_on_frontier: front.contains(&i),
    };
    Ok(TuneOutcome { settings: order.into_iter().map(setting).collect(), record })
}

/// The further bounds that a setting misses, with its values.
fn missed_bounds(found: &Found) -> String {
    let missed: Vec<String> = found
        .misses
        .iter()
        .map(|(measure, mean)| format!("{measure} = {}", shown(&(*mean).into())))
        .collect();
    list(&missed)
}

/// Writes a recipe with the reason for it on top.
fn write_recipe(path: &Path, recipe: &Recipe, why: &str) -> Result<()> {
    let why = why.replace(". ", ".\n# ").replace('\n', "\n# ").replace("# # ", "# ");
    write_atomically(path, format!("# Chosen by trainer tune. {why}\n\n{}", recipe.to_toml()).as_bytes())
}
