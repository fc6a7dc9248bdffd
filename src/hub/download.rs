//! Whole files of a repository, downloaded into the cache: where they stay, and where other tools find them.
//!
//! The downloads are those of the crate `hf-hub`, which only this file knows. They cannot be told to stop; their partial
//! files go on where they ended.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};

use super::fault::HubFault;
use super::repo_id::RepoId;
use super::settings::{HubSettings, KEPT, USER_AGENT};
use crate::interrupt::Interrupt;

/// Tries of a file after the first, each of which goes on where the one before ended.
const MORE_TRIES: usize = 2;

/// Downloads the files of a model's repository, with progress on stderr.
pub struct Downloader {
    repo: Arc<ApiRepo>,
    interrupt: Interrupt,
}

impl Downloader {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn new(settings: &HubSettings, id: &RepoId, interrupt: &Interrupt) -> Result<Self> {
        let api = ApiBuilder::from_cache(hf_hub::Cache::new(settings.cache.root().to_path_buf()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.as_ref().map(|token| token.0.clone()))
            .with_user_agent(USER_AGENT.0, USER_AGENT.1)
            .with_retries(MORE_TRIES)
            .build()?;
        let repo = Repo::with_revision(id.repo.clone(), RepoType::Model, id.revision.clone());
        Ok(Self { repo: Arc::new(api.repo(repo)), interrupt: interrupt.clone() })
    }

    /// The path of a file in the cache, downloaded if it is not there.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`].
    pub fn get(&self, file: &str) -> Result<Result<PathBuf, HubFault>> {
        let (repo, file) = (self.repo.clone(), file.to_string());
        Ok(self.interrupt.or_leave(KEPT, move || repo.get(&file))?.map_err(fault))
    }
}

fn fault(error: ApiError) -> HubFault {
    match status(&error) {
        Some(401 | 403) => HubFault::Refused,
        Some(404) => HubFault::Absent,
        _ => HubFault::Other(error.to_string()),
    }
}

/// The HTTP status of a failed request, which the library keeps in its text only.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::TooManyRetries(inner) => status(inner),
        ApiError::RequestError(request) => {
            request.to_string().rsplit("http status: ").next().and_then(|code| code.trim().parse().ok())
        }
        _ => None,
    }
}
