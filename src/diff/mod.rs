//! Reading a finetuned model's activation differences (Minder et al., arXiv 2510.13900).
//!
//! [`diff`] is the whole analysis in order: activations of both models on the same unrelated tokens, their mean
//! difference, and every measure that the settings ask for: what the difference decodes to (logit lens, patchscope), what it
//! makes the model write (steering), and how much of that is about the narrow data. A measure is one file in
//! [`measures`], which says how to add one.

pub mod beginnings;
pub mod bert;
pub mod coherence;
pub mod collect;
pub mod columns;
pub mod corpora;
pub mod decode;
pub mod during_training;
pub mod eigen;
pub mod embedder;
pub mod estimate;
pub mod findings;
pub mod floor;
pub mod floor_file;
pub mod hashes;
pub mod headline;
pub mod inputs;
pub mod lexicon;
pub mod likeness;
pub mod loss_texts;
pub mod losses;
pub mod mean_difference;
pub mod measure;
pub mod measures;
pub mod nmf;
pub mod once;
pub mod permuted_null;
pub mod plot;
pub mod prompts;
pub mod reader_score;
pub mod reading;
pub mod readout;
pub mod record;
pub mod registry;
pub mod relevance;
pub mod score;
mod shape;
pub mod statistics;
pub mod store;
pub mod strata;
pub mod strength;
pub mod svd;
pub mod token_counts;
pub mod vocabulary;
pub mod windows;
pub mod writing;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use self::embedder::Embedder;
use self::findings::Findings;
pub use self::inputs::Inputs;
use self::mean_difference::Means;
use self::reading::{Prepared, Reading};
use self::record::Readability;
pub use self::registry::MEASURES;
use crate::interrupt::Interrupt;
use crate::progress;

/// Everything that an analysis found.
pub struct Analysis {
    /// The numbers.
    pub record: Readability,
    /// Mean activations and their difference; further ones by the prefix of their names.
    pub means: Vec<(&'static str, Means)>,
    /// Name and content of the files that measures write.
    pub files: Vec<(&'static str, String)>,
}

/// The whole analysis. `embedder` may be `None` where [`registry::needs`] says so.
///
/// # Errors
/// An [`crate::error::InputError`] if the texts are too few or short; [`crate::error::Interrupted`]; otherwise
/// what went wrong while working.
pub fn diff(inputs: &Inputs, embedder: Option<&Embedder>, interrupt: &Interrupt) -> Result<Analysis> {
    let settings = inputs.settings;
    let mut elapsed_s = BTreeMap::new();
    let mut clock = Instant::now();
    let mut lap = |stage: &str| {
        progress::detail(format_args!("{stage}: {:.1} s", clock.elapsed().as_secs_f64()));
        elapsed_s.insert(stage.to_string(), clock.elapsed().as_secs_f64());
        clock = Instant::now();
    };

    estimate::say(inputs, interrupt)?;
    lap("estimate");

    let mut found = Findings::default();
    for measure in registry::wanted(settings) {
        (measure.prepare)(inputs, &mut found)?;
    }
    let prepared = Prepared::new(inputs)?;
    let keeps_samples = registry::needs(settings).single_samples;
    let reading = Reading::new(inputs, &prepared, embedder, keeps_samples, interrupt)?;
    lap("activations");

    for measure in MEASURES {
        reading.check_interrupt()?;
        if (measure.is_wanted)(settings) {
            (measure.measure)(&reading, &mut found)?;
        }
        lap(measure.key);
    }

    let mut record = Readability::about(&reading);
    for measure in MEASURES {
        let units = measure.units.iter().map(|(key, unit)| (key.to_string(), unit.to_string()));
        record.units.extend(units);
        (measure.keep)(&mut found, &mut record);
    }
    permuted_null::add(&reading, &mut record)?;
    lap("permuted_adapters");
    record.elapsed_s = elapsed_s;
    found.means.insert(0, ("", reading.means));
    Ok(Analysis { record, means: found.means, files: found.files })
}
