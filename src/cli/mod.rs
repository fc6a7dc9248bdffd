//! The commands: arguments in, results on stdout, progress on stderr.

pub mod report;
