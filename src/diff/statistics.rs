//! Intervals and p-values.

/// A 95 % interval, `[low, high]`.
pub type Interval = [f64; 2];

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The 2.5 % and 97.5 % quantiles (nearest rank) of values.
pub fn interval(values: impl IntoIterator<Item = f64>) -> Interval {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let at = |q: f64| sorted[((sorted.len() - 1) as f64 * q).round() as usize];
    if sorted.is_empty() { [0.0, 0.0] } else { [at(0.025), at(0.975)] }
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

/// Area under the ROC curve: the probability that a positive scores higher than a negative, ties counted half
/// (Mann & Whitney's U over the number of pairs). 0.5 where one side is empty.
pub fn auroc(scores: &[f32], positive: &[bool]) -> f64 {
    let mut high: Vec<f32> = scores.iter().zip(positive).filter(|(_, p)| **p).map(|(s, _)| *s).collect();
    high.sort_unstable_by(f32::total_cmp);
    let low = scores.len() - high.len();
    if high.is_empty() || low == 0 {
        return 0.5;
    }
    // Twice the positives below each negative and those equal to it: whole numbers, so their order is of no matter.
    let mut lost = 0u64;
    for (score, _) in scores.iter().zip(positive).filter(|(_, p)| !**p) {
        let below = high.partition_point(|h| h < score);
        lost += (below + high.partition_point(|h| h <= score)) as u64;
    }
    1.0 - lost as f64 / (2.0 * high.len() as f64 * low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auroc_counts_pairs_and_halves_ties() {
        assert_eq!(auroc(&[3.0, 1.0, 2.0], &[true, false, false]), 1.0);
        assert_eq!(auroc(&[0.0, 1.0, 2.0], &[true, false, false]), 0.0);
        assert_eq!(auroc(&[1.0, 1.0, 0.0], &[true, false, false]), 0.75);
        assert_eq!(auroc(&[0.0; 4], &[true, false, true, false]), 0.5);
        assert_eq!(auroc(&[1.0, 2.0], &[false, false]), 0.5);
    }
}
