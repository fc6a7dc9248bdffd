//! JSON lines, plain or compressed.

use std::io::BufRead;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{BYTE_ORDER_MARK, Document, Rows, compressed, document};
use crate::error::input_error;

pub(super) fn read(path: &Path) -> Result<Vec<Document>> {
    let mut rows = Rows::default();
    for_each_line(path, |number, line| {
        let row = serde_json::from_slice::<Value>(line).map_err(|e| format!("not a line of JSON: {e}"));
        rows.push(|| format!("{}:{number}", path.display()), row.and_then(|row| document(&row)))
    })?;
    rows.finish()
}

/// Number of the line that holds a row, from one.
pub(super) fn line_of(path: &Path, row: usize) -> Option<usize> {
    let (mut left, mut found) = (row, None);
    let walked = for_each_line(path, |number, _| {
        if left == 0 {
            found = Some(number);
        }
        left = left.saturating_sub(1);
        found.is_none()
    });
    walked.ok().and(found)
}

/// Calls `take` with the number and bytes of every line that is not blank, until it says false.
fn for_each_line(path: &Path, mut take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
    let mut reader = compressed::open(path)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        if read.map_err(|e| input_error(format!("{}:{number}: {e}", path.display())))? == 0 {
            break;
        }
        if number == 1 && line.starts_with(BYTE_ORDER_MARK.as_bytes()) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if !line.iter().all(u8::is_ascii_whitespace) && !take(number, &line) {
            break;
        }
    }
    Ok(())
}
