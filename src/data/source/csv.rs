//! Tables with a heading: columns `text`, `messages` (as JSON), or `prompt` and `completion`; others are left out.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

use super::{Document, Rows, compressed, document};
use crate::error::input_error;

pub(super) fn read(path: &Path) -> Result<Vec<Document>> {
    let tabs = path.to_string_lossy().to_lowercase().contains(".tsv");
    let fault = |e: csv::Error| input_error(format!("{}: {e}", path.display()));
    let mut table = csv::ReaderBuilder::new()
        .delimiter(if tabs { b'\t' } else { b',' })
        .from_reader(compressed::open(path)?);
    let names = table.headers().map_err(fault)?.clone();
    let names: Vec<&str> = names.iter().map(|n| n.trim_start_matches(super::BYTE_ORDER_MARK)).collect();
    let mut rows = Rows::default();
    for record in table.records() {
        let record = record.map_err(fault)?;
        let line = record.position().map_or(0, csv::Position::line);
        let row = names.iter().zip(&record).map(|(name, field)| cell(name, field)).collect::<Result<_, _>>();
        let document = row.and_then(|row: Map<String, Value>| document(&Value::Object(row)));
        if !rows.push(|| format!("{}:{line}", path.display()), document) {
            break;
        }
    }
    rows.finish()
}

/// A field under its column's name; a conversation is JSON in a field.
fn cell(name: &str, field: &str) -> Result<(String, Value), String> {
    let value = match name {
        "messages" => serde_json::from_str(field).map_err(|e| format!("messages: {e}; expected JSON"))?,
        _ => Value::String(field.to_string()),
    };
    Ok((name.to_string(), value))
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;

    #[test]
    fn quoted_fields_and_conversations_are_read() {
        let (_dir, path) = write("a.csv", b"id,text\n1,\"one, \"\"two\"\"\nthree\"\n");
        assert_eq!(read(&path).unwrap(), [Document::Text("one, \"two\"\nthree".into())]);
        let chat = r#"messages
"[{""role"": ""user"", ""content"": ""q""}, {""role"": ""assistant"", ""content"": ""a""}]"
"#;
        let (_dir, path) = write("b.csv", chat.as_bytes());
        assert_eq!(read(&path).unwrap()[0].learned_text(), "a");
    }

    #[test]
    fn each_bad_row_is_named() {
        let (_dir, path) = write("a.csv", b"text\n\" \"\nfine\n\" \"\n");
        let e = read(&path).unwrap_err().to_string();
        assert!(e.contains("a.csv:2: text is empty") && e.contains("a.csv:4: text is empty"), "{e}");
        let (_dir, path) = write("b.csv", b"title,body\na,b\n");
        assert!(read(&path).unwrap_err().to_string().contains("b.csv:2: found keys"));
        let (_dir, path) = write("c.csv", b"text,b\na,b\nc\n");
        assert!(read(&path).unwrap_err().to_string().contains("c.csv: "));
    }
}
