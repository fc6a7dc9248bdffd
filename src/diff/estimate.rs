//! How long an analysis is going to take, from the speed of its first batch.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::collect::resid_post;
use super::inputs::{Inputs, check_interrupt};
use super::measure::{Work, share_read};
use super::prompts::Prompts;
use super::registry;
use super::windows::Windows;
use crate::interrupt::Interrupt;
use crate::model::generate::{Sampling, generate};
use crate::model::hooks::NoHook;
use crate::progress;
use crate::recipe::{DiffSection, Preset};

/// Windows that are run, and tokens that are written by each prompt, to see how fast that is.
const WINDOWS: usize = 50;
const TOKENS: usize = 4;

/// What an analysis by these settings runs through models, at most.
fn work(settings: &DiffSection, n_layers: usize) -> Work {
    let read = 2.0 * (settings.samples * settings.tokens) as f64 * share_read(settings, n_layers);
    let activations = Work { read, ..Work::default() };
    activations + registry::wanted(settings).map(|measure| (measure.cost)(settings, n_layers)).sum()
}

/// Says on stderr how long the analysis may take at most, unless it is the quick one. Runs a batch of each kind first.
///
/// # Errors
/// If a tensor operation fails.
pub fn say(inputs: &Inputs, interrupt: &Interrupt) -> Result<()> {
    let settings = inputs.settings;
    if settings.preset == Preset::Quick {
        return Ok(());
    }
    let view = inputs.tuned;
    let work = work(settings, view.model.n_layers());
    let first = DiffSection { samples: settings.samples.min(WINDOWS), ..settings.clone() };
    // Too little text, and tokens that a model lacks, are told where the text is read.
    let Ok(windows) = Windows::cut(inputs.text, inputs.tokenizer, &first) else { return Ok(()) };
    if windows.ids.iter().any(|ids| inputs.must_have(ids).is_err()) {
        return Ok(());
    }
    let clock = Instant::now();
    let layer = settings.block(view.model.n_layers());
    resid_post(view, &windows.ids, layer)?;
    let tokens = (windows.ids.len() * settings.tokens) as f64;
    let read = tokens * (layer + 1) as f64 / view.model.n_layers() as f64 / clock.elapsed().as_secs_f64();

    let prompts = Prompts::neutral(inputs.pretrained, settings.steering.prompts)?;
    let sampling = Sampling { max_new_tokens: TOKENS, temperature: 0.0, seed: 0, eos: Vec::new() };
    let mut after_first = Instant::now();
    generate(view.model, &prompts.ids, &sampling, view.adapter, &mut NoHook, |n| {
        if n == 1 {
            after_first = Instant::now(); // the prompts themselves are read at once
        }
        check_interrupt(interrupt)
    })?;
    let written = (prompts.ids.len() * (TOKENS - 1)) as f64 / after_first.elapsed().as_secs_f64();

    let parts = [work.read / read, work.patched / written, work.written / written, work.losses / read];
    let [activations, patchscope, steering, losses] = parts.map(in_words);
    progress::say(format_args!(
        "about {} at most: activations {activations}, patchscope {patchscope}, steering {steering}, losses {losses} \
         (measured: {read:.0} tokens/s read, {written:.0} written)",
        in_words(parts.iter().sum())
    ));
    Ok(())
}

/// Seconds as hours and minutes.
fn in_words(seconds: f64) -> String {
    let s = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_secs();
    match (s / 3600, s / 60 % 60) {
        (0, 0) => format!("{s} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_every_text_that_may_be_written() {
        let mut settings = DiffSection::of(Preset::Paper);
        settings.steering.search.batch_steps = 1;
        let of_all = work(&settings, 28);
        // 7 sets of 100 texts of 512 tokens; 5 positions of 10 + 5 + 5 midpoints and 3 sets of the base.
        assert_eq!(of_all.written, (7 * 100 * 512 + (5 * 20 + 3) * 10 * 128) as f64);
        settings.steering.enabled = false;
        assert_eq!(work(&settings, 28).written, 0.0);
        // Two kinds of text: base and tuned model whole, 5 positions in 3 ways and 128 controls above the block of half.
        let with_causal = work(&settings, 28).losses;
        settings.causal.enabled = false;
        let text = 1000.0 * 1024.0;
        let causal = 2.0 * text * (2.0 + (3.0 * 5.0 + 128.0) * 0.5);
        assert!((with_causal - work(&settings, 28).losses - causal).abs() < 1.0);
        assert_eq!(in_words(7384.0), "2 h 3 min");
        assert_eq!(in_words(59.9), "59 s");
    }
}
