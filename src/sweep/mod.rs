//! Sweeps: the same organism with other values of some keys, each a cell that a process of its own trains and reads.
//!
//! A sweep folder holds `cells/<id>/`, each a run folder, and `jobs/<id>/`: what a process needs to know to work on the
//! cell, its lock, its log, and why it failed. An id ends in a hash of the cell's recipe, so the same cell is found
//! again by whichever sweep asks for it.

mod axes;
pub mod halving;
mod jobs;
pub mod memory;
mod slurm;
mod status;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::axes::{Axes, Combination};
pub use self::jobs::{Failed, HELD, Limits, Lock, run, stop_with_parent};
pub use self::slurm::{Slurm, write_slurm};
pub use self::status::{CellStatus, State, status};
use crate::atomic::{check_writable, write_atomically, write_json};
use crate::bail_input;
use crate::model::load::source;
use crate::recipe::{Recipe, ResolvedRecipe};
use crate::run::RunDir;

/// What a sweep folder is recognised by: the recipe that all its cells share.
const MARK: &str = "sweep.toml";

/// One run of a sweep.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Name of its folders.
    pub id: String,
    /// Its recipe.
    pub recipe: ResolvedRecipe,
    /// Where it is trained and read.
    pub run: RunDir,
    /// What its process needs.
    pub job: JobDir,
}

/// What is known of a cell before it runs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct CellPlan {
    /// Optimizer steps.
    pub steps: usize,
    /// Memory that its process is expected to take, as [`memory::estimate_gib`] estimates it.
    pub memory_gib: f64,
}

/// `jobs/<id>/` of a sweep folder.
#[derive(Debug, Clone)]
pub struct JobDir(PathBuf);

impl JobDir {
    /// Names the folder of a cell; touches nothing.
    pub fn new(sweep: &Path, id: &str) -> Self {
        Self(sweep.join("jobs").join(id))
    }
    /// The cell's recipe.
    pub fn recipe(&self) -> PathBuf {
        self.0.join("recipe.toml")
    }
    /// What is known before it runs.
    pub fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }
    /// Held by the process that works on the cell.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
    /// What its processes said.
    pub fn log(&self) -> PathBuf {
        self.0.join("log.txt")
    }
    /// Why the last process failed; absent if it did not.
    pub fn error(&self) -> PathBuf {
        self.0.join("error.txt")
    }

    /// Why the last process failed, if it did.
    pub fn failure(&self) -> Option<String> {
        Some(crate::input_file::read_to_string(&self.error()).ok()?.trim_end().to_string())
    }

    /// Writes what a process needs, where it is not there yet.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, recipe: &Recipe, plan: &CellPlan) -> Result<()> {
        std::fs::create_dir_all(&self.0).with_context(|| format!("creating {}", self.0.display()))?;
        let text = recipe.to_toml();
        if crate::input_file::read_to_string(&self.recipe()).ok().as_deref() != Some(&text) {
            write_atomically(&self.recipe(), text.as_bytes())?;
        }
        write_json(&self.plan(), plan)
    }
}

impl Cell {
    /// The cell of a recipe in a sweep folder; `values` are those of the grid's keys.
    pub fn new(sweep: &Path, recipe: ResolvedRecipe, values: &[(String, String)]) -> Self {
        let plain = format!("mix-{}_seed-{}", recipe.data.mix, recipe.seed);
        let hash = content_hash(&recipe);
        let id = named(sweep, &hash).unwrap_or_else(|| format!("{plain}{}_{hash}", readable(values)));
        Self { run: RunDir::new(sweep.join("cells").join(&id)), job: JobDir::new(sweep, &id), recipe, id }
    }

    /// Whether nothing is left to do.
    pub fn is_finished(&self) -> bool {
        is_finished(&self.run, &self.recipe)
    }
}

/// The run folder of a cell that a sweep has prepared, and its recipe as its process finds it.
///
/// # Errors
/// An [`crate::error::InputError`] if no cell has this name, or the recipe has become wrong (data that are gone).
pub fn prepared(sweep: &Path, id: &str) -> Result<(RunDir, Recipe)> {
    let job = JobDir::new(sweep, id);
    if id.contains(['/', '\\']) || !job.recipe().is_file() {
        bail_input!("{}: no cell {id:?}; trainer sweep --status lists them", sweep.display());
    }
    Ok((RunDir::new(sweep.join("cells").join(id)), Recipe::read(&job.recipe(), &[])?))
}

/// Whether nothing is left to do for a cell.
fn is_finished(run: &RunDir, recipe: &Recipe) -> bool {
    run.is_trained() && run.is_read() && (!recipe.behaviour.is_wanted() || run.behaviour_hashes().exists())
}

/// The cell of a hash, under whatever name another grid gave it.
fn named(sweep: &Path, hash: &str) -> Option<String> {
    let entries = ["jobs", "cells"].map(|folder| std::fs::read_dir(sweep.join(folder)));
    let names = entries.into_iter().flatten().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).find(|name| name.ends_with(&format!("_{hash}")))
}

/// The values of the grid's keys as part of a file name.
fn readable(values: &[(String, String)]) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_string();
    let mut out = String::new();
    for (key, value) in values.iter().filter(|(key, _)| key != "data.mix" && key != "seed") {
        let unique = values.iter().filter(|(k, _)| last(k) == last(key)).count() == 1;
        let name = if unique { last(key) } else { key.replace('.', "-") };
        // Of a path, its last part tells most.
        let value = value.trim_matches(['"', '\'']).rsplit('/').next().unwrap_or_default();
        let safe =
            value.chars().map(|c| if c.is_ascii_alphanumeric() || ".-+".contains(c) { c } else { '-' });
        out.push_str(&format!("_{name}-{}", safe.take(24).collect::<String>().trim_matches('-')));
    }
    out
}

/// Eight digits of the sha256 of what a recipe says beyond the defaults: a version with more keys finds the cell again.
fn content_hash(recipe: &Recipe) -> String {
    let text = toml::to_string(&recipe.beyond_defaults()).expect("a recipe holds nothing that TOML cannot");
    format!("{:x}", Sha256::digest(text))[..8].to_string()
}

/// What makes a recipe the same cell as another: its values beyond the defaults, with the real path of every file.
pub fn identity(recipe: &Recipe) -> String {
    let mut table = recipe.beyond_defaults();
    fn real(value: &mut toml::Value) {
        match value {
            toml::Value::String(text) => {
                if let Ok(path) = std::fs::canonicalize(&*text) {
                    *text = path.to_string_lossy().into_owned();
                }
            }
            toml::Value::Array(items) => items.iter_mut().for_each(real),
            toml::Value::Table(fields) => fields.iter_mut().for_each(|(_, value)| real(value)),
            toml::Value::Float(number) if *number == 0.0 => *number = 0.0,
            _ => {}
        }
    }
    table.iter_mut().for_each(|(_, value)| real(value));
    table.to_string()
}

/// Refuses a folder that holds something else; returns the content of its mark.
///
/// # Errors
/// An [`crate::error::InputError`].
pub fn must_be_this_sweep(sweep: &Path, recipe: &Recipe) -> Result<String> {
    let common = |recipe: &Recipe| {
        let mut recipe = recipe.clone();
        (recipe.data.mix, recipe.seed, recipe.data.self_samples) = (0.0, 0, 0);
        recipe.with_models(source::absolute)
    };
    let mark = sweep.join(MARK);
    if !mark.exists() {
        RunDir::new(sweep).must_be_new()?;
        check_writable(sweep)?;
    } else if common(&Recipe::stored(&mark)?) != common(recipe) {
        bail_input!(
            "{}: holds a sweep of another recipe; vary keys with --grid, or choose another --out",
            sweep.display()
        );
    }
    Ok(common(recipe).to_toml())
}

/// Writes the mark, and of every cell what its process needs.
///
/// # Errors
/// If the folder cannot be written.
pub fn prepare(sweep: &Path, mark: &str, cells: &[Cell], plans: &[CellPlan]) -> Result<()> {
    std::fs::create_dir_all(sweep).with_context(|| format!("creating {}", sweep.display()))?;
    write_atomically(&sweep.join(MARK), mark.as_bytes())?;
    cells.iter().zip(plans).try_for_each(|(cell, plan)| cell.job.write(&cell.recipe, plan))
}
