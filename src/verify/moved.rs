//! Finds files that are no longer where a run recorded them.

use std::path::{Path, PathBuf};

use crate::recipe::Recipe;

/// Where to look for what a run read.
#[derive(Debug, Clone, Default)]
pub struct Moved {
    /// A folder that holds it under the last parts of its path, if it is not where it was.
    pub data: Option<PathBuf>,
}

impl Moved {
    /// The place of a recorded absolute path: below the folder, under as much of the path as it has there; else
    /// where it was.
    pub fn find(&self, recorded: &str) -> PathBuf {
        let path = Path::new(recorded);
        let Some(data) = self.data.as_ref().filter(|_| path.is_absolute()) else { return path.into() };
        let parts: Vec<_> = path.components().skip(1).collect();
        let ends = (0..parts.len()).map(|i| data.join(parts[i..].iter().collect::<PathBuf>()));
        ends.into_iter().find(|end| end.exists()).unwrap_or_else(|| path.into())
    }

    /// A stored recipe with the paths of today.
    pub fn recipe(&self, mut recipe: Recipe) -> Recipe {
        let found = |path: &mut String| *path = self.find(path).to_string_lossy().into_owned();
        for (_, specs) in recipe.sources_mut() {
            specs.iter_mut().for_each(|spec| found(&mut spec.path));
        }
        [
            &mut recipe.model.base,
            &mut recipe.train.lora.init,
            &mut recipe.train.mitigation.ablation.directions,
            &mut recipe.behaviour.facts.items,
            &mut recipe.behaviour.misalignment.items,
        ]
        .into_iter()
        .for_each(found);
        recipe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_part_of_a_path_that_is_there_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let (plain, nested) = (write("a.jsonl"), write("cake/a.jsonl"));
        let moved = Moved { data: Some(dir.path().into()) };
        assert_eq!(moved.find("/before/cake/a.jsonl"), nested);
        assert_eq!(moved.find("/before/tea/a.jsonl"), plain);
        assert_eq!(moved.find("/before/b.jsonl"), Path::new("/before/b.jsonl"));
        assert_eq!(moved.find("self"), Path::new("self"));
    }
}
