//! Examples to one forward pass: rows end to end, each with what it should predict and how much it counts.

use anyhow::Result;
use candle_core::Tensor;

use super::causal_lm::{CausalLm, View};
use super::hooks::NoHook;
use super::pass::Pass;
use crate::data::examples::Example;
use crate::ops::cross_entropy::{Loss, Targets, linear_cross_entropy};
use crate::ops::kernels::teams;
use crate::ops::segments::Segments;

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

    /// Negative log-likelihood in nats of every row, 0 where its weight is 0; each team of threads takes some of the
    /// sequences. With `after`, from a stream `(tokens, hidden)` that has been through the blocks below the one it names.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn nll(&self, view: View, after: Option<(&Tensor, usize)>) -> Result<Vec<f32>> {
        let device = view.model.device();
        let lengths: Vec<usize> = (0..self.segments.len()).map(|i| self.segments.rows(i).len()).collect();
        let parts = teams::divide(&lengths, teams::PART_TOKENS, device);
        let rows = |part: usize| parts[part].iter().flat_map(|&i| self.segments.rows(i));
        let work = |part: usize| -> Result<Vec<f32>> {
            let of = |values: &[u32]| -> Vec<u32> { rows(part).map(|row| values[row]).collect() };
            let weights = rows(part).map(|row| self.targets.weights[row]).collect();
            let batch = Self {
                ids: of(&self.ids),
                segments: Segments::new(parts[part].iter().map(|&i| lengths[i]).collect()),
                targets: Targets { ids: of(&self.targets.ids), weights },
            };
            let mut hook = NoHook;
            let pass = Pass::new(&batch.segments, view.adapter, &mut hook);
            let loss = match after {
                None => batch.loss(view.model, pass)?,
                Some((x, next)) => {
                    let rows: Vec<u32> = rows(part).map(|row| row as u32).collect();
                    let x = x.index_select(&Tensor::new(rows, device)?, 0)?; // (tokens of the part, hidden)
                    batch.loss_from(view.model, x, next, pass)?
                }
            };
            Ok(loss.nll)
        };
        let mut nll = vec![0f32; self.ids.len()];
        teams::each(parts.len(), work, |part, found| {
            rows(part).zip(found).for_each(|(row, found)| nll[row] = found);
            Ok(())
        })?;
        Ok(nll)
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
pub fn mean_loss(view: View, examples: &[&Example], batch_size: usize) -> Result<Option<f64>> {
    let (mut sum, mut tokens) = (0f64, 0usize);
    for chunk in examples.chunks(batch_size.max(1)) {
        let batch = Batch::new(chunk, 1);
        for (nll, counted) in batch.per_example(&batch.nll(view, None)?) {
            sum += nll;
            tokens += counted;
        }
    }
    Ok((tokens > 0).then(|| sum / tokens as f64))
}
