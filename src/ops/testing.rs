//! Finite differences and comparisons for the tests of this folder.

use candle_core::{Result, Tensor};

use super::kernels::cpu::composed;
use super::selftest::output_and_gradients;
pub(super) use super::selftest::random;
use super::tape::Tape;

/// Asserts that no element differs by more than `tolerance`.
pub(super) fn assert_close(got: &Tensor, want: &Tensor, tolerance: f32) -> Result<()> {
    assert_eq!(got.dims(), want.dims());
    let worst = (got - want)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    assert!(worst <= tolerance, "largest difference {worst}, allowed {tolerance}");
    Ok(())
}

/// Gradients of Σ c·f for each of `inputs`, with fixed random c that depend on the shape only.
pub(super) fn gradients(
    inputs: &[Tensor],
    f: impl Fn(&[Tensor], Tape) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    Ok(output_and_gradients(inputs, f)?.split_off(1))
}

/// Checks the gradient of Σ c·f(inputs) for every element of every input against central differences, of the fused version
/// and of the composed one.
pub(super) fn assert_gradients(
    inputs: &[Tensor],
    f: impl Fn(&[Tensor], Tape) -> Result<Tensor>,
) -> Result<()> {
    assert_gradients_of_path(inputs, &f)?;
    composed(|| assert_gradients_of_path(inputs, &f))
}

fn assert_gradients_of_path(inputs: &[Tensor], f: impl Fn(&[Tensor], Tape) -> Result<Tensor>) -> Result<()> {
    let grads = gradients(inputs, &f)?;
    let value = |tensors: &[Tensor]| -> Result<f64> {
        let y = f(tensors, Tape::OFF)?;
        let c = random(y.dims(), 99)?.flatten_all()?.to_vec1::<f32>()?;
        let y = y.flatten_all()?.to_vec1::<f32>()?;
        Ok(y.iter().zip(&c).map(|(a, b)| *a as f64 * *b as f64).sum())
    };
    for (i, (var, got)) in inputs.iter().zip(&grads).enumerate() {
        let got = got.flatten_all()?.to_vec1::<f32>()?;
        let start = var.flatten_all()?.to_vec1::<f32>()?;
        for (j, got) in got.iter().enumerate() {
            let h = 1e-2f32;
            let at = |delta: f32| -> Result<f64> {
                let mut moved = start.clone();
                moved[j] += delta;
                let mut tensors = inputs.to_vec();
                tensors[i] = Tensor::from_vec(moved, var.dims(), var.device())?;
                value(&tensors)
            };
            // Richardson's extrapolation of two central differences: error O(h⁴).
            let wide = (at(h)? - at(-h)?) / (2.0 * h as f64);
            let narrow = (at(h / 2.0)? - at(-h / 2.0)?) / h as f64;
            let want = (4.0 * narrow - wide) / 3.0;
            assert!(
                (*got as f64 - want).abs() < 2e-3 * (1.0 + want.abs()),
                "variable {i} element {j}: gradient {got}, finite difference {want}"
            );
        }
    }
    Ok(())
}
