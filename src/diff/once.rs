//! A value that is made when something first asks for it.

use std::cell::OnceCell;

use anyhow::Result;

/// What a cell holds, made on first use.
///
/// # Errors
/// As `make`; the cell stays empty.
pub fn made<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(known) = cell.get() {
        return Ok(known);
    }
    let value = make()?;
    Ok(cell.get_or_init(|| value))
}
