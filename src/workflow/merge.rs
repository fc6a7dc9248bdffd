//! An adapter folded into its base, as a folder that transformers reads.

use std::path::PathBuf;

use anyhow::Result;

use super::of_run::must_be_trained;
use crate::atomic::{check_writable, write_folder};
use crate::bail_input;
use crate::model::export::{merged_weights, write_model};
use crate::model::load::{alias, source};
use crate::model::lora::Adapter;
use crate::progress;
use crate::recipe::Recipe;
use crate::run::RunDir;

/// Which run to merge, and where to.
#[derive(Debug, Clone)]
pub struct MergeRequest {
    /// The run folder.
    pub run: PathBuf,
    /// Folder for the model.
    pub out: PathBuf,
}

/// Folds a run's adapter into its base and writes a Hugging Face folder.
///
/// # Errors
/// An input error if there is no run or it has no adapter, or the adapter does not fit its base, or `out` exists.
pub fn merge(request: &MergeRequest) -> Result<()> {
    let MergeRequest { run, out } = request;
    let run = RunDir::new(run);
    if out.exists() {
        bail_input!("{}: exists already; choose another --out", out.display());
    }
    check_writable(out)?;
    must_have_adapter(&run)?;
    let recipe = Recipe::read(&run.recipe(), &[])?;
    let adapter = Adapter::read(&run.adapter())?;
    let mut base = source::open(&recipe.model.base)?;
    base.set_chat_template(&recipe.data.chat_template)?;
    let merged = merged_weights(&base, &adapter)?;
    write_folder(out, |part| write_model(part, &base, &merged))?;
    progress::say(format_args!("{}: {} weights merged", out.display(), merged.len()));
    Ok(())
}

/// Refuses what has no adapter to fold in: a base model alone, or full finetuning.
fn must_have_adapter(run: &RunDir) -> Result<()> {
    let (shown, is_run) = (run.path().display(), run.recipe().exists());
    let name = run.path().to_string_lossy();
    let is_named = name.starts_with("hf:") || (!run.path().exists() && alias::find(&name).is_some());
    let is_file = name.to_lowercase().ends_with(".gguf");
    if !is_run && (is_named || is_file || run.path().join("config.json").is_file()) {
        bail_input!(
            "{shown}: a model without an adapter, so there is nothing to merge; expected the folder of a LoRA run"
        );
    }
    if !is_run && run.path().join("adapter_config.json").is_file() {
        bail_input!(
            "{shown}: an adapter without its run; expected the folder of a LoRA run, which names the base"
        );
    }
    must_be_trained(run)?;
    if !run.adapter().exists() {
        bail_input!(
            "{shown}: not a LoRA run: there is no adapter/ to merge (after full finetuning, model/ is the whole model)"
        );
    }
    Ok(())
}
