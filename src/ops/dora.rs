//! DoRA: a low-rank update whose rows keep a trained length (Liu et al., arXiv 2402.09353, eq. 5).
//!
//! y = c ∘ (x·Wᵀ + s·(x·Aᵀ)·Bᵀ) + b with c = m / n and n = ‖W + s·B·A‖, the length of each row. As in PEFT
//! (`tuners/lora/dora.py`), n follows the update but is a constant to the gradient (the paper's §4.3).
//!
//! n needs no merged weight: n² = ‖W‖² + 2s·Σ_r (W·Aᵀ) ∘ B + s²·Σ_r (B·(A·Aᵀ)) ∘ B, row by row, where ‖W‖² is
//! computed once and W·Aᵀ is `(out, r)`. What DoRA keeps beyond LoRA for the backward pass is therefore one
//! activation `(tokens, out)` a layer, and no matrix of the weight's size.
//!
//! Shapes: x `(tokens, in)`, W `(out, in)`, b, m, n, c `(out)`, A `(r, in)`, B `(out, r)`, y `(tokens, out)`.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::cpu::{rows_per_task, slice, view};
use super::linear;

/// c ∘ (x·Wᵀ + s·(x·Aᵀ)·Bᵀ) + b with gradients for x, A, B and m; W, b and n (`norm`) outside the graph.
#[expect(clippy::too_many_arguments, reason = "the symbols of the formula")]
pub fn dora(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    scaling: f64,
    magnitude: &Tensor,
    norm: &Tensor,
) -> Result<Tensor> {
    let z = linear::lora(x, Some(weight), None, a, b, scaling)?; // (tokens, out)
    scale_columns(&z, &(magnitude / norm.detach())?, bias)
}

/// ‖W‖² of each row `(out)`, summed in f64.
pub fn row_norms_squared(weight: &Tensor) -> Result<Tensor> {
    weight.to_dtype(DType::F64)?.sqr()?.sum(1)?.to_dtype(DType::F32)
}

/// ‖W + s·B·A‖ of each row `(out)`, outside the graph; `weight_squared` is [`row_norms_squared`] of W.
pub fn updated_row_norms(
    weight: &Tensor,
    weight_squared: &Tensor,
    a: &Tensor,
    b: &Tensor,
    scaling: f64,
) -> Result<Tensor> {
    let (a, b) = (a.detach(), b.detach());
    let aw = linear::frozen(&a, weight, None)?; // (r, out)
    let cross = (aw.t()? * &b)?.sum(1)?; // (out)
    let update = (b.matmul(&a.matmul(&a.t()?)?)? * &b)?.sum(1)?; // (out)
    let squared = ((weight_squared + (cross * (2.0 * scaling))?)? + (update * (scaling * scaling))?)?;
    squared.relu()?.sqrt() // rounding may take a row that vanishes below zero
}

/// z ∘ c + b with gradients for z and c.
fn scale_columns(z: &Tensor, c: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !z.device().is_cpu() {
        return scale_columns_composed(z, c, bias);
    }
    z.apply_op2(c, ScaleColumns { bias: bias.cloned() })
}

/// [`scale_columns`] in candle's own ops.
fn scale_columns_composed(z: &Tensor, c: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = z.broadcast_mul(c)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

struct ScaleColumns {
    bias: Option<Tensor>,
}

impl CustomOp2 for ScaleColumns {
    fn name(&self) -> &'static str {
        "scale-columns"
    }

    fn cpu_fwd(
        &self,
        sz: &CpuStorage,
        lz: &Layout,
        sc: &CpuStorage,
        lc: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (z, c) = (slice(sz, lz)?, slice(sc, lc)?);
        let mut y = times_columns(z, c);
        if let Some(bias) = &self.bias {
            let bias = &*view(bias)?;
            y.par_chunks_mut(rows_per_task(c.len()) * c.len()).for_each(|rows| {
                rows.chunks_mut(c.len()).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
            });
        }
        Ok((CpuStorage::F32(y), lz.shape().clone()))
    }

    fn bwd(
        &self,
        z: &Tensor,
        c: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (gs, zs, cs) = (view(&grad)?, view(z)?, view(c)?);
        let dz = super::cpu::tensor(times_columns(&gs, &cs), z)?; // dz = g ∘ c
        // dc = Σ_t g ∘ z: tasks of a fixed size, added in order, so that the sum does not depend on threads.
        let (width, task) = (cs.len(), rows_per_task(cs.len()) * cs.len());
        let parts: Vec<Vec<f32>> = gs
            .par_chunks(task)
            .zip(zs.par_chunks(task))
            .map(|(g, z)| {
                let mut sum = vec![0f32; width];
                for (g, z) in g.chunks(width).zip(z.chunks(width)) {
                    sum.iter_mut().zip(g.iter().zip(z)).for_each(|(s, (g, z))| *s += g * z);
                }
                sum
            })
            .collect();
        let mut dc = vec![0f32; width];
        for part in &parts {
            dc.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        Ok((Some(dz), Some(super::cpu::tensor(dc, c)?)))
    }
}

/// Each row of `rows` times `c`, element by element.
fn times_columns(rows: &[f32], c: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; rows.len()];
    let task = rows_per_task(c.len()) * c.len();
    out.par_chunks_mut(task).zip(rows.par_chunks(task)).for_each(|(out, rows)| {
        for (out, row) in out.chunks_mut(c.len()).zip(rows.chunks(c.len())) {
            out.iter_mut().zip(row.iter().zip(c)).for_each(|(y, (z, c))| *y = z * c);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, random};
    use super::*;

    const SCALING: f64 = 1.75;

    #[test]
    fn row_norms_of_the_update_need_no_merged_weight() -> Result<()> {
        let (w, a, b) = (random(&[7, 5], 1)?, random(&[2, 5], 2)?, random(&[7, 2], 3)?);
        let got = updated_row_norms(&w, &row_norms_squared(&w)?, &a, &b, SCALING)?;
        let merged = (w.as_tensor() + (b.matmul(&a)? * SCALING)?)?;
        assert_close(&got, &row_norms_squared(&merged)?.sqrt()?, 1e-5)
    }

    #[test]
    fn scaled_columns_equal_composed_and_have_the_right_gradient() -> Result<()> {
        let bias = random(&[700], 3)?;
        let vars = [random(&[40, 700], 1)?, random(&[700], 2)?]; // several tasks
        for bias in [None, Some(bias.as_tensor())] {
            let (ours, composed) =
                (scale_columns(&vars[0], &vars[1], bias)?, scale_columns_composed(&vars[0], &vars[1], bias)?);
            assert_close(&ours, &composed, 1e-6)?;
            let (ours, composed) =
                (ours.sqr()?.sum_all()?.backward()?, composed.sqr()?.sum_all()?.backward()?);
            for var in &vars {
                assert_close(ours.get(var).unwrap(), composed.get(var).unwrap(), 1e-3)?;
            }
        }
        Ok(())
    }

    /// The norm is held fixed in the differences too: it is a constant to the gradient.
    #[test]
    fn dora_is_its_formula_and_has_the_right_gradient() -> Result<()> {
        let (w, bias) = (random(&[7, 5], 1)?, random(&[7], 2)?);
        let vars = [random(&[6, 5], 3)?, random(&[2, 5], 4)?, random(&[7, 2], 5)?, random(&[7], 6)?];
        let norm = updated_row_norms(&w, &row_norms_squared(&w)?, &vars[1], &vars[2], SCALING)?;
        for bias in [None, Some(bias.as_tensor())] {
            let merged = (w.as_tensor() + (vars[2].matmul(&vars[1])? * SCALING)?)?;
            let c = (vars[3].as_tensor() / &norm)?.unsqueeze(1)?;
            let want = linear::composed(&vars[0], &merged.broadcast_mul(&c)?, bias)?;
            let f = |v: &[Tensor]| dora(&v[0], &w, bias, &v[1], &v[2], SCALING, &v[3], &norm);
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            assert_close(&f(&tensors)?, &want, 1e-5)?;
            assert_gradients(&vars, f)?;
        }
        Ok(())
    }
}
