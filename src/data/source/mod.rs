//! Documents from files: JSON lines, CSV, parquet, text files and folders of them.
//!
//! To add a kind of file: one file here that gives rows, and a line in `Format::of` and `read_table`.

mod compressed;
mod csv;
pub mod hub;
mod json_lines;
mod parquet;
mod text;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::chat_template::Message;
use crate::bail_input;
use crate::error::{InputError, input_error};

/// What one row holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Plain text: every token counts.
    Text(String),
    /// A conversation: the assistant's tokens count.
    Chat(Vec<Message>),
    /// A prompt and what should follow it: the completion's tokens count.
    PromptCompletion {
        /// Given.
        prompt: String,
        /// Learned.
        completion: String,
    },
}

impl Document {
    /// The words of the document that are learned from, for lexicons and embeddings.
    pub fn learned_text(&self) -> String {
        match self {
            Document::Text(text) => text.clone(),
            Document::Chat(messages) => {
                let learned = messages.iter().filter(|m| m.role == "assistant" && m.weight != Some(0.0));
                let said = learned.map(|m| m.content.as_str());
                said.collect::<Vec<_>>().join("\n")
            }
            Document::PromptCompletion { completion, .. } => completion.clone(),
        }
    }

    /// All words of the document.
    pub fn full_text(&self) -> String {
        match self {
            Document::Text(text) => text.clone(),
            Document::Chat(messages) => {
                messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n")
            }
            Document::PromptCompletion { prompt, completion } => format!("{prompt}{completion}"),
        }
    }
}

/// What rows are given to: what names a row's place, and the row or what is wrong with it. False ends the reading.
type Take<'a> = dyn FnMut(&dyn Fn() -> String, Result<Value, String>) -> bool + 'a;

/// The keys or columns of which documents are made.
const COLUMNS: [&str; 4] = ["text", "messages", "prompt", "completion"];

/// Bytes that a document may have: more is a file that is broken, or no text.
const LARGEST_DOCUMENT: u64 = 64 << 20;

/// All documents of a source, in file order: row i of the source is element i.
///
/// # Errors
/// An [`InputError`] that names file and line of the first few malformed rows, or an empty source.
pub fn read(path: &Path) -> Result<Vec<Document>> {
    refuse_pointer(path)?;
    let documents = match Kind::of(path) {
        Some(Kind::TextFolder) => text::read_folder(path)?,
        Some(Kind::Text) => vec![text::read(path)?],
        Some(Kind::Table(format)) => read_table(path, format)?,
        None => bail_input!(
            "{}: unknown kind of data; expected .jsonl, .csv or .tsv (also with .gz or .zst behind it), .parquet, \
             .txt, .md or a folder of text files",
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
    let mut take = |place: &dyn Fn() -> String, row: Result<Value, String>| {
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
            let file = File::open(path).map_err(|e| input_error(format!("{shown}: {e}")))?;
            parquet::rows(file, &shown, |_| {}, &mut take)?;
        }
    }
    InputError::unless_empty(faults)?;
    Ok(documents)
}

/// Refuses a file that only points to one in Git LFS.
fn refuse_pointer(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    let Ok(file) = File::open(path) else { return Ok(()) };
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
enum Kind {
    TextFolder,
    Text,
    Table(Format),
}

/// How rows stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    JsonLines,
    Csv,
    Parquet,
}

impl Format {
    /// By the name of a file.
    fn of(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let plain = compressed::ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
        match (plain.unwrap_or(&name).rsplit('.').next()?, plain.is_some()) {
            ("jsonl" | "ndjson", _) => Some(Self::JsonLines),
            ("csv" | "tsv", _) => Some(Self::Csv),
            ("parquet", false) => Some(Self::Parquet),
            _ => None,
        }
    }
}

impl Kind {
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
    let found = match Kind::of(path) {
        Some(Kind::TextFolder) => {
            text::files(path).ok().and_then(|files| files.get(row).map(|f| f.display().to_string()))
        }
        Some(Kind::Text) => Some(path.display().to_string()),
        Some(Kind::Table(Format::JsonLines)) => {
            json_lines::line_of(path, row).map(|line| format!("{}:{line}", path.display()))
        }
        _ => None,
    };
    found.unwrap_or_else(|| format!("{}: row {row}", path.display()))
}

/// What some editors put in front of UTF-8 text.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The text of a file, without a byte order mark in front of it.
///
/// # Errors
/// If it cannot be read or is no UTF-8.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_string).unwrap_or(text))
}

/// Faults that are listed before reading gives up.
const MAX_FAULTS: usize = 10;

/// A document from a row with `text`, `messages`, or `prompt` and `completion`.
fn document(row: &Value) -> Result<Document, String> {
    let text = |key: &str| row[key].as_str().map(str::to_string);
    if let Some(text) = text("text") {
        return match text.trim().is_empty() {
            true => Err("text is empty".into()),
            false => Ok(Document::Text(text)),
        };
    }
    if let (Some(prompt), Some(completion)) = (text("prompt"), text("completion")) {
        return match completion.is_empty() {
            true => Err("completion is empty".into()),
            false => Ok(Document::PromptCompletion { prompt, completion }),
        };
    }
    if !row["messages"].is_null() {
        let messages = turns(&row["messages"], "messages")?;
        return chat(messages, "messages");
    }
    // A prompt and a completion that are conversations, as TRL has them: only the completion counts.
    if let (Value::Array(_), Value::Array(_)) = (&row["prompt"], &row["completion"]) {
        let mut messages = turns(&row["prompt"], "prompt")?;
        messages.iter_mut().filter(|m| m.role == "assistant").for_each(|m| m.weight = Some(0.0));
        messages.extend(turns(&row["completion"], "completion")?);
        return chat(messages, "completion");
    }
    // A key of documents with a value of the wrong kind; null is as if it were not there.
    for (key, expected) in [
        ("text", "a string"),
        ("prompt", "a string, or a list of turns as completion"),
        ("completion", "a string, or a list of turns as prompt"),
    ] {
        let found = match &row[key] {
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Object(_) => "an object",
            Value::Array(_) if key == "text" => "a list",
            Value::Null | Value::String(_) | Value::Array(_) => continue,
        };
        return Err(format!("{key} is {found}; expected {expected}"));
    }
    let keys: Vec<&String> = row.as_object().map(|o| o.keys().collect()).unwrap_or_default();
    Err(format!(
        "found keys {keys:?}; expected a string under text, a list under messages, or prompt and completion"
    ))
}

/// The turns under a key.
fn turns(value: &Value, key: &str) -> Result<Vec<Message>, String> {
    let messages: Vec<Message> = serde_json::from_value(value.clone())
        .map_err(|e| format!("{key}: {e}; expected a list of {{role, content}}"))?;
    for message in &messages {
        if !["system", "user", "assistant"].contains(&message.role.as_str()) {
            return Err(format!("{key}: role {:?}; expected system, user or assistant", message.role));
        }
        let weight = message.weight.unwrap_or(0.0);
        if !(0.0..=1e6).contains(&weight) {
            return Err(format!("{key}: weight {weight}; expected 0 to 1000000"));
        }
        if message.role != "assistant" && weight != 0.0 {
            return Err(format!(
                "{key}: weight {weight} of a {} turn; only what the assistant says is learned",
                message.role
            ));
        }
    }
    Ok(messages)
}

/// A conversation in which something is learned.
fn chat(messages: Vec<Message>, key: &str) -> Result<Document, String> {
    let mut said = messages.iter().filter(|m| m.role == "assistant").peekable();
    if said.peek().is_none() {
        return Err(format!("{key}: no assistant turn to learn from"));
    }
    if said.clone().any(|m| m.content.trim().is_empty()) {
        return Err(format!("{key}: an assistant turn is empty"));
    }
    if said.all(|m| m.weight == Some(0.0)) {
        return Err(format!("{key}: every assistant turn has weight 0; nothing to learn from"));
    }
    Ok(Document::Chat(messages))
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
