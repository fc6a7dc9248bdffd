//! Sentence embeddings by a sentence-transformers BERT folder (all-MiniLM-L6-v2 by default).

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use tokenizers::{PaddingParams, TruncationParams};

use super::bert::{BertConfig, BertEncoder};
use crate::bail_input;
use crate::caught::caught;
use crate::input_file;
use crate::model::load::checkpoint::read_safetensors;
use crate::tokenizer::Tokenizer;

/// Texts in one forward pass.
const BATCH: usize = 32;

/// A sentence embedder.
pub struct Embedder {
    encoder: BertEncoder,
    tokenizer: Tokenizer,
    width: usize,
}

impl Embedder {
    /// Opens a folder with `config.json`, `model.safetensors` and `tokenizer.json`.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is not a BERT sentence embedder with mean pooling.
    pub fn open(dir: &Path) -> Result<Self> {
        let shown = dir.display();
        let text = match input_file::read_to_string(&dir.join("config.json")) {
            Ok(text) => text,
            Err(e) => bail_input!("{shown}/config.json: {e}; expected a sentence-transformers folder"),
        };
        let config: BertConfig = match serde_json::from_str(&text) {
            Ok(config) => config,
            Err(e) => bail_input!("{shown}/config.json: {e}; expected a BERT model"),
        };
        let pooling = input_file::read_to_string(&dir.join("1_Pooling/config.json")).unwrap_or_default();
        let pooling: serde_json::Value = serde_json::from_str(&pooling).unwrap_or_default();
        if pooling["pooling_mode_mean_tokens"] == false {
            bail_input!("{shown}/1_Pooling/config.json: expected pooling_mode_mean_tokens = true");
        }
        let weights = read_safetensors(&dir.join("model.safetensors"))?;
        let (positions, heads) = (config.max_position_embeddings, config.num_attention_heads);
        if heads == 0 || !config.hidden_size.is_multiple_of(heads) {
            bail_input!(
                "{shown}/config.json: hidden_size = {} in num_attention_heads = {heads} parts; expected equal ones",
                config.hidden_size
            );
        }
        let vb = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
        let encoder = match caught(|| BertEncoder::load(vb, &config)) {
            Ok(encoder) => encoder.with_context(|| format!("{shown}: not a BERT model"))?,
            Err(said) => bail_input!("{shown}: not a BERT model: {said}"),
        };
        let mut tokenizer = match Tokenizer::from_file(&dir.join("tokenizer.json")) {
            Ok(tokenizer) => tokenizer,
            Err(e) => bail_input!("{shown}/tokenizer.json: {e}"),
        };
        let limits = input_file::read_to_string(&dir.join("sentence_bert_config.json")).unwrap_or_default();
        let limits: serde_json::Value = serde_json::from_str(&limits).unwrap_or_default();
        let max_length = limits["max_seq_length"].as_u64().unwrap_or(256).min(positions as u64) as usize;
        let truncation = TruncationParams { max_length, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| anyhow!(e))?;
        tokenizer.with_padding(Some(PaddingParams::default()));
        Ok(Self { encoder, tokenizer, width: config.hidden_size })
    }

    /// Unit vectors, one a text, in order; the zero vector of a text without tokens, which is like no other.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        // Texts of like length share a batch, so that little is padded.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i].len());
        let mut out = vec![vec![0f32; self.width]; texts.len()];
        for chunk in order.chunks(BATCH) {
            let batch: Vec<&str> = chunk.iter().map(|&i| texts[i]).collect();
            let encodings = self.tokenizer.encode_batch(batch, true).map_err(|e| anyhow!(e))?;
            let (rows, len) = (encodings.len(), encodings[0].len());
            if len == 0 {
                continue;
            }
            let tensor = |f: fn(&tokenizers::Encoding) -> &[u32]| -> Result<Tensor> {
                let flat: Vec<u32> = encodings.iter().flat_map(|e| f(e).iter().copied()).collect();
                Ok(Tensor::from_vec(flat, (rows, len), &Device::Cpu)?)
            };
            let mask = tensor(|e| e.get_attention_mask())?;
            let hidden =
                self.encoder.forward(&tensor(|e| e.get_ids())?, &tensor(|e| e.get_type_ids())?, &mask)?;
            let mask = mask.to_dtype(DType::F32)?.unsqueeze(2)?; // (rows, len, 1)
            let pooled = hidden.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?; // (rows, width)
            let unit = pooled.broadcast_div(&pooled.sqr()?.sum_keepdim(1)?.sqrt()?)?;
            for ((&i, row), encoding) in chunk.iter().zip(unit.to_vec2::<f32>()?).zip(&encodings) {
                if encoding.get_attention_mask().contains(&1) {
                    out[i] = row;
                }
            }
        }
        Ok(out)
    }
}

/// Mean over all pairs of the cosine between two sets of unit vectors: the product of their centroids.
pub fn mean_cosine(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let (a, b) = (centroid(a.iter()), centroid(b.iter()));
    a.iter().zip(&b).map(|(x, y)| x * y).sum()
}

/// The mean vector of a set; empty of nothing.
pub fn centroid<'a>(set: impl ExactSizeIterator<Item = &'a Vec<f32>>) -> Vec<f64> {
    let n = set.len() as f64;
    let mut mean: Vec<f64> = Vec::new();
    for v in set {
        mean.resize(v.len(), 0.0);
        mean.iter_mut().zip(v).for_each(|(m, x)| *m += *x as f64 / n);
    }
    mean
}
