//! Cells as processes: some at a time, within a memory budget, none of which outlives the sweep.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, stdin};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Cell, CellPlan, JobDir};
use crate::atomic::write_atomically;
use crate::device::chosen_device;
use crate::error::Interrupted;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::run::metrics::last_step;
use crate::visible::visible;

/// Exit code of a process that found its cell worked on by another.
pub const HELD: u8 = 75;

/// Between two looks at the processes.
const GLANCE: Duration = Duration::from_millis(50);

/// A process that was told to stop and is still within a step or a measure ends after this long; everything that it has
/// written can be gone on from.
const PATIENCE: Duration = Duration::from_secs(20);

/// What several cells at once may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Processes at once.
    pub jobs: usize,
    /// Threads of each.
    pub threads: usize,
    /// Memory of all of them together, GiB; a cell that is larger runs alone.
    pub memory_gib: f64,
    /// How many times more a cell that fails is tried.
    pub retry: usize,
}

/// A cell that failed, and why.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Its id.
    pub id: String,
    /// What its process said last.
    pub why: String,
}

/// The right to work on a cell, which ends with the process however it ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Takes the lock of a cell; `None` if another process has it.
    ///
    /// # Errors
    /// If the file system has no locks, or the folder cannot be written.
    pub fn take(job: &JobDir) -> Result<Option<Self>> {
        let path = job.lock();
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                // Who only looks holds it for a moment.
                Err(TryLockError::WouldBlock) if begun.elapsed() < Duration::from_secs(1) => {
                    thread::sleep(GLANCE)
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => {
                    return Err(e).with_context(|| format!("locking {}", path.display()));
                }
            }
        }
    }

    /// Whether some process has the lock of a cell.
    pub fn is_held(job: &JobDir) -> bool {
        let Ok(file) = File::open(job.lock()) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

/// Asks to stop when the process that holds the other end of stdin is gone, even killed; ends for good if that takes
/// too long.
pub fn stop_with_parent(interrupt: &Interrupt) {
    let interrupt = interrupt.clone();
    thread::spawn(move || {
        let mut byte = [0];
        while matches!(stdin().read(&mut byte), Ok(n) if n > 0) {}
        interrupt.request();
        thread::sleep(PATIENCE);
        std::process::exit(130);
    });
}

/// A process that works on a cell. Dropping its end of the pipe tells it to stop.
struct Running<'a> {
    cell: &'a Cell,
    plan: &'a CellPlan,
    child: Child,
    tries_left: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs the cells that are not finished, each in a process `trainer sweep --cell ID --out DIR`; returns those that
/// failed. A cell that another process works on is waited for.
///
/// # Errors
/// [`Interrupted`] once every process has stopped; or if a process cannot be started.
pub fn run(
    sweep: &Path,
    cells: &[Cell],
    plans: &[CellPlan],
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Vec<Failed>> {
    let total = cells.len();
    let bar =
        if limits.jobs > 1 { progress::bar("sweep", total as u64) } else { indicatif::ProgressBar::hidden() };
    let say = |line: String| bar.suspend(|| progress::say(line));
    let (mut waiting, mut running, mut failed) = (Vec::new(), Vec::<Running>::new(), Vec::new());
    for (i, (cell, plan)) in cells.iter().zip(plans).enumerate() {
        match cell.is_finished() {
            true => {
                bar.inc(1);
                say(format!("[{}/{total}] {}: finished before", i + 1, cell.run.path().display()));
            }
            false => waiting.push((cell, plan, limits.retry)),
        }
    }
    let mut waits_for_other = false;
    while !waiting.is_empty() || !running.is_empty() {
        if interrupt.requested() {
            running.iter_mut().for_each(|r| drop(r.child.stdin.take()));
            running.clear(); // waits for each
            let hint = Some("rerun the command to resume".into());
            return Err(Interrupted { hint }.into());
        }
        let mut i = 0;
        while i < running.len() {
            let Some(status) = running[i].child.try_wait()? else {
                i += 1;
                continue;
            };
            let Running { cell, plan, tries_left, .. } = &running[i];
            let (cell, plan, tries_left) = (*cell, *plan, *tries_left);
            running.remove(i);
            if status.code() == Some(HELD.into()) {
                waiting.push((cell, plan, tries_left));
            } else if status.success() {
                bar.inc(1);
                if limits.jobs > 1 {
                    say(format!("{}: finished", cell.run.path().display()));
                }
            } else if status.code() == Some(130) && interrupt.requested() {
                waiting.push((cell, plan, tries_left));
            } else {
                let why = reason(cell, status)?;
                say(format!("{}: failed: {why}", cell.run.path().display()));
                match tries_left {
                    0 => failed.push(Failed { id: cell.id.clone(), why }),
                    left => waiting.push((cell, plan, left - 1)),
                }
            }
        }
        let taken: f64 = running.iter().map(|r| r.plan.memory_gib).sum();
        let fits = |plan: &CellPlan| running.is_empty() || taken + plan.memory_gib <= limits.memory_gib;
        let next = (running.len() < limits.jobs && !interrupt.requested())
            .then(|| waiting.iter().position(|(cell, plan, _)| fits(plan) && !Lock::is_held(&cell.job)))
            .flatten();
        if let Some(i) = next {
            let (cell, plan, tries_left) = waiting.remove(i);
            if cell.is_finished() {
                bar.inc(1);
                say(format!("{}: finished by another process", cell.run.path().display()));
                continue;
            }
            let number = cells.iter().position(|c| c.id == cell.id).unwrap_or_default() + 1;
            say(format!("[{number}/{total}] {}", cell.run.path().display()));
            running.push(Running { cell, plan, child: start(sweep, cell, limits)?, tries_left });
            continue;
        }
        if running.is_empty() && !waits_for_other && !waiting.is_empty() {
            waits_for_other = true;
            say(format!("waiting for another process, which works on {} cells", waiting.len()));
        }
        let running: Vec<String> = running.iter().map(|r| shown(r)).collect();
        bar.set_message(visible(&running.join(", ")));
        bar.tick();
        thread::sleep(GLANCE);
    }
    bar.finish_and_clear();
    Ok(failed)
}

/// How far a process is.
fn shown(running: &Running) -> String {
    match last_step(&running.cell.run.metrics()) {
        Some(step) => format!("{} {step}/{}", running.cell.id, running.plan.steps),
        None => running.cell.id.clone(),
    }
}

/// The device that the sweep was asked to use, for the processes of its cells.
pub(super) fn device_flag() -> Vec<String> {
    chosen_device().map_or(Vec::new(), |choice| vec!["--device".into(), choice.to_string()])
}

fn start(sweep: &Path, cell: &Cell, limits: &Limits) -> Result<Child> {
    let mut command = this_program()?;
    command.args(["sweep", "--cell", &cell.id, "--with-parent"]).arg("--out").arg(sweep);
    command.args(device_flag());
    command.args(progress::flag()).env("RAYON_NUM_THREADS", limits.threads.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // One process may show its bars; what several say at once goes to their logs.
    if limits.jobs > 1 {
        let path = cell.job.log();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        command.stderr(log.with_context(|| format!("writing {}", path.display()))?);
    }
    command.spawn().with_context(|| format!("starting the cell {}", cell.id))
}

/// The program that is running, even if its file was replaced meanwhile: all cells are of one version.
#[cfg(target_os = "linux")]
fn this_program() -> Result<Command> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(std::env::args_os().next().unwrap_or_else(|| "trainer".into()));
    Ok(command)
}

#[cfg(not(target_os = "linux"))]
fn this_program() -> Result<Command> {
    Ok(Command::new(std::env::current_exe().context("finding this program")?))
}

/// Why a process ended: what it left in writing, else how it ended, which is put in writing for who asks later.
fn reason(cell: &Cell, status: ExitStatus) -> Result<String> {
    if let Some(why) = cell.job.failure() {
        return Ok(why);
    }
    let why = match status.code() {
        Some(130) => "stopped by a signal from outside".to_string(),
        Some(_) => {
            format!("its process ended with {status}; its output is in {}", cell.job.log().display())
        }
        None => format!("its process was killed ({status}); it may have run out of memory"),
    };
    write_atomically(&cell.job.error(), format!("{why}\n").as_bytes())?;
    Ok(why)
}
