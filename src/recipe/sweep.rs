//! `[sweep]`: which keys a sweep over the recipe varies. A single run looks at it only for faults.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::paths::make_absolute;
use super::table::{self, lenient, sound};

/// `[sweep]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepSection {
    /// Mix ratios.
    pub mix: Vec<f64>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Values of further keys: `"train.lora.r" = [4, 32]`, or tables within tables down to such lists.
    pub grid: Table,
}

impl SweepSection {
    /// The section of a recipe file; empty where it has none. Paths become absolute.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) with every fault.
    pub fn read(path: &Path) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let (section, faults) = Self::of(table::read(path)?.remove("sweep"), folder);
        sound(path, section, faults)
    }

    /// The section of what a recipe in `folder` says under `sweep`, and its faults.
    pub(super) fn of(sweep: Option<Value>, folder: &Path) -> (Self, Vec<String>) {
        let mut faults = Vec::new();
        let mut section = match sweep {
            None => Self::default(),
            Some(Value::Table(sweep)) => lenient("sweep.", &sweep, &Self::default(), &mut faults),
            Some(other) => {
                faults.push(format!("sweep = {other}: expected a table"));
                Self::default()
            }
        };
        let mut grid = Table::new();
        flatten("", &section.grid, &mut grid, &mut faults);
        for (key, values) in &mut grid {
            let Value::Array(values) = values else { continue };
            values.iter_mut().for_each(|value| make_absolute(key, value, folder));
        }
        section.grid = grid;
        (section, faults)
    }

    /// How many combinations the values have; none where nothing varies.
    pub fn cells(&self) -> Option<usize> {
        let lists = self.grid.values().map(|values| values.as_array().map_or(0, Vec::len));
        let lengths: Vec<usize> =
            [self.mix.len(), self.seeds.len()].into_iter().chain(lists).filter(|n| *n > 0).collect();
        (!lengths.is_empty()).then(|| lengths.iter().product())
    }

    /// The keys of `grid` with their values as `--set` takes them.
    pub fn grid(&self) -> Vec<(String, Vec<String>)> {
        let texts = |values: &Value| values.as_array().into_iter().flatten().map(Value::to_string).collect();
        self.grid.iter().map(|(key, values)| (key.clone(), texts(values))).collect()
    }
}

/// Lists by their dotted keys.
fn flatten(prefix: &str, table: &Table, out: &mut Table, faults: &mut Vec<String>) {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => flatten(&format!("{full}."), inner, out, faults),
            Value::Array(values) if !values.is_empty() => {
                out.insert(full, value.clone());
            }
            other => faults.push(format!("sweep.grid.{full} = {other}: expected a list of values")),
        }
    }
}
