//! Kullback-Leibler divergence between the next-token distributions of base and tuned model: how much finetuning
//! changed what the model says, on narrow, unrelated and chat text.
//!
//! KL(p‖q) = Σ_v p_v·(log p_v − log q_v) over the whole vocabulary, in nats, at every position whose prediction counts
//! ([`crate::diff::losses`]); sums in f64.

use anyhow::Result;
use candle_core::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::findings::Findings;
use crate::diff::inputs::check_interrupt;
use crate::diff::loss_texts::{LossSet, LossTexts, Sums};
use crate::diff::losses::{DocumentDraws, mean, mean_of};
use crate::diff::measure::{Measure, Work, loss_kinds, loss_tokens};
use crate::diff::plot::{Ink, Number, Plot, PlotAxis, PlotSeries};
use crate::diff::reading::Reading;
use crate::diff::statistics::Interval;
use crate::model::Pass;
use crate::model::View;
use crate::model::batch::Batch;
use crate::model::hooks::NoHook;
use crate::ops::kernels::exp::softmax;
use crate::ops::kernels::teams;
use crate::recipe::DiffSection;

/// The first predictions of a text that are told one by one.
const FIRST: usize = 16;

/// Bytes that the logits of one chunk of rows may take, for each model.
const CHUNK_BYTES: usize = 64 << 20;

/// KL between base and tuned model on each kind of text; absent where there is none of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kl {
    /// On narrow text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub narrow: Option<KlOnTexts>,
    /// On unrelated text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<KlOnTexts>,
    /// On `diff.chat.text`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chat: Option<KlOnTexts>,
}

/// KL on one kind of text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KlOnTexts {
    /// The texts.
    #[serde(flatten)]
    pub texts: LossTexts,
    /// KL(base‖tuned), mean over predictions.
    pub base_to_tuned: f64,
    /// Its bootstrap interval over documents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base_to_tuned_interval: Option<Interval>,
    /// KL(tuned‖base), mean over predictions.
    pub tuned_to_base: f64,
    /// Its bootstrap interval over documents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tuned_to_base_interval: Option<Interval>,
    /// KL(base‖tuned) of the first predictions that count in a text, mean over texts: of a document at positions 0, 1, …
    pub base_to_tuned_first: Vec<f64>,
    /// KL(tuned‖base) of the same.
    pub tuned_to_base_first: Vec<f64>,
}

impl Kl {
    /// The kinds of text that there are.
    fn kinds(&self) -> Vec<(Ink, &'static str, &KlOnTexts)> {
        let all = [
            (Ink::Narrow, "narrow", &self.narrow),
            (Ink::Pretraining, "unrelated", &self.text),
            (Ink::Chat, "chat", &self.chat),
        ];
        all.into_iter().filter_map(|(ink, kind, kl)| Some((ink, kind, kl.as_ref()?))).collect()
    }
}

impl Measure for Kl {
    const UNITS: &[(&str, &str)] = &[
        ("kl.narrow.base_to_tuned", "nats a token, KL(base‖tuned)"),
        ("kl.narrow.tuned_to_base", "nats a token, KL(tuned‖base)"),
        ("kl.text.base_to_tuned", "nats a token, KL(base‖tuned)"),
        ("kl.text.tuned_to_base", "nats a token, KL(tuned‖base)"),
        ("kl.chat.base_to_tuned", "nats a token, KL(base‖tuned)"),
        ("kl.chat.tuned_to_base", "nats a token, KL(tuned‖base)"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.kl.enabled
    }

    fn cost(settings: &DiffSection, _n_layers: usize) -> Work {
        Work { losses: loss_kinds(settings) * 2.0 * loss_tokens(settings), ..Work::default() }
    }

    /// KL on every kind of text that there is.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let on = |set: Option<&LossSet>| set.map(|set| on_texts(reading, set)).transpose();
        let (sets, inputs) = (&reading.prepared.losses, reading.inputs);
        Ok(Some(Kl {
            narrow: on(sets.narrow(inputs)?)?,
            text: on(sets.unrelated(inputs)?)?,
            chat: on(sets.chat(inputs)?)?,
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        row.put("kl_narrow", record.and_then(|kl| kl.narrow.as_ref()).map(|kl| kl.base_to_tuned));
        row.put("kl_text", record.and_then(|kl| kl.text.as_ref()).map(|kl| kl.base_to_tuned));
        row.put_late("kl_chat", record.and_then(|kl| kl.chat.as_ref()).map(|kl| kl.base_to_tuned));
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let series = self.kinds().into_iter().map(|(ink, kind, kl)| {
            let at: Vec<f64> = (0..kl.base_to_tuned_first.len()).map(|i| i as f64).collect();
            PlotSeries::curve(ink, format!("{kind} text"), &at, &kl.base_to_tuned_first)
        });
        vec![Plot {
            key: "kl-first".into(),
            title: "Divergence of the first predictions".into(),
            caption: "KL(base‖tuned) at the first, second, third … prediction of a text, mean over texts."
                .into(),
            x: PlotAxis::even("prediction", "prediction", 0),
            y: PlotAxis::from_0("KL(base‖tuned), nats", 3, 0.0),
            series: series.collect(),
            null: None,
        }]
    }

    fn numbers(&self) -> Vec<Number> {
        let number = |(_, kind, kl): (Ink, &str, &KlOnTexts)| {
            let name = format!("KL(base‖tuned) on {kind} text, nats a token");
            Number::new(name, kl.base_to_tuned).with(kl.base_to_tuned_interval)
        };
        self.kinds().into_iter().map(number).collect()
    }
}

fn on_texts(reading: &Reading, set: &LossSet) -> Result<KlOnTexts> {
    // Of each text the divergences of its predictions, in order: KL(base‖tuned), KL(tuned‖base).
    let mut of_texts: Vec<Vec<[f64; 2]>> = Vec::with_capacity(set.examples.len());
    let (base, tuned, interrupt) = (reading.inputs.base, reading.inputs.tuned, reading.interrupt);
    let work = |batch: &Batch| {
        check_interrupt(interrupt)?;
        divergences(base, tuned, batch)
    };
    teams::over(&set.batches(), base.model.device(), work, |_, found| {
        of_texts.extend(found);
        Ok(())
    })?;
    let resamples = DocumentDraws::new(reading, set);
    let sums = |direction: usize| -> Sums {
        let mut sums = vec![(0f64, 0usize); set.texts.documents];
        for (example, kl) in set.examples.iter().zip(&of_texts) {
            let sum = &mut sums[example.row];
            *sum = (sum.0 + kl.iter().map(|kl| kl[direction]).sum::<f64>(), sum.1 + kl.len());
        }
        sums
    };
    let first = |direction: usize| -> Vec<f64> {
        let longest = of_texts.iter().map(Vec::len).max().unwrap_or(0).min(FIRST);
        let at = |i: usize| of_texts.iter().filter_map(move |kl| kl.get(i)).map(|kl| kl[direction]);
        (0..longest).map(|i| at(i).sum::<f64>() / at(i).count() as f64).collect()
    };
    let (there, back) = (sums(0), sums(1));
    Ok(KlOnTexts {
        base_to_tuned: mean(&there).unwrap_or_default(),
        base_to_tuned_interval: resamples.interval(|drawn| mean_of(&there, drawn)),
        tuned_to_base: mean(&back).unwrap_or_default(),
        tuned_to_base_interval: resamples.interval(|drawn| mean_of(&back, drawn)),
        base_to_tuned_first: first(0),
        tuned_to_base_first: first(1),
        texts: set.texts.clone(),
    })
}

/// KL(base‖tuned) and KL(tuned‖base) of the predictions of each text that count.
///
/// # Errors
/// If a tensor operation fails.
pub fn divergences(base: View, tuned: View, batch: &Batch) -> Result<Vec<Vec<[f64; 2]>>> {
    let (of_base, of_tuned) = (normed(base, batch)?, normed(tuned, batch)?); // (tokens, hidden)
    let counted: Vec<u32> =
        (0..batch.ids.len()).filter(|&t| batch.targets.weights[t] != 0.0).map(|t| t as u32).collect();
    let mut kl = vec![None; batch.ids.len()];
    for rows in counted.chunks((CHUNK_BYTES / (4 * base.model.vocab_size())).max(1)) {
        let logits = |view: View, normed: &Tensor| -> Result<Vec<f32>> {
            let rows = normed.index_select(&Tensor::from_slice(rows, rows.len(), normed.device())?, 0)?;
            Ok(view.model.logits(&rows, view.adapter)?.flatten_all()?.to_vec1()?) // rows · vocab
        };
        let (z, w) = (logits(base, &of_base)?, logits(tuned, &of_tuned)?);
        let vocab = base.model.vocab_size();
        let pairs: Vec<_> =
            z.par_chunks_exact(vocab).zip(w.par_chunks_exact(vocab)).map(|(z, w)| both(z, w)).collect();
        for (row, pair) in rows.iter().zip(pairs) {
            kl[*row as usize] = Some(pair);
        }
    }
    let of_text = |i: usize| kl[batch.segments.rows(i)].iter().flatten().copied().collect();
    Ok((0..batch.segments.len()).map(of_text).collect())
}

/// What the head reads, `(tokens, hidden)`.
fn normed(view: View, batch: &Batch) -> Result<Tensor> {
    let mut hook = NoHook;
    Ok(view.model.hidden(&batch.ids, &mut Pass::new(&batch.segments, view.adapter, &mut hook))?)
}

/// KL(p‖q) and KL(q‖p) of the softmax p of `z` and q of `w`.
///
/// With z' = z − log Σ e^z: KL(p‖q) = Σ p·(z' − w').
fn both(z: &[f32], w: &[f32]) -> [f64; 2] {
    let probabilities = |z: &[f32]| {
        let mut p = z.to_vec();
        softmax(&mut p);
        p
    };
    let (p, q) = (probabilities(z), probabilities(w));
    // They add up to 1 only as well as f32 adds up a vocabulary: in f64 what they add up to is known.
    let total = |p: &[f32]| p.iter().map(|p| *p as f64).sum::<f64>();
    let (of_p, of_q) = (total(&p), total(&q));
    let most = |x: &[f32]| x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)) as f64;
    // log Σ e^z = z − log p of any token; the likeliest has the best digits.
    let log_sum = |z: &[f32], p: &[f32], total: f64| most(z) - (most(p) / total).ln();
    let (of_z, of_w) = (log_sum(z, &p, of_p), log_sum(w, &q, of_q));
    let [there, back] =
        z.iter().zip(w).zip(p.iter().zip(&q)).fold([0f64; 2], |[there, back], ((z, w), (p, q))| {
            let ratio = (*z as f64 - of_z) - (*w as f64 - of_w);
            [there + *p as f64 * ratio, back - *q as f64 * ratio]
        });
    [there / of_p, back / of_q]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_two_coins() {
        // p = (3/4, 1/4), q = (1/2, 1/2), logits shifted by constants that softmax does not see.
        let [there, back] = both(&[3f32.ln() + 7.0, 7.0], &[-2.0, -2.0]);
        let (p, q) = ([0.75f64, 0.25], [0.5f64, 0.5]);
        let expected = |p: [f64; 2], q: [f64; 2]| (0..2).map(|i| p[i] * (p[i] / q[i]).ln()).sum::<f64>();
        assert!((there - expected(p, q)).abs() < 1e-6, "{there}");
        assert!((back - expected(q, p)).abs() < 1e-6, "{back}");
        assert_eq!(both(&[1.0, -3.0, 0.5], &[1.0, -3.0, 0.5]), [0.0, 0.0]);
    }
}
