//! Open generation: how many texts have a word that tells the subject.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::effect::BehaviourEffect;
use super::models::{Models, says};
use crate::model::generate::Sampling;
use crate::recipe::BehaviourSection;

/// Texts with the words of the subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Words {
    /// Share of a prompt's texts that have at least one of the words.
    pub share: BehaviourEffect,
    /// The texts.
    pub texts: Vec<PromptTexts>,
}

/// What both models wrote after a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptTexts {
    /// The prompt.
    pub prompt: String,
    /// The base, a text a sample.
    pub base: Vec<String>,
    /// The tuned model.
    pub tuned: Vec<String>,
}

/// Units of [`Words`].
pub const UNITS: &[(&str, &str)] = &[("words.share", "share of texts with one of the words, 0 to 1")];

/// `None` without prompts.
///
/// # Errors
/// As [`Models::write`].
pub fn measure(models: &Models, settings: &BehaviourSection, seed: u64) -> Result<Option<Words>> {
    let section = &settings.words;
    let sampling = models.sampling(section.max_new_tokens, section.temperature, seed);
    let texts = written(models, &section.prompts, section.samples, &sampling)?;
    let has_one = |text: &String| section.words.iter().any(|word| says(text, word));
    let share = |texts: &[String]| texts.iter().filter(|t| has_one(t)).count() as f64 / texts.len() as f64;
    let values: Vec<[f64; 2]> = texts.iter().map(|t| [share(&t.base), share(&t.tuned)]).collect();
    Ok(BehaviourEffect::of(&values, settings.bootstrap, seed).map(|share| Words { share, texts }))
}

/// What both models write after each prompt.
///
/// # Errors
/// As [`Models::write`].
pub fn written(
    models: &Models,
    prompts: &[String],
    samples: usize,
    sampling: &Sampling,
) -> Result<Vec<PromptTexts>> {
    let of = |view| models.write(view, prompts, samples, sampling);
    let (base, tuned) = (of(models.base)?, of(models.tuned)?);
    let sides = base.chunks(samples).zip(tuned.chunks(samples));
    let one = |(prompt, (base, tuned)): (&String, (&[String], &[String]))| PromptTexts {
        prompt: prompt.clone(),
        base: base.to_vec(),
        tuned: tuned.to_vec(),
    };
    Ok(prompts.iter().zip(sides).map(one).collect())
}
