//! KL divergence between the next-token distributions of two models, straight from their hidden states, without ever
//! holding all logits.
//!
//! With z = cap(h·Wᵀ) of the model that learns, t = cap(g·Vᵀ) of the fixed one, q = softmax z and p = softmax t:
//! loss = Σ_i w_i·KL(p_i‖q_i) and ∂loss/∂z = w_i·(q_i − p_i), as in distillation at temperature 1 (Hinton et al.,
//! arXiv 1503.02531, §2). A chunk of tokens at a time, as in [`super::cross_entropy`].
//!
//! Shapes: h and g `(tokens, hidden)`, W and V `(vocab, hidden)`.

use std::cell::RefCell;

use candle_core::{D, Result, Tensor, bail};
use rayon::prelude::*;

use super::cross_entropy::Loss;
use super::kernels::cpu::{fused, view};
use super::kernels::exp::{exp_row, tanh, vectorized};
use super::kernels::mat::Mat;
use super::kernels::matmul::{Threads, matmul};
use super::tape::Tape;
use super::weight::Matrix;

/// Bytes that the logits of one chunk of tokens may take, of either model.
const CHUNK_BYTES: usize = 64 << 20;

/// What the fixed model says.
pub struct Teacher<'a> {
    /// g, what its head reads.
    pub hidden: &'a Tensor,
    /// V, its unembedding.
    pub weight: &'a Matrix,
}

/// Weighted sum of KL(teacher‖student) over the rows, with gradients for `hidden` and, if it is trained, for `weight`.
/// [`Loss::nll`] holds the divergence of each row in nats; a row of weight 0 costs nothing.
///
/// # Errors
/// If shapes do not fit.
pub fn linear_divergence(
    hidden: &Tensor,
    weight: &Matrix,
    teacher: &Teacher,
    weights: &[f32],
    softcap: Option<f32>,
    tape: Tape,
) -> Result<Loss> {
    let (tokens, _) = hidden.dims2()?;
    if weights.len() != tokens || teacher.hidden.dims2()?.0 != tokens {
        bail!("{tokens} rows but {} weights and {:?} of the teacher", weights.len(), teacher.hidden.dims())
    }
    if weight.dims2()?.0 != teacher.weight.dims2()?.0 {
        bail!("vocabularies of {:?} and {:?}", weight.dims2()?, teacher.weight.dims2()?)
    }
    if !fused(hidden.device()) {
        let kept = RefCell::default();
        let (g, v) = (teacher.hidden.detach(), teacher.weight.dense()?);
        let total = tape.composed(&[hidden, &weight.dense()?], |s| {
            let loss = composed(&s[0], &s[1], &g, &v, weights, softcap)?;
            kept.replace(loss.nll);
            Ok(loss.total)
        })?;
        return Ok(Loss { total, nll: kept.take() });
    }
    in_chunks(&hidden.contiguous()?, weight, teacher, weights, softcap, CHUNK_BYTES, tape)
}

fn in_chunks(
    hidden: &Tensor,
    weight: &Matrix,
    teacher: &Teacher,
    weights: &[f32],
    softcap: Option<f32>,
    chunk_bytes: usize,
    tape: Tape,
) -> Result<Loss> {
    let (tokens, width) = hidden.dims2()?;
    let (vocab, _) = weight.dims2()?;
    let learns = weight.tracked(tape);
    let (hs, gs) = (view(hidden)?, teacher.hidden.contiguous()?);
    let (gs, w, v) = (view(&gs)?, weight.view()?, teacher.weight.view()?);
    let teacher_width = teacher.hidden.dims2()?.1;

    let active: Vec<usize> = (0..tokens).filter(|i| weights[*i] != 0.0).collect();
    let mut kl = vec![0f32; tokens];
    let mut dh = tape.tracks(hidden).then(|| vec![0f32; tokens * width]);
    let mut dw = learns.is_some().then(|| vec![0f32; vocab * width]);
    let chunk = (chunk_bytes / (4 * vocab)).clamp(1, active.len().max(1));
    let (mut z, mut t) = (vec![0f32; chunk * vocab], vec![0f32; chunk * vocab]);
    let mut dh_chunk = vec![0f32; if dh.is_some() { chunk * width } else { 0 }];
    let gather = |of: &[f32], width: usize, rows: &[usize]| -> Vec<f32> {
        rows.iter().flat_map(|i| of[i * width..(i + 1) * width].iter().copied()).collect()
    };
    for rows in active.chunks(chunk) {
        let (h, g) = (gather(&hs, width, rows), gather(&gs, teacher_width, rows));
        let h = Mat::new(&h, rows.len(), width);
        let (z, t) = (&mut z[..rows.len() * vocab], &mut t[..rows.len() * vocab]);
        w.times_transposed(z, false, h);
        v.times_transposed(t, false, Mat::new(&g, rows.len(), teacher_width));
        let of_rows: Vec<f32> = z
            .par_chunks_mut(vocab)
            .zip(t.par_chunks_mut(vocab))
            .zip(rows)
            .map(|((z, t), &i)| row_divergence(z, t, weights[i], softcap))
            .collect();
        rows.iter().zip(of_rows).for_each(|(&i, found)| kl[i] = found);
        let dz = Mat::new(z, rows.len(), vocab);
        if let Some(dh) = &mut dh {
            w.times(&mut dh_chunk, false, dz);
            for (&i, row) in rows.iter().zip(dh_chunk.chunks_exact(width)) {
                dh[i * width..(i + 1) * width].copy_from_slice(row);
            }
        }
        if let Some(dw) = &mut dw {
            matmul(dw, width, true, 1.0, dz.t(), h, Threads::All);
        }
    }

    let total = kl.iter().zip(weights).map(|(kl, w)| *kl as f64 * *w as f64).sum::<f64>() as f32;
    let total = Tensor::new(total, hidden.device())?;
    let of_hidden = dh.map(|dh| (hidden.id(), dh, (tokens, width)));
    let of_weight = learns.zip(dw).map(|(id, dw)| (id, dw, (vocab, width)));
    tape.record_known(&total, of_hidden.into_iter().chain(of_weight).collect());
    Ok(Loss { total, nll: kl })
}

/// KL(p‖q) of one row; turns the student's logits into weight · ∂KL/∂(logits before the cap).
fn row_divergence(z: &mut [f32], t: &mut [f32], weight: f32, softcap: Option<f32>) -> f32 {
    vectorized!({
        let slope: Option<Vec<f32>> = softcap.map(|cap| {
            t.iter_mut().for_each(|t| *t = cap * tanh(*t / cap));
            z.iter_mut()
                .map(|z| {
                    let s = tanh(*z / cap);
                    *z = cap * s;
                    1.0 - s * s
                })
                .collect()
        });
        let apart: Vec<f32> = t.iter().zip(z.iter()).map(|(t, z)| t - z).collect();
        let (max_z, sum_z) = exp_row(z);
        let (max_t, sum_t) = exp_row(t);
        // KL = Σ p·(t − z) − log Σ e^t + log Σ e^z; small differences of large sums, so in f64.
        let mean: f64 = t.iter().zip(&apart).map(|(e, d)| *e as f64 * *d as f64).sum::<f64>() / sum_t as f64;
        let log_sum = |max: f32, sum: f32| max as f64 + (sum as f64).ln();
        let kl = mean - log_sum(max_t, sum_t) + log_sum(max_z, sum_z);
        let (of_z, of_t) = (weight / sum_z, weight / sum_t);
        z.iter_mut().zip(t.iter()).for_each(|(z, t)| *z = *z * of_z - t * of_t);
        if let Some(slope) = slope {
            z.iter_mut().zip(&slope).for_each(|(z, s)| *z *= s);
        }
        kl as f32
    })
}

/// [`linear_divergence`] in candle's own ops, all logits at once; gradients for `hidden` and `weight`.
///
/// # Errors
/// If shapes do not fit.
pub fn composed(
    hidden: &Tensor,
    weight: &Tensor,
    teacher_hidden: &Tensor,
    teacher_weight: &Tensor,
    weights: &[f32],
    softcap: Option<f32>,
) -> Result<Loss> {
    let log_q = |h: &Tensor, w: &Tensor| -> Result<Tensor> {
        let mut z = h.matmul(&w.t()?)?; // (tokens, vocab)
        if let Some(cap) = softcap {
            z = ((z / cap as f64)?.tanh()? * cap as f64)?;
        }
        candle_nn::ops::log_softmax(&z, D::Minus1)
    };
    let (q, p) = (log_q(hidden, weight)?, log_q(teacher_hidden, teacher_weight)?.detach());
    let kl = (p.exp()? * (&p - q)?)?.sum(D::Minus1)?; // (tokens)
    let kept = kl.to_vec1::<f32>()?;
    let nll = kept.iter().zip(weights).map(|(kl, w)| if *w == 0.0 { 0.0 } else { *kl }).collect();
    let weights = Tensor::from_slice(weights, weights.len(), hidden.device())?;
    Ok(Loss { total: (kl * weights)?.sum_all()?, nll })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, gradients, random};
    use super::*;

    const WEIGHTS: [f32; 5] = [0.5, 0.0, 1.0, 2.0, 0.25];

    #[test]
    fn equals_composed_in_chunks_of_any_size_and_has_the_right_gradient() -> Result<()> {
        for (softcap, rows) in [None, Some(0.9)].into_iter().flat_map(|cap| [1, 3, 8].map(|n| (cap, n))) {
            let vars = [random(&[5, 6], 1)?, random(&[11, 6], 2)?];
            let (g, v) = (random(&[5, 6], 3)?, random(&[11, 6], 4)?);
            let head = Matrix::from(v.clone());
            let fused = |s: &[Tensor], tape: Tape| {
                let teacher = Teacher { hidden: &g, weight: &head };
                in_chunks(&s[0], &s[1].clone().into(), &teacher, &WEIGHTS, softcap, rows * 4 * 11, tape)
            };
            let whole = |s: &[Tensor]| composed(&s[0], &s[1], &g, &v, &WEIGHTS, softcap);
            let (ours, theirs) = (fused(&vars, Tape::OFF)?, whole(&vars)?);
            assert_close(&ours.total, &theirs.total, 1e-5)?;
            for (a, b) in ours.nll.iter().zip(&theirs.nll) {
                assert!((a - b).abs() < 1e-5 && *a >= 0.0, "{a} {b}");
            }
            let ours = gradients(&vars, |s, tape| Ok(fused(s, tape)?.total))?;
            let theirs = gradients(&vars, |s, tape| tape.composed(&[&s[0], &s[1]], |s| Ok(whole(s)?.total)))?;
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_close(ours, theirs, 1e-5)?;
            }
            assert_gradients(&vars, |s, tape| Ok(fused(s, tape)?.total))?;
            let teacher = Teacher { hidden: &g, weight: &head };
            assert_gradients(&vars, |s, tape| {
                let student = s[1].clone().into();
                Ok(linear_divergence(&s[0], &student, &teacher, &WEIGHTS, softcap, tape)?.total)
            })?;
        }
        Ok(())
    }

    #[test]
    fn nothing_parts_a_model_from_itself() -> Result<()> {
        let (h, w) = (random(&[5, 6], 1)?, Matrix::from(random(&[11, 6], 2)?));
        let teacher = Teacher { hidden: &h, weight: &w };
        let loss = linear_divergence(&h, &w, &teacher, &WEIGHTS, None, Tape::OFF)?;
        assert!(loss.nll.iter().all(|kl| kl.abs() < 1e-6), "{:?}", loss.nll);
        Ok(())
    }
}
