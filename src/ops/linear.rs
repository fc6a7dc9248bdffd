//! Linear layers: plain, and with a low-rank adapter.
//!
//! y = x·Wᵀ + b, and with LoRA y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ (Hu et al., arXiv 2106.09685, eq. 3; `s` is
//! PEFT's `scaling`). What the tape does not track costs nothing in the backward: candle's own matmul would compute and
//! keep the gradient of every frozen weight.
//!
//! Shapes: x `(tokens, in)`, W `(out, in)`, b `(out)`, A `(r, in)`, B `(out, r)`, y `(tokens, out)`.

use candle_core::{Result, Tensor};

use super::kernels::cpu::{fused, tensor, view, written};
use super::kernels::mat::Mat;
use super::kernels::matmul::{Threads, matmul, product};
use super::kernels::transpose::transpose;
use super::tape::Tape;
use super::weight::Matrix;

/// x·Wᵀ + b, with gradients for x, W and b.
pub fn linear(x: &Tensor, weight: &Matrix, bias: Option<&Tensor>, tape: Tape) -> Result<Tensor> {
    if !fused(x.device()) {
        let weight = weight.dense()?;
        let inputs: Vec<&Tensor> = [x, &weight].into_iter().chain(bias).collect();
        return tape.composed(&inputs, |v| composed(&v[0], &v[1], v.get(2)));
    }
    let x = x.contiguous()?;
    let y = affine(&x, weight, bias)?;
    let bias = bias.filter(|b| tape.tracks(b)).map(|b| (b.id(), b.elem_count()));
    let (track_x, learns) = (tape.tracks(&x), weight.tracked(tape));
    if track_x || learns.is_some() || bias.is_some() {
        let (x_id, x_dims) = (x.id(), x.dims2()?);
        let weight = weight.clone();
        // x is needed for dW only.
        let learns = learns.map(|id| (id, tape.keep(&x)));
        tape.record(&y, move |gradient, into| {
            let gradient = gradient.contiguous()?;
            let g = view(&gradient)?;
            let (out, inp) = weight.dims2()?;
            let g = Mat::new(&g, x_dims.0, out);
            if track_x {
                let w = weight.view()?;
                into.add_with(x_id, x_dims, |dx, add| w.times(dx, add, g))?; // dx = g·W
            }
            if let Some((id, x)) = learns {
                let x = x.get()?;
                let xs = view(&x)?;
                into.add_with(id, (out, inp), |dw, add| {
                    matmul(dw, inp, add, 1.0, g.t(), Mat::new(&xs, x_dims.0, inp), Threads::All) // dW = gᵀ·x
                })?;
            }
            if let Some((b, out)) = bias {
                let ones = vec![1f32; x_dims.0];
                into.add_with(b, out, |db, add| {
                    matmul(db, out, add, 1.0, Mat::new(&ones, 1, x_dims.0), g, Threads::All) // db = Σ g
                })?;
            }
            Ok(())
        });
    }
    Ok(y)
}

/// x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ with gradients for x, A and B; W and b are not trained.
///
/// Without `weight` only the low-rank term (the path of a dropped-out input).
pub fn lora(
    x: &Tensor,
    weight: Option<&Matrix>,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    scaling: f64,
    tape: Tape,
) -> Result<Tensor> {
    if !fused(x.device()) {
        let weight = weight.map(Matrix::dense).transpose()?;
        let weight = weight.as_ref();
        return tape.composed(&[x, a, b], |v| lora_composed(&v[0], weight, bias, &v[1], &v[2], scaling));
    }
    let x = x.contiguous()?;
    let scaling = scaling as f32;
    let ((tokens, inp), (r, _), (out, _)) = (x.dims2()?, a.dims2()?, b.dims2()?);
    let (y, xa) = {
        let (xs, av, bv) = (view(&x)?, view(a)?, view(b)?);
        let xm = Mat::new(&xs, tokens, inp);
        let xa = product(1.0, xm, Mat::new(&av, r, inp).t(), Threads::All); // (tokens, r)
        let (xam, bt) = (Mat::new(&xa, tokens, r), Mat::new(&bv, out, r).t());
        let y = match weight {
            Some(weight) => {
                let mut y = affine_rows(xm, weight, bias)?;
                matmul(&mut y, out, true, scaling, xam, bt, Threads::All);
                y
            }
            None => product(scaling, xam, bt, Threads::All),
        };
        (tensor(y, (tokens, out))?, xa)
    };
    if tape.tracks(&x) || tape.tracks(a) || tape.tracks(b) {
        let (x_id, kept) = (x.id(), tape.keep(&x));
        let (weight, a, b) = (weight.cloned(), a.clone(), b.clone());
        tape.record(&y, move |gradient, into| {
            let (gradient, x) = (gradient.contiguous()?, kept.get()?);
            let (gs, xs, av, bv) = (view(&gradient)?, view(&x)?, view(&a)?, view(&b)?);
            let (g, xm) = (Mat::new(&gs, tokens, out), Mat::new(&xs, tokens, inp));
            let (am, bm) = (Mat::new(&av, r, inp), Mat::new(&bv, out, r));

            let u = product(scaling, g, bm, Threads::All); // u = s·g·B
            let um = Mat::new(&u, tokens, r);
            into.add_with(a.id(), (r, inp), |da, add| {
                matmul(da, inp, add, 1.0, um.t(), xm, Threads::All) // dA = uᵀ·x
            })?;
            into.add_with(b.id(), (out, r), |db, add| {
                // dB = s·gᵀ·(x·Aᵀ), from its few columns: read across, the wide g takes twice the time.
                let columns = product(scaling, Mat::new(&xa, tokens, r).t(), g, Threads::All); // (r, out)
                let rows = written(out * r, |rows| transpose(rows, r, Mat::new(&columns, r, out)));
                db.iter_mut().zip(rows).for_each(|(d, b)| *d = if add { *d + b } else { b });
            })?;
            let w = weight.as_ref().map(Matrix::view).transpose()?;
            into.add_with(x_id, (tokens, inp), |dx, add| {
                matmul(dx, inp, add, 1.0, um, am, Threads::All); // dx = u·A + g·W
                if let Some(w) = &w {
                    w.times(dx, true, g);
                }
            })
        });
    }
    Ok(y)
}

/// [`linear`] in candle's own ops.
pub fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    match bias {
        Some(b) => y.broadcast_add(b),
        None => Ok(y),
    }
}

/// [`lora`] in candle's own ops.
pub fn lora_composed(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    scaling: f64,
) -> Result<Tensor> {
    let delta = (x.matmul(&a.t()?)?.matmul(&b.t()?)? * scaling)?;
    match weight {
        Some(w) => composed(x, &w.detach(), bias)? + delta,
        None => Ok(delta),
    }
}

/// x·Wᵀ + b.
fn affine(x: &Tensor, weight: &Matrix, bias: Option<&Tensor>) -> Result<Tensor> {
    let ((tokens, inp), (out, _)) = (x.dims2()?, weight.dims2()?);
    let xs = view(x)?;
    tensor(affine_rows(Mat::new(&xs, tokens, inp), weight, bias)?, (tokens, out))
}

/// The elements of x·Wᵀ + b.
fn affine_rows(x: Mat, weight: &Matrix, bias: Option<&Tensor>) -> Result<Vec<f32>> {
    let (out, _) = weight.dims2()?;
    let weight = weight.view()?;
    Ok(match bias {
        Some(b) => {
            let mut y = view(b)?.repeat(x.rows());
            weight.times_transposed(&mut y, true, x);
            y
        }
        None => written(x.rows() * out, |y| weight.times_transposed(y, false, x)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, random};
    use super::*;

    #[test]
    fn linear_equals_composed_and_has_the_right_gradient() -> Result<()> {
        let v = [random(&[6, 5], 1)?, random(&[7, 5], 2)?, random(&[7], 3)?];
        for bias in [None, Some(&v[2])] {
            let w = Matrix::Dense(v[1].clone());
            assert_close(&linear(&v[0], &w, bias, Tape::OFF)?, &composed(&v[0], &v[1], bias)?, 1e-6)?;
            // x alone, as in a frozen layer; W alone, as in the lowest; both.
            assert_gradients(&v[..1], |x, tape| linear(&x[0], &w, bias, tape))?;
            assert_gradients(&v[1..2], |w, tape| linear(&v[0], &w[0].clone().into(), bias, tape))?;
            assert_gradients(&v[..2], |v, tape| linear(&v[0], &v[1].clone().into(), bias, tape))?;
        }
        assert_gradients(&v, |v, tape| linear(&v[0], &v[1].clone().into(), Some(&v[2]), tape))
    }

    #[test]
    fn lora_equals_composed_and_has_the_right_gradient() -> Result<()> {
        let (w, b) = (random(&[7, 5], 1)?, random(&[7], 2)?);
        let v = [random(&[6, 5], 3)?, random(&[2, 5], 4)?, random(&[7, 2], 5)?];
        let matrix = Matrix::Dense(w.clone());
        for (has_weight, b) in [(true, Some(&b)), (true, None), (false, None)] {
            let (w, dense) = (has_weight.then_some(&matrix), has_weight.then_some(&w));
            assert_close(
                &lora(&v[0], w, b, &v[1], &v[2], 1.75, Tape::OFF)?,
                &lora_composed(&v[0], dense, b, &v[1], &v[2], 1.75)?,
                1e-6,
            )?;
            assert_gradients(&v, |v, tape| lora(&v[0], w, b, &v[1], &v[2], 1.75, tape))?;
            assert_gradients(&v[1..], |ab, tape| lora(&v[0], w, b, &ab[0], &ab[1], 1.75, tape))?;
        }
        Ok(())
    }
}
