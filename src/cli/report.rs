//! `trainer report`: results of runs as a table on stdout and a page in a file.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::claims::{ClaimedRun, across_runs};
use crate::report::summary;
use crate::report::verdict::{reasons, stronger_reasons};
use crate::workflow::{self, ReportRequest};

const EXAMPLES: &str = "\
Examples:
  trainer report runs/cake                         page in runs/cake/report.html
  trainer report sweeps/cake                       all cells of a sweep
  trainer report runs/a runs/b --out compare.html  several runs on one page
  trainer report sweeps/cake --figures figures     every figure as SVG and PNG, with its numbers as CSV
  trainer report sweeps/cake --json | jq .runs     the numbers of every run";

/// Show the results of runs or sweeps as a table and an HTML page
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// Run folders, or sweep folders with cells/ID/
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,

    /// File for the page [default: DIR/report.html, or ./report.html for several DIRs]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Also write every measure as CSV, one row per run
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Also write the same table as parquet, with types
    #[arg(long, value_name = "FILE")]
    pub parquet: Option<PathBuf>,
    /// Also write every figure of the page as NAME.svg and NAME.png, and its numbers as NAME.csv, into this folder (PNG
    /// needs a font on the system)
    #[arg(long, value_name = "DIR")]
    pub figures: Option<PathBuf>,

    /// Print one JSON document instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Reads the folders, writes the page, prints the table. Nothing is written when an input is wrong.
pub fn run(args: ReportArgs) -> Result<()> {
    let ReportArgs { dirs, out, csv, parquet, figures, json } = args;
    let (page, cells) = workflow::report(&ReportRequest { dirs, out, csv, parquet, figures })?;
    if json {
        return super::print(&format!(
            "{:#}",
            json!({ "report": page.to_string_lossy(), "runs": runs(&cells) })
        ));
    }
    super::print_runs(&cells, &across_runs(&cells)?)
}

/// The rows of `summary.csv` as objects, each with the sentences of its verdict.
fn runs(cells: &[ClaimedRun]) -> Vec<serde_json::Value> {
    let rows = summary::rows(cells);
    let runs = cells.iter().zip(rows).map(|(cell, mut row)| {
        row.insert("reasons".into(), reasons(&cell.claims).into());
        row.insert("stronger_reasons".into(), stronger_reasons(&cell.claims).into());
        // In CSV an absent value is an empty field; in JSON its key is absent.
        row.retain(|_, value| !value.is_null());
        row.into()
    });
    runs.collect()
}
