//! Named tensors that stay on disk until they are asked for, and then become f32.
//!
//! One table serves every file format: an entry says where a tensor's bytes are, how they are encoded,
//! and what the converter that wrote the file did to them and has to be undone. Opening a model
//! therefore reads no weight, and `get` holds the bytes of one tensor at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::backend::BackendStorage as _;
use candle_core::quantized::GgmlDType;
use candle_core::{CpuStorage, DType, Device, Tensor};
use rayon::prelude::*;

/// Named tensors, read on demand as f32 on the CPU.
#[derive(Debug, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Stored>,
}

/// A weight file, open for as long as one of its tensors may be read.
#[derive(Debug)]
pub(crate) struct WeightFile {
    path: PathBuf,
    file: Mutex<File>,
}

/// Where a tensor is and how to turn its bytes into f32.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub file: Arc<WeightFile>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Row-major shape, as Hugging Face has it.
    pub shape: Vec<usize>,
    pub encoding: Encoding,
    pub undo: Undo,
}

/// How the numbers of a tensor are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Encoding {
    /// f64, f32, f16 or bf16, little-endian.
    Plain(DType),
    /// Blocks of a ggml quantisation.
    Blocks(GgmlDType),
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

impl Encoding {
    /// Bytes that `elements` numbers take, or `None` if they do not fill whole blocks or overflow.
    pub(crate) fn byte_len(self, elements: usize) -> Option<u64> {
        let (block, bytes) = match self {
            Self::Plain(dtype) => (1, dtype.size_in_bytes()),
            Self::Blocks(dtype) => (dtype.block_size(), dtype.type_size()),
        };
        if !elements.is_multiple_of(block) {
            return None;
        }
        u64::try_from(elements / block).ok()?.checked_mul(bytes as u64)
    }
}

/// Product of a shape, or `None` where it overflows.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

impl WeightFile {
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
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

impl Weights {
    /// All tensor names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|t| t.shape.clone())
    }

    /// The tensor as contiguous f32 on the CPU.
    ///
    /// # Errors
    /// If there is no such tensor or its bytes cannot be read.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let stored = self.tensors.get(name).ok_or_else(|| anyhow!("the model has no tensor named {name}"))?;
        let values = stored.read().with_context(|| format!("cannot read tensor {name}"))?;
        Ok(Tensor::from_vec(values, stored.shape.as_slice(), &Device::Cpu)?)
    }

    /// Adds a tensor; false if the name is taken.
    pub(crate) fn insert(&mut self, name: String, stored: Stored) -> bool {
        self.tensors.insert(name, stored).is_none()
    }
}

impl Stored {
    fn read(&self) -> Result<Vec<f32>> {
        let elements = element_count(&self.shape).context("its shape overflows")?;
        let len = self
            .encoding
            .byte_len(elements)
            .and_then(|n| usize::try_from(n).ok())
            .with_context(|| format!("shape {:?} does not fill whole blocks", self.shape))?;
        let bytes = self.file.read(self.offset, len)?;
        let mut values = decode(&bytes, self.encoding, elements)?;
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
}

fn decode(bytes: &[u8], encoding: Encoding, elements: usize) -> Result<Vec<f32>> {
    let mut values = vec![0f32; elements];
    match encoding {
        Encoding::Plain(dtype) => {
            // Widths in bytes; the chunks are exact because `byte_len` sized the buffer.
            match dtype {
                DType::F32 => convert::<4>(bytes, &mut values, f32::from_le_bytes),
                DType::F64 => convert::<8>(bytes, &mut values, |b| f64::from_le_bytes(b) as f32),
                DType::F16 => convert::<2>(bytes, &mut values, |b| half::f16::from_le_bytes(b).to_f32()),
                DType::BF16 => convert::<2>(bytes, &mut values, |b| half::bf16::from_le_bytes(b).to_f32()),
                other => bail!("numbers of type {other:?} cannot be read"),
            }
        }
        Encoding::Blocks(dtype) => {
            // Blocks are independent, so runs of them decode in parallel. 1,024 blocks a run also
            // keeps every run as aligned as the whole buffer, which candle asserts.
            const RUN: usize = 1024;
            if !(bytes.as_ptr() as usize).is_multiple_of(8) {
                bail!("the buffer for the quantised blocks is not aligned");
            }
            values
                .par_chunks_mut(RUN * dtype.block_size())
                .zip(bytes.par_chunks(RUN * dtype.type_size()))
                .try_for_each(|(out, run)| -> Result<()> {
                    match dtype.from_data(Cow::Borrowed(run)).dequantize(out.len())? {
                        CpuStorage::F32(run) => out.copy_from_slice(&run),
                        other => bail!("candle dequantised to {:?}", other.dtype()),
                    }
                    Ok(())
                })?;
        }
    }
    Ok(values)
}

fn convert<const WIDTH: usize>(bytes: &[u8], values: &mut [f32], number: impl Fn([u8; WIDTH]) -> f32 + Sync) {
    const RUN: usize = 1 << 16;
    values.par_chunks_mut(RUN).zip(bytes.par_chunks(RUN * WIDTH)).for_each(|(out, run)| {
        let (numbers, _) = run.as_chunks::<WIDTH>();
        for (value, &bytes) in out.iter_mut().zip(numbers) {
            *value = number(bytes);
        }
    });
}

/// Rows (of any width) from llama.cpp's order to Hugging Face's: within each head, stored row `2i + j`
/// is row `j * half + i`.
fn deinterleave_heads(values: &[f32], rows: usize, heads: usize) -> Result<Vec<f32>> {
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
    fn a_shape_that_overflows_or_splits_a_block_has_no_length() {
        assert_eq!(element_count(&[usize::MAX, 2]), None);
        assert_eq!(Encoding::Blocks(GgmlDType::Q8_0).byte_len(33), None);
        assert_eq!(Encoding::Blocks(GgmlDType::Q8_0).byte_len(64), Some(68));
        assert_eq!(Encoding::Plain(DType::BF16).byte_len(3), Some(6));
    }
}
