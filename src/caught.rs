//! Panics of libraries that read a file: faults of the file, not of the program.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// What the last panic within one said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Calls `work`; a panic in it, on this thread, becomes its message, and nothing is printed.
///
/// `work` must not leave anything half-changed that is used afterwards: what it borrows mutably is to be dropped on an error.
///
/// # Errors
/// What the panic said, on one line.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                return before(info);
            }
            SAID.set(said(info.payload()));
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    done.map_err(|_| SAID.take())
}

/// What a panic said, on one line.
pub fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| panic!("no {}\nnumber", 1)).map(|()| 0), Err("no 1 number".into()));
        let empty: [u8; 0] = [];
        let index = std::hint::black_box(3);
        assert!(caught(|| empty[index]).unwrap_err().contains("index out of bounds"));
        assert_eq!(caught(|| caught(|| panic!("in")).map(|()| 0)), Ok(Err("in".into())));
    }
}
