//! One AdamW update (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2), in the arithmetic of `torch.optim.AdamW`.
//!
//! m ← β₁·m + (1 − β₁)·g,  v ← β₂·v + (1 − β₂)·g²,
//! w ← (1 − η·λ)·w − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε).

use candle_core::{Result, Tensor, Var};
use rayon::prelude::*;

use super::kernels::cpu::{TASK, fused, view, with_mut};
use super::kernels::exp::vectorized;

/// The numbers of one update.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// β₁, the decay of the first moment.
    pub beta1: f64,
    /// β₂, the decay of the second moment.
    pub beta2: f64,
    /// ε under the fraction.
    pub eps: f64,
    /// λ, the share of the weight that decays per unit of learning rate.
    pub weight_decay: f64,
    /// η, the learning rate.
    pub lr: f64,
    /// Factor on the gradient first: clipping.
    pub factor: f64,
    /// t, counted from 1.
    pub step: i32,
}

impl AdamWStep {
    /// Changes a weight and its moments in place.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn update(&self, weight: &Var, m: &mut Tensor, v: &mut Tensor, gradient: &Tensor) -> Result<()> {
        if !fused(weight.device()) {
            return self.composed(weight, m, v, gradient);
        }
        let n = weight.elem_count();
        if [&*m, &*v, gradient].iter().any(|t| t.elem_count() != n) {
            candle_core::bail!("a weight of {n} elements and a gradient of {}", gradient.elem_count())
        }
        let gradient = gradient.contiguous()?;
        let g = view(&gradient)?;
        let g: &[f32] = &g;
        // Three results, one inside the other.
        with_mut(weight.as_tensor(), |w| with_mut(m, |m| with_mut(v, |v| self.walk(w, m, v, g))))???;
        Ok(())
    }

    fn walk(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        let (b1, b2) = (self.beta1 as f32, self.beta2 as f32);
        let (c1, c2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let (factor, eps) = (self.factor as f32, self.eps as f32);
        let root = (1.0 / (1.0 - self.beta2.powi(self.step)).sqrt()) as f32;
        let rate = (self.lr / (1.0 - self.beta1.powi(self.step))) as f32;
        let keep = (1.0 - self.lr * self.weight_decay) as f32;
        let chunks = w.par_chunks_mut(TASK).zip(m.par_chunks_mut(TASK)).zip(v.par_chunks_mut(TASK));
        chunks.zip(g.par_chunks(TASK)).for_each(|(((w, m), v), g)| {
            vectorized!({
                for (((w, m), v), g) in w.iter_mut().zip(m.iter_mut()).zip(v.iter_mut()).zip(g) {
                    let g = g * factor;
                    *m = *m * b1 + g * c1;
                    *v = *v * b2 + g * g * c2;
                    *w = *w * keep - *m / (v.sqrt() * root + eps) * rate;
                }
            })
        });
    }

    /// [`Self::update`] in candle's own ops.
    fn composed(&self, weight: &Var, m: &mut Tensor, v: &mut Tensor, gradient: &Tensor) -> Result<()> {
        let g = (gradient * self.factor)?;
        *m = ((&*m * self.beta1)? + (&g * (1.0 - self.beta1))?)?;
        *v = ((&*v * self.beta2)? + (g.sqr()? * (1.0 - self.beta2))?)?;
        let root = (1.0 - self.beta2.powi(self.step)).sqrt();
        let rate = self.lr / (1.0 - self.beta1.powi(self.step));
        let update = ((&*m / ((v.sqrt()? / root)? + self.eps)?)? * rate)?;
        weight.set(&((weight.as_detached_tensor() * (1.0 - self.lr * self.weight_decay))? - update)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, random};
    use super::*;

    #[test]
    fn equals_composed_over_several_steps() -> Result<()> {
        let start = random(&[40, 700], 1)?; // several tasks
        let (ours, theirs) = (Var::from_tensor(&start)?, Var::from_tensor(&start)?);
        let zeros = || start.zeros_like();
        let (mut m, mut v, mut mc, mut vc) = (zeros()?, zeros()?, zeros()?, zeros()?);
        for step in 1..=5 {
            let g = random(&[40, 700], 10 + step as u64)?;
            let adamw = AdamWStep {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.1,
                lr: 0.01,
                factor: 0.5,
                step,
            };
            adamw.update(&ours, &mut m, &mut v, &g)?;
            adamw.composed(&theirs, &mut mc, &mut vc, &g)?;
        }
        assert_close(&ours, &theirs, 1e-6)?;
        assert_close(&m, &mc, 1e-6)?;
        assert_close(&v, &vc, 1e-6)
    }
}
