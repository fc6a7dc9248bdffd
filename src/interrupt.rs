//! Ctrl-C and SIGTERM as a flag that long work looks at between steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use crate::error::Interrupted;

/// Whether the user asked to stop. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A flag that Ctrl-C and SIGTERM set; a second one ends the process at once.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub fn on_signals() -> Result<Self> {
        let interrupt = Self::default();
        let flag = interrupt.clone();
        ctrlc::set_handler(move || {
            if flag.0.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            eprintln!("\ninterrupted: finishing the step (again to end at once)");
        })?;
        Ok(interrupt)
    }

    /// Sets the flag.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the flag is set.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An [`Interrupted`] error if the flag is set.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn check(&self, hint: &str) -> Result<()> {
        match self.requested() {
            true => Err(Interrupted { hint: Some(hint.to_string()) }.into()),
            false => Ok(()),
        }
    }
}
