//! The gate of a gated MLP: y = act(gate) ∘ up (Shazeer, arXiv 2002.05202, eq. 5–6).

use candle_core::{Result, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

use super::kernels::cpu::{TASK, fused, tensor, view, written};
use super::kernels::exp::{sigmoid, tanh, vectorized};
use super::tape::Tape;

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
pub fn gated(gate: &Tensor, up: &Tensor, activation: Activation, tape: Tape) -> Result<Tensor> {
    if !fused(gate.device()) {
        return tape.composed(&[gate, up], |v| composed(&v[0], &v[1], activation));
    }
    let (gate, up) = (gate.contiguous()?, up.contiguous()?);
    let y = tensor(forward(&view(&gate)?, &view(&up)?, activation), gate.shape())?;
    if tape.tracks(&gate) || tape.tracks(&up) {
        let again = (gate.clone(), up.clone());
        tape.cheap(&y, move || {
            let (gate, up) = &again;
            tensor(forward(&view(gate)?, &view(up)?, activation), gate.shape())
        });
        tape.record(&y, move |gradient, into| {
            let gradient = gradient.contiguous()?;
            let (dg, du) = backward(&view(&gate)?, &view(&up)?, &view(&gradient)?, activation);
            into.add(gate.id(), tensor(dg, gate.shape())?)?;
            into.add(up.id(), tensor(du, up.shape())?)
        });
    }
    Ok(y)
}

/// [`gated`] in candle's own ops.
pub fn composed(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Silu => gate.silu()? * up,
        Activation::GeluTanh => gate.gelu()? * up,
    }
}

fn forward(gate: &[f32], up: &[f32], activation: Activation) -> Vec<f32> {
    written(gate.len(), |y| {
        y.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK)).for_each(|((y, g), u)| {
            vectorized!({
                for ((y, g), u) in y.iter_mut().zip(g).zip(u) {
                    *y = activation.value_and_slope(*g).0 * u;
                }
            })
        })
    })
}

/// Gradients of gate and up.
fn backward(gate: &[f32], up: &[f32], gradient: &[f32], activation: Activation) -> (Vec<f32>, Vec<f32>) {
    let mut du = Vec::new();
    let dg = written(gate.len(), |dg| {
        du = written(up.len(), |du| {
            dg.par_chunks_mut(TASK)
                .zip(du.par_chunks_mut(TASK))
                .zip(gate.par_chunks(TASK).zip(up.par_chunks(TASK)).zip(gradient.par_chunks(TASK)))
                .for_each(|((dg, du), ((g, u), d))| {
                    vectorized!({
                        for ((dg, du), ((g, u), d)) in
                            dg.iter_mut().zip(du.iter_mut()).zip(g.iter().zip(u).zip(d))
                        {
                            let (value, slope) = activation.value_and_slope(*g);
                            *dg = d * u * slope;
                            *du = d * value;
                        }
                    })
                });
        })
    });
    (dg, du)
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
                &gated(&vars[0], &vars[1], activation, Tape::OFF)?,
                &composed(&vars[0], &vars[1], activation)?,
                1e-6,
            )?;
            assert_gradients(&vars, |v, tape| gated(&v[0], &v[1], activation, tape))?;
        }
        Ok(())
    }
}
