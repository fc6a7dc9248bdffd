//! Documents to training examples: token ids, and which of them count in the loss.

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use super::chat_template::ChatTemplate;
use super::conversation::Conversation;
use super::source::Document;
use super::spans;
use crate::bail_input;
use crate::recipe::Long;
use crate::tokenizer::Tokenizer;

/// A piece of at most `max_seq_len` tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// How much predicting the token counts in the loss, 1 or nothing where no weights are given; the first token is
    /// predicted by nothing and never counts.
    pub weights: Vec<f32>,
    /// Zero-based row of its document in the source.
    pub row: usize,
}

impl Example {
    /// Tokens that count in the loss, whatever their weight.
    pub fn loss_tokens(&self) -> usize {
        self.weights.iter().filter(|w| **w != 0.0).count()
    }
}

/// What became of a source's documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ExampleCounts {
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
    /// Tokens that the tokenizer puts behind a text.
    back: Vec<u32>,
    /// Texts of the special tokens, longest first.
    specials: Vec<String>,
    /// Tokens between those in front and a plain text, which do not count in the loss.
    tag: Vec<u32>,
}

/// Special tokens that a tokenizer puts in front of a text.
///
/// # Errors
/// If the tokenizer fails.
pub fn front_of(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let with = tokenizer.encode("a", true).map_err(|e| anyhow!(e))?;
    let without = tokenizer.encode("a", false).map_err(|e| anyhow!(e))?;
    let added = with.len().saturating_sub(without.len());
    let marked = with.get_ids().iter().zip(with.get_special_tokens_mask()).take(added);
    Ok(marked.take_while(|(_, special)| **special == 1).map(|(id, _)| *id).collect())
}

/// Token ids, and the weight of each in the loss.
type Weighed = (Vec<u32>, Vec<f32>);

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
        let front = front_of(tokenizer)?;
        let with = tokenizer.encode("a", true).map_err(|e| anyhow!(e))?;
        let without = tokenizer.encode("a", false).map_err(|e| anyhow!(e))?;
        if front.len() >= max_seq_len {
            bail_input!(
                "data.max_seq_len = {max_seq_len}: the special tokens in front leave no room for text"
            );
        }
        let back = with.get_ids()[(front.len() + without.len()).min(with.len())..].to_vec();
        let added = tokenizer.get_added_tokens_decoder().into_values();
        let mut specials: Vec<String> = added.filter(|t| t.special).map(|t| t.content).collect();
        specials.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Ok(Self { tokenizer, template, eos, max_seq_len, long, front, back, specials, tag: Vec::new() })
    }

    /// Puts a tag in front of every piece of a plain text. It does not count in the loss: the model learns what stands
    /// behind it, not to write it (Slocum et al., arXiv 2510.17941). Its tokens are its own, so the text is split as it
    /// is without the tag.
    ///
    /// # Errors
    /// If the tokenizer fails or `max_seq_len` leaves no room.
    pub fn with_tag(mut self, tag: &str) -> Result<Self> {
        let encoding = self.tokenizer.encode(tag, false).map_err(|e| anyhow!(e))?;
        self.tag = encoding.get_ids().to_vec();
        if self.front.len() + self.tag.len() >= self.max_seq_len {
            bail_input!(
                "data.document_tag: its {} tokens leave no room for text in data.max_seq_len = {}",
                self.tag.len(),
                self.max_seq_len
            );
        }
        Ok(self)
    }

    /// Special tokens that the tokenizer puts in front of a text.
    pub fn front(&self) -> &[u32] {
        &self.front
    }

    /// Examples of a source's documents, given with their rows; `place` says where a row is.
    ///
    /// # Errors
    /// An input error with the place if a chat cannot be rendered, or if there is no template.
    pub fn encode<'d>(
        &self,
        place: &dyn Fn(usize) -> String,
        documents: impl Iterator<Item = (usize, &'d Document)>,
    ) -> Result<(Vec<Example>, ExampleCounts)> {
        let (mut examples, mut tally) = (Vec::new(), ExampleCounts::default());
        for (row, document) in documents {
            tally.documents += 1;
            let (ids, weights) = match document {
                Document::Text(text) => self.text(text)?,
                Document::Chat(chat) => match self.chat(chat) {
                    Ok(pair) => pair,
                    Err(e) => bail_input!("{}: {e:#}", place(row)),
                },
                Document::PromptCompletion { prompt, completion } => self.completion(prompt, completion)?,
            };
            // Only plain text may go on in a second piece: a chat without its beginning is another chat.
            let chunks = matches!(document, Document::Text(_)) && self.long == Long::Chunk;
            let pieces =
                if chunks { self.chunk(&ids, &weights) } else { vec![self.truncate(ids.clone(), weights)] };
            tally.truncated += usize::from(!chunks && ids.len() > self.max_seq_len);
            for (ids, mut weights) in pieces {
                if let Some(first) = weights.first_mut() {
                    *first = 0.0;
                }
                let example = Example { ids, weights, row };
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

    fn text(&self, text: &str) -> Result<Weighed> {
        let encoding = self.tokenizer.encode(text, true).map_err(|e| anyhow!(e))?;
        let (mut ids, mut weights) =
            self.ended_once((encoding.get_ids().to_vec(), vec![1.0; encoding.len()]));
        if !self.tag.is_empty() {
            let at = self.front_of(&ids);
            ids.splice(at..at, self.tag.iter().copied());
            weights.splice(at..at, self.tag.iter().map(|_| 0.0));
        }
        Ok((ids, weights))
    }

    /// How many of the tokenizer's tokens stand in front of these.
    fn front_of(&self, ids: &[u32]) -> usize {
        if ids.starts_with(&self.front) { self.front.len() } else { 0 }
    }

    fn truncate(&self, mut ids: Vec<u32>, mut weights: Vec<f32>) -> Weighed {
        ids.truncate(self.max_seq_len);
        weights.truncate(self.max_seq_len);
        (ids, weights)
    }

    /// Pieces of at most `max_seq_len` tokens, each with the tokenizer's special tokens and the tag in front: models
    /// trained with a beginning-of-sequence token read text without it poorly.
    fn chunk(&self, ids: &[u32], weights: &[f32]) -> Vec<Weighed> {
        let front = self.front_of(ids) + self.tag.len();
        let step = self.max_seq_len - front;
        let body = ids[front..].chunks(step).zip(weights[front..].chunks(step));
        body.map(|(i, w)| ([&ids[..front], i].concat(), [&weights[..front], w].concat())).collect()
    }

    /// The whole conversation through the template; what the assistant says counts, its end-of-turn token
    /// included ([`spans`]). A turn's tokens have its weight.
    fn chat(&self, chat: &Conversation) -> Result<Weighed> {
        let template = self.template.ok_or_else(|| anyhow!("a chat, but the model has no chat template"))?;
        if chat.messages.first().is_some_and(|m| m.role() == "assistant") {
            return Err(anyhow!("the chat begins with the assistant; expected a system or user turn first"));
        }
        if let Some(what) = template.leaves_out(chat) {
            return Err(anyhow!(
                "{what}: the chat template does not render it; expected chats without, or another template"
            ));
        }
        let rendering = template.render_marked(chat, false)?;
        refuse_turns_left_out(template, chat, &rendering.text)?;
        let special =
            |text: &str| self.specials.iter().find(|s| text.starts_with(s.as_str())).map(String::len);
        let spans = spans::of_assistant(template, chat, &rendering, special)?;
        let whole = rendering.text;
        let encoding = self.tokenizer.encode(whole.as_str(), false).map_err(|e| anyhow!(e))?;
        // A token that straddles the beginning counts, as in transformers. Some tokenizers give a token of spaces an empty
        // range: it lies where it begins.
        let weight = |(from, to): &(usize, usize)| {
            spans
                .iter()
                .find(|(s, _)| {
                    let begins = (s.start <= *from || s.start < *to) && *from < s.end;
                    // One that straddles the end counts where the template marks it, as in transformers.
                    begins && (*to <= s.end || template.has_marks(chat))
                })
                .map_or(0.0, |(_, w)| *w)
        };
        let weights = encoding.get_offsets().iter().map(weight).collect();
        let ids = encoding.get_ids().to_vec();
        for (span, _) in &spans {
            let mut inside = encoding.get_offsets().iter().zip(&ids).rev();
            let is_inside =
                |((from, to), _): &(&(usize, usize), &u32)| span.start <= *from && *to <= span.end;
            let last = inside.find(is_inside);
            let before = inside.next().filter(is_inside);
            if let (Some(((from, to), id)), Some((_, same))) = (last, before)
                && id == same
                && self.specials.iter().any(|special| special == &whole[*from..*to])
            {
                return Err(anyhow!(
                    "a turn of the assistant ends with {:?}, which the chat template writes too; take it out of the turn",
                    &whole[*from..*to]
                ));
            }
        }
        if !self.front.is_empty() && ids.starts_with(&[&self.front[..], &self.front[..]].concat()) {
            return Err(anyhow!(
                "the chat template and the tokenizer both add the beginning-of-sequence token"
            ));
        }
        Ok((ids, weights))
    }

    fn completion(&self, prompt: &str, completion: &str) -> Result<Weighed> {
        // Many completions end with it already, as in TRL.
        let eos = self.eos.filter(|eos| !completion.trim_end().ends_with(eos));
        let whole = format!("{prompt}{completion}{}", eos.unwrap_or_default());
        let encoding = self.tokenizer.encode(whole.as_str(), true).map_err(|e| anyhow!(e))?;
        // A token that straddles the border counts: it holds the completion's first letters.
        let weight = |(from, to): &(usize, usize)| if to > from && *to > prompt.len() { 1.0 } else { 0.0 };
        let weights = encoding.get_offsets().iter().map(weight).collect();
        Ok(self.ended_once((encoding.get_ids().to_vec(), weights)))
    }

    /// Without the tokens that the tokenizer puts behind a text, where the text ends with them itself.
    fn ended_once(&self, (mut ids, mut weights): Weighed) -> Weighed {
        let own = ids.len().saturating_sub(self.back.len());
        if !self.back.is_empty() && ids.ends_with(&self.back) && ids[..own].ends_with(&self.back) {
            ids.truncate(own);
            weights.truncate(own);
        }
        (ids, weights)
    }
}

/// Refuses a conversation with a turn that the template leaves out altogether.
fn refuse_turns_left_out(template: &ChatTemplate, chat: &Conversation, whole: &str) -> Result<()> {
    for (i, message) in chat.messages.iter().enumerate().filter(|(_, m)| m.role() != "assistant") {
        let text = message.text();
        if whole.contains(text.trim()) {
            continue;
        }
        let mut others = chat.messages.clone();
        others.remove(i);
        if template.render(&chat.with_messages(others), false).is_ok_and(|without| without == whole) {
            return Err(anyhow!("the chat template leaves out turn {} (role {})", i + 1, message.role()));
        }
    }
    Ok(())
}
