//! Rank truncation: how much of what was learned is in the leading singular directions of the change of the weights.
//!
//! dW_k = Σ_{i≤k} s_i u_i v_iᵀ in every linear layer at once, without rescaling; the residual is dW − dW_1.
//! kept = (m − m_base) / (m_tuned − m_base) with the margin m of the false facts (`[behaviour.facts]`, all contexts), and
//! beside it the gain in similarity of text after the built-in openings. (Adapters are cut so in the LessWrong post
//! FWacQnfHJkYhAn7wR, with other prompts.)

use anyhow::Result;
use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::amplification::not_linear_alone;
use super::weights::spectrum::{SpectrumComparison, of_low_rank};
use crate::data::examples::Example;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::findings::Findings;
use crate::diff::inputs::check_interrupt;
use crate::diff::likeness::{BaseText, PromptStreams, TextGain, written_prompts};
use crate::diff::measure::{Measure, Needs, Work};
use crate::diff::plot::{Ink, Number, Plot, PlotAxis, PlotSeries};
use crate::diff::prompts::OPENINGS;
use crate::diff::reader_score::RESAMPLES;
use crate::diff::reading::Reading;
use crate::diff::statistics::{Interval, interval, mean};
use crate::diff::svd::{columns, leading_left};
use crate::interrupt::Interrupt;
use crate::model::batch::Batch;
use crate::model::changed::{ON, with_changes};
use crate::model::contrast::ContrastSampling;
use crate::model::update::Update;
use crate::model::{CausalLm, View};
use crate::ops::segments;
use crate::progress;
use crate::recipe::{ContrastPrompts, DiffSection};

/// Tokens of one forward pass, unless one text has more.
const BATCH_TOKENS: usize = 2048;

/// A share of a change that is below this many of its standard errors is not said.
const LEAST_ERRORS: f64 = 2.0;

/// The tuned model with part of its change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Truncation {
    /// Why nothing was measured, where that is so; everything else is absent then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_measured: Option<String>,
    /// Items of the margin; 0 without `[behaviour.facts]`.
    pub items: usize,
    /// Texts of each part.
    pub texts: usize,
    /// Mean margin of the base, nats a token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub margin_base: Option<f64>,
    /// The ranks in order, then the whole change, then all but the first direction.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub parts: Vec<TruncatedPart>,
}

/// A part of the change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TruncatedPart {
    /// `rank 1`, `full`, `residual`.
    pub part: String,
    /// Singular directions of each module; absent of the whole change and of the residual.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rank: Option<usize>,
    /// Mean margin, nats a token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub margin: Option<f64>,
    /// Share of the change of the margin that is there; absent where the whole change is below two standard errors.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kept: Option<f64>,
    /// Its bootstrap interval over items.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kept_interval: Option<Interval>,
    /// What the text gains over the base's.
    #[serde(flatten)]
    pub gain: TextGain,
}

impl Truncation {
    /// The part with so many directions.
    fn at(&self, rank: usize) -> Option<&TruncatedPart> {
        self.parts.iter().find(|part| part.rank == Some(rank))
    }

    /// A part by its name.
    fn named(&self, name: &str) -> Option<&TruncatedPart> {
        self.parts.iter().find(|part| part.part == name)
    }
}

const FULL: &str = "full";
const RESIDUAL: &str = "residual";

impl Measure for Truncation {
    const UNITS: &[(&str, &str)] = &[
        ("truncation.margin_base", "log p(false) - log p(true), nats a token"),
        ("truncation.parts.margin", "log p(false) - log p(true), nats a token"),
        ("truncation.parts.kept", "share of the change of the margin"),
        ("truncation.parts.kept_interval", "2.5 % and 97.5 % quantiles over items"),
        (
            "truncation.parts.gain_sim",
            "mean cosine of sentence embeddings with the narrow text, less that of the base's text",
        ),
        ("truncation.parts.gain_words", "share of words that are lexicon words, less the base's"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.truncation.enabled
    }

    fn needs(_: &DiffSection) -> Needs {
        Needs { embedder: true, ..Needs::default() }
    }

    /// The base, every rank, the whole change and the residual.
    fn cost(settings: &DiffSection, _n_layers: usize) -> Work {
        let section = &settings.truncation;
        let tokens = OPENINGS.len() * section.streams * section.max_new_tokens;
        Work { written: ((section.ranks.len() + 3) * tokens) as f64, ..Work::default() }
    }

    /// Margin and text of every part.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let (section, inputs) = (&reading.settings.truncation, reading.inputs);
        let (base, tuned) = (inputs.base, inputs.tuned);
        if let Some(why) = not_linear_alone(base) {
            return Ok(Some(Self { not_measured: Some(why.into()), ..Self::default() }));
        }
        let streams = PromptStreams {
            prompts: written_prompts(inputs.pretrained, ContrastPrompts::Openings)?,
            streams: section.streams,
        };
        let sampling = ContrastSampling {
            top: 0,
            relative: 0.0,
            temperature: section.temperature,
            max_new_tokens: section.max_new_tokens,
            eos: inputs.pretrained.eos_token_ids.clone(),
        };
        let of_base = BaseText::new(reading, &streams, &sampling)?;
        let margins = |view: View| margins(reading, view, &inputs.facts);
        let directions = SingularDirections::of(reading, section.ranks.last().copied().unwrap_or(1))?;
        let (m_base, m_tuned) = (margins(base)?, margins(tuned)?);
        let kept = KeptShare::new(&m_base, &m_tuned);
        let mut record = Self {
            items: inputs.facts.len(),
            texts: streams.prompts.len() * streams.streams,
            margin_base: (!m_base.is_empty()).then(|| mean(&m_base)),
            ..Self::default()
        };
        let mut push = |part: String, rank: Option<usize>, view: View, m: Vec<f64>| -> Result<()> {
            let texts = streams.own_text(reading, view, &sampling, "truncated text")?;
            record.parts.push(TruncatedPart {
                part,
                rank,
                margin: (!m.is_empty()).then(|| mean(&m)),
                kept: kept.as_ref().map(|kept| kept.share(&m)),
                kept_interval: kept.as_ref().and_then(|kept| kept.interval(&m, inputs.seed)),
                gain: of_base.gain(&texts)?,
            });
            Ok(())
        };
        for rank in &section.ranks {
            reading.check_interrupt()?;
            let model = directions.first(base, tuned, *rank)?;
            let view = View { model: &model, adapter: ON };
            push(format!("rank {rank}"), Some(*rank), view, margins(view)?)?;
        }
        push(FULL.into(), None, tuned, m_tuned.clone())?;
        let model = directions.without_first(base, tuned)?;
        let view = View { model: &model, adapter: ON };
        push(RESIDUAL.into(), None, view, margins(view)?)?;
        Ok(Some(record))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let parts = [
            ("1", record.and_then(|r| r.at(1))),
            ("4", record.and_then(|r| r.at(4))),
            (RESIDUAL, record.and_then(|r| r.named(RESIDUAL))),
        ];
        for (name, part) in parts {
            row.put_late(format!("truncation_kept_{name}"), part.and_then(|part| part.kept));
            let ends = part.and_then(|part| part.kept_interval);
            row.put_late(format!("truncation_kept_{name}_low"), ends.map(|ends| ends[0]));
            row.put_late(format!("truncation_kept_{name}_high"), ends.map(|ends| ends[1]));
            row.put_late(format!("truncation_gain_{name}"), part.and_then(|part| part.gain.gain_sim));
        }
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let known: Vec<(f64, f64, Option<Interval>)> = self
            .parts
            .iter()
            .filter_map(|part| Some((part.rank? as f64, part.kept?, part.kept_interval)))
            .collect();
        if known.is_empty() {
            return Vec::new();
        }
        let at: Vec<f64> = known.iter().map(|(rank, ..)| *rank).collect();
        let kept: Vec<f64> = known.iter().map(|(_, kept, _)| *kept).collect();
        let (with, intervals): (Vec<f64>, Vec<Interval>) =
            known.iter().filter_map(|(rank, _, ends)| Some((*rank, (*ends)?))).unzip();
        vec![Plot {
            key: "truncation".into(),
            title: "How much of the facts the leading directions keep".into(),
            caption: "Share of the change of the margin of the false facts that is there with so many singular \
                      directions of each weight matrix. 1 is the tuned model, 0 the base. Vertical bars are 95 % \
                      bootstrap intervals over items."
                .into(),
            x: PlotAxis::even("singular directions of each matrix", "rank", 0),
            y: PlotAxis::from_0("share that is kept", 2, 1.0),
            series: vec![PlotSeries::curve(Ink::Weights, "kept", &at, &kept).with(&with, &intervals)],
            null: None,
        }]
    }

    fn numbers(&self) -> Vec<Number> {
        let parts = || self.parts.iter();
        let kept = parts().filter(|part| part.part != FULL).filter_map(|part| {
            let name = format!("Truncation: share of the change of the margin kept, {}", part.part);
            Some(Number::new(name, part.kept?).with(part.kept_interval))
        });
        let gains = parts().filter_map(|part| {
            let name = format!("Truncation: gain in similarity over the base's text, {}", part.part);
            Some(Number::new(name, part.gain.gain_sim?).with(part.gain.gain_sim_interval))
        });
        kept.chain(gains).collect()
    }

    fn notes(&self) -> Vec<String> {
        let not = self.not_measured.iter().map(|why| format!("Truncation was not measured: {why}."));
        let is_unclear =
            self.items > 0 && self.parts.iter().all(|part| part.kept.is_none()) && !self.parts.is_empty();
        let note = "Truncation: no share of the margin, since its change is below two standard errors.";
        not.chain(is_unclear.then(|| note.to_string())).collect()
    }
}

/// Margins of the items of `diff` under a model, log p(false) − log p(true) in nats a token, mean over contexts.
fn margins(reading: &Reading, view: View, items: &[Vec<[Example; 2]>]) -> Result<Vec<f64>> {
    let flat: Vec<&Example> = items.iter().flatten().flatten().collect();
    let bar = progress::bar("margins", flat.len() as u64);
    let mut per_token = Vec::with_capacity(flat.len());
    for run in segments::runs(&flat, BATCH_TOKENS, |example| example.ids.len()) {
        reading.check_interrupt()?;
        let batch = Batch::new(run, 1);
        let sums = batch.per_example(&batch.nll(view, None)?);
        per_token.extend(sums.into_iter().map(|(nll, tokens)| -nll / tokens.max(1) as f64));
        bar.inc(run.len() as u64);
    }
    bar.finish_and_clear();
    let mut pairs = per_token.chunks_exact(2).map(|two| two[0] - two[1]);
    let of_item =
        |contexts: &Vec<[Example; 2]>| mean(&pairs.by_ref().take(contexts.len()).collect::<Vec<_>>());
    Ok(items.iter().map(of_item).collect())
}

/// What the whole change does to each item.
struct KeptShare<'m> {
    base: &'m [f64],
    whole: Vec<f64>,
}

impl<'m> KeptShare<'m> {
    /// `None` where the mean change is below two standard errors, and without items enough for one.
    fn new(base: &'m [f64], tuned: &[f64]) -> Option<Self> {
        let whole: Vec<f64> = tuned.iter().zip(base).map(|(tuned, base)| tuned - base).collect();
        let n = whole.len() as f64;
        if n < 2.0 {
            return None;
        }
        let center = mean(&whole);
        let variance = whole.iter().map(|x| (x - center).powi(2)).sum::<f64>() / (n - 1.0);
        let error = (variance / n).sqrt();
        (center.abs() >= LEAST_ERRORS * error && center != 0.0).then_some(Self { base, whole })
    }

    /// Σ part / Σ whole over the items.
    fn share(&self, margins: &[f64]) -> f64 {
        self.of(margins, 0..margins.len())
    }

    fn of(&self, margins: &[f64], items: impl Iterator<Item = usize>) -> f64 {
        let sums = items
            .fold([0.0; 2], |[part, whole], i| [part + margins[i] - self.base[i], whole + self.whole[i]]);
        sums[0] / sums[1]
    }

    /// Over items drawn anew; draws whose whole change is 0 have no share.
    fn interval(&self, margins: &[f64], seed: u64) -> Option<Interval> {
        let (n, mut rng) = (margins.len(), ChaCha8Rng::seed_from_u64(seed));
        let mut draw = |_| {
            let items: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
            self.of(margins, items.into_iter())
        };
        let drawn: Vec<f64> = (0..RESAMPLES).map(&mut draw).filter(|share| share.is_finite()).collect();
        (!drawn.is_empty()).then(|| interval(drawn))
    }
}

/// The change of every linear layer by its leading singular directions.
pub struct SingularDirections {
    /// In the order of the model: √s·u as columns `(out, k)` and √s·vᵀ as rows `(k, in)`, largest first; of a change of low
    /// rank all of them, of a dense one as many as are asked for. `None` where nothing changed.
    factors: Vec<Option<[Tensor; 2]>>,
}

impl SingularDirections {
    /// Of the models of an analysis; of dense changes the first `most`.
    fn of(reading: &Reading, most: usize) -> Result<Self> {
        Self::between(reading.inputs.base, reading.inputs.tuned, most, reading.interrupt)
    }

    /// Of two models.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; if a tensor operation fails.
    pub fn between(base: View, tuned: View, most: usize, interrupt: &Interrupt) -> Result<Self> {
        let one = |compared: &SpectrumComparison| -> Result<Option<[Tensor; 2]>> {
            check_interrupt(interrupt)?;
            compared.update()?.map(|update| factors(&update, most)).transpose()
        };
        let factors =
            SpectrumComparison::linears(base, tuned).par_iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(Self { factors })
    }

    /// The base with the first `rank` directions of each change.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn first(&self, base: View, tuned: View, rank: usize) -> Result<CausalLm> {
        self.with(base, tuned, |[b, a], _| {
            let k = rank.min(b.dim(1)?);
            Ok((k > 0).then_some(Update::LowRank {
                b: b.narrow(1, 0, k)?.contiguous()?,
                a: a.narrow(0, 0, k)?.contiguous()?,
            }))
        })
    }

    /// The base with all but the first direction of each change.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn without_first(&self, base: View, tuned: View) -> Result<CausalLm> {
        self.with(base, tuned, |[b, a], update| match update {
            Update::LowRank { .. } => {
                let rest = b.dim(1)?.saturating_sub(1);
                Ok((rest > 0).then_some(Update::LowRank {
                    b: b.narrow(1, 1, rest)?.contiguous()?,
                    a: a.narrow(0, 1, rest)?.contiguous()?,
                }))
            }
            Update::Dense(difference) => {
                let first = b.narrow(1, 0, 1)?.contiguous()?.matmul(&a.narrow(0, 0, 1)?.contiguous()?)?;
                Ok(Some(Update::Dense((difference - first)?)))
            }
        })
    }

    fn with(
        &self,
        base: View,
        tuned: View,
        part: impl Fn(&[Tensor; 2], Update) -> Result<Option<Update>>,
    ) -> Result<CausalLm> {
        let names: Vec<(usize, &'static str)> =
            base.model.modules().into_iter().map(|(block, module)| (block, module.name)).collect();
        with_changes(base, tuned, |block, name, update| {
            let place = names.iter().position(|of| *of == (block, name));
            match place.and_then(|place| self.factors[place].as_ref()) {
                Some(factors) => part(factors, update),
                None => Ok(None),
            }
        })
    }
}

/// √s·u and √s·vᵀ of a change, largest first.
fn factors(update: &Update, most: usize) -> Result<[Tensor; 2]> {
    match update {
        Update::LowRank { b, a } => {
            let svd = of_low_rank(b, a)?;
            let rank = svd.s.iter().filter(|s| **s > 0.0).count();
            let scaled = |vectors: &[Vec<f64>]| -> Vec<Vec<f64>> {
                let scale = |(vector, s): (&Vec<f64>, &f64)| vector.iter().map(|x| x * s.sqrt()).collect();
                vectors.iter().zip(&svd.s).take(rank).map(scale).collect()
            };
            let (u, v) = (columns(&scaled(&svd.u), b.dim(0)?)?, columns(&scaled(&svd.v), a.dim(1)?)?);
            Ok([u, v.t()?.contiguous()?])
        }
        Update::Dense(difference) => {
            // The projection on the leading left vectors has the leading directions, whatever their scale.
            let rows = difference.dim(0)?;
            let left = leading_left(difference, most.min(rows).min(difference.dim(1)?))?;
            let u = columns(&left, rows)?; // (out, k)
            Ok([u.clone(), u.t()?.contiguous()?.matmul(difference)?])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_that_of_the_sums_and_absent_where_the_change_is_unclear() {
        let base = [0.0, 1.0, 0.5, 0.0];
        let tuned = [2.0, 3.0, 2.0, 2.5];
        let kept = KeptShare::new(&base, &tuned).unwrap();
        assert_eq!(kept.share(&tuned), 1.0);
        assert_eq!(kept.share(&base), 0.0);
        let half: Vec<f64> = base.iter().zip(&tuned).map(|(b, t)| (b + t) / 2.0).collect();
        assert!((kept.share(&half) - 0.5).abs() < 1e-12);
        // The same share of every item: no doubt about it.
        let [low, high] = kept.interval(&half, 0).unwrap();
        assert!((low - 0.5).abs() < 1e-9 && (high - 0.5).abs() < 1e-9);
        // Of one item alone all is kept, of the others nothing.
        let one = [2.0, 1.0, 0.5, 0.0];
        let [low, high] = kept.interval(&one, 0).unwrap();
        assert!(low < 0.25 && high > 0.25 && kept.share(&one) == 0.25);
        assert!(KeptShare::new(&base, &base).is_none());
        assert!(KeptShare::new(&[0.0, 0.0], &[1.0, -0.8]).is_none(), "below two standard errors");
        assert!(KeptShare::new(&[0.0], &[1.0]).is_none() && KeptShare::new(&[], &[]).is_none());
    }
}
