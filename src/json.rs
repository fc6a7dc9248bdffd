//! JSON files and files of JSON lines, read strictly: what cannot be understood is refused with file, line and column.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::error::input_error;
use crate::input_file;
use crate::limits::{LARGEST_LINES, LARGEST_TEXT, MOST_JSON_VALUES, MOST_VALUES_OF_LINES};

/// The text of a file; `None` if there is no such file.
///
/// # Errors
/// An [`crate::error::InputError`] if it cannot be read or is not UTF-8.
pub fn text(path: &Path) -> Result<Option<String>> {
    let shown = path.display();
    let bytes = match input_file::read_at_most(path, LARGEST_LINES) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(input_error(format!("{shown}: {e}"))),
    };
    String::from_utf8(bytes).map(Some).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|b| **b == b'\n').count();
        input_error(format!("{shown}:{line}: not UTF-8"))
    })
}

/// Whether a document is of a size that can be held as values.
fn within(text: &str) -> Result<(), String> {
    if text.len() as u64 > LARGEST_TEXT {
        return Err(format!("longer than the {} MiB that are read of a document", LARGEST_TEXT >> 20));
    }
    match has_more_values(text, MOST_JSON_VALUES) {
        true => Err(format!("more than {MOST_JSON_VALUES} values in one document")),
        false => Ok(()),
    }
}

/// Whether JSON has more values than `most`, counted without reading it: each stands behind a comma, a colon or a bracket.
pub fn has_more_values(text: &str, most: usize) -> bool {
    if text.len() <= most {
        return false; // a value takes a byte at least
    }
    let (mut values, mut quoted, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' | b':' if !quoted => values += 1,
            _ => {}
        }
    }
    values > most
}

/// The document in a file that has to be there.
///
/// # Errors
/// An [`crate::error::InputError`] if it cannot be read or is not JSON.
pub fn must_read(path: &Path) -> Result<serde_json::Value> {
    let text =
        input_file::read_to_string(path).map_err(|e| input_error(format!("{}: {e}", path.display())))?;
    within(&text).map_err(|why| input_error(format!("{}: {why}", path.display())))?;
    serde_json::from_str(&text).map_err(|e| input_error(format!("{}: not JSON: {e}", path.display())))
}

/// The document in a file; `None` if there is no such file.
///
/// # Errors
/// An [`crate::error::InputError`] if it is not the JSON of a `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = text(path)? else { return Ok(None) };
    within(&text).map_err(|why| input_error(format!("{}: {why}", path.display())))?;
    match serde_json::from_str(&text) {
        Ok(value) => Ok(Some(value)),
        Err(e) => Err(input_error(format!("{}: {e}", path.display()))),
    }
}

/// What stands in a file of JSON lines.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonLines<T> {
    /// A value a line; empty lines are left out.
    pub values: Vec<T>,
    /// Whether a last line was left out because it ends too early, without a line break: a process that was killed
    /// while it wrote leaves one.
    pub cut_off: bool,
}

/// The lines of a file; `None` if there is no such file. Nothing may be cut off.
///
/// # Errors
/// An [`crate::error::InputError`] with the first line that is not the JSON of a `T`.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Option<Vec<T>>> {
    Ok(parse_lines(path, false)?.map(|lines| lines.values))
}

/// The same of a file that a process may have been killed over, if at least one line is whole.
///
/// # Errors
/// As [`read_lines`].
pub fn read_torn_lines<T: DeserializeOwned>(path: &Path) -> Result<Option<JsonLines<T>>> {
    parse_lines(path, true)
}

fn parse_lines<T: DeserializeOwned>(path: &Path, may_be_torn: bool) -> Result<Option<JsonLines<T>>> {
    let Some(text) = text(path)? else { return Ok(None) };
    if has_more_values(&text, MOST_VALUES_OF_LINES) {
        return Err(input_error(format!("{}: more than {MOST_VALUES_OF_LINES} values", path.display())));
    }
    let mut values = Vec::new();
    let count = text.lines().count();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(value) => values.push(value),
            Err(e) => {
                let is_torn = i + 1 == count && !text.ends_with('\n') && e.is_eof();
                if may_be_torn && is_torn && !values.is_empty() {
                    return Ok(Some(JsonLines { values, cut_off: true }));
                }
                // serde_json counts lines of what it was given, which is always line 1 here.
                let what = e.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                let (file, n, column) = (path.display(), i + 1, e.column());
                return Err(input_error(format!("{file}:{n}: {what} (column {column})")));
            }
        }
    }
    Ok(Some(JsonLines { values, cut_off: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_file_line_and_column_and_only_a_torn_end_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers.jsonl");
        assert_eq!(read_lines::<f64>(&path).unwrap(), None);
        std::fs::write(&path, "1\n\n2\n[3").unwrap();
        let torn = read_torn_lines::<serde_json::Value>(&path).unwrap().unwrap();
        assert_eq!((torn.values.len(), torn.cut_off), (2, true));
        let fault = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            read_torn_lines::<f64>(&path).unwrap_err().to_string().replace(&path.display().to_string(), "F")
        };
        assert_eq!(fault(b"1\n[\n2\n"), "F:2: invalid type: sequence, expected f64 (column 0)");
        assert_eq!(fault(b"1\n\xff"), "F:2: not UTF-8");
        assert_eq!(fault(b"[3"), "F:1: invalid type: sequence, expected f64 (column 0)");
    }

    #[test]
    fn a_document_of_too_many_values_is_refused_before_it_is_read() {
        assert!(!has_more_values("[1, 2, \"a,b,[c\\\",\", 3]", 6));
        assert!(has_more_values("[1,2,3,4,5,6,7,8]", 7));
        assert!(!has_more_values(&format!("{{\"a\": \"{}\"}}", ",[{:".repeat(100)), 20));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        std::fs::write(&path, format!("[{}0]", "0,".repeat(MOST_JSON_VALUES))).unwrap();
        assert!(must_read(&path).unwrap_err().to_string().contains("values in one document"));
        assert!(read::<serde_json::Value>(&path).unwrap_err().to_string().contains("values in one document"));
    }
}
