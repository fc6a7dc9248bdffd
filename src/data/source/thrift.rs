//! As much of Thrift's compact protocol as it takes to see how large a parquet file says that its parts are, before a library
//! that trusts it allocates them. <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

/// Structures within each other that are skipped.
const DEEPEST: usize = 32;

/// Bytes that are read in order; `None` where they end or are no Thrift.
pub(super) struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The kind of a field or of the items of a list.
type Kind = u8;

const TRUE: Kind = 1;
const FALSE: Kind = 2;
const BYTE: Kind = 3;
const I16: Kind = 4;
const I64: Kind = 6;
const DOUBLE: Kind = 7;
const BINARY: Kind = 8;
const LIST: Kind = 9;
const SET: Kind = 10;
const MAP: Kind = 11;
const STRUCT: Kind = 12;

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// An integer of any width.
    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn pass(&mut self, count: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(count).ok()?).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    /// Calls `field` with number and kind of each field of a structure; where it gives false, the field is skipped.
    pub(super) fn structure(
        &mut self,
        mut field: impl FnMut(&mut Self, i64, Kind) -> Option<bool>,
    ) -> Option<()> {
        let mut number = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            number = match head >> 4 {
                0 => self.integer()?,
                more => number + i64::from(more),
            };
            if !field(self, number, head & 0xf)? {
                self.skip(head & 0xf, 0)?;
            }
        }
    }

    /// The number in a field, if its kind is that of one.
    pub(super) fn number(&mut self, kind: Kind) -> Option<i64> {
        match kind {
            BYTE => Some(i64::from(self.byte()? as i8)),
            I16..=I64 => self.integer(),
            _ => None,
        }
    }

    /// Items of a list of structures.
    pub(super) fn list_of_structures(&mut self, kind: Kind) -> Option<u64> {
        if kind != LIST {
            return None;
        }
        let (of, count) = self.list_head()?;
        (of == STRUCT || count == 0).then_some(count)
    }

    fn list_head(&mut self) -> Option<(Kind, u64)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            few => u64::from(few),
        };
        Some((head & 0xf, count))
    }

    fn skip(&mut self, kind: Kind, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match kind {
            TRUE | FALSE => Some(()),
            BYTE => self.pass(1),
            I16..=I64 => self.varint().map(|_| ()),
            DOUBLE => self.pass(8),
            BINARY => {
                let length = self.varint()?;
                self.pass(length)
            }
            LIST | SET => {
                let (of, count) = self.list_head()?;
                (0..count).try_for_each(|_| match of {
                    TRUE | FALSE => self.pass(1),
                    of => self.skip(of, depth + 1),
                })
            }
            MAP => {
                let count = self.varint()?;
                if count == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                (0..count).try_for_each(|_| {
                    self.skip(kinds >> 4, depth + 1)?;
                    self.skip(kinds & 0xf, depth + 1)
                })
            }
            STRUCT => loop {
                let head = self.byte()?;
                if head == 0 {
                    return Some(());
                }
                if head >> 4 == 0 {
                    self.integer()?;
                }
                self.skip(head & 0xf, depth + 1)?;
            },
            _ => None,
        }
    }
}
