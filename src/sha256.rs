//! sha256 of files and folders: of their bytes, or of their content without the times that no run repeats.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Deserializer, Value};
use sha2::{Digest, Sha256};

use crate::input_file;
use crate::text_file::is_leftover;

/// sha256 of a file, or of the names and hashes of the files below a folder: of all but what [`is_leftover`], so that a file
/// manager which looks into a folder of data changes nothing.
///
/// # Errors
/// If something cannot be read.
pub fn sha256_path(path: &Path) -> Result<String> {
    if !path.is_dir() {
        return sha256_file(path);
    }
    let mut entries = std::fs::read_dir(path)?.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    entries.sort();
    let mut hasher = Sha256::new();
    let here = path.canonicalize()?;
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A link to a folder around it would never end.
        let leads_back =
            || entry.is_dir() && entry.canonicalize().is_ok_and(|folder| here.starts_with(folder));
        if is_leftover(&name) || leads_back() {
            continue;
        }
        hasher.update(name.as_bytes());
        hasher.update(sha256_path(&entry)?);
    }
    Ok(format!("{:x}", hasher.finalize()))
}

/// sha256 of a text, in lower-case hexadecimal.
pub fn sha256_text(text: &str) -> String {
    format!("{:x}", Sha256::digest(text.as_bytes()))
}

/// sha256 of texts, each with its length before it, so that no two lists have the same bytes.
pub fn sha256_texts(texts: &[String]) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    format!("{:x}", hasher.finalize())
}

/// sha256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let context = || format!("cannot read {}", path.display());
    let mut file = input_file::open(path).with_context(context)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).with_context(context)? {
            0 => return Ok(format!("{:x}", hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// The JSON files of a run that hold times beside results.
const TIMED: [&str; 4] = ["metrics.jsonl", "trainer_state.json", "search.json", "readability.json"];

/// Their keys that hold times.
const TIMES: [&str; 4] = ["elapsed_s", "seconds", "tokens_per_s", "trace_s"];

/// sha256 of what two equal runs have in common in a file: of the bytes; or where the file holds times, of its
/// JSON documents without them, a line each. A damaged file is hashed as it is.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_content(path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !TIMED.contains(&name.as_ref()) {
        return sha256_file(path);
    }
    let bytes = input_file::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hasher = Sha256::new();
    for document in Deserializer::from_slice(&bytes).into_iter::<Value>() {
        let Ok(mut document) = document else { return sha256_file(path) };
        without_times(&mut document);
        hasher.update(format!("{document}\n"));
    }
    Ok(format!("{:x}", hasher.finalize()))
}

/// Takes the times out of a document: its own, and those of the tables in it.
fn without_times(document: &mut Value) {
    if let Some(object) = document.as_object_mut() {
        object.retain(|key, _| !TIMES.contains(&key.as_str()));
        object.values_mut().for_each(without_times);
    }
}

/// [`sha256_content`] of every file below a folder, by its path from `root`.
///
/// # Errors
/// If something cannot be read.
pub fn sha256_tree(root: &Path, folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sha256_tree(root, &path)?);
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path);
            found.insert(name.to_string_lossy().into_owned(), sha256_content(&path)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_do_not_count_and_everything_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let hash = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            sha256_content(&path).unwrap()
        };
        let line = |loss: &str, time: &str| format!("{{\"step\":1,\"loss\":{loss},\"elapsed_s\":{time}}}\n");
        let one = hash("metrics.jsonl", &line("2.5", "0.25"));
        assert_eq!(one, hash("metrics.jsonl", &line("2.5", "0.75")));
        for other in [line("2.25", "0.25"), line("2.5", "0.25").repeat(2), line("2.5", "0.25")[..20].into()] {
            assert_ne!(one, hash("metrics.jsonl", &other), "{other}");
        }
        assert_ne!(hash("config.json", &line("2.5", "0.25")), hash("config.json", &line("2.5", "0.75")));
    }
}
