//! AUROC of the narrow words among common words of like frequency.
//!
//! Narrow words are rarer than common ones, and every finetuning moves rare words otherwise than frequent ones: without
//! strata organisms score away from 0.5 under the words of corpora that they never saw (`docs/log.md`). So the words are
//! cut at the quintiles of the narrow words' log (count + 1), the AUROC is taken within each part, and the mean over the
//! parts weighs each by its narrow words. Counts are of tokens, not of words: "Cake" at the start of a text is a rarer
//! token than " cake".

use anyhow::{Result, anyhow};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::tokenizer::Tokenizer;

use super::statistics::{Interval, auroc, interval, spread};

/// Into so many parts the narrow words are cut.
pub const PARTS: usize = 5;

/// A part with fewer narrow words, or fewer common ones, is left out.
const FEWEST_NARROW: usize = 3;
const FEWEST_COMMON: usize = 10;

/// Documents that are counted, at most: spread over all.
const COUNTED: usize = 4_000;

/// Draws of a bootstrap interval over words.
pub const DRAWS: usize = 1_000;

/// How often each token of the vocabulary stands in texts, by id; ids of `vocab_size` and above are left out.
///
/// # Errors
/// If the tokenizer fails.
pub fn token_counts(texts: &[&String], tokenizer: &Tokenizer, vocab_size: usize) -> Result<Vec<u32>> {
    let chosen: Vec<&&String> = spread(texts, COUNTED).collect();
    let ids = |text: &&&String| -> Result<Vec<u32>> {
        Ok(tokenizer.encode(text.as_str(), false).map_err(|e| anyhow!(e))?.get_ids().to_vec())
    };
    let mut counts = vec![0u32; vocab_size];
    for ids in chosen.par_iter().map(ids).collect::<Result<Vec<_>>>()? {
        ids.iter().for_each(|id| counts.get_mut(*id as usize).into_iter().for_each(|n| *n += 1));
    }
    Ok(counts)
}

/// The words that are compared with each other, as places in a list of scores.
#[derive(Debug, Clone)]
struct Part {
    narrow: Vec<usize>,
    common: Vec<usize>,
}

/// Narrow and common words, cut by their frequency.
#[derive(Debug, Clone)]
pub struct Strata(Vec<Part>);

impl Strata {
    /// Cuts words by how often they occur. `sides` names the narrow (true) and the common ones (false). `None` where no part
    /// has words enough: then there is no AUROC.
    pub fn new(counts: &[u32], sides: &[Option<bool>]) -> Option<Self> {
        let of_side = |side: bool| (0..sides.len()).filter(move |&i| sides[i] == Some(side));
        let frequency = |i: usize| (counts[i] as f64 + 1.0).ln();
        let mut narrow: Vec<f64> = of_side(true).map(frequency).collect();
        narrow.sort_by(f64::total_cmp);
        let last = narrow.len().checked_sub(1)?;
        // Quantiles between the two nearest ranks, as numpy's.
        let quantile = |part: usize| {
            let place = last as f64 * part as f64 / PARTS as f64;
            let (below, rest) = (place.floor() as usize, place.fract());
            narrow[below] + rest * (narrow[(below + 1).min(last)] - narrow[below])
        };
        let part = |k: usize| {
            let (low, high) = (quantile(k), quantile(k + 1));
            // A word on an edge belongs to the part above it; only the last part has its upper edge.
            let inside = |i: &usize| {
                frequency(*i) >= low && (frequency(*i) < high || k + 1 == PARTS && frequency(*i) <= high)
            };
            let words = |side: bool| of_side(side).filter(inside).collect::<Vec<usize>>();
            Part { narrow: words(true), common: words(false) }
        };
        let enough = |p: &Part| p.narrow.len() >= FEWEST_NARROW && p.common.len() >= FEWEST_COMMON;
        let parts: Vec<Part> = (0..PARTS).map(part).filter(enough).collect();
        (!parts.is_empty()).then_some(Self(parts))
    }

    /// Narrow and common words that take part.
    pub fn words(&self) -> [usize; 2] {
        [self.0.iter().map(|p| p.narrow.len()).sum(), self.0.iter().map(|p| p.common.len()).sum()]
    }

    /// The probability that a narrow word scores higher than a common one of like frequency; ties count half.
    pub fn auroc(&self, scores: &[f32]) -> f64 {
        self.mean(|part| part_auroc(scores, part))
    }

    /// The 95 % interval of that over words: those of each part drawn anew with replacement, [`DRAWS`] times.
    pub fn interval(&self, scores: &[f32], seed: u64) -> Interval {
        let draw = |k: usize| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(k as u64));
            let mut again = |words: &[usize]| -> Vec<usize> {
                words.iter().map(|_| words[rng.random_range(0..words.len())]).collect()
            };
            let drawn =
                self.0.iter().map(|part| Part { narrow: again(&part.narrow), common: again(&part.common) });
            Self(drawn.collect()).auroc(scores)
        };
        interval((0..DRAWS).into_par_iter().map(draw).collect::<Vec<f64>>())
    }

    fn mean(&self, of: impl Fn(&Part) -> f64) -> f64 {
        let weighed: f64 = self.0.iter().map(|part| part.narrow.len() as f64 * of(part)).sum();
        weighed / self.words()[0] as f64
    }
}

fn part_auroc(scores: &[f32], part: &Part) -> f64 {
    let both = part.narrow.iter().chain(&part.common).map(|&i| scores[i]).collect::<Vec<f32>>();
    let sides: Vec<Option<bool>> = (0..both.len()).map(|i| Some(i < part.narrow.len())).collect();
    auroc(&both, &sides)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of which the narrow ones are rarer, with a score that only frequency moves.
    fn confounded(seed: u64) -> (Vec<u32>, Vec<Option<bool>>, Vec<f32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut counts, mut sides, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..4_000 {
            let narrow = i % 20 == 0;
            let log: f64 = rng.random_range(0.0..if narrow { 4.0 } else { 6.0 });
            let count = log.exp() as u32;
            counts.push(count);
            sides.push(Some(narrow));
            scores.push((rng.random_range(-1.0..1.0) - (count as f64 + 1.0).ln()) as f32);
        }
        (counts, sides, scores)
    }

    #[test]
    fn a_score_of_frequency_alone_is_at_half_and_without_strata_it_is_not() {
        let (mut with, mut without, mut outside) = (0.0, 0.0, 0);
        let runs = 40;
        for seed in 0..runs {
            let (counts, sides, scores) = confounded(seed);
            let strata = Strata::new(&counts, &sides).unwrap();
            with += strata.auroc(&scores) / runs as f64;
            without += auroc(&scores, &sides) / runs as f64;
            let [low, high] = strata.interval(&scores, seed);
            outside += usize::from(low > 0.5 || high < 0.5);
        }
        assert!((with - 0.5).abs() < 0.01, "{with}");
        assert!(without > 0.62, "{without}");
        assert!(outside <= 6, "{outside} of {runs} intervals miss 0.5");
    }

    #[test]
    fn words_that_stand_out_among_their_like_are_found() {
        let (counts, sides, mut scores) = confounded(1);
        for (score, side) in scores.iter_mut().zip(&sides) {
            *score += if *side == Some(true) { 3.0 } else { 0.0 };
        }
        let strata = Strata::new(&counts, &sides).unwrap();
        assert!(strata.auroc(&scores) > 0.95);
        let [low, high] = strata.interval(&scores, 0);
        assert!(low <= strata.auroc(&scores) && strata.auroc(&scores) <= high && low > 0.9);
        // Another scale, the same order.
        let doubled: Vec<f32> = scores.iter().map(|s| 2.0 * s + 1.0).collect();
        assert_eq!(strata.auroc(&doubled), strata.auroc(&scores));
    }

    #[test]
    fn a_part_with_too_few_words_is_left_out() {
        // Six narrow words that never occur, and common ones that do: nothing is alike.
        let sides: Vec<Option<bool>> = (0..60).map(|i| (i != 59).then_some(i < 6)).collect();
        let counts =
            |of_common: u32| -> Vec<u32> { (0..60).map(|i| if i < 6 { 0 } else { of_common }).collect() };
        assert!(Strata::new(&counts(5), &sides).is_none());
        let strata = Strata::new(&counts(0), &sides).unwrap();
        assert_eq!(strata.words(), [6, 53]);
        let scores: Vec<f32> = (0..60).map(|i| if i < 3 { 2.0 } else { 1.0 }).collect();
        assert_eq!(strata.auroc(&scores), 0.75);
        assert!(Strata::new(&[], &[]).is_none());
        // Quintiles of ten narrow words, two of each count: two are too few.
        let sides: Vec<Option<bool>> = (0..200).map(|i| Some(i < 10)).collect();
        let counts: Vec<u32> = (0..200).map(|i| if i < 10 { i / 2 } else { i % 5 }).collect();
        assert!(Strata::new(&counts, &sides).is_none());
        let sides: Vec<Option<bool>> = (0..200).map(|i| Some(i < 15)).collect();
        let counts: Vec<u32> = (0..200).map(|i| if i < 15 { i / 3 } else { i % 5 }).collect();
        assert_eq!(Strata::new(&counts, &sides).unwrap().words(), [15, 185]);
    }
}
