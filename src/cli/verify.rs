//! `trainer verify`: proves run folders.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::fit;
use crate::bail_input;
use crate::error::Interrupted;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::Recipe;
use crate::run::RunDir;
use crate::sha256::sha256_file;
use crate::verify::{Bases, Check, Moved, manifest, must_be_trained, retrain, verify};

/// Compute every hash of a run folder again: recipe, base, data, example order, weights, analysis
#[derive(Debug, Args)]
#[command(
    after_help = "Times (elapsed_s, trace_s, tokens_per_s) are no part of a hash. Exit code 1: something differs or is missing.
Examples:
  trainer verify runs/cake
  trainer verify runs/sweep                   each of its cells
  trainer verify runs/cake --data ~/moved     data sets that are no longer where they were
  trainer verify runs/cake --retrain          trains again and compares bytes; takes as long as the run did

--retrain trains in a folder below TMPDIR and removes it. On the run's kind of processor and number of threads
(RAYON_NUM_THREADS) weights and checkpoint must have the same bytes; elsewhere each loss must agree within 0.1 %."
)]
pub struct VerifyArgs {
    /// Run folders, or sweep folders with cells/ID/
    #[arg(value_name = "RUN_DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Folder to look in first for data sets, and a base or adapter given as path: by the last parts of their paths
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Train each run again and compare
    #[arg(long)]
    retrain: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// An input error for a folder that is no finished run; [`Interrupted`]; otherwise that something does not hold.
pub fn run(args: VerifyArgs) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    if let Some(data) = args.data.as_ref().filter(|data| !data.is_dir()) {
        bail_input!("--data {}: no such folder", data.display());
    }
    let runs = runs(&args.dirs)?;
    let (moved, mut bases) = (Moved { data: args.data }, Bases::default());
    let (mut wrong, mut documents) = (0, Vec::new());
    for run in &runs {
        let mut checks = verify(run, &moved, &mut bases, &interrupt)?;
        if args.retrain {
            let note = match checks.iter().all(Check::holds) {
                true => train_again(run, &moved, &mut checks, &interrupt)?,
                false => "not trained again: see above".into(),
            };
            progress::say(note);
        }
        let holding = checks.iter().filter(|check| check.holds()).count();
        wrong += usize::from(holding < checks.len());
        let (shown, sha256) = (run.path().display(), sha256_file(&run.manifest())?);
        if args.json {
            documents.push(json!({
                "run": run.path(), "holds": holding == checks.len(), "manifest_sha256": sha256, "checks": checks,
            }));
        } else {
            let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
            super::print(&format!(
                "{lines}{shown}: {holding} of {} checks hold; sha256 of manifest.json {sha256}",
                checks.len()
            ))?;
        }
    }
    if args.json {
        super::print(&serde_json::to_string_pretty(&json!({ "holds": wrong == 0, "runs": documents }))?)?;
    }
    match wrong {
        0 => Ok(()),
        _ => bail!("{wrong} of {} runs do not hold what their manifests say", runs.len()),
    }
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
    fit::fit(recipe, &again, false, interrupt).map_err(|e| match e.is::<Interrupted>() {
        true => Interrupted { hint: Some("the second training is not kept".into()) }.into(),
        false => e,
    })?;
    checks.extend(retrain::compare(run, &recorded, &again)?);
    Ok(format!("{shown}: trained again"))
}
