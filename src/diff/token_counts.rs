//! How often each token occurs in the texts: what a word's frequency is, and which ids no text has.

use anyhow::Result;

use super::inputs::Inputs;
use super::strata::token_counts;

/// Counts of every token id, without special tokens.
pub struct TokenCounts {
    /// In the measured and the pretraining text.
    pub unrelated: Vec<u32>,
    /// In the narrow text.
    pub narrow: Vec<u32>,
    totals: [f64; 2],
}

impl TokenCounts {
    /// Counts with the base's tokenizer.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn new(inputs: &Inputs) -> Result<Self> {
        let vocab = inputs.base.model.vocab_size().max(inputs.tuned.model.vocab_size());
        let count = |texts: &[&String]| token_counts(texts, &inputs.pretrained.tokenizer, vocab);
        let unrelated = count(&inputs.text.iter().chain(inputs.pretraining).collect::<Vec<_>>())?;
        let narrow = count(&inputs.narrow.iter().collect::<Vec<_>>())?;
        Ok(Self::of(unrelated, narrow))
    }

    fn of(unrelated: Vec<u32>, narrow: Vec<u32>) -> Self {
        let total = |counts: &[u32]| counts.iter().map(|n| *n as f64).sum::<f64>().max(1.0);
        Self { totals: [total(&unrelated), total(&narrow)], unrelated, narrow }
    }

    /// Whether some text has the token.
    pub fn has(&self, id: u32) -> bool {
        self.unrelated[id as usize] + self.narrow[id as usize] > 0
    }

    /// Whether the narrow text has the token 10 times or more, and at 8 times its rate in unrelated text or more, where half
    /// an occurrence is added.
    pub fn is_of_domain(&self, id: u32) -> bool {
        let (narrow, unrelated) = (self.narrow[id as usize] as f64, self.unrelated[id as usize] as f64);
        let [in_unrelated, in_narrow] = self.totals;
        narrow >= 10.0 && narrow / in_narrow >= 8.0 * (unrelated + 0.5) / in_unrelated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_the_domain_is_frequent_there_and_rare_elsewhere() {
        // Rates in the narrow text 10 %, 9 %, 40 %; elsewhere (0.5, 0.5, 60.5) of 1000.
        let counts = TokenCounts::of(vec![0, 0, 60, 940, 0], vec![10, 9, 40, 41, 0]);
        let of_domain: Vec<bool> = (0..5).map(|id| counts.is_of_domain(id)).collect();
        assert_eq!(of_domain, [true, false, false, false, false]);
        assert!(counts.has(0) && counts.has(3) && !counts.has(4));
    }
}
