//! What the program does, as library functions: one for each subcommand, which takes a request (what a user asks for, as it
//! was typed) and gives back what it found or where it wrote it.
//!
//! Nothing here writes to stdout; progress and warnings go to stderr through [`crate::progress`]. Long work takes an
//! [`Interrupt`](crate::interrupt::Interrupt) and leaves something to go on from when it is set.
//!
//! ```no_run
//! use trainer::interrupt::Interrupt;
//! use trainer::workflow::{DiffRequest, DiffSubject, FitRequest, diff, fit};
//!
//! let interrupt = Interrupt::default();
//! let run = fit(&FitRequest { recipe: "recipes/sdf-cake.toml".into(), ..Default::default() }, &interrupt)?;
//! diff(&DiffRequest::of(DiffSubject::Run(run.path().into())), &interrupt)?;
//! # Ok::<(), anyhow::Error>(())
//! ```

mod analysis;
mod audit;
mod behave;
mod data;
mod diff;
mod endpoint;
mod export;
mod fit;
mod floor;
mod generate;
mod grade;
mod inspect;
mod merge;
pub mod models;
mod monitor;
mod narrow;
mod of_run;
mod organism;
mod pair;
mod report;
pub mod resolve;
mod runs;
mod self_sample;
mod selftest;
mod sweep;
mod texts;
mod tune;
mod verify;

pub use self::audit::{AuditRequest, GraderRequest, audit};
pub use self::behave::{BehaveRequest, behave};
pub use self::data::{
    DocumentsRequest, NumbersRequest, SampleRequest, TabooRequest, WriterRequest, documents, numbers, sample,
    taboo,
};
pub use self::diff::{DiffRequest, DiffSubject, diff};
pub use self::endpoint::EndpointRequest;
pub use self::export::{ExportRequest, export};
pub use self::fit::{FitRequest, fit, fit_into};
pub use self::floor::{FloorRequest, MadeFloor, floor};
pub use self::generate::{GenerateRequest, Generated, Generation, PromptSource, generate};
pub use self::grade::{GradeOutcome, GradeRequest, grade};
pub use self::inspect::{InspectRequest, inspect};
pub use self::merge::{MergeRequest, merge};
pub use self::report::{ReportRequest, report};
pub use self::runs::{ListedRun, Pruned, compare_runs, list_runs, prune_runs};
pub use self::selftest::selftest;
pub use self::sweep::{
    AxesRequest, CellOutcome, CellRequest, LimitsRequest, Runner, SweepOutcome, SweepRequest, SweepResult,
    status, summarise, sweep, sweep_cell,
};
pub use self::tune::{TuneOutcome, TuneRecord, TuneRequest, TunedSetting, tune};
pub use self::verify::{Verified, VerifiedSweep, VerifyOutcome, VerifyRequest, verify};
