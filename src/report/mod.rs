//! Results to files for people: tables and one self-contained HTML page.
//!
//! [`cell`] reads run folders; [`measure`] and [`verdict`] say what their numbers mean; [`table`],
//! [`summary`] and [`html`] write them for the terminal, for a data frame and for a browser.

pub mod cell;
mod charts;
pub mod digest;
mod dose;
mod figures;
pub mod manifest;
pub mod measure;
mod number;
mod shape;
pub mod summary;
pub mod table;
pub mod verdict;
mod visible;
mod write;

pub use cell::Cell;
pub use summary::write_summary;
pub use table::print_table;
