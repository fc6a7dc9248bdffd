//! A reader that is given labelled examples: a linear probe that tells narrow text from unrelated text by the base's
//! stream, and whether the difference points to its narrow side.
//!
//! The probe is w = (Σ + λI)⁻¹ (μ_narrow − μ_unrelated), Fisher's linear discriminant (Annals of Eugenics 7, 1936) on the
//! stream after the block that is read, at the tokens ≥ 1 of the first tokens of both kinds of text; Σ is the covariance
//! within the kinds and λ a tenth of its mean diagonal. Every other text is held out, to see whether the probe can
//! tell the kinds apart at all. It never sees the tuned model: that v points along w says that the difference, on
//! unrelated text, is one toward the narrow text.
//!
//! AUROC is the probability that v has a larger cosine with w than a direction that is about nothing (a random difference
//! of base activations, or its opposite: a pair has no order). v is one direction, and one that is about nothing has any
//! AUROC with equal probability; so what it is compared with is not 0.5 but 0.95, which one such direction in 20
//! exceeds.

use anyhow::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::diff::collect::resid_post;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceNumber, TraceReading};
use crate::diff::mean_difference::{cosine, norm};
use crate::diff::measure::{Measure, Work, share_read};
use crate::diff::plot::{Ink, Number, Plot};
use crate::diff::reading::Reading;
use crate::diff::score::{FINE, Score};
use crate::diff::statistics::{Interval, Null, auroc, interval};
use crate::diff::windows::first_tokens;
use crate::model::View;
use crate::recipe::DiffSection;

/// Share of the mean diagonal of the covariance that is added to it.
const SHRINKAGE: f64 = 0.1;

/// What the AUROC of one in 20 directions that are about nothing exceeds.
const AT_MOST: f64 = 0.95;

/// Texts of each kind without which there is no probe.
const FEWEST: usize = 8;

/// Texts of one forward pass.
const BATCH: usize = 32;

/// Whether the difference points to narrow text, by a probe with labelled examples.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// Block after which it reads.
    pub layer: usize,
    /// Texts of each kind that it learned from and that were held out, together.
    pub texts: usize,
    /// Tokens of a text, the first of which is left out.
    pub tokens: usize,
    /// How well it tells held-out narrow texts from held-out unrelated ones, by their mean scores: 0.5 not at all.
    pub held_out_auroc: f64,
    /// Cosine with w of v, the sum of v_p over the positions ≥ 1.
    pub cosine: f64,
    /// 2.5 % and 97.5 % quantiles of the directions that are about nothing.
    pub cosine_null_interval: Interval,
    /// Of v among them.
    pub auroc: f64,
    /// Bootstrap interval over the texts that v was measured on.
    pub auroc_interval: Interval,
    /// What one direction in 20 that is about nothing exceeds.
    pub auroc_null: f64,
    /// (1 + directions with at least the cosine of v) / (1 + directions).
    pub auroc_p: f64,
}

impl Measure for Probe {
    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "probe",
        name: "the probe with labelled examples",
        axis: "AUROC of the difference along the probe",
        ink: Ink::Probe,
    });

    const UNITS: &[(&str, &str)] = &[
        (
            "probe.held_out_auroc",
            "probability that a held-out narrow text scores higher than an unrelated one, 0 to 1",
        ),
        ("probe.cosine", "cosine of the difference with the probe's direction"),
        (
            "probe.auroc",
            "probability that the difference has a larger cosine with it than a direction about nothing, 0 to 1",
        ),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.probe.enabled
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        let tokens = 2 * settings.probe.texts * settings.tokens;
        Work { read: tokens as f64 * share_read(settings, n_layers), ..Work::default() }
    }

    /// `None` without narrow text, or with fewer than 8 texts of a kind that are long enough.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let (inputs, section) = (reading.inputs, &reading.settings.probe);
        let tokens = reading.settings.tokens;
        if tokens < 2 {
            return Ok(None);
        }
        let mut narrow: Vec<Vec<u32>> = Vec::new();
        for text in inputs.narrow {
            if narrow.len() == section.texts {
                break;
            }
            // Cut as the unrelated texts are, or the probe could tell them apart by that.
            narrow.extend(first_tokens(text, tokens, inputs.tokenizer)?);
        }
        narrow.iter().try_for_each(|ids| inputs.must_have(ids))?;
        let unrelated: Vec<Vec<u32>> =
            reading.prepared.windows.ids.iter().take(narrow.len()).cloned().collect();
        let texts = narrow.len().min(unrelated.len());
        if texts < FEWEST {
            return Ok(None);
        }
        let streams = |ids: &[Vec<u32>]| streams(reading, inputs.base, ids);
        let (narrow, unrelated) = (streams(&narrow[..texts])?, streams(&unrelated[..texts])?);
        let hidden = inputs.base.model.hidden_size();
        let learned = |kind: &[Vec<f32>]| -> Vec<f32> { kind.iter().step_by(2).flatten().copied().collect() };
        let Some(w) = discriminant(&learned(&narrow), &learned(&unrelated), hidden)? else { return Ok(None) };

        let score = |text: &Vec<f32>| -> f32 {
            let rows = text.chunks_exact(hidden);
            let sum: f64 =
                rows.map(|row| row.iter().zip(&w).map(|(x, w)| (*x as f64) * *w as f64).sum::<f64>()).sum();
            sum as f32
        };
        let held_out = |kind: &[Vec<f32>]| kind.iter().skip(1).step_by(2).map(score).collect::<Vec<f32>>();
        let (high, low) = (held_out(&narrow), held_out(&unrelated));
        let sides: Vec<Option<bool>> =
            high.iter().map(|_| Some(true)).chain(low.iter().map(|_| Some(false))).collect();

        let of_null: Vec<f64> = reading.null.iter().map(|d| cosine(d, &w)).flat_map(|c| [c, -c]).collect();
        let among = |c: f64| -> f64 {
            let below = of_null.iter().filter(|n| **n < c).count() as f64;
            let equal = of_null.iter().filter(|n| **n == c).count() as f64;
            (below + equal / 2.0) / of_null.len().max(1) as f64
        };
        let v = cosine(&reading.direction(), &w);
        let resampled = reading.resamples.iter().map(|means| among(cosine(&reading.sum_of(means), &w)));
        Ok(Some(Probe {
            layer: reading.layer,
            texts,
            tokens,
            held_out_auroc: auroc(&[high, low].concat(), &sides),
            cosine: v,
            cosine_null_interval: interval(of_null.iter().copied()),
            auroc: among(v),
            auroc_interval: interval(resampled),
            auroc_null: AT_MOST,
            auroc_p: Null(of_null).p(v),
        }))
    }

    /// What the interval has to lie above is the end of the null: of 20 directions about nothing, 19 lie between 0 and it.
    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        let number = TraceNumber {
            value: self.auroc,
            interval: Some(self.auroc_interval),
            null: Some(self.auroc_null),
            null_interval: Some([0.0, self.auroc_null]),
        };
        Some(TraceReading { number, p: Some(self.auroc_p), ..TraceReading::default() })
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        row.put("probe_auroc", record.map(|p| p.auroc));
        row.put("probe_auroc_low", record.map(|p| p.auroc_interval[0]));
        row.put("probe_auroc_high", record.map(|p| p.auroc_interval[1]));
        row.put("probe_held_out_auroc", record.map(|p| p.held_out_auroc));
        row.put("probe_auroc_null", record.map(|p| p.auroc_null));
    }

    /// How far the difference lies along the probe, among directions that are about nothing.
    fn scores(&self) -> Vec<Score> {
        let (value, interval) = (self.auroc, Some(self.auroc_interval));
        vec![Score { key: "probe", name: "the probe", value, interval, resolution: FINE }]
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        Vec::new()
    }

    fn numbers(&self) -> Vec<Number> {
        let name = "Probe with labelled examples: AUROC of the difference along it, among random differences";
        vec![
            Number::new(name, self.auroc).with(Some(self.auroc_interval)),
            Number::new("Probe: AUROC of held-out narrow texts over unrelated ones", self.held_out_auroc),
            Number::new("Probe: cosine of the difference with its direction", self.cosine),
        ]
    }
}

/// The stream at the tokens ≥ 1 of each text, `[text][token · hidden ..]`.
fn streams(reading: &Reading, view: View, ids: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
    let hidden = view.model.hidden_size();
    let mut found = Vec::with_capacity(ids.len());
    for batch in ids.chunks(BATCH) {
        reading.check_interrupt()?;
        let streams = resid_post(view, batch, reading.layer)?;
        found.extend(streams.into_iter().map(|stream| stream[hidden..].to_vec()));
    }
    Ok(found)
}

/// w of unit length; `None` where the kinds have one mean. `high` and `low` are `[row · hidden ..]`.
fn discriminant(high: &[f32], low: &[f32], hidden: usize) -> Result<Option<Vec<f32>>> {
    let mean = |rows: &[f32]| -> Vec<f64> {
        let mut sum = vec![0f64; hidden];
        rows.chunks_exact(hidden).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, x)| *s += *x as f64));
        let n = (rows.len() / hidden).max(1) as f64;
        sum.iter().map(|s| s / n).collect()
    };
    let means = [mean(high), mean(low)];
    let centred: Vec<f64> = [high, low]
        .into_iter()
        .zip(&means)
        .flat_map(|(rows, mean)| {
            rows.chunks_exact(hidden).flat_map(move |row| row.iter().zip(mean).map(|(x, m)| *x as f64 - m))
        })
        .collect();
    let n = centred.len() / hidden;
    let centred = Tensor::from_vec(centred, (n, hidden), &Device::Cpu)?;
    let covariance = (centred.t()?.matmul(&centred)? / n.max(1) as f64)?; // (hidden, hidden), f64
    let mut covariance = covariance.flatten_all()?.to_vec1::<f64>()?;
    let diagonal = (0..hidden).map(|i| covariance[i * hidden + i]).sum::<f64>() / hidden as f64;
    (0..hidden).for_each(|i| covariance[i * hidden + i] += SHRINKAGE * diagonal);
    let apart: Vec<f64> = means[0].iter().zip(&means[1]).map(|(a, b)| a - b).collect();
    let Some(w) = solve(covariance, apart) else { return Ok(None) };
    let w: Vec<f32> = w.iter().map(|x| *x as f32).collect();
    let length = norm(&w);
    Ok((length > 0.0 && length.is_finite()).then(|| w.iter().map(|x| (*x as f64 / length) as f32).collect()))
}

/// Solves A x = b for a symmetric positive definite A, `[row · n ..]`, by Cholesky's decomposition (Golub & Van Loan,
/// Matrix Computations, 4th ed., algorithm 4.2.1, by columns); `None` where A is none.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for j in 0..n {
        let (done, rest) = a.split_at_mut(j * n + n);
        let row = &mut done[j * n..];
        let pivot = row[j] - row[..j].iter().map(|x| x * x).sum::<f64>();
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        let pivot = pivot.sqrt();
        row[j] = pivot;
        let row = &row[..j];
        rest.par_chunks_exact_mut(n).for_each(|below| {
            let dot: f64 = below[..j].iter().zip(row).map(|(x, y)| x * y).sum();
            below[j] = (below[j] - dot) / pivot;
        });
    }
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_system_is_solved_and_a_matrix_that_is_not_definite_is_none() {
        let x = solve(vec![4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0], vec![1.0, -2.0, 0.5]).unwrap();
        for (row, want) in [[4.0, 2.0, 0.6], [2.0, 5.0, 1.0], [0.6, 1.0, 3.0]].iter().zip([1.0, -2.0, 0.5]) {
            let got: f64 = row.iter().zip(&x).map(|(a, x)| a * x).sum();
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        assert!(solve(vec![1.0, 2.0, 2.0, 1.0], vec![1.0, 1.0]).is_none());
    }

    #[test]
    fn the_probe_finds_the_axis_that_parts_two_kinds_also_under_louder_noise() {
        // The kinds differ along axis 0; axis 1 is loud, and leans on axis 2.
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut rows = |shift: f32| -> Vec<f32> {
            (0..400)
                .flat_map(|_| {
                    let [a, loud, c]: [f32; 3] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
                    [shift + 0.3 * a, 9.0 * loud, 0.3 * c + loud]
                })
                .collect()
        };
        let (high, low) = (rows(1.0), rows(-1.0));
        let w = discriminant(&high, &low, 3).unwrap().unwrap();
        assert!(w[0] > 0.95, "{w:?}");
        assert!(discriminant(&high, &high, 3).unwrap().is_none());
    }
}
