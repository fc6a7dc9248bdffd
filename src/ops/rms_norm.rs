//! RMSNorm: y = x / √(mean(x²) + ε) · (offset + w) (Zhang & Sennrich, arXiv 1910.07467, eq. 4).
//!
//! `offset` is 1 for Gemma, whose checkpoints hold the gain minus one, and 0 elsewhere. The norm runs over
//! groups of `w.len()` elements, so the same op serves `(tokens, hidden)` and heads inside `(tokens,
//! heads · head_dim)`.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::cpu::{rows_per_task, slice, tensor, view};
use super::exp::{dot, vectorized};

/// RMSNorm over groups of `weight.len()` elements of the last dimension, with gradients for x and w.
pub fn rms_norm(x: &Tensor, weight: &Tensor, offset: f32, eps: f64) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed(x, weight, offset, eps);
    }
    x.contiguous()?.apply_op2(weight, RmsNorm { offset, eps: eps as f32 })
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

struct RmsNorm {
    offset: f32,
    eps: f32,
}

impl RmsNorm {
    fn inverse_rms(&self, row: &[f32]) -> f32 {
        1.0 / (dot(row, row) / row.len() as f32 + self.eps).sqrt()
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        sx: &CpuStorage,
        lx: &Layout,
        sw: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice(sx, lx)?, slice(sw, lw)?);
        let width = w.len();
        let mut y = vec![0f32; x.len()];
        let task = rows_per_task(width) * width;
        y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
            vectorized(|| {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let inv = self.inverse_rms(x);
                    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                        *y = x * inv * (self.offset + w);
                    }
                }
            })
        });
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    // With r = 1/rms and n = x·r:  dx = r·(g·gain − n·mean(g·gain·n)),  dw = Σ g·n.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xs, ws, gs) = (view(x)?, view(w)?, view(&grad)?);
        let (xs, ws, gs): (&[f32], &[f32], &[f32]) = (&xs, &ws, &gs);
        let width = ws.len();
        let task = rows_per_task(width) * width;
        let need_dw = w.track_op();
        let mut dx = vec![0f32; xs.len()];
        // One partial sum of dw a task, added in task order: the same bytes on every run.
        let partial: Vec<Vec<f32>> = dx
            .par_chunks_mut(task)
            .zip(xs.par_chunks(task))
            .zip(gs.par_chunks(task))
            .map(|((dx, x), g)| {
                vectorized(|| {
                    let mut dw = vec![0f32; if need_dw { width } else { 0 }];
                    let mut gg = vec![0f32; width];
                    let rows =
                        dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(g.chunks_exact(width));
                    for ((dx, x), g) in rows {
                        let inv = self.inverse_rms(x);
                        for ((o, g), w) in gg.iter_mut().zip(g).zip(ws) {
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
            .collect();
        let dw = if need_dw {
            let mut dw = vec![0f32; width];
            for p in &partial {
                dw.iter_mut().zip(p).for_each(|(d, p)| *d += p);
            }
            Some(tensor(dw, w)?)
        } else {
            None
        };
        Ok((Some(tensor(dx, x)?), dw))
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
                &rms_norm(&vars[0], &vars[1], offset, 1e-6)?,
                &composed(&vars[0], &vars[1], offset, 1e-6)?,
                1e-5,
            )?;
            assert_gradients(&vars, |v| rms_norm(&v[0], &v[1], offset, 1e-6))?;
            // Heads: groups of 4 inside rows of 12.
            let vars = [random(&[5, 12], 3)?, random(&[4], 4)?];
            assert_close(
                &rms_norm(&vars[0], &vars[1], offset, 1e-6)?,
                &composed(&vars[0], &vars[1], offset, 1e-6)?,
                1e-5,
            )?;
            assert_gradients(&vars, |v| rms_norm(&v[0], &v[1], offset, 1e-6))?;
        }
        Ok(())
    }
}
