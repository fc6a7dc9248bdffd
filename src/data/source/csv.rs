//! Tables with a heading: columns `text`, `messages` (as JSON), or `prompt` and `completion`; others are left out.

use std::io::Read;

use anyhow::Result;
use serde_json::{Map, Value};

use super::Take;
use crate::error::input_error;

/// Gives every row to `take` until it says false; `shown` is what messages call the file, and has its ending.
pub(super) fn rows(file: impl Read, shown: &str, take: &mut Take) -> Result<()> {
    let tabs = shown.to_lowercase().contains(".tsv");
    let fault = |e: csv::Error| input_error(format!("{shown}: {e}"));
    let mut table = csv::ReaderBuilder::new().delimiter(if tabs { b'\t' } else { b',' }).from_reader(file);
    let names = table.headers().map_err(fault)?.clone();
    let names: Vec<&str> = names.iter().map(|n| n.trim_start_matches(super::BYTE_ORDER_MARK)).collect();
    for record in table.records() {
        let record = record.map_err(fault)?;
        let line = record.position().map_or(0, csv::Position::line);
        let row = names
            .iter()
            .zip(&record)
            .map(|(name, field)| cell(name, field))
            .collect::<Result<Map<_, _>, _>>();
        if !take(&|| format!("{shown}:{line}"), row.map(Value::Object)) {
            break;
        }
    }
    Ok(())
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
    use super::super::{Document, read};

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
