//! Where a report may be written.

use std::path::Path;

use anyhow::Result;

use crate::error::input_error;

/// Says now, before any work, if a file cannot be written at `path`.
pub fn check_place(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(input_error(format!("{}: a folder, expected a file name", path.display())));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(input_error(format!("{}: no such folder", folder.display())));
    }
    if path.exists()
        && !["html", "csv", "parquet"].iter().any(|ext| path.extension().is_some_and(|e| e == *ext))
    {
        return Err(input_error(format!(
            "{}: exists already, and does not look like a report; expected a name that ends in .html, .csv or .parquet, or a new one",
            path.display()
        )));
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}
