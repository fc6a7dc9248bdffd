//! A recipe that leaves nothing open.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::{Recipe, SourceSpec};

/// A source of texts, and the file or folder that holds its documents.
#[derive(Debug, Clone, PartialEq)]
pub struct LocatedSource {
    spec: SourceSpec,
    file: PathBuf,
}

impl LocatedSource {
    /// A source whose documents are in `file`.
    pub fn new(spec: SourceSpec, file: impl Into<PathBuf>) -> Self {
        Self { spec, file: file.into() }
    }

    /// The file or folder that is read.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Deref for LocatedSource {
    type Target = SourceSpec;

    fn deref(&self) -> &SourceSpec {
        &self.spec
    }
}

/// The sources of a recipe, by the keys that name them.
#[derive(Debug, Clone, PartialEq)]
pub struct LocatedSources {
    /// `data.narrow`
    pub narrow: Vec<LocatedSource>,
    /// `data.pretraining`; `"self"` has no file of its own before it is sampled.
    pub pretraining: Vec<LocatedSource>,
    /// `data.chat`
    pub chat: Vec<LocatedSource>,
    /// `diff.text`
    pub diff_text: Vec<LocatedSource>,
    /// `diff.chat.text`
    pub diff_chat: Vec<LocatedSource>,
    /// `diff.candidates`
    pub candidates: Vec<LocatedSource>,
}

/// A recipe with everything decided that the written one leaves open: which commit of a data set, how many documents of
/// `"self"`, which place a relative `MODEL` is; and the files in which the documents lie. `workflow::resolve` makes it of
/// a written recipe, `verify` of what a run recorded. It reads as a [`Recipe`] and cannot be changed.
///
/// ```compile_fail
/// fn change(recipe: &mut trainer::recipe::ResolvedRecipe) {
///     recipe.seed = 1;
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedRecipe {
    recipe: Recipe,
    located: LocatedSources,
}

impl ResolvedRecipe {
    /// A recipe whose keys leave nothing open; `file` names the file or folder of each source.
    pub fn new(recipe: Recipe, file: impl Fn(&SourceSpec) -> PathBuf) -> Self {
        let locate = |specs: &[SourceSpec]| -> Vec<LocatedSource> {
            specs.iter().map(|spec| LocatedSource::new(spec.clone(), file(spec))).collect()
        };
        let located = LocatedSources {
            narrow: locate(&recipe.data.narrow),
            pretraining: locate(&recipe.data.pretraining),
            chat: locate(&recipe.data.chat),
            diff_text: locate(&recipe.diff.text),
            diff_chat: locate(&recipe.diff.chat.text),
            candidates: locate(&recipe.diff.candidates),
        };
        Self { recipe, located }
    }

    /// The sources with their files.
    pub fn located(&self) -> &LocatedSources {
        &self.located
    }

    /// A line for each file of `diff.text` that is one of `data.pretraining` too, where that is trained on: the trace is
    /// meant to be read on text that the organism has not seen.
    pub fn measured_on_pretraining(&self) -> Vec<String> {
        if self.data.mix == 0.0 && !self.train.mitigation.reads_pretraining() {
            return Vec::new();
        }
        let file = |source: &LocatedSource| {
            source.file().canonicalize().unwrap_or_else(|_| source.file().to_path_buf())
        };
        let pretraining = self.located.pretraining.iter().filter(|s| !s.is_self());
        let trained: Vec<_> = pretraining.map(file).collect();
        let text = |source: &LocatedSource| {
            format!(
                "diff.text: {} is a source of data.pretraining too: the trace would be read on text that the organism was \
                 trained on; expected other text",
                source.name()
            )
        };
        self.located.diff_text.iter().filter(|source| trained.contains(&file(source))).map(text).collect()
    }
}

impl Deref for ResolvedRecipe {
    type Target = Recipe;

    fn deref(&self) -> &Recipe {
        &self.recipe
    }
}
