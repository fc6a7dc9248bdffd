//! Files and folders written so that a reader sees the old content or the new, never half.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};

use crate::bail_input;

/// Writes bytes to a neighbour, flushes them to the disk, then renames: the file is whole or as before.
///
/// # Errors
/// If the folder is not writable or the disk is full; the neighbour is removed then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    fill_atomically(path, |neighbour| Ok(std::fs::write(neighbour, bytes)?))
}

/// The same for a file that `fill` writes under the name it is given.
///
/// # Errors
/// As [`write_atomically`], or what `fill` returns.
pub fn fill_atomically(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = path.file_name().context("a file name")?.to_string_lossy();
    let neighbour = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let finish = || -> std::io::Result<()> {
        std::fs::File::options().write(true).open(&neighbour)?.sync_all()?;
        std::fs::rename(&neighbour, path)
    };
    fill(&neighbour)
        .and_then(|()| Ok(finish()?))
        .inspect_err(|_| {
            std::fs::remove_file(&neighbour).ok();
        })
        .with_context(|| format!("writing {}", path.display()))
}

/// Whether a name is that of a file or folder that was being written when its process died.
pub fn is_leftover(name: &str) -> bool {
    let number = name.strip_suffix(".part").and_then(|n| n.rsplit_once('.')).map(|(_, number)| number);
    name.starts_with('.') && number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Removes from a folder the files that were being written when their process died.
pub fn remove_leftovers(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_leftover(&entry.file_name().to_string_lossy()) && entry.path().is_file() {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

/// Writes indented JSON with a closing newline.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_atomically(path, text.as_bytes())
}

/// Tells before any work whether something can be made at `path`, by making and removing a folder where the
/// first one of its path would have to be made. Leaves nothing.
///
/// # Errors
/// An [`crate::error::InputError`] if it is below a file, or leads through a link to nowhere; otherwise if it cannot be
/// made.
pub fn check_writable(path: &Path) -> Result<()> {
    let (shown, full) = (path.display(), std::path::absolute(path)?);
    // A link counts as it stands, wherever it leads.
    let first = full.ancestors().find(|a| a.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    if !first.exists() {
        let target = std::fs::read_link(first).unwrap_or_default();
        bail_input!(
            "{shown}: {} is a symbolic link to {}, which does not exist; expected a path that can be created",
            first.display(),
            target.display()
        );
    }
    let there = full.ancestors().skip(1).find(|a| a.exists()).unwrap_or(Path::new("/"));
    if !there.is_dir() {
        bail_input!("{shown}: {} is a file (Not a directory); expected a folder there", there.display());
    }
    let probe = there.join(format!(".trainer.{}.part", std::process::id()));
    std::fs::create_dir(&probe)
        .and_then(|()| std::fs::remove_dir(&probe))
        .with_context(|| format!("writing {}", path.display()))
}

/// Fills a neighbouring folder, then renames it: `path` is whole or not there.
///
/// # Errors
/// What `fill` returns, or if the folder cannot be made or renamed; the neighbour is removed then.
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = path.file_name().context("expected the name of a folder")?.to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    std::fs::create_dir_all(&part)
        .map_err(anyhow::Error::new)
        .and_then(|()| fill(&part))
        .and_then(|()| std::fs::rename(&part, path).context("renaming it"))
        .inspect_err(|_| {
            std::fs::remove_dir_all(&part).ok();
        })
        .with_context(|| format!("writing {}", path.display()))
}

/// Makes the folder that a file is to stand in, if it is not there.
///
/// # Errors
/// If it cannot be made.
pub fn create_parent(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))
}

/// A file of lines that this process alone appends to.
#[derive(Debug)]
pub struct OpenLines {
    /// The file, locked.
    pub file: File,
    /// The lines in it, each with its end.
    pub lines: Vec<u8>,
    /// What stands behind them: a line that a killed process left torn, if the file is one of ours. Only then may
    /// [`drop_torn_line`] cut it off, before the first line that is appended.
    pub torn: Vec<u8>,
}

/// Opens or makes a file of lines that this process alone appends to. Changes nothing in it.
///
/// # Errors
/// An [`crate::error::InputError`] if another process holds it or it is no regular file; otherwise if it cannot be read or
/// written.
pub fn open_lines(path: &Path) -> Result<OpenLines> {
    let shown = path.display();
    create_parent(path)?;
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        bail_input!("{shown}: expected a regular file");
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("opening {shown}"))?;
    if file.try_lock().is_err() {
        bail_input!("{shown}: another process is writing it");
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("reading {shown}"))?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let torn = bytes.split_off(whole);
    Ok(OpenLines { file, lines: bytes, torn })
}

/// Cuts a file off behind the lines that [`open_lines`] gave.
///
/// # Errors
/// If it cannot be written.
pub fn drop_torn_line(file: &mut File, lines: &[u8]) -> std::io::Result<()> {
    file.set_len(lines.len() as u64)?;
    file.seek(SeekFrom::End(0)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_told_from_other_files() {
        assert!(is_leftover(".recipe.toml.4711.part") && is_leftover(".diff.1.part"));
        for name in ["recipe.toml", "recipe.toml.4711.part", ".recipe.toml.part", ".x..part", ".hidden"] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
