//! The narrow text of a finished run: what it was trained on, and what was held out.

use std::collections::BTreeMap;

use anyhow::Result;

use super::resolve::{Purpose, resolve};
use crate::behaviour::quality::NarrowExamples;
use crate::corpus::Corpus;
use crate::data::examples::Example;
use crate::data::mixture::{Exposure, Role, narrow_draws};
use crate::interrupt::Interrupt;
use crate::model::load::source::Pretrained;
use crate::recipe::Recipe;
use crate::train::manifest::Manifest;

/// The narrow text of a run.
pub(super) struct NarrowOfRun {
    /// As it was trained on.
    pub examples: NarrowExamples,
    /// sha256 of its files, by path.
    pub sha256: BTreeMap<String, String>,
}

impl NarrowOfRun {
    /// Reads the narrow sources of a recipe, no others. Which of their texts the run read follows from its seed and from how
    /// many it read, as its manifest has it.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for a source that cannot be read; [`crate::error::Interrupted`].
    pub fn read(
        recipe: &Recipe,
        manifest: Option<&Manifest>,
        base: &Pretrained,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let mut narrow = recipe.clone();
        for (key, sources) in narrow.sources_mut() {
            if key != "data.narrow" {
                sources.clear();
            }
        }
        let corpus = Corpus::read(&resolve(narrow, Purpose::Reading, interrupt)?, base, None)?;
        let exposure: Vec<&Exposure> = manifest
            .iter()
            .flat_map(|manifest| &manifest.data)
            .filter(|source| source.provenance.role == Role::Narrow)
            .map(|source| &source.exposure)
            .collect();
        let counts: Vec<usize> = exposure.iter().map(|exposure| exposure.examples).collect();
        let sizes = corpus.pools.iter().map(|pool| pool.examples.len());
        let mut is_read: Vec<Vec<bool>> = sizes.map(|size| vec![false; size]).collect();
        let tokens = |pool: usize, example: usize| corpus.pools[pool].examples[example].ids.len();
        let drawn = narrow_draws(&corpus.pools, &counts, recipe.seed).filter(|drawn| {
            // The run read as many tokens of each source: these are its texts.
            let read =
                drawn.iter().map(|picks| picks.iter().map(|p| tokens(p.pool, p.example)).sum::<usize>());
            read.eq(exposure.iter().map(|exposure| exposure.tokens))
        });
        let trained_are = match &drawn {
            Some(_) => "the documents that the run read",
            None => "all documents that were not held out",
        };
        match drawn {
            Some(drawn) => drawn.iter().flatten().for_each(|p| is_read[p.pool][p.example] = true),
            None => is_read.iter_mut().for_each(|of_pool| of_pool.fill(true)),
        }
        let (mut all, mut trained) = (Vec::new(), Vec::new());
        for (pool, is_read) in corpus.pools.into_iter().zip(is_read) {
            let read = pool.examples.into_iter().zip(is_read).filter(|(_, is_read)| *is_read);
            let read: Vec<Example> = read.map(|(example, _)| example).collect();
            trained.extend(first_pieces(&read));
            all.extend(read);
        }
        let held_out = first_pieces(&corpus.held_out_narrow);
        let sha256 = corpus.provenance.into_iter().map(|source| (source.path, source.sha256)).collect();
        let trained_are = trained_are.into();
        Ok(Self { examples: NarrowExamples { all, trained, held_out, trained_are }, sha256 })
    }
}

/// The first piece of each document; pieces of one follow each other.
fn first_pieces(examples: &[Example]) -> Vec<Example> {
    examples.chunk_by(|a, b| a.row == b.row).map(|pieces| pieces[0].clone()).collect()
}
