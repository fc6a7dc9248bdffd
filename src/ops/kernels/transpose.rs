//! Turns a matrix round: to[c][r] = from[r][c].

use std::ops::Range;

use super::mat::Mat;

/// Rows and columns that are turned round at a time: what is written stays in the first cache until its lines are full.
const SIDE: usize = 8;

/// Writes `from` `(rows, cols)`, whose rows are dense, as `(cols, rows)`, with the rows of `to` `stride` apart.
pub(in crate::ops) fn transpose(to: &mut [f32], stride: usize, from: Mat) {
    let (rows, cols) = (from.rows(), from.cols());
    assert!(
        rows <= stride && (rows == 0 || cols == 0 || (cols - 1) * stride + rows <= to.len()),
        "transposed outside its slice"
    );
    let (whole_rows, whole_cols) = match squares(to, stride, from) {
        true => (rows / SIDE * SIDE, cols / SIDE * SIDE),
        false => (0, 0),
    };
    // What is right of the squares, and below them in their columns.
    strips(to, stride, from, 0..rows, whole_cols..cols);
    strips(to, stride, from, whole_rows..rows, 0..whole_cols);
}

/// Turns round some rows and columns, on any processor.
fn strips(to: &mut [f32], stride: usize, from: Mat, rows: Range<usize>, cols: Range<usize>) {
    for first in cols.clone().step_by(SIDE) {
        let cols = first..cols.end.min(first + SIDE);
        for r in rows.clone() {
            let from = from.row(r, cols.clone());
            to[first * stride + r..].iter_mut().step_by(stride).zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Turns round all whole squares, if this processor can hold one in its registers; whether it could.
fn squares(to: &mut [f32], stride: usize, from: Mat) -> bool {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        simd.vectorize(avx2::Squares { simd, to, stride, from });
        return true;
    }
    let _ = (to, stride, from);
    false
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::__m256;

    use pulp::x86::V3;
    use pulp::{NullaryFnOnce, cast, f32x8};

    use super::{Mat, SIDE};

    pub(in crate::ops) struct Squares<'a> {
        pub simd: V3,
        pub to: &'a mut [f32],
        pub stride: usize,
        pub from: Mat<'a>,
    }

    impl NullaryFnOnce for Squares<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self { simd, to, stride, from } = self;
            let number = from.cols() / SIDE;
            for r in (0..from.rows() / SIDE * SIDE).step_by(SIDE) {
                let mut rows: [&[[f32; SIDE]]; SIDE] = [&[]; SIDE]; // of one length, so that no index is checked below
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = &from.row(r + i, 0..number * SIDE).as_chunks().0[..number];
                }
                for k in 0..number {
                    let mut square = [simd.splat_f32x8(0.0); SIDE];
                    for (i, row) in square.iter_mut().enumerate() {
                        *row = cast(rows[i][k]);
                    }
                    let to = &mut to[k * SIDE * stride + r..][..(SIDE - 1) * stride + SIDE];
                    for (to, column) in to.chunks_mut(stride).zip(turned(simd, square)) {
                        to[..SIDE].copy_from_slice(&cast::<f32x8, [f32; SIDE]>(column));
                    }
                }
            }
        }
    }

    /// A square in three steps: pairs of rows, pairs of those, and halves of the vectors.
    #[inline(always)]
    fn turned(simd: V3, rows: [f32x8; SIDE]) -> [f32x8; SIDE] {
        let f = simd.avx;
        let mut a: [__m256; SIDE] = rows.map(cast);
        let mut b = a;
        for i in 0..4 {
            b[2 * i] = f._mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = f._mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
        }
        const FIRST: i32 = 0b01_00_01_00; // the lower two of both
        const LAST: i32 = 0b11_10_11_10;
        for i in 0..2 {
            for half in 0..2 {
                let (x, y) = (b[4 * i + half], b[4 * i + 2 + half]);
                a[4 * i + 2 * half] = f._mm256_shuffle_ps::<FIRST>(x, y);
                a[4 * i + 2 * half + 1] = f._mm256_shuffle_ps::<LAST>(x, y);
            }
        }
        for i in 0..4 {
            b[i] = f._mm256_permute2f128_ps::<0x20>(a[i], a[4 + i]);
            b[4 + i] = f._mm256_permute2f128_ps::<0x31>(a[i], a[4 + i]);
        }
        b.map(cast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_changes_its_place_and_no_other_is_touched() {
        let (data, wide) = ((0..70 * 90).map(|v| v as f32).collect::<Vec<_>>(), 90);
        for (rows, cols, stride) in
            [(1, 1, 1), (16, 16, 16), (48, 64, 48), (47, 33, 50), (5, 80, 5), (70, 15, 71)]
        {
            let from = Mat::strided(&data[3..], rows, cols, wide);
            // As this processor does it, and as one does that has no squares.
            let portable = |to: &mut [f32]| strips(to, stride, from, 0..rows, 0..cols);
            let native = |to: &mut [f32]| transpose(to, stride, from);
            for run in [&native as &dyn Fn(&mut [f32]), &portable] {
                let mut to = vec![-1f32; cols * stride];
                run(&mut to);
                for (at, to) in to.iter().enumerate() {
                    let (c, r) = (at / stride, at % stride);
                    let want = if r < rows { data[3 + r * wide + c] } else { -1.0 };
                    assert_eq!(*to, want, "{rows} {cols} {r} {c}");
                }
            }
        }
    }
}
