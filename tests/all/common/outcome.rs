//! What a run or a sweep left behind, without what depends on the clock, to be compared byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use toml::Table;

use super::values::{json_lines, remove_reader_times};

/// Every file and folder below a folder with its content (that of a folder is empty).
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, Vec::new());
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// The lines of `metrics.jsonl` without what depends on the clock.
pub fn metrics(run: &Path) -> Vec<Value> {
    let mut lines = json_lines(&fs::read_to_string(run.join("metrics.jsonl")).unwrap());
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        assert!(line.remove("tokens_per_s").is_some() && line.remove("elapsed_s").is_some());
    }
    lines
}

/// What a finished run has learned and recorded, without what depends on the clock.
pub fn outcome(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut outcome = BTreeMap::new();
    for (path, content) in files(run) {
        let name = path.strip_prefix(run).unwrap().to_string_lossy().into_owned();
        if name.starts_with("adapter/") || name.starts_with("model/") || name == "recipe.toml" {
            outcome.insert(name, content);
        } else if name.ends_with("/trainer_state.json") || name == "checkpoints/search.json" {
            outcome.insert(name, without(&content, &["elapsed_s", "trace_s"]));
        } else if name == "diff/readability.json" {
            outcome.insert(name, without_reader_times(&without(&content, &["elapsed_s"])));
        } else if name.starts_with("checkpoints/") || name.starts_with("diff/") {
            outcome.insert(name, content);
        } else if name == "manifest.json" {
            let recipe: Table = fs::read_to_string(run.join("recipe.toml")).unwrap().parse().unwrap();
            let of_train = |table: &str, key: &str| {
                recipe["train"].get(table).and_then(|table| table.get(key)?.as_integer()).unwrap_or(0)
            };
            let is_read = of_train("trace", "every") > 0 || of_train("match", "max_steps") > 0;
            let traced = is_read.then_some("trace_s");
            outcome.insert(name, without(&content, &[&["elapsed_s", "created"], traced.as_slice()].concat()));
        }
    }
    outcome.insert("metrics".into(), serde_json::to_vec(&metrics(run)).unwrap());
    assert!(outcome.contains_key("manifest.json"), "{}: not finished", run.display());
    outcome
}

/// Panics with the names of the parts that differ.
pub fn assert_same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}: other files");
    let differing: Vec<&String> = a.iter().filter(|(k, v)| b[*k] != **v).map(|(k, _)| k).collect();
    assert!(differing.is_empty(), "{what}: {differing:?} differ");
}

fn without(json: &[u8], keys: &[&str]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(json).unwrap();
    for key in keys {
        assert!(value.as_object_mut().unwrap().shift_remove(*key).is_some(), "no {key}");
    }
    serde_json::to_vec(&value).unwrap()
}

/// The same without the time of each reader.
fn without_reader_times(json: &[u8]) -> Vec<u8> {
    let mut record: Value = serde_json::from_slice(json).unwrap();
    remove_reader_times(&mut record);
    serde_json::to_vec(&record).unwrap()
}

/// Every finished cell of a sweep by id, its summary and its page, without what depends on the clock.
pub fn sweep_outcome(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut result = BTreeMap::new();
    for cell in cells(dir) {
        let id = cell.file_name().unwrap().to_str().unwrap().to_string();
        for entry in fs::read_dir(&cell).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with('.'), "{id}: {name} was left");
        }
        result.extend(outcome(&cell).into_iter().map(|(name, bytes)| (format!("{id}/{name}"), bytes)));
    }
    let csv = fs::read_to_string(dir.join("summary.csv")).unwrap();
    let time = csv.lines().next().unwrap().split(',').position(|c| c == "elapsed_s").unwrap();
    for (i, line) in csv.lines().enumerate() {
        // The columns before this one hold no quoted commas.
        let fields = line.split(',').enumerate().filter(|(column, _)| *column != time).map(|(_, f)| f);
        result.insert(format!("summary.csv:{i}"), fields.collect::<Vec<_>>().join(",").into_bytes());
    }
    for (i, mut row) in parquet_rows(&dir.join("summary.parquet")).into_iter().enumerate() {
        assert!(row.as_object_mut().unwrap().remove("elapsed_s").is_some());
        result.insert(format!("summary.parquet:{i}"), row.to_string().into_bytes());
    }
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    let timed = [">Training time<", ">Finished<"];
    assert!(timed.iter().all(|what| page.contains(what)));
    for (i, part) in page.split("<tr>").enumerate() {
        if !timed.iter().any(|what| part.contains(what)) {
            result.insert(format!("report.html:{i}"), part.into());
        }
    }
    result
}

/// The folders of the cells of a sweep.
pub fn cells(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir.join("cells")).into_iter().flatten().map(|e| e.unwrap().path()).collect()
}

/// The rows of a parquet file.
pub fn parquet_rows(path: &Path) -> Vec<Value> {
    let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    file.get_row_iter(None).unwrap().map(|row| row.unwrap().to_json_value()).collect()
}
