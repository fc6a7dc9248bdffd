//! `diff/graded.json`: what a language model says of an analysis.
//!
//! Arrays run over [`Graded::positions`] unless said otherwise; an entry that the grader gave no answer for, or that
//! the analysis lacks, is `null`, and [`Graded::ungraded`] says why.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::grade::agreement::Agreement;
use crate::grade::coherence::CoherenceTally;
use crate::grade::endpoint::{Account, Endpoint};
use crate::grade::relevance::Rule;
use crate::json;

/// The name of the file, in the folder of the analysis.
pub const FILE: &str = "graded.json";

/// Version of the layout of `graded.json`.
pub const SCHEMA: u32 = 1;

/// Everything that was graded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Graded {
    /// Layout version, see [`SCHEMA`].
    pub schema: u32,
    /// Who graded.
    pub grader: Grader,
    /// When a token counts as relevant: `all` or `majority` of three gradings.
    pub rule: Rule,
    /// What the grader was told that the organism was finetuned on.
    pub description: String,
    /// Frequent tokens of the narrow data, as the grader saw them.
    pub frequent_tokens: Vec<String>,
    /// Zero-based token positions.
    pub positions: Vec<usize>,
    /// Unit of each value, by key path.
    pub units: BTreeMap<String, String>,
    /// By where the tokens come from (`logit_lens`, `patchscope`, `patchscope_tournament`) and what was decoded
    /// (`difference`, `base`, `tuned`).
    pub token_relevance: BTreeMap<String, BTreeMap<String, Series>>,
    /// Over all lists of tokens together.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agreement: Option<Agreement>,
    /// The difference's tokens under descriptions of other organisms: what relevance is worth that is not about this
    /// one. By name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub against: BTreeMap<String, Against>,
    /// Scales that the grader chose, by what was decoded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub tournament: BTreeMap<String, Vec<Option<Chosen>>>,
    /// Whether steered text can be read; absent where nothing was steered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub steering: Option<Coherences>,
    /// What got no answer that could be read.
    pub ungraded: Vec<String>,
    /// What all answers cost, whenever they were asked for.
    pub account: Account,
}

impl Graded {
    /// Reads `graded.json`; `None` if it is not there.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is damaged.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        json::read(path)
    }

    /// Whether any answer of the grader could be used; true where nothing was asked.
    pub fn has_grades(&self) -> bool {
        let own = self.token_relevance.values().flat_map(BTreeMap::values);
        let other = self.against.values().flat_map(|against| against.token_relevance.values());
        let of_tokens = own.chain(other).flat_map(|series| &series.share).any(Option::is_some);
        let of_scales = self.tournament.values().flatten().any(Option::is_some);
        let steering = self.steering.iter();
        let mut of_texts =
            steering.flat_map(|s| s.coherent_share.iter().chain([&s.coherent_share_unsteered]));
        self.ungraded.is_empty() || of_tokens || of_scales || of_texts.any(Option::is_some)
    }
}

/// Who graded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grader {
    /// The server.
    pub base_url: String,
    /// The model, as the server names it.
    pub model: String,
    /// Sampling temperature.
    pub temperature: f64,
    /// Most tokens of an answer.
    pub max_tokens: usize,
}

impl Grader {
    /// The model behind an endpoint.
    pub fn of(endpoint: &Endpoint) -> Self {
        let settings = endpoint.settings();
        Self {
            base_url: settings.base_url.clone(),
            model: settings.model.clone(),
            temperature: settings.temperature,
            max_tokens: settings.max_tokens,
        }
    }
}

/// Relevance of lists of tokens, one a position.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Series {
    /// Share of the tokens that are relevant.
    pub share: Vec<Option<f64>>,
    /// Largest share over the positions (the paper's figure; it favours every series, noise too).
    pub max: Option<f64>,
    /// Mean share over the positions.
    pub mean: Option<f64>,
    /// Share of the tokens' probability that is that of relevant ones.
    pub weighted_share: Vec<Option<f64>>,
    /// Share of the tokens that are frequent in the narrow data.
    pub trivial_share: Vec<Option<f64>>,
    /// Share of relevant tokens among those that the tournament called coherent; absent without one.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub selected_share: Vec<Option<f64>>,
    /// How far the three gradings agree.
    pub agreement: Vec<Option<Agreement>>,
    /// The relevant tokens, best first.
    pub relevant: Vec<Option<Vec<String>>>,
}

/// Relevance for another organism.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Against {
    /// What that one was finetuned on.
    pub description: String,
    /// By where the tokens come from.
    pub token_relevance: BTreeMap<String, Series>,
}

/// A scale that won.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Chosen {
    /// In multiples of the expected norm.
    pub scale: f64,
    /// The tokens there, best first.
    pub tokens: Vec<String>,
    /// Those that the grader calls coherent.
    pub coherent: Vec<String>,
}

/// Coherence of generated text.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Coherences {
    /// Positions whose difference steered; the lists below run over these.
    pub positions: Vec<usize>,
    /// Strength in multiples of the expected norm.
    pub strength: Vec<f64>,
    /// coherent / (coherent + incoherent) of the steered texts.
    pub coherent_share: Vec<Option<f64>>,
    /// Their verdicts.
    pub steered: Vec<CoherenceTally>,
    /// The same share of the unsteered texts.
    pub coherent_share_unsteered: Option<f64>,
    /// Their verdicts.
    pub unsteered: CoherenceTally,
}

/// Units of [`Graded`].
pub const UNITS: &[(&str, &str)] = &[
    ("token_relevance.share", "share of the tokens, 0 to 1"),
    ("token_relevance.weighted_share", "share of the tokens' probability, 0 to 1"),
    ("token_relevance.trivial_share", "share of the tokens, 0 to 1"),
    ("token_relevance.selected_share", "share of the coherent tokens, 0 to 1"),
    ("agreement.unanimous", "share of the tokens, 0 to 1"),
    ("agreement.alpha", "Krippendorff's alpha, at most 1"),
    ("tournament.scale", "multiples of expected_norm"),
    ("steering.strength", "multiples of expected_norm"),
    ("steering.coherent_share", "share of the texts that the grader could judge, 0 to 1"),
    ("account.cost", "in the currency of the recipe's prices"),
];
