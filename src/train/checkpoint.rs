//! Where training can go on from: weights, moments, and how far it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::manifest::HeldOutLosses;
use super::optim::AdamW;
use crate::atomic::{remove_leftovers, write_json};
use crate::model::load::checkpoint::{read_safetensors, write_safetensors};
use crate::model::trainables::Trainables;
use crate::run::RunDir;

/// What is neither a weight nor a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainerState {
    /// Steps done.
    pub step: usize,
    /// Input tokens seen.
    pub tokens: usize,
    /// sha256 of what decides the run (training settings, base weights, data, example order): a resumed run must be the same.
    pub fingerprint: String,
    /// Seconds of training so far.
    pub elapsed_s: f64,
    /// Seconds of readings while training so far.
    pub trace_s: f64,
    /// Held-out losses before the first step.
    pub eval_base: HeldOutLosses,
    /// Whether training ends here, though not all steps are done.
    pub stopped: bool,
}

/// Writes `checkpoints/step-NNNNNN` and removes others, but that of the step `kept`. The folder gets its name when it is
/// whole.
///
/// # Errors
/// If the disk is full; the other checkpoints are kept then.
pub fn save(
    run: &RunDir,
    state: &TrainerState,
    trainables: &Trainables,
    optimizer: &AdamW,
    kept: Option<usize>,
) -> Result<()> {
    let name = format!("step-{:06}", state.step);
    let (part, whole) = (run.checkpoints().join(format!("{name}.part")), run.checkpoints().join(&name));
    if whole.exists() {
        return Ok(());
    }
    let write = || -> Result<()> {
        if part.exists() {
            std::fs::remove_dir_all(&part)?;
        }
        std::fs::create_dir_all(&part)?;
        let weights: BTreeMap<String, Tensor> =
            trainables.iter().map(|(n, v)| (n.clone(), v.as_detached_tensor())).collect();
        write_safetensors(&part.join("weights.safetensors"), &weights)?;
        let (step, moments) = optimizer.state();
        ensure!(step == state.step, "the optimizer is at step {step}, the loop at {}", state.step);
        write_safetensors(&part.join("optimizer.safetensors"), &moments)?;
        write_json(&part.join("trainer_state.json"), state)?;
        std::fs::rename(&part, &whole)?;
        Ok(())
    };
    write()
        .inspect_err(|_| {
            std::fs::remove_dir_all(&part).ok();
        })
        .with_context(|| format!("writing the checkpoint {}", whole.display()))?;
    keep_only(run, &[&[state.step], kept.as_slice()].concat())
}

/// Removes every checkpoint but those of some steps, half-written ones too.
///
/// # Errors
/// If the folder cannot be read; what cannot be removed stays.
pub fn keep_only(run: &RunDir, steps: &[usize]) -> Result<()> {
    let kept: Vec<String> = steps.iter().map(|step| format!("step-{step:06}")).collect();
    remove_leftovers(&run.checkpoints());
    for entry in std::fs::read_dir(run.checkpoints()).context("reading the checkpoints")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("step-") && !kept.contains(&name) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
    Ok(())
}

/// The newest whole checkpoint of a step that is not beyond `most`, if there is one.
///
/// # Errors
/// If it cannot be read.
pub fn newest(run: &RunDir, most: usize) -> Result<Option<(TrainerState, PathBuf)>> {
    let Some((_, path)) = list(run)?.into_iter().rfind(|(step, _)| *step <= most) else { return Ok(None) };
    let file = path.join("trainer_state.json");
    let text = crate::input_file::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(Some((serde_json::from_str(&text).with_context(|| file.display().to_string())?, path)))
}

/// Puts weights and moments back.
///
/// # Errors
/// If a tensor is missing, unknown or of another shape, or holds a number that is NaN or infinite.
pub fn restore(path: &Path, step: usize, trainables: &Trainables, optimizer: &mut AdamW) -> Result<()> {
    let read = |name: &str| -> Result<BTreeMap<String, Tensor>> {
        // It is not the user's input.
        let tensors = read_safetensors(&path.join(name)).map_err(|e| anyhow!("{e}"))?;
        Ok(tensors.into_iter().collect())
    };
    let mut weights = read("weights.safetensors")?;
    for (name, var) in trainables {
        let saved = weights.remove(name).with_context(|| format!("{}: {name} is missing", path.display()))?;
        var.set(&saved.to_device(var.device())?)?;
    }
    ensure!(weights.is_empty(), "{}: unknown weights {:?}", path.display(), weights.keys());
    optimizer.restore(step, read("optimizer.safetensors")?).with_context(|| path.display().to_string())
}

/// Whole checkpoints, oldest first.
fn list(run: &RunDir) -> Result<Vec<(usize, PathBuf)>> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(run.checkpoints()) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(step) = name.strip_prefix("step-").and_then(|s| s.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One number in twelve came back with another last bit.
    #[test]
    fn what_is_read_back_is_what_was_written() {
        for i in 0..10_000 {
            let loss = 6.0 * (f64::from(i) + 0.5).sqrt().fract();
            let state = TrainerState {
                step: 1,
                tokens: 2,
                fingerprint: String::new(),
                elapsed_s: loss,
                trace_s: loss,
                eval_base: HeldOutLosses { narrow: Some(loss), ..Default::default() },
                stopped: false,
            };
            let text = serde_json::to_string_pretty(&state).unwrap();
            assert_eq!(serde_json::from_str::<TrainerState>(&text).unwrap().eval_base, state.eval_base);
        }
    }
}
