//! An adapter in PEFT's files: `adapter_config.json` ([`LoraConfig`]) and `adapter_model.safetensors`.
//!
//! A tensor's key is `base_model.model.` and the name it has here (`peft/utils/save_and_load.py`):
//! `<module>.lora_A.weight`, `<module>.lora_B.weight`, `<module>.lora_magnitude_vector` (DoRA), and for what
//! is trained whole (`modules_to_save`) the base model's own `<module>.weight`.

pub mod config;
pub mod low_rank;
pub mod permuted;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::load::checkpoint::read_safetensors;
use super::load::weights::{EMBEDDINGS, HEAD};
pub use super::lora::config::LoraConfig;
use super::trainables::Trainables;
use crate::bail_input;
use crate::error::InputError;
use crate::input_file;
use crate::limits::LARGEST_TEXT;

/// What PEFT puts in front of a module's name.
const PREFIX: &str = "base_model.model.";

/// An adapter read from its folder.
pub struct Adapter {
    /// What it adapts and how.
    pub config: LoraConfig,
    /// The base model it was trained on, as its config names it.
    pub base_model: Option<String>,
    /// Tensors by name (`model.layers.0.self_attn.q_proj.lora_A.weight`), f32 on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Adapter {
    /// Reads a PEFT adapter folder.
    ///
    /// # Errors
    /// An input error if a file is missing or malformed, or if the adapter uses a PEFT feature that is not
    /// built here (named in the message) rather than computing something else silently.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("adapter_config.json");
        let text = match input_file::read_at_most(&path, LARGEST_TEXT)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        {
            Ok(text) => text,
            Err(e) => bail_input!("{}: {e}; expected a PEFT adapter folder", path.display()),
        };
        let json: serde_json::Value = match serde_json::from_str(&text) {
            Ok(json) => json,
            Err(e) => bail_input!("{}: not JSON: {e}", path.display()),
        };
        let config = LoraConfig::from_json(&json, &path)?;
        let path = dir.join("adapter_model.safetensors");
        let raw = read_safetensors(&path)?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in raw {
            let short = name.strip_prefix(PREFIX).unwrap_or(&name).replace(".default.weight", ".weight");
            tensors.insert(short, tensor.to_dtype(candle_core::DType::F32)?);
        }
        // Where tokens were added before training, PEFT stores embeddings and head whole without a word in the config
        // (`save_embedding_layers`): to the model it is as if they were among the modules to save.
        let mut config = config;
        for (name, module) in [(EMBEDDINGS, "embed_tokens"), (HEAD, "lm_head")] {
            if tensors.contains_key(name) && config.saves(name) == 0 {
                config.modules_to_save.push(module.to_string());
            }
        }
        let base_model = json["base_model_name_or_path"].as_str().map(str::to_string);
        Ok(Self { config, base_model, tensors })
    }

    /// Leaves of embeddings and head that the adapter brings the first `rows` ids; gives how many it has, where it has more.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn keep_vocabulary(&mut self, rows: usize) -> Result<Option<usize>> {
        let mut had = None;
        for name in [EMBEDDINGS, HEAD] {
            let Some(tensor) = self.tensors.get_mut(name).filter(|t| t.dims().first() > Some(&rows)) else {
                continue;
            };
            had = had.max(tensor.dims().first().copied());
            *tensor = tensor.narrow(0, 0, rows)?.contiguous()?;
        }
        Ok(had)
    }

    /// Reads the adapter that training with `config` starts from. Tensors that `config` does not ask for, and
    /// those it misses, are faults when the model is loaded.
    ///
    /// # Errors
    /// As [`Self::read`], and an input error with every key in which the adapter and `config` disagree.
    pub fn read_start(dir: &Path, config: &LoraConfig) -> Result<Self> {
        let start = Self::read(dir)?;
        let line = |fault| format!("train.lora.init = {}: train.lora.{fault}", dir.display());
        let faults = config.differences(&start.config).into_iter().map(line).collect();
        InputError::unless_empty(faults)?;
        Ok(Self { config: config.clone(), ..start })
    }

    /// The adapter as it stands in training.
    pub fn from_trainables(config: &LoraConfig, trainables: &Trainables) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, var) in trainables {
            tensors.insert(name.clone(), var.as_detached_tensor().to_device(&Device::Cpu)?);
        }
        Ok(Self { config: config.clone(), base_model: None, tensors })
    }

    /// Writes the folder as PEFT writes it. `base` goes into `base_model_name_or_path`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path, base: &str) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let named: BTreeMap<String, Tensor> =
            self.tensors.iter().map(|(name, t)| (format!("{PREFIX}{name}"), t.clone())).collect();
        super::load::checkpoint::write_safetensors(&dir.join("adapter_model.safetensors"), &named)?;
        crate::atomic::write_json(&dir.join("adapter_config.json"), &self.config.to_json(base))
    }
}
