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
