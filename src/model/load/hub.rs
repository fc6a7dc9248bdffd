//! Model folders from a Hugging Face hub, through its shared cache.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::folder;
use crate::error::input_error;
pub use crate::hub::offline;
use crate::hub::{KEPT, RepoId};
use crate::interrupt::Interrupt;

/// `org/name[@revision]`, as it stands after `hf:`: a model or a PEFT adapter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HubModel {
    pub repo: String,
    pub revision: String,
}

/// Files that a model may have besides its weights. The first two it must have.
const FILES: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];
const REQUIRED: usize = 2;

/// Files of a PEFT adapter; a repository with the first one is an adapter, as in transformers.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

impl HubModel {
    /// Parses `org/name[@revision]`.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if it is anything else.
    pub(crate) fn parse(id: &str) -> Result<Self> {
        let RepoId { repo, revision } = RepoId::parse(id)?;
        Ok(Self { repo, revision })
    }

    /// The id as the user writes it.
    fn id(&self) -> String {
        match self.revision.as_str() {
            "main" => format!("hf:{}", self.repo),
            revision => format!("hf:{}@{revision}", self.repo),
        }
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.repo.clone(), RepoType::Model, self.revision.clone())
    }

    /// The folder of this revision in the cache, if it holds a file.
    fn snapshot(&self, cache: &Cache, file: &str) -> Option<PathBuf> {
        let repo = cache.repo(self.repo());
        // A revision that is a commit has no file under refs/.
        let commit = repo.pointer_path(&self.revision);
        if commit.is_dir() { Some(commit) } else { Some(repo.get(file)?.parent()?.to_path_buf()) }
    }

    /// The snapshot folder in the cache, if all that is needed is there.
    pub(crate) fn cached(&self, cache: &Cache) -> Option<PathBuf> {
        let dir = self.snapshot(cache, FILES[0])?;
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
        let api = Arc::new(api()?.repo(self.repo()));
        // Twice, because a branch may have moved since a part of it was cached: the first pass then
        // moves the reference to the new commit, the second fetches that commit's other files.
        for _ in 0..2 {
            self.fetch_files(&api, interrupt)?;
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
        let api = Arc::new(api()?.repo(self.repo()));
        for (i, file) in ADAPTER_FILES.iter().enumerate() {
            match get(&api, file, interrupt)? {
                Err(error) if i == 0 && status(&error) == Some(404) => return Ok(None),
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
        let dir = self.snapshot(cache, ADAPTER_FILES[0])?;
        ADAPTER_FILES.iter().all(|file| dir.join(file).exists()).then_some(dir)
    }

    fn fetch_files(&self, api: &Arc<ApiRepo>, interrupt: &Interrupt) -> Result<()> {
        for (i, file) in FILES.iter().enumerate() {
            match get(api, file, interrupt)? {
                Err(error) if i >= REQUIRED && status(&error) == Some(404) => {}
                fetched => drop(fetched.map_err(|e| self.failed(file, e))?),
            }
        }
        match get(api, folder::INDEX, interrupt)? {
            Ok(index) => {
                for shard in folder::shard_names(&index)? {
                    get(api, &shard, interrupt)?.map_err(|e| self.failed(&shard, e))?;
                }
            }
            Err(error) if status(&error) == Some(404) => {
                get(api, folder::SINGLE, interrupt)?.map_err(|e| self.failed(folder::SINGLE, e))?;
            }
            Err(error) => return Err(self.failed(folder::INDEX, error)),
        }
        Ok(())
    }

    fn failed(&self, file: &str, error: ApiError) -> anyhow::Error {
        let id = self.id();
        input_error(match status(&error) {
            Some(401 | 403) => format!(
                "{id}: access to {file} was refused; is the name right? A gated model needs HF_TOKEN and its terms accepted"
            ),
            Some(404) => format!("{id}: the hub has no {file} at this revision"),
            _ => {
                format!("{id}: cannot fetch {file}: {error}; with a network, run: trainer models fetch {id}")
            }
        })
    }

    fn not_cached(&self) -> anyhow::Error {
        let id = self.id();
        input_error(format!(
            "{id} is not in the cache and HF_HUB_OFFLINE is set; run: trainer models fetch {id}"
        ))
    }

    fn incomplete(&self) -> anyhow::Error {
        input_error(format!("{}: the cache is incomplete after fetching; is its disk full?", self.id()))
    }
}

/// Fetches a file of a repository. The library's downloads cannot be told to stop; their partial files go on where
/// they ended.
fn get(api: &Arc<ApiRepo>, file: &str, interrupt: &Interrupt) -> Result<Result<PathBuf, ApiError>> {
    let (api, file) = (api.clone(), file.to_string());
    interrupt.or_leave(KEPT, move || api.get(&file))
}

/// One file of a repository, for aliases that name a hub as a second source.
///
/// # Errors
/// If the hub cannot be reached or does not have the file.
pub(crate) fn fetch_file(repo: &str, file: &str) -> Result<PathBuf> {
    let repo = Repo::new(repo.to_string(), RepoType::Model);
    Ok(api()?.repo(repo).get(file)?)
}

/// Honours `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN`.
fn api() -> Result<Api> {
    let mut builder = ApiBuilder::from_env().with_retries(2);
    if let Ok(token) = std::env::var("HF_TOKEN")
        && !token.trim().is_empty()
    {
        builder = builder.with_token(Some(token.trim().to_string()));
    }
    Ok(builder.build()?)
}

/// The HTTP status of a failed request. `ureq` is not a dependency of ours, so it is read from the text.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::TooManyRetries(inner) => status(inner),
        ApiError::RequestError(request) => {
            request.to_string().rsplit("http status: ").next().and_then(|code| code.trim().parse().ok())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_organisation_a_name_and_perhaps_a_revision() -> Result<()> {
        let model = HubModel::parse("org/some-model_1.5@refs/pr/3")?;
        assert_eq!((model.repo.as_str(), model.revision.as_str()), ("org/some-model_1.5", "refs/pr/3"));
        assert_eq!(HubModel::parse("org/name")?.revision, "main");
        for bad in ["name", "a/b/c", "org/", "/name", "org/name@", "../name", "org/na me", "a/b@../../x"] {
            assert!(HubModel::parse(bad).is_err(), "{bad}");
        }
        Ok(())
    }

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
