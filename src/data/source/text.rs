//! Text files, one document each, and folders of them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::document::{Document, LARGEST_DOCUMENT};
use crate::bail_input;
use crate::error::input_error;
use crate::text_file::BYTE_ORDER_MARK;

pub(super) fn read(path: &Path) -> Result<Document> {
    let fault = |e: std::io::Error| input_error(format!("{}: {e}", path.display()));
    let size = std::fs::metadata(path).map_err(fault)?.len();
    if size > LARGEST_DOCUMENT {
        bail_input!(
            "{}: {} MB; a document may have {} MB at most",
            path.display(),
            size >> 20,
            LARGEST_DOCUMENT >> 20
        );
    }
    match String::from_utf8(std::fs::read(path).map_err(fault)?) {
        Ok(text) => match text.trim_start_matches(BYTE_ORDER_MARK) {
            text if text.trim().is_empty() => bail_input!("{}: is empty", path.display()),
            text => Ok(Document::Text(text.to_string())),
        },
        Err(e) => {
            let at = e.utf8_error().valid_up_to();
            let line = e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            bail_input!("{}:{line}: byte {at} of the file is not UTF-8", path.display())
        }
    }
}

pub(super) fn read_folder(path: &Path) -> Result<Vec<Document>> {
    files(path)?.iter().map(|f| read(f)).collect()
}

/// Every `.txt` and `.md` file below a folder, in the order of their paths.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).map_err(|e| input_error(format!("{}: {e}", folder.display())))?;
        for entry in entries {
            let path = entry?.path();
            let is_text = path.extension().is_some_and(|e| e == "txt" || e == "md");
            if path.is_dir() {
                folders.push(path);
            } else if is_text {
                files.push(path);
            }
        }
    }
    files.sort();
    if files.is_empty() {
        bail_input!(
            "{}: a folder without .txt or .md files (of other kinds, name each file)",
            path.display()
        );
    }
    Ok(files)
}
