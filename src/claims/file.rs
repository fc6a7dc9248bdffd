//! The file `claims.json`: what claims rest on, and whether they are fresh.
//!
//! `rests_on` holds [`sha256_content`] of each file that the claims were computed from, as `sha256.json` of the analysis
//! does. Claims whose files have other hashes, or that another version of the rules made, are computed again from the same
//! files by whoever reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::json;
use crate::sha256::sha256_content;

/// The name of the file, in a run folder and in a sweep folder.
pub const FILE: &str = "claims.json";

/// Version of the layout of the file and of the rules.
pub const SCHEMA: u32 = 6;

/// Hashes of what claims rest on, by path from the folder.
pub type RestsOn = BTreeMap<String, String>;

/// What says of itself what it rests on.
pub(super) trait Dated {
    /// Its [`SCHEMA`] and what it rests on.
    fn date(&self) -> (u32, &RestsOn);
}

/// The claims in a folder, if they rest on just these files. Those that cannot be read are as good as none: they are made of
/// what lies beside them.
pub(super) fn fresh<T: DeserializeOwned + Dated>(dir: &Path, rests_on: &RestsOn) -> Option<T> {
    let stored: T = json::read(&dir.join(FILE)).ok().flatten()?;
    (stored.date() == (SCHEMA, rests_on)).then_some(stored)
}

/// Hashes of those files, given by their paths from a folder, that are there.
pub(super) fn hashes(dir: &Path, files: &[PathBuf]) -> Result<RestsOn> {
    let there = files.iter().filter(|file| dir.join(file).is_file());
    there.map(|file| Ok((file.to_string_lossy().into_owned(), sha256_content(&dir.join(file))?))).collect()
}
