//! Intervals and p-values.

/// An interval, `[low, high]`; of 95 % where nothing else is said.
pub type Interval = [f64; 2];

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The 2.5 % and 97.5 % quantiles (nearest rank) of values.
pub fn interval(values: impl IntoIterator<Item = f64>) -> Interval {
    central(values, 0.95)
}

/// The quantiles (nearest rank) between which the share `level` of values lies, as much being below as above; zeros of
/// nothing.
pub fn central(values: impl IntoIterator<Item = f64>, level: f64) -> Interval {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let at = |q: f64| sorted[((sorted.len() - 1) as f64 * q).round() as usize];
    let tail = (1.0 - level) / 2.0;
    if sorted.is_empty() { [0.0, 0.0] } else { [at(tail), at(1.0 - tail)] }
}

/// What directions that are about nothing score.
pub struct Null(pub Vec<f64>);

impl Null {
    /// Arithmetic mean; 0 of nothing.
    pub fn mean(&self) -> f64 {
        mean(&self.0)
    }

    /// 2.5 % and 97.5 % quantiles.
    pub fn interval(&self) -> Interval {
        interval(self.0.iter().copied())
    }

    /// p-value of a score: (1 + directions at least as relevant) / (1 + directions).
    pub fn p(&self, value: f64) -> f64 {
        let at_least = self.0.iter().filter(|n| **n >= value).count();
        (1 + at_least) as f64 / (1 + self.0.len()) as f64
    }
}

/// At most `most` of some items, spread evenly over all of them, so that a sorted file does not bias the choice.
pub fn spread<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    let chosen = most.min(all.len());
    (0..chosen).map(move |i| &all[i * all.len() / chosen])
}

/// Area under the ROC curve: the probability that a positive scores higher than a negative, ties counted half
/// (Mann & Whitney's U over the number of pairs). What is neither does not count. 0.5 where one side is empty.
pub fn auroc(scores: &[f32], positive: &[Option<bool>]) -> f64 {
    let side = |wanted: bool| {
        let of_side = scores.iter().zip(positive).filter(move |(_, p)| **p == Some(wanted));
        of_side.map(|(score, _)| *score).collect::<Vec<f32>>()
    };
    let (mut high, low) = (side(true), side(false));
    high.sort_unstable_by(f32::total_cmp);
    if high.is_empty() || low.is_empty() {
        return 0.5;
    }
    // Twice the positives below each negative and those equal to it: whole numbers, so their order is of no matter.
    let lost = |score: &f32| {
        let below = high.partition_point(|h| h < score);
        (below + high.partition_point(|h| h <= score)) as u64
    };
    1.0 - low.iter().map(lost).sum::<u64>() as f64 / (2.0 * high.len() as f64 * low.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_spread_over_all_of_them() {
        let of = |n: usize, most| spread(&(0..n).collect::<Vec<_>>(), most).copied().collect::<Vec<_>>();
        assert_eq!(of(7, 3), [0, 2, 4]);
        assert_eq!(of(31, 16).last(), Some(&29));
        assert_eq!(of(101, 100).len(), 100);
        assert_eq!((of(2, 5), of(0, 5), of(5, 0)), (vec![0, 1], vec![], vec![]));
    }

    #[test]
    fn auroc_counts_pairs_and_halves_ties() {
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(auroc(&[3.0, 1.0, 2.0], &[yes, no, no]), 1.0);
        assert_eq!(auroc(&[0.0, 1.0, 2.0], &[yes, no, no]), 0.0);
        assert_eq!(auroc(&[1.0, 1.0, 0.0], &[yes, no, no]), 0.75);
        assert_eq!(auroc(&[1.0, 9.0, 0.0], &[yes, None, no]), 1.0);
        assert_eq!(auroc(&[0.0; 4], &[yes, no, yes, no]), 0.5);
        assert_eq!(auroc(&[1.0, 2.0], &[no, no]), 0.5);
    }
}
