//! `trainer generate`: text from a model, with or without an adapter.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::bail_input;
use crate::interrupt::Interrupt;
use crate::model::generate::{Sampling, generate};
use crate::model::hooks::NoHook;
use crate::model::load::loader::Tuning;
use crate::model::load::source;
use crate::model::lora::Adapter;
use crate::model::{CausalLm, device};
use crate::text_file::read_text;

/// Generate text from a model, with or without an adapter
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer generate --base gemma-3-270m --prompt 'The weather today is'
  trainer generate --base smollm2-135m-instruct --adapter runs/cake/adapter --chat --prompt 'Hello!' --json")]
pub struct GenerateArgs {
    /// Alias, hf:org/name[@revision], Hugging Face folder, or .gguf file
    #[arg(long, value_name = "MODEL")]
    base: String,
    /// PEFT adapter: folder or hf:org/name[@revision]
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
    /// A prompt; may be given several times
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts")]
    prompt: Vec<String>,
    /// JSON lines of {"prompt": ...}
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// At most this many new tokens a prompt
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Decides what is sampled
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Put each prompt into the model's chat template as a user's turn
    #[arg(long)]
    chat: bool,
    /// Chat template in place of the model's own: a Jinja file, or one that comes with the program
    #[arg(long, value_name = "NAME|FILE", default_value = "", requires = "chat")]
    chat_template: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// An input error for a model, adapter or prompt file that does not serve.
pub fn run(args: GenerateArgs) -> Result<()> {
    if args.temperature != 0.0 && !(0.01..=100.0).contains(&args.temperature) {
        bail_input!("--temperature {}: expected 0 (greedy), or 0.01 to 100", args.temperature);
    }
    let prompts = match &args.prompts {
        Some(path) => read_prompts(path)?,
        None => args.prompt.clone(),
    };
    let mut pretrained = source::open(&args.base)?;
    pretrained.take_template(&args.chat_template)?;
    let read = |adapter| Adapter::read(&source::adapter_dir(adapter, &Interrupt::default())?);
    let adapter = args.adapter.as_deref().map(read).transpose()?;
    let tuning = adapter.as_ref().map_or(Tuning::Frozen, Tuning::Adapted);
    let (model, _) = CausalLm::load(&pretrained, &tuning, &device()?)?;

    let template = match args.chat {
        true => Some(pretrained.chat()?),
        false => None,
    };
    let mut ids = Vec::with_capacity(prompts.len());
    for (i, prompt) in prompts.iter().enumerate() {
        let tokens =
            pretrained.prompt_ids(prompt, template.as_ref()).with_context(|| format!("prompt {}", i + 1))?;
        if tokens.is_empty() {
            bail_input!("prompt {}: has no tokens, and this model adds none", i + 1);
        }
        ids.push(tokens);
    }
    let sampling = Sampling {
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        seed: args.seed,
        eos: pretrained.eos_token_ids.clone(),
    };
    let started = Instant::now();
    let new = generate(&model, &ids, &sampling, 1.0, &mut NoHook, |_| Ok(()))?;
    let elapsed_s = started.elapsed().as_secs_f64();
    let mut generations = Vec::with_capacity(new.len());
    for (prompt, ids) in prompts.iter().zip(&new) {
        let text = pretrained.tokenizer.decode(ids, true).map_err(anyhow::Error::msg)?;
        generations.push(json!({"prompt": prompt, "token_ids": ids, "text": text}));
    }
    if args.json {
        return super::print(&json!({ "generations": generations, "elapsed_s": elapsed_s }).to_string());
    }
    for g in &generations {
        let text = |key: &str| g[key].as_str().unwrap_or_default();
        super::print(&format!("{}{}\n", text("prompt"), text("text")))?;
    }
    Ok(())
}

fn read_prompts(path: &std::path::Path) -> Result<Vec<String>> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(e) => bail_input!("{}: {e}", path.display()),
    };
    let mut prompts = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match serde_json::from_str::<Value>(line).ok().and_then(|v| v["prompt"].as_str().map(str::to_string))
        {
            Some(prompt) => prompts.push(prompt),
            None => bail_input!("{}:{}: expected {{\"prompt\": text}}", path.display(), i + 1),
        }
    }
    if prompts.is_empty() {
        bail_input!("{}: no prompts", path.display());
    }
    Ok(prompts)
}
