//! Matrix products on slices: through the `gemm` crate that candle itself uses, or where a product is one with weights by
//! [`panels`], [`few_rows`] and [`stream`].

use super::cpu::written;
use super::few_rows;
use super::mat::Mat;
use super::panels;
use super::panels::Weight;
use super::stream;
use super::transpose::transpose;

/// Whether a product may use all threads, or runs inside a task that is itself one of many.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Threads {
    All,
    One,
}

/// `dst (+)= scale · a · b`, with `dst` a row-major matrix whose rows lie `dst_stride` apart.
pub(in crate::ops) fn matmul(
    dst: &mut [f32],
    dst_stride: usize,
    accumulate: bool,
    scale: f32,
    a: Mat,
    b: Mat,
    threads: Threads,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(a.cols, b.rows, "inner dimensions differ");
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * dst_stride + n <= dst.len(), "product outside its slice");
    if k == 0 && !accumulate {
        return dst.chunks_mut(dst_stride).take(m).for_each(|row| row[..n].fill(0.0)); // which gemm leaves as it was
    }
    let workers = match threads {
        // Below a few MFLOP the hand-over to a second thread costs more than it brings.
        Threads::All if m * n * k > 1 << 18 => rayon::current_num_threads(),
        _ => 1,
    };
    if matches!(threads, Threads::All) && m == 1 && a.col_stride == 1 && b.row_stride == 1 {
        return stream::times_transposed(&mut dst[..n], accumulate, scale, a.row(0, 0..k), b.t());
    }
    if matches!(threads, Threads::All) {
        let tasks = if workers > 1 { 4 * workers } else { 1 }; // several each, as one thread may be held up
        if a.col_stride == 1 && b.row_stride == 1 && few_rows::serves(&a) {
            return few_rows::times_transposed(dst, dst_stride, accumulate, scale, a, b.t(), tasks);
        }
        let w = match b {
            Mat { row_stride: 1, .. } => Some(Weight::Transposed(b.t())),
            Mat { col_stride: 1, .. } => Some(Weight::AsItIs(b)),
            _ => None,
        };
        if let Some(w) = w.filter(|w| w.serves(m)) {
            let turned = (a.col_stride != 1).then(|| written(m * k, |to| transpose(to, k, a.t())));
            let a = turned.as_deref().map_or(a, |a| Mat::new(a, m, k));
            return panels::times(dst, dst_stride, accumulate, scale, a, w, tasks);
        }
    }
    let parallelism = match workers {
        1 => gemm::Parallelism::None,
        _ => gemm::Parallelism::Rayon(workers),
    };
    // SAFETY: `Mat` and the assertions above hold every index `i·row_stride + j·col_stride` inside its
    // slice; `dst` is borrowed mutably, so it overlaps neither operand. Tested in `strided_products`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        )
    }
}

/// `scale · a · b` by itself, dense.
pub(in crate::ops) fn product(scale: f32, a: Mat, b: Mat, threads: Threads) -> Vec<f32> {
    written(a.rows * b.cols, |dst| matmul(dst, b.cols, false, scale, a, b, threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_products() {
        let a: Vec<f32> = (0..12).map(|v| v as f32).collect(); // (3, 4)
        let b: Vec<f32> = (0..8).map(|v| v as f32 - 3.0).collect(); // (4, 2)
        let naive = |i: usize, j: usize, k0: usize, k1: usize| -> f32 {
            (k0..k1).map(|k| a[i * 4 + k] * b[(k - k0) * 2 + j]).sum()
        };
        let mut dst = vec![1f32; 3 * 5];
        matmul(&mut dst, 5, true, 2.0, Mat::new(&a, 3, 4), Mat::new(&b, 4, 2), Threads::One);
        for i in 0..3 {
            for j in 0..5 {
                let want = if j < 2 { 1.0 + 2.0 * naive(i, j, 0, 4) } else { 1.0 };
                assert_eq!(dst[i * 5 + j], want);
            }
        }
        // Columns 1..3 of `a` times the first two rows of `b`; the second operand also as a transpose.
        let bt: Vec<f32> = vec![b[0], b[2], b[1], b[3]];
        let mut dst = vec![0f32; 6];
        matmul(
            &mut dst,
            2,
            false,
            1.0,
            Mat::strided(&a[1..], 3, 2, 4),
            Mat::new(&bt, 2, 2).t(),
            Threads::All,
        );
        for i in 0..3 {
            for j in 0..2 {
                assert_eq!(dst[i * 2 + j], naive(i, j, 1, 3));
            }
        }
    }
}
