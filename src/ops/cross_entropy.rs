//! Cross-entropy of next tokens straight from hidden states, without ever holding all logits.
//!
//! With z = cap(h·Wᵀ): loss = Σ_t w_t·(log Σ_v e^{z_tv} − z_{t,y_t}), and ∂loss/∂z = w_t·(softmax(z_t) −
//! onehot(y_t)). A chunk of tokens at a time computes its logits, its loss and, while they are there, the
//! gradient of h (and of W where W is trained): what Liger Kernel's fused linear cross-entropy does
//! (arXiv 2410.10989, §3.2). A token of weight 0 costs nothing.
//!
//! Shapes: h `(tokens, hidden)`, W `(vocab, hidden)`.

use std::cell::RefCell;

use candle_core::{D, Result, Tensor, bail};
use rayon::prelude::*;

use super::kernels::cpu::{fused, view, written};
use super::kernels::exp::{exp_row, tanh, vectorized};
use super::kernels::mat::Mat;
use super::kernels::matmul::{Threads, matmul};
use super::tape::Tape;
use super::weight::Matrix;

/// Bytes that the logits of one chunk of tokens may take, unless they are as few as they may be.
const CHUNK_BYTES: usize = 24 << 20;

/// Fewest tokens of a chunk where a matrix has to be decoded for every chunk, or its gradient added to: with fewer, that takes
/// longer than multiplying.
const LEAST_ROWS: usize = 128;

/// Fewest tokens of a chunk where a matrix is only multiplied by. Such chunks are as fast, owed to [`super::kernels::few_rows`] and
/// [`super::kernels::panels`], and each thread holds one beside all that the batch keeps.
const LEAST_ROWS_MULTIPLIED: usize = 64;

/// Tokens of a chunk.
fn chunk(weight: &Matrix, vocab: usize, tape: Tape) -> usize {
    let only_multiplied = matches!(weight, Matrix::Dense(_)) && weight.tracked(tape).is_none();
    let least = if only_multiplied { LEAST_ROWS_MULTIPLIED } else { LEAST_ROWS };
    (CHUNK_BYTES / (4 * vocab.max(1))).max(least)
}

/// Bytes that the logits of a chunk take at most.
pub fn logits_bytes(vocab: usize) -> usize {
    CHUNK_BYTES.max(4 * vocab * LEAST_ROWS)
}

/// What each row predicts and how much it counts.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The token that should follow, per row of h.
    pub ids: Vec<u32>,
    /// Weight of the row in the loss; 0 leaves it out.
    pub weights: Vec<f32>,
}

/// A loss and its parts.
pub struct Loss {
    /// Σ_t w_t·nll_t, a scalar on the tape.
    pub total: Tensor,
    /// Negative log-likelihood in nats of every row, 0 where the weight is 0.
    pub nll: Vec<f32>,
}

/// Weighted sum of next-token losses, with gradients for `hidden` and, if it is trained, for `weight`.
pub fn linear_cross_entropy(
    hidden: &Tensor,
    weight: &Matrix,
    targets: &Targets,
    softcap: Option<f32>,
    tape: Tape,
) -> Result<Loss> {
    let (tokens, _) = hidden.dims2()?;
    let (vocab, _) = weight.dims2()?;
    if targets.ids.len() != tokens || targets.weights.len() != tokens {
        bail!("{tokens} rows but {} targets", targets.ids.len())
    }
    if let Some(id) = targets.ids.iter().find(|id| **id as usize >= vocab) {
        bail!("target {id} is outside the vocabulary of {vocab}")
    }
    if !fused(hidden.device()) {
        let nll = RefCell::default();
        let total = tape.composed(&[hidden, &weight.dense()?], |v| {
            let loss = composed(&v[0], &v[1], targets, softcap)?;
            nll.replace(loss.nll);
            Ok(loss.total)
        })?;
        return Ok(Loss { total, nll: nll.take() });
    }
    in_chunks(&hidden.contiguous()?, weight, targets, softcap, chunk(weight, vocab, tape), tape)
}

/// [`linear_cross_entropy`] on the CPU, `chunk` rows at a time.
fn in_chunks(
    hidden: &Tensor,
    weight: &Matrix,
    targets: &Targets,
    softcap: Option<f32>,
    chunk: usize,
    tape: Tape,
) -> Result<Loss> {
    let learns = weight.tracked(tape);
    let wanted = (tape.tracks(hidden), learns.is_some());
    let (nll, dh, dw) = walk(hidden, weight, targets, softcap, chunk, wanted)?;
    let total = nll.iter().zip(&targets.weights).map(|(n, w)| *n as f64 * *w as f64).sum::<f64>() as f32;
    let total = Tensor::new(total, hidden.device())?;
    let (hidden_dims, weight_dims) = (hidden.dims2()?, weight.dims2()?);
    let of_hidden = dh.map(|dh| (hidden.id(), dh, hidden_dims));
    let of_weight = learns.zip(dw).map(|(id, dw)| (id, dw, weight_dims));
    tape.record_known(&total, of_hidden.into_iter().chain(of_weight).collect());
    Ok(Loss { total, nll })
}

/// [`linear_cross_entropy`] in candle's own ops, all logits at once.
pub fn composed(hidden: &Tensor, weight: &Tensor, targets: &Targets, softcap: Option<f32>) -> Result<Loss> {
    let mut z = hidden.matmul(&weight.t()?)?;
    if let Some(cap) = softcap {
        z = ((z / cap as f64)?.tanh()? * cap as f64)?;
    }
    let device = hidden.device();
    let ids = Tensor::from_slice(&targets.ids, (targets.ids.len(), 1), device)?;
    let weights = Tensor::from_slice(&targets.weights, targets.weights.len(), device)?;
    let nll = candle_nn::ops::log_softmax(&z, D::Minus1)?.gather(&ids, 1)?.squeeze(1)?.neg()?;
    let kept = nll.to_vec1::<f32>()?;
    let nll_kept = kept.iter().zip(&targets.weights).map(|(n, w)| if *w == 0.0 { 0.0 } else { *n }).collect();
    Ok(Loss { total: (nll * weights)?.sum_all()?, nll: nll_kept })
}

/// Negative log-likelihoods, and where wanted ∂loss/∂h `(tokens, hidden)` and ∂loss/∂W `(vocab, hidden)`.
#[allow(clippy::type_complexity)]
fn walk(
    hidden: &Tensor,
    weight: &Matrix,
    targets: &Targets,
    softcap: Option<f32>,
    chunk: usize,
    (need_dh, need_dw): (bool, bool),
) -> Result<(Vec<f32>, Option<Vec<f32>>, Option<Vec<f32>>)> {
    let (tokens, width) = hidden.dims2()?;
    let (vocab, _) = weight.dims2()?;
    let (hs, w) = (view(hidden)?, weight.view()?);

    let active: Vec<usize> = (0..tokens).filter(|t| targets.weights[*t] != 0.0).collect();
    let mut nll = vec![0f32; tokens];
    let mut dh = need_dh.then(|| vec![0f32; tokens * width]);
    let mut dw = need_dw.then(|| vec![0f32; vocab * width]);
    for rows in active.chunks(chunk.max(1)) {
        let h: Vec<f32> = rows.iter().flat_map(|t| hs[t * width..(t + 1) * width].iter().copied()).collect();
        let h = Mat::new(&h, rows.len(), width);
        let mut logits = written(rows.len() * vocab, |z| w.times_transposed(z, false, h));
        let losses: Vec<f32> = logits
            .par_chunks_mut(vocab)
            .zip(rows)
            .map(|(z, &t)| {
                row_loss(z, targets.ids[t] as usize, targets.weights[t], softcap, need_dh || need_dw)
            })
            .collect();
        for (&t, loss) in rows.iter().zip(losses) {
            nll[t] = loss;
        }
        let dz = Mat::new(&logits, rows.len(), vocab);
        if let Some(dh) = &mut dh {
            let dh_chunk = written(rows.len() * width, |dh| w.times(dh, false, dz));
            for (&t, row) in rows.iter().zip(dh_chunk.chunks_exact(width)) {
                dh[t * width..(t + 1) * width].copy_from_slice(row);
            }
        }
        if let Some(dw) = &mut dw {
            matmul(dw, width, true, 1.0, dz.t(), h, Threads::All);
        }
    }
    Ok((nll, dh, dw))
}

/// The loss of one row; turns its logits into weight · ∂nll/∂(logits before the cap) when asked.
fn row_loss(z: &mut [f32], target: usize, weight: f32, softcap: Option<f32>, want_gradient: bool) -> f32 {
    vectorized!({
        let slope: Option<Vec<f32>> = softcap.map(|cap| {
            z.iter_mut()
                .map(|z| {
                    let t = tanh(*z / cap);
                    *z = cap * t;
                    1.0 - t * t
                })
                .collect()
        });
        let at_target = z[target];
        let (max, sum) = exp_row(z);
        let loss = max + sum.ln() - at_target;
        if want_gradient {
            let factor = weight / sum;
            z.iter_mut().for_each(|p| *p *= factor);
            z[target] -= weight;
            if let Some(slope) = slope {
                z.iter_mut().zip(&slope).for_each(|(z, s)| *z *= s);
            }
        }
        loss
    })
}

#[cfg(test)]
mod tests {
    use super::super::tape::Recording;
    use super::super::testing::{assert_close, assert_gradients, gradients, random};
    use super::*;

    fn targets() -> Targets {
        Targets { ids: vec![3, 0, 10, 2, 7], weights: vec![0.5, 0.0, 1.0, 2.0, 0.25] }
    }

    #[test]
    fn equals_composed_and_has_the_right_gradient() -> Result<()> {
        for softcap in [None, Some(0.9)] {
            let vars = [random(&[5, 6], 1)?, random(&[11, 6], 2)?];
            let fused =
                linear_cross_entropy(&vars[0], &vars[1].clone().into(), &targets(), softcap, Tape::OFF)?;
            let composed = composed(&vars[0], &vars[1], &targets(), softcap)?;
            assert_close(&fused.total, &composed.total, 1e-5)?;
            for (a, b) in fused.nll.iter().zip(&composed.nll) {
                assert!((a - b).abs() < 1e-5);
            }
            assert_gradients(&vars, |v, tape| {
                Ok(linear_cross_entropy(&v[0], &v[1].clone().into(), &targets(), softcap, tape)?.total)
            })?;
        }
        Ok(())
    }

    #[test]
    fn chunks_join_without_a_seam_capped_or_not() -> Result<()> {
        // Chunks of one, two and three of the four rows that count, the last one shorter.
        for (softcap, rows) in [None, Some(0.9)].into_iter().flat_map(|cap| [1, 2, 3].map(|n| (cap, n))) {
            let vars = [random(&[5, 6], 1)?, random(&[11, 6], 2)?];
            let chunked = |v: &[Tensor], tape: Tape| {
                in_chunks(&v[0], &v[1].clone().into(), &targets(), softcap, rows, tape)
            };
            let whole = |v: &[Tensor], tape: Tape| {
                tape.composed(&[&v[0], &v[1]], |v| Ok(composed(&v[0], &v[1], &targets(), softcap)?.total))
            };
            let (ours, theirs) =
                (chunked(&vars, Tape::OFF)?, composed(&vars[0], &vars[1], &targets(), softcap)?);
            assert_close(&ours.total, &theirs.total, 1e-5)?;
            for (a, b) in ours.nll.iter().zip(&theirs.nll) {
                assert!((a - b).abs() < 1e-5);
            }
            let ours = gradients(&vars, |v, tape| Ok(chunked(v, tape)?.total))?;
            for (ours, theirs) in ours.iter().zip(&gradients(&vars, whole)?) {
                assert_close(ours, theirs, 1e-5)?;
            }
            assert_gradients(&vars, |v, tape| Ok(chunked(v, tape)?.total))?;
        }
        Ok(())
    }

    #[test]
    fn a_frozen_head_gets_no_gradient_and_rows_of_weight_zero_none_either() -> Result<()> {
        let (h, w) = (random(&[5, 6], 1)?, random(&[11, 6], 2)?);
        let recording = Recording::new([&h]);
        let loss = linear_cross_entropy(&h, &w.clone().into(), &targets(), None, recording.tape())?;
        let mut grads = recording.backward(&loss.total)?;
        assert!(grads.take(&w)?.is_none());
        let dh = grads.take(&h)?.expect("h is trained").to_vec2::<f32>()?;
        assert!(dh[1].iter().all(|g| *g == 0.0) && dh[0].iter().any(|g| *g != 0.0));
        Ok(())
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_an_error() -> Result<()> {
        let (h, w) = (random(&[1, 6], 1)?, random(&[11, 6], 2)?);
        let bad = Targets { ids: vec![11], weights: vec![1.0] };
        assert!(linear_cross_entropy(&h, &w.into(), &bad, None, Tape::OFF).is_err());
        Ok(())
    }
}
