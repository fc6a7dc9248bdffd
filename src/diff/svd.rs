//! Singular values and vectors: of products of thin factors, whole and in double precision; of dense matrices the values
//! whole and the leading left vectors.

use anyhow::Result;
use candle_core::{DType, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::eigen::{dot, identity, orthonormalise, remove};

/// M = Σ s_i u_i v_iᵀ.
#[derive(Debug, Clone)]
pub struct Svd {
    /// Left vectors, `[i][row]`; zeros where s_i is 0.
    pub u: Vec<Vec<f64>>,
    /// Singular values, largest first.
    pub s: Vec<f64>,
    /// Right vectors, `[i][column]`; zeros where s_i is 0.
    pub v: Vec<Vec<f64>>,
}

/// Q and R of a matrix given by its columns, A = Q·R: by Gram–Schmidt, twice (Golub & Van Loan, Matrix Computations, 4th
/// ed., §5.2.7). A column that depends on those before it has a column of zeros in Q. R is given by rows.
pub fn qr(columns: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut q = columns.to_vec();
    orthonormalise(&mut q);
    let row = |(i, q): (usize, &Vec<f64>)| -> Vec<f64> {
        columns.iter().enumerate().map(|(j, a)| if j < i { 0.0 } else { dot(q, a) }).collect()
    };
    let r = q.iter().enumerate().map(row).collect();
    (q, r)
}

/// The singular value decomposition of B·A from its thin factors, `b` given by columns and `a` by rows, as many as the
/// rank: with B = Q_B·R_B and Aᵀ = Q_A·R_A it is that of R_B·R_Aᵀ, turned by Q_B and Q_A.
pub fn of_product(b: &[Vec<f64>], a: &[Vec<f64>]) -> Svd {
    let ((q_b, r_b), (q_a, r_a)) = (qr(b), qr(a));
    // Column j of R_B·R_Aᵀ.
    let column = |row_of_a: &Vec<f64>| r_b.iter().map(|row_of_b| dot(row_of_b, row_of_a)).collect();
    let small = jacobi(r_a.iter().map(column).collect());
    let turn = |q: &[Vec<f64>], vectors: &[Vec<f64>]| vectors.iter().map(|w| combination(q, w)).collect();
    Svd { u: turn(&q_b, &small.u), v: turn(&q_a, &small.v), s: small.s }
}

/// Σ w_j x_j.
fn combination(vectors: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let mut sum = vec![0f64; vectors.first().map_or(0, Vec::len)];
    for (x, w) in vectors.iter().zip(weights) {
        sum.iter_mut().zip(x).for_each(|(s, x)| *s += w * x);
    }
    sum
}

/// The singular value decomposition of a matrix given by its columns, not more than it has rows: one-sided Jacobi
/// rotations, which make the columns orthogonal (Golub & Van Loan, §8.6.3).
pub fn jacobi(mut columns: Vec<Vec<f64>>) -> Svd {
    let n = columns.len();
    let mut v = identity(n);
    // A dozen sweeps are more than any matrix has been seen to need.
    for _ in 0..60 {
        let mut turned = false;
        for p in 0..n {
            for q in p + 1..n {
                let (left, right) = columns.split_at_mut(q);
                let (x, y) = (&mut left[p], &mut right[0]);
                let (xx, yy, xy) = (dot(x, x), dot(y, y), dot(x, y));
                if xy == 0.0 || xy.abs() <= 1e-15 * (xx * yy).sqrt() {
                    continue;
                }
                turned = true;
                let tau = (yy - xx) / (2.0 * xy);
                let t = tau.signum() / (tau.abs() + (1.0 + tau * tau).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                let turn = |x: &mut [f64], y: &mut [f64]| {
                    for (x, y) in x.iter_mut().zip(y) {
                        (*x, *y) = (c * *x - c * t * *y, c * t * *x + c * *y);
                    }
                };
                turn(x, y);
                let (left, right) = v.split_at_mut(q);
                turn(&mut left[p], &mut right[0]);
            }
        }
        if !turned {
            break;
        }
    }
    let lengths: Vec<f64> = columns.iter().map(|x| dot(x, x).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| lengths[j].total_cmp(&lengths[i]));
    let scaled = |x: &[f64], factor: f64| x.iter().map(|x| x * factor).collect::<Vec<f64>>();
    // What is left of a column that depends on others is rounding, and has no direction.
    let floor = 1e-14 * order.first().map_or(0.0, |&i| lengths[i]);
    let kept = |i: usize| lengths[i] > floor;
    Svd {
        u: order.iter().map(|&i| scaled(&columns[i], if kept(i) { 1.0 / lengths[i] } else { 0.0 })).collect(),
        s: order.iter().map(|&i| if kept(i) { lengths[i] } else { 0.0 }).collect(),
        v: order.iter().map(|&i| scaled(&v[i], f64::from(kept(i)))).collect(),
    }
}

/// Rows or columns of a matrix that are brought to double precision at once.
const AT_ONCE: usize = 8_192;

/// M·Mᵀ (`over_rows`) or Mᵀ·M of a matrix, by rows, in double precision.
///
/// # Errors
/// If a tensor operation fails.
pub fn gram(matrix: &Tensor, over_rows: bool) -> Result<Vec<Vec<f64>>> {
    let (side, other) = if over_rows { (0, 1) } else { (1, 0) };
    let (n, long) = (matrix.dim(side)?, matrix.dim(other)?);
    let mut sum = Tensor::zeros((n, n), DType::F64, matrix.device())?;
    for start in (0..long).step_by(AT_ONCE) {
        let part =
            matrix.narrow(other, start, AT_ONCE.min(long - start))?.to_dtype(DType::F64)?.contiguous()?;
        let turned = part.t()?;
        sum = (sum + if over_rows { part.matmul(&turned)? } else { turned.matmul(&part)? })?;
    }
    Ok(sum.to_vec2()?)
}

/// All singular values of a dense matrix `(out, in)`, largest first: the roots of the eigenvalues of the Gram matrix on
/// the smaller side. One below 1e-8 of the largest is rounding.
///
/// # Errors
/// If a tensor operation fails.
pub fn singular_values(matrix: &Tensor) -> Result<Vec<f64>> {
    let (out, inp) = matrix.dims2()?;
    let mut values = eigenvalues(gram(matrix, out <= inp)?);
    values.iter_mut().for_each(|x| *x = x.max(0.0).sqrt());
    values.sort_by(|a, b| b.total_cmp(a));
    Ok(values)
}

/// All eigenvalues of a symmetric matrix, in no order: Householder's reduction to a tridiagonal matrix and implicit QL
/// steps (Golub & Van Loan, §8.3.1 and §8.3.5; the routines tred2 and tql1 of EISPACK, Wilkinson & Reinsch 1971).
pub fn eigenvalues(mut a: Vec<Vec<f64>>) -> Vec<f64> {
    let n = a.len();
    let (mut diagonal, mut beside) = (vec![0f64; n], vec![0f64; n]);
    for i in (1..n).rev() {
        // The last row of what is left becomes (0, …, 0, α, a_ii) by a reflection of the columns before it.
        let (above, row) = a.split_at_mut(i);
        let row = &mut row[0];
        diagonal[i] = row[i];
        let x = &mut row[..i];
        let length = dot(x, x).sqrt();
        let alpha = if x[i - 1] > 0.0 { -length } else { length };
        beside[i] = alpha;
        if length == 0.0 || i == 1 {
            beside[i] = if i == 1 { x[0] } else { 0.0 };
            continue;
        }
        x[i - 1] -= alpha; // now the vector u of the reflection I − u·uᵀ/h
        let h = dot(x, x) / 2.0;
        let mut p: Vec<f64> = above.iter().map(|row| dot(&row[..i], x) / h).collect();
        let k = dot(&p, x) / (2.0 * h);
        p.iter_mut().zip(x.iter()).for_each(|(p, u)| *p -= k * u);
        for (j, row) in above.iter_mut().enumerate() {
            let (u_j, p_j) = (x[j], p[j]);
            for ((a, u), p) in row[..i].iter_mut().zip(x.iter()).zip(&p) {
                *a -= u_j * p + p_j * u;
            }
        }
    }
    if n > 0 {
        diagonal[0] = a[0][0];
    }
    tridiagonal(diagonal, beside, &mut [])
}

/// Eigenvalues of a symmetric tridiagonal matrix, in no order; `beside[i]` lies between `diagonal[i - 1]` and `diagonal[i]`.
/// Of `vectors`, where there are any, the rows of the identity become the eigenvectors (tql2 of EISPACK).
fn tridiagonal(mut d: Vec<f64>, mut e: Vec<f64>, vectors: &mut [Vec<f64>]) -> Vec<f64> {
    let n = d.len();
    if n == 0 {
        return d;
    }
    e.rotate_left(1);
    e[n - 1] = 0.0;
    for l in 0..n {
        // Convergence is cubic: three steps an eigenvalue.
        for _ in 0..60 {
            let negligible = |m: usize| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs());
            let m = (l..n - 1).find(|&m| negligible(m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    split = true;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                if !vectors.is_empty() {
                    let (head, tail) = vectors.split_at_mut(i + 1);
                    for (x, y) in head[i].iter_mut().zip(&mut tail[0]) {
                        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                    }
                }
            }
            if !split {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    d
}

/// Steps after which Lanczos' method looks whether it has converged, again and again, and the most of them.
const STEPS: usize = 32;
const MOST_STEPS: usize = 512;

/// It has, when no vector asked for is further than this from an eigenvector, ‖Gv − λv‖ ≤ 1e-6 λ₁. Singular values of real
/// weights lie as close as 6e-4 around the sixteenth.
const TOLERANCE: f64 = 1e-6;

/// The `k` leading left singular vectors of a dense matrix `(out, in)`, `[i][row]`, by Lanczos' method on its Gram matrix,
/// with every vector made orthogonal to all before it (Golub & Van Loan, §10.3.1). Fewer where the matrix has fewer sides.
///
/// # Errors
/// If a tensor operation fails.
pub fn leading_left(matrix: &Tensor, k: usize) -> Result<Vec<Vec<f64>>> {
    let (out, inp) = matrix.dims2()?;
    if out <= inp {
        return leading(matrix, k);
    }
    let right = leading(&matrix.t()?, k)?;
    let mut left = matrix.matmul(&columns(&right, inp)?)?.t()?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    orthonormalise(&mut left);
    Ok(left)
}

/// The same where there are not more rows than columns.
fn leading(matrix: &Tensor, k: usize) -> Result<Vec<Vec<f64>>> {
    let rows = matrix.dim(0)?;
    let (matrix, transposed) = (matrix.contiguous()?, matrix.t()?.contiguous()?);
    let gram = |q: &[f64]| -> Result<Vec<f64>> {
        let q = Tensor::from_iter(q.iter().map(|x| *x as f32), matrix.device())?.unsqueeze(1)?; // (rows, 1)
        let image = matrix.matmul(&transposed.matmul(&q)?)?; // (rows, 1)
        Ok(image.squeeze(1)?.to_dtype(DType::F64)?.to_vec1()?)
    };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut random = || (0..rows).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>();
    // G·q_j = beside_j q_(j-1) + diagonal_j q_j + beside_(j+1) q_(j+1).
    let (mut basis, mut diagonal, mut beside) = (Vec::<Vec<f64>>::new(), Vec::new(), vec![0f64]);
    let mut next = random();
    unit(&mut next);
    loop {
        let mut image = gram(&next)?;
        diagonal.push(dot(&next, &image));
        basis.push(next);
        let (found, length) = (basis.len(), dot(&image, &image).sqrt());
        remove(&mut image, &basis);
        let left = dot(&image, &image).sqrt();
        if found == rows || found.is_multiple_of(STEPS) {
            let mut vectors = identity(found);
            let values = tridiagonal(diagonal.clone(), beside.clone(), &mut vectors);
            let mut order: Vec<usize> = (0..found).collect();
            order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
            order.truncate(k);
            let distance = |i: usize| left * vectors[i][found - 1].abs();
            let is_done =
                order.len() == k && order.iter().all(|&i| distance(i) <= TOLERANCE * values[order[0]]);
            if found == rows || found >= MOST_STEPS.max(4 * k) || is_done {
                return Ok(order.iter().map(|&i| combination(&basis, &vectors[i])).collect());
            }
        }
        let continues = left > 1e-7 * length;
        beside.push(if continues { left } else { 0.0 });
        // Else what the vectors so far span is complete, and another random vector begins anew.
        next = if continues { image } else { random() };
        if !continues {
            remove(&mut next, &basis);
        }
        unit(&mut next);
    }
}

fn unit(vector: &mut [f64]) {
    let length = dot(vector, vector).sqrt();
    vector.iter_mut().for_each(|v| *v /= length);
}

/// Vectors as the columns of an f32 matrix `(length, vectors)`.
///
/// # Errors
/// If a tensor operation fails.
pub fn columns(vectors: &[Vec<f64>], length: usize) -> Result<Tensor> {
    let rows: Vec<f32> = vectors.iter().flatten().map(|x| *x as f32).collect();
    let rows = Tensor::from_vec(rows, (vectors.len(), length), &candle_core::Device::Cpu)?;
    Ok(rows.t()?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn random(count: usize, length: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| (0..length).map(|_| rng.random_range(-1.0..1.0)).collect()).collect()
    }

    /// B·A by rows.
    fn product(b: &[Vec<f64>], a: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let at = |i: usize, j: usize| b.iter().zip(a).map(|(b, a)| b[i] * a[j]).sum();
        (0..b[0].len()).map(|i| (0..a[0].len()).map(|j| at(i, j)).collect()).collect()
    }

    #[test]
    fn qr_gives_the_matrix_back_with_orthonormal_columns() {
        let mut a = random(5, 9, 1);
        a[3] = a[1].iter().zip(&a[2]).map(|(x, y)| 2.0 * x - y).collect(); // depends on two others
        let (q, r) = qr(&a);
        for (j, column) in a.iter().enumerate() {
            let back = combination(&q, &r.iter().map(|row| row[j]).collect::<Vec<_>>());
            assert!(column.iter().zip(&back).all(|(x, y)| (x - y).abs() < 1e-13), "{j}");
        }
        for (i, x) in q.iter().enumerate() {
            for (j, y) in q.iter().enumerate() {
                let want = f64::from(i == j && i != 3);
                assert!((dot(x, y) - want).abs() < 1e-13, "{i} {j}");
            }
        }
    }

    #[test]
    fn thin_factors_have_the_singular_values_and_vectors_of_their_dense_product() {
        for (rank, out, inp, dependent) in [(4, 12, 30, false), (32, 96, 64, false), (6, 20, 20, true)] {
            let (mut b, a) = (random(rank, out, 2), random(rank, inp, 3));
            if dependent {
                b[rank - 1] = b[0].clone();
            }
            let found = of_product(&b, &a);
            let dense = product(&b, &a);
            // Another way: the eigenvalues of the dense Gram matrix, and the dense matrix on each pair of vectors.
            let gram: Vec<Vec<f64>> =
                dense.iter().map(|x| dense.iter().map(|y| dot(x, y)).collect()).collect();
            let mut values = eigenvalues(gram);
            values.sort_by(|x, y| y.total_cmp(x));
            for (i, value) in values.iter().take(rank).enumerate() {
                let want = value.max(0.0).sqrt();
                let allowed = if dependent && i == rank - 1 { 1e-6 } else { 1e-10 };
                assert!((found.s[i] - want).abs() <= allowed * found.s[0], "{i}: {} {want}", found.s[i]);
                let image: Vec<f64> = dense.iter().map(|row| dot(row, &found.v[i])).collect();
                assert!(
                    image.iter().zip(&found.u[i]).all(|(x, u)| (x - found.s[i] * u).abs() < 1e-10),
                    "{i} of {rank}"
                );
            }
            assert_eq!(found.s[rank - 1] == 0.0, dependent);
            // The sum of the parts is the matrix.
            let scaled: Vec<Vec<f64>> =
                found.u.iter().zip(&found.s).map(|(u, s)| u.iter().map(|x| x * s).collect()).collect();
            let back = product(&scaled, &found.v);
            let farthest = dense.iter().flatten().zip(back.iter().flatten());
            assert!(farthest.map(|(x, y)| (x - y).abs()).fold(0.0, f64::max) < 1e-10);
        }
    }

    #[test]
    fn eigenvalues_are_those_of_jacobi_s_rotations() {
        for n in [1, 2, 3, 8, 23] {
            let factor = random(n, n + 2, 7);
            let matrix: Vec<Vec<f64>> =
                factor.iter().map(|x| factor.iter().map(|y| dot(x, y)).collect()).collect();
            let want = super::super::eigen::jacobi(&matrix).values;
            let mut found = eigenvalues(matrix);
            found.sort_by(|x, y| y.total_cmp(x));
            assert!(found.iter().zip(&want).all(|(x, y)| (x - y).abs() < 1e-12 * want[0]), "{n}");
        }
        // Zeros, a diagonal, and equal values.
        assert_eq!(eigenvalues(vec![vec![0.0; 3]; 3]), [0.0; 3]);
        let diagonal = vec![vec![2.0, 0.0, 0.0], vec![0.0, 5.0, 0.0], vec![0.0, 0.0, 2.0]];
        let mut found = eigenvalues(diagonal);
        found.sort_by(f64::total_cmp);
        assert_eq!(found, [2.0, 2.0, 5.0]);
    }

    #[test]
    fn a_dense_matrix_has_the_values_of_its_factors_and_their_leading_vectors() -> Result<()> {
        let (rank, out, inp) = (6, 40, 25);
        let (b, a) = (random(rank, out, 4), random(rank, inp, 5));
        let thin = of_product(&b, &a);
        let dense: Vec<f32> = product(&b, &a).concat().iter().map(|x| *x as f32).collect();
        let dense = Tensor::from_vec(dense, (out, inp), &Device::Cpu)?;
        for matrix in [dense.clone(), dense.t()?] {
            let values = singular_values(&matrix)?;
            assert_eq!(values.len(), inp);
            for (i, value) in values.iter().enumerate() {
                let want = thin.s.get(i).copied().unwrap_or(0.0);
                assert!((value - want).abs() < 1e-5 * thin.s[0], "{i}: {value} {want}");
            }
        }
        for (matrix, vectors) in [(dense.clone(), &thin.u), (dense.t()?, &thin.v)] {
            let left = leading_left(&matrix, 3)?;
            assert_eq!(left.len(), 3);
            for (found, want) in left.iter().zip(vectors) {
                assert!((dot(found, want).abs() - 1.0).abs() < 1e-5);
            }
        }
        Ok(())
    }

    /// In noise, as in the weights of a model, the values around the last that is asked for are close to each other.
    #[test]
    fn leading_vectors_are_separate_from_those_that_follow() -> Result<()> {
        let (rows, columns, k) = (150, 200, 16);
        let noise = random(rows, columns, 6);
        let want = jacobi(noise.clone()); // of its transpose
        assert!(want.s[k - 1] / want.s[k] < 1.01);
        let matrix: Vec<f32> = noise.concat().iter().map(|x| *x as f32).collect();
        let matrix = Tensor::from_vec(matrix, (rows, columns), &Device::Cpu)?;
        for (matrix, vectors) in [(matrix.clone(), &want.v), (matrix.t()?, &want.u)] {
            let left = leading_left(&matrix, k)?;
            for (i, v) in vectors.iter().enumerate().take(k + 1) {
                let within: f64 = left.iter().map(|u| dot(u, v).powi(2)).sum();
                assert!((within - f64::from(i < k)).abs() < 1e-4, "{i}: {within}");
            }
        }
        Ok(())
    }
}
