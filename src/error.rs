//! The two kinds of failure that callers tell apart: the user's input is wrong, or the user interrupted.
//! Everything else is an [`anyhow::Error`] with context.

use std::collections::HashSet;

/// The user's input is wrong. All faults that were found are listed; nothing was written (exit code 2).
#[derive(Debug, thiserror::Error)]
#[error("{}", .faults.join("\n"))]
pub struct InputError {
    /// One line a fault: where it is, what was found, what was expected.
    pub faults: Vec<String>,
}

impl InputError {
    /// These faults, each told once, as an [`anyhow::Error`].
    pub fn of(mut faults: Vec<String>) -> anyhow::Error {
        let mut seen = HashSet::new();
        faults.retain(|fault| seen.insert(fault.clone()));
        Self { faults }.into()
    }

    /// Ends with these faults, unless there are none.
    ///
    /// # Errors
    /// An [`InputError`] with all of them.
    pub fn unless_empty(faults: Vec<String>) -> anyhow::Result<()> {
        if faults.is_empty() { Ok(()) } else { Err(Self::of(faults)) }
    }
}

/// The user pressed Ctrl-C (or the process got SIGTERM); a checkpoint was written (exit code 130).
#[derive(Debug, thiserror::Error)]
#[error("interrupted{}", .hint.as_deref().map(|h| format!("; {h}")).unwrap_or_default())]
pub struct Interrupted {
    /// How to go on, if the work can be resumed.
    pub hint: Option<String>,
}

/// An [`InputError`] with one fault, as an [`anyhow::Error`].
pub fn input_error(fault: impl Into<String>) -> anyhow::Error {
    InputError { faults: vec![fault.into()] }.into()
}

/// Collects the faults of an [`InputError`] and gives no value then, so that several are reported together.
///
/// # Errors
/// Any other error, as it is.
pub fn or_collect<T>(result: anyhow::Result<T>, faults: &mut Vec<String>) -> anyhow::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) => {
            faults.extend(e.downcast::<InputError>()?.faults);
            Ok(None)
        }
    }
}

/// Returns early with an [`InputError`] of one fault, formatted like [`anyhow::bail!`].
#[macro_export]
macro_rules! bail_input {
    ($($arg:tt)*) => { return Err($crate::error::input_error(format!($($arg)*))) };
}
