//! From base to tuned by scaling the adapter: how the difference and what it decodes to grow with its weight, beside
//! what the weight does to the losses.
//!
//! At factor f every low-rank term counts f times; 0 is the base, 1 the tuned model. What an adapter replaces rather
//! than adds (modules saved whole, DoRA's row lengths) is the tuned one at every factor but 0.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::diff::collect::collect;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::decode;
use crate::diff::findings::Findings;
use crate::diff::loss_texts::LossSet;
use crate::diff::mean_difference::{cosine, norm};
use crate::diff::measure::{Measure, Work, loss_tokens, share_read};
use crate::diff::plot::{Ink, Number, Plot, PlotAxis, PlotSeries};
use crate::diff::reading::Reading;
use crate::diff::statistics::mean;
use crate::model::View;
use crate::model::batch::mean_loss;
use crate::recipe::DiffSection;

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

impl Interpolation {
    /// ‖v_p‖ at each factor, mean over positions.
    fn norms(&self) -> Vec<f64> {
        self.delta_norm.iter().map(|norms| mean(norms)).collect()
    }

    /// Relevance of the logit lens at each factor, mean over positions; empty without narrow text.
    fn relevance(&self) -> Vec<f64> {
        self.lens_relevance.iter().map(|relevance| mean(relevance)).collect()
    }
}

impl Measure for Interpolation {
    const UNITS: &[(&str, &str)] = &[
        ("interpolation.factors", "multiples of the adapter"),
        ("interpolation.delta_norm", "L2 norm of the residual stream"),
        ("interpolation.cosine", "cosine, -1 to 1"),
        ("interpolation.lens_relevance", "share of the top tokens, 0 to 1"),
        ("interpolation.loss_narrow", "nats a token"),
        ("interpolation.loss_text", "nats a token"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.interpolation.enabled
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        let factors = settings.interpolation.factors.len() as f64;
        let read = 2.0 * (settings.samples * settings.tokens) as f64 * share_read(settings, n_layers);
        Work { read: factors * read, losses: 2.0 * factors * loss_tokens(settings), ..Work::default() }
    }

    /// Difference, lens and losses at every factor of `diff.interpolation.factors`.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let (base, tuned) = (reading.inputs.base, reading.inputs.tuned);
        if !std::ptr::eq(base.model, tuned.model) {
            let why = "base and tuned are two models; only an adapter can be scaled";
            return Ok(Some(Self { not_measured: Some(why.into()), ..Self::default() }));
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
        Ok(Some(found))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let losses = record.map_or(&[][..], |r| &r.loss_narrow);
        let least = (0..losses.len()).reduce(|a, b| if losses[b] < losses[a] { b } else { a });
        row.put("interpolation_loss_narrow_min", least.map(|i| losses[i]));
        row.put("interpolation_loss_narrow_min_factor", record.zip(least).map(|(r, i)| r.factors[i]));
        let norms = record.map(Self::norms).unwrap_or_default();
        let relevance = record.map(Self::relevance).unwrap_or_default();
        for (key, values) in [("delta_norm", &norms), ("lens_relevance", &relevance)] {
            let most = (0..values.len()).reduce(|a, b| if values[b] > values[a] { b } else { a });
            row.put(format!("interpolation_{key}_max"), most.map(|i| values[i]));
            row.put(format!("interpolation_{key}_max_factor"), record.zip(most).map(|(r, i)| r.factors[i]));
        }
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let x = || PlotAxis::even("factor on the adapter", "factor", 2);
        let caption = "0 is the base, 1 the tuned model.";
        let plot = |key: &str, title: &str, caption: String, y, series: Vec<PlotSeries>| Plot {
            key: format!("interpolation-{key}"),
            title: title.into(),
            caption,
            x: x(),
            y,
            series,
            null: None,
        };
        let curve = |ink, name: &str, values: &[f64]| PlotSeries::curve(ink, name, &self.factors, values);
        vec![
            plot(
                "loss",
                "Loss against the adapter’s factor",
                format!("{caption} Finetuning lowers the loss on narrow text."),
                PlotAxis::even("loss, nats a token", "", 3),
                vec![
                    curve(Ink::Narrow, "narrow text", &self.loss_narrow),
                    curve(Ink::Pretraining, "unrelated text", &self.loss_text),
                ],
            ),
            plot(
                "norm",
                "Size of the difference against the adapter’s factor",
                format!("{caption} Mean over the positions."),
                PlotAxis::from_0("L2 norm of the mean difference", 3, 0.0),
                vec![curve(Ink::Narrow, "mean difference", &self.norms())],
            ),
            plot(
                "relevance",
                "Relevant tokens against the adapter’s factor",
                format!("{caption} The logit lens of the mean difference, mean over the positions."),
                PlotAxis::from_0("share of the top tokens that are relevant", 2, 0.2),
                vec![curve(Ink::Lens, "difference", &self.relevance())],
            ),
        ]
    }

    fn notes(&self) -> Vec<String> {
        self.not_measured.iter().map(|why| format!("Interpolation was not measured: {why}.")).collect()
    }

    fn numbers(&self) -> Vec<Number> {
        let at_one = self.factors.iter().position(|f| *f == 1.0);
        let loss = |values: &[f64], kind: &str| {
            let value = *values.get(at_one?)?;
            Some(Number::new(format!("Interpolation: loss on {kind} text at factor 1, nats a token"), value))
        };
        let losses = [loss(&self.loss_narrow, "narrow"), loss(&self.loss_text, "unrelated")];
        losses.into_iter().flatten().collect()
    }
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
