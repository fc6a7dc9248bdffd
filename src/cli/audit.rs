//! `trainer audit`: a language model finds out what an organism was finetuned on.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::endpoint::EndpointArgs;
use crate::audit::Record;
use crate::grade::hypothesis::Family;
use crate::interrupt::Interrupt;
use crate::workflow::{self, AuditRequest, GraderRequest};

/// Let a language model find out what an organism was finetuned on, and grade what it finds
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer audit runs/cake --base-url https://openrouter.ai/api/v1 --model openai/gpt-5 --key-env OPENROUTER_API_KEY \\
    --family sdf --grader-model openai/gpt-5-mini --repeats 5
  trainer audit runs/cake --base-url http://localhost:8000/v1 --model qwen3-32b --black-box --interactions 50

The investigator reads what `trainer diff` stored and may ask both models; it is told neither name nor description
nor data of the organism. With --black-box it sees no activations: the baseline. Writes audit/CONDITION-SEED.json and
every exchange to audit/exchanges.jsonl; finished audits are skipped, and the same command goes on where it stopped.")]
pub struct AuditArgs {
    /// Run folder with an analysis
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Show no activations: only what the tuned model writes, and ask_model
    #[arg(long)]
    black_box: bool,
    /// Prompts to the models and steered samples, together (the paper: 0 and 5; black box 0, 5 and 50)
    #[arg(long, value_name = "N", default_value_t = 5)]
    interactions: usize,
    /// Most answers of the investigator
    #[arg(long, value_name = "N", default_value_t = 16)]
    turns: usize,
    /// Most tokens of them together
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    completion_tokens: u64,
    /// Most tokens of an answer of the models
    #[arg(long, value_name = "N", default_value_t = 256)]
    answer_tokens: usize,
    /// Tokens of each list that the investigator sees at first
    #[arg(long, value_name = "N", default_value_t = 20)]
    overview_tokens: usize,
    /// Characters of each text that it sees at first
    #[arg(long, value_name = "N", default_value_t = 200)]
    overview_characters: usize,
    /// Seed of the first audit [default: that of the recipe]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Audits, one seed each
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeats: u64,
    /// Levels by which the hypothesis is graded
    #[arg(long, value_enum)]
    family: Option<Family>,
    /// Model that grades the hypothesis
    #[arg(long, value_name = "NAME", requires = "family")]
    grader_model: Option<String>,
    /// Its server [default: that of the investigator]
    #[arg(long, value_name = "URL", requires = "family")]
    grader_base_url: Option<String>,
    /// Environment variable that holds its key [default: that of the investigator]
    #[arg(long, value_name = "VARIABLE", requires = "family")]
    grader_key_env: Option<String>,
    /// Gradings of each hypothesis; their mean counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    gradings: u32,
    /// Folder for the results [default: RUN_DIR/audit]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the audits as one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::audit`].
pub fn run(args: AuditArgs) -> Result<()> {
    let request = AuditRequest {
        run: args.run,
        endpoint: args.endpoint.into(),
        black_box: args.black_box,
        interactions: args.interactions,
        turns: args.turns,
        completion_tokens: args.completion_tokens,
        answer_tokens: args.answer_tokens,
        overview_tokens: args.overview_tokens,
        overview_characters: args.overview_characters,
        seed: args.seed,
        repeats: args.repeats,
        family: args.family,
        grader: GraderRequest {
            model: args.grader_model,
            base_url: args.grader_base_url,
            key_env: args.grader_key_env,
        },
        gradings: args.gradings,
        out: args.out,
    };
    shown(&workflow::audit(&request, &Interrupt::on_signals()?)?, args.json)
}

fn shown(records: &[Record], json: bool) -> Result<()> {
    if json {
        return super::print(&serde_json::to_string_pretty(&serde_json::json!({ "audits": records }))?);
    }
    for record in records {
        let (plan, used) = (&record.plan, &record.investigation.used);
        let grade = match record.grade.as_ref().map(|g| &g.grades) {
            Some(Some(grades)) => format!(", grade {:.2} of 5 {:?}", grades.mean, grades.each),
            Some(None) => ", no grade could be read".into(),
            None => String::new(),
        };
        let hypothesis = record.investigation.hypothesis.as_deref().unwrap_or("(no hypothesis)");
        super::print(&format!(
            "{}, seed {}: {} turns, {} of {} interactions{grade}\n  {hypothesis}\n",
            plan.condition, plan.seed, used.turns, used.interactions, plan.budgets.interactions
        ))?;
    }
    Ok(())
}
