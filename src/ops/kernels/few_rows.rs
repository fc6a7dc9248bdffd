//! x·Wᵀ for few rows x, as in a step of generation: W is read once, as it lies in memory.
//!
//! gemm copies W into an order of its own at every call, which pays with many rows only. Here x is copied, which is small:
//! the rows of x lie side by side in the lanes of a vector, and each weight multiplies them all. An element is
//! summed up over the width from its beginning to its end: it depends on its own row of x and its row of W, not on how many others
//! there are or on threads, so that a sequence gets the same bytes in
//! every batch that is served here.

use std::ops::{Range, RangeInclusive};

use pulp::{Arch, Simd, WithSimd};

use super::cpu::{LINE, by_columns, lanes, prefetch};
use super::mat::Mat;

/// Numbers of rows of x with which this is faster than gemm, which is the faster one at a single row; docs/log.md
/// (2026-11-25 and 26) has the figures.
const ROWS: RangeInclusive<usize> = 2..=96;

/// Whether this is the product for such an x `(tokens, in)`.
pub(in crate::ops) fn serves(x: &Mat) -> bool {
    ROWS.contains(&x.rows())
}

/// dst (+)= scale · x·Wᵀ, with the rows of `dst` `stride` apart; x `(tokens, in)` and W `(out, in)` have dense rows.
pub(in crate::ops) fn times_transposed(
    dst: &mut [f32],
    stride: usize,
    accumulate: bool,
    scale: f32,
    x: Mat,
    w: Mat,
    tasks: usize,
) {
    let (tokens, out) = (x.rows(), w.rows());
    let groups = groups(x, lanes());
    by_columns(dst, stride, (tokens, out), MOST_TILE, tasks, |first, y| {
        Arch::new().dispatch(Part { groups: &groups, w, first, y, accumulate, scale });
    });
}

/// An x that is multiplied by a W of which there is a part at a time.
pub(in crate::ops) struct Ready(Vec<Group>);

impl Ready {
    /// x `(tokens, in)` with dense rows.
    pub(in crate::ops) fn new(x: Mat) -> Self {
        Self(groups(x, lanes()))
    }

    /// y (+)= x·Wᵀ on this thread: some columns of every row of the product, and the rows of W `(columns, in)` that make them.
    pub(in crate::ops) fn times_transposed(&self, y: Vec<&mut [f32]>, accumulate: bool, w: Mat) {
        Arch::new().dispatch(Part { groups: &self.0, w, first: 0, y, accumulate, scale: 1.0 });
    }
}

/// Rows of x, side by side in one vector or two.
struct Group {
    /// Which rows.
    rows: Range<usize>,
    /// `(in, vectors · lanes)`, zero where there is no row.
    packed: Vec<f32>,
    /// 1 or 2.
    vectors: usize,
}

/// All rows of x: two vectors of them while there are more than one holds.
fn groups(x: Mat, lanes: usize) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut first = 0;
    while first < x.rows() {
        let vectors = if x.rows() - first > lanes { 2 } else { 1 };
        let rows = first..x.rows().min(first + vectors * lanes);
        let mut packed = vec![0f32; x.cols() * vectors * lanes];
        // Some columns of all rows at a time: what is written stays in the first cache until its lines are full.
        for (i, packed) in packed.chunks_mut(LINE * vectors * lanes).enumerate() {
            let columns = i * LINE..x.cols().min((i + 1) * LINE);
            for (lane, row) in rows.clone().enumerate() {
                let row = x.row(row, columns.clone());
                packed[lane..]
                    .iter_mut()
                    .step_by(vectors * lanes)
                    .zip(row)
                    .for_each(|(to, from)| *to = *from);
            }
        }
        first = rows.end;
        groups.push(Group { rows, packed, vectors });
    }
    groups
}

/// Columns of x and W that are summed up before the sum is added to that of those before: rounding errors grow with it.
const DEPTH: usize = 512;

/// The most rows of W in a tile.
const MOST_TILE: usize = 8;

/// The most lanes of two vectors.
const MOST_ROWS: usize = 32;

/// Some columns of the product.
struct Part<'a> {
    groups: &'a [Group],
    w: Mat<'a>,
    /// The row of W that makes the first of the columns.
    first: usize,
    /// The columns of each row.
    y: Vec<&'a mut [f32]>,
    accumulate: bool,
    scale: f32,
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums as fit into the registers beside the factors.
        match S::REGISTER_COUNT {
            32.. => self.run::<S, MOST_TILE>(simd),
            _ => self.run::<S, 4>(simd),
        }
    }
}

impl Part<'_> {
    #[inline(always)]
    fn run<S: Simd, const W: usize>(mut self, simd: S) {
        let columns = self.y[0].len();
        for j in (0..columns).step_by(W) {
            if j + W <= columns {
                self.columns::<S, W>(simd, j);
            } else {
                (j..columns).for_each(|j| self.columns::<S, 1>(simd, j));
            }
        }
    }

    /// `W` columns of all rows.
    #[inline(always)]
    fn columns<S: Simd, const W: usize>(&mut self, simd: S, j: usize) {
        let mut w: [&[f32]; W] = [&[]; W];
        for (c, w) in w.iter_mut().enumerate() {
            *w = self.w.row(self.first + j + c, 0..self.w.cols());
        }
        for group in self.groups {
            let sums = match group.vectors {
                1 => sums::<S, 1, W>(simd, &group.packed, w),
                _ => sums::<S, 2, W>(simd, &group.packed, w),
            };
            for (lane, y) in self.y[group.rows.clone()].iter_mut().enumerate() {
                for (y, sums) in y[j..j + W].iter_mut().zip(&sums) {
                    let sum = self.scale * sums[lane];
                    *y = if self.accumulate { *y + sum } else { sum };
                }
            }
        }
    }
}

/// Σ over the width of the packed rows of x times each of some rows of W: `[row of W][lane]`. Loops in place of iterators
/// and closures, which are not inlined into code for another processor and cost half the speed; slices of one length, so
/// that no index is checked within the loop.
///
/// The rows of W are too short for the processor to see that the next ones follow; while these are multiplied those are
/// asked for, which makes the product a third faster where W comes from memory.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn sums<S: Simd, const V: usize, const W: usize>(
    simd: S,
    packed: &[f32],
    w: [&[f32]; W],
) -> [[f32; MOST_ROWS]; W] {
    let width = w[0].len();
    let (x, _) = S::as_simd_f32s(packed).0.as_chunks::<V>(); // [in][V]
    let mut out = [[0f32; MOST_ROWS]; W];
    let mut start = 0;
    while start < width {
        let depth = (width - start).min(DEPTH);
        let x = &x[start..start + depth];
        let mut ws: [&[f32]; W] = [&[]; W];
        for c in 0..W {
            ws[c] = &w[c][start..start + depth];
        }
        let mut sums = [[simd.splat_f32s(0.0); W]; V];
        let mut line = 0;
        while line < depth {
            for c in 0..W {
                prefetch::<1>(ws[c], line + W * width);
            }
            let end = (line + LINE).min(depth);
            for k in line..end {
                let x = x[k];
                for c in 0..W {
                    let weight = simd.splat_f32s(ws[c][k]);
                    for v in 0..V {
                        sums[v][c] = simd.mul_add_e_f32s(x[v], weight, sums[v][c]);
                    }
                }
            }
            line = end;
        }
        for c in 0..W {
            for v in 0..V {
                let total = &mut out[c][v * S::F32_LANES..(v + 1) * S::F32_LANES];
                let sum = simd.add_f32s(simd.partial_load_f32s(total), sums[v][c]);
                simd.partial_store_f32s(total, sum);
            }
        }
        start += depth;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernels::cpu::view;
    use crate::ops::kernels::matmul::{Threads, matmul};
    use crate::ops::testing::random;

    /// The shapes of the products in all sorts of odd sizes, the accumulating and the scaled one too.
    #[test]
    fn few_rows_are_those_of_f64_and_the_same_in_every_batch() -> candle_core::Result<()> {
        for (width, out, stride) in
            [(1, 3, 3), (31, 8, 8), (129, 7, 9), (577, 13, 13), (1000, 96, 96), (2051, 31, 40)]
        {
            let (x, w, y0) = (random(&[65, width], 1)?, random(&[out, width], 2)?, random(&[65, stride], 3)?);
            let (x, w, y0) = (view(&x)?, view(&w)?, view(&y0)?);
            let w = Mat::new(&w, out, width);
            let mut alone: Vec<Vec<f32>> = Vec::new();
            for tokens in [1, 2, 3, 4, 5, 7, 31, 32, 33, 63, 64, 65] {
                let xm = Mat::new(&x[..tokens * width], tokens, width);
                assert_eq!(serves(&xm), tokens > 1);
                for (accumulate, scale) in [(false, 1.0), (true, 1.0), (true, -1.75)] {
                    let mut y = y0[..tokens * stride].to_vec();
                    matmul(&mut y, stride, accumulate, scale, xm, w.t(), Threads::All);
                    for i in 0..tokens {
                        for j in 0..stride {
                            let before = y0[i * stride + j];
                            let want = if j < out {
                                let both = x[i * width..][..width].iter().zip(w.row(j, 0..width));
                                let sum: f64 = both.map(|(x, w)| *x as f64 * *w as f64).sum();
                                scale as f64 * sum + if accumulate { before as f64 } else { 0.0 }
                            } else {
                                before as f64 // not of the product
                            };
                            assert!(
                                (y[i * stride + j] as f64 - want).abs() < 1e-4,
                                "{tokens} {width} {i} {j}"
                            );
                        }
                    }
                    if scale != 1.0 && serves(&xm) {
                        for (i, row) in y.chunks(stride).enumerate() {
                            match alone.get(i) {
                                Some(alone) => assert_eq!(alone, row, "row {i} of {tokens}"),
                                None => alone.push(row.to_vec()),
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The narrower vectors of other processors, as far as this one has them.
    #[test]
    fn other_vectors_give_the_same_product() -> candle_core::Result<()> {
        for (tokens, width, out) in [(2, 31, 8), (5, 300, 50), (17, 577, 13), (33, 1030, 9)] {
            let (x, w) = (random(&[tokens, width], 1)?, random(&[out, width], 2)?);
            let (x, w) = (view(&x)?, view(&w)?);
            let (x, w) = (Mat::new(&x, tokens, width), Mat::new(&w, out, width));
            let check = |lanes: usize, run: &dyn Fn(Part)| {
                let groups = groups(x, lanes);
                let mut y = vec![0f32; tokens * out];
                let rows = y.chunks_mut(out).collect();
                run(Part { groups: &groups, w, first: 0, y: rows, accumulate: false, scale: 1.0 });
                for (i, y) in y.iter().enumerate() {
                    let both = x.row(i / out, 0..width).iter().zip(w.row(i % out, 0..width));
                    let want: f64 = both.map(|(x, w)| *x as f64 * *w as f64).sum();
                    assert!((*y as f64 - want).abs() < 1e-4, "{lanes} lanes: {y} {want}");
                }
            };
            check(1, &|part| Simd::vectorize(pulp::Scalar::new(), part));
            #[cfg(target_arch = "x86_64")]
            if let Some(simd) = pulp::x86::V3::try_new() {
                check(8, &|part| Simd::vectorize(simd, part));
            }
        }
        Ok(())
    }

    #[test]
    fn threads_do_not_change_a_byte() -> candle_core::Result<()> {
        let (x, w) = (random(&[5, 300], 1)?, random(&[50, 300], 2)?);
        let (x, w) = (view(&x)?, view(&w)?);
        let (x, w) = (Mat::new(&x, 5, 300), Mat::new(&w, 50, 300));
        let product = |tasks| {
            let mut y = vec![0f32; 5 * 50];
            times_transposed(&mut y, 50, false, 1.0, x, w, tasks);
            y
        };
        assert_eq!(product(1), product(2));
        assert_eq!(product(1), product(100));
        Ok(())
    }
}
