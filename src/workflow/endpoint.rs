//! A language model behind an OpenAI-compatible endpoint, as a user names it.

use crate::recipe::EndpointSection;

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
}

impl EndpointRequest {
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
