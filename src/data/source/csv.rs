//! Tables with a heading: columns `text`, `messages` (as JSON), or `prompt` and `completion`; others are left out.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;

use anyhow::Result;
use serde_json::{Map, Value};

use super::rows::Take;
use crate::error::input_error;
use crate::json::has_more_values;
use crate::limits::{LARGEST_DOCUMENT, MOST_COLUMNS, MOST_DOCUMENT_VALUES};
use crate::text_file::BYTE_ORDER_MARK;

/// Gives every row to `take` until it says false; `shown` is what messages call the file, and has its ending.
pub(super) fn rows(file: impl Read, shown: &str, take: &mut Take) -> Result<()> {
    let tabs = shown.to_lowercase().contains(".tsv");
    let delimiter = if tabs { b'\t' } else { b',' };
    let quotes = Rc::new(RefCell::new(Quotes::new(delimiter)));
    let fault = |e: csv::Error| match quotes.borrow().never_closed() {
        Some(line) => never_closed(shown, line),
        None => input_error(format!("{shown}: {e}")),
    };
    let watched = Watched { file, quotes: quotes.clone() };
    let mut table = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(watched);
    let names = table.headers().map_err(fault)?.clone();
    if let Some(line) = quotes.borrow().never_closed() {
        return Err(never_closed(shown, line)); // the heading holds all of the file
    }
    if names.len() > MOST_COLUMNS {
        return Err(input_error(format!(
            "{shown}: {} columns; expected at most {MOST_COLUMNS}",
            names.len()
        )));
    }
    let names: Vec<&str> = names.iter().map(|n| n.trim_start_matches(BYTE_ORDER_MARK)).collect();
    for record in table.records() {
        let record = record.map_err(fault)?;
        if let Some(line) = quotes.borrow().never_closed() {
            return Err(never_closed(shown, line)); // this row may hold the rest of the file
        }
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

/// That a quote has no end, which would make the rest of the file one field.
fn never_closed(shown: &str, line: u64) -> anyhow::Error {
    input_error(format!(
        "{shown}:{line}: a quote opens in this line and is never closed; expected \" at the end of the field (within \
         a field, write \"\" for \")"
    ))
}

/// Follows the quotes of a table as its bytes go by.
struct Quotes {
    delimiter: u8,
    /// Number of the line, from one.
    line: u64,
    /// Bytes so far.
    bytes: u64,
    at: At,
    /// Line in which the last quoted field began.
    opened: u64,
    ended: bool,
    /// Bytes of the row so far.
    row: u64,
}

/// Where a byte of a table stands.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// At the beginning of a field.
    Beginning,
    /// Within a field without quotes, or behind the quotes of one.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote between quotes: the end, or the first half of a doubled one.
    Quote,
}

impl Quotes {
    fn new(delimiter: u8) -> Self {
        Self { delimiter, line: 1, bytes: 0, at: At::Beginning, opened: 0, ended: false, row: 0 }
    }

    fn pass(&mut self, byte: u8) {
        let is_end = byte == self.delimiter || byte == b'\n' || byte == b'\r';
        let mark = BYTE_ORDER_MARK.as_bytes();
        let in_mark = usize::try_from(self.bytes).ok().and_then(|at| mark.get(at)) == Some(&byte);
        self.at = match (self.at, byte) {
            (At::Beginning, b'"') => {
                self.opened = self.line;
                At::Quoted
            }
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) | (At::Quote, b'"') => At::Quoted,
            (At::Beginning, _) if in_mark => At::Beginning,
            _ if is_end => At::Beginning,
            _ => At::Plain,
        };
        self.bytes += 1;
        self.row = if byte == b'\n' && self.at == At::Beginning { 0 } else { self.row + 1 };
        self.line += u64::from(byte == b'\n');
    }

    /// Line of the quote that the end of the file leaves open.
    fn never_closed(&self) -> Option<u64> {
        (self.ended && self.at == At::Quoted).then_some(self.opened)
    }
}

/// A file whose quotes are followed.
struct Watched<R> {
    file: R,
    quotes: Rc<RefCell<Quotes>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        let mut quotes = self.quotes.borrow_mut();
        buffer[..read].iter().for_each(|byte| quotes.pass(*byte));
        quotes.ended = read == 0;
        if quotes.row > LARGEST_DOCUMENT {
            return Err(std::io::Error::other(format!(
                "line {}: a row of more than {} MB, which is the most that a document may have",
                quotes.line,
                LARGEST_DOCUMENT >> 20
            )));
        }
        Ok(read)
    }
}

/// A field under its column's name; a conversation is JSON in a field.
fn cell(name: &str, field: &str) -> Result<(String, Value), String> {
    let value = match name {
        "messages" if has_more_values(field, MOST_DOCUMENT_VALUES) => {
            return Err(format!("messages: more than {MOST_DOCUMENT_VALUES} values"));
        }
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
    fn a_quote_that_is_never_closed_is_told_by_the_line_in_which_it_opens() {
        for (name, content, line) in [
            ("a.csv", "text\nfine\n\"never closed\nmore\nand more\n", Some(3)),
            ("a.csv", "id,text\n1,\"two\nlines\"\n2,\"open, \"\" still\n3,c\n", Some(4)),
            ("a.csv", "text,id\n\"open,1\nb,2\n", Some(2)),
            ("a.csv", "\u{feff}\"text\nfine\n", Some(1)),
            ("a.tsv", "id\ttext\n1\t\"open\n", Some(2)),
            // Closed, or no quotes of a field at all.
            ("a.csv", "text\n\"closed\"\n", None),
            ("a.csv", "text\n\"closed at the end of the file\"", None),
            ("a.csv", "text\r\n\"a\r\nb\"\r\n", None),
            ("a.csv", "\u{feff}\"text\"\n5\" long\na \"word\n", None),
            ("a.csv", "id,text\n,\"\"\"quoted\"\"\"\n", None),
        ] {
            let (_dir, path) = write(name, content.as_bytes());
            match (read(&path), line) {
                (Err(e), Some(line)) => {
                    let e = e.to_string();
                    assert!(e.contains(&format!("{name}:{line}: a quote opens")), "{content:?}: {e}");
                }
                (Ok(_), None) => {}
                (found, _) => panic!("{content:?}: {found:?}"),
            }
        }
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
