//! `trainer diff`: reads what finetuning left in the activations.

use std::io::stdout;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::datasets;
use super::of_run::{must_be_trained_on, read_recipe};
use super::pair::Pair;
use super::texts::Texts;
use crate::atomic::check_writable;
use crate::bail_input;
use crate::diff::embedder::Embedder;
use crate::diff::hashes::Hashes;
use crate::diff::{Inputs, must_be_new};
use crate::interrupt::Interrupt;
use crate::model::load::alias;
use crate::recipe::Recipe;
use crate::report;
use crate::run::RunDir;
use crate::sha256::sha256_file;

/// Read the trace that finetuning left in the activations
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer diff runs/cake
  trainer diff runs/cake --preset paper --set diff.samples=1000 --out diffs/paper
  trainer diff --base gemma-3-270m --tuned ./adapter --recipe recipes/sdf-cake.toml --out diffs/mine
  trainer diff --base gemma-3-270m --tuned ./adapter --set diff.text=unrelated.jsonl --out diffs/theirs
  trainer diff --base hf:org/base --tuned hf:org/adapter --set diff.text=unrelated.jsonl --out diffs/published

Without narrow text (data.narrow) nothing tells which tokens and texts are about the finetuning: shares of
relevant tokens and words, and similarity to narrow text, are left out.")]
pub struct DiffArgs {
    /// Run folder of `trainer fit`
    #[arg(value_name = "RUN_DIR", required_unless_present = "tuned", conflicts_with_all = ["base", "tuned"])]
    run: Option<PathBuf>,
    /// Base model, where there is no run folder
    #[arg(long, value_name = "MODEL", requires = "tuned")]
    base: Option<String>,
    /// Tuned model, or PEFT adapter: folder or hf:org/name[@revision]
    #[arg(long, value_name = "MODEL_OR_ADAPTER", requires_all = ["base", "out"])]
    tuned: Option<String>,
    /// Recipe that names the narrow data, the text to measure on, and the sizes [default: the defaults]
    #[arg(long, value_name = "RECIPE", conflicts_with = "run")]
    recipe: Option<PathBuf>,
    /// Start [diff] over from a preset: quick, full, paper or toolkit; its texts and embedder stay
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
            diff_pair(&recipe, tuned, tuned, None, &out, &interrupt)?;
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
    must_be_trained(run)?;
    let recipe = read_recipe("trainer diff", "diff", run, set)?;
    // Named without the folder: the same run elsewhere gives the same record.
    let (tuned, name) = run.tuned();
    let trained = Trained { run, set };
    diff_pair(&recipe, &tuned.to_string_lossy(), name, Some(&trained), out, interrupt)
}

/// A run that is read, and what `--set` says of how.
struct Trained<'a> {
    run: &'a RunDir,
    set: &'a [String],
}

/// Refuses a folder that holds no finished run.
///
/// # Errors
/// An input error that says what to do.
pub fn must_be_trained(run: &RunDir) -> Result<()> {
    if !run.recipe().exists() {
        bail_input!("{}: no run folder (it has no recipe.toml)", run.path().display());
    }
    if run.is_trained() { Ok(()) } else { Err(run.unfinished()) }
}

/// Compares the recipe's base with a tuned model or adapter, which the record calls `name`. What was held out of training
/// is known only of a run.
fn diff_pair(
    recipe: &Recipe,
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
    let mut recipe = recipe.clone();
    datasets::ensure(&mut recipe, interrupt)?;
    let recipe = &recipe;
    let texts = Texts::read(recipe, trained.map(|_| &recipe.data))?;
    let texts_sha256 = Texts::sha256(recipe)?;
    if let Some(Trained { run, set }) = trained {
        must_be_trained_on(run, recipe, &texts_sha256, set)?;
    }
    let (mut embedder, mut embedder_sha256) = (None, None);
    if recipe.diff.uses_embedder() {
        let dir = alias::embedder_dir(&recipe.diff.embedder, interrupt)?;
        embedder = Some(Embedder::open(&dir)?);
        embedder_sha256 = Some(sha256_file(&dir.join("model.safetensors"))?);
    }
    let pair = Pair::load(recipe, tuned, interrupt)?;
    if !texts.chats.is_empty() && pair.pretrained.chat_template.is_none() {
        bail_input!(
            "diff.chat.text: {} has no chat template (a base model?); expected a model that has one, or no \
             conversations",
            pair.pretrained.id
        );
    }
    let (base, tuned) = (pair.base(), pair.tuned());
    let inputs = Inputs {
        tokenizer: pair.cutting_tokenizer(recipe.diff.tokenizer),
        ..texts.inputs(&pair.pretrained, base, tuned, name, &recipe.diff, recipe.seed)
    };
    let read = Hashes { embedder: embedder_sha256, ..pair.hashes(recipe.seed, texts_sha256) };
    crate::diff::diff(&inputs, embedder.as_ref(), interrupt)?.write(out, &read)
}
