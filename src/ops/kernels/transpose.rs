//! Turns a matrix round: to[c][r] = from[r][c].

use super::mat::Mat;

/// Rows and columns that are turned round at a time: what is written stays in the first cache until its lines are full.
const SIDE: usize = 16;

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
    for (rows, cols) in [(0..rows, whole_cols..cols), (whole_rows..rows, 0..whole_cols)] {
        for first in cols.clone().step_by(SIDE) {
            let cols = first..cols.end.min(first + SIDE);
            for r in rows.clone() {
                let from = from.row(r, cols.clone());
                to[first * stride + r..]
                    .iter_mut()
                    .step_by(stride)
                    .zip(from)
                    .for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Turns round all whole squares, if this processor can hold one in its registers; whether it could.
fn squares(to: &mut [f32], stride: usize, from: Mat) -> bool {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        simd.vectorize(avx512::Squares { simd, to, stride, from });
        return true;
    }
    let _ = (to, stride, from);
    false
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{__m512, __m512d};

    use pulp::x86::V4;
    use pulp::{NullaryFnOnce, Simd, cast, f32x16};

    use super::{Mat, SIDE};

    pub(in crate::ops) struct Squares<'a> {
        pub simd: V4,
        pub to: &'a mut [f32],
        pub stride: usize,
        pub from: Mat<'a>,
    }

    impl NullaryFnOnce for Squares<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self { simd, to, stride, from } = self;
            for r in (0..from.rows() / SIDE * SIDE).step_by(SIDE) {
                for c in (0..from.cols() / SIDE * SIDE).step_by(SIDE) {
                    let mut square = [simd.splat_f32x16(0.0); SIDE];
                    for (i, row) in square.iter_mut().enumerate() {
                        *row = V4::as_simd_f32s(from.row(r + i, c..c + SIDE)).0[0];
                    }
                    for (i, column) in turned(simd, square).into_iter().enumerate() {
                        let to = &mut to[(c + i) * stride + r..][..SIDE];
                        V4::as_mut_simd_f32s(to).0[0] = column;
                    }
                }
            }
        }
    }

    /// A square in four steps: pairs of rows, pairs of those, and quarters of the vectors twice.
    #[inline(always)]
    fn turned(simd: V4, rows: [f32x16; SIDE]) -> [f32x16; SIDE] {
        let f = simd.avx512f;
        let mut a: [__m512; SIDE] = rows.map(cast);
        let mut b = a;
        for i in 0..8 {
            b[2 * i] = f._mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = f._mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
        }
        for i in 0..4 {
            let x: [__m512d; 4] =
                [cast(b[4 * i]), cast(b[4 * i + 1]), cast(b[4 * i + 2]), cast(b[4 * i + 3])];
            a[4 * i] = cast(f._mm512_unpacklo_pd(x[0], x[2]));
            a[4 * i + 1] = cast(f._mm512_unpackhi_pd(x[0], x[2]));
            a[4 * i + 2] = cast(f._mm512_unpacklo_pd(x[1], x[3]));
            a[4 * i + 3] = cast(f._mm512_unpackhi_pd(x[1], x[3]));
        }
        const EVEN: i32 = 0b10_00_10_00; // quarters 0 and 2 of both
        const ODD: i32 = 0b11_01_11_01;
        for i in 0..4 {
            for half in [0, 8] {
                b[half + i] = f._mm512_shuffle_f32x4::<EVEN>(a[half + i], a[half + 4 + i]);
                b[half + 4 + i] = f._mm512_shuffle_f32x4::<ODD>(a[half + i], a[half + 4 + i]);
            }
        }
        for i in 0..8 {
            a[i] = f._mm512_shuffle_f32x4::<EVEN>(b[i], b[8 + i]);
            a[8 + i] = f._mm512_shuffle_f32x4::<ODD>(b[i], b[8 + i]);
        }
        a.map(cast)
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
            let mut to = vec![-1f32; cols * stride];
            transpose(&mut to, stride, from);
            for (at, to) in to.iter().enumerate() {
                let (c, r) = (at / stride, at % stride);
                assert_eq!(
                    *to,
                    if r < rows { data[3 + r * wide + c] } else { -1.0 },
                    "{rows} {cols} {r} {c}"
                );
            }
        }
    }
}
