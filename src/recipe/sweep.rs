//! `[sweep]`: which keys a sweep over the recipe varies. A single run does not look at it.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::paths::make_absolute;
use super::table::{self, lenient, sound};
use crate::error::input_error;

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
        let shown = path.display();
        let table = table::read(path)?;
        let mut faults = Vec::new();
        let mut section = match table.get("sweep") {
            None => Self::default(),
            Some(Value::Table(sweep)) => lenient("sweep.", sweep, &Self::default(), &mut faults),
            Some(other) => return Err(input_error(format!("{shown}: sweep = {other}: expected a table"))),
        };
        let mut grid = Table::new();
        flatten("", &section.grid, &mut grid, &mut faults);
        let folder = path.parent().unwrap_or(Path::new("."));
        for (key, values) in &mut grid {
            let Value::Array(values) = values else { continue };
            values.iter_mut().for_each(|value| make_absolute(key, value, folder));
        }
        section.grid = grid;
        sound(path, section, faults)
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
