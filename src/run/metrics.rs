//! `metrics.jsonl` and its TensorBoard twin.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::RunDir;
use super::tensorboard::EventWriter;
use crate::atomic::write_atomically;
use crate::bail_input;
use crate::json::{self, JsonLines};

/// A line of `metrics.jsonl`, as training writes it and a report reads it. Losses are nats a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Steps done, this one included; 0 before the first.
    pub step: usize,
    /// Input tokens so far.
    #[serde(default)]
    pub tokens: usize,
    /// Mean loss of the step's tokens that count in the training loss, each as 1, whatever its weight (and that of its
    /// source: one of weight 0 has no loss here).
    pub loss: Option<f64>,
    /// Of its narrow tokens.
    pub loss_narrow: Option<f64>,
    /// Of its pretraining tokens.
    pub loss_pretraining: Option<f64>,
    /// Of the tokens of its general conversations, where there are any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_chat: Option<f64>,
    /// Learning rate of the step.
    pub lr: Option<f64>,
    /// Global gradient norm before clipping.
    pub grad_norm: Option<f64>,
    /// Input tokens of the step / its wall time, evaluation and checkpoints excluded.
    pub tokens_per_s: Option<f64>,
    /// Seconds since training began, resumed parts added up.
    #[serde(default)]
    pub elapsed_s: f64,
    /// Loss on held-out narrow text, where it was evaluated after this step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eval_narrow: Option<f64>,
    /// Loss on held-out pretraining text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eval_pretraining: Option<f64>,
    /// Loss on held-out general conversations.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eval_chat: Option<f64>,
    /// What a run may have beside: `loss_divergence` and `loss_difference` (terms of the loss, unweighted),
    /// `trace_…` (measures of the trace) and `behaviour_…`.
    #[serde(flatten, default)]
    pub more: BTreeMap<String, f64>,
}

/// The lines of `metrics.jsonl` as they stand; `None` if it is not there. A run that was killed may have left a last line that
/// is cut off: the rest of its curve is still worth showing.
///
/// # Errors
/// An [`crate::error::InputError`] with the first line that is damaged.
pub fn read(path: &Path) -> Result<Option<JsonLines<MetricsLine>>> {
    json::read_torn_lines(path)
}

/// The last step in `metrics.jsonl`, from its end: the run may be writing it at this moment, and whoever waits looks often.
pub fn last_step(path: &Path) -> Option<usize> {
    let text = crate::input_file::read_to_string(path).ok()?;
    text.lines().rev().find_map(|line| serde_json::from_str::<MetricsLine>(line).ok()).map(|line| line.step)
}

/// `metrics.jsonl` and the TensorBoard file, written line by line.
pub struct MetricsWriter {
    jsonl: File,
    tensorboard: EventWriter,
}

impl MetricsWriter {
    /// Opens both for the steps after `step`; lines of later steps, left by an interrupted run, are cut off.
    ///
    /// # Errors
    /// An input error if a line of an earlier step is missing; otherwise if a file cannot be written.
    pub fn open(run: &RunDir, step: Option<usize>) -> Result<Self> {
        let path = run.metrics();
        let mut kept = String::new();
        if let Some(step) = step {
            let text = crate::input_file::read_to_string(&path).unwrap_or_default();
            let read = |line| Some((serde_json::from_str::<MetricsLine>(line).ok()?.step, line));
            let whole: Vec<(usize, &str)> =
                text.lines().filter_map(read).filter(|(of, _)| *of <= step).collect();
            let steps: HashSet<usize> = whole.iter().map(|(of, _)| *of).collect();
            if let Some(missing) = (0..=step).find(|wanted| !steps.contains(wanted)) {
                bail_input!(
                    "{}: lacks the line of step {missing}, but the checkpoint is of step {step}; expected the file as the run \
                     left it",
                    path.display()
                );
            }
            whole.iter().for_each(|(_, line)| kept.extend([line, "\n"]));
        }
        write_atomically(&path, kept.as_bytes())?;
        let jsonl = OpenOptions::new().append(true).open(&path)?;
        let tensorboard = EventWriter::create(run.path(), step.map_or(0, |step| step as i64 + 1))?;
        Ok(Self { jsonl, tensorboard })
    }

    /// Has the lines on disk: a checkpoint that follows must not outlive them.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.jsonl.sync_data().context("writing metrics.jsonl")
    }

    /// Writes one line and flushes it.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn write(&mut self, line: &MetricsLine) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.jsonl.write_all(text.as_bytes()).context("writing metrics.jsonl")?;
        self.jsonl.flush().context("writing metrics.jsonl")?;
        let scalars = [
            ("train/loss", line.loss),
            ("train/loss_narrow", line.loss_narrow),
            ("train/loss_pretraining", line.loss_pretraining),
            ("train/loss_chat", line.loss_chat),
            ("train/lr", line.lr),
            ("train/grad_norm", line.grad_norm),
            ("train/tokens_per_s", line.tokens_per_s),
            ("eval/narrow", line.eval_narrow),
            ("eval/pretraining", line.eval_pretraining),
            ("eval/chat", line.eval_chat),
        ];
        let more: Vec<(String, f64)> = self::more(line).collect();
        let scalars: Vec<(&str, f32)> = scalars
            .iter()
            .filter_map(|(n, v)| v.map(|v| (*n, v as f32)))
            .chain(more.iter().map(|(n, v)| (n.as_str(), *v as f32)))
            .collect();
        self.tensorboard.write(line.step as i64, &scalars)
    }
}

/// TensorBoard's names of what a line has beside: `loss_x` is of the step, `trace_x` a group of its own.
fn more(line: &MetricsLine) -> impl Iterator<Item = (String, f64)> {
    line.more.iter().map(|(name, value)| match name.split_once('_') {
        Some((group, rest)) if group != "loss" => (format!("{group}/{rest}"), *value),
        _ => (format!("train/{name}"), *value),
    })
}
