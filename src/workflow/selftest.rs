//! Whether the device of this process computes what the CPU computes.

use anyhow::Result;

use crate::bail_input;
use crate::device::{device, is_composed};
use crate::ops::selftest::{OpCheck, check_operations};

/// Compares every operation on the device with the CPU, on inputs drawn from the seed; hands over each comparison at once.
///
/// # Errors
/// An input error if `TRAINER_COMPOSED` leaves nothing to compare with. If the device cannot be opened, an operation fails, or
/// `found` does.
pub fn selftest(seed: u64, found: impl FnMut(OpCheck) -> Result<()>) -> Result<()> {
    if is_composed() {
        bail_input!(
            "TRAINER_COMPOSED=1: composed operations would be compared with themselves; expected it to be unset"
        );
    }
    check_operations(&device()?, seed, found)
}
