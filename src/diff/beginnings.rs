//! The first tokens of the unrelated texts, as many texts as there are and are wanted.

use anyhow::{Result, anyhow};

use super::inputs::Inputs;
use super::windows::first_tokens;

/// Beginnings of texts, all of one length.
pub struct Beginnings {
    /// Token ids of each, special tokens first.
    pub ids: Vec<Vec<u32>>,
    /// Special tokens at the start of each: the same in every text.
    pub special: usize,
}

impl Beginnings {
    /// The first `tokens` tokens after the special ones of the first `most` texts that have as many; where `distinct`, no two
    /// alike.
    ///
    /// # Errors
    /// If the tokenizer fails or gives an id that a model lacks.
    pub fn cut(inputs: &Inputs, tokens: usize, most: usize, distinct: bool) -> Result<Self> {
        let probe = inputs.tokenizer.encode("a", true).map_err(|e| anyhow!(e))?;
        let special = probe.get_special_tokens_mask().iter().take_while(|special| **special == 1).count();
        let mut ids: Vec<Vec<u32>> = Vec::new();
        for text in inputs.text {
            if ids.len() == most {
                break;
            }
            let Some(beginning) = first_tokens(text, special + tokens, inputs.tokenizer)? else { continue };
            if !(distinct && ids.contains(&beginning)) {
                inputs.must_have(&beginning)?;
                ids.push(beginning);
            }
        }
        Ok(Self { ids, special })
    }
}
