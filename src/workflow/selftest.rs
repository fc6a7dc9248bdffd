//! Whether the device of this process computes what the CPU computes.

use anyhow::Result;

use crate::device::device;
use crate::ops::selftest::{OpCheck, check_operations};

/// Compares every operation on the device with the CPU, on inputs drawn from the seed; hands over each comparison at once.
///
/// # Errors
/// If the device cannot be opened, an operation fails, or `found` does.
pub fn selftest(seed: u64, found: impl FnMut(OpCheck) -> Result<()>) -> Result<()> {
    check_operations(&device()?, seed, found)
}
