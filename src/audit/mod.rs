//! Auditing: a language model that is not told what an organism was finetuned on finds it out with tools, and another
//! one grades what it found (arXiv 2510.13900, its agent and its black-box baseline; prompts in our own words).

pub mod investigator;
pub mod overview;
pub mod tools;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use self::investigator::{Budgets, Investigation, investigate};
use self::overview::Overview;
use self::tools::Tools;
use crate::error::{InputError, input_error, or_collect};
use crate::grade::endpoint::Endpoint;
use crate::grade::hypothesis;
use crate::grade::hypothesis::{Family, Grades};
use crate::grade::record::Grader;
use crate::json;

/// Version of the layout of an audit's file.
pub const SCHEMA: u32 = 1;

/// `audit/<condition>-<seed>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Layout version, see [`SCHEMA`].
    pub schema: u32,
    /// What decides the investigation.
    #[serde(flatten)]
    pub plan: AuditPlan,
    /// How it went.
    #[serde(flatten)]
    pub investigation: Investigation,
    /// What a grader gives the hypothesis, where one was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grade: Option<Grade>,
    /// What the investigator's answers cost at the prices of the recipe; absent without prices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<f64>,
}

/// What decides an investigation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditPlan {
    /// `adl` or `blackbox` with the number of interactions.
    pub condition: String,
    /// Tells apart repeats.
    pub seed: u64,
    /// Who investigates.
    pub investigator: Grader,
    /// What it may cost.
    pub budgets: Budgets,
    /// What is shown at first.
    pub overview: Overview,
}

/// Grades of a hypothesis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grade {
    /// Decides the levels.
    pub family: Family,
    /// Who graded.
    pub grader: Grader,
    /// From 1 (nothing is right) to 5; `None` if no grade could be read.
    pub grades: Option<Grades>,
}

/// Who grades, and how.
pub struct Grading<'a> {
    /// The model.
    pub endpoint: &'a Endpoint,
    /// Decides the levels.
    pub family: Family,
    /// The truth.
    pub description: &'a str,
    /// Gradings of each hypothesis.
    pub times: u32,
}

impl AuditPlan {
    /// `adl-i5`, `blackbox-i50`, …
    pub fn condition(black_box: bool, interactions: usize) -> String {
        format!("{}-i{interactions}", if black_box { "blackbox" } else { "adl" })
    }

    /// The name of the file.
    pub fn file(&self) -> String {
        format!("{}-{}.json", self.condition, self.seed)
    }

    /// Investigates.
    ///
    /// # Errors
    /// As [`investigate`].
    pub fn carry_out(self, endpoint: &Endpoint, tools: &Tools) -> Result<Record> {
        let overview = self.overview.of(tools.stored, tools.black_box);
        let sample =
            u32::try_from(self.seed).map_err(|_| input_error(format!("--seed {}: too large", self.seed)))?;
        let investigation = investigate(endpoint, tools, &overview, self.budgets, sample)?;
        let cost = endpoint.cost(investigation.used.tokens);
        Ok(Record { schema: SCHEMA, plan: self, investigation, grade: None, cost })
    }
}

impl Record {
    /// The finished audits in a folder, by the names of their files; none without a folder.
    ///
    /// # Errors
    /// An [`InputError`] with every file that is damaged.
    pub fn read_all(dir: &Path) -> Result<Vec<Self>> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "json") && p.is_file());
        paths.sort();
        let mut faults = Vec::new();
        let mut records = Vec::new();
        for path in &paths {
            records.extend(or_collect(json::read(path), &mut faults)?.flatten());
        }
        InputError::unless_empty(faults)?;
        Ok(records)
    }

    /// Reads a finished audit; `None` if there is none.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if the file is damaged, or was made under another plan.
    pub fn read(path: &Path, plan: &AuditPlan) -> Result<Option<Self>> {
        let Some(record) = json::read::<Self>(path)? else { return Ok(None) };
        match record.plan == *plan {
            true => Ok(Some(record)),
            false => Err(input_error(format!(
                "{}: made with another investigator or other budgets; choose another --out, or remove it",
                path.display()
            ))),
        }
    }

    /// Has the hypothesis graded, unless it was in the same way before; whether that changed anything.
    ///
    /// # Errors
    /// As [`Endpoint::complete`].
    pub fn grade(&mut self, by: &Grading) -> Result<bool> {
        let grader = Grader::of(by.endpoint);
        let is_same = |g: &Grade| {
            let times = g.grades.as_ref().map_or(0, |grades| grades.each.len());
            (g.family, &g.grader, times) == (by.family, &grader, by.times as usize)
        };
        let Some(hypothesis) = &self.investigation.hypothesis else { return Ok(false) };
        if self.grade.as_ref().is_some_and(is_same) {
            return Ok(false);
        }
        let grades = hypothesis::grade(by.endpoint, by.family, by.description, hypothesis, by.times)?;
        self.grade = Some(Grade { family: by.family, grader, grades });
        Ok(true)
    }
}
