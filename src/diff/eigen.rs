//! Eigenvectors of symmetric matrices.
//!
//! Small ones whole, by Jacobi rotations (Golub & Van Loan, Matrix Computations, 4th ed., §8.5); of larger ones the
//! dominant part, by orthogonal iteration with Rayleigh–Ritz projection (§8.2.4, §8.1.6).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Eigenvalues, largest first, and unit eigenvectors in the same order. An eigenvalue of 0 may have a vector of zeros.
#[derive(Debug, Clone)]
pub struct Eigen {
    /// Largest first.
    pub values: Vec<f64>,
    /// `[eigenvalue][row]`.
    pub vectors: Vec<Vec<f64>>,
}

/// Up to this size all eigenvectors are computed.
const SMALL: usize = 24;

/// More vectors than are asked for take part in the iteration: they speed up the last of them.
const SPARE: usize = 6;

/// The iteration ends when no vector asked for is further than this from an eigenvector, ‖Av − λv‖ ≤ 1e-7 λ₁: an
/// eigenvalue is then right to about the square of it.
const TOLERANCE: f64 = 1e-7;

/// Or after this many rounds; then close eigenvalues may share their directions in another mixture.
const ROUNDS: usize = 100;

/// The `k` largest eigenvalues of a positive semidefinite matrix, given by rows.
pub fn largest(matrix: &[Vec<f64>], k: usize) -> Eigen {
    let n = matrix.len();
    let k = k.min(n);
    let mut found = if n <= SMALL { jacobi(matrix) } else { iterate(matrix, k) };
    found.values.truncate(k);
    found.vectors.truncate(k);
    found
}

fn iterate(matrix: &[Vec<f64>], k: usize) -> Eigen {
    let n = matrix.len();
    let width = (k + SPARE).min(n);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut basis: Vec<Vec<f64>> =
        (0..width).map(|_| (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()).collect();
    orthonormalise(&mut basis);
    let mut found = Eigen { values: vec![0.0; width], vectors: basis.clone() };
    for _ in 0..ROUNDS {
        let image: Vec<Vec<f64>> =
            basis.par_iter().map(|q| matrix.iter().map(|row| dot(row, q)).collect()).collect();
        let projected: Vec<Vec<f64>> =
            basis.iter().map(|q| image.iter().map(|z| dot(q, z)).collect()).collect();
        let ritz = jacobi(&projected); // width × width
        let mix = |of: &[Vec<f64>], weights: &Vec<f64>| {
            let mut sum = vec![0f64; n];
            for (v, w) in of.iter().zip(weights) {
                sum.iter_mut().zip(v).for_each(|(s, x)| *s += w * x);
            }
            sum
        };
        found.vectors = ritz.vectors.iter().map(|w| mix(&basis, w)).collect();
        found.values = ritz.values.iter().map(|v| v.max(0.0)).collect();
        let images: Vec<Vec<f64>> = ritz.vectors.iter().map(|w| mix(&image, w)).collect();
        let distance = |i: usize| {
            let (v, z, value) = (&found.vectors[i], &images[i], ritz.values[i]);
            v.iter().zip(z).map(|(v, z)| (z - value * v).powi(2)).sum::<f64>().sqrt()
        };
        if (0..k).all(|i| distance(i) <= TOLERANCE * found.values[0]) {
            break;
        }
        basis = images;
        orthonormalise(&mut basis);
    }
    found
}

/// All eigenvalues of a symmetric matrix.
pub fn jacobi(matrix: &[Vec<f64>]) -> Eigen {
    let n = matrix.len();
    let mut a: Vec<Vec<f64>> = matrix.to_vec();
    let mut vectors = identity(n);
    let size: f64 = a.iter().flatten().map(|x| x * x).sum();
    // Convergence is quadratic: a dozen sweeps are more than any matrix has been seen to need.
    for _ in 0..50 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        if off <= 1e-30 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    Eigen {
        values: order.iter().map(|&i| a[i][i]).collect(),
        vectors: order.iter().map(|&i| vectors[i].clone()).collect(),
    }
}

/// Makes `a[p][q]` zero by a rotation in the plane of p and q.
fn rotate(a: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let tau = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = tau.signum() / (tau.abs() + (1.0 + tau * tau).sqrt());
    let c = 1.0 / (1.0 + t * t).sqrt();
    let s = t * c;
    for row in a.iter_mut() {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
    for rows in [a, vectors] {
        let (head, tail) = rows.split_at_mut(q);
        for (x, y) in head[p].iter_mut().zip(&mut tail[0]) {
            (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
        }
    }
}

/// The rows of the identity.
pub(super) fn identity(n: usize) -> Vec<Vec<f64>> {
    (0..n).map(|i| (0..n).map(|j| f64::from(i == j)).collect()).collect()
}

/// Takes off a vector what lies along orthonormal ones, twice: once leaves too much of nearly parallel vectors.
pub(super) fn remove(vector: &mut [f64], others: &[Vec<f64>]) {
    for _ in 0..2 {
        for other in others {
            let along = dot(other, vector);
            vector.iter_mut().zip(other).for_each(|(v, u)| *v -= along * u);
        }
    }
}

/// Gram–Schmidt. What has no direction of its own becomes zero.
pub(super) fn orthonormalise(vectors: &mut [Vec<f64>]) {
    for i in 0..vectors.len() {
        let (before, rest) = vectors.split_at_mut(i);
        let v = &mut rest[0];
        let length = dot(v, v).sqrt();
        remove(v, before);
        let left = dot(v, v).sqrt();
        let factor = if left > 1e-12 * length { 1.0 / left } else { 0.0 };
        v.iter_mut().for_each(|v| *v *= factor);
    }
}

/// Inner product, in a fixed order of eight sums.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0f64; 8];
    let (chunks, others) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = chunks.remainder().iter().zip(others.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in chunks.zip(others) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Q · diag(values) · Qᵀ, with Q = I − 2uuᵀ, u constant.
    fn with_spectrum(values: &[f64]) -> Vec<Vec<f64>> {
        let n = values.len();
        let q = |i: usize, j: usize| f64::from(i == j) - 2.0 / n as f64;
        (0..n)
            .map(|i| (0..n).map(|j| (0..n).map(|m| q(i, m) * values[m] * q(j, m)).sum()).collect())
            .collect()
    }

    fn assert_eigen(matrix: &[Vec<f64>], found: &Eigen, values: &[f64], tolerance: f64) {
        for (i, (value, vector)) in found.values.iter().zip(&found.vectors).enumerate() {
            assert!((value - values[i]).abs() <= tolerance, "{i}: {value} {}", values[i]);
            assert!((dot(vector, vector) - 1.0).abs() < 1e-9, "{i}");
            for (row, v) in matrix.iter().zip(vector) {
                assert!((dot(row, vector) - value * v).abs() <= 1e-5 * values[0], "{i}");
            }
            for other in &found.vectors[..i] {
                assert!(dot(vector, other).abs() < 1e-9, "{i}");
            }
        }
    }

    #[test]
    fn a_matrix_worked_by_hand() {
        let found = jacobi(&[vec![2.0, 1.0], vec![1.0, 2.0]]);
        assert!((found.values[0] - 3.0).abs() < 1e-14 && (found.values[1] - 1.0).abs() < 1e-14);
        assert!((found.vectors[0][0] - found.vectors[0][1]).abs() < 1e-14);
    }

    #[test]
    fn known_spectra_come_back_small_and_large() {
        // Equal values and zeros are in it.
        let mut values: Vec<f64> = vec![9.0, 4.0, 4.0, 1.0, 0.5, 0.25, 0.0, 0.0];
        let small = with_spectrum(&values);
        assert_eigen(&small, &jacobi(&small), &values, 1e-12);
        assert_eigen(&small, &largest(&small, 3), &values, 1e-12);
        values.extend((0..120).map(|i| 0.2 * 0.97f64.powi(i)));
        let large = with_spectrum(&values);
        values.sort_by(|a, b| b.total_cmp(a));
        let found = largest(&large, 10);
        assert_eq!(found.values.len(), 10);
        assert_eigen(&large, &found, &values, 1e-6);
    }

    #[test]
    fn a_matrix_of_zeros_has_no_eigenvalue_but_zero() {
        let found = largest(&vec![vec![0.0; 40]; 40], 4);
        assert_eq!(found.values, [0.0; 4]);
        assert!(found.vectors.iter().flatten().all(|x| x.is_finite()));
    }

    #[test]
    fn one_direction_is_found_in_a_large_matrix() {
        let v: Vec<f64> = (0..100).map(|i| f64::from(i) - 40.0).collect();
        let matrix: Vec<Vec<f64>> = v.iter().map(|x| v.iter().map(|y| x * y).collect()).collect();
        let found = largest(&matrix, 3);
        let square = dot(&v, &v);
        assert!((found.values[0] / square - 1.0).abs() < 1e-12, "{found:?}");
        assert!(found.values[1] < 1e-9 * square);
        assert!((dot(&found.vectors[0], &v).abs() / square.sqrt() - 1.0).abs() < 1e-12);
    }
}
