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

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::kernels::cpu::{fused, rows_per_task, tensor, view};
use super::linear;
use super::tape::Tape;
use super::weight::Matrix;

/// c ∘ (x·Wᵀ + s·(x·Aᵀ)·Bᵀ) + b with gradients for x, A, B and m; W, b and n (`norm`) are constants.
#[expect(clippy::too_many_arguments, reason = "the symbols of the formula")]
pub fn dora(
    x: &Tensor,
    weight: &Matrix,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    scaling: f64,
    magnitude: &Tensor,
    norm: &Tensor,
    tape: Tape,
) -> Result<Tensor> {
    let z = linear::lora(x, Some(weight), None, a, b, scaling, tape)?; // (tokens, out)
    scale_columns(&z, magnitude, norm, bias, tape)
}

/// ‖W‖² of each row `(out)`, summed in f64.
pub fn row_norms_squared(weight: &Tensor) -> Result<Tensor> {
    weight.to_dtype(DType::F64)?.sqr()?.sum(1)?.to_dtype(DType::F32)
}

/// ‖W + s·B·A‖ of each row `(out)`, a constant to the gradient; `weight_squared` is [`row_norms_squared`] of W.
pub fn updated_row_norms(
    weight: &Matrix,
    weight_squared: &Tensor,
    a: &Tensor,
    b: &Tensor,
    scaling: f64,
) -> Result<Tensor> {
    let (a, b) = (a.detach(), b.detach());
    let aw = linear::linear(&a, weight, None, Tape::OFF)?; // (r, out)
    let cross = (aw.t()? * &b)?.sum(1)?; // (out)
    let update = (b.matmul(&a.matmul(&a.t()?)?)? * &b)?.sum(1)?; // (out)
    let squared = ((weight_squared + (cross * (2.0 * scaling))?)? + (update * (scaling * scaling))?)?;
    squared.relu()?.sqrt() // rounding may take a row that vanishes below zero
}

/// z ∘ (m / n) + b with gradients for z and m.
fn scale_columns(z: &Tensor, m: &Tensor, n: &Tensor, bias: Option<&Tensor>, tape: Tape) -> Result<Tensor> {
    if !fused(z.device()) {
        return tape.composed(&[z, m], |v| scale_columns_composed(&v[0], &v[1], n, bias));
    }
    let c = (m.detach() / n)?; // (out)
    let mut y = times_columns(&view(z)?, &view(&c)?);
    if let Some(bias) = bias {
        let bias = &*view(bias)?;
        y.par_chunks_mut(rows_per_task(bias.len()) * bias.len()).for_each(|rows| {
            rows.chunks_mut(bias.len()).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        });
    }
    let y = tensor(y, z.shape())?;
    if tape.tracks(z) || tape.tracks(m) {
        let (z, m, n) = (z.clone(), m.id(), n.clone());
        tape.record(&y, move |gradient, into| {
            let gradient = gradient.contiguous()?;
            let g = view(&gradient)?;
            let dc = tensor(column_products(&g, &view(&z)?, c.elem_count()), c.shape())?;
            into.add(m, (dc / &n)?)?; // dm = Σ_t g ∘ z / n
            into.add(z.id(), tensor(times_columns(&g, &view(&c)?), z.shape())?) // dz = g ∘ c
        });
    }
    Ok(y)
}

/// [`scale_columns`] in candle's own ops.
fn scale_columns_composed(z: &Tensor, m: &Tensor, n: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = z.broadcast_mul(&(m / n)?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// Σ over the rows of a ∘ b. Tasks of a fixed size, added in order, so that the sum does not depend on threads.
fn column_products(a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
    let task = rows_per_task(width) * width;
    let parts: Vec<Vec<f32>> = a
        .par_chunks(task)
        .zip(b.par_chunks(task))
        .map(|(a, b)| {
            let mut sum = vec![0f32; width];
            for (a, b) in a.chunks(width).zip(b.chunks(width)) {
                sum.iter_mut().zip(a.iter().zip(b)).for_each(|(s, (a, b))| *s += a * b);
            }
            sum
        })
        .collect();
    let mut total = vec![0f32; width];
    for part in &parts {
        total.iter_mut().zip(part).for_each(|(s, p)| *s += p);
    }
    total
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
    use super::super::testing::{assert_close, assert_gradients, gradients, random};
    use super::*;

    const SCALING: f64 = 1.75;

    #[test]
    fn row_norms_of_the_update_need_no_merged_weight() -> Result<()> {
        let (w, a, b) = (random(&[7, 5], 1)?, random(&[2, 5], 2)?, random(&[7, 2], 3)?);
        let got = updated_row_norms(&w.clone().into(), &row_norms_squared(&w)?, &a, &b, SCALING)?;
        let merged = (&w + (b.matmul(&a)? * SCALING)?)?;
        assert_close(&got, &row_norms_squared(&merged)?.sqrt()?, 1e-5)
    }

    #[test]
    fn scaled_columns_equal_composed_and_have_its_gradient() -> Result<()> {
        let (bias, n) = (random(&[700], 3)?, (random(&[700], 4)? + 2.0)?);
        let v = [random(&[40, 700], 1)?, random(&[700], 2)?]; // several tasks
        for bias in [None, Some(&bias)] {
            let fused = |v: &[Tensor], tape: Tape| scale_columns(&v[0], &v[1], &n, bias, tape);
            let composed = |v: &[Tensor], tape: Tape| {
                tape.composed(&[&v[0], &v[1]], |v| scale_columns_composed(&v[0], &v[1], &n, bias))
            };
            assert_close(&fused(&v, Tape::OFF)?, &composed(&v, Tape::OFF)?, 1e-6)?;
            for (ours, theirs) in gradients(&v, fused)?.iter().zip(&gradients(&v, composed)?) {
                assert_close(ours, theirs, 1e-4)?;
            }
        }
        Ok(())
    }

    /// The norm is held fixed in the differences too: it is a constant to the gradient.
    #[test]
    fn dora_is_its_formula_and_has_the_right_gradient() -> Result<()> {
        let (w, bias) = (random(&[7, 5], 1)?, random(&[7], 2)?);
        let v = [random(&[6, 5], 3)?, random(&[2, 5], 4)?, random(&[7, 2], 5)?, random(&[7], 6)?];
        let matrix = Matrix::Dense(w.clone());
        let norm = updated_row_norms(&matrix, &row_norms_squared(&w)?, &v[1], &v[2], SCALING)?;
        for bias in [None, Some(&bias)] {
            let merged = (&w + (v[2].matmul(&v[1])? * SCALING)?)?;
            let c = (&v[3] / &norm)?.unsqueeze(1)?;
            let want = linear::composed(&v[0], &merged.broadcast_mul(&c)?, bias)?;
            let f = |v: &[Tensor], tape: Tape| {
                dora(&v[0], &matrix, bias, &v[1], &v[2], SCALING, &v[3], &norm, tape)
            };
            assert_close(&f(&v, Tape::OFF)?, &want, 1e-5)?;
            assert_gradients(&v, f)?;
        }
        Ok(())
    }
}
