//! Models and adapters of a Hugging Face hub as folders of its shared cache.

use std::path::PathBuf;

use anyhow::Result;

use super::folder;
use crate::error::input_error;
pub use crate::hub::offline;
use crate::hub::{Cache, Downloader, HubFault, HubSettings, RepoId, RepoKind};
use crate::interrupt::Interrupt;

/// A repository that holds a model or a PEFT adapter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HubModel(RepoId);

/// Files that a model may have besides its weights. The first two it must have.
const FILES: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
];
const REQUIRED: usize = 2;

/// Files of a PEFT adapter; a repository with the first one is an adapter, as in transformers.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

impl HubModel {
    /// Parses `org/name[@revision]`, as it stands after `hf:`.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is anything else.
    pub(crate) fn parse(id: &str) -> Result<Self> {
        RepoId::parse(id).map(Self)
    }

    /// The snapshot folder in the cache, if all that is needed is there.
    pub(crate) fn cached(&self, cache: &Cache) -> Option<PathBuf> {
        let dir = cache.snapshot(RepoKind::Model, &self.0)?;
        let complete = FILES[..REQUIRED].iter().all(|file| dir.join(file).exists())
            && folder::weight_files(&dir).is_ok();
        complete.then_some(dir)
    }

    /// The model's folder: from the cache if it is there, else from the hub, with progress on stderr.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is not cached and the hub is out of bounds, out of reach or
    /// does not have it; [`crate::error::Interrupted`], with what has arrived kept.
    pub(crate) fn folder(&self, interrupt: &Interrupt) -> Result<PathBuf> {
        match self.cached(&Cache::from_env()) {
            Some(dir) => Ok(dir),
            None => self.fetch(interrupt),
        }
    }

    /// Downloads what the cache lacks.
    ///
    /// # Errors
    /// As [`HubModel::folder`].
    pub(crate) fn fetch(&self, interrupt: &Interrupt) -> Result<PathBuf> {
        if offline() {
            return self.cached(&Cache::from_env()).ok_or_else(|| self.not_cached());
        }
        let hub = self.downloader(interrupt);
        // Twice, because a branch may have moved since a part of it was cached: the first pass then
        // moves the reference to the new commit, the second fetches that commit's other files.
        for _ in 0..2 {
            self.fetch_files(&hub)?;
            if let Some(dir) = self.cached(&Cache::from_env()) {
                return Ok(dir);
            }
        }
        Err(self.incomplete())
    }

    /// The repository's folder as a PEFT adapter, from the cache or the hub; `None` if it holds a model.
    ///
    /// # Errors
    /// As [`HubModel::folder`].
    pub(crate) fn adapter_folder(&self, interrupt: &Interrupt) -> Result<Option<PathBuf>> {
        if let Some(dir) = self.cached_adapter(&Cache::from_env()) {
            return Ok(Some(dir));
        }
        if self.cached(&Cache::from_env()).is_some() {
            return Ok(None);
        }
        if offline() {
            return Err(self.not_cached());
        }
        let hub = self.downloader(interrupt);
        for (i, file) in ADAPTER_FILES.iter().enumerate() {
            match hub.get(file)? {
                Err(HubFault::Absent) if i == 0 => return Ok(None),
                fetched => drop(fetched.map_err(|e| self.failed(file, e))?),
            }
        }
        match self.cached_adapter(&Cache::from_env()) {
            Some(dir) => Ok(Some(dir)),
            None => Err(self.incomplete()),
        }
    }

    /// The snapshot folder in the cache, if an adapter is there.
    fn cached_adapter(&self, cache: &Cache) -> Option<PathBuf> {
        let dir = cache.snapshot(RepoKind::Model, &self.0)?;
        ADAPTER_FILES.iter().all(|file| dir.join(file).exists()).then_some(dir)
    }

    fn downloader(&self, interrupt: &Interrupt) -> Downloader {
        Downloader::new(&HubSettings::from_env(), &self.0, interrupt)
    }

    fn fetch_files(&self, hub: &Downloader) -> Result<()> {
        for (i, file) in FILES.iter().enumerate() {
            match hub.get(file)? {
                Err(HubFault::Absent) if i >= REQUIRED => {}
                fetched => drop(fetched.map_err(|e| self.failed(file, e))?),
            }
        }
        match hub.get(folder::SINGLE)? {
            Ok(_) => return Ok(()),
            Err(HubFault::Absent) => {}
            Err(fault) => return Err(self.failed(folder::SINGLE, fault)),
        }
        let index = hub.get(folder::INDEX)?.map_err(|e| self.failed(folder::INDEX, e))?;
        for shard in folder::shard_names(&index)? {
            hub.get(&shard)?.map_err(|e| self.failed(&shard, e))?;
        }
        Ok(())
    }

    fn failed(&self, file: &str, fault: HubFault) -> anyhow::Error {
        let id = &self.0;
        match fault {
            HubFault::Absent => HubFault::Absent.about(id, &format!("{file} at this revision")),
            HubFault::Other(why) => {
                let hint = format!("{why}; with a network, run: trainer models fetch {id}");
                HubFault::Other(hint).about(id, file)
            }
            fault => fault.about(id, file),
        }
    }

    fn not_cached(&self) -> anyhow::Error {
        let id = &self.0;
        input_error(format!(
            "{id} is not in the cache and HF_HUB_OFFLINE is set; run: trainer models fetch {id}"
        ))
    }

    fn incomplete(&self) -> anyhow::Error {
        input_error(format!("{}: the cache is incomplete after fetching; is its disk full?", self.0))
    }
}

/// One file of a repository, for aliases that name a hub as a second source; `None` if it cannot be had.
///
/// # Errors
/// [`crate::error::Interrupted`].
pub(crate) fn fetch_file(repo: &str, file: &str, interrupt: &Interrupt) -> Result<Option<PathBuf>> {
    let Ok(id) = RepoId::parse(repo) else { return Ok(None) };
    Ok(Downloader::new(&HubSettings::from_env(), &id, interrupt).get(file)?.ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_in_the_cache_needs_no_reference_file() -> Result<()> {
        let home = tempfile::tempdir()?;
        let model = HubModel::parse("org/name@abc123")?;
        let cache = Cache::new(home.path().to_path_buf());
        assert_eq!(model.cached(&cache), None);
        let dir = home.path().join("models--org--name/snapshots/abc123");
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("config.json"), "{}")?;
        std::fs::write(dir.join("tokenizer.json"), "{}")?;
        assert_eq!(model.cached(&cache), None, "no weights yet");
        std::fs::write(dir.join(folder::SINGLE), "")?;
        assert_eq!(model.cached(&cache), Some(dir));
        Ok(())
    }
}
