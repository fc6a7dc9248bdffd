//! Finite differences and comparisons for the tests of this folder.

use candle_core::{Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};

/// A variable of normal-ish values that depend on the seed only.
pub(super) fn random(shape: &[usize], seed: u64) -> Result<Var> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let n = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu)?)
}

/// Asserts that no element differs by more than `tolerance`.
pub(super) fn assert_close(got: &Tensor, want: &Tensor, tolerance: f32) -> Result<()> {
    assert_eq!(got.dims(), want.dims());
    let worst = (got - want)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    assert!(worst <= tolerance, "largest difference {worst}, allowed {tolerance}");
    Ok(())
}

/// Checks the gradient of Σ c·f(vars) (fixed random c) for every element of every variable against
/// central differences.
pub(super) fn assert_gradients(vars: &[Var], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    let c = random(y.dims(), 99)?.as_tensor().detach();
    let grads = (&y * &c)?.sum_all()?.backward()?;
    let value = |tensors: &[Tensor]| -> Result<f64> {
        let y = f(tensors)?.flatten_all()?.to_vec1::<f32>()?;
        let c = c.flatten_all()?.to_vec1::<f32>()?;
        Ok(y.iter().zip(&c).map(|(a, b)| *a as f64 * *b as f64).sum())
    };
    for (i, var) in vars.iter().enumerate() {
        let got = grads.get(var).unwrap_or_else(|| panic!("variable {i} has no gradient"));
        let got = got.flatten_all()?.to_vec1::<f32>()?;
        let start = var.flatten_all()?.to_vec1::<f32>()?;
        for (j, got) in got.iter().enumerate() {
            let h = 1e-2f32;
            let at = |delta: f32| -> Result<f64> {
                let mut moved = start.clone();
                moved[j] += delta;
                let mut tensors: Vec<Tensor> = tensors.iter().map(Tensor::detach).collect();
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
