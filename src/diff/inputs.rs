//! What an analysis is given: two models, texts, and how to read them.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::bail_input;
use crate::data::conversation::Message;
use crate::data::examples::Example;
use crate::data::source::Document;
use crate::interrupt::Interrupt;
use crate::model::View;
use crate::model::load::source::Pretrained;
use crate::progress;
use crate::recipe::DiffSection;
use crate::tokenizer::Tokenizer;

/// The two models and the texts.
pub struct Inputs<'a> {
    /// Base model: its tokenizer and chat template serve both.
    pub pretrained: &'a Pretrained,
    /// What cuts the unrelated text: the base's tokenizer, or the tuned model's own (`diff.tokenizer`).
    pub tokenizer: &'a Tokenizer,
    /// The base, or a reference in its place.
    pub base: View<'a>,
    /// The tuned model.
    pub tuned: View<'a>,
    /// The ids that both models have, where one has more.
    pub shared_ids: Option<SharedIds>,
    /// How `readability.json` names the tuned model.
    pub tuned_name: String,
    /// How it names what the tuned model is compared with in the base's place; empty where that is the base.
    pub reference_name: String,
    /// Sizes and switches.
    pub settings: &'a DiffSection,
    /// Decides null directions, resamples and sampled text.
    pub seed: u64,
    /// Unrelated text, all rows.
    pub text: &'a [String],
    /// What the organism learned from, one a document; may be empty for a model of unknown origin.
    pub narrow: &'a [String],
    /// Conversations of `diff.chat.text`, all rows.
    pub chats: &'a [Vec<Message>],
    /// Pretraining text that the lexicon is compared with, beside `text`.
    pub pretraining: &'a [String],
    /// What losses are taken on, beside `text`.
    pub loss_documents: &'a LossDocuments,
    /// Items of `[behaviour.facts]`, `[item][context]`, each as the false and the true statement; empty where nothing that
    /// is asked for reads them.
    pub facts: Vec<Vec<[Example; 2]>>,
    /// Named corpora among which the trace is to point at the narrow one, each as its documents; may be empty.
    pub candidates: &'a [(String, Vec<String>)],
}

impl Inputs<'_> {
    /// Decoded text of a token.
    pub fn token(&self, id: u32) -> String {
        self.pretrained.tokenizer.decode(&[id], false).unwrap_or_default()
    }

    /// Warns of texts of these lengths in tokens that are longer than the base's context; `what` says what they are.
    pub fn note_longer_than_context(&self, what: &str, lengths: impl Iterator<Item = usize>) {
        if let Some(text) = self.pretrained.longer_than_context(what, lengths) {
            progress::say(format_args!("warning: {text}"));
        }
    }

    /// Refuses tokens that one of the models does not have, as another model's tokenizer may give.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] with the first one.
    pub fn must_have(&self, ids: &[u32]) -> Result<()> {
        let known = self.base.model.vocab_size().min(self.tuned.model.vocab_size());
        match ids.iter().find(|id| **id as usize >= known) {
            None => Ok(()),
            Some(id) => bail_input!(
                "diff.tokenizer: the tokenizer that splits the text gives the token {:?} the id {id}, but the models \
                 have {known} tokens; expected a tokenizer that fits both models, with ids below {known}",
                self.tokenizer.id_to_token(*id).unwrap_or_default()
            ),
        }
    }
}

/// How much of two vocabularies is compared where one is longer: the ids that both have, from 0 on. Everything that runs
/// over the vocabulary (losses, decoded tokens, generated text) is taken over these alone, in both models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedIds {
    /// Ids that are compared.
    pub compared: usize,
    /// Ids of the base.
    pub base: usize,
    /// Ids of the tuned model.
    pub tuned: usize,
}

/// Documents on which losses may be taken, beside `diff.text`.
pub struct LossDocuments {
    /// Narrow documents: those held out of training where that is known, else all.
    pub narrow: Vec<Document>,
    /// Which of the narrow documents these are.
    pub narrow_are: &'static str,
    /// Pretraining documents: those held out of training where that is known, else all.
    pub pretraining: Vec<Document>,
    /// `diff.chat.text`.
    pub chat: Vec<Document>,
}

/// Ends the analysis if the user wants that.
///
/// # Errors
/// [`crate::error::Interrupted`].
pub fn check_interrupt(interrupt: &Interrupt) -> Result<()> {
    interrupt.check("no analysis was written")
}
