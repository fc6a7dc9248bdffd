//! v_p = mean over texts of h_tuned − h_base at position p, its norm, and directions to compare it with.

use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::activations::Activations;

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

impl Means {
    /// Means over all samples.
    pub fn of(a: &Activations) -> Self {
        let all: Vec<usize> = (0..a.base.len()).collect();
        Self {
            difference: mean_difference(a, &all),
            base: mean_over(a, &all, |s, j| a.base[s][j] as f64),
            tuned: mean_over(a, &all, |s, j| a.tuned[s][j] as f64),
        }
    }
}

/// v_p over the given samples.
fn mean_difference(a: &Activations, samples: &[usize]) -> Vec<Vec<f32>> {
    mean_over(a, samples, |s, j| a.tuned[s][j] as f64 - a.base[s][j] as f64)
}

fn mean_over(a: &Activations, samples: &[usize], value: impl Fn(usize, usize) -> f64) -> Vec<Vec<f32>> {
    let width = a.positions.len() * a.hidden;
    let mut sum = vec![0f64; width];
    for &s in samples {
        sum.iter_mut().enumerate().for_each(|(j, x)| *x += value(s, j));
    }
    let flat: Vec<f32> = sum.iter().map(|x| (x / samples.len() as f64) as f32).collect();
    flat.chunks_exact(a.hidden).map(<[f32]>::to_vec).collect()
}

/// v_p of samples drawn with replacement, `[resample][position][hidden]`.
pub fn bootstrap(a: &Activations, resamples: usize, seed: u64) -> Vec<Vec<Vec<f32>>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = a.base.len();
    (0..resamples)
        .map(|_| {
            let drawn: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
            mean_difference(a, &drawn)
        })
        .collect()
}

/// Differences of base activations at two random tokens (other than at position 0): directions of the size
/// and kind that occur in the stream, but about nothing in particular.
pub fn random_differences(a: &Activations, count: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let places: Vec<usize> = (0..a.positions.len()).filter(|&i| a.positions[i] != 0).collect();
    let places = if places.is_empty() { vec![0] } else { places };
    (0..count)
        .map(|_| {
            let pair = index::sample(&mut rng, a.base.len(), 2);
            let pick = |sample: usize, rng: &mut ChaCha8Rng| {
                let at = places[rng.random_range(0..places.len())] * a.hidden;
                &a.base[sample][at..at + a.hidden]
            };
            let (x, y) = (pick(pair.index(0), &mut rng), pick(pair.index(1), &mut rng));
            x.iter().zip(y).map(|(x, y)| x - y).collect()
        })
        .collect()
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
