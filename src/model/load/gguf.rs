//! Reads the header of a GGUF file: metadata and where each tensor is.
//!
//! candle has a reader too, but a crafted header (an alignment of zero, a shape whose product overflows)
//! makes it panic. This one checks every length against the size of the file before it allocates.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::DType;
use candle_core::quantized::GgmlDType;

use super::weights::{element_count, must_be_apart};
use crate::input_file;
use crate::ops::encoding::Encoding;

/// Metadata and tensor table of a GGUF file.
#[derive(Debug)]
pub(crate) struct Header {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// Where a tensor is in the file.
#[derive(Debug)]
pub(crate) struct TensorInfo {
    /// Row-major shape: the reverse of the order in the file.
    pub shape: Vec<usize>,
    pub encoding: Encoding,
    /// From the start of the file.
    pub offset: u64,
    /// Which file of a split model it is in.
    pub part: usize,
}

/// A metadata value. Integers and floats of every width are widened; arrays of arrays are dropped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
    Nested,
}

/// ggml's numbers for the types of metadata values.
mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

const MAX_NESTING: usize = 8;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

impl Header {
    /// Reads the header and checks that every tensor lies inside the file.
    ///
    /// # Errors
    /// If the file cannot be read, is not GGUF, is cut short, or uses a number format candle lacks.
    pub fn read(path: &Path) -> Result<Self> {
        let file = input_file::open(path)?;
        let len = file.metadata()?.len();
        Reader { inner: BufReader::with_capacity(1 << 20, file), position: 0, len, long_lengths: true }
            .header()
    }

    /// Text under a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer under a key.
    pub fn integer(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key) {
            Some(Value::Int(n)) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A number under a key.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(Value::Float(x)) => Some(*x),
            Some(Value::Int(n)) => Some(*n as f64),
            _ => None,
        }
    }

    /// The integer under a key that may hold one for each block, where they are all the same.
    ///
    /// # Errors
    /// If the blocks differ.
    pub fn of_all_blocks(&self, key: &str) -> Result<Option<u64>> {
        let Some(Value::Ints(list)) = self.metadata.get(key) else { return Ok(self.integer(key)) };
        match list.first() {
            Some(first) if list.iter().all(|n| n == first) => Ok(u64::try_from(*first).ok()),
            _ => bail!("{key}: differs between blocks ({list:?}); expected one number"),
        }
    }

    /// A truth value under a key.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(Value::Bool(b)) => Some(*b),
            _ => None,
        }
    }

    /// A list of texts under a key.
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key) {
            Some(Value::Texts(texts)) => Some(texts),
            _ => None,
        }
    }
}

/// The metadata of a file as an architecture reads them: under keys that begin with its name.
pub(in crate::model) struct Metadata<'a> {
    pub header: &'a Header,
    /// `general.architecture`.
    pub name: &'static str,
}

impl Metadata<'_> {
    /// The whole key.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// A non-negative integer under a key.
    pub fn integer(&self, name: &str) -> Option<u64> {
        self.header.integer(&self.key(name))
    }

    /// The integer under a key that may hold one for each block.
    ///
    /// # Errors
    /// If the blocks differ.
    pub fn of_all_blocks(&self, name: &str) -> Result<Option<u64>> {
        self.header.of_all_blocks(&self.key(name))
    }

    /// A number under a key.
    pub fn float(&self, name: &str) -> Option<f64> {
        self.header.float(&self.key(name))
    }

    /// Whether the file has a tensor of this name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }
}

struct Reader<R> {
    inner: R,
    position: u64,
    len: u64,
    /// Versions 2 and 3 write lengths as u64, version 1 as u32.
    long_lengths: bool,
}

impl<R: Read> Reader<R> {
    fn header(mut self) -> Result<Header> {
        if &self.array::<4>()? != b"GGUF" {
            bail!("it does not start with the bytes GGUF");
        }
        let version = self.u32()?;
        self.long_lengths = match version {
            1 => false,
            2 | 3 => true,
            _ => bail!("GGUF version {version} is not known (1 to 3 are)"),
        };
        let tensor_count = self.length()?;
        let entry_count = self.length()?;

        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind, 0).with_context(|| format!("metadata key {key}"))?;
            metadata.insert(key, value);
        }

        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = self.text()?;
            let info = self.tensor_info().with_context(|| format!("tensor {name}"))?;
            if tensors.insert(name.clone(), info).is_some() {
                bail!("tensor {name} is listed twice");
            }
        }

        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Int(n)) if *n > 0 => *n as u64,
            Some(other) => bail!("general.alignment is {other:?}, expected a positive integer"),
        };
        let data =
            self.position.checked_next_multiple_of(alignment).context("general.alignment is too large")?;
        let mut places = Vec::with_capacity(tensors.len());
        for (name, info) in &mut tensors {
            let len = element_count(&info.shape)
                .and_then(|n| info.encoding.byte_len(n))
                .with_context(|| format!("tensor {name}: shape {:?} is impossible", info.shape))?;
            let end = data
                .checked_add(info.offset)
                .inspect(|start| info.offset = *start)
                .and_then(|start| start.checked_add(len));
            match end {
                Some(end) if end <= self.len => places.push((info.offset, end, name.clone())),
                _ => bail!(
                    "the file is cut short or damaged: tensor {name} should end at byte {}, the file has {}",
                    end.map_or("2^64 or later".into(), |e| e.to_string()),
                    self.len
                ),
            }
        }
        must_be_apart(places)?;
        Ok(Header { metadata, tensors })
    }

    fn tensor_info(&mut self) -> Result<TensorInfo> {
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            bail!("{dimensions} dimensions, at most {MAX_DIMENSIONS} are allowed");
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(usize::try_from(self.length()?)?);
        }
        shape.reverse();
        let encoding = encoding(self.u32()?)?;
        let offset = u64::from_le_bytes(self.array()?);
        Ok(TensorInfo { shape, encoding, offset, part: 0 })
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            kind::F32 | kind::F64 => Value::Float(self.float(kind)?),
            kind::BOOL => Value::Bool(self.array::<1>()?[0] != 0),
            kind::TEXT => Value::Text(self.text()?),
            kind::ARRAY => self.list(depth)?,
            _ => Value::Int(self.integer(kind)?),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        if depth >= MAX_NESTING {
            bail!("arrays are nested deeper than {MAX_NESTING}");
        }
        let kind = self.u32()?;
        let count = self.length()?;
        let smallest = match kind {
            kind::U8 | kind::I8 | kind::BOOL => 1,
            kind::U16 | kind::I16 => 2,
            kind::TEXT if self.long_lengths => 8,
            kind::U64 | kind::I64 | kind::F64 => 8,
            kind::ARRAY => 8,
            _ => 4,
        };
        if count.saturating_mul(smallest) > self.len.saturating_sub(self.position) {
            bail!("the file is cut short or damaged: an array of {count} entries does not fit");
        }
        // The check above bounds `count` by the size of the file.
        let items = 0..count;
        Ok(match kind {
            kind::F32 | kind::F64 => Value::Floats(items.map(|_| self.float(kind)).collect::<Result<_>>()?),
            kind::BOOL => Value::Bools(items.map(|_| Ok(self.array::<1>()?[0] != 0)).collect::<Result<_>>()?),
            kind::TEXT => Value::Texts(items.map(|_| self.text()).collect::<Result<_>>()?),
            kind::ARRAY => {
                for _ in items {
                    self.list(depth + 1)?;
                }
                Value::Nested
            }
            _ => Value::Ints(items.map(|_| self.integer(kind)).collect::<Result<_>>()?),
        })
    }

    fn integer(&mut self, kind: u32) -> Result<i64> {
        Ok(match kind {
            kind::U8 => u8::from_le_bytes(self.array()?).into(),
            kind::I8 => i8::from_le_bytes(self.array()?).into(),
            kind::U16 => u16::from_le_bytes(self.array()?).into(),
            kind::I16 => i16::from_le_bytes(self.array()?).into(),
            kind::U32 => u32::from_le_bytes(self.array()?).into(),
            kind::I32 => i32::from_le_bytes(self.array()?).into(),
            kind::I64 => i64::from_le_bytes(self.array()?),
            // No key that is read here needs the upper half of u64.
            kind::U64 => i64::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(i64::MAX),
            _ => bail!("value type {kind} is not known"),
        })
    }

    fn float(&mut self, kind: u32) -> Result<f64> {
        Ok(if kind == kind::F32 {
            f32::from_le_bytes(self.array()?).into()
        } else {
            f64::from_le_bytes(self.array()?)
        })
    }

    fn text(&mut self) -> Result<String> {
        let len = self.length()?;
        if len > self.len.saturating_sub(self.position) {
            bail!("the file is cut short or damaged: a text of {len} bytes does not fit");
        }
        let mut bytes = vec![0; usize::try_from(len)?];
        self.fill(&mut bytes)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    fn length(&mut self) -> Result<u64> {
        if self.long_lengths { Ok(u64::from_le_bytes(self.array()?)) } else { Ok(self.u32()?.into()) }
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.inner
            .read_exact(bytes)
            .with_context(|| format!("the file is cut short or damaged: it ends at byte {}", self.len))?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

/// The encoding with ggml's number, as far as candle can dequantise it.
fn encoding(number: u32) -> Result<Encoding> {
    use GgmlDType::*;
    Ok(match number {
        0 => Encoding::Plain(DType::F32),
        1 => Encoding::Plain(DType::F16),
        28 => Encoding::Plain(DType::F64),
        30 => Encoding::Plain(DType::BF16),
        2 => Encoding::Blocks(Q4_0),
        3 => Encoding::Blocks(Q4_1),
        6 => Encoding::Blocks(Q5_0),
        7 => Encoding::Blocks(Q5_1),
        8 => Encoding::Blocks(Q8_0),
        10 => Encoding::Blocks(Q2K),
        11 => Encoding::Blocks(Q3K),
        12 => Encoding::Blocks(Q4K),
        13 => Encoding::Blocks(Q5K),
        14 => Encoding::Blocks(Q6K),
        15 => Encoding::Blocks(Q8K),
        _ => bail!(
            "number format {number} of ggml cannot be read; use a file in F32, F16, BF16, Q8_0, Q4_0 to Q5_1 or Q2_K to Q6_K"
        ),
    })
}
