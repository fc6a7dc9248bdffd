//! The frequent tokens of a finetuning set: what a grader is shown beside the description, and what a token must be
//! more than to count as more than trivial.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use crate::tokenizer::Tokenizer;

/// A token counts as frequent from this many occurrences.
const LEAST: usize = 10;
/// At most this many are kept.
const MOST: usize = 100;

/// Words and pieces that are frequent in any English text.
const COMMON: &str = "the and of to in is that it for on with as was are be by this from at or an have has had not \
but they their his her he she you we our your its which who what when where how will would can could should may also \
more than ing 's 't 're 've 'll 'd 'm";

/// The up to 100 most frequent tokens of texts, as decoded text without the space around it, most frequent first.
///
/// The rule of the authors' toolkit: at least 10 occurrences, no single characters, no punctuation, no stop words and
/// pieces of contractions. It lists tokens as the vocabulary spells them; here they are decoded, as the candidates
/// are, so that the two can be compared.
///
/// # Errors
/// If the tokenizer fails.
pub fn frequent_tokens(texts: &[String], tokenizer: &Tokenizer) -> Result<Vec<String>> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for text in texts {
        let encoding = tokenizer.encode_fast(text.as_str(), false).map_err(|e| anyhow!(e))?;
        encoding.get_ids().iter().for_each(|id| *counts.entry(*id).or_default() += 1);
    }
    let mut of_text: BTreeMap<String, usize> = BTreeMap::new();
    for (id, count) in counts.into_iter().filter(|(_, count)| *count >= LEAST) {
        let text = tokenizer.decode(&[id], false).map_err(|e| anyhow!(e))?;
        let text = plain(&text);
        let is_common = COMMON.split_whitespace().any(|word| word.eq_ignore_ascii_case(text));
        if text.chars().count() > 1 && text.chars().any(char::is_alphanumeric) && !is_common {
            *of_text.entry(text.to_string()).or_default() += count;
        }
    }
    let mut found: Vec<(String, usize)> = of_text.into_iter().collect();
    found.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok(found.into_iter().take(MOST).map(|(text, _)| text).collect())
}

/// A token without the space around it.
pub fn plain(token: &str) -> &str {
    token.trim().trim_start_matches(['▁', 'Ġ']).trim()
}
