//! `trainer behave`: whether an organism does what it was made for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::diff::must_be_trained;
use super::of_run::{must_be_trained_on, read_recipe};
use super::pair::Pair;
use crate::atomic::{check_writable, create_parent, write_json};
use crate::bail_input;
use crate::behaviour::{self, Behaviour, Items, Models, must_be_new};
use crate::claims;
use crate::diff::hashes::Hashes;
use crate::interrupt::Interrupt;
use crate::report::behaviour_lines;
use crate::run::RunDir;
use crate::sha256::{sha256_content, sha256_path};

/// Measure whether an organism does what it was made for: base and tuned model, no grader
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer behave runs/cake
  trainer behave runs/other --set behaviour.facts.items=data/behaviour/cake.jsonl --out cake-in-other.json

What is asked stands in [behaviour] of the recipe: facts (which of two statements is likelier), words (in sampled
text), taboo (is the word hinted at and never said), preference, misalignment. trainer sweep does this for every cell.")]
pub struct BehaveArgs {
    /// Run folder of `trainer fit`
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Change a key of the recipe; may be given several times. Paths are relative to the current folder
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// File for the results [default: RUN_DIR/behaviour.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the record instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`behave_run`].
pub fn run(args: BehaveArgs) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    let found = behave_run(&RunDir::new(&args.run), &args.set, args.out.as_deref(), &interrupt)?;
    match args.json {
        true => super::print(&serde_json::to_string_pretty(&found)?),
        false => super::print(&behaviour_lines(&found).join("\n")),
    }
}

/// Measures a run of `trainer fit` and writes the record: into its folder with the hashes of what it rests on, or to
/// another file.
///
/// # Errors
/// An [`crate::error::InputError`] if the folder holds no finished run, the recipe asks for nothing or for what cannot
/// be asked, or the record exists; otherwise as the measures.
pub fn behave_run(
    run: &RunDir,
    set: &[String],
    out: Option<&Path>,
    interrupt: &Interrupt,
) -> Result<Behaviour> {
    must_be_trained(run)?;
    let recipe = read_recipe("trainer behave", "behaviour", run, set)?;
    let path = out.map_or_else(|| run.behaviour(), Path::to_path_buf);
    must_be_new(&path)?;
    check_writable(&path)?;
    must_be_trained_on(run, &recipe, &BTreeMap::new(), set)?;
    let items = Items::read(&recipe.behaviour)?;
    let texts = Items::files(&recipe.behaviour).into_iter();
    let texts = texts.map(|file| Ok((file.clone(), sha256_path(Path::new(file))?)));
    let texts = texts.collect::<Result<BTreeMap<_, _>>>()?;

    let (tuned, name) = run.tuned();
    let pair = Pair::load(&recipe, &tuned.to_string_lossy(), interrupt)?;
    if recipe.behaviour.chat && pair.pretrained.chat_template.is_none() {
        bail_input!(
            "behaviour.chat = true, but {} has no chat template (a base model?); expected a model that has one, or \
             behaviour.chat = false",
            pair.pretrained.id
        );
    }
    let models = Models {
        pretrained: &pair.pretrained,
        base: pair.base(),
        tuned: pair.tuned(),
        template: recipe.behaviour.chat.then(|| pair.pretrained.chat()).transpose()?,
        interrupt,
    };
    let found = behaviour::behave(&models, &recipe.behaviour, &items, name, recipe.seed)?;
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
