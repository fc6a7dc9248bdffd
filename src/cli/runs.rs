//! `trainer runs`: run folders listed, compared, and freed of what they no longer need.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::report::runs::{Comparison, Difference};
use crate::report::value::shown;
use crate::workflow::{self, ListedRun, Pruned};

/// List, compare and prune run folders
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer runs list                            every run in runs/ and its subfolders
  trainer runs list runs/sweep --json
  trainer runs compare runs/a runs/b           recipe keys and main measures that differ
  trainer runs compare runs/a runs/b --all     every measure that differs
  trainer runs prune runs                      what can be removed: checkpoints of finished runs, leftovers
  trainer runs prune runs --yes                remove it")]
pub struct RunsArgs {
    #[command(subcommand)]
    command: RunsCommand,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// List the run folders in some folders, with their settings and main measures
    #[command(after_help = "Examples:
  trainer runs list
  trainer runs list runs/sweep --json | jq .runs")]
    List {
        /// Folders to search
        #[arg(value_name = "DIR", default_value = "runs")]
        dirs: Vec<PathBuf>,
        /// Print one JSON document with every column of the summary
        #[arg(long)]
        json: bool,
    },
    /// Show the recipe keys and measures in which two runs differ
    #[command(after_help = "Examples:
  trainer runs compare runs/cake runs/cake-mixed
  trainer runs compare runs/cake runs/cake-mixed --all")]
    Compare {
        /// Run folder
        #[arg(value_name = "A")]
        a: PathBuf,
        /// Run folder to compare with
        #[arg(value_name = "B")]
        b: PathBuf,
        /// Show every measure that differs, not only the main ones
        #[arg(long)]
        all: bool,
        /// Print one JSON document with every measure that differs
        #[arg(long)]
        json: bool,
    },
    /// Show files that finished runs no longer need; remove them with --yes
    #[command(after_help = "Examples:
  trainer runs prune runs          show the files and their sizes
  trainer runs prune runs --yes    remove them")]
    Prune {
        /// Folders to search
        #[arg(value_name = "DIR", required = true)]
        dirs: Vec<PathBuf>,
        /// Remove the files
        #[arg(long)]
        yes: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// An input error if a folder is not there or is no run; if something cannot be removed.
pub fn run(args: RunsArgs) -> Result<()> {
    match args.command {
        RunsCommand::List { dirs, json } => list(workflow::list_runs(&dirs)?, json),
        RunsCommand::Compare { a, b, all, json } => {
            let found = workflow::compare_runs(&a, &b)?;
            match json {
                true => super::print(&serde_json::to_string_pretty(&found)?),
                false => super::print(&compared(&found, all)),
            }
        }
        RunsCommand::Prune { dirs, yes, json } => {
            let pruned = workflow::prune_runs(&dirs, yes)?;
            if json {
                return super::print(&serde_json::to_string(&pruned)?);
            }
            let Pruned { bytes, found, .. } = pruned;
            let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
            let mut lines: Vec<String> = found
                .iter()
                .map(|f| format!("{}  {}: {}", megabytes(f.bytes), f.path.display(), f.why))
                .collect();
            lines.push(match (found.is_empty(), yes) {
                (true, _) => "nothing to remove".into(),
                (false, true) => format!("{} removed", megabytes(bytes)),
                (false, false) => format!("{} can be removed; add --yes to remove it", megabytes(bytes)),
            });
            super::print(&lines.join("\n"))
        }
    }
}

/// What differs as a table, and how much does not stand in it.
fn compared(found: &Comparison, all: bool) -> String {
    let change = |change: Option<f64>| change.map_or(String::new(), |c| shown(&c.into()));
    let line = |d: &Difference| vec![d.name.clone(), shown(&d.a), shown(&d.b), change(d.change)];
    let mut rows = vec![["", "A", "B", "B − A"].map(String::from).to_vec()];
    rows.extend(found.recipe.iter().map(line));
    let mut below = format!("{} measures are the same", found.same);
    if all {
        rows.extend(found.measures.iter().map(line));
    } else {
        rows.extend(found.headlines.iter().map(|h| {
            let [a, b] = h.values.clone();
            vec![h.name.clone(), a, b, change(h.change)]
        }));
        let further = found.further();
        if further > 0 {
            let differ = if further == 1 { "measure differs" } else { "measures differ" };
            below = format!("{further} more {differ}; --all shows them\n{below}");
        }
    }
    format!("{}\n{below}", super::columns(&rows))
}

/// The main columns of the summary, and their headings.
const COLUMNS: [(&str, &str); 11] = [
    ("base", "base"),
    ("method", "method"),
    ("mix_asked", "mix"),
    ("seed", "seed"),
    ("steps", "steps"),
    ("loss_narrow_base", "narrow, base"),
    ("loss_narrow_tuned", "tuned"),
    ("lens_relevance_mean", "lens"),
    ("patchscope_relevance_mean", "patchscope"),
    ("lift_auroc_mean", "lift"),
    ("bias_share_specific", "specific share"),
];

fn list(found: Vec<ListedRun>, json: bool) -> Result<()> {
    if json {
        let document: Vec<Value> = found
            .into_iter()
            .map(|ListedRun { path, state, row }| {
                let mut entry = json!({ "path": path, "state": state });
                match row {
                    Ok(mut row) => {
                        row.retain(|_, value| !value.is_null());
                        entry["summary"] = row.into();
                    }
                    Err(why) => entry["unreadable"] = why.into(),
                }
                entry
            })
            .collect();
        return super::print(&serde_json::to_string_pretty(&json!({ "runs": document }))?);
    }
    let mut rows = vec![["run", "state"].into_iter().chain(COLUMNS.map(|c| c.1)).map(String::from).collect()];
    for ListedRun { path, state, row } in found {
        let mut line = vec![path.display().to_string(), state.to_string()];
        match row {
            Ok(row) => line.extend(COLUMNS.map(|(key, _)| row.get(key).map_or(String::new(), shown))),
            Err(why) => line.push(format!("unreadable: {}", why.replace('\n', "; "))),
        }
        rows.push(line);
    }
    super::print(&super::columns(&rows))
}
