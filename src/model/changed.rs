//! A model with part of what finetuning changed in another one: its base, and in each linear layer of its blocks as much of
//! the change as is asked for.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::arch::layers::{Linear, Parameter};
use super::lora::low_rank::LowRank;
use super::update::{Update, effective};
use super::{CausalLm, View};
use crate::ops::weight::Matrix;

/// What a [`with_changes`] model is run with: its adapter is the changes.
pub const ON: f64 = 1.0;

/// `base` with `change` of what `tuned` has otherwise in each linear layer of its blocks: of a layer's block and name and of
/// dW = W_tuned − W_base it gives what is added to W_base instead; `None`: nothing. Layers that are alike in both are not
/// asked about. Embeddings, head, norms and biases are the base's. Memory that is not changed is shared. Run it at [`ON`].
///
/// # Errors
/// If the models have other layers, or a tensor operation or `change` fails.
pub fn with_changes(
    base: View,
    tuned: View,
    mut change: impl FnMut(usize, &'static str, Update) -> Result<Option<Update>>,
) -> Result<CausalLm> {
    let tuned_layers = tuned.model.modules().into_iter();
    let tuned_layers: BTreeMap<String, (usize, &'static str, &Linear)> = tuned_layers
        .map(|(block, module)| {
            (format!("model.layers.{block}.{}", module.name), (block, module.name, module.linear))
        })
        .collect();
    let mut fault = Ok(());
    let model = base.model.with_linears(|name, linear| {
        if fault.is_err() {
            return;
        }
        let mut changed = || -> Result<Linear> {
            let (block, name, of_tuned) = tuned_layers.get(name).context("the models have other layers")?;
            let update = Update::of_linear((linear, base.adapter), (of_tuned, tuned.adapter))?;
            let wanted = update.map(|update| change(*block, name, update)).transpose()?.flatten();
            changed_linear(linear, base.adapter, wanted, base.model.device())
        };
        match changed() {
            Ok(changed) => *linear = changed,
            Err(e) => fault = Err(e),
        }
    });
    fault?;
    Ok(model)
}

/// A layer with so much of its adapter and a change of its weight.
fn changed_linear(linear: &Linear, adapter: f64, update: Option<Update>, device: &Device) -> Result<Linear> {
    let has_term = adapter != 0.0 && linear.low_rank.is_some();
    let plain = match has_term {
        true => Matrix::Dense(effective((linear, adapter))?.to_device(device)?),
        false => linear.weight.at(adapter).clone(),
    };
    let whole = |base: Matrix| Parameter { base, saved: None };
    let bias = linear.bias.as_ref().map(|bias| Parameter { base: bias.at(adapter).clone(), saved: None });
    Ok(match update {
        None => Linear { weight: whole(plain), bias, low_rank: None },
        Some(Update::LowRank { b, a }) => {
            let [a, b] = [a.to_device(device)?, b.to_device(device)?];
            let term = LowRank { a, b, scaling: 1.0, dropout: 0.0, dora: None };
            Linear { weight: whole(plain), bias, low_rank: Some(term) }
        }
        Some(Update::Dense(difference)) => {
            let weight: Tensor = (plain.dense()? + difference.to_device(device)?)?;
            Linear { weight: whole(Matrix::Dense(weight)), bias, low_rank: None }
        }
    })
}

impl Update {
    /// The change so many times.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn scaled(self, factor: f64) -> Result<Self> {
        Ok(match self {
            Self::LowRank { b, a } => Self::LowRank { b: (b * factor)?, a },
            Self::Dense(difference) => Self::Dense((difference * factor)?),
        })
    }
}
