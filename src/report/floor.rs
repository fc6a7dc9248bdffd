//! The scores of a floor as a table.

use super::number::{ABSENT, fixed};
use crate::diff::floor_file::FloorFile;

/// A heading, then one row an organism: its name and every score.
pub fn rows(file: &FloorFile) -> Vec<Vec<String>> {
    let mut keys: Vec<&String> = Vec::new();
    for key in file.organisms.iter().flat_map(|organism| organism.scores.keys()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let heading = ["organism".to_string()].into_iter().chain(keys.iter().map(|key| key.to_string()));
    let mut rows = vec![heading.collect::<Vec<_>>()];
    for organism in &file.organisms {
        let score = |key: &&String| organism.scores.get(*key).map_or_else(|| ABSENT.into(), |x| fixed(*x, 3));
        rows.push([organism.name.clone()].into_iter().chain(keys.iter().map(score)).collect());
    }
    rows
}
