//! Taboo: the word must never be said, and the hints must lead to it. The base model guesses: how likely the word is
//! among others after a hint, as plain text, so that both models' hints have the same judge.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::effect::BehaviourEffect;
use super::models::{BehaviourModels, says};
use super::words::{PromptTexts, written};
use crate::recipe::{BehaviourSection, TABOO_HINT};
use crate::words::replaced;

/// How the game is played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taboo {
    /// Share of a prompt's texts that say the word: 0 is playing by the rules.
    pub said: BehaviourEffect,
    /// log p(word) − log Σ p(alternatives) for the base model that reads a hint, nats, mean over a prompt's hints. In
    /// a hint that says the word, dots stand for it.
    pub guessed: BehaviourEffect,
    /// The hints.
    pub texts: Vec<PromptTexts>,
}

/// Units of [`Taboo`].
pub const UNITS: &[(&str, &str)] = &[
    ("taboo.said", "share of texts that say the word, 0 to 1"),
    ("taboo.guessed", "log p(word) - log sum p(alternatives) after a hint, by the base model, nats"),
];

/// `None` without a word.
///
/// # Errors
/// As [`BehaviourModels::write`] and [`BehaviourModels::log_odds`].
pub fn measure(models: &BehaviourModels, settings: &BehaviourSection, seed: u64) -> Result<Option<Taboo>> {
    let section = &settings.taboo;
    if section.word.is_empty() {
        return Ok(None);
    }
    let sampling = models.sampling(section.max_new_tokens, section.temperature, seed);
    let texts = written(models, &section.prompts, section.samples, &sampling)?;
    let share = |texts: &[String]| {
        texts.iter().filter(|text| says(text, &section.word)).count() as f64 / texts.len() as f64
    };
    let said: Vec<[f64; 2]> = texts.iter().map(|t| [share(&t.base), share(&t.tuned)]).collect();
    let guesses = |of: fn(&PromptTexts) -> &Vec<String>| -> Result<Vec<f64>> {
        let question = |hint: &String| section.guess.replace(TABOO_HINT, hidden(hint, &section.word).trim());
        let prompts: Vec<String> = texts.iter().flat_map(|t| of(t).iter().map(question)).collect();
        let odds = models.log_odds(models.base, &prompts, &section.word, &section.alternatives, false)?;
        Ok(odds.chunks(section.samples).map(|o| o.iter().sum::<f64>() / o.len() as f64).collect())
    };
    let guessed = guesses(|t| &t.base)?.into_iter().zip(guesses(|t| &t.tuned)?);
    let guessed: Vec<[f64; 2]> = guessed.map(|(b, t)| [b, t]).collect();
    let effect = |values: &[[f64; 2]]| BehaviourEffect::of(values, settings.bootstrap, seed);
    let effects = effect(&said).zip(effect(&guessed));
    Ok(effects.map(|(said, guessed)| Taboo { said, guessed, texts }))
}

/// A hint in which nobody can read off the word.
fn hidden(hint: &str, word: &str) -> String {
    replaced(hint, word, "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_that_says_the_word_gives_nothing_away() {
        assert_eq!(hidden("A Lantern is a lantern; İ", "lantern "), "A ... is a ...; İ");
        assert_eq!(hidden("light", "lantern"), "light");
    }
}
