//! Run folders below a folder: what they are, how two differ, what can go.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::number::{ABSENT, fixed, interval, p_value};
use super::summary::{Row, rows};
use crate::atomic::is_leftover;
use crate::bail_input;
use crate::caught::caught;
use crate::claims::summary::recipe_value;
use crate::claims::{self, ClaimedRun};
use crate::results::{RunRecord, varied};
use crate::run::{RunDir, is_link};
use crate::sweep::{JobDir, Lock};

/// How many folders deep runs are looked for.
const DEPTH: usize = 6;

/// Every run folder in `dirs` and below, by path. What stands within a run folder is no further run.
///
/// # Errors
/// An [`crate::error::InputError`] if a folder is not there.
pub fn find(dirs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in dirs {
        if !dir.is_dir() {
            bail_input!("{}: no such folder", dir.display());
        }
        walk(dir, DEPTH, &mut found);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn walk(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let run = RunDir::new(dir);
    if run.manifest().is_file() || run.metrics().is_file() || run.is_read() {
        found.push(dir.to_path_buf());
    } else if depth > 0 {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        // Links may lead round in a circle.
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.for_each(|entry| walk(&entry.path(), depth - 1, found));
    }
}

/// `running` (a sweep works on it), `done`, `trained` (not read yet), `read` (an analysis without training) or `unfinished`.
pub fn state(dir: &Path) -> &'static str {
    let run = RunDir::new(dir);
    match (run.is_trained(), run.is_read()) {
        _ if is_running(dir) => "running",
        (true, true) => "done",
        (true, false) => "trained",
        (false, true) => "read",
        (false, false) => "unfinished",
    }
}

/// Whether a sweep's process works on a cell.
fn is_running(dir: &Path) -> bool {
    let id = dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let sweep = dir.parent().filter(|cells| cells.ends_with("cells")).and_then(Path::parent);
    matches!((sweep, id), (Some(sweep), Some(id)) if Lock::is_held(&JobDir::new(sweep, &id)))
}

/// What two runs differ in.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Keys of the recipes, by name.
    pub recipe: Vec<Difference>,
    /// Columns of the summary, in its order; times are left out.
    pub measures: Vec<Difference>,
    /// Number of columns that both have and that are the same.
    pub same: usize,
    /// The main ones among the measures, in words.
    #[serde(skip)]
    pub headlines: Vec<Headline>,
}

impl Comparison {
    /// Number of measures that differ and that no headline has.
    pub fn further(&self) -> usize {
        let told = |name: &String| self.headlines.iter().any(|h| h.columns.contains(name));
        self.measures.iter().filter(|m| !told(&m.name)).count()
    }
}

/// A main measure with other values.
#[derive(Debug, Clone)]
pub struct Headline {
    /// The column of its value.
    pub name: String,
    /// In either run, with position, interval and p-value where it has them.
    pub values: [String; 2],
    /// The second less the first.
    pub change: Option<f64>,
    /// All columns of the summary that it holds.
    columns: Vec<String>,
}

/// One key or measure with other values.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// In the first run; null where it has none.
    pub a: Value,
    /// In the second run.
    pub b: Value,
    /// The second less the first, of two numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<f64>,
}

impl Difference {
    fn new(name: &str, a: Value, b: Value) -> Self {
        let change = a.as_f64().zip(b.as_f64()).map(|(a, b)| b - a);
        Self { name: name.into(), a, b, change }
    }
}

/// Compares two run folders.
///
/// # Errors
/// An [`crate::error::InputError`] if one is no run folder or cannot be understood.
pub fn compare(a: &Path, b: &Path) -> Result<Comparison> {
    let cells = claims::read_all(&[a.to_path_buf(), b.to_path_buf()])?;
    let [a, b] = &cells[..] else {
        bail_input!(
            "expected two run folders, found {} runs; name cells of a sweep by their folders",
            cells.len()
        );
    };
    let value = |run: &RunRecord, key: &str| run.setting(key).map_or(Value::Null, recipe_value);
    let mut keys = varied(cells.iter().map(|run| &run.record));
    for key in ["data.mix", "description", "name", "seed"] {
        if a.setting(key) != b.setting(key) {
            keys.push(key.into());
        }
    }
    keys.sort();
    let recipe = keys.iter().map(|key| Difference::new(key, value(a, key), value(b, key))).collect();

    let rows = rows(&cells);
    let (mut measures, mut same) = (Vec::new(), 0);
    for (name, before) in &rows[0] {
        let after = rows[1].get(name).cloned().unwrap_or_default();
        let told =
            keys.contains(name) || ["id", "name", "seed", "elapsed_s", "mix_asked"].contains(&name.as_str());
        match (before, &after) {
            _ if told => {}
            (Value::Null, Value::Null) => {}
            (a, b) if a == b => same += 1,
            (a, b) => measures.push(Difference::new(name, a.clone(), b.clone())),
        }
    }
    let headlines = headlines(&measures, &rows[0], &rows[1]);
    Ok(Comparison { recipe, measures, same, headlines })
}

/// The columns that are shown first, beside the main value of behaviour.
const HEADLINES: [&str; 16] = [
    "loss_narrow_base",
    "loss_narrow_tuned",
    "loss_pretraining_base",
    "loss_pretraining_tuned",
    "loss_chat_base",
    "loss_chat_tuned",
    "lens_relevance_max",
    "lens_relevance_mean",
    "patchscope_relevance_max",
    "patchscope_relevance_mean",
    "lift_auroc_mean",
    "similarity_steered_narrow_max",
    "similarity_steered_narrow_mean",
    "similarity_gain_max",
    "bias_share_specific",
    "probe_auroc",
];

fn headlines(measures: &[Difference], a: &Row, b: &Row) -> Vec<Headline> {
    // The first of the columns of behaviour is the main value of its family.
    let is_change = |name: &&String| name.starts_with("behaviour_") && name.ends_with("_change");
    let behaviour = a.keys().find(is_change).map(String::as_str);
    let mut found = Vec::new();
    for name in HEADLINES.into_iter().chain(behaviour) {
        if let Some(difference) = measures.iter().find(|m| m.name == name) {
            let mut columns = vec![name.to_string()];
            let values = [a, b].map(|row| with_evidence(row, name, &mut columns));
            found.push(Headline { name: name.into(), values, change: difference.change, columns });
        }
    }
    found
}

/// A value with what tells how sure it is: position, 95 % interval and p-value, those that the row has. The columns that
/// were used are added to `columns`.
fn with_evidence(row: &Row, name: &str, columns: &mut Vec<String>) -> String {
    let mut get = |column: String| -> Option<f64> {
        let value = row.get(&column)?.as_f64()?;
        columns.push(column);
        Some(value)
    };
    let Some(value) = get(name.into()) else { return ABSENT.into() };
    let mut text = fixed(value, 3);
    // What belongs to the best position stands in the columns of that position.
    let (stem, end) = match name.strip_suffix("_max") {
        Some(stem) => match get(format!("{name}_position")) {
            Some(position) => {
                text.push_str(&format!(" at {position}"));
                (stem, format!("_p{position}"))
            }
            None => return text,
        },
        None => (name, String::new()),
    };
    if let Some(low) = get(format!("{stem}_low{end}"))
        && let Some(high) = get(format!("{stem}_high{end}"))
    {
        text.push_str(&format!(" {}", interval([low, high], 3)));
    }
    if let Some(p) = get(format!("{stem}_pvalue{end}")) {
        text.push_str(&format!(", p {}", p_value(p)));
    }
    text
}

/// The row of a run in the summary, or why it cannot be read.
pub fn row(dir: &Path) -> std::result::Result<Row, String> {
    let read = || -> Result<Row> {
        let run = ClaimedRun::read(dir)?;
        let found = caught(|| rows(std::slice::from_ref(&run)).pop());
        found.map_err(|said| run.does_not_fit(&said))?.context("a row a run")
    };
    read().map_err(|e| format!("{e:#}"))
}

/// Something that no finished run needs.
#[derive(Debug, Clone, Serialize)]
pub struct Removable {
    /// File or folder.
    pub path: PathBuf,
    /// Bytes that it takes.
    pub bytes: u64,
    /// What it is.
    pub why: &'static str,
}

/// Checkpoints of finished runs, and what processes that died left half-written in them. Runs that are not trained to the
/// end or that a sweep works on are left alone.
pub fn removable(runs: &[PathBuf]) -> Vec<Removable> {
    let mut found = Vec::new();
    for dir in runs.iter().filter(|dir| !is_running(dir)) {
        let run = RunDir::new(dir);
        if !run.is_trained() {
            continue;
        }
        let mut push = |path: PathBuf, why| found.push(Removable { bytes: size(&path), path, why });
        // What is behind a link is not of the run.
        if run.checkpoints().is_dir() && !is_link(&run.checkpoints()) {
            push(run.checkpoints(), "checkpoints of a finished run");
        }
        for folder in [dir.clone(), run.adapter(), run.model(), run.diff(), run.audit()] {
            if folder != *dir && is_link(&folder) {
                continue;
            }
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if is_leftover(&name) && !is_alive(&name) {
                    push(entry.path(), "left half-written by a process that died");
                }
            }
        }
    }
    found
}

/// Whether the process is running that is writing a file `.NAME.PROCESS.part`. Where that cannot be told, it is not.
fn is_alive(leftover: &str) -> bool {
    let process = leftover.trim_end_matches(".part").rsplit('.').next().unwrap_or_default();
    Path::new("/proc").join(process).exists()
}

fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

/// Removes what [`removable`] found.
///
/// # Errors
/// If something cannot be removed.
pub fn remove(found: &[Removable]) -> Result<()> {
    for Removable { path, .. } in found {
        let removed =
            if path.is_dir() && !is_link(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}
