//! Text files, one document each, and folders of them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{BYTE_ORDER_MARK, Document};
use crate::bail_input;
use crate::error::input_error;

pub(super) fn read(path: &Path) -> Result<Document> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => {
            Ok(Document::Text(text.trim_start_matches(BYTE_ORDER_MARK).to_string()))
        }
        Ok(_) => bail_input!("{}: is empty", path.display()),
        Err(e) => bail_input!("{}: {e}", path.display()),
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
        bail_input!("{}: a folder without .txt or .md files", path.display());
    }
    Ok(files)
}
