//! JSON lines, plain or compressed.

use std::io::{BufRead, Read};
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::compressed;
use super::rows::Take;
use crate::bail_input;
use crate::error::input_error;
use crate::json::has_more_values;
use crate::limits::{LARGEST_DOCUMENT, MOST_DOCUMENT_VALUES};
use crate::text_file::BYTE_ORDER_MARK;

/// Gives every row to `take` until it says false; `shown` is what messages call the file.
pub(super) fn rows(file: impl BufRead, shown: &str, take: &mut Take) -> Result<()> {
    for_each_line(file, shown, |number, at, line| {
        let row = match std::str::from_utf8(line) {
            Ok(line) if has_more_values(line, MOST_DOCUMENT_VALUES) => {
                Err(format!("more than {MOST_DOCUMENT_VALUES} values in a document"))
            }
            Ok(line) => serde_json::from_str::<Value>(line).map_err(|e| match e.column().checked_sub(1) {
                Some(at) if names_no_number(line, at) => {
                    format!("not a line of JSON: NaN or Infinity at column {}; expected a number", e.column())
                }
                _ => format!("not a line of JSON: {e}"),
            }),
            Err(e) => Err(format!("byte {} of the file is not UTF-8", at + e.valid_up_to() as u64)),
        };
        take(&|| format!("{shown}:{number}"), row)
    })
}

/// Whether Python's spelling of what is no number stands around a place.
fn names_no_number(line: &str, at: usize) -> bool {
    let from = line.get(..at).map_or(0, |before| before.rfind([':', ',', '[']).map_or(0, |i| i + 1));
    let value = line.get(from..).unwrap_or_default().trim_start().trim_start_matches('-');
    value.starts_with("NaN") || value.starts_with("Infinity")
}

/// Number of the line that holds a row, from one.
pub(super) fn line_of(path: &Path, row: usize) -> Option<usize> {
    let (mut left, mut found) = (row, None);
    let walked = for_each_line(compressed::open(path).ok()?, "", |number, _, _| {
        if left == 0 {
            found = Some(number);
        }
        left = left.saturating_sub(1);
        found.is_none()
    });
    walked.ok().and(found)
}

/// Calls `take` with the number, the place in the (decompressed) file and the bytes of every line that is not blank,
/// until it says false.
fn for_each_line(
    mut file: impl BufRead,
    shown: &str,
    mut take: impl FnMut(usize, u64, &[u8]) -> bool,
) -> Result<()> {
    let (mut line, mut at) = (Vec::new(), 0);
    for number in 1.. {
        line.clear();
        let read = (&mut file).take(LARGEST_DOCUMENT + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|e| input_error(format!("{shown}:{number}: {e}")))? as u64;
        if read == 0 {
            break;
        }
        if read > LARGEST_DOCUMENT {
            bail_input!(
                "{shown}:{number}: a line of more than {} MB, the limit for a document",
                LARGEST_DOCUMENT >> 20
            );
        }
        let mark = if number == 1 && line.starts_with(BYTE_ORDER_MARK.as_bytes()) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        let content = &line[mark..];
        if !content.iter().all(u8::is_ascii_whitespace) && !take(number, at + mark as u64, content) {
            break;
        }
        at += read;
    }
    Ok(())
}
