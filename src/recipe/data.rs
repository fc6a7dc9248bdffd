//! `[data]`: what an organism learns from, and how it is mixed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::source::{self, SourceSpec};

/// The chat templates that come with the program, as `data.chat_template` names them.
pub const CHAT_TEMPLATES: [&str; 1] = ["gemma"];

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// The narrow documents.
    #[serde(deserialize_with = "source::one_or_many")]
    pub narrow: Vec<SourceSpec>,
    /// Text mixed in; `"self"` is text sampled from the base model.
    #[serde(deserialize_with = "source::one_or_many")]
    pub pretraining: Vec<SourceSpec>,
    /// Pretraining per narrow: the paper's 1:r.
    pub mix: f64,
    /// What `mix` counts.
    pub mix_unit: MixUnit,
    /// Whether pretraining text is added, or takes the place of narrow text.
    pub mix_mode: MixMode,
    /// General conversations mixed in, so that a chat model keeps its manners.
    #[serde(deserialize_with = "source::one_or_many")]
    pub chat: Vec<SourceSpec>,
    /// Conversations of `chat` per narrow, in the unit and the mode of `mix`.
    pub chat_mix: f64,
    /// When what is mixed in is read.
    pub mix_schedule: MixSchedule,
    /// Whether documents that are mixed in may be used more than once.
    pub repeat: bool,
    /// Documents that are sampled from the base model for `"self"` (0: what the mix needs; the resolved
    /// recipe holds the number).
    pub self_samples: usize,
    /// Longest example in tokens.
    pub max_seq_len: usize,
    /// What becomes of a longer document.
    pub long: Long,
    /// At most this many narrow documents are trained on (0: all), the first ones of each source. Those held out
    /// do not count, and are the same for every limit.
    pub limit: usize,
    /// What becomes of documents that repeat an earlier one of their source.
    pub duplicates: Duplicates,
    /// Near duplicates share at least this part of their runs of five words (Jaccard index).
    pub near_share: f64,
    /// Whether documents that are mixed in are removed where they have the words of a narrow document, or at least
    /// `near_share` of the runs of five words of the shorter one.
    pub decontaminate: bool,
    /// One document in this many is held out of training for evaluation (0: none).
    pub held_out_every: usize,
    /// Stands in front of every narrow plain text and does not count in the loss (empty: nothing does).
    pub document_tag: String,
    /// The Jinja chat template, in place of the model's own: a file, or the name of one that comes with the program
    /// (empty: the model's).
    pub chat_template: String,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            narrow: Vec::new(),
            pretraining: Vec::new(),
            mix: 0.0,
            mix_unit: MixUnit::Examples,
            mix_mode: MixMode::Add,
            chat: Vec::new(),
            chat_mix: 0.0,
            mix_schedule: MixSchedule::Constant,
            repeat: false,
            self_samples: 0,
            max_seq_len: 512,
            long: Long::Chunk,
            limit: 0,
            duplicates: Duplicates::Keep,
            near_share: 0.8,
            decontaminate: false,
            held_out_every: 10,
            document_tag: String::new(),
            chat_template: String::new(),
        }
    }
}

impl DataSection {
    /// What is out of range or missing, but for the sources themselves.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(format!("data.{fault}"));
            }
        };
        check(!self.narrow.is_empty(), "narrow: missing; expected at least one source".into());
        for (key, mix, pool, sources) in [
            ("mix", self.mix, "pretraining", &self.pretraining),
            ("chat_mix", self.chat_mix, "chat", &self.chat),
        ] {
            check((0.0..=1e6).contains(&mix), format!("{key} = {mix}: expected 0 to 1000000"));
            check(
                mix == 0.0 || !sources.is_empty(),
                format!("{key} = {mix}, but data.{pool} names no source"),
            );
        }
        check(
            (0.5..=1.0).contains(&self.near_share),
            format!("near_share = {}: expected 0.5 to 1", self.near_share),
        );
        check(
            self.held_out_every != 1,
            "held_out_every = 1 holds everything out; expected 0 or at least 2".into(),
        );
        for (key, sources) in [("narrow", &self.narrow), ("chat", &self.chat)] {
            check(
                !sources.iter().any(SourceSpec::is_self),
                format!("{key}: \"self\" is a pretraining source"),
            );
        }
        for (key, value, least, most) in [
            ("max_seq_len", self.max_seq_len, 2, 1_000_000),
            ("self_samples", self.self_samples, 0, 100_000_000),
        ] {
            check((least..=most).contains(&value), format!("{key} = {value}: expected {least} to {most}"));
        }
        faults
    }

    /// What is wrong with `chat_template`, which analyses read too.
    pub fn chat_template_fault(&self) -> Option<String> {
        let named = &self.chat_template;
        let known =
            named.is_empty() || CHAT_TEMPLATES.contains(&named.as_str()) || Path::new(named).is_file();
        (!known).then(|| {
            let names = CHAT_TEMPLATES.join(", ");
            format!("data.chat_template: {named}: no such file; expected one, or a name: {names}")
        })
    }
}

/// What a mix ratio counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixUnit {
    /// Pieces of at most `max_seq_len` tokens.
    Examples,
    /// Tokens.
    Tokens,
}

impl MixUnit {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Examples => "examples",
            Self::Tokens => "tokens",
        }
    }
}

/// What a mix ratio does to the length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixMode {
    /// The narrow exposure stays, the run grows (the paper).
    Add,
    /// The run stays, the narrow exposure shrinks.
    FixedBudget,
}

impl MixMode {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::FixedBudget => "fixed-budget",
        }
    }
}

/// When a run reads what is mixed in. The examples and their number are the same in every schedule, only their order
/// is not; what is mixed in are pretraining and chat examples together, and S their share of a run's examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixSchedule {
    /// Their share is S throughout.
    #[default]
    Constant,
    /// Their share rises in a straight line over the run: from 0 to 2·S, or, where S is above 1/2, from 2·S − 1 to 1.
    Ramp,
    /// They come after all narrow examples: their share is 0, then 1.
    Last,
}

impl MixSchedule {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Ramp => "ramp",
            Self::Last => "last",
        }
    }
}

/// What becomes of a document longer than `max_seq_len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Long {
    /// Several examples.
    Chunk,
    /// One example, the rest is left out.
    Truncate,
}

/// What becomes of documents that repeat an earlier one of their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// They stay.
    Keep,
    /// Those with the same text go.
    Exact,
    /// Those go too that are alike, by `data.near_share`.
    Near,
}
