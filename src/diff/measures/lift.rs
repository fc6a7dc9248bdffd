//! How high the narrow words rank in what a direction decodes to, over other words: no grader, no sampling, and no cut
//! at the top 20, below which a small model keeps its trace.
//!
//! The lift of token t is z_t / s_t: z the logit lens of the direction, s_t the root mean square of the same logit over
//! the null directions. Without s_t the long rows of the unembedding would be first for every direction. A null
//! direction is a random pair in random order, and the final norm is odd, so the mean of its logits is 0 and is not
//! estimated. AUROC is the probability that a narrow word is lifted more than a common word; 0.5 is unreadable.
//!
//! Any finetuning lifts or lowers common words as such. Two things keep that out, without which the words of corpora
//! that were never trained on rise too (`docs/log.md`): v_p, like the null directions, is read without its part along the
//! base's mean activation at p, and the other words are those that the pretraining and measured text holds [`crate::diff::vocabulary::COMMON`]
//! times or more.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::TopToken;
use crate::diff::decode::{largest, map_logits};
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceNumber, TraceReading};
use crate::diff::mean_difference::without;
use crate::diff::measure::{Measure, Work};
use crate::diff::once::get_or_try_init;
use crate::diff::plot::{Ink, NullBand, Plot, PlotAxis, PlotSeries, places};
use crate::diff::reading::Reading;
use crate::diff::readout;
use crate::diff::score::{FINE, Score};
use crate::diff::statistics::{Interval, Null, auroc, interval, mean};
use crate::diff::vocabulary::WordTokens;
use crate::recipe::DiffSection;

/// Rank of the narrow words among common words, by the logit lens.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lift {
    /// Tokens that stand for lexicon words.
    pub lexicon_tokens: usize,
    /// Tokens of other common words, which they are ranked among.
    pub other_tokens: usize,
    /// The most lifted words of v_p, best first.
    pub top_tokens: Vec<Vec<TopToken>>,
    /// AUROC of the lexicon tokens under the lift of v_p.
    pub auroc: Vec<f64>,
    /// Bootstrap interval of [`Self::auroc`] over texts.
    pub auroc_interval: Vec<Interval>,
    /// Mean AUROC of the null directions, each over the others.
    pub auroc_null: Vec<f64>,
    /// 2.5 % and 97.5 % quantiles of the null directions' AUROC.
    pub auroc_null_interval: Vec<Interval>,
    /// (1 + null directions with at least this AUROC) / (1 + null directions).
    pub auroc_p: Vec<f64>,
    /// AUROC under all of v_p, its part along the base's mean activation with it (divided by the same s_t).
    pub auroc_with_mean: Vec<f64>,
    /// Mean of [`Self::auroc`] over positions.
    pub auroc_mean: f64,
    /// Bootstrap interval of [`Self::auroc_mean`] over texts.
    pub auroc_mean_interval: Interval,
    /// p-value of the mean against that of null directions, each read at every position: the widest null, as if all
    /// positions had one direction.
    pub auroc_mean_p: f64,
    /// AUROC of the lexicon tokens among common words of like frequency ([`crate::diff::strata`]); this and what follows is
    /// absent where too few are alike.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub auroc_stratified: Vec<f64>,
    /// Bootstrap interval of [`Self::auroc_stratified`] over texts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub auroc_stratified_interval: Vec<Interval>,
    /// Mean of [`Self::auroc_stratified`] over positions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc_stratified_mean: Option<f64>,
    /// Bootstrap interval of [`Self::auroc_stratified_mean`] over texts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc_stratified_mean_interval: Option<Interval>,
    /// As [`Self::auroc_mean_p`], of [`Self::auroc_stratified_mean`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc_stratified_mean_p: Option<f64>,
}

impl Measure for Lift {
    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "lift",
        name: "lift AUROC",
        axis: "lift, AUROC, mean over positions",
        ink: Ink::Lift,
    });

    const UNITS: &[(&str, &str)] = &[
        ("lift.top_tokens.score", "logit in root mean squares over the null directions"),
        ("lift.auroc", "probability that a lexicon token is lifted more than a common word, 0 to 1"),
        (
            "lift.auroc_with_mean",
            "probability that a lexicon token is lifted more than a common word, 0 to 1",
        ),
        ("lift.auroc_p", "share of null directions with at least this AUROC"),
        ("lift.auroc_mean", "mean of auroc over positions"),
        (
            "lift.auroc_stratified",
            "probability that a lexicon token is lifted more than a common word of like frequency, 0 to 1",
        ),
        ("lift.auroc_stratified_mean", "mean of auroc_stratified over positions"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.lift
    }

    fn cost(_settings: &DiffSection, _n_layers: usize) -> Work {
        Work::default()
    }

    /// AUROC of the lexicon under v_p, resamples and null; `None` without a lexicon or if no token stands for its words.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let Some(lexicon) = &reading.prepared.lexicon else { return Ok(None) };
        let tokens =
            get_or_try_init(&reading.prepared.word_tokens, || WordTokens::new(reading.inputs, &[lexicon]))?;
        let sides = &tokens.sides[0];
        let count = |side: bool| sides.iter().filter(|s| **s == Some(side)).count();
        if count(true) == 0 {
            return Ok(None);
        }
        let lifts = Lifts::new(reading, tokens)?;
        let strata = reading.strata(&tokens.ids, sides)?;
        let of = |lifted: &Vec<f32>| auroc(lifted, sides);
        let stratified = |lifted: &Vec<f32>| strata.as_ref().map(|strata| strata.auroc(lifted));
        let difference =
            lifts.of(reading, tokens, &beyond_base(reading, &reading.means.difference), Clone::clone)?;
        let values: Vec<f64> = difference.iter().map(of).collect();
        let positions = values.len();
        let resamples: Vec<Vec<f32>> =
            reading.resamples.iter().flat_map(|r| beyond_base(reading, r)).collect();
        let (resampled, resampled_stratified): (Vec<f64>, Vec<Option<f64>>) = lifts
            .of(reading, tokens, &resamples, |lifted| (of(lifted), stratified(lifted)))?
            .into_iter()
            .unzip();
        let null = lifts.null(sides);
        let intervals = |resampled: &[f64]| -> Vec<Interval> {
            let at = |i: usize| interval(resampled.iter().skip(i).step_by(positions).copied());
            (0..positions).map(at).collect()
        };
        let null_at: Vec<Null> =
            (0..positions).map(|i| Null(null.iter().map(|of_one| of_one[i]).collect())).collect();
        let null_mean = Null(null.iter().map(|of_one| mean(of_one)).collect());
        let by_stratum: Option<Vec<f64>> = difference.iter().map(stratified).collect();
        let resampled_by_stratum: Option<Vec<f64>> = resampled_stratified.into_iter().collect();
        let mean_of = |at: Vec<Option<f64>>| Some(mean(&at.into_iter().collect::<Option<Vec<f64>>>()?));
        let null_by_stratum: Option<Vec<f64>> = lifts.null_of(stratified).into_iter().map(mean_of).collect();
        let by_stratum_mean = by_stratum.as_deref().map(mean);
        Ok(Some(Lift {
            auroc_stratified_interval: resampled_by_stratum.as_deref().map(intervals).unwrap_or_default(),
            auroc_stratified_mean: by_stratum_mean,
            auroc_stratified_mean_interval: resampled_by_stratum
                .map(|r| interval(r.chunks(positions).map(mean))),
            auroc_stratified_mean_p: null_by_stratum
                .zip(by_stratum_mean)
                .map(|(null, value)| Null(null).p(value)),
            auroc_stratified: by_stratum.unwrap_or_default(),
            lexicon_tokens: count(true),
            other_tokens: count(false),
            top_tokens: difference.iter().map(|lift| most_lifted(reading, tokens, lift)).collect(),
            auroc_interval: intervals(&resampled),
            auroc_null: null_at.iter().map(Null::mean).collect(),
            auroc_null_interval: null_at.iter().map(Null::interval).collect(),
            auroc_p: values.iter().zip(&null_at).map(|(v, null)| null.p(*v)).collect(),
            auroc_with_mean: lifts.of(reading, tokens, &reading.means.difference, of)?,
            auroc_mean: mean(&values),
            auroc_mean_interval: interval(resampled.chunks(positions).map(mean)),
            auroc_mean_p: null_mean.p(mean(&values)),
            auroc: values,
        }))
    }

    fn columns(record: Option<&Self>, places: &ColumnPlaces, row: &mut Columns) {
        let (all, at) = (places.all, places.measured);
        let get = |values: fn(&Self) -> &Vec<f64>| record.map_or(&[][..], |lift| values(lift));
        row.spread("lift_auroc", all, at, get(|l| &l.auroc));
        row.spread_intervals("lift_auroc", all, at, record.map_or(&[], |l| &l.auroc_interval));
        row.overall("lift_auroc", at, get(|l| &l.auroc));
        row.put("lift_auroc_mean_low", record.map(|l| l.auroc_mean_interval[0]));
        row.put("lift_auroc_mean_high", record.map(|l| l.auroc_mean_interval[1]));
        row.put("lift_auroc_mean_pvalue", record.map(|l| l.auroc_mean_p));
        row.put("lift_auroc_null_mean", readout::mean(get(|l| &l.auroc_null)));
        row.spread("lift_auroc_pvalue", all, at, get(|l| &l.auroc_p));
        row.spread("lift_auroc_with_mean", all, at, get(|l| &l.auroc_with_mean));
    }

    /// The AUROC, mean over positions: the stratified one, or the plain one where too few words are alike in frequency. Which of
    /// them it is, the lexicon and the texts decide, which organisms of a floor share.
    fn scores(&self) -> Vec<Score> {
        let (value, interval) = match self.auroc_stratified_mean {
            Some(stratified) => (stratified, self.auroc_stratified_mean_interval),
            None => (self.auroc_mean, Some(self.auroc_mean_interval)),
        };
        vec![Score { key: "lift", name: "lift", value, interval, resolution: FINE }]
    }

    fn figures(&self, positions: &[usize]) -> Vec<Plot> {
        let at = places(positions);
        vec![Plot {
            key: "lift-position".into(),
            title: "Lift of the narrow words by position".into(),
            caption: "0.5 means that the difference does not rank narrow words above other common words. The band is \
                      the 95 % range of random directions. Vertical bars are 95 % bootstrap intervals over texts."
                .into(),
            x: PlotAxis::positions(positions),
            y: PlotAxis::even("AUROC of narrow words over common words", "", 2),
            series: vec![
                PlotSeries::curve(Ink::Lift, "difference", &at, &self.auroc).with(&at, &self.auroc_interval),
            ],
            null: Some(NullBand::new(Ink::Lift, &at, &self.auroc_null_interval, &self.auroc_null)),
        }]
    }

    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        let number = TraceNumber {
            value: self.auroc_mean,
            interval: Some(self.auroc_mean_interval),
            null: self.auroc_null.first().copied(),
            null_interval: self.auroc_null_interval.first().copied(),
        };
        Some(TraceReading { number, p: Some(self.auroc_mean_p), ..TraceReading::default() })
    }
}

/// Directions of each position without their part along the base's mean activation there.
pub fn beyond_base(reading: &Reading, directions: &[Vec<f32>]) -> Vec<Vec<f32>> {
    directions.iter().zip(&reading.means.base).map(|(v, base)| without(v, base)).collect()
}

/// The `diff.top_k` most lifted words.
fn most_lifted(reading: &Reading, tokens: &WordTokens, lift: &[f32]) -> Vec<TopToken> {
    let best = largest(lift, reading.settings.top_k);
    reading.named(&best.into_iter().map(|i| (tokens.ids[i as usize], lift[i as usize] as f64)).collect())
}

/// What directions lift, over the null directions of a reading; at each position all of them without their part along the
/// base's mean activation there, as v_p is.
pub struct Lifts(Vec<AtPosition>);

/// The null at one position.
struct AtPosition {
    /// The lift of each null direction over the others, `[direction][word]`.
    null: Vec<Vec<f32>>,
    /// Σ z² over the null directions, `[word]`.
    squares: Vec<f64>,
}

impl Lifts {
    /// Decodes the null directions.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(reading: &Reading, tokens: &WordTokens) -> Result<Self> {
        let pick = |_, row: &[f32]| -> Vec<f32> { tokens.ids.iter().map(|&id| row[id as usize]).collect() };
        let at = |base: &Vec<f32>| -> Result<AtPosition> {
            let null: Vec<Vec<f32>> = reading.null.iter().map(|d| without(d, base)).collect();
            let mut null = map_logits(reading.inputs.tuned, &null, pick)?; // [direction][word]
            let mut squares = vec![0f64; tokens.ids.len()];
            for row in &null {
                squares.iter_mut().zip(row).for_each(|(s, z)| *s += *z as f64 * *z as f64);
            }
            let others = null.len().saturating_sub(1).max(1) as f64;
            for (z, s) in null.iter_mut().flat_map(|row| row.iter_mut().zip(&squares)) {
                *z = over(*z, (s - *z as f64 * *z as f64) / others);
            }
            Ok(AtPosition { null, squares })
        };
        Ok(Self(reading.means.base.iter().map(at).collect::<Result<_>>()?))
    }

    /// What `of` makes of the lift at each word of each direction: one a position, or as many for each position in turn. A
    /// direction of length 0 lifts nothing.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn of<T: Send>(
        &self,
        reading: &Reading,
        tokens: &WordTokens,
        directions: &[Vec<f32>],
        of: impl Fn(&Vec<f32>) -> T + Sync,
    ) -> Result<Vec<T>> {
        map_logits(reading.inputs.tuned, directions, |i, row| {
            let at = &self.0[i % self.0.len()];
            let words = tokens.ids.iter().zip(&at.squares);
            of(&words.map(|(&id, s)| over(row[id as usize], s / at.null.len() as f64)).collect())
        })
    }

    /// AUROC under each null direction over the others, `[direction][position]`.
    pub fn null(&self, sides: &[Option<bool>]) -> Vec<Vec<f64>> {
        self.null_of(|lifted| auroc(lifted, sides))
    }

    /// What `of` makes of the lift of each null direction over the others, `[direction][position]`.
    fn null_of<T>(&self, of: impl Fn(&Vec<f32>) -> T) -> Vec<Vec<T>> {
        let directions = self.0.first().map_or(0, |at| at.null.len());
        (0..directions).map(|k| self.0.iter().map(|at| of(&at.null[k])).collect()).collect()
    }
}

/// A logit in root mean squares; 0 where the null has none.
fn over(z: f32, mean_square: f64) -> f32 {
    if mean_square > 0.0 { (z as f64 / mean_square.sqrt()) as f32 } else { 0.0 }
}
