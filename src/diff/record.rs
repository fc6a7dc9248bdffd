//! `diff/readability.json`: every number of one analysis, with its unit, its baseline and its interval.
//!
//! The keys are the ones that other tools read; a measure that was not run is absent, never zero. So are those
//! that need narrow text where there is none; here they are empty lists then.
//! Arrays run over [`Readability::positions`] unless said otherwise. A pair `[low, high]` under
//! `…_interval` stands beside the value of the same name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the layout of `readability.json`.
pub const SCHEMA: u32 = 1;

/// A 95 % interval, `[low, high]`.
pub type Interval = [f64; 2];

/// Every number of one analysis.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Readability {
    /// Layout version, see [`SCHEMA`].
    pub schema: u32,
    /// The `MODEL` string of the base.
    pub base: String,
    /// Adapter or model that was compared with the base; `adapter` or `model` stands for that of the run folder.
    pub tuned: String,
    /// Zero-based index of the block after which the residual stream is read (`resid_post`).
    pub layer: usize,
    /// Number of blocks of the model.
    pub n_layers: usize,
    /// Zero-based token positions (with the special tokens that the tokenizer adds).
    pub positions: Vec<usize>,
    /// Number of texts that were averaged.
    pub samples: usize,
    /// Zero-based rows of `diff.text` that were used, over all its files in order.
    pub sample_rows: Vec<usize>,
    /// Text of the token at each position when it is the same in all samples (a BOS token), else empty.
    pub position_tokens: Vec<String>,
    /// Unit of each value, by key path.
    pub units: BTreeMap<String, String>,
    /// ‖v_p‖, L2 norm of the mean difference.
    pub delta_norm: Vec<f64>,
    /// Bootstrap interval of [`Self::delta_norm`] over samples.
    pub delta_norm_interval: Vec<Interval>,
    /// η, mean residual norm of the tuned model at this block, repeated over positions.
    pub expected_norm: Vec<f64>,
    /// The same of the base model.
    pub expected_norm_base: Vec<f64>,
    /// Cosine between v_p and the mean of v over the other positions ≥ 1.
    pub position_cosine: Vec<f64>,
    /// The words that count as relevant, most over-represented first.
    #[serde(skip_serializing_if = "Lexicon::is_absent", default)]
    pub lexicon: Lexicon,
    /// Logit lens of the mean difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_lens: Option<Lens>,
    /// Patchscope of the mean difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patchscope: Option<Patchscope>,
    /// Steering with the mean difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steering: Option<Steering>,
    /// Seconds that each stage took.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub elapsed_s: BTreeMap<String, f64>,
}

/// The deterministic rule for "relevant": words over-represented in the narrow data.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lexicon {
    /// The rule in words.
    pub rule: String,
    /// The words, most over-represented first.
    pub words: Vec<String>,
}

impl Lexicon {
    /// Whether there was no narrow text to find words in.
    fn is_absent(&self) -> bool {
        self.rule.is_empty()
    }
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

/// Share of the top 20 tokens that are relevant, for the difference and its two baselines.
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
    fn is_absent(&self) -> bool {
        self.difference.is_empty()
    }
}

/// Logit lens (softmax of the unembedding of the normed difference).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lens {
    /// Best tokens of v_p, best first.
    pub top_tokens: Vec<Vec<TopToken>>,
    /// Best tokens of −v_p.
    pub bottom_tokens: Vec<Vec<TopToken>>,
    /// Relevance of the top 20.
    #[serde(skip_serializing_if = "TokenRelevance::is_absent", default)]
    pub token_relevance: TokenRelevance,
    /// Mean relevance of random-difference directions decoded the same way, repeated over positions.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_null: Vec<f64>,
    /// 2.5 % and 97.5 % quantiles of the null directions' relevance.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_null_interval: Vec<Interval>,
    /// Bootstrap interval of `token_relevance.difference` over samples.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_difference_interval: Vec<Interval>,
    /// (1 + null directions at least as relevant) / (1 + null directions).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_p: Vec<f64>,
}

/// Patchscope: the difference put in place of a token in an identity prompt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Patchscope {
    /// Scale (in η) whose tokens are most coherent as a set.
    pub best_scale: Vec<f64>,
    /// How the scale was chosen, in words.
    pub scale_selector: String,
    /// Tokens at the best scale, best first.
    pub top_tokens: Vec<Vec<TopToken>>,
    /// Relevance of the top 20.
    #[serde(skip_serializing_if = "TokenRelevance::is_absent", default)]
    pub token_relevance: TokenRelevance,
    /// Mean relevance of the null directions, each at its own best scale, repeated over positions.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_null: Vec<f64>,
    /// 2.5 % and 97.5 % quantiles of the null directions' relevance.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_null_interval: Vec<Interval>,
    /// (1 + null directions at least as relevant) / (1 + null directions).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance_p: Vec<f64>,
}

/// Text generated while v_p·η/‖v_p‖·strength is added to the residual stream at every token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Steering {
    /// Positions whose difference was used.
    pub positions: Vec<usize>,
    /// Strength in units of η, per steering position.
    pub strength: Vec<f64>,
    /// The same strength in multiples of the unscaled difference, per steering position.
    pub strength_in_differences: Vec<f64>,
    /// Mean pairwise cosine of sentence embeddings, per steering position.
    pub similarity: Similarity,
    /// Bootstrap interval (over texts) of `steered_narrow − unsteered_narrow`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub similarity_gain_interval: Vec<Interval>,
    /// Share of words of the steered text that are lexicon words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub relevant_words_steered: Vec<f64>,
    /// Share of words of the unsteered text that are lexicon words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub relevant_words_unsteered: Vec<f64>,
}

/// Mean pairwise cosine between sets of texts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Similarity {
    /// Steered text to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_narrow: Vec<f64>,
    /// Unsteered text to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unsteered_narrow: Vec<f64>,
    /// Steered text to the reference (`diff.text`).
    pub steered_reference: Vec<f64>,
    /// Unsteered text to the reference.
    pub unsteered_reference: Vec<f64>,
    /// Narrow text to itself, self pairs included: the ceiling.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub narrow_narrow: Vec<f64>,
}

/// A line of `diff/steering.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SteeringLine {
    /// The prompt, as written.
    pub prompt: String,
    /// Strength in units of η.
    pub strength: f64,
    /// Position whose difference was used.
    pub position: usize,
    /// Generated text with the difference added.
    pub steered: Vec<String>,
    /// Generated text without.
    pub unsteered: Vec<String>,
}
