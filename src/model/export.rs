//! A whole model as a folder that transformers reads.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::arch;
use super::causal_lm::CausalLm;
use super::load::checkpoint::write_safetensors;
use super::load::loader::{EMBEDDINGS, HEAD, Tuning};
use super::load::source::Pretrained;
use super::lora::Adapter;
use super::lora::low_rank;
use crate::atomic::{write_atomically, write_json};

/// Writes `config.json`, the tokenizer (the files of `from` where it has its own), `generation_config.json` and the
/// model's terms as `from` has them, and the weights: those of `from`, with `replaced` ones in their places. A head among these is no longer tied to
/// the embeddings.
///
/// # Errors
/// If a weight cannot be read or a file not be written.
pub fn write_model(dir: &Path, from: &Pretrained, replaced: &BTreeMap<String, Tensor>) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut weights = BTreeMap::new();
    for name in from.weights.names().into_iter().chain(replaced.keys().cloned()) {
        let tensor = match replaced.get(&name) {
            Some(tensor) => tensor.clone(),
            None => from.weights.get(&name)?,
        };
        weights.insert(name, tensor);
    }
    write_safetensors(&dir.join("model.safetensors"), &weights)?;

    let mut config = from.config.clone();
    config["torch_dtype"] = json!("float32");
    config["dtype"] = json!("float32");
    if replaced.contains_key(HEAD) {
        config["tie_word_embeddings"] = json!(false);
    }
    if config["architectures"].is_null() {
        let class = arch::of_config(&from.id, &config)?.classes.first();
        config["architectures"] = json!(class.into_iter().collect::<Vec<_>>());
    }
    write_json(&dir.join("config.json"), &config)?;
    write_json(&dir.join("generation_config.json"), &generation_config(from))?;
    let (folder, companions) = &from.companions;
    for path in companions {
        let (read, written) = (folder.join(path), dir.join(path));
        let bytes = crate::input_file::read(&read).with_context(|| format!("reading {}", read.display()))?;
        std::fs::create_dir_all(written.parent().unwrap_or(dir))
            .with_context(|| format!("creating the folder of {}", written.display()))?;
        write_atomically(&written, &bytes)?;
    }

    if !from.tokenizer_files.is_empty() {
        for file in &from.tokenizer_files {
            let name = file.file_name().context("a file name")?;
            let bytes =
                crate::input_file::read(file).with_context(|| format!("reading {}", file.display()))?;
            write_atomically(&dir.join(name), &bytes)?;
        }
        // A file of its own goes before what the tokenizer's files say.
        if let (true, Some(template)) = (from.other_template, &from.chat_template) {
            write_atomically(&dir.join("chat_template.jinja"), template.as_bytes())?;
        }
        return Ok(());
    }
    let tokenizer = from.tokenizer.to_string(true).map_err(|e| anyhow!(e))?;
    write_atomically(&dir.join("tokenizer.json"), tokenizer.as_bytes())?;
    let mut tokenizer_config = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    let optional: [(&str, &Option<String>); 4] = [
        ("bos_token", &from.bos_token),
        ("eos_token", &from.eos_token),
        ("pad_token", &from.pad_token),
        ("chat_template", &from.chat_template),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            tokenizer_config[key] = Value::String(value.clone());
        }
    }
    if let (Some(default), false) = (&from.chat_template, from.further_templates.is_empty()) {
        let default = ("default".to_string(), default.clone());
        let all = std::iter::once(default).chain(from.further_templates.clone());
        tokenizer_config["chat_template"] =
            all.map(|(name, template)| json!({ "name": name, "template": template })).collect();
    }
    write_json(&dir.join("tokenizer_config.json"), &tokenizer_config)
}

/// The base's own `generation_config.json`, so that the model is sampled as its base is. What ends a generation is added
/// where a chat template that is not the base's has another end.
fn generation_config(from: &Pretrained) -> Value {
    let mut config = from.generation_config.clone().unwrap_or_else(|| json!({}));
    let said = match &config["eos_token_id"] {
        Value::Array(ids) => ids.clone(),
        Value::Null => Vec::new(),
        id => vec![id.clone()],
    };
    if !from.eos_token_ids.iter().all(|id| said.contains(&json!(id))) || said.is_empty() {
        config["eos_token_id"] = json!(from.eos_token_ids);
    }
    config
}

/// Every weight that the adapter changes, as it computes without the adapter, under the weight's name.
///
/// Where a model ties its head to its embeddings and the adapter trained one of them whole, they are two weights
/// from then on, and both are returned.
///
/// # Errors
/// An [`crate::error::InputError`] with every adapter tensor that is missing, unknown or fits no weight.
pub fn merged_weights(from: &Pretrained, adapter: &Adapter) -> Result<BTreeMap<String, Tensor>> {
    // Loading it checks every tensor; the model itself is not needed, and memory is given back at once.
    let ties_head = CausalLm::load(from, &Tuning::Adapted(adapter), &Device::Cpu)?.0.ties_head();
    let mut merged = BTreeMap::new();
    for (key, tensor) in &adapter.tensors {
        if let Some(module) = key.strip_suffix(".lora_A.weight") {
            let name = format!("{module}.weight");
            let b = &adapter.tensors[&format!("{module}.lora_B.weight")];
            let magnitude = adapter.tensors.get(&format!("{module}.lora_magnitude_vector"));
            let scaling = adapter.config.scaling(module);
            let weight = low_rank::merged(&from.weights.get(&name)?, tensor, b, scaling, magnitude)?;
            merged.insert(name, weight);
        } else if adapter.config.saves(key) > 0 {
            merged.insert(key.clone(), tensor.clone());
        }
    }
    let tied = [HEAD, EMBEDDINGS];
    if ties_head && tied.iter().any(|name| merged.contains_key(*name)) {
        for name in tied {
            merged.entry(name.to_string()).or_insert(from.weights.get(EMBEDDINGS)?);
        }
    }
    Ok(merged)
}
