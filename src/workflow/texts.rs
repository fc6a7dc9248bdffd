//! The texts of an analysis, as a recipe names them.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::corpus::{documents, is_held_out};
use crate::data::conversation::Message;
use crate::data::duplicates::{self, Rows};
use crate::data::source::Document;
use crate::diff::Inputs;
use crate::diff::inputs::LossDocuments;
use crate::diff::measures::chat::conversations;
use crate::model::View;
use crate::model::load::source::Pretrained;
use crate::recipe::{DataSection, DiffSection, LocatedSource, ResolvedRecipe};
use crate::sha256::sha256_path;

/// A document with the places of its source and of its row.
type Row = (usize, usize, Document);

/// Everything that an analysis reads but the models.
pub struct AnalysisTexts {
    text: Vec<String>,
    narrow: Vec<String>,
    /// Conversations of `diff.chat.text`.
    pub chats: Vec<Vec<Message>>,
    pretraining: Vec<String>,
    loss_documents: LossDocuments,
    candidates: Vec<(String, Vec<String>)>,
}

impl AnalysisTexts {
    /// Reads what the recipe names. `trained_on` tells what was held out of training, where that is known.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for a source that cannot be read.
    pub fn read(recipe: &ResolvedRecipe, trained_on: Option<&DataSection>) -> Result<Self> {
        let sources = recipe.located();
        // For a model of unknown origin there may be no narrow text.
        let narrow = documents(&sources.narrow)?;
        let pretraining = documents(&pretraining_files(recipe))?;
        let chat = &sources.diff_chat;
        let chat_documents = documents(chat)?;
        let of_chat = |(i, row, document): Row| (chat[i].name(), row, document);
        let of_candidate = |source: &LocatedSource| -> Result<(String, Vec<String>)> {
            Ok((source.stem(), texts(&documents(std::slice::from_ref(source))?, Document::learned_text)))
        };
        Ok(Self {
            text: texts(&documents(&sources.diff_text)?, Document::full_text),
            narrow: texts(&narrow, Document::learned_text),
            chats: conversations(chat_documents.iter().cloned().map(of_chat).collect())?,
            pretraining: texts(&pretraining, Document::learned_text),
            loss_documents: loss_documents(narrow, pretraining, chat_documents, trained_on),
            candidates: sources.candidates.iter().map(of_candidate).collect::<Result<_>>()?,
        })
    }

    /// What a floor is read with: narrow, pretraining and unrelated text.
    pub fn of_floor(&self) -> [&[String]; 3] {
        [&self.narrow, &self.pretraining, &self.text]
    }

    /// sha256 of the files, by path.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn sha256(recipe: &ResolvedRecipe) -> Result<BTreeMap<String, String>> {
        let files = pretraining_files(recipe);
        let all = recipe.located();
        let sources = [&all.diff_text, &all.narrow, &files, &all.diff_chat, &all.candidates];
        let hash = |s: &LocatedSource| Ok((s.file().to_string_lossy().into_owned(), sha256_path(s.file())?));
        sources.into_iter().flatten().map(hash).collect()
    }

    /// An analysis of these texts, which the base's tokenizer cuts.
    pub fn inputs<'a>(
        &'a self,
        pretrained: &'a Pretrained,
        base: View<'a>,
        tuned: View<'a>,
        tuned_name: &str,
        settings: &'a DiffSection,
        seed: u64,
    ) -> Inputs<'a> {
        Inputs {
            pretrained,
            tokenizer: &pretrained.tokenizer,
            shared_ids: None,
            base,
            tuned,
            tuned_name: tuned_name.to_string(),
            reference_name: String::new(),
            settings,
            seed,
            text: &self.text,
            narrow: &self.narrow,
            chats: &self.chats,
            pretraining: &self.pretraining,
            loss_documents: &self.loss_documents,
            facts: Vec::new(),
            candidates: &self.candidates,
        }
    }
}

/// Sampled text is no reference for what is over-represented: the sources but `"self"`.
fn pretraining_files(recipe: &ResolvedRecipe) -> Vec<LocatedSource> {
    recipe.located().pretraining.iter().filter(|s| !s.is_self()).cloned().collect()
}

fn texts(documents: &[Row], of: fn(&Document) -> String) -> Vec<String> {
    documents.iter().map(|(_, _, d)| of(d)).collect()
}

/// Those that were held out of training, where that is known and there are any; else all.
fn loss_documents(
    narrow: Vec<Row>,
    pretraining: Vec<Row>,
    chat: Vec<Row>,
    trained_on: Option<&DataSection>,
) -> LossDocuments {
    let all = |rows: Vec<Row>| -> Vec<Document> { rows.into_iter().map(|(_, _, d)| d).collect() };
    let (narrow_held_out, pretraining_held_out) = match trained_on {
        Some(data) => held_out(&narrow, &pretraining, data),
        None => (Vec::new(), Vec::new()),
    };
    let (narrow, narrow_are) = match narrow_held_out.is_empty() {
        true => (all(narrow), "data.narrow, all documents"),
        false => (narrow_held_out, "data.narrow, documents held out of training"),
    };
    let pretraining = if pretraining_held_out.is_empty() { all(pretraining) } else { pretraining_held_out };
    LossDocuments { narrow, narrow_are, pretraining, chat: all(chat) }
}

/// Documents that training did not see: repeats are gone before some are held out, as in [`crate::corpus::Corpus`].
fn held_out(narrow: &[Row], pretraining: &[Row], data: &DataSection) -> (Vec<Document>, Vec<Document>) {
    let by_source = |rows: &[Row]| -> Vec<Rows> {
        let of_one = |rows: &[Row]| rows.iter().map(|(_, row, d)| (*row, d.clone())).collect();
        rows.chunk_by(|a, b| a.0 == b.0).map(of_one).collect()
    };
    let (mut narrow, mut pretraining) = (by_source(narrow), by_source(pretraining));
    duplicates::remove(data, &mut narrow, &mut pretraining);
    let held_out = |sources: Vec<Rows>| -> Vec<Document> {
        sources.into_iter().flatten().filter(|(row, _)| is_held_out(*row, data)).map(|(_, d)| d).collect()
    };
    (held_out(narrow), held_out(pretraining))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Duplicates;

    #[test]
    fn a_repeat_of_what_was_trained_on_is_not_held_out() {
        let rows: Vec<Row> = ["a", "b", "c", "a"]
            .into_iter()
            .enumerate()
            .map(|(row, text)| (0, row, Document::Text(text.into())))
            .collect();
        let texts = |duplicates| {
            let data = DataSection { held_out_every: 2, duplicates, ..Default::default() };
            let (narrow, _) = held_out(&rows, &[], &data);
            narrow.iter().map(Document::full_text).collect::<Vec<_>>()
        };
        assert_eq!(texts(Duplicates::Keep), ["b", "a"]);
        assert_eq!(texts(Duplicates::Exact), ["b"]);
    }
}
