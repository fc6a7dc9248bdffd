//! What long work says on stderr: a bar, a line; nothing with `-q`, more with `-v`.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicI8, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use crate::visible::printed;

/// −1 quiet, 0 normal, 1 verbose. Set once by the command line; results never depend on it.
static LEVEL: AtomicI8 = AtomicI8::new(0);

/// Sets how much is said: −1 nothing but errors, 0 progress, 1 details.
pub fn set_level(level: i8) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Whether details were asked for.
pub fn is_verbose() -> bool {
    LEVEL.load(Ordering::Relaxed) >= 1
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
    if is_verbose() {
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

/// A bar of `length` units: what is done, how far, the time left, and a message. A log file gets a line now and then.
pub fn bar(what: &str, length: u64) -> ProgressBar {
    if LEVEL.load(Ordering::Relaxed) < 0 {
        return ProgressBar::hidden();
    }
    let is_terminal = std::io::stderr().is_terminal();
    let drawn = if is_terminal { "{bar:24} " } else { "" };
    let template = format!("{what} {drawn}{{pos}}/{{len}}{{left}} {{msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // By the mean of all units so far: the estimate of the library forgets within seconds, and a step may take longer.
    let first = OnceLock::new();
    let style = style.with_key("left", move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let (done, length) = (state.pos(), state.len().unwrap_or_default());
        let new = done.saturating_sub(*first.get_or_init(|| done));
        if new > 0 && length > done {
            let seconds = state.elapsed().as_secs_f64() * (length - done) as f64 / new as f64;
            let left = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            let _ = write!(out, ", {:#} left", HumanDuration(left));
        }
    });
    let target = match is_terminal {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::term_like_with_hz(Box::new(LogFile::default()), 1),
    };
    ProgressBar::with_draw_target(Some(length), target).with_style(style)
}

/// How often a log file gets a line of progress.
const EVERY: Duration = Duration::from_secs(30);

/// Stderr that is no terminal: the newest state of a bar, as a line every [`EVERY`].
#[derive(Debug)]
struct LogFile {
    newest: Mutex<(String, Instant)>,
}

impl Default for LogFile {
    fn default() -> Self {
        Self { newest: Mutex::new((String::new(), Instant::now())) }
    }
}

impl LogFile {
    fn keep(&self, text: &str) {
        if let (Ok(mut newest), false) = (self.newest.lock(), text.trim().is_empty()) {
            newest.0 = text.trim().into();
        }
    }
}

impl TermLike for LogFile {
    fn width(&self) -> u16 {
        u16::MAX
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.keep(text);
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.keep(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let Ok(mut newest) = self.newest.lock() else { return Ok(()) };
        if newest.1.elapsed() >= EVERY && !newest.0.is_empty() {
            alert(&newest.0);
            *newest = (String::new(), Instant::now());
        }
        Ok(())
    }
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
