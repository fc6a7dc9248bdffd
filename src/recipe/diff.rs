//! `[diff]`: how an organism is read. Each measure has its own table.

use serde::{Deserialize, Serialize};

use super::{SourceSpec, one_or_many};

/// Number of built-in neutral prompts.
pub const MAX_PROMPTS: usize = 20;

/// `[diff]`; the defaults are the preset `quick`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffSection {
    /// Unrelated text on which differences are measured.
    #[serde(deserialize_with = "one_or_many")]
    pub text: Vec<SourceSpec>,
    /// Depth of the block that is read: trunc(layer · (L − 1)).
    pub layer: f64,
    /// Positions whose difference is read.
    pub positions: Vec<usize>,
    /// Number of texts.
    pub samples: usize,
    /// Tokens of each text; a text with fewer does not count.
    pub tokens: usize,
    /// Positions that the expected norm η leaves out at the start.
    pub norm_skip: usize,
    /// Tokens counted as decoded, best first.
    pub top_k: usize,
    /// Random-difference directions decoded the same way.
    pub null_directions: usize,
    /// Resamples of every bootstrap interval.
    pub bootstrap: usize,
    /// The logit lens.
    pub logit_lens: bool,
    /// The patchscope.
    pub patchscope: PatchscopeSection,
    /// Steering.
    pub steering: SteeringSection,
    /// The texts of every measure that is a loss.
    pub losses: LossesSection,
    /// Share of the gain that a constant bias explains.
    pub bias_share: BiasShareSection,
    /// Divergence of next-token distributions.
    pub kl: KlSection,
    /// Causal effect of the difference.
    pub causal: CausalSection,
    /// From base to tuned by scaling the adapter.
    pub interpolation: InterpolationSection,
    /// Words that count as relevant: this many of the most over-represented.
    pub lexicon_size: usize,
    /// Sentence embedder: alias or a sentence-transformers folder.
    pub embedder: String,
}

impl Default for DiffSection {
    fn default() -> Self {
        Self {
            text: Vec::new(),
            layer: 0.5,
            positions: vec![0, 1, 2, 3, 4],
            samples: 400,
            tokens: 16,
            norm_skip: 5,
            top_k: 20,
            null_directions: 64,
            bootstrap: 200,
            logit_lens: true,
            patchscope: PatchscopeSection::default(),
            steering: SteeringSection::default(),
            losses: LossesSection::default(),
            bias_share: BiasShareSection::default(),
            kl: KlSection::default(),
            causal: CausalSection::default(),
            interpolation: InterpolationSection::default(),
            lexicon_size: 100,
            embedder: "all-minilm-l6-v2".into(),
        }
    }
}

/// `[diff.patchscope]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatchscopeSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Scales in units of η.
    pub scales: Vec<f64>,
    /// Tokens of each prompt's distribution that enter the intersection.
    pub intersection: usize,
}

impl Default for PatchscopeSection {
    fn default() -> Self {
        let mut scales: Vec<f64> = (5..=20).map(|s| s as f64 / 10.0).collect();
        scales.extend([3.0, 4.0, 5.0, 10.0]);
        Self { enabled: true, scales, intersection: 16_384 }
    }
}

/// `[diff.steering]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SteeringSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Positions whose difference steers; those of `diff.positions` that are among them.
    pub positions: Vec<usize>,
    /// Strength in multiples of the unscaled difference (0: `strength` decides).
    pub differences: f64,
    /// Strength in units of η, where `differences` is 0.
    pub strength: f64,
    /// Prompts, of the built-in neutral ones in order.
    pub prompts: usize,
    /// Samples a prompt.
    pub samples: usize,
    /// New tokens a sample.
    pub max_new_tokens: usize,
    /// Sampling temperature.
    pub temperature: f64,
}

impl Default for SteeringSection {
    fn default() -> Self {
        Self {
            enabled: true,
            positions: vec![1, 3],
            differences: 4.0,
            strength: 0.1,
            prompts: 10,
            samples: 1,
            max_new_tokens: 48,
            temperature: 1.0,
        }
    }
}

/// `[diff.losses]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossesSection {
    /// Texts of each kind: narrow, unrelated, chat.
    pub samples: usize,
    /// Tokens of a text; a longer document gives several.
    pub max_tokens: usize,
    /// Conversations, of which what the assistant says counts (none given: nothing is measured on chat).
    #[serde(deserialize_with = "one_or_many")]
    pub chat: Vec<SourceSpec>,
}

impl Default for LossesSection {
    fn default() -> Self {
        Self { samples: 16, max_tokens: 64, chat: Vec::new() }
    }
}

/// `[diff.bias_share]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BiasShareSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Factors on the difference that are tried beside 1.
    pub factors: Vec<f64>,
    /// Random-difference directions that are added instead, of the first of `diff.null_directions`.
    pub directions: usize,
}

impl Default for BiasShareSection {
    fn default() -> Self {
        Self { enabled: true, factors: vec![0.5, 2.0, 4.0], directions: 8 }
    }
}

/// `[diff.kl]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlSection {
    /// Whether it runs.
    pub enabled: bool,
}

impl Default for KlSection {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Which prediction a loss without that of a position leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exclude {
    /// The one made at the position.
    #[default]
    Position,
    /// The one after, as the authors' code does.
    Next,
}

/// `[diff.causal]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CausalSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Positions whose difference is edited (none given: those of `diff.positions`).
    pub positions: Vec<usize>,
    /// Gaussian directions that are edited instead.
    pub random: usize,
    /// Random-difference directions that are edited instead, of the first of `diff.null_directions`.
    pub random_differences: usize,
    /// Which prediction `exclude_position` leaves out.
    pub exclude: Exclude,
}

impl Default for CausalSection {
    fn default() -> Self {
        Self {
            enabled: false,
            positions: Vec::new(),
            random: 16,
            random_differences: 32,
            exclude: Exclude::Position,
        }
    }
}

/// `[diff.interpolation]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterpolationSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Factors on the adapter.
    pub factors: Vec<f64>,
}

impl Default for InterpolationSection {
    fn default() -> Self {
        Self { enabled: false, factors: vec![0.0, 0.25, 0.5, 0.75, 1.0, 1.5] }
    }
}

impl DiffSection {
    /// Whether anything that is asked for needs sentence embeddings: the choice among several scales, and
    /// how similar steered text is to other text.
    pub fn uses_embedder(&self) -> bool {
        self.steering.enabled || (self.patchscope.enabled && self.patchscope.scales.len() > 1)
    }

    /// What is out of range.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(fault);
            }
        };
        check(
            (0.0..=1.0).contains(&self.layer),
            format!("diff.layer = {}: expected a depth between 0 and 1", self.layer),
        );
        check(!self.positions.is_empty(), "diff.positions: empty".into());
        if let Some(last) = self.positions.iter().max() {
            check(
                *last < self.tokens,
                format!("diff.positions has {last}, but diff.tokens = {}: expected more tokens", self.tokens),
            );
        }
        for (key, positions) in [
            ("diff.positions", &self.positions),
            ("diff.steering.positions", &self.steering.positions),
            ("diff.causal.positions", &self.causal.positions),
        ] {
            let twice = positions.iter().enumerate().find(|(i, p)| positions[..*i].contains(p));
            check(twice.is_none(), format!("{key} = {positions:?}: a position stands there twice"));
        }
        check(
            self.tokens > self.norm_skip,
            format!("diff.tokens = {} leaves nothing after diff.norm_skip = {}", self.tokens, self.norm_skip),
        );
        check(self.top_k > 0, "diff.top_k = 0: expected at least 1".into());
        let s = &self.steering;
        check(
            s.temperature == 0.0 || (0.01..=100.0).contains(&s.temperature),
            format!("diff.steering.temperature = {}: expected 0 (greedy), or 0.01 to 100", s.temperature),
        );
        for (key, value) in [("strength", s.strength), ("differences", s.differences)] {
            check(
                (-1e6..=1e6).contains(&value),
                format!("diff.steering.{key} = {value}: expected a number from -1000000 to 1000000"),
            );
        }
        check(
            self.patchscope.scales.iter().all(|s| *s > 0.0 && *s <= 1e6)
                && !self.patchscope.scales.is_empty(),
            "diff.patchscope.scales: expected at least one, all above 0 and at most 1000000".into(),
        );
        // The upper ends catch slips that would fill the memory.
        for (key, value, least, most) in [
            ("diff.samples", self.samples, 2, 10_000_000),
            ("diff.tokens", self.tokens, 1, 1_000_000),
            ("diff.null_directions", self.null_directions, 1, 100_000),
            ("diff.bootstrap", self.bootstrap, 1, 100_000),
            ("diff.steering.samples", s.samples, 1, 10_000),
            ("diff.steering.max_new_tokens", s.max_new_tokens, 1, 1_000_000),
            ("diff.losses.samples", self.losses.samples, 1, 10_000_000),
            ("diff.losses.max_tokens", self.losses.max_tokens, 2, 1_000_000),
            ("diff.bias_share.directions", self.bias_share.directions, 1, 100_000),
            ("diff.causal.random", self.causal.random, 1, 100_000),
            ("diff.causal.random_differences", self.causal.random_differences, 1, 100_000),
        ] {
            check((least..=most).contains(&value), format!("{key} = {value}: expected {least} to {most}"));
        }
        for (key, factors) in [
            ("diff.bias_share.factors", &self.bias_share.factors),
            ("diff.interpolation.factors", &self.interpolation.factors),
        ] {
            check(
                factors.iter().all(|f| (-1e6..=1e6).contains(f)),
                format!("{key} = {factors:?}: expected numbers from -1000000 to 1000000"),
            );
        }
        for (measure, enabled, positions) in [
            ("steering", self.steering.enabled, &self.steering.positions),
            ("causal", self.causal.enabled, &self.causal.positions),
        ] {
            for p in positions.iter().filter(|_| enabled) {
                check(
                    self.positions.contains(p),
                    format!("diff.{measure}.positions has {p}, which diff.positions lacks"),
                );
            }
        }
        let prompts = MAX_PROMPTS;
        check(
            (1..=prompts).contains(&self.steering.prompts) || !self.steering.enabled,
            format!("diff.steering.prompts = {}: expected 1 to {prompts}", self.steering.prompts),
        );
        faults
    }
}
