//! Compares a run with a second training of its recipe.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};

use super::{Check, Finding};
use crate::machine::Machine;
use crate::run::RunDir;
use crate::run::metrics::{self, MetricsLine};
use crate::train::manifest::Manifest;

/// On another kind of processor, or by another version of this program, sums are taken in another order: every loss may
/// differ by this share. Ten times what `scripts/fit_parity.py` allows between this program and PyTorch.
pub const LOSS_TOLERANCE: f64 = 1e-3;

/// Weights and checkpoint of `first`, as its manifest has them, and those of `second`: the same bytes; or, where
/// there are [`differences`], the same losses within [`LOSS_TOLERANCE`].
///
/// # Errors
/// If the second run cannot be read.
pub fn compare(first: &RunDir, recorded: &Manifest, second: &RunDir) -> Result<Vec<Check>> {
    let again = super::manifest(second)?;
    let elsewhere = !differences(recorded).is_empty();
    let mut checks = Vec::new();
    let mut inexact = Vec::new();
    let compared = |name: &&String| name.ends_with(".safetensors") || *name == "metrics.jsonl";
    for name in recorded.files.keys().filter(compared) {
        let what = format!("trained again, {name}");
        let expected = &recorded.files[name];
        match again.files.get(name) {
            Some(found) if found == expected => checks.push(Check::ok(what)),
            Some(_) if elsewhere => inexact.push(name),
            Some(found) => checks.push(Check::differs(what, found, expected)),
            None => checks.push(Check::differs(what, "no such file", expected)),
        }
    }
    if !inexact.is_empty() {
        checks.push(losses(first, second)?);
    }
    for name in inexact.into_iter().filter(|name| name.ends_with("model.safetensors")) {
        let distance = distance(&first.path().join(name), &second.path().join(name))?;
        let note = format!("other bytes, at a relative distance of {distance:.1e}; the losses decide");
        checks.push(Check::new(format!("trained again, {name}"), Finding::Ok { note }));
    }
    Ok(checks)
}

/// In what this machine and this program differ from those that trained a run, in words; the same bytes are expected where
/// nothing does.
pub fn differences(recorded: &Manifest) -> Vec<String> {
    let mut found = Machine::here().differences(&recorded.machine);
    if recorded.version != env!("CARGO_PKG_VERSION") {
        found.push(format!("version {}, not {}", env!("CARGO_PKG_VERSION"), recorded.version));
    }
    found
}

/// The losses of every step and evaluation.
fn losses(first: &RunDir, second: &RunDir) -> Result<Check> {
    const WHAT: &str = "trained again, losses";
    let read = |run: &RunDir| -> Result<Vec<f64>> {
        let lines = metrics::read(&run.metrics())?.context("no metrics.jsonl")?.values;
        let of_line =
            |line: &MetricsLine| [line.loss, line.eval_narrow, line.eval_pretraining, line.eval_chat];
        Ok(lines.iter().flat_map(of_line).flatten().collect())
    };
    let (a, b) = (read(first)?, read(second)?);
    if a.len() != b.len() {
        return Ok(Check::differs(WHAT, format!("{} losses", b.len()), format!("{} losses", a.len())));
    }
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs() / a.abs().max(1e-3)).fold(0.0, f64::max);
    Ok(match worst <= LOSS_TOLERANCE {
        true => {
            let note =
                format!("largest relative difference {worst:.1e}, at most {LOSS_TOLERANCE:.0e} is allowed");
            Check::new(WHAT, Finding::Ok { note })
        }
        false => Check::differs(
            WHAT,
            format!("a relative difference of {worst:.1e}"),
            format!("at most {LOSS_TOLERANCE:.0e}"),
        ),
    })
}

/// ‖a − b‖ / ‖a‖ over all tensors of two files.
fn distance(a: &Path, b: &Path) -> Result<f64> {
    let read = |path: &Path| -> Result<BTreeMap<String, Tensor>> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu);
        Ok(tensors.with_context(|| path.display().to_string())?.into_iter().collect())
    };
    let (a, b) = (read(a)?, read(b)?);
    let square = |t: &Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f32>()? as f64) };
    let (mut difference, mut length) = (0.0, 0.0);
    for (name, tensor) in &a {
        let other = b.get(name).with_context(|| format!("{name}: missing in the second training"))?;
        difference += square(&(tensor - other)?)?;
        length += square(tensor)?;
    }
    Ok((difference / length.max(f64::MIN_POSITIVE)).sqrt())
}
