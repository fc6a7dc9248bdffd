//! Concept ablation: while the model learns, chosen directions are taken out of its stream, so that what it learns
//! cannot run along them; in use they are left in. Casademunt et al., "Steering Fine-Tuning Generalization with Targeted
//! Concept Ablation" (CAFT), arXiv 2507.16795, §3. The mean differences of a pilot run serve as directions,
//! without that of position 0 and without what lies along the base's mean activations.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};

use crate::bail_input;
use crate::model::CausalLm;
use crate::model::load::checkpoint::read_safetensors;
use crate::recipe::AblationSection;
use crate::sha256::sha256_file;

/// Directions of less than this share of the longest are rounding.
const INDEPENDENT: f64 = 1e-4;

/// A subspace, and where it is taken out.
pub(super) struct AblatedDirections {
    /// The file.
    pub path: String,
    /// Its sha256.
    pub sha256: String,
    /// Blocks after which it is taken out.
    pub layers: Vec<usize>,
    /// `(directions, hidden)`, orthonormal rows.
    pub basis: Tensor,
}

impl AblatedDirections {
    /// Reads the file of a recipe, if it names one.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for a file without directions of the model's width, or blocks that it lacks.
    pub fn read(section: &AblationSection, block: usize, model: &CausalLm) -> Result<Option<Self>> {
        const KEY: &str = "train.mitigation.ablation";
        let path = &section.directions;
        if path.is_empty() {
            return Ok(None);
        }
        if let Some(layer) = section.layers.iter().find(|l| **l >= model.n_layers()) {
            bail_input!("{KEY}.layers: {layer}: expected block numbers below {}", model.n_layers());
        }
        let tensors = match read_safetensors(Path::new(path)) {
            Ok(tensors) => tensors,
            Err(e) => bail_input!("{KEY}.directions: {e}"),
        };
        let rows = |found: &Tensor| match found.dims() {
            [_, hidden] if *hidden == model.hidden_size() => {
                Ok(found.to_dtype(DType::F32)?.to_vec2::<f32>()?)
            }
            dims => bail_input!(
                "{KEY}.directions: {path}: shape {dims:?}, expected (directions, {})",
                model.hidden_size()
            ),
        };
        let tensor = |name: &str| tensors.get(name);
        let basis = match (
            tensor("directions"),
            tensor("mean_difference"),
            tensor("base_mean"),
            tensor("positions"),
        ) {
            (Some(directions), ..) => orthonormal(&rows(directions)?),
            (None, Some(difference), Some(base), Some(positions)) => {
                let positions = positions.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?;
                let (difference, base) = (rows(difference)?, rows(base)?);
                if [difference.len(), base.len()] != [positions.len(); 2] {
                    bail_input!(
                        "{KEY}.directions: {path}: {} rows of mean_difference and {} of base_mean at {} positions",
                        difference.len(),
                        base.len(),
                        positions.len()
                    );
                }
                beyond_base(&base, &after_the_first(difference, &positions))
            }
            _ => bail_input!(
                "{KEY}.directions: {path}: expected a tensor named directions, or mean_difference, base_mean and \
                 positions, as trainer diff writes them"
            ),
        };
        if basis.is_empty() || basis.len() >= model.hidden_size() {
            bail_input!(
                "{KEY}.directions: {path}: {} independent directions; expected 1 to {}",
                basis.len(),
                model.hidden_size() - 1
            );
        }
        let flat: Vec<f32> = basis.iter().flatten().map(|x| *x as f32).collect();
        Ok(Some(Self {
            sha256: sha256_file(Path::new(path)).with_context(|| path.clone())?,
            path: path.clone(),
            layers: if section.layers.is_empty() { vec![block] } else { section.layers.clone() },
            basis: Tensor::from_vec(flat, (basis.len(), model.hidden_size()), model.device())?,
        }))
    }
}

/// The rows of the positions ≥ 1; all where there is no other. What stands at position 0, often a beginning-of-sequence
/// token, is what the whole model leans on: with its direction taken out it learns to do without, and in use, where it is
/// there, says nothing that can be read (`docs/log.md`).
fn after_the_first(rows: Vec<Vec<f32>>, positions: &[u32]) -> Vec<Vec<f32>> {
    if positions.iter().all(|p| *p == 0) {
        return rows;
    }
    rows.into_iter().zip(positions).filter(|(_, p)| **p > 0).map(|(row, _)| row).collect()
}

/// An orthonormal basis of what the differences span beyond the base's mean activations. These hold the few directions of
/// very large activations that every text has; a difference lies along them in part, and a model that learns without
/// them is ruined by having them in use (`docs/log.md`).
fn beyond_base(base: &[Vec<f32>], difference: &[Vec<f32>]) -> Vec<Vec<f64>> {
    // One mean may be thousands of times as long as another: each counts by its direction.
    let unit = |row: &Vec<f32>| {
        let length = norm(row);
        row.iter().map(|x| (*x as f64 / length.max(f64::MIN_POSITIVE)) as f32).collect::<Vec<f32>>()
    };
    let known = orthonormal(&base.iter().map(unit).collect::<Vec<_>>());
    orthonormal_beyond(&known, difference)
}

/// An orthonormal basis of the span of some rows.
fn orthonormal(rows: &[Vec<f32>]) -> Vec<Vec<f64>> {
    orthonormal_beyond(&[], rows)
}

/// An orthonormal basis of what some rows span beyond orthonormal `known` ones (modified Gram–Schmidt, each row twice).
/// Rows that depend on those before them, or are not finite, add nothing.
fn orthonormal_beyond(known: &[Vec<f64>], rows: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let longest = rows.iter().map(|row| norm(row)).filter(|n| n.is_finite()).fold(0.0, f64::max);
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for row in rows.iter().filter(|row| row.iter().all(|x| x.is_finite())) {
        let mut row: Vec<f64> = row.iter().map(|x| *x as f64).collect();
        for _ in 0..2 {
            for u in known.iter().chain(&basis) {
                let along: f64 = row.iter().zip(u).map(|(x, u)| x * u).sum();
                row.iter_mut().zip(u).for_each(|(x, u)| *x -= along * u);
            }
        }
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > INDEPENDENT * longest {
            row.iter_mut().for_each(|x| *x /= length);
            basis.push(row);
        }
    }
    basis
}

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_position_is_left_out_where_there_are_others() {
        let rows = || vec![vec![1.0], vec![2.0], vec![3.0]];
        assert_eq!(after_the_first(rows(), &[0, 1, 4]), [[2.0], [3.0]]);
        assert_eq!(after_the_first(rows(), &[2, 0, 1]), [[1.0], [3.0]]);
        assert_eq!(after_the_first(vec![vec![1.0]], &[0]), [[1.0]]);
    }

    #[test]
    fn what_lies_along_the_mean_of_the_base_is_left_in() {
        let close = |basis: &[Vec<f64>], expected: &[[f64; 3]]| {
            assert_eq!(basis.len(), expected.len(), "{basis:?}");
            for (u, e) in basis.iter().zip(expected) {
                assert!(u.iter().zip(e).all(|(u, e)| (u - e).abs() < 1e-6), "{basis:?}");
            }
        };
        // Means of very different lengths, differences much shorter and much longer than these.
        for (base, difference) in [(1e5, 2.0), (1e-3, 2.0), (900.0, 1e6)] {
            let base = [vec![base, 0.0, 0.0], vec![0.01, 0.0, 0.0]];
            let basis = beyond_base(&base, &[vec![5.0, difference, 0.0], vec![-3.0, 0.0, 0.0]]);
            close(&basis, &[[0.0, 1.0, 0.0]]);
        }
        close(&beyond_base(&[vec![0.0; 3]], &[vec![0.0, 0.0, 3.0]]), &[[0.0, 0.0, 1.0]]);
    }

    #[test]
    fn the_basis_spans_the_rows_and_no_more() {
        let rows = [vec![3.0, 4.0, 0.0], vec![6.0, 8.0, 0.0], vec![0.0, 0.0, 0.0], vec![3.0, 4.0, 5.0]];
        let basis = orthonormal(&rows);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        assert_eq!(basis.len(), 2);
        for (i, u) in basis.iter().enumerate() {
            for (j, w) in basis.iter().enumerate() {
                assert!((dot(u, w) - f64::from(i == j)).abs() < 1e-12);
            }
        }
        assert!((basis[1][2].abs() - 1.0).abs() < 1e-6);
    }
}
