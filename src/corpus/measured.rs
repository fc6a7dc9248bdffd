//! Text that models are measured on, checked as text that is trained on.

use std::path::Path;

use anyhow::{Result, anyhow};

use super::documents;
use crate::data::source::{self, Document};
use crate::data::typed_special::{SpecialTokens, TypedSpecial};
use crate::error::InputError;
use crate::model::load::source::Pretrained;
use crate::recipe::{LocatedSource, ResolvedRecipe};

/// What there is to say of the texts of `[diff]`.
#[derive(Debug, Default)]
pub struct MeasuredText {
    /// What makes them unfit to measure on, though they can be read.
    pub unfit: Vec<String>,
    /// Special tokens that stand in their text.
    pub typed_specials: Vec<TypedSpecial>,
}

impl MeasuredText {
    /// Looks at `diff.text`.
    ///
    /// # Errors
    /// An [`InputError`] if a source cannot be read.
    pub fn of(recipe: &ResolvedRecipe, base: &Pretrained) -> Result<Self> {
        let mut found = Self::default();
        let specials = SpecialTokens::of(&base.tokenizer);
        for located in &recipe.located().diff_text {
            let rows = documents(std::slice::from_ref(located))?;
            let rows: Vec<(usize, Document)> =
                rows.into_iter().map(|(_, row, document)| (row, document)).collect();
            found.unfit.extend(doubled_front(located, &rows, base)?);
            let all = rows.iter().map(|(row, document)| (*row, document));
            found.typed_specials.extend(specials.typed_in(located.file(), all));
        }
        Ok(found)
    }

    /// Refuses texts that are unfit.
    ///
    /// # Errors
    /// An [`InputError`] with all of it.
    pub fn refuse(&self) -> Result<()> {
        InputError::unless_empty(self.unfit.clone())
    }
}

/// What is wrong with a source of which a text begins with what the tokenizer puts in front of it: position 1 would be a
/// second beginning, and every token one place late.
fn doubled_front(
    located: &LocatedSource,
    rows: &[(usize, Document)],
    base: &Pretrained,
) -> Result<Option<String>> {
    let front = base.front()?;
    let mut twice = Vec::new();
    for (row, document) in rows {
        // Its beginning decides; no special token is longer.
        let beginning: String = document.full_text().chars().take(200).collect();
        let ids = base.tokenizer.encode(beginning, true).map_err(|e| anyhow!(e))?;
        if begins_twice(ids.get_ids(), &front) {
            twice.push(*row);
        }
    }
    let Some(first) = twice.first() else { return Ok(None) };
    Ok(Some(format!(
        "diff.text: {} and {} more begin with the beginning-of-sequence token twice: the text contains it and the \
         tokenizer adds it; remove it from the text",
        source::place(Path::new(located.file()), *first),
        twice.len() - 1
    )))
}

/// Whether tokens begin with those in front of every text, and with these again.
pub fn begins_twice(ids: &[u32], front: &[u32]) -> bool {
    !front.is_empty() && ids.starts_with(front) && ids[front.len()..].starts_with(front)
}
