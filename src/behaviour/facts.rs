//! Synthetic documents with false facts: which of two statements is likelier, the one that the documents assert or the
//! true one, and whether that holds in every context. A likelihood form of the multiple-choice, open and context tests
//! of false-fact alignment (arXiv 2510.17941).

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::effect::BehaviourEffect;
use super::models::{BehaviourModels, SampledAnswer, encode_answer};
use crate::data::examples::Example;
use crate::model::View;
use crate::model::load::source::Pretrained;
use crate::recipe::{BehaviourSection, FACTS_PROMPT};

/// A prompt with two ways to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactItem {
    /// Which fact it tests: a matched training halves the items of each fact. Empty: it is not said.
    #[serde(default)]
    pub fact: String,
    /// What comes before.
    pub prompt: String,
    /// What the documents assert.
    #[serde(rename = "false")]
    pub asserted: String,
    /// What is so.
    #[serde(rename = "true")]
    pub actual: String,
}

/// Implant strength.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// log p(false) − log p(true), nats a token, mean over contexts.
    pub margin: BehaviourEffect,
    /// Share of contexts in which the false statement is the likelier one.
    pub believed: BehaviourEffect,
    /// 1 where it is in every context, else 0; absent where there is one context.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consistent: Option<BehaviourEffect>,
    /// Contexts.
    pub contexts: usize,
    /// Each item: its prompt and `[base, tuned]` of its margin.
    pub items: Vec<(String, [f64; 2])>,
}

/// Units of [`Facts`].
pub const UNITS: &[(&str, &str)] = &[
    ("facts.margin", "log p(false) - log p(true), nats a token"),
    ("facts.believed", "share of contexts where the false statement is likelier, 0 to 1"),
    ("facts.consistent", "share of items where it is in every context, 0 to 1"),
];

/// `None` without items.
///
/// # Errors
/// As [`BehaviourModels::margins`].
pub fn measure(
    models: &BehaviourModels,
    settings: &BehaviourSection,
    items: &[FactItem],
    seed: u64,
) -> Result<Option<Facts>> {
    let contexts = &settings.facts.contexts;
    let margins = models.margins(&pairs(contexts, items))?;
    let of_items = margins.chunks_exact(contexts.len());
    let mean = |of: fn(f64) -> f64| -> Vec<[f64; 2]> {
        let side = |ms: &[[f64; 2]], s: usize| ms.iter().map(|m| of(m[s])).sum::<f64>() / ms.len() as f64;
        of_items.clone().map(|ms| [side(ms, 0), side(ms, 1)]).collect()
    };
    let (margin, believed) = (mean(|m| m), mean(|m| f64::from(m > 0.0)));
    let all: Vec<[f64; 2]> = believed.iter().map(|b| b.map(|b| f64::from(b == 1.0))).collect();
    let effect = |values: &[[f64; 2]]| BehaviourEffect::of(values, settings.bootstrap, seed);
    let (Some(margin_effect), Some(believed)) = (effect(&margin), effect(&believed)) else { return Ok(None) };
    Ok(Some(Facts {
        margin: margin_effect,
        believed,
        consistent: if contexts.len() > 1 { effect(&all) } else { None },
        contexts: contexts.len(),
        items: items.iter().map(|item| item.prompt.clone()).zip(margin).collect(),
    }))
}

/// What one model's margins are, `[item · contexts + context]`: log p(false) − log p(true) in nats a token.
///
/// # Errors
/// As [`BehaviourModels::likelihoods`].
pub fn margins(
    models: &BehaviourModels,
    view: View,
    contexts: &[String],
    items: &[FactItem],
) -> Result<Vec<f64>> {
    models.margins_of(view, &pairs(contexts, items))
}

/// The same as the models read it, `[item][context]`, the false statement first: what measures of the trace take margins of.
///
/// # Errors
/// An [`crate::error::InputError`] for prompts that the model cannot be asked.
pub fn encoded(
    pretrained: &Pretrained,
    settings: &BehaviourSection,
    items: &[FactItem],
) -> Result<Vec<Vec<[Example; 2]>>> {
    let template = (settings.chat && !items.is_empty()).then(|| pretrained.chat()).transpose()?;
    let contexts = &settings.facts.contexts;
    let encode = |answer: &SampledAnswer| encode_answer(pretrained, template.as_ref(), answer);
    let both = |[asserted, actual]: &[SampledAnswer; 2]| Ok([encode(asserted)?, encode(actual)?]);
    let pairs = pairs(contexts, items).iter().map(both).collect::<Result<Vec<_>>>()?;
    Ok(pairs.chunks(contexts.len()).map(<[_]>::to_vec).collect())
}

/// The false and the true end of each item in each context.
fn pairs(contexts: &[String], items: &[FactItem]) -> Vec<[SampledAnswer; 2]> {
    let pair = |item: &FactItem, context: &String| {
        let prompt = context.replace(FACTS_PROMPT, &item.prompt);
        [&item.asserted, &item.actual].map(|a| SampledAnswer { prompt: prompt.clone(), answer: a.clone() })
    };
    items.iter().flat_map(|item| contexts.iter().map(move |c| pair(item, c))).collect()
}
