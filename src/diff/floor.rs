//! The noise floor of other organisms: what a measure scores on models that were finetuned on something else, read with this
//! organism's lexicon and narrow text. Random directions and random words do not protect against "finetuned on anything".
//!
//! Of n scores with mean x̄ and standard deviation sd, the score of one more organism lies below
//! bound = x̄ + t₍.95, n−1₎·sd·√(1 + 1/n) with probability .95, if scores are normal: a one-sided prediction bound. With n
//! organisms a rank reaches p = 1/(n + 1) at best; below that, p rests on normality.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::statistics::mean;

/// The fewest other organisms that make a floor.
pub const FEWEST: usize = 4;

/// Level of the prediction bound.
const LEVEL: f64 = 0.95;

/// A score beside those of other organisms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// The other organisms.
    pub names: Vec<String>,
    /// Their scores.
    pub values: Vec<f64>,
    /// x̄.
    pub mean: f64,
    /// Standard deviation of the values, at least the resolution of the score.
    pub sd: f64,
    /// One-sided 95 % prediction bound of a further value.
    pub bound: f64,
    /// The score less x̄.
    pub excess: f64,
    /// excess / (sd·√(1 + 1/n)).
    pub z: f64,
    /// One-sided tail of z under Student's t with n − 1 degrees of freedom.
    pub p: f64,
    /// Rank of the score among all n + 1, 1 the highest; ties count against it.
    pub rank: usize,
}

impl Floor {
    /// Of the scores of other organisms, by name; `None` of fewer than [`FEWEST`]. The standard deviation is taken to be at
    /// least `resolution`: a floor of equal scores would make any excess infinite.
    pub fn new(others: Vec<(String, f64)>, score: f64, resolution: f64) -> Option<Self> {
        let (names, values): (Vec<String>, Vec<f64>) = others.into_iter().unzip();
        let n = values.len();
        if n < FEWEST {
            return None;
        }
        let center = mean(&values);
        let variance = values.iter().map(|v| (v - center).powi(2)).sum::<f64>() / (n - 1) as f64;
        let sd = variance.sqrt().max(resolution);
        let width = sd * (1.0 + 1.0 / n as f64).sqrt();
        let excess = score - center;
        let z = excess / width;
        let t = StudentsT::new(0.0, 1.0, (n - 1) as f64).expect("n is at least 4");
        Some(Self {
            mean: center,
            sd,
            bound: center + t.inverse_cdf(LEVEL) * width,
            excess,
            z,
            p: t.sf(z),
            rank: 1 + values.iter().filter(|v| **v >= score).count(),
            names,
            values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn floor(values: &[f64], score: f64) -> Floor {
        let named = values.iter().enumerate().map(|(i, v)| (format!("o{i}"), *v)).collect();
        Floor::new(named, score, 1e-3).unwrap()
    }

    #[test]
    fn the_bound_is_that_of_a_table_of_students_t() {
        // R: x <- c(1, 2, 3, 4, 5); mean(x) + qt(.95, 4) * sd(x) * sqrt(1 + 1/5)
        let found = floor(&[1.0, 2.0, 3.0, 4.0, 5.0], 7.0);
        assert!((found.bound - 6.692511).abs() < 1e-4, "{}", found.bound);
        // 4 / (1.5811388 * 1.0954451) and 1 - pt(that, 4)
        assert!((found.z - 2.309401).abs() < 1e-5, "{}", found.z);
        assert!((found.p - 0.041_004).abs() < 2e-4, "{}", found.p);
        assert_eq!(found.rank, 1);
        assert_eq!(floor(&[1.0, 2.0, 3.0, 4.0, 5.0], 3.0).rank, 4);
        // On the bound, p is .05 by construction.
        assert!((floor(&[1.0, 2.0, 3.0, 4.0, 5.0], found.bound).p - 0.05).abs() < 1e-9);
    }

    #[test]
    fn equal_scores_have_the_resolution_as_their_deviation_and_few_make_no_floor() {
        let named = |n: usize| (0..n).map(|i| (format!("o{i}"), 0.0)).collect();
        let found = Floor::new(named(6), 0.5, 0.05).unwrap();
        assert_eq!((found.sd, found.mean), (0.05, 0.0));
        assert!(found.z.is_finite() && found.p < 0.001);
        assert_eq!(Floor::new(named(3), 0.5, 0.05), None);
    }

    /// Under its null the p-value is uniform: one organism more of the same kind.
    #[test]
    fn another_organism_of_the_same_kind_exceeds_the_bound_in_one_of_twenty() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        for n in [4, 7] {
            let draws = 4_000;
            let above = (0..draws).filter(|_| {
                let values: Vec<f64> = (0..n).map(|_| normal()).collect();
                let found = floor(&values, normal());
                assert_eq!(
                    found.p < 0.05,
                    found.values[0].is_finite() && found.excess + found.mean > found.bound
                );
                found.p < 0.05
            });
            let rate = above.count() as f64 / draws as f64;
            assert!((rate - 0.05).abs() < 0.012, "{n}: {rate}");
        }
    }
}
