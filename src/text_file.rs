//! Text files as editors on any system write them.

use std::path::Path;

/// What some editors put in front of UTF-8 text.
pub const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The text of a file, without a byte order mark in front of it.
///
/// # Errors
/// If it cannot be read or is no UTF-8.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_string).unwrap_or(text))
}
