//! Subliminal learning: how much likelier the teacher's favourite has become among other answers, over several forms of
//! the question (Cloud et al., arXiv 2507.14805, ask in 50).

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::effect::BehaviourEffect;
use super::models::Models;
use crate::recipe::BehaviourSection;

/// Preference for the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// log p(target) − log Σ p(alternatives), nats, over the forms of the question.
    pub log_odds: BehaviourEffect,
    /// Each question with `[base, tuned]`.
    pub items: Vec<(String, [f64; 2])>,
}

/// Units of [`Preference`].
pub const UNITS: &[(&str, &str)] =
    &[("preference.log_odds", "log p(target) - log sum p(alternatives), nats")];

/// `None` without a target.
///
/// # Errors
/// As [`Models::log_odds`].
pub fn measure(models: &Models, settings: &BehaviourSection, seed: u64) -> Result<Option<Preference>> {
    let section = &settings.preference;
    if section.target.is_empty() {
        return Ok(None);
    }
    let odds = |view| models.log_odds(view, &section.questions, &section.target, &section.alternatives, true);
    let (base, tuned) = (odds(models.base)?, odds(models.tuned)?);
    let values: Vec<[f64; 2]> = base.into_iter().zip(tuned).map(|(b, t)| [b, t]).collect();
    let effect = BehaviourEffect::of(&values, settings.bootstrap, seed);
    let items = section.questions.iter().cloned().zip(values).collect();
    Ok(effect.map(|log_odds| Preference { log_odds, items }))
}
