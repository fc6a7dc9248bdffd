//! RMSNorm: y = x / √(mean(x²) + ε) · (offset + w) (Zhang & Sennrich, arXiv 1910.07467, eq. 4).
//!
//! `offset` is 1 for Gemma, whose checkpoints hold the gain minus one, and 0 elsewhere. The norm runs over
//! groups of `w.len()` elements, so the same op serves `(tokens, hidden)` and heads inside `(tokens,
//! heads · head_dim)`.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::kernels::cpu::{fused, rows_per_task, tensor, view, written};
use super::kernels::exp::{dot, vectorized};
use super::tape::Tape;

/// RMSNorm over groups of `weight.len()` elements of the last dimension, with gradients for x and w.
pub fn rms_norm(x: &Tensor, weight: &Tensor, offset: f32, eps: f64, tape: Tape) -> Result<Tensor> {
    if !fused(x.device()) {
        return tape.composed(&[x, weight], |v| composed(&v[0], &v[1], offset, eps));
    }
    let x = x.contiguous()?;
    let norm = Norm { offset, eps: eps as f32 };
    let y = tensor(norm.forward(&view(&x)?, &view(weight)?), x.shape())?;
    let (track_x, track_w) = (tape.tracks(&x), tape.tracks(weight));
    if track_x || track_w {
        let again = (x.clone(), weight.clone());
        tape.cheap(&y, move || {
            let (x, weight) = &again;
            tensor(norm.forward(&view(x)?, &view(weight)?), x.shape())
        });
        let weight = weight.clone();
        tape.record(&y, move |gradient, into| {
            let gradient = gradient.contiguous()?;
            let (dx, dw) = norm.backward(&view(&x)?, &view(&weight)?, &view(&gradient)?, track_w);
            into.add(x.id(), tensor(dx, x.shape())?)?;
            into.add(weight.id(), tensor(dw, weight.shape())?)
        });
    }
    Ok(y)
}

/// [`rms_norm`] in candle's own ops.
pub fn composed(x: &Tensor, weight: &Tensor, offset: f32, eps: f64) -> Result<Tensor> {
    let width = weight.elem_count();
    let rows = x.reshape(((), width))?;
    let mean_square = rows.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = rows.broadcast_div(&(mean_square + eps)?.sqrt()?)?;
    let gain = (weight + offset as f64)?;
    normed.broadcast_mul(&gain)?.reshape(x.shape())
}

#[derive(Clone, Copy)]
struct Norm {
    offset: f32,
    eps: f32,
}

impl Norm {
    #[inline(always)]
    fn inverse_rms(&self, row: &[f32]) -> f32 {
        1.0 / (dot(row, row) / row.len() as f32 + self.eps).sqrt()
    }

    fn forward(&self, x: &[f32], w: &[f32]) -> Vec<f32> {
        let width = w.len();
        let task = rows_per_task(width) * width;
        written(x.len(), |y| {
            y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
                vectorized!({
                    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let inv = self.inverse_rms(x);
                        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                            *y = x * inv * (self.offset + w);
                        }
                    }
                })
            })
        })
    }

    /// With r = 1/rms and n = x·r:  dx = r·(g·gain − n·mean(g·gain·n)),  dw = Σ g·n (zeros unless asked for).
    fn backward(&self, x: &[f32], w: &[f32], g: &[f32], need_dw: bool) -> (Vec<f32>, Vec<f32>) {
        let width = w.len();
        let task = rows_per_task(width) * width;
        // One partial sum of dw a task, added in task order: the same bytes on every run.
        let mut partial: Vec<Vec<f32>> = Vec::new();
        let dx = written(x.len(), |dx| {
            partial = dx
                .par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .zip(g.par_chunks(task))
                .map(|((dx, x), g)| {
                    vectorized!({
                        let mut dw = vec![0f32; if need_dw { width } else { 0 }];
                        let mut gg = vec![0f32; width];
                        let rows =
                            dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(g.chunks_exact(width));
                        for ((dx, x), g) in rows {
                            let inv = self.inverse_rms(x);
                            for ((o, g), w) in gg.iter_mut().zip(g).zip(w) {
                                *o = g * (self.offset + w);
                            }
                            let mean = dot(&gg, x) * inv * inv / width as f32;
                            for ((d, gg), x) in dx.iter_mut().zip(&gg).zip(x) {
                                *d = inv * (gg - x * mean);
                            }
                            for ((d, g), x) in dw.iter_mut().zip(g).zip(x) {
                                *d += g * x * inv;
                            }
                        }
                        dw
                    })
                })
                .collect()
        });
        let mut dw = vec![0f32; width];
        for p in &partial {
            dw.iter_mut().zip(p).for_each(|(d, p)| *d += p);
        }
        (dx, dw)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, random};
    use super::*;

    #[test]
    fn equals_composed_and_has_the_right_gradient() -> Result<()> {
        for offset in [0.0, 1.0] {
            let vars = [random(&[5, 12], 1)?, random(&[12], 2)?];
            assert_close(
                &rms_norm(&vars[0], &vars[1], offset, 1e-6, Tape::OFF)?,
                &composed(&vars[0], &vars[1], offset, 1e-6)?,
                1e-5,
            )?;
            assert_gradients(&vars, |v, tape| rms_norm(&v[0], &v[1], offset, 1e-6, tape))?;
            // Heads: groups of 4 inside rows of 12.
            let vars = [random(&[5, 12], 3)?, random(&[4], 4)?];
            assert_close(
                &rms_norm(&vars[0], &vars[1], offset, 1e-6, Tape::OFF)?,
                &composed(&vars[0], &vars[1], offset, 1e-6)?,
                1e-5,
            )?;
            assert_gradients(&vars, |v, tape| rms_norm(&v[0], &v[1], offset, 1e-6, tape))?;
        }
        Ok(())
    }
}
