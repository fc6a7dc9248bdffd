//! Text from a model, with or without an adapter.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::bail_input;
use crate::error::InputError;
use crate::interrupt::Interrupt;
use crate::model::generate::Sampling;
use crate::model::hooks::NoHook;
use crate::model::load::loader::Tuning;
use crate::model::load::source;
use crate::model::lora::Adapter;
use crate::model::{CausalLm, device};
use crate::progress;
use crate::recipe::ModelDtype;
use crate::text_file::read_text;

/// What is to be continued, by which model, and how.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// `MODEL`
    pub base: String,
    /// How its matrices lie in memory.
    pub dtype: ModelDtype,
    /// PEFT adapter on it: folder or `hf:` id.
    pub adapter: Option<String>,
    /// The prompts.
    pub prompts: PromptSource,
    /// Most new tokens of each.
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Decides what is sampled.
    pub seed: u64,
    /// Whether each prompt is a user's turn in the chat template.
    pub chat: bool,
    /// Chat template in place of the model's own; empty: the model's.
    pub chat_template: String,
}

/// Where prompts come from.
#[derive(Debug, Clone)]
pub enum PromptSource {
    /// As they are.
    Texts(Vec<String>),
    /// JSON lines of `{"prompt": …}`.
    File(PathBuf),
}

/// What was generated.
#[derive(Debug, Clone, Serialize)]
pub struct Generated {
    /// One for each prompt.
    pub generations: Vec<Generation>,
    /// Seconds of generation, loading excluded.
    pub elapsed_s: f64,
}

/// A prompt and what follows it.
#[derive(Debug, Clone, Serialize)]
pub struct Generation {
    /// The prompt.
    pub prompt: String,
    /// The new tokens, the end token included where one was produced.
    pub token_ids: Vec<u32>,
    /// Their text, without special tokens.
    pub text: String,
}

/// Generates text.
///
/// # Errors
/// An input error for a model, adapter or prompt file that does not serve.
pub fn generate(request: &GenerateRequest) -> Result<Generated> {
    let prompts = match &request.prompts {
        PromptSource::File(path) => read_prompts(path)?,
        PromptSource::Texts(texts) => texts.clone(),
    };
    let mut pretrained = source::open(&request.base)?;
    pretrained.set_dtype(request.dtype)?;
    pretrained.set_chat_template(&request.chat_template)?;
    let read = |adapter| Adapter::read(&source::adapter_dir(adapter, &Interrupt::default())?);
    let adapter = request.adapter.as_deref().map(read).transpose()?;
    let tuning = adapter.as_ref().map_or(Tuning::Frozen, Tuning::Adapted);
    let (model, _) = CausalLm::load(&pretrained, &tuning, &device()?)?;

    let template = match request.chat {
        true => Some(pretrained.chat()?),
        false => None,
    };
    let mut ids = Vec::with_capacity(prompts.len());
    for (i, prompt) in prompts.iter().enumerate() {
        let tokens = match pretrained.prompt_ids(prompt, template.as_ref()) {
            Err(e) if e.is::<InputError>() => bail_input!("prompt {}: {e}", i + 1),
            other => other.with_context(|| format!("prompt {}", i + 1))?,
        };
        if tokens.is_empty() {
            bail_input!("prompt {}: has no tokens, and this model adds none", i + 1);
        }
        ids.push(tokens);
    }
    let lengths = ids.iter().map(|prompt| prompt.len() + request.max_new_tokens);
    let what = "prompts with the tokens that may follow (--max-new-tokens)";
    if let Some(text) = pretrained.longer_than_context(what, lengths) {
        progress::say(format_args!("warning: {text}"));
    }
    let sampling = Sampling {
        max_new_tokens: request.max_new_tokens,
        temperature: request.temperature,
        seed: request.seed,
        eos: pretrained.eos_token_ids.clone(),
    };
    let started = Instant::now();
    let new = crate::model::generate::generate(&model, &ids, &sampling, 1.0, &mut NoHook, |_| Ok(()))?;
    let elapsed_s = started.elapsed().as_secs_f64();
    let mut generations = Vec::with_capacity(new.len());
    for (prompt, token_ids) in prompts.into_iter().zip(new) {
        let text = pretrained.tokenizer.decode(&token_ids, true).map_err(|e| anyhow::anyhow!(e))?;
        generations.push(Generation { prompt, token_ids, text });
    }
    Ok(Generated { generations, elapsed_s })
}

fn read_prompts(path: &Path) -> Result<Vec<String>> {
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
