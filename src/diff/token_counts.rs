//! How often each token stands in the texts: what a word's frequency is, and which ids no text has.

use anyhow::{Result, anyhow};

use super::Inputs;

/// Characters of each kind of text that are counted at most, of the first texts.
const MOST_CHARACTERS: usize = 8_000_000;

/// Texts that are encoded together.
const TOGETHER: usize = 256;

/// Counts of every token id of the base's vocabulary.
pub struct TokenCounts {
    /// In the measured and the pretraining text.
    pub unrelated: Vec<u32>,
    /// In the narrow text.
    pub narrow: Vec<u32>,
}

impl TokenCounts {
    /// Counts, with the base's tokenizer and without special tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn new(inputs: &Inputs) -> Result<Self> {
        let unrelated: Vec<&str> =
            inputs.text.iter().chain(inputs.pretraining).map(String::as_str).collect();
        let narrow: Vec<&str> = inputs.narrow.iter().map(String::as_str).collect();
        Ok(Self { unrelated: count(inputs, &unrelated)?, narrow: count(inputs, &narrow)? })
    }

    /// Whether some text has the token.
    pub fn has(&self, id: u32) -> bool {
        self.unrelated[id as usize] + self.narrow[id as usize] > 0
    }

    /// Whether the narrow text has the token 10 times or more, and at 8 times its rate in unrelated text or more (half an
    /// occurrence added there).
    pub fn is_of_domain(&self, id: u32) -> bool {
        let total = |counts: &[u32]| counts.iter().map(|n| *n as f64).sum::<f64>().max(1.0);
        let narrow = self.narrow[id as usize] as f64;
        let reference = (self.unrelated[id as usize] as f64 + 0.5) / total(&self.unrelated);
        narrow >= 10.0 && narrow / total(&self.narrow) >= 8.0 * reference
    }
}

fn count(inputs: &Inputs, texts: &[&str]) -> Result<Vec<u32>> {
    let mut counts = vec![0u32; inputs.base.model.vocab_size()];
    let mut left = MOST_CHARACTERS;
    for texts in texts.chunks(TOGETHER) {
        let encodings =
            inputs.pretrained.tokenizer.encode_batch(texts.to_vec(), false).map_err(|e| anyhow!(e))?;
        for id in encodings.iter().flat_map(|encoding| encoding.get_ids()) {
            if let Some(count) = counts.get_mut(*id as usize) {
                *count += 1;
            }
        }
        left = left.saturating_sub(texts.iter().map(|text| text.len()).sum());
        if left == 0 {
            break;
        }
    }
    Ok(counts)
}
