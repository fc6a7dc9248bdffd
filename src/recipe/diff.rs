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
    /// Number of windows: beginnings of texts, unless `windows_per_text` is above 1.
    pub samples: usize,
    /// Windows cut from each text, at most, one after the other.
    pub windows_per_text: usize,
    /// Tokens of each window; a piece of text with fewer does not count.
    pub tokens: usize,
    /// Windows, the first, that give η and are read whole; of the others only what comes up to the last of `positions`.
    pub norm_samples: usize,
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
    /// What a constant explains, and inputs without content.
    pub context: ContextSection,
    /// How many directions the differences have.
    pub dimensionality: DimensionalitySection,
    /// Other blocks.
    pub depth: DepthSection,
    /// Conversations.
    pub chat: ChatSection,
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
            windows_per_text: 1,
            tokens: 16,
            norm_samples: 400,
            norm_skip: 5,
            top_k: 20,
            null_directions: 64,
            bootstrap: 200,
            logit_lens: true,
            patchscope: PatchscopeSection::default(),
            steering: SteeringSection::default(),
            context: ContextSection::default(),
            dimensionality: DimensionalitySection::default(),
            depth: DepthSection::default(),
            chat: ChatSection::default(),
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

/// `[diff.context]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContextSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Single texts whose own differences are decoded, at each position.
    pub singles: usize,
    /// Positions far into a text (the paper's: 15, 31, 63, 127); empty: none.
    pub far: Vec<usize>,
    /// Texts that are read so far, at most: the first that are long enough.
    pub far_samples: usize,
}

impl Default for ContextSection {
    fn default() -> Self {
        Self { enabled: true, singles: 16, far: Vec::new(), far_samples: 100 }
    }
}

/// `[diff.dimensionality]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DimensionalitySection {
    /// Whether it runs.
    pub enabled: bool,
    /// Principal directions that are decoded.
    pub decoded: usize,
}

impl Default for DimensionalitySection {
    fn default() -> Self {
        Self { enabled: true, decoded: 2 }
    }
}

/// `[diff.depth]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DepthSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Depths of the blocks, each as `diff.layer`.
    pub layers: Vec<f64>,
    /// Windows that are read, at most: the first.
    pub samples: usize,
    /// Whether the patchscope is applied at each block too.
    pub patchscope: bool,
}

impl Default for DepthSection {
    fn default() -> Self {
        Self { enabled: false, layers: vec![0.25, 0.5, 0.75, 1.0], samples: 400, patchscope: false }
    }
}

/// `[diff.chat]`: differences around the beginning of the assistant's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSection {
    /// Conversations (`messages`) that have nothing to do with the narrow data; empty: none are read.
    #[serde(deserialize_with = "one_or_many")]
    pub text: Vec<SourceSpec>,
    /// Number of conversations.
    pub samples: usize,
    /// Tokens before the answer that are read: positions −k to −1.
    pub pre_assistant: usize,
    /// Tokens of the answer that are read: positions 0 to n − 1.
    pub assistant: usize,
    /// Tokens before the answer, at most; a conversation with more does not count.
    pub user_tokens: usize,
}

impl Default for ChatSection {
    fn default() -> Self {
        Self { text: Vec::new(), samples: 200, pre_assistant: 3, assistant: 5, user_tokens: 512 }
    }
}

impl DiffSection {
    /// Whether anything that is asked for needs sentence embeddings: the choice among several scales, and
    /// how similar steered text is to other text.
    pub fn uses_embedder(&self) -> bool {
        let patchscope = self.patchscope.enabled || (self.depth.enabled && self.depth.patchscope);
        self.steering.enabled || (patchscope && self.patchscope.scales.len() > 1)
    }

    /// Whether a measure looks at the differences of single samples.
    pub fn reads_single_samples(&self) -> bool {
        self.context.enabled || self.dimensionality.enabled
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
        for (key, positions) in
            [("diff.positions", &self.positions), ("diff.steering.positions", &self.steering.positions)]
        {
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
        let depths = &self.depth.layers;
        check(
            !depths.is_empty() && depths.iter().all(|d| (0.0..=1.0).contains(d)),
            format!("diff.depth.layers = {depths:?}: expected depths between 0 and 1, at least one"),
        );
        let far = &self.context.far;
        check(
            far.windows(2).all(|p| p[0] < p[1]) && far.iter().all(|p| *p < 1_000_000),
            format!(
                "diff.context.far = {far:?}: expected positions below 1000000, each above the one before"
            ),
        );
        check(
            self.chat.pre_assistant + self.chat.assistant > 0,
            "diff.chat.pre_assistant = 0 and diff.chat.assistant = 0: expected a token to read".into(),
        );
        // The upper ends catch slips that would fill the memory.
        for (key, value, least, most) in [
            ("diff.samples", self.samples, 2, 10_000_000),
            ("diff.windows_per_text", self.windows_per_text, 1, 1_000_000),
            ("diff.tokens", self.tokens, 1, 1_000_000),
            ("diff.norm_samples", self.norm_samples, 1, 10_000_000),
            ("diff.null_directions", self.null_directions, 1, 100_000),
            ("diff.bootstrap", self.bootstrap, 1, 100_000),
            ("diff.context.singles", self.context.singles, 0, 512),
            ("diff.context.far_samples", self.context.far_samples, 2, 10_000_000),
            ("diff.dimensionality.decoded", self.dimensionality.decoded, 0, 10),
            ("diff.depth.samples", self.depth.samples, 2, 10_000_000),
            ("diff.chat.samples", self.chat.samples, 2, 10_000_000),
            ("diff.chat.pre_assistant", self.chat.pre_assistant, 0, 1_000),
            ("diff.chat.assistant", self.chat.assistant, 0, 100_000),
            ("diff.chat.user_tokens", self.chat.user_tokens, 1, 1_000_000),
            ("diff.steering.samples", s.samples, 1, 10_000),
            ("diff.steering.max_new_tokens", s.max_new_tokens, 1, 1_000_000),
        ] {
            check((least..=most).contains(&value), format!("{key} = {value}: expected {least} to {most}"));
        }
        for p in self.steering.positions.iter().filter(|_| self.steering.enabled) {
            check(
                self.positions.contains(p),
                format!("diff.steering.positions has {p}, which diff.positions lacks"),
            );
        }
        let prompts = MAX_PROMPTS;
        check(
            (1..=prompts).contains(&self.steering.prompts) || !self.steering.enabled,
            format!("diff.steering.prompts = {}: expected 1 to {prompts}", self.steering.prompts),
        );
        faults
    }
}
