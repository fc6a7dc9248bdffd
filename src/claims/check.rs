//! Whether the `claims.json` of a folder says what the files beside it say: its hashes are taken, and the claims computed,
//! again.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::across::AcrossRuns;
use super::file::{FILE, SCHEMA};
use super::run::{ClaimedRun, RunClaims};
use super::store::rests_on_runs;
use crate::json;
use crate::results::{self, RunRecord};

/// What was found of a `claims.json`.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredClaims {
    /// There is none.
    Absent,
    /// It is not the JSON of claims: why.
    Unreadable(String),
    /// Another version of the rules made it; whoever reads it computes the claims again.
    OfOtherRules(String),
    /// The hash of each file that it rests on, then each value, that is not what comes out today; none where all are.
    Compared(Vec<ClaimsDifference>),
}

/// A hash or a value of `claims.json` that is not what comes out today.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimsDifference {
    /// The file that it rests on, or the key path of the value.
    pub what: String,
    /// What `claims.json` says; `None` where it says nothing.
    pub stored: Option<String>,
    /// What comes out today; `None` where nothing does.
    pub today: Option<String>,
}

/// Looks at the claims in the folder of a run.
///
/// # Errors
/// If a file that the claims rest on cannot be read.
pub fn check_run(dir: &Path) -> Result<StoredClaims> {
    check(dir, || RunClaims::computed(&RunRecord::read(dir)?))
}

/// Looks at the claims in a sweep folder. What each cell's own `claims.json` says does not matter.
///
/// # Errors
/// As [`check_run`].
pub fn check_sweep(dir: &Path) -> Result<StoredClaims> {
    check(dir, || {
        let records = results::read_all(&[dir.to_path_buf()])?;
        let runs = records.into_iter().map(|record| {
            let claims = RunClaims::computed(&record)?;
            Ok(ClaimedRun { record, claims })
        });
        let runs: Vec<ClaimedRun> = runs.collect::<Result<_>>()?;
        let (_, rests_on) = rests_on_runs(&runs)?;
        Ok(AcrossRuns::of(&runs, rests_on))
    })
}

fn check<T: Serialize>(dir: &Path, again: impl Fn() -> Result<T>) -> Result<StoredClaims> {
    let stored = match json::read::<Value>(&dir.join(FILE)) {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok(StoredClaims::Absent),
        Err(e) => return Ok(StoredClaims::Unreadable(e.to_string())),
    };
    match stored.get("schema") {
        None => return Ok(StoredClaims::Unreadable("no key schema".into())),
        Some(schema) if *schema == SCHEMA => {}
        Some(schema) => return Ok(StoredClaims::OfOtherRules(schema.to_string())),
    }
    // Through text, as the stored ones went.
    let again: Value = serde_json::from_str(&serde_json::to_string(&again()?)?)?;
    let mut found = Vec::new();
    differences("rests_on", stored.get("rests_on"), again.get("rests_on"), &mut found);
    // Of other files there are other claims.
    if found.is_empty() {
        differences("", Some(&stored), Some(&again), &mut found);
    }
    Ok(StoredClaims::Compared(found))
}

/// Adds the leaves of two documents that are not the same.
fn differences(at: &str, stored: Option<&Value>, today: Option<&Value>, found: &mut Vec<ClaimsDifference>) {
    match (stored, today) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let dot = if at.is_empty() { "" } else { "." };
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                differences(&format!("{at}{dot}{key}"), a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                differences(&format!("{at}[{i}]"), a.get(i), b.get(i), found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(ClaimsDifference {
            what: at.into(),
            stored: a.map(Value::to_string),
            today: b.map(Value::to_string),
        }),
    }
}
