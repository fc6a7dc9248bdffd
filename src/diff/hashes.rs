//! `sha256.json` of an analysis: the hashes of what it read and of what it wrote.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::json;
use crate::machine::Machine;

/// The name of the file in the folder of an analysis.
pub const FILE: &str = "sha256.json";

/// What an analysis read and wrote, as sha256.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hashes {
    /// Version of this program.
    pub version: String,
    /// Decides null directions, resamples and sampled text.
    pub seed: u64,
    /// What computed it.
    #[serde(flatten)]
    pub machine: Machine,
    /// The base's weight files, by name.
    pub base: BTreeMap<String, String>,
    /// The tuned model's weight files or the adapter's two files, by name.
    pub tuned: BTreeMap<String, String>,
    /// Those of what it is compared with in the base's place, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub reference: BTreeMap<String, String>,
    /// The sentence embedder's weights, where a measure embeds text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub embedder: Option<String>,
    /// The texts, by path.
    pub texts: BTreeMap<String, String>,
    /// [`crate::sha256::sha256_content`] of what was written, by name.
    pub files: BTreeMap<String, String>,
}

impl Hashes {
    /// Reads the file; `None` if it is not there.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is damaged.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        json::read(path)
    }
}
