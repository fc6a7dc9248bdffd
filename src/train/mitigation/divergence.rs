//! Divergence: the model should say what the base says where it was not meant to change.
//!
//! The term is KL(base‖tuned) on pretraining text, in nats a predicted token. Li & Hoiem, "Learning without Forgetting",
//! arXiv 1606.09282, use it against forgetting; Soligo et al., "Narrow Misalignment is Hard, Emergent Misalignment is Easy"
//! (2025), to keep a finetuned change narrow.

use anyhow::Result;
use candle_core::Tensor;

use super::LossTerm;
use crate::data::examples::Example;
use crate::model::batch::Batch;
use crate::model::hooks::NoHook;
use crate::model::{Pass, View};
use crate::ops::divergence::{Teacher, linear_divergence};
use crate::ops::tape::Tape;

/// KL(base‖tuned).
pub(super) struct DivergenceTerm;

impl LossTerm for DivergenceTerm {
    fn name(&self) -> &'static str {
        "divergence"
    }

    fn most_tokens(&self) -> Option<usize> {
        None
    }

    fn loss(&self, tuned: View, base: View, examples: &[&Example], tape: Tape) -> Result<Tensor> {
        let predicted: usize = examples.iter().map(|e| e.ids.len() - 1).sum();
        let batch = Batch::new(examples, 1);
        let (mut for_base, mut for_tuned) = (NoHook, NoHook);
        let hidden = {
            let mut pass = Pass { tape, ..Pass::new(&batch.segments, tuned.adapter, &mut for_tuned) };
            tuned.model.hidden(&batch.ids, &mut pass)? // (tokens, hidden)
        };
        let of_base =
            base.model.hidden(&batch.ids, &mut Pass::new(&batch.segments, base.adapter, &mut for_base))?;
        let mut weights = vec![1.0 / predicted as f32; batch.ids.len()];
        (0..batch.segments.len()).for_each(|i| weights[batch.segments.rows(i).end - 1] = 0.0);
        let teacher = Teacher { hidden: &of_base, weight: base.model.unembedding(base.adapter) };
        let (head, cap) = (tuned.model.unembedding(tuned.adapter), tuned.model.logit_softcap());
        Ok(linear_divergence(&hidden, head, &teacher, &weights, cap, tape)?.total)
    }
}
