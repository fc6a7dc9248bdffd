//! What one parse or rendering may take: memory, work and depth, whatever the template does, on a stack that is known to suffice.
//!
//! Values are made, compared and written in many places, some of which cannot fail. So a budget that is used up ends the whole
//! rendering by unwinding, which [`within`] turns into an error. Outside of it nothing is counted.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::thread;

use anyhow::{Result, anyhow};

use crate::caught::caught;
use crate::limits::{
    DEEPEST_TEMPLATE, LARGEST_TEMPLATE_OUTPUT, MOST_NESTED_VALUES, MOST_TEMPLATE_WORK, TEMPLATE_STACK,
};

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(usize::MAX) };
    static WORK: Cell<u64> = const { Cell::new(u64::MAX) };
    static NESTED: Cell<usize> = const { Cell::new(usize::MAX) };
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Which budget is used up.
struct UsedUp(&'static str);

fn used_up(what: &'static str) -> ! {
    // Without the message of a panic.
    resume_unwind(Box::new(UsedUp(what)))
}

/// Runs `work` on a thread with the stack and the budgets of a template.
///
/// # Errors
/// What `work` returns; if a budget is used up, or `work` panics.
pub(super) fn within<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || {
        BYTES.set(LARGEST_TEMPLATE_OUTPUT);
        WORK.set(MOST_TEMPLATE_WORK);
        NESTED.set(MOST_NESTED_VALUES);
        match caught(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))) {
            Ok(Ok(done)) => done,
            Ok(Err(thrown)) => match thrown.downcast_ref::<UsedUp>() {
                Some(UsedUp(what)) => Err(anyhow!("the template {what}")),
                None => Err(anyhow!("the template cannot be rendered: {}", crate::caught::said(&*thrown))),
            },
            Err(said) => Err(anyhow!("the template cannot be rendered: {said}")),
        }
    };
    thread::scope(|scope| {
        let spawned = thread::Builder::new().stack_size(TEMPLATE_STACK).spawn_scoped(scope, run);
        spawned?.join().unwrap_or_else(|_| Err(anyhow!("the template cannot be rendered")))
    })
}

/// Notes that so many bytes are about to be made.
pub(super) fn made(bytes: usize) {
    worked(bytes);
    match BYTES.get() {
        usize::MAX => {}
        left if left < bytes => used_up("makes more text and values than 512 MiB"),
        left => BYTES.set(left - bytes),
    }
}

/// Notes that so many bytes, or steps, are about to be gone through.
pub(super) fn worked(units: usize) {
    match WORK.get() {
        u64::MAX => {}
        left if left < units as u64 => used_up("does not come to an end"),
        left => WORK.set(left - units as u64),
    }
}

/// Notes a value that holds others that hold others: all of them may lie within each other.
pub(super) fn nested() {
    match NESTED.get() {
        usize::MAX => {}
        0 => used_up("puts too many values into each other"),
        left => NESTED.set(left - 1),
    }
}

/// A level of something recursive, left when it is dropped.
pub(super) struct Level(());

impl Level {
    /// Goes one level deeper.
    pub fn enter() -> Self {
        let depth = DEPTH.get() + 1;
        if depth > DEEPEST_TEMPLATE {
            used_up("goes deeper than 1000 levels");
        }
        DEPTH.set(depth);
        Self(())
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
