//! Files whose rows are documents: their kinds, and how their rows are handed on.

use serde_json::Value;

use super::compressed;

/// What rows are given to: what names a row's place, and the row or what is wrong with it. False ends the reading.
pub(super) type Take<'a> = dyn FnMut(&dyn Fn() -> String, Result<Value, String>) -> bool + 'a;

/// Faults that are listed before reading gives up.
pub(super) const MAX_FAULTS: usize = 10;

/// How rows stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    JsonLines,
    Csv,
    Parquet,
}

impl Format {
    /// By the name of a file.
    pub(super) fn of(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let plain = compressed::ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
        match (plain.unwrap_or(&name).rsplit('.').next()?, plain.is_some()) {
            ("jsonl" | "ndjson", _) => Some(Self::JsonLines),
            ("csv" | "tsv", _) => Some(Self::Csv),
            ("parquet", false) => Some(Self::Parquet),
            _ => None,
        }
    }
}
