//! Results to files for people: tables and one self-contained HTML page.
//!
//! [`crate::results`] reads run folders and [`crate::claims`] holds what their numbers mean; [`table`], [`summary`] and
//! [`html`] write both for the terminal, for a data frame and for a browser.

mod answers;
mod behaviour;
mod charts;
pub mod digest;
mod doses;
mod draw;
mod effects;
mod figures;
mod floor;
mod frontier;
pub mod html;
mod matching;
mod meets_null;
mod mix_scale;
mod number;
pub mod parquet;
mod png;
mod quality;
mod remaining;
pub mod rules;
pub mod runs;
pub mod screen;
mod series;
pub mod summary;
pub mod table;
mod text_bar;
mod training;
pub mod value;
pub mod verdict;
mod words;
mod write;

pub use behaviour::lines as behaviour_lines;
pub use floor::rows as floor_rows;
pub use html::{WrittenFigures, write_figures, write_html};
pub use parquet::write_parquet;
pub use screen::print_screen;
pub use summary::write_summary;
pub use table::print_table;
pub use write::check_place;

use std::path::Path;

use crate::caught::caught;
use crate::claims::{self, AcrossRuns, ClaimedRun};
use crate::error::{InputError, or_collect};
pub(crate) use crate::visible;

/// Refuses a run whose numbers cannot be shown together, before anything is written.
///
/// # Errors
/// An [`crate::error::InputError`] with each of them.
pub fn must_fit(cells: &[ClaimedRun]) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    for cell in cells {
        let one = std::slice::from_ref(cell);
        let shown = caught(|| {
            html::page(one)?;
            summary::csv(&summary::rows(one))?;
            table::text_table(one);
            Ok::<_, anyhow::Error>(())
        });
        or_collect(shown.unwrap_or_else(|said| Err(cell.does_not_fit(&said))), &mut faults)?;
    }
    InputError::unless_empty(faults)
}

/// Reads the cells of a sweep folder, writes the claims on them and `summary.csv`, `summary.parquet` and `report.html`; gives
/// the cells back for [`print_table`], and the claims on all of them.
pub fn write_sweep(dir: &Path) -> anyhow::Result<(Vec<ClaimedRun>, AcrossRuns)> {
    let (runs, across) = claims::write_sweep(dir)?;
    must_fit(&runs)?;
    write_summary(&runs, &dir.join("summary.csv"))?;
    write_parquet(&runs, &dir.join("summary.parquet"))?;
    write_html(&runs, &dir.join("report.html"))?;
    Ok((runs, across))
}

/// `readability.json` of a run with its claims under `claims`, for programs.
///
/// # Errors
/// None that a run of this crate can have.
pub fn analysis_json(run: &ClaimedRun) -> anyhow::Result<serde_json::Value> {
    let mut document = serde_json::to_value(&run.readability)?;
    document["claims"] = serde_json::to_value(&run.claims)?;
    Ok(document)
}
