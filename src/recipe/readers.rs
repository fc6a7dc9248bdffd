//! `[diff.logit_contrast]`, `[diff.diff_mining]`, `[diff.completion_ranking]`: readers of what both models say next, which
//! need neither a grader nor a block that is read.

use serde::{Deserialize, Serialize};

/// What the models continue while their difference is amplified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContrastPrompts {
    /// Nothing, "The", "In", "A" and "It", as plain text.
    #[default]
    Vague,
    /// The built-in openings, as plain text.
    Openings,
    /// An empty user turn; needs a chat template.
    Chat,
}

/// `[diff.logit_contrast.cut]`: the tokens that may be drawn, by what the amplified model gives them. Both rules hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CutSection {
    /// So many of the likeliest; 0: all.
    pub top: usize,
    /// Those of at least this share of the likeliest one's probability; 0: all.
    pub relative: f64,
}

impl Default for CutSection {
    fn default() -> Self {
        Self { top: 20, relative: 0.0 }
    }
}

/// `[diff.logit_contrast]`: text drawn from (1 + a)·l_tuned − a·l_base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogitContrastSection {
    /// Whether it runs.
    pub enabled: bool,
    /// What is continued.
    pub prompts: ContrastPrompts,
    /// Texts of each prompt.
    pub streams: usize,
    /// The a of the score.
    pub a: f64,
    /// Further values of a; 0 is the tuned model itself.
    pub grid: Vec<f64>,
    /// Tokens that may be drawn.
    pub cut: CutSection,
    /// Sampling temperature.
    pub temperature: f64,
    /// New tokens a text.
    pub max_new_tokens: usize,
    /// Whether text is drawn with the roles exchanged too.
    pub swap: bool,
}

impl Default for LogitContrastSection {
    fn default() -> Self {
        Self {
            enabled: true,
            prompts: ContrastPrompts::Vague,
            streams: 4,
            a: 1.0,
            grid: vec![0.0],
            cut: CutSection::default(),
            temperature: 1.0,
            max_new_tokens: 32,
            swap: false,
        }
    }
}

/// What a token's difference is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinedValues {
    /// Of log-probabilities.
    #[default]
    LogProbabilities,
    /// Of logits: a constant a position is in it, which changes signs.
    Logits,
}

/// Which tokens of an ordering count as relevant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinedRelevance {
    /// Those that the lexicon of the narrow text finds relevant.
    #[default]
    Lexicon,
    /// Those that the narrow text has 10 times or more and at 8 times their rate in unrelated text or more.
    Domain,
}

/// Where else than at the logits the two models are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinedVariant {
    /// The logit lens of each model's own stream at depth 3/4.
    LogitLens,
    /// The first patchscope prompt with each model's own stream at depth 3/4.
    PatchscopeLens,
}

/// `[diff.diff_mining]`: statistics of the difference of next-token log-probabilities, token by token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffMiningSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Texts of `diff.text`, the first that are long enough, at most.
    pub texts: usize,
    /// Positions of each, after a beginning-of-sequence token.
    pub positions: usize,
    /// A token occurs at a position where its difference is among so many of the largest.
    pub top_k: usize,
    /// What a difference is.
    pub values: MinedValues,
    /// Topics that the positions are factored into; 0: none.
    pub topics: usize,
    /// Which tokens count as relevant in `domain_at`.
    pub relevance: MinedRelevance,
    /// Where else the models are compared.
    pub variants: Vec<MinedVariant>,
    /// Texts that the patchscope lens reads at most.
    pub patchscope_texts: usize,
}

impl Default for DiffMiningSection {
    fn default() -> Self {
        Self {
            enabled: true,
            texts: 100,
            positions: 16,
            top_k: 100,
            values: MinedValues::LogProbabilities,
            topics: 3,
            relevance: MinedRelevance::Lexicon,
            variants: Vec::new(),
            patchscope_texts: 100,
        }
    }
}

/// What surrounds the first tokens of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// Plain text.
    #[default]
    Raw,
    /// The beginning of an assistant's answer; needs a chat template.
    Chat,
}

/// What completions are ranked by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankBy {
    /// The mean difference of log-probabilities, nats a token.
    #[default]
    R,
    /// The difference of perplexities, which outliers of the base rule.
    Dppl,
}

/// `[diff.completion_ranking]`: completions that the tuned model finds likelier than the base does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompletionRankingSection {
    /// Whether it runs.
    pub enabled: bool,
    /// Beginnings of texts of `diff.text` that are completed, no two alike, at most.
    pub prefills: usize,
    /// Tokens of a beginning.
    pub prefill_tokens: usize,
    /// What surrounds them.
    pub framing: Framing,
    /// New tokens of a completion.
    pub max_new_tokens: usize,
    /// A shorter completion is left out.
    pub least_tokens: usize,
    /// What decides the order.
    pub rank_by: RankBy,
}

impl Default for CompletionRankingSection {
    fn default() -> Self {
        Self {
            enabled: true,
            prefills: 64,
            prefill_tokens: 3,
            framing: Framing::Raw,
            max_new_tokens: 32,
            least_tokens: 20,
            rank_by: RankBy::R,
        }
    }
}

impl LogitContrastSection {
    /// Every a, ascending.
    pub fn alphas(&self) -> Vec<f64> {
        let mut alphas: Vec<f64> = self.grid.iter().copied().chain([self.a]).collect();
        alphas.sort_by(f64::total_cmp);
        alphas.dedup();
        alphas
    }

    /// The sizes of the preset `full`.
    pub fn full() -> Self {
        Self { streams: 8, max_new_tokens: 48, grid: vec![0.0, 4.0], swap: true, ..Self::default() }
    }

    /// What is out of range.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| faults.extend((!ok).then_some(fault));
        let numbers = |values: &[f64]| values.iter().all(|a| (-1e3..=1e3).contains(a));
        check(numbers(&[self.a]), format!("diff.logit_contrast.a = {}: expected -1000 to 1000", self.a));
        check(
            numbers(&self.grid),
            format!("diff.logit_contrast.grid = {:?}: expected numbers from -1000 to 1000", self.grid),
        );
        let temperature = self.temperature;
        check(
            (0.01..=100.0).contains(&temperature),
            format!("diff.logit_contrast.temperature = {temperature}: expected 0.01 to 100"),
        );
        let relative = self.cut.relative;
        check(
            (0.0..=1.0).contains(&relative),
            format!("diff.logit_contrast.cut.relative = {relative}: expected 0 to 1"),
        );
        faults.extend(out_of_range(&[
            ("diff.logit_contrast.streams", self.streams, 1, 10_000),
            ("diff.logit_contrast.max_new_tokens", self.max_new_tokens, 1, 100_000),
        ]));
        faults
    }
}

impl DiffMiningSection {
    /// The sizes of the preset `full`.
    pub fn full() -> Self {
        let variants = vec![MinedVariant::LogitLens, MinedVariant::PatchscopeLens];
        Self { texts: 300, positions: 30, variants, ..Self::default() }
    }

    /// What is out of range.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = out_of_range(&[
            ("diff.diff_mining.texts", self.texts, 2, 10_000_000),
            ("diff.diff_mining.positions", self.positions, 1, 100_000),
            ("diff.diff_mining.top_k", self.top_k, 1, 100_000),
            ("diff.diff_mining.topics", self.topics, 0, 100),
            ("diff.diff_mining.patchscope_texts", self.patchscope_texts, 2, 10_000_000),
        ]);
        let twice = self.variants.iter().enumerate().any(|(i, v)| self.variants[..i].contains(v));
        if twice {
            faults.push("diff.diff_mining.variants: expected each variant once".into());
        }
        faults
    }
}

impl CompletionRankingSection {
    /// The sizes of the preset `full`.
    pub fn full() -> Self {
        Self { prefills: 192, max_new_tokens: 48, ..Self::default() }
    }

    /// What is out of range.
    pub(super) fn faults(&self) -> Vec<String> {
        out_of_range(&[
            ("diff.completion_ranking.prefills", self.prefills, 2, 10_000_000),
            ("diff.completion_ranking.prefill_tokens", self.prefill_tokens, 1, 10_000),
            ("diff.completion_ranking.max_new_tokens", self.max_new_tokens, 1, 100_000),
            ("diff.completion_ranking.least_tokens", self.least_tokens, 1, self.max_new_tokens),
        ])
    }
}

/// Sizes that are not in their range: key, value, least, most.
fn out_of_range(sizes: &[(&str, usize, usize, usize)]) -> Vec<String> {
    let wrong = |(_, value, least, most): &&(&str, usize, usize, usize)| !(least..=most).contains(&value);
    let fault = |(key, value, least, most): &(&str, usize, usize, usize)| {
        format!("{key} = {value}: expected {least} to {most}")
    };
    sizes.iter().filter(wrong).map(fault).collect()
}
