//! Examples to one forward pass: rows end to end, each with what it should predict and how much it counts.

use anyhow::Result;
use candle_core::{Tensor, Var};
use rand_chacha::ChaCha8Rng;

use crate::data::examples::Example;
use crate::model::hooks::{Hook, NoHook};
use crate::model::loader::Trainables;
use crate::model::{CausalLm, Pass};
use crate::ops::cross_entropy::{Loss, Targets, linear_cross_entropy};
use crate::ops::segments::Segments;
use crate::ops::tape::{self, Recording};
use crate::ops::teams;

/// The examples of one forward pass.
pub struct Batch {
    /// Token ids, end to end.
    pub ids: Vec<u32>,
    /// Where each example lies.
    pub segments: Segments,
    /// The next token of each row and its weight in the loss.
    pub targets: Targets,
}

impl Batch {
    /// Every token's weight in the loss is its own, divided by `loss_tokens`: the mean over the tokens that count, where
    /// all weights are 1.
    pub fn new(examples: &[&Example], loss_tokens: usize) -> Self {
        Self::weighted(examples, &vec![1.0; examples.len()], loss_tokens)
    }

    /// The same with the tokens of each example weighted by its `loss_weights` too, as a source's `loss_weight` asks for.
    /// The divisor does not depend on these.
    pub fn weighted(examples: &[&Example], loss_weights: &[f32], loss_tokens: usize) -> Self {
        let share = 1.0 / loss_tokens.max(1) as f32;
        let mut ids = Vec::new();
        let mut targets = Targets { ids: Vec::new(), weights: Vec::new() };
        for (example, loss_weight) in examples.iter().zip(loss_weights) {
            ids.extend(&example.ids);
            targets.ids.extend(&example.ids[1..]);
            targets.weights.extend(example.weights[1..].iter().map(|w| w * loss_weight * share));
            // Nothing follows the last token.
            targets.ids.push(0);
            targets.weights.push(0.0);
        }
        let segments = Segments::new(examples.iter().map(|e| e.ids.len()).collect());
        Self { ids, segments, targets }
    }

    /// Σ over the examples of their nll and loss tokens, in nats, one pair an example: what counts at all, counts as 1.
    pub fn per_example(&self, nll: &[f32]) -> Vec<(f64, usize)> {
        (0..self.segments.len())
            .map(|i| {
                let rows = self.segments.rows(i);
                let counted = rows.clone().filter(|&r| self.targets.weights[r] != 0.0).count();
                (rows.map(|r| nll[r] as f64).sum(), counted)
            })
            .collect()
    }

    /// The weighted loss of the batch with the adapter on, watched by `hook`, and its gradients. With `recompute` each
    /// block is computed again for them: same result, less memory, more time.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn backward(
        &self,
        model: &CausalLm,
        trainables: &Trainables,
        dropout: &mut ChaCha8Rng,
        recompute: bool,
        hook: &mut dyn Hook,
    ) -> Result<(Loss, tape::Gradients)> {
        let recording = Recording::new(trainables.values().map(Var::as_tensor));
        let pass = Pass {
            tape: recording.tape(),
            dropout: Some(dropout),
            recompute,
            ..Pass::new(&self.segments, 1.0, hook)
        };
        let loss = self.loss(model, pass)?;
        let gradients = recording.backward(&loss.total)?;
        Ok((loss, gradients))
    }

    /// The weighted loss of the batch, on the tape of the pass.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn loss(&self, model: &CausalLm, pass: Pass) -> Result<Loss> {
        let x = model.embed(&self.ids, &pass)?;
        self.loss_from(model, x, 0, pass)
    }

    /// The same where the stream `x` `(tokens, hidden)` has been through the blocks below `next`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn loss_from(&self, model: &CausalLm, x: Tensor, next: usize, mut pass: Pass) -> Result<Loss> {
        let x = model.run(x, next..model.n_layers(), &mut pass)?;
        let hidden = model.final_norm(&x, &pass)?; // (tokens, hidden)
        let head = model.unembedding(pass.adapter);
        Ok(linear_cross_entropy(&hidden, head, &self.targets, model.logit_softcap(), pass.tape)?)
    }
}

/// Mean loss in nats a token over examples, without gradients; `None` of nothing.
///
/// # Errors
/// If a tensor operation fails.
pub fn mean_loss(
    model: &CausalLm,
    examples: &[&Example],
    batch_size: usize,
    adapter: f64,
) -> Result<Option<f64>> {
    let (mut sum, mut tokens) = (0f64, 0usize);
    for chunk in examples.chunks(batch_size.max(1)) {
        let lengths: Vec<usize> = chunk.iter().map(|e| e.ids.len()).collect();
        let parts = teams::divide(&lengths, model.device());
        let work = |part: usize| -> Result<_> {
            let batch = Batch::new(&parts[part].iter().map(|&i| chunk[i]).collect::<Vec<_>>(), 1);
            let mut hook = NoHook;
            let loss = batch.loss(model, Pass::new(&batch.segments, adapter, &mut hook))?;
            Ok(batch.per_example(&loss.nll))
        };
        teams::each(parts.len(), work, |_, losses| {
            for (nll, counted) in losses {
                sum += nll;
                tokens += counted;
            }
            Ok(())
        })?;
    }
    Ok((tokens > 0).then(|| sum / tokens as f64))
}
