//! The logit lens of a direction: softmax(W_U · norm(v)) with the tuned model's final norm and head.
//!
//! No rescaling and no soft cap, which would leave the order of the tokens as it is. The negative side is
//! softmax(W_U · (−norm(v))).

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::{Decoded, DecodedMean, Top, TopToken, decode, decode_both};
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceReading};
use crate::diff::measure::{Measure, Work};
use crate::diff::plot::{Ink, Plot};
use crate::diff::reading::Reading;
use crate::diff::readout::{DecodedRelevance, Decoding};
use crate::diff::relevance::{DecodedTokens, TokenRelevance, read_in, relevances};
use crate::diff::score::{Score, relevance_score};
use crate::diff::statistics::{Interval, Null, interval};
use crate::recipe::DiffSection;

/// The name of its file in the folder of an analysis.
pub const FILE: &str = "logit_lens.jsonl";

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
    /// Best tokens of random differences, as many as there are positions; absent without a lexicon.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub null_tokens: Vec<Vec<TopToken>>,
    /// Mean relevance of the same tokens to the other candidate corpora.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_others: Vec<f64>,
    /// v_p under the base's own final norm and head. Another answer only where these were trained.
    #[serde(default)]
    pub base_head: DecodedTokens,
}

impl Lens {
    /// How relevant the tokens are, of an analysis at `positions`; `None` where there was no narrow text.
    pub fn relevance<'a>(&'a self, positions: &'a [usize]) -> Option<DecodedRelevance<'a>> {
        (!self.token_relevance.difference.is_empty()).then(|| DecodedRelevance {
            name: "logit lens",
            top: self.top_tokens.first().map_or(0, Vec::len),
            key: "lens",
            positions,
            share: &self.token_relevance,
            null: &self.token_relevance_null,
            null_interval: &self.token_relevance_null_interval,
            p: &self.token_relevance_p,
            interval: &self.token_relevance_difference_interval,
            scale: &[],
        })
    }

    /// What was decoded, of an analysis at `positions`.
    pub fn decoding<'a>(&'a self, positions: &'a [usize]) -> Decoding<'a> {
        Decoding {
            name: "logit lens",
            key: "lens",
            positions,
            scale: &[],
            tokens: &self.top_tokens,
            null: &self.null_tokens,
            relevance: self.relevance(positions),
        }
    }
}

impl Measure for Lens {
    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "lens",
        name: "the logit lens",
        axis: "relevant tokens of the logit lens",
        ink: Ink::Lens,
    });

    const UNITS: &[(&str, &str)] = &[
        ("logit_lens.top_tokens.score", "probability"),
        ("logit_lens.null_tokens.score", "probability"),
        ("logit_lens.token_relevance", "share of the top tokens, 0 to 1"),
        ("logit_lens.token_relevance_null", "share of the top tokens, 0 to 1"),
        ("logit_lens.token_relevance_others", "share of the top tokens, 0 to 1"),
        ("logit_lens.base_head.top_tokens.score", "probability"),
        ("logit_lens.base_head.token_relevance", "share of the top tokens, 0 to 1"),
        ("logit_lens.token_relevance_p", "share of null directions at least as relevant"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.logit_lens
    }

    fn cost(_settings: &DiffSection, _n_layers: usize) -> Work {
        Work::default()
    }

    /// Logit lens of difference, baselines, resamples and null; and the tokens of difference and baselines.
    fn measure(reading: &Reading, found: &mut Findings) -> Result<Option<Self>> {
        let Reading { settings, means, resamples, .. } = reading;
        let (tuned, k) = (reading.inputs.tuned, settings.top_k);
        let decoded = decode_both(tuned, &means.difference, k)?;
        let (tops, bottoms): (Vec<Top>, Vec<Top>) = decoded.into_iter().unzip();
        let (of_base, of_tuned) = (decode(tuned, &means.base, k)?, decode(tuned, &means.tuned, k)?);
        let mut lines = Vec::new();
        for (variant, tops) in DecodedMean::ALL.into_iter().zip([&tops, &of_base, &of_tuned]) {
            for (&position, top) in settings.positions.iter().zip(tops) {
                lines.push(Decoded { position, variant, scale: None, tokens: reading.unjudged(top) });
            }
        }
        found.write_lines(FILE, &lines)?;
        let top_tokens: Vec<Vec<TopToken>> = tops.iter().map(|top| reading.named(top)).collect();
        let read = Lens {
            token_relevance_others: reading.relevance_to_others(&top_tokens),
            base_head: read_in(reading, reading.inputs.base, &means.difference)?,
            top_tokens,
            bottom_tokens: bottoms.iter().map(|bottom| reading.named(bottom)).collect(),
            ..Lens::default()
        };
        if reading.prepared.lexicon.is_none() {
            return Ok(Some(read));
        }
        let positions = tops.len();
        let difference = reading.relevances(&tops);
        let resampled = relevances(reading, &resamples.concat())?;
        let of_null = decode(tuned, &reading.null, k)?;
        let null = Null(reading.relevances(&of_null));
        let of_position = |i: usize| resampled.iter().skip(i).step_by(positions).copied();
        Ok(Some(Lens {
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
        }))
    }

    fn columns(record: Option<&Self>, places: &ColumnPlaces, row: &mut Columns) {
        let found = record.and_then(|lens| lens.relevance(places.measured));
        row.relevance("lens", places.all, places.measured, found, true);
    }

    /// Mean share of relevant tokens over positions.
    fn scores(&self) -> Vec<Score> {
        relevance_score("logit_lens", "the logit lens", &self.token_relevance.difference, &self.top_tokens)
    }

    fn figures(&self, positions: &[usize]) -> Vec<Plot> {
        self.relevance(positions).map(|found| found.plot(Ink::Lens)).into_iter().collect()
    }

    fn trace(&self, positions: &[usize]) -> Option<TraceReading> {
        self.relevance(positions)?.trace()
    }
}
