//! Every exchange with an endpoint, in a file of JSON lines that is also the memory of what was answered.
//!
//! A question is known by the sha256 of everything that decides its answer (server, model, parameters, messages, and
//! which of several askings it is). A line is flushed before its answer is used, so a killed command has lost
//! nothing that it used; the line it died on, if it is torn, is dropped.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::atomic::{OpenLines, drop_torn_line, open_lines};
use crate::bail_input;

/// One line: a question and its answer, or what went wrong instead.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchange {
    /// What the answer depends on, see [`key`].
    pub key: String,
    /// Seconds since 1970.
    pub time: f64,
    /// Seconds from the request to the whole answer.
    pub elapsed_s: f64,
    /// Where it was asked.
    pub base_url: String,
    /// Which asking of the same question this is.
    pub sample: u32,
    /// The body that was sent.
    pub request: Value,
    /// The body that came back; absent after a failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response: Option<Value>,
    /// The server's own count of tokens (also in `response`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Value>,
    /// What went wrong; absent after an answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// sha256 over everything that decides an answer.
pub fn key(base_url: &str, request: &Value, sample: u32) -> String {
    let all = serde_json::json!([base_url, request, sample]);
    format!("{:x}", Sha256::digest(all.to_string()))
}

/// How a line that [`Exchanges::append`] writes begins.
const BEFORE: &[u8] = b"{\"key\":\"";

/// Whether bytes are the beginning of a line that [`Exchanges::append`] writes, up to wherever it was torn.
fn begins_an_exchange(torn: &[u8]) -> bool {
    const AFTER: &[u8] = b"\",\"time\":";
    let (start, rest) = torn.split_at(torn.len().min(BEFORE.len()));
    let hash = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count().min(64);
    let end = &rest[hash..];
    BEFORE.starts_with(start)
        && (end.is_empty() || (hash == 64 && (AFTER.starts_with(end) || end.starts_with(AFTER))))
}

/// The file, held open and locked against a second process.
#[derive(Debug)]
pub struct Exchanges {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    answers: HashMap<String, Value>,
}

impl Exchanges {
    /// Opens or makes the file and reads the answers in it.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if another process holds it, or a line other than the last is not one of
    /// ours; otherwise if it cannot be read or written.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let OpenLines { mut file, lines: bytes, torn } = open_lines(path)?;
        let mut answers = HashMap::new();
        for (i, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
            match serde_json::from_slice::<Exchange>(line) {
                Ok(Exchange { key, response: Some(response), .. }) => {
                    answers.insert(key, response);
                }
                Ok(_) => {}
                Err(e) => bail_input!("{shown}:{}: {e}; expected an exchange", i + 1),
            }
        }
        // Behind lines that are ours the beginning of a line suffices.
        let is_ours = begins_an_exchange(&torn) || (!bytes.is_empty() && torn.starts_with(BEFORE));
        if !is_ours {
            let line = bytes.iter().filter(|b| **b == b'\n').count() + 1;
            bail_input!(
                "{shown}:{line}: has no line break at its end and is no exchange; the file is left as it is"
            );
        }
        drop_torn_line(&mut file, &bytes).with_context(|| format!("writing {shown}"))?;
        Ok(Self { path: path.to_path_buf(), open: Mutex::new(Open { file, answers }) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The body of an earlier answer.
    pub fn find(&self, key: &str) -> Option<Value> {
        self.locked().answers.get(key).cloned()
    }

    /// Appends a line and flushes it to the disk.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn append(&self, exchange: Exchange) -> Result<()> {
        let mut line = serde_json::to_vec(&exchange)?;
        line.push(b'\n');
        let mut open = self.locked();
        open.file
            .write_all(&line)
            .and_then(|()| open.file.sync_data())
            .with_context(|| format!("writing {}", self.path.display()))?;
        if let Some(response) = exchange.response {
            open.answers.insert(exchange.key, response);
        }
        Ok(())
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn exchange(key: &str, response: Option<Value>) -> Exchange {
        Exchange {
            key: key.into(),
            time: 1.0,
            elapsed_s: 0.5,
            base_url: "http://x".into(),
            sample: 0,
            request: json!({}),
            error: response.is_none().then(|| "lost".into()),
            response,
            usage: None,
        }
    }

    #[test]
    fn a_torn_last_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/exchanges.jsonl");
        let file = Exchanges::open(&path).unwrap();
        file.append(exchange("a", Some(json!({"n": 1})))).unwrap();
        file.append(exchange("lost", None)).unwrap();
        assert!(Exchanges::open(&path).unwrap_err().to_string().contains("another process"));
        drop(file);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"key\":\"b0")).unwrap();

        let file = Exchanges::open(&path).unwrap();
        assert_eq!(file.find("a"), Some(json!({"n": 1})));
        assert_eq!((file.find("b"), file.find("lost")), (None, None));
        file.append(exchange("b", Some(json!(2)))).unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
        assert_eq!(Exchanges::open(&path).unwrap().find("b"), Some(json!(2)));
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.jsonl");
        std::fs::write(&path, "{\"text\": 1}\n").unwrap();
        assert!(Exchanges::open(&path).unwrap_err().to_string().contains("notes.jsonl:1"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"text\": 1}\n");
        // Without a line break at its end, too, and behind lines that are ours.
        let ours = serde_json::to_string(&exchange("a", None)).unwrap();
        for content in ["notes", "{\"text\": 1}", "{\"key\": 1}", &format!("{ours}\nnotes"), "{\"key\":\"zz"]
        {
            std::fs::write(&path, content).unwrap();
            assert!(Exchanges::open(&path).unwrap_err().to_string().contains("no exchange"), "{content}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        let torn = format!("{{\"key\":\"{}\",\"time\":1.", "0a".repeat(32));
        for length in 0..=torn.len() {
            std::fs::write(&path, &torn[..length]).unwrap();
            Exchanges::open(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"");
        }
    }
}
