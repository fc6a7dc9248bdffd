//! A value of each item for base and tuned model, and what it comes to.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::diff::statistics::{Interval, interval, mean};

/// Means over items. Intervals are 95 % bootstrap intervals over items, absent where there is only one; that of the
/// change resamples pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BehaviourEffect {
    /// Number of items.
    pub items: usize,
    /// Of the base.
    pub base: f64,
    /// Its interval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base_interval: Option<Interval>,
    /// Of the tuned model.
    pub tuned: f64,
    /// Its interval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tuned_interval: Option<Interval>,
    /// Tuned minus base.
    pub change: f64,
    /// Its interval.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub change_interval: Option<Interval>,
}

impl BehaviourEffect {
    /// Of `[base, tuned]` of each item; `None` of nothing.
    pub fn of(values: &[[f64; 2]], resamples: usize, seed: u64) -> Option<Self> {
        Self::over(&[values.len()], resamples, seed, |drawn| means(drawn[0].iter().map(|i| &values[*i])))
    }

    /// Of Σ values / Σ weights, `[base, tuned]` of each item; `None` of nothing.
    pub fn of_ratio(values: &[[f64; 2]], weights: &[[f64; 2]], resamples: usize, seed: u64) -> Option<Self> {
        Self::over(&[values.len()], resamples, seed, |drawn| ratio(&drawn[0], values, weights))
    }

    /// Of a number of models that is made of the items of groups of these sizes, each of which is resampled by itself: `of`
    /// gives `[base, tuned]` of the items that are drawn, by group. `None` where a group is empty; without interval where
    /// one has a single item.
    pub fn over(
        sizes: &[usize],
        resamples: usize,
        seed: u64,
        of: impl Fn(&[Vec<usize>]) -> [f64; 2],
    ) -> Option<Self> {
        if sizes.contains(&0) {
            return None;
        }
        let whole: Vec<Vec<usize>> = sizes.iter().map(|n| (0..*n).collect()).collect();
        let [base, tuned] = of(&whole);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |_| {
            let again = sizes.iter().map(|n| (0..*n).map(|_| rng.random_range(0..*n)).collect());
            of(&again.collect::<Vec<Vec<usize>>>())
        };
        let has_interval = sizes.iter().all(|n| *n > 1);
        let drawn: Vec<[f64; 2]> =
            if has_interval { (0..resamples).map(&mut draw).collect() } else { Vec::new() };
        let over = |of: fn(&[f64; 2]) -> f64| (!drawn.is_empty()).then(|| interval(drawn.iter().map(of)));
        Some(Self {
            items: sizes.iter().sum(),
            base,
            base_interval: over(|d| d[0]),
            tuned,
            tuned_interval: over(|d| d[1]),
            change: tuned - base,
            change_interval: over(|d| d[1] - d[0]),
        })
    }

    /// Whether the interval of the change leaves zero out.
    pub fn is_clear(&self) -> bool {
        self.change_interval.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    }
}

/// Σ values / Σ weights over items that are drawn; 0 where nothing weighs.
pub(super) fn ratio(drawn: &[usize], values: &[[f64; 2]], weights: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|side| {
        let sum = |of: &[[f64; 2]]| drawn.iter().map(|i| of[*i][side]).sum::<f64>();
        let weight = sum(weights);
        if weight == 0.0 { 0.0 } else { sum(values) / weight }
    })
}

fn means<'a>(values: impl IntoIterator<Item = &'a [f64; 2]> + Clone) -> [f64; 2] {
    [0, 1].map(|side| mean(&values.clone().into_iter().map(|v| v[side]).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_change_is_paired_so_its_interval_is_that_of_the_differences() {
        // Items differ by a lot, but each moves by one: no doubt about the change.
        let values: Vec<[f64; 2]> = (0..20).map(|i| [i as f64, i as f64 + 1.0]).collect();
        let effect = BehaviourEffect::of(&values, 200, 0).unwrap();
        assert_eq!((effect.items, effect.base, effect.tuned, effect.change), (20, 9.5, 10.5, 1.0));
        assert_eq!(effect.change_interval, Some([1.0, 1.0]));
        let [low, high] = effect.base_interval.unwrap();
        assert!(low < 8.0 && high > 11.0, "{low} {high}");
        assert!(effect.is_clear());
        assert_eq!(effect, BehaviourEffect::of(&values, 200, 0).unwrap());
        assert_ne!(effect, BehaviourEffect::of(&values, 200, 1).unwrap());
    }

    #[test]
    fn a_ratio_is_that_of_the_sums_and_groups_are_drawn_apart() {
        let values = [[1.0, 2.0], [9.0, 9.0]];
        let weights = [[1.0, 1.0], [3.0, 9.0]];
        let effect = BehaviourEffect::of_ratio(&values, &weights, 100, 0).unwrap();
        assert_eq!((effect.base, effect.tuned), (2.5, 1.1));
        // Each group is of one value, and the groups differ: an interval without width.
        let sizes = [3, 5];
        let of = |drawn: &[Vec<usize>]| {
            assert!(drawn[0].iter().all(|i| *i < 3) && drawn[1].iter().all(|i| *i < 5));
            [0.0, (drawn[0].len() + drawn[1].len()) as f64]
        };
        let effect = BehaviourEffect::over(&sizes, 50, 0, of).unwrap();
        assert_eq!((effect.items, effect.change, effect.change_interval), (8, 8.0, Some([8.0, 8.0])));
        assert_eq!(BehaviourEffect::over(&[3, 0], 50, 0, of), None);
    }

    #[test]
    fn nothing_has_no_effect_and_one_item_no_interval() {
        assert_eq!(BehaviourEffect::of(&[], 10, 0), None);
        let one = BehaviourEffect::of(&[[2.0, 1.5]], 10, 0).unwrap();
        assert_eq!((one.change, one.change_interval, one.is_clear()), (-0.5, None, false));
    }
}
