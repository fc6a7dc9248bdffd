//! How much of what finetuning gained on narrow text a constant bias alone explains: the base with v added to the
//! output of the block that is read, at every token.
//!
//! share = (CE_base − CE_{base + v}) / (CE_base − CE_tuned) on narrow text: 1 where finetuning did no more than add v,
//! 0 where v does not help the base, below 0 where it harms. v is the mean of v_p over the positions ≥ 1 (position 0,
//! often a beginning-of-sequence token, has a difference of its own), unscaled. The null adds random differences of
//! base activations of the length of v.
//!
//! v itself is added on all texts. What it is compared with (the null, the v_p of single positions, other factors) is
//! added on the first `diff.bias_share.compared` of them, and there against v on the same texts: a rank among directions
//! needs many directions more than many texts.
//!
//! Any finetuning may be a constant in part, one on the kind of text that v was measured on too. How much of the share is
//! about the narrow text, v's effect on unrelated text tells:
//! specific_share = share − (CE_base − CE_{base + v} on unrelated text) / (CE_base − CE_tuned on narrow text).

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceNumber, TraceReading};
use crate::diff::loss_texts::{LossSet, LossTexts, Nll, Sums};
use crate::diff::losses::{Change, DocumentDraws, Edit, Side, losses_under, mean, mean_of};
use crate::diff::mean_difference::{factor_to, later, mean_vector, norm, scaled};
use crate::diff::measure::{Measure, Work, loss_tokens, share_read};
use crate::diff::plot::{Baseline, Ink, NullBand, Number, Plot, PlotAxis, PlotSeries, places};
use crate::diff::reading::Reading;
use crate::diff::score::{FINE, Score};
use crate::diff::statistics::{Interval, Null};
use crate::recipe::DiffSection;

/// Share of the gain on narrow text that a constant bias explains.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BiasShare {
    /// The narrow texts.
    #[serde(flatten)]
    pub texts: LossTexts,
    /// Loss of the base.
    pub ce_base: f64,
    /// Loss of the tuned model.
    pub ce_tuned: f64,
    /// Loss of the base with v added.
    pub ce_biased: f64,
    /// `ce_base − ce_tuned`.
    pub gain: f64,
    /// Its bootstrap interval over documents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain_interval: Option<Interval>,
    /// ‖v‖.
    pub vector_norm: f64,
    /// What v does to unrelated text; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<OnUnrelated>,
    /// The shares; absent where finetuning gained nothing on these texts, so that there is nothing to share.
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub shares: Option<Shares>,
}

/// What v does to the loss on unrelated text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OnUnrelated {
    /// The texts.
    #[serde(flatten)]
    pub texts: LossTexts,
    /// Loss of the base.
    pub ce_base: f64,
    /// Loss of the tuned model.
    pub ce_tuned: f64,
    /// Loss of the base with v added.
    pub ce_biased: f64,
}

/// Shares of the gain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shares {
    /// Of v as it is.
    pub share: f64,
    /// Its bootstrap interval over documents; absent where some resample gained nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub share_interval: Option<Interval>,
    /// `share` less what v gains on unrelated text, as a share of the same gain; absent where there is no such text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub specific_share: Option<f64>,
    /// Its bootstrap interval over the documents of both kinds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub specific_share_interval: Option<Interval>,
    /// What v is compared with; absent where finetuning gained nothing on the few texts that this is taken on.
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub compared: Option<Compared>,
}

/// Shares of the gain on the first texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compared {
    /// How many texts these are.
    #[serde(default)]
    pub compared_texts: usize,
    /// Of v on these.
    #[serde(default)]
    pub share_compared: f64,
    /// Mean over the null directions.
    pub share_null: f64,
    /// Their 2.5 % and 97.5 % quantiles.
    pub share_null_interval: Interval,
    /// (1 + null directions with at least `share_compared`) / (1 + null directions).
    pub share_p: f64,
    /// Of v_p of each position, as it is.
    pub share_position: Vec<f64>,
    /// Bootstrap intervals over documents.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub share_position_interval: Vec<Interval>,
    /// Factors on v that were tried, 1 among them.
    pub factors: Vec<f64>,
    /// The share of each.
    pub share_factor: Vec<f64>,
    /// The factor with the largest share: chosen on the texts that it is measured on.
    pub best_factor: f64,
    /// Its share.
    pub best_share: f64,
}

impl Measure for BiasShare {
    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "bias",
        name: "the specific bias share",
        axis: "specific share of a constant bias",
        ink: Ink::Bias,
    });

    const UNITS: &[(&str, &str)] = &[
        ("bias_share.ce_base", "nats a token"),
        ("bias_share.gain", "nats a token, ce_base - ce_tuned"),
        ("bias_share.share", "share of gain; 1 is all of it"),
        ("bias_share.specific_share", "share of gain, less what the difference gains on unrelated text"),
        ("bias_share.text.ce_base", "nats a token"),
        ("bias_share.share_compared", "share of gain, on the compared texts"),
        ("bias_share.share_null", "share of gain, on the compared texts"),
        ("bias_share.share_p", "share of null directions with at least share_compared"),
        ("bias_share.share_position", "share of gain, on the compared texts"),
        ("bias_share.vector_norm", "L2 norm of the residual stream"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.bias_share.enabled
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        // An edit runs the blocks above the one that is read.
        let (section, above) = (&settings.bias_share, 1.0 - share_read(settings, n_layers));
        let directions = settings.positions.len() + section.factors.len() + section.directions;
        let compared = directions as f64 * (section.compared * settings.losses.max_tokens) as f64;
        let whole = 2.0 * loss_tokens(settings) * (2.0 + above);
        Work { losses: whole + compared * above, ..Work::default() }
    }

    /// Losses of base, tuned model and biased base on narrow text; `None` without narrow text.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let (sets, inputs) = (&reading.prepared.losses, reading.inputs);
        let Some(set) = sets.narrow(inputs)? else { return Ok(None) };
        let section = &reading.settings.bias_share;
        let v = bias(&reading.settings.positions, &reading.means.difference);
        let length = norm(&v);
        let add = |v: Vec<f32>| Edit { of: Side::Base, change: Change::Add(v) };
        let edits = [Edit::none(Side::Base), add(v.clone()), Edit::none(Side::Tuned)];
        let losses = losses_under(reading, set, &edits)?;
        let unrelated = (sets.unrelated(inputs)?)
            .map(|texts| {
                let losses = losses_under(reading, texts, &edits)?;
                Ok::<_, anyhow::Error>((On::new(reading, texts, &losses, &losses[1..2]), texts.texts.clone()))
            })
            .transpose()?;

        let few = set.first(section.compared);
        let null = reading.null.iter().take(section.directions).map(|d| scaled(d, factor_to(length, d)));
        let factors = section.factors.iter().map(|factor| scaled(&v, *factor));
        let compared: Vec<Edit> =
            reading.means.difference.iter().cloned().chain(factors).chain(null).map(add).collect();
        let of_compared = losses_under(reading, &few, &compared)?;

        let on_all = On::new(reading, set, &losses, &losses[1..2]);
        let on_few = On::new(reading, &few, &losses, losses[1..2].iter().chain(&of_compared));
        let specific = |narrow: &[usize], text: &[usize]| -> Option<f64> {
            let (on_text, _) = unrelated.as_ref()?;
            Some(on_all.share_of(0, narrow)? - on_text.gain_of(0, text)? / on_all.gain(narrow)?)
        };
        let text_documents = unrelated.as_ref().map_or(0, |(on_text, _)| on_text.base.len());
        let shares = on_all.share(0).map(|share| Shares {
            share,
            share_interval: on_all.interval(0),
            specific_share: specific(&all(on_all.base.len()), &all(text_documents)),
            specific_share_interval: unrelated
                .as_ref()
                .and_then(|(on_text, _)| on_all.resamples.interval_with(&on_text.resamples, specific)),
            compared: on_few.compared(reading, few.texts.texts),
        });
        let ce = |sums: &Sums| mean(sums).unwrap_or_default();
        let text = unrelated.map(|(on, texts)| OnUnrelated {
            texts,
            ce_base: ce(&on.base),
            ce_tuned: ce(&on.tuned),
            ce_biased: ce(&on.biased[0]),
        });
        Ok(Some(BiasShare {
            ce_base: ce(&on_all.base),
            ce_tuned: ce(&on_all.tuned),
            ce_biased: ce(&on_all.biased[0]),
            gain: ce(&on_all.base) - ce(&on_all.tuned),
            gain_interval: on_all.resamples.interval(|drawn| on_all.gain(drawn)),
            vector_norm: length,
            text,
            shares,
            texts: set.texts.clone(),
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let shares = record.and_then(|r| r.shares.as_ref());
        row.put("bias_share", shares.map(|s| s.share));
        row.put("bias_share_specific", shares.and_then(|s| s.specific_share));
        let ends = shares.and_then(|s| s.specific_share_interval);
        row.put("bias_share_specific_low", ends.map(|i| i[0]));
        row.put("bias_share_specific_high", ends.map(|i| i[1]));
    }

    /// The specific share.
    fn scores(&self) -> Vec<Score> {
        let Some(shares) = &self.shares else { return Vec::new() };
        let of = |value| Score {
            key: "bias_share",
            name: "the specific share of a constant bias",
            value,
            interval: shares.specific_share_interval,
            resolution: FINE,
        };
        shares.specific_share.map(of).into_iter().collect()
    }

    fn figures(&self, positions: &[usize]) -> Vec<Plot> {
        let Some(compared) = self.shares.as_ref().and_then(|s| s.compared.as_ref()) else {
            return Vec::new();
        };
        let at = places(positions);
        let null = vec![compared.share_null_interval; at.len()];
        vec![Plot {
            key: "bias-position".into(),
            title: "What a constant bias explains, by position".into(),
            caption: format!(
                "The gain from adding the difference of one position to the base, as a share of the gain from \
                 finetuning on {} narrow texts. The band is the 95 % range of random directions with the norm of the \
                 mean difference.",
                compared.compared_texts
            ),
            x: PlotAxis::positions(positions),
            y: PlotAxis::from_0("share of the gain on narrow text", 3, 0.0),
            series: vec![
                PlotSeries::curve(Ink::Bias, "difference", &at, &compared.share_position)
                    .with(&at, &compared.share_position_interval),
            ],
            null: Some(NullBand::new(Ink::Base, &at, &null, &vec![compared.share_null; at.len()])),
        }]
    }

    fn numbers(&self) -> Vec<Number> {
        let mut numbers =
            vec![Number::new("Gain on narrow text, nats a token", self.gain).with(self.gain_interval)];
        let Some(shares) = &self.shares else { return numbers };
        let null = shares.compared.as_ref().map(|c| Baseline {
            name: "null",
            value: c.share_null,
            interval: c.share_null_interval,
            p: c.share_p,
            is_change: false,
        });
        let share = Number::new("Share of that gain from adding the mean difference", shares.share);
        numbers.push(share.with(shares.share_interval).against(null));
        numbers.extend(shares.specific_share.map(|specific| {
            Number::new("The same share, minus the gain on unrelated text", specific)
                .with(shares.specific_share_interval)
        }));
        numbers
    }

    /// The specific share, whose null is 0; beside it the share as it is.
    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        let shares = self.shares.as_ref()?;
        let number = TraceNumber {
            value: shares.specific_share?,
            interval: shares.specific_share_interval,
            null: Some(0.0),
            null_interval: None,
        };
        let share = TraceNumber {
            value: shares.share,
            interval: shares.share_interval,
            null: shares.compared.as_ref().map(|c| c.share_null),
            null_interval: shares.compared.as_ref().map(|c| c.share_null_interval),
        };
        Some(TraceReading { number, ..TraceReading::default() }.beside("share", Some(share)))
    }
}

/// Losses on some texts, by document: of the base, of the tuned model, and of the base with each vector added.
struct On {
    base: Sums,
    tuned: Sums,
    biased: Vec<Sums>,
    resamples: DocumentDraws,
}

impl On {
    /// `unbiased` begins with the base and ends with the tuned model; they may have more texts than `set`, behind its own.
    fn new<'l>(
        reading: &Reading,
        set: &LossSet,
        unbiased: &[Nll],
        biased: impl IntoIterator<Item = &'l Nll>,
    ) -> Self {
        Self {
            base: set.all(&unbiased[0]),
            tuned: set.all(&unbiased[unbiased.len() - 1]),
            biased: biased.into_iter().map(|nll| set.all(nll)).collect(),
            resamples: DocumentDraws::new(reading, set),
        }
    }

    /// CE_base − CE_tuned.
    fn gain(&self, drawn: &[usize]) -> Option<f64> {
        Some(mean_of(&self.base, drawn)? - mean_of(&self.tuned, drawn)?)
    }

    /// CE_base − CE_{base + v} of the i-th vector.
    fn gain_of(&self, i: usize, drawn: &[usize]) -> Option<f64> {
        Some(mean_of(&self.base, drawn)? - mean_of(&self.biased[i], drawn)?)
    }

    /// Share of the gain of the i-th vector; `None` where there is no gain.
    fn share_of(&self, i: usize, drawn: &[usize]) -> Option<f64> {
        let gain = self.gain(drawn).filter(|gain| *gain > 0.0)?;
        Some(self.gain_of(i, drawn)? / gain)
    }

    fn share(&self, i: usize) -> Option<f64> {
        self.share_of(i, &all(self.base.len()))
    }

    fn interval(&self, i: usize) -> Option<Interval> {
        self.resamples.interval(|drawn| self.share_of(i, drawn))
    }

    /// Of v, the v_p, v times each factor and the null directions, in this order; `None` where there is no gain.
    fn compared(&self, reading: &Reading, texts: usize) -> Option<Compared> {
        let section = &reading.settings.bias_share;
        let first_factor = 1 + reading.means.difference.len();
        let first_null = first_factor + section.factors.len();
        let shares = (0..self.biased.len()).map(|i| self.share(i)).collect::<Option<Vec<f64>>>()?;
        let null = Null(shares[first_null..].to_vec());
        let factors: Vec<f64> = std::iter::once(1.0).chain(section.factors.iter().copied()).collect();
        let share_factor = [&shares[..1], &shares[first_factor..first_null]].concat();
        let best = (0..factors.len())
            .max_by(|&a, &b| share_factor[a].total_cmp(&share_factor[b]).then(b.cmp(&a)))?;
        Some(Compared {
            compared_texts: texts,
            share_compared: shares[0],
            share_null: null.mean(),
            share_null_interval: null.interval(),
            share_p: null.p(shares[0]),
            share_position: shares[1..first_factor].to_vec(),
            share_position_interval: (1..first_factor).filter_map(|i| self.interval(i)).collect(),
            best_factor: factors[best],
            best_share: share_factor[best],
            factors,
            share_factor,
        })
    }
}

/// Every one of `n` documents once.
fn all(n: usize) -> Vec<usize> {
    (0..n).collect()
}

/// Mean of v_p over the positions ≥ 1; of all if there is none.
fn bias(positions: &[usize], difference: &[Vec<f32>]) -> Vec<f32> {
    mean_vector(later(positions).into_iter().map(|i| &difference[i]))
}
