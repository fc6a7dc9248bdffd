//! A language model judges what an analysis decoded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};

use super::endpoint::{EndpointRequest, announce, is_of_run};
use super::resolve::locate;
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
use crate::grade::{self, GradeInputs};
use crate::interrupt::Interrupt;
use crate::model::load::source;
use crate::progress;
use crate::recipe::Recipe;
use crate::run::RunDir;

/// What to have judged, and by whom.
#[derive(Debug, Clone, Default)]
pub struct GradeRequest {
    /// Run folder, or a folder that holds an analysis.
    pub dir: PathBuf,
    /// Recipe with description, narrow data and `[grader]`; `None`: that of the run folder.
    pub recipe: Option<PathBuf>,
    /// The grader, over `[grader]`.
    pub endpoint: EndpointRequest,
    /// Other organisms for which the difference's tokens are judged too: `NAME=DESCRIPTION`, or the file of a recipe.
    pub against: Vec<String>,
    /// Whether two of the three gradings suffice.
    pub majority: bool,
}

/// What was judged.
#[derive(Debug, Clone)]
pub struct GradeOutcome {
    /// What `graded.json` holds.
    pub graded: Graded,
    /// The folder that holds it.
    pub dir: PathBuf,
}

impl GradeOutcome {
    /// Refuses a record without a single grade.
    ///
    /// # Errors
    /// If no answer could be used.
    pub fn must_have_grades(&self) -> Result<()> {
        if !self.graded.has_grades() {
            bail!(
                "no answer of the grader could be used: {} holds no grade; see {} for the questions and answers",
                self.dir.join("graded.json").display(),
                self.dir.join("exchanges.jsonl").display()
            );
        }
        Ok(())
    }
}

/// Has an analysis judged, and writes `graded.json` beside it.
///
/// # Errors
/// An input error for a folder without analysis, a recipe without description, or an endpoint that is not named;
/// otherwise what the endpoint could not answer.
pub fn grade(request: &GradeRequest, interrupt: &Interrupt) -> Result<GradeOutcome> {
    RunDir::new(&request.dir).must_hold_no_links()?;
    let stored = StoredAnalysis::read(&request.dir)?;
    let recipe = recipe(request)?;
    let file = request.recipe.clone().unwrap_or_else(|| request.dir.join("recipe.toml"));
    let is_stored = request.recipe.is_none() || is_of_run(&file);
    request.endpoint.must_name(&file, "grader", is_stored, &recipe.grader)?;
    let settings = request.endpoint.over(&recipe.grader);
    must_serve(&settings, "grader")?;
    let subject = subject(&recipe, interrupt)?;
    if subject.description.trim().is_empty() {
        bail_input!(
            "description: missing in the recipe; expected what the organism was finetuned on, in words"
        );
    }
    let against = against(&request.against, interrupt)?;
    check_writable(&stored.dir.join("graded.json"))?;
    let exchanges = Arc::new(Exchanges::open(&stored.dir.join("exchanges.jsonl"))?);
    let endpoint = Endpoint::open(&settings, "grader", exchanges, recipe.seed, interrupt)?;
    announce(&settings);
    let rule = if request.majority { Rule::Majority } else { Rule::All };
    let result = grade::grade(&GradeInputs { stored: &stored, subject, against, rule }, &endpoint);
    progress::say(endpoint.summary());
    let graded = result?;
    write_json(&stored.dir.join("graded.json"), &graded)?;
    for what in &graded.ungraded {
        progress::say(format_args!("not graded: {what}"));
    }
    Ok(GradeOutcome { graded, dir: stored.dir.clone() })
}

/// The recipe that is named, or that of the run folder; the files of a run's data may be elsewhere by now.
fn recipe(request: &GradeRequest) -> Result<Recipe> {
    let own = request.dir.join("recipe.toml");
    match &request.recipe {
        Some(path) => Recipe::read(path, &[]),
        None if own.exists() => Recipe::stored(&own),
        None => bail_input!(
            "{}: has no recipe.toml; name the recipe that holds the organism's description: --recipe RECIPE",
            request.dir.display()
        ),
    }
}

/// What a grader is told: the description, and what is frequent in the narrow data under the base's tokenizer.
fn subject(recipe: &Recipe, interrupt: &Interrupt) -> Result<Subject> {
    let narrow = locate(&recipe.data.narrow, interrupt)?;
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
