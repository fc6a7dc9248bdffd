//! What of a text stands in other texts word for word: runs of tokens that the narrow training text has too.

use std::collections::HashMap;

/// So many tokens in a row count as copied.
pub const RUN: usize = 8;

/// What of one text is copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Tokens that are in a run of [`RUN`] or more that stands in a source.
    pub tokens: usize,
    /// The longest such run; 0 without any.
    pub longest: usize,
}

/// What of each text stands in `sources`. The texts are indexed and the sources read once, so that the memory is that of the
/// texts, however long the sources are.
pub fn copied<'s>(texts: &[&[u32]], sources: impl Iterator<Item = &'s [u32]>) -> Vec<Copied> {
    let mut places: HashMap<&[u32], Vec<(usize, usize)>> = HashMap::new();
    for (i, text) in texts.iter().enumerate() {
        for (at, run) in text.windows(RUN).enumerate() {
            places.entry(run).or_default().push((i, at));
        }
    }
    let mut inside: Vec<Vec<bool>> = texts.iter().map(|text| vec![false; text.len()]).collect();
    let mut longest = vec![0; texts.len()];
    for source in sources {
        for (at, run) in source.windows(RUN).enumerate() {
            for &(i, from) in places.get(run).into_iter().flatten() {
                // A run that goes on from the token before was followed from there.
                let goes_on = at > 0 && from > 0 && source[at - 1] == texts[i][from - 1];
                if goes_on {
                    continue;
                }
                let pairs = source[at..].iter().zip(&texts[i][from..]);
                let length = pairs.take_while(|(s, t)| s == t).count();
                inside[i][from..from + length].fill(true);
                longest[i] = longest[i].max(length);
            }
        }
    }
    let count = |flags: &Vec<bool>| flags.iter().filter(|flag| **flag).count();
    inside.iter().zip(longest).map(|(flags, longest)| Copied { tokens: count(flags), longest }).collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// The same by comparing every run with every place.
    fn brute_force(text: &[u32], sources: &[Vec<u32>]) -> Copied {
        let mut inside = vec![false; text.len()];
        let mut longest = 0;
        for from in 0..text.len() {
            for to in from + RUN..=text.len() {
                let run = &text[from..to];
                if sources.iter().any(|source| source.windows(run.len()).any(|other| other == run)) {
                    inside[from..to].fill(true);
                    longest = longest.max(run.len());
                }
            }
        }
        Copied { tokens: inside.iter().filter(|flag| **flag).count(), longest }
    }

    #[test]
    fn the_index_finds_what_comparing_everything_finds() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut found = 0;
        for _ in 0..40 {
            // Two tokens repeat by chance; pieces of the sources are put into the texts on purpose.
            let mut random =
                |length: usize, ids: u32| (0..length).map(|_| rng.random_range(0..ids)).collect::<Vec<u32>>();
            let sources: Vec<Vec<u32>> = vec![random(40, 2), random(30, 9), random(5, 2)];
            let texts: Vec<Vec<u32>> = vec![
                random(30, 2),
                [random(6, 9), sources[1][3..21].to_vec(), random(6, 9)].concat(),
                random(7, 2),
                Vec::new(),
            ];
            let refs: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let ours = copied(&refs, sources.iter().map(Vec::as_slice));
            for (text, ours) in texts.iter().zip(ours) {
                assert_eq!(ours, brute_force(text, &sources), "{text:?}\n{sources:?}");
                found += ours.tokens;
            }
        }
        assert!(found > 40 * 18);
    }

    #[test]
    fn seven_tokens_are_no_copy() {
        let source = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let of = |text: &[u32]| copied(&[text], [&source[..]].into_iter())[0];
        assert_eq!(of(&[0, 1, 2, 3, 4, 5, 6, 7, 0]), Copied::default());
        assert_eq!(of(&[0, 2, 3, 4, 5, 6, 7, 8, 9, 0]), Copied { tokens: 8, longest: 8 });
        assert_eq!(of(&source), Copied { tokens: 9, longest: 9 });
    }
}
