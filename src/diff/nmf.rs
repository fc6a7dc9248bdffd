//! Non-negative matrix factorization X ≈ W·H of a sparse matrix, by the multiplicative updates that never increase ‖X − W·H‖²
//! (Lee & Seung, NIPS 2000, theorem 1).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Updates of each factor.
const ITERATIONS: usize = 200;

/// Keeps a factor that has come to nothing from being divided by it.
const TINY: f64 = 1e-12;

/// A topic of a factorization.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Weight of each column, `(columns)`: a row of H.
    pub columns: Vec<f64>,
    /// Share of Σ W·H that is this topic's.
    pub mass: f64,
    /// Share of the rows that have more of this topic than of any other; rows of zeros count for none.
    pub prevalence: f64,
}

/// `topics` topics of a matrix of non-negative values, `rows[i]` its entries `(column, value)` that are not zero; the topic
/// with the largest mass first. None where the matrix is zero. The same seed gives the same topics.
pub fn topics(rows: &[Vec<(u32, f32)>], columns: usize, topics: usize, seed: u64) -> Vec<Topic> {
    let entries: usize = rows.iter().map(Vec::len).sum();
    let sum: f64 = rows.iter().flatten().map(|(_, x)| *x as f64).sum();
    if topics == 0 || entries == 0 || sum <= 0.0 {
        return Vec::new();
    }
    // Values near √(mean / topics), as libraries begin.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let scale = (sum / (rows.len() * columns) as f64 / topics as f64).sqrt();
    let mut random =
        |n: usize| -> Vec<f64> { (0..n * topics).map(|_| scale * rng.random_range(0.01..1.0)).collect() };
    let mut w = random(rows.len()); // (rows, topics)
    let mut h = random(columns); // (columns, topics): H transposed
    for _ in 0..ITERATIONS {
        update(&mut h, &w, topics, |add| {
            for (i, row) in rows.iter().enumerate() {
                row.iter().for_each(|(column, x)| add(*column as usize, i, *x as f64));
            }
        });
        update(&mut w, &h, topics, |add| {
            for (i, row) in rows.iter().enumerate() {
                row.iter().for_each(|(column, x)| add(i, *column as usize, *x as f64));
            }
        });
    }
    let of = |factor: &[f64], k: usize| factor.iter().skip(k).step_by(topics).copied().collect::<Vec<f64>>();
    let masses: Vec<f64> =
        (0..topics).map(|k| of(&w, k).iter().sum::<f64>() * of(&h, k).iter().sum::<f64>()).collect();
    let lengths: Vec<f64> = (0..topics).map(|k| of(&h, k).iter().sum()).collect();
    let mut most = vec![0usize; topics];
    for (row, weights) in rows.iter().zip(w.chunks_exact(topics)) {
        let parts = (0..topics).map(|k| weights[k] * lengths[k]);
        let best = parts.enumerate().reduce(|best, part| if part.1 > best.1 { part } else { best });
        if let Some((k, _)) = best.filter(|_| !row.is_empty()) {
            most[k] += 1;
        }
    }
    let total: f64 = masses.iter().sum();
    let mut found: Vec<Topic> = (0..topics)
        .map(|k| Topic {
            columns: of(&h, k),
            mass: masses[k] / total,
            prevalence: most[k] as f64 / rows.len() as f64,
        })
        .collect();
    found.sort_by(|x, y| y.mass.total_cmp(&x.mass));
    found
}

/// `own` ∘ (X'·other) / (own·otherᵀ·other), where `entries` calls its function with each entry of X' = X or Xᵀ: the row of
/// `own`, the row of `other`, the value. Both are `(rows, topics)`.
fn update(
    own: &mut [f64],
    other: &[f64],
    topics: usize,
    entries: impl Fn(&mut dyn FnMut(usize, usize, f64)),
) {
    let mut gram = vec![0f64; topics * topics];
    for row in other.chunks_exact(topics) {
        for (k, x) in row.iter().enumerate() {
            gram[k * topics..(k + 1) * topics].iter_mut().zip(row).for_each(|(g, y)| *g += x * y);
        }
    }
    let mut products = vec![0f64; own.len()];
    entries(&mut |i, j, x| {
        let other = &other[j * topics..(j + 1) * topics];
        products[i * topics..(i + 1) * topics].iter_mut().zip(other).for_each(|(p, y)| *p += x * y);
    });
    let mut old = vec![0f64; topics];
    for (row, product) in own.chunks_exact_mut(topics).zip(products.chunks_exact(topics)) {
        old.copy_from_slice(row);
        for k in 0..topics {
            let expected: f64 = old.iter().zip(&gram[k * topics..(k + 1) * topics]).map(|(x, g)| x * g).sum();
            row[k] = old[k] * product[k] / (expected + TINY);
        }
    }
}

/// Cosine between the columns' weights of two topics; 0 where one has none.
pub fn cosine(x: &Topic, y: &Topic) -> f64 {
    let dot = |a: &Topic, b: &Topic| a.columns.iter().zip(&b.columns).map(|(x, y)| x * y).sum::<f64>();
    let lengths = (dot(x, x) * dot(y, y)).sqrt();
    if lengths > 0.0 { dot(x, y) / lengths } else { 0.0 }
}

/// 1 − H/ln n of a topic's weights over n columns: 0 evenly over all, 1 on a single one.
pub fn concentration(topic: &Topic) -> f64 {
    let total: f64 = topic.columns.iter().sum();
    let shares = topic.columns.iter().map(|x| x / total).filter(|p| *p > 0.0);
    let entropy: f64 = -shares.map(|p| p * p.ln()).sum::<f64>();
    if topic.columns.len() > 1 && total > 0.0 {
        1.0 - entropy / (topic.columns.len() as f64).ln()
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_subjects_on_two_halves_of_the_rows_are_two_topics() {
        let rows: Vec<Vec<(u32, f32)>> = (0..40)
            .map(|i| {
                let own = if i < 24 { 3 } else { 7 };
                vec![(own, 5.0 + (i % 3) as f32), (i % 2, 0.1)]
            })
            .collect();
        let found = topics(&rows, 9, 2, 0);
        assert!(cosine(&found[0], &found[1]) < 0.1, "{found:?}");
        let best = |t: &Topic| (0..9).max_by(|a, b| t.columns[*a].total_cmp(&t.columns[*b])).unwrap();
        assert_eq!((best(&found[0]), best(&found[1])), (3, 7)); // the larger half first
        assert!((found[0].prevalence - 0.6).abs() < 1e-9 && found[0].mass > found[1].mass);
        assert!(concentration(&found[0]) > 0.8);
        let again = topics(&rows, 9, 2, 0);
        assert!(found.iter().zip(&again).all(|(x, y)| x.columns == y.columns));
    }

    #[test]
    fn a_matrix_of_rank_one_is_found_exactly_and_zeros_have_no_topic() {
        let rows: Vec<Vec<(u32, f32)>> =
            (1..6).map(|i| (0..4).map(|j| (j, (i * (j + 1)) as f32)).collect()).collect();
        let found = topics(&rows, 4, 1, 3);
        let ratio = found[0].columns[3] / found[0].columns[0];
        assert!((ratio - 4.0).abs() < 1e-6 && (found[0].mass - 1.0).abs() < 1e-12);
        assert!(topics(&[vec![], vec![]], 4, 2, 0).is_empty());
        assert!(topics(&rows, 4, 0, 0).is_empty());
    }
}
