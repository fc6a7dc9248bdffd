//! A language model behind an OpenAI-compatible endpoint, as a user names it.

use std::path::Path;

use anyhow::Result;

use crate::error::input_error;
use crate::progress;
use crate::recipe::EndpointSection;
use crate::run::RunDir;

/// What is said of an endpoint beside the recipe's section; each value goes before the recipe's key of the same name.
#[derive(Debug, Clone, Default)]
pub struct EndpointRequest {
    /// What stands before `/chat/completions`, such as `http://localhost:8000/v1`.
    pub base_url: Option<String>,
    /// The model, as the server names it.
    pub model: Option<String>,
    /// Environment variable that holds the key.
    pub key_env: Option<String>,
    /// Most tokens of an answer, thoughts included.
    pub max_tokens: Option<usize>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Seconds until a request counts as lost.
    pub timeout_s: Option<f64>,
    /// Most requests a minute; 0: no limit.
    pub requests_per_minute: Option<f64>,
    /// Price of a million prompt tokens.
    pub input_price: Option<f64>,
    /// Price of a million completion tokens.
    pub output_price: Option<f64>,
    /// Questions on the way at the same time.
    pub parallel: Option<usize>,
    /// Whether server and key variable may be those that a run folder names.
    pub stored_endpoint: bool,
}

/// Where an endpoint's settings come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct SettingsOrigin<'a> {
    /// The file that holds them.
    pub file: &'a Path,
    /// `grader` or `investigator`.
    pub section: &'a str,
    /// Whether the file is that of a run folder, and not one that the user names as a recipe.
    pub stored: bool,
    /// The flags that name server and key variable instead.
    pub flags: [&'a str; 2],
}

impl SettingsOrigin<'_> {
    /// Refuses a server or key variable that only a run folder names: whoever wrote the folder could otherwise have any
    /// variable of the environment sent to a server of theirs. `named` says whether the command line names server and variable.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] that shows both and names the flags.
    pub(super) fn must_be_named(
        &self,
        stored: &EndpointSection,
        named: [bool; 2],
        confirmed: bool,
    ) -> Result<()> {
        let names_server = !stored.base_url.is_empty() && !named[0];
        let names_key =
            ![String::new(), EndpointSection::default().key_env].contains(&stored.key_env) && !named[1];
        if confirmed || !(names_server || names_key) || !self.stored {
            return Ok(());
        }
        let mut what = Vec::new();
        if names_server {
            what.push(format!("base_url = {:?}", stored.base_url));
        }
        if names_key {
            what.push(format!("key_env = {:?}", stored.key_env));
        }
        Err(input_error(format!(
            "{}: {}: {}: a run folder may come from somebody else, so its server and key variable are not used unasked; \
             expected {} and {}, or --stored-endpoint to use those",
            self.file.display(),
            self.section,
            what.join(", "),
            self.flags[0],
            self.flags[1]
        )))
    }
}

/// Whether a recipe is that of a run folder, so that it was not necessarily written by the user.
pub(super) fn is_of_run(recipe: &Path) -> bool {
    let run = RunDir::new(recipe.parent().unwrap_or(Path::new("")));
    [run.manifest(), run.metrics(), run.adapter(), run.model(), run.diff()].iter().any(|path| path.exists())
}

/// Says who is about to be asked, and which variable's value goes along.
pub(super) fn announce(settings: &EndpointSection) {
    let key = match settings.key_env.as_str() {
        "" => "without a key".to_string(),
        name if std::env::var_os(name).is_none_or(|value| value.is_empty()) => "without a key".to_string(),
        name => format!("with the key in {name}"),
    };
    progress::say(format_args!("asking {} at {}, {key}", settings.model, settings.base_url));
}

impl EndpointRequest {
    /// As [`SettingsOrigin::must_be_named`], where `--base-url` and `--key-env` name server and key variable.
    pub(super) fn must_name(
        &self,
        file: &Path,
        section: &str,
        is_stored: bool,
        stored: &EndpointSection,
    ) -> Result<()> {
        let origin = SettingsOrigin { file, section, stored: is_stored, flags: ["--base-url", "--key-env"] };
        let named = [self.base_url.is_some(), self.key_env.is_some()];
        origin.must_be_named(stored, named, self.stored_endpoint)
    }

    /// The recipe's section with what the request says.
    pub fn over(&self, section: &EndpointSection) -> EndpointSection {
        EndpointSection {
            base_url: self.base_url.clone().unwrap_or_else(|| section.base_url.clone()),
            model: self.model.clone().unwrap_or_else(|| section.model.clone()),
            key_env: self.key_env.clone().unwrap_or_else(|| section.key_env.clone()),
            max_tokens: self.max_tokens.unwrap_or(section.max_tokens),
            temperature: self.temperature.unwrap_or(section.temperature),
            timeout_s: self.timeout_s.unwrap_or(section.timeout_s),
            requests_per_minute: self.requests_per_minute.unwrap_or(section.requests_per_minute),
            input_price: self.input_price.unwrap_or(section.input_price),
            output_price: self.output_price.unwrap_or(section.output_price),
            parallel: self.parallel.unwrap_or(section.parallel),
            ..section.clone()
        }
    }
}
