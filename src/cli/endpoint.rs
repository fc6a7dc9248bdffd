//! The flags that name a language model, over the recipe's section.

use clap::Args;

use crate::workflow::EndpointRequest;

/// A model behind an OpenAI-compatible endpoint; each flag goes before the recipe's key of the same name.
#[derive(Debug, Clone, Args)]
pub struct EndpointArgs {
    /// Address of the server without /chat/completions, such as http://localhost:8000/v1
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Name of the model on the server
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Environment variable that holds the key (never the key itself) [default: OPENAI_API_KEY]
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// Maximum tokens per answer, reasoning included [default: 10000]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Sampling temperature of this model
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Timeout of a request in seconds [default: 300]
    #[arg(long, value_name = "SECONDS")]
    timeout_s: Option<f64>,
    /// Maximum requests per minute; 0 means no limit [default: 0]
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<f64>,
    /// Price per million prompt tokens; needed to report costs
    #[arg(long, value_name = "PRICE")]
    input_price: Option<f64>,
    /// Price per million completion tokens
    #[arg(long, value_name = "PRICE")]
    output_price: Option<f64>,
    /// Use the server and the key variable that the run folder's recipe names; without this flag they are not used
    #[arg(long)]
    stored_endpoint: bool,
}

impl From<EndpointArgs> for EndpointRequest {
    fn from(args: EndpointArgs) -> Self {
        Self {
            base_url: args.base_url,
            model: args.model,
            key_env: args.key_env,
            max_tokens: args.max_tokens,
            temperature: args.temperature,
            timeout_s: args.timeout_s,
            requests_per_minute: args.requests_per_minute,
            input_price: args.input_price,
            output_price: args.output_price,
            stored_endpoint: args.stored_endpoint,
            ..Self::default()
        }
    }
}
