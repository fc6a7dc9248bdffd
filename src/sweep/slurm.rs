//! A sweep as an array of jobs for Slurm.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Cell, CellPlan};
use crate::atomic::write_atomically;

/// What the scheduler is told.
#[derive(Debug, Clone)]
pub struct Slurm {
    /// Name of the jobs.
    pub name: String,
    /// At most this many cells at once.
    pub jobs: usize,
    /// Processors of each cell.
    pub threads: usize,
    /// Further options of `sbatch`, one a line: `--partition=gpu`.
    pub options: Vec<String>,
}

/// Writes `slurm/array.sbatch` (a task a cell), `slurm/summary.sbatch` (summary and report, after all of them) and
/// `slurm/submit` (hands both to the scheduler) into a sweep folder; returns the path of the last. Cells that are
/// finished are left out, unless all are.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_slurm(sweep: &Path, cells: &[Cell], plans: &[CellPlan], slurm: &Slurm) -> Result<PathBuf> {
    let sweep = std::path::absolute(sweep)?;
    let folder = sweep.join("slurm");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let program = std::env::current_exe().context("finding this program")?;
    let (program, out) = (quoted(&program), quoted(&sweep));
    let waiting: Vec<(&Cell, &CellPlan)> =
        cells.iter().zip(plans).filter(|(cell, _)| !cell.is_finished()).collect();
    let waiting = if waiting.is_empty() { cells.iter().zip(plans).collect() } else { waiting };

    let head = |name: &str, threads: usize, gib: f64| {
        let mut lines = vec![
            "#!/bin/bash".to_string(),
            format!("#SBATCH --job-name={name}"),
            format!("#SBATCH --cpus-per-task={threads}"),
            format!("#SBATCH --mem={}G", gib.ceil() as usize),
        ];
        lines.extend(slurm.options.iter().map(|option| format!("#SBATCH {option}")));
        lines
    };
    let largest = waiting.iter().map(|(_, plan)| plan.memory_gib).fold(0.0, f64::max);
    let name: String = slurm
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .collect();
    let mut array = head(&name, slurm.threads, largest);
    let log = |pattern: &str| format!("#SBATCH --output=\"{}\"", folder.join(pattern).display());
    array.push(format!("#SBATCH --array=0-{}%{}", waiting.len() - 1, slurm.jobs));
    array.push(log("%A_%a.log"));
    // Two minutes before the time limit: write a checkpoint, so that a job submitted again goes on.
    array.push("#SBATCH --signal=B:TERM@120".into());
    array.push("cells=(".into());
    array.extend(waiting.iter().map(|(cell, _)| format!("  {}", quoted(Path::new(&cell.id)))));
    array.push(")".into());
    array.push(format!("export RAYON_NUM_THREADS={}", slurm.threads));
    array.push(format!("exec {program} sweep --out {out} --cell \"${{cells[$SLURM_ARRAY_TASK_ID]}}\""));

    let mut summary = head(&format!("{name}-summary"), 1, 1.0);
    summary.push(log("%j-summary.log"));
    summary.push(format!("exec {program} sweep --summary {out}"));

    let submit = [
        "#!/bin/bash",
        "# Hands the sweep to Slurm: one task a cell, then summary and report. Cells that are finished do nothing.",
        "set -euo pipefail",
        "cd \"$(dirname \"$0\")\"",
        "array=$(sbatch --parsable array.sbatch)",
        "summary=$(sbatch --parsable --dependency=afterany:\"${array%%;*}\" summary.sbatch)",
        "echo \"cells: job ${array%%;*}, summary: job ${summary%%;*}\"",
    ];
    let path = folder.join("submit");
    for (file, text) in [
        (folder.join("array.sbatch"), array.join("\n")),
        (folder.join("summary.sbatch"), summary.join("\n")),
        (path.clone(), submit.join("\n")),
    ] {
        write_atomically(&file, format!("{text}\n").as_bytes())?;
    }
    Ok(path)
}

/// A word of a shell's command line.
fn quoted(word: &Path) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}
