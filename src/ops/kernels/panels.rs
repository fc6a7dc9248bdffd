//! x·Wᵀ and g·W for many rows: W in panels, each brought into the order of the kernel while the next one comes from memory.
//!
//! A panel is some columns of the product, as many as two or three vectors hold, at a depth of up to a thousand; it fits into
//! the second cache, where tiles of six or eight rows by one panel read it. gemm does the same, but waits for W while it packs
//! (W never is in a cache: a step goes through all weights before it comes back to one), and with AVX-512 turns W round element
//! by element, which for x·Wᵀ and rows of W that lie a multiple of 2 KiB apart costs a quarter of the time. docs/log.md
//! (2026-12-01) has the figures.
//!
//! An element is summed up over the depth from its beginning to its end: it depends on its own row and column, not on how many others
//! there are or on threads.

use std::cell::Cell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::cpu::{LINE, by_columns, prefetch};
use super::mat::Mat;
use super::transpose::transpose;

/// The most that is summed up before the sum is added to that of what came before.
const DEPTH: usize = 1024;

/// The most lanes of a vector.
const MOST_LANES: usize = 16;

/// Fewest columns and least depth with which a panel pays.
const LEAST: usize = 48;

/// How W is multiplied by.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Weight<'a> {
    /// x·Wᵀ: the columns of the product are rows of W.
    Transposed(Mat<'a>),
    /// g·W: they are columns of W.
    AsItIs(Mat<'a>),
}

impl<'a> Weight<'a> {
    /// Depth and columns of the product.
    fn dims(&self) -> (usize, usize) {
        match self {
            Self::Transposed(w) => (w.cols(), w.rows()),
            Self::AsItIs(w) => (w.rows(), w.cols()),
        }
    }

    /// Whether this is the product for so many rows.
    pub(in crate::ops) fn serves(&self, rows: usize) -> bool {
        let (depth, columns) = self.dims();
        rows > 1 && depth.min(columns) >= LEAST
    }

    /// The part of W that makes some columns of the product, at some depth.
    fn part(&self, block: &Block) -> Mat<'a> {
        match self {
            Self::Transposed(w) => w.row_range(block.columns.clone()).columns(block.depth.clone()),
            Self::AsItIs(w) => w.row_range(block.depth.clone()).columns(block.columns.clone()),
        }
    }
}

/// A part of W, by what it makes.
struct Block {
    columns: Range<usize>,
    depth: Range<usize>,
}

/// dst (+)= scale · x·W, W as `w` says, with the rows of `dst` `stride` apart; x has dense rows.
pub(in crate::ops) fn times(
    dst: &mut [f32],
    stride: usize,
    accumulate: bool,
    scale: f32,
    x: Mat,
    w: Weight,
    tasks: usize,
) {
    let (_, out) = w.dims();
    by_columns(dst, stride, (x.rows(), out), width(), tasks, |first, y| {
        Arch::new().dispatch(Part { x, w, first, y, accumulate, scale });
    });
}

/// Columns of a panel on this processor.
fn width() -> usize {
    struct Width;

    impl WithSimd for Width {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            match S::REGISTER_COUNT {
                32.. => 3 * S::F32_LANES,
                _ => 2 * S::F32_LANES,
            }
        }
    }

    Arch::new().dispatch(Width)
}

/// Some columns of the product.
struct Part<'a> {
    x: Mat<'a>,
    w: Weight<'a>,
    /// The first of the columns.
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
        // As many sums as fit into the registers beside the factors. With one more, the innermost loop writes it to memory and
        // reads it back each time, which takes twice as long.
        match S::REGISTER_COUNT {
            32.. => self.run::<S, 3, 8>(simd),
            _ => self.run::<S, 2, 6>(simd),
        }
    }
}

impl Part<'_> {
    /// With panels of `V` vectors and tiles of `R` rows.
    #[inline(always)]
    fn run<S: Simd, const V: usize, const R: usize>(mut self, simd: S) {
        let width = V * S::F32_LANES;
        let blocks = self.blocks(width);
        let deepest = blocks.iter().map(|block| block.depth.len()).max().unwrap_or(0);
        thread_local!(static PANEL: Cell<Vec<f32>> = const { Cell::new(Vec::new()) }); // kept for the next time
        let mut panel = PANEL.take();
        if panel.len() < deepest * width {
            panel.resize(deepest * width, 0.0);
        }
        for (i, block) in blocks.iter().enumerate() {
            let part = self.w.part(block);
            match self.w {
                Weight::Transposed(_) => transpose(&mut panel, width, part),
                Weight::AsItIs(_) => copy::<S>(&mut panel, width, part),
            }
            let next = Lines::of(blocks.get(i + 1).map(|block| self.w.part(block)));
            self.tiles::<S, V, R>(simd, &panel[..block.depth.len() * width], block, next);
        }
        PANEL.set(panel);
    }

    /// The blocks of W, in the order in which they lie in memory: x·Wᵀ goes through some rows of W in their whole length
    /// before it takes the next, g·W makes all columns of what some rows of W add.
    fn blocks(&self, width: usize) -> Vec<Block> {
        let (depth, _) = self.w.dims();
        let columns = self.y.first().map_or(0, |row| row.len());
        let at_once = depth.div_ceil(depth.div_ceil(DEPTH)).next_multiple_of(LINE); // of even lengths
        let columns =
            (0..columns).step_by(width).map(|c| self.first + c..self.first + columns.min(c + width));
        let depths = (0..depth).step_by(at_once).map(|d| d..depth.min(d + at_once));
        match self.w {
            Weight::Transposed(_) => columns
                .flat_map(|columns| {
                    depths.clone().map(move |depth| Block { columns: columns.clone(), depth })
                })
                .collect(),
            Weight::AsItIs(_) => depths
                .flat_map(|depth| columns.clone().map(move |columns| Block { columns, depth: depth.clone() }))
                .collect(),
        }
    }

    /// All rows of the block's columns, while `next` is asked for.
    #[inline(always)]
    fn tiles<S: Simd, const V: usize, const R: usize>(
        &mut self,
        simd: S,
        panel: &[f32],
        block: &Block,
        mut next: Lines,
    ) {
        let rows = self.x.rows();
        next.every(rows.div_ceil(R) * block.depth.len());
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                left if left >= R => self.tile::<S, V, R>(simd, panel, block, row, &mut next),
                4.. => self.tile::<S, V, 4>(simd, panel, block, row, &mut next),
                2.. => self.tile::<S, V, 2>(simd, panel, block, row, &mut next),
                _ => self.tile::<S, V, 1>(simd, panel, block, row, &mut next),
            };
        }
    }

    /// `R` rows from `row`; returns how many.
    #[inline(always)]
    fn tile<S: Simd, const V: usize, const R: usize>(
        &mut self,
        simd: S,
        panel: &[f32],
        block: &Block,
        row: usize,
        next: &mut Lines,
    ) -> usize {
        let mut x: [&[f32]; R] = [&[]; R];
        for (r, x) in x.iter_mut().enumerate() {
            *x = self.x.row(row + r, block.depth.clone());
        }
        let sums = sums::<S, V, R>(simd, panel, x, next);
        let add = self.accumulate || block.depth.start > 0;
        let scale = simd.splat_f32s(self.scale);
        let columns = block.columns.start - self.first..block.columns.end - self.first;
        for (y, sums) in self.y[row..row + R].iter_mut().zip(&sums) {
            let (whole, rest) = S::as_mut_simd_f32s(&mut y[columns.clone()]);
            let (sums, _) = S::as_simd_f32s(sums.as_flattened());
            for (y, sum) in whole.iter_mut().zip(sums) {
                *y = match add {
                    true => simd.mul_add_e_f32s(*sum, scale, *y),
                    false => simd.mul_f32s(*sum, scale),
                };
            }
            if !rest.is_empty() {
                let sum = match add {
                    true => simd.mul_add_e_f32s(sums[whole.len()], scale, simd.partial_load_f32s(rest)),
                    false => simd.mul_f32s(sums[whole.len()], scale),
                };
                simd.partial_store_f32s(rest, sum);
            }
        }
        R
    }
}

/// Σ over the depth of each row of x times the panel. Loops in place of iterators and closures, and slices of one length, as
/// in [`crate::ops::kernels::few_rows`]; the sums are only ever indexed by what the compiler knows, so that they stay in registers.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn sums<S: Simd, const V: usize, const R: usize>(
    simd: S,
    panel: &[f32],
    mut x: [&[f32]; R],
    next: &mut Lines,
) -> [[[f32; MOST_LANES]; V]; R] {
    let (panel, _) = S::as_simd_f32s(panel).0.as_chunks::<V>(); // [depth][vector]
    let depth = panel.len();
    for r in 0..R {
        x[r] = &x[r][..depth];
    }
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    let mut lines = *next;
    for k in 0..depth {
        lines.turn();
        let w = panel[k];
        for r in 0..R {
            let x = simd.splat_f32s(x[r][k]);
            for v in 0..V {
                sums[r][v] = simd.mul_add_e_f32s(w[v], x, sums[r][v]);
            }
        }
    }
    *next = lines;
    let mut out = [[[0f32; MOST_LANES]; V]; R]; // of each row, its first V · lanes elements
    for r in 0..R {
        let (out, _) = S::as_mut_simd_f32s(out[r].as_flattened_mut());
        out[..V].copy_from_slice(&sums[r]);
    }
    out
}

/// The rows of W one below the other in the panel, as wide as it is.
#[inline(always)]
fn copy<S: Simd>(panel: &mut [f32], width: usize, part: Mat) {
    let columns = part.cols();
    for (r, to) in panel.chunks_exact_mut(width).take(part.rows()).enumerate() {
        let from = part.row(r, 0..columns);
        if columns == to.len() {
            let ((to, _), (from, _)) = (S::as_mut_simd_f32s(to), S::as_simd_f32s(from));
            to.copy_from_slice(from);
        } else {
            to[..columns].copy_from_slice(from); // what is beside the product is not looked at
        }
    }
}

/// The lines of the cache that hold a part of W, asked for one after the other.
#[derive(Clone, Copy)]
struct Lines<'a> {
    part: Option<Mat<'a>>,
    row: usize,
    column: usize,
    /// Turns from one line to the next, and those that are left.
    every: usize,
    left: usize,
}

impl<'a> Lines<'a> {
    fn of(part: Option<Mat<'a>>) -> Self {
        Self { part, row: 0, column: 0, every: 1, left: 1 }
    }

    /// Spreads the lines over so many turns.
    fn every(&mut self, turns: usize) {
        let lines = self.part.map_or(1, |part| part.rows() * (part.cols() + LINE - 1).div_ceil(LINE));
        self.every = (turns / lines).max(1);
    }

    /// Asks for the next line if it is its turn.
    #[inline(always)]
    fn turn(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.left = self.every;
            self.ask();
        }
    }

    #[inline(always)]
    fn ask(&mut self) {
        let Some(part) = &self.part else { return };
        let (data, at) = part.place(self.row, self.column);
        prefetch::<2>(data, at);
        self.column += LINE;
        if self.column >= part.cols() + LINE - 1 {
            self.column = 0;
            self.row += 1;
            if self.row == part.rows() {
                self.part = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernels::cpu::view;
    use crate::ops::testing::random;

    /// Rows, depth and columns: tiles of every height, panels that are not filled, several depths.
    const SHAPES: [(usize, usize, usize); 5] =
        [(8, 48, 48), (15, 50, 131), (9, 517, 97), (2, 1030, 50), (129, 2100, 60)];

    /// Calls `f` with x, W and what x times it should be, W as x·Wᵀ and as g·W have it.
    fn products(mut f: impl FnMut(Mat, Weight, &[f64])) -> candle_core::Result<()> {
        for (rows, depth, columns) in SHAPES {
            let (x, w) = (random(&[rows, depth], 1)?, random(&[columns, depth], 2)?);
            let wt = w.t()?.contiguous()?;
            let (x, w, wt) = (view(&x)?, view(&w)?, view(&wt)?);
            let want: Vec<f64> = (0..rows * columns)
                .map(|i| {
                    let (x, w) = (&x[i / columns * depth..][..depth], &w[i % columns * depth..][..depth]);
                    x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum()
                })
                .collect();
            let x = Mat::new(&x, rows, depth);
            f(x, Weight::Transposed(Mat::new(&w, columns, depth)), &want);
            f(x, Weight::AsItIs(Mat::new(&wt, depth, columns)), &want);
        }
        Ok(())
    }

    fn product(x: Mat, w: Weight, tasks: usize) -> Vec<f32> {
        let columns = w.dims().1;
        let mut y = vec![0f32; x.rows() * columns];
        times(&mut y, columns, false, 1.0, x, w, tasks);
        y
    }

    #[test]
    fn products_are_those_of_f64() -> candle_core::Result<()> {
        products(|x, w, want| {
            let columns = w.dims().1;
            for (accumulate, scale, stride) in [(false, 1.0, columns), (true, -1.75, columns + 3)] {
                let mut y = vec![0.5f32; x.rows() * stride];
                times(&mut y, stride, accumulate, scale, x, w, 1);
                for (row, want) in y.chunks(stride).zip(want.chunks(columns)) {
                    for (y, want) in row.iter().zip(want) {
                        let want = scale as f64 * want + if accumulate { 0.5 } else { 0.0 };
                        assert!((*y as f64 - want).abs() < 1e-3, "{y} {want}");
                    }
                    assert!(row[columns..].iter().all(|beside| *beside == 0.5));
                }
            }
        })
    }

    #[test]
    fn neither_threads_nor_other_rows_change_a_byte() -> candle_core::Result<()> {
        products(|x, w, _| {
            let (alone, columns) = (product(x, w, 1), w.dims().1);
            assert_eq!(alone, product(x, w, 2));
            assert_eq!(alone, product(x, w, 100));
            for rows in 1..x.rows() {
                assert_eq!(alone[..rows * columns], product(x.row_range(0..rows), w, 1));
            }
        })
    }

    /// The narrower vectors of other processors, as far as this one has them.
    #[test]
    fn other_vectors_give_the_same_product() -> candle_core::Result<()> {
        products(|x, w, want| {
            let columns = w.dims().1;
            let check = |run: &dyn Fn(Part)| {
                let mut y = vec![0f32; x.rows() * columns];
                let rows = y.chunks_mut(columns).collect();
                run(Part { x, w, first: 0, y: rows, accumulate: false, scale: 1.0 });
                assert!(y.iter().zip(want).all(|(y, want)| (*y as f64 - want).abs() < 1e-3));
            };
            check(&|part| Simd::vectorize(pulp::Scalar::new(), part));
            #[cfg(target_arch = "x86_64")]
            if let Some(simd) = pulp::x86::V3::try_new() {
                check(&|part| Simd::vectorize(simd, part));
            }
        })
    }

    #[test]
    fn serves_where_it_pays() -> candle_core::Result<()> {
        let w = random(&[64, 64], 1)?;
        let w = view(&w)?;
        let w = Mat::new(&w, 64, 64);
        assert!(Weight::Transposed(w).serves(1000) && !Weight::Transposed(w).serves(1));
        assert!(Weight::AsItIs(w).serves(1000) && !Weight::AsItIs(w).serves(1));
        assert!(!Weight::AsItIs(w.columns(0..LEAST - 1)).serves(8));
        assert!(!Weight::Transposed(w.columns(0..LEAST - 1)).serves(1000));
        Ok(())
    }
}
