//! A Hugging Face hub as models and data sets share it: which repository ([`RepoId`]), how it is asked ([`HubSettings`]),
//! what is in its cache ([`Cache`]), its API and files by byte range ([`Client`], [`RemoteFile`]), and whole files
//! into the cache ([`Downloader`]). Models that are known by a short name are in [`aliases`].

pub mod aliases;

mod cache;
mod client;
mod download;
mod fault;
mod file;
mod names;
mod origin;
mod repo_id;
mod settings;

pub use self::cache::{Cache, RepoKind};
pub use self::client::Client;
pub use self::download::Downloader;
pub use self::fault::HubFault;
pub use self::file::{RemoteFile, RemoteReader};
pub use self::names::{is_component, is_inner_path};
pub use self::repo_id::RepoId;
pub use self::settings::{HubSettings, KEPT, Token, offline};
