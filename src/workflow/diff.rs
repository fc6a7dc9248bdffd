//! Reading what finetuning left in the activations.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::of_run::{must_be_trained, must_be_trained_on, read_recipe};
use super::pair::Pair;
use super::resolve::{Purpose, resolve};
use super::texts::AnalysisTexts;
use crate::atomic::check_writable;
use crate::bail_input;
use crate::claims::{self, ClaimedRun};
use crate::corpus::measured::MeasuredText;
use crate::diff::embedder::Embedder;
use crate::diff::hashes::Hashes;
use crate::diff::store::must_be_new;
use crate::diff::{Inputs, registry};
use crate::interrupt::Interrupt;
use crate::model::load::alias;
use crate::progress;
use crate::recipe::Recipe;
use crate::run::RunDir;
use crate::sha256::sha256_file;

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// The two models.
    pub subject: DiffSubject,
    /// Preset that `[diff]` starts over from; its texts and embedder stay.
    pub preset: Option<String>,
    /// Overrides of the recipe's keys, each `key.path=value`.
    pub set: Vec<String>,
    /// Folder for the results; `None`: `diff/` of the run folder. Two models without a run need one.
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
        Self { subject, preset: None, set: Vec::new(), out: None }
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
            let out = out.clone().unwrap_or_else(|| run.diff());
            read_run(&run, &set, &out, interrupt)?;
            if out == run.diff() { dir.clone() } else { out }
        }
        (DiffSubject::Models { base, tuned, recipe }, Some(out)) => {
            set.push(format!("model.base={}", toml::Value::String(base.clone())));
            let recipe = match recipe {
                Some(path) => Recipe::read(path, &set)?,
                None => Recipe::for_diff(&set)?,
            };
            read_pair(recipe, tuned, tuned, None, out, interrupt)?;
            out.clone()
        }
        _ => bail_input!("expected a run folder, or --base, --tuned and --out"),
    };
    claims::write_run(&shown)
}

/// Reads a finished run into `out`.
///
/// # Errors
/// An [`crate::error::InputError`] if the folder holds no finished run, or `out` exists; otherwise as the
/// analysis.
pub(super) fn read_run(run: &RunDir, set: &[String], out: &Path, interrupt: &Interrupt) -> Result<()> {
    must_be_trained(run)?;
    let recipe = read_recipe("trainer diff", "diff", run, set)?;
    // Named without the folder: the same run elsewhere gives the same record.
    let (tuned, name) = run.tuned();
    let trained = Trained { run, set };
    read_pair(recipe, &tuned.to_string_lossy(), name, Some(&trained), out, interrupt)
}

/// A run that is read, and what `--set` says of how.
struct Trained<'a> {
    run: &'a RunDir,
    set: &'a [String],
}

/// Compares the recipe's base with a tuned model or adapter, which the record calls `name`. What was held out of training
/// is known only of a run.
fn read_pair(
    recipe: Recipe,
    tuned: &str,
    name: &str,
    trained: Option<&Trained>,
    out: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    must_be_new(out)?;
    check_writable(out)?;
    if recipe.diff.text.is_empty() {
        bail_input!(
            "diff.text: missing; expected unrelated text on which differences are measured: \
             --set diff.text=FILE"
        );
    }
    let recipe = resolve(recipe, Purpose::Reading, interrupt)?;
    let texts = AnalysisTexts::read(&recipe, trained.map(|_| &recipe.data))?;
    let texts_sha256 = AnalysisTexts::sha256(&recipe)?;
    if let Some(Trained { run, set }) = trained {
        must_be_trained_on(run, &recipe, &texts_sha256, set)?;
    }
    let (mut embedder, mut embedder_sha256) = (None, None);
    if registry::needs(&recipe.diff).embedder {
        let dir = alias::embedder_dir(&recipe.diff.embedder, interrupt)?;
        embedder = Some(Embedder::open(&dir)?);
        embedder_sha256 = Some(sha256_file(&dir.join("model.safetensors"))?);
    }
    let pair = Pair::load(&recipe, tuned, interrupt)?;
    if !texts.chats.is_empty() && pair.pretrained.chat_template.is_none() {
        bail_input!(
            "diff.chat.text: {} has no chat template (a base model?); expected a model that has one, or no \
             conversations",
            pair.pretrained.id
        );
    }
    let measured = MeasuredText::of(&recipe, &pair.pretrained)?;
    measured.refuse()?;
    for typed in &measured.typed_specials {
        progress::say(format_args!("warning: diff.text: {}", typed.text()));
    }
    let (base, tuned) = (pair.base(), pair.tuned());
    let inputs = Inputs {
        tokenizer: pair.cutting_tokenizer(recipe.diff.tokenizer),
        ..texts.inputs(&pair.pretrained, base, tuned, name, &recipe.diff, recipe.seed)
    };
    let read = Hashes { embedder: embedder_sha256, ..pair.hashes(recipe.seed, texts_sha256) };
    crate::diff::diff(&inputs, embedder.as_ref(), interrupt)?.write(out, &read)
}
