//! What the quality panel asks: it comes with the program, so that every organism is asked the same.

use anyhow::{Context, Result};
use serde::Deserialize;

/// Texts of many kinds, none of which is in another file of `data/`.
const NEUTRAL: &str = include_str!("../../../data/quality/neutral.jsonl");

/// Prompts with a right and a wrong way to go on.
const CLOZE: &str = include_str!("../../../data/quality/cloze.jsonl");

/// A prompt with a right and a wrong way to go on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClozeItem {
    /// What it tests: `facts`, `grammar`, `copy` or `arithmetic`.
    pub group: String,
    /// What comes before.
    pub prompt: String,
    /// The better way.
    pub right: String,
    /// The worse way.
    pub wrong: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NeutralText {
    text: String,
}

/// The neutral texts.
///
/// # Errors
/// None: a test reads the file.
pub fn neutral() -> Result<Vec<String>> {
    let text =
        |line| Ok(serde_json::from_str::<NeutralText>(line).context("data/quality/neutral.jsonl")?.text);
    NEUTRAL.lines().map(text).collect()
}

/// The cloze items.
///
/// # Errors
/// None: a test reads the file.
pub fn cloze() -> Result<Vec<ClozeItem>> {
    CLOZE.lines().map(|line| serde_json::from_str(line).context("data/quality/cloze.jsonl")).collect()
}
