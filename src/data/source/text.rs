//! Text files, one document each, and folders of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::document::Document;
use super::rows::Format;
use crate::bail_input;
use crate::error::input_error;
use crate::input_file;
use crate::limits::LARGEST_DOCUMENT;
use crate::text_file::{BYTE_ORDER_MARK, is_leftover};

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
    match String::from_utf8(input_file::read_at_most(path, LARGEST_DOCUMENT).map_err(fault)?) {
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

/// Every `.txt` and `.md` file below a folder, whatever the case of its ending, in the order of their paths; without what
/// [`is_leftover`]. A folder that links back to one that was walked is not walked again.
///
/// # Errors
/// An [`crate::error::InputError`] if a folder cannot be read, or holds no text, or data of another kind beside it.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut tables): (Vec<PathBuf>, Vec<String>) = (Vec::new(), Vec::new());
    let (mut folders, mut walked) = (vec![path.to_path_buf()], HashSet::new());
    while let Some(folder) = folders.pop() {
        let fault = |e: std::io::Error| input_error(format!("{}: {e}", folder.display()));
        if !walked.insert(folder.canonicalize().map_err(fault)?) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(fault)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
            if is_leftover(&name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if ["txt", "md"].contains(&ending.as_str()) {
                files.push(path);
            } else if Format::of(&name).is_some() {
                tables.push(path.display().to_string());
            }
        }
    }
    files.sort();
    tables.sort();
    if let (false, Some(first)) = (files.is_empty(), tables.first()) {
        bail_input!(
            "{}: a folder that contains text files and data of another kind, such as {first}; expected one kind, or \
             the name of each file",
            path.display()
        );
    }
    if files.is_empty() {
        bail_input!("{}: a folder without .txt or .md files; name each file of another kind", path.display());
    }
    Ok(files)
}
