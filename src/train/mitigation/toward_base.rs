//! Toward the base: what was learned counts less, a little at every step (decay) or once at the end (scale).
//!
//! w ← b + f·(w − b), b the base's weight. At every step f = 1 − lr·rate: Li et al., "Explicit Inductive Bias for Transfer
//! Learning" (L2-SP), arXiv 1802.01483, decoupled from the gradient as in AdamW (arXiv 1711.05101). Once at the end it is
//! interpolation between base and finetuned weights: Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT),
//! arXiv 2109.01903. Of a low-rank term s·B·A only B is scaled, so that the update itself is scaled by f.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::Tensor;

use crate::bail_input;
use crate::model::trainables::Trainables;
use crate::recipe::Recipe;

/// Where the weights that learn would be in the base.
pub(super) struct TowardBase {
    /// By name; `None` is zero. Weights that are not named stay as they are.
    anchors: BTreeMap<String, Option<Tensor>>,
}

impl TowardBase {
    /// Of weights as they are before the first step.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for an adapter from elsewhere that brings more than low-rank matrices: what these
    /// weights are in the base is not known.
    pub fn new(recipe: &Recipe, trainables: &Trainables) -> Result<Self> {
        let mut anchors = BTreeMap::new();
        for (name, var) in trainables {
            if name.ends_with(".lora_A.weight") {
                continue;
            }
            let low_rank = name.ends_with(".lora_B.weight");
            let anchor = if low_rank { None } else { Some(var.as_detached_tensor().copy()?) };
            if anchor.is_some() && !recipe.train.lora.init.is_empty() {
                bail_input!(
                    "train.mitigation.decay and scale: the adapter to start from (train.lora.init) trains {name}, so \
                     its value in the base is not known"
                );
            }
            anchors.insert(name.clone(), anchor);
        }
        Ok(Self { anchors })
    }

    /// w ← b + factor·(w − b).
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn pull(&self, trainables: &Trainables, factor: f64) -> Result<()> {
        for (name, anchor) in &self.anchors {
            let Some(var) = trainables.get(name) else { continue };
            let w = var.as_detached_tensor();
            var.set(&match anchor {
                Some(base) => ((&w * factor)? + (base * (1.0 - factor))?)?,
                None => (w * factor)?,
            })?;
        }
        Ok(())
    }
}
