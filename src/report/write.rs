//! Files that appear whole or not at all.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

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
    Ok(())
}

/// Writes to a file beside `path`, then renames it, so that no reader ever sees half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name =
        path.file_name().with_context(|| format!("{}: not a file name", path.display()))?.to_string_lossy();
    let temporary = folder_of(path).join(format!(".{name}.{}.part", std::process::id()));
    let done = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        // The first error is the one to tell; a leftover is only untidy.
        let _ = fs::remove_file(&temporary);
    }
    done.with_context(|| format!("write {}", path.display()))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}
