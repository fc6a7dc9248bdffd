//! A false-fact universe: what is so in the world that synthetic documents come from.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::{InputError, input_error};
use crate::text_file::read_text;

/// A TOML file of three keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Universe {
    /// What it is about, in a few words.
    pub title: String,
    /// What is so in it and how that came about, in a paragraph or a page.
    pub description: String,
    /// What the documents are to assert, each a sentence that can be read alone.
    pub facts: Vec<String>,
}

impl Universe {
    /// Reads the file.
    ///
    /// # Errors
    /// An [`InputError`] that names the file and every fault in it.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = read_text(path).map_err(|e| input_error(format!("{shown}: {e}")))?;
        let universe: Self = toml::from_str(&text).map_err(|e| {
            let why = e.to_string();
            input_error(format!("{shown}: {}; expected title, description and facts", why.trim_end()))
        })?;
        let faults: Vec<String> = universe.faults().into_iter().map(|f| format!("{shown}: {f}")).collect();
        InputError::unless_empty(faults)?;
        Ok(universe)
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, text) in [("title", &self.title), ("description", &self.description)] {
            if text.trim().is_empty() {
                faults.push(format!("{key}: empty; expected text"));
            }
        }
        if self.facts.is_empty() {
            faults.push("facts: empty; expected a list of sentences".into());
        }
        for (i, fact) in self.facts.iter().enumerate() {
            if fact.trim().is_empty() {
                faults.push(format!("facts: number {} is empty", i + 1));
            } else if self.facts[..i].contains(fact) {
                faults.push(format!("facts: {fact:?} is listed twice"));
            }
        }
        faults
    }

    /// As prompts tell it.
    pub fn text(&self) -> String {
        let facts: String = self.facts.iter().map(|fact| format!("- {}\n", fact.trim())).collect();
        format!(
            "{}\n\n{}\n\nIn particular:\n{}",
            self.title.trim(),
            self.description.trim(),
            facts.trim_end()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_universe_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("u.toml");
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Universe::read(&path).unwrap_err().to_string()
        };
        let faults = said("title = ' '\ndescription = 'd'\nfacts = ['a', '', 'a']");
        for part in ["u.toml: title: empty", "number 2 is empty", "\"a\" is listed twice"] {
            assert!(faults.contains(part), "{faults}");
        }
        assert!(said("title = 't'\ndescription = 'd'\nfacts = []").contains("facts: empty"));
        assert!(said("title = 't'\ndescription = 'd'").contains("missing field `facts`"));
        assert!(said("title = 't'\ndescripton = 'd'\nfacts = ['a']").contains("unknown field `descripton`"));
        std::fs::write(&path, "title = 't'\ndescription = 'd'\nfacts = ['a', 'b']").unwrap();
        assert_eq!(Universe::read(&path).unwrap().text(), "t\n\nd\n\nIn particular:\n- a\n- b");
    }
}
