//! Every bound on what comes from outside, with its reason. A value that sizes an allocation or a loop is compared with what is
//! there before anything is allocated; where nothing is there to compare it with, one of these applies.
//!
//! `docs/security.md` lists them for users.

// Downloads.

/// Longest description of a repository that is read, in bytes: a list of 100,000 files takes about 10 MiB.
pub const LARGEST_LISTING: u64 = 32 << 20;
/// Redirects that a request to a hub follows: a renamed repository takes one, its storage another.
pub const MOST_REDIRECTS: usize = 5;
/// Longest name that a server may give to a file, in bytes: that of most file systems.
pub const LONGEST_NAME: usize = 255;
/// A request that brings less than this, in bytes, counts as one that brought nothing.
pub const LEAST_PROGRESS: u64 = 64 << 10;
