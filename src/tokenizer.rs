//! A tokenizer from a file that anybody may have written: its rules are checked before they are built, and a panic of the
//! library over them is an error.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{EncodeInput, Encoding, Result};

use crate::caught::caught;
use crate::error::InputError;
use crate::input_file;
use crate::limits::{
    LARGEST_TOKENIZER, LARGEST_TOKENIZER_RULES, LONGEST_NORMALIZATION, MOST_TEMPLATE_TOKENS, MOST_TEXT_GROWTH,
};

/// A tokenizer of the library of the same name.
#[derive(Debug, Clone)]
pub struct Tokenizer(tokenizers::Tokenizer);

impl From<tokenizers::Tokenizer> for Tokenizer {
    fn from(tokenizer: tokenizers::Tokenizer) -> Self {
        Self(tokenizer)
    }
}

impl Deref for Tokenizer {
    type Target = tokenizers::Tokenizer;
    fn deref(&self) -> &tokenizers::Tokenizer {
        &self.0
    }
}

impl DerefMut for Tokenizer {
    fn deref_mut(&mut self) -> &mut tokenizers::Tokenizer {
        &mut self.0
    }
}

/// What `work` returns; its failure or panic over a text is one of the file that holds the rules.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, InputError> {
    let done = caught(work).unwrap_or_else(|said| Err(said.into()));
    done.map_err(|e| InputError { faults: vec![format!("the tokenizer's rules cannot be applied: {e}")] })
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If it cannot be read, is no tokenizer, or has rules that would make much out of little text.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = input_file::read_at_most(path, LARGEST_TOKENIZER)?;
        Self::from_bytes(&bytes)
    }

    /// The tokenizer of the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        check(bytes)?;
        caught(|| tokenizers::Tokenizer::from_bytes(bytes)).unwrap_or_else(|said| Err(said.into())).map(Self)
    }

    /// The tokens of a text: the library's `encode`.
    ///
    /// # Errors
    /// An [`InputError`] if the library fails or panics.
    pub fn encode<'s>(
        &self,
        input: impl Into<EncodeInput<'s>>,
        special: bool,
    ) -> std::result::Result<Encoding, InputError> {
        guarded(|| self.0.encode(input, special))
    }

    /// The tokens of a text without their places in it: the library's `encode_fast`.
    ///
    /// # Errors
    /// An [`InputError`] if the library fails or panics.
    pub fn encode_fast<'s>(
        &self,
        input: impl Into<EncodeInput<'s>>,
        special: bool,
    ) -> std::result::Result<Encoding, InputError> {
        guarded(|| self.0.encode_fast(input, special))
    }

    /// The tokens of texts, with the padding that the tokenizer asks for: the library's `encode_batch`.
    ///
    /// # Errors
    /// An [`InputError`] if the library fails or panics.
    pub fn encode_batch(
        &self,
        inputs: Vec<&str>,
        special: bool,
    ) -> std::result::Result<Vec<Encoding>, InputError> {
        let mut encodings = inputs
            .into_par_iter()
            .map(|input| self.encode(input, special))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        if let Some(padding) = self.0.get_padding() {
            guarded(|| tokenizers::pad_encodings(&mut encodings, padding))?;
        }
        Ok(encodings)
    }

    /// The text of tokens: the library's `decode`.
    ///
    /// # Errors
    /// An [`InputError`] if the library fails or panics.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> std::result::Result<String, InputError> {
        guarded(|| self.0.decode(ids, skip_special))
    }
}

/// Refuses rules that are larger than any tokenizer needs, or that make much out of little text.
fn check(bytes: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Rules {
        #[serde(default)]
        normalizer: Value,
        #[serde(default)]
        pre_tokenizer: Value,
        #[serde(default)]
        post_processor: Value,
        #[serde(default)]
        decoder: Value,
    }
    let rules: Rules = serde_json::from_slice(bytes)?;
    let parts = [
        ("normalizer", &rules.normalizer),
        ("pre_tokenizer", &rules.pre_tokenizer),
        ("post_processor", &rules.post_processor),
        ("decoder", &rules.decoder),
    ];
    for (name, part) in parts {
        let size = part.to_string().len();
        if size > LARGEST_TOKENIZER_RULES {
            return Err(format!("{name}: {size} bytes; expected at most {LARGEST_TOKENIZER_RULES}").into());
        }
        let mut found = Growth { factor: 1, tokens: 0, table: 0 };
        found.add(part);
        if found.factor > MOST_TEXT_GROWTH {
            return Err(format!(
                "{name}: replaces a character by more than {MOST_TEXT_GROWTH}; expected rules that do not inflate text"
            )
            .into());
        }
        if found.table > LONGEST_NORMALIZATION {
            return Err(format!(
                "{name}: precompiled_charsmap replaces a character by {}; expected at most {LONGEST_NORMALIZATION}",
                found.table
            )
            .into());
        }
        if found.tokens > MOST_TEMPLATE_TOKENS {
            return Err(format!(
                "{name}: adds {} tokens to each text; expected at most {MOST_TEMPLATE_TOKENS}",
                found.tokens
            )
            .into());
        }
    }
    Ok(())
}

/// What rules make of text.
struct Growth {
    /// Characters for one, at most.
    factor: u64,
    /// Tokens that are added to each text.
    tokens: usize,
    /// The longest replacement in a table of characters.
    table: usize,
}

impl Growth {
    fn add(&mut self, rule: &Value) {
        let text = |key: &str| rule.get(key).and_then(Value::as_str);
        let length = |key: &str| text(key).map_or(0, |t| t.chars().count() as u64);
        match text("type") {
            Some("Replace") => {
                let pattern = match &rule["pattern"]["String"] {
                    Value::String(plain) => plain.chars().count() as u64,
                    _ => 1,
                };
                self.factor = self.factor.saturating_mul(length("content").div_ceil(pattern.max(1)).max(1));
            }
            // In front of a text or of each of its pieces.
            Some("Prepend") => self.factor = self.factor.saturating_mul(length("prepend") + 1),
            Some("Metaspace") => self.factor = self.factor.saturating_mul(length("replacement").max(1)),
            Some("Precompiled") => {
                let table = text("precompiled_charsmap").map(longest_replacement).unwrap_or_default();
                self.table = self.table.max(table);
            }
            Some("TemplateProcessing") => {
                for key in ["single", "pair"] {
                    self.tokens = self.tokens.max(rule[key].as_array().map_or(0, Vec::len));
                }
                let special = rule["special_tokens"].as_object().into_iter().flatten();
                let ids = special.filter_map(|(_, token)| token["ids"].as_array()).map(Vec::len).max();
                self.tokens = self.tokens.saturating_mul(ids.unwrap_or(1).max(1));
            }
            _ => {}
        }
        match rule {
            Value::Array(list) => list.iter().for_each(|one| self.add(one)),
            Value::Object(map) => map.values().for_each(|one| self.add(one)),
            _ => {}
        }
    }
}

/// Bytes of the longest replacement in a table of SentencePiece: base64 of the length of a trie, the trie, and texts that end in
/// a zero each.
fn longest_replacement(charsmap: &str) -> usize {
    let bytes = from_base64(charsmap);
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return 0 };
    let texts = rest.get(u32::from_le_bytes(*length) as usize..).unwrap_or_default();
    texts.split(|b| *b == 0).map(<[u8]>::len).max().unwrap_or(0)
}

/// Decodes base64; stops at the first character that is none.
fn from_base64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(key: &str, rule: Value) -> Result<Tokenizer> {
        let mut tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        });
        tokenizer[key] = rule;
        Tokenizer::from_bytes(tokenizer.to_string().as_bytes())
    }

    #[test]
    fn rules_that_inflate_text_are_refused() {
        let replace =
            |n: usize| json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(n)});
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        for fine in [replace(1), json!({"type": "Sequence", "normalizers": [prepend, replace(1)]})] {
            assert!(with("normalizer", fine).is_ok());
        }
        let doubled = json!({"type": "Sequence", "normalizers": vec![replace(2); 40]});
        for bad in [replace(1000), doubled] {
            let e = with("normalizer", bad).unwrap_err().to_string();
            assert!(e.contains("do not inflate"), "{e}");
        }
        let template = json!({
            "type": "TemplateProcessing", "single": vec![json!({"SpecialToken": {"id": "a", "type_id": 0}}); 1000],
            "pair": [], "special_tokens": {"a": {"id": "a", "ids": [0], "tokens": ["a"]}},
        });
        assert!(with("post_processor", template).unwrap_err().to_string().contains("1000 tokens"));
    }

    #[test]
    fn a_panic_of_the_library_is_an_error() {
        let split =
            json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false});
        let tokenizer = with("pre_tokenizer", split).unwrap();
        let text = "a".repeat(5000) + "b";
        let _ = tokenizer.encode(text.as_str(), false);
        let broken = json!({"type": "Precompiled", "precompiled_charsmap": "AQAAAAAAAAA="});
        let _ = with("normalizer", broken).map(|t| t.encode("abc", false));
    }

    #[test]
    fn the_longest_replacement_of_a_table_is_found() {
        assert_eq!(from_base64("aGVsbG8="), b"hello");
        // A trie of 0 bytes, then "abc\0de\0".
        assert_eq!(longest_replacement("AAAAAGFiYwBkZQA="), 3);
        assert_eq!(longest_replacement("AA"), 0);
    }
}
