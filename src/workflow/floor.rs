//! The noise floor of other organisms: what every measure scores on models that were finetuned on something else, read with
//! one run's lexicon, narrow text and settings.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::analysis::AnalysisSetup;
use super::of_run::{must_be_trained, must_be_trained_on, read_recipe};
use super::organism::{NamedOrganism, OrganismTraining};
use super::pair::Pair;
use crate::atomic::{check_writable, write_json};
use crate::bail_input;
use crate::claims::verdict::exceed_own_null;
use crate::claims::{self, ClaimedRun};
use crate::diff::floor::FEWEST;
use crate::diff::floor_file::{self, FloorFile, FloorOrganism, tuned_hash};
use crate::diff::registry::scores;
use crate::diff::store;
use crate::error::InputError;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::{DiffSection, Recipe};
use crate::run::RunDir;
use crate::train::manifest::Manifest;

/// Whose floor to make, and of which organisms.
#[derive(Debug, Clone, Default)]
pub struct FloorRequest {
    /// The run whose lexicon, narrow text and settings the others are read with.
    pub run: PathBuf,
    /// Other runs, or adapters or models on the same base.
    pub others: Vec<String>,
    /// Overrides of keys of `[diff]`, each `key.path=value`.
    pub set: Vec<String>,
    /// The file; `None`: `floor.json` of the run folder, where `trainer diff` finds it.
    pub out: Option<PathBuf>,
}

/// What a floor came to.
#[derive(Debug, Clone)]
pub struct MadeFloor {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub file: FloorFile,
    /// The run with the claims that the floor supports, if it has an analysis that was read in the same way.
    pub run: Option<ClaimedRun>,
}

/// Reads other organisms with a run's lexicon, narrow text and settings, and writes their scores. Scores that the file has
/// already are kept, so that an interrupted floor goes on. The analysis of the run, where there is one, gets the floor.
///
/// # Errors
/// An [`InputError`] with everything in which the others may not be compared with the run: base, method, rank, number of
/// narrow tokens, repeats; fewer than four of them; a file of other settings. [`crate::error::Interrupted`].
pub fn floor(request: &FloorRequest, interrupt: &Interrupt) -> Result<MadeFloor> {
    let run = RunDir::new(&request.run);
    must_be_trained(&run)?;
    let others = request.others.iter().map(|named| NamedOrganism::find(named)).collect::<Result<Vec<_>>>()?;
    let path = request.out.clone().unwrap_or_else(|| run.path().join(floor_file::FILE));
    check_writable(&path)?;
    let mut recipe = read_recipe("trainer floor", "diff", &run, &request.set)?;
    let settings = recipe.diff.clone();
    recipe.diff = only_scored(&recipe.diff);
    let own = Manifest::read(&run.manifest())?.map(|manifest| OrganismTraining::of(&recipe, &manifest));
    must_be_comparable(&run, own.as_ref(), &others)?;

    let setup = AnalysisSetup::read(recipe, |recipe| Some(&recipe.data), interrupt)?;
    must_be_trained_on(&run, &setup.recipe, &setup.texts_sha256, &request.set)?;
    let load = |model: &str| Pair::load(&setup.recipe, model, interrupt);
    let tuned = run.tuned().0.to_string_lossy().into_owned();
    let (mut file, own_hash) = {
        let pair = load(&tuned)?;
        setup.check_text(&pair.pretrained)?;
        let inputs = setup.inputs(&pair, "adapter")?;
        // As the whole analysis says it, whatever is left out here.
        let read = setup.floor_reading(&crate::diff::Inputs { settings: &settings, ..inputs })?;
        let file = match FloorFile::read(&path)? {
            Some(file) => {
                file.must_fit(&path, &read)?;
                file
            }
            None => FloorFile::new(&pair.pretrained.id, read),
        };
        (file, tuned_hash(&pair.tuned_sha256))
    };
    for (i, other) in others.iter().enumerate() {
        let pair = load(&other.model)?;
        let hash = tuned_hash(&pair.tuned_sha256);
        if hash == own_hash {
            bail_input!("{}: it is the run itself; expected other organisms", other.name);
        }
        if file.organisms.iter().any(|organism| organism.tuned == hash) {
            continue;
        }
        progress::say(format_args!("floor: reading {} ({} of {})", other.name, i + 1, others.len()));
        let clock = Instant::now();
        let record = setup.analyse(&setup.inputs(&pair, &other.name)?, interrupt)?.record;
        file.organisms.push(FloorOrganism {
            name: other.name.clone(),
            tuned: hash,
            training: other.trained.as_ref().map(|trained| trained.training.clone()),
            scores: scores(&record).iter().map(|h| (h.key.to_string(), h.value)).collect(),
            exceeds_own_null: exceed_own_null(&record),
            seconds: clock.elapsed().as_secs_f64(),
        });
        write_json(&path, &file)?;
    }
    if !file.is_enough(&own_hash) {
        bail_input!(
            "{}: {} other organisms; expected {FEWEST} at least",
            path.display(),
            file.organisms.len()
        );
    }
    let run = put_into_analysis(&run, &path, &file, &own_hash)?;
    Ok(MadeFloor { path, file, run })
}

/// Gives the analysis of a run its floor, and writes the claims anew.
fn put_into_analysis(
    run: &RunDir,
    path: &Path,
    file: &FloorFile,
    own_hash: &str,
) -> Result<Option<ClaimedRun>> {
    let Some(mut record) = store::read_readability(&run.diff())? else { return Ok(None) };
    let is_own = path == run.path().join(floor_file::FILE);
    let recipe = Recipe::read(&run.recipe(), &[])?;
    if !is_own && Path::new(&recipe.diff.floor) != path {
        return Ok(None);
    }
    file.apply(&mut record, own_hash);
    store::rewrite_readability(&run.diff(), &record)?;
    claims::write_run(run.path()).map(Some)
}

/// The same settings without what has no score.
fn only_scored(settings: &DiffSection) -> DiffSection {
    let mut settings = settings.clone();
    settings.kl.enabled = false;
    settings.causal.enabled = false;
    settings.interpolation.enabled = false;
    settings.context.enabled = false;
    settings.dimensionality.enabled = false;
    settings.depth.enabled = false;
    settings.truncation.enabled = false;
    settings.amplification.enabled = false;
    settings.chat.text = Vec::new();
    settings.candidates = Vec::new();
    // A null of its own is not in a floor.
    settings.weights.null_draws = 1;
    settings.permuted_adapters = 0;
    settings
}

/// Refuses others that are no fair comparison, with every fault. Of adapters and models without a run folder nothing is
/// known; that is said.
fn must_be_comparable(run: &RunDir, own: Option<&OrganismTraining>, others: &[NamedOrganism]) -> Result<()> {
    let mut faults = Vec::new();
    for other in others {
        let Some((own, trained)) = own.zip(other.trained.as_ref()) else {
            progress::say(format_args!(
                "note: {}: not a run folder of trainer, so its training is not known",
                other.name
            ));
            continue;
        };
        let mut differences = trained.training.differences(&own.training);
        if own.base != trained.base {
            differences.insert(0, "base not the same; expected the same weights".into());
        }
        let fault = |difference: String| format!("{}: {difference}, as {}", other.name, run.path().display());
        faults.extend(differences.into_iter().map(fault));
    }
    InputError::unless_empty(faults)
}
