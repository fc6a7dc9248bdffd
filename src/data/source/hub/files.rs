//! Which files of a repository hold a split, by the rules of the library `datasets` (`data_files.py`): what the
//! metadata say under `configs`, else what the names say.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use fancy_regex::Regex;
use serde_json::Value;

use crate::bail_input;
use crate::data::source::rows::Format;
use crate::error::input_error;
use crate::hub::{RepoId, is_component, is_inner_path};
use crate::limits::{LONGEST_PATTERN, MOST_PATTERNS};

/// A repository at a commit.
#[derive(Debug)]
pub(super) struct Listing {
    commit: String,
    files: Vec<String>,
    /// `configs` of the metadata.
    configs: Vec<Value>,
}

/// A file with rows of the split.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shard {
    pub path: String,
    pub format: Format,
}

/// What holds a split.
#[derive(Debug, PartialEq)]
pub(super) enum Selection {
    /// These files, in order.
    Shards(Vec<Shard>),
    /// Files that are not read, by their endings.
    Unread(String),
}

/// Files that are never data.
const NO_DATA: [&str; 6] = [
    "README.md",
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dummy_data.zip",
    "dataset_dict.json",
];

/// Endings of files that go with data: code, licences, descriptions.
const ABOUT: [&str; 9] = [".md", ".py", ".ipynb", ".sh", ".yaml", ".yml", ".toml", ".pdf", NO_ENDING];
const NO_ENDING: &str = "no ending";

/// The words by which names of folders and files tell a split.
const WORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

type Splits = BTreeMap<String, Vec<String>>;

impl Listing {
    /// From what the hub's API says of a revision.
    ///
    /// # Errors
    /// If it lacks commit or files, or one of them would lead out of the folder of the repository.
    pub(super) fn read(info: &Value) -> Result<Self, String> {
        let lacks = "the hub describes it without commit or files";
        let commit = info["sha"].as_str().ok_or(lacks)?.to_string();
        if !is_component(&commit) {
            return Err(format!(
                "the server calls its commit {commit:?}; expected letters, digits, -, _ and ."
            ));
        }
        let siblings = info["siblings"].as_array().ok_or(lacks)?.iter();
        let mut files: Vec<String> =
            siblings.filter_map(|s| Some(s["rfilename"].as_str()?.to_string())).collect();
        if let Some(file) = files.iter().find(|file| !is_inner_path(file)) {
            return Err(format!("the server lists a file {file:?}; expected a path below the repository"));
        }
        files.sort();
        let configs = info["cardData"]["configs"].as_array().cloned().unwrap_or_default();
        Ok(Self { commit, files, configs })
    }

    /// The repository, pinned.
    pub(super) fn id(&self, asked: &RepoId) -> RepoId {
        RepoId { repo: asked.repo.clone(), revision: self.commit.clone() }
    }

    /// The files of a split.
    ///
    /// # Errors
    /// An input error that lists the configurations or splits that there are.
    pub(super) fn select(&self, id: &RepoId, config: Option<&str>, split: &str) -> Result<Selection> {
        if self.data().all(|file| Format::of(file).is_none()) && self.data().next().is_some() {
            return Ok(Selection::Unread(kinds(self.data())));
        }
        let splits = self.splits(id, config)?;
        let Some(files) = splits.get(split) else {
            let there: Vec<&str> = splits.keys().map(String::as_str).collect();
            match there.is_empty() {
                true => bail_input!(
                    "{id}: no data files{}",
                    config.map(|c| format!(" of config {c}")).unwrap_or_default()
                ),
                false => bail_input!("{id}: no split {split:?}; there are: {}", there.join(", ")),
            }
        };
        // One kind of file is read, that of most files, as in the library.
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        files.iter().for_each(|file| *counts.entry(ending(file)).or_default() += 1);
        let Some((most, _)) = counts.iter().rev().max_by_key(|(_, n)| **n) else {
            bail_input!("{id}: no data files");
        };
        let shard = |path: &String| Some(Shard { path: path.clone(), format: Format::of(path)? });
        let shards: Vec<Shard> =
            files.iter().filter(|file| ending(file) == *most).filter_map(shard).collect();
        Ok(match shards.is_empty() {
            false => Selection::Shards(shards),
            true => Selection::Unread(kinds(files.iter())),
        })
    }

    /// The splits of a configuration.
    fn splits(&self, id: &RepoId, config: Option<&str>) -> Result<Splits> {
        let described: Vec<&Value> =
            self.configs.iter().filter(|c| !c["data_files"].is_null() || c["data_dir"].is_string()).collect();
        if !described.is_empty() {
            let name = |c: &Value| c["config_name"].as_str().unwrap_or("default").to_string();
            let names: Vec<String> = described.iter().map(|c| name(c)).collect();
            let default = described.iter().position(|c| c["default"] == true);
            let i = chosen(id, &names, config, default)?;
            return self.described(id, described[i]);
        }
        if let Some(configs) = self.converted() {
            let names: Vec<String> = configs.keys().cloned().collect();
            let i = chosen(id, &names, config, None)?;
            return Ok(configs.into_values().nth(i).unwrap_or_default());
        }
        // Without metadata there is one configuration; a name is then that of a folder.
        let folder = config.map(|c| format!("{c}/")).unwrap_or_default();
        let splits = self.by_name(&folder);
        if let (true, Some(config)) = (splits.is_empty(), config) {
            let mut folders: Vec<&str> = self.data().filter_map(|f| Some(f.split_once('/')?.0)).collect();
            folders.dedup();
            let folders = if folders.is_empty() { "none".into() } else { folders.join(", ") };
            bail_input!("{id}: no config {config:?}: its metadata name none, and its folders are: {folders}");
        }
        Ok(splits)
    }

    /// The splits that the metadata of a configuration name.
    fn described(&self, id: &RepoId, config: &Value) -> Result<Splits> {
        let folder = config["data_dir"].as_str().map(|dir| format!("{}/", dir.trim_matches('/')));
        let folder = folder.filter(|f| f != "/" && f != "./").unwrap_or_default();
        let strings = |value: &Value| -> Vec<String> {
            let all: Vec<&Value> = value.as_array().map_or(vec![value], |list| list.iter().collect());
            all.into_iter().filter_map(|v| v.as_str().map(str::to_string)).collect()
        };
        let patterns: Vec<(String, Vec<String>)> = match &config["data_files"] {
            Value::Null => return Ok(self.by_name(&folder)),
            Value::Array(list) if list.iter().any(Value::is_object) => list
                .iter()
                .map(|one| (one["split"].as_str().unwrap_or("train").to_string(), strings(&one["path"])))
                .collect(),
            Value::Object(splits) => splits.iter().map(|(s, p)| (s.clone(), strings(p))).collect(),
            other => vec![("train".into(), strings(other))],
        };
        let mut splits = Splits::new();
        for (split, patterns) in patterns {
            let found = splits.entry(split).or_default();
            if patterns.len() > MOST_PATTERNS
                || patterns.iter().any(|pattern| pattern.len() > LONGEST_PATTERN)
            {
                bail_input!(
                    "{id}: its metadata hold more than {MOST_PATTERNS} patterns of files, or one of more than \
                     {LONGEST_PATTERN} bytes"
                );
            }
            for pattern in patterns {
                if pattern.contains("://") {
                    bail_input!(
                        "{id}: its metadata name {pattern}, which is outside of the repository and is not read"
                    );
                }
                let pattern = format!("{folder}{}", pattern.trim_start_matches("./"));
                let glob =
                    glob(&pattern).map_err(|e| input_error(format!("{id}: data_files {pattern}: {e}")))?;
                for file in self.data().filter(|file| glob.is_match(file).unwrap_or(false)) {
                    if !found.contains(file) {
                        found.push(file.clone());
                    }
                }
            }
        }
        splits.retain(|_, files| !files.is_empty());
        Ok(splits)
    }

    /// Files that may be data: not hidden, not those that describe.
    fn data(&self) -> impl Iterator<Item = &String> {
        self.files.iter().filter(|file| {
            let parts: Vec<&str> = file.split('/').collect();
            let hidden = parts.iter().any(|part| part.starts_with('.'));
            let special = parts[..parts.len() - 1].iter().any(|part| part.starts_with("__"));
            let about =
                NO_DATA.contains(parts.last().unwrap_or(&"")) || ABOUT.contains(&ending(file).as_str());
            !hidden && !special && !about
        })
    }

    /// The configurations of a branch that the hub has made: `CONFIG/SPLIT/0000.parquet`; of a large set only a part is
    /// there, under `partial-SPLIT`.
    fn converted(&self) -> Option<BTreeMap<String, Splits>> {
        let mut configs: BTreeMap<String, Splits> = BTreeMap::new();
        for file in self.data() {
            let [config, split, name] = file.split('/').collect::<Vec<_>>()[..] else { return None };
            let number = name.strip_suffix(".parquet")?;
            if number.len() != 4 || !number.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let split = split.strip_prefix("partial-").unwrap_or(split);
            let files = configs.entry(config.into()).or_default().entry(split.into()).or_default();
            files.push(file.clone());
        }
        (!configs.is_empty()).then_some(configs)
    }

    /// The splits that names tell, below a folder: `data/SPLIT-00000-of-00001.parquet`; else words in the names of
    /// folders, else of files; else all is `train`.
    fn by_name(&self, folder: &str) -> Splits {
        let below: Vec<(&String, &str)> =
            self.data().filter_map(|file| Some((file, file.strip_prefix(folder)?))).collect();
        let mut sharded = Splits::new();
        for (file, path) in &below {
            if let Some(split) = path.strip_prefix("data/").and_then(shard_of) {
                sharded.entry(split.into()).or_default().push(file.to_string());
            }
        }
        if !sharded.is_empty() {
            return sharded;
        }
        let words_of = |part: &str| -> Vec<String> {
            part.split(|c: char| "-._ ".contains(c) || c.is_ascii_digit()).map(str::to_string).collect()
        };
        for in_folders in [true, false] {
            let mut splits = Splits::new();
            for (file, path) in &below {
                let parts: Vec<&str> = path.split('/').collect();
                let (name, folders) = parts.split_last().expect("a path has a part");
                let words: Vec<String> = match in_folders {
                    true => folders.iter().flat_map(|part| words_of(part)).collect(),
                    false => words_of(name),
                };
                for (split, known) in WORDS {
                    if words.iter().any(|word| known.contains(&word.as_str())) {
                        splits.entry(split.into()).or_default().push(file.to_string());
                    }
                }
            }
            if !splits.is_empty() {
                return splits;
            }
        }
        let all: Vec<String> = below.iter().map(|(file, _)| file.to_string()).collect();
        if all.is_empty() { Splits::new() } else { Splits::from([("train".into(), all)]) }
    }
}

/// The endings of files.
fn kinds<'a>(files: impl Iterator<Item = &'a String>) -> String {
    files.map(|file| ending(file)).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

/// The place of the configuration that is meant.
fn chosen(id: &RepoId, names: &[String], wanted: Option<&str>, default: Option<usize>) -> Result<usize> {
    let find = |name: &str| names.iter().position(|n| n == name);
    let found = match wanted {
        Some(wanted) => find(wanted),
        None => default.or_else(|| find("default")).or((names.len() == 1).then_some(0)),
    };
    found.ok_or_else(|| {
        let what = wanted.map_or("config: missing".into(), |wanted| format!("no config {wanted:?}"));
        input_error(format!("{id}: {what}; there are: {}", names.join(", ")))
    })
}

/// The split of a name such as `train-00000-of-00042-abc.parquet`.
fn shard_of(name: &str) -> Option<&str> {
    let pattern = Regex::new(r"^([^/]+?)-\d{5}-of-\d{5}[^/]*\.[^/]*$").expect("a pattern");
    pattern.captures(name).ok().flatten()?.get(1).map(|split| split.as_str())
}

/// What stands behind the name of a file, that of a compressed one with both parts.
fn ending(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file).to_lowercase();
    let parts: Vec<&str> = name.split('.').skip(1).collect();
    let compressed = parts.last().is_some_and(|last| ["gz", "zst", "bz2", "xz", "zip"].contains(last));
    let kept = parts.len().saturating_sub(1 + usize::from(compressed && parts.len() > 1));
    match parts[kept..].join(".") {
        none if none.is_empty() => NO_ENDING.into(),
        ending => format!(".{ending}"),
    }
}

/// A pattern of file names as the library has it: `*` and `?` stay within a part, `**` does not. A folder stands for all
/// below it.
fn glob(pattern: &str) -> Result<Regex, String> {
    let mut out = String::from("^");
    let mut rest = pattern.trim_end_matches('/');
    while let Some(c) = rest.chars().next() {
        let (part, n) = match rest {
            _ if rest.starts_with("**/") => ("(?:.*/)?".into(), 3),
            _ if rest.starts_with("**") => (".*".into(), 2),
            _ if c == '*' => ("[^/]*".into(), 1),
            _ if c == '?' => ("[^/]".into(), 1),
            _ if c == '[' && rest[1..].contains(']') => {
                let end = 1 + rest[1..].find(']').unwrap_or(0);
                let set = rest[1..end].replace('\\', "\\\\").replace('[', "\\[");
                (format!("[{}]", set.strip_prefix('!').map_or(set.clone(), |s| format!("^{s}"))), end + 1)
            }
            _ => (fancy_regex::escape(&rest[..c.len_utf8()]).into_owned(), c.len_utf8()),
        };
        out += &part;
        rest = &rest[n..];
    }
    let is_plain = !pattern.contains(['*', '?', '[']);
    out += if is_plain { "(?:/.*)?$" } else { "$" };
    Regex::new(&out).map_err(|e| e.to_string())
}
