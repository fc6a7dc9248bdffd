//! The cache that all tools of Hugging Face share, as `huggingface_hub` lays it out:
//! `HUB/models--ORG--NAME/{refs/REVISION, snapshots/COMMIT/FILE, blobs/ETAG}`, where `refs/REVISION` holds a
//! commit and a snapshot's files are links to blobs.

use std::path::{Path, PathBuf};

use super::repo_id::RepoId;

/// The folder of Hugging Face's tools: `HF_HOME`, or `huggingface` in `XDG_CACHE_HOME` or `~/.cache`.
pub(super) fn home() -> PathBuf {
    let cache = || path_in("XDG_CACHE_HOME").unwrap_or_else(|| user().join(".cache"));
    path_in("HF_HOME").unwrap_or_else(|| cache().join("huggingface"))
}

fn user() -> PathBuf {
    std::env::home_dir().unwrap_or_default()
}

/// The path in a variable, with `~` and `$NAME` replaced as Python's `expanduser` and `expandvars` do; `None` if it is empty.
pub(super) fn path_in(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty())?;
    let Some(text) = value.to_str() else { return Some(value.into()) };
    let mut parts = text.split('$');
    let mut path = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (name, rest) = match part.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(named) => named,
            None => part
                .split_at(part.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(part.len())),
        };
        match std::env::var(name) {
            Ok(value) => path.extend([value.as_str(), rest]),
            Err(_) => path.extend(["$", part]),
        }
    }
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            Some(user().join(rest.trim_start_matches('/')))
        }
        _ => Some(path.into()),
    }
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RepoKind {
    /// A model or an adapter.
    Model,
    /// A data set.
    Dataset,
}

/// The cache of a user.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache in a folder.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where `huggingface_hub` 2.4 has it (`constants.py`): `HF_HUB_CACHE`, its older name `HUGGINGFACE_HUB_CACHE`, or `hub`
    /// in the home folder of the hub.
    pub fn from_env() -> Self {
        let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter().find_map(path_in);
        Self::new(named.unwrap_or_else(|| home().join("hub")))
    }

    /// The folder of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn repo(&self, kind: RepoKind, id: &RepoId) -> PathBuf {
        let kind = match kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        self.root.join(format!("{kind}--{}", id.repo.replace('/', "--")))
    }

    /// Where the files of a repository at a commit are, or would be.
    pub fn snapshot_of(&self, kind: RepoKind, id: &RepoId, commit: &str) -> PathBuf {
        self.repo(kind, id).join("snapshots").join(commit)
    }

    /// The folder of the repository at its revision, if the cache has one.
    pub fn snapshot(&self, kind: RepoKind, id: &RepoId) -> Option<PathBuf> {
        // A revision that is a commit has no file under refs/.
        let commit = self.snapshot_of(kind, id, &id.revision);
        if commit.is_dir() {
            return Some(commit);
        }
        let commit = std::fs::read_to_string(self.repo(kind, id).join("refs").join(&id.revision)).ok()?;
        Some(self.snapshot_of(kind, id, &commit)).filter(|folder| folder.is_dir())
    }
}
