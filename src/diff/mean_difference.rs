//! v_p = mean over texts of h_tuned − h_base at position p, its norm, and directions to compare it with.

use std::collections::BTreeMap;

use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::statistics::{Interval, interval, mean};

/// Means at each position, `[position][hidden]`, accumulated in f64.
#[derive(Debug, Clone)]
pub struct Means {
    /// v_p.
    pub difference: Vec<Vec<f32>>,
    /// Mean activation of the base.
    pub base: Vec<Vec<f32>>,
    /// Mean activation of the tuned model.
    pub tuned: Vec<Vec<f32>>,
}

/// Sums of `samples` values as means, `[place][hidden]`.
pub(super) fn rows_of_means(sum: &[f64], samples: usize, hidden: usize) -> Vec<Vec<f32>> {
    let mean = |x: &f64| (x / samples.max(1) as f64) as f32;
    sum.chunks_exact(hidden).map(|row| row.iter().map(mean).collect()).collect()
}

/// v_p of texts drawn with replacement, summed up while their samples come by. What is drawn are whole texts: samples of
/// one text are no independent draws, and an interval that took them for such would be too narrow (the cluster bootstrap:
/// Davison & Hinkley, Bootstrap Methods and their Application, 1997, §3.8).
pub struct Resamples {
    /// How often each sample was drawn, `[resample][sample]`; n draws of n texts never hit one 65,536 times.
    counts: Vec<Vec<u16>>,
    /// `[resample][place · hidden ..]`.
    sums: Vec<Vec<f64>>,
}

impl Resamples {
    /// Draws `resamples` times as many texts as there are, with replacement. `texts` names the text of each sample,
    /// those of one text one after the other; a sample has `width` values.
    pub fn draw(texts: &[usize], resamples: usize, width: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let lengths: Vec<usize> = texts.chunk_by(|a, b| a == b).map(<[usize]>::len).collect();
        let mut count = || {
            let mut times = vec![0u16; lengths.len()];
            (0..lengths.len()).for_each(|_| times[rng.random_range(0..lengths.len())] += 1);
            times.iter().zip(&lengths).flat_map(|(&times, &length)| vec![times; length]).collect()
        };
        Self { counts: (0..resamples).map(|_| count()).collect(), sums: vec![vec![0.0; width]; resamples] }
    }

    /// Adds the differences of consecutive samples, the first of which is number `first`. Each resample is one task's, which
    /// takes the samples in order.
    pub fn add(&mut self, first: usize, differences: &[Vec<f64>]) {
        self.sums.par_iter_mut().zip(&self.counts).for_each(|(sum, counts)| {
            for (difference, &times) in differences.iter().zip(&counts[first..]) {
                if times > 0 {
                    let times = times as f64;
                    sum.iter_mut().zip(difference).for_each(|(s, d)| *s += times * d);
                }
            }
        });
    }

    /// Means over the samples that were drawn, `[resample][position][hidden]`.
    pub fn means(self, hidden: usize) -> Vec<Vec<Vec<f32>>> {
        let mean = |(sum, counts): (&Vec<f64>, &Vec<u16>)| {
            rows_of_means(sum, counts.iter().map(|times| usize::from(*times)).sum(), hidden)
        };
        self.sums.iter().zip(&self.counts).map(mean).collect()
    }
}

/// A sample and the place of a token in it.
type Place = (usize, usize);

/// Differences of base activations at two random tokens (other than at position 0): directions of the size
/// and kind that occur in the stream, but about nothing in particular.
pub struct RandomDifferences {
    pairs: Vec<(Place, Place)>,
    rows: BTreeMap<Place, Vec<f32>>,
}

impl RandomDifferences {
    /// Decides which tokens of `samples` samples, read at `positions`, are compared.
    pub fn draw(samples: usize, positions: &[usize], count: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let places: Vec<usize> = (0..positions.len()).filter(|&i| positions[i] != 0).collect();
        let places = if places.is_empty() { vec![0] } else { places };
        let mut pair = || {
            let pair = index::sample(&mut rng, samples, 2);
            let mut place = |sample| (sample, places[rng.random_range(0..places.len())]);
            (place(pair.index(0)), place(pair.index(1)))
        };
        let pairs: Vec<(Place, Place)> = (0..count).map(|_| pair()).collect();
        let rows = pairs.iter().flat_map(|&(x, y)| [x, y]).map(|place| (place, Vec::new())).collect();
        Self { pairs, rows }
    }

    /// Keeps what is needed of a sample: `base` is its stream, `[token · hidden ..]`, read at the tokens `read`.
    pub fn note(&mut self, sample: usize, read: &[usize], base: &[f32], hidden: usize) {
        for (&(_, place), row) in self.rows.range_mut((sample, 0)..=(sample, usize::MAX)) {
            *row = base[read[place] * hidden..(read[place] + 1) * hidden].to_vec();
        }
    }

    /// `[direction][hidden]`, once all samples came by.
    pub fn directions(&self) -> Vec<Vec<f32>> {
        let difference = |(x, y): &(Place, Place)| -> Vec<f32> {
            self.rows[x].iter().zip(&self.rows[y]).map(|(x, y)| x - y).collect()
        };
        self.pairs.iter().map(difference).collect()
    }
}

/// L2 norm.
pub fn norm(v: &[f32]) -> f64 {
    v.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt()
}

/// The factor that gives a vector this length; 0 for the zero vector, which has no direction.
pub fn factor_to(length: f64, v: &[f32]) -> f64 {
    match norm(v) {
        0.0 => 0.0,
        norm => length / norm,
    }
}

/// A vector times a factor.
pub fn scaled(v: &[f32], factor: f64) -> Vec<f32> {
    v.iter().map(|x| (*x as f64 * factor) as f32).collect()
}

/// Arithmetic mean of vectors of one length.
pub fn mean_vector<'v>(vectors: impl Iterator<Item = &'v Vec<f32>>) -> Vec<f32> {
    let (mut sum, mut count) = (Vec::new(), 0usize);
    for v in vectors {
        sum.resize(v.len(), 0f64);
        sum.iter_mut().zip(v).for_each(|(sum, x)| *sum += *x as f64);
        count += 1;
    }
    sum.iter().map(|x| (x / count.max(1) as f64) as f32).collect()
}

/// The places of the positions ≥ 1 among some; of all, if there is no other. A beginning-of-sequence token at position 0 is
/// another matter.
pub fn later(positions: &[usize]) -> Vec<usize> {
    let later: Vec<usize> = (0..positions.len()).filter(|&i| positions[i] > 0).collect();
    if later.is_empty() { (0..positions.len()).collect() } else { later }
}

/// 2.5 % and 97.5 % quantiles of the norm of v over resamples. A resampled mean is longer than v by its own noise, by as much
/// as v is longer than the mean that it estimates; the squares are taken back by that, so that the interval is about ‖v‖.
pub fn norm_interval(v: &[f32], resamples: &[&[f32]]) -> Interval {
    let squares: Vec<f64> = resamples.iter().map(|r| norm(r).powi(2)).collect();
    let excess = mean(&squares) - norm(v).powi(2);
    interval(squares.into_iter().map(|s| (s - excess).max(0.0).sqrt()))
}

/// What is left of a vector without its part along another.
pub fn without(v: &[f32], along: &[f32]) -> Vec<f32> {
    let dot: f64 = v.iter().zip(along).map(|(x, y)| *x as f64 * *y as f64).sum();
    let share = match norm(along) {
        0.0 => 0.0,
        norm => dot / (norm * norm),
    };
    v.iter().zip(along).map(|(x, y)| (*x as f64 - share * *y as f64) as f32).collect()
}

/// Cosine of two vectors; 0 if one is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(x, y)| *x as f64 * *y as f64).sum();
    let norms = norm(a) * norm(b);
    if norms > 0.0 { dot / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::statistics::interval;
    use super::*;

    #[test]
    fn an_interval_widens_by_what_the_samples_of_a_text_have_in_common() {
        // 60 texts of 25 samples each; a sample is ±1, the same for all of a text or drawn anew for each.
        const TEXTS: usize = 60;
        const EACH: usize = 25;
        let texts: Vec<usize> = (0..TEXTS * EACH).map(|i| i / EACH).collect();
        let width = |in_common: bool| {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let mut draws: Vec<f64> =
                (0..TEXTS * EACH).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
            if in_common {
                (0..draws.len()).for_each(|i| draws[i] = draws[i / EACH * EACH]);
            }
            let mut resamples = Resamples::draw(&texts, 2000, 1, 0);
            resamples.add(0, &draws.iter().map(|d| vec![*d]).collect::<Vec<_>>());
            let [low, high] = interval(resamples.means(1).iter().map(|r| r[0][0] as f64));
            high - low
        };
        // Twice 1.96 standard errors of the mean of as many draws as are independent: ±1 has a variance of 1.
        let expected = |draws: usize| 2.0 * 1.96 / (draws as f64).sqrt();
        for (in_common, draws) in [(true, TEXTS), (false, TEXTS * EACH)] {
            let (found, expected) = (width(in_common), expected(draws));
            assert!((found / expected - 1.0).abs() < 0.25, "{in_common}: {found} {expected}");
        }
    }

    #[test]
    fn texts_of_unequal_length_have_the_mean_of_their_samples() {
        let mut resamples = Resamples::draw(&[3, 3, 3, 8], 200, 1, 0);
        resamples.add(0, &[vec![1.0], vec![1.0], vec![1.0], vec![5.0]]);
        // One text twice, the other twice, or each once: Σ over as many samples as were drawn.
        let means = resamples.means(1);
        for expected in [1.0, 2.0, 5.0] {
            assert!(means.iter().any(|m| m[0][0] == expected), "{expected}");
        }
        assert!(means.iter().all(|m| [1.0, 2.0, 5.0].contains(&m[0][0])));
    }

    #[test]
    fn an_interval_of_a_norm_is_about_the_norm() {
        // Resampled means of a short vector are all longer than it is.
        let v = [0.1f32, 0.0];
        let resamples: Vec<[f32; 2]> = (-5..=5).map(|i| [0.1, i as f32 / 5.0]).collect();
        let [low, high] = norm_interval(&v, &resamples.iter().map(|r| &r[..]).collect::<Vec<_>>());
        assert!(low <= 0.1 && high > 0.1, "{low} {high}");
        assert_eq!((later(&[0, 1, 3]), later(&[0]), later(&[2])), (vec![1, 2], vec![0], vec![0]));
    }
}
