//! Next-token losses of both models, their streams edited after the block that is read: what the measures that are
//! losses have in common.
//!
//! Losses are in nats a predicted token. Every token of a document is predicted, of a chat what the assistant says
//! ([`crate::data::examples`]). A prediction is numbered by the position that makes it: position t predicts token
//! t + 1. Intervals resample documents, not the pieces of one document.

use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use anyhow::{Context, Result};

use super::collect::stream;
use super::loss_texts::{BATCH_TOKENS, LossSet, Nll, Sums};
use super::reading::Reading;
use super::statistics::{Interval, interval};
use crate::data::examples::Example;
use crate::model::View;
use crate::model::batch::Batch;
use crate::progress;

/// Streams of the base that are kept of one kind of text at most, in bytes: larger ones are computed again.
const KEPT_BYTES: usize = 64 << 20;

/// Mean over the predictions of all documents; `None` of nothing.
pub fn mean(sums: &Sums) -> Option<f64> {
    mean_of(sums, &(0..sums.len()).collect::<Vec<_>>())
}

/// Mean over the predictions of the documents that were drawn; `None` of nothing.
pub fn mean_of(sums: &Sums, drawn: &[usize]) -> Option<f64> {
    let (nll, count) = drawn.iter().fold((0f64, 0), |(nll, n), &d| (nll + sums[d].0, n + sums[d].1));
    (count > 0).then(|| nll / count as f64)
}

/// Draws of documents with replacement, the same for every value of a set.
pub struct DocumentDraws(Vec<Vec<usize>>);

impl DocumentDraws {
    /// `diff.bootstrap` draws of as many documents as there are.
    pub fn new(reading: &Reading, set: &LossSet) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(reading.inputs.seed);
        let n = set.texts.documents;
        let draw = |_| (0..n).map(|_| rng.random_range(0..n)).collect();
        Self((0..reading.settings.bootstrap).map(draw).collect())
    }

    /// Interval of a value over the draws; `None` of a single document, or where some draw has no value.
    pub fn interval(&self, value: impl Fn(&[usize]) -> Option<f64>) -> Option<Interval> {
        self.interval_with(self, |drawn, _| value(drawn))
    }

    /// The same of a value of two sets of documents, each drawn by itself: the draws of `other`, which may begin with the
    /// same random numbers, are taken in the opposite order.
    pub fn interval_with(
        &self,
        other: &Self,
        value: impl Fn(&[usize], &[usize]) -> Option<f64>,
    ) -> Option<Interval> {
        if self.0.iter().chain(&other.0).any(|drawn| drawn.len() < 2) {
            return None;
        }
        let pairs = self.0.iter().zip(other.0.iter().rev());
        Some(interval(pairs.map(|(drawn, others)| value(drawn, others)).collect::<Option<Vec<_>>>()?))
    }
}

/// The two models of an analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The base.
    Base,
    /// The tuned model.
    Tuned,
}

/// What is done to the stream of one model after the block that is read, at every token.
pub struct Edit {
    /// The model that goes on from there.
    pub of: Side,
    /// What is done.
    pub change: Change,
}

/// A change of the stream h. Vectors are `(hidden)`; û is a unit vector, or zero where there is no direction.
pub enum Change {
    /// None.
    Nothing,
    /// h + v.
    Add(Vec<f32>),
    /// h + (h_other·û − h·û)·û, with the other model's stream on the same tokens.
    Replace(Vec<f32>),
    /// h − (h·û)·û.
    Ablate(Vec<f32>),
}

impl Edit {
    /// The stream of a model as it is.
    pub fn none(of: Side) -> Self {
        Self { of, change: Change::Nothing }
    }

    /// The stream `(tokens, hidden)` of the edited model, of both models' unedited ones.
    fn apply(&self, base: &Tensor, tuned: &Tensor) -> Result<Tensor> {
        let (own, other) = if self.of == Side::Base { (base, tuned) } else { (tuned, base) };
        let row = |v: &[f32]| Tensor::from_slice(v, (1, v.len()), own.device());
        let along = |x: &Tensor, u: &Tensor| x.matmul(&u.t()?)?.broadcast_mul(u); // (tokens, hidden)
        Ok(match &self.change {
            Change::Nothing => own.clone(),
            Change::Add(v) => own.broadcast_add(&row(v)?)?,
            Change::Replace(u) => (own + along(&(other - own)?, &row(u)?)?)?,
            Change::Ablate(u) => (own - along(own, &row(u)?)?)?,
        })
    }
}

/// Losses under each edit, in their order. The blocks up to the one that is read are run once for each model; above it,
/// as many edits of one model share a pass as fit in a batch. What the base makes of the texts is kept with them, so that
/// other edits and other tuned models find it: its losses, taken in passes of their own so that they are the same whatever
/// else is asked for, and its streams up to 64 MiB.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn losses_under(reading: &Reading, set: &LossSet, edits: &[Edit]) -> Result<Vec<Nll>> {
    let (inputs, layer) = (reading.inputs, reading.layer);
    let is_base = |e: &Edit| e.of == Side::Base && matches!(e.change, Change::Nothing);
    let (places, others): (Vec<usize>, Vec<&Edit>) =
        edits.iter().enumerate().filter(|(_, e)| !is_base(e)).unzip();
    let wants_base = others.len() < edits.len() && set.base_nll.get().is_none();
    let needs_tuned = others.iter().any(|e| e.of == Side::Tuned || matches!(e.change, Change::Replace(_)));
    let tokens: usize = set.examples.iter().map(|e| e.ids.len()).sum();
    let is_kept = tokens * inputs.base.model.hidden_size() * size_of::<f32>() <= KEPT_BYTES;

    let groups = if others.is_empty() && !wants_base { Vec::new() } else { set.groups() };
    let bar = progress::bar("losses", (groups.len() * edits.len()) as u64);
    let mut losses = vec![Nll::new(); edits.len()];
    let mut of_base = Nll::new();
    for (i, group) in groups.into_iter().enumerate() {
        reading.check_interrupt()?;
        let texts: Vec<&Example> = group.iter().collect();
        let batch = Batch::new(&texts, 1);
        let kept = set.base_streams.borrow().get(i).cloned();
        let base = match kept {
            Some(known) => known,
            None => stream(inputs.base, &batch.ids, &batch.segments, layer)?, // (tokens, hidden)
        };
        if is_kept && set.base_streams.borrow().len() == i {
            set.base_streams.borrow_mut().push(base.clone());
        }
        if wants_base {
            of_base.extend(nll_after(inputs.base, &batch, &base, layer)?);
        }
        let tuned = match needs_tuned {
            true => stream(inputs.tuned, &batch.ids, &batch.segments, layer)?, // (tokens, hidden)
            false => base.clone(),
        };
        let together = (BATCH_TOKENS / batch.ids.len()).max(1);
        let of_one_model = others.chunk_by(|a, b| a.of == b.of).flat_map(|edits| edits.chunks(together));
        let mut places = places.iter();
        for edits in of_one_model {
            reading.check_interrupt()?;
            let view = if edits[0].of == Side::Base { inputs.base } else { inputs.tuned };
            let edited = edits.iter().map(|e| e.apply(&base, &tuned)).collect::<Result<Vec<_>>>()?;
            let x = Tensor::cat(&edited, 0)?; // (edits · tokens, hidden)
            let nll = nll_after(view, &Batch::new(&texts.repeat(edits.len()), 1), &x, layer)?;
            for (nll, place) in nll.chunks(texts.len()).zip(&mut places) {
                losses[*place].extend_from_slice(nll);
            }
            bar.inc(edits.len() as u64);
        }
    }
    bar.finish_and_clear();
    if wants_base {
        set.base_nll.get_or_init(|| of_base);
    }
    for (losses, _) in losses.iter_mut().zip(edits).filter(|(_, e)| is_base(e)) {
        losses.clone_from(set.base_nll.get().context("the base was not run")?);
    }
    Ok(losses)
}

/// Losses of a batch whose stream after block `layer` is given, a row of predictions for each text.
fn nll_after(view: View, batch: &Batch, x: &Tensor, layer: usize) -> Result<Nll> {
    let nll = batch.nll(view, Some((x, layer + 1)))?;
    Ok((0..batch.segments.len()).map(|i| nll[batch.segments.rows(i)].to_vec()).collect())
}
