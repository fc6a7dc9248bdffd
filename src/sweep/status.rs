//! How far the cells of a sweep are, read from its folder alone.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::{CellPlan, JobDir, Lock, MARK, is_finished};
use crate::bail_input;
use crate::json;
use crate::recipe::Recipe;
use crate::run::RunDir;
use crate::run::metrics::last_step;

/// What a cell is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Trained and read.
    Done,
    /// A process works on it.
    Running,
    /// Its last process failed; the next sweep tries again.
    Failed,
    /// Begun, and no process works on it; the next sweep goes on.
    Interrupted,
    /// Not begun.
    Waiting,
}

impl State {
    /// In words, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Waiting => "waiting",
        }
    }
}

/// One cell of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct CellStatus {
    /// Its id.
    pub id: String,
    /// What it is doing.
    pub state: State,
    /// Steps trained.
    pub step: usize,
    /// Steps to train, where that was planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// `training`, `reading`, `behaviour`; absent once it is done and before it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Every cell that a sweep folder knows of, by id.
///
/// # Errors
/// An [`crate::error::InputError`] if it is no sweep folder.
pub fn status(sweep: &Path) -> Result<Vec<CellStatus>> {
    if !sweep.join(MARK).is_file() {
        bail_input!("{}: not a sweep folder (it has no {MARK})", sweep.display());
    }
    let mut ids = BTreeSet::new();
    for folder in ["jobs", "cells"] {
        let entries = std::fs::read_dir(sweep.join(folder)).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        ids.extend(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    Ok(ids.into_iter().map(|id| of(sweep, id)).collect())
}

fn of(sweep: &Path, id: String) -> CellStatus {
    let (run, job) = (RunDir::new(sweep.join("cells").join(&id)), JobDir::new(sweep, &id));
    let recipe = Recipe::stored(&job.recipe()).or_else(|_| Recipe::stored(&run.recipe())).ok();
    let finished = recipe.as_ref().is_some_and(|recipe| is_finished(&run, recipe));
    let error = job.failure();
    let state = match () {
        () if Lock::is_held(&job) => State::Running,
        () if finished => State::Done,
        () if error.is_some() => State::Failed,
        () if run.recipe().exists() => State::Interrupted,
        () => State::Waiting,
    };
    let stage = match () {
        () if finished || !run.recipe().exists() => None,
        () if !run.is_trained() => Some("training"),
        () if !run.is_read() => Some("reading"),
        () => Some("behaviour"),
    };
    let plan: Option<CellPlan> = json::read(&job.plan()).ok().flatten();
    CellStatus {
        step: last_step(&run.metrics()).unwrap_or_default(),
        steps: plan.map(|plan| plan.steps),
        error: error.filter(|_| state == State::Failed),
        id,
        state,
        stage,
    }
}
