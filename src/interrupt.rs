//! Ctrl-C and SIGTERM as a flag that long work looks at between steps.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::error::Interrupted;
use crate::progress;

/// Whether, and since when, the user asked to stop. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<OnceLock<Instant>>);

/// A second signal ends the process only when it comes this long after the first: a key that bounces, or a
/// terminal and a supervisor that both pass the signal on, must not cost the checkpoint.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often waiting looks at the flag.
const GLANCE: Duration = Duration::from_millis(100);

impl Interrupt {
    /// A flag that Ctrl-C and SIGTERM set; one that comes a second or more after it ends the process at once.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub fn on_signals() -> Result<Self> {
        let interrupt = Self::default();
        let flag = interrupt.clone();
        ctrlc::set_handler(move || match flag.0.get() {
            Some(first) if first.elapsed() >= PATIENCE => std::process::exit(130),
            Some(_) => {}
            None => {
                flag.request();
                progress::alert("\ninterrupted: stopping after this step (interrupt again to stop at once)");
            }
        })?;
        Ok(interrupt)
    }

    /// Sets the flag.
    pub fn request(&self) {
        self.0.get_or_init(Instant::now);
    }

    /// Whether the flag is set.
    pub fn requested(&self) -> bool {
        self.0.get().is_some()
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

    /// Sleeps a moment between two looks at something that is waited for.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn wait(&self, hint: &str) -> Result<()> {
        self.check(hint)?;
        thread::sleep(GLANCE);
        Ok(())
    }

    /// Sleeps until a time, looking up now and then.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn sleep_until(&self, end: Instant, hint: &str) -> Result<()> {
        loop {
            self.check(hint)?;
            match end.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::sleep(left.min(GLANCE)),
                _ => return Ok(()),
            }
        }
    }

    /// What `work` returns, unless the flag is set first: then the thread that does it is left to itself, and
    /// ends with the process. For calls that cannot be told to stop.
    ///
    /// # Errors
    /// [`Interrupted`]; or if `work` panics.
    pub fn or_leave<T: Send + 'static>(
        &self,
        hint: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (done, result) = mpsc::channel();
        thread::spawn(move || done.send(work()));
        loop {
            match result.recv_timeout(GLANCE) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) => self.check(hint)?,
                Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("a thread panicked")),
            }
        }
    }
}
