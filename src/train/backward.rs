//! The gradients of a batch's loss.

use anyhow::Result;
use candle_core::Var;
use rand_chacha::ChaCha8Rng;

use super::optim::{NamedGradients, accumulate};
use crate::model::batch::Batch;
use crate::model::hooks::Hook;
use crate::model::trainables::Trainables;
use crate::model::{CausalLm, Pass};
use crate::ops::cross_entropy::Loss;
use crate::ops::tape::Recording;

impl Batch {
    /// The weighted loss of the batch with the adapter on, watched by `hook`; adds its gradients to `sum`. With
    /// `recompute` each block is computed again for them: same result, less memory, more time.
    ///
    /// # Errors
    /// If a trainable gets no gradient, or a tensor operation fails.
    pub fn backward(
        &self,
        model: &CausalLm,
        trainables: &Trainables,
        dropout: &mut ChaCha8Rng,
        recompute: bool,
        hook: &mut dyn Hook,
        sum: &mut NamedGradients,
    ) -> Result<Loss> {
        let recording = Recording::new(trainables.values().map(Var::as_tensor));
        let pass = Pass {
            tape: recording.tape(),
            dropout: Some(dropout),
            recompute,
            ..Pass::new(&self.segments, 1.0, hook)
        };
        let loss = self.loss(model, pass)?;
        accumulate(sum, trainables, recording.backward(&loss.total)?)?;
        Ok(loss)
    }
}
