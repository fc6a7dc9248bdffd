//! What finetuning did to a weight matrix: dW = W_tuned − W_base.

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::arch::layers::Linear;
use super::lora::low_rank::merged;
use crate::ops::weight::Matrix;

/// dW `(out, in)` of one matrix, on the CPU.
#[derive(Debug, Clone)]
pub enum Update {
    /// dW = B·A.
    LowRank {
        /// `(out, r)`, with the factor s in it.
        b: Tensor,
        /// `(r, in)`.
        a: Tensor,
    },
    /// dW itself.
    Dense(Tensor),
}

impl Update {
    /// dW of a linear layer, each side with so much of its adapter; `None` where it is exactly zero. It is of low rank where
    /// both sides share W and add LoRA terms at most (of two terms the ranks add up); DoRA, modules that are saved whole
    /// and two models give it dense.
    ///
    /// # Errors
    /// If the shapes differ, or there is no memory.
    pub fn of_linear(base: (&Linear, f64), tuned: (&Linear, f64)) -> Result<Option<Self>> {
        let weight = |(linear, adapter): (&Linear, f64)| linear.weight.at(adapter).clone();
        let (w_base, w_tuned) = (weight(base), weight(tuned));
        let has_dora = |(linear, adapter): (&Linear, f64)| {
            adapter != 0.0 && linear.low_rank.as_ref().is_some_and(|term| term.dora.is_some())
        };
        if has_dora(base) || has_dora(tuned) || !same(&w_base, &w_tuned)? {
            return Self::between(&effective(base)?, &effective(tuned)?);
        }
        let mut terms: Vec<(Tensor, Tensor)> = Vec::new();
        for ((linear, adapter), sign) in [(tuned, 1.0), (base, -1.0)] {
            let Some(term) = linear.low_rank.as_ref().filter(|_| adapter != 0.0) else { continue };
            let b = (on_cpu(&term.b)? * (sign * term.scaling * adapter))?;
            terms.push((b, on_cpu(&term.a)?));
        }
        if terms
            .iter()
            .map(|(b, a)| Ok(is_zero(b)? || is_zero(a)?))
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|z| *z)
        {
            return Ok(None);
        }
        let (b, a): (Vec<Tensor>, Vec<Tensor>) = terms.into_iter().unzip();
        let (b, a) = (Tensor::cat(&b, 1)?, Tensor::cat(&a, 0)?);
        Ok(Some(Self::LowRank { b, a }))
    }

    /// dW of a table, as of embeddings; `None` where it is exactly zero.
    ///
    /// # Errors
    /// If the shapes differ, or there is no memory.
    pub fn of_table(base: &Matrix, tuned: &Matrix) -> Result<Option<Self>> {
        match same(base, tuned)? {
            true => Ok(None),
            false => Self::between(&on_cpu(&base.dense()?)?, &on_cpu(&tuned.dense()?)?),
        }
    }

    fn between(base: &Tensor, tuned: &Tensor) -> Result<Option<Self>> {
        let difference = (tuned - base)?;
        Ok((!is_zero(&difference)?).then_some(Self::Dense(difference)))
    }

    /// dW as one matrix `(out, in)`.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn dense(&self) -> Result<Tensor> {
        match self {
            Self::LowRank { b, a } => Ok(b.matmul(a)?),
            Self::Dense(difference) => Ok(difference.clone()),
        }
    }
}

/// The one matrix `(out, in)` that computes what the layer computes with so much of its adapter.
pub(super) fn effective((linear, adapter): (&Linear, f64)) -> Result<Tensor> {
    let weight = on_cpu(&linear.weight.at(adapter).dense()?)?;
    let Some(term) = linear.low_rank.as_ref().filter(|_| adapter != 0.0) else { return Ok(weight) };
    let magnitude = term.dora.as_ref().map(|dora| on_cpu(&dora.magnitude)).transpose()?;
    let (a, b) = (on_cpu(&term.a)?, on_cpu(&term.b)?);
    Ok(merged(&weight, &a, &b, term.scaling * adapter, magnitude.as_ref())?)
}

fn on_cpu(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.detach().to_device(&Device::Cpu)?)
}

fn is_zero(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|x| *x == 0.0))
}

/// Rows that are compared at once.
const ROWS_AT_ONCE: usize = 1_024;

/// Whether two matrices hold the same numbers.
///
/// # Errors
/// If there is no memory.
pub fn same(a: &Matrix, b: &Matrix) -> Result<bool> {
    match (a, b) {
        (Matrix::Dense(a), Matrix::Dense(b)) if a.id() == b.id() => return Ok(true),
        (Matrix::Packed(a), Matrix::Packed(b)) if std::sync::Arc::ptr_eq(a, b) => return Ok(true),
        _ if a.dims() != b.dims() => return Ok(false),
        _ => {}
    }
    // Some rows at a time: embeddings in f32 may be larger than the model.
    let ids: Vec<u32> = (0..a.dims()[0] as u32).collect();
    for ids in ids.chunks(ROWS_AT_ONCE) {
        let numbers =
            |m: &Matrix| -> Result<Vec<f32>> { Ok(on_cpu(&m.rows(ids)?)?.flatten_all()?.to_vec1()?) };
        if numbers(a)? != numbers(b)? {
            return Ok(false);
        }
    }
    Ok(true)
}
