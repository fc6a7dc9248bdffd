//! A Hugging Face hub as models and data sets share it: ids, what the environment says, and files by byte range.

mod client;
mod file;

use anyhow::Result;

pub use self::client::{Client, Fault};
pub use self::file::{RemoteFile, RemoteReader};

/// What is said to who stops a download.
pub const KEPT: &str = "run the same command again: what was downloaded whole is kept";

/// Whether the user forbade the network (`HF_HUB_OFFLINE`, read as transformers reads it).
pub fn offline() -> bool {
    std::env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}

/// The user's token: `HF_TOKEN`, else what logging in left in the cache.
pub fn token() -> Option<String> {
    let given = std::env::var("HF_TOKEN").ok().or_else(|| hf_hub::Cache::from_env().token());
    given.map(|token| token.trim().to_string()).filter(|token| !token.is_empty())
}

/// `org/name[@revision]`, as it stands after `hf:`.
#[derive(Debug, Clone, PartialEq)]
pub struct RepoId {
    /// `org/name`.
    pub repo: String,
    /// A branch, tag, reference or commit; `main` where none is given.
    pub revision: String,
}

impl RepoId {
    /// Parses `org/name[@revision]`.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is anything else.
    pub fn parse(id: &str) -> Result<Self> {
        let (repo, revision) = id.split_once('@').unwrap_or((id, "main"));
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let parts: Vec<&str> = repo.split('/').collect();
        let revision_is_plain = revision.split('/').all(plain);
        if !(parts.len() == 2 && parts.iter().all(|p| plain(p)) && revision_is_plain) {
            crate::bail_input!("hf:{id}: expected hf:org/name or hf:org/name@revision");
        }
        Ok(Self { repo: repo.to_string(), revision: revision.to_string() })
    }

    /// Whether the revision is a commit, which names the same content for ever.
    pub fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

impl std::fmt::Display for RepoId {
    /// As the user writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => write!(f, "hf:{}", self.repo),
            revision => write!(f, "hf:{}@{revision}", self.repo),
        }
    }
}
