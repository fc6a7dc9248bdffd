//! What long work says on stderr: a bar, a line; nothing with `-q`, more with `-v`.

use std::io::Write;
use std::sync::atomic::{AtomicI8, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::visible::printed;

/// −1 quiet, 0 normal, 1 verbose. Set once by the command line; results never depend on it.
static LEVEL: AtomicI8 = AtomicI8::new(0);

/// Sets how much is said: −1 nothing but errors, 0 progress, 1 details.
pub fn set_level(level: i8) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// A line of progress.
pub fn say(line: impl std::fmt::Display) {
    if LEVEL.load(Ordering::Relaxed) >= 0 {
        alert(line);
    }
}

/// A line that is said with `-q` too. A stderr that is full or closed is no reason to stop the work.
pub fn alert(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", printed(&line.to_string()));
}

/// A line for those who asked for details.
pub fn detail(line: impl std::fmt::Display) {
    if LEVEL.load(Ordering::Relaxed) >= 1 {
        alert(line);
    }
}

/// Work that says nothing: that of which another bar tells.
pub fn hushed<T>(work: impl FnOnce() -> T) -> T {
    let before = LEVEL.swap(-1, Ordering::Relaxed);
    let done = work();
    LEVEL.store(before, Ordering::Relaxed);
    done
}

/// A bar of `length` units; the message stands behind it.
pub fn bar(what: &str, length: u64) -> ProgressBar {
    if LEVEL.load(Ordering::Relaxed) < 0 {
        return ProgressBar::hidden();
    }
    let template = format!("{what} {{bar:24}} {{pos}}/{{len}} {{elapsed}}<{{eta}} {{msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// A bar of bytes.
pub fn bytes_bar(what: &str, length: u64) -> ProgressBar {
    if LEVEL.load(Ordering::Relaxed) < 0 {
        return ProgressBar::hidden();
    }
    let template = "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what.to_string())
}

/// The option that gives another process of this program the same level.
pub fn flag() -> &'static [&'static str] {
    match LEVEL.load(Ordering::Relaxed) {
        ..0 => &["--quiet"],
        0 => &[],
        1.. => &["--verbose"],
    }
}
