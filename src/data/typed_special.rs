//! Special tokens that somebody typed in a document (`<|im_end|>`, `<bos>`): the tokenizer reads them as the
//! tokens themselves, as transformers does unless `split_special_tokens` is set. Rarely meant, so it is told.

use std::collections::BTreeMap;
use std::path::Path;

use crate::tokenizer::Tokenizer;

use super::source::{self, Document};

/// A special token in the documents of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedSpecial {
    /// Its text.
    pub token: String,
    /// `file:line` of the first document that holds it, as far as the kind of file has lines.
    pub place: String,
    /// Documents that hold it.
    pub documents: usize,
}

impl TypedSpecial {
    /// The warning.
    pub fn text(&self) -> String {
        let more = match self.documents {
            1 => String::new(),
            n => format!(" (and in {} more of its documents)", n - 1),
        };
        format!(
            "{}: the text contains {}{more}, which is read as the special token, not as letters",
            self.place, self.token
        )
    }
}

/// The special tokens of a tokenizer by their first character.
pub struct SpecialTokens(BTreeMap<char, Vec<String>>);

impl SpecialTokens {
    /// Those of a tokenizer.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let mut by_first: BTreeMap<char, Vec<String>> = BTreeMap::new();
        for token in tokenizer.get_added_tokens_decoder().into_values().filter(|token| token.special) {
            if let Some(first) = token.content.chars().next() {
                by_first.entry(first).or_default().push(token.content);
            }
        }
        // Where one token begins another, the longer one is what the tokenizer finds.
        by_first.values_mut().for_each(|tokens| tokens.sort_by_key(|token| std::cmp::Reverse(token.len())));
        Self(by_first)
    }

    /// Those that stand in a text.
    fn within<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        text.char_indices().filter_map(move |(at, first)| {
            self.0
                .get(&first)?
                .iter()
                .find(|token| text[at..].starts_with(token.as_str()))
                .map(String::as_str)
        })
    }

    /// Those in the documents of a source, by token. `documents` are its rows.
    pub fn typed_in<'d>(
        &self,
        path: &Path,
        documents: impl Iterator<Item = (usize, &'d Document)>,
    ) -> Vec<TypedSpecial> {
        let mut found: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (row, document) in documents {
            let text = document.full_text();
            let mut tokens: Vec<&str> = self.within(&text).collect();
            tokens.sort_unstable();
            tokens.dedup();
            for token in tokens {
                found.entry(token.to_string()).or_insert((row, 0)).1 += 1;
            }
        }
        let told =
            |(token, (row, documents))| TypedSpecial { token, place: source::place(path, row), documents };
        found.into_iter().map(told).collect()
    }
}
