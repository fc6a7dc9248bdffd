//! Residuals of base and tuned model on the same tokens, and their sums.

use std::ops::Range;

use anyhow::Result;
use candle_core::Tensor;

use super::inputs::check_interrupt;
use super::mean_difference::{Means, rows_of_means};
use crate::interrupt::Interrupt;
use crate::model::hooks::{ActivationCache, NoHook, Site};
use crate::model::{CausalLm, Pass, View};
use crate::ops::kernels::teams;
use crate::ops::segments::{self, Segments};
use crate::progress;

/// A sequence and which of its tokens are read.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Tokens at which the models are compared; as many in every probe of a collection.
    pub read: Vec<usize>,
    /// Tokens whose norm enters η.
    pub norm: Range<usize>,
}

/// Both models at one block over some probes: sums in f64, added in the order of the probes.
pub struct Activations {
    hidden: usize,
    /// Number of probes.
    pub samples: usize,
    /// Σ h of the base at the tokens that are read, `[place · hidden ..]`.
    base: Vec<f64>,
    /// Σ h of the tuned model.
    tuned: Vec<f64>,
    /// Σ d, d = h_tuned − h_base.
    difference: Vec<f64>,
    /// Σ ‖d‖², by place.
    squares: Vec<f64>,
    /// Σ ‖h‖ of base and tuned model over the tokens that enter η, and their number.
    norms: (f64, f64, usize),
    keep: usize,
    /// d of the first probes, as many as were asked for, `[probe][place · hidden ..]`.
    pub kept: Vec<Vec<f32>>,
}

impl Activations {
    /// Nothing yet. `places` tokens are read of each probe; the differences of the first `keep` probes stay.
    pub fn new(hidden: usize, places: usize, keep: usize) -> Self {
        let zeros = || vec![0f64; places * hidden];
        Self {
            hidden,
            samples: 0,
            base: zeros(),
            tuned: zeros(),
            difference: zeros(),
            squares: vec![0.0; places],
            norms: (0.0, 0.0, 0),
            keep,
            kept: Vec::new(),
        }
    }

    /// Adds a probe, given the streams of all its tokens. Returns d at the tokens that are read.
    pub fn add(&mut self, probe: &Sequence, base: &[f32], tuned: &[f32]) -> Vec<f64> {
        let hidden = self.hidden;
        let row = |i: usize| i * hidden..(i + 1) * hidden;
        let mut difference = vec![0f64; probe.read.len() * hidden];
        for (place, &token) in probe.read.iter().enumerate() {
            let both = base[row(token)].iter().zip(&tuned[row(token)]).map(|(b, t)| (*b as f64, *t as f64));
            for (j, (b, t)) in row(place).zip(both) {
                difference[j] = t - b;
                self.base[j] += b;
                self.tuned[j] += t;
                self.difference[j] += t - b;
            }
            self.squares[place] += difference[row(place)].iter().map(|d| d * d).sum::<f64>();
        }
        let length = |h: &[f32]| h.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt();
        for token in probe.norm.clone() {
            self.norms.0 += length(&base[row(token)]);
            self.norms.1 += length(&tuned[row(token)]);
            self.norms.2 += 1;
        }
        self.samples += 1;
        if self.kept.len() < self.keep {
            self.kept.push(difference.iter().map(|d| *d as f32).collect());
        }
        difference
    }

    /// Means over the probes.
    pub fn means(&self) -> Means {
        let mean = |sum: &[f64]| rows_of_means(sum, self.samples, self.hidden);
        Means { difference: mean(&self.difference), base: mean(&self.base), tuned: mean(&self.tuned) }
    }

    /// η of the base: mean norm over the tokens that enter it.
    pub fn base_norm(&self) -> f64 {
        self.norms.0 / self.norms.2.max(1) as f64
    }

    /// η of the tuned model.
    pub fn tuned_norm(&self) -> f64 {
        self.norms.1 / self.norms.2.max(1) as f64
    }

    /// Share of the mean of ‖d‖² that a constant difference explains at each place: ‖μ‖² / E‖d‖², 1 for a difference
    /// that is the same everywhere; 0 without any. ‖μ‖² is estimated without the part that the mean of n differences
    /// has by chance, (n‖v‖² − mean ‖d‖²) / (n − 1): it can come out below 0.
    pub fn constant_share(&self) -> Vec<f64> {
        let n = self.samples as f64;
        let share = |(sum, squares): (&[f64], &f64)| {
            let mean_square = squares / n;
            let plain = sum.iter().map(|x| (x / n) * (x / n)).sum::<f64>();
            let constant = if n > 1.0 { (n * plain - mean_square) / (n - 1.0) } else { plain };
            if mean_square > 0.0 { constant / mean_square } else { 0.0 }
        };
        self.difference.chunks_exact(self.hidden).zip(&self.squares).map(share).collect()
    }
}

/// Tokens of one forward pass: more bring no speed, and each thread holds this many streams.
const BATCH_TOKENS: usize = 400;

/// The streams of some probes in both models after one block, `[probe][token · hidden ..]`.
pub struct Streams {
    /// Of the base.
    pub base: Vec<Vec<f32>>,
    /// Of the tuned model.
    pub tuned: Vec<Vec<f32>>,
}

/// Runs both models over the probes, a batch at a time, up to the last of the blocks `layers` and no further. `take` gets
/// each batch in order: its probes, and their streams at each of the layers.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn run_both(
    base: View,
    tuned: View,
    probes: &[Sequence],
    layers: &[usize],
    interrupt: &Interrupt,
    mut take: impl FnMut(&[Sequence], &[Streams]) + Send,
) -> Result<()> {
    let bar = progress::bar("activations", probes.len() as u64);
    let batches = segments::runs(probes, BATCH_TOKENS, |probe| probe.ids.len());
    let work = |batch: &&[Sequence]| -> Result<_> {
        check_interrupt(interrupt)?;
        let ids: Vec<Vec<u32>> = batch.iter().map(|p| p.ids.clone()).collect();
        let (of_base, of_tuned) = (resid_posts(base, &ids, layers)?, resid_posts(tuned, &ids, layers)?);
        let streams = of_base.into_iter().zip(of_tuned).map(|(base, tuned)| Streams { base, tuned });
        Ok(streams.collect::<Vec<_>>())
    };
    teams::over(&batches, base.model.device(), work, |batch, streams| {
        take(batch, &streams);
        bar.inc(batch.len() as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// Sums over the probes at each of the layers, with the differences of the first `keep` probes.
///
/// # Errors
/// As [`run_both`].
pub fn collect(
    base: View,
    tuned: View,
    probes: &[Sequence],
    layers: &[usize],
    keep: usize,
    interrupt: &Interrupt,
) -> Result<Vec<Activations>> {
    let places = probes.first().map_or(0, |p| p.read.len());
    let new = |_: &usize| Activations::new(base.model.hidden_size(), places, keep);
    let mut of_layers: Vec<Activations> = layers.iter().map(new).collect();
    run_both(base, tuned, probes, layers, interrupt, |probes, streams| {
        for (sums, streams) in of_layers.iter_mut().zip(streams) {
            for (i, probe) in probes.iter().enumerate() {
                sums.add(probe, &streams.base[i], &streams.tuned[i]);
            }
        }
    })?;
    Ok(of_layers)
}

/// `resid_post` of block `layer` for every token of each sequence, `[sequence][token · hidden ..]`.
///
/// # Errors
/// If a tensor operation fails.
pub fn resid_post(view: View, sequences: &[Vec<u32>], layer: usize) -> Result<Vec<Vec<f32>>> {
    Ok(resid_posts(view, sequences, &[layer])?.remove(0))
}

/// The same of several blocks in one pass, `[layer][sequence][token · hidden ..]`.
fn resid_posts(view: View, sequences: &[Vec<u32>], layers: &[usize]) -> Result<Vec<Vec<Vec<f32>>>> {
    let segments = Segments::new(sequences.iter().map(Vec::len).collect());
    let mut hook = ActivationCache::new(layers, Site::ResidPost);
    let mut pass = Pass::new(&segments, view.adapter, &mut hook);
    let x = view.model.embed(&sequences.concat(), &pass)?;
    let blocks = layers.iter().max().map_or(0, |last| last + 1);
    view.model.run(x, 0..blocks, &mut pass)?;
    let hidden = view.model.hidden_size();
    let stream = |layer: &usize| -> Result<Vec<Vec<f32>>> {
        let flat = hook.values[layer].flatten_all()?.to_vec1::<f32>()?; // tokens · hidden
        let rows = (0..segments.len()).map(|i| segments.rows(i));
        Ok(rows.map(|rows| flat[rows.start * hidden..rows.end * hidden].to_vec()).collect())
    };
    layers.iter().map(stream).collect()
}

/// The stream after block `layer`, `(tokens, hidden)`, of sequences that lie end to end.
///
/// # Errors
/// If a tensor operation fails.
pub fn stream(view: View, ids: &[u32], segments: &Segments, layer: usize) -> Result<Tensor> {
    let mut hook = NoHook;
    let mut pass = Pass::new(segments, view.adapter, &mut hook);
    let x = view.model.embed(ids, &pass)?;
    Ok(view.model.run(x, 0..layer + 1, &mut pass)?)
}

/// Rows as a `(rows, hidden)` tensor on the model's device.
///
/// # Errors
/// If the rows are ragged or empty.
pub fn to_tensor(rows: &[Vec<f32>], model: &CausalLm) -> Result<Tensor> {
    Ok(Tensor::from_vec(rows.concat(), (rows.len(), model.hidden_size()), model.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_constant_is_estimated_without_bias() {
        let probe = Sequence { ids: vec![0], read: vec![0], norm: 0..1 };
        let share = |differences: &[f32]| {
            let mut a = Activations::new(1, 1, 0);
            differences.iter().for_each(|d| drop(a.add(&probe, &[1.0], &[1.0 + d])));
            a.constant_share()[0]
        };
        assert_eq!(share(&[2.0, 2.0, 2.0]), 1.0);
        assert_eq!(share(&[0.0, 0.0]), 0.0);
        // Two draws of ±1 have a mean of ±1 or 0, by chance: shares of 1 and −1, whose mean is 0.
        assert_eq!((share(&[1.0, 1.0]), share(&[1.0, -1.0])), (1.0, -1.0));
    }
}
