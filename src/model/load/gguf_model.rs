//! From the names and the metadata of a GGUF file to Hugging Face's.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::gguf;
use super::gguf::Header;
use super::weights::{Stored, Undo, WeightFile, Weights};

/// The architectures whose names and metadata are known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
}

impl Architecture {
    /// The architecture that a header states.
    ///
    /// # Errors
    /// If there is none, or one that is not known here.
    pub fn of(header: &Header) -> Result<Self> {
        Ok(match header.text("general.architecture") {
            Some("llama") => Self::Llama,
            Some("qwen2") => Self::Qwen2,
            Some("qwen3") => Self::Qwen3,
            Some("gemma2") => Self::Gemma2,
            Some("gemma3") => Self::Gemma3,
            Some(other) => {
                bail!("architecture {other:?} is not supported (llama, qwen2, qwen3, gemma2, gemma3 are)")
            }
            None => bail!("general.architecture is missing"),
        })
    }

    fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// `(prefix of the metadata keys, model_type, architectures)`.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Llama => ("llama", "llama", "LlamaForCausalLM"),
            Self::Qwen2 => ("qwen2", "qwen2", "Qwen2ForCausalLM"),
            Self::Qwen3 => ("qwen3", "qwen3", "Qwen3ForCausalLM"),
            Self::Gemma2 => ("gemma2", "gemma2", "Gemma2ForCausalLM"),
            Self::Gemma3 => ("gemma3", "gemma3_text", "Gemma3ForCausalLM"),
        }
    }
}

/// The weights of a GGUF file under Hugging Face's names.
///
/// # Errors
/// If a tensor has a name that is not known: leaving it out would compute something else.
pub(crate) fn weights(
    path: &Path,
    header: &Header,
    architecture: Architecture,
    config: &Value,
) -> Result<Weights> {
    let heads = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let heads = (heads("num_attention_heads"), heads("num_key_value_heads"));
    let file = WeightFile::open(path)?;
    let mut weights = Weights::default();
    let mut unknown = Vec::new();
    for (name, info) in &header.tensors {
        // Its content is in `rope_scaling`.
        if name == "rope_freqs.weight" {
            continue;
        }
        let Some((hugging_face, undo)) = rename(name, architecture, heads) else {
            unknown.push(name.as_str());
            continue;
        };
        weights.insert(
            hugging_face,
            Stored {
                file: file.clone(),
                offset: info.offset,
                shape: info.shape.clone(),
                encoding: info.encoding,
                undo,
            },
        );
    }
    if !unknown.is_empty() {
        bail!(
            "{} tensor(s) have no place in a {architecture:?} model: {}{}",
            unknown.len(),
            unknown[..unknown.len().min(5)].join(", "),
            if unknown.len() > 5 { ", …" } else { "" }
        );
    }
    Ok(weights)
}

/// The Hugging Face name of a GGUF tensor and what has to be undone. `heads` counts query heads and
/// key-value heads.
fn rename(name: &str, architecture: Architecture, heads: (usize, usize)) -> Option<(String, Undo)> {
    let gemma = architecture.is_gemma();
    let norm = if gemma { Undo::PlusOne } else { Undo::Nothing };
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
    let rotary = |heads| match architecture {
        Architecture::Llama => Undo::InterleavedHeads(heads),
        _ => Undo::Nothing,
    };
    let (leaf, undo) = match leaf {
        "attn_q" => ("self_attn.q_proj", rotary(heads.0)),
        "attn_k" => ("self_attn.k_proj", rotary(heads.1)),
        "attn_v" => ("self_attn.v_proj", Undo::Nothing),
        "attn_output" => ("self_attn.o_proj", Undo::Nothing),
        "attn_q_norm" => ("self_attn.q_norm", norm),
        "attn_k_norm" => ("self_attn.k_norm", norm),
        "ffn_gate" => ("mlp.gate_proj", Undo::Nothing),
        "ffn_up" => ("mlp.up_proj", Undo::Nothing),
        "ffn_down" => ("mlp.down_proj", Undo::Nothing),
        "attn_norm" => ("input_layernorm", norm),
        "post_attention_norm" if gemma => ("post_attention_layernorm", norm),
        "ffn_norm" if gemma => ("pre_feedforward_layernorm", norm),
        "post_ffw_norm" if gemma => ("post_feedforward_layernorm", norm),
        "ffn_norm" => ("post_attention_layernorm", norm),
        _ => return None,
    };
    Some((format!("model.layers.{block}.{leaf}.{suffix}"), undo))
}

/// `config.json` as the Hugging Face folder of the model would have it.
///
/// # Errors
/// If the metadata lacks sizes; all that are missing are named.
pub(crate) fn config(header: &Header, architecture: Architecture) -> Result<Value> {
    let (prefix, model_type, class) = architecture.names();
    let key = |name: &str| format!("{prefix}.{name}");
    let required = [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ];
    let missing: Vec<String> =
        required.iter().map(|name| key(name)).filter(|key| header.float(key).is_none()).collect();
    if !missing.is_empty() {
        bail!("metadata is missing: {}", missing.join(", "));
    }
    let integer = |name: &str| header.integer(&key(name));
    let float = |name: &str| header.float(&key(name));

    let hidden = integer("embedding_length").unwrap_or(0);
    let heads = integer("attention.head_count").unwrap_or(0);
    if heads == 0 || hidden == 0 {
        bail!("{hidden} hidden units in {heads} attention heads are impossible");
    }
    let layers = integer("block_count").unwrap_or(0);
    // Bounds what is built for each layer below by the size of the file.
    if layers == 0 || layers > header.tensors.len() as u64 {
        bail!("{layers} layers do not fit {} tensors", header.tensors.len());
    }
    let head_dim =
        integer("attention.key_length").or_else(|| integer("rope.dimension_count")).unwrap_or(hidden / heads);
    let vocabulary = integer("vocab_size")
        .or_else(|| {
            let tokens = header.texts("tokenizer.ggml.tokens")?;
            Some(tokens.len() as u64)
        })
        .context("metadata has neither a vocabulary nor its size")?;

    let mut config = json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": integer("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": integer("attention.head_count_kv").unwrap_or(heads),
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
    if let Some(scaling) = rope_scaling(header, &key("rope.scaling")) {
        config["rope_scaling"] = scaling;
    }

    match architecture {
        Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => {
            config["hidden_act"] = json!("silu");
            if architecture != Architecture::Qwen2 {
                config["attention_bias"] = json!(header.tensors.contains_key("blk.0.attn_q.bias"));
            }
            if architecture == Architecture::Llama {
                config["mlp_bias"] = json!(header.tensors.contains_key("blk.0.ffn_up.bias"));
            } else {
                config["use_sliding_window"] = json!(false);
            }
        }
        Architecture::Gemma2 | Architecture::Gemma3 => {
            config["hidden_activation"] = json!("gelu_pytorch_tanh");
            config["attention_bias"] = json!(false);
            // Not in the file. llama.cpp (`llama_model_gemma2::load_arch_hparams`) scales scores by
            // 1/sqrt(head_dim), in the two 27B models, which it tells by their depth, by 1/sqrt(hidden/heads).
            let is_27b = layers == if architecture == Architecture::Gemma2 { 46 } else { 62 };
            config["query_pre_attn_scalar"] = json!(if is_27b { hidden / heads } else { head_dim });
            let window = integer("attention.sliding_window");
            config["sliding_window"] = json!(window.unwrap_or(4096));
            // Every n-th layer attends to everything: every second of Gemma 2, every sixth of Gemma 3.
            let pattern = match architecture {
                Architecture::Gemma2 => 2,
                _ => integer("attention.sliding_window_pattern").filter(|&n| n > 0).unwrap_or(6),
            };
            config["layer_types"] = (1..=layers)
                .map(|layer| match layer % pattern {
                    0 => "full_attention",
                    _ => "sliding_attention",
                })
                .collect();
            // A cap of 0 is none, as in llama.cpp.
            let cap = |name: &str, absent: Option<f64>| float(name).or(absent).filter(|&cap| cap > 0.0);
            let (scores, logits) = match architecture {
                Architecture::Gemma2 => (Some(50.0), Some(30.0)),
                _ => (None, None),
            };
            config["attn_logit_softcapping"] = json!(cap("attn_logit_softcapping", scores));
            config["final_logit_softcapping"] = json!(cap("final_logit_softcapping", logits));
            if architecture == Architecture::Gemma3 {
                config["sliding_window_pattern"] = json!(pattern);
                config["rope_local_base_freq"] = json!(float("rope.freq_base_swa").unwrap_or(10_000.0));
            }
        }
    }
    Ok(config)
}

/// `rope_scaling` from `<prefix>.type` and its companions; `None` where positions are not rescaled.
fn rope_scaling(header: &Header, prefix: &str) -> Option<Value> {
    let kind = header.text(&format!("{prefix}.type"))?;
    if kind == "none" {
        return None;
    }
    let mut scaling = json!({ "rope_type": kind });
    if let Some(factor) = header.float(&format!("{prefix}.factor")) {
        scaling["factor"] = json!(factor);
    }
    if let Some(length) = header.integer(&format!("{prefix}.original_context_length")) {
        scaling["original_max_position_embeddings"] = json!(length);
    }
    Some(scaling)
}

/// Adds to the configuration what only a tensor of the file tells: the scaling of Llama 3's rotary
/// frequencies.
///
/// # Errors
/// If the tensor cannot be read or does not follow Llama 3's rule.
pub(crate) fn complete_config(path: &Path, header: &Header, config: &mut Value) -> Result<()> {
    let Some(info) = header.tensors.get("rope_freqs.weight") else {
        return Ok(());
    };
    let mut weights = Weights::default();
    let stored = Stored {
        file: WeightFile::open(path)?,
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

/// The chat template that the file carries.
pub(crate) fn chat_template(header: &Header) -> Option<String> {
    match header.metadata.get("tokenizer.chat_template") {
        Some(gguf::Value::Text(template)) => Some(template.clone()),
        _ => None,
    }
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
