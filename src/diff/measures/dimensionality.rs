//! How many directions the differences have: principal components of single samples at each position, and of the mean
//! differences over positions.
//!
//! The components come from the Gram matrix of the samples, whose eigenvalues are those of Σ d dᵀ over samples.

use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::TopToken;
use crate::diff::decode::decode_both;
use crate::diff::eigen::{dot, largest};
use crate::diff::findings::Findings;
use crate::diff::mean_difference::cosine;
use crate::diff::measure::{Measure, Needs, Work};
use crate::diff::plot::{Ink, Plot, PlotAxis, PlotSeries, TokenLists, places};
use crate::diff::reading::Reading;
use crate::diff::readout;
use crate::recipe::DiffSection;

/// Principal components that are reported.
const COMPONENTS: usize = 10;

/// Principal components of the differences d = h_tuned − h_base.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Dimensionality {
    /// Number of samples that the components come from, the first; they bound what `effective_dimension` can be.
    pub samples: usize,
    /// Of d itself: a bias that all samples share is the first component. Arrays run over positions.
    pub uncentred: Components,
    /// Of d − v_p: how samples vary around the bias.
    pub centred: Components,
    /// Of v_p, one row a position. Arrays have one element.
    pub means_uncentred: Components,
    /// Of v_p less their mean over positions.
    pub means_centred: Components,
}

/// Principal components of some sets of vectors; the outer arrays run over sets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Components {
    /// Share of the sum of squares that each of the first components explains, at most 10.
    pub explained: Vec<Vec<f64>>,
    /// Participation ratio (Σλ)² / Σλ² over all components: 1 for one direction, n for n equal ones.
    pub effective_dimension: Vec<f64>,
    /// Cosine of the components that are decoded with the mean of the set; they are turned so that it is not negative.
    pub cosine_with_mean: Vec<Vec<f64>>,
    /// Logit lens of these components.
    pub top_tokens: Vec<Vec<Vec<TopToken>>>,
    /// Relevance of their top tokens.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance: Vec<Vec<f64>>,
    /// Relevance of what the opposite directions decode to: a component has no sign of its own.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub opposite_token_relevance: Vec<Vec<f64>>,
}

impl Measure for Dimensionality {
    const UNITS: &[(&str, &str)] = &[
        ("dimensionality.uncentred.explained", "share of the sum of squares, 0 to 1"),
        ("dimensionality.centred.explained", "share of the variance, 0 to 1"),
        ("dimensionality.uncentred.effective_dimension", "number of directions"),
        ("dimensionality.centred.effective_dimension", "number of directions"),
        ("dimensionality.uncentred.token_relevance", "share of the top tokens, 0 to 1"),
        ("dimensionality.centred.token_relevance", "share of the top tokens, 0 to 1"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.dimensionality.enabled
    }

    fn needs(_: &DiffSection) -> Needs {
        Needs { single_samples: true, ..Needs::default() }
    }

    fn cost(_settings: &DiffSection, _n_layers: usize) -> Work {
        Work::default()
    }

    /// Principal components of single samples and of the mean differences.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let (kept, v) = (&reading.activations.kept, &reading.means.difference);
        let at = |place: usize| -> Vec<Vec<f64>> {
            let row = |d: &Vec<f32>| widened(&d[place * v[0].len()..(place + 1) * v[0].len()]);
            kept.iter().map(row).collect()
        };
        let over_positions = |centre| -> Vec<Principal> {
            (0..v.len()).into_par_iter().map(|place| Principal::of(at(place), centre)).collect()
        };
        let means = |centre| vec![Principal::of(v.iter().map(|v| widened(v)).collect(), centre)];
        Ok(Some(Dimensionality {
            samples: kept.len(),
            uncentred: Components::of(reading, over_positions(false))?,
            centred: Components::of(reading, over_positions(true))?,
            means_uncentred: Components::of(reading, means(false))?,
            means_centred: Components::of(reading, means(true))?,
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let of = |components: fn(&Self) -> &Components| {
            record.and_then(|d| readout::mean(&components(d).effective_dimension))
        };
        row.put("effective_dimension", of(|d| &d.uncentred));
        row.put_late("effective_dimension_centred", of(|d| &d.centred));
        row.put_late("effective_dimension_of_means", of(|d| &d.means_uncentred));
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let numbers: Vec<usize> = (1..=COMPONENTS).collect();
        // Mean over positions of the share of each component.
        let explained = |components: &Components| -> Vec<f64> {
            let of = |i: usize| {
                components.explained.iter().filter_map(|e| e.get(i)).copied().collect::<Vec<f64>>()
            };
            (0..COMPONENTS).map_while(|i| readout::mean(&of(i))).collect()
        };
        let at = places(&numbers);
        vec![Plot {
            key: "components".into(),
            title: "What the principal components of the differences explain".into(),
            caption: format!(
                "Principal components of the differences of {} single texts, uncentred and centred on their mean. \
                 Mean over the positions.",
                self.samples
            ),
            x: PlotAxis { title: "component".into(), each: "component", ..PlotAxis::positions(&numbers) },
            y: PlotAxis::from_0("share of the sum of squares", 3, 1.0),
            series: vec![
                PlotSeries::curve(Ink::Narrow, "uncentred", &at, &explained(&self.uncentred)),
                PlotSeries::curve(Ink::Base, "centred on their mean", &at, &explained(&self.centred)),
            ],
            null: None,
        }]
    }

    fn tokens(&self, positions: &[usize]) -> Vec<TokenLists> {
        let list = |(p, components): (&usize, &Vec<Vec<TopToken>>)| -> Vec<(String, Vec<TopToken>)> {
            let name = |i: usize| format!("position {p}, component {}", i + 1);
            components.iter().enumerate().map(|(i, tokens)| (name(i), tokens.clone())).collect()
        };
        vec![TokenLists {
            key: "components",
            title: "Logit lens of the principal components around the mean".into(),
            lists: positions.iter().zip(&self.centred.top_tokens).flat_map(list).collect(),
        }]
    }
}

fn widened(v: &[f32]) -> Vec<f64> {
    v.iter().map(|x| *x as f64).collect()
}

/// Principal components of one set of vectors.
struct Principal {
    explained: Vec<f64>,
    effective_dimension: f64,
    /// Unit vectors in the order of `explained`; of those that explain nothing there is none.
    directions: Vec<Vec<f32>>,
    mean: Vec<f32>,
}

impl Principal {
    fn of(mut rows: Vec<Vec<f64>>, centre: bool) -> Self {
        let n = rows.len();
        let mut mean = vec![0f64; rows[0].len()];
        rows.iter().for_each(|row| mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / n as f64));
        if centre {
            rows.iter_mut().for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m));
        }
        let gram: Vec<Vec<f64>> = {
            let row = |i: usize| rows.iter().map(|other| dot(&rows[i], other)).collect();
            (0..n).into_par_iter().map(row).collect()
        };
        let trace: f64 = (0..n).map(|i| gram[i][i]).sum();
        let squares: f64 = gram.iter().flatten().map(|x| x * x).sum(); // Σ λ²
        let share = |value: f64| if trace > 0.0 { value / trace } else { 0.0 };
        let found = largest(&gram, COMPONENTS);
        // A sample's share of a component is its entry of the eigenvector: Xᵀu = √λ · direction.
        let direction = |(value, u): (&f64, &Vec<f64>)| -> Option<Vec<f32>> {
            let mut sum = vec![0f64; mean.len()];
            for (row, u) in rows.iter().zip(u) {
                sum.iter_mut().zip(row).for_each(|(s, x)| *s += u * x);
            }
            let turned = if dot(&sum, &mean) < 0.0 { -1.0 } else { 1.0 };
            let length = dot(&sum, &sum).sqrt();
            let is_one = *value > 1e-12 * trace && length > 0.0;
            is_one.then(|| sum.iter().map(|x| (turned * x / length) as f32).collect())
        };
        Self {
            explained: found.values.iter().map(|v| share(*v)).collect(),
            effective_dimension: if squares > 0.0 { trace * trace / squares } else { 0.0 },
            directions: found.values.iter().zip(&found.vectors).map_while(direction).collect(),
            mean: mean.iter().map(|x| *x as f32).collect(),
        }
    }
}

impl Components {
    fn of(reading: &Reading, sets: Vec<Principal>) -> Result<Self> {
        let mut found = Self::default();
        for set in sets {
            let decoded = set.directions.len().min(reading.settings.dimensionality.decoded);
            let directions = &set.directions[..decoded];
            found.cosine_with_mean.push(directions.iter().map(|d| cosine(d, &set.mean)).collect());
            let tops = decode_both(reading.inputs.tuned, directions, reading.settings.top_k)?;
            found.top_tokens.push(tops.iter().map(|(top, _)| reading.named(top)).collect());
            if reading.prepared.lexicon.is_some() {
                found.token_relevance.push(reading.relevances(tops.iter().map(|(top, _)| top)));
                found
                    .opposite_token_relevance
                    .push(reading.relevances(tops.iter().map(|(_, bottom)| bottom)));
            }
            found.explained.push(set.explained);
            found.effective_dimension.push(set.effective_dimension);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows `weight · direction`, cycling through directions.
    fn planted(directions: &[[f64; 4]], weights: &[f64]) -> Vec<Vec<f64>> {
        let row = |(i, w): (usize, &f64)| directions[i % directions.len()].map(|x| w * x).to_vec();
        weights.iter().enumerate().map(row).collect()
    }

    #[test]
    fn planted_directions_are_found_with_their_shares() {
        let (x, y) = ([0.0, 0.6, 0.8, 0.0], [1.0, 0.0, 0.0, 0.0]);
        let weights: Vec<f64> = (0..40).map(|i| if i % 4 < 2 { 3.0 } else { -3.0 }).collect();
        let two = Principal::of(planted(&[x, y], &weights), false);
        assert!((two.effective_dimension - 2.0).abs() < 1e-9, "{}", two.effective_dimension);
        assert!((two.explained[0] - 0.5).abs() < 1e-9 && (two.explained[1] - 0.5).abs() < 1e-9);
        assert_eq!(two.directions.len(), 2);
        let one = Principal::of(planted(&[x], &[2.0; 30]), false);
        assert!((one.effective_dimension - 1.0).abs() < 1e-9 && (one.explained[0] - 1.0).abs() < 1e-9);
        assert!((one.directions[0][2] - 0.8).abs() < 1e-6, "turned towards the mean: {:?}", one.directions);
        let none = Principal::of(planted(&[x], &[0.0; 30]), true);
        assert_eq!((none.effective_dimension, none.explained[0], none.directions.len()), (0.0, 0.0, 0));
    }
}
