//! The tiny random models of `fixtures/tiny`: where they are, how they are loaded and run, how they are changed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use trainer::data::examples::Example;
use trainer::model::batch::Batch;
use trainer::model::hooks::NoHook;
use trainer::model::load::loader::Tuning;
use trainer::model::load::source;
use trainer::model::load::source::Pretrained;
use trainer::model::lora::{Adapter, LoraConfig};
use trainer::model::trainables::Trainables;
use trainer::model::{CausalLm, Pass};
use trainer::ops::segments::Segments;
use trainer::recipe::Modules;
use trainer::train::optim::NamedGradients;

use super::values::read_tensors;

/// The tiny random models, one of each architecture.
pub const FAMILIES: [&str; 5] = ["llama", "qwen2", "qwen3", "gemma2", "gemma3"];

/// The folder of a tiny random model, one of [`FAMILIES`].
pub fn tiny(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(family)
}

/// A model folder, which must open.
pub fn open(path: &Path) -> Pretrained {
    source::open(&path.to_string_lossy()).unwrap()
}

/// A model on the CPU, and what is trained of it.
pub fn load(from: &Pretrained, tuning: &Tuning) -> (CausalLm, Trainables) {
    CausalLm::load(from, tuning, &Device::Cpu).unwrap()
}

/// An adapter as it stands before the first step: A drawn, B zero.
pub fn write_untrained_adapter(dir: &Path, base: &Pretrained) {
    let config = LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        lora_dropout: 0.0,
        target_modules: Modules::Names(vec!["q_proj".into(), "down_proj".into()]),
        ..LoraConfig::default()
    };
    let tuning = Tuning::Lora { config: &config, seed: 0 };
    let (_, trainables) = load(base, &tuning);
    Adapter::from_trainables(&config, &trainables).unwrap().write(dir, &base.id).unwrap();
}

/// Logits `(tokens, vocabulary)` of one sequence, with the adapter at a strength.
pub fn logits(model: &CausalLm, ids: &[u32], adapter: f64) -> Tensor {
    let segments = Segments::new(vec![ids.len()]);
    let mut hook = NoHook;
    let x = model.hidden(ids, &mut Pass::new(&segments, adapter, &mut hook)).unwrap();
    model.logits(&x, adapter).unwrap()
}

/// The two sequences of a tiny model's `reference.safetensors`.
pub fn sequences(family: &str) -> [Vec<u32>; 2] {
    let reference = read_tensors(&tiny(family).join("reference.safetensors"));
    [0, 1].map(|s| reference[&format!("input_ids.{s}")].to_dtype(DType::U32).unwrap().to_vec1().unwrap())
}

/// The same as training examples: neither the first token nor a label of -100 counts.
pub fn examples(family: &str) -> Vec<Example> {
    let reference = read_tensors(&tiny(family).join("reference.safetensors"));
    let example = |(s, ids): (usize, Vec<u32>)| {
        let labels: Vec<i64> = reference[&format!("labels.{s}")].to_vec1().unwrap();
        let weight = |(t, label): (usize, &i64)| if t > 0 && *label != -100 { 1.0 } else { 0.0 };
        Example { ids, weights: labels.iter().enumerate().map(weight).collect(), row: s }
    };
    sequences(family).into_iter().enumerate().map(example).collect()
}

/// The token-mean loss of examples and its gradients, with each block kept or computed again.
pub fn backward(
    examples: &[Example],
    model: &CausalLm,
    trainables: &Trainables,
    recompute: bool,
) -> (f64, NamedGradients) {
    let tokens = examples.iter().map(Example::loss_tokens).sum();
    let batch = Batch::new(&examples.iter().collect::<Vec<_>>(), tokens);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut gradients = NamedGradients::new();
    let loss = batch.backward(model, trainables, &mut rng, recompute, &mut NoHook, &mut gradients).unwrap();
    (loss.total.to_scalar::<f32>().unwrap() as f64, gradients)
}

/// Copies the files of a folder, not those below it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Copies a model folder and changes its weights.
pub fn change_model(from: &Path, to: &Path, change: impl Fn(&mut HashMap<String, Tensor>)) {
    copy_folder(from, to);
    let mut weights = read_tensors(&from.join("model.safetensors"));
    change(&mut weights);
    candle_core::safetensors::save(&weights, to.join("model.safetensors")).unwrap();
}

/// A random sentence-transformers BERT of one layer, over the tiny llama's tokenizer.
pub fn write_embedder(dir: &Path) {
    const WIDTH: usize = 16;
    const INNER: usize = 32;
    fs::create_dir_all(dir).unwrap();
    fs::copy(tiny("llama").join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut weights = HashMap::new();
    let mut random = |name: &str, shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-0.9..0.9)).collect();
        weights.insert(name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    };
    for (table, rows) in [("word", 288), ("position", 256), ("token_type", 2)] {
        random(&format!("embeddings.{table}_embeddings.weight"), &[rows, WIDTH]);
    }
    let layer = "encoder.layer.0.";
    for (name, out, inp) in [
        ("attention.self.query", WIDTH, WIDTH),
        ("attention.self.key", WIDTH, WIDTH),
        ("attention.self.value", WIDTH, WIDTH),
        ("attention.output.dense", WIDTH, WIDTH),
        ("intermediate.dense", INNER, WIDTH),
        ("output.dense", WIDTH, INNER),
    ] {
        random(&format!("{layer}{name}.weight"), &[out, inp]);
        random(&format!("{layer}{name}.bias"), &[out]);
    }
    for norm in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        random(&format!("{norm}.LayerNorm.weight"), &[WIDTH]);
        random(&format!("{norm}.LayerNorm.bias"), &[WIDTH]);
    }
    candle_core::safetensors::save(&weights, dir.join("model.safetensors")).unwrap();
    let config = json!({
        "model_type": "bert", "vocab_size": 288, "hidden_size": WIDTH, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": INNER, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "max_position_embeddings": 256, "type_vocab_size": 2,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}
