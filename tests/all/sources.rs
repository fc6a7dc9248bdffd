//! Every kind of model source, with tiny files that the tests write themselves.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tempfile::TempDir;
use trainer::data::examples::Example;
use trainer::error::InputError;
use trainer::interrupt::Interrupt;
use trainer::model::batch::Batch;
use trainer::model::generate::{Sampling, generate};
use trainer::model::hooks::{ActivationCache, NoHook, Site};
use trainer::model::load::loader::Tuning;
use trainer::model::load::source::{Pretrained, open};
use trainer::model::lora::LoraConfig;
use trainer::model::{CausalLm, Pass};
use trainer::recipe::{ModelDtype, Modules};
use trainer::train::optim::NamedGradients;

use crate::common::tiny::logits;
use crate::common::values::floats;

/// The text of the input error that opening must give.
fn fault(model: &Path) -> String {
    fault_of(open(&model.to_string_lossy()))
}

fn fault_of(opened: Result<Pretrained>) -> String {
    let error = opened.expect_err("this must not open");
    assert!(error.is::<InputError>(), "not an input error: {error:?}");
    error.to_string()
}

fn open_path(path: &Path) -> Result<Pretrained> {
    open(&path.to_string_lossy())
}

fn encode(model: &Pretrained, text: &str) -> Vec<u32> {
    let encoding = model.tokenizer.encode(text, true).expect("encodes");
    encoding.get_ids().to_vec()
}

fn values(model: &Pretrained, name: &str) -> Result<Vec<f32>> {
    let tensor = model.weights.get(name)?;
    assert_eq!(tensor.dtype(), DType::F32);
    assert!(tensor.is_contiguous());
    Ok(tensor.flatten_all()?.to_vec1()?)
}

// --- Hugging Face folders ---------------------------------------------------------------------------

/// A folder with two shards: `a` and `b` of f32 and bf16 in the first, `c` of f16 in the second.
fn folder() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let a = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
    let b = Tensor::new(&[0.5f32, -0.25], &Device::Cpu)?.to_dtype(DType::BF16)?;
    let c = Tensor::new(&[1.5f32], &Device::Cpu)?.to_dtype(DType::F16)?;
    let first = HashMap::from([("a".to_string(), a), ("b".to_string(), b)]);
    let second = HashMap::from([("c".to_string(), c)]);
    let shards = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"];
    candle_core::safetensors::save(&first, dir.path().join(shards[0]))?;
    candle_core::safetensors::save(&second, dir.path().join(shards[1]))?;
    let write = |name: &str, json: serde_json::Value| fs::write(dir.path().join(name), json.to_string());
    write(
        "model.safetensors.index.json",
        json!({"weight_map": {"a": shards[0], "b": shards[0], "c": shards[1]}}),
    )?;
    write("config.json", json!({"model_type": "llama", "eos_token_id": 1}))?;
    write("generation_config.json", json!({"eos_token_id": [1, 2]}))?;
    write(
        "tokenizer_config.json",
        json!({
            "bos_token": {"content": "<s>"}, "eos_token": "</s>",
            "chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}],
        }),
    )?;
    write(
        "tokenizer.json",
        json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
            "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "word": 2}, "unk_token": "<s>"},
        }),
    )?;
    Ok(dir)
}

#[test]
fn a_sharded_folder_opens_as_f32() -> Result<()> {
    let dir = folder()?;
    let model = open_path(dir.path())?;
    assert_eq!(model.weights.names(), ["a", "b", "c"]);
    assert_eq!(model.weights.shape("a"), Some(vec![2, 2]));
    assert_eq!(values(&model, "a")?, [1., 2., 3., 4.]);
    assert_eq!(values(&model, "b")?, [0.5, -0.25]);
    assert_eq!(values(&model, "c")?, [1.5]);
    assert_eq!(model.eos_token_ids, [1, 2]);
    assert_eq!(model.bos_token.as_deref(), Some("<s>"));
    assert_eq!(model.eos_token.as_deref(), Some("</s>"));
    assert_eq!(model.chat_template.as_deref(), Some("yes"));
    assert_eq!(model.config["model_type"], "llama");
    assert_eq!(model.sha256.len(), 2);
    // The truncation that the tokenizer was saved with does not cut training texts.
    assert_eq!(encode(&model, "word word"), [2, 2]);

    fs::write(dir.path().join("chat_template.jinja"), "from the file")?;
    let model = open_path(dir.path())?;
    assert_eq!(model.chat_template.as_deref(), Some("from the file"));
    Ok(())
}

#[test]
fn a_token_of_white_space_alone_keeps_its_place_in_the_text() -> Result<()> {
    // As in the tokenizer.json of GPT-2 and its kin, whose offsets are trimmed; the loss mask reads them.
    let dir = tempfile::tempdir()?;
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/llama");
    for file in fs::read_dir(&from)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_file()) {
        fs::copy(&file, dir.path().join(file.file_name().expect("a file")))?;
    }
    let path = dir.path().join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    tokenizer["post_processor"] =
        json!({"type": "Sequence", "processors": [byte_level, tokenizer["post_processor"].clone()]});
    fs::write(&path, tokenizer.to_string())?;
    let text = "if a:\n    b = 1\n\n    c";
    let encoding = open_path(dir.path())?.tokenizer.encode(text, true).expect("encodes");
    let covered: String = encoding.get_offsets().iter().map(|&(from, to)| &text[from..to]).collect();
    assert_eq!(covered, text);
    assert_eq!(encoding.get_ids(), encode(&open_path(&from)?, text));
    Ok(())
}

#[test]
fn a_tensor_that_is_not_there_is_named() -> Result<()> {
    let dir = folder()?;
    let model = open_path(dir.path())?;
    assert_eq!(model.weights.shape("model.norm.weight"), None);
    let error = model.weights.get("model.norm.weight").expect_err("absent");
    assert!(error.to_string().contains("model.norm.weight"), "{error}");
    Ok(())
}

#[test]
fn an_index_that_promises_too_much_is_refused() -> Result<()> {
    let dir = folder()?;
    let index = dir.path().join("model.safetensors.index.json");
    let shard = "model-1-of-2.safetensors";
    fs::write(&index, json!({"weight_map": {"a": shard, "zz": shard}}).to_string())?;
    let message = fault(dir.path());
    assert!(message.contains("tensor zz is not in"), "{message}");

    fs::write(&index, json!({"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}).to_string())?;
    let message = fault(dir.path());
    assert!(message.contains("x.safetensors") && message.contains("y.safetensors"), "{message}");

    fs::write(&index, json!({"weight_map": {"a": "../elsewhere.safetensors"}}).to_string())?;
    assert!(fault(dir.path()).contains("plain file name"));
    Ok(())
}

#[test]
fn a_safetensors_file_that_is_cut_short_or_damaged_is_refused() -> Result<()> {
    let dir = folder()?;
    let path = dir.path().join("model-1-of-2.safetensors");
    let bytes = fs::read(&path)?;
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len])?;
        assert!(fault(dir.path()).contains("model-1-of-2.safetensors"), "{len} bytes");
    }
    // A damaged header may by chance still be one; it must never panic.
    for i in 0..bytes.len().min(200) {
        let mut damaged = bytes.clone();
        damaged[i] ^= 0x15;
        fs::write(&path, damaged)?;
        if let Ok(model) = open_path(dir.path()) {
            model.weights.names().iter().for_each(|n| drop(model.weights.get(n)));
        }
    }
    Ok(())
}

#[test]
fn what_a_folder_lacks_is_named() -> Result<()> {
    for file in ["tokenizer.json", "config.json", "model-2-of-2.safetensors"] {
        let dir = folder()?;
        fs::remove_file(dir.path().join(file))?;
        let message = fault(dir.path());
        assert!(message.contains(file), "{message}");
    }
    Ok(())
}

// --- GGUF -------------------------------------------------------------------------------------------

fn texts(list: &[&str]) -> Value {
    Value::Array(list.iter().map(|t| Value::String(t.to_string())).collect())
}

fn integers(list: &[i32]) -> Value {
    Value::Array(list.iter().map(|&n| Value::I32(n)).collect())
}

type Metadata = Vec<(String, Value)>;

fn sizes(architecture: &str) -> Metadata {
    let mut metadata = vec![("general.architecture".to_string(), Value::String(architecture.to_string()))];
    for (key, value) in [
        ("block_count", Value::U32(1)),
        ("context_length", Value::U32(64)),
        ("embedding_length", Value::U32(32)),
        ("feed_forward_length", Value::U32(64)),
        ("attention.head_count", Value::U32(2)),
        ("attention.head_count_kv", Value::U32(1)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("rope.freq_base", Value::F32(10_000.)),
    ] {
        metadata.push((format!("{architecture}.{key}"), value));
    }
    metadata
}

/// Byte-level BPE with a merge for "hi", a control token and a user-defined one.
fn byte_level() -> Metadata {
    vec![
        ("tokenizer.ggml.model".into(), Value::String("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Value::String("qwen2".into())),
        ("tokenizer.ggml.tokens".into(), texts(&["<|end|>", "h", "i", "hi", "Ġ", "Ġhi", "<think>", "Ċ"])),
        ("tokenizer.ggml.token_type".into(), integers(&[3, 1, 1, 1, 1, 1, 4, 1])),
        ("tokenizer.ggml.merges".into(), texts(&["h i", "Ġ hi"])),
        ("tokenizer.ggml.eos_token_id".into(), Value::U32(0)),
        ("tokenizer.ggml.eot_token_id".into(), Value::U32(7)),
        ("tokenizer.ggml.padding_token_id".into(), Value::U32(6)),
        ("tokenizer.chat_template".into(), Value::String("{{ x }}".into())),
    ]
}

/// SentencePiece as Gemma stores it: no merges, blanks as spaces, bytes as a fallback.
fn sentencepiece() -> Metadata {
    let mut tokens: Vec<String> =
        ["<pad>", "<eos>", "<bos>", "<unk>", "h", "i", "▁", "hi", "▁hi", "  "].map(String::from).to_vec();
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    let mut kinds = vec![3, 3, 3, 2, 1, 1, 1, 1, 1, 4];
    kinds.resize(tokens.len(), 6);
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    vec![
        ("tokenizer.ggml.model".into(), Value::String("llama".into())),
        ("tokenizer.ggml.tokens".into(), texts(&tokens)),
        ("tokenizer.ggml.token_type".into(), integers(&kinds)),
        ("tokenizer.ggml.bos_token_id".into(), Value::U32(2)),
        ("tokenizer.ggml.eos_token_id".into(), Value::U32(1)),
        ("tokenizer.ggml.unknown_token_id".into(), Value::U32(3)),
    ]
}

/// `rows × 32` numbers that count up from zero.
fn counting(rows: usize) -> Result<Tensor> {
    let n = (rows * 32) as f32;
    Ok(Tensor::arange(0f32, n, &Device::Cpu)?.reshape((rows, 32))?)
}

fn write_gguf(path: &Path, metadata: &Metadata, tensors: &[(&str, Tensor, GgmlDType)]) -> Result<()> {
    let quantised: Vec<(&str, QTensor)> = tensors
        .iter()
        .map(|(name, tensor, dtype)| Ok((*name, QTensor::quantize(tensor, *dtype)?)))
        .collect::<Result<_>>()?;
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = quantised.iter().map(|(k, v)| (*k, v)).collect();
    gguf_file::write(&mut File::create(path)?, &metadata, &tensors)?;
    Ok(())
}

fn llama_gguf(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("tiny.gguf");
    let ones = Tensor::ones(32, DType::F32, &Device::Cpu)?;
    write_gguf(
        &path,
        &[sizes("llama"), byte_level()].concat(),
        &[
            ("token_embd.weight", counting(8)?, GgmlDType::Q8_0),
            ("output_norm.weight", ones.clone(), GgmlDType::F32),
            ("blk.0.attn_q.weight", counting(8)?, GgmlDType::F32),
            ("blk.0.attn_k.weight", counting(4)?, GgmlDType::F16),
            ("blk.0.attn_v.weight", counting(4)?, GgmlDType::F32),
            ("blk.0.ffn_norm.weight", ones, GgmlDType::F32),
        ],
    )?;
    Ok(path)
}

#[test]
fn a_llama_gguf_opens_under_hugging_face_names() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = llama_gguf(dir.path())?;
    let model = open_path(&path)?;
    assert_eq!(
        model.weights.names(),
        [
            "model.embed_tokens.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.v_proj.weight",
            "model.norm.weight",
        ]
    );
    // Two heads of four rows: stored row 2i+j becomes row 2j+i of its head (halves of two rows).
    let first_of_row = |name: &str| -> Result<Vec<f32>> {
        Ok(values(&model, name)?.chunks(32).map(|row| row[0] / 32.).collect())
    };
    assert_eq!(first_of_row("model.layers.0.self_attn.q_proj.weight")?, [0., 2., 1., 3., 4., 6., 5., 7.]);
    assert_eq!(first_of_row("model.layers.0.self_attn.k_proj.weight")?, [0., 2., 1., 3.]);
    assert_eq!(first_of_row("model.layers.0.self_attn.v_proj.weight")?, [0., 1., 2., 3.]);
    // Q8_0 keeps 127 steps of the largest of 32 numbers.
    for (i, value) in values(&model, "model.embed_tokens.weight")?.iter().enumerate() {
        assert!((value - i as f32).abs() <= 1.1, "{i}: {value}");
    }

    assert_eq!(model.config["model_type"], "llama");
    assert_eq!(model.config["hidden_size"], 32);
    assert_eq!(model.config["head_dim"], 16);
    assert_eq!(model.config["vocab_size"], 8);
    assert_eq!(model.config["tie_word_embeddings"], true);
    assert_eq!(model.eos_token_ids, [0, 7]);
    assert_eq!(model.eos_token.as_deref(), Some("<|end|>"));
    assert_eq!(model.pad_token.as_deref(), Some("<think>"));
    assert_eq!(model.chat_template.as_deref(), Some("{{ x }}"));
    assert_eq!(model.sha256["tiny.gguf"].len(), 64);

    let ids = encode(&model, "hi hi<think>\n<|end|>");
    assert_eq!(ids, [3, 5, 6, 7, 0]);
    let text = model.tokenizer.decode(&ids, false).expect("decodes");
    assert_eq!(text, "hi hi<think>\n<|end|>");

    // The folder around the one file opens too.
    assert_eq!(open_path(dir.path())?.weights.names(), model.weights.names());
    Ok(())
}

#[test]
fn a_gemma_gguf_has_its_norms_shifted_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("tiny.gguf");
    let norm = Tensor::full(1.5f32, 32, &Device::Cpu)?;
    let mut tensors = vec![
        ("token_embd.weight", counting(266)?, GgmlDType::F32),
        ("output_norm.weight", norm.clone(), GgmlDType::F32),
        ("blk.0.attn_q.weight", counting(8)?, GgmlDType::F32),
    ];
    for name in [
        "blk.0.attn_norm.weight",
        "blk.0.attn_q_norm.weight",
        "blk.0.post_attention_norm.weight",
        "blk.0.ffn_norm.weight",
        "blk.0.post_ffw_norm.weight",
    ] {
        tensors.push((name, norm.clone(), GgmlDType::F32));
    }
    let window = vec![("gemma3.attention.sliding_window".to_string(), Value::U32(512))];
    write_gguf(&path, &[sizes("gemma3"), window, sentencepiece()].concat(), &tensors)?;
    let model = open_path(&path)?;
    for name in [
        "model.norm",
        "model.layers.0.input_layernorm",
        "model.layers.0.self_attn.q_norm",
        "model.layers.0.post_attention_layernorm",
        "model.layers.0.pre_feedforward_layernorm",
        "model.layers.0.post_feedforward_layernorm",
    ] {
        assert_eq!(values(&model, &format!("{name}.weight"))?, [0.5; 32], "{name}");
    }
    // Gemma's rows are not permuted.
    let q = values(&model, "model.layers.0.self_attn.q_proj.weight")?;
    assert_eq!(q, counting(8)?.flatten_all()?.to_vec1::<f32>()?);
    assert_eq!(model.config["model_type"], "gemma3_text");
    assert_eq!(model.config["layer_types"], json!(["sliding_attention"]));
    assert_eq!(model.config["rope_local_base_freq"], 10_000.0);

    // <bos> is added although the file does not say so; "é" falls back to its two bytes; the blank is
    // one token.
    let ids = encode(&model, "hi hi  é");
    assert_eq!(ids, [2, 7, 8, 9, 10 + 0xC3, 10 + 0xA9]);
    assert_eq!(model.tokenizer.decode(&ids, true).expect("decodes"), "hi hi  é");
    Ok(())
}

/// Logits of one text of 14 tokens.
/// Logits of some tokens.
fn some_logits(from: &Pretrained) -> Result<Vec<f32>> {
    let (model, _) = CausalLm::load(from, &Tuning::Frozen, &Device::Cpu)?;
    let ids: Vec<u32> = (0..14).map(|i| (i * 37 + 11) % 280).collect();
    Ok(floats(&logits(&model, &ids, 0.0)))
}

/// The name of a weight in a file that llama.cpp wrote (its `gguf-py/gguf/tensor_mapping.py`).
fn gguf_name(name: &str, gemma: bool) -> String {
    let Some((block, rest)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        let (from, to) =
            [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")]
                .into_iter()
                .find(|(from, _)| name.starts_with(from))
                .expect("a weight outside the blocks");
        return name.replace(from, to);
    };
    let (module, suffix) = rest.rsplit_once('.').expect("weight or bias");
    let leaf = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" if gemma => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => panic!("unknown module {other}"),
    };
    format!("blk.{block}.{leaf}.{suffix}")
}

/// The metadata that llama.cpp's converter writes for a model folder.
fn gguf_metadata(prefix: &str, config: &serde_json::Value) -> Metadata {
    let mut metadata = vec![("general.architecture".to_string(), Value::String(prefix.to_string()))];
    for (theirs, ours) in [
        ("block_count", "num_hidden_layers"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("attention.sliding_window", "sliding_window"),
        ("vocab_size", "vocab_size"),
    ] {
        let is_written = theirs != "attention.sliding_window" || prefix.starts_with("gemma");
        if let Some(number) = config[ours].as_u64().filter(|_| is_written) {
            metadata.push((format!("{prefix}.{theirs}"), Value::U32(number as u32)));
        }
    }
    let rope = &config["rope_parameters"];
    let theta = rope["rope_theta"].as_f64().or(rope["full_attention"]["rope_theta"].as_f64());
    for (theirs, number) in [
        ("attention.layer_norm_rms_epsilon", config["rms_norm_eps"].as_f64()),
        ("rope.freq_base", theta),
        ("attn_logit_softcapping", config["attn_logit_softcapping"].as_f64()),
        ("final_logit_softcapping", config["final_logit_softcapping"].as_f64()),
    ] {
        if let Some(number) = number {
            metadata.push((format!("{prefix}.{theirs}"), Value::F32(number as f32)));
        }
    }
    metadata
}

#[test]
fn a_gguf_of_a_model_computes_what_its_folder_computes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (family, tokenizer) in [
        ("qwen2", byte_level()),
        ("qwen3", byte_level()),
        ("gemma2", sentencepiece()),
        ("gemma3", sentencepiece()),
    ] {
        let mut from =
            open_path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(family))?;
        let config = from.config.as_object_mut().expect("an object");
        if family == "qwen3" {
            // llama.cpp has no window for Qwen3 ...
            config.insert("use_sliding_window".into(), json!(false));
            config.remove("layer_types");
        }
        if config.contains_key("query_pre_attn_scalar") {
            // ... and takes the scale of Gemma's scores from the width of a head.
            config.insert("query_pre_attn_scalar".into(), config["head_dim"].clone());
        }
        let gemma = family.starts_with("gemma");
        let mut tensors = Vec::new();
        for name in from.weights.names() {
            let mut tensor = from.weights.get(&name)?;
            if gemma && name.contains("norm") {
                tensor = (tensor + 1.0)?;
            }
            tensors.push((gguf_name(&name, gemma), tensor, GgmlDType::F32));
        }
        let tensors: Vec<(&str, Tensor, GgmlDType)> =
            tensors.iter().map(|(name, tensor, dtype)| (name.as_str(), tensor.clone(), *dtype)).collect();
        let path = dir.path().join(format!("{family}.gguf"));
        write_gguf(&path, &[gguf_metadata(family, &from.config), tokenizer].concat(), &tensors)?;

        let found = open_path(&path)?;
        assert_eq!(found.weights.names(), from.weights.names(), "{family}");
        assert_eq!(found.config["architectures"], from.config["architectures"]);
        let (ours, theirs) = (some_logits(&found)?, some_logits(&from)?);
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(ours.len() == theirs.len() && worst < 1e-5, "{family}: logits differ by {worst}");
    }
    Ok(())
}

/// A tiny model's folder as a GGUF file: matrices in blocks of 4 and 8 bits where their rows fill blocks, else f16.
fn quantised_gguf(dir: &Path, family: &str, tokenizer: Metadata) -> Result<PathBuf> {
    let from = open_path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(family))?;
    let mut tensors = Vec::new();
    for (i, name) in from.weights.names().into_iter().enumerate() {
        let tensor = from.weights.get(&name)?;
        let dtype = match tensor.dims() {
            [_, cols] if cols % 32 == 0 => [GgmlDType::Q4_1, GgmlDType::Q8_0][i % 2],
            [_, _] => GgmlDType::F16,
            _ => GgmlDType::F32,
        };
        tensors.push((gguf_name(&name, family.starts_with("gemma")), tensor, dtype));
    }
    let tensors: Vec<_> = tensors.iter().map(|(n, t, d)| (n.as_str(), t.clone(), *d)).collect();
    let path = dir.join(format!("{family}.gguf"));
    write_gguf(&path, &[gguf_metadata(family, &from.config), tokenizer].concat(), &tensors)?;
    Ok(path)
}

/// Loss, gradients and the stream after block 1 in one training step with dropout; matrices held as `dtype` says.
fn step(path: &Path, dtype: ModelDtype, config: &LoraConfig) -> Result<BTreeMap<String, Vec<f32>>> {
    let mut from = open_path(path)?;
    from.set_dtype(dtype)?;
    let (model, trainables) = CausalLm::load(&from, &Tuning::Lora { config, seed: 1 }, &Device::Cpu)?;
    for var in trainables.values() {
        var.set(&(var.as_tensor() + 0.01)?)?; // B starts as zeros
    }
    let ids: Vec<u32> = (0..14).map(|i| (i * 37 + 11) % 280).collect();
    let example = Example { weights: vec![1.0; ids.len()], ids, row: 0 };
    let batch = Batch::new(&[&example], 13);
    let (mut rng, mut sum) = (ChaCha8Rng::seed_from_u64(2), NamedGradients::new());
    let loss = batch.backward(&model, &trainables, &mut rng, false, &mut NoHook, &mut sum)?;
    let mut hook = ActivationCache::new(&[1], Site::ResidPost);
    model.hidden(&batch.ids, &mut Pass::new(&batch.segments, 1.0, &mut hook))?;
    let flat = |t: &Tensor| -> Result<Vec<f32>> { Ok(t.flatten_all()?.to_vec1()?) };
    let mut found: BTreeMap<String, Vec<f32>> =
        sum.iter().map(|(name, gradient)| Ok((name.clone(), flat(gradient)?))).collect::<Result<_>>()?;
    found.insert("loss".into(), vec![loss.total.to_scalar()?]);
    found.insert("stream".into(), flat(&hook.values[&1])?);
    Ok(found)
}

#[test]
fn matrices_held_as_the_file_has_them_train_as_in_f32() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let plain = LoraConfig {
        r: 4,
        lora_alpha: 6.0,
        lora_dropout: 0.2,
        target_modules: Modules::Pattern("all-linear".into()),
        ..LoraConfig::default()
    };
    let saving = LoraConfig {
        use_dora: true,
        target_modules: Modules::Names(vec!["q_proj".into(), "k_proj".into(), "down_proj".into()]),
        modules_to_save: vec!["embed_tokens".into(), "1.mlp.up_proj".into()],
        ..plain.clone()
    };
    for (family, tokenizer) in [("llama", byte_level()), ("qwen2", byte_level()), ("gemma2", sentencepiece())]
    {
        let path = quantised_gguf(dir.path(), family, tokenizer)?;
        for config in [&plain, &saving] {
            let ours = step(&path, ModelDtype::Native, config)?;
            let theirs = step(&path, ModelDtype::F32, config)?;
            assert!(ours.keys().eq(theirs.keys()) && ours.len() > 20, "{:?}", ours.keys());
            for (name, theirs) in &theirs {
                let largest = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
                let worst = ours[name].iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                assert!(worst <= 1e-6 * largest, "{family} {name}: {worst:e} of {largest:e}");
            }
            // Rounded to eight bits, numbers are off by up to 2^-9 of themselves, and many such errors cancel.
            let rounded = step(&path, ModelDtype::Bf16, config)?;
            let (loss, theirs_loss) = (rounded["loss"][0], theirs["loss"][0]);
            assert!(
                loss != theirs_loss && (loss - theirs_loss).abs() < 0.01 * theirs_loss,
                "{loss} {theirs_loss}"
            );
        }
    }
    for family in ["llama", "qwen2"] {
        let written = |dtype, prompts: &[Vec<u32>]| -> Result<Vec<Vec<u32>>> {
            let mut from = open_path(&dir.path().join(format!("{family}.gguf")))?;
            from.set_dtype(dtype)?;
            let (model, _) = CausalLm::load(&from, &Tuning::Frozen, &Device::Cpu)?;
            let sampling = Sampling { max_new_tokens: 12, temperature: 0.0, seed: 0, eos: Vec::new() };
            generate(&model, prompts, &sampling, 1.0, &mut NoHook, |_| Ok(()))
        };
        // One sequence, whose products are made with the file's integers, and several.
        for prompts in [vec![vec![5, 80, 7]], vec![vec![5, 80, 7], vec![44], vec![9, 9]]] {
            let theirs = written(ModelDtype::F32, &prompts)?;
            assert_eq!(written(ModelDtype::Native, &prompts)?, theirs, "{family}");
            assert!(theirs.iter().all(|ids| ids.len() == 12));
        }
    }
    let mut folder = open_path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/llama"))?;
    let refused = folder.set_dtype(ModelDtype::Native).expect_err("not a GGUF file").to_string();
    assert!(refused.contains("model.dtype") && refused.contains("is not a GGUF file"), "{refused}");
    Ok(())
}

#[test]
fn what_a_gemma_2_gguf_does_not_say_is_as_llama_cpp_has_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("tiny.gguf");
    let embedding = ("token_embd.weight", counting(266)?, GgmlDType::F32);
    let mut metadata = [sizes("gemma2"), sentencepiece()].concat();
    write_gguf(&path, &metadata, std::slice::from_ref(&embedding))?;
    let config = open_path(&path)?.config;
    assert_eq!(config["attn_logit_softcapping"], 50.0);
    assert_eq!(config["final_logit_softcapping"], 30.0);
    assert_eq!(config["sliding_window"], 4096);
    assert_eq!(config["layer_types"], json!(["sliding_attention"]));
    assert_eq!(config["query_pre_attn_scalar"], 16);

    metadata.push(("gemma2.final_logit_softcapping".into(), Value::F32(0.0)));
    write_gguf(&path, &metadata, &[embedding])?;
    assert!(open_path(&path)?.config["final_logit_softcapping"].is_null());
    Ok(())
}

/// Metadata with keys added or replaced; a value of `None` takes a key away.
fn changed(metadata: &Metadata, changes: &[(&str, Option<Value>)]) -> Metadata {
    let kept = metadata.iter().filter(|(key, _)| !changes.iter().any(|(name, _)| name == key)).cloned();
    let new = changes.iter().filter_map(|(key, value)| Some((key.to_string(), value.clone()?)));
    kept.chain(new).collect()
}

/// A model of nothing but embeddings, which opens; only its metadata matter.
fn opened(path: &Path, metadata: &Metadata) -> Result<Pretrained> {
    let rows = match metadata.iter().find(|(key, _)| key == "tokenizer.ggml.tokens") {
        Some((_, Value::Array(tokens))) => tokens.len(),
        _ => 1,
    };
    write_gguf(path, metadata, &[("token_embd.weight", counting(rows)?, GgmlDType::F32)])?;
    open_path(path)
}

/// llama.cpp adds the beginning token to text of `llama-bpe` and `tekken` files, which say nothing of it; the reader of
/// transformers does not, and neither did we (transformers#39820 and others).
#[test]
fn text_of_a_llama_3_gguf_begins_with_the_beginning_token() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let metadata = |pre: &str, more: &[(&str, Option<Value>)]| {
        let pre = [("tokenizer.ggml.pre", Some(Value::String(pre.into())))];
        changed(&[sizes("llama"), byte_level()].concat(), &[&pre, more].concat())
    };
    let bos = ("tokenizer.ggml.bos_token_id", Some(Value::U32(6)));
    let no = ("tokenizer.ggml.add_bos_token", Some(Value::Bool(false)));
    for pre in ["llama-bpe", "llama3", "tekken"] {
        assert_eq!(
            encode(&opened(&path, &metadata(pre, std::slice::from_ref(&bos)))?, "hi"),
            [6, 3],
            "{pre}"
        );
        assert_eq!(encode(&opened(&path, &metadata(pre, &[bos.clone(), no.clone()]))?, "hi"), [3], "{pre}");
        let message = fault_of(opened(&path, &metadata(pre, &[])));
        assert!(message.contains("tokenizer.ggml.bos_token_id"), "{message}");
    }
    assert_eq!(encode(&opened(&path, &metadata("qwen2", &[bos]))?, "hi"), [3]);
    Ok(())
}

/// Llama 3 has tokens that its merges do not reach, and takes them whole; SmolLM2 splits numbers into digits, which the
/// reader of transformers does not; Qwen2 composes text first.
#[test]
fn byte_level_text_is_split_as_the_file_says() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let tokens = texts(&["<|end|>", "a", "b", "ab", "1", "2", "12", "Ã", "©", "Ã©", "e", "Ì", "ģ"]);
    let kinds = integers(&[3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    let ids = |pre: &str, text: &str| -> Result<Vec<u32>> {
        let changes = [
            ("tokenizer.ggml.pre", Some(Value::String(pre.into()))),
            ("tokenizer.ggml.tokens", Some(tokens.clone())),
            ("tokenizer.ggml.token_type", Some(kinds.clone())),
            ("tokenizer.ggml.merges", Some(texts(&["1 2", "Ã ©"]))),
            ("tokenizer.ggml.add_bos_token", Some(Value::Bool(false))),
            ("tokenizer.ggml.eot_token_id", None),
            ("tokenizer.ggml.padding_token_id", None),
        ];
        let model = opened(&path, &changed(&[sizes("llama"), byte_level()].concat(), &changes))?;
        Ok(encode(&model, text))
    };
    assert_eq!(ids("smollm", "12")?, [4, 5]);
    assert_eq!(ids("gpt-2", "12")?, [6]);
    assert_eq!(ids("llama-bpe", "ab")?, [3]);
    assert_eq!(ids("smaug-bpe", "ab")?, [1, 2]);
    assert_eq!(ids("qwen2", "e\u{301}")?, [9]);
    assert_eq!(ids("stablelm2", "e\u{301}")?, [10, 11, 12]);
    for pre in ["default", "no-such-split"] {
        let message = ids(pre, "ab").expect_err("a guess").to_string();
        assert!(message.contains(&format!("tokenizer.ggml.pre = {pre:?}")), "{message}");
    }
    let missing = changed(&[sizes("llama"), byte_level()].concat(), &[("tokenizer.ggml.pre", None)]);
    assert!(fault_of(opened(&path, &missing)).contains("tokenizer.ggml.pre is missing"));
    Ok(())
}

/// Control tokens that are not spelled in GPT-2's alphabet (DeepSeek's are not) were cut to pieces; so were user-defined ones.
#[test]
fn a_token_that_stays_whole_may_have_any_letters() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let tokens = texts(&["<|end|>", "h", "i", "hi", "Ġ", "Ġhi", "<｜User▁x｜>", "é é"]);
    let changes = [
        ("tokenizer.ggml.tokens", Some(tokens.clone())),
        ("tokenizer.ggml.token_type", Some(integers(&[3, 1, 1, 1, 1, 1, 3, 4]))),
        ("tokenizer.ggml.eot_token_id", None),
        ("tokenizer.ggml.padding_token_id", None),
    ];
    let metadata = changed(&[sizes("qwen2"), byte_level()].concat(), &changes);
    let model = opened(&path, &metadata)?;
    let text = "hi<｜User▁x｜> hié é";
    assert_eq!(encode(&model, text), [3, 6, 5, 7]);
    assert_eq!(model.tokenizer.decode(&[3, 6, 5, 7], false).expect("decodes"), text);
    let twice = texts(&["<|end|>", "h", "i", "hi", "Ġ", "Ġhi", "h", "é é"]);
    let message = fault_of(opened(&path, &changed(&metadata, &[("tokenizer.ggml.tokens", Some(twice))])));
    assert!(message.contains("\"h\" is listed twice"), "{message}");
    Ok(())
}

/// A space in front of what follows a special token, and none where the file says so, as llama.cpp and Llama 2's own
/// tokenizer have it; the reader of transformers puts one in front of the text only.
#[test]
fn the_space_in_front_is_that_of_the_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let scores = Value::Array((0..266).map(|i| Value::F32(-(i as f32))).collect());
    let metadata = |more: &[(&str, Option<Value>)]| {
        let scores = [("tokenizer.ggml.scores", Some(scores.clone()))];
        changed(&[sizes("llama"), sentencepiece()].concat(), &[&scores, more].concat())
    };
    assert_eq!(encode(&opened(&path, &metadata(&[]))?, "hi<eos>hi"), [2, 8, 1, 8]);
    let no = [("tokenizer.ggml.add_space_prefix", Some(Value::Bool(false)))];
    assert_eq!(encode(&opened(&path, &metadata(&no))?, "hi<eos>hi"), [2, 7, 1, 7]);
    // Without its key the beginning token is the one that llama.cpp takes.
    let usual = [("tokenizer.ggml.bos_token_id", None)];
    assert_eq!(encode(&opened(&path, &metadata(&usual))?, "hi"), [1, 8]);
    Ok(())
}

/// The old key of the factor, and a factor without a type, were read over (llama.cpp#2772).
#[test]
fn a_factor_of_the_rotary_embedding_is_linear_unless_the_file_says_otherwise() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let scaling = |changes: &[(&str, Option<Value>)]| -> Result<serde_json::Value> {
        let metadata = changed(&[sizes("llama"), byte_level()].concat(), changes);
        Ok(opened(&path, &metadata)?.config["rope_scaling"].clone())
    };
    let (four, one) = (Some(Value::F32(4.0)), Some(Value::F32(1.0)));
    let kind = |kind: &str| ("llama.rope.scaling.type", Some(Value::String(kind.into())));
    let linear = json!({"rope_type": "linear", "factor": 4.0});
    let factor = ("llama.rope.scaling.factor", four.clone());
    assert_eq!(scaling(&[factor.clone(), kind("linear")])?, linear);
    assert_eq!(scaling(std::slice::from_ref(&factor))?, linear);
    assert_eq!(scaling(&[("llama.rope.scale_linear", four.clone())])?, linear);
    assert!(scaling(&[factor.clone(), kind("none")])?.is_null());
    assert!(scaling(&[("llama.rope.scaling.factor", one), ("llama.rope.scale_linear", four)])?.is_null());
    assert!(scaling(&[kind("linear")])?.is_null());
    let original = ("llama.rope.scaling.original_context_length", Some(Value::U32(32)));
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    assert_eq!(scaling(&[factor.clone(), kind("yarn"), original])?, yarn);
    let context = scaling(&[factor.clone(), kind("yarn")])?["original_max_position_embeddings"].clone();
    assert_eq!(context, 64, "the context of the file");
    assert!(scaling(&[kind("yarn")])?.is_null());
    let message = scaling(&[factor, kind("longrope")]).expect_err("not built").to_string();
    assert!(message.contains("llama.rope.scaling.type = \"longrope\" is not supported"), "{message}");
    Ok(())
}

/// Keys of lists, and keys that were never read, made another model without a word.
#[test]
fn what_a_gguf_says_is_honoured_or_refused_by_its_key() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let llama = [sizes("llama"), byte_level()].concat();
    let (number, truth) = (|x: f32| Some(Value::F32(x)), |b: bool| Some(Value::Bool(b)));
    for (key, value) in [
        ("llama.attention.causal", truth(false)),
        ("llama.attention.clamp_kqv", number(8.0)),
        ("llama.attention.head_count_kv", Some(integers(&[1, 2]))),
        ("llama.attention.no_such_key", number(1.0)),
        ("llama.attention.sliding_window", Some(Value::U32(16))),
        ("llama.attention.value_length", Some(Value::U32(8))),
        ("llama.logit_scale", number(0.5)),
        ("llama.rope.dimension_count", Some(Value::U32(8))),
        ("llama.rope.freq_base", number(f32::NAN)),
        ("llama.rope.scaling.attn_factor", number(1.5)),
        ("tokenizer.ggml.add_bos_token", Some(Value::U8(1))),
        ("tokenizer.ggml.normalizer.lowercase", truth(true)),
        ("tokenizer.ggml.remove_extra_whitespaces", truth(true)),
        ("tokenizer.ggml.suppress_tokens", Some(integers(&[1]))),
        ("tokenizer.ggml.token_type", Some(integers(&[1, 1]))),
    ] {
        let message = fault_of(opened(&path, &changed(&llama, &[(key, value)])));
        assert!(message.contains(key) && message.contains("m.gguf"), "{key}: {message}");
    }
    let same = changed(
        &llama,
        &[
            ("llama.attention.causal", truth(true)),
            ("llama.attention.head_count_kv", Some(integers(&[1]))),
            ("llama.attention.sliding_window", Some(Value::U32(64))),
            ("llama.rope.dimension_count", Some(Value::U32(16))),
        ],
    );
    assert_eq!(opened(&path, &same)?.config["num_key_value_heads"], 1);

    let gemma = |changes: &[(&str, Option<Value>)]| -> Result<serde_json::Value> {
        let metadata = [sizes("gemma3"), sentencepiece()].concat();
        Ok(opened(&path, &changed(&metadata, changes))?.config)
    };
    // Without a window there is none.
    assert_eq!(gemma(&[])?["layer_types"], json!(["full_attention"]));
    let window = ("gemma3.attention.sliding_window", Some(Value::U32(8)));
    assert_eq!(gemma(std::slice::from_ref(&window))?["layer_types"], json!(["sliding_attention"]));
    let pattern = |value| ("gemma3.attention.sliding_window_pattern", Some(value));
    let one = pattern(Value::U32(1));
    assert_eq!(gemma(&[window.clone(), one])?["layer_types"], json!(["full_attention"]));
    let listed = pattern(Value::Array(vec![Value::Bool(false)]));
    assert_eq!(gemma(&[window.clone(), listed])?["layer_types"], json!(["full_attention"]));
    let longer = pattern(Value::Array(vec![Value::Bool(false), Value::Bool(true)]));
    let message = gemma(&[window, longer]).expect_err("two blocks").to_string();
    assert!(message.contains("sliding_window_pattern: 2 entries for 1 blocks"), "{message}");
    Ok(())
}

/// The first of two parts, of which only the second has the head, was a model that ties it (vllm-gguf-plugin#54,
/// transformers#32266).
#[test]
fn a_part_of_a_split_gguf_is_no_model_and_all_parts_are_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let part = |no: u32| dir.path().join(format!("m-{no:05}-of-00002.gguf"));
    let tensors = [
        ("token_embd.weight", counting(8)?, GgmlDType::F32),
        ("output_norm.weight", Tensor::ones(32, DType::F32, &Device::Cpu)?, GgmlDType::F32),
        ("output.weight", (counting(8)? * 2.0)?, GgmlDType::F32),
    ];
    let split = |no: u16, of: u16, tensors: i32| -> Metadata {
        vec![
            ("split.no".into(), Value::U16(no)),
            ("split.count".into(), Value::U16(of)),
            ("split.tensors.count".into(), Value::I32(tensors)),
        ]
    };
    let first = |tensors: i32| [sizes("llama"), byte_level(), split(0, 2, tensors)].concat();
    write_gguf(&part(1), &first(3), &tensors[..2])?;
    let message = fault(&part(1));
    assert!(message.contains("split.count") && message.contains("m-00002-of-00002.gguf"), "{message}");

    write_gguf(&part(2), &split(1, 2, 3), &tensors[2..])?;
    let whole = dir.path().join("whole/m.gguf");
    fs::create_dir(dir.path().join("whole"))?;
    write_gguf(&whole, &[sizes("llama"), byte_level()].concat(), &tensors)?;
    let (parts, whole) = (open_path(&part(1))?, open_path(&whole)?);
    assert_eq!(parts.weights.names(), whole.weights.names());
    for name in whole.weights.names() {
        assert_eq!(values(&parts, &name)?, values(&whole, &name)?, "{name}");
    }
    assert_eq!(parts.config, whole.config);
    assert_eq!(parts.sha256.len(), 2);
    fs::remove_dir_all(dir.path().join("whole"))?;
    assert_eq!(open_path(dir.path())?.sha256, parts.sha256);

    let message = fault(&part(2));
    assert!(message.contains("not the first part") && message.contains("m-00001-of-00002.gguf"), "{message}");
    write_gguf(&part(1), &first(4), &tensors[..2])?;
    let message = fault(&part(1));
    assert!(message.contains("split.tensors.count = 4") && message.contains("hold 3"), "{message}");
    write_gguf(&part(2), &split(2, 3, 3), &tensors[2..])?;
    assert!(fault(&part(1)).contains("m-00002-of-00002.gguf: split.count and split.no"));
    let other = dir.path().join("other.gguf");
    fs::copy(part(1), &other)?;
    assert!(fault(&other).contains("-00001-of-00002.gguf"));
    Ok(())
}

#[test]
fn a_gguf_that_is_cut_short_or_damaged_is_refused_without_a_panic() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = llama_gguf(dir.path())?;
    let bytes = fs::read(&path)?;
    let damaged = dir.path().join("damaged.gguf");
    // The writer pads the end to 32 bytes, of which up to 31 may be missing.
    for len in (0..bytes.len() - 32).step_by(7) {
        fs::write(&damaged, &bytes[..len])?;
        assert!(fault(&damaged).contains("damaged.gguf"), "{len} bytes");
    }
    let header = bytes.len().min(2200);
    for i in 0..header {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = bytes.clone();
            bytes[i] ^= flip;
            fs::write(&damaged, &bytes)?;
            if let Ok(model) = open_path(&damaged) {
                model.weights.names().iter().for_each(|n| drop(model.weights.get(n)));
                let _ = model.tokenizer.encode("hi <think>\n\u{7f}é", true);
            }
        }
    }
    Ok(())
}

#[test]
fn faults_of_a_gguf_are_explained() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("bad.gguf");
    let embedding = ("token_embd.weight", counting(8)?, GgmlDType::F32);
    let write = |metadata: Metadata, extra: Option<&'static str>| -> Result<String> {
        let mut tensors = vec![embedding.clone()];
        if let Some(name) = extra {
            tensors.push((name, counting(1)?, GgmlDType::F32));
        }
        write_gguf(&path, &metadata, &tensors)?;
        Ok(fault(&path))
    };
    let message = write([sizes("mamba"), byte_level()].concat(), None)?;
    assert!(message.contains("\"mamba\" is not supported"), "{message}");

    let message = write([sizes("llama")[..2].to_vec(), byte_level()].concat(), None)?;
    assert!(message.contains("llama.embedding_length, llama.feed_forward_length"), "{message}");

    let message = write([sizes("llama"), byte_level()].concat(), Some("blk.0.ffn_gate_exps.weight"))?;
    assert!(message.contains("blk.0.ffn_gate_exps.weight"), "{message}");

    let zero_alignment = vec![("general.alignment".to_string(), Value::U32(0))];
    let message = write([zero_alignment, sizes("llama"), byte_level()].concat(), None)?;
    assert!(message.contains("general.alignment"), "{message}");

    // "hi" and "Ġhi" are tokens, "hiĠhi" is none, and longer than any: tokenizers would panic.
    let mut tokenizer = byte_level();
    tokenizer[4].1 = texts(&["hi Ġhi<think>"]);
    let message = write([sizes("llama"), tokenizer].concat(), None)?;
    assert!(message.contains("vocabulary lacks"), "{message}");

    let mut tokenizer = byte_level();
    tokenizer[5].1 = Value::U32(99);
    let message = write([sizes("llama"), tokenizer].concat(), None)?;
    assert!(message.contains("eos_token_id is 99"), "{message}");

    fs::write(&path, "not a model")?;
    assert!(fault(&path).contains("GGUF"));
    Ok(())
}

// --- Names ------------------------------------------------------------------------------------------

#[test]
fn an_unknown_name_suggests_the_nearest_alias() {
    let message = fault_of(open("smolm2-135m-instruct"));
    assert!(message.contains("did you mean smollm2-135m-instruct?"), "{message}");
    let message = fault_of(open("no-such-thing"));
    assert!(message.contains("gemma-3-270m"), "{message}");
    let message = fault_of(open("all-minilm-l6-v2"));
    assert!(message.contains("sentence embedder"), "{message}");
    let message = fault_of(open("hf:just-a-name"));
    assert!(message.contains("hf:org/name"), "{message}");
}

#[test]
fn an_embedder_is_an_alias_or_a_folder() -> Result<()> {
    let dir = folder()?;
    let path = dir.path().to_string_lossy().into_owned();
    assert_eq!(trainer::model::load::alias::embedder_dir(&path, &Interrupt::default())?, dir.path());
    let error = trainer::model::load::alias::embedder_dir("gemma-3-270m", &Interrupt::default())
        .expect_err("no embedder");
    assert!(error.to_string().contains("all-minilm-l6-v2"), "{error}");
    Ok(())
}

/// Runs one test of this file in a process of its own, because it depends on the environment.
fn child(test: &str, cache: &Path, offline: bool) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([&format!("sources::{test}"), "--exact", "--nocapture"])
        .env("SOURCES_TEST_CHILD", test)
        .env("TRAINER_CACHE", cache)
        .env("HF_HOME", cache);
    match offline {
        true => command.env("HF_HUB_OFFLINE", "1"),
        false => command.env_remove("HF_HUB_OFFLINE"),
    };
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(" 1 passed;"), "{said}");
    Ok(())
}

#[test]
fn offline_the_message_prints_the_command_to_run() -> Result<()> {
    const NAME: &str = "offline_the_message_prints_the_command_to_run";
    if std::env::var_os("SOURCES_TEST_CHILD").is_some() {
        for model in ["gemma-3-270m", "hf:org/name@v1"] {
            let message = fault_of(open(model));
            let command = format!("trainer models fetch {model}");
            assert!(message.contains(&command), "{message}");
        }
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    child(NAME, cache.path(), true)?;
    // Nothing was written.
    assert_eq!(fs::read_dir(cache.path())?.count(), 0);
    Ok(())
}

#[test]
fn a_cached_file_that_was_changed_is_refused() -> Result<()> {
    const NAME: &str = "a_cached_file_that_was_changed_is_refused";
    if std::env::var_os("SOURCES_TEST_CHILD").is_some() {
        let message = fault_of(open("gemma-3-270m"));
        assert!(message.contains("has sha256"), "{message}");
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    let models = cache.path().join("models");
    fs::create_dir_all(&models)?;
    let path = llama_gguf(&models)?;
    fs::rename(path, models.join("gemma-3-270m.gguf"))?;
    child(NAME, cache.path(), true)?;
    Ok(())
}

#[test]
fn a_hub_model_in_the_cache_opens_without_a_network() -> Result<()> {
    const NAME: &str = "a_hub_model_in_the_cache_opens_without_a_network";
    if std::env::var_os("SOURCES_TEST_CHILD").is_some() {
        for id in ["hf:org/tiny", "hf:org/tiny@main", "hf:org/tiny@abc123"] {
            assert_eq!(open(id)?.weights.names(), ["a", "b", "c"]);
        }
        return Ok(());
    }
    let home = tempfile::tempdir()?;
    let repo = home.path().join("hub/models--org--tiny");
    let snapshot = repo.join("snapshots/abc123");
    fs::create_dir_all(snapshot.parent().expect("has a parent"))?;
    fs::create_dir_all(repo.join("refs"))?;
    fs::write(repo.join("refs/main"), "abc123")?;
    fs::rename(folder()?.keep(), &snapshot)?;
    child(NAME, home.path(), true)?;
    Ok(())
}
