//! The part of a stream that lies outside a subspace: y = x − (x·Uᵀ)·U for orthonormal rows U.
//!
//! The projection is symmetric, so the gradient of x is that of y, projected in the same way.
//!
//! Shapes: x and y `(tokens, hidden)`, U `(directions, hidden)`.

use candle_core::{Result, Tensor};

use super::tape::Tape;

/// x without its part in the span of the rows of `basis`, which are orthonormal.
///
/// # Errors
/// If shapes do not fit.
pub fn project_out(x: &Tensor, basis: &Tensor, tape: Tape) -> Result<Tensor> {
    let y = outside(&x.detach(), basis)?;
    if tape.tracks(x) {
        let (input, basis) = (x.id(), basis.clone());
        tape.record(&y, move |gradient, into| into.add(input, outside(gradient, &basis)?));
    }
    Ok(y)
}

fn outside(x: &Tensor, basis: &Tensor) -> Result<Tensor> {
    x - x.matmul(&basis.t()?)?.matmul(basis)? // (tokens, directions), (tokens, hidden)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_gradients, random};
    use super::*;

    #[test]
    fn nothing_is_left_along_the_directions_and_the_gradient_is_right() -> Result<()> {
        let basis = Tensor::new(&[[0.6f32, 0.8, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], &candle_core::Device::Cpu)?;
        let x = random(&[3, 4], 1)?;
        let y = project_out(&x, &basis, Tape::OFF)?;
        let along = y.matmul(&basis.t()?)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(along < 1e-6, "{along}");
        let (x, y) = (x.to_vec2::<f32>()?, y.to_vec2::<f32>()?);
        assert!(x.iter().zip(&y).all(|(x, y)| x[3] == y[3]), "what is orthogonal stays");
        let x = random(&[3, 4], 1)?;
        assert_gradients(&[x], |v, tape| project_out(&v[0], &basis, tape))
    }
}
