//! `trainer grade`: a language model judges what an analysis decoded.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::endpoint::EndpointArgs;
use crate::grade::record::Graded;
use crate::interrupt::Interrupt;
use crate::workflow::{self, EndpointRequest, GradeRequest};

/// Let a language model grade the tokens and texts of an analysis, as in the paper
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer grade runs/cake --base-url https://openrouter.ai/api/v1 --model openai/gpt-5-mini --key-env OPENROUTER_API_KEY
  trainer grade runs/cake --base-url http://localhost:8000/v1 --model qwen3-8b --against recipes/beekeeping.toml
  trainer grade diffs/theirs --recipe recipes/sdf-cake.toml --model gpt-5-mini --base-url https://api.openai.com/v1

Writes graded.json and exchanges.jsonl (every question with its answer) to the folder of readability.json, which stays
unchanged. Rerun the command to resume; no question is asked twice. To ask again, remove exchanges.jsonl. The server
sees the description, frequent tokens of the narrow data, decoded tokens and steered text.")]
pub struct GradeArgs {
    /// Run folder, or a folder that `trainer diff --out` wrote
    #[arg(value_name = "RUN_OR_DIFF_DIR")]
    dir: PathBuf,
    /// Recipe with description, narrow data and [grader] [default: that of the run folder]
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Number of parallel requests [default: 4]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,
    /// Also grade the tokens of the difference for another organism, as a null; repeatable
    #[arg(long, value_name = "NAME=DESCRIPTION|RECIPE")]
    against: Vec<String>,
    /// Count a token as relevant if two of the three gradings agree, instead of all three
    #[arg(long)]
    majority: bool,
    /// Print graded.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::grade`]; after all was written, that no answer at all could be used.
pub fn run(args: GradeArgs) -> Result<()> {
    let request = GradeRequest {
        dir: args.dir,
        recipe: args.recipe,
        endpoint: EndpointRequest { parallel: args.parallel, ..args.endpoint.into() },
        against: args.against,
        majority: args.majority,
    };
    let outcome = workflow::grade(&request, &Interrupt::on_signals()?)?;
    match args.json {
        true => super::print(&serde_json::to_string_pretty(&outcome.graded)?)?,
        false => super::print(table(&outcome.graded).trim_end())?,
    }
    outcome.must_have_grades()
}

/// Shares of relevant tokens, a line a series.
fn table(graded: &Graded) -> String {
    let mut out = String::new();
    let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.2}"));
    let mut line = |name: &str, values: &[Option<f64>], max: Option<f64>, mean: Option<f64>| {
        let cells: String = values.iter().map(|v| format!("{:>7}", number(*v))).collect();
        let _ = writeln!(out, "{name:<44}{cells}{:>8}{:>8}", number(max), number(mean));
    };
    for (source, variants) in &graded.token_relevance {
        for (variant, series) in variants {
            line(&format!("{source}, {variant}"), &series.share, series.max, series.mean);
        }
    }
    for (name, other) in &graded.against {
        for (source, series) in &other.token_relevance {
            line(&format!("{source}, against {name}"), &series.share, series.max, series.mean);
        }
    }
    let header: String = graded.positions.iter().map(|p| format!("{p:>7}")).collect();
    let mut text =
        format!("{:<44}{header}{:>8}{:>8}\n{out}", "relevant tokens (share), by position", "max", "mean");
    if let Some(agreement) = graded.agreement {
        let (unanimous, alpha) = (agreement.unanimous, number(agreement.alpha));
        let _ = writeln!(
            text,
            "agreement of three gradings: {unanimous:.2} unanimous, Krippendorff's alpha {alpha}"
        );
    }
    if let Some(steering) = &graded.steering {
        for ((position, strength), share) in
            steering.positions.iter().zip(&steering.strength).zip(&steering.coherent_share)
        {
            let _ = writeln!(
                text,
                "steered at position {position}, strength {strength:.2}: {} coherent",
                number(*share)
            );
        }
        let _ = writeln!(text, "unsteered: {} coherent", number(steering.coherent_share_unsteered));
    }
    if !graded.ungraded.is_empty() {
        let _ = writeln!(text, "without a grade: {}", graded.ungraded.len());
    }
    text
}
