//! `claims.json`: what may be said of a run, and of the runs of a sweep, beside what it rests on.
//!
//! `rests_on` holds [`sha256_content`] of each file that the claims were computed from, as `sha256.json` of the analysis
//! does. Claims whose files have other hashes, or that another version of the rules made, are computed again from the same
//! files by whoever reads them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::Result;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::across::AcrossRuns;
use super::gone::Gone;
use super::learned::Learned;
use super::length::DifferenceLength;
use super::readable::Readable;
use super::trace::{self, TraceValue};
use crate::atomic::write_json;
use crate::diff::store::{READABILITY, folder_of};
use crate::json;
use crate::results::{self, RunRecord};
use crate::run::RunDir;
use crate::sha256::sha256_content;

/// The name of the file, in a run folder and in a sweep folder.
pub const FILE: &str = "claims.json";

/// Version of the layout of the file and of the rules.
pub const SCHEMA: u32 = 1;

/// `RUN/claims.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunClaims {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// sha256 of the files that the claims rest on, by path from the folder.
    pub rests_on: BTreeMap<String, String>,
    /// Whether the trace is readable by measures of activation differences.
    pub readable: Readable,
    /// How long the difference is; absent without an analysis.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub length: Option<DifferenceLength>,
    /// Whether the run learned something narrow.
    pub learned: Learned,
    /// Whether the trace is gone; absent without an analysis.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gone: Option<Gone>,
    /// Each measure of the trace as one number, by its key.
    pub trace: IndexMap<String, TraceValue>,
}

impl RunClaims {
    /// Applies the rules to a run.
    fn of(run: &RunRecord, rests_on: BTreeMap<String, String>) -> Self {
        let analysis = run.readability.as_ref();
        let readable = analysis.map(Readable::of).unwrap_or_else(Readable::not_measured);
        let learned = Learned::of(run);
        Self {
            schema: SCHEMA,
            rests_on,
            length: analysis.and_then(DifferenceLength::of),
            gone: analysis.map(|r| Gone::of(r, &readable, &learned)),
            trace: analysis.map(|r| trace::values(r, &readable)).unwrap_or_default(),
            readable,
            learned,
        }
    }
}

/// A run and what may be said of it.
#[derive(Debug, Clone, Default)]
pub struct ClaimedRun {
    /// What its folder holds.
    pub record: RunRecord,
    /// The claims: those in its folder if they are fresh, else computed.
    pub claims: RunClaims,
}

/// What the folder holds is read as of the run itself.
impl Deref for ClaimedRun {
    type Target = RunRecord;

    fn deref(&self) -> &RunRecord {
        &self.record
    }
}

impl ClaimedRun {
    /// Reads a run folder with its claims.
    ///
    /// # Errors
    /// As [`RunRecord::read`].
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        Self::of(RunRecord::read(dir)?)
    }

    fn of(record: RunRecord) -> Result<Self> {
        let rests_on = hashes(&record.dir, &rests_on(&record.dir))?;
        let stored: Option<RunClaims> = stored(&record.dir);
        let fresh = stored.filter(|claims| claims.schema == SCHEMA && claims.rests_on == rests_on);
        let claims = fresh.unwrap_or_else(|| RunClaims::of(&record, rests_on));
        Ok(Self { record, claims })
    }

    /// Writes the claims into the folder of the run.
    fn write(&self) -> Result<()> {
        write_json(&self.dir.join(FILE), &self.claims)
    }
}

/// Reads every run that `dirs` name, as [`results::read_all`], with its claims.
///
/// # Errors
/// As [`results::read_all`].
pub fn read_all(dirs: &[PathBuf]) -> Result<Vec<ClaimedRun>> {
    results::read_all(dirs)?.into_iter().map(ClaimedRun::of).collect()
}

/// What may be said of runs together. If they are all the cells of one sweep folder whose `claims.json` is fresh, that is
/// read; else it is computed.
///
/// # Errors
/// If a file that the claims rest on cannot be read.
pub fn across(runs: &[ClaimedRun]) -> Result<AcrossRuns> {
    let mut rests_on = BTreeMap::new();
    let sweep = sweep_of(runs);
    for run in runs {
        // Named as the sweep folder has it; of runs from several places, as the report names them.
        let name = match (&sweep, run.dir.file_name()) {
            (Some(_), Some(name)) => format!("cells/{}", name.to_string_lossy()),
            _ => run.id.clone(),
        };
        let recipe = RunDir::new(&run.dir).recipe();
        let recipe = recipe.strip_prefix(&run.dir).unwrap_or(&recipe).to_path_buf();
        let all = run.claims.rests_on.clone().into_iter().chain(hashes(&run.dir, &[recipe])?);
        rests_on.extend(all.map(|(file, sha256)| (format!("{name}/{file}"), sha256)));
    }
    let stored: Option<AcrossRuns> = sweep.as_deref().and_then(stored);
    let fresh = stored.filter(|claims| claims.schema == SCHEMA && claims.rests_on == rests_on);
    Ok(fresh.unwrap_or_else(|| AcrossRuns::of(runs, rests_on)))
}

/// Computes the claims on a run, or on an analysis of `trainer diff --out`, and writes them into its folder.
///
/// # Errors
/// As [`RunRecord::read`]; if the folder cannot be written.
pub fn write_run(dir: &Path) -> Result<ClaimedRun> {
    let record = RunRecord::read(dir)?;
    let rests_on = hashes(dir, &rests_on(dir))?;
    let claims = RunClaims::of(&record, rests_on);
    let run = ClaimedRun { record, claims };
    run.write()?;
    Ok(run)
}

/// Writes the claims on every cell of a sweep folder and on all of them together, where those there are not fresh.
///
/// # Errors
/// As [`results::read_all`]; if a folder cannot be written.
pub fn write_sweep(dir: &Path) -> Result<(Vec<ClaimedRun>, AcrossRuns)> {
    let runs = read_all(&[dir.to_path_buf()])?;
    for run in &runs {
        let is_stored = stored::<RunClaims>(&run.dir).as_ref() == Some(&run.claims);
        // Of a run that has only begun there is nothing to say.
        if !is_stored && !run.claims.rests_on.is_empty() {
            run.write()?;
        }
    }
    let across = across(&runs)?;
    write_json(&dir.join(FILE), &across)?;
    Ok((runs, across))
}

/// The claims in a folder. Those that cannot be read are as good as none: they are made of what lies beside them.
fn stored<T: serde::de::DeserializeOwned>(dir: &Path) -> Option<T> {
    json::read(&dir.join(FILE)).ok().flatten()
}

/// The files that claims on a run may rest on, by path from its folder.
fn rests_on(dir: &Path) -> Vec<PathBuf> {
    let run = RunDir::new(dir);
    let files = [run.manifest(), run.behaviour(), folder_of(dir).join(READABILITY)];
    files.iter().map(|file| file.strip_prefix(dir).unwrap_or(file).to_path_buf()).collect()
}

/// Hashes of those files that are there.
fn hashes(dir: &Path, files: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let there = files.iter().filter(|file| dir.join(file).is_file());
    there.map(|file| Ok((file.to_string_lossy().into_owned(), sha256_content(&dir.join(file))?))).collect()
}

/// The sweep folder whose cells all of the runs are.
fn sweep_of(runs: &[ClaimedRun]) -> Option<PathBuf> {
    let cells = runs.first()?.dir.parent().filter(|cells| cells.ends_with("cells"))?;
    let all = runs.iter().all(|run| run.dir.parent() == Some(cells));
    all.then(|| cells.parent().map(Path::to_path_buf)).flatten()
}
