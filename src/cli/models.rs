//! `trainer models`: lists the aliases and fetches models.

use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use serde_json::json;

use crate::interrupt::Interrupt;
use crate::workflow::models;

/// List the models that have a short name, or fetch a model into the cache
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer models
  trainer models fetch gemma-3-270m
  trainer models fetch hf:org/name@revision")]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: Option<ModelsCommand>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Download a model or a PEFT adapter; the hash of an alias is checked
    #[command(after_help = "Examples:
  trainer models fetch smollm2-135m-instruct
  trainer models fetch hf:org/name@revision")]
    Fetch {
        /// Alias, or hf:org/name[@revision]
        #[arg(value_name = "ALIAS")]
        model: String,
    },
}

/// Runs `trainer models`.
///
/// # Errors
/// An [`crate::error::InputError`] if the model is unknown or cannot be fetched.
pub fn run(args: ModelsArgs) -> Result<()> {
    match args.command {
        None => list(args.json),
        Some(ModelsCommand::Fetch { model }) => {
            let path = models::fetch(&model, &Interrupt::on_signals()?)?;
            match args.json {
                true => super::print(&json!({ "model": model, "path": path }).to_string()),
                false => super::print(&path.display().to_string()),
            }
        }
    }
}

fn list(as_json: bool) -> Result<()> {
    let known = models::list()?;
    if as_json {
        return super::print(&serde_json::to_string_pretty(&json!({ "models": known }))?);
    }
    let mut lines = String::new();
    for model in known {
        lines += &format!(
            "{:<28} {:>10}  {:<10}  {}\n{:28} licence: {}\n",
            model.name,
            HumanBytes(model.size_bytes).to_string(),
            if model.cached { "cached" } else { "not cached" },
            model.about,
            "",
            model.licence,
        );
    }
    super::print(&format!(
        "{lines}\nModels are fetched on first use. To fetch one now: trainer models fetch ALIAS"
    ))
}
