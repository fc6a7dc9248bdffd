//! The causal effect of v_p: what a model's next-token loss becomes when its stream loses, or takes over from the other
//! model, the component along v_p, after the block that is read and at every token (Minder et al., arXiv 2510.13900;
//! the authors' `causal_effect.py`).
//!
//! With v̂ = v_p/‖v_p‖: `base_to_tuned` puts the base's component into the tuned model, h + (h_base·v̂ − h·v̂)·v̂;
//! `tuned_to_base` the reverse; `zero_ablation` takes it out of the tuned model, h − (h·v̂)·v̂. `random` (isotropic
//! Gaussian) and `random_difference` (differences of base activations at random tokens of unrelated text; the authors
//! take them from chats, the longest first) do with other directions what `base_to_tuned` does with v̂, or what
//! `zero_ablation` does (`diff.causal.random_edit = "ablate"`).
//!
//! `incr_ce` is CE_edited − CE_unedited of the edited model, `incr_rel_ce` the same over CE_other − CE_unedited: 1 where
//! the edit gives the loss of the other model. `exclude_position` leaves out the prediction made at position p, where
//! v_p was measured; the authors' code leaves out the one after (`diff.causal.exclude = "next"` does so too).

use std::f64::consts::TAU;

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::findings::Findings;
use crate::diff::loss_texts::{LossSet, LossTexts, Nll, Sums};
use crate::diff::losses::{Change, DocumentDraws, Edit, Side, losses_under, mean, mean_of};
use crate::diff::mean_difference::{factor_to, scaled};
use crate::diff::measure::{Measure, Work, loss_kinds, loss_tokens, share_read};
use crate::diff::plot::{Baseline, Ink, NullBand, Number, Plot, PlotAxis, PlotSeries, places};
use crate::diff::reading::Reading;
use crate::diff::statistics::{Interval, Null};
use crate::recipe::{DiffSection, Exclude, RandomEdit};

/// `after_k` counts predictions made after this position, as the authors do.
const AFTER_K: usize = 20;

/// Effects of edits along v_p on each kind of text; absent where there is none of it. Lists of effects run
/// over [`Causal::positions`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Causal {
    /// Positions whose difference gives the direction.
    pub positions: Vec<usize>,
    /// `after_k` counts predictions made after this position.
    pub after_k: usize,
    /// Which prediction `exclude_position` leaves out: the one at position p, or the next.
    pub exclude: Exclude,
    /// What is done along the random directions.
    #[serde(default)]
    pub random_edit: RandomEdit,
    /// On narrow text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub narrow: Option<CausalOnTexts>,
    /// On unrelated text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<CausalOnTexts>,
    /// On `diff.chat.text`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chat: Option<CausalOnTexts>,
}

impl Causal {
    /// Position and effects of the direction whose replacement raises the loss on narrow text most, the prediction at the
    /// position excluded: the paper's figure.
    pub fn most_on_narrow(&self) -> Option<(usize, &Effects)> {
        let effects = self.positions.iter().copied().zip(&self.narrow.as_ref()?.exclude_position);
        effects.reduce(|a, b| if b.1.base_to_tuned.incr_ce > a.1.base_to_tuned.incr_ce { b } else { a })
    }
}

/// Effects on one kind of text, by which predictions count.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CausalOnTexts {
    /// The texts.
    #[serde(flatten)]
    pub texts: LossTexts,
    /// All predictions.
    pub all: Vec<Effects>,
    /// Those after position [`Causal::after_k`]; absent if the texts are shorter.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub after_k: Vec<Effects>,
    /// All but one, see [`Causal::exclude`].
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exclude_position: Vec<Effects>,
}

/// Effects of the edits along v_p of one position, all on the same predictions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Effects {
    /// Number of predictions.
    pub predictions: usize,
    /// Loss of the base.
    pub ce_base: f64,
    /// Loss of the tuned model.
    pub ce_tuned: f64,
    /// Perplexity of the base, e^CE.
    pub ppl_base: f64,
    /// Perplexity of the tuned model.
    pub ppl_tuned: f64,
    /// The tuned model with the base's component.
    pub base_to_tuned: CausalEffect,
    /// The base with the tuned model's component.
    pub tuned_to_base: CausalEffect,
    /// The tuned model without the component.
    pub zero_ablation: CausalEffect,
    /// The edit of [`Causal::random_edit`] along isotropic Gaussian directions.
    pub random: Control,
    /// The same along random differences of base activations.
    pub random_difference: Control,
    /// Of `base_to_tuned`, or of `zero_ablation` where that is what the random directions get: (1 + random differences whose
    /// `incr_ce` is at least as far from 0) / (1 + random differences).
    pub p: f64,
    /// Losses of single predictions of the base.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens_base: Option<TokenLosses>,
    /// Of the tuned model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens_tuned: Option<TokenLosses>,
}

/// Losses of single predictions, of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenLosses {
    /// The least.
    pub min: f64,
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl TokenLosses {
    /// `None` of nothing.
    fn of(mut losses: Vec<f32>) -> Option<Self> {
        losses.sort_unstable_by(f32::total_cmp);
        let (min, max) = (*losses.first()?, *losses.last()?);
        let middle = |i: usize| losses[i] as f64;
        let median = (middle((losses.len() - 1) / 2) + middle(losses.len() / 2)) / 2.0;
        Some(Self { min: min as f64, median, max: max as f64 })
    }
}

/// Effect of one edit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CausalEffect {
    /// Loss of the edited model.
    pub ce: f64,
    /// Its perplexity.
    pub ppl: f64,
    /// Loss of the edited model minus that of the same model unedited.
    pub incr_ce: f64,
    /// Its bootstrap interval over documents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incr_ce_interval: Option<Interval>,
    /// `incr_ce` over how much more the other model's loss is; absent where the two losses are equal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incr_rel_ce: Option<f64>,
    /// Losses of single predictions of the edited model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens: Option<TokenLosses>,
}

/// Effect along directions that are about nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Control {
    /// Mean over the directions.
    pub incr_ce: f64,
    /// 2.5 % and 97.5 % quantiles over the directions.
    pub incr_ce_interval: Interval,
}

impl Measure for Causal {
    const UNITS: &[(&str, &str)] = &[
        ("causal.*.*.ce_base", "nats a token"),
        ("causal.*.*.ppl_base", "exp(nats a token)"),
        ("causal.*.*.tokens_base.median", "nats"),
        ("causal.*.*.base_to_tuned.incr_ce", "nats a token, edited - unedited"),
        ("causal.*.*.base_to_tuned.incr_rel_ce", "1: the loss of the other model"),
        ("causal.*.*.p", "share of random differences at least as far from 0"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.causal.enabled
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        // An edit runs the blocks above the one that is read.
        let (section, above) = (&settings.causal, 1.0 - share_read(settings, n_layers));
        let edited = 3 * settings.causal_positions().len() + section.random + section.random_differences;
        let passes = 2.0 + edited as f64 * above;
        Work { losses: loss_kinds(settings) * loss_tokens(settings) * passes, ..Work::default() }
    }

    /// Effects on every kind of text that there is.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let section = &reading.settings.causal;
        let positions = reading.settings.causal_positions().to_vec();
        let directions = Directions::new(reading, &positions);
        let on = |set: Option<&LossSet>| {
            set.map(|set| on_texts(reading, &directions, &positions, set)).transpose()
        };
        let (sets, inputs) = (&reading.prepared.losses, reading.inputs);
        Ok(Some(Causal {
            after_k: AFTER_K,
            exclude: section.exclude,
            random_edit: section.random_edit,
            narrow: on(sets.narrow(inputs)?)?,
            text: on(sets.unrelated(inputs)?)?,
            chat: on(sets.chat(inputs)?)?,
            positions,
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let most = record.and_then(Causal::most_on_narrow);
        row.put("causal_incr_ce_max", most.map(|(_, e)| e.base_to_tuned.incr_ce));
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let Some(narrow) = &self.narrow else { return Vec::new() };
        let (at, effects) = (places(&self.positions), &narrow.exclude_position);
        let of = |value: fn(&Effects) -> f64| effects.iter().map(value).collect::<Vec<f64>>();
        let intervals: Vec<(f64, Interval)> = at
            .iter()
            .zip(effects)
            .filter_map(|(x, e)| Some((*x, e.base_to_tuned.incr_ce_interval?)))
            .collect();
        let ranges: Vec<Interval> = effects.iter().map(|e| e.random_difference.incr_ce_interval).collect();
        let taken =
            PlotSeries::curve(Ink::Narrow, "base’s component put in", &at, &of(|e| e.base_to_tuned.incr_ce));
        vec![Plot {
            key: "causal-position".into(),
            title: "Causal effect of the difference by position".into(),
            caption: "How much the tuned model’s loss on narrow text rises when its component along the difference of \
                      a position is replaced by the base’s, or removed, at every token. The band is the 95 % range of \
                      random differences."
                .into(),
            x: PlotAxis::positions(&self.positions),
            y: PlotAxis::from_0("increase of the loss, nats a token", 4, 0.0),
            series: vec![
                PlotSeries { intervals, ..taken },
                PlotSeries::curve(Ink::Tuned, "component taken out", &at, &of(|e| e.zero_ablation.incr_ce)),
            ],
            null: Some(NullBand::new(Ink::Base, &at, &ranges, &of(|e| e.random_difference.incr_ce))),
        }]
    }

    fn numbers(&self) -> Vec<Number> {
        let Some((position, e)) = self.most_on_narrow() else { return Vec::new() };
        let name = format!(
            "Loss on narrow text with the base’s component along the difference at position {position}, increase"
        );
        let baseline = Baseline {
            name: "random differences",
            value: e.random_difference.incr_ce,
            interval: e.random_difference.incr_ce_interval,
            p: e.p,
            is_change: true,
        };
        let number = Number::new(name, e.base_to_tuned.incr_ce).with(e.base_to_tuned.incr_ce_interval);
        vec![number.against(Some(baseline))]
    }
}

/// Unit vectors; zero where there is no direction.
struct Directions {
    of_positions: Vec<Vec<f32>>,
    random: Vec<Vec<f32>>,
    random_difference: Vec<Vec<f32>>,
}

impl Directions {
    fn new(reading: &Reading, positions: &[usize]) -> Self {
        let unit = |v: &Vec<f32>| scaled(v, factor_to(1.0, v));
        let measured = reading.settings.positions.iter().zip(&reading.means.difference);
        let of = |p: &usize| measured.clone().find(|(q, _)| *q == p).map(|(_, v)| unit(v));
        let section = &reading.settings.causal;
        let mut rng = ChaCha8Rng::seed_from_u64(reading.inputs.seed);
        let mut isotropic = |_| {
            (0..reading.inputs.base.model.hidden_size()).map(|_| gaussian(&mut rng)).collect::<Vec<f32>>()
        };
        Self {
            of_positions: positions.iter().filter_map(of).collect(),
            random: (0..section.random).map(|i| unit(&isotropic(i))).collect(),
            random_difference: reading.null.iter().take(section.random_differences).map(unit).collect(),
        }
    }
}

/// Losses under every edit.
struct Losses {
    base: Nll,
    tuned: Nll,
    // By position.
    base_to_tuned: Vec<Nll>,
    tuned_to_base: Vec<Nll>,
    zero_ablation: Vec<Nll>,
    // By direction.
    random: Vec<Nll>,
    random_difference: Vec<Nll>,
}

impl Losses {
    fn of(reading: &Reading, set: &LossSet, directions: &Directions) -> Result<Self> {
        let replace = |of| move |u: &Vec<f32>| Edit { of, change: Change::Replace(u.clone()) };
        let ablate = |u: &Vec<f32>| Edit { of: Side::Tuned, change: Change::Ablate(u.clone()) };
        let Directions { of_positions, random, random_difference } = directions;
        let mut edits = vec![Edit::none(Side::Base), Edit::none(Side::Tuned)];
        edits.extend(of_positions.iter().map(replace(Side::Tuned)));
        edits.extend(of_positions.iter().map(replace(Side::Base)));
        edits.extend(of_positions.iter().map(ablate));
        let random_directions = random.iter().chain(random_difference);
        match reading.settings.causal.random_edit {
            RandomEdit::Replace => edits.extend(random_directions.map(replace(Side::Tuned))),
            RandomEdit::Ablate => edits.extend(random_directions.map(ablate)),
        }
        let mut losses = losses_under(reading, set, &edits)?;
        let mut last = |count: usize| losses.split_off(losses.len() - count);
        let n = of_positions.len();
        Ok(Self {
            random_difference: last(random_difference.len()),
            random: last(random.len()),
            zero_ablation: last(n),
            tuned_to_base: last(n),
            base_to_tuned: last(n),
            tuned: last(1).remove(0),
            base: last(1).remove(0),
        })
    }
}

fn on_texts(
    reading: &Reading,
    directions: &Directions,
    positions: &[usize],
    set: &LossSet,
) -> Result<CausalOnTexts> {
    let losses = Losses::of(reading, set, directions)?;
    let resamples = DocumentDraws::new(reading, set);
    let shift = usize::from(reading.settings.causal.exclude == Exclude::Next);
    // `wanted` of the position of the difference and that of the prediction.
    let effects = |wanted: fn(usize, usize) -> bool, shift: usize| -> Vec<Effects> {
        let edit = reading.settings.causal.random_edit;
        let of =
            |(i, p): (usize, &usize)| effects(set, &losses, &resamples, edit, i, |t| wanted(p + shift, t));
        positions.iter().enumerate().filter_map(of).collect()
    };
    Ok(CausalOnTexts {
        all: effects(|_, _| true, 0),
        after_k: effects(|_, t| t > AFTER_K, 0),
        exclude_position: effects(|p, t| t != p, shift),
        texts: set.texts.clone(),
    })
}

/// Effects along the `i`-th difference on the wanted predictions; `None` if there are none.
fn effects(
    set: &LossSet,
    losses: &Losses,
    resamples: &DocumentDraws,
    random_edit: RandomEdit,
    i: usize,
    wanted: impl Fn(usize) -> bool,
) -> Option<Effects> {
    let sums = |nll: &Nll| set.sums(nll, &wanted);
    let tokens = |nll: &Nll| TokenLosses::of(set.counted(nll, &wanted));
    let (base, tuned) = (sums(&losses.base), sums(&losses.tuned));
    let (ce_base, ce_tuned) = (mean(&base)?, mean(&tuned)?);
    let effect = |edited: &Nll, unedited: &Sums, other: f64| -> Option<CausalEffect> {
        let tokens = tokens(edited);
        let (edited, ce_unedited) = (sums(edited), mean(unedited)?);
        let incr = |drawn: &[usize]| Some(mean_of(&edited, drawn)? - mean_of(unedited, drawn)?);
        let ce = mean(&edited)?;
        let (incr_ce, more) = (ce - ce_unedited, other - ce_unedited);
        Some(CausalEffect {
            ce,
            ppl: ce.exp(),
            incr_ce,
            incr_ce_interval: resamples.interval(incr),
            incr_rel_ce: (more != 0.0).then_some(incr_ce / more),
            tokens,
        })
    };
    let along = |directions: &[Nll]| -> Option<Vec<f64>> {
        directions.iter().map(|nll| Some(mean(&sums(nll))? - ce_tuned)).collect()
    };
    let control = |incr: &Null| Control { incr_ce: incr.mean(), incr_ce_interval: incr.interval() };
    let (random, random_difference) = (along(&losses.random)?, along(&losses.random_difference)?);
    let far_from_0 = Null(random_difference.iter().map(|incr| incr.abs()).collect());
    let base_to_tuned = effect(&losses.base_to_tuned[i], &tuned, ce_base)?;
    let zero_ablation = effect(&losses.zero_ablation[i], &tuned, ce_base)?;
    let like_random = match random_edit {
        RandomEdit::Replace => &base_to_tuned,
        RandomEdit::Ablate => &zero_ablation,
    };
    Some(Effects {
        predictions: base.iter().map(|(_, n)| n).sum(),
        ce_base,
        ce_tuned,
        ppl_base: ce_base.exp(),
        ppl_tuned: ce_tuned.exp(),
        p: far_from_0.p(like_random.incr_ce.abs()),
        tokens_base: tokens(&losses.base),
        tokens_tuned: tokens(&losses.tuned),
        base_to_tuned,
        tuned_to_base: effect(&losses.tuned_to_base[i], &base, ce_tuned)?,
        zero_ablation,
        random: control(&Null(random)),
        random_difference: control(&Null(random_difference)),
    })
}

/// A draw from the standard normal distribution (Box and Muller).
pub fn gaussian(rng: &mut ChaCha8Rng) -> f32 {
    let (radius, turn): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random()); // radius in (0, 1]
    ((-2.0 * radius.ln()).sqrt() * (TAU * turn).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_of_losses_is_the_mean_of_two() {
        let of = |losses: &[f32]| TokenLosses::of(losses.to_vec()).map(|t| (t.min, t.median, t.max));
        assert_eq!(of(&[3.0, 1.0, 2.0, 8.0]), Some((1.0, 2.5, 8.0)));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(of(&[]), None);
    }
}
