//! x·B for one row x, inside a task of its own: a token's attention to the keys and values before it.
//!
//! Hundreds of such products make a step of generation, each of a few thousand operations: gemm's preparations cost more.

use std::ops::Range;

use super::exp::{dot, vectorized};
use super::mat::Mat;

/// y (+)= scale · x·Wᵀ: x `(in)`, W `(out, in)` with dense rows, y `(out)`.
pub(in crate::ops) fn times_transposed(y: &mut [f32], accumulate: bool, scale: f32, x: &[f32], w: Mat) {
    vectorized!({
        for (j, y) in y.iter_mut().enumerate() {
            let sum = scale * dot(x, w.row(j, 0..x.len()));
            *y = if accumulate { *y + sum } else { sum };
        }
    });
}

/// y (+)= scale · x·B: x `(in)`, B `(in, out)` with dense rows, y `(out)`.
pub(in crate::ops) fn times(y: &mut [f32], accumulate: bool, scale: f32, x: &[f32], b: Mat) {
    let columns: Range<usize> = 0..y.len();
    if !accumulate {
        y.fill(0.0);
    }
    vectorized!({
        for (i, x) in x.iter().enumerate() {
            let factor = scale * x;
            y.iter_mut().zip(b.row(i, columns.clone())).for_each(|(y, b)| *y += factor * b);
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::ops::kernels::cpu::view;
    use crate::ops::kernels::mat::Mat;
    use crate::ops::kernels::matmul::{Threads, matmul};
    use crate::ops::testing::random;

    #[test]
    fn one_row_is_that_of_f64() -> candle_core::Result<()> {
        // Rows that lie further apart than they are long, as those of one head of many.
        for (width, out, stride) in [(1, 1, 1), (64, 17, 192), (33, 5, 40), (70, 64, 90)] {
            let (x, b) = (random(&[width], 1)?, random(&[width.max(out), stride], 2)?);
            let (x, b) = (view(&x)?, view(&b)?);
            let row = Mat::new(&x, 1, width);
            for (accumulate, scale) in [(false, 1.0f32), (true, -0.5)] {
                let start: Vec<f32> = (0..out).map(|j| j as f32).collect();
                let (mut by_rows, mut by_columns) = (start.clone(), start.clone());
                let w = Mat::strided(&b, out, width.min(stride), stride);
                let m = Mat::strided(&b, width, out.min(stride), stride);
                matmul(&mut by_rows, out, accumulate, scale, row, w.t(), Threads::One);
                matmul(&mut by_columns, out, accumulate, scale, row, m, Threads::One);
                for j in 0..out {
                    let before = if accumulate { start[j] as f64 } else { 0.0 };
                    let sum = |at: &dyn Fn(usize) -> usize| -> f64 {
                        (0..width).map(|i| x[i] as f64 * b[at(i)] as f64).sum::<f64>() * scale as f64
                    };
                    let (of_rows, of_columns) = (sum(&|i| j * stride + i), sum(&|i| i * stride + j));
                    assert!((by_rows[j] as f64 - before - of_rows).abs() < 1e-4, "{width} {out} {j}");
                    assert!((by_columns[j] as f64 - before - of_columns).abs() < 1e-4, "{width} {out} {j}");
                }
            }
        }
        Ok(())
    }
}
