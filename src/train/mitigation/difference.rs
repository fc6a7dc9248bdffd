//! The mean difference itself: what is read should not be there.
//!
//! The term is the mean over the positions p that `[diff]` reads of ‖v_p‖² / s_p², v_p the mean over the step's examples
//! of h_tuned − h_base after the block that is read and s_p the mean norm of h_base there: the square of what the
//! analysis reports as the length of the mean difference (Minder et al., arXiv 2510.13900, §3.1), with examples for texts.
//! The mean of n examples keeps 1 / n of the squared lengths of their own differences, which are so punished a little
//! too. This is training against the measure: what it hides from the mean difference may still be elsewhere.

use anyhow::Result;
use candle_core::Tensor;

use super::LossTerm;
use crate::data::examples::Example;
use crate::model::hooks::NoHook;
use crate::model::{Pass, View};
use crate::ops::segments::Segments;
use crate::ops::tape::Tape;

/// ‖v_p‖² in squared norms of the base's stream.
pub(super) struct DifferenceTerm {
    /// Index of the block after which the stream is read.
    pub layer: usize,
    /// Which tokens.
    pub positions: Vec<usize>,
}

impl LossTerm for DifferenceTerm {
    fn name(&self) -> &'static str {
        "difference"
    }

    fn most_tokens(&self) -> Option<usize> {
        Some(self.positions.iter().max().map_or(1, |last| last + 1))
    }

    fn loss(&self, tuned: View, base: View, examples: &[&Example], tape: Tape) -> Result<Tensor> {
        let length = self.most_tokens().unwrap_or(1);
        let ids: Vec<u32> = examples.iter().flat_map(|e| e.ids[..length].iter().copied()).collect();
        let segments = Segments::new(vec![length; examples.len()]);
        let stream = |view: View, tape: Tape| -> Result<Tensor> {
            let mut hook = NoHook;
            let mut pass = Pass { tape, ..Pass::new(&segments, view.adapter, &mut hook) };
            let x = view.model.embed(&ids, &pass)?;
            Ok(view.model.run(x, 0..self.layer + 1, &mut pass)?) // (examples · length, hidden)
        };
        let (of_tuned, of_base) = (stream(tuned, tape)?, stream(base, Tape::OFF)?);

        let (examples, places) = (examples.len(), self.positions.len());
        let norms = of_base.sqr()?.sum(1)?.sqrt()?.to_vec1::<f32>()?; // (examples · length)
        let mut averages = vec![0f32; places * examples * length];
        for (i, p) in self.positions.iter().enumerate() {
            let rows = (0..examples).map(|e| e * length + p);
            let scale = rows.clone().map(|row| norms[row] as f64).sum::<f64>() / examples as f64;
            let share = 1.0 / (examples as f64 * scale.max(f64::MIN_POSITIVE) * (places as f64).sqrt());
            rows.for_each(|row| averages[i * examples * length + row] = share as f32);
        }
        let averages = Tensor::from_vec(averages, (places, examples * length), of_base.device())?;
        Ok(tape.composed(&[&of_tuned], |v| averages.matmul(&(&v[0] - &of_base)?)?.sqr()?.sum_all())?)
    }
}
