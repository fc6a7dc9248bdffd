//! A model that `llama-gguf-split` cut into several files.
//!
//! Each part says how many there are (`split.count`) and which it is (`split.no`, from zero); the first has the metadata, and
//! how many tensors there are in all (`split.tensors.count`). Their names end in `-00001-of-00003.gguf` and so on, as
//! llama.cpp's `llama_split_path` has it, and as it looks for them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::gguf::Header;

/// The files of the model of which `path` is the first one, and what they hold in all.
///
/// # Errors
/// If a file cannot be read, `path` is another part than the first, a part is missing or of another model, or the parts hold
/// another number of tensors than the first one says.
pub(crate) fn open(path: &Path) -> Result<(Vec<PathBuf>, Header)> {
    let mut whole = Header::read(path)?;
    let count = whole.integer("split.count").unwrap_or(0);
    if count <= 1 {
        return Ok((vec![path.to_path_buf()], whole));
    }
    let part_of = |header: &Header| header.integer("split.no");
    let parts = match (split_name(path), part_of(&whole)) {
        (_, None) => bail!("split.count = {count}, but split.no is missing"),
        (Some((start, part, of)), Some(no)) if of == count && part == no + 1 => {
            (1..=count).map(|part| path.with_file_name(part_name(&start, part, count))).collect::<Vec<_>>()
        }
        (_, Some(no)) => bail!(
            "part {} of a model that is split into {count} files (split.no, split.count), but its name does not end in {}; \
             expected the names that llama-gguf-split gives",
            no + 1,
            part_name("", no + 1, count)
        ),
    };
    if part_of(&whole) != Some(0) {
        bail!("not the first part of a split model (split.no); open {}", parts[0].display());
    }
    let missing: Vec<String> =
        parts.iter().filter(|part| !part.is_file()).map(|part| part.display().to_string()).collect();
    if !missing.is_empty() {
        bail!("the model is split into {count} files (split.count); missing: {}", missing.join(", "));
    }
    for (i, path) in parts.iter().enumerate().skip(1) {
        let at = || path.display().to_string();
        let part = Header::read(path).with_context(at)?;
        let said = (part.integer("split.count"), part_of(&part));
        if said != (Some(count), Some(i as u64)) {
            bail!("{}: split.count and split.no are {said:?}; expected {count} and {i}", at());
        }
        for (name, info) in part.tensors {
            if whole.tensors.contains_key(&name) {
                bail!("{}: tensor {name} is in an earlier part too", at());
            }
            whole.tensors.insert(name, super::gguf::TensorInfo { part: i, ..info });
        }
    }
    match whole.integer("split.tensors.count") {
        Some(expected) if expected != whole.tensors.len() as u64 => {
            bail!("split.tensors.count = {expected}, but the parts hold {} tensors", whole.tensors.len())
        }
        _ => Ok((parts, whole)),
    }
}

/// The first parts of the models among some files: each that is no later part of another one.
pub(crate) fn first_parts(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_later = |file: &PathBuf| {
        split_name(file).is_some_and(|(start, part, of)| {
            part > 1 && files.contains(&file.with_file_name(part_name(&start, 1, of)))
        })
    };
    files.iter().filter(|file| !is_later(file)).cloned().collect()
}

fn part_name(start: &str, part: u64, of: u64) -> String {
    format!("{start}-{part:05}-of-{of:05}.gguf")
}

/// What a part's name begins with, which part it is, from one, and of how many.
fn split_name(path: &Path) -> Option<(String, u64, u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, of) = name.rsplit_once("-of-")?;
    let (start, part) = rest.rsplit_once('-')?;
    let number = |text: &str| text.parse().ok().filter(|_| text.len() == 5);
    Some((start.to_string(), number(part)?, number(of)?))
}
