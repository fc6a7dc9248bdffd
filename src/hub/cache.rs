//! The cache that all tools of Hugging Face share, as `huggingface_hub` lays it out:
//! `HF_HOME/hub/models--ORG--NAME/{refs/REVISION, snapshots/COMMIT/FILE, blobs/ETAG}`, where `refs/REVISION` holds a
//! commit and a snapshot's files are links to blobs.

use std::path::{Path, PathBuf};

use super::repo_id::RepoId;

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

    /// `$HF_HOME/hub`, or `~/.cache/huggingface/hub`.
    pub fn from_env() -> Self {
        let home = std::env::var_os("HF_HOME").map(PathBuf::from);
        let home = home
            .unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache").join("huggingface"));
        Self::new(home.join("hub"))
    }

    /// The folder of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The token that logging in left beside the cache.
    pub fn token(&self) -> Option<String> {
        let token = std::fs::read_to_string(self.root.parent()?.join("token")).ok()?;
        Some(token.trim().to_string()).filter(|token| !token.is_empty())
    }

    fn repo(&self, kind: RepoKind, id: &RepoId) -> PathBuf {
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
