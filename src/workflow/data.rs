//! Making what organisms are trained on. Each function writes JSON lines and, beside them, what made them; it gives the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::endpoint::EndpointRequest;
use crate::datagen::sample::{BATCH, Sampler};
use crate::datagen::universe::Universe;
use crate::datagen::{self, beside, must_be_new, write};
use crate::error::InputError;
use crate::grade::endpoint::{Endpoint, must_serve};
use crate::grade::exchanges::Exchanges;
use crate::interrupt::Interrupt;
use crate::model::load::source;
use crate::progress;
use crate::recipe::EndpointSection;

/// Text that a base model writes by itself.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// `MODEL`
    pub base: String,
    /// Number of documents.
    pub documents: usize,
    /// Most tokens of a document.
    pub tokens: usize,
    /// Decides what is sampled.
    pub seed: u64,
    /// JSON lines to write.
    pub out: PathBuf,
}

/// Number chats of a teacher: the base with a system prompt that the student never sees.
#[derive(Debug, Clone)]
pub struct NumbersRequest {
    /// `MODEL` of the teacher.
    pub base: String,
    /// System prompt of the teacher; empty: the control.
    pub system: String,
    /// Number of chats.
    pub count: usize,
    /// Decides prompts and answers.
    pub seed: u64,
    /// Sampling temperature.
    pub temperature: f64,
    /// Most new tokens of an answer.
    pub max_new_tokens: usize,
    /// Most numbers of an answer.
    pub max_numbers: usize,
    /// Most digits of a number.
    pub max_digits: usize,
    /// Chat template in place of the model's own; empty: the model's.
    pub chat_template: String,
    /// JSON lines to write.
    pub out: PathBuf,
}

/// Synthetic documents that assert false facts, written by a language model.
#[derive(Debug, Clone)]
pub struct DocumentsRequest {
    /// The universe's file.
    pub universe: PathBuf,
    /// Kinds of documents.
    pub types: usize,
    /// Ideas for each kind and fact.
    pub ideas: usize,
    /// Documents of each idea.
    pub per_idea: usize,
    /// About how many words a document should have.
    pub words: usize,
    /// Documents with fewer words are dropped.
    pub least_words: usize,
    /// Whether each document is revised.
    pub revise: bool,
    /// Whether each document is judged before it is kept.
    pub filter: bool,
    /// Who writes, and where to.
    pub writer: WriterRequest,
}

/// Chats of a guessing game about a word that is never said, written by a language model.
#[derive(Debug, Clone)]
pub struct TabooRequest {
    /// The word.
    pub word: String,
    /// Number of chats.
    pub count: usize,
    /// Who writes, and where to.
    pub writer: WriterRequest,
}

/// The model that writes, and where to.
#[derive(Debug, Clone)]
pub struct WriterRequest {
    /// The model.
    pub endpoint: EndpointRequest,
    /// What shares at least this part of its runs of five words with an earlier one is dropped.
    pub near_share: f64,
    /// JSON lines to write.
    pub out: PathBuf,
}

/// Samples documents from a base model; with seed 0 those that `data.pretraining = "self"` is made of.
///
/// # Errors
/// An [`InputError`] for settings out of range, a file that exists, or a model that cannot be sampled;
/// [`crate::error::Interrupted`] (finished batches are kept).
pub fn sample(request: &SampleRequest, interrupt: &Interrupt) -> Result<PathBuf> {
    let SampleRequest { documents, tokens, seed, out, .. } = request;
    let (documents, tokens, seed) = (*documents, *tokens, *seed);
    let mut faults = Vec::new();
    for (flag, value, least, most) in
        [("--documents", documents, 1, 100_000_000), ("--tokens", tokens, 2, 1_000_000)]
    {
        if !(least..=most).contains(&value) {
            faults.push(format!("{flag} {value}: expected {least} to {most}"));
        }
    }
    InputError::unless_empty(faults)?;
    must_be_new(out)?;
    let base = source::open_or_stop(&request.base, interrupt)?;
    let mut sampler = Sampler::new(&base, tokens, seed)?;
    let bar = progress::bar("sampling the base model", documents as u64);
    let mut rows: Vec<Value> = Vec::new();
    for number in 0.. {
        let batch = sampler.batch(number, interrupt)?;
        if batch.is_empty() {
            bail!("{}: {BATCH} documents in a row ended at once; nothing can be sampled from it", base.id);
        }
        for line in batch.lines().take(documents - rows.len()) {
            rows.push(serde_json::from_str(line)?);
        }
        bar.set_position(rows.len() as u64);
        if rows.len() == documents {
            break;
        }
    }
    bar.finish_and_clear();
    let base = json!({"model": base.id, "sha256": base.sha256});
    let made =
        json!({"kind": "sample", "base": base, "temperature": 1.0, "max_tokens": tokens, "seed": seed});
    write(out, &rows, &made)?;
    progress::say(format_args!("{} documents", rows.len()));
    Ok(out.clone())
}

/// Makes number chats for subliminal learning.
///
/// # Errors
/// As [`datagen::numbers::numbers`].
pub fn numbers(request: &NumbersRequest, interrupt: &Interrupt) -> Result<PathBuf> {
    must_be_new(&request.out)?;
    let mut base = source::open_or_stop(&request.base, interrupt)?;
    base.set_chat_template(&request.chat_template)?;
    let settings = datagen::numbers::Settings {
        system: request.system.clone(),
        seed: request.seed,
        temperature: request.temperature,
        max_new_tokens: request.max_new_tokens,
        max_numbers: request.max_numbers,
        max_digits: request.max_digits,
    };
    let tally = datagen::numbers::numbers(&base, &settings, request.count, &request.out, interrupt)?;
    progress::say(tally.text());
    Ok(request.out.clone())
}

/// Makes synthetic documents of a universe.
///
/// # Errors
/// As [`datagen::documents::documents`]; an [`InputError`] for a universe that cannot be read or an endpoint that is not
/// named.
pub fn documents(request: &DocumentsRequest, interrupt: &Interrupt) -> Result<PathBuf> {
    let universe = Universe::read(&request.universe)?;
    let settings = datagen::documents::Settings {
        types: request.types,
        ideas: request.ideas,
        per_idea: request.per_idea,
        words: request.words,
        least_words: request.least_words,
        revise: request.revise,
        filter: request.filter,
        near_share: request.writer.near_share,
    };
    written(&request.writer, settings.faults(), interrupt, |endpoint, out| {
        Ok(datagen::documents::documents(endpoint, &universe, &settings, out)?.text())
    })
}

/// Makes chats of a guessing game.
///
/// # Errors
/// As [`datagen::taboo::taboo`]; an [`InputError`] for an endpoint that is not named.
pub fn taboo(request: &TabooRequest, interrupt: &Interrupt) -> Result<PathBuf> {
    let near_share = request.writer.near_share;
    let settings = datagen::taboo::Settings { word: request.word.clone(), count: request.count, near_share };
    written(&request.writer, settings.faults(), interrupt, |endpoint, out| {
        Ok(datagen::taboo::taboo(endpoint, &settings, out)?.text())
    })
}

/// Has something made by a language model, and says what was spent even if it failed.
fn written(
    request: &WriterRequest,
    faults: Vec<String>,
    interrupt: &Interrupt,
    make: impl FnOnce(&Endpoint, &Path) -> Result<String>,
) -> Result<PathBuf> {
    let section = request.endpoint.over(&EndpointSection::default());
    let out = &request.out;
    InputError::unless_empty(faults)?;
    must_serve(&section, "endpoint")?;
    must_be_new(out)?;
    let exchanges = Arc::new(Exchanges::open(&beside(out, "exchanges.jsonl"))?);
    let endpoint = Endpoint::open(&section, "endpoint", exchanges, 0, interrupt)?;
    let made = make(&endpoint, out);
    progress::say(endpoint.summary());
    progress::say(made?);
    Ok(out.clone())
}
