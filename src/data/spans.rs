//! Where a rendered conversation holds what the assistant says, from its header to the token that ends its turn.
//!
//! The places are those of the finished rendering. A template may write an earlier turn otherwise than the last one
//! (Qwen3 leaves earlier thoughts out), or open a thought in the prompt that it does not write in a conversation.

use std::ops::Range;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use super::chat_template::ChatTemplate;
use super::conversation::{Conversation, Message};
use crate::jinja::Rendering;

/// Two words that no template holds, and that begin and end otherwise.
const WORDS: [&str; 2] = ["qzjxv", "wkyfp"];

/// What the assistant says, with its weight.
pub(super) type Span = (Range<usize>, f32);

/// The assistant's turns in a rendering. `special` gives the length of the special token with which a text begins.
///
/// # Errors
/// If the template leaves a turn out or changes it, or no place can be found.
pub(super) fn of_assistant(
    template: &ChatTemplate,
    conversation: &Conversation,
    whole: &Rendering,
    special: impl Fn(&str) -> Option<usize>,
) -> Result<Vec<Span>> {
    if template.has_marks(conversation) {
        return marked(conversation, whole);
    }
    let mut spans: Vec<Span> = Vec::new();
    let turns = conversation.messages.iter().enumerate();
    for (i, message) in turns.filter(|(_, m)| m.role() == "assistant") {
        let found =
            Turn { template, conversation, whole: &whole.text, i, from: spans.last().map_or(0, |s| s.0.end) };
        let span = match found.as_prefix()? {
            Some(span) => span,
            None => found.as_difference(&special)?,
        };
        spans.push((span, message.weight.unwrap_or(1.0)));
    }
    Ok(spans)
}

/// Those that the template marks itself, as transformers' `return_assistant_tokens_mask` has them.
fn marked(conversation: &Conversation, whole: &Rendering) -> Result<Vec<Span>> {
    let weights: Vec<f32> = conversation.said().map(|m| m.weight.unwrap_or(1.0)).collect();
    let same = weights.windows(2).all(|pair| pair[0] == pair[1]);
    if !same && weights.len() != whole.generated.len() {
        bail!(
            "the turns have weights, but the chat template marks {} texts for {} turns of the assistant",
            whole.generated.len(),
            weights.len()
        );
    }
    let weight = |i: usize| weights.get(if same { 0 } else { i }).copied().unwrap_or(1.0);
    Ok(whole.generated.iter().enumerate().map(|(i, span)| (span.clone(), weight(i))).collect())
}

/// A turn of the assistant that is looked for.
struct Turn<'a> {
    template: &'a ChatTemplate,
    conversation: &'a Conversation,
    whole: &'a str,
    i: usize,
    /// Where the assistant's turn before ends.
    from: usize,
}

impl Turn<'_> {
    fn message(&self) -> &Message {
        &self.conversation.messages[self.i]
    }

    /// The place where the conversation up to the turn, and up to before it, are rendered as in the whole.
    fn as_prefix(&self) -> Result<Option<Range<usize>>> {
        let Ok(before) = self.template.render(&self.conversation.first(self.i), true) else {
            return Ok(None);
        };
        if !self.whole.starts_with(&before) {
            return Ok(None);
        }
        let is_last = self.i + 1 == self.conversation.messages.len();
        let rendered;
        let after = if is_last {
            self.whole
        } else {
            let Ok(text) = self.template.render(&self.conversation.first(self.i + 1), false) else {
                return Ok(None);
            };
            rendered = text;
            &rendered
        };
        if !self.whole.starts_with(after) || after.len() < before.len() {
            return Ok(None);
        }
        // The line break that closes a turn belongs to the next one: nobody generates it.
        let span = before.len()..before.len() + after[before.len()..].trim_end().len();
        // Where the turn is not between the two, as where a template writes the prompt's header for every turn.
        Ok(self.is_said_in(&span).then_some(span))
    }

    /// The place where the rendering changes as the turn does.
    fn as_difference(&self, special: &impl Fn(&str) -> Option<usize>) -> Result<Range<usize>> {
        let unfound = || anyhow!("the chat template leaves out the assistant's text in turn {}", self.i + 1);
        let spoken = |word: &str| Some(self.message().saying(word));
        let called = |word: &str| self.calling(word);
        let (vary, [a, b]) = match self.pair(&spoken, self.conversation)? {
            Some(pair) => (&spoken as &dyn Fn(&str) -> Option<Message>, pair),
            None => (&called as _, self.pair(&called, self.conversation)?.ok_or_else(unfound)?),
        };
        let begin =
            common_prefix(&a, &b).min(common_prefix(self.whole, &a)).min(common_prefix(self.whole, &b));
        let tail =
            common_suffix(&a, &b).min(common_suffix(self.whole, &a)).min(common_suffix(self.whole, &b));
        let (begin, end) = (floor(self.whole, begin), ceil(self.whole, self.whole.len() - tail));
        // What closes the turn: the end of the conversation up to it.
        let first = self.conversation.first(self.i + 1);
        let [a, b] = self.pair(vary, &first)?.ok_or_else(unfound)?;
        let closing = a[ceil(&a, a.len() - common_suffix(&a, &b))..].trim_end();
        let behind = &self.whole[end..];
        let end = if behind.starts_with(closing) {
            end + closing.len()
        } else {
            // The last turn is closed otherwise than this one, as in gpt-oss.
            let space = behind.len() - behind.trim_start().len();
            match special(&behind[space..]) {
                Some(length) => end + space + length,
                None => {
                    bail!("the chat template renders turn {} without an end that can be found", self.i + 1)
                }
            }
        };
        let span = self.header_end(begin)..end.max(begin);
        match self.is_said_in(&span) {
            true => Ok(span),
            false => bail!("the chat template changes the assistant's text in turn {}", self.i + 1),
        }
    }

    /// Where the turn's header ends: behind what the template opens the assistant's turn with, as far as it is written
    /// before `begin`.
    fn header_end(&self, begin: usize) -> usize {
        let before = self.conversation.first(self.i);
        let render = |prompt| self.template.render(&before, prompt).unwrap_or_default();
        let (with, without) = (render(true), render(false));
        let header = &with[floor(&with, common_prefix(&with, &without))..];
        let between = &self.whole[self.from.min(begin)..begin];
        if header.is_empty() {
            return begin;
        }
        match between.rfind(header) {
            Some(at) => begin - between.len() + at + header.len(),
            // The prompt opens a thought that the conversation does not have: the header is what both have, and ends here.
            None => begin,
        }
    }

    /// The rendering with either word in the turn; `None` where it does not change.
    fn pair(
        &self,
        vary: &dyn Fn(&str) -> Option<Message>,
        conversation: &Conversation,
    ) -> Result<Option<[String; 2]>> {
        let mut texts = Vec::new();
        for word in WORDS {
            let Some(message) = vary(word) else { return Ok(None) };
            let mut messages = conversation.messages.clone();
            messages[self.i] = message;
            texts.push(self.template.render(&conversation.with_messages(messages), false)?);
        }
        let pair: [String; 2] = texts.try_into().unwrap_or_default();
        Ok((pair[0] != pair[1]).then_some(pair))
    }

    /// The turn with another tool called.
    fn calling(&self, word: &str) -> Option<Message> {
        let mut calls = self.message().get("tool_calls")?.clone();
        for call in calls.as_array_mut()? {
            let call = if call.get("function").is_some() { &mut call["function"] } else { call };
            call.as_object_mut()?.insert("name".into(), Value::from(word));
        }
        Some(self.message().with("tool_calls", calls))
    }

    /// Whether the turn's text stands there. A template may leave out what comes before the answer, a thought.
    fn is_said_in(&self, span: &Range<usize>) -> bool {
        let text = self.message().text();
        let said = &self.whole[span.clone()];
        let last = text.trim().lines().last().unwrap_or_default().trim();
        let answer = last.rsplit('>').next().unwrap_or_default().trim();
        said.contains(text.trim()) || (said.contains(last) || (!answer.is_empty() && said.contains(answer)))
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &str, b: &str) -> usize {
    a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count()
}

/// The border between characters at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The border between characters at or behind a byte.
fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}
