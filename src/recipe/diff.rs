//! `[diff]`: how an organism is read. Each measure has its own table.

use serde::{Deserialize, Serialize};

use super::{SourceSpec, one_or_many};

/// Number of built-in neutral prompts.
pub const MAX_PROMPTS: usize = 20;

/// What the keys of `[diff]` are that a recipe leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Minutes on two cores.
    #[default]
    Quick,
    /// The sizes of arXiv 2510.13900, as far as its text gives them.
    Paper,
    /// Those of the authors' toolkit, `science-of-finetuning/diffing-toolkit` (July 2026).
    Toolkit,
}

/// Which of L blocks is at a depth r.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerRule {
    /// Index trunc(r · (L − 1)): the authors' toolkit.
    #[default]
    Trunc,
    /// Index floor(r · L), the last block at most: the paper's prose.
    Floor,
}

/// `[diff]`; the defaults are the preset `quick`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffSection {
    /// What the other keys are where nothing is said. Given by `--set` or `--preset` it starts the section over,
    /// apart from the texts and the embedder, since the recipe of a run folder says everything.
    pub preset: Preset,
    /// Unrelated text on which differences are measured.
    #[serde(deserialize_with = "one_or_many")]
    pub text: Vec<SourceSpec>,
    /// Corpora among which the trace is to point at the narrow one, by the names of their files.
    #[serde(deserialize_with = "one_or_many")]
    pub candidates: Vec<SourceSpec>,
    /// Depth of the block that is read, 0 to 1.
    pub layer: f64,
    /// Which block that is.
    pub layer_rule: LayerRule,
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
    /// The rank of the narrow words over the null directions.
    pub lift: bool,
    /// The patchscope.
    pub patchscope: PatchscopeSection,
    /// Steering.
    pub steering: SteeringSection,
    /// Words that count as relevant: this many of the most over-represented.
    pub lexicon_size: usize,
    /// Sentence embedder: alias or a sentence-transformers folder.
    pub embedder: String,
}

impl Default for DiffSection {
    fn default() -> Self {
        Self {
            preset: Preset::Quick,
            text: Vec::new(),
            candidates: Vec::new(),
            layer: 0.5,
            layer_rule: LayerRule::Trunc,
            positions: vec![0, 1, 2, 3, 4],
            samples: 400,
            tokens: 16,
            norm_skip: 5,
            top_k: 20,
            null_directions: 64,
            bootstrap: 200,
            logit_lens: true,
            lift: true,
            patchscope: PatchscopeSection::default(),
            steering: SteeringSection::default(),
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
    /// Positions whose difference is decoded; those of `diff.positions` where the list is empty.
    pub positions: Vec<usize>,
    /// Scales in units of η.
    pub scales: Vec<f64>,
    /// Tokens of each prompt's distribution that enter the intersection.
    pub intersection: usize,
}

impl Default for PatchscopeSection {
    fn default() -> Self {
        let mut scales: Vec<f64> = (5..=20).map(|s| s as f64 / 10.0).collect();
        scales.extend([3.0, 4.0, 5.0, 10.0]);
        Self { enabled: true, positions: Vec::new(), scales, intersection: 16_384 }
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
    /// Whether the strength is searched for, per position: the greatest at which text stays coherent.
    pub auto: bool,
    /// How it is searched for.
    pub search: SearchSection,
    /// Otherwise, strength in multiples of the unscaled difference (0: `strength` decides).
    pub differences: f64,
    /// Strength in units of η, where `differences` is 0.
    pub strength: f64,
    /// Null directions that steer, at the strength of each position.
    pub null_directions: usize,
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
            auto: false,
            search: SearchSection::default(),
            differences: 4.0,
            strength: 0.1,
            null_directions: 2,
            prompts: 10,
            samples: 1,
            max_new_tokens: 48,
            temperature: 1.0,
        }
    }
}

/// `[diff.steering.search]`: bisection for the greatest strength that passes, over three probe prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSection {
    /// Halvings of [0, 100] for the first prompt.
    pub steps: usize,
    /// Halvings of [0, twice the first result] for each of the others.
    pub steps_others: usize,
    /// Halvings looked ahead: all 2ⁿ − 1 midpoints that they may come to are written for at once. Changes cost only.
    pub batch_steps: usize,
    /// Samples at each midpoint.
    pub samples: usize,
    /// New tokens a sample.
    pub max_new_tokens: usize,
    /// Sampling temperature.
    pub temperature: f64,
    /// A midpoint passes if at least this share of its samples is coherent.
    pub coherent_share: f64,
}

impl Default for SearchSection {
    fn default() -> Self {
        Self {
            steps: 10,
            steps_others: 5,
            batch_steps: 1,
            samples: 10,
            max_new_tokens: 128,
            temperature: 1.2,
            coherent_share: 0.75,
        }
    }
}

impl DiffSection {
    /// The keys of a preset.
    pub fn of(preset: Preset) -> Self {
        let quick = Self::default();
        let long = || {
            let scales =
                [&quick.patchscope.scales[..], &(1..=10).map(|s| s as f64 * 20.0).collect::<Vec<_>>()];
            Self {
                preset,
                samples: 10_000,
                patchscope: PatchscopeSection { scales: scales.concat(), ..quick.patchscope.clone() },
                steering: SteeringSection {
                    positions: vec![0, 1, 2, 3, 4],
                    auto: true,
                    search: SearchSection { batch_steps: 3, ..SearchSection::default() },
                    null_directions: 0,
                    prompts: 20,
                    samples: 5,
                    max_new_tokens: 512,
                    temperature: 1.1,
                    ..quick.steering.clone()
                },
                ..quick.clone()
            }
        };
        match preset {
            Preset::Quick => quick,
            Preset::Paper => Self { layer_rule: LayerRule::Floor, tokens: 5, norm_skip: 3, ..long() },
            Preset::Toolkit => {
                let mut section = Self { positions: vec![0, 1, 2, 3, 4, 5], tokens: 128, ..long() };
                section.steering.search.steps = 12;
                section.steering.search.steps_others = 6;
                section
            }
        }
    }

    /// Index of the block that is read, of `n_layers`.
    pub fn block(&self, n_layers: usize) -> usize {
        match self.layer_rule {
            LayerRule::Trunc => (self.layer * (n_layers - 1) as f64).trunc() as usize,
            LayerRule::Floor => ((self.layer * n_layers as f64).floor() as usize).min(n_layers - 1),
        }
    }

    /// The positions that the patchscope decodes.
    pub fn patchscope_positions(&self) -> &[usize] {
        let own = &self.patchscope.positions;
        if own.is_empty() { &self.positions } else { own }
    }

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
            ("diff.patchscope.positions", &self.patchscope.positions),
            ("diff.steering.positions", &self.steering.positions),
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
        for (key, temperature) in [("", s.temperature), ("search.", s.search.temperature)] {
            check(
                temperature == 0.0 || (0.01..=100.0).contains(&temperature),
                format!(
                    "diff.steering.{key}temperature = {temperature}: expected 0 (greedy), or 0.01 to 100"
                ),
            );
        }
        check(
            (0.0..=1.0).contains(&s.search.coherent_share),
            format!("diff.steering.search.coherent_share = {}: expected 0 to 1", s.search.coherent_share),
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
            ("diff.steering.null_directions", s.null_directions, 0, self.null_directions),
            ("diff.steering.search.steps", s.search.steps, 1, 50),
            ("diff.steering.search.steps_others", s.search.steps_others, 1, 50),
            ("diff.steering.search.batch_steps", s.search.batch_steps, 1, 8),
            ("diff.steering.search.samples", s.search.samples, 1, 10_000),
            ("diff.steering.search.max_new_tokens", s.search.max_new_tokens, 1, 1_000_000),
        ] {
            check((least..=most).contains(&value), format!("{key} = {value}: expected {least} to {most}"));
        }
        for (key, enabled, positions) in [
            ("steering", s.enabled, &s.positions),
            ("patchscope", self.patchscope.enabled, &self.patchscope.positions),
        ] {
            for p in positions.iter().filter(|p| enabled && !self.positions.contains(p)) {
                check(false, format!("diff.{key}.positions has {p}, which diff.positions lacks"));
            }
        }
        for (i, spec) in self.candidates.iter().enumerate() {
            check(
                spec.weight.is_none() && !spec.is_self(),
                format!("diff.candidates: {}: expected a file or folder, without a weight", spec.path),
            );
            check(
                self.candidates[..i].iter().all(|other| other.stem() != spec.stem()),
                format!("diff.candidates: {}: another is named {} too", spec.path, spec.stem()),
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
