//! The flags that name a language model, over the recipe's section.

use clap::Args;

use crate::recipe::EndpointSection;

/// A model behind an OpenAI-compatible endpoint; each flag goes before the recipe's key of the same name.
#[derive(Debug, Clone, Args)]
pub struct EndpointArgs {
    /// The server: what stands before /chat/completions, such as http://localhost:8000/v1
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The model, as the server names it
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Environment variable that holds the key (never the key itself) [default: OPENAI_API_KEY]
    #[arg(long, value_name = "VARIABLE")]
    pub key_env: Option<String>,
    /// Most tokens of an answer, thoughts included [default: 10000]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Sampling temperature of the model that is asked
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Seconds until a request counts as lost [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub timeout_s: Option<f64>,
    /// Most requests a minute; 0: no limit [default: 0]
    #[arg(long, value_name = "N")]
    pub requests_per_minute: Option<f64>,
    /// Price of a million prompt tokens: costs are then counted
    #[arg(long, value_name = "PRICE")]
    pub input_price: Option<f64>,
    /// Price of a million completion tokens
    #[arg(long, value_name = "PRICE")]
    pub output_price: Option<f64>,
}

impl EndpointArgs {
    /// The recipe's section with what the flags say.
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
            ..section.clone()
        }
    }
}
