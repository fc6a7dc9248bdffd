//! Drawing a token from a row of logits.

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use candle_nn::ops::softmax_last_dim;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;

/// The stream of draws of one sequence.
pub(super) struct TokenSampler {
    temperature: f64,
    rng: StdRng,
}

impl TokenSampler {
    /// Greedy at temperature 0; otherwise plain sampling, no truncation.
    pub(super) fn new(temperature: f64, seed: u64) -> Self {
        Self { temperature, rng: StdRng::seed_from_u64(seed) }
    }

    /// The token of a row of logits `(vocab)`; the first of equal ones if greedy.
    ///
    /// # Errors
    /// If there is no logit, or one is NaN.
    pub(super) fn sample(&mut self, logits: &Tensor) -> Result<u32> {
        if self.temperature == 0.0 {
            let logits = logits.to_vec1::<f32>()?;
            ensure!(logits.iter().all(|z| !z.is_nan()), "a logit is NaN");
            // `max_by` would take the last of equal ones.
            let best = (0..logits.len()).reduce(|best, i| if logits[i] > logits[best] { i } else { best });
            return Ok(best.context("there are no logits")? as u32);
        }
        let p = softmax_last_dim(&(logits / self.temperature)?)?.to_vec1::<f32>()?;
        let draw = WeightedIndex::new(p).context("these logits are no distribution")?;
        Ok(draw.sample(&mut self.rng) as u32)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn row(logits: &[f32]) -> Tensor {
        Tensor::new(logits, &Device::Cpu).unwrap()
    }

    #[test]
    fn greedy_takes_the_first_of_equal_logits() {
        let mut greedy = TokenSampler::new(0.0, 0);
        assert_eq!(greedy.sample(&row(&[-1.0, 3.0, 3.0, f32::NEG_INFINITY])).unwrap(), 1);
        assert!(greedy.sample(&row(&[0.0, f32::NAN])).is_err());
        assert!(greedy.sample(&row(&[])).is_err());
    }

    #[test]
    fn draws_follow_the_softmax_at_the_temperature() {
        let (mut sampler, logits) = (TokenSampler::new(2.0, 7), row(&[2.0 * 0.1f32.ln(), 2.0 * 0.9f32.ln()]));
        let ones = (0..4000).map(|_| sampler.sample(&logits).unwrap()).sum::<u32>();
        assert!((3500..3700).contains(&ones), "{ones} of 4000; expected 3600 ± 19 each standard deviation");
        assert!(sampler.sample(&row(&[0.0, f32::NAN])).is_err());
    }
}
