//! Run folders below some folders: listed, compared, and freed of what they no longer need.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::report::runs::{self, Comparison, Removable};
use crate::report::summary::Row;

/// One run folder in a list.
#[derive(Debug, Clone)]
pub struct ListedRun {
    /// The folder.
    pub path: PathBuf,
    /// `running`, `done`, `trained`, `read` or `unfinished`, as [`runs::state`] says.
    pub state: &'static str,
    /// Its row of the summary, or why it cannot be read.
    pub row: std::result::Result<Row, String>,
}

/// What finished runs do not need.
#[derive(Debug, Clone, Serialize)]
pub struct Pruned {
    /// Whether it was removed.
    pub removed: bool,
    /// How much it takes, all together.
    pub bytes: u64,
    /// Each file or folder.
    pub found: Vec<Removable>,
}

/// The run folders in some folders and below, by path.
///
/// # Errors
/// An [`crate::error::InputError`] if a folder is not there.
pub fn list_runs(dirs: &[PathBuf]) -> Result<Vec<ListedRun>> {
    let listed = |path: PathBuf| ListedRun { state: runs::state(&path), row: runs::row(&path), path };
    Ok(runs::find(dirs)?.into_iter().map(listed).collect())
}

/// What two run folders differ in.
///
/// # Errors
/// An [`crate::error::InputError`] if one is no run folder or cannot be understood.
pub fn compare_runs(a: &Path, b: &Path) -> Result<Comparison> {
    runs::compare(a, b)
}

/// Finds what the finished runs in some folders and below do not need, and removes it if `remove`.
///
/// # Errors
/// An [`crate::error::InputError`] if a folder is not there; if something cannot be removed.
pub fn prune_runs(dirs: &[PathBuf], remove: bool) -> Result<Pruned> {
    let found = runs::removable(&runs::find(dirs)?);
    if remove {
        runs::remove(&found)?;
    }
    Ok(Pruned { removed: remove, bytes: found.iter().map(|f| f.bytes).sum(), found })
}
