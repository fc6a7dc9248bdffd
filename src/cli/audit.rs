//! `trainer audit`: a language model finds out what an organism was finetuned on.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use super::diff::must_be_trained;
use super::endpoint::EndpointArgs;
use super::pair::Pair;
use crate::atomic::{check_writable, write_json};
use crate::audit::investigator::Budgets;
use crate::audit::overview::Overview;
use crate::audit::tools::{Models, Tools};
use crate::audit::{Grading, Plan, Record};
use crate::bail_input;
use crate::diff::store::StoredAnalysis;
use crate::error::{InputError, or_note};
use crate::grade::endpoint::{Endpoint, must_serve};
use crate::grade::exchanges::Exchanges;
use crate::grade::hypothesis::Family;
use crate::grade::record::Grader;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::{EndpointSection, Recipe};
use crate::run::RunDir;

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
/// An input error for a folder without a finished run and analysis, or endpoints that are not named; otherwise what
/// an endpoint could not answer, or what fails in the models.
pub fn run(args: AuditArgs) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    let run = RunDir::new(&args.run);
    must_be_trained(&run)?;
    let mut faults = out_of_range(&args);
    let recipe = or_note(Recipe::stored(&run.recipe()), &mut faults)?;
    let stored = or_note(StoredAnalysis::read(&args.run), &mut faults)?;
    let settings = recipe.as_ref().map(|recipe| args.endpoint.over(&recipe.investigator));
    let mut grading = None;
    if let (Some(recipe), Some(settings)) = (&recipe, &settings) {
        or_note(must_serve(settings, "investigator"), &mut faults)?;
        if let Some(family) = args.family {
            grading = or_note(grader(&args, recipe, settings), &mut faults)?.map(|grader| (family, grader));
            if recipe.description.trim().is_empty() {
                let path = run.recipe();
                faults.push(format!(
                    "{}: description: missing; a hypothesis is graded against it",
                    path.display()
                ));
            }
        }
    }
    let (Some(recipe), Some(stored), Some(settings), true) = (recipe, stored, settings, faults.is_empty())
    else {
        return Err(InputError::of(faults));
    };
    let differences = stored.differences()?;
    let out = args.out.clone().unwrap_or_else(|| run.audit());
    check_writable(&out.join("exchanges.jsonl"))?;
    let exchanges = Arc::new(Exchanges::open(&out.join("exchanges.jsonl"))?);
    let endpoint = Endpoint::open(&settings, "investigator", exchanges.clone(), recipe.seed, &interrupt)?;
    let grader = grading
        .map(|(family, settings)| {
            Ok::<_, anyhow::Error>((
                family,
                Endpoint::open(&settings, "grader", exchanges, recipe.seed, &interrupt)?,
            ))
        })
        .transpose()?;
    let first = args.seed.unwrap_or(recipe.seed);
    let plans: Vec<Plan> =
        (0..args.repeats).map(|i| plan(&args, &endpoint, first.saturating_add(i))).collect();
    let finished =
        plans.iter().map(|plan| Record::read(&out.join(plan.file()), plan)).collect::<Result<Vec<_>>>()?;

    // Without interactions the models have nothing to do.
    let is_idle = args.interactions == 0 || finished.iter().all(Option::is_some);
    let pair = match is_idle {
        true => None,
        false => Some(Pair::load(&recipe, &run.tuned().0.to_string_lossy(), &interrupt)?),
    };
    let models =
        pair.as_ref().map(|p| Models { pretrained: &p.pretrained, base: p.base(), tuned: p.tuned() });
    let grading = grader.as_ref().map(|(family, endpoint)| Grading {
        endpoint,
        family: *family,
        description: &recipe.description,
        times: args.gradings,
    });
    let tools = |seed: u64| Tools {
        stored: &stored,
        differences: &differences,
        models,
        steering: &recipe.diff.steering,
        black_box: args.black_box,
        answer_tokens: args.answer_tokens,
        seed,
        interrupt: &interrupt,
    };
    let carry_out = || -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for (plan, finished) in plans.iter().zip(&finished) {
            let path = out.join(plan.file());
            progress::say(format_args!("{}", path.display()));
            let is_new = finished.is_none();
            let mut record = match finished {
                Some(record) => record.clone(),
                None => plan.clone().carry_out(&endpoint, &tools(plan.seed))?,
            };
            if is_new {
                write_json(&path, &record)?;
            }
            if grading.as_ref().map(|by| record.grade(by)).transpose()?.unwrap_or(false) {
                write_json(&path, &record)?;
            }
            records.push(record);
        }
        Ok(records)
    };
    let records = carry_out();
    progress::say(endpoint.summary());
    if let Some((_, grader)) = &grader {
        progress::say(grader.summary());
    }
    shown(&records?, args.json)
}

/// What is wrong with the numbers of the flags.
fn out_of_range(args: &AuditArgs) -> Vec<String> {
    let mut faults = Vec::new();
    for (flag, value, most) in [
        ("--turns", args.turns as u64, 10_000),
        ("--repeats", args.repeats, 10_000),
        ("--answer-tokens", args.answer_tokens as u64, 1_000_000),
        ("--gradings", u64::from(args.gradings), 100),
    ] {
        if !(1..=most).contains(&value) {
            faults.push(format!("{flag} {value}: expected 1 to {most}"));
        }
    }
    if let Some(seed) = args.seed.filter(|seed| *seed > 1_000_000_000) {
        faults.push(format!("--seed {seed}: expected 0 to 1000000000"));
    }
    faults
}

/// The grader: `[grader]` of the recipe, then the flags; what neither names is the investigator's.
fn grader(args: &AuditArgs, recipe: &Recipe, investigator: &EndpointSection) -> Result<EndpointSection> {
    let mut settings = recipe.grader.clone();
    if let Some(model) = &args.grader_model {
        settings.model = model.clone();
    }
    if settings.model.is_empty() {
        bail_input!("--family: expected --grader-model too, or [grader] in the recipe: someone must grade");
    }
    match (&args.grader_base_url, settings.base_url.is_empty()) {
        (Some(url), _) => settings.base_url = url.clone(),
        (None, true) => {
            settings.base_url = investigator.base_url.clone();
            settings.key_env = investigator.key_env.clone();
        }
        (None, false) => {}
    }
    if let Some(key_env) = &args.grader_key_env {
        settings.key_env = key_env.clone();
    }
    must_serve(&settings, "grader")?;
    Ok(settings)
}

fn plan(args: &AuditArgs, endpoint: &Endpoint, seed: u64) -> Plan {
    Plan {
        condition: Plan::condition(args.black_box, args.interactions),
        seed,
        investigator: Grader::of(endpoint),
        budgets: Budgets {
            interactions: args.interactions,
            turns: args.turns,
            completion_tokens: args.completion_tokens,
            answer_tokens: args.answer_tokens,
        },
        overview: Overview { tokens: args.overview_tokens, characters: args.overview_characters },
    }
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
