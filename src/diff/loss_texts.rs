//! The texts on which losses are taken, of each kind: which documents, how they are cut, and what counts in them.
//!
//! Every token of a document is predicted, of a chat what the assistant says ([`crate::data::examples`]). A prediction is
//! numbered by the position that makes it: position t predicts token t + 1.

use std::cell::{OnceCell, RefCell};

use anyhow::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::inputs::Inputs;
use super::once::get_or_try_init;
use super::statistics::spread;
use crate::bail_input;
use crate::corpus::measured::begins_twice;
use crate::data::examples::{Encoder, Example};
use crate::data::source::Document;
use crate::model::batch::Batch;
use crate::ops::segments;
use crate::recipe::Long;

/// Tokens of one forward pass, unless a single text has more: bounds the memory.
pub(super) const BATCH_TOKENS: usize = 2048;

/// Texts on which a loss was taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LossTexts {
    /// Which documents they are from.
    pub source: String,
    /// Documents; intervals resample these.
    pub documents: usize,
    /// Texts, of each document as many as it takes.
    pub texts: usize,
    /// Tokens of a text at most.
    pub max_tokens: usize,
    /// Predicted tokens.
    pub predictions: usize,
}

/// Texts as token ids, what counts in them, and which document each is from.
pub struct LossSet {
    /// What is told about them.
    pub texts: LossTexts,
    /// The texts; their `row` numbers the document from zero.
    pub examples: Vec<Example>,
    /// The base's stream after the block that is read, `(tokens, hidden)` of each group, where it is worth its memory.
    pub(super) base_streams: RefCell<Vec<Tensor>>,
    /// The base's losses, once something asked for them.
    pub(super) base_nll: OnceCell<Nll>,
}

/// The texts that losses may be taken on, each kind encoded when something first asks for it; `None` where there are none
/// that the model can read.
pub struct LossSets {
    /// Rows of `diff.text` up to the last that v is measured on.
    measured: usize,
    narrow: OnceCell<Option<LossSet>>,
    unrelated: OnceCell<Option<LossSet>>,
    chat: OnceCell<Option<LossSet>>,
}

impl LossSets {
    /// None encoded yet. `rows`: those of `diff.text` that v is measured on, ascending.
    pub fn new(rows: &[usize]) -> Self {
        let measured = rows.last().map_or(0, |last| last + 1);
        let (narrow, unrelated, chat) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { measured, narrow, unrelated, chat }
    }

    /// The narrow documents.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if a chat cannot be rendered.
    pub fn narrow(&self, inputs: &Inputs) -> Result<Option<&LossSet>> {
        let documents = inputs.loss_documents;
        let encode = || LossSet::encode(inputs, "data.narrow", documents.narrow_are, documents.narrow.iter());
        Ok(get_or_try_init(&self.narrow, encode)?.as_ref())
    }

    /// Unrelated text: the rows of `diff.text` after those on which v was measured; if there are none, pretraining
    /// documents; if there are none of these either, the rows on which v was measured.
    ///
    /// # Errors
    /// As [`Self::narrow`].
    pub fn unrelated(&self, inputs: &Inputs) -> Result<Option<&LossSet>> {
        let encode = || {
            let text = |rows: &[String]| rows.iter().cloned().map(Document::Text).collect::<Vec<_>>();
            let candidates = [
                ("diff.text, rows after those that v was measured on", text(&inputs.text[self.measured..])),
                ("data.pretraining", inputs.loss_documents.pretraining.clone()),
                ("diff.text, the rows that v was measured on", text(&inputs.text[..self.measured])),
            ];
            for (source, documents) in &candidates {
                if let Some(set) = LossSet::encode(inputs, source, source, documents.iter())? {
                    return Ok(Some(set));
                }
            }
            Ok(None)
        };
        Ok(get_or_try_init(&self.unrelated, encode)?.as_ref())
    }

    /// `diff.chat.text`.
    ///
    /// # Errors
    /// As [`Self::narrow`].
    pub fn chat(&self, inputs: &Inputs) -> Result<Option<&LossSet>> {
        let documents = &inputs.loss_documents.chat;
        let encode = || LossSet::encode(inputs, "diff.chat.text", "diff.chat.text", documents.iter());
        Ok(get_or_try_init(&self.chat, encode)?.as_ref())
    }
}

/// Negative log-likelihoods in nats, `[text][position]`; 0 where no prediction counts.
pub type Nll = Vec<Vec<f32>>;

/// Σ nll and predictions of each document.
pub type Sums = Vec<(f64, usize)>;

impl LossSet {
    /// `diff.losses.samples` texts, the first piece of every document that is chosen, then the second, and so on. Chats
    /// are left out where the model has no template for them.
    fn encode<'d>(
        inputs: &Inputs,
        key: &str,
        source: &str,
        documents: impl Iterator<Item = &'d Document>,
    ) -> Result<Option<Self>> {
        let (base, settings) = (inputs.pretrained, &inputs.settings.losses);
        let is_chat = |document: &&Document| matches!(document, Document::Chat(_));
        let documents: Vec<_> = documents.filter(|d| !is_chat(d) || base.chat_template.is_some()).collect();
        let template = documents.iter().any(is_chat).then(|| base.chat()).transpose()?;
        let encoder = Encoder::new(
            &base.tokenizer,
            template.as_ref(),
            base.eos_token.as_deref(),
            settings.max_tokens,
            Long::Chunk,
        )?;
        let mut pieces: Vec<Vec<Example>> = Vec::new();
        let documents: Vec<_> = documents.into_iter().enumerate().collect();
        for &(row, document) in spread(&documents, settings.samples) {
            let place = |row| format!("{key}: row {row}");
            let (examples, _) = encoder.encode(&place, std::iter::once((row, document)))?;
            if let Some(example) = examples.iter().find(|e| begins_twice(&e.ids, encoder.front())) {
                bail_input!(
                    "{key}: row {} begins with the beginning-of-sequence token twice: the text contains it and the \
                     tokenizer adds it; remove it from the text",
                    example.row
                );
            }
            if !examples.is_empty() {
                let document = pieces.len();
                pieces.push(examples.into_iter().map(|e| Example { row: document, ..e }).collect());
            }
        }
        let most = pieces.iter().map(Vec::len).max().unwrap_or(0);
        let in_turn = (0..most).flat_map(|i| pieces.iter().filter_map(move |of_one| of_one.get(i)));
        let examples: Vec<Example> = in_turn.take(settings.samples).cloned().collect();
        let what = format!("diff.losses.max_tokens: texts of {key}");
        inputs.note_longer_than_context(&what, examples.iter().map(|example| example.ids.len()));
        let texts = LossTexts {
            source: source.to_string(),
            documents: pieces.len(),
            texts: examples.len(),
            max_tokens: settings.max_tokens,
            predictions: examples.iter().map(Example::loss_tokens).sum(),
        };
        Ok((!examples.is_empty()).then(|| Self::new(texts, examples)))
    }

    /// The texts in batches.
    pub fn batches(&self) -> Vec<Batch> {
        self.groups().into_iter().map(|group| Batch::new(&group.iter().collect::<Vec<_>>(), 1)).collect()
    }

    /// The texts of each batch.
    pub(super) fn groups(&self) -> Vec<&[Example]> {
        segments::runs(&self.examples, BATCH_TOKENS, |example| example.ids.len())
    }

    /// The first `count` texts alone: of every document its first piece, then of every document its second, and so on.
    pub fn first(&self, count: usize) -> Self {
        let examples: Vec<Example> = self.examples.iter().take(count).cloned().collect();
        let texts = LossTexts {
            documents: self.texts.documents.min(examples.len()),
            texts: examples.len(),
            predictions: examples.iter().map(Example::loss_tokens).sum(),
            ..self.texts.clone()
        };
        Self::new(texts, examples)
    }

    fn new(texts: LossTexts, examples: Vec<Example>) -> Self {
        Self { texts, examples, base_streams: RefCell::default(), base_nll: OnceCell::new() }
    }

    /// Σ nll a document over the predictions that count and whose position is wanted.
    pub fn sums(&self, nll: &Nll, wanted: impl Fn(usize) -> bool) -> Sums {
        let mut sums = vec![(0f64, 0usize); self.texts.documents];
        self.each_counted(nll, wanted, |document, nll| {
            let sum = &mut sums[document];
            *sum = (sum.0 + nll as f64, sum.1 + 1);
        });
        sums
    }

    /// The nll of each of these predictions.
    pub fn counted(&self, nll: &Nll, wanted: impl Fn(usize) -> bool) -> Vec<f32> {
        let mut counted = Vec::new();
        self.each_counted(nll, wanted, |_, nll| counted.push(nll));
        counted
    }

    fn each_counted(&self, nll: &Nll, wanted: impl Fn(usize) -> bool, mut take: impl FnMut(usize, f32)) {
        for (example, nll) in self.examples.iter().zip(nll) {
            for (position, nll) in nll.iter().enumerate() {
                if example.weights.get(position + 1).is_some_and(|w| *w != 0.0) && wanted(position) {
                    take(example.row, *nll);
                }
            }
        }
    }

    /// Σ nll a document over all predictions that count.
    pub fn all(&self, nll: &Nll) -> Sums {
        self.sums(nll, |_| true)
    }
}
