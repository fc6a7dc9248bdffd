//! The corpora that a trace may point at, each with the words by which it is known.
//!
//! A candidate's words are those over-represented in it against the pretraining and measured text and the other
//! candidates. A word of two candidates points at neither and is dropped from both, so that lexicons are disjoint.

use std::collections::BTreeMap;

use super::inputs::Inputs;
use super::lexicon::Lexicon;
use super::statistics::spread;

/// The name of the organism's own narrow text among the candidates.
pub const NARROW: &str = "narrow";

/// At most this many texts of a candidate are embedded.
const EMBEDDED: usize = 25;

/// A corpus that the trace may point at.
pub struct Candidate {
    /// Its name: that of the file, or [`NARROW`].
    pub name: String,
    /// Whether it is what the organism learned from.
    pub is_narrow: bool,
    /// Words of this candidate and of no other.
    pub lexicon: Lexicon,
    /// Some of its documents, spread over all.
    pub texts: Vec<String>,
}

/// The candidates of an analysis with their words; none where `diff.candidates` names none. One with the same
/// documents as the narrow text is that text.
pub fn candidates(inputs: &Inputs, reference: &[String]) -> Vec<Candidate> {
    let others: Vec<&(String, Vec<String>)> =
        inputs.candidates.iter().filter(|(_, texts)| *texts != inputs.narrow).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let own = (!inputs.narrow.is_empty()).then_some((NARROW, inputs.narrow));
    let named: Vec<(&str, &[String])> = own
        .into_iter()
        .chain(others.into_iter().map(|(name, texts)| (name.as_str(), texts.as_slice())))
        .collect();
    let mut found: Vec<Candidate> = (0..named.len())
        .map(|i| {
            let (name, texts) = named[i];
            let rest =
                named.iter().enumerate().filter(|(j, _)| *j != i).flat_map(|(_, (_, texts))| texts.iter());
            let against: Vec<String> = reference.iter().chain(rest).cloned().collect();
            Candidate {
                name: name.to_string(),
                is_narrow: i == 0 && own.is_some(),
                lexicon: Lexicon::new(texts, &against, inputs.settings.lexicon_size),
                texts: spread(texts, EMBEDDED).cloned().collect(),
            }
        })
        .collect();
    let mut holders: BTreeMap<String, usize> = BTreeMap::new();
    for word in found.iter().flat_map(|c| &c.lexicon.words) {
        *holders.entry(word.clone()).or_default() += 1;
    }
    for candidate in &mut found {
        candidate.lexicon.words.retain(|word| holders[word] == 1);
    }
    found
}
