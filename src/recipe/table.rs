//! TOML tables against the type that they should be: defaults filled in, every fault found, differences told by key.

use std::path::Path;

use anyhow::Result;
use serde::{Serialize, de::DeserializeOwned};
use strsim::levenshtein;
use toml::{Table, Value};

use crate::error::{InputError, input_error};
use crate::limits::LARGEST_RECIPE;
use crate::text_file::read_text;

/// The table of a TOML file.
///
/// # Errors
/// An [`InputError`] if it cannot be read or is no TOML.
pub fn read(path: &Path) -> Result<Table> {
    let shown = path.display();
    let text = read_text(path).map_err(|e| input_error(format!("{shown}: {e}")))?;
    if text.len() > LARGEST_RECIPE {
        return Err(input_error(format!("{shown}: {} bytes; expected at most {LARGEST_RECIPE}", text.len())));
    }
    text.parse().map_err(|e: toml::de::Error| input_error(format!("{shown}: {}", e.to_string().trim_end())))
}

/// What was read from a file, if it has no faults.
///
/// # Errors
/// An [`InputError`] with all of them, each with the name of the file.
pub fn sound<T>(path: &Path, value: T, faults: Vec<String>) -> Result<T> {
    InputError::unless_empty(in_file(path, faults))?;
    Ok(value)
}

/// Faults with the name of the file in which they are.
pub fn in_file(path: &Path, faults: Vec<String>) -> Vec<String> {
    faults.into_iter().map(|fault| format!("{}: {fault}", path.display())).collect()
}

/// Takes each key of `given` over into `default`, one at a time, so that each fault is found.
pub fn lenient<T: Serialize + DeserializeOwned>(
    path: &str,
    given: &Table,
    default: &T,
    faults: &mut Vec<String>,
) -> T {
    let known = Table::try_from(default).expect("a section is a table");
    let merged = merge(path, given, &known, faults);
    match merged.try_into() {
        Ok(value) => value,
        Err(e) => {
            // Some value has the wrong type: find out which, key by key.
            let before = faults.len();
            let mut kept = known.clone();
            find_wrong::<T>(path, given, &known, &mut kept, faults);
            if faults.len() == before {
                faults.push(e.to_string().trim_end().to_string());
            }
            kept.try_into().unwrap_or_else(|_| known.try_into().expect("the default is valid"))
        }
    }
}

/// `given` over `known`; a key that `known` lacks is a fault.
fn merge(path: &str, given: &Table, known: &Table, faults: &mut Vec<String>) -> Table {
    let mut out = known.clone();
    for (key, value) in given {
        let full = format!("{path}{key}");
        match (known.get(key), value) {
            (None, _) => faults.push(unknown_key(&full, key, known)),
            // A table without known keys is one of the user's own keys.
            (Some(Value::Table(inner)), Value::Table(value)) if !inner.is_empty() => {
                let merged = merge(&format!("{full}."), value, inner, faults);
                out.insert(key.clone(), Value::Table(merged));
            }
            (Some(_), value) => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    out
}

/// Tries every leaf of `given` alone on top of the defaults; keeps those that fit, notes those that do not.
fn find_wrong<T: DeserializeOwned>(
    path: &str,
    given: &Table,
    known: &Table,
    kept: &mut Table,
    faults: &mut Vec<String>,
) {
    fn leaves(prefix: &[String], given: &Table, known: &Table, out: &mut Vec<(Vec<String>, Value)>) {
        for (key, value) in given {
            let at = [prefix, std::slice::from_ref(key)].concat();
            match (known.get(key), value) {
                (None, _) => {}
                (Some(Value::Table(inner)), Value::Table(value)) if !inner.is_empty() => {
                    leaves(&at, value, inner, out)
                }
                (Some(_), value) => out.push((at, value.clone())),
            }
        }
    }
    fn put(table: &mut Table, at: &[String], value: Value) {
        match at {
            [last] => {
                table.insert(last.clone(), value);
            }
            [first, rest @ ..] => {
                if let Some(Value::Table(inner)) = table.get_mut(first) {
                    put(inner, rest, value);
                }
            }
            [] => {}
        }
    }
    let mut all = Vec::new();
    leaves(&[], given, known, &mut all);
    for (at, value) in all {
        let mut trial = kept.clone();
        put(&mut trial, &at, value.clone());
        match trial.clone().try_into::<T>() {
            Ok(_) => *kept = trial,
            Err(e) => {
                let why = e.to_string();
                let why = in_words(why.lines().next().unwrap_or("wrong type"));
                faults.push(format!("{path}{} = {value}: {why}", at.join(".")));
            }
        }
    }
}

/// A type error without the names of Rust's types.
fn in_words(why: &str) -> String {
    let Some((found, expected)) = why.rsplit_once("expected ") else { return why.to_string() };
    // TOML's 1e3 and 1000.0 are no whole numbers.
    let number = found.split('`').nth(1).and_then(|number| number.parse::<f64>().ok());
    let whole = number.filter(|n| found.contains("floating point") && n.fract() == 0.0 && n.abs() < 1e15);
    let words = match expected.split(' ').next().unwrap_or_default() {
        "usize" | "u64" if whole.is_some() => {
            let whole = whole.unwrap_or_default();
            return format!("{found}expected a whole number, written without point and exponent: {whole}");
        }
        "usize" | "u64" => "a whole number from 0 to 9223372036854775807",
        "f64" => "a number",
        "struct" => "a table",
        "a" if expected.ends_with("sequence") => "a list",
        _ => expected,
    };
    format!("{found}expected {words}")
}

fn unknown_key(full: &str, key: &str, known: &Table) -> String {
    let likely = 3.min(key.chars().count() / 2);
    let mut names: Vec<&String> = known.keys().collect();
    names.sort();
    let near = names.iter().min_by_key(|k| levenshtein(k, key)).filter(|k| levenshtein(k, key) <= likely);
    match near {
        Some(near) => format!("{full}: unknown key; did you mean {near}?"),
        None => format!(
            "{full}: unknown key; known here: {}",
            names.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Notes the values that differ; a key that one of the tables lacks has no value there.
pub fn differences(path: &str, a: &Table, b: &Table, found: &mut Vec<(String, String, String)>) {
    for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(key.as_str()))) {
        let full = format!("{path}{key}");
        match (a.get(key), b.get(key)) {
            (a, b) if a == b => {}
            (Some(Value::Table(a)), Some(Value::Table(b))) => differences(&format!("{full}."), a, b, found),
            (a, b) => {
                let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
                found.push((full, shown(a), shown(b)));
            }
        }
    }
}

/// The entries of `table` that `other` has not.
pub fn differing(table: &Table, other: &Table) -> Table {
    let mut out = Table::new();
    for (key, value) in table {
        match (value, other.get(key)) {
            (value, Some(same)) if same == value => {}
            (Value::Table(value), Some(Value::Table(other))) => {
                out.insert(key.clone(), Value::Table(differing(value, other)));
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    out
}
