//! One run folder, read for a report. Whatever the folder lacks stays `None`: absent is not zero.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::report::number::ratio;
use crate::audit;
use crate::behaviour::{self, Behaviour};
use crate::corpus::mix::Mix;
use crate::diff::measures::probe::Probe;
use crate::diff::measures::steering::SteeringLine;
use crate::diff::record::Readability;
use crate::error::{InputError, input_error, or_note};
use crate::grade::record::Graded;
use crate::recipe::{MixSchedule, Recipe};
use crate::run::metrics::MetricsLine;
use crate::train::manifest::{HeldOutLosses, Losses, Manifest};

/// What one run folder holds.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Name of the run in the report: the name of its folder.
    pub id: String,
    /// The folder.
    pub dir: PathBuf,
    /// `recipe.toml`, as text.
    pub recipe: Option<String>,
    /// The same, parsed, with every default filled in.
    recipe_table: Option<toml::Table>,
    /// `manifest.json`.
    pub manifest: Option<Manifest>,
    /// `metrics.jsonl`, by step.
    pub metrics: Option<Vec<MetricsLine>>,
    /// Whether the last line of `metrics.jsonl` was cut off (the run was killed while it wrote).
    pub metrics_cut_off: bool,
    /// What `metrics.jsonl` has of the trace and of behaviour, by step.
    pub measured: Vec<Measured>,
    /// `diff/readability.json`.
    pub readability: Option<Readability>,
    /// `diff/graded.json`.
    pub graded: Option<Graded>,
    /// `audit/CONDITION-SEED.json`, by name.
    pub audits: Vec<audit::Record>,
    /// `behaviour.json`.
    pub behaviour: Option<Behaviour>,
    /// `diff/steering.jsonl`.
    pub steering: Option<Vec<SteeringLine>>,
}

/// A line of `metrics.jsonl` with measures of the trace or of behaviour.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Steps done.
    pub step: usize,
    /// Values under keys that begin with `trace_` or `behaviour_`.
    pub values: BTreeMap<String, f64>,
}

/// Pretraining text per narrow text, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MixRatio {
    /// What the recipe asks for.
    pub asked: Option<f64>,
    /// What the run reached.
    pub realised: Option<f64>,
}

impl MixRatio {
    /// The ratio that cells are grouped by: what was asked, so that the seeds of one setting stay together.
    pub fn nominal(&self) -> Option<f64> {
        self.asked.or(self.realised)
    }
}

impl Cell {
    /// The probe with labelled examples.
    pub fn probe(&self) -> Option<&Probe> {
        self.readability.as_ref()?.probe.as_ref()
    }

    /// Reads a run folder. A path that is no run folder, or a file in it that cannot be understood, is an
    /// [`InputError`] that lists every fault found.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        must_be_folder(dir)?;
        if !looks_like_run(dir) {
            return Err(input_error(format!(
                "{}: not a run folder (no recipe.toml, manifest.json, metrics.jsonl or diff/)",
                dir.display()
            )));
        }
        Self::read_folder(dir)
    }

    fn read_folder(dir: &Path) -> Result<Self> {
        let mut faults = Vec::new();
        // `trainer diff --out DIR` may write its files straight into DIR.
        let diff = if dir.join("diff").is_dir() || !dir.join("readability.json").is_file() {
            dir.join("diff")
        } else {
            dir.to_path_buf()
        };

        let recipe = text(&dir.join("recipe.toml"), &mut faults);
        let recipe_table = recipe.as_deref().and_then(|text| {
            text.parse::<toml::Table>()
                .map_err(|e| fault(&mut faults, &dir.join("recipe.toml"), &e.to_string()))
                .ok()
        });
        // A run of an earlier version lacks keys that came since; it did what their defaults say.
        let recipe_table = recipe_table.map(|table| Recipe::completed(&table).unwrap_or(table));
        let manifest = json(&dir.join("manifest.json"), &mut faults);
        let lines = json_lines::<MetricsLine>(&dir.join("metrics.jsonl"), true, &mut faults);
        let measured = lines.as_ref().map(|(lines, _)| measured_by_step(lines)).unwrap_or_default();
        let (metrics, metrics_cut_off) = match lines {
            Some((lines, cut_off)) => (Some(by_step(lines)), cut_off),
            None => (None, false),
        };
        let path = diff.join("readability.json");
        let readability: Option<Readability> = json(&path, &mut faults);
        if let Some(r) = &readability {
            faults.extend(crate::diff::shape::faults(r).into_iter().map(|f| format!("{}: {f}", path.display())));
        }
        let steering = json_lines(&diff.join("steering.jsonl"), false, &mut faults).map(|(lines, _)| lines);

        let behaviour = json(&dir.join(behaviour::FILE), &mut faults);
        let graded = json(&diff.join("graded.json"), &mut faults);
        let audits = audits(&dir.join("audit"), &mut faults);

        InputError::unless_empty(faults)?;
        Ok(Self {
            id: folder_name(dir),
            dir: dir.to_path_buf(),
            recipe,
            recipe_table,
            manifest,
            metrics,
            metrics_cut_off,
            measured,
            readability,
            graded,
            audits,
            behaviour,
            steering,
        })
    }

    /// Name of the recipe, else of the folder.
    pub fn name(&self) -> &str {
        self.manifest
            .as_ref()
            .map(|m| m.name.as_str())
            .or_else(|| self.recipe_value(&["name"])?.as_str())
            .unwrap_or(&self.id)
    }

    /// What the organism was trained on, in words.
    pub fn description(&self) -> Option<&str> {
        self.manifest
            .as_ref()
            .map(|m| m.description.as_str())
            .or_else(|| self.recipe_value(&["description"])?.as_str())
            .filter(|d| !d.trim().is_empty())
    }

    /// Seed of the run.
    pub fn seed(&self) -> Option<u64> {
        let manifest = self.manifest.as_ref().map(|m| m.seed);
        manifest.or_else(|| self.recipe_value(&["seed"])?.as_integer()?.try_into().ok())
    }

    /// The `MODEL` string of the base.
    pub fn base(&self) -> Option<&str> {
        self.manifest
            .as_ref()
            .map(|m| m.base.id.as_str())
            .or_else(|| self.recipe_value(&["model", "base"])?.as_str())
            .or_else(|| Some(self.readability.as_ref()?.base.as_str()))
    }

    /// `lora` or `full`.
    pub fn method(&self) -> Option<&str> {
        let manifest = self.manifest.as_ref().map(|m| m.method.name());
        manifest.or_else(|| self.recipe_value(&["train", "method"])?.as_str())
    }

    /// Pretraining text per narrow text.
    pub fn mix(&self) -> MixRatio {
        let mix = self.manifest.as_ref().map(|m| &m.mix);
        MixRatio {
            asked: mix.map(|m| m.asked).or_else(|| {
                let value = self.recipe_value(&["data", "mix"])?;
                value.as_float().or_else(|| value.as_integer().map(|i| i as f64))
            }),
            realised: mix.and_then(Mix::realised),
        }
    }

    /// `examples` or `tokens`: the unit of [`Self::mix`].
    pub fn mix_unit(&self) -> Option<&str> {
        self.manifest
            .as_ref()
            .map(|m| m.mix.unit.name())
            .or_else(|| self.recipe_value(&["data", "mix_unit"])?.as_str())
    }

    /// What else but [`Self::mix`] tells the mixtures of runs apart, in words: conversations per narrow text, schedule.
    pub fn mixing(&self) -> Option<String> {
        let mix = &self.manifest.as_ref()?.mix;
        let chat = mix.chat.as_ref().map(|chat| format!("chat mix {}", ratio(chat.asked)));
        let moves = mix.schedule != MixSchedule::Constant;
        let schedule = moves.then(|| format!("schedule {}", mix.schedule.name()));
        let parts: Vec<String> = chat.into_iter().chain(schedule).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Held-out losses of the base model.
    pub fn base_losses(&self) -> HeldOutLosses {
        self.losses().base
    }

    /// Held-out losses of the finetuned model.
    pub fn tuned_losses(&self) -> HeldOutLosses {
        self.losses().tuned
    }

    fn losses(&self) -> Losses {
        self.manifest.as_ref().map(|m| m.losses.clone()).unwrap_or_default()
    }

    /// The values of the recipe's keys by their dotted names.
    pub fn recipe_leaves(&self) -> BTreeMap<String, &toml::Value> {
        fn walk<'a>(prefix: &str, table: &'a toml::Table, out: &mut BTreeMap<String, &'a toml::Value>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) if !inner.is_empty() => {
                        walk(&format!("{prefix}{key}."), inner, out)
                    }
                    value => {
                        out.insert(format!("{prefix}{key}"), value);
                    }
                }
            }
        }
        let mut out = BTreeMap::new();
        if let Some(table) = &self.recipe_table {
            walk("", table, &mut out);
        }
        out
    }

    /// The value of a key of the recipe, given by its dotted name.
    pub fn setting(&self, key: &str) -> Option<&toml::Value> {
        self.recipe_value(&key.split('.').collect::<Vec<_>>())
    }

    /// `recipe.toml`, parsed.
    pub fn recipe_table(&self) -> Option<&toml::Table> {
        self.recipe_table.as_ref()
    }

    fn recipe_value(&self, path: &[&str]) -> Option<&toml::Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.recipe_table.as_ref()?.get(*first)?;
        for key in rest {
            value = value.get(*key)?;
        }
        Some(value)
    }
}

/// The keys, in order of name, whose values differ between the recipes of some runs: what a sweep varies. Runs without a
/// recipe say nothing. Name, description, seed and mix ratio are left out: they are shown anyway.
pub fn varied(cells: &[Cell]) -> Vec<String> {
    let recipes: Vec<_> =
        cells.iter().filter(|c| c.recipe_table.is_some()).map(Cell::recipe_leaves).collect();
    let keys: BTreeSet<&String> = recipes.iter().flat_map(|recipe| recipe.keys()).collect();
    let differs = |key: &&String| recipes.iter().any(|r| r.get(*key) != recipes[0].get(*key));
    let told = |key: &&String| ["name", "description", "seed", "data.mix"].contains(&key.as_str());
    keys.into_iter().filter(|key| differs(key) && !told(key)).cloned().collect()
}

/// Reads every run that `dirs` name; each is a run folder or a sweep folder with `cells/<id>/`.
///
/// The cells of a sweep come by mix ratio and seed. All faults of all folders are listed together.
pub fn read_all(dirs: &[PathBuf]) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    let mut faults = Vec::new();
    for dir in dirs {
        cells.extend(or_note(read_one(dir), &mut faults)?.unwrap_or_default());
    }
    InputError::unless_empty(faults)?;
    tell_apart(&mut cells);
    Ok(cells)
}

fn read_one(dir: &Path) -> Result<Vec<Cell>> {
    must_be_folder(dir)?;
    let cells_dir = dir.join("cells");
    if !cells_dir.is_dir() {
        if !looks_like_run(dir) {
            return Err(input_error(format!(
                "{}: neither a run folder (recipe.toml, manifest.json, metrics.jsonl, diff/) nor a sweep folder (cells/)",
                dir.display()
            )));
        }
        return Ok(vec![Cell::read(dir)?]);
    }

    let unreadable = |e: std::io::Error| input_error(format!("{}: {e}", cells_dir.display()));
    let mut folders = Vec::new();
    for entry in fs::read_dir(&cells_dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // A folder without any file of a run is a cell that a sweep has not begun.
        if path.is_dir() && looks_like_run(&path) {
            folders.push(path);
        }
    }
    if folders.is_empty() {
        return Err(input_error(format!("{}: no run in it yet", cells_dir.display())));
    }
    let mut cells = Vec::new();
    let mut faults = Vec::new();
    for folder in &folders {
        cells.extend(or_note(Cell::read_folder(folder), &mut faults)?);
    }
    faults.sort();
    InputError::unless_empty(faults)?;
    let order = |cell: &Cell| cell.mix().nominal().unwrap_or(f64::INFINITY);
    cells.sort_by(|a, b| order(a).total_cmp(&order(b)).then(a.seed().cmp(&b.seed())).then(a.id.cmp(&b.id)));
    Ok(cells)
}

/// Gives cells of the same folder name (two sweeps side by side) the name of the folder above in front,
/// and a number where that does not help.
fn tell_apart(cells: &mut [Cell]) {
    let taken = |cells: &[Cell], id: &str| cells.iter().filter(|c| c.id == id).count() > 1;
    let doubled: Vec<bool> = cells.iter().map(|c| taken(cells, &c.id)).collect();
    for (cell, doubled) in cells.iter_mut().zip(doubled) {
        if doubled {
            let full = fs::canonicalize(&cell.dir).unwrap_or_else(|_| cell.dir.clone());
            let above = full.ancestors().skip(1).find(|a| !a.ends_with("cells"));
            if let Some(above) = above.and_then(Path::file_name) {
                cell.id = format!("{}/{}", above.to_string_lossy(), cell.id);
            }
        }
    }
    for i in 1..cells.len() {
        let mut n = 2;
        let plain = cells[i].id.clone();
        while cells[..i].iter().any(|c| c.id == cells[i].id) {
            cells[i].id = format!("{plain} ({n})");
            n += 1;
        }
    }
}

fn must_be_folder(dir: &Path) -> Result<()> {
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(input_error(format!("{}: a file, not a run folder", dir.display()))),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(input_error(format!("{}: no such folder", dir.display())))
        }
        Err(e) => Err(input_error(format!("{}: {e}", dir.display()))),
    }
}

fn looks_like_run(dir: &Path) -> bool {
    ["recipe.toml", "manifest.json", "metrics.jsonl", "diff", "readability.json"]
        .iter()
        .any(|name| dir.join(name).exists())
}

fn folder_name(dir: &Path) -> String {
    // "." and ".." have no name of their own.
    let full = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    full.file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned())
}

fn fault(faults: &mut Vec<String>, path: &Path, what: &str) {
    faults.push(format!("{}: {}", path.display(), what.trim_end()));
}

/// The text of a file, `None` when it is not there.
fn text(path: &Path, faults: &mut Vec<String>) -> Option<String> {
    match fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(e) => {
                let line =
                    1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
                faults.push(format!("{}:{line}: not UTF-8", path.display()));
                None
            }
        },
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => {
            fault(faults, path, &e.to_string());
            None
        }
    }
}

fn json<T: DeserializeOwned>(path: &Path, faults: &mut Vec<String>) -> Option<T> {
    let text = text(path, faults)?;
    match serde_json::from_str(&text) {
        Ok(value) => Some(value),
        Err(e) => {
            fault(faults, path, &e.to_string());
            None
        }
    }
}

/// The lines of a JSONL file and whether the last was cut off; stops at the first line that is wrong.
///
/// With `torn`, a last line without a line break that ends too early is left out: a run that was killed
/// leaves one, and the rest of its curve is still worth showing.
fn json_lines<T: DeserializeOwned>(
    path: &Path,
    torn: bool,
    faults: &mut Vec<String>,
) -> Option<(Vec<T>, bool)> {
    let text = text(path, faults)?;
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(value) => lines.push(value),
            Err(e) => {
                let last = i + 1 == text.lines().count() && !text.ends_with('\n');
                if torn && last && !lines.is_empty() && e.is_eof() {
                    return Some((lines, true));
                }
                // serde_json counts lines of what it was given, which is always line 1 here.
                let what = e.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                let (file, n, column) = (path.display(), i + 1, e.column());
                faults.push(format!("{file}:{n}: {what} (column {column})"));
                return None;
            }
        }
    }
    Some((lines, false))
}

/// The finished audits of a run, by name; `exchanges.jsonl` beside them is what they cost.
fn audits(dir: &Path, faults: &mut Vec<String>) -> Vec<audit::Record> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "json") && p.is_file());
    paths.sort();
    paths.iter().filter_map(|path| json(path, faults)).collect()
}

/// The values that are named for what they measure; where a resumed run wrote a step again, the later line counts.
fn measured_by_step(lines: &[MetricsLine]) -> Vec<Measured> {
    let mut steps: BTreeMap<usize, BTreeMap<String, f64>> = BTreeMap::new();
    for line in lines {
        let named = line.more.iter().filter(|(k, _)| k.starts_with("trace_") || k.starts_with("behaviour_"));
        let values: BTreeMap<String, f64> = named.map(|(k, v)| (k.clone(), *v)).collect();
        if !values.is_empty() {
            steps.insert(line.step, values);
        }
    }
    steps.into_iter().map(|(step, values)| Measured { step, values }).collect()
}

/// In order of steps; where a resumed run wrote a step again, the later line counts.
fn by_step(lines: Vec<MetricsLine>) -> Vec<MetricsLine> {
    let steps: BTreeMap<usize, MetricsLine> = lines.into_iter().map(|line| (line.step, line)).collect();
    steps.into_values().collect()
}
