//! `trainer grade`: a language model judges what an analysis decoded.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;

use super::datasets;
use super::endpoint::EndpointArgs;
use crate::atomic::{check_writable, write_json};
use crate::bail_input;
use crate::corpus::documents;
use crate::data::source::Document;
use crate::diff::store::StoredAnalysis;
use crate::grade::endpoint::{Endpoint, must_serve};
use crate::grade::exchanges::Exchanges;
use crate::grade::frequent::frequent_tokens;
use crate::grade::record::Graded;
use crate::grade::relevance::{Rule, Subject};
use crate::grade::{Inputs, grade};
use crate::interrupt::Interrupt;
use crate::model::load::source;
use crate::progress;
use crate::recipe::Recipe;

/// Let a language model judge what an analysis decoded, as the paper does
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trainer grade runs/cake --base-url https://openrouter.ai/api/v1 --model openai/gpt-5-mini --key-env OPENROUTER_API_KEY
  trainer grade runs/cake --base-url http://localhost:8000/v1 --model qwen3-8b --against recipes/beekeeping.toml
  trainer grade diffs/theirs --recipe recipes/sdf-cake.toml --model gpt-5-mini --base-url https://api.openai.com/v1

Writes graded.json beside readability.json, which stays as it is, and every question with its answer to
exchanges.jsonl there. The same command again asks nothing twice; remove exchanges.jsonl to ask anew. The server
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
    /// Questions on the way at the same time [default: 4]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,
    /// Judge the difference's tokens for another organism as well, as a null; may be given several times
    #[arg(long, value_name = "NAME=DESCRIPTION|RECIPE")]
    against: Vec<String>,
    /// A token is relevant if two of the three gradings say so, not all
    #[arg(long)]
    majority: bool,
    /// Print graded.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// An input error for a folder without analysis, a recipe without description, or an endpoint that is not named;
/// otherwise what the endpoint could not answer, or, after all was written, that no answer at all could be used.
pub fn run(args: GradeArgs) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    let stored = StoredAnalysis::read(&args.dir)?;
    let recipe = recipe(&args)?;
    let mut settings = args.endpoint.over(&recipe.grader);
    settings.parallel = args.parallel.unwrap_or(settings.parallel);
    must_serve(&settings, "grader")?;
    let subject = subject(&recipe, &interrupt)?;
    if subject.description.trim().is_empty() {
        bail_input!(
            "description: missing in the recipe; expected what the organism was finetuned on, in words"
        );
    }
    let against = against(&args.against, &interrupt)?;
    check_writable(&stored.dir.join("graded.json"))?;
    let exchanges = Arc::new(Exchanges::open(&stored.dir.join("exchanges.jsonl"))?);
    let endpoint = Endpoint::open(&settings, "grader", exchanges, recipe.seed, &interrupt)?;
    let rule = if args.majority { Rule::Majority } else { Rule::All };
    let result = grade(&Inputs { stored: &stored, subject, against, rule }, &endpoint);
    progress::say(endpoint.summary());
    let graded = result?;
    write_json(&stored.dir.join("graded.json"), &graded)?;
    for what in &graded.ungraded {
        progress::say(format_args!("not graded: {what}"));
    }
    match args.json {
        true => super::print(&serde_json::to_string_pretty(&graded)?)?,
        false => super::print(table(&graded).trim_end())?,
    }
    if !graded.has_grades() {
        bail!(
            "no answer of the grader could be used: {} holds no grade; see {} for what was asked and answered",
            stored.dir.join("graded.json").display(),
            stored.dir.join("exchanges.jsonl").display()
        );
    }
    Ok(())
}

/// The recipe that is named, or that of the run folder; the files of a run's data may be elsewhere by now.
fn recipe(args: &GradeArgs) -> Result<Recipe> {
    let own = args.dir.join("recipe.toml");
    match &args.recipe {
        Some(path) => Recipe::read(path, &[]),
        None if own.exists() => Recipe::stored(&own),
        None => bail_input!(
            "{}: has no recipe.toml; name the recipe that holds the organism's description: --recipe RECIPE",
            args.dir.display()
        ),
    }
}

/// What a grader is told: the description, and what is frequent in the narrow data under the base's tokenizer.
fn subject(recipe: &Recipe, interrupt: &Interrupt) -> Result<Subject> {
    let mut narrow = recipe.data.narrow.clone();
    datasets::ensure_side(&mut narrow, interrupt)?;
    let narrow: Vec<String> = documents(&narrow)?.iter().map(|(_, _, d)| Document::full_text(d)).collect();
    let frequent = match narrow.is_empty() {
        true => Vec::new(),
        false => frequent_tokens(&narrow, &source::open_or_stop(&recipe.model.base, interrupt)?.tokenizer)?,
    };
    Ok(Subject { description: recipe.description.clone(), frequent })
}

/// Other organisms: a recipe, or a name with a description.
fn against(given: &[String], interrupt: &Interrupt) -> Result<BTreeMap<String, Subject>> {
    let mut all = BTreeMap::new();
    for one in given {
        let (name, subject) = match one.split_once('=') {
            _ if Path::new(one).is_file() => {
                let recipe = Recipe::read(Path::new(one), &[])?;
                let name = if recipe.name.is_empty() { one.clone() } else { recipe.name.clone() };
                (name, subject(&recipe, interrupt)?)
            }
            Some((name, description)) => {
                (name.trim().to_string(), Subject { description: description.into(), frequent: Vec::new() })
            }
            None => bail_input!("--against {one}: expected NAME=DESCRIPTION, or the file of a recipe"),
        };
        if name.is_empty() || subject.description.trim().is_empty() {
            bail_input!("--against {one}: expected a name and a description");
        }
        if all.insert(name.clone(), subject).is_some() {
            bail_input!("--against {one}: {name} is given twice");
        }
    }
    Ok(all)
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
