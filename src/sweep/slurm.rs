//! A sweep as an array of jobs for Slurm.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::jobs::device_flag;
use super::{Cell, CellPlan};
use crate::atomic::write_atomically;
use crate::error::InputError;

/// What the scheduler is told.
#[derive(Debug, Clone)]
pub struct Slurm {
    /// Name of the jobs.
    pub name: String,
    /// At most this many cells at once; `None`: as many as the cluster gives.
    pub jobs: Option<usize>,
    /// Processors of each cell.
    pub threads: usize,
    /// Further options of `sbatch`, one a line: `--partition=gpu`.
    pub options: Vec<String>,
}

impl Slurm {
    /// Refuses what would become a line of its own in a job script.
    ///
    /// # Errors
    /// An input error for a sweep folder or an option with a control character.
    pub fn must_be_one_line(&self, sweep: &Path) -> Result<()> {
        let out = sweep.to_string_lossy();
        let all =
            std::iter::once(("--out", &*out)).chain(self.options.iter().map(|o| ("--sbatch", o.as_str())));
        let faults = all.filter(|(_, value)| value.chars().any(char::is_control)).map(|(flag, value)| {
            format!("{flag} {value:?}: holds a line break or another control character")
        });
        InputError::unless_empty(faults.collect())
    }
}

/// Tasks of an array where the cluster does not say: Slurm's `MaxArraySize` is 1001 by default, and indices are below it.
const ARRAY_SIZE: usize = 1001;

/// Writes `slurm/array.sbatch` (a task a cell), `slurm/summary.sbatch` (summary and report, after all of them) and
/// `slurm/submit` (hands both to the scheduler) into a sweep folder; returns the path of the last. Cells that are
/// finished are left out, unless all are. More cells than the cluster's `MaxArraySize` allows become several arrays,
/// `array-1.sbatch` and so on; where only so many may run at once, one after the other.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_slurm(sweep: &Path, cells: &[Cell], plans: &[CellPlan], slurm: &Slurm) -> Result<PathBuf> {
    let sweep = std::path::absolute(sweep)?;
    slurm.must_be_one_line(&sweep)?;
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
        lines.extend(slurm.options.iter().map(|given| format!("#SBATCH {}", option(given))));
        lines
    };
    let largest = waiting.iter().map(|(_, plan)| plan.memory_gib).fold(0.0, f64::max);
    let name: String = slurm
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .collect();
    // `submit` goes into the folder first, so logs need no path, in which Slurm would read % as a pattern.
    let log = |pattern: &str| format!("#SBATCH --output={pattern}");
    let throttle = slurm.jobs.map(|jobs| format!("%{jobs}")).unwrap_or_default();
    let size = array_size();
    let array = |cells: &[(&Cell, &CellPlan)]| {
        let mut array = head(&name, slurm.threads, largest);
        array.push(format!("#SBATCH --array=0-{}{throttle}", cells.len() - 1));
        array.push(log("%A_%a.log"));
        // Two minutes before the time limit: write a checkpoint, so that a job submitted again goes on.
        array.push("#SBATCH --signal=B:TERM@120".into());
        array.push("cells=(".into());
        array.extend(cells.iter().map(|(cell, _)| format!("  {}", quoted(Path::new(&cell.id)))));
        array.push(")".into());
        array.push(format!("export RAYON_NUM_THREADS={}", slurm.threads));
        let cell = format!("exec {program} sweep --out {out} --cell \"${{cells[$SLURM_ARRAY_TASK_ID]}}\"");
        array.push([vec![cell], device_flag()].concat().join(" "));
        array
    };
    let parts: Vec<&[(&Cell, &CellPlan)]> = waiting.chunks(size).collect();
    let file_of = |i: usize| match parts.len() {
        1 => "array.sbatch".to_string(),
        _ => format!("array-{}.sbatch", i + 1),
    };
    // Of an earlier sweep there may be more.
    for entry in std::fs::read_dir(&folder)?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with("array") && file.ends_with(".sbatch") {
            std::fs::remove_file(entry.path()).ok();
        }
    }

    let mut summary = head(&format!("{name}-summary"), 1, 1.0);
    summary.push(log("%j-summary.log"));
    summary.push(format!("exec {program} sweep --summary {out}"));

    let mut submit: Vec<String> = [
        "#!/bin/bash",
        "# Hands the sweep to Slurm: one task a cell, then summary and report. Cells that are finished do nothing.",
        "set -euo pipefail",
        "cd \"$(dirname \"$0\")\"",
        "cells=",
    ]
    .map(String::from)
    .to_vec();
    for i in 0..parts.len() {
        // Where only so many cells may run at once, an array waits for the one before.
        let after = match i > 0 && slurm.jobs.is_some() {
            true => " --dependency=afterany:\"${array%%;*}\"",
            false => "",
        };
        submit.push(format!("array=$(sbatch --parsable{after} {})", file_of(i)));
        submit.push("cells=$cells:${array%%;*}".into());
    }
    submit.push("summary=$(sbatch --parsable --dependency=afterany\"$cells\" summary.sbatch)".into());
    submit.push("echo \"cells: job ${cells#:}, summary: job ${summary%%;*}\"".into());
    let path = folder.join("submit");
    let arrays =
        parts.iter().enumerate().map(|(i, cells)| (folder.join(file_of(i)), array(cells).join("\n")));
    let others = [(folder.join("summary.sbatch"), summary.join("\n")), (path.clone(), submit.join("\n"))];
    for (file, text) in arrays.chain(others) {
        write_atomically(&file, format!("{text}\n").as_bytes())?;
    }
    Ok(path)
}

/// How many tasks an array may have: what the cluster says, if it can be asked from here.
fn array_size() -> usize {
    let asked = Command::new("scontrol").args(["show", "config"]).stdin(Stdio::null()).output();
    let text = asked.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    most_tasks(&text).unwrap_or(ARRAY_SIZE)
}

/// `MaxArraySize` of what `scontrol show config` says.
fn most_tasks(config: &str) -> Option<usize> {
    let line = config.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize"))?;
    line.trim_start().strip_prefix('=')?.trim().parse().ok().filter(|size| *size > 0)
}

/// An option of `sbatch` as a line of a script has it: a value with spaces, quotes or the like is quoted.
fn option(given: &str) -> String {
    match given.split_once('=') {
        Some((key, value)) if key.starts_with("--") && !value.starts_with(['"', '\'']) => {
            let is_plain = |c: char| c.is_alphanumeric() || "-_.,:/@%+=[]*".contains(c);
            if value.chars().all(is_plain) {
                return given.to_string();
            }
            format!("{key}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        }
        _ => given.to_string(),
    }
}

/// A word of a shell's command line.
fn quoted(word: &Path) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_s_limit_is_read() {
        assert_eq!(most_tasks("Configuration\nMaxArraySize            = 251\nMaxJobCount = 1\n"), Some(251));
        assert_eq!(most_tasks("scontrol: error"), None);
    }

    #[test]
    fn options_with_spaces_and_quotes_stay_one_word() {
        for (given, expected) in [
            ("--partition=gpu", "--partition=gpu"),
            ("-p x", "-p x"),
            ("--comment=two words", "--comment=\"two words\""),
            ("--comment=a \"b\"", "--comment=\"a \\\"b\\\"\""),
            ("--comment=\"two words\"", "--comment=\"two words\""),
        ] {
            assert_eq!(option(given), expected);
        }
    }
}
