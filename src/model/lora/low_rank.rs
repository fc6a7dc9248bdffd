//! The low-rank term of a linear layer, as PEFT computes it.
//!
//! - LoRA (Hu et al., arXiv 2106.09685, eq. 3): y = x·Wᵀ + b + s·(x̃·Aᵀ)·Bᵀ. rsLoRA is another s
//!   ([`LoraConfig::scaling`](crate::model::lora::config::LoraConfig::scaling)).
//! - DoRA (Liu et al., arXiv 2402.09353, eq. 5): y = x·Wᵀ + b + (c − 1) ∘ (x̃·Wᵀ) + c ∘ s·(x̃·Aᵀ)·Bᵀ with
//!   c = m / ‖W + s·B·A‖, row by row ([`crate::ops::dora`]); with x̃ = x that is c ∘ ((W + s·B·A)·x) + b.
//!
//! x̃ is x with a share of its elements zeroed while training (dropout), else x. The operations and their
//! gradients are in `ops/linear.rs` and `ops/dora.rs`.

use candle_core::{Result, Tensor};

use crate::model::pass::Pass;
use crate::ops::add::{add, sub};
use crate::ops::dropout::dropout;
use crate::ops::weight::Matrix;
use crate::ops::{dora, linear};

/// The low-rank matrices of a layer and how they count.
#[derive(Clone)]
pub struct LowRank {
    /// `lora_A`, `(r, in)`.
    pub a: Tensor,
    /// `lora_B`, `(out, r)`.
    pub b: Tensor,
    /// The factor s.
    pub scaling: f64,
    /// Share of inputs that training zeroes.
    pub dropout: f64,
    /// What DoRA adds.
    pub dora: Option<Dora>,
}

/// The trained lengths of the rows.
#[derive(Clone)]
pub struct Dora {
    /// `lora_magnitude_vector` m, `(out)`.
    pub magnitude: Tensor,
    /// ‖W‖² of each row, `(out)`.
    weight_squared: Tensor,
    /// ‖W + s·B·A‖ of each row, `(out)`, where A and B stay as they are: one token should not pay for it.
    fixed_norm: Option<Tensor>,
}

impl Dora {
    /// DoRA for matrices that go on learning.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn learning(magnitude: Tensor, weight: &Matrix) -> Result<Self> {
        Ok(Self { magnitude, weight_squared: weight.per_row(dora::row_norms_squared)?, fixed_norm: None })
    }

    /// DoRA for finished matrices.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn finished(
        magnitude: Tensor,
        weight: &Matrix,
        a: &Tensor,
        b: &Tensor,
        scaling: f64,
    ) -> Result<Self> {
        let weight_squared = weight.per_row(dora::row_norms_squared)?;
        let norm = dora::updated_row_norms(weight, &weight_squared, a, b, scaling)?;
        Ok(Self { magnitude, weight_squared, fixed_norm: Some(norm) })
    }

    /// m before the first step: ‖W‖ of each row, `(out)`. (B is zero, so B·A adds nothing.)
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn initial_magnitude(weight: &Matrix) -> Result<Tensor> {
        weight.per_row(dora::row_norms_squared)?.sqrt()
    }
}

impl LowRank {
    /// The layer with its term: x `(tokens, in)` → `(tokens, out)`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn forward(
        &self,
        x: &Tensor,
        weight: &Matrix,
        bias: Option<&Tensor>,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        let scaling = self.scaling * pass.adapter;
        let (a, b, tape) = (&self.a, &self.b, pass.tape);
        let dora = match &self.dora {
            Some(dora) => {
                let norm = match &dora.fixed_norm {
                    Some(norm) if pass.adapter == 1.0 => norm.clone(),
                    _ => dora::updated_row_norms(weight, &dora.weight_squared, a, b, scaling)?,
                };
                Some((&dora.magnitude, norm))
            }
            None => None,
        };
        let dropped = match &mut pass.dropout {
            Some(rng) if self.dropout > 0.0 => Some(dropout(x, self.dropout, rng, tape)?),
            _ => None,
        };
        match (&dora, &dropped) {
            (None, None) => linear::lora(x, Some(weight), bias, a, b, scaling, tape),
            (None, Some(dropped)) => {
                let base = linear::linear(x, weight, bias, tape)?;
                add(&base, &linear::lora(dropped, None, None, a, b, scaling, tape)?, tape)
            }
            (Some((m, norm)), None) => dora::dora(x, weight, bias, a, b, scaling, m, norm, tape),
            (Some((m, norm)), Some(dropped)) => {
                let kept = linear::linear(&sub(x, dropped, tape)?, weight, bias, tape)?; // x·Wᵀ + b − x̃·Wᵀ
                add(&kept, &dora::dora(dropped, weight, None, a, b, scaling, m, norm, tape)?, tape)
            }
        }
    }
}

/// The weight `(out, in)` that computes alone what W computes with the term: W + s·B·A, with DoRA (m / ‖W + s·B·A‖)
/// ∘ (W + s·B·A), row by row.
///
/// # Errors
/// If a tensor operation fails.
pub fn merged(
    weight: &Tensor,
    a: &Tensor,
    b: &Tensor,
    scaling: f64,
    magnitude: Option<&Tensor>,
) -> Result<Tensor> {
    let updated = (weight + (b.matmul(a)? * scaling)?)?;
    match magnitude {
        Some(magnitude) => {
            let norm = dora::row_norms_squared(&updated)?.sqrt()?;
            updated.broadcast_mul(&(magnitude / norm)?.unsqueeze(1)?)
        }
        None => Ok(updated),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::hooks::NoHook;
    use crate::ops::segments::Segments;
    use crate::ops::tape::{Recording, Tape};

    const SCALING: f64 = 1.75; // alpha 7, r 4

    fn random(shape: (usize, usize), seed: u64) -> Tensor {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let data: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    /// x, W, b and a layer: LoRA or DoRA, finished or learning.
    fn layer(with_dora: bool, finished: bool, dropout: f64) -> (Tensor, Tensor, Tensor, LowRank) {
        let (x, w, bias) = (random((6, 8), 1), random((5, 8), 2), random((1, 5), 3).squeeze(0).unwrap());
        let (a, b) = (random((4, 8), 4), random((5, 4), 5));
        let m = random((1, 5), 6).squeeze(0).unwrap();
        let dora = with_dora.then(|| match finished {
            true => Dora::finished(m, &w.clone().into(), &a, &b, SCALING).unwrap(),
            false => Dora::learning(m, &w.clone().into()).unwrap(),
        });
        (x, w, bias, LowRank { a, b, scaling: SCALING, dropout, dora })
    }

    fn run(parts: &(Tensor, Tensor, Tensor, LowRank), adapter: f64, rng: Option<&mut ChaCha8Rng>) -> Tensor {
        let segments = Segments::new(vec![6]);
        let mut hook = NoHook;
        let mut pass = Pass { dropout: rng, ..Pass::new(&segments, adapter, &mut hook) };
        let (x, w, bias, layer) = parts;
        layer.forward(x, &w.clone().into(), Some(bias), &mut pass).unwrap()
    }

    #[test]
    fn merged_equals_unmerged_where_alpha_is_not_the_rank() {
        for (with_dora, finished) in [(false, true), (true, true), (true, false)] {
            let parts = layer(with_dora, finished, 0.0);
            let (x, w, bias, term) = &parts;
            let magnitude = term.dora.as_ref().map(|d| &d.magnitude);
            let merged = merged(w, &term.a, &term.b, SCALING, magnitude).unwrap();
            let want = linear::composed(x, &merged, Some(bias)).unwrap();
            let difference = largest_difference(&run(&parts, 1.0, None), &want);
            assert!(difference < 1e-5, "DoRA {with_dora}, finished {finished}: {difference}");
        }
    }

    #[test]
    fn another_factor_on_the_adapter_scales_the_update_as_in_peft_s_scale_layer() {
        for with_dora in [false, true] {
            let parts = layer(with_dora, true, 0.0);
            let (x, w, bias, term) = &parts;
            let magnitude = term.dora.as_ref().map(|d| &d.magnitude);
            let half = merged(w, &term.a, &term.b, SCALING / 2.0, magnitude).unwrap();
            let want = linear::composed(x, &half, Some(bias)).unwrap();
            assert!(largest_difference(&run(&parts, 0.5, None), &want) < 1e-5, "DoRA {with_dora}");
        }
    }

    /// y = x·Wᵀ + b + (c − 1) ∘ (x̃·Wᵀ) + c ∘ s·(x̃·Aᵀ)·Bᵀ, written out (LoRA: c = 1).
    #[test]
    fn dropout_reaches_what_it_reaches_in_peft() {
        for with_dora in [false, true] {
            let parts = layer(with_dora, false, 0.5);
            let (x, w, bias, term) = &parts;
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let dropped = dropout(x, 0.5, &mut rng.clone(), Tape::OFF).unwrap();
            let got = run(&parts, 1.0, Some(&mut rng));
            let low = (dropped.matmul(&term.a.t().unwrap()).unwrap().matmul(&term.b.t().unwrap()).unwrap()
                * SCALING)
                .unwrap();
            let base = linear::composed(x, w, Some(bias)).unwrap();
            let want = match &term.dora {
                None => (base + low).unwrap(),
                Some(dora) => {
                    let update = (w + (term.b.matmul(&term.a).unwrap() * SCALING).unwrap()).unwrap();
                    let norm = dora::row_norms_squared(&update).unwrap().sqrt().unwrap();
                    let c = (&dora.magnitude / norm).unwrap();
                    let on_base = linear::composed(&dropped, w, None).unwrap();
                    let on_base = on_base.broadcast_mul(&(&c - 1.0).unwrap()).unwrap();
                    ((base + on_base).unwrap() + low.broadcast_mul(&c).unwrap()).unwrap()
                }
            };
            assert!(largest_difference(&got, &want) < 1e-5, "DoRA {with_dora}");
        }
    }

    #[test]
    fn everything_that_learns_has_a_gradient() {
        let (x, w, bias, layer) = layer(true, false, 0.5);
        let magnitude = &layer.dora.as_ref().unwrap().magnitude;
        let recording = Recording::new([&layer.a, &layer.b, magnitude]);
        let segments = Segments::new(vec![6]);
        let (mut hook, mut rng) = (NoHook, ChaCha8Rng::seed_from_u64(0));
        let mut pass =
            Pass { tape: recording.tape(), dropout: Some(&mut rng), ..Pass::new(&segments, 1.0, &mut hook) };
        let y = layer.forward(&x, &w.into(), Some(&bias), &mut pass).unwrap();
        let mut gradients = recording.backward(&y).unwrap();
        assert!([&layer.a, &layer.b, magnitude].into_iter().all(|t| gradients.take(t).unwrap().is_some()));
    }
}
