//! What of a planned run is likely not meant.

use serde::Serialize;

use super::sources::SourceFacts;
use crate::corpus::mix::Mix;
use crate::data::mixture::Role;
use crate::recipe::{MixUnit, Recipe};

/// A source of which more than this share of the tokens does not count is pointed out.
const MANY_MASKED: f64 = 0.8;

/// A source of which more than this share of the examples are short pieces of longer documents is pointed out.
const MANY_SHORT: f64 = 0.1;

/// A source that is mixed in and of which more than this share is drawn is nearly used up.
const NEARLY_ALL: f64 = 0.9;

/// Ratios in examples and in tokens that differ by more than this factor are pointed out.
const FAR_APART: f64 = 2.0;

/// What is likely not meant.
#[derive(Debug, Clone, Serialize)]
pub struct Warning {
    /// For programs.
    pub kind: WarningKind,
    /// For people.
    pub text: String,
}

/// The kinds of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// Text of the base model is not sampled yet.
    NotSampled,
    /// The template closes an assistant's turn with no token.
    NoEndOfTurn,
    /// The end-of-turn token does not end a generation.
    EndOfTurnGoesOn,
    /// Examples in which no token that ends the answer counts.
    EndNotTrained,
    /// The beginning-of-sequence token stands twice.
    DoubledBos,
    /// The tokenizer begins texts with tokens that these examples lack.
    NoFront,
    /// Documents were cut off.
    Truncated,
    /// Pieces were left out because no token of them counts.
    LeftOut,
    /// Most tokens do not count.
    MostlyMasked,
    /// Fewer examples than a batch.
    ShortSource,
    /// Nothing is drawn.
    Unused,
    /// Examples are drawn more than once.
    RepeatedExamples,
    /// A source that is mixed in has hardly any examples left.
    NearlyUsedUp,
    /// The ratio in tokens is another than that in examples.
    MixInTokens,
    /// Many examples are the short ends of documents.
    ShortPieces,
    /// The `loss_weight` of a source is 0.
    NoWeight,
    /// A document stands in its part of the mixture more than once.
    RepeatedDocuments,
    /// Held-out documents are trained on.
    HeldOutSeen,
    /// Narrow documents stand in the pretraining text.
    NarrowInPretraining,
    /// Narrow documents stand in the conversations that are mixed in.
    NarrowInChat,
    /// A document's text holds a special token.
    TypedSpecial,
    /// Examples are longer than the model's context.
    LongerThanContext,
    /// The trace is to be read on text that is trained on.
    MeasuredOnPretraining,
}

pub(super) fn mix_warnings(mix: &Mix, warnings: &mut Vec<Warning>) {
    if mix.unit == MixUnit::Tokens {
        return;
    }
    let pretraining = ("pretraining", mix.realised_examples, mix.realised_tokens);
    let chat = mix.chat.as_ref().map(|c| ("chat", c.realised_examples, c.realised_tokens));
    for (part, in_examples, in_tokens) in std::iter::once(pretraining).chain(chat) {
        let Some(in_tokens) = in_tokens.filter(|_| in_examples > 0.0) else { continue };
        let factor = in_tokens / in_examples;
        if !(1.0 / FAR_APART..=FAR_APART).contains(&factor) {
            warnings.push(Warning {
                kind: WarningKind::MixInTokens,
                text: format!(
                    "{part} per narrow is {in_examples:.3} in examples, but {in_tokens:.3} in tokens: examples differ \
                     in length; set data.mix_unit = \"tokens\" to count tokens"
                ),
            });
        }
    }
}

pub(super) fn source_warnings(recipe: &Recipe, facts: &SourceFacts, warnings: &mut Vec<Warning>) {
    let mut warn = |wrong: bool, kind, text: String| {
        if wrong {
            warnings.push(Warning { kind, text: format!("{}: {text}", facts.source) });
        }
    };
    let max = recipe.data.max_seq_len;
    warn(
        facts.doubled_bos > 0,
        WarningKind::DoubledBos,
        format!("{} begin with the beginning-of-sequence token twice", examples(facts.doubled_bos)),
    );
    warn(
        facts.without_front > 0,
        WarningKind::NoFront,
        format!(
            "{} lack the special token that the tokenizer adds before a text (the chat template leaves it out)",
            examples(facts.without_front)
        ),
    );
    warn(
        facts.completions_without_end > 0,
        WarningKind::EndNotTrained,
        format!(
            "{} of {} completions do not train a token that ends a generation",
            facts.completions_without_end, facts.kinds.prompt_completion
        ),
    );
    warn(
        facts.truncated > 0,
        WarningKind::Truncated,
        format!(
            "{} of {} documents are cut off at {max} tokens",
            facts.truncated,
            facts.rows - facts.held_out
        ),
    );
    warn(
        facts.empty > 0,
        WarningKind::LeftOut,
        format!(
            "{} left out: no token within {max} tokens counts in the loss",
            count(facts.empty, "piece is", "pieces are")
        ),
    );
    if let (Some(tokens @ 1..), Some(loss_tokens)) = (facts.tokens, facts.loss_tokens) {
        let masked = 1.0 - loss_tokens as f64 / tokens as f64;
        warn(
            masked > MANY_MASKED,
            WarningKind::MostlyMasked,
            format!("{:.0}% of the tokens do not count in the loss", 100.0 * masked),
        );
    }
    warn(
        facts.loss_weight == 0.0,
        WarningKind::NoWeight,
        "its loss_weight is 0: the model reads it, but it does not contribute to the loss".into(),
    );
    warn(
        facts.short_pieces as f64 > MANY_SHORT * facts.examples as f64,
        WarningKind::ShortPieces,
        format!(
            "{} of {} are short ends of longer documents (less than an eighth of {max} tokens), and each counts as an \
             example; set data.long = \"truncate\" to leave them out",
            facts.short_pieces,
            examples(facts.examples),
        ),
    );
    warn(
        facts.examples < recipe.train.batch_size,
        WarningKind::ShortSource,
        format!("{}, fewer than a batch of {}", examples(facts.examples), recipe.train.batch_size),
    );
    let asked = match facts.role {
        Role::Narrow => true,
        Role::Pretraining => recipe.data.mix > 0.0,
        Role::Chat => recipe.data.chat_mix > 0.0,
    };
    warn(asked && facts.exposure.examples == 0, WarningKind::Unused, "nothing is drawn from it".into());
    // What is sampled from the base is as much as the mix needs.
    warn(
        facts.role != Role::Narrow
            && facts.source != "self"
            && facts.exposure.repeats == 0
            && facts.exposure.examples as f64 > NEARLY_ALL * facts.examples as f64,
        WarningKind::NearlyUsedUp,
        format!(
            "{} of {} drawn: a larger mix, or a longer run, needs more text",
            facts.exposure.examples,
            examples(facts.examples),
        ),
    );
    warn(
        facts.exposure.repeats > 0,
        WarningKind::RepeatedExamples,
        format!(
            "{} drawn from {}: {} repeats",
            examples(facts.exposure.examples),
            facts.examples,
            facts.exposure.repeats
        ),
    );
    warn(
        facts.repeated_rows > 0,
        WarningKind::RepeatedDocuments,
        format!("{} the text of an earlier row", count(facts.repeated_rows, "row repeats", "rows repeat")),
    );
    warn(
        facts.held_out_seen > 0,
        WarningKind::HeldOutSeen,
        format!(
            "{} also trained on: held-out losses are too low",
            count(facts.held_out_seen, "held-out row is", "held-out rows are")
        ),
    );
    for (rows, kind, part) in [
        (facts.also_in_pretraining, WarningKind::NarrowInPretraining, "pretraining text"),
        (facts.also_in_chat, WarningKind::NarrowInChat, "mixed-in conversations"),
    ] {
        warn(rows > 0, kind, format!("{} also in the {part}", count(rows, "row is", "rows are")));
    }
}

/// `1 example`, `2 examples`.
fn examples(n: usize) -> String {
    count(n, "example", "examples")
}

fn count(n: usize, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}
