//! `[grader]` and `[investigator]`: language models behind an OpenAI-compatible chat-completions endpoint. Nothing is
//! asked of one unless a command that needs it is given; the key never stands in a recipe, only the name of the
//! environment variable that holds it.

use serde::{Deserialize, Serialize};

/// `[grader]` or `[investigator]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointSection {
    /// What stands before `/chat/completions`, such as `http://localhost:8000/v1`.
    pub base_url: String,
    /// The model, as the server names it.
    pub model: String,
    /// Environment variable that holds the key; no key is sent where it is not set.
    pub key_env: String,
    /// Most tokens of one answer, thoughts included.
    pub max_tokens: usize,
    /// Sampling temperature; some questions are asked again at 0.
    pub temperature: f64,
    /// Seconds until a request counts as lost.
    pub timeout_s: f64,
    /// Requests for one answer before giving up.
    pub tries: usize,
    /// Seconds before the second try, doubled for each further one, times a random factor of 0.5 to 1.
    pub backoff_s: f64,
    /// Most requests a minute (0: no limit).
    pub requests_per_minute: f64,
    /// Questions on the way at the same time; an investigation is one conversation and has one.
    pub parallel: usize,
    /// Price of a million prompt tokens (0: not known).
    pub input_price: f64,
    /// Price of a million completion tokens (0: not known).
    pub output_price: f64,
}

impl Default for EndpointSection {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            model: String::new(),
            key_env: "OPENAI_API_KEY".into(),
            max_tokens: 10_000,
            temperature: 1.0,
            timeout_s: 300.0,
            tries: 6,
            backoff_s: 1.0,
            requests_per_minute: 0.0,
            parallel: 4,
            input_price: 0.0,
            output_price: 0.0,
        }
    }
}

impl EndpointSection {
    /// The defaults of `[investigator]`: the temperature of the authors' agent.
    pub fn investigator() -> Self {
        Self { temperature: 0.7, ..Self::default() }
    }

    /// What is out of range.
    pub fn faults(&self, section: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, key: &str, fault: String| {
            if !ok {
                faults.push(format!("{section}.{key}{fault}"));
            }
        };
        let url = &self.base_url;
        let host = url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        check(
            url.is_empty() || url.starts_with("http://") || url.starts_with("https://"),
            "base_url",
            format!(" = {url:?}: expected http://… or https://…"),
        );
        // Neither of these is repeated in the message: it may be a secret.
        check(
            !host.is_some_and(|host| host.contains('@')),
            "base_url",
            ": holds a user or password; expected the key in an environment variable (key_env)".into(),
        );
        let names = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        check(
            self.key_env.chars().all(names) && !self.key_env.starts_with(|c: char| c.is_ascii_digit()),
            "key_env",
            ": expected the name of an environment variable (capitals, digits, _), not the key itself".into(),
        );
        for (key, value, least, most) in [
            ("temperature", self.temperature, 0.0, 10.0),
            ("timeout_s", self.timeout_s, 0.05, 86_400.0),
            ("backoff_s", self.backoff_s, 0.0, 3_600.0),
            ("requests_per_minute", self.requests_per_minute, 0.0, 1e6),
            ("input_price", self.input_price, 0.0, 1e6),
            ("output_price", self.output_price, 0.0, 1e6),
        ] {
            check((least..=most).contains(&value), key, format!(" = {value}: expected {least} to {most}"));
        }
        check(
            self.requests_per_minute == 0.0
                || self.requests_per_minute.is_nan()
                || self.requests_per_minute >= 1e-3,
            "requests_per_minute",
            format!(" = {}: expected 0 (no limit), or at least 0.001", self.requests_per_minute),
        );
        for (key, value, most) in [
            ("max_tokens", self.max_tokens, 10_000_000),
            ("tries", self.tries, 100),
            ("parallel", self.parallel, 256),
        ] {
            check((1..=most).contains(&value), key, format!(" = {value}: expected 1 to {most}"));
        }
        faults
    }
}
