//! A matrix as the kernels see it: a part of a slice.

use std::ops::Range;

/// A row-major matrix inside a slice, possibly a column range of a wider one, possibly transposed.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Mat<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A `(rows, cols)` matrix whose rows lie `stride` elements apart.
    pub(in crate::ops) fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(),
            "matrix outside its slice"
        );
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// A dense `(rows, cols)` matrix.
    pub(in crate::ops) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Number of rows.
    pub(in crate::ops) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub(in crate::ops) fn cols(&self) -> usize {
        self.cols
    }

    /// Some elements of a row that lie side by side.
    #[inline(always)]
    pub(in crate::ops) fn row(&self, row: usize, columns: Range<usize>) -> &'a [f32] {
        debug_assert!(row < self.rows && columns.end <= self.cols && self.col_stride == 1);
        &self.data[row * self.row_stride..][columns]
    }

    /// Where an element is, in a slice; also of one beside the matrix, or beyond the slice.
    #[inline(always)]
    pub(in crate::ops) fn place(&self, row: usize, column: usize) -> (&'a [f32], usize) {
        (self.data, row * self.row_stride + column * self.col_stride)
    }

    /// A range of the rows.
    pub(in crate::ops) fn row_range(self, range: Range<usize>) -> Self {
        self.t().columns(range).t()
    }

    /// A range of the columns.
    pub(in crate::ops) fn columns(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.cols, "columns outside the matrix");
        let from = (range.start * self.col_stride).min(self.data.len());
        Self { data: &self.data[from..], cols: range.len(), ..self }
    }

    /// The transposed matrix, same elements.
    pub(in crate::ops) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}
