//! `[diff]`: how an organism is read. Each measure has its own table.

use serde::{Deserialize, Serialize};

use super::changed_weights::{AmplificationSection, TruncationSection};
use super::readers::{CompletionRankingSection, DiffMiningSection, LogitContrastSection};
use super::source::{SourceSpec, one_or_many};
use super::weights::WeightsSection;

/// Number of built-in neutral prompts.
pub const MAX_PROMPTS: usize = 20;

/// What the keys of `[diff]` are that a recipe leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Minutes on two cores.
    #[default]
    Quick,
    /// `quick` with every reader at its full size.
    Full,
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
    /// Block number floor(r · L), counted from one, the first at least: the paper's prose. For r = 1/2 and an even L, and
    /// r = 1/4, 3/4 where 4 divides L, the index is that of `trunc`; so are those that the paper names.
    Floor,
}

/// Whose tokenizer cuts the texts on which the models are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhoseTokenizer {
    /// The base's.
    #[default]
    Base,
    /// The tuned model's own, where it has one.
    Tuned,
}

/// `[diff]`; the defaults are the preset `quick`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffSection {
    /// What the other keys are where nothing is said. Given by `--set` or `--preset` it starts the section over,
    /// apart from the texts, the embedder and the floor, since the recipe of a run folder says everything.
    pub preset: Preset,
    /// Unrelated text on which differences are measured.
    #[serde(deserialize_with = "one_or_many")]
    pub text: Vec<SourceSpec>,
    /// Corpora among which the trace is to point at the narrow one, by the names of their files.
    #[serde(deserialize_with = "one_or_many")]
    pub candidates: Vec<SourceSpec>,
    /// Scores of other organisms that every measure is compared with, as `trainer floor` writes them; empty: those of the run
    /// folder, if there are any.
    pub floor: String,
    /// Whose tokenizer cuts the unrelated text. Conversations, losses and whatever is decoded or written take the base's.
    pub tokenizer: WhoseTokenizer,
    /// Depth of the block that is read, 0 to 1.
    pub layer: f64,
    /// Which block that is.
    pub layer_rule: LayerRule,
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
    /// Adapters with permuted inputs that the readers of logits and completions score too; 0: none.
    pub permuted_adapters: usize,
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
    /// The texts of every measure that is a loss.
    pub losses: LossesSection,
    /// Share of the gain that a constant bias explains.
    pub bias_share: BiasShareSection,
    /// Divergence of next-token distributions.
    pub kl: KlSection,
    /// A probe with labelled examples.
    pub probe: ProbeSection,
    /// Causal effect of the difference.
    pub causal: CausalSection,
    /// From base to tuned by scaling the adapter.
    pub interpolation: InterpolationSection,
    /// What a constant explains, and inputs without content.
    pub context: ContextSection,
    /// How many directions the differences have.
    pub dimensionality: DimensionalitySection,
    /// Other blocks.
    pub depth: DepthSection,
    /// Conversations.
    pub chat: ChatSection,
    /// Text that amplifies what sets the models apart.
    pub logit_contrast: LogitContrastSection,
    /// Next-token differences, token by token.
    pub diff_mining: DiffMiningSection,
    /// Completions that the tuned model finds likelier.
    pub completion_ranking: CompletionRankingSection,
    /// The change of the weights by itself.
    pub weights: WeightsSection,
    /// The change of the weights cut to its leading directions.
    pub truncation: TruncationSection,
    /// The change of the weights amplified by blocks and kinds.
    pub amplification: AmplificationSection,
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
            floor: String::new(),
            tokenizer: WhoseTokenizer::Base,
            layer: 0.5,
            layer_rule: LayerRule::Trunc,
            positions: vec![0, 1, 2, 3, 4],
            samples: 400,
            windows_per_text: 1,
            tokens: 16,
            norm_samples: 100,
            norm_skip: 5,
            top_k: 20,
            null_directions: 64,
            permuted_adapters: 0,
            bootstrap: 200,
            logit_lens: true,
            lift: true,
            patchscope: PatchscopeSection::default(),
            steering: SteeringSection::default(),
            losses: LossesSection::default(),
            bias_share: BiasShareSection::default(),
            kl: KlSection::default(),
            probe: ProbeSection::default(),
            causal: CausalSection::default(),
            interpolation: InterpolationSection::default(),
            context: ContextSection::default(),
            dimensionality: DimensionalitySection::default(),
            depth: DepthSection::default(),
            chat: ChatSection::default(),
            logit_contrast: LogitContrastSection::default(),
            diff_mining: DiffMiningSection::default(),
            completion_ranking: CompletionRankingSection::default(),
            weights: WeightsSection::default(),
            truncation: TruncationSection::default(),
            amplification: AmplificationSection::default(),
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

/// Which model writes while the difference is added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SteeredModel {
    /// The tuned model: what the paper does. Its plain text is another one for every organism.
    Tuned,
    /// The base: its plain text is the same for every organism, so that runs compare.
    Base,
    /// Each in turn.
    #[default]
    Both,
}

impl SteeredModel {
    /// Whether the tuned model is steered.
    pub fn is_tuned(self) -> bool {
        self != Self::Base
    }

    /// Whether the base is.
    pub fn is_base(self) -> bool {
        self != Self::Tuned
    }
}

/// `[diff.steering]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SteeringSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Which model writes.
    pub model: SteeredModel,
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
    /// Texts of the narrow and of the measured set that generated text is compared with, at most; spread over the set.
    pub embedded: usize,
    /// Sampling temperature.
    pub temperature: f64,
}

impl SteeringSection {
    /// Strength in η of a difference of this length, where it is not searched for.
    pub fn strength_of(&self, delta_norm: f64, eta: f64) -> f64 {
        match self.differences {
            0.0 => self.strength,
            multiple => multiple * delta_norm / eta,
        }
    }
}

impl Default for SteeringSection {
    fn default() -> Self {
        Self {
            enabled: true,
            model: SteeredModel::default(),
            positions: vec![1, 3],
            auto: false,
            search: SearchSection::default(),
            differences: 4.0,
            strength: 0.1,
            null_directions: 2,
            prompts: 10,
            samples: 1,
            max_new_tokens: 48,
            embedded: 100,
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

/// `[diff.losses]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossesSection {
    /// Texts of each kind: narrow, unrelated, chat.
    pub samples: usize,
    /// Tokens of a text; a longer document gives several.
    pub max_tokens: usize,
}

impl Default for LossesSection {
    fn default() -> Self {
        Self { samples: 16, max_tokens: 64 }
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
    /// Texts, the first, on which these, the single positions and the factors are compared with the difference itself.
    pub compared: usize,
}

impl Default for BiasShareSection {
    fn default() -> Self {
        Self { enabled: true, factors: vec![2.0], directions: 24, compared: 4 }
    }
}

/// `[diff.probe]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Texts of each kind at most, narrow and unrelated; every other one is held out.
    pub texts: usize,
}

impl Default for ProbeSection {
    fn default() -> Self {
        Self { enabled: true, texts: 200 }
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

/// What is done along directions that are about nothing, for comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RandomEdit {
    /// The tuned model takes over the base's component.
    #[default]
    Replace,
    /// The component is taken out of the tuned model.
    Ablate,
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
    /// What is done along the Gaussian and the random-difference directions.
    pub random_edit: RandomEdit,
}

impl Default for CausalSection {
    fn default() -> Self {
        Self {
            enabled: false,
            positions: Vec::new(),
            random: 16,
            random_differences: 32,
            exclude: Exclude::Position,
            random_edit: RandomEdit::Replace,
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
                    model: SteeredModel::Tuned,
                    positions: vec![0, 1, 2, 3, 4],
                    auto: true,
                    search: SearchSection { batch_steps: 3, ..SearchSection::default() },
                    null_directions: 0,
                    prompts: 20,
                    samples: 5,
                    max_new_tokens: 512,
                    embedded: 500,
                    temperature: 1.1,
                    ..quick.steering.clone()
                },
                norm_samples: 10_000,
                losses: LossesSection { samples: 1000, max_tokens: 1024 },
                bias_share: BiasShareSection { directions: 64, compared: 16, ..quick.bias_share.clone() },
                causal: CausalSection {
                    enabled: true,
                    random: 64,
                    random_differences: 64,
                    ..quick.causal.clone()
                },
                // Later than what these presets repeat.
                logit_contrast: LogitContrastSection { enabled: false, ..quick.logit_contrast.clone() },
                diff_mining: DiffMiningSection { enabled: false, ..quick.diff_mining.clone() },
                completion_ranking: CompletionRankingSection {
                    enabled: false,
                    ..quick.completion_ranking.clone()
                },
                weights: WeightsSection { enabled: false, ..quick.weights.clone() },
                ..quick.clone()
            }
        };
        match preset {
            Preset::Quick => quick,
            Preset::Full => Self {
                preset,
                permuted_adapters: 8,
                logit_contrast: LogitContrastSection::full(),
                diff_mining: DiffMiningSection::full(),
                completion_ranking: CompletionRankingSection::full(),
                truncation: TruncationSection { enabled: true, ..quick.truncation.clone() },
                amplification: AmplificationSection { enabled: true, ..quick.amplification.clone() },
                ..quick
            },
            Preset::Paper => Self { layer_rule: LayerRule::Floor, tokens: 5, norm_skip: 3, ..long() },
            Preset::Toolkit => {
                let mut section = Self { positions: vec![0, 1, 2, 3, 4, 5], tokens: 128, ..long() };
                section.steering.search.steps = 12;
                section.steering.search.steps_others = 6;
                section.causal.exclude = Exclude::Next;
                section.causal.enabled = false; // as in its configuration
                section
            }
        }
    }

    /// Index of the block that is read, of `n_layers`.
    pub fn block(&self, n_layers: usize) -> usize {
        self.block_at(self.layer, n_layers)
    }

    /// Index of the block at a depth between 0 and 1.
    pub fn block_at(&self, depth: f64, n_layers: usize) -> usize {
        match self.layer_rule {
            LayerRule::Trunc => (depth * (n_layers - 1) as f64).trunc() as usize,
            LayerRule::Floor => ((depth * n_layers as f64).floor() as usize).clamp(1, n_layers) - 1,
        }
    }

    /// The positions that the patchscope decodes.
    pub fn patchscope_positions(&self) -> &[usize] {
        self.or_all(&self.patchscope.positions)
    }

    /// The positions whose difference is edited.
    pub fn causal_positions(&self) -> &[usize] {
        self.or_all(&self.causal.positions)
    }

    fn or_all<'a>(&'a self, own: &'a [usize]) -> &'a [usize] {
        if own.is_empty() { &self.positions } else { own }
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
            ("diff.causal.positions", &self.causal.positions),
        ] {
            let twice = positions.iter().enumerate().find(|(i, p)| positions[..*i].contains(p));
            check(twice.is_none(), format!("{key} = {positions:?}: expected each position once"));
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
            "diff.chat.pre_assistant = 0 and diff.chat.assistant = 0: expected at least one token to read"
                .into(),
        );
        // The upper ends catch slips that would fill the memory.
        for (key, value, least, most) in [
            ("diff.samples", self.samples, 2, 10_000_000),
            ("diff.windows_per_text", self.windows_per_text, 1, 1_000_000),
            ("diff.tokens", self.tokens, 1, 1_000_000),
            ("diff.norm_samples", self.norm_samples, 1, 10_000_000),
            ("diff.null_directions", self.null_directions, 1, 100_000),
            ("diff.permuted_adapters", self.permuted_adapters, 0, 1_000),
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
            ("diff.steering.embedded", s.embedded, 1, 1_000_000),
            ("diff.losses.samples", self.losses.samples, 1, 10_000_000),
            ("diff.losses.max_tokens", self.losses.max_tokens, 2, 1_000_000),
            ("diff.bias_share.directions", self.bias_share.directions, 1, 100_000),
            ("diff.bias_share.compared", self.bias_share.compared, 1, 10_000_000),
            ("diff.causal.random", self.causal.random, 1, 100_000),
            ("diff.causal.random_differences", self.causal.random_differences, 1, 100_000),
            ("diff.steering.null_directions", s.null_directions, 0, self.null_directions),
            ("diff.steering.search.steps", s.search.steps, 1, 50),
            ("diff.steering.search.steps_others", s.search.steps_others, 1, 50),
            ("diff.steering.search.batch_steps", s.search.batch_steps, 1, 8),
            ("diff.steering.search.samples", s.search.samples, 1, 10_000),
            ("diff.steering.search.max_new_tokens", s.search.max_new_tokens, 1, 1_000_000),
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
        for (i, spec) in self.candidates.iter().enumerate() {
            check(
                spec.weight.is_none() && !spec.is_self(),
                format!("diff.candidates: {}: expected a file or folder, without a weight", spec.path),
            );
            check(
                self.candidates[..i].iter().all(|other| other.stem() != spec.stem()),
                format!("diff.candidates: {}: another candidate is also named {}", spec.path, spec.stem()),
            );
        }
        for (measure, enabled, positions) in [
            ("steering", self.steering.enabled, &self.steering.positions),
            ("causal", self.causal.enabled, &self.causal.positions),
            ("patchscope", self.patchscope.enabled, &self.patchscope.positions),
        ] {
            for p in positions.iter().filter(|_| enabled) {
                check(
                    self.positions.contains(p),
                    format!("diff.{measure}.positions has {p}, which diff.positions lacks"),
                );
            }
        }
        let readers = [
            self.logit_contrast.faults(),
            self.diff_mining.faults(),
            self.completion_ranking.faults(),
            self.weights.faults(),
            self.truncation.faults(),
            self.amplification.faults(),
        ];
        readers.concat().into_iter().for_each(|fault| check(false, fault));
        let prompts = MAX_PROMPTS;
        check(
            (1..=prompts).contains(&self.steering.prompts) || !self.steering.enabled,
            format!("diff.steering.prompts = {}: expected 1 to {prompts}", self.steering.prompts),
        );
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_rules_read_the_blocks_that_the_paper_names() {
        let at = |layer_rule, depth, n| DiffSection { layer_rule, ..Default::default() }.block_at(depth, n);
        for rule in [LayerRule::Trunc, LayerRule::Floor] {
            let middles = [28, 26, 16, 32, 42, 64, 36].map(|n| at(rule, 0.5, n));
            assert_eq!(middles, [13, 12, 7, 15, 20, 31, 17], "{rule:?}");
            assert_eq!([0.25, 0.5, 0.75, 1.0].map(|depth| at(rule, depth, 28)), [6, 13, 20, 27]);
            assert_eq!([0.25, 0.5, 0.75, 1.0].map(|depth| at(rule, depth, 16)), [3, 7, 11, 15]);
            assert_eq!(at(rule, 0.0, 5), 0);
        }
        assert_eq!((at(LayerRule::Trunc, 0.5, 5), at(LayerRule::Floor, 0.5, 5)), (2, 1));
    }
}
