//! `summary.csv`: a row a run, for a data frame.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::atomic::write_atomically;
use crate::claims::ClaimedRun;
pub use crate::claims::summary::{Row, columns, quality_columns, rows};

/// Writes the rows of [`rows`] as CSV; the file appears whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_summary(cells: &[ClaimedRun], path: &Path) -> Result<()> {
    write_atomically(path, csv(&rows(cells))?.as_bytes())
}

/// Text as it stands in a cell. What a spreadsheet would take for a formula (text that begins with `=`, `+`, `-`, `@` or a
/// control character, as OWASP lists it) gets a `'` in front, which spreadsheets leave out.
pub(super) fn spreadsheet_text(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        true => format!("'{text}"),
        false => text.to_string(),
    }
}

/// The rows as RFC 4180 text with a heading. An absent value is empty.
///
/// # Errors
/// None that a row can have.
pub fn csv(rows: &[Row]) -> Result<String> {
    let mut out = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if let Some(first) = rows.first() {
        out.write_record(first.keys().map(|key| spreadsheet_text(key)))?;
    }
    for row in rows {
        out.write_record(row.values().map(|value| match value {
            Value::Null => String::new(),
            Value::String(s) => spreadsheet_text(s),
            other => other.to_string(),
        }))?;
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}
