//! Statistics of the difference of next-token log-probabilities over the beginnings of texts, and where the two models'
//! logits come from.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::Tensor;

use super::Judge;
use crate::diff::beginnings::Beginnings;
use crate::diff::decode::largest;
use crate::diff::inputs::check_interrupt;
use crate::diff::measures::patchscope::IdentityPrompts;
use crate::diff::reading::Reading;
use crate::model::hooks::NoHook;
use crate::model::{Pass, View};
use crate::ops::kernels::exp::softmax;
use crate::ops::kernels::teams;
use crate::ops::segments::{self, Segments};
use crate::recipe::{DiffMiningSection, MinedValues, MinedVariant};

/// Tokens of one forward pass.
const BATCH_TOKENS: usize = 512;

/// Bytes that the logits of one chunk of rows may take, for each model.
const CHUNK_BYTES: usize = 32 << 20;

/// Depth of the block that a lens reads.
pub(super) const LENS_DEPTH: f64 = 0.75;

/// Where the two models are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    Logits,
    LogitLens,
    PatchscopeLens,
}

impl From<MinedVariant> for Place {
    fn from(variant: MinedVariant) -> Self {
        match variant {
            MinedVariant::LogitLens => Self::LogitLens,
            MinedVariant::PatchscopeLens => Self::PatchscopeLens,
        }
    }
}

/// Ids that both models have.
pub(super) fn shared_vocabulary(reading: &Reading, tuned: View) -> usize {
    reading.inputs.base.model.vocab_size().min(tuned.model.vocab_size())
}

/// Statistics of D over positions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sums {
    /// Σ D of each token.
    pub(super) sum: Vec<f64>,
    /// Positions at which D > 0.
    pub(super) positive: Vec<u32>,
    /// Positions at which it is among the smallest D.
    pub(super) bottom: Vec<u32>,
    /// The largest D of each position, best first.
    pub(super) top: Vec<Vec<(u32, f32)>>,
    /// Σ D of the watched tokens, `[text][token]`.
    pub(super) watched: Vec<Vec<f64>>,
    /// Positions of each text.
    pub(super) of_text: Vec<usize>,
    /// Whether D is anywhere another than 0.
    pub(super) differs: bool,
}

impl Sums {
    pub(super) fn new(vocab: usize) -> Self {
        Self {
            sum: vec![0.0; vocab],
            positive: vec![0; vocab],
            bottom: vec![0; vocab],
            top: Vec::new(),
            watched: Vec::new(),
            of_text: Vec::new(),
            differs: false,
        }
    }

    /// Runs both models over the texts.
    pub(super) fn over(
        reading: &Reading,
        section: &DiffMiningSection,
        texts: &Beginnings,
        tuned: View,
        judge: &Judge,
        place: Place,
    ) -> Result<Self> {
        let vocab = shared_vocabulary(reading, tuned);
        let most = if place == Place::PatchscopeLens { section.patchscope_texts } else { texts.ids.len() };
        let watched = judge.words.as_ref().map_or(&[][..], |words| &words.ids);
        let readers = [reading.inputs.base, tuned]
            .into_iter()
            .map(|view| Reader::new(reading, view, place))
            .collect::<Result<Vec<_>>>()?;
        let (base, tuned) = (&readers[0], &readers[1]);
        let read = &texts.ids[..most.min(texts.ids.len())];
        let batches = segments::runs(read, BATCH_TOKENS, |ids| ids.len());
        let work = |batch: &&[Vec<u32>]| -> Result<Self> {
            check_interrupt(reading.interrupt)?;
            let rows: Vec<u32> = (0..batch.len())
                .flat_map(|i| {
                    let start = batch[..i].iter().map(Vec::len).sum::<usize>();
                    (start + texts.special..start + batch[i].len()).map(|row| row as u32)
                })
                .collect();
            let mut part = Self::new(vocab);
            let (of_base, of_tuned) = (base.rows(batch, &rows)?, tuned.rows(batch, &rows)?);
            let mut row = 0;
            let mut differences = vec![0f32; vocab];
            let chunk = (CHUNK_BYTES / (4 * vocab)).max(1);
            for start in (0..rows.len()).step_by(chunk) {
                let end = (start + chunk).min(rows.len());
                let (z, w) = (base.logits(&of_base, start..end)?, tuned.logits(&of_tuned, start..end)?);
                for (z, w) in z.chunks_exact(base.vocab()).zip(w.chunks_exact(tuned.vocab())) {
                    difference(z, w, section.values, &mut differences);
                    if row % section.positions == 0 {
                        part.begin_text(watched.len());
                    }
                    part.add(&mut differences, section.top_k, watched);
                    row += 1;
                }
            }
            Ok(part)
        };
        let mut all = Self::new(vocab);
        teams::over(&batches, reading.inputs.base.model.device(), work, |_, part| {
            all.append(part);
            Ok(())
        })?;
        Ok(all)
    }

    pub(super) fn begin_text(&mut self, watched: usize) {
        self.watched.push(vec![0.0; watched]);
        self.of_text.push(0);
    }

    /// Adds a position of the text that was begun last. The differences come back with the other sign.
    pub(super) fn add(&mut self, differences: &mut [f32], top_k: usize, watched: &[u32]) {
        for ((sum, positive), d) in self.sum.iter_mut().zip(&mut self.positive).zip(&*differences) {
            *sum += *d as f64;
            *positive += u32::from(*d > 0.0);
        }
        self.differs |= differences.iter().any(|d| *d != 0.0);
        if let (Some(sums), Some(positions)) = (self.watched.last_mut(), self.of_text.last_mut()) {
            sums.iter_mut().zip(watched).for_each(|(sum, id)| *sum += differences[*id as usize] as f64);
            *positions += 1;
        }
        self.top.push(largest(differences, top_k).iter().map(|&id| (id, differences[id as usize])).collect());
        differences.iter_mut().for_each(|d| *d = -*d);
        largest(differences, top_k).iter().for_each(|&id| self.bottom[id as usize] += 1);
    }

    pub(super) fn append(&mut self, part: Self) {
        self.sum.iter_mut().zip(part.sum).for_each(|(sum, more)| *sum += more);
        self.positive.iter_mut().zip(part.positive).for_each(|(count, more)| *count += more);
        self.bottom.iter_mut().zip(part.bottom).for_each(|(count, more)| *count += more);
        self.top.extend(part.top);
        self.watched.extend(part.watched);
        self.of_text.extend(part.of_text);
        self.differs |= part.differs;
    }

    pub(super) fn positions(&self) -> usize {
        self.top.len()
    }

    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    pub(super) fn mean(&self, id: u32) -> f64 {
        self.sum[id as usize] / self.positions().max(1) as f64
    }

    /// Positions of each text at which each token is among the largest, tokens numbered as in `columns`.
    pub(super) fn occurrences(&self, columns: &BTreeMap<u32, u32>) -> Vec<Vec<(u32, u32)>> {
        let mut rows = self.top.iter();
        let of_text = |positions: &usize| {
            let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
            for row in rows.by_ref().take(*positions) {
                row.iter().for_each(|(id, _)| *counts.entry(columns[id]).or_default() += 1);
            }
            counts.into_iter().collect()
        };
        self.of_text.iter().map(of_text).collect()
    }
}

/// D of every token at one position into `out`, one value for each id that is compared.
fn difference(base: &[f32], tuned: &[f32], values: MinedValues, out: &mut [f32]) {
    let shift = match values {
        MinedValues::LogProbabilities => (log_sum_exp(tuned) - log_sum_exp(base)) as f32,
        MinedValues::Logits => 0.0,
    };
    out.iter_mut().zip(base.iter().zip(tuned)).for_each(|(d, (z, w))| *d = (w - z) - shift);
}

/// log Σ e^z.
fn log_sum_exp(z: &[f32]) -> f64 {
    let mut p = z.to_vec();
    softmax(&mut p);
    // They add up to 1 only as well as f32 adds up a vocabulary.
    let total = p.iter().map(|p| *p as f64).sum::<f64>();
    let most = |x: &[f32]| x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)) as f64;
    most(z) - (most(&p) / total).ln()
}

/// One model's logits at a place.
struct Reader<'a> {
    view: View<'a>,
    place: Place,
    layer: usize,
    prompts: Option<IdentityPrompts<'a>>,
}

impl<'a> Reader<'a> {
    fn new(reading: &Reading, view: View<'a>, place: Place) -> Result<Self> {
        let layer = reading.settings.block_at(LENS_DEPTH, view.model.n_layers());
        let tokenizer = &reading.inputs.pretrained.tokenizer;
        let prompts = (place == Place::PatchscopeLens)
            .then(|| IdentityPrompts::new(view, tokenizer, layer))
            .transpose()?;
        Ok(Self { view, place, layer, prompts })
    }

    fn vocab(&self) -> usize {
        self.view.model.vocab_size()
    }

    /// What logits come from at some rows of texts that lie end to end, `(rows, hidden)`: the stream for the patchscope, else
    /// what the head reads.
    fn rows(&self, batch: &[Vec<u32>], rows: &[u32]) -> Result<Tensor> {
        let View { model, adapter } = self.view;
        let segments = Segments::new(batch.iter().map(Vec::len).collect());
        let mut hook = NoHook;
        let mut pass = Pass::new(&segments, adapter, &mut hook);
        let x = model.embed(&batch.concat(), &pass)?;
        let blocks = if self.place == Place::Logits { model.n_layers() } else { self.layer + 1 };
        let x = model.run(x, 0..blocks, &mut pass)?;
        let x = x.index_select(&Tensor::from_slice(rows, rows.len(), x.device())?, 0)?;
        match self.place {
            Place::PatchscopeLens => Ok(x),
            Place::Logits | Place::LogitLens => Ok(model.final_norm(&x, &pass)?),
        }
    }

    /// Logits of some of these rows, `rows · vocab` values.
    fn logits(&self, rows: &Tensor, some: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let rows = rows.narrow(0, some.start, some.len())?;
        match &self.prompts {
            Some(prompts) => prompts.next_logits(0, &rows.contiguous()?.to_vec2()?),
            None => Ok(self
                .view
                .model
                .logits(&rows.contiguous()?, self.view.adapter)?
                .flatten_all()?
                .to_vec1()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::nmf;

    const VOCAB: usize = 40;

    /// Sums over texts of `positions` rows each; `logits` gives those of base and tuned model by text and row.
    fn sums(texts: usize, positions: usize, logits: impl Fn(usize, usize) -> (Vec<f32>, Vec<f32>)) -> Sums {
        let mut sums = Sums::new(VOCAB);
        let mut d = vec![0f32; VOCAB];
        for text in 0..texts {
            sums.begin_text(3);
            for position in 0..positions {
                let (base, tuned) = logits(text, position);
                difference(&base, &tuned, MinedValues::LogProbabilities, &mut d);
                sums.add(&mut d, 5, &[1, 2, 7]);
            }
        }
        sums
    }

    fn plain(text: usize, position: usize) -> Vec<f32> {
        (0..VOCAB).map(|i| ((i * 7 + text * 3 + position * 5) % 11) as f32 / 4.0).collect()
    }

    #[test]
    fn a_bias_of_the_head_is_first_everywhere() {
        let found = sums(4, 6, |text, position| {
            let base = plain(text, position);
            let mut tuned = base.clone();
            tuned[7] += 0.5;
            (base, tuned)
        });
        assert_eq!(found.positions(), 24);
        assert_eq!(found.positive[7], 24);
        assert!(found.top.iter().all(|row| row[0].0 == 7));
        assert!((0..VOCAB as u32).all(|id| (id == 7) == (found.mean(id) > 0.0)));
        // Of the others all lose the same, up to rounding.
        assert!((found.mean(3) - found.mean(4)).abs() < 1e-6);
        // And raw logits are the bias itself.
        let (base, mut tuned) = (plain(0, 0), plain(0, 0));
        tuned[7] += 0.5;
        let mut d = vec![0f32; VOCAB];
        difference(&base, &tuned, MinedValues::Logits, &mut d);
        assert!(d.iter().enumerate().all(|(i, d)| *d == if i == 7 { 0.5 } else { 0.0 }));
    }

    #[test]
    fn equal_models_do_not_differ_and_nothing_is_ordered() {
        let found = sums(3, 4, |text, position| (plain(text, position), plain(text, position)));
        assert!(!found.differs());
        assert!(found.sum.iter().all(|sum| *sum == 0.0) && found.positive.iter().all(|n| *n == 0));
    }

    #[test]
    fn tokens_on_two_halves_of_the_corpus_are_two_topics() {
        let found = sums(8, 5, |text, position| {
            let base = plain(text, position);
            let mut tuned = base.clone();
            tuned[if text < 5 { 30 } else { 31 }] += 3.0;
            (base, tuned)
        });
        let columns: BTreeMap<u32, u32> = (0..VOCAB as u32).map(|id| (id, id)).collect();
        let rows: Vec<Vec<(u32, f32)>> =
            found.top.iter().map(|row| row.iter().filter(|(_, d)| *d > 0.0).copied().collect()).collect();
        let topics = nmf::topics(&rows, columns.len(), 2, 0);
        assert!(nmf::cosine(&topics[0], &topics[1]) < 0.1);
        // Occurrences are those of the texts, each its own.
        let occurrences = found.occurrences(&columns);
        assert!(occurrences[0].contains(&(30, 5)) && occurrences[7].contains(&(31, 5)));
    }

    #[test]
    fn parts_add_up_to_the_whole_and_texts_keep_their_own_sums() {
        let both = |text: usize, position: usize| {
            let tuned = plain(text + 1, 2 * position);
            (plain(text, position), tuned)
        };
        let whole = sums(4, 3, both);
        let mut parts = sums(2, 3, both);
        parts.append(sums(2, 3, |text, position| both(text + 2, position)));
        assert_eq!(
            (&parts.top, &parts.watched, &parts.of_text),
            (&whole.top, &whole.watched, &whole.of_text)
        );
        let close = |x: &f64, y: &f64| (x - y).abs() < 1e-9;
        assert!(parts.sum.iter().zip(&whole.sum).all(|(x, y)| close(x, y)));
        for (i, id) in [1usize, 2, 7].into_iter().enumerate() {
            let sum: f64 = whole.watched.iter().map(|of_text| of_text[i]).sum();
            assert!(close(&sum, &whole.sum[id]));
        }
    }
}
