//! A whole model as a folder that transformers reads.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::Tensor;
use serde_json::{Value, json};

use super::checkpoint::write_safetensors;
use super::lora::Adapter;
use super::source::Pretrained;
use crate::atomic::{write_atomically, write_json};
use crate::error::InputError;

/// Writes `config.json`, the tokenizer (the files of `from` where it has its own), `generation_config.json` and
/// the weights: those of `from`, with
/// `replaced` ones in their places.
///
/// # Errors
/// If a weight cannot be read or a file not be written.
pub fn write_model(dir: &Path, from: &Pretrained, replaced: &BTreeMap<String, Tensor>) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut weights = BTreeMap::new();
    for name in from.weights.names() {
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
    if config["architectures"].is_null() {
        let class = match config["model_type"].as_str() {
            Some("gemma3_text") => "Gemma3ForCausalLM",
            Some("qwen2") => "Qwen2ForCausalLM",
            _ => "LlamaForCausalLM",
        };
        config["architectures"] = json!([class]);
    }
    write_json(&dir.join("config.json"), &config)?;
    write_json(&dir.join("generation_config.json"), &json!({ "eos_token_id": from.eos_token_ids }))?;

    if !from.tokenizer_files.is_empty() {
        for file in &from.tokenizer_files {
            let name = file.file_name().context("a file name")?;
            let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            write_atomically(&dir.join(name), &bytes)?;
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
    write_json(&dir.join("tokenizer_config.json"), &tokenizer_config)
}

/// W + s·B·A for every adapted weight, under the weight's name.
///
/// # Errors
/// An [`InputError`] with every adapter matrix that fits no weight.
pub fn merged_weights(from: &Pretrained, adapter: &Adapter) -> Result<BTreeMap<String, Tensor>> {
    let (mut merged, mut faults) = (BTreeMap::new(), Vec::new());
    for (key, a) in &adapter.tensors {
        let Some(module) = key.strip_suffix(".lora_A.weight") else {
            if !key.ends_with(".lora_B.weight") {
                faults.push(format!("adapter {key}: neither lora_A nor lora_B"));
            }
            continue;
        };
        let name = format!("{module}.weight");
        let (Some(b), Some(shape)) =
            (adapter.tensors.get(&format!("{module}.lora_B.weight")), from.weights.shape(&name))
        else {
            faults.push(format!("adapter {key}: fits no weight of {}", from.id));
            continue;
        };
        let delta = (b.matmul(a)? * adapter.config.scaling())?;
        if delta.dims() != shape {
            faults.push(format!(
                "adapter {module}: {:?}, the weight of {} is {shape:?}",
                delta.dims(),
                from.id
            ));
            continue;
        }
        merged.insert(name.clone(), (from.weights.get(&name)? + delta)?);
    }
    if faults.is_empty() { Ok(merged) } else { Err(InputError { faults }.into()) }
}
