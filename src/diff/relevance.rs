//! Which decoded tokens are about the narrow data, and what share of the top tokens that is.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::decode::{Top, TopToken, decode};
use super::lexicon::Lexicon;
use super::reading::Reading;
use super::statistics::mean;
use crate::model::View;

/// Share of the top tokens that are relevant, for the difference and its two baselines.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TokenRelevance {
    /// Decoding v_p.
    pub difference: Vec<f64>,
    /// Decoding the base model's mean activation.
    pub base: Vec<f64>,
    /// Decoding the tuned model's mean activation.
    pub tuned: Vec<f64>,
}

/// What a direction decodes to in one more way.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DecodedTokens {
    /// Scale that was chosen, for the patchscope.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub best_scale: Vec<f64>,
    /// Tokens, best first.
    pub top_tokens: Vec<Vec<TopToken>>,
    /// Share of them that are relevant.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance: Vec<f64>,
}

impl TokenRelevance {
    pub(super) fn is_absent(&self) -> bool {
        self.difference.is_empty()
    }
}

impl Reading<'_> {
    /// Decoded text of a token.
    pub fn token(&self, id: u32) -> String {
        self.inputs.token(id)
    }

    /// Tokens with their text, and whether they are relevant where there is a lexicon.
    pub fn named(&self, top: &Top) -> Vec<TopToken> {
        let named = |&(id, score): &(u32, f64)| {
            let token = self.token(id);
            TopToken {
                relevant: self.prepared.lexicon.as_ref().map(|l| l.is_relevant(&token)),
                token,
                id,
                score,
            }
        };
        top.iter().map(named).collect()
    }

    /// Tokens with their text alone.
    pub fn unjudged(&self, top: &Top) -> Vec<TopToken> {
        top.iter().map(|&(id, score)| TopToken { token: self.token(id), id, score, relevant: None }).collect()
    }

    /// Share of the top `diff.top_k` tokens that are relevant; `None` without a lexicon.
    pub fn relevance(&self, top: &Top) -> Option<f64> {
        Some(self.relevance_to(self.prepared.lexicon.as_ref()?, top.iter().map(|(id, _)| *id)))
    }

    /// The same under any lexicon, of tokens that come best first.
    pub fn relevance_to(&self, lexicon: &Lexicon, best: impl IntoIterator<Item = u32>) -> f64 {
        let k = self.settings.top_k;
        let relevant = best.into_iter().take(k).filter(|id| lexicon.is_relevant(&self.token(*id))).count();
        relevant as f64 / k as f64
    }

    /// Mean share of the tokens of each position that are relevant to the candidates other than the narrow text:
    /// the narrow lexicon knows the answer, theirs do not. Empty where there are none.
    pub fn relevance_to_others(&self, tokens: &[Vec<TopToken>]) -> Vec<f64> {
        let others: Vec<&Lexicon> =
            self.prepared.candidates.iter().filter(|c| !c.is_narrow).map(|c| &c.lexicon).collect();
        if others.is_empty() || self.prepared.lexicon.is_none() {
            return Vec::new();
        }
        let share = |tokens: &Vec<TopToken>| {
            let one = |lexicon: &&Lexicon| self.relevance_to(lexicon, tokens.iter().map(|t| t.id));
            mean(&others.iter().map(one).collect::<Vec<_>>())
        };
        tokens.iter().map(share).collect()
    }

    /// Of several; empty without a lexicon.
    pub fn relevances<'t>(&self, tops: impl IntoIterator<Item = &'t Top>) -> Vec<f64> {
        tops.into_iter().filter_map(|top| self.relevance(top)).collect()
    }
}

/// Best tokens of each direction and how relevant they are.
///
/// # Errors
/// If a tensor operation fails.
pub fn read(reading: &Reading, directions: &[Vec<f32>]) -> Result<DecodedTokens> {
    read_in(reading, reading.inputs.tuned, directions)
}

/// The same through the final norm and head of another model.
pub fn read_in(reading: &Reading, view: View, directions: &[Vec<f32>]) -> Result<DecodedTokens> {
    let tops = decode(view, directions, reading.settings.top_k)?;
    Ok(DecodedTokens {
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
