//! Run folders below a folder: what they are, how two differ, what can go.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::cell::{Cell, varied};
use super::summary::{Row, json, rows};
use crate::atomic::is_leftover;
use crate::bail_input;
use crate::run::RunDir;
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
    let cells = super::read_all(&[a.to_path_buf(), b.to_path_buf()])?;
    let [a, b] = &cells[..] else {
        bail_input!(
            "expected two run folders, found {} runs; name cells of a sweep by their folders",
            cells.len()
        );
    };
    let value = |cell: &Cell, key: &str| cell.setting(key).map_or(Value::Null, json);
    let mut keys = varied(&cells);
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
    Ok(Comparison { recipe, measures, same })
}

/// The row of a run in the summary, or why it cannot be read.
pub fn row(dir: &Path) -> std::result::Result<Row, String> {
    let read = || -> Result<Row> { rows(&[Cell::read(dir)?]).pop().context("a row a run") };
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
        if run.checkpoints().is_dir() {
            push(run.checkpoints(), "checkpoints of a finished run");
        }
        for folder in [dir.clone(), run.adapter(), run.model(), run.diff(), run.audit()] {
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
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}
