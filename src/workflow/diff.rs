//! Reading what finetuning left in the activations.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::analysis::AnalysisSetup;
use super::of_run::{must_be_trained, must_be_trained_on, read_recipe};
use super::organism::{NamedOrganism, OrganismTraining};
use super::pair::Pair;
use crate::atomic::check_writable;
use crate::bail_input;
use crate::claims::{self, ClaimedRun};
use crate::diff::Inputs;
use crate::diff::floor_file::{self, FloorFile, tuned_hash};
use crate::diff::store::must_be_new;
use crate::interrupt::Interrupt;
use crate::model::load::source::Pretrained;
use crate::progress;
use crate::recipe::{Recipe, ResolvedRecipe};
use crate::run::RunDir;
use crate::train::manifest::Manifest;

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// The two models.
    pub subject: DiffSubject,
    /// Preset that `[diff]` starts over from; its texts and embedder stay.
    pub preset: Option<String>,
    /// Overrides of the recipe's keys, each `key.path=value`.
    pub set: Vec<String>,
    /// Run, adapter or model on the same base that the tuned model is compared with in the base's place.
    pub reference: Option<String>,
    /// Folder for the results; `None`: `diff/` of the run folder, or with a reference `diff-from-NAME`. Two models without a
    /// run need one.
    pub out: Option<PathBuf>,
}

/// The two models that an analysis compares.
#[derive(Debug, Clone)]
pub enum DiffSubject {
    /// The base and the organism of a run folder.
    Run(PathBuf),
    /// Any two models of the same shape, or a model and an adapter.
    Models {
        /// `MODEL`
        base: String,
        /// `MODEL` or adapter.
        tuned: String,
        /// Recipe that names the narrow data, the text to measure on, and the sizes; `None`: the defaults.
        recipe: Option<PathBuf>,
    },
}

impl DiffRequest {
    /// An analysis that takes everything from the recipe.
    pub fn of(subject: DiffSubject) -> Self {
        Self { subject, preset: None, set: Vec::new(), reference: None, out: None }
    }
}

/// Compares two models, writes the analysis with the claims that it supports, and gives both back as a report reads them.
///
/// # Errors
/// An [`crate::error::InputError`] if a run folder holds no finished run, the folder for the results exists, or there is
/// none; otherwise as the analysis.
pub fn diff(request: &DiffRequest, interrupt: &Interrupt) -> Result<ClaimedRun> {
    let preset =
        request.preset.iter().map(|name| format!("diff.preset={}", toml::Value::String(name.clone())));
    let mut set: Vec<String> = preset.chain(request.set.iter().cloned()).collect();
    let shown = match (&request.subject, &request.out) {
        (DiffSubject::Run(dir), out) => {
            let run = RunDir::new(dir);
            let out = match (out, &request.reference) {
                (Some(out), _) => out.clone(),
                (None, None) => run.diff(),
                (None, Some(reference)) => {
                    run.path().join(format!("diff-from-{}", folder_name(&NamedOrganism::find(reference)?)))
                }
            };
            read_run_against(&run, request.reference.as_deref(), &set, &out, interrupt)?;
            if out == run.diff() { dir.clone() } else { out }
        }
        (DiffSubject::Models { base, tuned, recipe }, Some(out)) => {
            set.push(format!("model.base={}", toml::Value::String(base.clone())));
            let recipe = match recipe {
                Some(path) => Recipe::read(path, &set)?,
                None => Recipe::for_diff(&set)?,
            };
            let compared = Compared { tuned, name: tuned, reference: request.reference.as_deref() };
            read_pair(recipe, &compared, None, out, interrupt)?;
            out.clone()
        }
        _ => bail_input!("expected a run folder, or --base, --tuned and --out"),
    };
    claims::write_run(&shown)
}

/// Reads a finished run into `out`, compared with its base.
///
/// # Errors
/// An [`crate::error::InputError`] if the folder holds no finished run, or `out` exists; otherwise as the
/// analysis.
pub(super) fn read_run(run: &RunDir, set: &[String], out: &Path, interrupt: &Interrupt) -> Result<()> {
    read_run_against(run, None, set, out, interrupt)
}

fn read_run_against(
    run: &RunDir,
    reference: Option<&str>,
    set: &[String],
    out: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    must_be_trained(run)?;
    let recipe = read_recipe("trainer diff", "diff", run, set)?;
    // Named without the folder: the same run elsewhere gives the same record.
    let (tuned, name) = run.tuned();
    let compared = Compared { tuned: &tuned.to_string_lossy(), name, reference };
    read_pair(recipe, &compared, Some(&Trained { run, set }), out, interrupt)
}

/// A run that is read, and what `--set` says of how.
struct Trained<'a> {
    run: &'a RunDir,
    set: &'a [String],
}

/// What is compared: a tuned model or adapter, which the record calls `name`, with the base or a reference in its place.
struct Compared<'a> {
    tuned: &'a str,
    name: &'a str,
    reference: Option<&'a str>,
}

/// Compares two models on a recipe's base. What was held out of training is known only of a run.
fn read_pair(
    recipe: Recipe,
    compared: &Compared,
    trained: Option<&Trained>,
    out: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    must_be_new(out)?;
    check_writable(out)?;
    let reference = compared.reference.map(NamedOrganism::find).transpose()?;
    let setup = AnalysisSetup::read(recipe, |recipe| trained.map(|_| &recipe.data), interrupt)?;
    if let Some(Trained { run, set }) = trained {
        must_be_trained_on(run, &setup.recipe, &setup.texts_sha256, set)?;
    }
    let floor = floor_of(&setup.recipe, trained, reference.as_ref())?;
    let pair = match &reference {
        Some(reference) => {
            let must_fit = |base: &Pretrained| must_be_on(reference, base);
            Pair::load_against(&setup.recipe, compared.tuned, &reference.model, must_fit, interrupt)?
        }
        None => Pair::load(&setup.recipe, compared.tuned, interrupt)?,
    };
    setup.check_text(&pair.pretrained)?;
    let inputs = Inputs {
        reference_name: reference.as_ref().map(|r| r.name.clone()).unwrap_or_default(),
        ..setup.inputs(&pair, compared.name)?
    };
    let own_hash = tuned_hash(&pair.tuned_sha256);
    let floor = match floor {
        Some((path, floor)) => {
            floor.must_fit(&path, &setup.floor_reading(&inputs)?)?;
            fair_floor(floor, &path, &setup.recipe, trained.map(|t| t.run), &own_hash)?
        }
        None => None,
    };
    let mut analysis = setup.analyse(&inputs, interrupt)?;
    if let Some(floor) = &floor {
        floor.apply(&mut analysis.record, &own_hash);
    }
    analysis.write(out, &setup.hashes(&pair))
}

/// The floor that `--set` names, else the one in the run folder, which was made for it, else the one that the recipe names.
/// Scores against a reference are not those against the base.
fn floor_of(
    recipe: &ResolvedRecipe,
    trained: Option<&Trained>,
    reference: Option<&NamedOrganism>,
) -> Result<Option<(PathBuf, FloorFile)>> {
    if reference.is_some() {
        return Ok(None);
    }
    let is_set = trained.is_some_and(|t| t.set.iter().any(|set| set.trim_start().starts_with("diff.floor")));
    if let (Some(Trained { run, .. }), false) = (trained, is_set) {
        let own = run.path().join(floor_file::FILE);
        if let Some(floor) = FloorFile::read(&own)? {
            return Ok(Some((own, floor)));
        }
    }
    let named = Path::new(&recipe.diff.floor);
    Ok(FloorFile::named(named)?.map(|floor| (named.into(), floor)))
}

/// The organisms of a floor that are a fair comparison with a run; `None`, and a note, where too few are. How a model without a
/// run folder was trained is not known.
fn fair_floor(
    floor: FloorFile,
    path: &Path,
    recipe: &ResolvedRecipe,
    run: Option<&RunDir>,
    tuned: &str,
) -> Result<Option<FloorFile>> {
    let manifest = run.map(|run| Manifest::read(&run.manifest())).transpose()?.flatten();
    let Some(manifest) = manifest else { return Ok(Some(floor)) };
    let (floor, reasons) = floor.comparable_with(&OrganismTraining::of(recipe, &manifest).training);
    if floor.is_enough(tuned) {
        return Ok(Some(floor));
    }
    progress::say(format_args!(
        "note: {}: too few organisms to compare this run with: {}",
        path.display(),
        reasons.join("; ")
    ));
    Ok(None)
}

/// The name of a reference as part of the name of a folder.
fn folder_name(reference: &NamedOrganism) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    let plain = |c: char| if is_plain(c) { c } else { '-' };
    reference.name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars().map(plain).collect()
}

/// Refuses a reference on another base than the recipe's, where that is known.
fn must_be_on(reference: &NamedOrganism, base: &Pretrained) -> Result<()> {
    match &reference.trained {
        Some(trained) if trained.base != base.sha256 => bail_input!(
            "--reference {}: it was trained on another base than {}; expected a run on the same base",
            reference.name,
            base.id
        ),
        _ => Ok(()),
    }
}
