//! Proving run folders.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::fit::fit_into;
use crate::bail_input;
use crate::error::Interrupted;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::Recipe;
use crate::run::RunDir;
use crate::sha256::sha256_file;
use crate::verify::{self, Bases, Check, Moved, manifest, must_be_trained, retrain};

/// What to prove, and how.
#[derive(Debug, Clone, Default)]
pub struct VerifyRequest {
    /// Run folders, or sweep folders with `cells/ID/`.
    pub dirs: Vec<PathBuf>,
    /// Folder to look in first for files that have moved.
    pub data: Option<PathBuf>,
    /// Whether each run whose hashes hold is trained again and compared.
    pub retrain: bool,
}

/// What was found of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The run folder.
    pub run: PathBuf,
    /// Whether every check holds.
    pub holds: bool,
    /// sha256 of its `manifest.json`.
    pub manifest_sha256: String,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// What was found of the `claims.json` of a sweep folder.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedSweep {
    /// The sweep folder.
    pub sweep: PathBuf,
    /// Whether every check holds.
    pub holds: bool,
    /// What was looked at; nothing where the folder has no claims.
    pub checks: Vec<Check>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyOutcome {
    /// Of each run.
    pub runs: Vec<Verified>,
    /// Of each folder that holds cells.
    pub sweeps: Vec<VerifiedSweep>,
}

/// Computes every hash and every claim of some runs again; `each` is called with each run as soon as it is proved.
///
/// # Errors
/// An input error for a folder that is no finished run; [`Interrupted`]; or what `each` returns.
pub fn verify(
    request: &VerifyRequest,
    interrupt: &Interrupt,
    mut each: impl FnMut(&Verified) -> Result<()>,
) -> Result<VerifyOutcome> {
    if let Some(data) = request.data.as_ref().filter(|data| !data.is_dir()) {
        bail_input!("--data {}: no such folder", data.display());
    }
    let (moved, mut bases) = (Moved { data: request.data.clone() }, Bases::default());
    let mut all = Vec::new();
    for run in &runs(&request.dirs)? {
        let mut checks = verify::verify(run, &moved, &mut bases, interrupt)?;
        if request.retrain {
            let note = match checks.iter().all(Check::holds) {
                true => train_again(run, &moved, &mut checks, interrupt)?,
                false => "not trained again: see above".into(),
            };
            progress::say(note);
        }
        let verified = Verified {
            run: run.path().into(),
            holds: checks.iter().all(Check::holds),
            manifest_sha256: sha256_file(&run.manifest())?,
            checks,
        };
        each(&verified)?;
        all.push(verified);
    }
    let sweeps = request.dirs.iter().filter(|dir| dir.join("cells").is_dir());
    let of_sweep = |dir: &PathBuf| {
        let checks = verify::verify_sweep(dir);
        VerifiedSweep { sweep: dir.clone(), holds: checks.iter().all(Check::holds), checks }
    };
    Ok(VerifyOutcome { runs: all, sweeps: sweeps.map(of_sweep).collect() })
}

/// The runs that the folders name, all of them finished.
fn runs(dirs: &[PathBuf]) -> Result<Vec<RunDir>> {
    let mut runs = Vec::new();
    for dir in dirs {
        let cells = dir.join("cells");
        match cells.is_dir() {
            true => runs.extend(folders(&cells)?.into_iter().map(RunDir::new)),
            false => runs.push(RunDir::new(dir)),
        }
    }
    runs.iter().try_for_each(must_be_trained)?;
    Ok(runs)
}

/// The folders in a folder, by name.
fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        found.extend(Some(entry?.path()).filter(|path| path.is_dir()));
    }
    found.sort();
    if found.is_empty() {
        bail_input!("{}: no run in it yet", dir.display());
    }
    Ok(found)
}

/// A folder that is gone when this is.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Trains a run again, adds what the comparison gives, and says how it went.
fn train_again(
    run: &RunDir,
    moved: &Moved,
    checks: &mut Vec<Check>,
    interrupt: &Interrupt,
) -> Result<String> {
    let recorded = manifest(run)?;
    let shown = run.path().display();
    progress::say(format_args!(
        "{shown}: training it again; its training took {:.0} s, evaluation excluded",
        recorded.elapsed_s
    ));
    let differences = retrain::differences(&recorded);
    if !differences.is_empty() {
        progress::say(format_args!(
            "this is another machine or program ({}): where bytes differ, losses are compared, within {} %",
            differences.join("; "),
            100.0 * retrain::LOSS_TOLERANCE
        ));
    }
    let recipe = moved.recipe(Recipe::stored(&run.recipe())?);
    let name = format!("trainer-verify-{}", std::process::id());
    let temporary = Temporary(std::env::temp_dir().join(name));
    let again = RunDir::new(&temporary.0);
    fit_into(recipe, &again, false, interrupt).map_err(|e| match e.is::<Interrupted>() {
        true => Interrupted { hint: Some("the second training is not kept".into()) }.into(),
        false => e,
    })?;
    checks.extend(retrain::compare(run, &recorded, &again)?);
    Ok(format!("{shown}: trained again"))
}
