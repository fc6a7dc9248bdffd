//! The length of a tensor: Σ x², as gradient clipping needs it.

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::kernels::cpu::{TASK, fused, view};
use super::kernels::exp::{dot, vectorized};

/// Σ x². Tasks of a fixed size in f32, added in order in f64: the same bytes whatever the threads.
///
/// # Errors
/// If a tensor operation fails.
pub fn sum_of_squares(x: &Tensor) -> Result<f64> {
    if !fused(x.device()) {
        return Ok(x.sqr()?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()? as f64);
    }
    let x = x.contiguous()?;
    let x = view(&x)?;
    let parts: Vec<f32> = x.par_chunks(TASK).map(|part| vectorized!(dot(part, part))).collect();
    Ok(parts.into_iter().map(f64::from).sum())
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    #[test]
    fn equals_the_sum_in_f64() -> Result<()> {
        let x = random(&[300, 211], 1)?;
        let want: f64 =
            x.flatten_all()?.to_vec1::<f32>()?.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        assert!((sum_of_squares(&x)? / want - 1.0).abs() < 1e-6);
        Ok(())
    }
}
