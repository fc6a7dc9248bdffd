//! `trainer audit`: a language model finds out what an organism was finetuned on.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArg;
use super::endpoint::EndpointArgs;
use crate::audit::Record;
use crate::grade::hypothesis::Family;
use crate::interrupt::Interrupt;
use crate::workflow::{self, AuditRequest, GraderRequest};

/// Let a language model find out what an organism was finetuned on, and grade its hypothesis
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer audit runs/cake --base-url https://openrouter.ai/api/v1 --model openai/gpt-5 --key-env OPENROUTER_API_KEY \\
    --family sdf --grader-model openai/gpt-5-mini --repeats 5
  trainer audit runs/cake --base-url http://localhost:8000/v1 --model qwen3-32b --black-box --interactions 50

The investigator reads the results of `trainer diff` and may query both models. It does not see the name, description
or data of the organism. With --black-box it sees no activations either; this is the baseline. Each audit is written to
audit/CONDITION-SEED.json and every exchange to audit/exchanges.jsonl. Rerun the command to resume; finished audits are
skipped.")]
pub struct AuditArgs {
    /// Run folder with an analysis
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Show no activations: the investigator sees text of the tuned model and may use ask_model
    #[arg(long)]
    black_box: bool,
    /// Budget of prompts to the models and steered samples, counted together (paper: 0 and 5; black box: 0, 5 and 50)
    #[arg(long, value_name = "N", default_value_t = 5)]
    interactions: usize,
    /// Maximum answers of the investigator
    #[arg(long, value_name = "N", default_value_t = 16)]
    turns: usize,
    /// Maximum tokens of all answers of the investigator together
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    completion_tokens: u64,
    /// Maximum tokens per answer of the audited models
    #[arg(long, value_name = "N", default_value_t = 256)]
    answer_tokens: usize,
    /// Tokens of each list that the first message shows
    #[arg(long, value_name = "N", default_value_t = 20)]
    overview_tokens: usize,
    /// Characters of each text that the first message shows
    #[arg(long, value_name = "N", default_value_t = 200)]
    overview_characters: usize,
    /// Seed of the first audit [default: that of the recipe]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Number of audits, one seed each
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeats: u64,
    /// Scale of levels on which the hypothesis is graded
    #[arg(long, value_enum)]
    family: Option<Family>,
    /// Model that grades the hypothesis
    #[arg(long, value_name = "NAME", requires = "family")]
    grader_model: Option<String>,
    /// Server of the grader [default: that of the investigator]
    #[arg(long, value_name = "URL", requires = "family")]
    grader_base_url: Option<String>,
    /// Environment variable that holds the grader's key [default: that of the investigator]
    #[arg(long, value_name = "VARIABLE", requires = "family")]
    grader_key_env: Option<String>,
    /// Gradings per hypothesis; their mean is the grade
    #[arg(long, value_name = "N", default_value_t = 3)]
    gradings: u32,
    /// Folder for the results [default: RUN_DIR/audit]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Print the audits as one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::audit`].
pub fn run(args: AuditArgs) -> Result<()> {
    args.device.open()?;
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
