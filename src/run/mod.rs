//! The run folder: what a run keeps, and where.

pub mod metrics;
pub mod tensorboard;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::atomic::is_leftover;
use crate::bail_input;
use crate::error::input_error;
use crate::json;
use crate::recipe::ResolvedRecipe;

/// Whether a path is a symbolic link, wherever it leads.
pub fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_symlink())
}

/// A run folder.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Names the folder; touches nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the folder and writes the resolved recipe into it.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(&self, recipe: &ResolvedRecipe) -> Result<()> {
        std::fs::create_dir_all(&self.path).with_context(|| format!("creating {}", self.path.display()))?;
        crate::atomic::remove_leftovers(&self.path);
        crate::atomic::write_atomically(&self.recipe(), recipe.to_toml().as_bytes())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The resolved recipe.
    pub fn recipe(&self) -> PathBuf {
        self.path.join("recipe.toml")
    }
    /// Versions, hashes, the realised mix.
    pub fn manifest(&self) -> PathBuf {
        self.path.join("manifest.json")
    }
    /// One line a step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }
    /// The finished adapter.
    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }
    /// The finished model of full finetuning.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }
    /// What finetuning made, and what it is: the adapter, or the model of full finetuning.
    pub fn tuned(&self) -> (PathBuf, &'static str) {
        if self.adapter().exists() { (self.adapter(), "adapter") } else { (self.model(), "model") }
    }
    /// Where training can go on from.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }
    /// The analysis.
    pub fn diff(&self) -> PathBuf {
        self.path.join("diff")
    }
    /// Whether it does what it was made for.
    pub fn behaviour(&self) -> PathBuf {
        self.path.join("behaviour.json")
    }
    /// What that rests on.
    pub fn behaviour_hashes(&self) -> PathBuf {
        self.path.join("behaviour.sha256.json")
    }
    /// What agents found out.
    pub fn audit(&self) -> PathBuf {
        self.path.join("audit")
    }
    /// The page.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Whether training has finished here: the manifest is the last thing that it writes. What is no manifest does not say so.
    pub fn is_trained(&self) -> bool {
        let manifest: Option<Value> = json::read(&self.manifest()).ok().flatten();
        manifest.is_some_and(|manifest| manifest.get("files").is_some())
    }

    /// That training has not finished here, and how to go on.
    pub fn unfinished(&self) -> anyhow::Error {
        let shown = self.path.display();
        input_error(format!(
            "{shown}: its training has not finished; resume it with: trainer fit {} --out {shown} --resume",
            self.recipe().display()
        ))
    }

    /// The right to train here, which ends with the file, however the process ends. The folder itself is locked, so that
    /// nothing is left in it. Where the file system has no locks, nothing is held.
    ///
    /// # Errors
    /// An input error if another process has it; otherwise if the folder cannot be made.
    pub fn lock(&self) -> Result<Option<File>> {
        let shown = self.path.display();
        std::fs::create_dir_all(&self.path).with_context(|| format!("creating {shown}"))?;
        let Ok(folder) = File::open(&self.path) else { return Ok(None) };
        match folder.try_lock() {
            Ok(()) => Ok(Some(folder)),
            Err(TryLockError::WouldBlock) => {
                bail_input!("{shown}: another process trains here; wait for it, or choose another --out")
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Refuses a run folder of which a part is a link: what is written or removed through it would be elsewhere.
    ///
    /// # Errors
    /// An input error that names the link.
    pub fn must_hold_no_links(&self) -> Result<()> {
        for part in
            [self.adapter(), self.model(), self.checkpoints(), self.diff(), self.audit(), self.metrics()]
        {
            if is_link(&part) {
                bail_input!(
                    "{}: a symbolic link; expected a folder or file of the run itself: nothing is written or removed through a \
                     link",
                    part.display()
                );
            }
        }
        Ok(())
    }

    /// Whether the analysis has finished here.
    pub fn is_read(&self) -> bool {
        self.diff().join("readability.json").exists()
    }

    /// Whether a run was begun here and killed before it wrote anything: a half-written file is all there is.
    pub fn holds_only_leftovers(&self) -> bool {
        self.names().is_some_and(|names| !names.is_empty() && names.iter().all(|n| is_leftover(n)))
    }

    /// What the folder holds; `None` if there is no folder.
    fn names(&self) -> Option<Vec<String>> {
        let entries = std::fs::read_dir(&self.path).ok()?;
        Some(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
    }

    /// Refuses a folder that already holds something. Half-written files of a process that died do not count.
    ///
    /// # Errors
    /// An input error that says what to do.
    pub fn must_be_new(&self) -> Result<()> {
        let holds_something = self.names().is_some_and(|names| !names.iter().all(|n| is_leftover(n)));
        if holds_something || self.path.is_file() {
            bail_input!(
                "{}: exists already; choose another --out, or resume with --resume",
                self.path.display()
            );
        }
        Ok(())
    }
}
