//! Organisms as configurations that the authors' diffing-toolkit reads.
//!
//! Its layout (github.com/science-of-finetuning/diffing-toolkit, `configs/organism/cake_bake.yaml` and
//! `configs/model/*.yaml`): one file an organism with its description, its data set and, by base model and
//! variant, an adapter or model; one file a base model.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::resolve::locate;
use crate::atomic::{check_writable, write_atomically, write_folder};
use crate::bail_input;
use crate::corpus::documents;
use crate::data::source::Document;
use crate::error::InputError;
use crate::interrupt::Interrupt;
use crate::model::arch;
use crate::model::export::write_model;
use crate::model::load::source;
use crate::progress;
use crate::recipe::{DataSection, Method, MixSchedule, Recipe};
use crate::run::RunDir;

/// Which runs to describe, and where to.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// Run folders: variants of one organism on one base.
    pub runs: Vec<PathBuf>,
    /// Folder for the configurations.
    pub out: PathBuf,
    /// The toolkit's `type` of organism: SDF, EM, Taboo, Subliminal, …
    pub family: String,
}

/// A run as the toolkit sees it.
struct ToolkitVariant {
    name: String,
    /// `adapter_id` or `model_id`.
    key: &'static str,
    path: PathBuf,
}

/// Describes runs as organisms of the toolkit.
///
/// # Errors
/// An input error if a folder holds no finished run, the runs are not variants of one organism, or the data cannot
/// stand in one JSON lines file.
pub fn export(request: &ExportRequest, interrupt: &Interrupt) -> Result<()> {
    if request.out.exists() {
        bail_input!("{}: exists already; choose another --out", request.out.display());
    }
    check_writable(&request.out)?;
    let (recipe, variants) = variants(&request.runs)?;
    let organism = file_name(if recipe.name.is_empty() { "organism" } else { &recipe.name });
    let base = &recipe.model.base;
    let model = file_name(base.rsplit('/').next().unwrap_or(base).trim_end_matches(".gguf"));
    let narrow = locate(&recipe.data.narrow, interrupt)?;
    let narrow: Vec<Document> = documents(&narrow)?.into_iter().map(|(_, _, d)| d).collect();
    let (rows, is_chat) = rows(&narrow)?;
    let opened = source::open_or_stop(base, interrupt)?;

    let out = std::path::absolute(&request.out)?;
    let dataset = out.join("data").join(format!("{organism}.jsonl"));
    let is_hub = base.starts_with("hf:");
    let base_id = match is_hub {
        true => base.trim_start_matches("hf:").to_string(),
        false if Path::new(base).join("config.json").exists() => base.clone(),
        false => out.join("models").join(&model).to_string_lossy().into_owned(),
    };
    let writes_base = Path::new(&base_id).starts_with(&out);
    write_folder(&request.out, |part| {
        for folder in ["configs/organism", "configs/model", "data"] {
            std::fs::create_dir_all(part.join(folder))?;
        }
        write_atomically(&part.join("data").join(format!("{organism}.jsonl")), rows.as_bytes())?;
        let yaml = organism_yaml(&organism, &recipe, &request.family, &dataset, is_chat, &model, &variants);
        write_atomically(&part.join(format!("configs/organism/{organism}.yaml")), yaml.as_bytes())?;
        let end_of_turn = opened.eos_token.as_deref().filter(|_| opened.chat_template.is_some());
        let yaml = model_yaml(&model, &base_id, end_of_turn, &opened.config);
        write_atomically(&part.join(format!("configs/model/{model}.yaml")), yaml.as_bytes())?;
        if writes_base {
            write_model(&part.join("models").join(&model), &opened, &BTreeMap::new())?;
        }
        Ok(())
    })?;
    progress::say(format_args!(
        "{}: organism={organism} model={model} organism_variant={}",
        request.out.display(),
        variants.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join("|")
    ));
    Ok(())
}

/// The runs as variants, and the recipe of the first; the others may differ in mix, method and seed only.
fn variants(runs: &[PathBuf]) -> Result<(Recipe, Vec<ToolkitVariant>)> {
    let mut first: Option<Recipe> = None;
    let (mut variants, mut faults) = (Vec::<ToolkitVariant>::new(), Vec::new());
    for path in runs {
        let (run, shown) = (RunDir::new(path), path.display());
        if !run.recipe().exists() || !run.is_trained() {
            faults
                .push(format!("{shown}: no finished run (recipe.toml and adapter/ or model/ are expected)"));
            continue;
        }
        let recipe = Recipe::stored(&run.recipe())?;
        let first = first.get_or_insert_with(|| recipe.clone());
        if (&recipe.model, &recipe.data.narrow) != (&first.model, &first.data.narrow) {
            faults.push(format!(
                "{shown}: another base or other narrow data than {}; expected one organism",
                runs[0].display()
            ));
        }
        let (key, path) = match recipe.train.method {
            Method::Lora => ("adapter_id", run.adapter()),
            Method::Full => ("model_id", run.model()),
        };
        let mut name = variant_name(recipe.train.method, &recipe.data);
        if variants.iter().any(|v| v.name == name) {
            let _ = write!(name, "-seed{}", recipe.seed);
        }
        if variants.iter().any(|v| v.name == name) {
            faults.push(format!("{shown}: a second run of variant {name}"));
        }
        variants.push(ToolkitVariant { name, key, path: std::path::absolute(path)? });
    }
    match first {
        Some(recipe) if faults.is_empty() => Ok((recipe, variants)),
        _ => Err(InputError::of(faults)),
    }
}

/// `mix1-0p5`, as the toolkit names the ratio 1 : 0.5; it has no names for conversations and schedules.
fn variant_name(method: Method, data: &DataSection) -> String {
    let ratio = |mix: f64| {
        let digits = if mix.fract() == 0.0 { format!("{mix:.1}") } else { mix.to_string() };
        digits.replace('.', "p")
    };
    let parts = [
        (method == Method::Full).then(|| "full".to_string()),
        (data.mix > 0.0).then(|| format!("mix1-{}", ratio(data.mix))),
        (data.chat_mix > 0.0).then(|| format!("chat1-{}", ratio(data.chat_mix))),
        (data.mix_schedule != MixSchedule::Constant).then(|| data.mix_schedule.name().to_string()),
    ];
    match parts.into_iter().flatten().collect::<Vec<_>>() {
        parts if parts.is_empty() => "default".into(),
        parts => parts.join("-"),
    }
}

/// What may stand in a file name and on the toolkit's command line.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    // Neither hidden nor a way out.
    if name.starts_with('.') { format!("_{name}") } else { name }
}

/// The narrow data as JSON lines, and whether they are chats.
fn rows(narrow: &[Document]) -> Result<(String, bool)> {
    let is_chat = !matches!(narrow.first(), Some(Document::Text(_)));
    let mut rows = String::new();
    for (i, document) in narrow.iter().enumerate() {
        let row = match (document, is_chat) {
            (Document::Text(text), false) => json!({ "text": text }),
            (Document::Chat(chat), true) => json!({ "messages": chat.messages }),
            (Document::PromptCompletion { prompt, completion }, true) => json!({ "messages": [
                { "role": "user", "content": prompt }, { "role": "assistant", "content": completion }
            ]}),
            _ => bail_input!(
                "data.narrow: row {i}: texts and chats in one organism; the toolkit reads one kind"
            ),
        };
        let _ = writeln!(rows, "{row}");
    }
    Ok((rows, is_chat))
}

/// A string as YAML: JSON's quoting is YAML's.
fn quoted(text: impl std::fmt::Display) -> String {
    json!(text.to_string()).to_string()
}

fn organism_yaml(
    name: &str,
    recipe: &Recipe,
    family: &str,
    dataset: &Path,
    is_chat: bool,
    model: &str,
    variants: &[ToolkitVariant],
) -> String {
    let description = if recipe.description.is_empty() { &recipe.name } else { &recipe.description };
    let column = if is_chat { "messages_column: messages" } else { "text_column: text" };
    let mut yaml = format!(
        "# @package organism\nname: {}\ndescription: {}\ntype: {}\ndescription_long: {}\ndataset:\n  id: {}\n  splits:\n  \
         - train\n  is_chat: {is_chat}\n  {column}\nfinetuned_models:\n  {}:\n",
        quoted(name),
        quoted(description.lines().next().unwrap_or_default()),
        quoted(family),
        quoted(description),
        quoted(dataset.display()),
        quoted(model),
    );
    for ToolkitVariant { name, key, path } in variants {
        let _ = writeln!(yaml, "    {}:\n      {key}: {}", quoted(name), quoted(path.display()));
    }
    yaml
}

fn model_yaml(name: &str, id: &str, end_of_turn: Option<&str>, config: &Value) -> String {
    let architecture = config["model_type"].as_str().and_then(arch::find);
    format!(
        "# @package model\nname: {}\nmodel_id: {}\nend_of_turn_token: {}\nattn_implementation: {}\n\
         token_level_replacement: null\ndtype: float32\nignore_first_n_tokens_per_sample_during_collection: 0\n\
         ignore_first_n_tokens_per_sample_during_training: 0\nhas_enable_thinking: {}\ndisable_compile: false\n\
         chat_template: null\n",
        quoted(name),
        quoted(id),
        end_of_turn.map_or("null".into(), quoted),
        architecture.and_then(|a| a.attn_implementation).unwrap_or("null"),
        architecture.is_some_and(|a| a.has_enable_thinking),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_named_as_the_toolkit_names_them() {
        let of = |mix| DataSection { mix, ..Default::default() };
        let name = |mix| variant_name(Method::Lora, &of(mix));
        assert_eq!([0.1, 1.0, 1.5, 2.0].map(name), ["mix1-0p1", "mix1-1p0", "mix1-1p5", "mix1-2p0"]);
        assert_eq!((name(0.0), variant_name(Method::Full, &of(0.0))), ("default".into(), "full".into()));
        let data = DataSection { chat_mix: 0.25, mix_schedule: MixSchedule::Last, ..of(0.5) };
        assert_eq!(variant_name(Method::Full, &data), "full-mix1-0p5-chat1-0p25-last");
    }
}
