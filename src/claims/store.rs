//! Claims of run folders and of sweep folders: read where they are fresh, computed where not, written.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::across::AcrossRuns;
use super::file::{FILE, RestsOn, fresh, hashes};
use super::run::{ClaimedRun, RunClaims};
use crate::atomic::write_json;
use crate::results;
use crate::run::RunDir;

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
pub fn across_runs(runs: &[ClaimedRun]) -> Result<AcrossRuns> {
    let (sweep, rests_on) = rests_on_runs(runs)?;
    let fresh = sweep.and_then(|sweep| fresh(&sweep, &rests_on));
    Ok(fresh.unwrap_or_else(|| AcrossRuns::of(runs, rests_on)))
}

/// What claims on some runs together rest on, and the sweep folder whose cells all of them are.
pub(super) fn rests_on_runs(runs: &[ClaimedRun]) -> Result<(Option<PathBuf>, RestsOn)> {
    let mut rests_on = RestsOn::new();
    let sweep = sweep_of(runs);
    for run in runs {
        // Named as the sweep folder has it; of runs from several places, as the report names them.
        let name = match (&sweep, run.dir.file_name()) {
            (Some(_), Some(name)) => format!("cells/{}", name.to_string_lossy()),
            _ => run.id.clone(),
        };
        let metrics = RunDir::new(&run.dir).metrics();
        let metrics = metrics.strip_prefix(&run.dir).unwrap_or(&metrics).to_path_buf();
        let all = run.claims.rests_on.clone().into_iter().chain(hashes(&run.dir, &[metrics])?);
        rests_on.extend(all.map(|(file, sha256)| (format!("{name}/{file}"), sha256)));
    }
    Ok((sweep, rests_on))
}

/// Writes the claims on every cell of a sweep folder and on all of them together, where those there are not fresh.
///
/// # Errors
/// As [`results::read_all`]; if a folder cannot be written.
pub fn write_sweep(dir: &Path) -> Result<(Vec<ClaimedRun>, AcrossRuns)> {
    let runs = read_all(&[dir.to_path_buf()])?;
    for run in &runs {
        let is_fresh = fresh::<RunClaims>(&run.dir, &run.claims.rests_on).is_some();
        // Of a run that has only begun there is nothing to say.
        let rests_on_results = run.claims.rests_on.keys().any(|file| file != "recipe.toml");
        if !is_fresh && rests_on_results {
            run.write()?;
        }
    }
    let across = across_runs(&runs)?;
    write_json(&dir.join(FILE), &across)?;
    Ok((runs, across))
}

/// The sweep folder whose cells all of the runs are.
fn sweep_of(runs: &[ClaimedRun]) -> Option<PathBuf> {
    let cells = runs.first()?.dir.parent().filter(|cells| cells.ends_with("cells"))?;
    let all = runs.iter().all(|run| run.dir.parent() == Some(cells));
    all.then(|| cells.parent().map(Path::to_path_buf)).flatten()
}
