//! Text files as editors on any system write them.

use std::path::Path;

use crate::input_file;
use crate::limits::LARGEST_TEXT;

/// What some editors put in front of UTF-8 text.
pub const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Whether a file or folder of this name is what an editor, a file manager or an archiver left behind, and nothing that a
/// user put there: a hidden one (`.DS_Store`, `._a.txt`, `.ipynb_checkpoints`, a lock of Emacs), a lock of Office (`~$a.md`),
/// a backup (`a.txt~`, `#a.txt#`), or the folder that macOS adds to an archive.
pub fn is_leftover(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.starts_with("~$") || name.ends_with('~') || name == "__MACOSX"
}

/// The text of a file, without a byte order mark in front of it.
///
/// # Errors
/// If it cannot be read or is no UTF-8.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let text = input_file::read_text_at_most(path, LARGEST_TEXT)?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_string).unwrap_or(text))
}
