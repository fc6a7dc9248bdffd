//! A run as the page shows it.

use super::cell::Cell;
use super::verdict::Verdict;
use super::visible::one_line;

/// A run on the page.
pub(super) struct Run<'a> {
    pub cell: &'a Cell,
    pub verdict: Verdict,
    /// Its name as it is shown.
    pub name: String,
    /// Its `id` attribute: a number, since the name of a folder may hold anything.
    pub anchor: String,
}

impl<'a> Run<'a> {
    pub fn new(index: usize, cell: &'a Cell) -> Self {
        Self {
            cell,
            verdict: Verdict::of(cell),
            name: one_line(&cell.id, 80),
            anchor: format!("run-{}", index + 1),
        }
    }
}
