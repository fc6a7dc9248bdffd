//! `trainer diff`: reads what finetuning left in the activations.

use std::collections::BTreeMap;
use std::io::stdout;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::atomic::check_writable;
use crate::bail_input;
use crate::data::source::Document;
use crate::diff::activations::View;
use crate::diff::embedder::Embedder;
use crate::diff::hashes::Hashes;
use crate::diff::{Inputs, must_be_new};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::model::loader::Tuning;
use crate::model::lora::Adapter;
use crate::model::source::{self, Pretrained};
use crate::model::{CausalLm, alias, device};
use crate::recipe::{Recipe, SourceSpec};
use crate::report;
use crate::run::RunDir;
use crate::sha256::{sha256_file, sha256_path};
use crate::train::corpus::documents;
use crate::train::manifest::adapter_sha256;

/// Read the trace that finetuning left in the activations
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer diff runs/cake
  trainer diff runs/cake --preset paper --set diff.samples=1000 --out diffs/paper
  trainer diff --base gemma-3-270m --tuned ./adapter --recipe recipes/cake.toml --out diffs/mine
  trainer diff --base gemma-3-270m --tuned ./adapter --set diff.text=unrelated.jsonl --out diffs/theirs

Without narrow text (data.narrow) nothing tells which tokens and texts are about the finetuning: shares of
relevant tokens and words, and similarity to narrow text, are left out.")]
pub struct DiffArgs {
    /// Run folder of `trainer fit`
    #[arg(value_name = "RUN_DIR", required_unless_present = "tuned", conflicts_with_all = ["base", "tuned"])]
    run: Option<PathBuf>,
    /// Base model, where there is no run folder
    #[arg(long, value_name = "MODEL", requires = "tuned")]
    base: Option<String>,
    /// Tuned model or PEFT adapter folder
    #[arg(long, value_name = "MODEL_OR_ADAPTER", requires_all = ["base", "out"])]
    tuned: Option<String>,
    /// Recipe that names the narrow data, the text to measure on, and the sizes [default: the defaults]
    #[arg(long, value_name = "RECIPE", conflicts_with = "run")]
    recipe: Option<PathBuf>,
    /// Start [diff] over from a preset: quick, paper or toolkit; its texts and embedder stay
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Change a key of the recipe; may be given several times. Paths are relative to the current folder (in a
    /// recipe: to the recipe)
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Folder for the results [default: RUN_DIR/diff]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print readability.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`diff_run`].
pub fn run(args: DiffArgs) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    let preset = args.preset.iter().map(|name| format!("diff.preset={}", toml::Value::String(name.clone())));
    let set: Vec<String> = preset.chain(args.set).collect();
    let shown = match (&args.run, &args.base, &args.tuned, &args.recipe, args.out) {
        (Some(dir), _, _, _, out) => {
            let run = RunDir::new(dir);
            let out = out.unwrap_or_else(|| run.diff());
            diff_run(&run, &set, &out, &interrupt)?;
            if out == run.diff() { dir.clone() } else { out }
        }
        (None, Some(base), Some(tuned), path, Some(out)) => {
            let mut set = set;
            set.push(format!("model.base={}", toml::Value::String(base.clone())));
            let recipe = match path {
                Some(path) => Recipe::read(path, &set)?,
                None => Recipe::for_diff(&set)?,
            };
            diff_pair(&recipe, tuned, tuned, &out, &interrupt)?;
            out
        }
        _ => bail_input!("expected a run folder, or --base, --tuned and --out"),
    };
    let cell = report::Cell::read(&shown)?;
    match (args.json, &cell.readability) {
        (true, Some(readability)) => super::print(&serde_json::to_string_pretty(readability)?)?,
        _ => report::print_table(&[cell], &mut stdout())?,
    }
    Ok(())
}

/// Reads a run of `trainer fit` into `out`.
///
/// # Errors
/// An [`crate::error::InputError`] if the folder holds no finished run, or `out` exists; otherwise as the
/// analysis.
pub fn diff_run(run: &RunDir, set: &[String], out: &Path, interrupt: &Interrupt) -> Result<()> {
    if !run.recipe().exists() {
        bail_input!("{}: no run folder (it has no recipe.toml)", run.path().display());
    }
    if !run.is_trained() {
        bail_input!(
            "{}: its training has not finished; go on with: trainer fit {} --out {} --resume",
            run.path().display(),
            run.recipe().display(),
            run.path().display()
        );
    }
    let recipe = Recipe::read(&run.recipe(), set)?;
    // Named without the folder: the same run elsewhere gives the same record.
    let (tuned, name) =
        if run.adapter().exists() { (run.adapter(), "adapter") } else { (run.model(), "model") };
    diff_pair(&recipe, &tuned.to_string_lossy(), name, out, interrupt)
}

/// Compares the recipe's base with a tuned model or adapter, which the record calls `name`.
fn diff_pair(recipe: &Recipe, tuned: &str, name: &str, out: &Path, interrupt: &Interrupt) -> Result<()> {
    must_be_new(out)?;
    check_writable(out)?;
    if recipe.diff.text.is_empty() {
        bail_input!(
            "diff.text: missing; expected unrelated text on which differences are measured: \
             --set diff.text=FILE"
        );
    }
    let text = texts(&recipe.diff.text, Document::full_text)?;
    // For a model of unknown origin there may be none.
    let narrow = texts(&recipe.data.narrow, Document::learned_text)?;
    let files: Vec<SourceSpec> = recipe.data.pretraining.iter().filter(|s| !s.is_self()).cloned().collect();
    let pretraining = texts(&files, Document::learned_text)?;
    let candidates = recipe.diff.candidates.iter();
    let candidates = candidates
        .map(|spec| Ok((spec.stem(), texts(std::slice::from_ref(spec), Document::learned_text)?)))
        .collect::<Result<Vec<_>>>()?;
    let sources =
        recipe.diff.text.iter().chain(&recipe.data.narrow).chain(&files).chain(&recipe.diff.candidates);
    let texts_sha256 = sources.map(|s| Ok((s.path.clone(), sha256_path(Path::new(&s.path))?)));
    let texts_sha256 = texts_sha256.collect::<Result<BTreeMap<_, _>>>()?;
    let (mut embedder, mut embedder_sha256) = (None, None);
    if recipe.diff.uses_embedder() {
        let dir = alias::embedder_dir(&recipe.diff.embedder, interrupt)?;
        embedder = Some(Embedder::open(&dir)?);
        embedder_sha256 = Some(sha256_file(&dir.join("model.safetensors"))?);
    }
    let mut pretrained = source::open_or_stop(&recipe.model.base, interrupt)?;
    pretrained.hold(recipe.model.dtype)?;

    let device = device()?;
    let is_adapter = Path::new(tuned).join("adapter_config.json").exists();
    let (base_model, tuned_model, tuned_sha256);
    let (base, tuned_view) = if is_adapter {
        // One loaded model: the adapter is switched off for the base.
        let adapter = Adapter::read(Path::new(tuned))?;
        tuned_sha256 = adapter_sha256(Path::new(tuned))?;
        base_model = CausalLm::load(&pretrained, &Tuning::Adapted(&adapter), &device)?.0;
        (View { model: &base_model, adapter: 0.0 }, View { model: &base_model, adapter: 1.0 })
    } else {
        let other: Pretrained = source::open_or_stop(tuned, interrupt)?;
        base_model = CausalLm::load(&pretrained, &Tuning::Frozen, &device)?.0;
        tuned_model = CausalLm::load(&other, &Tuning::Frozen, &device)?.0;
        must_match(&pretrained, &base_model, &other, &tuned_model)?;
        tuned_sha256 = other.sha256;
        (View { model: &base_model, adapter: 0.0 }, View { model: &tuned_model, adapter: 0.0 })
    };
    let inputs = Inputs {
        pretrained: &pretrained,
        base,
        tuned: tuned_view,
        tuned_name: name.to_string(),
        settings: &recipe.diff,
        seed: recipe.seed,
        text,
        narrow,
        pretraining,
        candidates,
    };
    let read = Hashes {
        version: env!("CARGO_PKG_VERSION").into(),
        seed: recipe.seed,
        machine: Machine::here(),
        base: pretrained.sha256.clone(),
        tuned: tuned_sha256,
        embedder: embedder_sha256,
        texts: texts_sha256,
        files: BTreeMap::new(),
    };
    crate::diff::diff(&inputs, embedder.as_ref(), interrupt)?.write(out, &read)
}

fn texts(specs: &[SourceSpec], of: fn(&Document) -> String) -> Result<Vec<String>> {
    Ok(documents(specs)?.iter().map(|(_, _, d)| of(d)).collect())
}

fn must_match(base: &Pretrained, b: &CausalLm, tuned: &Pretrained, t: &CausalLm) -> Result<()> {
    let shape = |m: &CausalLm| (m.n_layers(), m.hidden_size(), m.vocab_size());
    if shape(b) != shape(t) {
        bail_input!(
            "{} has {:?} blocks, width and vocabulary, {} has {:?}: they cannot be compared",
            base.id,
            shape(b),
            tuned.id,
            shape(t)
        );
    }
    Ok(())
}
