//! How much of what finetuning gained on narrow text a constant bias alone explains: the base with v added to the
//! output of the block that is read, at every token.
//!
//! share = (CE_base − CE_{base + v}) / (CE_base − CE_tuned) on narrow text: 1 where finetuning did no more than add v,
//! 0 where v does not help the base, below 0 where it harms. v is the mean of v_p over the positions ≥ 1 (position 0,
//! often a beginning-of-sequence token, has a difference of its own), unscaled. The null adds random differences of
//! base activations of the length of v.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::losses::{Change, Edit, LossSet, LossTexts, Resamples, Side, Sums, losses_under, mean, mean_of};
use super::mean_difference::{factor_to, mean_vector, norm, scaled};
use super::reading::Reading;
use super::statistics::{Interval, Null};

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
    /// The shares; absent where finetuning gained nothing on these texts, so that there is nothing to share.
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub shares: Option<Shares>,
}

/// Shares of the gain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shares {
    /// Of v as it is.
    pub share: f64,
    /// Its bootstrap interval over documents; absent where some resample gained nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub share_interval: Option<Interval>,
    /// Mean over the null directions.
    pub share_null: f64,
    /// Their 2.5 % and 97.5 % quantiles.
    pub share_null_interval: Interval,
    /// (1 + null directions with at least this share) / (1 + null directions).
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

/// Units of [`BiasShare`].
pub const UNITS: &[(&str, &str)] = &[
    ("bias_share.ce_base", "nats a token"),
    ("bias_share.gain", "nats a token, ce_base - ce_tuned"),
    ("bias_share.share", "share of gain; 1 is all of it"),
    ("bias_share.share_null", "share of gain"),
    ("bias_share.share_p", "share of null directions with at least this share"),
    ("bias_share.share_position", "share of gain"),
    ("bias_share.vector_norm", "L2 norm of the residual stream"),
];

/// Losses of base, tuned model and biased base on narrow text; `None` without narrow text.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn measure(reading: &Reading) -> Result<Option<BiasShare>> {
    let Some(set) = LossSet::narrow(reading)? else { return Ok(None) };
    let section = &reading.settings.bias_share;
    let v = bias(&reading.settings.positions, &reading.means.difference);
    let length = norm(&v);
    let null = reading.null.iter().take(section.directions);
    let vectors = std::iter::once(v.clone())
        .chain(reading.means.difference.iter().cloned())
        .chain(section.factors.iter().map(|factor| scaled(&v, *factor)))
        .chain(null.map(|d| scaled(d, factor_to(length, d))));
    let biased = vectors.map(|v| Edit { of: Side::Base, change: Change::Add(v) });
    let edits: Vec<Edit> =
        [Edit::none(Side::Base), Edit::none(Side::Tuned)].into_iter().chain(biased).collect();

    let sums: Vec<Sums> = losses_under(reading, &set, &edits)?.iter().map(|nll| set.all(nll)).collect();
    let [base, tuned, biased @ ..] = &sums[..] else { unreachable!("two edits and more") };
    let [of_v, rest @ ..] = biased else { unreachable!("v itself") };
    let (of_positions, rest) = rest.split_at(reading.settings.positions.len());
    let (of_factors, of_null) = rest.split_at(section.factors.len());

    let resamples = Resamples::new(reading, &set);
    let gain_of = |drawn: &[usize]| Some(mean_of(base, drawn)? - mean_of(tuned, drawn)?);
    let share_of = |sums: &Sums, drawn: &[usize]| -> Option<f64> {
        let gain = gain_of(drawn).filter(|gain| *gain > 0.0)?;
        Some((mean_of(base, drawn)? - mean_of(sums, drawn)?) / gain)
    };
    let everything: Vec<usize> = (0..set.texts.documents).collect();
    let share = |sums: &Sums| share_of(sums, &everything);
    let share_interval = |sums: &Sums| resamples.interval(|drawn| share_of(sums, drawn));
    let ce = |sums: &Sums| mean(sums).unwrap_or_default();
    let shares = share(of_v).and_then(|of_v_share| {
        let null = Null(of_null.iter().map(share).collect::<Option<_>>()?);
        let factors: Vec<f64> = std::iter::once(1.0).chain(section.factors.iter().copied()).collect();
        let share_factor: Vec<f64> =
            std::iter::once(of_v).chain(of_factors).map(share).collect::<Option<_>>()?;
        let best = (0..factors.len())
            .max_by(|&a, &b| share_factor[a].total_cmp(&share_factor[b]).then(b.cmp(&a)))?;
        Some(Shares {
            share: of_v_share,
            share_interval: share_interval(of_v),
            share_null: null.mean(),
            share_null_interval: null.interval(),
            share_p: null.p(of_v_share),
            share_position: of_positions.iter().map(share).collect::<Option<_>>()?,
            share_position_interval: of_positions.iter().filter_map(share_interval).collect(),
            best_factor: factors[best],
            best_share: share_factor[best],
            factors,
            share_factor,
        })
    });
    Ok(Some(BiasShare {
        ce_base: ce(base),
        ce_tuned: ce(tuned),
        ce_biased: ce(of_v),
        gain: ce(base) - ce(tuned),
        gain_interval: resamples.interval(gain_of),
        vector_norm: length,
        shares,
        texts: set.texts,
    }))
}

/// Mean of v_p over the positions ≥ 1; of all if there is none.
fn bias(positions: &[usize], difference: &[Vec<f32>]) -> Vec<f32> {
    let later: Vec<&Vec<f32>> =
        positions.iter().zip(difference).filter(|(p, _)| **p > 0).map(|(_, v)| v).collect();
    if later.is_empty() { mean_vector(difference.iter()) } else { mean_vector(later.into_iter()) }
}
