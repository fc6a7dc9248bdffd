//! AdamW with its moments in the open, so that a run can be resumed to the byte.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;

use crate::model::trainables::Trainables;
use crate::ops::add::add_into;
use crate::ops::{adamw, norm, tape};

/// Gradients by name, in the order of the names.
pub type NamedGradients = BTreeMap<String, Tensor>;

/// AdamW over named weights ([`adamw::AdamWStep`] is the update of one).
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    /// Updates done.
    step: usize,
    /// First and second moment by name.
    moments: BTreeMap<String, (Tensor, Tensor)>,
}

impl AdamW {
    /// Zero moments for every trainable.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn new(trainables: &Trainables, beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for (name, var) in trainables {
            moments.insert(name.clone(), (var.zeros_like()?, var.zeros_like()?));
        }
        Ok(Self { beta1, beta2, eps, weight_decay, step: 0, moments })
    }

    /// One update with gradients for every trainable, each first scaled by `factor`.
    ///
    /// # Errors
    /// If a gradient is missing or a tensor operation fails.
    pub fn step(
        &mut self,
        trainables: &Trainables,
        gradients: &NamedGradients,
        lr: f64,
        factor: f64,
    ) -> Result<()> {
        self.step += 1;
        let Self { beta1, beta2, eps, weight_decay, .. } = *self;
        let adamw = adamw::AdamWStep { beta1, beta2, eps, weight_decay, lr, factor, step: self.step as i32 };
        for (name, var) in trainables {
            let gradient = gradients.get(name).with_context(|| format!("{name}: no gradient"))?;
            let (m, v) = self.moments.get_mut(name).with_context(|| format!("{name}: no moments"))?;
            adamw.update(var, m, v, gradient)?;
        }
        Ok(())
    }

    /// Moments under `<name>.exp_avg` and `<name>.exp_avg_sq` (torch's names).
    pub fn state(&self) -> (usize, BTreeMap<String, Tensor>) {
        let mut tensors = BTreeMap::new();
        for (name, (m, v)) in &self.moments {
            tensors.insert(format!("{name}.exp_avg"), m.clone());
            tensors.insert(format!("{name}.exp_avg_sq"), v.clone());
        }
        (self.step, tensors)
    }

    /// Puts a saved state back.
    ///
    /// # Errors
    /// If a moment is missing or of another shape.
    pub fn restore(&mut self, step: usize, mut tensors: BTreeMap<String, Tensor>) -> Result<()> {
        for (name, (m, v)) in &mut self.moments {
            for (slot, key) in [(m, format!("{name}.exp_avg")), (v, format!("{name}.exp_avg_sq"))] {
                let saved = tensors.remove(&key).with_context(|| format!("{key}: missing"))?;
                ensure!(
                    saved.dims() == slot.dims(),
                    "{key}: shape {:?}, expected {:?}",
                    saved.dims(),
                    slot.dims()
                );
                *slot = saved.to_device(slot.device())?;
            }
        }
        ensure!(tensors.is_empty(), "unknown moments: {:?}", tensors.keys());
        self.step = step;
        Ok(())
    }
}

/// Adds the gradients of one backward pass of the whole model to `sum`.
///
/// # Errors
/// If a trainable has no gradient: it would silently stay as it is.
pub fn accumulate(
    sum: &mut NamedGradients,
    trainables: &Trainables,
    gradients: tape::Gradients,
) -> Result<()> {
    let missing = add(sum, trainables, gradients)?;
    ensure!(missing.is_empty(), "trained, but without a gradient: {}", missing.join(", "));
    Ok(())
}

/// Adds the gradients of one backward pass to `sum`; names the trainables that it does not reach.
///
/// # Errors
/// If a tensor operation fails.
pub fn add<'t>(
    sum: &mut NamedGradients,
    trainables: &'t Trainables,
    mut gradients: tape::Gradients,
) -> Result<Vec<&'t str>> {
    let mut missing = Vec::new();
    for (name, var) in trainables {
        let Some(gradient) = gradients.take(var.as_tensor())? else {
            missing.push(name.as_str());
            continue;
        };
        put(sum, name.clone(), gradient)?;
    }
    Ok(missing)
}

/// Adds the gradients of a part of a batch to `sum`.
///
/// # Errors
/// If a tensor operation fails.
pub fn merge(sum: &mut NamedGradients, part: NamedGradients) -> Result<()> {
    part.into_iter().try_for_each(|(name, gradient)| put(sum, name, gradient))
}

fn put(sum: &mut NamedGradients, name: String, gradient: Tensor) -> Result<()> {
    let total = match sum.remove(&name) {
        Some(before) => add_into(before, &gradient)?,
        None => gradient,
    };
    sum.insert(name, total);
    Ok(())
}

/// L2 norm over all gradients.
///
/// # Errors
/// If a tensor operation fails.
pub fn global_norm(gradients: &NamedGradients) -> Result<f64> {
    let mut sum = 0f64;
    for gradient in gradients.values() {
        sum += norm::sum_of_squares(gradient)?;
    }
    Ok(sum.sqrt())
}
