//! A run on the page.

use crate::claims::ClaimedRun;
use crate::report::visible::one_line;

/// A run on the page.
pub(super) struct PageRun<'a> {
    /// What is held of it.
    pub held: &'a ClaimedRun,
    /// Its name as it is shown.
    pub name: String,
    /// Its `id` attribute: a number, since the name of a folder may hold anything.
    pub anchor: String,
}

impl<'a> PageRun<'a> {
    /// The run at an index of all.
    pub fn new(index: usize, held: &'a ClaimedRun) -> Self {
        Self { held, name: one_line(&held.id, 80), anchor: format!("run-{}", index + 1) }
    }
}
