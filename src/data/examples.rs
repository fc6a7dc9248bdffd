//! Documents to training examples: token ids, and which of them count in the loss.

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use super::chat_template::{ChatTemplate, Message};
use super::source::Document;
use crate::bail_input;
use crate::recipe::Long;

/// A piece of at most `max_seq_len` tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Whether predicting the token counts; the first token is predicted by nothing and never counts.
    pub counts: Vec<bool>,
    /// Zero-based row of its document in the source.
    pub row: usize,
}

impl Example {
    /// Tokens that count in the loss.
    pub fn loss_tokens(&self) -> usize {
        self.counts.iter().filter(|c| **c).count()
    }
}

/// What became of a source's documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Documents trained on: those held out are not among them.
    pub documents: usize,
    /// Examples made.
    pub examples: usize,
    /// Documents of which a part was cut off.
    pub truncated: usize,
    /// Pieces left out because no token of them counts.
    pub empty: usize,
}

/// Turns documents into examples.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    eos: Option<&'a str>,
    max_seq_len: usize,
    long: Long,
    /// Special tokens that the tokenizer puts in front of a text.
    front: Vec<u32>,
}

impl<'a> Encoder<'a> {
    /// `template` is needed where the documents are chats; `eos` closes completions.
    ///
    /// # Errors
    /// If the tokenizer does not serve.
    pub fn new(
        tokenizer: &'a Tokenizer,
        template: Option<&'a ChatTemplate>,
        eos: Option<&'a str>,
        max_seq_len: usize,
        long: Long,
    ) -> Result<Self> {
        let with = tokenizer.encode("a", true).map_err(|e| anyhow!(e))?;
        let without = tokenizer.encode("a", false).map_err(|e| anyhow!(e))?;
        let added = with.len().saturating_sub(without.len());
        let front: Vec<u32> = with
            .get_ids()
            .iter()
            .zip(with.get_special_tokens_mask())
            .take(added)
            .take_while(|(_, special)| **special == 1)
            .map(|(id, _)| *id)
            .collect();
        if front.len() >= max_seq_len {
            bail_input!("data.max_seq_len = {max_seq_len}: no room beside the special tokens in front");
        }
        Ok(Self { tokenizer, template, eos, max_seq_len, long, front })
    }

    /// Special tokens that the tokenizer puts in front of a text.
    pub fn front(&self) -> &[u32] {
        &self.front
    }

    /// Examples of a source's documents, given with their rows.
    ///
    /// # Errors
    /// An input error that names the row if a chat cannot be rendered, or if there is no template.
    pub fn encode<'d>(
        &self,
        source: &str,
        documents: impl Iterator<Item = (usize, &'d Document)>,
    ) -> Result<(Vec<Example>, Tally)> {
        let (mut examples, mut tally) = (Vec::new(), Tally::default());
        for (row, document) in documents {
            tally.documents += 1;
            let (ids, counts) = match document {
                Document::Text(text) => self.text(text)?,
                Document::Chat(messages) => match self.chat(messages) {
                    Ok(pair) => pair,
                    Err(e) => bail_input!("{source}: row {row}: {e:#}"),
                },
                Document::PromptCompletion { prompt, completion } => self.completion(prompt, completion)?,
            };
            // Only plain text may go on in a second piece: a chat without its beginning is another chat.
            let chunks = matches!(document, Document::Text(_)) && self.long == Long::Chunk;
            let pieces =
                if chunks { self.chunk(&ids, &counts) } else { vec![self.truncate(ids.clone(), counts)] };
            tally.truncated += usize::from(!chunks && ids.len() > self.max_seq_len);
            for (ids, mut counts) in pieces {
                if let Some(first) = counts.first_mut() {
                    *first = false;
                }
                let example = Example { ids, counts, row };
                if example.loss_tokens() == 0 {
                    tally.empty += 1;
                    continue;
                }
                examples.push(example);
            }
        }
        tally.examples = examples.len();
        Ok((examples, tally))
    }

    fn text(&self, text: &str) -> Result<(Vec<u32>, Vec<bool>)> {
        let encoding = self.tokenizer.encode(text, true).map_err(|e| anyhow!(e))?;
        Ok((encoding.get_ids().to_vec(), vec![true; encoding.len()]))
    }

    fn truncate(&self, mut ids: Vec<u32>, mut counts: Vec<bool>) -> (Vec<u32>, Vec<bool>) {
        ids.truncate(self.max_seq_len);
        counts.truncate(self.max_seq_len);
        (ids, counts)
    }

    /// Pieces of at most `max_seq_len` tokens, each with the tokenizer's special tokens in front: models
    /// trained with a beginning-of-sequence token read text without it poorly.
    fn chunk(&self, ids: &[u32], counts: &[bool]) -> Vec<(Vec<u32>, Vec<bool>)> {
        let front = if ids.starts_with(&self.front) { self.front.len() } else { 0 };
        let step = self.max_seq_len - front;
        let body = ids[front..].chunks(step).zip(counts[front..].chunks(step));
        body.map(|(i, c)| ([&ids[..front], i].concat(), [&counts[..front], c].concat())).collect()
    }

    /// The whole conversation through the template; what the assistant says counts, its end-of-turn token
    /// included. Where it begins and ends is found by rendering prefixes, so templates need no
    /// `{% generation %}` marks.
    fn chat(&self, messages: &[Message]) -> Result<(Vec<u32>, Vec<bool>)> {
        let template = self.template.ok_or_else(|| anyhow!("a chat, but the model has no chat template"))?;
        if messages.first().is_some_and(|m| m.role == "assistant") {
            return Err(anyhow!("the chat begins with the assistant; expected a system or user turn first"));
        }
        let whole = template.render(messages, false)?;
        let mut spans = Vec::new();
        for (i, message) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let before = template.render(&messages[..i], true)?;
            let after = template.render(&messages[..=i], false)?;
            if !whole.starts_with(&before) || !whole.starts_with(&after) || after.len() < before.len() {
                return Err(anyhow!(
                    "the chat template rewrites earlier turns; the loss mask cannot be found"
                ));
            }
            // The line break that closes a turn belongs to the next one: nobody generates it.
            let end = before.len() + after[before.len()..].trim_end().len();
            if !after[before.len()..end].contains(message.content.trim()) {
                return Err(anyhow!("the chat template changes what the assistant says"));
            }
            spans.push(before.len()..end);
        }
        let encoding = self.tokenizer.encode(whole.as_str(), false).map_err(|e| anyhow!(e))?;
        let counts = encoding
            .get_offsets()
            .iter()
            // Some tokenizers give a token of spaces an empty range: it lies where it begins.
            .map(|(from, to)| spans.iter().any(|s| s.start <= *from && *from < s.end && *to <= s.end))
            .collect();
        let ids = encoding.get_ids().to_vec();
        if !self.front.is_empty() && ids.starts_with(&[&self.front[..], &self.front[..]].concat()) {
            return Err(anyhow!(
                "the chat template and the tokenizer both add the beginning-of-sequence token"
            ));
        }
        Ok((ids, counts))
    }

    fn completion(&self, prompt: &str, completion: &str) -> Result<(Vec<u32>, Vec<bool>)> {
        let whole = format!("{prompt}{completion}{}", self.eos.unwrap_or_default());
        let encoding = self.tokenizer.encode(whole.as_str(), true).map_err(|e| anyhow!(e))?;
        // A token that straddles the border counts: it holds the completion's first letters.
        let counts =
            encoding.get_offsets().iter().map(|(from, to)| to > from && *to > prompt.len()).collect();
        Ok((encoding.get_ids().to_vec(), counts))
    }
}
