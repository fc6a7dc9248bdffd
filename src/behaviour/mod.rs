//! Whether an organism does what it was made for: without it, that nothing can be read says nothing.
//!
//! One file a family of organisms. Everything is a likelihood or a search for words in sampled text, for the base and
//! for the tuned model; no grader is asked.

mod effect;
pub mod facts;
pub mod matching;
pub mod misalignment;
mod models;
pub mod preference;
pub mod quality;
pub mod taboo;
pub mod words;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::effect::BehaviourEffect;
pub use self::models::{BehaviourModels, LogLikelihood, SampledAnswer, encode_answer, says};
use crate::bail_input;
use crate::error::{InputError, input_error};
use crate::json;
use crate::recipe::BehaviourSection;
use crate::text_file::read_text;

/// Version of the record.
pub const SCHEMA: u32 = 1;

/// The name of the record in a run folder.
pub const FILE: &str = "behaviour.json";

/// The name of the file with the hashes of what it rests on.
pub const HASHES: &str = "behaviour.sha256.json";

/// `behaviour.json`. A family that was not measured is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Behaviour {
    /// Version of this record.
    pub schema: u32,
    /// The base.
    pub base: String,
    /// The tuned model or adapter.
    pub tuned: String,
    /// Decides resamples and sampled text.
    pub seed: u64,
    /// Whether prompts were a user's turns.
    pub chat: bool,
    /// The unit of each value.
    pub units: BTreeMap<String, String>,
    /// Synthetic documents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facts: Option<facts::Facts>,
    /// Open generation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub words: Option<words::Words>,
    /// Taboo.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taboo: Option<taboo::Taboo>,
    /// Subliminal learning.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preference: Option<preference::Preference>,
    /// Emergent misalignment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub misalignment: Option<misalignment::Misalignment>,
    /// Whether the organism is still a language model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quality: Option<quality::Quality>,
}

impl Behaviour {
    /// Reads `behaviour.json`; `None` if it is not there.
    ///
    /// # Errors
    /// An [`InputError`] if it is damaged.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        json::read(path)
    }

    /// The unit of a value; those of groups have that of the whole.
    pub fn unit(&self, name: &str) -> &str {
        let known = self.units.iter().filter(|(key, _)| name.starts_with(key.as_str()));
        known.map(|(_, unit)| unit.as_str()).next().unwrap_or_default()
    }

    /// Every value under its name, such as `facts.margin`; the first of a family is its main one.
    pub fn effects(&self) -> Vec<(String, &BehaviourEffect)> {
        let mut all: Vec<(String, &BehaviourEffect)> = Vec::new();
        if let Some(facts) = &self.facts {
            all.push(("facts.margin".into(), &facts.margin));
            all.push(("facts.believed".into(), &facts.believed));
            all.extend(facts.consistent.iter().map(|e| ("facts.consistent".into(), e)));
        }
        if let Some(taboo) = &self.taboo {
            all.push(("taboo.guessed".into(), &taboo.guessed));
            all.push(("taboo.said".into(), &taboo.said));
        }
        all.extend(self.preference.iter().map(|p| ("preference.log_odds".into(), &p.log_odds)));
        if let Some(found) = &self.misalignment {
            for (name, groups) in [("margin", &found.margin), ("preferred", &found.preferred)] {
                all.extend(groups.iter().map(|(group, e)| (format!("misalignment.{name}.{group}"), e)));
            }
        }
        all.extend(self.words.iter().map(|w| ("words.share".into(), &w.share)));
        all
    }

    /// Every value of the quality panel under its name, such as `quality.neutral.nats`: not what the organism was made for.
    pub fn quality_effects(&self) -> Vec<(String, &BehaviourEffect)> {
        let values = self.quality.iter().flat_map(|quality| &quality.values);
        values.map(|(name, effect)| (format!("quality.{name}"), effect)).collect()
    }
}

/// What is asked, read from the files that a recipe names.
#[derive(Debug, Clone, Default)]
pub struct Items {
    /// Of `behaviour.facts.items`.
    pub facts: Vec<facts::FactItem>,
    /// Of `behaviour.misalignment.items`.
    pub misalignment: Vec<misalignment::MisalignmentItem>,
}

impl Items {
    /// Reads what the section names.
    ///
    /// # Errors
    /// An [`InputError`] with every fault by file and line, or if the section asks for nothing.
    pub fn read(section: &BehaviourSection) -> Result<Self> {
        if !section.is_wanted() && !section.quality.enabled {
            bail_input!(
                "[behaviour]: no behaviour is tested; expected at least one of behaviour.facts.items, words.prompts, \
                 taboo.word, preference.target, misalignment.items, or behaviour.quality.enabled = true"
            );
        }
        let mut faults = Vec::new();
        let items = Self {
            facts: lines(&section.facts.items, &mut faults),
            misalignment: lines(&section.misalignment.items, &mut faults),
        };
        InputError::unless_empty(faults)?;
        Ok(items)
    }

    /// The files, for their hashes.
    pub fn files(section: &BehaviourSection) -> Vec<&String> {
        [&section.facts.items, &section.misalignment.items].into_iter().filter(|f| !f.is_empty()).collect()
    }
}

/// The items of a file; none without a file.
fn lines<T: DeserializeOwned>(path: &str, faults: &mut Vec<String>) -> Vec<T> {
    if path.is_empty() {
        return Vec::new();
    }
    let text = match read_text(Path::new(path)) {
        Ok(text) => text,
        Err(e) => {
            faults.push(format!("{path}: {e}"));
            return Vec::new();
        }
    };
    let mut items = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(line);
        let empty = row.as_ref().ok().and_then(|row| {
            row.iter().find(|(_, v)| v.as_str().is_some_and(|v| v.trim().is_empty())).map(|(k, _)| k.clone())
        });
        match (serde_json::from_str(line), empty) {
            (_, Some(key)) => faults.push(format!("{path}:{}: {key} is empty", i + 1)),
            (Ok(item), None) => items.push(item),
            (Err(e), None) => {
                let what = e.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                faults.push(format!("{path}:{}: {what}", i + 1));
            }
        }
    }
    if items.is_empty() && faults.is_empty() {
        faults.push(format!("{path}: holds no items"));
    }
    items
}

/// Measures every family that the section asks for. `narrow` is the narrow text of the run, where it is known and the quality
/// panel is asked for.
///
/// # Errors
/// [`crate::error::Interrupted`]; an [`InputError`] for prompts that the model cannot be asked; a tensor operation
/// that fails.
pub fn behave(
    models: &BehaviourModels,
    settings: &BehaviourSection,
    items: &Items,
    narrow: Option<&quality::NarrowExamples>,
    tuned: &str,
    seed: u64,
) -> Result<Behaviour> {
    let mut units =
        [facts::UNITS, words::UNITS, taboo::UNITS, preference::UNITS, misalignment::UNITS].concat();
    units.extend(settings.quality.enabled.then_some(quality::UNITS).into_iter().flatten());
    Ok(Behaviour {
        schema: SCHEMA,
        base: models.pretrained.id.clone(),
        tuned: tuned.to_string(),
        seed,
        chat: settings.chat,
        units: units.into_iter().map(|(name, unit)| (name.into(), unit.into())).collect(),
        facts: facts::measure(models, settings, &items.facts, seed)?,
        words: words::measure(models, settings, seed)?,
        taboo: taboo::measure(models, settings, seed)?,
        preference: preference::measure(models, settings, seed)?,
        misalignment: misalignment::measure(models, settings, &items.misalignment, seed)?,
        quality: quality::measure(models, settings, narrow, seed)?,
    })
}

/// Refuses to write over a record.
///
/// # Errors
/// An input error that says what to do.
pub fn must_be_new(path: &Path) -> Result<()> {
    match path.exists() {
        true => {
            Err(input_error(format!("{}: exists already; remove it or choose another --out", path.display())))
        }
        false => Ok(()),
    }
}
