//! LoRA to PEFT's semantics and in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::loader::Trainables;
use crate::bail_input;

/// What PEFT puts in front of a module's name.
const PREFIX: &str = "base_model.model.";

/// The keys of `adapter_config.json` that decide the computation, under PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// Numerator of the scaling.
    pub lora_alpha: f64,
    /// Share of the adapter's inputs that training zeroes.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Last parts of the names of the adapted modules.
    pub target_modules: Vec<String>,
    /// Scale by alpha / √r instead of alpha / r (Kalajdzievski, arXiv 2312.03732).
    #[serde(default)]
    pub use_rslora: bool,
}

impl LoraConfig {
    /// alpha / r, or alpha / √r with rsLoRA.
    pub fn scaling(&self) -> f64 {
        match self.use_rslora {
            true => self.lora_alpha / (self.r as f64).sqrt(),
            false => self.lora_alpha / self.r as f64,
        }
    }

    /// Whether the module of that full name is adapted: as in PEFT, it is or ends in `.` + a target.
    pub fn targets(&self, module: &str) -> bool {
        self.target_modules.iter().any(|t| is_target(module, t))
    }

    /// Targets that match none of the adapted modules.
    pub fn unmatched(&self, adapted: &BTreeSet<String>) -> Vec<String> {
        let matches = |t: &String| adapted.iter().any(|module| is_target(module, t));
        self.target_modules.iter().filter(|t| !matches(t)).cloned().collect()
    }
}

fn is_target(module: &str, target: &str) -> bool {
    module == target || module.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'))
}

/// An adapter read from its folder.
pub struct Adapter {
    /// Rank, alpha, targets.
    pub config: LoraConfig,
    /// The base model it was trained on, as its config names it.
    pub base_model: Option<String>,
    /// Matrices by module name (`model.layers.0.self_attn.q_proj.lora_A.weight`), f32 on the CPU.
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
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => bail_input!("{}: {e}; expected a PEFT adapter folder", path.display()),
        };
        let json: serde_json::Value = match serde_json::from_str(&text) {
            Ok(json) => json,
            Err(e) => bail_input!("{}: not JSON: {e}", path.display()),
        };
        let config = config_from_json(&json, &path)?;
        let path = dir.join("adapter_model.safetensors");
        let raw: HashMap<String, Tensor> = match candle_core::safetensors::load(&path, &Device::Cpu) {
            Ok(raw) => raw,
            Err(e) => bail_input!("{}: {e}", path.display()),
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in raw {
            let short = name.strip_prefix(PREFIX).unwrap_or(&name).replace(".default.weight", ".weight");
            tensors.insert(short, tensor.to_dtype(candle_core::DType::F32)?);
        }
        let base_model = json["base_model_name_or_path"].as_str().map(str::to_string);
        Ok(Self { config, base_model, tensors })
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
        super::checkpoint::write_safetensors(&dir.join("adapter_model.safetensors"), &named)?;
        let json = serde_json::json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "revision": null,
            "r": self.config.r,
            "lora_alpha": self.config.lora_alpha,
            "lora_dropout": self.config.lora_dropout,
            "target_modules": self.config.target_modules,
            "use_rslora": self.config.use_rslora,
            "use_dora": false,
            "bias": "none",
            "fan_in_fan_out": false,
            "rank_pattern": {},
            "alpha_pattern": {},
            "modules_to_save": null,
            "layers_to_transform": null,
            "init_lora_weights": true,
            "inference_mode": true,
        });
        crate::atomic::write_json(&dir.join("adapter_config.json"), &json)
    }
}

/// Reads the computation out of a config and refuses what would be computed differently here.
fn config_from_json(json: &serde_json::Value, path: &Path) -> Result<LoraConfig> {
    let mut faults = Vec::new();
    let mut refuse = |key: &str, plain: &[serde_json::Value]| {
        let value = &json[key];
        if !value.is_null() && !plain.contains(value) {
            faults.push(format!("{}: {key} = {value} is not supported", path.display()));
        }
    };
    let empty = serde_json::json!({});
    refuse("peft_type", &["LORA".into()]);
    refuse("use_dora", &[false.into()]);
    refuse("bias", &["none".into()]);
    refuse("fan_in_fan_out", &[false.into()]);
    refuse("rank_pattern", std::slice::from_ref(&empty));
    refuse("alpha_pattern", &[empty]);
    refuse("modules_to_save", &[serde_json::json!([])]);
    refuse("layers_to_transform", &[]);
    refuse("exclude_modules", &[serde_json::json!([])]);
    refuse("target_parameters", &[serde_json::json!([])]);
    if !faults.is_empty() {
        return Err(crate::error::InputError { faults }.into());
    }
    match serde_json::from_value::<LoraConfig>(json.clone()) {
        Ok(config) if config.r > 0 => Ok(config),
        Ok(_) => bail_input!("{}: r = 0, expected at least 1", path.display()),
        Err(e) => bail_input!("{}: {e} (target_modules must be a list of module names)", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(targets: &[&str]) -> LoraConfig {
        LoraConfig {
            r: 4,
            lora_alpha: 6.0,
            lora_dropout: 0.0,
            target_modules: targets.iter().map(|t| t.to_string()).collect(),
            use_rslora: false,
        }
    }

    #[test]
    fn targets_are_whole_name_parts() {
        let c = config(&["q_proj"]);
        assert!(c.targets("model.layers.0.self_attn.q_proj") && c.targets("q_proj"));
        assert!(!c.targets("model.layers.0.self_attn.eq_proj"));
    }

    #[test]
    fn scaling_is_peft_s() {
        let mut c = config(&[]);
        assert_eq!(c.scaling(), 1.5);
        c.use_rslora = true;
        assert_eq!(c.scaling(), 3.0);
    }

    #[test]
    fn an_unsupported_peft_feature_is_named() {
        let json =
            serde_json::json!({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "use_dora": true});
        let e = config_from_json(&json, Path::new("a/adapter_config.json")).unwrap_err().to_string();
        assert!(e.contains("use_dora") && e.contains("a/adapter_config.json"), "{e}");
    }
}
