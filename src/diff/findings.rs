//! What the measures of an analysis found so far: their records, by type, and the files beside `readability.json`.

use std::any::{Any, TypeId};
use std::collections::HashMap;

use anyhow::Result;
use serde::Serialize;

use super::mean_difference::Means;

/// What was found so far. A measure puts in what later ones need, and finds what earlier ones left by its type.
#[derive(Default)]
pub struct Findings {
    by_type: HashMap<TypeId, Box<dyn Any>>,
    /// Name and content of each further file of the analysis.
    pub files: Vec<(&'static str, String)>,
    /// Further means for `activations.safetensors`, by the prefix of their names.
    pub means: Vec<(&'static str, Means)>,
}

impl Findings {
    /// Keeps a value for later measures; one of the same type is replaced.
    pub fn put<T: 'static>(&mut self, value: T) {
        self.by_type.insert(TypeId::of::<T>(), Box::new(value));
    }

    /// The value of a type; `None` where no measure that ran left one.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.by_type.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// The same, taken out.
    pub fn take<T: 'static>(&mut self) -> Option<T> {
        self.by_type.remove(&TypeId::of::<T>())?.downcast().ok().map(|value| *value)
    }

    /// A further file of JSON lines; none without lines.
    ///
    /// # Errors
    /// If a line has no form in JSON.
    pub fn write_lines(&mut self, name: &'static str, lines: &[impl Serialize]) -> Result<()> {
        let mut text = String::new();
        for line in lines {
            text.push_str(&serde_json::to_string(line)?);
            text.push('\n');
        }
        if !text.is_empty() {
            self.files.push((name, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_kept_by_type() {
        let mut found = Findings::default();
        found.put(3usize);
        found.put("text".to_string());
        found.put(4usize);
        assert_eq!((found.get::<usize>(), found.get::<f64>()), (Some(&4), None));
        assert_eq!((found.take::<String>().as_deref(), found.take::<String>()), (Some("text"), None));
        found.write_lines("none.jsonl", &[] as &[u8]).unwrap();
        found.write_lines("some.jsonl", &[1, 2]).unwrap();
        assert_eq!(found.files, [("some.jsonl", "1\n2\n".to_string())]);
    }
}
