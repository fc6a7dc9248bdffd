//! Diff mining (arXiv 2608.26462): which tokens the tuned model finds likelier than the base does, at the first positions of
//! unrelated texts.
//!
//! D = l_tuned − l_base for every token of the vocabulary at every position, l the log-softmax of the logits after their soft
//! cap. Three orderings of the tokens: by the share of positions at which a token is among the 100 with the largest D, by the
//! share at which D > 0, and by the topics of a non-negative factorization of the positions' largest D. The score looks at all
//! of it and has no ties: AUROC of the mean D per token, words of the lexicon against common words of like frequency.
//!
//! The position of a beginning-of-sequence token is left out: it is the same in every text. Ids that no text has drift in every
//! finetuning and have no part in the AUROC. Of two vocabularies the ids that both have are compared.
//!
//! A variant reads D elsewhere: at the logit lens of each model's own stream at depth 3/4, or where that stream takes the place
//! of the `?` of an identity prompt in its own model. A difference of what the streams decode to is not what their difference
//! decodes to ([`super::logit_lens`], [`super::patchscope`]).

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::patchscope::IdentityPrompts;
use crate::diff::beginnings::Beginnings;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::{TopToken, largest};
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceReading};
use crate::diff::inputs::check_interrupt;
use crate::diff::measure::{Measure, Work};
use crate::diff::nmf::{self, Topic};
use crate::diff::once::get_or_try_init;
use crate::diff::plot::{Ink, Number, Plot, TokenLists};
use crate::diff::reader_score::{RESAMPLES, ReaderScore};
use crate::diff::reading::Reading;
use crate::diff::score::{FINE, Score};
use crate::diff::statistics::{Interval, auroc, interval};
use crate::diff::strata::Strata;
use crate::diff::token_counts::TokenCounts;
use crate::diff::vocabulary::WordTokens;
use crate::model::hooks::NoHook;
use crate::model::{Pass, View};
use crate::ops::kernels::exp::softmax;
use crate::ops::kernels::teams;
use crate::ops::segments::{self, Segments};
use crate::recipe::{DiffMiningSection, DiffSection, MinedRelevance, MinedValues, MinedVariant};

/// Tokens of one forward pass.
const BATCH_TOKENS: usize = 512;

/// Bytes that the logits of one chunk of rows may take, for each model.
const CHUNK_BYTES: usize = 32 << 20;

/// Depth of the block that a lens reads.
const LENS_DEPTH: f64 = 0.75;

/// Tokens that are listed of an ordering, and of a topic.
const LISTED: usize = 100;
const LISTED_OF_TOPIC: usize = 50;

/// Tokens of a list in the report.
const SHOWN: usize = 20;

/// Ranks up to which relevant tokens are counted.
const RANKS: [usize; 2] = [20, 100];

/// `readers.diff_mining`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DiffMining {
    /// Stratified AUROC of the mean difference.
    #[serde(flatten)]
    pub reader: ReaderScore,
    /// What was mined at the logits.
    #[serde(flatten)]
    pub mined: Mined,
    /// What was mined elsewhere.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub variants: BTreeMap<MinedVariant, Mined>,
}

/// What was mined at one place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Mined {
    /// Number of texts.
    pub texts: usize,
    /// Positions, of all texts together.
    pub positions: usize,
    /// Probability that a token of the lexicon has a higher mean difference than a common one of like frequency.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc: Option<f64>,
    /// Its bootstrap interval over texts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc_interval: Option<Interval>,
    /// The same among common words of any frequency.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc_plain: Option<f64>,
    /// Share of relevant tokens up to each rank of the ordering `top_k`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub domain_at: BTreeMap<String, f64>,
    /// Their bootstrap intervals over texts, ranked again each time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub domain_at_interval: BTreeMap<String, Interval>,
    /// The orderings; absent between equal models.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub orderings: Option<Orderings>,
}

/// Tokens in three orders.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Orderings {
    /// By the share of positions at which a token is among those with the largest difference.
    pub top_k: Ordering,
    /// By the same of the smallest difference: what the tuned model finds less likely.
    pub bottom_k: Ordering,
    /// By the share of positions with a positive difference.
    pub fraction_positive: Ordering,
    /// By the weight in each topic, the one with the largest mass first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub nmf: Vec<TopicOrdering>,
}

/// Tokens, best first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ordering {
    /// The tokens.
    pub tokens: Vec<MinedToken>,
}

/// A topic's tokens and what it is like.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TopicOrdering {
    /// Share of the factorization that is this topic's.
    pub mass: f64,
    /// Share of the positions that have most of this topic.
    pub prevalence: f64,
    /// 1 − H/ln n of its weights: 0 evenly over all tokens, 1 on one.
    pub concentration: f64,
    /// Cosine of its weights with those of the topic that is most alike.
    pub cosine: f64,
    /// The tokens.
    pub tokens: Vec<MinedToken>,
}

/// A token of an ordering.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MinedToken {
    /// Token id.
    pub id: u32,
    /// Decoded text of the token.
    pub text: String,
    /// What it is ordered by: per cent of positions (`top_k`, `bottom_k`), share of positions (`fraction_positive`), share of
    /// the topic's weight (`nmf`).
    pub rate: f64,
    /// Mean difference, nats.
    pub mean: f64,
    /// Whether it counts as relevant; absent without narrow text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub relevant: Option<bool>,
}

const UNIT: &str =
    "probability that a lexicon token gains more than a common token of like frequency, 0 to 1";

impl Measure for DiffMining {
    const UNITS: &[(&str, &str)] = &[
        ("readers.diff_mining.score", UNIT),
        ("readers.diff_mining.auroc", UNIT),
        ("readers.diff_mining.auroc_plain", "the same without strata"),
        (
            "readers.diff_mining.domain_at",
            "share of the tokens up to a rank of top_k that are relevant, 0 to 1",
        ),
        ("readers.diff_mining.orderings.top_k.tokens.rate", "per cent of positions"),
        ("readers.diff_mining.orderings.bottom_k.tokens.rate", "per cent of positions"),
        ("readers.diff_mining.orderings.fraction_positive.tokens.rate", "share of positions, 0 to 1"),
        ("readers.diff_mining.orderings.nmf.tokens.rate", "share of the topic's weight, 0 to 1"),
        (
            "readers.diff_mining.orderings.*.tokens.mean",
            "nats (logits where diff.diff_mining.values = \"logits\")",
        ),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.diff_mining.enabled
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        let section = &settings.diff_mining;
        let tokens = 2.0 * (section.texts * (section.positions + 1)) as f64;
        let depth = (settings.block_at(LENS_DEPTH, n_layers) + 1) as f64 / n_layers as f64;
        let has = |variant: MinedVariant| f64::from(u8::from(section.variants.contains(&variant)));
        let patched = 2.0 * (section.texts.min(section.patchscope_texts) * section.positions) as f64;
        Work {
            read: tokens * (1.0 + depth * (has(MinedVariant::LogitLens) + has(MinedVariant::PatchscopeLens))),
            patched: has(MinedVariant::PatchscopeLens) * patched * (1.0 - depth),
            ..Work::default()
        }
    }

    /// Mines the logits, and elsewhere where that is asked for. `None` where fewer than two texts are long enough.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let (section, clock) = (&reading.settings.diff_mining, Instant::now());
        let texts = Beginnings::cut(reading.inputs, section.positions, section.texts, false)?;
        if texts.ids.len() < 2 {
            return Ok(None);
        }
        let judge = Judge::new(reading)?;
        let mine = |place: Place| -> Result<Mined> {
            let sums = Sums::over(reading, section, &texts, reading.inputs.tuned, &judge, place)?;
            Ok(mined(reading, section, &judge, &sums))
        };
        let mined = mine(Place::Logits)?;
        let mut variants = BTreeMap::new();
        for variant in &section.variants {
            variants.insert(*variant, mine(Place::from(*variant))?);
        }
        Ok(Some(Self {
            reader: ReaderScore {
                score: mined.auroc,
                interval: mined.auroc_interval,
                null: None,
                floor: None,
                unit: UNIT.into(),
                settings: serde_json::to_value(section)?,
                seconds: clock.elapsed().as_secs_f64(),
            },
            mined,
            variants,
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let mined = record.map(|record| &record.mined);
        row.put_late("mining_auroc", mined.and_then(|m| m.auroc));
        row.put_late("mining_auroc_low", mined.and_then(|m| m.auroc_interval).map(|ends| ends[0]));
        row.put_late("mining_auroc_high", mined.and_then(|m| m.auroc_interval).map(|ends| ends[1]));
        for k in RANKS {
            row.put_late(
                format!("mining_domain_{k}"),
                mined.and_then(|m| m.domain_at.get(&k.to_string()).copied()),
            );
        }
    }

    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "diff_mining",
        name: "diff mining",
        axis: "diff mining, AUROC",
        ink: Ink::Mining,
    });

    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        self.reader.trace(Some(0.5))
    }

    fn scores(&self) -> Vec<Score> {
        self.reader.scores("diff_mining", "diff mining", FINE)
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        Vec::new()
    }

    fn tokens(&self, _: &[usize]) -> Vec<TokenLists> {
        let Some(orderings) = &self.mined.orderings else { return Vec::new() };
        let list = |name: &str, tokens: &[MinedToken]| {
            let shown = tokens.iter().take(SHOWN).map(|token| TopToken {
                token: token.text.clone(),
                id: token.id,
                score: token.rate,
                relevant: token.relevant,
            });
            (name.to_string(), shown.collect::<Vec<TopToken>>())
        };
        let mut lists = vec![
            list("likelier at most positions", &orderings.top_k.tokens),
            list("likelier at a share of positions", &orderings.fraction_positive.tokens),
            list("less likely", &orderings.bottom_k.tokens),
        ];
        lists.extend(
            orderings.nmf.iter().enumerate().map(|(i, t)| list(&format!("topic {}", i + 1), &t.tokens)),
        );
        vec![TokenLists {
            key: "diff-mining",
            title: "Diff mining: what gains in unrelated text".into(),
            lists,
        }]
    }

    fn numbers(&self) -> Vec<Number> {
        let auroc = self.mined.auroc.map(|auroc| {
            Number::new("Diff mining: AUROC of the narrow words among words of like frequency", auroc)
                .with(self.mined.auroc_interval)
        });
        let domain = self.mined.domain_at.iter().map(|(k, share)| {
            Number::new(format!("Diff mining: share of relevant tokens among the first {k}"), *share)
                .with(self.mined.domain_at_interval.get(k).copied())
        });
        auroc.into_iter().chain(domain).collect()
    }
}

/// The sizes at which null models are scored.
pub fn null_section(section: &DiffMiningSection) -> DiffMiningSection {
    let sizes = DiffMiningSection::default();
    let (texts, positions) = (section.texts.min(sizes.texts), section.positions.min(sizes.positions));
    DiffMiningSection { texts, positions, topics: 0, variants: Vec::new(), ..section.clone() }
}

/// The score of another tuned model at the sizes of a section, as null models are scored.
///
/// # Errors
/// As [`measure`].
pub fn score(reading: &Reading, section: &DiffMiningSection, tuned: View) -> Result<Option<f64>> {
    let judge = Judge::new(reading)?;
    let texts = Beginnings::cut(reading.inputs, section.positions, section.texts, false)?;
    let sums = Sums::over(reading, section, &texts, tuned, &judge, Place::Logits)?;
    Ok(judge.words.as_ref().filter(|_| sums.differs()).map(|words| words.strata.auroc(&words.means(&sums))))
}

/// Where the two models are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
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

/// What decides the score and the relevance of a token: the same for every tuned model.
struct Judge<'a> {
    reading: &'a Reading<'a>,
    /// Words of the lexicon and common ones, if some text has the token; `None` without a lexicon, or where too few
    /// are alike in frequency.
    words: Option<Words>,
    /// Counts of tokens, where there is a lexicon.
    counts: Option<&'a TokenCounts>,
}

/// Tokens that are ranked.
struct Words {
    ids: Vec<u32>,
    sides: Vec<Option<bool>>,
    strata: Strata,
}

impl<'a> Judge<'a> {
    fn new(reading: &'a Reading<'a>) -> Result<Self> {
        let Some(lexicon) = &reading.prepared.lexicon else {
            return Ok(Self { reading, words: None, counts: None });
        };
        let counts = get_or_try_init(&reading.prepared.token_counts, || TokenCounts::new(reading.inputs))?;
        let tokens =
            get_or_try_init(&reading.prepared.word_tokens, || WordTokens::new(reading.inputs, &[lexicon]))?;
        let known = shared_vocabulary(reading, reading.inputs.tuned) as u32;
        let (ids, sides): (Vec<u32>, Vec<Option<bool>>) = tokens
            .ids
            .iter()
            .zip(&tokens.sides[0])
            .filter(|(id, side)| side.is_some() && **id < known && counts.has(**id))
            .map(|(id, side)| (*id, *side))
            .unzip();
        let words = reading.strata(&ids, &sides)?.map(|strata| Words { ids, sides, strata });
        Ok(Self { reading, words, counts: Some(counts) })
    }

    /// Whether a token is relevant; `None` without a lexicon.
    fn relevant(&self, section: &DiffMiningSection, id: u32) -> Option<bool> {
        let lexicon = self.reading.prepared.lexicon.as_ref()?;
        Some(match section.relevance {
            MinedRelevance::Lexicon => lexicon.is_relevant(&self.reading.inputs.token(id)),
            MinedRelevance::Domain => self.counts?.is_of_domain(id),
        })
    }
}

impl Words {
    /// Mean difference of each.
    fn means(&self, sums: &Sums) -> Vec<f32> {
        self.ids.iter().map(|id| sums.mean(*id) as f32).collect()
    }
}

/// Ids that both models have.
fn shared_vocabulary(reading: &Reading, tuned: View) -> usize {
    reading.inputs.base.model.vocab_size().min(tuned.model.vocab_size())
}

/// Statistics of D over positions.
#[derive(Debug, Clone, PartialEq)]
struct Sums {
    /// Σ D of each token.
    sum: Vec<f64>,
    /// Positions at which D > 0.
    positive: Vec<u32>,
    /// Positions at which it is among the smallest D.
    bottom: Vec<u32>,
    /// The largest D of each position, best first.
    top: Vec<Vec<(u32, f32)>>,
    /// Σ D of the watched tokens, `[text][token]`.
    watched: Vec<Vec<f64>>,
    /// Positions of each text.
    of_text: Vec<usize>,
    /// Whether D is anywhere another than 0.
    differs: bool,
}

impl Sums {
    fn new(vocab: usize) -> Self {
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
    fn over(
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

    fn begin_text(&mut self, watched: usize) {
        self.watched.push(vec![0.0; watched]);
        self.of_text.push(0);
    }

    /// Adds a position of the text that was begun last. The differences come back with the other sign.
    fn add(&mut self, differences: &mut [f32], top_k: usize, watched: &[u32]) {
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

    fn append(&mut self, part: Self) {
        self.sum.iter_mut().zip(part.sum).for_each(|(sum, more)| *sum += more);
        self.positive.iter_mut().zip(part.positive).for_each(|(count, more)| *count += more);
        self.bottom.iter_mut().zip(part.bottom).for_each(|(count, more)| *count += more);
        self.top.extend(part.top);
        self.watched.extend(part.watched);
        self.of_text.extend(part.of_text);
        self.differs |= part.differs;
    }

    fn positions(&self) -> usize {
        self.top.len()
    }

    fn differs(&self) -> bool {
        self.differs
    }

    fn mean(&self, id: u32) -> f64 {
        self.sum[id as usize] / self.positions().max(1) as f64
    }

    /// Positions of each text at which each token is among the largest, tokens numbered as in `columns`.
    fn occurrences(&self, columns: &BTreeMap<u32, u32>) -> Vec<Vec<(u32, u32)>> {
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

/// What the sums say.
fn mined(reading: &Reading, section: &DiffMiningSection, judge: &Judge, sums: &Sums) -> Mined {
    let mut found = Mined { texts: sums.of_text.len(), positions: sums.positions(), ..Mined::default() };
    if !sums.differs() {
        return found;
    }
    // Tokens that are among the largest anywhere, ascending; their columns.
    let mut ids: Vec<u32> = sums.top.iter().flatten().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    let columns: BTreeMap<u32, u32> = ids.iter().zip(0..).map(|(id, column)| (*id, column)).collect();
    let occurrences = sums.occurrences(&columns);
    let draws = draws(occurrences.len(), reading.inputs.seed);

    if let Some(words) = &judge.words {
        let means = words.means(sums);
        found.auroc = Some(words.strata.auroc(&means));
        found.auroc_plain = Some(auroc(&means, &words.sides));
        found.auroc_interval = Some(interval(resampled(&draws, |drawn| {
            let mut total = vec![0f64; words.ids.len()];
            for text in drawn {
                total.iter_mut().zip(&sums.watched[*text]).for_each(|(sum, more)| *sum += more);
            }
            words.strata.auroc(&total.iter().map(|sum| *sum as f32).collect::<Vec<f32>>())
        })));
    }

    let mut counts = vec![0u32; ids.len()];
    occurrences.iter().flatten().for_each(|(column, n)| counts[*column as usize] += n);
    let relevant: Option<Vec<bool>> =
        ids.iter().map(|id| judge.relevant(section, *id)).collect::<Option<Vec<bool>>>();
    if let Some(relevant) = &relevant {
        let ranks: Vec<usize> = RANKS.into_iter().filter(|k| *k <= ids.len()).collect();
        let again = resampled(&draws, |drawn| {
            let mut counts = vec![0u32; ids.len()];
            for text in drawn {
                occurrences[*text].iter().for_each(|(column, n)| counts[*column as usize] += n);
            }
            shares(&counts, relevant, &ranks)
        });
        for (i, (k, share)) in ranks.iter().zip(shares(&counts, relevant, &ranks)).enumerate() {
            found.domain_at.insert(k.to_string(), share);
            found.domain_at_interval.insert(k.to_string(), interval(again.iter().map(|shares| shares[i])));
        }
    }

    let token = |id: u32, rate: f64| MinedToken {
        id,
        text: reading.inputs.token(id),
        rate,
        mean: sums.mean(id),
        relevant: judge.relevant(section, id),
    };
    let positions = sums.positions() as f64;
    let ordering = |values: &[u32], unit: f64, of: &dyn Fn(u32) -> u32| -> Ordering {
        let as_f32: Vec<f32> = values.iter().map(|n| *n as f32).collect();
        let some = largest(&as_f32, LISTED).into_iter().filter(|i| values[*i as usize] > 0);
        Ordering {
            tokens: some.map(|i| token(of(i), unit * values[i as usize] as f64 / positions)).collect(),
        }
    };
    found.orderings = Some(Orderings {
        top_k: ordering(&counts, 100.0, &|column| ids[column as usize]),
        bottom_k: ordering(&sums.bottom, 100.0, &|id| id),
        fraction_positive: ordering(&sums.positive, 1.0, &|id| id),
        nmf: topic_orderings(reading, section, sums, &columns, &|column, rate| {
            token(ids[column as usize], rate)
        }),
    });
    found
}

/// The topics of the positions' largest differences.
fn topic_orderings(
    reading: &Reading,
    section: &DiffMiningSection,
    sums: &Sums,
    columns: &BTreeMap<u32, u32>,
    token: &dyn Fn(u32, f64) -> MinedToken,
) -> Vec<TopicOrdering> {
    let rows: Vec<Vec<(u32, f32)>> = sums
        .top
        .iter()
        .map(|row| row.iter().filter(|(_, d)| *d > 0.0).map(|(id, d)| (columns[id], *d)).collect())
        .collect();
    let topics = nmf::topics(&rows, columns.len(), section.topics, reading.inputs.seed);
    let ordering = |(i, topic): (usize, &Topic)| {
        let total: f64 = topic.columns.iter().sum();
        let shares: Vec<f32> =
            topic.columns.iter().map(|x| (x / total.max(f64::MIN_POSITIVE)) as f32).collect();
        let others = topics.iter().enumerate().filter(|(j, _)| *j != i);
        TopicOrdering {
            mass: topic.mass,
            prevalence: topic.prevalence,
            concentration: nmf::concentration(topic),
            cosine: others.map(|(_, other)| nmf::cosine(topic, other)).fold(0.0, f64::max),
            tokens: largest(&shares, LISTED_OF_TOPIC)
                .into_iter()
                .filter(|column| shares[*column as usize] > 1e-6)
                .map(|column| token(column, shares[column as usize] as f64))
                .collect(),
        }
    };
    topics.iter().enumerate().map(ordering).collect()
}

/// Share of relevant ones among the columns with the highest counts, up to each rank; ties by column.
fn shares(counts: &[u32], relevant: &[bool], ranks: &[usize]) -> Vec<f64> {
    let as_f32: Vec<f32> = counts.iter().map(|n| *n as f32).collect();
    let best = largest(&as_f32, ranks.iter().copied().max().unwrap_or(0));
    let share =
        |k: &usize| best[..*k].iter().filter(|column| relevant[**column as usize]).count() as f64 / *k as f64;
    ranks.iter().map(share).collect()
}

/// The texts of each resample, drawn with replacement.
fn draws(texts: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..RESAMPLES).map(|_| (0..texts).map(|_| rng.random_range(0..texts)).collect()).collect()
}

/// What `of` makes of each resample.
fn resampled<T: Send>(draws: &[Vec<usize>], of: impl Fn(&[usize]) -> T + Sync) -> Vec<T> {
    draws.par_iter().map(|drawn| of(drawn)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn ties_go_to_the_lower_id() {
        assert_eq!(shares(&[3, 5, 3, 5], &[true, false, false, true], &[2, 3]), [0.5, 2.0 / 3.0]);
    }
}
