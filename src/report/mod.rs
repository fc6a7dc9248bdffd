//! Results to files for people: tables and one self-contained HTML page.
//!
//! [`cell`] reads run folders; [`verdict`] says what their numbers mean; [`table`],
//! [`summary`] and [`html`] write them for the terminal, for a data frame and for a browser.

mod behaviour;
pub mod cell;
mod charts;
mod detail;
pub mod digest;
mod dose;
mod draw;
mod figures;
mod frontier;
pub mod gone;
mod graded;
pub mod html;
pub mod learned;
mod number;
mod overview;
mod page_run;
pub mod parquet;
mod picture;
mod png;
mod provenance;
pub mod runs;
mod setting;
mod shape;
pub mod summary;
pub mod table;
mod texts;
mod trace;
mod training;
pub mod value;
pub mod verdict;
pub(crate) mod visible;
mod write;

pub use behaviour::lines as behaviour_lines;
pub use cell::{Cell, read_all};
pub use html::{Written, write_figures, write_html};
pub use parquet::write_parquet;
pub use summary::write_summary;
pub use table::print_table;
pub use write::check_place;

use std::path::Path;

/// Reads the cells of a sweep folder and writes its `summary.csv`, `summary.parquet` and `report.html`; gives
/// the cells back for [`print_table`].
pub fn write_sweep(dir: &Path) -> anyhow::Result<Vec<Cell>> {
    let cells = read_all(&[dir.to_path_buf()])?;
    write_summary(&cells, &dir.join("summary.csv"))?;
    write_parquet(&cells, &dir.join("summary.parquet"))?;
    write_html(&cells, &dir.join("report.html"))?;
    Ok(cells)
}
