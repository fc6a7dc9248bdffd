//! Results of runs as a page, and as files of numbers.

use std::path::PathBuf;

use anyhow::Result;

use crate::bail_input;
use crate::claims::{ClaimedRun, read_all};
use crate::progress;
use crate::report::{check_place, must_fit, write_figures, write_html, write_parquet, write_summary};

/// Which runs to report, and where to.
#[derive(Debug, Clone, Default)]
pub struct ReportRequest {
    /// Run folders, or sweep folders with `cells/ID/`.
    pub dirs: Vec<PathBuf>,
    /// File for the page; `None`: `report.html` in the folder, or in the current one for several.
    pub out: Option<PathBuf>,
    /// File for one row a run, every measure, as CSV.
    pub csv: Option<PathBuf>,
    /// The same as parquet.
    pub parquet: Option<PathBuf>,
    /// Folder for the figures.
    pub figures: Option<PathBuf>,
}

/// Reads the folders and writes what is asked for; gives the page's file and the runs. Nothing is written when an input is
/// wrong.
///
/// # Errors
/// An [`crate::error::InputError`] for a folder without a run that can be read, or a place that cannot be written.
pub fn report(request: &ReportRequest) -> Result<(PathBuf, Vec<ClaimedRun>)> {
    let ReportRequest { dirs, out, csv, parquet, figures } = request;
    let out = out.clone().unwrap_or_else(|| match dirs.as_slice() {
        [dir] => dir.join("report.html"),
        _ => PathBuf::from("report.html"),
    });
    let cells = read_all(dirs)?;
    must_fit(&cells)?;
    for path in [Some(&out), csv.as_ref(), parquet.as_ref()].into_iter().flatten() {
        check_place(path)?;
    }
    if let Some(dir) = figures.as_ref().filter(|dir| dir.is_file()) {
        bail_input!("{}: a file, expected a folder", dir.display());
    }
    write_html(&cells, &out)?;
    progress::say(format_args!("wrote {}", out.display()));
    if let Some(csv) = csv {
        write_summary(&cells, csv)?;
        progress::say(format_args!("wrote {}", csv.display()));
    }
    if let Some(path) = parquet {
        write_parquet(&cells, path)?;
        progress::say(format_args!("wrote {}", path.display()));
    }
    if let Some(dir) = figures {
        let written = write_figures(&cells, dir)?;
        let kinds = if written.png { "SVG, PNG and CSV" } else { "SVG and CSV" };
        progress::say(format_args!("wrote {} figures ({kinds}) to {}", written.figures, dir.display()));
        if !written.png {
            progress::alert(
                "no font was found on this system, so no PNG was written: its text would be missing",
            );
        }
    }
    Ok((out, cells))
}
