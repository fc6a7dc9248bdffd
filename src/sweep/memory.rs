//! How much memory a cell's process takes, estimated before it runs.

use candle_core::Device;

use crate::model::load::loader::EMBEDDINGS;
use crate::model::load::source::Pretrained;
use crate::ops::cross_entropy::logits_bytes;
use crate::ops::kernels::teams;
use crate::recipe::{Method, ModelDtype, Recipe};
use crate::train::part_tokens;

const GIB: f64 = (1u64 << 30) as f64;

/// The largest resident set that is expected of training and reading a cell, in GiB:
///
/// 0.1 + 1.27 · (weights + activations + logits), and at least the weights and half a GiB for the analysis.
///
/// - Weights: 4 bytes a parameter (1.5 of a GGUF file that stays as it is, 2 as bf16), a table of embeddings beside a head of its own as
///   its file has it; 16 in full finetuning, with gradient and two moments.
/// - 4 bytes a parameter more where full finetuning reads the base beside: trace while training, divergence, difference;
///   and where it is pulled towards it (decay, scale).
/// - Activations that the backward pass needs: tokens that are worked on at once (of the parts of a batch as many as there
///   are threads; of the divergence all, where these are more) × blocks × (8 · hidden + 3 · inner) × 4 bytes; with
///   `recompute` one block and the inputs of the others.
/// - Logits: of each part at once, [`logits_bytes`].
///
/// The constants are fitted to the peaks of `docs/benchmarks.md` (SmolLM2 135M, Gemma 3 270M, Qwen2.5-Coder 0.5B; LoRA and
/// full), above which it lies by 1 to 24 %; of a batch whose texts are shorter than `max_seq_len` by more.
pub fn estimate_gib(recipe: &Recipe, base: &Pretrained) -> f64 {
    let weights = &base.weights;
    let parameters: f64 = weights
        .names()
        .iter()
        .filter_map(|name| weights.shape(name))
        .map(|shape| shape.iter().product::<usize>() as f64)
        .sum();
    let size = |key: &str| base.config.get(key).and_then(|v| v.as_f64()).unwrap_or_default();
    let (hidden, blocks) = (size("hidden_size"), size("num_hidden_layers"));
    let (inner, vocabulary) = (size("intermediate_size"), size("vocab_size"));

    let train = &recipe.train;
    let rows = if train.micro_batch_size == 0 { train.batch_size } else { train.micro_batch_size };
    let mitigation = &train.mitigation;
    let beside = if mitigation.divergence.weight > 0.0 { mitigation.divergence.examples } else { 0 };
    let length = recipe.data.max_seq_len;
    let parts = teams::divide(&vec![length; rows.min(train.batch_size)], part_tokens(recipe), &Device::Cpu);
    let at_once = parts.len().min(rayon::current_num_threads());
    let in_part = parts.iter().map(Vec::len).max().unwrap_or(0);
    let tokens = ((at_once * in_part).max(beside) * length) as f64;
    let block = 8.0 * hidden + 3.0 * inner;
    let kept = if train.recompute { blocks * hidden + block } else { blocks * block };
    let held = match recipe.model.dtype {
        ModelDtype::Native => 1.5 * parameters,
        ModelDtype::Bf16 => 2.0 * parameters,
        ModelDtype::F32 if has_head(base) => {
            let table = weights.stored_bytes(EMBEDDINGS).unwrap_or_default() as f64;
            4.0 * (parameters - vocabulary * hidden) + table
        }
        ModelDtype::F32 => 4.0 * parameters,
    };
    let copies = usize::from(mitigation.reads_pretraining() || train.trace.every > 0)
        + usize::from(mitigation.pulls_to_base());
    let trained = match train.method {
        Method::Full => (16.0 + 4.0 * copies as f64) * parameters,
        Method::Lora => held,
    };
    let bytes = trained + 4.0 * tokens * kept + at_once as f64 * logits_bytes(vocabulary as usize) as f64;
    (0.1 + 1.27 * bytes / GIB).max(0.5 + held / GIB)
}

/// Whether the model has a head that is not its embeddings.
fn has_head(base: &Pretrained) -> bool {
    base.weights.shape("lm_head.weight").is_some() && base.config["tie_word_embeddings"] != true
}

/// Memory that the machine has to give, in GiB, where it tells (Linux).
pub fn available_gib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / GIB)
}
