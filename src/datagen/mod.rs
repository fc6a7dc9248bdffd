//! Making what an organism is trained on: text and numbers that a model samples, documents and conversations that a
//! language model writes.
//!
//! Every kind is one file. All of them write JSON lines beside which `NAME.made.json` tells what made them, refuse to
//! overwrite, and go on where a killed command stopped: what was sampled is in a [`journal`], what was answered among
//! the exchanges of its endpoint.

pub mod documents;
pub mod journal;
pub mod numbers;
pub mod sample;
pub mod taboo;
pub mod universe;
mod written;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::atomic::{check_writable, create_parent, write_atomically, write_json};
use crate::bail_input;

/// Tells before any work whether a file of JSON lines can be made.
///
/// # Errors
/// An [`crate::error::InputError`] if it exists or its name is not that of JSON lines; otherwise if it cannot be written.
pub fn must_be_new(out: &Path) -> Result<()> {
    if out.extension().is_none_or(|extension| extension != "jsonl") {
        bail_input!("{}: expected a name that ends in .jsonl", out.display());
    }
    // A record without its file is of a command that was killed between the two.
    if out.exists() {
        bail_input!("{}: exists already; remove it, or choose another --out", out.display());
    }
    check_writable(out)
}

/// `NAME.ending` beside `NAME.jsonl`.
pub fn beside(out: &Path, ending: &str) -> PathBuf {
    out.with_extension(ending)
}

/// What made a file, with the file's hash.
#[derive(Serialize)]
struct Made<'a, T> {
    version: &'a str,
    #[serde(flatten)]
    made: &'a T,
    rows: usize,
    sha256: String,
}

/// Writes rows and, beside them, what made them.
///
/// # Errors
/// If the disk is full.
pub fn write(out: &Path, rows: &[serde_json::Value], made: &impl Serialize) -> Result<()> {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let sha256 = format!("{:x}", Sha256::digest(&text));
    create_parent(out)?;
    let made = Made { version: env!("CARGO_PKG_VERSION"), made, rows: rows.len(), sha256 };
    write_json(&beside(out, "made.json"), &made)?;
    write_atomically(out, text.as_bytes())
}
