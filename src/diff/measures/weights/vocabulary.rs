//! Which words the change of the weights is about, by the rows of the vocabulary that it writes along or reads from.
//!
//! A module that writes to the stream (output and down projection) moves the logit of token k along w_k = γ ∘ g ∘ W_U\[k\]:
//! g is the gain of the final norm, γ that of the norm that the module's output passes (Gemma 2 and 3; else 1). One that reads
//! it (query, key, value, gate, up) gets e_k = g_in ∘ E\[k\] of the token itself, with the gain of the norm before it. The
//! energies are
//!
//! write(k) = Σ_m ‖dW_mᵀ w_k‖² / ‖w_k‖², read(k) = Σ_m ‖dW_m e_k‖² / ‖e_k‖²,
//!
//! sums over modules that know no sign and need neither singular vectors nor a maximum. Gains and tables are the base's.
//! Norms say nothing of what inputs reach a module, the middle blocks need not use the vocabulary's basis, and changes of
//! the tables and of the norms themselves are not in it.
//!
//! What they are compared with are random changes of the same singular values: left vectors from the QR decomposition of
//! Gaussian matrices. Of a change of high rank the 64 largest count: the rest of a random change gives every word the
//! same in expectation.

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::spectrum::{Spectra, SpectrumComparison, of_low_rank};
use crate::diff::decode::{TopToken, largest};
use crate::diff::eigen;
use crate::diff::measures::causal::gaussian;
use crate::diff::once::get_or_try_init;
use crate::diff::reader_score::ReaderNull;
use crate::diff::reading::Reading;
use crate::diff::statistics::{Interval, auroc};
use crate::diff::strata::Strata;
use crate::diff::svd::{columns, gram};
use crate::diff::vocabulary::WordTokens;
use crate::model::View;
use crate::model::modules::Stream;
use crate::model::update::Update;
use crate::ops::weight::Matrix;

/// Singular values of a module that a random change has at most.
const NULL_RANK: usize = 64;

/// Random changes that are multiplied at once, and words of a dense change: bounds what is held.
const DRAWS_AT_ONCE: usize = 8;
const WORDS_AT_ONCE: usize = 2_048;

/// Dimensions of the largest gain that one of the scores leaves out.
const TOP_GAINS: usize = 4;

/// What random changes are called in the record.
const SAME_SPECTRUM: &str = "same spectrum";

/// Words along one singular direction of a module's change, on the side of the stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Direction {
    /// The module.
    pub module: String,
    /// 0 for the largest singular value.
    pub index: usize,
    /// The singular value.
    pub value: f64,
    /// Words with the largest cosine, best first.
    pub top: Vec<TopToken>,
    /// Words with the largest cosine with its opposite. Signs of singular vectors mean nothing.
    pub bottom: Vec<TopToken>,
    /// Share of relevant words on either side; absent without a lexicon.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub relevant: Option<[f64; 2]>,
}

/// AUROCs of one kind of energy.
#[derive(Debug, Clone, Copy)]
pub struct Scored {
    /// Among common words of like frequency.
    pub auroc: f64,
    /// Bootstrap interval over words.
    pub interval: Interval,
}

/// What the vocabulary says of a change.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// By the write energy.
    pub write: Option<Scored>,
    /// By the write energy without the dimensions of the largest gains.
    pub write_without_top_gains: Option<f64>,
    /// By the read energy.
    pub read: Option<Scored>,
    /// Of write and read energy, among all common words.
    pub plain: [Option<f64>; 2],
    /// Narrow and common words that take part in the stratified AUROCs.
    pub words: Option<[usize; 2]>,
    /// Random changes, by the write energy.
    pub null: Option<ReaderNull>,
    /// Words along the leading directions.
    pub directions: Vec<Direction>,
    /// The largest share of relevant words on a side of a direction, and random directions.
    pub best: Option<(f64, ReaderNull)>,
}

/// Words, as tokens of the vocabulary.
struct Words {
    ids: Vec<u32>,
    /// Narrow, common, or neither; empty without a lexicon.
    sides: Vec<Option<bool>>,
    /// Whether the lexicon finds the token relevant; empty without one.
    relevant: Vec<bool>,
    strata: Option<Strata>,
}

impl Words {
    fn of(reading: &Reading) -> Result<Self> {
        let inputs = reading.inputs;
        let known = inputs.base.model.vocab_size().min(inputs.tuned.model.vocab_size());
        let in_both = |tokens: &WordTokens| tokens.ids.partition_point(|id| (*id as usize) < known); // ascending
        let Some(lexicon) = &reading.prepared.lexicon else {
            let mut tokens = WordTokens::new(inputs, &[])?;
            tokens.ids.truncate(in_both(&tokens));
            return Ok(Self { ids: tokens.ids, sides: Vec::new(), relevant: Vec::new(), strata: None });
        };
        let tokens = get_or_try_init(&reading.prepared.word_tokens, || WordTokens::new(inputs, &[lexicon]))?;
        let (ids, sides) = (&tokens.ids[..in_both(tokens)], &tokens.sides[0][..in_both(tokens)]);
        Ok(Self {
            relevant: ids.iter().map(|id| lexicon.is_relevant(&reading.token(*id))).collect(),
            strata: reading.strata(ids, sides)?,
            ids: ids.to_vec(),
            sides: sides.to_vec(),
        })
    }
}

/// The rows of some tokens in the unembedding and in the embeddings of the base, as its modules write and read them.
pub struct Vocabulary<'a> {
    base: View<'a>,
    ids: Vec<u32>,
    final_gain: Vec<f32>,
    last: Option<UnitRows>,
}

/// Rows of a table under a gain, each of length 1.
struct UnitRows {
    writes: bool,
    gain: Vec<f32>,
    /// `(words, hidden)`.
    rows: Tensor,
}

impl<'a> Vocabulary<'a> {
    /// The rows of these tokens.
    ///
    /// # Errors
    /// If the base has no such token.
    pub fn new(base: View<'a>, ids: &[u32]) -> Result<Self> {
        let size = base.model.vocab_size();
        if let Some(id) = ids.iter().find(|id| **id as usize >= size) {
            bail!("token {id} of a vocabulary of {size}");
        }
        let final_gain = base.model.norm().gain(base.adapter)?;
        Ok(Self { base, ids: ids.to_vec(), final_gain, last: None })
    }

    /// What a module writes along or reads, one row a word, `(words, hidden)`. `cut` dimensions of the largest gain are left
    /// out. Most modules share theirs with the one before. Others are not kept: in f32, a table may be larger than the model.
    fn rows(&mut self, stream: Stream, cut: usize) -> Result<&Tensor> {
        let (model, adapter) = (self.base.model, self.base.adapter);
        let (writes, table, mut gain) = match stream {
            Stream::Reads(norm) => (false, model.embeddings(adapter), norm.gain(adapter)?),
            Stream::Writes(norm) => {
                let mut gain = self.final_gain.clone();
                if let Some(norm) = norm {
                    gain.iter_mut().zip(norm.gain(adapter)?).for_each(|(g, post)| *g *= post);
                }
                (true, model.unembedding(adapter), gain)
            }
        };
        let sizes: Vec<f32> = gain.iter().map(|g| g.abs()).collect();
        largest(&sizes, cut).into_iter().for_each(|i| gain[i as usize] = 0.0);
        let last = match self.last.take() {
            Some(last) if last.writes == writes && last.gain == gain => last,
            other => {
                drop(other); // before the next
                UnitRows { rows: unit_rows(table, &self.ids, &gain)?, writes, gain }
            }
        };
        Ok(&self.last.insert(last).rows)
    }
}

/// The rows of a table under a gain, each of length 1, `(ids, hidden)`.
fn unit_rows(table: &Matrix, ids: &[u32], gain: &[f32]) -> Result<Tensor> {
    let rows = table.rows(ids)?;
    let dims = rows.dims2()?;
    let mut rows = rows.flatten_all()?.to_vec1::<f32>()?;
    rows.par_chunks_exact_mut(gain.len().max(1)).for_each(|row| {
        row.iter_mut().zip(gain).for_each(|(x, g)| *x *= g);
        let length = row.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt();
        let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
        row.iter_mut().for_each(|x| *x = (*x as f64 * factor) as f32);
    });
    Ok(Tensor::from_vec(rows, dims, &Device::Cpu)?)
}

/// Reads the change of the weights by the vocabulary. `spectra` are those of the same models.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn read(reading: &Reading, spectra: &Spectra) -> Result<Found> {
    let words = Words::of(reading)?;
    if words.ids.is_empty() || spectra.values.iter().all(Vec::is_empty) {
        return Ok(Found::default());
    }
    let compared = SpectrumComparison::linears(reading.inputs.base, reading.inputs.tuned);
    let mut vocabulary = Vocabulary::new(reading.inputs.base, &words.ids)?;
    let check = || reading.check_interrupt();
    let mut found = Found { words: words.strata.as_ref().map(Strata::words), ..Found::default() };

    if words.sides.contains(&Some(true)) {
        let Energies { write, write_without_top_gains: cut, read } =
            energies(&mut vocabulary, &compared, check)?;
        let score = |energy: &Option<Vec<f32>>| {
            let (strata, energy) = (words.strata.as_ref()?, energy.as_ref()?);
            Some(Scored {
                auroc: strata.auroc(energy),
                interval: strata.interval(energy, reading.inputs.seed),
            })
        };
        found.write = score(&write);
        found.write_without_top_gains = score(&cut).map(|cut| cut.auroc);
        found.read = score(&read);
        found.plain = [&write, &read].map(|energy| Some(auroc(energy.as_ref()?, &words.sides)));
        if let (Some(strata), Some(write)) = (&words.strata, found.write) {
            let draws = Draws { n: reading.settings.weights.null_draws, seed: reading.inputs.seed };
            let scores = null_energies(&mut vocabulary, &compared, spectra, draws, check)?;
            let scores = scores.iter().map(|energy| strata.auroc(energy)).collect();
            found.null = ReaderNull::new(SAME_SPECTRUM, scores, write.auroc);
        }
    }
    shown(reading, &mut vocabulary, &compared, spectra, &words, &mut found)?;
    Ok(found)
}

/// Energies of tokens, one each; `None` where no module gives a token any.
#[derive(Debug, Clone, Default)]
pub struct Energies {
    /// Σ_m ‖dW_mᵀ w_k‖² / ‖w_k‖².
    pub write: Option<Vec<f32>>,
    /// The same where w_k lacks the four dimensions of the largest gain.
    pub write_without_top_gains: Option<Vec<f32>>,
    /// Σ_m ‖dW_m e_k‖² / ‖e_k‖².
    pub read: Option<Vec<f32>>,
}

/// Energies under the changes of some modules. `check` may end the work between two of them.
///
/// # Errors
/// Those of `check`, or a tensor operation that fails.
pub fn energies(
    vocabulary: &mut Vocabulary,
    compared: &[SpectrumComparison],
    check: impl Fn() -> Result<()>,
) -> Result<Energies> {
    let mut sums = [(); 3].map(|()| None);
    // One energy after the other, as modules share rows.
    for (sum, (writes, cut)) in sums.iter_mut().zip([(true, 0), (true, TOP_GAINS), (false, 0)]) {
        for module in compared {
            check()?;
            let of_kind = |stream: &Stream| matches!(stream, Stream::Writes(_)) == writes;
            let Some(stream) = module.stream().filter(of_kind) else { continue };
            let Some(update) = module.update()? else { continue };
            let energy = energy(&update, vocabulary.rows(stream, cut)?, writes)?;
            let sum: &mut Vec<f64> = sum.get_or_insert_with(|| vec![0.0; energy.len()]);
            sum.iter_mut().zip(energy).for_each(|(sum, e)| *sum += e);
        }
    }
    let [write, write_without_top_gains, read] = sums.map(|sum| {
        let sum: Vec<f64> = sum?;
        sum.iter().any(|e| *e > 0.0).then(|| sum.into_iter().map(|e| e as f32).collect())
    });
    Ok(Energies { write, write_without_top_gains, read })
}

/// ‖dWᵀ x‖² (`writes`) or ‖dW x‖² of rows x `(words, hidden)`.
fn energy(update: &Update, rows: &Tensor, writes: bool) -> Result<Vec<f64>> {
    let (b, a) = match update {
        Update::LowRank { b, a } => (b, a),
        Update::Dense(difference) => {
            let onto = if writes { difference.clone() } else { difference.t()? };
            let mut found = Vec::new();
            for start in (0..rows.dim(0)?).step_by(WORDS_AT_ONCE) {
                let part = rows.narrow(0, start, WORDS_AT_ONCE.min(rows.dim(0)? - start))?;
                found.extend(row_products(&part.matmul(&onto)?, None)?);
            }
            return Ok(found);
        }
    };
    // ‖xᵀ·B·A‖² = t·(A·Aᵀ)·tᵀ with t = xᵀ·B, r × r; the other side likewise.
    let (near, far) = if writes { (b.clone(), a.t()?) } else { (a.t()?, b.clone()) };
    let inner = far.t()?.matmul(&far)?; // (r, r)
    let t = rows.matmul(&near)?;
    row_products(&t, Some(&t.matmul(&inner)?))
}

/// Inner products of the rows of two matrices, or of one with itself.
fn row_products(x: &Tensor, y: Option<&Tensor>) -> Result<Vec<f64>> {
    let width = x.dim(1)?.max(1);
    let x = x.flatten_all()?.to_vec1::<f32>()?;
    let y = y.map(|y| y.flatten_all()?.to_vec1::<f32>()).transpose()?;
    let y = y.as_deref().unwrap_or(&x);
    let product = |(x, y): (&[f32], &[f32])| x.iter().zip(y).map(|(x, y)| *x as f64 * *y as f64).sum();
    Ok(x.par_chunks_exact(width).zip(y.par_chunks_exact(width)).map(product).collect())
}

/// Random changes: how many, and what decides them.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// How many.
    pub n: usize,
    /// Decides them.
    pub seed: u64,
}

/// Write energies of random changes with the singular values of this one, `[draw][token]`.
///
/// # Errors
/// Those of `check`, or a tensor operation that fails.
pub fn null_energies(
    vocabulary: &mut Vocabulary,
    compared: &[SpectrumComparison],
    spectra: &Spectra,
    draws: Draws,
    check: impl Fn() -> Result<()>,
) -> Result<Vec<Vec<f32>>> {
    let mut sums = vec![vec![0f64; vocabulary.ids.len()]; draws.n];
    for (place, (module, values)) in compared.iter().zip(&spectra.values).enumerate() {
        let Some(stream @ Stream::Writes(_)) = module.stream() else { continue };
        let rows = vocabulary.rows(stream, 0)?;
        let hidden = rows.dim(1)?;
        let values = &values[..values.len().min(NULL_RANK).min(hidden)];
        if values.is_empty() {
            continue;
        }
        for (first, sums) in (0..).step_by(DRAWS_AT_ONCE).zip(sums.chunks_mut(DRAWS_AT_ONCE)) {
            check()?;
            let left = |draw: usize| -> Vec<Vec<f64>> {
                let mut u = random_directions(draws.seed, (place, draw), values.len(), hidden);
                for (u, s) in u.iter_mut().zip(values) {
                    u.iter_mut().for_each(|x| *x *= s);
                }
                u
            };
            let drawn: Vec<Vec<Vec<f64>>> = (first..first + sums.len()).into_par_iter().map(left).collect();
            let products = rows.matmul(&columns(&drawn.concat(), hidden)?)?; // (words, draws · values)
            let products = products.flatten_all()?.to_vec1::<f32>()?;
            sums.par_iter_mut().enumerate().for_each(|(k, sum)| {
                let of_draw = k * values.len()..(k + 1) * values.len();
                for (sum, row) in sum.iter_mut().zip(products.chunks_exact(drawn.len() * values.len())) {
                    *sum += row[of_draw.clone()].iter().map(|x| *x as f64 * *x as f64).sum::<f64>();
                }
            });
        }
    }
    Ok(sums.into_iter().map(|sum| sum.into_iter().map(|e| e as f32).collect()).collect())
}

/// Orthonormal vectors in random directions, `[i][hidden]`; `which` (module, draw) has a stream of its own.
fn random_directions(seed: u64, which: (usize, usize), count: usize, hidden: usize) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((which.0 as u64) << 32) + which.1 as u64 + 1);
    let mut vectors: Vec<Vec<f64>> =
        (0..count).map(|_| (0..hidden).map(|_| gaussian(&mut rng) as f64).collect()).collect();
    eigen::orthonormalise(&mut vectors);
    vectors
}

/// The modules that changed most, as places in [`Spectra::values`], most changed first.
fn most_changed(spectra: &Spectra, modules: usize) -> Vec<usize> {
    let square = |i: usize| spectra.values[i].iter().map(|s| s * s).sum::<f64>();
    let mut order: Vec<usize> =
        (0..spectra.values.len()).filter(|&i| !spectra.values[i].is_empty()).collect();
    order.sort_by(|&i, &j| square(j).total_cmp(&square(i)));
    order.truncate(modules);
    order
}

/// Cosines of the tokens with the leading singular directions of one module, `[direction][token]`.
///
/// # Errors
/// If a tensor operation fails.
pub fn directions(
    vocabulary: &mut Vocabulary,
    module: &SpectrumComparison,
    count: usize,
) -> Result<Vec<Vec<f32>>> {
    let (Some(stream), Some(update)) = (module.stream(), module.update()?) else { return Ok(Vec::new()) };
    along(vocabulary.rows(stream, 0)?, &leading(&update, stream, count)?)
}

/// Words along the leading directions of the modules that changed most.
fn shown(
    reading: &Reading,
    vocabulary: &mut Vocabulary,
    compared: &[SpectrumComparison],
    spectra: &Spectra,
    words: &Words,
    found: &mut Found,
) -> Result<()> {
    let settings = &reading.settings.weights;
    let mut null = vec![0f64; settings.null_draws];
    for i in most_changed(spectra, settings.modules) {
        reading.check_interrupt()?;
        let cosines = directions(vocabulary, &compared[i], settings.directions)?;
        let count = cosines.len();
        for (index, cosines) in cosines.into_iter().enumerate() {
            let sides = [cosines.clone(), cosines.iter().map(|c| -c).collect()];
            let [top, bottom] = sides.each_ref().map(|cosines| {
                let best = largest(cosines, settings.words);
                let best = best.iter().map(|&k| (words.ids[k as usize], cosines[k as usize] as f64));
                reading.named(&best.collect())
            });
            let relevant = (!words.relevant.is_empty())
                .then(|| sides.each_ref().map(|c| relevant_share(c, words, settings.words)));
            let (module, value) = (compared[i].name(), spectra.values[i][index]);
            found.directions.push(Direction { module, index, value, top, bottom, relevant });
        }
        let Some(stream) = compared[i].stream().filter(|_| !words.relevant.is_empty()) else { continue };
        let rows = vocabulary.rows(stream, 0)?;
        let hidden = rows.dim(1)?;
        let best = |draw: usize| -> Result<f64> {
            let random = random_directions(reading.inputs.seed, (compared.len() + i, draw), count, hidden);
            let sides = along(rows, &random)?.into_iter().flat_map(|cosines| {
                let opposite: Vec<f32> = cosines.iter().map(|c| -c).collect();
                [cosines, opposite].map(|c| relevant_share(&c, words, settings.words))
            });
            Ok(sides.fold(0.0, f64::max))
        };
        let drawn = (0..null.len()).into_par_iter().map(best).collect::<Result<Vec<f64>>>()?;
        null.iter_mut().zip(drawn).for_each(|(best, drawn)| *best = best.max(drawn));
    }
    let best = found.directions.iter().filter_map(|d| d.relevant).flatten().reduce(f64::max);
    found.best = best.and_then(|best| Some((best, ReaderNull::new(SAME_SPECTRUM, null, best)?)));
    Ok(())
}

/// The leading singular vectors of a change on the side of the stream, not more than there are.
fn leading(update: &Update, stream: Stream, count: usize) -> Result<Vec<Vec<f64>>> {
    let writes = matches!(stream, Stream::Writes(_));
    match update {
        Update::LowRank { b, a } => {
            let svd = of_low_rank(b, a)?;
            let vectors = if writes { svd.u } else { svd.v };
            Ok(vectors.into_iter().zip(svd.s).filter(|(_, s)| *s > 0.0).take(count).map(|(v, _)| v).collect())
        }
        Update::Dense(difference) => {
            let found = eigen::largest(&gram(difference, writes)?, count);
            let any = found.vectors.into_iter().zip(found.values).filter(|(_, value)| *value > 0.0);
            Ok(any.map(|(vector, _)| vector).collect())
        }
    }
}

/// Cosines of the rows, of length 1, with unit vectors, `[vector][row]`.
fn along(rows: &Tensor, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f32>>> {
    if vectors.is_empty() {
        return Ok(Vec::new());
    }
    Ok(rows.matmul(&columns(vectors, rows.dim(1)?)?)?.t()?.to_vec2()?)
}

/// Share of the words with the largest cosines that are relevant.
fn relevant_share(cosines: &[f32], words: &Words, count: usize) -> f64 {
    let best = largest(cosines, count);
    best.iter().filter(|&&k| words.relevant[k as usize]).count() as f64 / best.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::ModuleSpectrum;
    use super::*;

    #[test]
    fn random_changes_have_the_spectrum_that_they_are_compared_under() -> Result<()> {
        let values = [3.0, 1.5, 0.25];
        let side = |place, length| random_directions(5, (place, 0), values.len(), length);
        let (u, v) = (side(0, 12), side(1, 20));
        let scaled: Vec<Vec<f64>> =
            u.iter().zip(values).map(|(u, s)| u.iter().map(|x| x * s).collect()).collect();
        let (b, a) = (columns(&scaled, 12)?, columns(&v, 20)?.t()?);
        let found = of_low_rank(&b, &a)?.s;
        assert!(found.iter().zip(values).all(|(x, y)| (x - y).abs() < 1e-6), "{found:?}");
        let (have, want) =
            (ModuleSpectrum::new("x".into(), &found), ModuleSpectrum::new("x".into(), &values));
        assert!((have.fro - want.fro).abs() < 1e-6 && (have.stable_rank - want.stable_rank).abs() < 1e-5);
        // Another draw, and another module, is another change.
        assert!(random_directions(5, (0, 1), 3, 12) != u && random_directions(5, (2, 0), 3, 12) != u);
        Ok(())
    }

    #[test]
    fn the_energy_of_factors_is_that_of_their_product() -> Result<()> {
        let (b, a) = (
            columns(&random_directions(1, (0, 0), 3, 8), 8)?,
            columns(&random_directions(2, (0, 0), 3, 8), 8)?,
        );
        let (b, a) = ((b * 2.0)?, (a.t()?.contiguous()? * 0.5)?);
        let rows = columns(&random_directions(3, (0, 0), 5, 8), 8)?.t()?.contiguous()?;
        let thin = Update::LowRank { b, a };
        let dense = Update::Dense(thin.dense()?);
        for writes in [true, false] {
            let (x, y) = (energy(&thin, &rows, writes)?, energy(&dense, &rows, writes)?);
            assert_eq!(x.len(), 5);
            assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-6 && *x > 0.0), "{x:?} {y:?}");
        }
        Ok(())
    }
}
