//! A weight matrix and its two products, x·Wᵀ and g·W, whichever way its numbers are held.
//!
//! A frozen matrix can stay as its file has it, quantised, or be held as bf16. How a product reads it depends on the rows of x:
//!
//! - one row, as in a step of generation: the integers of the file are multiplied as they are (`blocks`); numbers of another
//!   type become f32 as those of few rows do;
//! - few rows: each thread turns a tile of rows of W into f32, which stays in its cache, and multiplies it;
//! - many rows, as in training: one block of rows at a time becomes f32 and is multiplied.
//!
//! The numbers are those of the dense matrix; sums may be added up in another order. Only where a processor multiplies bf16
//! itself, several rows x are rounded to bf16 too, if the matrix is (`bf16`).
//!
//! Shapes: W `(out, in)`, x `(tokens, in)`, g `(tokens, out)`.

use std::cell::Cell;
use std::ops::{Deref, Range};
use std::sync::Arc;

use candle_core::{DType, Device, Result, Storage, Tensor, TensorId, bail};

use super::encoding::Encoding;
use super::kernels::bf16;
use super::kernels::blocks;
use super::kernels::cpu::{CpuView, by_columns, tensor, view};
use super::kernels::few_rows;
use super::kernels::mat::Mat;
use super::kernels::matmul::{Threads, matmul};
use super::kernels::stream;
use super::tape::Tape;

/// Bytes that the f32 numbers of one block of rows may take.
const BLOCK_BYTES: usize = 4 << 20;

/// Bytes that the f32 numbers of a tile may take, which is to stay in the second cache.
const TILE_BYTES: usize = 256 << 10;

/// The f32 numbers of a block or tile: the memory that a thread keeps for the next time.
fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local!(static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) });
    let mut scratch = SCRATCH.take(); // taken, not borrowed: `f` may come here again
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = f(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}

/// A weight `(out, in)`, frozen or trained.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// f32 on any device; the only kind that learns.
    Dense(Tensor),
    /// As its file has it, or as bf16, in the CPU's memory.
    Packed(Arc<Packed>),
}

/// The rows of a frozen matrix as a file has them.
#[derive(Debug)]
pub struct Packed {
    bytes: Vec<u8>,
    encoding: Encoding,
    /// Rows and columns.
    dims: [usize; 2],
    row_bytes: usize,
}

impl Packed {
    /// Rows that fill whole blocks each.
    ///
    /// # Errors
    /// If the bytes are not as many, or cannot be read.
    pub fn new(bytes: Vec<u8>, encoding: Encoding, (rows, cols): (usize, usize)) -> Result<Self> {
        let Some(row_bytes) = encoding.byte_len(cols) else {
            bail!("a row of {cols} numbers of type {encoding:?} does not fill whole blocks")
        };
        let row_bytes = row_bytes as usize;
        if rows.checked_mul(row_bytes) != Some(bytes.len()) {
            bail!("{} bytes do not hold {rows} rows of {row_bytes}", bytes.len())
        }
        let packed = Self { bytes, encoding, dims: [rows, cols], row_bytes };
        if rows > 0 {
            let first = &packed.bytes[..row_bytes];
            encoding.decode(first, &mut vec![0f32; cols])?; // what reads one row reads them all
        }
        Ok(packed)
    }

    /// The f32 numbers of some rows.
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        let bytes = &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes];
        self.encoding.decode(bytes, values).expect("`new` has read a row of this matrix");
    }

    /// [`Self::decode`] on this thread.
    fn decode_here(&self, rows: Range<usize>, values: &mut [f32]) {
        let bytes = &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes];
        self.encoding.decode_here(bytes, values).expect("`new` has read a row of this matrix");
    }

    fn dense(&self) -> Result<Tensor> {
        let [rows, cols] = self.dims;
        let mut values = vec![0f32; rows * cols];
        self.decode(0..rows, &mut values);
        tensor(values, (rows, cols))
    }

    /// Calls `f` with each block of rows as f32, in order.
    fn for_blocks(&self, mut f: impl FnMut(Range<usize>, &[f32])) {
        let [rows, cols] = self.dims;
        let at_once = (BLOCK_BYTES / (4 * cols).max(1)).clamp(1, rows.max(1));
        with_scratch(at_once * cols, |scratch| {
            for start in (0..rows).step_by(at_once) {
                let block = start..rows.min(start + at_once);
                let values = &mut scratch[..block.len() * cols];
                self.decode(block.clone(), values);
                f(block, values);
            }
        });
    }

    /// dst (+)= x·Wᵀ for few rows x, a tile of W at a time on every thread.
    fn times_few_rows(&self, dst: &mut [f32], accumulate: bool, x: Mat) {
        let [rows, cols] = self.dims;
        let at_once = (TILE_BYTES / (4 * cols).max(1) / TILE_ROWS * TILE_ROWS).max(TILE_ROWS);
        let ready = few_rows::Ready::new(x);
        by_columns(dst, rows, (x.rows(), rows), TILE_ROWS, self.tasks(x.rows()), |first, mut y| {
            let columns = y.first().map_or(0, |row| row.len());
            with_scratch(at_once.min(columns) * cols, |scratch| {
                for start in (0..columns).step_by(at_once) {
                    let tile = start..columns.min(start + at_once);
                    let values = &mut scratch[..tile.len() * cols];
                    self.decode_here(first + tile.start..first + tile.end, values);
                    let part = y.iter_mut().map(|row| &mut row[tile.clone()]).collect();
                    ready.times_transposed(part, accumulate, Mat::new(values, tile.len(), cols));
                }
            });
        });
    }

    /// y (+)= W·x for one row x: in the integers of the file, or where it has none a tile of f32 at a time.
    fn times_one_row(&self, y: &mut [f32], accumulate: bool, x: &[f32]) {
        let [rows, cols] = self.dims;
        let integers = match self.encoding {
            Encoding::Blocks(dtype) => Some((dtype, blocks::RowOfX::new(x))),
            Encoding::Plain(_) => None,
        };
        stream::in_parts(&mut y[..rows], rows * cols, |first, y| match &integers {
            Some((dtype, x)) => {
                let bytes = &self.bytes[first * self.row_bytes..(first + y.len()) * self.row_bytes];
                if !accumulate {
                    return blocks::times(*dtype, bytes, x, y);
                }
                let mut products = vec![0f32; y.len()];
                blocks::times(*dtype, bytes, x, &mut products);
                y.iter_mut().zip(products).for_each(|(y, product)| *y += product);
            }
            None if self.encoding == Encoding::Plain(DType::BF16) => {
                let (numbers, _) = self.bytes.as_chunks::<2>();
                stream::rows_of_bf16(y, accumulate, x, &numbers[first * cols..(first + y.len()) * cols]);
            }
            None => {
                let at_once = (TILE_BYTES / (4 * cols).max(1)).clamp(1, y.len());
                with_scratch(at_once * cols, |scratch| {
                    for (i, y) in y.chunks_mut(at_once).enumerate() {
                        let from = first + i * at_once;
                        let values = &mut scratch[..y.len() * cols];
                        self.decode_here(from..from + y.len(), values);
                        stream::rows(y, accumulate, 1.0, x, Mat::new(values, y.len(), cols));
                    }
                });
            }
        });
    }

    /// dst (+)= x·Wᵀ, or x·W, by the processor's own bf16 products, if it has them and the matrix is bf16; whether so.
    fn times_bf16(&self, dst: &mut [f32], accumulate: bool, x: Mat, transposed: bool) -> bool {
        if self.encoding != Encoding::Plain(DType::BF16) {
            return false;
        }
        let [rows, cols] = self.dims;
        let w = bf16::Bf16::new(&self.bytes, rows, cols);
        let (w, columns) = match transposed {
            true => (bf16::Bf16Weight::Transposed(w), rows),
            false => (bf16::Bf16Weight::AsItIs(w), cols),
        };
        let serves = w.serves(x.rows());
        if serves {
            bf16::times(dst, columns, accumulate, x, w, self.tasks(x.rows()));
        }
        serves
    }

    /// Parts in which a product with so many rows is divided.
    fn tasks(&self, tokens: usize) -> usize {
        match rayon::current_num_threads() {
            threads if threads > 1 && tokens * self.dims[0] * self.dims[1] >= stream::DIVIDED => 4 * threads,
            _ => 1,
        }
    }
}

/// Rows of W that a tile is a multiple of: those that the kernel takes at a time.
const TILE_ROWS: usize = 8;

impl From<Tensor> for Matrix {
    fn from(tensor: Tensor) -> Self {
        Self::Dense(tensor)
    }
}

impl Matrix {
    /// Rows and columns.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Dense(tensor) => tensor.dims(),
            Self::Packed(packed) => &packed.dims,
        }
    }

    /// Rows and columns.
    ///
    /// # Errors
    /// If a dense tensor is no matrix.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self.dims() {
            [rows, cols] => Ok((*rows, *cols)),
            dims => bail!("a weight of shape {dims:?} is no matrix"),
        }
    }

    /// Where the numbers are.
    pub fn device(&self) -> &Device {
        match self {
            Self::Dense(tensor) => tensor.device(),
            Self::Packed(_) => &Device::Cpu,
        }
    }

    /// The matrix as f32: the tensor itself, or all rows of a packed one.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn dense(&self) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => Ok(tensor.clone()),
            Self::Packed(packed) => packed.dense(),
        }
    }

    /// Rows by their numbers, in that order, `(ids, in)`.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => {
                tensor.detach().index_select(&Tensor::from_slice(ids, ids.len(), tensor.device())?, 0)
            }
            Self::Packed(packed) => {
                let [rows, cols] = packed.dims;
                let mut values = vec![0f32; ids.len() * cols];
                for (&id, values) in ids.iter().zip(values.chunks_exact_mut(cols.max(1))) {
                    let id = id as usize;
                    if id >= rows {
                        bail!("row {id} of a matrix of {rows}")
                    }
                    packed.decode_here(id..id + 1, values);
                }
                tensor(values, (ids.len(), cols))
            }
        }
    }

    /// What `f` makes of every row, one number a row, `(out)`. `f` gets blocks of rows `(rows, in)`.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn per_row(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => f(tensor),
            Self::Packed(packed) => {
                let mut parts = Vec::new();
                packed.for_blocks(|rows, values| {
                    parts.push(
                        tensor(values.to_vec(), (rows.len(), packed.dims[1])).and_then(|block| f(&block)),
                    );
                });
                Tensor::cat(&parts.into_iter().collect::<Result<Vec<_>>>()?, 0)
            }
        }
    }

    /// Under which id the matrix learns, if a gradient is wanted for it.
    pub(super) fn tracked(&self, tape: Tape) -> Option<TensorId> {
        match self {
            Self::Dense(tensor) => tape.tracks(tensor).then(|| tensor.id()),
            Self::Packed(_) => None,
        }
    }

    /// Access for products on the CPU.
    pub(super) fn view(&self) -> Result<MatrixView<'_, impl Deref<Target = Storage>>> {
        let (rows, cols) = self.dims2()?;
        Ok(match self {
            Self::Dense(tensor) => MatrixView::Dense(view(tensor)?, rows, cols),
            Self::Packed(packed) => MatrixView::Packed(packed),
        })
    }
}

/// A matrix on the CPU for as long as the view lives.
pub(super) enum MatrixView<'a, G> {
    /// Elements, rows, columns.
    Dense(CpuView<G>, usize, usize),
    Packed(&'a Packed),
}

impl<G: Deref<Target = Storage>> MatrixView<'_, G> {
    /// dst (+)= x·Wᵀ, with `dst` dense `(tokens, out)`.
    pub(super) fn times_transposed(&self, dst: &mut [f32], accumulate: bool, x: Mat) {
        if let Self::Packed(packed) = self {
            if x.rows() == 1 {
                return packed.times_one_row(dst, accumulate, x.row(0, 0..x.cols()));
            }
            if packed.times_bf16(dst, accumulate, x, true) {
                return;
            }
            if few_rows::serves(&x) {
                return packed.times_few_rows(dst, accumulate, x);
            }
        }
        self.for_blocks(|rows, out, w| {
            let dst = dst.get_mut(rows.start..).unwrap_or_default();
            matmul(dst, out, accumulate, 1.0, x, w.t(), Threads::All)
        });
    }

    /// dst (+)= g·W, with `dst` dense `(tokens, in)`.
    pub(super) fn times(&self, dst: &mut [f32], accumulate: bool, g: Mat) {
        if let Self::Packed(packed) = self
            && packed.times_bf16(dst, accumulate, g, false)
        {
            return;
        }
        self.for_blocks(|rows, _, w| {
            let add = accumulate || rows.start > 0;
            matmul(dst, w.cols(), add, 1.0, g.columns(rows), w, Threads::All)
        });
    }

    /// Calls `f` with blocks of rows: which they are, the number of all rows, and their numbers.
    fn for_blocks(&self, mut f: impl FnMut(Range<usize>, usize, Mat)) {
        match self {
            Self::Dense(values, rows, cols) => f(0..*rows, *rows, Mat::new(values, *rows, *cols)),
            Self::Packed(packed) => packed.for_blocks(|rows, values| {
                let [out, inp] = packed.dims;
                let w = Mat::new(values, rows.len(), inp);
                f(rows, out, w)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};

    use super::super::testing::{assert_close, random};
    use super::*;

    /// A matrix of two blocks, the second one of a single row, and the same numbers as f32.
    fn packed() -> Result<(Matrix, Matrix)> {
        let cols = 64 * 1024;
        let rows = BLOCK_BYTES / (4 * cols) + 1;
        let quantised = QTensor::quantize(&random(&[rows, cols], 1)?, GgmlDType::Q4_1)?;
        let encoding = Encoding::Blocks(GgmlDType::Q4_1);
        let packed = Packed::new(quantised.data()?.to_vec(), encoding, (rows, cols))?;
        Ok((Matrix::Packed(Arc::new(packed)), quantised.dequantize(&Device::Cpu)?.into()))
    }

    #[test]
    fn a_packed_matrix_is_its_dense_one() -> Result<()> {
        let (packed, dense) = packed()?;
        let (out, inp) = dense.dims2()?;
        assert_eq!(packed.dims2()?, (out, inp));
        let same = |a: Tensor, b: Tensor| assert_close(&a, &b, 0.0);
        same(packed.dense()?, dense.dense()?)?;
        same(packed.rows(&[3, 0, 3])?, dense.rows(&[3, 0, 3])?)?;
        assert!(packed.rows(&[out as u32]).is_err());
        same(packed.per_row(|w| w.sum(1))?, dense.per_row(|w| w.sum(1))?)?;
        let (x, g) = (random(&[3, inp], 2)?, random(&[3, out], 3)?);
        let products = |w: &Matrix| -> Result<_> {
            let (x, g, w) = (view(&x)?, view(&g)?, w.view()?);
            let (mut y, mut dx) = (vec![1f32; 3 * out], vec![1f32; 3 * inp]);
            w.times_transposed(&mut y, true, Mat::new(&x, 3, inp));
            w.times(&mut dx, true, Mat::new(&g, 3, out));
            Ok((tensor(y, (3, out))?, tensor(dx, (3, inp))?))
        };
        let (ours, theirs) = (products(&packed)?, products(&dense)?);
        assert_close(&ours.0, &theirs.0, 1e-3)?; // sums of 65,536 products
        assert_close(&ours.1, &theirs.1, 1e-5)
    }

    #[test]
    fn a_packed_matrix_multiplies_any_number_of_rows_as_its_dense_one_does() -> Result<()> {
        let (out, inp) = (301, 576);
        for dtype in [GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::F16] {
            let quantised = QTensor::quantize(&random(&[out, inp], 1)?, dtype)?;
            let encoding = match dtype {
                GgmlDType::F16 => Encoding::Plain(candle_core::DType::F16),
                blocks => Encoding::Blocks(blocks),
            };
            let packed = Packed::new(quantised.data()?.to_vec(), encoding, (out, inp))?;
            let (packed, dense) =
                (Matrix::Packed(Arc::new(packed)), Matrix::from(quantised.dequantize(&Device::Cpu)?));
            for tokens in [1, 2, 31, 96, 97] {
                let x = random(&[tokens, inp], 2)?;
                let xs = view(&x)?;
                let x = Mat::new(&xs, tokens, inp);
                for accumulate in [false, true] {
                    let product = |w: &Matrix| -> Result<Tensor> {
                        let mut y = vec![0.5f32; tokens * out];
                        w.view()?.times_transposed(&mut y, accumulate, x);
                        tensor(y, (tokens, out))
                    };
                    assert_close(&product(&packed)?, &product(&dense)?, 1e-4)?;
                }
            }
        }
        Ok(())
    }

    /// Where the processor has bf16 products, several rows x are rounded to eight bits, whose errors cancel in part.
    #[test]
    fn a_bf16_matrix_multiplies_as_its_dense_one_does() -> Result<()> {
        let (out, inp) = (130, 576);
        let numbers = random(&[out, inp], 1)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> =
            numbers.iter().flat_map(|number| half::bf16::from_f32(*number).to_le_bytes()).collect();
        let packed = Packed::new(bytes, Encoding::Plain(DType::BF16), (out, inp))?;
        let packed = Matrix::Packed(Arc::new(packed));
        let dense = Matrix::from(packed.dense()?);
        for tokens in [1, 2, 31, 97] {
            let (x, g) = (random(&[tokens, inp], 2)?, random(&[tokens, out], 3)?);
            let products = |w: &Matrix| -> Result<_> {
                let (x, g, w) = (view(&x)?, view(&g)?, w.view()?);
                let (mut y, mut dx) = (vec![1f32; tokens * out], vec![1f32; tokens * inp]);
                w.times_transposed(&mut y, true, Mat::new(&x, tokens, inp));
                w.times(&mut dx, true, Mat::new(&g, tokens, out));
                Ok((tensor(y, (tokens, out))?, tensor(dx, (tokens, inp))?))
            };
            let (ours, theirs) = (products(&packed)?, products(&dense)?);
            let tolerance = if tokens > 1 && bf16::instructions() { 0.1 } else { 1e-4 };
            assert_close(&ours.0, &theirs.0, tolerance)?;
            assert_close(&ours.1, &theirs.1, tolerance)?;
        }
        Ok(())
    }

    #[test]
    fn bytes_that_do_not_fill_the_rows_are_refused() {
        let encoding = Encoding::Blocks(GgmlDType::Q8_0);
        assert!(Packed::new(vec![0; 34], encoding, (1, 32)).is_ok());
        assert!(Packed::new(vec![0; 33], encoding, (1, 32)).is_err());
        assert!(Packed::new(vec![0; 68], encoding, (4, 16)).is_err());
    }
}
