//! Which decoded tokens are about the narrow data, and what share of the top tokens that is.

use serde::{Deserialize, Serialize};

use super::logit_lens::Top;
use super::reading::Reading;

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

impl TokenRelevance {
    pub(super) fn is_absent(&self) -> bool {
        self.difference.is_empty()
    }
}

impl Reading<'_> {
    /// Decoded text of a token.
    pub fn token(&self, id: u32) -> String {
        self.inputs.pretrained.tokenizer.decode(&[id], false).unwrap_or_default()
    }

    /// Tokens with their text, and whether they are relevant where there is a lexicon.
    pub fn named(&self, top: &Top) -> Vec<TopToken> {
        let named = |&(id, score): &(u32, f64)| {
            let token = self.token(id);
            TopToken { relevant: self.lexicon.as_ref().map(|l| l.is_relevant(&token)), token, id, score }
        };
        top.iter().map(named).collect()
    }

    /// Tokens with their text alone.
    pub fn unjudged(&self, top: &Top) -> Vec<TopToken> {
        top.iter().map(|&(id, score)| TopToken { token: self.token(id), id, score, relevant: None }).collect()
    }

    /// Share of the top `diff.top_k` tokens that are relevant; `None` without a lexicon.
    pub fn relevance(&self, top: &Top) -> Option<f64> {
        let (lexicon, k) = (self.lexicon.as_ref()?, self.settings.top_k);
        let relevant = top.iter().take(k).filter(|(id, _)| lexicon.is_relevant(&self.token(*id))).count();
        Some(relevant as f64 / k as f64)
    }

    /// Of several; empty without a lexicon.
    pub fn relevances<'t>(&self, tops: impl IntoIterator<Item = &'t Top>) -> Vec<f64> {
        tops.into_iter().filter_map(|top| self.relevance(top)).collect()
    }
}
