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
//! Norms say nothing of what inputs reach a module, and the middle blocks need not use the vocabulary's basis.
//!
//! What they are compared with are random changes of the same singular values: left vectors from the QR decomposition of
//! Gaussian matrices. Of a change of high rank the 64 largest count: the rest of a random change gives every word the
//! same in expectation.

use anyhow::Result;
use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::spectrum::{Compared, Spectra, of_low_rank};
use crate::diff::decode::{TopToken, largest};
use crate::diff::eigen;
use crate::diff::measures::causal::gaussian;
use crate::diff::reader::ReaderNull;
use crate::diff::once::made;
use crate::diff::reading::Reading;
use crate::diff::statistics::{Interval, auroc};
use crate::diff::strata::Strata;
use crate::diff::svd::{columns, gram};
use crate::diff::vocabulary::WordTokens;
use crate::model::modules::Stream;
use crate::model::update::Update;

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
        let common =
            |tokens: &WordTokens| tokens.ids.iter().copied().filter(|id| (*id as usize) < known).collect();
        let Some(lexicon) = &reading.prepared.lexicon else {
            let ids = common(&WordTokens::new(inputs, &[])?);
            return Ok(Self { ids, sides: Vec::new(), relevant: Vec::new(), strata: None });
        };
        let tokens = made(&reading.prepared.word_tokens, || WordTokens::new(inputs, &[lexicon]))?;
        let ids: Vec<u32> = common(tokens);
        Ok(Self {
            sides: tokens.sides[0][..ids.len()].to_vec(), // ids are ascending
            relevant: ids.iter().map(|id| lexicon.is_relevant(&reading.token(*id))).collect(),
            strata: reading.strata(tokens)?,
            ids,
        })
    }
}

/// Rows of a table under a gain, each of length 1.
struct Rows {
    /// `(words, hidden)`.
    table: Tensor,
    gain: Vec<f32>,
    /// `(words, hidden)`.
    unit: Tensor,
}

impl Rows {
    fn of(table: &crate::ops::weight::Matrix, ids: &[u32]) -> Result<Self> {
        let table = table.rows(ids)?.to_device(&Device::Cpu)?;
        Ok(Self { unit: table.clone(), table, gain: Vec::new() })
    }

    /// The rows under a gain; most modules share theirs with the one before.
    fn under(&mut self, gain: Vec<f32>) -> Result<&Tensor> {
        if self.gain != gain {
            let width = gain.len();
            let mut rows = self.table.flatten_all()?.to_vec1::<f32>()?;
            rows.par_chunks_exact_mut(width.max(1)).for_each(|row| {
                row.iter_mut().zip(&gain).for_each(|(x, g)| *x *= g);
                let length = row.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt();
                let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
                row.iter_mut().for_each(|x| *x = (*x as f64 * factor) as f32);
            });
            self.unit = Tensor::from_vec(rows, self.table.dims2()?, &Device::Cpu)?;
            self.gain = gain;
        }
        Ok(&self.unit)
    }
}

/// Rows of the unembedding and of the embeddings, and the gain of the final norm.
struct Vocabulary<'a> {
    reading: &'a Reading<'a>,
    written: Rows,
    read: Rows,
    final_gain: Vec<f32>,
}

impl<'a> Vocabulary<'a> {
    fn of(reading: &'a Reading<'a>, ids: &[u32]) -> Result<Self> {
        let base = reading.inputs.base;
        Ok(Self {
            reading,
            written: Rows::of(base.model.unembedding(base.adapter), ids)?,
            read: Rows::of(base.model.embeddings(base.adapter), ids)?,
            final_gain: base.model.norm().gain(base.adapter)?,
        })
    }

    /// What a module writes along or reads, one row a word, `(words, hidden)`. `cut` dimensions of the largest gain are left
    /// out.
    fn rows(&mut self, stream: Stream, cut: usize) -> Result<&Tensor> {
        let adapter = self.reading.inputs.base.adapter;
        let (rows, mut gain) = match stream {
            Stream::Reads(norm) => (&mut self.read, norm.gain(adapter)?),
            Stream::Writes(norm) => {
                let mut gain = self.final_gain.clone();
                if let Some(norm) = norm {
                    gain.iter_mut().zip(norm.gain(adapter)?).for_each(|(g, post)| *g *= post);
                }
                (&mut self.written, gain)
            }
        };
        let sizes: Vec<f32> = gain.iter().map(|g| g.abs()).collect();
        largest(&sizes, cut).into_iter().for_each(|i| gain[i as usize] = 0.0);
        rows.under(gain)
    }
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
    let compared = Compared::linears(reading.inputs.base, reading.inputs.tuned);
    let mut vocabulary = Vocabulary::of(reading, &words.ids)?;
    let mut found = Found { words: words.strata.as_ref().map(Strata::words), ..Found::default() };

    if words.sides.contains(&Some(true)) {
        let [write, cut, read] = energies(&mut vocabulary, &compared)?;
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
            let scores = null_energies(&mut vocabulary, &compared, spectra)?;
            let scores = scores.iter().map(|energy| strata.auroc(energy)).collect();
            found.null = Some(ReaderNull::new(SAME_SPECTRUM, scores, write.auroc));
        }
    }
    directions(&mut vocabulary, &compared, spectra, &words, &mut found)?;
    Ok(found)
}

/// Write energies, the same without the dimensions of the largest gains, and read energies of the words; `None` where no
/// module gives a word any.
fn energies(vocabulary: &mut Vocabulary, compared: &[Compared]) -> Result<[Option<Vec<f32>>; 3]> {
    let n = vocabulary.written.table.dim(0)?;
    let mut sums = [(); 3].map(|()| vec![0f64; n]);
    for module in compared {
        vocabulary.reading.check_interrupt()?;
        let (Some(stream), Some(update)) = (module.stream(), module.update()?) else { continue };
        let (writes, kinds): (bool, &[(usize, usize)]) = match stream {
            Stream::Writes(_) => (true, &[(0, 0), (1, TOP_GAINS)]),
            Stream::Reads(_) => (false, &[(2, 0)]),
        };
        for &(kind, cut) in kinds {
            let energy = energy(&update, vocabulary.rows(stream, cut)?, writes)?;
            sums[kind].iter_mut().zip(energy).for_each(|(sum, e)| *sum += e);
        }
    }
    let narrowed = |sum: Vec<f64>| {
        let any = sum.iter().any(|e| *e > 0.0);
        any.then(|| sum.into_iter().map(|e| e as f32).collect())
    };
    Ok(sums.map(narrowed))
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

/// Write energies of random changes with the singular values of this one, `[draw][word]`.
fn null_energies(
    vocabulary: &mut Vocabulary,
    compared: &[Compared],
    spectra: &Spectra,
) -> Result<Vec<Vec<f32>>> {
    let reading = vocabulary.reading;
    let (n, draws) = (vocabulary.written.table.dim(0)?, reading.settings.weights.null_draws);
    let mut sums = vec![vec![0f64; n]; draws];
    for (place, (module, values)) in compared.iter().zip(&spectra.values).enumerate() {
        let Some(stream @ Stream::Writes(_)) = module.stream() else { continue };
        let rows = vocabulary.rows(stream, 0)?;
        let hidden = rows.dim(1)?;
        let values = &values[..values.len().min(NULL_RANK).min(hidden)];
        if values.is_empty() {
            continue;
        }
        for (first, sums) in (0..).step_by(DRAWS_AT_ONCE).zip(sums.chunks_mut(DRAWS_AT_ONCE)) {
            reading.check_interrupt()?;
            let left = |draw: usize| -> Vec<Vec<f64>> {
                let mut u = random_directions(reading.inputs.seed, (place, draw), values.len(), hidden);
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

/// Words along the leading directions of the modules that changed most.
fn directions(
    vocabulary: &mut Vocabulary,
    compared: &[Compared],
    spectra: &Spectra,
    words: &Words,
    found: &mut Found,
) -> Result<()> {
    let reading = vocabulary.reading;
    let settings = &reading.settings.weights;
    let square = |i: usize| spectra.values[i].iter().map(|s| s * s).sum::<f64>();
    let mut order: Vec<usize> = (0..compared.len()).filter(|&i| !spectra.values[i].is_empty()).collect();
    order.sort_by(|&i, &j| square(j).total_cmp(&square(i)));
    order.truncate(settings.modules);
    let mut null = vec![0f64; settings.null_draws];
    for i in order {
        reading.check_interrupt()?;
        let (Some(stream), Some(update)) = (compared[i].stream(), compared[i].update()?) else { continue };
        let vectors = leading(&update, stream, settings.directions)?;
        let rows = vocabulary.rows(stream, 0)?;
        let hidden = rows.dim(1)?;
        for (index, cosines) in along(rows, &vectors, hidden)?.into_iter().enumerate() {
            let opposite: Vec<f32> = cosines.iter().map(|c| -c).collect();
            let side = |cosines: &[f32]| {
                let best = largest(cosines, settings.words);
                reading.named(
                    &best.iter().map(|&k| (words.ids[k as usize], cosines[k as usize] as f64)).collect(),
                )
            };
            found.directions.push(Direction {
                module: compared[i].name(),
                index,
                value: spectra.values[i][index],
                top: side(&cosines),
                bottom: side(&opposite),
                relevant: (!words.relevant.is_empty())
                    .then(|| [&cosines, &opposite].map(|c| relevant_share(c, words, settings.words))),
            });
        }
        if words.relevant.is_empty() {
            continue;
        }
        let best = |draw: usize| -> Result<f64> {
            let random =
                random_directions(reading.inputs.seed, (compared.len() + i, draw), vectors.len(), hidden);
            let sides = along(rows, &random, hidden)?.into_iter().flat_map(|cosines| {
                let opposite: Vec<f32> = cosines.iter().map(|c| -c).collect();
                [cosines, opposite].map(|c| relevant_share(&c, words, settings.words))
            });
            Ok(sides.fold(0.0, f64::max))
        };
        let drawn = (0..null.len()).into_par_iter().map(best).collect::<Result<Vec<f64>>>()?;
        null.iter_mut().zip(drawn).for_each(|(best, drawn)| *best = best.max(drawn));
    }
    let shares = found.directions.iter().filter_map(|d| d.relevant).flatten();
    let best = shares.reduce(f64::max);
    found.best = best.map(|best| (best, ReaderNull::new(SAME_SPECTRUM, null, best)));
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
fn along(rows: &Tensor, vectors: &[Vec<f64>], hidden: usize) -> Result<Vec<Vec<f32>>> {
    if vectors.is_empty() {
        return Ok(Vec::new());
    }
    Ok(rows.matmul(&columns(vectors, hidden)?)?.t()?.to_vec2()?)
}

/// Share of the words with the largest cosines that are relevant.
fn relevant_share(cosines: &[f32], words: &Words, count: usize) -> f64 {
    let best = largest(cosines, count);
    best.iter().filter(|&&k| words.relevant[k as usize]).count() as f64 / best.len().max(1) as f64
}
