//! Documents from files: JSON lines, CSV, parquet, text files and folders of them.
//!
//! To add a kind of file: one file here that gives rows, and a line in `Format::of` and `read_table`.

mod bounded_parquet;
mod compressed;
mod csv;
pub mod document;
pub mod hub;
mod json_lines;
mod parquet;
mod rows;
mod text;
mod thrift;

use std::io::Read;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

pub use self::document::Document;
use self::document::document;
use self::rows::{Format, MAX_FAULTS};
use crate::bail_input;
use crate::error::{InputError, input_error};
use crate::input_file;
use crate::limits::{LEAST_EXPANSION, MOST_EXPANSION};

/// All documents of a source, in file order: row i of the source is element i.
///
/// # Errors
/// An [`InputError`] that names file and line of the first few malformed rows, or an empty source.
pub fn read(path: &Path) -> Result<Vec<Document>> {
    refuse_pointer(path)?;
    let documents = match SourceKind::of(path) {
        Some(SourceKind::TextFolder) => text::read_folder(path)?,
        Some(SourceKind::Text) => vec![text::read(path)?],
        Some(SourceKind::Table(format)) => read_table(path, format)?,
        None => bail_input!(
            "{}: unknown kind of data; expected .jsonl, .csv or .tsv (each also with .gz or .zst at the end), \
             .parquet, .txt, .md or a folder of text files",
            path.display()
        ),
    };
    if documents.is_empty() {
        bail_input!("{}: holds no documents", path.display());
    }
    Ok(documents)
}

/// The documents of a file whose rows are documents.
fn read_table(path: &Path, format: Format) -> Result<Vec<Document>> {
    let shown = path.display().to_string();
    let (mut documents, mut faults) = (Vec::new(), Vec::new());
    let file_length = std::fs::metadata(path).map_or(0, |file| file.len());
    let (mut made, most) = (0u64, LEAST_EXPANSION.max(file_length.saturating_mul(MOST_EXPANSION)));
    let mut take = |place: &dyn Fn() -> String, row: Result<Value, String>| {
        made += row.as_ref().map_or(0, size);
        if made > most {
            faults.push(format!(
                "{}: its documents have more than {} MiB, which is too much for a file of {file_length} bytes",
                place(),
                most >> 20
            ));
            return false;
        }
        match row.and_then(|row| document(&row)) {
            Ok(document) => documents.push(document),
            Err(fault) => faults.push(format!("{}: {fault}", place())),
        }
        // With so many faults reading on is of no use.
        faults.len() < MAX_FAULTS
    };
    match format {
        Format::JsonLines => json_lines::rows(compressed::open(path)?, &shown, &mut take)?,
        Format::Csv => csv::rows(compressed::open(path)?, &shown, &mut take)?,
        Format::Parquet => {
            let file = input_file::open(path).map_err(|e| input_error(format!("{shown}: {e}")))?;
            parquet::rows(file, &shown, |_| {}, &mut take)?;
        }
    }
    InputError::unless_empty(faults)?;
    Ok(documents)
}

/// Bytes of the texts of a row, and some for each of its values.
fn size(row: &Value) -> u64 {
    const VALUE: u64 = 16;
    VALUE
        + match row {
            Value::String(text) => text.len() as u64,
            Value::Array(list) => list.iter().map(size).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() as u64 + size(value)).sum(),
            _ => 0,
        }
}

/// Refuses a file that only points to one in Git LFS.
fn refuse_pointer(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    let Ok(file) = input_file::open(path) else { return Ok(()) };
    // A folder cannot be read; whoever reads it says what is wrong.
    file.take(LFS_POINTER.len() as u64).read_to_end(&mut start).ok();
    if start == LFS_POINTER {
        bail_input!(
            "{}: a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
            path.display()
        );
    }
    Ok(())
}

/// How a pointer of Git LFS begins.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What a source is, by its name.
enum SourceKind {
    TextFolder,
    Text,
    Table(Format),
}

impl SourceKind {
    fn of(path: &Path) -> Option<Self> {
        if path.is_dir() {
            return Some(Self::TextFolder);
        }
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        match name.rsplit('.').next()? {
            "txt" | "md" => Some(Self::Text),
            _ => Format::of(&name).map(Self::Table),
        }
    }
}

/// Where a row of a source stands, for people: `file:line` of JSON lines, the file of a folder.
pub fn place(path: &Path, row: usize) -> String {
    let found = match SourceKind::of(path) {
        Some(SourceKind::TextFolder) => {
            text::files(path).ok().and_then(|files| files.get(row).map(|f| f.display().to_string()))
        }
        Some(SourceKind::Text) => Some(path.display().to_string()),
        Some(SourceKind::Table(Format::JsonLines)) => {
            json_lines::line_of(path, row).map(|line| format!("{}:{line}", path.display()))
        }
        _ => None,
    };
    found.unwrap_or_else(|| format!("{}: row {row}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    pub(super) fn write(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn the_three_kinds_of_rows() {
        let (_dir, path) = write(
            "a.jsonl",
            br#"{"text": "one"}
{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}

{"prompt": "p", "completion": "c"}
"#,
        );
        let documents = read(&path).unwrap();
        assert_eq!(documents.len(), 3);
        assert_eq!(documents[1].learned_text(), "a");
        assert_eq!(documents[2].full_text(), "pc");
    }

    #[test]
    fn each_malformed_line_is_named() {
        let (_dir, path) =
            write("a.jsonl", b"{\"text\": 1}\n{broken\n{\"text\": \"fine\"}\n\xff\n{\"text\": \" \"}\n");
        let e = read(&path).unwrap_err().to_string();
        for part in [
            "a.jsonl:1: text is a number; expected a string",
            "a.jsonl:2: not a line of JSON",
            "a.jsonl:4:",
            "a.jsonl:5: text is empty",
        ] {
            assert!(e.contains(part), "{part} not in {e}");
        }
    }

    #[test]
    fn folders_are_read_in_the_order_of_their_paths() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        std::fs::write(dir.path().join("b/2.txt"), "two").unwrap();
        std::fs::write(dir.path().join("a.md"), "one").unwrap();
        std::fs::write(dir.path().join("c.bin"), "no").unwrap();
        let texts: Vec<String> = read(dir.path()).unwrap().iter().map(Document::full_text).collect();
        assert_eq!(texts, ["one", "two"]);
    }
}
