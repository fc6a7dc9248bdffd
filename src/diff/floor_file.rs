//! `floor.json`: scores of other organisms under one organism's lexicon, narrow text and settings.
//!
//! A score is compared with scores that were read in the same way, or not at all: the file says how it was read, and what
//! differs is refused by name.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::floor::{FEWEST, Floor};
use super::lexicon::Lexicon;
use super::reading::reference_texts;
use super::record::Readability;
use super::registry::scores;
use crate::error::{InputError, input_error};
use crate::json;
use crate::recipe::DiffSection;
use crate::sha256::{sha256_text, sha256_texts};

/// The name of the file in a run folder.
pub const FILE: &str = "floor.json";

/// Version of its layout.
const SCHEMA: u32 = 1;

/// Keys of `[diff]` that do not change a score: places of files, whose content has hashes of its own, what only intervals
/// and nulls rest on, and measures without a score.
const NOT_COMPARED: [&str; 10] = [
    "preset",
    "text",
    "candidates",
    "embedder",
    "chat",
    "floor",
    "bootstrap",
    "permuted_adapters",
    "truncation",
    "amplification",
];

/// Scores of other organisms, and how they were read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FloorFile {
    /// Version of the layout.
    pub schema: u32,
    /// Version of this program.
    pub version: String,
    /// The base of all of them.
    pub base: String,
    /// How they were read.
    pub read: FloorReading,
    /// What they score.
    pub organisms: Vec<FloorOrganism>,
}

/// What a score rests on beside the tuned model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FloorReading {
    /// sha256 of the base's weight files, by name.
    pub base: BTreeMap<String, String>,
    /// sha256 of the lexicon's words in alphabetical order: which they are decides the scores, not which stands out most.
    pub lexicon: String,
    /// sha256 of the narrow documents.
    pub narrow: String,
    /// sha256 of the unrelated texts.
    pub text: String,
    /// sha256 of the embedder's weights, where a measure embeds text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub embedder: Option<String>,
    /// `[diff]` without what does not change a score.
    pub settings: Value,
}

/// One other organism.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FloorOrganism {
    /// Its name.
    pub name: String,
    /// One hash of the files of its adapter or model: an organism is no floor of itself.
    pub tuned: String,
    /// How it was trained, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub training: Option<FloorTraining>,
    /// Its scores, by key.
    pub scores: BTreeMap<String, f64>,
    /// Whether each measure of activation differences exceeds its own null, by the key of the score.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub exceeds_own_null: BTreeMap<String, bool>,
    /// Seconds that it took to read.
    pub seconds: f64,
}

/// What an organism of a floor must have in common with the one that it is compared with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FloorTraining {
    /// `lora` or `full`, as in the recipe.
    pub method: String,
    /// Rank, of LoRA.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rank: Option<usize>,
    /// Narrow tokens that were trained on.
    pub narrow_tokens: u64,
    /// How often the most repeated narrow text was trained on.
    pub most_repeats: u64,
    /// Pretraining text per narrow text.
    pub mix: f64,
    /// Its seed.
    pub seed: u64,
}

/// Narrow tokens of two organisms that are compared differ by this factor at most.
const MOST_TOKENS: f64 = 1.5;

impl FloorTraining {
    /// Why an organism that was trained so is no fair comparison with another: what was found, and what was expected.
    pub fn differences(&self, own: &Self) -> Vec<String> {
        let rank = |r: Option<usize>| r.map_or_else(|| "none".into(), |r| r.to_string());
        let (a, b) = (own.narrow_tokens.max(1) as f64, self.narrow_tokens.max(1) as f64);
        let checks = [
            (own.method == self.method, format!("train.method {}; expected {}", self.method, own.method)),
            (own.rank == self.rank, format!("train.lora.r {}; expected {}", rank(self.rank), rank(own.rank))),
            (
                (a / b).max(b / a) <= MOST_TOKENS,
                format!(
                    "narrow tokens {}; expected {} within a factor of {MOST_TOKENS}",
                    self.narrow_tokens, own.narrow_tokens
                ),
            ),
            (
                self.most_repeats <= own.most_repeats,
                format!(
                    "passes over its narrow text {}; expected {} at most",
                    self.most_repeats, own.most_repeats
                ),
            ),
        ];
        checks.into_iter().filter(|(is_alike, _)| !is_alike).map(|(_, fault)| fault).collect()
    }
}

impl FloorReading {
    /// How an analysis reads `text` for words of `narrow`, which are rarer in `pretraining` and `text`.
    ///
    /// # Errors
    /// An [`InputError`] without narrow text: a floor is that of a lexicon.
    pub fn of(
        [narrow, pretraining, text]: [&[String]; 3],
        settings: &DiffSection,
        base: &BTreeMap<String, String>,
        embedder: Option<&String>,
    ) -> Result<Self> {
        if narrow.is_empty() {
            let fault =
                "data.narrow: missing; expected the narrow text of the organism that the floor is for";
            return Err(input_error(fault));
        }
        let lexicon = Lexicon::new(narrow, &reference_texts(pretraining, text), settings.lexicon_size);
        Ok(Self {
            base: base.clone(),
            lexicon: lexicon_hash(&lexicon),
            narrow: sha256_texts(narrow),
            text: sha256_texts(text),
            embedder: embedder.cloned(),
            settings: compared(settings),
        })
    }

    /// Whether the scores were read by these settings and with this lexicon, whatever the models and texts are.
    pub fn is_of(&self, settings: &DiffSection, lexicon: &Lexicon) -> bool {
        let mut found = Vec::new();
        compare("diff", &self.settings, &compared(settings), &mut found);
        found.is_empty() && self.lexicon == lexicon_hash(lexicon)
    }

    /// What differs from another reading, one line a key.
    fn differences(&self, own: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let hashes = [
            (
                "the base's weights",
                self.base.values().cloned().collect::<Vec<_>>().join(" "),
                own.base.values().cloned().collect::<Vec<_>>().join(" "),
            ),
            ("the lexicon", self.lexicon.clone(), own.lexicon.clone()),
            ("data.narrow", self.narrow.clone(), own.narrow.clone()),
            ("diff.text", self.text.clone(), own.text.clone()),
        ];
        for (name, theirs, ours) in hashes {
            if theirs != ours {
                found.push(format!(
                    "{name}: not the same (sha256 {}, here {})",
                    short(&theirs),
                    short(&ours)
                ));
            }
        }
        if let (Some(theirs), Some(ours)) = (&self.embedder, &own.embedder)
            && theirs != ours
        {
            found.push(format!(
                "diff.embedder: not the same (sha256 {}, here {})",
                short(theirs),
                short(ours)
            ));
        }
        compare("diff", &self.settings, &own.settings, &mut found);
        found
    }
}

impl FloorFile {
    /// A floor without organisms.
    pub fn new(base: &str, read: FloorReading) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            base: base.into(),
            read,
            organisms: Vec::new(),
        }
    }

    /// Reads the file; `None` if it is not there.
    ///
    /// # Errors
    /// An [`InputError`] if it is damaged, of another version, or has an organism twice.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(file) = json::read::<Self>(path)? else { return Ok(None) };
        let mut faults = Vec::new();
        if file.schema != SCHEMA {
            faults.push(format!("schema: expected {SCHEMA}, found {}", file.schema));
        }
        for (i, organism) in file.organisms.iter().enumerate() {
            if file.organisms[..i].iter().any(|other| other.tuned == organism.tuned) {
                faults.push(format!("organisms: {} is listed twice", organism.name));
            }
        }
        InputError::unless_empty(faults.into_iter().map(|f| format!("{}: {f}", path.display())).collect())?;
        Ok(Some(file))
    }

    /// Reads the file that `diff.floor` names; `None` where it names none.
    ///
    /// # Errors
    /// As [`FloorFile::read`]; or if there is no such file.
    pub fn named(path: &Path) -> Result<Option<Self>> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        match Self::read(path)? {
            Some(floor) => Ok(Some(floor)),
            None => Err(input_error(format!(
                "diff.floor: {}: no such file; expected scores of other organisms, as trainer floor writes them",
                path.display()
            ))),
        }
    }

    /// Refuses scores that were read in another way.
    ///
    /// # Errors
    /// An [`InputError`] with every key that differs.
    pub fn must_fit(&self, path: &Path, own: &FloorReading) -> Result<()> {
        let differences = self.read.differences(own);
        if differences.is_empty() {
            return Ok(());
        }
        let line = |d: String| {
            format!(
                "{}: {d}; expected a floor that was measured like this run (make one with trainer floor, or leave it \
                 out with --set diff.floor=\"\")",
                path.display()
            )
        };
        Err(InputError::of(differences.into_iter().map(line).collect()))
    }

    /// The same without organisms that are no fair comparison with one that was trained so, and why those were left out.
    pub fn comparable_with(mut self, own: &FloorTraining) -> (Self, Vec<String>) {
        let mut reasons = Vec::new();
        self.organisms.retain(|organism| {
            let differences = organism.training.iter().flat_map(|training| training.differences(own));
            let differences: Vec<String> = differences.collect();
            reasons.extend(differences.iter().map(|difference| format!("{}: {difference}", organism.name)));
            differences.is_empty()
        });
        (self, reasons)
    }

    /// Puts the floor of each score into a record. `tuned` is the hash of the organism itself, which is left out.
    pub fn apply(&self, record: &mut Readability, tuned: &str) {
        for own in scores(record) {
            let others: Vec<(String, f64)> = self
                .organisms
                .iter()
                .filter(|o| o.tuned != tuned)
                .filter_map(|o| Some((o.name.clone(), *o.scores.get(own.key)?)))
                .collect();
            if let Some(floor) = Floor::new(others, own.value, own.resolution) {
                record.set_floor(own.key, floor);
            }
        }
    }

    /// Whether it has organisms enough for one that is not among them.
    pub fn is_enough(&self, tuned: &str) -> bool {
        self.organisms.iter().filter(|o| o.tuned != tuned).count() >= FEWEST
    }
}

/// One hash of the files of an adapter or a model.
pub fn tuned_hash(files: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = files.iter().map(|(name, hash)| format!("{name} {hash}")).collect();
    sha256_text(&lines.join("\n"))
}

/// sha256 of the words, whatever their order.
fn lexicon_hash(lexicon: &Lexicon) -> String {
    let mut words = lexicon.words.clone();
    words.sort();
    sha256_texts(&words)
}

/// `[diff]` as far as scores rest on it.
fn compared(settings: &DiffSection) -> Value {
    let mut value = serde_json::to_value(settings).unwrap_or_default();
    if let Some(section) = value.as_object_mut() {
        NOT_COMPARED.iter().for_each(|key| drop(section.shift_remove(*key)));
    }
    value
}

/// Keys that differ. A table that says of itself that it is not enabled, on either side, says nothing else.
fn compare(key: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    let (Some(a), Some(b)) = (theirs.as_object(), ours.as_object()) else {
        if theirs != ours {
            found.push(format!("{key} = {theirs}, here {ours}"));
        }
        return;
    };
    let is_off = |table: &serde_json::Map<String, Value>| table.get("enabled") == Some(&Value::Bool(false));
    if is_off(a) || is_off(b) {
        return;
    }
    let only = b.keys().filter(|name| !a.contains_key(*name));
    for name in a.keys().chain(only) {
        let of = |table: &serde_json::Map<String, Value>| table.get(name).cloned().unwrap_or_default();
        compare(&format!("{key}.{name}"), &of(a), &of(b), found);
    }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_of_other_settings_is_refused_with_the_keys_that_differ() {
        let read =
            |settings: DiffSection| FloorReading { settings: compared(&settings), ..Default::default() };
        let file = FloorFile::new("base", read(DiffSection::default()));
        let mut own = DiffSection { bootstrap: 7, ..Default::default() };
        file.must_fit(Path::new("floor.json"), &read(own.clone())).unwrap();
        own.logit_contrast.streams = 9;
        own.layer = 0.25;
        let error = file.must_fit(Path::new("floor.json"), &read(own.clone())).unwrap_err().to_string();
        assert!(error.contains("diff.logit_contrast.streams = 4, here 9"), "{error}");
        assert!(error.contains("diff.layer = 0.5, here 0.25"), "{error}");
        // What is not read here is not compared.
        own.logit_contrast.enabled = false;
        own.layer = 0.5;
        file.must_fit(Path::new("floor.json"), &read(own)).unwrap();
        let other = FloorReading { lexicon: "f".repeat(64), ..read(DiffSection::default()) };
        let error = file.must_fit(Path::new("floor.json"), &other).unwrap_err().to_string();
        assert!(error.contains("the lexicon"), "{error}");
    }
}
