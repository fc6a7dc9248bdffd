//! Whole files of a repository, downloaded into the cache: where they stay, and where other tools find them.
//!
//! A file gets its name when it has the length and, where the hub announces one, the sha256 that it should have. Until then it
//! is `blobs/ETAG.incomplete`, and goes on where it ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cache::{Cache, RepoKind};
use super::client::{Announced, Client};
use super::fault::HubFault;
use super::names::{is_component, is_inner_path};
use super::repo_id::RepoId;
use super::settings::{HubSettings, KEPT};
use crate::atomic::write_atomically;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::sha256::sha256_file;

/// Downloads the files of a model's repository, with progress on stderr.
pub struct Downloader {
    client: Client,
    cache: Cache,
    id: RepoId,
    interrupt: Interrupt,
}

impl Downloader {
    /// Asks nothing yet.
    pub fn new(settings: &HubSettings, id: &RepoId, interrupt: &Interrupt) -> Self {
        Self {
            client: Client::new(settings.clone(), interrupt),
            cache: settings.cache.clone(),
            id: id.clone(),
            interrupt: interrupt.clone(),
        }
    }

    /// The path of a file in the cache, downloaded if it is not there.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; if the cache cannot be written.
    pub fn get(&self, file: &str) -> Result<Result<PathBuf, HubFault>> {
        if !is_inner_path(file) {
            return Ok(Err(HubFault::Other(format!("{file:?} is no name of a file below the repository"))));
        }
        let cached = self.cache.snapshot(RepoKind::Model, &self.id).map(|folder| folder.join(file));
        if let Some(path) = cached.filter(|path| path.is_file()) {
            return Ok(Ok(path));
        }
        let path = format!("/{}/resolve/{}/{}", self.id.repo, escaped(&self.id.revision), escaped(file));
        let announced = match self.client.announced(&path)? {
            Ok(announced) => announced,
            Err(HubFault::BeyondEnd) => return Ok(Err(HubFault::Other("the file is empty".into()))),
            Err(fault) => return Ok(Err(fault)),
        };
        let (commit, etag) = match self.names(&announced) {
            Ok(names) => names,
            Err(why) => return Ok(Err(HubFault::Other(why))),
        };
        let repo = self.cache.repo(RepoKind::Model, &self.id);
        let blob = repo.join("blobs").join(etag);
        if let Err(fault) = self.fill(&path, file, &announced, &blob)? {
            return Ok(Err(fault));
        }
        let link = self.cache.snapshot_of(RepoKind::Model, &self.id, commit).join(file);
        link_to(&link, &blob, file.split('/').count())?;
        if self.id.revision != commit {
            let reference = repo.join("refs").join(&self.id.revision);
            crate::atomic::create_parent(&reference)?;
            write_atomically(&reference, commit.as_bytes())?;
        }
        Ok(Ok(link))
    }

    /// Commit and ETag, each of which becomes the name of a file or folder.
    fn names<'a>(&self, announced: &'a Announced) -> Result<(&'a str, &'a str), String> {
        let name = |what: &str, name: &'a Option<String>| match name.as_deref() {
            None => Err(format!("the server names no {what}")),
            Some(name) if is_component(name) => Ok(name),
            Some(name) => {
                Err(format!("the server calls its {what} {name:?}; expected letters, digits, -, _ and ."))
            }
        };
        let commit = name("commit", &announced.commit)?;
        if self.id.is_pinned() && !commit.eq_ignore_ascii_case(&self.id.revision) {
            return Err(format!("the server answers with commit {commit}"));
        }
        Ok((commit, name("ETag", &announced.etag)?))
    }

    /// Sees to it that the whole content is at `blob`.
    fn fill(
        &self,
        path: &str,
        file: &str,
        announced: &Announced,
        blob: &Path,
    ) -> Result<Result<(), HubFault>> {
        let is_there =
            || fs::metadata(blob).is_ok_and(|m| announced.length.is_none_or(|length| m.len() == length));
        if is_there() {
            return Ok(Ok(()));
        }
        let lock = self.lock(blob)?;
        if is_there() {
            return Ok(Ok(()));
        }
        crate::atomic::create_parent(blob)?;
        let mut part = blob.as_os_str().to_os_string();
        part.push(".incomplete");
        let part = PathBuf::from(part);
        // A part that an earlier command left may be of anything: a wrong result is fetched once more from its beginning.
        let mut was_there = fs::metadata(&part).is_ok_and(|m| m.len() > 0);
        let bar = progress::bytes_bar(file, announced.length.unwrap_or(0));
        loop {
            if let Err(fault) = self.client.download(path, announced, &part, &bar)? {
                return Ok(Err(fault));
            }
            let found =
                announced.sha256().map(|expected| Ok::<_, anyhow::Error>((expected, sha256_file(&part)?)));
            match found.transpose()? {
                Some((expected, found)) if !found.eq_ignore_ascii_case(expected) => {
                    fs::remove_file(&part).ok();
                    if !std::mem::take(&mut was_there) {
                        return Ok(Err(HubFault::Other(format!(
                            "what came has sha256 {found}, and the hub announced {expected}; nothing was kept"
                        ))));
                    }
                }
                _ => break,
            }
        }
        bar.finish_and_clear();
        fs::rename(&part, blob).with_context(|| format!("writing {}", blob.display()))?;
        drop(lock);
        Ok(Ok(()))
    }

    /// The lock of a blob, where `huggingface_hub` has it too; waits while another process holds it.
    fn lock(&self, blob: &Path) -> Result<File> {
        let repo = self.cache.repo(RepoKind::Model, &self.id);
        let folder = self.cache.root().join(".locks").join(repo.file_name().unwrap_or_default());
        let name = blob.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!("{name}.lock"));
        let context = || format!("cannot write the cache {}", self.cache.root().display());
        fs::create_dir_all(&folder).with_context(context)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(&path).with_context(context)?;
        if lock.try_lock().is_err() {
            progress::say(format_args!("another process is fetching {}; waiting for it", self.id));
            while lock.try_lock().is_err() {
                self.interrupt.wait(KEPT)?;
            }
        }
        Ok(lock)
    }
}

/// A path as it stands in an address.
fn escaped(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/=,@".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Makes the file of a snapshot, `depth` parts below its folder, a link to a blob of the same repository.
fn link_to(link: &Path, blob: &Path, depth: usize) -> Result<()> {
    let context = || format!("writing {}", link.display());
    crate::atomic::create_parent(link)?;
    let neighbour = link.with_file_name(format!(
        ".{}.{}.part",
        link.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    #[cfg(unix)]
    {
        let mut target = PathBuf::from("../".repeat(depth + 1));
        target.push("blobs");
        target.push(blob.file_name().unwrap_or_default());
        fs::remove_file(&neighbour).ok();
        std::os::unix::fs::symlink(target, &neighbour).with_context(context)?;
    }
    #[cfg(not(unix))]
    {
        let _ = depth;
        fs::copy(blob, &neighbour).with_context(context)?;
    }
    fs::rename(&neighbour, link).with_context(context)
}
