//! Examples token by token, and what a tokenizer and a chat template put around them.

use std::collections::HashSet;

use serde::Serialize;

use crate::data::examples::Example;
use crate::data::mixture::Role;
use crate::model::load::source::Pretrained;
use crate::tokenizer::Tokenizer;

/// A token by its id and text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Id.
    pub id: u32,
    /// Text.
    pub text: String,
}

/// What the tokenizer puts in, and what ends a text.
#[derive(Debug, Clone, Serialize)]
pub struct TokenizerFacts {
    /// Special tokens that it puts in front of a text.
    pub adds: Vec<Named>,
    /// Whether the beginning-of-sequence token is one of them.
    pub adds_bos: bool,
    /// The beginning-of-sequence token.
    pub bos: Option<Named>,
    /// The end-of-sequence token; it closes completions.
    pub eos: Option<Named>,
    /// The tokens that end a generation.
    pub ends_generation: Vec<Named>,
}

impl TokenizerFacts {
    pub(super) fn new(base: &Pretrained, front: &[u32], names: &Names) -> Self {
        let token = |text: &Option<String>| {
            let text = text.as_deref()?;
            Some(Named { id: base.tokenizer.token_to_id(text)?, text: text.to_string() })
        };
        let bos = token(&base.bos_token);
        Self {
            adds: front.iter().map(|&id| names.named(id)).collect(),
            adds_bos: bos.as_ref().is_some_and(|bos| front.contains(&bos.id)),
            bos,
            eos: token(&base.eos_token),
            ends_generation: base.eos_token_ids.iter().map(|&id| names.named(id)).collect(),
        }
    }
}

/// An example, token by token.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleFacts {
    /// The optimizer step that reads it, from 1.
    pub step: usize,
    /// Its source, as the recipe names it.
    pub source: String,
    /// Its part of the mixture.
    pub role: Role,
    /// The `loss_weight` of its source.
    pub loss_weight: f64,
    /// Zero-based row of its document.
    pub row: usize,
    /// Nothing where the source is not sampled yet.
    pub tokens: Vec<TokenFacts>,
}

/// One token of an example.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenFacts {
    /// Id.
    pub id: u32,
    /// Text; a part of a character is spelled as in the vocabulary.
    pub text: String,
    /// Whether predicting it counts in the loss.
    pub counts: bool,
    /// How much it counts: its own weight times the `loss_weight` of its source.
    pub weight: f32,
    /// Whether it is a special token.
    pub special: bool,
}

/// Texts of tokens.
pub(super) struct Names<'a> {
    tokenizer: &'a Tokenizer,
    special: HashSet<u32>,
}

impl<'a> Names<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        Self { tokenizer, special }
    }

    pub(super) fn named(&self, id: u32) -> Named {
        Named { id, text: self.text(id) }
    }

    /// What a token adds to a text. Some decoders drop the space at the beginning of a text, so the token is
    /// decoded after itself.
    fn text(&self, id: u32) -> String {
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, false).unwrap_or_default();
        let one = decode(&[id]);
        let text = match decode(&[id, id]).strip_prefix(&one) {
            Some(second) => second.to_string(),
            None => one,
        };
        match text.contains('\u{fffd}') {
            true => self.tokenizer.id_to_token(id).unwrap_or(text),
            false => text,
        }
    }

    pub(super) fn tokens(&self, example: &Example, loss_weight: f32) -> Vec<TokenFacts> {
        let pairs = example.ids.iter().zip(example.weights.iter().map(|weight| weight * loss_weight));
        pairs
            .map(|(&id, weight)| TokenFacts {
                id,
                text: self.text(id),
                counts: weight != 0.0,
                weight,
                special: self.special.contains(&id),
            })
            .collect()
    }
}
