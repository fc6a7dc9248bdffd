//! Claims: what may be said of runs, as data. Every rule and threshold behind a claim stands in this folder; whoever shows
//! claims (the table of `trainer diff`, the report, `summary.csv`, `trainer tune`) reads them from here.
//!
//! [`verdict`] is the claim on a run, from what [`readable`] and [`stronger`] say of activation differences and from the floor
//! of other organisms; beside it are what the run [`learned`], its [`quality`] and the [`length`] of the difference;
//! [`across`] is what may be said of runs together, of those that [`matching`] finds at equal behaviour where they were
//! matched. [`mod@file`] and [`store`] keep them as `claims.json` beside what they rest
//! on, and [`check`] computes them again.

pub mod across;
pub mod check;
pub mod dose;
pub mod file;
pub mod frontier;
pub mod holm;
pub mod learned;
pub mod length;
pub mod matching;
pub mod meets_null;
pub mod power;
pub mod quality;
pub mod readable;
pub mod remaining;
pub mod rules;
pub mod run;
pub mod seeds;
pub mod setting;
pub mod store;
pub mod stronger;
pub mod summary;
pub mod trace;
pub mod training;
pub mod verdict;

pub use self::across::AcrossRuns;
pub use self::check::{ClaimsDifference, StoredClaims, check_run, check_sweep};
pub use self::run::{ClaimedRun, RunClaims, write_run};
pub use self::store::{across_runs, read_all, write_sweep};

/// `a`, `a and b`, `a, b and c`.
pub fn list<T: AsRef<str>>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().into(),
        [front @ .., last] => {
            let front: Vec<&str> = front.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", front.join(", "), last.as_ref())
        }
    }
}
