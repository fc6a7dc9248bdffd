//! Conversations in the training examples: whether the model learns to end its turns.

use anyhow::Result;
use serde::Serialize;

use super::counted;
use super::tokens::{Named, Names};
use super::warning::{Warning, WarningKind};
use crate::corpus::Corpus;
use crate::data::examples::Example;
use crate::data::source::Document;
use crate::model::load::source::Pretrained;
use crate::recipe::Recipe;

/// Conversations in the training examples.
#[derive(Debug, Clone, Serialize)]
pub struct ChatFacts {
    /// Their number.
    pub examples: usize,
    /// What the template closes an assistant's turn with.
    pub end_of_turn: Option<Named>,
    /// Whether that token ends a generation.
    pub end_of_turn_ends_generation: bool,
    /// Turns of the assistant in their documents.
    pub assistant_turns: usize,
    /// End-of-turn tokens that count in the loss.
    pub ends_that_count: usize,
    /// Examples in which none counts.
    pub examples_without_end: usize,
}

pub(super) fn chat_facts(
    recipe: &Recipe,
    base: &Pretrained,
    corpus: &Corpus,
    documents: &[Vec<Document>],
    names: &Names,
    warnings: &mut Vec<Warning>,
) -> Result<Option<ChatFacts>> {
    let turns = |pool: usize, row: usize| match documents[pool].get(row) {
        Some(Document::Chat(chat)) => Some(chat.said().count()),
        _ => None,
    };
    let pools = corpus.pools.iter().enumerate();
    let chats: Vec<(usize, &Example, usize)> = pools
        .flat_map(|(i, pool)| pool.examples.iter().filter_map(move |e| Some((i, e, turns(i, e.row)?))))
        .collect();
    if chats.is_empty() {
        return Ok(None);
    }
    let end = base.end_of_turn()?.map(|id| names.named(id));
    let ends = |e: &Example| match &end {
        Some(end) => counted(e).filter(|id| *id == end.id).count(),
        None => 0,
    };
    let without: Vec<_> = chats.iter().filter(|(_, e, _)| ends(e) == 0).collect();
    let facts = ChatFacts {
        examples: chats.len(),
        end_of_turn_ends_generation: end.as_ref().is_some_and(|end| base.eos_token_ids.contains(&end.id)),
        assistant_turns: chats.iter().map(|(_, _, turns)| turns).sum(),
        ends_that_count: chats.iter().map(|(_, e, _)| ends(e)).sum(),
        examples_without_end: without.len(),
        end_of_turn: end,
    };
    let mut warn = |kind, text| warnings.push(Warning { kind, text });
    match &facts.end_of_turn {
        None => warn(
            WarningKind::NoEndOfTurn,
            "the chat template closes the assistant's turn with no special token: the model does not learn to stop"
                .into(),
        ),
        Some(end) if !facts.end_of_turn_ends_generation => warn(
            WarningKind::EndOfTurnGoesOn,
            format!("{} closes the assistant's turn, but does not end this model's generations", end.text),
        ),
        Some(_) => {}
    }
    if let (Some((pool, first, _)), Some(end)) = (without.first(), &facts.end_of_turn) {
        let cut = without.iter().filter(|(_, e, _)| e.ids.len() == recipe.data.max_seq_len).count();
        warn(
            WarningKind::EndNotTrained,
            format!(
                "{} of {} chats do not train {} ({cut} of them fill max_seq_len = {}); the first is row {} of {}",
                without.len(),
                chats.len(),
                end.text,
                recipe.data.max_seq_len,
                first.row,
                corpus.pools[*pool].name
            ),
        );
    }
    Ok(Some(facts))
}
