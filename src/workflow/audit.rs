//! A language model finds out what an organism was finetuned on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use super::endpoint::{EndpointRequest, SettingsOrigin, announce};
use super::of_run::must_be_trained;
use super::pair::Pair;
use crate::atomic::{check_writable, write_json};
use crate::audit::investigator::Budgets;
use crate::audit::overview::Overview;
use crate::audit::tools::{AuditedModels, Tools};
use crate::audit::{AuditPlan, Grading, Record};
use crate::bail_input;
use crate::diff::store::StoredAnalysis;
use crate::error::{InputError, or_collect};
use crate::grade::endpoint::{Endpoint, must_serve};
use crate::grade::exchanges::Exchanges;
use crate::grade::hypothesis::Family;
use crate::grade::record::Grader;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::{EndpointSection, Recipe};
use crate::run::RunDir;

/// Which run to have investigated, by whom, and within what.
#[derive(Debug, Clone)]
pub struct AuditRequest {
    /// Run folder with an analysis.
    pub run: PathBuf,
    /// The investigator, over `[investigator]`.
    pub endpoint: EndpointRequest,
    /// Whether no activations are shown.
    pub black_box: bool,
    /// Prompts to the models and steered samples, together.
    pub interactions: usize,
    /// Most answers of the investigator.
    pub turns: usize,
    /// Most tokens of them together.
    pub completion_tokens: u64,
    /// Most tokens of an answer of the models.
    pub answer_tokens: usize,
    /// Tokens of each list that the investigator sees at first.
    pub overview_tokens: usize,
    /// Characters of each text that it sees at first.
    pub overview_characters: usize,
    /// Seed of the first audit; `None`: that of the recipe.
    pub seed: Option<u64>,
    /// Number of audits, one seed each.
    pub repeats: u64,
    /// Levels by which the hypothesis is graded; `None`: it is not.
    pub family: Option<Family>,
    /// Who grades.
    pub grader: GraderRequest,
    /// Gradings of each hypothesis.
    pub gradings: u32,
    /// Folder for the results; `None`: `audit/` of the run folder.
    pub out: Option<PathBuf>,
}

/// The grader, over `[grader]`; what neither names is the investigator's.
#[derive(Debug, Clone, Default)]
pub struct GraderRequest {
    /// The model.
    pub model: Option<String>,
    /// Its server.
    pub base_url: Option<String>,
    /// Environment variable that holds its key.
    pub key_env: Option<String>,
}

/// Has an organism investigated, once for each seed, and the hypotheses graded. Finished audits are skipped.
///
/// # Errors
/// An input error for a folder without a finished run and analysis, or endpoints that are not named; otherwise what
/// an endpoint could not answer, or what fails in the models.
pub fn audit(request: &AuditRequest, interrupt: &Interrupt) -> Result<Vec<Record>> {
    let run = RunDir::new(&request.run);
    must_be_trained(&run)?;
    run.must_hold_no_links()?;
    let mut faults = out_of_range(request);
    let recipe = or_collect(Recipe::stored(&run.recipe()), &mut faults)?;
    let stored = or_collect(StoredAnalysis::read(&request.run), &mut faults)?;
    let settings = recipe.as_ref().map(|recipe| request.endpoint.over(&recipe.investigator));
    let mut grading = None;
    if let (Some(recipe), Some(settings)) = (&recipe, &settings) {
        let file = run.recipe();
        let named = request.endpoint.must_name(&file, "investigator", true, &recipe.investigator);
        or_collect(named, &mut faults)?;
        or_collect(must_serve(settings, "investigator"), &mut faults)?;
        if let Some(family) = request.family {
            grading = or_collect(grader(request, recipe, &file, settings), &mut faults)?
                .map(|grader| (family, grader));
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
    let out = request.out.clone().unwrap_or_else(|| run.audit());
    check_writable(&out.join("exchanges.jsonl"))?;
    let exchanges = Arc::new(Exchanges::open(&out.join("exchanges.jsonl"))?);
    let endpoint = Endpoint::open(&settings, "investigator", exchanges.clone(), recipe.seed, interrupt)?;
    let grader = grading
        .map(|(family, settings)| {
            Ok::<_, anyhow::Error>((
                family,
                Endpoint::open(&settings, "grader", exchanges, recipe.seed, interrupt)?,
            ))
        })
        .transpose()?;
    announce(&settings);
    if let Some((_, grader)) = &grader {
        announce(grader.settings());
    }
    let first = request.seed.unwrap_or(recipe.seed);
    let plans: Vec<AuditPlan> =
        (0..request.repeats).map(|i| plan(request, &endpoint, first.saturating_add(i))).collect();
    let finished =
        plans.iter().map(|plan| Record::read(&out.join(plan.file()), plan)).collect::<Result<Vec<_>>>()?;

    // Without interactions the models have nothing to do.
    let is_idle = request.interactions == 0 || finished.iter().all(Option::is_some);
    let pair = match is_idle {
        true => None,
        false => Some(Pair::load(&recipe, &run.tuned().0.to_string_lossy(), interrupt)?),
    };
    let models =
        pair.as_ref().map(|p| AuditedModels { pretrained: &p.pretrained, base: p.base(), tuned: p.tuned() });
    let grading = grader.as_ref().map(|(family, endpoint)| Grading {
        endpoint,
        family: *family,
        description: &recipe.description,
        times: request.gradings,
    });
    let tools = |seed: u64| Tools {
        stored: &stored,
        differences: &differences,
        models,
        steering: &recipe.diff.steering,
        black_box: request.black_box,
        answer_tokens: request.answer_tokens,
        seed,
        interrupt,
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
    records
}

/// What is wrong with the numbers of the flags.
fn out_of_range(request: &AuditRequest) -> Vec<String> {
    let mut faults = Vec::new();
    for (flag, value, most) in [
        ("--turns", request.turns as u64, 10_000),
        ("--repeats", request.repeats, 10_000),
        ("--answer-tokens", request.answer_tokens as u64, 1_000_000),
        ("--gradings", u64::from(request.gradings), 100),
    ] {
        if !(1..=most).contains(&value) {
            faults.push(format!("{flag} {value}: expected 1 to {most}"));
        }
    }
    if let Some(seed) = request.seed.filter(|seed| *seed > 1_000_000_000) {
        faults.push(format!("--seed {seed}: expected 0 to 1000000000"));
    }
    faults
}

/// The grader: `[grader]` of the recipe, then the flags; what neither names is the investigator's.
fn grader(
    request: &AuditRequest,
    recipe: &Recipe,
    file: &Path,
    investigator: &EndpointSection,
) -> Result<EndpointSection> {
    let flags = ["--grader-base-url", "--grader-key-env"];
    let origin = SettingsOrigin { file, section: "grader", stored: true, flags };
    let named = [request.grader.base_url.is_some(), request.grader.key_env.is_some()];
    origin.must_be_named(&recipe.grader, named, request.endpoint.stored_endpoint)?;
    let mut settings = recipe.grader.clone();
    if let Some(model) = &request.grader.model {
        settings.model = model.clone();
    }
    if settings.model.is_empty() {
        bail_input!(
            "--family: expected --grader-model too, or [grader] in the recipe: grading needs a model"
        );
    }
    match (&request.grader.base_url, settings.base_url.is_empty()) {
        (Some(url), _) => settings.base_url = url.clone(),
        (None, true) => {
            settings.base_url = investigator.base_url.clone();
            settings.key_env = investigator.key_env.clone();
        }
        (None, false) => {}
    }
    if let Some(key_env) = &request.grader.key_env {
        settings.key_env = key_env.clone();
    }
    must_serve(&settings, "grader")?;
    Ok(settings)
}

fn plan(request: &AuditRequest, endpoint: &Endpoint, seed: u64) -> AuditPlan {
    AuditPlan {
        condition: AuditPlan::condition(request.black_box, request.interactions),
        seed,
        investigator: Grader::of(endpoint),
        budgets: Budgets {
            interactions: request.interactions,
            turns: request.turns,
            completion_tokens: request.completion_tokens,
            answer_tokens: request.answer_tokens,
        },
        overview: Overview { tokens: request.overview_tokens, characters: request.overview_characters },
    }
}
