//! Run folders and sweep folders, read strictly: each file once, by the module that writes it, with the faults of all
//! files listed together. Whatever a folder lacks is absent, never zero.

mod ranges;
mod run_record;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

pub use self::run_record::{MixRatio, RunRecord, StepMeasures};
use self::run_record::{looks_like_run, must_be_folder};
use crate::error::{InputError, input_error, or_collect};
use crate::progress;

/// Reads every run that `dirs` name; each is a run folder or a sweep folder with `cells/<id>/`.
///
/// The cells of a sweep come by mix ratio and seed. All faults of all folders are listed together.
pub fn read_all(dirs: &[PathBuf]) -> Result<Vec<RunRecord>> {
    let mut cells = Vec::new();
    let mut faults = Vec::new();
    for dir in dirs {
        cells.extend(or_collect(read_one(dir), &mut faults)?.unwrap_or_default());
    }
    InputError::unless_empty(faults)?;
    let mut cells = each_once(cells);
    tell_apart(&mut cells);
    Ok(cells)
}

/// The runs without those that are named again, by another path or as a copy: a run is one seed however often it is given.
fn each_once(cells: Vec<RunRecord>) -> Vec<RunRecord> {
    let mut kept: Vec<(PathBuf, Option<String>, RunRecord)> = Vec::new();
    for cell in cells {
        let place = fs::canonicalize(&cell.dir).unwrap_or_else(|_| cell.dir.clone());
        let identity = cell.identity();
        let same = kept.iter().find(|(at, of, _)| *at == place || (of.is_some() && *of == identity));
        match same {
            Some((at, _, first)) if *at == place && first.dir == cell.dir => {
                progress::say(format_args!("{}: given twice; counted once", cell.dir.display()));
            }
            Some((_, _, first)) => progress::say(format_args!(
                "{}: the same run as {} (recipe, data, seed and weights); counted once",
                cell.dir.display(),
                first.dir.display()
            )),
            None => kept.push((place, identity, cell)),
        }
    }
    kept.into_iter().map(|(_, _, cell)| cell).collect()
}

fn read_one(dir: &Path) -> Result<Vec<RunRecord>> {
    must_be_folder(dir)?;
    let cells_dir = dir.join("cells");
    if !cells_dir.is_dir() {
        if !looks_like_run(dir) {
            return Err(input_error(format!(
                "{}: neither a run folder (recipe.toml, manifest.json, metrics.jsonl, diff/) nor a sweep folder (cells/)",
                dir.display()
            )));
        }
        return Ok(vec![RunRecord::read(dir)?]);
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
        cells.extend(or_collect(RunRecord::read_folder(folder), &mut faults)?);
    }
    faults.sort();
    InputError::unless_empty(faults)?;
    let order = |cell: &RunRecord| cell.mix().nominal().unwrap_or(f64::INFINITY);
    cells.sort_by(|a, b| order(a).total_cmp(&order(b)).then(a.seed().cmp(&b.seed())).then(a.id.cmp(&b.id)));
    Ok(cells)
}

/// Gives cells of the same folder name (two sweeps side by side) the name of the folder above in front,
/// and a number where that does not help.
fn tell_apart(cells: &mut [RunRecord]) {
    let taken = |cells: &[RunRecord], id: &str| cells.iter().filter(|c| c.id == id).count() > 1;
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

/// The keys, in order of name, whose values differ between the recipes of some runs: what a sweep varies. Runs without a
/// recipe say nothing. Name, description, seed and mix ratio are left out: they are shown anyway.
pub fn varied<'a>(runs: impl IntoIterator<Item = &'a RunRecord>) -> Vec<String> {
    let with_recipe = runs.into_iter().filter(|run| run.recipe_table().is_some());
    let recipes: Vec<_> = with_recipe.map(RunRecord::recipe_leaves).collect();
    let keys: BTreeSet<&String> = recipes.iter().flat_map(|recipe| recipe.keys()).collect();
    let differs = |key: &&String| recipes.iter().any(|r| r.get(*key) != recipes[0].get(*key));
    let told = |key: &&String| ["name", "description", "seed", "data.mix"].contains(&key.as_str());
    keys.into_iter().filter(|key| differs(key) && !told(key)).cloned().collect()
}
