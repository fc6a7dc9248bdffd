//! `trainer generate`: text from a model, with or without an adapter.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArg;
use crate::bail_input;
use crate::recipe::ModelDtype;
use crate::workflow::{self, GenerateRequest, PromptSource};

/// Generate text from a model, with or without an adapter
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer generate --base gemma-3-270m --prompt 'The weather today is'
  trainer generate --base smollm2-135m-instruct --adapter runs/cake/adapter --chat --prompt 'Hello!' --json")]
pub struct GenerateArgs {
    /// Alias, hf:org/name[@revision], Hugging Face folder, or .gguf file
    #[arg(long, value_name = "MODEL")]
    base: String,
    /// How the weights are held: as f32, or as the GGUF file has them (less memory, faster for one prompt)
    #[arg(long, value_name = "DTYPE", value_enum, default_value_t = ModelDtype::F32)]
    dtype: ModelDtype,
    /// PEFT adapter: folder or hf:org/name[@revision]
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
    /// Prompt; repeatable
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts")]
    prompt: Vec<String>,
    /// JSON lines of {"prompt": ...}
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// Maximum new tokens per prompt
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Sampling temperature; 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Random seed of the sampling
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Send each prompt as a user turn through the model's chat template
    #[arg(long)]
    chat: bool,
    /// Chat template to use instead of the model's own: a Jinja file, or the name of a built-in template
    #[arg(long, value_name = "NAME|FILE", default_value = "", requires = "chat")]
    chat_template: String,
    #[command(flatten)]
    device: DeviceArg,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::generate`].
pub fn run(args: GenerateArgs) -> Result<()> {
    if args.temperature != 0.0 && !(0.01..=100.0).contains(&args.temperature) {
        bail_input!("--temperature {}: expected 0 (greedy), or 0.01 to 100", args.temperature);
    }
    args.device.open()?;
    let generated = workflow::generate(&GenerateRequest {
        base: args.base,
        dtype: args.dtype,
        adapter: args.adapter,
        prompts: args.prompts.map_or(PromptSource::Texts(args.prompt), PromptSource::File),
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        seed: args.seed,
        chat: args.chat,
        chat_template: args.chat_template,
    })?;
    if args.json {
        return super::print(&serde_json::to_string(&generated)?);
    }
    for generation in &generated.generations {
        super::print(&format!("{}{}\n", generation.prompt, generation.text))?;
    }
    Ok(())
}
