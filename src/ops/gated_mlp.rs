//! The gate of a gated MLP: y = act(gate) ∘ up (Shazeer, arXiv 2002.05202, eq. 5–6).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

use super::cpu::{slice, tensor, view};
use super::exp::{sigmoid, tanh, vectorized};

/// The activation, under the name that `config.json` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Activation {
    /// x·sigmoid(x).
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) (Hendrycks & Gimpel, arXiv 1606.08415).
    #[serde(rename = "gelu_pytorch_tanh", alias = "gelu_new")]
    GeluTanh,
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

impl Activation {
    /// act(x) and act′(x).
    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        match self {
            Activation::Silu => {
                let s = sigmoid(x);
                (x * s, s * (1.0 + x * (1.0 - s)))
            }
            Activation::GeluTanh => {
                let t = tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x));
                let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x * x);
                (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)
            }
        }
    }
}

/// act(gate) ∘ up, elementwise, with gradients for both.
pub fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    if !gate.device().is_cpu() {
        return composed(gate, up, activation);
    }
    gate.contiguous()?.apply_op2(&up.contiguous()?, Gated(activation))
}

/// [`gated`] in candle's own ops.
pub fn composed(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Silu => gate.silu()? * up,
        Activation::GeluTanh => gate.gelu()? * up,
    }
}

const TASK: usize = 16 * 1024;

struct Gated(Activation);

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated-mlp"
    }

    fn cpu_fwd(
        &self,
        sg: &CpuStorage,
        lg: &Layout,
        su: &CpuStorage,
        lu: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (slice(sg, lg)?, slice(su, lu)?);
        let mut y = vec![0f32; gate.len()];
        y.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK)).for_each(|((y, g), u)| {
            vectorized(|| {
                for ((y, g), u) in y.iter_mut().zip(g).zip(u) {
                    *y = self.0.value_and_slope(*g).0 * u;
                }
            })
        });
        Ok((CpuStorage::F32(y), lg.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (g, u, d) = (view(gate)?, view(up)?, view(&grad)?);
        let (g, u, d): (&[f32], &[f32], &[f32]) = (&g, &u, &d);
        let (mut dg, mut du) = (vec![0f32; g.len()], vec![0f32; u.len()]);
        dg.par_chunks_mut(TASK)
            .zip(du.par_chunks_mut(TASK))
            .zip(g.par_chunks(TASK).zip(u.par_chunks(TASK)).zip(d.par_chunks(TASK)))
            .for_each(|((dg, du), ((g, u), d))| {
                vectorized(|| {
                    for ((dg, du), ((g, u), d)) in dg.iter_mut().zip(du).zip(g.iter().zip(u).zip(d)) {
                        let (value, slope) = self.0.value_and_slope(*g);
                        *dg = d * u * slope;
                        *du = d * value;
                    }
                })
            });
        Ok((Some(tensor(dg, gate)?), Some(tensor(du, up)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, random};
    use super::*;

    #[test]
    fn equals_composed_and_has_the_right_gradient() -> Result<()> {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let vars = [random(&[5, 7], 1)?, random(&[5, 7], 2)?];
            assert_close(
                &gated(&vars[0], &vars[1], activation)?,
                &composed(&vars[0], &vars[1], activation)?,
                1e-6,
            )?;
            assert_gradients(&vars, |v| gated(&v[0], &v[1], activation))?;
        }
        Ok(())
    }
}
