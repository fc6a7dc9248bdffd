//! `[diff.truncation]`, `[diff.amplification]`: which part of the change of the weights carries the finetuning.

use serde::{Deserialize, Serialize};

/// `[diff.truncation]`: the tuned model with the leading singular directions of its change alone, and without the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TruncationSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Singular directions of each module that stay.
    pub ranks: Vec<usize>,
    /// Texts of each of the built-in openings.
    pub streams: usize,
    /// Sampling temperature.
    pub temperature: f64,
    /// New tokens a text.
    pub max_new_tokens: usize,
}

impl Default for TruncationSection {
    fn default() -> Self {
        Self { enabled: false, ranks: vec![1, 4], streams: 2, temperature: 0.7, max_new_tokens: 48 }
    }
}

/// Modules whose change is amplified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AmplifiedKind {
    /// Every linear layer.
    All,
    /// Query, key, value and output projections.
    Attention,
    /// Gate, up and down projections.
    Mlp,
}

impl AmplifiedKind {
    /// As recipes and records spell it.
    pub fn name(self) -> &'static str {
        match self {
            AmplifiedKind::All => "all",
            AmplifiedKind::Attention => "attention",
            AmplifiedKind::Mlp => "mlp",
        }
    }

    /// Whether a linear layer is one of them, by its name in its block (`self_attn.q_proj`).
    pub fn has(self, layer: &str) -> bool {
        match self {
            AmplifiedKind::All => true,
            AmplifiedKind::Attention => layer.starts_with("self_attn."),
            AmplifiedKind::Mlp => layer.starts_with("mlp."),
        }
    }
}

/// `[diff.amplification]`: text of the tuned model where the change of some of its weights counts several times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmplificationSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Which modules, each in turn.
    pub kinds: Vec<AmplifiedKind>,
    /// Factors on their change; all else stays the tuned model's.
    pub factors: Vec<f64>,
    /// Depth of the last of the blocks that are amplified, 0 to 1.
    pub depth: f64,
    /// Texts of each of the vague prompts.
    pub streams: usize,
    /// Sampling temperature.
    pub temperature: f64,
    /// New tokens a text.
    pub max_new_tokens: usize,
}

impl Default for AmplificationSection {
    fn default() -> Self {
        Self {
            enabled: false,
            kinds: vec![AmplifiedKind::All, AmplifiedKind::Attention, AmplifiedKind::Mlp],
            factors: vec![-1.0, 2.0, 3.0],
            depth: 0.8,
            streams: 8,
            temperature: 1.0,
            max_new_tokens: 48,
        }
    }
}

impl TruncationSection {
    /// What is out of range.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let ranks = &self.ranks;
        let ascend = ranks.windows(2).all(|pair| pair[0] < pair[1]);
        if ranks.is_empty() || !ascend || ranks.iter().any(|rank| !(1..=1024).contains(rank)) {
            faults.push(format!(
                "diff.truncation.ranks = {ranks:?}: expected ranks from 1 to 1024, each above the one before"
            ));
        }
        faults.extend(wrong_text("truncation", self.streams, self.temperature, self.max_new_tokens));
        faults
    }
}

impl AmplificationSection {
    /// Index of the last block that is amplified, of `n_layers`.
    pub fn last_block(&self, n_layers: usize) -> usize {
        (self.depth * (n_layers - 1) as f64).round() as usize
    }

    /// What is out of range.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let (kinds, factors) = (&self.kinds, &self.factors);
        if kinds.is_empty() || kinds.iter().enumerate().any(|(i, kind)| kinds[..i].contains(kind)) {
            faults.push(
                "diff.amplification.kinds: expected each of \"all\", \"attention\", \"mlp\" once at most"
                    .into(),
            );
        }
        let twice = factors.iter().enumerate().any(|(i, factor)| factors[..i].contains(factor));
        if factors.is_empty() || twice || !factors.iter().all(|factor| (-100.0..=100.0).contains(factor)) {
            faults.push(format!(
                "diff.amplification.factors = {factors:?}: expected numbers from -100 to 100, each once"
            ));
        }
        if !(0.0..=1.0).contains(&self.depth) {
            faults.push(format!("diff.amplification.depth = {}: expected 0 to 1", self.depth));
        }
        faults.extend(wrong_text("amplification", self.streams, self.temperature, self.max_new_tokens));
        faults
    }
}

fn wrong_text(table: &str, streams: usize, temperature: f64, max_new_tokens: usize) -> Vec<String> {
    let mut faults = Vec::new();
    if !(0.01..=100.0).contains(&temperature) {
        faults.push(format!("diff.{table}.temperature = {temperature}: expected 0.01 to 100"));
    }
    for (key, value, most) in [("streams", streams, 10_000), ("max_new_tokens", max_new_tokens, 100_000)] {
        if !(1..=most).contains(&value) {
            faults.push(format!("diff.{table}.{key} = {value}: expected 1 to {most}"));
        }
    }
    faults
}
