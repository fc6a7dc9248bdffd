//! Named tensors that stay on disk until they are asked for, and then become f32 (or stay as they are written).
//!
//! One table serves every file format: an entry says where a tensor's bytes are, how they are encoded,
//! and what the converter that wrote the file did to them and has to be undone. Opening a model
//! therefore reads no weight, and `get` holds the bytes of one tensor at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::bail_input;
use crate::input_file;
use crate::ops::encoding::Encoding;
use crate::ops::weight::{Matrix, Packed};

/// The embeddings' name in a checkpoint.
pub const EMBEDDINGS: &str = "model.embed_tokens.weight";
/// The name of a head that is not tied to them.
pub const HEAD: &str = "lm_head.weight";

/// Named tensors, read on demand as f32 on the CPU.
#[derive(Debug, Default)]
pub struct NamedTensors {
    tensors: BTreeMap<String, StoredTensor>,
    /// How a model holds its frozen matrices.
    pub(in crate::model) frozen: Frozen,
}

/// How frozen matrices are held in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::model) enum Frozen {
    #[default]
    F32,
    /// As the file has them.
    AsStored,
    Bf16,
}

/// A weight file, open for as long as one of its tensors may be read.
#[derive(Debug)]
pub(crate) struct WeightFile {
    path: PathBuf,
    file: Mutex<File>,
}

/// Where a tensor is and how to turn its bytes into f32.
#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    pub file: Arc<WeightFile>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Row-major shape, as Hugging Face has it.
    pub shape: Vec<usize>,
    pub encoding: Encoding,
    pub undo: Undo,
}

/// What the converter that wrote the file did to a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Undo {
    Nothing,
    /// llama.cpp interleaves the two halves of each head's rows, because its rotary embedding turns
    /// neighbouring pairs where Hugging Face's turns the halves.
    InterleavedHeads(usize),
    /// llama.cpp stores Gemma's norm weights as `1 + w`.
    PlusOne,
}

/// Numbers that one task looks through.
const PIECE: usize = 64 * 1024;

/// Which of some numbers, counted from `first`, is the first that is none, if there is one: what a training that diverged,
/// or a conversion to a type with a smaller range, leaves behind.
pub(crate) fn not_finite(values: &[f32], first: usize) -> Option<String> {
    // Whole pieces first: a loop that never ends early becomes vector code. The search alone took a second per 45M weights.
    let is_finite = |piece: &[f32]| piece.iter().fold(true, |all, value| all & value.is_finite());
    let piece = values.par_chunks(PIECE).position_first(|piece| !is_finite(piece))? * PIECE;
    let at = piece + values[piece..].iter().position(|value| !value.is_finite())?;
    Some(format!("number {} is {}; expected finite numbers", first + at, values[at]))
}

/// Product of a shape, or `None` where it overflows.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Refuses tensors that have bytes in common: a small file could stand for any number of large ones. `places` are first
/// byte, end and name.
///
/// # Errors
/// With two of them.
pub(crate) fn must_be_apart(mut places: Vec<(u64, u64, String)>) -> Result<()> {
    places.retain(|(begin, end, _)| begin < end);
    places.sort();
    for pair in places.windows(2) {
        let [(_, end, one), (begin, _, other)] = pair else { continue };
        if begin < end {
            bail!("tensors {one} and {other} overlap: one ends at byte {end}, the other begins at {begin}");
        }
    }
    Ok(())
}

impl WeightFile {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>> {
        let file = input_file::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Arc::new(Self { path: path.to_path_buf(), file: Mutex::new(file) }))
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0u8; len];
        let mut file =
            self.file.lock().map_err(|_| anyhow!("a reader of {} panicked", self.path.display()))?;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .with_context(|| format!("cannot read {len} bytes at {offset} of {}", self.path.display()))?;
        Ok(bytes)
    }
}

impl NamedTensors {
    /// All tensor names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|t| t.shape.clone())
    }

    /// Elements of all tensors together.
    pub fn elements(&self) -> usize {
        let counts = self.tensors.values().map(|stored| element_count(&stored.shape).unwrap_or(usize::MAX));
        counts.fold(0, usize::saturating_add)
    }

    /// Bytes that a tensor takes in its file, if there is one of that name.
    pub fn stored_bytes(&self, name: &str) -> Option<u64> {
        let stored = self.tensors.get(name)?;
        stored.encoding.byte_len(element_count(&stored.shape)?)
    }

    /// The tensor as contiguous f32 on the CPU.
    ///
    /// # Errors
    /// If there is no such tensor or its bytes cannot be read; an [`crate::error::InputError`] if a number is NaN or infinite.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let stored = self.stored(name)?;
        let values = stored.read().with_context(|| format!("cannot read tensor {name}"))?;
        if let Some(fault) = not_finite(&values, 0) {
            bail_input!("{}: tensor {name}: {fault}", stored.file.path.display());
        }
        Ok(Tensor::from_vec(values, stored.shape.as_slice(), &Device::Cpu)?)
    }

    /// The matrix with its numbers as the file has them, on the CPU; as f32 where a row does not fill whole blocks.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn packed(&self, name: &str) -> Result<Matrix> {
        let stored = self.stored(name)?;
        match stored.packed(name).with_context(|| format!("cannot read tensor {name}"))? {
            Some(packed) => Ok(Matrix::Packed(Arc::new(packed))),
            None => Ok(self.get(name)?.into()),
        }
    }

    /// The matrix with its numbers as bf16, rounded to the nearest (to even in the middle), on the CPU.
    ///
    /// # Errors
    /// As [`Self::get`]; an [`crate::error::InputError`] if a number is too large for bf16.
    pub fn rounded(&self, name: &str) -> Result<Matrix> {
        let encoding = Encoding::Plain(DType::BF16);
        let stored = self.stored(name)?;
        if stored.encoding == encoding && stored.undo == Undo::Nothing {
            return self.packed(name);
        }
        let matrix = self.get(name)?;
        let dims = matrix.dims2()?;
        let rows: Vec<f32> = matrix.flatten_all()?.to_vec1()?;
        drop(matrix);
        let mut bytes = vec![0u8; 2 * rows.len()];
        bytes.par_chunks_mut(2 * RUN).zip(rows.par_chunks(RUN)).for_each(|(bytes, numbers)| {
            for (to, number) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
                *to = half::bf16::from_f32(*number).to_le_bytes();
            }
        });
        let infinite =
            bytes.as_chunks::<2>().0.iter().position(|b| !half::bf16::from_le_bytes(*b).is_finite());
        if let Some(at) = infinite {
            bail_input!(
                "{}: tensor {name}: number {at} is {}, too large for bf16",
                stored.file.path.display(),
                rows[at]
            );
        }
        Ok(Matrix::Packed(Arc::new(Packed::new(bytes, encoding, dims)?)))
    }

    /// Whether two tensors have the same shape and, number for number, the same values.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn same(&self, one: &str, other: &str) -> Result<bool> {
        let (a, b) = (self.stored(one)?, self.stored(other)?);
        if a.shape != b.shape {
            return Ok(false);
        }
        let elements = element_count(&a.shape).context("its shape overflows")?;
        for start in (0..elements).step_by(RUN) {
            let length = RUN.min(elements - start);
            let run = |stored: &StoredTensor, name: &str| {
                stored.run(start, length).with_context(|| format!("cannot read tensor {name}"))
            };
            if run(a, one)? != run(b, other)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keeps only the first rows of a tensor, if there is one of that name.
    pub(crate) fn keep_rows(&mut self, name: &str, rows: usize) {
        if let Some(first) = self.tensors.get_mut(name).and_then(|stored| stored.shape.first_mut()) {
            *first = rows.min(*first);
        }
    }

    /// Forgets a tensor, if there is one of that name.
    pub(crate) fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Gives a tensor another name, if there is one of that name.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(stored) = self.tensors.remove(from) {
            self.tensors.insert(to.to_string(), stored);
        }
    }

    fn stored(&self, name: &str) -> Result<&StoredTensor> {
        self.tensors.get(name).ok_or_else(|| anyhow!("the model has no tensor named {name}"))
    }

    /// Adds a tensor; false if the name is taken.
    pub(crate) fn insert(&mut self, name: String, stored: StoredTensor) -> bool {
        self.tensors.insert(name, stored).is_none()
    }
}

/// Numbers that are read at once where a tensor is gone through: whole blocks of every encoding.
const RUN: usize = 1 << 22;

impl StoredTensor {
    /// Numbers from one place on, as the file has them.
    fn run(&self, start: usize, length: usize) -> Result<Vec<f32>> {
        let bytes = |elements| {
            self.encoding
                .byte_len(elements)
                .with_context(|| format!("{elements} numbers are no whole blocks"))
        };
        let read = self.file.read(self.offset + bytes(start)?, usize::try_from(bytes(length)?)?)?;
        let mut values = vec![0f32; length];
        self.encoding.decode(&read, &mut values)?;
        Ok(values)
    }

    fn read(&self) -> Result<Vec<f32>> {
        let bytes = self.bytes()?;
        let mut values = vec![0f32; element_count(&self.shape).context("its shape overflows")?];
        self.encoding.decode(&bytes, &mut values)?;
        drop(bytes);
        match self.undo {
            Undo::Nothing => {}
            Undo::PlusOne => values.iter_mut().for_each(|v| *v -= 1.0),
            Undo::InterleavedHeads(heads) => {
                let rows = self.shape.first().copied().unwrap_or(0);
                values = deinterleave_heads(&values, rows, heads)?;
            }
        }
        Ok(values)
    }

    /// A matrix whose rows fill whole blocks; rows can change their places without being decoded.
    fn packed(&self, name: &str) -> Result<Option<Packed>> {
        let &[rows, cols] = self.shape.as_slice() else { return Ok(None) };
        if self.encoding.byte_len(cols).is_none() || self.undo == Undo::PlusOne {
            return Ok(None);
        }
        let mut bytes = self.bytes()?;
        let elements = rows * cols;
        for start in (0..elements).step_by(RUN) {
            let mut values = vec![0f32; RUN.min(elements - start)];
            let place = |elements| self.encoding.byte_len(elements).unwrap_or_default() as usize;
            self.encoding.decode(&bytes[place(start)..place(start + values.len())], &mut values)?;
            if let Some(fault) = not_finite(&values, start) {
                bail_input!("{}: tensor {name}: {fault}", self.file.path.display());
            }
        }
        if let Undo::InterleavedHeads(heads) = self.undo {
            bytes = deinterleave_heads(&bytes, rows, heads)?;
        }
        Ok(Some(Packed::new(bytes, self.encoding, (rows, cols))?))
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let elements = element_count(&self.shape).context("its shape overflows")?;
        let len = self
            .encoding
            .byte_len(elements)
            .and_then(|n| usize::try_from(n).ok())
            .with_context(|| format!("shape {:?} does not fill whole blocks", self.shape))?;
        self.file.read(self.offset, len)
    }
}

/// Rows (of any width) from llama.cpp's order to Hugging Face's: within each head, stored row `2i + j`
/// is row `j * half + i`.
fn deinterleave_heads<T: Copy>(values: &[T], rows: usize, heads: usize) -> Result<Vec<T>> {
    let halves = heads.checked_mul(2).filter(|&halves| halves > 0);
    if rows == 0 || halves.is_none_or(|halves| !rows.is_multiple_of(halves)) {
        bail!("{rows} rows cannot be split into {heads} heads of two halves");
    }
    let width = values.len() / rows;
    let half = rows / heads / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for j in 0..2 {
            for i in 0..half {
                let row = head * 2 * half + 2 * i + j;
                out.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_that_is_none_is_found_wherever_it_is() {
        let fine = vec![1f32; 3 * PIECE + 5];
        assert_eq!(not_finite(&fine, 7), None);
        assert_eq!(not_finite(&[], 0), None);
        for at in [0, 1, PIECE - 1, PIECE, 2 * PIECE + 9, fine.len() - 1] {
            let mut values = fine.clone();
            values[at] = f32::NEG_INFINITY;
            *values.last_mut().unwrap() = f32::NAN;
            let what = if at + 1 == values.len() { "NaN" } else { "-inf" };
            assert_eq!(
                not_finite(&values, 7),
                Some(format!("number {} is {what}; expected finite numbers", at + 7))
            );
        }
    }

    #[test]
    fn deinterleaving_puts_the_halves_of_each_head_one_after_the_other() -> Result<()> {
        // 2 heads of 4 rows, width 1; stored as (first half, second half) pairs.
        let stored = [0., 2., 1., 3., 10., 12., 11., 13.];
        let rows = deinterleave_heads(&stored, 8, 2)?;
        assert_eq!(rows, [0., 1., 2., 3., 10., 11., 12., 13.]);
        assert!(deinterleave_heads(&stored, 8, 3).is_err());
        assert!(deinterleave_heads(&stored, 8, 0).is_err());
        Ok(())
    }

    #[test]
    fn a_shape_that_overflows_has_no_length() {
        assert_eq!(element_count(&[usize::MAX, 2]), None);
    }
}
