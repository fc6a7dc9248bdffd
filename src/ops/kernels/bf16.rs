//! Products with a frozen bf16 matrix by the processor's own instruction, VDPBF16PS of AVX512_BF16: x is rounded to bf16 too,
//! pairs of products are added up in f32 (Intel, Architecture Instruction Set Extensions, 319433-040, §2.4).
//!
//! A pair is two numbers at neighbouring depths in 32 bits, and W in panels as in [`super::panels`], with a pair in place of a
//! number: 16 columns to a vector, eight rows by three vectors to a tile.
//!
//! An element is summed up over the depth from its beginning to its end, whatever other rows there are.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::cpu::by_columns;
use super::exp::vectorized;
use super::mat::Mat;
use super::transpose::transpose;

/// Columns of a panel.
const WIDTH: usize = 48;

/// The most pairs that are summed up before the sum is added to that of what came before.
const DEPTH: usize = 512;

/// The most rows of a tile.
const ROWS: usize = 8;

/// Fewest columns and least depth with which a panel pays.
const LEAST: usize = 48;

/// A bf16 matrix with dense rows, as its bytes.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Bf16<'a> {
    numbers: &'a [[u8; 2]],
    rows: usize,
    cols: usize,
}

/// How W is multiplied by.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Bf16Weight<'a> {
    /// x·Wᵀ.
    Transposed(Bf16<'a>),
    /// g·W.
    AsItIs(Bf16<'a>),
}

impl<'a> Bf16<'a> {
    /// Rows of so many numbers.
    pub(in crate::ops) fn new(bytes: &'a [u8], rows: usize, cols: usize) -> Self {
        let (numbers, rest) = bytes.as_chunks::<2>();
        assert!(rest.is_empty() && numbers.len() == rows * cols, "bytes and their numbers");
        Self { numbers, rows, cols }
    }
}

impl Bf16Weight<'_> {
    /// Depth and columns of the product.
    fn dims(&self) -> (usize, usize) {
        match self {
            Self::Transposed(w) => (w.cols, w.rows),
            Self::AsItIs(w) => (w.rows, w.cols),
        }
    }

    /// Whether this is the product for so many rows on this processor.
    pub(in crate::ops) fn serves(&self, rows: usize) -> bool {
        let (depth, columns) = self.dims();
        rows > 1 && depth.is_multiple_of(2) && depth.min(columns) >= LEAST && instructions()
    }

    /// Brings some columns at some depths, in pairs, into the order of the kernel: `(pairs, WIDTH)`. What is beside the
    /// product becomes zero.
    fn pack(&self, panel: &mut [f32], raw: &mut Vec<f32>, columns: Range<usize>, pairs: Range<usize>) {
        if columns.len() < WIDTH {
            panel[..pairs.len() * WIDTH].fill(0.0);
        }
        match self {
            Self::Transposed(w) => {
                raw.clear();
                for row in columns.clone() {
                    let from = &w.numbers[row * w.cols + 2 * pairs.start..row * w.cols + 2 * pairs.end];
                    raw.extend(from.as_chunks::<2>().0.iter().map(|[a, b]| pair(*a, *b)));
                }
                transpose(panel, WIDTH, Mat::new(raw, columns.len(), pairs.len()));
            }
            Self::AsItIs(w) => {
                for (k, to) in pairs.zip(panel.chunks_exact_mut(WIDTH)) {
                    let row = |row| &w.numbers[row * w.cols + columns.start..row * w.cols + columns.end];
                    let (even, odd) = (row(2 * k), row(2 * k + 1));
                    for ((to, even), odd) in to.iter_mut().zip(even).zip(odd) {
                        *to = pair(*even, *odd);
                    }
                }
            }
        }
    }
}

/// Two bf16 numbers in the 32 bits of an f32, which is only moved.
#[inline(always)]
fn pair(first: [u8; 2], second: [u8; 2]) -> f32 {
    f32::from_le_bytes([first[0], first[1], second[0], second[1]])
}

/// Whether the processor has the instruction, and this build uses it.
pub(in crate::ops) fn instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return cfg!(feature = "avx512")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// dst (+)= x·W, W as `w` says, with the rows of `dst` `stride` apart; x has dense rows.
pub(in crate::ops) fn times(
    dst: &mut [f32],
    stride: usize,
    accumulate: bool,
    x: Mat,
    w: Bf16Weight,
    tasks: usize,
) {
    let (depth, columns) = w.dims();
    let x = rounded(x, depth);
    let rows = x.len() / (depth / 2);
    by_columns(dst, stride, (rows, columns), WIDTH, tasks, |first, y| {
        part(&x, depth / 2, w, first, y, accumulate, instructions());
    });
}

/// x in bf16, rounded to the nearest and to even in the middle: `(rows, pairs)`, in the bits of pairs.
fn rounded(x: Mat, depth: usize) -> Vec<u32> {
    let pairs = depth / 2;
    let mut out = vec![0u32; x.rows() * pairs];
    out.par_chunks_mut(pairs).enumerate().for_each(|(r, to)| {
        let from = x.row(r, 0..depth);
        vectorized!({
            for (i, to) in to.iter_mut().enumerate() {
                *to = upper(from[2 * i]) >> 16 | upper(from[2 * i + 1]) & 0xffff_0000;
            }
        });
    });
    out
}

/// The bits of a number after rounding, of which the upper half counts. One that is none stays so.
#[inline(always)]
fn upper(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() { bits | 0x0040_0000 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) }
}

/// Some columns of the product, `y`, from column `first` on.
fn part(
    x: &[u32],
    pairs: usize,
    w: Bf16Weight,
    first: usize,
    mut y: Vec<&mut [f32]>,
    accumulate: bool,
    instructions: bool,
) {
    thread_local!(static BUFFERS: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) });
    let columns = y.first().map_or(0, |row| row.len());
    let at_once = pairs.div_ceil(pairs.div_ceil(DEPTH));
    BUFFERS.with_borrow_mut(|(panel, raw)| {
        panel.resize(at_once * WIDTH, 0.0);
        let mut block = |columns: Range<usize>, depth: Range<usize>| {
            w.pack(panel, raw, first + columns.start..first + columns.end, depth.clone());
            let panel = &panel[..depth.len() * WIDTH];
            let add = accumulate || depth.start > 0;
            for row in (0..y.len()).step_by(ROWS) {
                let rows = &mut y[row..];
                let rows = if rows.len() > ROWS { &mut rows[..ROWS] } else { rows };
                let x = |r: usize| &x[(row + r) * pairs..][depth.clone()];
                tile(panel, rows, columns.clone(), x, add, instructions);
            }
        };
        let all_columns = || (0..columns).step_by(WIDTH).map(|c| c..columns.min(c + WIDTH));
        let all_depths = || (0..pairs).step_by(at_once).map(|d| d..pairs.min(d + at_once));
        match w {
            Bf16Weight::Transposed(_) => {
                all_columns().for_each(|columns| all_depths().for_each(|depth| block(columns.clone(), depth)))
            }
            Bf16Weight::AsItIs(_) => {
                all_depths().for_each(|depth| all_columns().for_each(|columns| block(columns, depth.clone())))
            }
        }
    });
}

/// Up to [`ROWS`] rows of a panel's columns.
fn tile<'a>(
    panel: &[f32],
    y: &mut [&mut [f32]],
    columns: Range<usize>,
    x: impl Fn(usize) -> &'a [u32],
    add: bool,
    instructions: bool,
) {
    let mut row = 0;
    while row < y.len() {
        let (done, sums) = match y.len() - row {
            ROWS.. => (8, sums::<8>(panel, std::array::from_fn(&x), instructions)),
            4.. => (4, sums::<4>(panel, std::array::from_fn(|r| x(row + r)), instructions)),
            _ => (1, sums::<1>(panel, [x(row)], instructions)),
        };
        for (y, sums) in y[row..row + done].iter_mut().zip(&sums) {
            for (y, sum) in y[columns.clone()].iter_mut().zip(sums) {
                *y = if add { *y + sum } else { *sum };
            }
        }
        row += done;
    }
}

/// Σ over the pairs of each of `R` rows of x times the panel.
fn sums<const R: usize>(panel: &[f32], x: [&[u32]; R], instructions: bool) -> [[f32; WIDTH]; ROWS] {
    assert!(panel.len().is_multiple_of(WIDTH) && x.iter().all(|x| x.len() == panel.len() / WIDTH));
    #[cfg(target_arch = "x86_64")]
    if instructions {
        // SAFETY: `instructions` is only ever true where the processor has them, and the lengths are as asserted.
        return unsafe { avx512_bf16::sums(panel, x) };
    }
    let _ = instructions;
    sums_portable(panel, x)
}

fn sums_portable<const R: usize>(panel: &[f32], x: [&[u32]; R]) -> [[f32; WIDTH]; ROWS] {
    let number = |bits: u32| f32::from_bits(bits << 16);
    let mut sums = [[0f32; WIDTH]; ROWS];
    for (k, w) in panel.chunks_exact(WIDTH).enumerate() {
        for (x, sums) in x.iter().zip(&mut sums) {
            let (even, odd) = (number(x[k]), number(x[k] >> 16));
            for (sum, w) in sums.iter_mut().zip(w) {
                let w = w.to_bits();
                *sum += number(w >> 16) * odd;
                *sum += number(w) * even;
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod avx512_bf16 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };
    use std::mem::transmute;

    use super::{ROWS, WIDTH};

    /// # Safety
    /// The processor has AVX-512F and AVX512_BF16, and each x has a pair for every [`WIDTH`] of the panel.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn sums<const R: usize>(panel: &[f32], x: [&[u32]; R]) -> [[f32; WIDTH]; ROWS] {
        // SAFETY: both are 512 bits without a meaning of their own.
        let pairs = |bits: __m512i| unsafe { transmute::<__m512i, __m512bh>(bits) };
        let mut sums = [[_mm512_setzero_ps(); 3]; R];
        for k in 0..panel.len() / WIDTH {
            // SAFETY: the panel has WIDTH numbers for this k, and x a pair.
            unsafe {
                let w = panel.as_ptr().add(k * WIDTH);
                let w: [__m512bh; 3] = [
                    pairs(_mm512_loadu_si512(w.cast())),
                    pairs(_mm512_loadu_si512(w.add(16).cast())),
                    pairs(_mm512_loadu_si512(w.add(32).cast())),
                ];
                for r in 0..R {
                    let x = pairs(_mm512_set1_epi32(*x[r].get_unchecked(k) as i32));
                    sums[r][0] = _mm512_dpbf16_ps(sums[r][0], w[0], x);
                    sums[r][1] = _mm512_dpbf16_ps(sums[r][1], w[1], x);
                    sums[r][2] = _mm512_dpbf16_ps(sums[r][2], w[2], x);
                }
            }
        }
        let mut out = [[0f32; WIDTH]; ROWS];
        for (out, sums) in out.iter_mut().zip(sums) {
            for (out, sums) in out.chunks_exact_mut(16).zip(sums) {
                // SAFETY: sixteen numbers are.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) };
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernels::cpu::view;
    use crate::ops::testing::random;

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| half::bf16::from_f32(*number).to_le_bytes()).collect()
    }

    /// Rows, depth and columns: tiles of every height, panels that are not filled, several depths.
    const SHAPES: [(usize, usize, usize); 5] =
        [(8, 48, 48), (15, 50, 131), (9, 516, 97), (2, 1030, 50), (21, 2100, 60)];

    fn product(x: Mat, w: Bf16Weight, accumulate: bool, tasks: usize, instructions: bool) -> Vec<f32> {
        let (depth, columns) = w.dims();
        let mut y = vec![0.5f32; x.rows() * columns];
        let pairs = rounded(x, depth);
        by_columns(&mut y, columns, (x.rows(), columns), WIDTH, tasks, |first, y| {
            part(&pairs, depth / 2, w, first, y, accumulate, instructions);
        });
        y
    }

    #[test]
    fn products_of_rounded_numbers_are_those_of_f64_on_every_path() -> candle_core::Result<()> {
        for (rows, depth, columns) in SHAPES {
            let (x, w) = (random(&[rows, depth], 1)?, random(&[columns, depth], 2)?);
            let wt = w.t()?.contiguous()?;
            let (x, w, wt) = (view(&x)?, view(&w)?, view(&wt)?);
            let (turned, as_it_is) = (bytes(&w), bytes(&wt));
            let x_mat = Mat::new(&x, rows, depth);
            let round = |v: &f32| half::bf16::from_f32(*v).to_f64();
            for w_as in [
                Bf16Weight::Transposed(Bf16::new(&turned, columns, depth)),
                Bf16Weight::AsItIs(Bf16::new(&as_it_is, depth, columns)),
            ] {
                let portable = product(x_mat, w_as, true, 1, false);
                for i in 0..rows * columns {
                    let (x, w) = (&x[i / columns * depth..][..depth], &w[i % columns * depth..][..depth]);
                    let want = 0.5 + x.iter().zip(w).map(|(x, w)| round(x) * round(w)).sum::<f64>();
                    assert!((portable[i] as f64 - want).abs() < 1e-4, "{} {want}", portable[i]);
                }
                if instructions() {
                    let ours = product(x_mat, w_as, true, 1, true);
                    assert!(ours.iter().zip(&portable).all(|(a, b)| (a - b).abs() < 1e-4));
                    let alone = product(x_mat, w_as, false, 1, true);
                    assert_eq!(alone, product(x_mat, w_as, false, 100, true));
                    for fewer in 1..rows {
                        let part = product(x_mat.row_range(0..fewer), w_as, false, 1, true);
                        assert_eq!(alone[..fewer * columns], part);
                    }
                    assert!(w_as.serves(2) && !w_as.serves(1));
                }
            }
        }
        Ok(())
    }

    #[test]
    fn numbers_are_rounded_as_half_rounds_them() {
        for i in 0..200_000u32 {
            let x = f32::from_bits(i.wrapping_mul(0x9e37_79b9));
            let ours = (upper(x) >> 16) as u16;
            let theirs = half::bf16::from_f32(x);
            assert!(ours == theirs.to_bits() || x.is_nan() && half::bf16::from_bits(ours).is_nan(), "{x}");
        }
    }

    /// GFLOP/s on this thread beside those of f32, at the shapes of a training step.
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        use crate::ops::kernels::matmul::{Threads, matmul};
        for (m, k, n) in [(384, 576, 1536), (384, 1536, 576), (384, 1536, 8960)] {
            let (x, w, mut y) = (vec![0.5f32; m * k], vec![0.25f32; k * n], vec![0f32; m * n]);
            let packed = bytes(&w);
            let x = Mat::new(&x, m, k);
            let mut rates = [0f64; 4];
            let mut measure = |rates: &mut f64, f: &mut dyn FnMut(&mut [f32])| {
                for _ in 0..3 {
                    let started = std::time::Instant::now();
                    f(&mut y);
                    *rates = rates.max((2 * m * k * n) as f64 / started.elapsed().as_secs_f64() / 1e9);
                }
            };
            measure(&mut rates[0], &mut |y| {
                matmul(y, n, false, 1.0, x, Mat::new(&w, n, k).t(), Threads::All)
            });
            measure(&mut rates[1], &mut |y| {
                times(y, n, false, x, Bf16Weight::Transposed(Bf16::new(&packed, n, k)), 1)
            });
            measure(&mut rates[2], &mut |y| matmul(y, n, false, 1.0, x, Mat::new(&w, k, n), Threads::All));
            measure(&mut rates[3], &mut |y| {
                times(y, n, false, x, Bf16Weight::AsItIs(Bf16::new(&packed, k, n)), 1)
            });
            println!(
                "{m} {k} {n}: x·Wᵀ f32 {:.0} bf16 {:.0}; g·W f32 {:.0} bf16 {:.0}",
                rates[0], rates[1], rates[2], rates[3]
            );
        }
    }
}
