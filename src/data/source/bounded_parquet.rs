//! A parquet file whose sizes are checked before the library, which trusts them, allocates what they say.

use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use super::thrift::Thrift;
use crate::limits::{
    DEEPEST_PARQUET_SCHEMA, LARGEST_PARQUET_FOOTER, LARGEST_PARQUET_PAGE, MOST_COLUMNS, MOST_PARQUET_VALUES,
};

/// Bytes of a page's header that are read at first, and at most: statistics in it hold a text each.
const HEADER: (u64, u64) = (4 << 10, 16 << 20);

/// A file, and what was seen of it. Clones share what they saw.
pub(super) struct BoundedParquet<F> {
    file: Arc<F>,
    seen: Arc<Seen>,
}

impl<F> Clone for BoundedParquet<F> {
    fn clone(&self) -> Self {
        Self { file: self.file.clone(), seen: self.seen.clone() }
    }
}

#[derive(Default)]
struct Seen {
    /// Whether pages are read now, and not the description of the file.
    in_pages: AtomicBool,
    /// Values of the pages that were read since the last row.
    values: AtomicU64,
    /// The page whose header was read last.
    page: Mutex<Option<PageSizes>>,
}

/// The sizes in the header of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct PageSizes {
    uncompressed: i64,
    compressed: i64,
    values: i64,
    /// Bytes in front of what is compressed.
    levels: i64,
}

fn fault(what: String) -> ParquetError {
    ParquetError::General(what)
}

impl<F: ChunkReader> BoundedParquet<F> {
    /// Checks the description at the end of the file.
    ///
    /// # Errors
    /// If it is too large, or its schema is.
    pub(super) fn open(file: F) -> Result<Self> {
        let length = file.len();
        if length >= 12 {
            let tail = file.get_bytes(length - 8, 8)?;
            let size = tail.first_chunk::<4>().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
            if size > LARGEST_PARQUET_FOOTER {
                return Err(fault(format!(
                    "a description of {size} bytes; expected at most {LARGEST_PARQUET_FOOTER}"
                )));
            }
            if size <= length - 8 {
                let footer = file.get_bytes(length - 8 - size, usize::try_from(size)?)?;
                check_schema(&footer)?;
            }
        }
        Ok(Self { file: Arc::new(file), seen: Arc::default() })
    }

    /// Says that pages follow.
    pub(super) fn begin_pages(&self) {
        self.seen.in_pages.store(true, Ordering::Relaxed);
    }

    /// Says that a row was read.
    pub(super) fn next_row(&self) {
        self.seen.values.store(0, Ordering::Relaxed);
    }

    /// Looks at the header of the page at a place.
    fn check_page(&self, start: u64) -> Result<()> {
        let mut size = HEADER.0;
        let sizes = loop {
            let mut head = Vec::new();
            self.file.get_read(start)?.take(size).read_to_end(&mut head)?;
            match page_sizes(&head) {
                Some(sizes) => break sizes,
                None if (head.len() as u64) < size || size >= HEADER.1 => {
                    return Err(fault(format!("the header of the page at byte {start} is damaged")));
                }
                None => size *= 16,
            }
        };
        if sizes.uncompressed > LARGEST_PARQUET_PAGE as i64 || sizes.compressed > LARGEST_PARQUET_PAGE as i64
        {
            return Err(fault(format!(
                "a page of {} bytes at byte {start}; expected at most {LARGEST_PARQUET_PAGE}",
                sizes.uncompressed.max(sizes.compressed)
            )));
        }
        let values = u64::try_from(sizes.values).unwrap_or(0);
        if self.seen.values.fetch_add(values, Ordering::Relaxed).saturating_add(values) > MOST_PARQUET_VALUES
        {
            return Err(fault(format!(
                "more than {MOST_PARQUET_VALUES} values in the pages of one row, at byte {start}"
            )));
        }
        *self.seen.page.lock().unwrap_or_else(PoisonError::into_inner) = Some(sizes);
        Ok(())
    }

    /// Whether a page that is a gzip file is as long as its header says: the library reads such a file to its end.
    fn check_gzip(&self, bytes: &Bytes) -> Result<()> {
        let page = *self.seen.page.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sizes) = page.filter(|page| page.compressed == bytes.len() as i64) else { return Ok(()) };
        let levels = usize::try_from(sizes.levels).unwrap_or(0);
        let Some(compressed) = bytes.get(levels..).filter(|bytes| bytes.starts_with(&[0x1f, 0x8b])) else {
            return Ok(());
        };
        let most = u64::try_from(sizes.uncompressed).unwrap_or(0);
        let mut content = flate2::read::MultiGzDecoder::new(compressed).take(most + 1);
        match std::io::copy(&mut content, &mut std::io::sink()) {
            Ok(length) if length > most => {
                Err(fault(format!("a compressed page is longer than the {most} bytes in its header")))
            }
            _ => Ok(()), // whatever is wrong with it, the library tells
        }
    }
}

impl<F: ChunkReader> Length for BoundedParquet<F> {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl<F: ChunkReader> ChunkReader for BoundedParquet<F> {
    type T = F::T;

    fn get_read(&self, start: u64) -> Result<F::T> {
        if self.seen.in_pages.load(Ordering::Relaxed) {
            self.check_page(start)?;
        }
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if length as u64 > self.len().saturating_sub(start) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start}, but the file ends")));
        }
        let bytes = self.file.get_bytes(start, length)?;
        if self.seen.in_pages.load(Ordering::Relaxed) {
            self.check_gzip(&bytes)?;
        }
        Ok(bytes)
    }
}

/// `PageHeader` of parquet.thrift.
fn page_sizes(bytes: &[u8]) -> Option<PageSizes> {
    let mut sizes = PageSizes::default();
    Thrift::new(bytes).structure(|thrift, number, kind| {
        match number {
            2 => sizes.uncompressed = thrift.number(kind)?,
            3 => sizes.compressed = thrift.number(kind)?,
            // Data page, dictionary page, data page of version 2.
            5 | 7 | 8 => thrift.structure(|thrift, inner, kind| {
                match inner {
                    1 => sizes.values = thrift.number(kind)?,
                    5 | 6 if number == 8 => sizes.levels = sizes.levels.saturating_add(thrift.number(kind)?),
                    _ => return Some(false),
                }
                Some(true)
            })?,
            _ => return Some(false),
        }
        Some(true)
    })?;
    Some(sizes)
}

/// The depth of the schema in a `FileMetaData` of parquet.thrift, which the library walks by recursion.
fn check_schema(footer: &[u8]) -> Result<()> {
    let mut outcome = Ok(());
    // What is no Thrift is told by the library.
    let _ = Thrift::new(footer).structure(|thrift, number, kind| {
        if number != 2 {
            return Some(false);
        }
        let count = thrift.list_of_structures(kind)?;
        if count > MOST_COLUMNS as u64 {
            outcome = Err(fault(format!("{count} columns; expected at most {MOST_COLUMNS}")));
            return None;
        }
        // How many children each of the open groups still lacks.
        let mut open: Vec<i64> = Vec::new();
        for _ in 0..count {
            let mut children = 0;
            thrift.structure(|thrift, number, kind| {
                if number == 5 {
                    children = thrift.number(kind)?;
                }
                Some(number == 5)
            })?;
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            if children > 0 {
                open.push(children);
            }
            if open.len() > DEEPEST_PARQUET_SCHEMA {
                outcome = Err(fault(format!(
                    "groups of columns more than {DEEPEST_PARQUET_SCHEMA} deep within each other"
                )));
                return None;
            }
        }
        Some(true)
    });
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a small number, of i32.
    fn field(step: u8, value: i64) -> Vec<u8> {
        let mut out = vec![step << 4 | 5];
        let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
        while zigzag >= 0x80 {
            out.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        out.push(zigzag as u8);
        out
    }

    #[test]
    fn the_sizes_of_a_page_are_read_from_its_header() {
        let mut header = [field(1, 0), field(1, 1_000_000_000), field(1, 77)].concat();
        header.push(2 << 4 | 12);
        header.extend([field(1, 5_000_000), vec![0], vec![0]].concat());
        let expected =
            PageSizes { uncompressed: 1_000_000_000, compressed: 77, values: 5_000_000, levels: 0 };
        assert_eq!(page_sizes(&header), Some(expected));
        for cut in 0..header.len() {
            assert_eq!(page_sizes(&header[..cut]), None);
        }
    }

    #[test]
    fn a_deep_schema_is_refused_without_recursion() {
        let footer = |depth: usize| {
            let mut out = [field(1, 1), vec![1 << 4 | 9, 0xfc]].concat();
            let mut count = depth as u64;
            while count >= 0x80 {
                out.push(count as u8 | 0x80);
                count >>= 7;
            }
            out.push(count as u8);
            for _ in 0..depth {
                out.extend([field(5, 1), vec![0]].concat());
            }
            out.push(0);
            out
        };
        assert!(check_schema(&footer(20)).is_ok());
        let e = check_schema(&footer(10_000)).unwrap_err().to_string();
        assert!(e.contains("deep within each other"), "{e}");
        let e = check_schema(&footer(1_000_000)).unwrap_err().to_string();
        assert!(e.contains("1000000 columns"), "{e}");
    }
}
