//! The thresholds behind every claim. They stand here and nowhere else.

/// Level of significance: a value is told from its null where its p-value is at most this.
pub const ALPHA: f64 = 0.05;

/// The least AUROC on held-out text with which a probe with labelled examples counts as a reader.
pub const ABLE_PROBE: f64 = 0.75;

/// The fewest documents that an interval over documents counts with.
pub const FEWEST_DOCUMENTS: usize = 8;

/// A mean difference that is shorter than this, in expected norms η, is next to nothing.
pub const NEXT_TO_NOTHING: f64 = 1e-4;

/// Runs are at equal behaviour where the 90 % interval of their difference lies within this many tolerances of their match on
/// either side.
pub const EQUAL_TOLERANCES: f64 = 2.0;
