//! Dropout: y = m ∘ x / (1 − p), with each m zero with probability p (Srivastava et al., JMLR 15, 2014).

use candle_core::{Result, Tensor};
use rand::Rng;

use super::tape::Tape;

/// Zeroes a share `p` of the elements and scales the others by 1 / (1 − p), with a gradient for x.
///
/// # Errors
/// If a tensor operation fails.
pub fn dropout(x: &Tensor, p: f64, rng: &mut impl Rng, tape: Tape) -> Result<Tensor> {
    let keep = (1.0 / (1.0 - p)) as f32;
    let mask: Vec<f32> =
        (0..x.elem_count()).map(|_| if rng.random::<f64>() < p { 0.0 } else { keep }).collect();
    let mask = Tensor::from_vec(mask, x.shape(), x.device())?;
    let y = (x.detach() * &mask)?;
    if tape.tracks(x) {
        let x = x.id();
        tape.record(&y, move |gradient, into| into.add(x, (gradient * &mask)?));
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::testing::{assert_gradients, random};
    use super::*;

    #[test]
    fn has_the_right_gradient() -> Result<()> {
        let draw = || ChaCha8Rng::seed_from_u64(3);
        assert_gradients(&[random(&[4, 5], 1)?], |v, tape| dropout(&v[0], 0.4, &mut draw(), tape))
    }

    #[test]
    fn the_mean_stays() -> Result<()> {
        let x = random(&[100, 100], 1)?.ones_like()?;
        let y = dropout(&x, 0.3, &mut ChaCha8Rng::seed_from_u64(0), Tape::OFF)?;
        let mean = y.mean_all()?.to_scalar::<f32>()?;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        Ok(())
    }
}
