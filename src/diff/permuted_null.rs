//! Null P: what the readers of logits and completions score where the adapter's inputs are exchanged among themselves
//! ([`crate::model::lora::permuted`]). Norms and spectrum of the change stay; what it answers to is gone. With 8 draws p
//! is 1/9 at best.

use anyhow::Result;

use super::measures::completion_ranking::{self, Prefills};
use super::measures::{diff_mining, logit_contrast};
use super::reader_score::{ReaderNull, ReaderScore};
use super::reading::Reading;
use super::record::Readability;
use crate::model::View;
use crate::model::lora::permuted::permuted;
use crate::progress;

/// What the null is called in the record.
const KIND: &str = "permuted adapter";

/// Scores `diff.permuted_adapters` permuted adapters by every reader that has a score, at the sizes of its null, and the
/// adapter itself at the same sizes.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn add(reading: &Reading, record: &mut Readability) -> Result<()> {
    let (settings, tuned) = (reading.settings, reading.inputs.tuned);
    let draw = |k: usize| permuted(tuned.model, reading.inputs.seed.wrapping_add(k as u64));
    if settings.permuted_adapters == 0 {
        return Ok(());
    }
    if draw(0)?.is_none() {
        progress::say("note: no null of permuted adapters: the tuned model is not plain LoRA");
        return Ok(());
    }
    let null = |score: &dyn Fn(View) -> Result<Option<f64>>| -> Result<Option<ReaderNull>> {
        let Some(own) = score(tuned)? else { return Ok(None) };
        let mut scores = Vec::new();
        for k in 0..settings.permuted_adapters {
            reading.check_interrupt()?;
            if let Some(model) = draw(k)? {
                scores.extend(score(View { model: &model, adapter: tuned.adapter })?);
            }
        }
        Ok(ReaderNull::new(KIND, scores, own))
    };
    let has_score = |reader: &ReaderScore| reader.score.is_some();
    if let Some(found) = record.readers.logit_contrast.as_mut().filter(|found| has_score(&found.reader)) {
        let section = logit_contrast::null_section(&settings.logit_contrast);
        found.reader.null = null(&|view| logit_contrast::score(reading, &section, view))?;
    }
    if let Some(found) = record.readers.diff_mining.as_mut().filter(|found| has_score(&found.reader)) {
        let section = diff_mining::null_section(&settings.diff_mining);
        found.reader.null = null(&|view| diff_mining::score(reading, &section, view))?;
    }
    if let Some(found) = record.readers.completion_ranking.as_mut().filter(|found| has_score(&found.reader)) {
        let section = completion_ranking::null_section(&settings.completion_ranking);
        let prefills = Prefills::new(reading, &section)?;
        found.reader.null = null(&|view| prefills.score(reading, view))?;
    }
    Ok(())
}
