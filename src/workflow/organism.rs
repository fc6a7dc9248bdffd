//! Another organism that a command names: a finished run folder, or an adapter or model.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::of_run::must_be_trained;
use crate::bail_input;
use crate::data::mixture::Role;
use crate::diff::floor_file::FloorTraining;
use crate::recipe::{Method, Recipe};
use crate::run::RunDir;
use crate::train::manifest::Manifest;

/// An organism by its name.
pub(super) struct NamedOrganism {
    /// As records name it: a run by its folder.
    pub name: String,
    /// Adapter or model.
    pub model: String,
    /// How it was trained, of a run.
    pub trained: Option<OrganismTraining>,
}

/// What a run says of its training.
pub(super) struct OrganismTraining {
    /// sha256 of the base's weight files, by name.
    pub base: BTreeMap<String, String>,
    /// What organisms of a floor must have in common with it.
    pub training: FloorTraining,
}

impl NamedOrganism {
    /// Looks at what is there.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for a run that is not finished, and a folder that is no organism.
    pub fn find(named: &str) -> Result<Self> {
        let run = RunDir::new(named);
        if !run.recipe().is_file() {
            let is_there = |file: &str| Path::new(named).join(file).is_file();
            if Path::new(named).is_dir() && !["adapter_config.json", "config.json"].into_iter().any(is_there)
            {
                bail_input!("{named}: expected a run folder (recipe.toml), a PEFT adapter, or a model");
            }
            return Ok(Self { name: named.into(), model: named.into(), trained: None });
        }
        must_be_trained(&run)?;
        let name = run.path().file_name().unwrap_or(run.path().as_os_str()).to_string_lossy().into_owned();
        let recipe = Recipe::stored(&run.recipe())?;
        let trained = Manifest::read(&run.manifest())?;
        let trained = trained.map(|manifest| OrganismTraining::of(&recipe, &manifest));
        Ok(Self { name, model: run.tuned().0.to_string_lossy().into_owned(), trained })
    }
}

impl OrganismTraining {
    /// Of a run's recipe and manifest.
    pub fn of(recipe: &Recipe, manifest: &Manifest) -> Self {
        let narrow = || manifest.data.iter().filter(|source| source.provenance.role == Role::Narrow);
        let passes = |rows: usize, examples: usize| examples.div_ceil(rows.max(1)) as u64;
        Self {
            base: manifest.base.sha256.clone(),
            training: FloorTraining {
                method: match manifest.method {
                    Method::Lora => "lora".into(),
                    Method::Full => "full".into(),
                },
                rank: (manifest.method == Method::Lora).then_some(recipe.train.lora.r),
                narrow_tokens: narrow().map(|s| s.exposure.tokens as u64).sum(),
                most_repeats: narrow()
                    .map(|s| passes(s.exposure.examples - s.exposure.repeats, s.exposure.examples))
                    .max()
                    .unwrap_or(0),
                mix: manifest.mix.realised().unwrap_or(manifest.mix.asked),
                seed: manifest.seed,
            },
        }
    }
}
