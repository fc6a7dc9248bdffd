//! From the bytes of a weight file to f32.

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Result, bail};
use rayon::prelude::*;

use super::kernels::blocks;

/// How the numbers of a tensor are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Encoding {
    /// f64, f32, f16 or bf16, little-endian.
    Plain(DType),
    /// Blocks of a ggml quantisation.
    Blocks(GgmlDType),
}

impl Encoding {
    /// Bytes that `elements` numbers take, or `None` if they do not fill whole blocks or overflow.
    pub fn byte_len(self, elements: usize) -> Option<u64> {
        let (block, bytes) = match self {
            Self::Plain(dtype) => (1, dtype.size_in_bytes()),
            Self::Blocks(dtype) => (dtype.block_size(), dtype.type_size()),
        };
        if !elements.is_multiple_of(block) {
            return None;
        }
        u64::try_from(elements / block).ok()?.checked_mul(bytes as u64)
    }

    /// Reads as many numbers as `values` has room for, on all threads.
    ///
    /// # Errors
    /// If `bytes` has another length, or holds numbers that cannot be read.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        self.must_hold(bytes, values.len())?;
        let run_bytes = self.byte_len(RUN).unwrap_or_default() as usize;
        let runs = values.par_chunks_mut(RUN).zip(bytes.par_chunks(run_bytes));
        runs.try_for_each(|(values, bytes)| self.decode_here(bytes, values))
    }

    /// [`Self::decode`] on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn decode_here(self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        self.must_hold(bytes, values.len())?;
        match self {
            Self::Plain(DType::F32) => convert::<4>(bytes, values, f32::from_le_bytes),
            Self::Plain(DType::F64) => convert::<8>(bytes, values, |b| f64::from_le_bytes(b) as f32),
            Self::Plain(DType::F16) => convert::<2>(bytes, values, |b| half::f16::from_le_bytes(b).to_f32()),
            Self::Plain(DType::BF16) => {
                convert::<2>(bytes, values, |b| half::bf16::from_le_bytes(b).to_f32())
            }
            Self::Blocks(dtype) if blocks::serves(dtype) => blocks::decode(dtype, bytes, values),
            other => bail!("numbers of type {other:?} cannot be read"),
        }
        Ok(())
    }

    fn must_hold(self, bytes: &[u8], numbers: usize) -> Result<()> {
        match self.byte_len(numbers) == Some(bytes.len() as u64) {
            true => Ok(()),
            false => bail!("{} bytes do not hold {numbers} numbers of type {self:?}", bytes.len()),
        }
    }
}

/// Numbers that one rayon task reads: whole blocks of every type.
const RUN: usize = 16 * 1024;

/// `WIDTH` is that of a number in bytes.
fn convert<const WIDTH: usize>(bytes: &[u8], values: &mut [f32], number: impl Fn([u8; WIDTH]) -> f32) {
    let (numbers, _) = bytes.as_chunks::<WIDTH>();
    for (value, &bytes) in values.iter_mut().zip(numbers) {
        *value = number(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_splits_a_block_has_no_length() {
        assert_eq!(Encoding::Blocks(GgmlDType::Q8_0).byte_len(33), None);
        assert_eq!(Encoding::Blocks(GgmlDType::Q8_0).byte_len(64), Some(68));
        assert_eq!(Encoding::Plain(DType::BF16).byte_len(3), Some(6));
    }

    #[test]
    fn bytes_of_another_length_or_type_are_refused() {
        let mut values = [0f32; 2];
        assert!(Encoding::Plain(DType::F16).decode(&[0; 3], &mut values).is_err());
        assert!(Encoding::Plain(DType::U8).decode(&[0; 2], &mut values).is_err());
        Encoding::Plain(DType::BF16).decode(&[0x80, 0x3f, 0, 0xc0], &mut values).unwrap();
        assert_eq!(values, [1.0, -2.0]);
    }
}
