//! x·Wᵀ for few rows x, as in a step of generation: W is read once, as it lies in memory.
//!
//! gemm copies W into an order of its own at every call, which pays with many rows only. Here the rows of W are read
//! side by side with those of x, a vector of both at a time. Every element is a sum of `F32_LANES` partial sums, in an
//! order that depends on the width of x and on the processor only: not on the number of rows, so that a sequence gets
//! the same bytes in every batch, nor on threads.

use std::ops::{Range, RangeInclusive};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::matmul::Mat;

/// Numbers of rows of x with which this is faster than gemm. Measured on an EPYC with AVX2 at the shapes of SmolLM2,
/// Qwen2.5 and powers of two, one thread, GFLOP/s of CPU time here and in gemm: 1 row 4-9 and 5-8, 2 rows 6-15 and 3-9,
/// 4 rows 13-24 and 5-15, 32 rows 53-68 and 36-54, 64 rows 49-69 and 51-65, 128 rows 50-66 and 58-72.
const ROWS: RangeInclusive<usize> = 2..=64;

/// The least width of x. Narrower ones spend their time in adding up the lanes: at 32 rows 21 and 43 GFLOP/s with a
/// width of 32, 36-43 and 36-40 with 128, 48-51 and 43 with 256.
const LEAST_WIDTH: usize = 128;

/// Columns of x and W that are handled together: the rows of W that a tile holds stay in the first cache meanwhile.
const DEPTH: usize = 1024;

/// Rows of W in a tile.
const TILE: usize = 6;

/// Whether this is the product for such an x `(tokens, in)`.
pub(super) fn serves(x: &Mat) -> bool {
    ROWS.contains(&x.rows()) && x.cols() >= LEAST_WIDTH
}

/// dst (+)= scale · x·Wᵀ, with the rows of `dst` `stride` apart; x `(tokens, in)` and W `(out, in)` have dense rows.
pub(super) fn times_transposed(
    dst: &mut [f32],
    stride: usize,
    accumulate: bool,
    scale: f32,
    x: Mat,
    w: Mat,
    tasks: usize,
) {
    let (tokens, out) = (x.rows(), w.rows());
    let columns = out.div_ceil(tasks).next_multiple_of(TILE);
    let mut parts: Vec<Vec<&mut [f32]>> = Vec::new(); // each task's columns of every row
    parts.resize_with(out.div_ceil(columns), || Vec::with_capacity(tokens));
    for row in dst.chunks_mut(stride).take(tokens) {
        for (part, columns) in parts.iter_mut().zip(row[..out].chunks_mut(columns)) {
            part.push(columns);
        }
    }
    let task = |(i, y): (usize, Vec<&mut [f32]>)| {
        Arch::new().dispatch(Part { x, w, first: i * columns, y, accumulate, scale });
    };
    match parts.len() {
        1 => parts.into_iter().enumerate().for_each(task),
        _ => parts.into_par_iter().enumerate().for_each(task),
    }
}

/// Some columns of the product.
struct Part<'a> {
    x: Mat<'a>,
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
            32.. => self.run::<S, 4>(simd),
            _ => self.run::<S, 2>(simd),
        }
    }
}

impl Part<'_> {
    #[inline(always)]
    fn run<S: Simd, const X: usize>(mut self, simd: S) {
        let (width, columns) = (self.x.cols(), self.y[0].len());
        let depth = width.div_ceil(width.div_ceil(DEPTH)).next_multiple_of(S::F32_LANES);
        for start in (0..width).step_by(depth) {
            let range = start..width.min(start + depth);
            for j in (0..columns).step_by(TILE) {
                if j + TILE <= columns {
                    self.rows::<S, X, TILE>(simd, j, range.clone());
                } else {
                    (j..columns).for_each(|j| self.rows::<S, X, 1>(simd, j, range.clone()));
                }
            }
        }
    }

    /// `W` columns of all rows, over a range of the width.
    #[inline(always)]
    fn rows<S: Simd, const X: usize, const W: usize>(&mut self, simd: S, j: usize, range: Range<usize>) {
        let mut w: [&[f32]; W] = [&[]; W];
        for (c, w) in w.iter_mut().enumerate() {
            *w = self.w.row(self.first + j + c, range.clone());
        }
        let mut i = 0;
        while i + X <= self.x.rows() {
            self.tile::<S, X, W>(simd, (i, j), w, range.clone());
            i += X;
        }
        for i in i..self.x.rows() {
            self.tile::<S, 1, W>(simd, (i, j), w, range.clone());
        }
    }

    /// `X` rows and `W` columns, over a range of the width.
    #[inline(always)]
    fn tile<S: Simd, const X: usize, const W: usize>(
        &mut self,
        simd: S,
        (i, j): (usize, usize),
        w: [&[f32]; W],
        range: Range<usize>,
    ) {
        let mut x: [&[f32]; X] = [&[]; X];
        for (r, x) in x.iter_mut().enumerate() {
            *x = self.x.row(i + r, range.clone());
        }
        let add = self.accumulate || range.start > 0;
        let sums = dots(simd, x, w);
        for (y, sums) in self.y[i..i + X].iter_mut().zip(sums) {
            for (y, sum) in y[j..j + W].iter_mut().zip(sums) {
                *y = if add { *y + self.scale * sum } else { self.scale * sum };
            }
        }
    }
}

/// Σ x·w of each of some rows with each of some others, all of one length. Loops in place of iterators and closures,
/// which are not inlined into code for another processor and cost half the speed.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn dots<S: Simd, const X: usize, const W: usize>(simd: S, x: [&[f32]; X], w: [&[f32]; W]) -> [[f32; W]; X] {
    let whole = x[0].len() / S::F32_LANES;
    let mut xs: [&[S::f32s]; X] = [&[]; X];
    let mut ws: [&[S::f32s]; W] = [&[]; W];
    for i in 0..X {
        xs[i] = &S::as_simd_f32s(x[i]).0[..whole];
    }
    for j in 0..W {
        ws[j] = &S::as_simd_f32s(w[j]).0[..whole];
    }
    let mut sums = [[simd.splat_f32s(0.0); W]; X];
    for k in 0..whole {
        for j in 0..W {
            for i in 0..X {
                sums[i][j] = simd.mul_add_e_f32s(xs[i][k], ws[j][k], sums[i][j]);
            }
        }
    }
    let done = whole * S::F32_LANES;
    if done < x[0].len() {
        for j in 0..W {
            let w = simd.partial_load_f32s(&w[j][done..]);
            for i in 0..X {
                sums[i][j] = simd.mul_add_e_f32s(simd.partial_load_f32s(&x[i][done..]), w, sums[i][j]);
            }
        }
    }
    let mut total = [[0f32; W]; X];
    for i in 0..X {
        for j in 0..W {
            total[i][j] = simd.reduce_sum_f32s(sums[i][j]);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::cpu::view;
    use super::super::matmul::{Threads, matmul};
    use super::super::testing::random;
    use super::*;

    /// The shapes of the products in all sorts of odd sizes, the accumulating and the scaled one too.
    #[test]
    fn few_rows_are_those_of_f64_and_the_same_in_every_batch() -> candle_core::Result<()> {
        for (width, out, stride) in [(128, 1, 1), (129, 7, 9), (577, 13, 13), (1000, 96, 96), (2051, 31, 40)]
        {
            let (x, w, y0) = (random(&[65, width], 1)?, random(&[out, width], 2)?, random(&[65, stride], 3)?);
            let (x, w, y0) = (view(&x)?, view(&w)?, view(&y0)?);
            let w = Mat::new(&w, out, width);
            let mut alone: Vec<Vec<f32>> = Vec::new();
            for tokens in [1, 2, 3, 4, 5, 7, 31, 32, 33, 63, 64, 65] {
                let xm = Mat::new(&x[..tokens * width], tokens, width);
                assert_eq!(serves(&xm), (2..65).contains(&tokens));
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
