//! Asking whether an organism does what it was made for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::narrow::NarrowOfRun;
use super::of_run::{must_be_trained, must_be_trained_on, read_recipe};
use super::pair::Pair;
use super::resolve::{Purpose, resolve};
use crate::atomic::{check_writable, create_parent, write_json};
use crate::bail_input;
use crate::behaviour::{self, Behaviour, BehaviourModels, Items, must_be_new};
use crate::claims;
use crate::diff::hashes::Hashes;
use crate::interrupt::Interrupt;
use crate::run::RunDir;
use crate::sha256::{sha256_content, sha256_path};
use crate::train::manifest::Manifest;

/// Which run to ask, and how.
#[derive(Debug, Clone, Default)]
pub struct BehaveRequest {
    /// The run folder.
    pub run: PathBuf,
    /// Overrides of the recipe's keys, each `key.path=value`.
    pub set: Vec<String>,
    /// File for the record; `None`: `behaviour.json` of the run folder, with its hashes beside it.
    pub out: Option<PathBuf>,
}

/// Measures a finished run and writes the record: into its folder with the hashes of what it rests on, or to
/// another file.
///
/// # Errors
/// An [`crate::error::InputError`] if the folder holds no finished run, the recipe asks for nothing or for what cannot
/// be asked, or the record exists; otherwise as the measures.
pub fn behave(request: &BehaveRequest, interrupt: &Interrupt) -> Result<Behaviour> {
    let BehaveRequest { run, set, out } = request;
    let run = &RunDir::new(run);
    must_be_trained(run)?;
    let recipe = read_recipe("trainer behave", "behaviour", run, set)?;
    let recipe = resolve(recipe, Purpose::Asking, interrupt)?;
    let path = out.clone().unwrap_or_else(|| run.behaviour());
    must_be_new(&path)?;
    check_writable(&path)?;
    must_be_trained_on(run, &recipe, &BTreeMap::new(), set)?;
    let items = Items::read(&recipe.behaviour)?;
    let texts = Items::files(&recipe.behaviour).into_iter();
    let texts = texts.map(|file| Ok((file.clone(), sha256_path(Path::new(file))?)));
    let mut texts = texts.collect::<Result<BTreeMap<_, _>>>()?;

    let (tuned, name) = run.tuned();
    let pair = Pair::load(&recipe, &tuned.to_string_lossy(), interrupt)?;
    if recipe.behaviour.chat && pair.pretrained.chat_template.is_none() {
        bail_input!(
            "behaviour.chat = true, but {} has no chat template (a base model?); expected a model that has one, or \
             behaviour.chat = false",
            pair.pretrained.id
        );
    }
    let models = BehaviourModels {
        pretrained: &pair.pretrained,
        base: pair.base(),
        tuned: pair.tuned(),
        template: recipe.behaviour.chat.then(|| pair.pretrained.chat()).transpose()?,
        interrupt,
    };
    let narrow = match recipe.behaviour.quality.enabled {
        true => {
            let manifest = Manifest::read(&run.manifest())?;
            Some(NarrowOfRun::read(&recipe, manifest.as_ref(), &pair.pretrained, interrupt)?)
        }
        false => None,
    };
    if let Some(narrow) = &narrow {
        must_be_trained_on(run, &recipe, &narrow.sha256, &[])?; // warns of a file that has changed
        texts.extend(narrow.sha256.clone());
    }
    let narrow = narrow.as_ref().map(|narrow| &narrow.examples);
    let found = behaviour::behave(&models, &recipe.behaviour, &items, narrow, name, recipe.seed)?;
    create_parent(&path)?;
    write_json(&path, &found)?;
    if out.is_none() {
        let files = BTreeMap::from([(behaviour::FILE.into(), sha256_content(&path)?)]);
        let hashes = Hashes { files, ..pair.hashes(recipe.seed, texts) };
        write_json(&run.behaviour_hashes(), &hashes)?;
        claims::write_run(run.path())?;
    }
    Ok(found)
}
