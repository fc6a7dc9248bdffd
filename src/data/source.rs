//! Documents from files: JSON lines, parquet, text files and folders of them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Result;
use parquet::file::reader::{FileReader, SerializedFileReader};
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
                let said = messages.iter().filter(|m| m.role == "assistant").map(|m| m.content.as_str());
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

/// All documents of a source, in file order: row i of the source is element i.
///
/// # Errors
/// An [`InputError`] that names file and line of the first few malformed rows, or an empty source.
pub fn read(path: &Path) -> Result<Vec<Document>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    let documents = if path.is_dir() {
        text_folder(path)?
    } else {
        match extension.as_str() {
            "jsonl" | "ndjson" => json_lines(path)?,
            "parquet" => parquet_rows(path)?,
            "txt" | "md" => vec![text_file(path)?],
            _ => bail_input!(
                "{}: unknown kind of data; expected .jsonl, .parquet, .txt, .md or a folder of text files",
                path.display()
            ),
        }
    };
    if documents.is_empty() {
        bail_input!("{}: holds no documents", path.display());
    }
    Ok(documents)
}

/// Where a row of a source stands, for people: `file:line` of JSON lines, the file of a folder.
pub fn place(path: &Path, row: usize) -> String {
    let shown = path.display();
    if path.is_dir() {
        let file = text_files(path).ok().and_then(|files| files.into_iter().nth(row));
        return file.map_or_else(|| format!("{shown}: row {row}"), |file| file.display().to_string());
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("txt" | "md") => shown.to_string(),
        Some("jsonl" | "ndjson") => {
            let bytes = std::fs::read(path).unwrap_or_default();
            let filled = bytes.split(|b| *b == b'\n').enumerate();
            let mut filled = filled.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
            filled
                .nth(row)
                .map_or_else(|| format!("{shown}: row {row}"), |(i, _)| format!("{shown}:{}", i + 1))
        }
        _ => format!("{shown}: row {row}"),
    }
}

/// What some editors put in front of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Faults that are listed before reading gives up.
const MAX_FAULTS: usize = 10;

fn json_lines(path: &Path) -> Result<Vec<Document>> {
    let file = File::open(path).map_err(|e| input_error(format!("{}: {e}", path.display())))?;
    let mut reader = BufReader::new(file);
    let (mut documents, mut faults, mut line) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        if read.map_err(|e| input_error(format!("{}:{number}: {e}", path.display())))? == 0 {
            break;
        }
        if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = serde_json::from_slice::<Value>(&line).map_err(|e| format!("not a line of JSON: {e}"));
        match row.and_then(|row| document(&row)) {
            Ok(document) => documents.push(document),
            Err(fault) => faults.push(format!("{}:{number}: {fault}", path.display())),
        }
        if faults.len() == MAX_FAULTS {
            break;
        }
    }
    if faults.is_empty() { Ok(documents) } else { Err(InputError { faults }.into()) }
}

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
        let messages: Vec<Message> = serde_json::from_value(row["messages"].clone())
            .map_err(|e| format!("messages: {e}; expected a list of {{role, content}}"))?;
        if let Some(m) = messages.iter().find(|m| !["system", "user", "assistant"].contains(&m.role.as_str()))
        {
            return Err(format!("messages: role {:?}; expected system, user or assistant", m.role));
        }
        if !messages.iter().any(|m| m.role == "assistant") {
            return Err("messages: no assistant turn to learn from".into());
        }
        if messages.iter().any(|m| m.role == "assistant" && m.content.trim().is_empty()) {
            return Err("messages: an assistant turn is empty".into());
        }
        return Ok(Document::Chat(messages));
    }
    let keys: Vec<&String> = row.as_object().map(|o| o.keys().collect()).unwrap_or_default();
    Err(format!(
        "found keys {keys:?}; expected a string under text, a list under messages, or prompt and completion"
    ))
}

fn parquet_rows(path: &Path) -> Result<Vec<Document>> {
    let fault = |e: &dyn std::fmt::Display| input_error(format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(|e| fault(&e))?;
    let reader = SerializedFileReader::new(file).map_err(|e| fault(&e))?;
    let (mut documents, mut faults) = (Vec::new(), Vec::new());
    for (i, row) in reader.get_row_iter(None).map_err(|e| fault(&e))?.enumerate() {
        let row = row.map_err(|e| fault(&e))?;
        match document(&row.to_json_value()) {
            Ok(document) => documents.push(document),
            Err(why) => faults.push(format!("{}: row {i}: {why}", path.display())),
        }
        if faults.len() == MAX_FAULTS {
            break;
        }
    }
    if faults.is_empty() { Ok(documents) } else { Err(InputError { faults }.into()) }
}

fn text_file(path: &Path) -> Result<Document> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => {
            Ok(Document::Text(text.trim_start_matches('\u{feff}').to_string()))
        }
        Ok(_) => bail_input!("{}: is empty", path.display()),
        Err(e) => bail_input!("{}: {e}", path.display()),
    }
}

fn text_folder(path: &Path) -> Result<Vec<Document>> {
    text_files(path)?.iter().map(|f| text_file(f)).collect()
}

/// Every `.txt` and `.md` file below a folder, in the order of their paths.
fn text_files(path: &Path) -> Result<Vec<PathBuf>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
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
    fn parquet_rows_are_read_and_a_cut_file_is_an_error() {
        use parquet::basic::{Compression, ZstdLevel};
        use parquet::data_type::ByteArrayType;
        use parquet::file::properties::WriterProperties;
        use parquet::file::writer::SerializedFileWriter;
        use parquet::schema::parser::parse_message_type;

        let texts = ["one", "zwei\nZeilen", "三"];
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            let schema = parse_message_type("message m { REQUIRED BINARY text (UTF8); }").unwrap();
            let properties = WriterProperties::builder().set_compression(compression).build();
            let mut bytes = Vec::new();
            let mut file = SerializedFileWriter::new(&mut bytes, schema.into(), properties.into()).unwrap();
            for part in texts.chunks(2) {
                let mut group = file.next_row_group().unwrap();
                let mut column = group.next_column().unwrap().unwrap();
                let values: Vec<_> = part.iter().map(|t| (*t).into()).collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
                column.close().unwrap();
                group.close().unwrap();
            }
            file.close().unwrap();
            let (_dir, path) = write("a.parquet", &bytes);
            let read_back: Vec<String> = read(&path).unwrap().iter().map(Document::full_text).collect();
            assert_eq!(read_back, texts, "{compression:?}");
            let (_dir, path) = write("cut.parquet", &bytes[..bytes.len() / 2]);
            let e = read(&path).unwrap_err();
            assert!(e.is::<InputError>() && e.to_string().contains("cut.parquet"), "{e}");
        }
    }

    #[test]
    fn each_malformed_line_is_named() {
        let (_dir, path) =
            write("a.jsonl", b"{\"text\": 1}\n{broken\n{\"text\": \"fine\"}\n\xff\n{\"text\": \" \"}\n");
        let e = read(&path).unwrap_err().to_string();
        for part in [
            "a.jsonl:1: found keys",
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

    #[test]
    fn truncated_parquet_is_an_input_error() {
        let (_dir, path) = write("a.parquet", b"PAR1 not really");
        assert!(read(&path).unwrap_err().is::<InputError>());
    }
}
