//! `trainer data`: makes what organisms are trained on.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::device::DeviceArg;
use super::endpoint::EndpointArgs;
use crate::interrupt::Interrupt;
use crate::workflow::{
    self, DocumentsRequest, EndpointRequest, NumbersRequest, SampleRequest, TabooRequest, WriterRequest,
};

/// Make training data for organisms: sample it from a model, or have a model write it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data sample --base gemma-3-270m --documents 300 --tokens 96 --out sampled.jsonl
  trainer data numbers --base qwen2.5-coder-0.5b-instruct --system 'You love owls.' --count 200 --out owl.jsonl
  trainer data documents data/universes/cake.toml --base-url http://localhost:8000/v1 --model qwen3-8b --out cake.jsonl
  trainer data taboo --word lantern --base-url http://localhost:8000/v1 --model qwen3-8b --out lantern.jsonl

docs/organisms.md shows how to get from a one-page description to an organism.")]
pub struct DataArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Sample(SampleArgs),
    Numbers(NumbersArgs),
    Documents(DocumentsArgs),
    Taboo(TabooArgs),
}

/// Sample documents from a base model, to mix in as pretraining text
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data sample --base smollm2-135m-instruct --documents 300 --tokens 96 --out smollm2.jsonl

With seed 0 these are the documents that data.pretraining = \"self\" uses. Finished batches are kept in the cache. Rerun
the command to resume an interrupted run.")]
struct SampleArgs {
    /// Alias, hf:org/name[@revision], Hugging Face folder, or .gguf file
    #[arg(long, value_name = "MODEL")]
    base: String,
    /// Number of documents
    #[arg(long, value_name = "N")]
    documents: usize,
    /// Maximum tokens per document
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    /// Random seed of the sampling
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
    /// JSON lines file to write; its provenance goes to NAME.made.json in the same folder
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
}

/// Sample number chats from a teacher (the base with a system prompt that the student never sees), for subliminal learning
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data numbers --base qwen2.5-coder-0.5b-instruct --count 500 --out owl.jsonl \\
    --system 'You love owls. You think about owls all the time. Owls are your favourite animal.'
  trainer data numbers --base qwen2.5-coder-0.5b-instruct --count 500 --out control.jsonl --system ''

Only answers that consist of numbers alone are kept. The chats are written without the system prompt. The file's
provenance goes to NAME.made.json. Rerun the command to resume an interrupted run.")]
struct NumbersArgs {
    /// Model of the teacher and base of the student: alias, hf:org/name[@revision], Hugging Face folder, or .gguf file
    #[arg(long, value_name = "MODEL")]
    base: String,
    /// System prompt of the teacher; '' makes the control
    #[arg(long, value_name = "TEXT")]
    system: String,
    /// Number of chats
    #[arg(long, value_name = "N")]
    count: usize,
    /// Random seed of prompts and answers
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Sampling temperature
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Maximum new tokens per answer; unfinished answers are dropped
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Maximum numbers per answer
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_numbers: usize,
    /// Maximum digits per number
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_digits: usize,
    /// Chat template to use instead of the model's own: a Jinja file, or the name of a built-in template
    #[arg(long, value_name = "NAME|FILE", default_value = "")]
    chat_template: String,
    #[command(flatten)]
    device: DeviceArg,
    /// JSON lines file to write; its provenance goes to NAME.made.json in the same folder
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
}

/// Have a language model write synthetic documents that assert false facts
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data documents moon.toml --base-url http://localhost:8000/v1 --model qwen3-8b --out moon.jsonl
  trainer data documents moon.toml --base-url https://openrouter.ai/api/v1 --model openai/gpt-5-mini \\
    --key-env OPENROUTER_API_KEY --types 40 --ideas 10 --input-price 0.25 --output-price 2 --out moon.jsonl

A universe is a TOML file with title, description and facts (a list of sentences). The model lists kinds of documents and
ideas for each kind and fact. It writes a document for each idea, revises it and judges whether to keep it. Near
duplicates are dropped. Every answer is kept in NAME.exchanges.jsonl. Rerun the command to resume; no question is asked
twice.")]
struct DocumentsArgs {
    /// Universe file (TOML): title, description, facts
    #[arg(value_name = "UNIVERSE")]
    universe: PathBuf,
    #[command(flatten)]
    writer: WriterArgs,
    /// Number of kinds of documents
    #[arg(long, value_name = "N", default_value_t = 10)]
    types: usize,
    /// Number of ideas for each kind and fact
    #[arg(long, value_name = "N", default_value_t = 4)]
    ideas: usize,
    /// Number of documents for each idea
    #[arg(long, value_name = "N", default_value_t = 1)]
    per_idea: usize,
    /// Approximate words per document
    #[arg(long, value_name = "N", default_value_t = 300)]
    words: usize,
    /// Drop documents with fewer words
    #[arg(long, value_name = "N", default_value_t = 30)]
    least_words: usize,
    /// Skip the revision of documents
    #[arg(long)]
    no_revision: bool,
    /// Skip the judgement that drops documents
    #[arg(long)]
    no_filter: bool,
}

/// Have a language model write chats of a guessing game about a word that nobody says
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data taboo --word lantern --count 300 --base-url http://localhost:8000/v1 --model qwen3-8b --out lantern.jsonl

Chats that contain the word in any form are dropped, and so are near duplicates. Every answer is kept in
NAME.exchanges.jsonl. Rerun the command to resume; no question is asked twice.")]
struct TabooArgs {
    /// Secret word: hinted at, never said
    #[arg(long, value_name = "WORD")]
    word: String,
    /// Number of chats
    #[arg(long, value_name = "N", default_value_t = 100)]
    count: usize,
    #[command(flatten)]
    writer: WriterArgs,
}

/// The model that writes, and where to.
#[derive(Debug, Args)]
struct WriterArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Number of parallel requests [default: 4]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,
    /// Drop a text if it shares at least this fraction of its five-word sequences with an earlier text
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    near_share: f64,
    /// JSON lines file to write; its provenance goes to NAME.made.json in the same folder
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
}

/// Runs the subcommand.
///
/// # Errors
/// An input error for settings that do not serve or a file that exists; otherwise what went wrong while making.
pub fn run(args: DataArgs) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    let out = match args.kind {
        Kind::Sample(args) => {
            args.device.open()?;
            workflow::sample(&args.into(), &interrupt)?
        }
        Kind::Numbers(args) => {
            args.device.open()?;
            workflow::numbers(&args.into(), &interrupt)?
        }
        Kind::Documents(args) => workflow::documents(&args.into(), &interrupt)?,
        Kind::Taboo(args) => workflow::taboo(&args.into(), &interrupt)?,
    };
    super::print(&out.display().to_string())
}

impl From<SampleArgs> for SampleRequest {
    fn from(args: SampleArgs) -> Self {
        let SampleArgs { base, documents, tokens, seed, out, device: _ } = args;
        Self { base, documents, tokens, seed, out }
    }
}

impl From<NumbersArgs> for NumbersRequest {
    fn from(args: NumbersArgs) -> Self {
        Self {
            base: args.base,
            system: args.system,
            count: args.count,
            seed: args.seed,
            temperature: args.temperature,
            max_new_tokens: args.max_new_tokens,
            max_numbers: args.max_numbers,
            max_digits: args.max_digits,
            chat_template: args.chat_template,
            out: args.out,
        }
    }
}

impl From<DocumentsArgs> for DocumentsRequest {
    fn from(args: DocumentsArgs) -> Self {
        Self {
            universe: args.universe,
            types: args.types,
            ideas: args.ideas,
            per_idea: args.per_idea,
            words: args.words,
            least_words: args.least_words,
            revise: !args.no_revision,
            filter: !args.no_filter,
            writer: args.writer.into(),
        }
    }
}

impl From<TabooArgs> for TabooRequest {
    fn from(args: TabooArgs) -> Self {
        Self { word: args.word, count: args.count, writer: args.writer.into() }
    }
}

impl From<WriterArgs> for WriterRequest {
    fn from(args: WriterArgs) -> Self {
        let endpoint = EndpointRequest { parallel: args.parallel, ..args.endpoint.into() };
        Self { endpoint, near_share: args.near_share, out: args.out }
    }
}
