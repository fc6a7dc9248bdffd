//! The learning rate over a run.

use std::f64::consts::PI;

use crate::recipe::{Schedule, TrainSection};

/// Learning rate of step `step` (zero-based) of `total`, as transformers' `get_scheduler` gives it: a linear
/// warm-up, then the shape.
pub fn learning_rate(train: &TrainSection, step: usize, total: usize) -> f64 {
    let warmup = train.warmup_steps;
    if step < warmup {
        return train.lr * step as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    match train.schedule {
        Schedule::Constant => train.lr,
        Schedule::Linear => train.lr * (1.0 - progress).max(0.0),
        Schedule::Cosine => train.lr * 0.5 * (1.0 + (PI * progress.min(1.0)).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // from transformers import get_scheduler; [s.get_last_lr()[0] for each of 5 steps, warm-up 1, lr 1]
    #[test]
    fn equals_transformers() {
        let rates = |schedule| -> Vec<f64> {
            let train = TrainSection { lr: 1.0, warmup_steps: 1, schedule, ..Default::default() };
            (0..5).map(|s| learning_rate(&train, s, 5)).collect()
        };
        let close =
            |a: Vec<f64>, b: [f64; 5]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?}");
        close(rates(Schedule::Linear), [0.0, 1.0, 0.75, 0.5, 0.25]);
        close(rates(Schedule::Cosine), [0.0, 1.0, 0.853_553_4, 0.5, 0.146_446_6]);
        close(rates(Schedule::Constant), [0.0, 1.0, 1.0, 1.0, 1.0]);
    }
}
