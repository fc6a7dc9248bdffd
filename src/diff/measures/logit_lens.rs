//! The logit lens of a direction: softmax(W_U · norm(v)) with the tuned model's final norm and head.
//!
//! No rescaling and no soft cap, which would leave the order of the tokens as it is. The negative side is
//! softmax(W_U · (−norm(v))).

use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::diff::activations::to_tensor;
use crate::diff::decoded::{Decoded, Variant};
use crate::diff::reading::Reading;
use crate::diff::relevance::{Decoding, TokenRelevance, TopToken};
use crate::diff::statistics::{Interval, Null, interval};
use crate::model::Pass;
use crate::model::View;
use crate::model::hooks::NoHook;
use crate::ops::segments::Segments;

/// Ids with probabilities, best first.
pub type Top = Vec<(u32, f64)>;

/// Directions decoded at once: bounds the logits that are held.
const BATCH: usize = 32;

/// Logit lens (softmax of the unembedding of the normed difference).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lens {
    /// Best tokens of v_p, best first.
    pub top_tokens: Vec<Vec<TopToken>>,
    /// Best tokens of −v_p.
    pub bottom_tokens: Vec<Vec<TopToken>>,
    /// Relevance of the top tokens.
    #[serde(skip_serializing_if = "TokenRelevance::is_absent", default)]
    pub token_relevance: TokenRelevance,
    /// Mean relevance of random-difference directions decoded the same way, repeated over positions.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_null: Vec<f64>,
    /// 2.5 % and 97.5 % quantiles of the null directions' relevance.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_null_interval: Vec<Interval>,
    /// Bootstrap interval of `token_relevance.difference` over texts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_difference_interval: Vec<Interval>,
    /// (1 + null directions at least as relevant) / (1 + null directions).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_p: Vec<f64>,
    /// Best tokens of random differences, as many as there are positions; absent without a lexicon and in the folders of
    /// earlier versions.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub null_tokens: Vec<Vec<TopToken>>,
    /// Mean relevance of the same tokens to the other candidate corpora.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_others: Vec<f64>,
    /// v_p under the base's own final norm and head. Another answer only where these were trained.
    #[serde(default)]
    pub base_head: Decoding,
}

/// Units of [`Lens`].
pub const UNITS: &[(&str, &str)] = &[
    ("logit_lens.top_tokens.score", "probability"),
    ("logit_lens.null_tokens.score", "probability"),
    ("logit_lens.token_relevance", "share of the top tokens, 0 to 1"),
    ("logit_lens.token_relevance_null", "share of the top tokens, 0 to 1"),
    ("logit_lens.token_relevance_others", "share of the top tokens, 0 to 1"),
    ("logit_lens.base_head.top_tokens.score", "probability"),
    ("logit_lens.base_head.token_relevance", "share of the top tokens, 0 to 1"),
    ("logit_lens.token_relevance_p", "share of null directions at least as relevant"),
];

/// Logit lens of difference, baselines, resamples and null; and the tokens of difference and baselines.
///
/// # Errors
/// If a tensor operation fails.
pub fn measure(reading: &Reading) -> Result<(Lens, Vec<Decoded>)> {
    let Reading { settings, means, resamples, .. } = reading;
    let (tuned, k) = (reading.inputs.tuned, settings.top_k);
    let decoded = decode_both(tuned, &means.difference, k)?;
    let (tops, bottoms): (Vec<Top>, Vec<Top>) = decoded.into_iter().unzip();
    let (of_base, of_tuned) = (decode(tuned, &means.base, k)?, decode(tuned, &means.tuned, k)?);
    let mut lines = Vec::new();
    for (variant, tops) in Variant::ALL.into_iter().zip([&tops, &of_base, &of_tuned]) {
        for (&position, top) in settings.positions.iter().zip(tops) {
            lines.push(Decoded { position, variant, scale: None, tokens: reading.unjudged(top) });
        }
    }
    let top_tokens: Vec<Vec<TopToken>> = tops.iter().map(|top| reading.named(top)).collect();
    let read = Lens {
        token_relevance_others: reading.relevance_to_others(&top_tokens),
        base_head: read_in(reading, reading.inputs.base, &means.difference)?,
        top_tokens,
        bottom_tokens: bottoms.iter().map(|bottom| reading.named(bottom)).collect(),
        ..Lens::default()
    };
    if reading.prepared.lexicon.is_none() {
        return Ok((read, lines));
    }
    let positions = tops.len();
    let difference = reading.relevances(&tops);
    let resampled = relevances(reading, &resamples.concat())?;
    let of_null = decode(tuned, &reading.null, k)?;
    let null = Null(reading.relevances(&of_null));
    let of_position = |i: usize| resampled.iter().skip(i).step_by(positions).copied();
    let lens = Lens {
        null_tokens: of_null.iter().take(positions).map(|top| reading.named(top)).collect(),
        token_relevance_null: vec![null.mean(); positions],
        token_relevance_null_interval: vec![null.interval(); positions],
        token_relevance_difference_interval: (0..positions).map(|i| interval(of_position(i))).collect(),
        token_relevance_p: difference.iter().map(|d| null.p(*d)).collect(),
        token_relevance: TokenRelevance {
            base: reading.relevances(&of_base),
            tuned: reading.relevances(&of_tuned),
            difference,
        },
        ..read
    };
    Ok((lens, lines))
}

/// Best tokens of each direction and how relevant they are.
///
/// # Errors
/// If a tensor operation fails.
pub fn read(reading: &Reading, directions: &[Vec<f32>]) -> Result<Decoding> {
    read_in(reading, reading.inputs.tuned, directions)
}

/// The same through the final norm and head of another model.
fn read_in(reading: &Reading, view: View, directions: &[Vec<f32>]) -> Result<Decoding> {
    let tops = decode(view, directions, reading.settings.top_k)?;
    Ok(Decoding {
        best_scale: Vec::new(),
        top_tokens: tops.iter().map(|top| reading.named(top)).collect(),
        token_relevance: reading.relevances(&tops),
    })
}

/// How relevant the best tokens of each direction are; empty without a lexicon.
///
/// # Errors
/// If a tensor operation fails.
pub fn relevances(reading: &Reading, directions: &[Vec<f32>]) -> Result<Vec<f64>> {
    Ok(reading.relevances(&decode(reading.inputs.tuned, directions, reading.settings.top_k)?))
}

/// The `k` most probable tokens of each direction.
///
/// # Errors
/// If a tensor operation fails.
pub fn decode(view: View, directions: &[Vec<f32>], k: usize) -> Result<Vec<Top>> {
    map_logits(view, directions, |_, row| top(row, k))
}

/// The same of each direction and of its negative.
///
/// # Errors
/// If a tensor operation fails.
pub fn decode_both(view: View, directions: &[Vec<f32>], k: usize) -> Result<Vec<(Top, Top)>> {
    map_logits(view, directions, |_, row| {
        let negative: Vec<f32> = row.iter().map(|z| -z).collect();
        (top(row, k), top(&negative, k))
    })
}

/// What `of` makes of the number of each direction and its logits W_U · norm(v), `vocab` values.
///
/// # Errors
/// If a tensor operation fails.
pub fn map_logits<T: Send>(
    view: View,
    directions: &[Vec<f32>],
    of: impl Fn(usize, &[f32]) -> T + Sync,
) -> Result<Vec<T>> {
    let mut out = Vec::with_capacity(directions.len());
    for chunk in directions.chunks(BATCH) {
        let x = to_tensor(chunk, view.model)?; // (directions, hidden)
        let segments = Segments::new(vec![1; chunk.len()]);
        let mut hook = NoHook;
        let pass = Pass::new(&segments, view.adapter, &mut hook);
        let z = view.model.raw_logits(&view.model.final_norm(&x, &pass)?, view.adapter)?; // (directions, vocab)
        let z = z.flatten_all()?.to_vec1::<f32>()?;
        let first = out.len();
        let rows = z.par_chunks_exact(view.model.vocab_size()).enumerate();
        out.par_extend(rows.map(|(i, row)| of(first + i, row)));
    }
    Ok(out)
}

/// The `k` largest of a row of logits with their softmax probabilities, ties by id.
pub fn top(logits: &[f32], k: usize) -> Top {
    let max = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)) as f64;
    let sum: f64 = logits.iter().map(|z| (*z as f64 - max).exp()).sum();
    let best = largest(logits, k);
    best.into_iter().map(|i| (i, (logits[i as usize] as f64 - max).exp() / sum)).collect()
}

/// Indices of the `k` largest values, best first, ties by index.
pub fn largest(values: &[f32], k: usize) -> Vec<u32> {
    let k = k.min(values.len());
    if k == 0 {
        return Vec::new();
    }
    let mut sorted: Vec<f32> = values.to_vec();
    let at = sorted.len() - k;
    let threshold = *sorted.select_nth_unstable_by(at, f32::total_cmp).1;
    let mut best: Vec<u32> = (0..values.len() as u32).filter(|&i| values[i as usize] >= threshold).collect();
    best.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]).then(a.cmp(&b)));
    best.truncate(k);
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_ties_by_index() {
        assert_eq!(largest(&[1.0, 3.0, 2.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(largest(&[1.0], 5), [0]);
        let t = top(&[0.0, (3f32).ln()], 2);
        assert!((t[0].1 - 0.75).abs() < 1e-6 && t[0].0 == 1);
    }
}
