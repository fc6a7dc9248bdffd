//! From the names and the metadata of a GGUF file to Hugging Face's.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::gguf::{Header, Metadata};
use super::weights::{NamedTensors, StoredTensor, Undo, WeightFile};
use crate::model::arch::architecture::{Architecture, Gguf};

/// The weights of a GGUF file, or of its parts, under Hugging Face's names.
///
/// # Errors
/// If a tensor has a name that is not known: leaving it out would compute something else.
pub(crate) fn weights(
    parts: &[PathBuf],
    header: &Header,
    gguf: &Gguf,
    config: &Value,
) -> Result<NamedTensors> {
    let heads = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let heads = (heads("num_attention_heads"), heads("num_key_value_heads"));
    let files = parts.iter().map(|path| WeightFile::open(path)).collect::<Result<Vec<_>>>()?;
    let mut weights = NamedTensors::default();
    let mut unknown = Vec::new();
    for (name, info) in &header.tensors {
        // Its content is in `rope_scaling`.
        if name == "rope_freqs.weight" {
            continue;
        }
        let Some((hugging_face, undo)) = rename(name, gguf, heads) else {
            unknown.push(name.as_str());
            continue;
        };
        weights.insert(
            hugging_face,
            StoredTensor {
                file: files[info.part].clone(),
                offset: info.offset,
                shape: info.shape.clone(),
                encoding: info.encoding,
                undo,
            },
        );
    }
    if !unknown.is_empty() {
        bail!(
            "{} tensor(s) have no place in a {} model: {}{}",
            unknown.len(),
            gguf.name,
            unknown[..unknown.len().min(5)].join(", "),
            if unknown.len() > 5 { ", …" } else { "" }
        );
    }
    Ok(weights)
}

/// The Hugging Face name of a GGUF tensor and what has to be undone. `heads` counts query heads and
/// key-value heads.
fn rename(name: &str, gguf: &Gguf, heads: (usize, usize)) -> Option<(String, Undo)> {
    let norm = if gguf.adds_one_to_norms { Undo::PlusOne } else { Undo::Nothing };
    match name {
        "token_embd.weight" => return Some(("model.embed_tokens.weight".into(), Undo::Nothing)),
        "output.weight" => return Some(("lm_head.weight".into(), Undo::Nothing)),
        "output_norm.weight" => return Some(("model.norm.weight".into(), norm)),
        _ => {}
    }
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let block: usize = block.parse().ok()?;
    let (leaf, suffix) = rest.rsplit_once('.')?;
    if !matches!(suffix, "weight" | "bias") {
        return None;
    }
    let (_, hugging_face) = gguf.block.iter().find(|(name, _)| *name == leaf)?;
    let undo = match leaf {
        "attn_q" if gguf.interleaves_heads => Undo::InterleavedHeads(heads.0),
        "attn_k" if gguf.interleaves_heads => Undo::InterleavedHeads(heads.1),
        _ if leaf.ends_with("norm") => norm,
        _ => Undo::Nothing,
    };
    Some((format!("model.layers.{block}.{hugging_face}.{suffix}"), undo))
}

/// `config.json` as the Hugging Face folder of the model would have it.
///
/// # Errors
/// If the metadata lacks sizes; all that are missing are named.
pub(crate) fn config(header: &Header, architecture: &Architecture, gguf: &'static Gguf) -> Result<Value> {
    let metadata = Metadata { header, name: gguf.name };
    let key = |name: &str| metadata.key(name);
    let required = [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ];
    let missing: Vec<String> =
        required.iter().map(|name| key(name)).filter(|key| !header.metadata.contains_key(key)).collect();
    if !missing.is_empty() {
        bail!("metadata is missing: {}", missing.join(", "));
    }
    let integer = |name: &str| metadata.integer(name);
    let float = |name: &str| metadata.float(name);

    let hidden = integer("embedding_length").unwrap_or(0);
    let heads = metadata.of_all_blocks("attention.head_count")?.unwrap_or(0);
    if heads == 0 || hidden == 0 {
        bail!("{hidden} hidden units in {heads} attention heads are impossible");
    }
    let layers = integer("block_count").unwrap_or(0);
    // Bounds what is built for each layer below by the size of the file.
    if layers == 0 || layers > header.tensors.len() as u64 {
        bail!("{layers} layers do not fit {} tensors", header.tensors.len());
    }
    let head_dim = integer("attention.key_length").unwrap_or(hidden / heads);
    for name in [
        "attention.key_length_swa",
        "attention.value_length",
        "attention.value_length_swa",
        "rope.dimension_count",
        "rope.dimension_count_swa",
    ] {
        if let Some(other) = integer(name).filter(|&width| width != head_dim) {
            bail!("{} = {other}: not supported; expected {head_dim}, the width of a head", key(name));
        }
    }
    let vocabulary = integer("vocab_size")
        .or_else(|| {
            let tokens = header.texts("tokenizer.ggml.tokens")?;
            Some(tokens.len() as u64)
        })
        .context("metadata has neither a vocabulary nor its size")?;

    let mut config = json!({
        "architectures": [architecture.classes[0]],
        "model_type": architecture.model_type,
        "hidden_size": hidden,
        "intermediate_size": metadata.of_all_blocks("feed_forward_length")?,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.of_all_blocks("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": head_dim,
        "rms_norm_eps": float("attention.layer_norm_rms_epsilon"),
        "rope_theta": float("rope.freq_base").unwrap_or(10_000.0),
        "max_position_embeddings": integer("context_length"),
        "vocab_size": vocabulary,
        "tie_word_embeddings": !header.tensors.contains_key("output.weight"),
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": true,
    });
    for (name, key) in [
        ("bos_token_id", "bos_token_id"),
        ("eos_token_id", "eos_token_id"),
        ("pad_token_id", "padding_token_id"),
    ] {
        if let Some(id) = header.integer(&format!("tokenizer.ggml.{key}")) {
            config[name] = json!(id);
        }
    }
    if let Some(scaling) = rope_scaling(&metadata)? {
        config["rope_scaling"] = scaling;
    }

    super::sizes::check(&config)?;
    (gguf.complete_config)(&metadata, &mut config)?;
    Ok(config)
}

/// `rope_scaling` of the file; `None` where positions are not rescaled. As in llama.cpp's `load_hparams` a factor without a
/// type is linear, `rope.scale_linear` is its old name, and a factor of 0 is none. YaRN's other settings are llama.cpp's
/// defaults: it reads their keys for other architectures only.
///
/// # Errors
/// If the scaling is of another kind.
fn rope_scaling(metadata: &Metadata) -> Result<Option<Value>> {
    let key = metadata.key("rope.scaling.type");
    let factor = metadata.float("rope.scaling.factor").or(metadata.float("rope.scale_linear"));
    let factor = factor.filter(|&factor| factor != 0.0 && factor != 1.0);
    match metadata.header.text(&key).unwrap_or("linear") {
        "none" => Ok(None),
        "linear" => Ok(factor.map(|factor| json!({ "rope_type": "linear", "factor": factor }))),
        "yarn" => {
            let original = metadata
                .integer("rope.scaling.original_context_length")
                .or(metadata.integer("context_length"));
            Ok(factor.map(|factor| {
                json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "original_max_position_embeddings": original,
                })
            }))
        }
        other => bail!("{key} = {other:?} is not supported; supported: none, linear, yarn"),
    }
}

/// Refuses the window of an architecture that has none: llama.cpp does not read the key for it. One that no text of the
/// model's context fills changes nothing.
///
/// # Errors
/// If there is a smaller one.
pub(in crate::model) fn has_no_window(metadata: &Metadata) -> Result<()> {
    let (name, context) = ("attention.sliding_window", metadata.integer("context_length").unwrap_or(0));
    match metadata.integer(name).filter(|&window| window > 0 && window < context) {
        Some(window) => {
            let key = metadata.key(name);
            bail!(
                "{key} = {window}: not supported for this architecture; use the model's Hugging Face folder"
            )
        }
        None => Ok(()),
    }
}

/// Adds to the configuration what only a tensor of the file tells: the scaling of Llama 3's rotary
/// frequencies.
///
/// # Errors
/// If the tensor cannot be read or does not follow Llama 3's rule.
pub(crate) fn complete_config(parts: &[PathBuf], header: &Header, config: &mut Value) -> Result<()> {
    let Some(info) = header.tensors.get("rope_freqs.weight") else {
        return Ok(());
    };
    let mut weights = NamedTensors::default();
    let stored = StoredTensor {
        file: WeightFile::open(&parts[info.part])?,
        offset: info.offset,
        shape: info.shape.clone(),
        encoding: info.encoding,
        undo: Undo::Nothing,
    };
    weights.insert("rope_freqs".into(), stored);
    let factors = weights.get("rope_freqs")?.flatten_all()?.to_vec1::<f32>()?;
    let theta = config["rope_theta"].as_f64().unwrap_or(10_000.0);
    let head_dim = config["head_dim"].as_u64().unwrap_or(0) as usize;
    if let Some(scaling) = llama3_scaling(&factors, theta, head_dim)? {
        if !config["rope_scaling"].is_null() {
            bail!("rope_freqs.weight and a factor of rope.scaling at once are not supported");
        }
        config["rope_scaling"] = scaling;
    }
    Ok(())
}

/// Llama 3.1 and later: the file holds one factor a rotary frequency where Hugging Face has the rule that
/// makes them. Finds the rule and checks it against every factor.
///
/// # Errors
/// If the factors do not follow the rule of Llama 3.
fn llama3_scaling(factors: &[f32], theta: f64, head_dim: usize) -> Result<Option<Value>> {
    // Values of every Llama 3.1, 3.2 and 3.3; `factor` alone differs (8 or 32).
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const ORIGINAL: f64 = 8192.0;
    let factor = factors.iter().copied().fold(1.0, f32::max).into();
    if factor == 1.0 {
        return Ok(None);
    }
    let expected = |i: usize| -> f64 {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / head_dim as f64);
        if wavelength < ORIGINAL / HIGH {
            1.0
        } else if wavelength > ORIGINAL / LOW {
            factor
        } else {
            let smooth = (ORIGINAL / wavelength - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let follows = factors.len() == head_dim / 2
        && factors.iter().enumerate().all(|(i, &f)| (f64::from(f) / expected(i) - 1.0).abs() < 1e-3);
    if !follows {
        bail!("rope_freqs.weight does not follow the rule of Llama 3; use the model's Hugging Face folder");
    }
    Ok(Some(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL as u64,
    })))
}

/// The chat template that the file carries: the default one, or another with a dot and its name as `suffix`.
pub(crate) fn chat_template(header: &Header, suffix: &str) -> Option<String> {
    header.text(&format!("tokenizer.chat_template{suffix}")).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factors_of_llama_3_give_back_their_rule() -> Result<()> {
        // Llama 3.2 1B (head size 64, theta 500,000, factor 32), made with transformers 5.23:
        // inv_freq of ROPE_INIT_FUNCTIONS["default"] / that of ["llama3"].
        let factors = LLAMA_3_2_FACTORS;
        let scaling = llama3_scaling(&factors, 500_000.0, 64)?.unwrap_or_default();
        assert_eq!(scaling["factor"], 32.0);
        assert_eq!(scaling["original_max_position_embeddings"], 8192);

        assert_eq!(llama3_scaling(&[1.0; 32], 500_000.0, 64)?, None);
        let mut other = factors;
        other[20] *= 1.5;
        assert!(llama3_scaling(&other, 500_000.0, 64).is_err());
        assert!(llama3_scaling(&factors[1..], 500_000.0, 64).is_err());
        Ok(())
    }

    const LLAMA_3_2_FACTORS: [f32; 32] = [
        1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.65133, 3.29226, 9.66673,
        32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0, 32.0,
    ];
}
