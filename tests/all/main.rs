//! All integration tests, one module a file, in one binary: linked once. `cargo test --release --test all training::`
//! runs one module.
//!
//! A test that needs something which may be missing is named `needs_WHAT_…`, one that takes long `slow_…`; both are
//! `#[ignore = "…"]`. A plain `cargo test` counts them as ignored. `scripts/test` runs the `needs_` tests whose need is
//! there and prints the others by name; with `CI=true` it runs all of them, and one without what it needs fails.
//! `scripts/test --slow` runs the slow ones too. `tiers.rs` holds the names to this.

mod common;

mod adapters;
mod behaviour;
mod changed_weights;
mod claims;
mod cli;
mod coherence;
mod datasets;
mod devices;
mod diffing;
mod floor;
mod grading;
mod guide;
mod help;
mod hostile;
mod inspect;
mod items;
mod library;
mod making;
mod matching;
mod mitigation;
mod pairs;
mod parity;
mod quality;
mod readers;
mod real_text;
mod recipes;
mod regressions;
mod report;
mod report_browser;
#[cfg(unix)]
mod screen;
mod slurm;
mod sources;
mod sweep;
mod templates;
mod tiers;
mod trace;
mod training;
mod trust;
mod verify;
mod weights;
mod wild;
