//! x·Wᵀ for one row x with all threads, as in a step of generation of one sequence: W streams from memory, once, and memory
//! decides how long it takes.
//!
//! gemm packs for this product as for any other; here each thread reads rows of W from end to end.

use rayon::prelude::*;

use super::exp::{dot, vectorized};
use super::mat::Mat;

/// Numbers of W below which a second thread costs more than it brings.
pub(in crate::ops) const DIVIDED: usize = 1 << 16;

/// y (+)= scale · x·Wᵀ: x `(in)`, W `(out, in)` with dense rows, y `(out)`.
pub(in crate::ops) fn times_transposed(y: &mut [f32], accumulate: bool, scale: f32, x: &[f32], w: Mat) {
    in_parts(y, w.rows() * w.cols(), |first, y| {
        let end = first + y.len();
        rows(y, accumulate, scale, x, w.row_range(first..end));
    });
}

/// [`times_transposed`] on this thread.
pub(in crate::ops) fn rows(y: &mut [f32], accumulate: bool, scale: f32, x: &[f32], w: Mat) {
    vectorized!({
        for (j, y) in y.iter_mut().enumerate() {
            let sum = scale * dot(x, w.row(j, 0..x.len()));
            *y = if accumulate { *y + sum } else { sum };
        }
    });
}

/// y (+)= x·Wᵀ on this thread, W in bf16: its numbers become f32 in registers, and half as much is read.
pub(in crate::ops) fn rows_of_bf16(y: &mut [f32], accumulate: bool, x: &[f32], w: &[[u8; 2]]) {
    let number = |bits: [u8; 2]| f32::from_bits((u16::from_le_bytes(bits) as u32) << 16);
    vectorized!({
        for (j, y) in y.iter_mut().enumerate() {
            let row = &w[j * x.len()..(j + 1) * x.len()];
            let ((xs, x_rest), (ws, w_rest)) = (x.as_chunks::<16>(), row.as_chunks::<16>());
            let mut lanes = [0f32; 16];
            for (x, w) in xs.iter().zip(ws) {
                for i in 0..16 {
                    lanes[i] += x[i] * number(w[i]);
                }
            }
            let mut sum = lanes.iter().sum::<f32>();
            for (x, w) in x_rest.iter().zip(w_rest) {
                sum += x * number(*w);
            }
            *y = if accumulate { *y + sum } else { sum };
        }
    });
}

/// Hands parts of y to all threads, each with the number of its first element, where a W of so many numbers is worth it.
pub(in crate::ops) fn in_parts(y: &mut [f32], numbers: usize, part: impl Fn(usize, &mut [f32]) + Sync) {
    let threads = rayon::current_num_threads();
    if threads == 1 || numbers < DIVIDED || y.len() < threads {
        return part(0, y);
    }
    // Two each, as one thread may be held up.
    let each = y.len().div_ceil(2 * threads);
    y.par_chunks_mut(each).enumerate().for_each(|(i, y)| part(i * each, y));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernels::cpu::view;
    use crate::ops::kernels::matmul::{Threads, matmul};
    use crate::ops::testing::random;

    #[test]
    fn one_row_on_all_threads_is_that_of_f64() -> candle_core::Result<()> {
        for (width, out) in [(1, 1), (33, 5), (576, 200), (1000, 301)] {
            let (x, w) = (random(&[1, width], 1)?, random(&[out, width], 2)?);
            let (x, w) = (view(&x)?, view(&w)?);
            let wm = Mat::new(&w, out, width);
            for (accumulate, scale) in [(false, 1.0f32), (true, -0.5)] {
                let mut y: Vec<f32> = (0..out).map(|j| j as f32).collect();
                matmul(&mut y, out, accumulate, scale, Mat::new(&x, 1, width), wm.t(), Threads::All);
                for (j, y) in y.iter().enumerate() {
                    let sum: f64 =
                        x.iter().zip(wm.row(j, 0..width)).map(|(x, w)| *x as f64 * *w as f64).sum();
                    let want = scale as f64 * sum + if accumulate { j as f64 } else { 0.0 };
                    assert!((*y as f64 - want).abs() < 1e-4, "{width} {out} {j}");
                }
            }
        }
        Ok(())
    }

    /// What memory gives to all threads: what scripts/bench relates the speed of generation to.
    #[test]
    #[ignore = "a measurement; scripts/bench runs it"]
    fn bandwidth() {
        let (width, out) = (1 << 12, 1 << 16); // 1 GiB
        let w = vec![1f32; width * out];
        let mut best = 0f64;
        for _ in 0..5 {
            let started = std::time::Instant::now();
            let sum: f32 = w
                .par_chunks(w.len() / (2 * rayon::current_num_threads()))
                .map(|part| vectorized!(crate::ops::kernels::exp::max(part)))
                .reduce(|| 0.0, f32::max);
            best = best.max((4 * w.len()) as f64 / started.elapsed().as_secs_f64() / 1e9);
            assert_eq!(sum, 1.0);
        }
        println!("bandwidth {best:.1} GB/s");
    }
}
