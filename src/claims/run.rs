//! What may be said of one run.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::Result;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::file::{Dated, FILE, RestsOn, SCHEMA, fresh, hashes};
use super::learned::Learned;
use super::length::DifferenceLength;
use super::quality::QualityClaim;
use super::readable::Readable;
use super::stronger::StrongerReaders;
use super::trace::{self, TraceValue};
use super::verdict::Verdict;
use crate::atomic::write_json;
use crate::caught::caught;
use crate::diff::store::{READABILITY, folder_of};
use crate::results::RunRecord;
use crate::run::RunDir;

/// `RUN/claims.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunClaims {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// sha256 of the files that the claims rest on, by path from the folder.
    pub rests_on: RestsOn,
    /// Whether the trace is readable by measures of activation differences.
    pub readable: Readable,
    /// How long the difference is; absent without an analysis.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub length: Option<DifferenceLength>,
    /// Whether the run learned something narrow.
    pub learned: Learned,
    /// Whether it is still a language model; absent without a quality panel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quality: Option<QualityClaim>,
    /// What stronger readers of activation differences say; absent without an analysis.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stronger: Option<StrongerReaders>,
    /// What all readers say together; absent without an analysis.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
    /// Each measure of the trace as one number, by its key.
    pub trace: IndexMap<String, TraceValue>,
}

impl RunClaims {
    /// The claims as the files of a run say today, whatever its `claims.json` says.
    ///
    /// # Errors
    /// If a file that they rest on cannot be read.
    pub(super) fn computed(run: &RunRecord) -> Result<Self> {
        let rests_on = hashes(&run.dir, &rests_on(&run.dir))?;
        caught(|| Self::of(run, rests_on)).map_err(|said| run.does_not_fit(&said))
    }

    /// Applies the rules to a run.
    fn of(run: &RunRecord, rests_on: RestsOn) -> Self {
        let analysis = run.readability.as_ref();
        let readable = analysis.map(Readable::of).unwrap_or_else(Readable::not_measured);
        let learned = Learned::of(run);
        let stronger = analysis.map(StrongerReaders::of);
        let verdict = analysis
            .zip(stronger.as_ref())
            .map(|(r, stronger)| Verdict::of(r, &readable, stronger, &learned, &run.primaries()));
        let trace = analysis.zip(verdict.as_ref()).map(|(r, verdict)| trace::values(r, &readable, verdict));
        Self {
            schema: SCHEMA,
            rests_on,
            length: analysis.and_then(DifferenceLength::of),
            stronger,
            verdict,
            trace: trace.unwrap_or_default(),
            readable,
            learned,
            quality: run.behaviour.as_ref().and_then(QualityClaim::of),
        }
    }
}

impl Dated for RunClaims {
    fn date(&self) -> (u32, &RestsOn) {
        (self.schema, &self.rests_on)
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

    pub(super) fn of(record: RunRecord) -> Result<Self> {
        let rests_on = hashes(&record.dir, &rests_on(&record.dir))?;
        let fresh = fresh(&record.dir, &rests_on);
        let claims = fresh.unwrap_or_else(|| RunClaims::of(&record, rests_on));
        Ok(Self { record, claims })
    }

    /// Writes the claims into the folder of the run.
    pub(super) fn write(&self) -> Result<()> {
        write_json(&self.dir.join(FILE), &self.claims)
    }
}

/// Computes the claims on a run, or on an analysis of `trainer diff --out`, and writes them into its folder.
///
/// # Errors
/// As [`RunRecord::read`]; if the folder cannot be written.
pub fn write_run(dir: &Path) -> Result<ClaimedRun> {
    let record = RunRecord::read(dir)?;
    let run = ClaimedRun { claims: RunClaims::computed(&record)?, record };
    run.write()?;
    Ok(run)
}

/// The files that claims on a run may rest on, by path from its folder.
fn rests_on(dir: &Path) -> Vec<PathBuf> {
    let run = RunDir::new(dir);
    let files = [run.recipe(), run.manifest(), run.behaviour(), folder_of(dir).join(READABILITY)];
    files.iter().map(|file| file.strip_prefix(dir).unwrap_or(file).to_path_buf()).collect()
}
