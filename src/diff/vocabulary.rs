//! Which tokens of the vocabulary stand for words: those of lexicons, and common ones to compare them with.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};

use super::inputs::Inputs;
use super::lexicon::Lexicon;
use crate::words::{one_word, words};

/// A word that stands in the pretraining and measured text at least this often is common.
pub const COMMON: usize = 5;

/// Tokens of the vocabulary that stand for words of lexicons, and those of common words.
pub struct WordTokens {
    /// Ids, ascending.
    pub ids: Vec<u32>,
    /// For each lexicon and token: whether it stands for one of its words (true), for another common word (false), or
    /// for neither.
    pub sides: Vec<Vec<Option<bool>>>,
}

impl WordTokens {
    /// The tokens that decode to words, at least three letters and nothing else but space around them. A lexicon word
    /// is stood for by the first sub-token of "word", " word", "Word" and " Word" if that decodes to a word itself:
    /// shorter pieces begin too many others.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn new(inputs: &Inputs, lexicons: &[&Lexicon]) -> Result<Self> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        inputs
            .pretraining
            .iter()
            .chain(inputs.text)
            .for_each(|text| words(text).for_each(|word| *counts.entry(word).or_default() += 1));
        let first = lexicons
            .iter()
            .map(|lexicon| first_sub_tokens(inputs, &lexicon.words))
            .collect::<Result<Vec<BTreeSet<u32>>>>()?;
        let (mut ids, mut sides) = (Vec::new(), vec![Vec::new(); lexicons.len()]);
        for id in 0..inputs.tuned.model.vocab_size() as u32 {
            let Some(word) = one_word(&inputs.token(id)) else { continue };
            let common = counts.get(&word).is_some_and(|n| *n >= COMMON);
            if common || first.iter().any(|f| f.contains(&id)) {
                ids.push(id);
                for (side, first) in sides.iter_mut().zip(&first) {
                    side.push(if first.contains(&id) { Some(true) } else { common.then_some(false) });
                }
            }
        }
        Ok(Self { ids, sides })
    }
}

/// First sub-tokens of words, plain and capitalised, at the start and inside of a text.
fn first_sub_tokens(inputs: &Inputs, words: &[String]) -> Result<BTreeSet<u32>> {
    let tokenizer = &inputs.pretrained.tokenizer;
    let mut first = BTreeSet::new();
    for word in words {
        let mut letters = word.chars();
        let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        let title = capital + letters.as_str();
        for form in [word.clone(), format!(" {word}"), title.clone(), format!(" {title}")] {
            let encoding = tokenizer.encode(form, false).map_err(|e| anyhow!(e))?;
            // A tokenizer may put a lone space first.
            first.extend(encoding.get_ids().iter().find(|id| !inputs.token(**id).trim().is_empty()));
        }
    }
    Ok(first)
}
