//! The registry of architectures, one file each, and the layers that they are made of.

pub mod architecture;
pub mod layers;
pub mod rotary;

mod gemma2;
mod gemma3;
mod layer_types;
mod llama;
mod qwen2;
mod qwen3;

use anyhow::{Result, bail};
use serde_json::Value;

pub use self::architecture::{Architecture, Gguf};
use crate::bail_input;

/// Every architecture, sorted by `model_type`.
pub static ARCHITECTURES: &[&Architecture] = &[
    &gemma2::ARCHITECTURE,
    &gemma3::ARCHITECTURE,
    &llama::ARCHITECTURE,
    &qwen2::ARCHITECTURE,
    &qwen3::ARCHITECTURE,
];

/// The architecture with this `model_type`.
pub fn find(model_type: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|a| a.model_type == model_type).copied()
}

/// The architecture that `config.json` of the model `id` names. `architectures` may be absent.
///
/// # Errors
/// An [`crate::error::InputError`] that lists what is known, for another `model_type` or another class.
pub fn of_config(id: &str, config: &Value) -> Result<&'static Architecture> {
    let model_type = config["model_type"].as_str().unwrap_or("absent");
    let Some(architecture) = find(model_type) else {
        bail_input!(
            "{id}: model_type {model_type:?} is not supported; supported: {}",
            listed(|a| Some(a.model_type))
        );
    };
    let classes = config["architectures"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_known = |class: &Value| class.as_str().is_some_and(|class| architecture.classes.contains(&class));
    if !classes.is_empty() && !classes.iter().any(is_known) {
        let found: Vec<String> = classes.iter().map(Value::to_string).collect();
        bail_input!(
            "{id}: architectures [{}] is not supported for model_type {model_type:?}; expected {}; supported \
             in all: {}",
            found.join(", "),
            architecture.classes.join(" or "),
            listed(|a| Some(a.classes[0]))
        );
    }
    Ok(architecture)
}

/// The architecture that a GGUF file names in `general.architecture`, and how its files are read.
///
/// # Errors
/// If there is no name, or one that is not known: the error lists those that are.
pub(in crate::model) fn of_gguf(name: Option<&str>) -> Result<(&'static Architecture, &'static Gguf)> {
    let Some(name) = name else { bail!("general.architecture is missing") };
    let known = ARCHITECTURES.iter().find_map(|a| Some((*a, a.gguf.as_ref().filter(|g| g.name == name)?)));
    match known {
        Some(known) => Ok(known),
        None => bail!(
            "architecture {name:?} is not supported; supported: {}",
            listed(|a| Some(a.gguf.as_ref()?.name))
        ),
    }
}

/// One name of each architecture that has it.
fn listed(name: impl Fn(&'static Architecture) -> Option<&'static str>) -> String {
    ARCHITECTURES.iter().filter_map(|a| name(a)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use candle_core::Device;
    use serde_json::json;

    use super::*;
    use crate::error::InputError;
    use crate::model::CausalLm;
    use crate::model::load::loader::Tuning;
    use crate::model::load::source;

    /// A name that two architectures share would make the order of the list decide what is computed.
    #[test]
    fn every_name_is_that_of_one_architecture() {
        let types: Vec<&str> = ARCHITECTURES.iter().map(|a| a.model_type).collect();
        assert!(types.is_sorted(), "{types:?}");
        let classes: Vec<&str> = ARCHITECTURES.iter().flat_map(|a| a.classes).copied().collect();
        let gguf: Vec<&str> = ARCHITECTURES.iter().filter_map(|a| Some(a.gguf.as_ref()?.name)).collect();
        for names in [types, classes, gguf] {
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        }
        assert!(ARCHITECTURES.iter().all(|a| !a.classes.is_empty()));
    }

    #[test]
    fn a_tensor_of_a_gguf_block_has_one_place() {
        for architecture in ARCHITECTURES {
            let Some(gguf) = &architecture.gguf else { continue };
            let (from, to): (BTreeSet<_>, BTreeSet<_>) = gguf.block.iter().copied().unzip();
            assert_eq!((from.len(), to.len()), (gguf.block.len(), gguf.block.len()), "{}", gguf.name);
            // What is undone goes by these names.
            assert!(from.is_superset(&BTreeSet::from(["attn_q", "attn_k"])), "{}", gguf.name);
            assert!(gguf.block.iter().all(|(from, to)| from.ends_with("norm") == to.ends_with("norm")));
        }
    }

    #[test]
    fn every_tiny_model_is_found_by_each_of_its_names_and_built() -> Result<()> {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(tiny)? {
            let folder = entry?.path();
            if !folder.join("config.json").is_file() {
                continue; // adapters
            }
            let from = source::open(&folder.to_string_lossy())?;
            let architecture = of_config(&from.id, &from.config)?;
            assert_eq!(from.config["architectures"], json!([architecture.classes[0]]));
            for class in architecture.classes {
                let config = json!({"model_type": architecture.model_type, "architectures": [class]});
                assert_eq!(of_config("m", &config)?.model_type, architecture.model_type);
            }
            if let Some(gguf) = &architecture.gguf {
                assert_eq!(of_gguf(Some(gguf.name))?.0.model_type, architecture.model_type);
            }
            CausalLm::load(&from, &Tuning::Frozen, &Device::Cpu)?;
            found.insert(architecture.model_type);
        }
        assert!(found.len() >= 5, "{found:?}");
        Ok(())
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let refused = |config: Value| {
            let error = of_config("some/model", &config).err().expect("not known");
            assert!(error.is::<InputError>(), "{error:?}");
            error.to_string()
        };
        let message = refused(json!({"model_type": "mamba"}));
        assert_eq!(
            message,
            "some/model: model_type \"mamba\" is not supported; supported: gemma2, gemma3_text, llama, qwen2, \
             qwen3"
        );
        assert!(refused(json!({})).contains("model_type \"absent\" is not supported"));

        let config = json!({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]});
        let message = refused(config);
        for part in [
            "some/model: architectures [\"LlamaForSequenceClassification\"]",
            "expected LlamaForCausalLM",
            "Gemma2ForCausalLM, Gemma3ForCausalLM, LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM",
        ] {
            assert!(message.contains(part), "{part} not in {message}");
        }
        // A class of another architecture is not this one's.
        refused(json!({"model_type": "qwen2", "architectures": ["Qwen3ForCausalLM"]}));
        for absent in [json!(null), json!([])] {
            assert!(of_config("m", &json!({"model_type": "llama", "architectures": absent})).is_ok());
        }

        let message = of_gguf(Some("mamba")).err().expect("not known").to_string();
        assert!(message.ends_with("supported: gemma2, gemma3, llama, qwen2, qwen3"), "{message}");
        assert!(of_gguf(None).err().expect("absent").to_string().contains("general.architecture"));
    }
}
