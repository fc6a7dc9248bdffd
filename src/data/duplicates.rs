//! Documents that say what another one says: the same text, near duplicates, and narrow text in the pretraining pool.
//!
//! Documents are compared by their runs of `RUN` words (letters and digits in lower case; each ideograph is a word),
//! as sets. Two are near duplicates if the Jaccard index of their sets, |A ∩ B| / |A ∪ B|, is at least a given share.
//! Nothing is sampled: every pair that reaches the share is found, by the prefix filter of Chaudhuri, Ganti and Kaushik
//! (2006, "A Primitive Operator for Similarity Joins in Data Cleaning"), so the result is the same everywhere.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::source::Document;
use crate::recipe::{DataSection, Duplicates};
use crate::words::{is_mark, is_unspaced};

/// Words in a run.
const RUN: usize = 5;

/// A document with fewer words is looked for in longer ones only by being equal: a short run stands in many texts.
const LEAST_WORDS: usize = 13;

/// Documents of a source that are not used, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// With the text of an earlier document of the source.
    pub duplicates: usize,
    /// Near duplicates of an earlier document of the source.
    pub near_duplicates: usize,
    /// Documents of pretraining and chat sources that share their text with a narrow one.
    pub narrow: usize,
    /// Narrow documents beyond `data.limit`.
    pub beyond_limit: usize,
}

impl Removed {
    /// Whether all documents are used.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The documents of a source with their rows.
pub type Rows = Vec<(usize, Document)>;

/// Removes from each source what repeats an earlier document of it, as `data.duplicates` says, and from the sources that
/// are mixed in what shares its text with a narrow document, if `data.decontaminate` says so. The counts are by source,
/// narrow ones first. Rows keep their numbers.
pub fn remove(data: &DataSection, narrow: &mut [Rows], mixed: &mut [Rows]) -> Vec<Removed> {
    // With what the narrow sources hold, duplicates or not.
    let narrow_texts = data.decontaminate.then(|| NarrowTexts::new(narrow.iter().flatten()));
    let mut removed = Vec::new();
    for source in narrow.iter_mut() {
        removed.push(remove_repeats(source, data));
    }
    for source in mixed.iter_mut() {
        let mut counts = remove_repeats(source, data);
        if let Some(narrow) = &narrow_texts {
            let before = source.len();
            source.retain(|(_, document)| !narrow.share_with(&Runs::of(document), data.near_share));
            counts.narrow = before - source.len();
        }
        removed.push(counts);
    }
    removed
}

fn remove_repeats(source: &mut Rows, data: &DataSection) -> Removed {
    let mut removed = Removed::default();
    if data.duplicates == Duplicates::Keep {
        return removed;
    }
    let before = source.len();
    let mut met = HashSet::new();
    source.retain(|(_, document)| met.insert(document.full_text().trim().to_string()));
    removed.duplicates = before - source.len();
    if data.duplicates == Duplicates::Near {
        let runs = source.iter().map(|(_, document)| Runs::of(document)).collect();
        let mut near = near_duplicates(runs, data.near_share).into_iter();
        let before = source.len();
        source.retain(|_| !near.next().unwrap_or(false));
        removed.near_duplicates = before - source.len();
    }
    removed
}

/// A document as its runs of words.
struct Runs {
    /// Hashes of the runs, each once, ascending; of all words where there are fewer than a run.
    hashes: Vec<u64>,
    /// Of all words in order.
    whole: u64,
    /// Number of words.
    words: usize,
}

impl Runs {
    fn of(document: &Document) -> Self {
        let words = words(&document.full_text());
        let hash = |words: &[u64]| words.iter().fold(0, |sum, word| mixed(sum, *word));
        let mut hashes: Vec<u64> = words.windows(RUN.min(words.len().max(1))).map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self { hashes, whole: hash(&words), words: words.len() }
    }
}

/// Hashes of the words of a text.
fn words(text: &str) -> Vec<u64> {
    let (mut words, mut word) = (Vec::new(), None);
    for c in text.chars() {
        // In scripts without spaces every letter is a word.
        let alone = is_unspaced(c);
        let joins = c.is_alphanumeric() || is_mark(c);
        if alone || !joins {
            words.extend(word.take());
        }
        if joins {
            let hash =
                c.to_lowercase().fold(word.unwrap_or(1), |hash, c| mixed(hash, u64::from(u32::from(c))));
            word = Some(hash);
        }
        if alone {
            words.extend(word.take());
        }
    }
    words.extend(word);
    words
}

/// One step of a hash that is the same on every machine (the standard library's promises nothing).
fn mixed(hash: u64, value: u64) -> u64 {
    let mut x = hash.rotate_left(23) ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 27)
}

/// Which documents are near duplicates of an earlier one that is kept.
fn near_duplicates(documents: Vec<Runs>, share: f64) -> Vec<bool> {
    // Runs by rarity: a document's prefix is then what few others have.
    let mut frequency: HashMap<u64, u32> = HashMap::new();
    for hash in documents.iter().flat_map(|d| &d.hashes) {
        *frequency.entry(*hash).or_default() += 1;
    }
    let sets: Vec<Vec<(u32, u64)>> = documents
        .into_iter()
        .map(|document| {
            let mut set: Vec<(u32, u64)> =
                document.hashes.iter().map(|hash| (frequency[hash], *hash)).collect();
            set.sort_unstable();
            set
        })
        .collect();
    // Where |A ∩ B| ≥ share · |A|, one of the first |A| − ⌈share · |A|⌉ + 1 runs of A is one of B's, and the other way
    // round; the least common run stands in both prefixes.
    let prefix = |n: usize| n - ((share * n as f64 - 1e-9).ceil() as usize).min(n) + 1;
    let mut kept_with: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut near = Vec::with_capacity(sets.len());
    for (i, set) in sets.iter().enumerate() {
        let prefix = &set[..prefix(set.len()).min(set.len())];
        let mut met = HashSet::new();
        let is_near = prefix
            .iter()
            .flat_map(|(_, hash)| kept_with.get(hash).into_iter().flatten())
            .any(|&other| met.insert(other) && jaccard(set, &sets[other]) >= share - 1e-9);
        if !is_near {
            prefix.iter().for_each(|(_, hash)| kept_with.entry(*hash).or_default().push(i));
        }
        near.push(is_near);
    }
    near
}

/// |A ∩ B| / |A ∪ B| of two sets in ascending order.
fn jaccard(a: &[(u32, u64)], b: &[(u32, u64)]) -> f64 {
    let (mut i, mut j, mut shared) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, shared) = (i + 1, j + 1, shared + 1),
        }
    }
    shared as f64 / (a.len() + b.len() - shared).max(1) as f64
}

/// The narrow documents, to be found in other text.
struct NarrowTexts {
    /// Of all words of each.
    wholes: HashSet<u64>,
    /// Documents that have a run.
    with: HashMap<u64, Vec<usize>>,
    /// Number of runs of each.
    sizes: Vec<usize>,
}

impl NarrowTexts {
    fn new<'d>(documents: impl Iterator<Item = &'d (usize, Document)>) -> Self {
        let mut texts = Self { wholes: HashSet::new(), with: HashMap::new(), sizes: Vec::new() };
        for (_, document) in documents {
            let runs = Runs::of(document);
            texts.wholes.insert(runs.whole);
            if runs.words < LEAST_WORDS {
                continue;
            }
            for hash in &runs.hashes {
                texts.with.entry(*hash).or_default().push(texts.sizes.len());
            }
            texts.sizes.push(runs.hashes.len());
        }
        texts
    }

    /// Whether a document has the words of a narrow one, or at least that share of the runs of the shorter of the two.
    fn share_with(&self, document: &Runs, share: f64) -> bool {
        if self.wholes.contains(&document.whole) {
            return true;
        }
        if document.words < LEAST_WORDS {
            return false;
        }
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for narrow in document.hashes.iter().filter_map(|hash| self.with.get(hash)).flatten() {
            *shared.entry(*narrow).or_default() += 1;
        }
        shared.into_iter().any(|(narrow, shared)| {
            let shorter = self.sizes[narrow].min(document.hashes.len());
            shared as f64 >= share * shorter as f64 - 1e-9
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn source(texts: &[&str]) -> Rows {
        texts.iter().enumerate().map(|(row, text)| (row, Document::Text(text.to_string()))).collect()
    }

    fn rows(source: &Rows) -> Vec<usize> {
        source.iter().map(|(row, _)| *row).collect()
    }

    const FOX: &str = "the quick brown fox jumps over the lazy dog while nine old cats look on from a wall";

    #[test]
    fn repeats_are_removed_as_the_recipe_says_and_rows_keep_their_numbers() {
        let near = FOX.replace("wall", "roof").to_uppercase();
        let texts = [FOX, " something else entirely ", FOX, &near, "Something else, entirely!"];
        for (duplicates, kept, counts) in [
            (Duplicates::Keep, vec![0, 1, 2, 3, 4], (0, 0)),
            (Duplicates::Exact, vec![0, 1, 3, 4], (1, 0)),
            (Duplicates::Near, vec![0, 1], (1, 2)),
        ] {
            let mut narrow = [source(&texts)];
            let data = DataSection { duplicates, ..Default::default() };
            let removed = remove(&data, &mut narrow, &mut []);
            assert_eq!(rows(&narrow[0]), kept, "{duplicates:?}");
            assert_eq!((removed[0].duplicates, removed[0].near_duplicates), counts, "{duplicates:?}");
        }
    }

    #[test]
    fn narrow_text_is_found_whole_within_and_in_part() {
        let long =
            format!("News of the day. {FOX}. And now the weather, which is fine for the time of the year.");
        let half = FOX.split(' ').take(13).collect::<Vec<_>>().join(" ");
        let mut narrow = [source(&[FOX, "yes it is"])];
        let mut pretraining = [source(&[
            &long,
            "the weather is fine",
            &half,
            "Yes, it is.",
            "well yes it is a fine day that we have here today I say",
        ])];
        let data = DataSection { decontaminate: true, ..Default::default() };
        let removed = remove(&data, &mut narrow, &mut pretraining);
        assert_eq!(rows(&pretraining[0]), [1, 4]);
        assert_eq!(
            (removed[0], removed[1]),
            (Removed::default(), Removed { narrow: 3, ..Default::default() })
        );
    }

    #[test]
    fn the_prefix_filter_finds_what_comparing_all_pairs_finds() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut texts: Vec<Vec<u32>> = Vec::new();
        for i in 0..150 {
            // Every other document is an earlier one with some words changed.
            let mut words = match i % 2 {
                0 => (0..rng.random_range(0..60)).map(|_| rng.random_range(0..9)).collect(),
                _ => texts[rng.random_range(0..texts.len())].clone(),
            };
            for _ in 0..rng.random_range(0..4) {
                if let Some(at) = words.len().checked_sub(1).map(|last| rng.random_range(0..=last)) {
                    words[at] = 10;
                }
            }
            texts.push(words);
        }
        let documents: Vec<Document> = texts
            .iter()
            .map(|words| Document::Text(words.iter().map(|w| format!("w{w} ")).collect()))
            .collect();
        let all = || documents.iter().map(Runs::of).collect::<Vec<_>>();
        for share in [0.5, 0.7, 0.8, 0.95, 1.0] {
            let sets: Vec<HashSet<u64>> = all().into_iter().map(|r| r.hashes.into_iter().collect()).collect();
            let mut kept: Vec<usize> = Vec::new();
            let expected: Vec<bool> = (0..sets.len())
                .map(|i| {
                    let near = kept.iter().any(|&k| {
                        let shared = sets[i].intersection(&sets[k]).count() as f64;
                        !sets[i].is_empty() && shared / sets[i].union(&sets[k]).count() as f64 >= share - 1e-9
                    });
                    if !near {
                        kept.push(i);
                    }
                    near
                })
                .collect();
            assert!(expected.iter().any(|near| *near) && expected.iter().any(|near| !near));
            assert_eq!(near_duplicates(all(), share), expected, "{share}");
        }
    }

    #[test]
    fn words_have_no_case_and_each_ideograph_is_one() {
        assert_eq!(words("The cat's 2 Hüte"), words("the CAT S, 2 hüte!"));
        assert_eq!(words("三毛猫 a").len(), 4);
        assert_ne!(words("a b"), words("ab"));
        assert!(words(" … ").is_empty());
    }
}
