//! What directions decode to: softmax(W_U · norm(v)) with a model's final norm and head, its best tokens, and the lines
//! of `diff/logit_lens.jsonl` and `diff/patchscope.jsonl`, for graders and agents that judge tokens themselves.
//!
//! No rescaling and no soft cap, which would leave the order of the tokens as it is.

use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::collect::to_tensor;
use crate::model::hooks::NoHook;
use crate::model::{Pass, View};
use crate::ops::segments::Segments;

/// What was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecodedMean {
    /// v_p.
    Difference,
    /// The base model's mean activation.
    Base,
    /// The tuned model's mean activation.
    Tuned,
}

impl DecodedMean {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Difference, Self::Base, Self::Tuned];

    /// As the files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Difference => "difference",
            Self::Base => "base",
            Self::Tuned => "tuned",
        }
    }
}

/// A line: the top tokens of one direction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decoded {
    /// Zero-based token position.
    pub position: usize,
    /// What was decoded.
    pub variant: DecodedMean,
    /// Patchscope: the scale in η.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scale: Option<f64>,
    /// Best first.
    pub tokens: Vec<TopToken>,
}

/// One decoded token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopToken {
    /// Decoded text of the token.
    pub token: String,
    /// Token id.
    pub id: u32,
    /// Probability (logit lens) or mean probability over prompts (patchscope).
    pub score: f64,
    /// Whether the token counts as relevant under the lexicon, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub relevant: Option<bool>,
}

/// Ids with probabilities, best first.
pub type Top = Vec<(u32, f64)>;

/// Directions decoded at once: bounds the logits that are held.
const BATCH: usize = 32;

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
    let order = |x: &u32, y: &u32| values[*y as usize].total_cmp(&values[*x as usize]).then(x.cmp(y));
    // Twice as many as are wanted, cut to the best whenever they are full: most values are below the worst of these.
    let full = (2 * k).min(values.len());
    let mut best: Vec<u32> = (0..full as u32).collect();
    let cut = |best: &mut Vec<u32>| -> f32 {
        best.select_nth_unstable_by(k - 1, order);
        best.truncate(k);
        values[best[k - 1] as usize]
    };
    let mut worst = cut(&mut best);
    for (i, value) in values.iter().enumerate().skip(full) {
        if value.total_cmp(&worst).is_gt() {
            best.push(i as u32);
            if best.len() == full {
                worst = cut(&mut best);
            }
        }
    }
    cut(&mut best);
    best.sort_unstable_by(order);
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_ties_by_index() {
        assert_eq!(largest(&[1.0, 3.0, 2.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(largest(&[1.0], 5), [0]);
        // Against sorting everything, with many ties.
        let values: Vec<f32> = (0..500u32).map(|i| ((i * 7919) % 37) as f32 - 18.0).collect();
        for k in [1, 2, 36, 100, 250, 499, 500] {
            let mut sorted: Vec<u32> = (0..500).collect();
            sorted.sort_by(|x, y| values[*y as usize].total_cmp(&values[*x as usize]).then(x.cmp(y)));
            assert_eq!(largest(&values, k), sorted[..k]);
        }
        let t = top(&[0.0, (3f32).ln()], 2);
        assert!((t[0].1 - 0.75).abs() < 1e-6 && t[0].0 == 1);
    }
}
