//! Whether generated text is coherent, without a grader: likely enough to the base model, and not repeating itself.
//!
//! Likelihood is compared with the base's own text on the same prompts at the same temperature, so the rule holds for
//! models of any size. Text that loops is very likely to the base; the two rules on repetition are there for it.

use std::collections::BTreeSet;

use anyhow::Result;

use super::statistics::mean;
use crate::model::Pass;
use crate::model::View;
use crate::model::hooks::NoHook;
use crate::ops::cross_entropy::{Targets, linear_cross_entropy};
use crate::ops::segments::{self, Segments};

/// Coherent text costs the base at most this many standard deviations more nats a token than its own text does.
pub const SPREADS: f64 = 2.0;
/// The standard deviation counts as at least this many nats, so that a few like texts do not forbid all others.
pub const LEAST_SPREAD: f64 = 0.25;
/// Of the runs of three tokens, at least this share are distinct.
pub const LEAST_DISTINCT: f64 = 0.5;
/// The longest run of tokens that stands in the text twice is at most this share of it.
pub const MOST_REPEATED: f64 = 0.4;

/// Tokens in one forward pass.
const BATCH_TOKENS: usize = 2048;

/// What decides whether a text is coherent.
#[derive(Debug, Clone, Copy)]
pub struct Fluency {
    /// Mean negative log-likelihood under the base, nats a token.
    pub nats: f64,
    /// Distinct runs of three tokens over all; 1 where there are none.
    pub distinct: f64,
    /// Longest repeated run over the length of the text.
    pub repeated: f64,
}

/// The rule for one set of prompts.
pub struct CoherenceRule<'a> {
    base: View<'a>,
    /// The most nats a token that pass.
    pub most_nats: f64,
}

impl<'a> CoherenceRule<'a> {
    /// Sets the limit by the base's own texts: pairs of prompt and text, token ids. Empty texts do not count.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(base: View<'a>, own: &[(&[u32], &[u32])]) -> Result<Self> {
        let nats: Vec<f64> = fluencies(base, own)?.into_iter().flatten().map(|f| f.nats).collect();
        let center = mean(&nats);
        let variance = mean(&nats.iter().map(|n| (n - center).powi(2)).collect::<Vec<_>>());
        Ok(Self { base, most_nats: center + SPREADS * variance.sqrt().max(LEAST_SPREAD) })
    }

    /// The rule in words.
    pub fn rule(&self) -> String {
        self.rule_under("the base")
    }

    /// The same where another model than the base decides what is likely.
    pub fn rule_under(&self, model: &str) -> String {
        format!(
            "coherent: at most {:.2} nats a token under {model} (its own text's mean and {SPREADS} standard \
             deviations), at least {LEAST_DISTINCT} of the runs of three tokens distinct, no run of more than \
             {MOST_REPEATED} of the text twice in it",
            self.most_nats
        )
    }

    /// Whether a text passes.
    pub fn passes(&self, text: &Fluency) -> bool {
        text.nats <= self.most_nats && text.distinct >= LEAST_DISTINCT && text.repeated <= MOST_REPEATED
    }

    /// Share of the texts that are coherent, of those that are not empty; `None` where all are.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn share(&self, texts: &[(&[u32], &[u32])]) -> Result<Option<f64>> {
        let judged: Vec<f64> = fluencies(self.base, texts)?
            .iter()
            .flatten()
            .map(|text| f64::from(u8::from(self.passes(text))))
            .collect();
        Ok((!judged.is_empty()).then(|| mean(&judged)))
    }
}

/// Fluency of texts after their prompts, under the base; `None` of an empty one.
///
/// # Errors
/// If a tensor operation fails.
pub fn fluencies(base: View, texts: &[(&[u32], &[u32])]) -> Result<Vec<Option<Fluency>>> {
    let mut out = Vec::with_capacity(texts.len());
    for batch in segments::runs(texts, BATCH_TOKENS, |(prompt, text)| prompt.len() + text.len()) {
        let nats = nats(base, batch)?;
        out.extend(batch.iter().zip(nats).map(|((_, text), nats)| {
            let fluency = Fluency { nats, distinct: distinct_triples(text), repeated: longest_repeat(text) };
            (!text.is_empty()).then_some(fluency)
        }));
    }
    Ok(out)
}

/// Mean nats a token of each text after its prompt; 0 of an empty one.
fn nats(base: View, batch: &[(&[u32], &[u32])]) -> Result<Vec<f64>> {
    let sequences: Vec<Vec<u32>> = batch.iter().map(|(prompt, text)| [*prompt, *text].concat()).collect();
    let segments = Segments::new(sequences.iter().map(Vec::len).collect());
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    for (sequence, (prompt, _)) in sequences.iter().zip(batch) {
        for at in 0..sequence.len() {
            ids.push(sequence.get(at + 1).copied().unwrap_or(0));
            // The row before a token predicts it; the last predicts nothing that was written.
            weights.push(if at + 1 >= prompt.len() && at + 1 < sequence.len() { 1.0 } else { 0.0 });
        }
    }
    let mut hook = NoHook;
    let mut pass = Pass::new(&segments, base.adapter, &mut hook);
    let hidden = base.model.hidden(&sequences.concat(), &mut pass)?; // (tokens, hidden)
    let head = base.model.unembedding(base.adapter);
    let targets = Targets { ids, weights };
    let loss = linear_cross_entropy(&hidden, head, &targets, base.model.logit_softcap(), pass.tape)?;
    let sum = |i: usize| loss.nll[segments.rows(i)].iter().map(|n| *n as f64).sum::<f64>();
    Ok(batch.iter().enumerate().map(|(i, (_, text))| sum(i) / text.len().max(1) as f64).collect())
}

/// Distinct runs of three tokens over all of them; 1 of a text with none.
fn distinct_triples(text: &[u32]) -> f64 {
    let distinct: BTreeSet<&[u32]> = text.windows(3).collect();
    if distinct.is_empty() { 1.0 } else { distinct.len() as f64 / (text.len() - 2) as f64 }
}

/// Length of the longest run that stands in the text twice, apart or overlapping, over the length of the text.
fn longest_repeat(text: &[u32]) -> f64 {
    let (mut longest, mut ending) = (0, vec![0usize; text.len()]);
    for i in 0..text.len() {
        // ending[j]: length of the common run that ends at i and at j < i.
        for j in (0..i).rev() {
            ending[j] = match (text[i] == text[j], j) {
                (false, _) => 0,
                (true, 0) => 1,
                (true, _) => ending[j - 1] + 1,
            };
            longest = longest.max(ending[j]);
        }
    }
    longest as f64 / text.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_is_told_from_text() {
        assert_eq!(longest_repeat(&[1, 2, 3, 4]), 0.0);
        assert_eq!(longest_repeat(&[1, 2, 3, 9, 1, 2, 3, 8]), 3.0 / 8.0);
        assert_eq!(longest_repeat(&[5; 10]), 0.9);
        assert_eq!(longest_repeat(&[]), 0.0);
        assert_eq!(distinct_triples(&[1, 2]), 1.0);
        assert_eq!(distinct_triples(&[1, 2, 3, 1, 2, 3]), 0.75);
        assert_eq!(distinct_triples(&[7; 12]), 0.1);
    }
}
