//! Linear layers: frozen, trained, and frozen with a low-rank adapter.
//!
//! y = x·Wᵀ + b, and with LoRA y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ (Hu et al., arXiv 2106.09685, eq. 3; `s` is
//! PEFT's `scaling`). A frozen W stays outside the autograd graph: candle's own matmul would compute and
//! keep the gradient of every frozen weight.
//!
//! Shapes: x `(tokens, in)`, W `(out, in)`, b `(out)`, A `(r, in)`, B `(out, r)`, y `(tokens, out)`.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::cpu::{slice, view};
use super::matmul::{Mat, Threads, matmul};

/// x·Wᵀ + b with W and b outside the graph.
pub fn frozen(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed(x, &weight.detach(), bias);
    }
    x.contiguous()?.apply_op1(Frozen { weight: weight.detach(), bias: bias.cloned() })
}

/// x·Wᵀ + b, with gradients for x, W and b.
pub fn trained(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed(x, weight, bias);
    }
    add_bias(x.contiguous()?.apply_op2(weight, Trained)?, bias)
}

/// x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ with gradients for x, A and B; W and b outside the graph.
///
/// Without `weight` only the low-rank term (the path of a dropped-out input).
pub fn lora(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    scaling: f64,
) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return lora_composed(x, weight, bias, a, b, scaling);
    }
    let op = Lora { weight: weight.map(Tensor::detach), bias: bias.cloned(), scaling: scaling as f32 };
    x.contiguous()?.apply_op3(a, b, op)
}

/// [`trained`] in candle's own ops.
pub fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    add_bias(x.matmul(&weight.t()?)?, bias)
}

fn add_bias(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
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

/// `(tokens, out)` rows filled with the bias, or zeros.
fn bias_rows(bias: Option<&Tensor>, tokens: usize, out: usize) -> Result<Vec<f32>> {
    match bias {
        Some(b) => Ok(view(b)?.repeat(tokens)),
        None => Ok(vec![0f32; tokens * out]),
    }
}

struct Frozen {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (out, inp) = self.weight.dims2()?;
        let x = slice(s, l)?;
        let tokens = x.len() / inp;
        let mut y = bias_rows(self.bias.as_ref(), tokens, out)?;
        let w = view(&self.weight)?;
        let x = Mat::new(x, tokens, inp);
        matmul(&mut y, out, self.bias.is_some(), 1.0, x, Mat::new(&w, out, inp).t(), Threads::All);
        Ok((CpuStorage::F32(y), Shape::from((tokens, out))))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        input_gradient(x, &self.weight, grad).map(Some)
    }
}

/// dx = g·W.
fn input_gradient(x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let (out, inp) = weight.dims2()?;
    let grad = grad.contiguous()?;
    let (g, w) = (view(&grad)?, view(weight)?);
    let tokens = g.len() / out;
    let mut dx = vec![0f32; tokens * inp];
    matmul(&mut dx, inp, false, 1.0, Mat::new(&g, tokens, out), Mat::new(&w, out, inp), Threads::All);
    super::cpu::tensor(dx, x)
}

struct Trained;

impl CustomOp2 for Trained {
    fn name(&self) -> &'static str {
        "trained-linear"
    }

    fn cpu_fwd(
        &self,
        sx: &CpuStorage,
        lx: &Layout,
        sw: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (out, inp) = lw.shape().dims2()?;
        let (x, w) = (slice(sx, lx)?, slice(sw, lw)?);
        let tokens = x.len() / inp;
        let mut y = vec![0f32; tokens * out];
        matmul(&mut y, out, false, 1.0, Mat::new(x, tokens, inp), Mat::new(w, out, inp).t(), Threads::All);
        Ok((CpuStorage::F32(y), Shape::from((tokens, out))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let dx = match x.track_op() {
            true => Some(input_gradient(x, w, &grad)?),
            false => None,
        };
        let (out, inp) = w.dims2()?;
        let (g, xs) = (view(&grad)?, view(x)?);
        let tokens = g.len() / out;
        let mut dw = vec![0f32; out * inp]; // dW = gᵀ·x
        matmul(
            &mut dw,
            inp,
            false,
            1.0,
            Mat::new(&g, tokens, out).t(),
            Mat::new(&xs, tokens, inp),
            Threads::All,
        );
        Ok((dx, Some(super::cpu::tensor(dw, w)?)))
    }
}

struct Lora {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    scaling: f32,
}

impl CustomOp3 for Lora {
    fn name(&self) -> &'static str {
        "lora-linear"
    }

    fn cpu_fwd(
        &self,
        sx: &CpuStorage,
        lx: &Layout,
        sa: &CpuStorage,
        la: &Layout,
        sb: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (r, inp) = la.shape().dims2()?;
        let (out, _) = lb.shape().dims2()?;
        let (x, a, b) = (slice(sx, lx)?, slice(sa, la)?, slice(sb, lb)?);
        let tokens = x.len() / inp;
        let x = Mat::new(x, tokens, inp);
        let mut y = bias_rows(self.bias.as_ref(), tokens, out)?;
        if let Some(weight) = &self.weight {
            let w = view(weight)?;
            matmul(&mut y, out, self.bias.is_some(), 1.0, x, Mat::new(&w, out, inp).t(), Threads::All);
        }
        let mut xa = vec![0f32; tokens * r]; // x·Aᵀ
        matmul(&mut xa, r, false, 1.0, x, Mat::new(a, r, inp).t(), Threads::All);
        let (xa, b) = (Mat::new(&xa, tokens, r), Mat::new(b, out, r));
        matmul(&mut y, out, true, self.scaling, xa, b.t(), Threads::All);
        Ok((CpuStorage::F32(y), Shape::from((tokens, out))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (r, inp) = a.dims2()?;
        let (out, _) = b.dims2()?;
        let grad = grad.contiguous()?;
        let (gs, xs, av, bv) = (view(&grad)?, view(x)?, view(a)?, view(b)?);
        let tokens = gs.len() / out;
        let (g, xm) = (Mat::new(&gs, tokens, out), Mat::new(&xs, tokens, inp));
        let (am, bm) = (Mat::new(&av, r, inp), Mat::new(&bv, out, r));

        let mut u = vec![0f32; tokens * r]; // u = s·g·B
        matmul(&mut u, r, false, self.scaling, g, bm, Threads::All);
        let um = Mat::new(&u, tokens, r);
        let mut da = vec![0f32; r * inp]; // dA = uᵀ·x
        matmul(&mut da, inp, false, 1.0, um.t(), xm, Threads::All);
        // x·Aᵀ again: cheaper to compute than to keep, r is small.
        let mut xa = vec![0f32; tokens * r];
        matmul(&mut xa, r, false, 1.0, xm, am.t(), Threads::All);
        let mut db = vec![0f32; out * r]; // dB = s·gᵀ·(x·Aᵀ)
        matmul(&mut db, r, false, self.scaling, g.t(), Mat::new(&xa, tokens, r), Threads::All);

        // The lowest adapted layer has nothing below it that learns: no input gradient.
        let dx = if x.track_op() {
            let mut dx = vec![0f32; tokens * inp]; // dx = g·W + u·A
            if let Some(weight) = &self.weight {
                let w = view(weight)?;
                matmul(&mut dx, inp, false, 1.0, g, Mat::new(&w, out, inp), Threads::All);
            }
            matmul(&mut dx, inp, true, 1.0, um, am, Threads::All);
            Some(super::cpu::tensor(dx, x)?)
        } else {
            None
        };
        Ok((dx, Some(super::cpu::tensor(da, a)?), Some(super::cpu::tensor(db, b)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, random};
    use super::*;

    #[test]
    fn frozen_equals_composed_and_has_the_right_gradient() -> Result<()> {
        let (w, b) = (random(&[7, 5], 1)?, random(&[7], 2)?);
        for bias in [None, Some(b.as_tensor())] {
            let x = random(&[6, 5], 3)?;
            assert_close(&frozen(&x, &w, bias)?, &composed(&x, &w, bias)?, 1e-6)?;
            assert_gradients(&[x], |v| frozen(&v[0], &w, bias))?;
        }
        Ok(())
    }

    #[test]
    fn trained_equals_composed_and_has_the_right_gradient() -> Result<()> {
        let vars = [random(&[6, 5], 1)?, random(&[7, 5], 2)?, random(&[7], 3)?];
        assert_close(
            &trained(&vars[0], &vars[1], Some(&vars[2]))?,
            &composed(&vars[0], &vars[1], Some(&vars[2]))?,
            1e-6,
        )?;
        assert_gradients(&vars, |v| trained(&v[0], &v[1], Some(&v[2])))
    }

    #[test]
    fn lora_equals_composed_and_has_the_right_gradient() -> Result<()> {
        let (w, b) = (random(&[7, 5], 1)?, random(&[7], 2)?);
        let vars = [random(&[6, 5], 3)?, random(&[2, 5], 4)?, random(&[7, 2], 5)?];
        for (w, b) in [(Some(w.as_tensor()), Some(b.as_tensor())), (Some(w.as_tensor()), None), (None, None)]
        {
            assert_close(
                &lora(&vars[0], w, b, &vars[1], &vars[2], 1.75)?,
                &lora_composed(&vars[0], w, b, &vars[1], &vars[2], 1.75)?,
                1e-6,
            )?;
            assert_gradients(&vars, |v| lora(&v[0], w, b, &v[1], &v[2], 1.75))?;
        }
        Ok(())
    }
}
