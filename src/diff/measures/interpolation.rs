//! From base to tuned by scaling the adapter: how the difference and what it decodes to grow with its weight, beside
//! what the weight does to the losses.
//!
//! At factor f every low-rank term counts f times; 0 is the base, 1 the tuned model. What an adapter replaces rather
//! than adds (modules saved whole, DoRA's row lengths) is the tuned one at every factor but 0.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::diff::collect::collect;
use crate::diff::decode::decode;
use crate::diff::loss_texts::LossSet;
use crate::diff::mean_difference::{cosine, norm};
use crate::diff::reading::Reading;
use crate::model::View;
use crate::model::batch::mean_loss;

/// Texts of one forward pass.
const BATCH: usize = 16;

/// The difference and the losses at several factors on the adapter. Lists of lists are `[factor][position]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Interpolation {
    /// Why nothing was measured, where that is so; everything else is absent then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_measured: Option<String>,
    /// Factors on the adapter.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub factors: Vec<f64>,
    /// ‖v_p‖ between the base and the model at the factor.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub delta_norm: Vec<Vec<f64>>,
    /// Cosine of v_p with that at factor 1; 0 where one of them is zero.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub cosine: Vec<Vec<f64>>,
    /// Share of the logit lens's top tokens of v_p that are relevant, through the norm and head at the factor.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lens_relevance: Vec<Vec<f64>>,
    /// Loss on narrow text, by factor.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub loss_narrow: Vec<f64>,
    /// Loss on unrelated text, by factor.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub loss_text: Vec<f64>,
}

/// Units of [`Interpolation`].
pub const UNITS: &[(&str, &str)] = &[
    ("interpolation.factors", "multiples of the adapter"),
    ("interpolation.delta_norm", "L2 norm of the residual stream"),
    ("interpolation.cosine", "cosine, -1 to 1"),
    ("interpolation.lens_relevance", "share of the top tokens, 0 to 1"),
    ("interpolation.loss_narrow", "nats a token"),
    ("interpolation.loss_text", "nats a token"),
];

/// Difference, lens and losses at every factor of `diff.interpolation.factors`.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn measure(reading: &Reading) -> Result<Interpolation> {
    let (base, tuned) = (reading.inputs.base, reading.inputs.tuned);
    if !std::ptr::eq(base.model, tuned.model) {
        let why = "base and tuned are two models; only an adapter can be scaled";
        return Ok(Interpolation { not_measured: Some(why.into()), ..Interpolation::default() });
    }
    let factors = &reading.settings.interpolation.factors;
    let sets = &reading.prepared.losses;
    let (narrow, text) = (sets.narrow(reading.inputs)?, sets.unrelated(reading.inputs)?);
    let mut found = Interpolation { factors: factors.clone(), ..Interpolation::default() };
    for &factor in factors {
        let view = View { model: tuned.model, adapter: factor };
        let difference = difference_at(reading, view)?;
        found.delta_norm.push(difference.iter().map(|v| norm(v)).collect());
        let at_one = &reading.means.difference;
        found.cosine.push(difference.iter().zip(at_one).map(|(v, one)| cosine(v, one)).collect());
        if reading.prepared.lexicon.is_some() {
            let decoded = decode(view, &difference, reading.settings.top_k)?;
            found.lens_relevance.push(reading.relevances(&decoded));
        }
        found.loss_narrow.extend(loss_at(reading, view, narrow)?);
        found.loss_text.extend(loss_at(reading, view, text)?);
    }
    Ok(found)
}

/// v_p between the base and the model at a factor.
fn difference_at(reading: &Reading, view: View) -> Result<Vec<Vec<f32>>> {
    if view.adapter == reading.inputs.tuned.adapter {
        return Ok(reading.means.difference.clone());
    }
    let (probes, base) = (reading.prepared.windows.probes(reading.settings), reading.inputs.base);
    let found = collect(base, view, &probes, &[reading.layer], 0, reading.interrupt)?;
    Ok(found[0].means().difference)
}

fn loss_at(reading: &Reading, view: View, set: Option<&LossSet>) -> Result<Option<f64>> {
    let Some(set) = set else { return Ok(None) };
    reading.check_interrupt()?;
    let examples: Vec<_> = set.examples.iter().collect();
    mean_loss(view, &examples, BATCH)
}
