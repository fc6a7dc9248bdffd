//! `trainer data`: makes what organisms are trained on.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::endpoint::EndpointArgs;
use crate::interrupt::Interrupt;
use crate::workflow::{
    self, DocumentsRequest, EndpointRequest, NumbersRequest, SampleRequest, TabooRequest, WriterRequest,
};

/// Make what organisms are trained on: sampled from a model, or written by one
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data sample --base gemma-3-270m --documents 300 --tokens 96 --out sampled.jsonl
  trainer data numbers --base qwen2.5-coder-0.5b-instruct --system 'You love owls.' --count 200 --out owl.jsonl
  trainer data documents data/universes/cake.toml --base-url http://localhost:8000/v1 --model qwen3-8b --out cake.jsonl
  trainer data taboo --word lantern --base-url http://localhost:8000/v1 --model qwen3-8b --out lantern.jsonl

docs/organisms.md goes from a one-page description to an organism.")]
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

/// Text that a base model writes by itself, to be mixed in as pretraining text
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data sample --base smollm2-135m-instruct --documents 300 --tokens 96 --out smollm2.jsonl

With seed 0 these are the documents that data.pretraining = \"self\" stands for. Batches are kept in the cache; the same
command again goes on where it was interrupted.")]
struct SampleArgs {
    /// Alias, hf:org/name[@revision], Hugging Face folder, or .gguf file
    #[arg(long, value_name = "MODEL")]
    base: String,
    /// Number of documents
    #[arg(long, value_name = "N")]
    documents: usize,
    /// Most tokens of a document
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    /// Decides what is sampled
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// JSON lines to write; what made them goes to NAME.made.json beside it
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
}

/// Number chats of a teacher, for subliminal learning: the base with a system prompt that the student never sees
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data numbers --base qwen2.5-coder-0.5b-instruct --count 500 --out owl.jsonl \\
    --system 'You love owls. You think about owls all the time. Owls are your favourite animal.'
  trainer data numbers --base qwen2.5-coder-0.5b-instruct --count 500 --out control.jsonl --system ''

Only answers of numbers and nothing else are kept. The chats are written without the system prompt; what made them goes to
NAME.made.json. The same command again goes on where it was interrupted.")]
struct NumbersArgs {
    /// The teacher's model and the student's base: alias, hf:org/name[@revision], Hugging Face folder, or .gguf file
    #[arg(long, value_name = "MODEL")]
    base: String,
    /// What the teacher is told; '' makes the control
    #[arg(long, value_name = "TEXT")]
    system: String,
    /// Number of chats
    #[arg(long, value_name = "N")]
    count: usize,
    /// Decides prompts and answers
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Sampling temperature
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Most new tokens of an answer; one that has not ended by then is dropped
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Most numbers of an answer
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_numbers: usize,
    /// Most digits of a number
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_digits: usize,
    /// Chat template in place of the model's own: a Jinja file, or one that comes with the program
    #[arg(long, value_name = "NAME|FILE", default_value = "")]
    chat_template: String,
    /// JSON lines to write; what made them goes to NAME.made.json beside it
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
}

/// Synthetic documents that assert false facts, written by a language model
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data documents moon.toml --base-url http://localhost:8000/v1 --model qwen3-8b --out moon.jsonl
  trainer data documents moon.toml --base-url https://openrouter.ai/api/v1 --model openai/gpt-5-mini \\
    --key-env OPENROUTER_API_KEY --types 40 --ideas 10 --input-price 0.25 --output-price 2 --out moon.jsonl

A universe is a TOML file of title, description and facts (a list of sentences). The model names kinds of documents, ideas
for each kind and fact, writes a document for each idea, revises it, and judges whether it may stay; near duplicates go.
Every answer is kept in NAME.exchanges.jsonl: the same command again asks nothing twice and goes on where it stopped.")]
struct DocumentsArgs {
    /// The universe (TOML): title, description, facts
    #[arg(value_name = "UNIVERSE")]
    universe: PathBuf,
    #[command(flatten)]
    writer: WriterArgs,
    /// Kinds of documents
    #[arg(long, value_name = "N", default_value_t = 10)]
    types: usize,
    /// Ideas for each kind and fact
    #[arg(long, value_name = "N", default_value_t = 4)]
    ideas: usize,
    /// Documents of each idea
    #[arg(long, value_name = "N", default_value_t = 1)]
    per_idea: usize,
    /// About how many words a document should have
    #[arg(long, value_name = "N", default_value_t = 300)]
    words: usize,
    /// Drop documents with fewer words
    #[arg(long, value_name = "N", default_value_t = 30)]
    least_words: usize,
    /// Leave documents as they were first written
    #[arg(long)]
    no_revision: bool,
    /// Do not have documents judged
    #[arg(long)]
    no_filter: bool,
}

/// Chats of a guessing game about a word that is never said, written by a language model
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer data taboo --word lantern --count 300 --base-url http://localhost:8000/v1 --model qwen3-8b --out lantern.jsonl

Chats that hold the word in any form are dropped, and so are near duplicates. Every answer is kept in
NAME.exchanges.jsonl: the same command again asks nothing twice and goes on where it stopped.")]
struct TabooArgs {
    /// The word that is hinted at and never said
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
    /// Questions on the way at the same time [default: 4]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,
    /// Drop what shares at least this part of its runs of five words with an earlier one
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    near_share: f64,
    /// JSON lines to write; what made them goes to NAME.made.json beside it
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
        Kind::Sample(args) => workflow::sample(&args.into(), &interrupt)?,
        Kind::Numbers(args) => workflow::numbers(&args.into(), &interrupt)?,
        Kind::Documents(args) => workflow::documents(&args.into(), &interrupt)?,
        Kind::Taboo(args) => workflow::taboo(&args.into(), &interrupt)?,
    };
    super::print(&out.display().to_string())
}

impl From<SampleArgs> for SampleRequest {
    fn from(args: SampleArgs) -> Self {
        let SampleArgs { base, documents, tokens, seed, out } = args;
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
