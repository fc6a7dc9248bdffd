//! Which repository of a hub, at which revision.

use anyhow::Result;

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
                // As the hub has it; in the cache `--` stands for the slash.
                && !part.contains("--")
                && !part.contains("..")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_organisation_a_name_and_perhaps_a_revision() -> Result<()> {
        let id = RepoId::parse("org/some-model_1.5@refs/pr/3")?;
        assert_eq!((id.repo.as_str(), id.revision.as_str()), ("org/some-model_1.5", "refs/pr/3"));
        assert_eq!(RepoId::parse("org/name")?.revision, "main");
        for bad in [
            "name",
            "a/b/c",
            "org/",
            "/name",
            "org/name@",
            "../name",
            "org/na me",
            "a/b@../../x",
            "a--b/c",
            "a/b--c",
            "a/b..c",
        ] {
            assert!(RepoId::parse(bad).is_err(), "{bad}");
        }
        Ok(())
    }
}
