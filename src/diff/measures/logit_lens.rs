//! The logit lens of a direction: softmax(W_U · norm(v)) with the tuned model's final norm and head.
//!
//! No rescaling and no soft cap, which would leave the order of the tokens as it is. The negative side is
//! softmax(W_U · (−norm(v))).

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::diff::decode::{Decoded, Top, TopToken, Variant, decode, decode_both};
use crate::diff::reading::Reading;
use crate::diff::relevance::{Decoding, TokenRelevance, read_in, relevances};
use crate::diff::statistics::{Interval, Null, interval};

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
