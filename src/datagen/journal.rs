//! What was sampled so far, a flushed line a batch, so that a killed command goes on where it stopped.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::atomic::{OpenLines, drop_torn_line, open_lines};
use crate::bail_input;

/// The file, held open and locked against a second process. Its first line holds the settings that decide every other.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens or makes the file; gives the batches in it. A torn last line is dropped.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if other settings began it, another process holds it or it is no journal;
    /// otherwise if it cannot be read or written.
    pub fn open<T: DeserializeOwned>(path: &Path, settings: &impl Serialize) -> Result<(Self, Vec<T>)> {
        let shown = path.display();
        let settings = serde_json::to_value(settings)?;
        let OpenLines { mut file, lines: bytes, torn } = open_lines(path)?;
        let mut lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let began = match lines.next().map(serde_json::from_slice::<Value>) {
            None => None,
            Some(Ok(began @ Value::Object(_))) => Some(began),
            Some(_) => bail_input!("{shown}:1: expected the settings of a journal; remove the file"),
        };
        let mut batches = Vec::new();
        for (i, line) in lines.enumerate() {
            match serde_json::from_slice(line) {
                Ok(batch) => batches.push(batch),
                Err(e) => bail_input!("{shown}:{}: {e}; expected a batch; remove the file", i + 2),
            }
        }
        if let Some(began) = &began
            && *began != settings
        {
            bail_input!(
                "{shown}: was started with other settings: {}; use those settings, or remove the file to start over",
                differences(began, &settings)
            );
        }
        // Behind our first line all is ours; without it only the beginning of that line is.
        if began.is_none() && !settings.to_string().as_bytes().starts_with(&torn) {
            bail_input!("{shown}: is no journal of these settings; the file is left as it is");
        }
        drop_torn_line(&mut file, &bytes).with_context(|| format!("writing {shown}"))?;
        let mut journal = Self { path: path.to_path_buf(), file };
        if began.is_none() {
            journal.append(&settings)?;
        }
        Ok((journal, batches))
    }

    /// Appends a batch and flushes it to the disk.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn append(&mut self, batch: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(batch)?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .with_context(|| format!("writing {}", self.path.display()))
    }

    /// Removes the file: what it held has been written elsewhere.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

/// The keys whose values differ, with both.
fn differences(before: &Value, now: &Value) -> String {
    let empty = serde_json::Map::new();
    let (before, now) = (before.as_object().unwrap_or(&empty), now.as_object().unwrap_or(&empty));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let value = |of: &serde_json::Map<String, Value>, key: &str| of.get(key).cloned().unwrap_or_default();
    let differing = keys.into_iter().filter(|key| value(before, key) != value(now, key));
    let shown = differing.map(|key| format!("{key} = {} (now {})", value(before, key), value(now, key)));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_goes_on_after_a_torn_line_with_the_same_settings_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/a.partial");
        let settings = json!({"seed": 1, "base": "m"});
        let (mut journal, batches) = Journal::open::<Vec<u32>>(&path, &settings).unwrap();
        assert!(batches.is_empty());
        journal.append(&[1, 2]).unwrap();
        assert!(
            Journal::open::<Vec<u32>>(&path, &settings).unwrap_err().to_string().contains("another process")
        );
        drop(journal);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}[3, ")).unwrap();

        let (mut journal, batches) = Journal::open::<Vec<u32>>(&path, &settings).unwrap();
        assert_eq!(batches, [[1, 2]]);
        journal.append(&[3]).unwrap();
        drop(journal);
        let (journal, batches) = Journal::open::<Vec<u32>>(&path, &settings).unwrap();
        assert_eq!(batches, [vec![1, 2], vec![3]]);
        drop(journal);

        let other = Journal::open::<Vec<u32>>(&path, &json!({"seed": 2, "base": "m"})).unwrap_err();
        assert!(other.to_string().contains("seed = 1 (now 2)"), "{other}");
        assert!(!other.to_string().contains("base"), "{other}");
        Journal::open::<Vec<u32>>(&path, &settings).unwrap().0.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["notes\n", "{\"a\": 1}\nnotes\n", "notes", "{\"b\":1}", "{\"b\":1}\nnotes"] {
            let path = dir.path().join("notes");
            std::fs::write(&path, content).unwrap();
            assert!(Journal::open::<Vec<u32>>(&path, &json!({"a": 1})).is_err(), "{content}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
