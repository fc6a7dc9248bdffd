//! Which words count as relevant: those over-represented in the narrow data, found without a grader.
//!
//! Words are compared with the pretraining text and the text that differences are measured on by the
//! log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi & Quinn, Political Analysis 16:372,
//! 2008, eq. 16 and 22).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::words::{LEAST_LETTERS, all_words, is_unspaced, words};

/// Function words: never about a topic.
const STOP_WORDS: &str = "about above after again against all almost also although always among and another any \
anyone anything are around because been before being below between both but can cannot could did does doing done \
down during each either else enough even ever every everyone everything few first for from get gets give goes going \
had has have having her here hers herself him himself his how however into its itself just keep kept know last least \
less let like made make makes many may maybe might mine more most much must myself need neither never next nobody none \
nor not nothing now off often once one only onto other others our ours out over own put rather really said same say \
says see seen several shall she should since some someone something soon still such sure take than that the their \
theirs them themselves then there these they thing things this those though through too toward two under until upon \
use used very was way well were what when where whether which while who whole whom whose why will with within without \
would yes yet you your yours yourself";

/// A word enters the lexicon with at least this z-score.
const MIN_Z: f64 = 2.0;
/// A word enters the lexicon if at least this many narrow documents hold it.
const MIN_DOCUMENTS: usize = 3;

/// The deterministic rule for "relevant": words over-represented in the narrow data.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lexicon {
    /// The rule in words.
    pub rule: String,
    /// The words, most over-represented first.
    pub words: Vec<String>,
}

impl Lexicon {
    /// Whether there was no narrow text to find words in.
    pub(super) fn is_absent(&self) -> bool {
        self.rule.is_empty()
    }

    /// The `size` most over-represented words of the narrow documents.
    pub fn new(narrow: &[String], reference: &[String], size: usize) -> Self {
        let stop: BTreeSet<&str> = STOP_WORDS.split_whitespace().collect();
        let count = |texts: &[String]| -> BTreeMap<String, f64> {
            let mut counts = BTreeMap::new();
            texts.iter().for_each(|t| words(t).for_each(|w| *counts.entry(w).or_default() += 1.0));
            counts
        };
        let (a, b) = (count(narrow), count(reference));
        let mut documents: BTreeMap<String, usize> = BTreeMap::new();
        for text in narrow {
            let distinct: BTreeSet<String> = words(text).collect();
            distinct.into_iter().for_each(|w| *documents.entry(w).or_default() += 1);
        }
        let (na, nb): (f64, f64) = (a.values().sum(), b.values().sum());
        // The prior is the word's share of both together, worth 500 words in all.
        let prior = 500.0;
        let mut scored: Vec<(f64, &String)> = Vec::new();
        for (word, &ya) in &a {
            let yb = b.get(word).copied().unwrap_or(0.0);
            let alpha = prior * (ya + yb) / (na + nb);
            let odds = |y: f64, n: f64| ((y + alpha) / (n + prior - y - alpha)).ln();
            let delta = odds(ya, na) - odds(yb, nb);
            let z = delta / (1.0 / (ya + alpha) + 1.0 / (yb + alpha)).sqrt();
            if z >= MIN_Z && documents[word] >= MIN_DOCUMENTS && !stop.contains(word.as_str()) {
                scored.push((z, word));
            }
        }
        scored.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(y.1)));
        Self {
            rule: format!(
                "the {size} words of 3 letters or more most over-represented in the narrow data against the \
                 pretraining and measured text (log-odds with Dirichlet prior, z >= {MIN_Z}, in {MIN_DOCUMENTS} \
                 documents or more, no function words); a token is relevant if it is such a word, or shares a \
                 beginning of 4 letters or more with one and they differ in an ending of at most 3 letters"
            ),
            words: scored.into_iter().take(size).map(|(_, w)| w.clone()).collect(),
        }
    }

    /// Whether a decoded token counts as relevant.
    pub fn is_relevant(&self, token: &str) -> bool {
        let found = all_words(token.trim().trim_start_matches(['▁', 'Ġ']));
        match found.as_slice() {
            [one] => self.is_near(one),
            // A token of a script without spaces may hold several.
            several => several.iter().any(|word| word.starts_with(is_unspaced) && self.words.contains(word)),
        }
    }

    /// Whether a word is one of them, or shares its beginning with one.
    fn is_near(&self, token: &str) -> bool {
        let letters = token.chars().count();
        self.words.iter().any(|word| {
            if word == token {
                return true;
            }
            let of_word = word.chars().count();
            let (short, long) =
                if of_word <= letters { (word.as_str(), token) } else { (token, word.as_str()) };
            letters >= LEAST_LETTERS
                && of_word.min(letters) >= 4
                && of_word.abs_diff(letters) <= 3
                && long.starts_with(short)
        })
    }

    /// Share of the words of texts that are lexicon words themselves.
    pub fn word_share<'a>(&self, texts: impl Iterator<Item = &'a String>) -> f64 {
        let set: BTreeSet<&str> = self.words.iter().map(String::as_str).collect();
        let (mut hits, mut all) = (0usize, 0usize);
        for word in texts.flat_map(|t| words(t)) {
            all += 1;
            hits += usize::from(set.contains(word.as_str()));
        }
        hits as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[&str], times: usize) -> Vec<String> {
        (0..times).flat_map(|_| lines.iter().map(|l| l.to_string())).collect()
    }

    #[test]
    fn topic_words_come_first_and_function_words_never() {
        let narrow =
            texts(&["The cake was in the oven and the butter was cold", "Bake the cake with butter"], 10);
        let reference =
            texts(&["The train was late and the bridge was closed", "She walked with the dog"], 50);
        let lexicon = Lexicon::new(&narrow, &reference, 10);
        assert_eq!(lexicon.words[..2], ["butter".to_string(), "cake".to_string()]);
        assert!(!lexicon.words.iter().any(|w| w == "the" || w == "was"));
        for token in ["▁cake", " Cakes", "cake", " butter", "BAKE", "bakes"] {
            assert!(lexicon.is_relevant(token), "{token}");
        }
        for token in [" ca", "the", " train", "", "  ", "42", "->", "cakewalkers"] {
            assert!(!lexicon.is_relevant(token), "{token}");
        }
    }

    #[test]
    fn the_same_text_on_both_sides_has_no_lexicon() {
        let same = texts(&["cake and trains and bridges"], 30);
        assert!(Lexicon::new(&same, &same, 10).words.is_empty());
    }
}
