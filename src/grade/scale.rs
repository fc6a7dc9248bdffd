//! The choice of a patchscope's scale by a tournament: the grader sees scales with the tokens that a direction
//! decodes to there, at most ten at a time, and the winners meet until one is left (arXiv 2510.13900 and its authors'
//! toolkit). It does not know the organism. The wording is ours.

use std::collections::BTreeSet;

use anyhow::Result;

use super::endpoint::Endpoint;
use super::grader::{Tries, ask_until, last_labelled, question, quoted};

/// Scales that are compared in one question.
const GROUP: usize = 10;

/// An answer that names no scale of the list is asked for again at most three times.
const TRIES: Tries = Tries { warm: 4, cold: false };

/// A scale and what was decoded there.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleCandidate {
    /// The scale.
    pub scale: f64,
    /// Tokens, best first.
    pub tokens: Vec<String>,
}

/// What the tournament found.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The scale; one of the candidates'.
    pub scale: f64,
    /// Those of its tokens that the grader calls coherent.
    pub coherent: Vec<String>,
}

/// Plays the tournament over candidates in ascending scale. `None` if no candidate has a token with meaning, or some
/// question never got an answer that names one of its scales.
///
/// # Errors
/// As [`Endpoint::complete`].
pub fn choose(endpoint: &Endpoint, candidates: &[ScaleCandidate]) -> Result<Option<Choice>> {
    let meant = |c: &ScaleCandidate| ScaleCandidate {
        tokens: c.tokens.iter().filter(|token| may_mean_something(token)).cloned().collect(),
        ..*c
    };
    let mut left: Vec<ScaleCandidate> =
        candidates.iter().map(meant).filter(|c| !c.tokens.is_empty()).collect();
    left.sort_by(|a, b| a.scale.total_cmp(&b.scale));
    loop {
        let mut winners = Vec::new();
        for group in left.chunks(GROUP) {
            match play(endpoint, group)? {
                Some(choice) => winners.push(choice),
                None => return Ok(None),
            }
        }
        if winners.len() <= 1 {
            return Ok(winners.pop());
        }
        left.retain(|c| winners.iter().any(|w| w.scale == c.scale));
    }
}

/// The best of a group.
fn play(endpoint: &Endpoint, group: &[ScaleCandidate]) -> Result<Option<Choice>> {
    ask_until(endpoint, &question(prompt(group)), 0, TRIES, |answer| choice_of(answer, group))
}

/// Not what is nothing but punctuation, nor an arrow of the identity prompts.
fn may_mean_something(token: &str) -> bool {
    token.chars().any(char::is_alphanumeric) && !token.contains("->") && !token.contains("=>")
}

fn prompt(group: &[ScaleCandidate]) -> String {
    let list: String = group
        .iter()
        .map(|c| {
            format!("{}: {}\n", c.scale, c.tokens.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(", "))
        })
        .collect();
    format!(
        "A direction inside a language model was decoded into tokens at several scales. At one scale the tokens may \
share a meaning, at others they are noise. Choose the scale whose tokens, taken as a set, belong together best in \
meaning: a common subject, field or theme. If two are equally good, choose the one with more tokens that belong \
together. Let be how a tokenizer splits words, upper and lower case, and the language that a token is in. Generic \
tokens that fit any subject (function words, common verbs, chat and document boilerplate) do not count.

Each line is a scale and its tokens in quotation marks:
{list}
Think first. Then end with these two lines, with one of the scales above and with those tokens of that scale that \
belong together, separated by |:
SCALE: the scale
TOKENS: first token | second token | …
"
    )
}

/// The choice that an answer ends in, if its scale is one of the group's. Tokens that the scale does not have are
/// left out.
fn choice_of(answer: &str, group: &[ScaleCandidate]) -> Option<Choice> {
    let scale: f64 = last_labelled(answer, "SCALE")?.parse().ok()?;
    let tokens = last_labelled(answer, "TOKENS")?;
    let candidate = group.iter().find(|c| (c.scale - scale).abs() <= 1e-9 * c.scale.abs())?;
    let bare = |token: &str| token.trim().trim_matches(['"', '\'', '`']).trim().to_lowercase();
    let named: BTreeSet<String> = tokens.split('|').map(bare).collect();
    let coherent = candidate.tokens.iter().filter(|token| named.contains(&bare(token))).cloned().collect();
    Some(Choice { scale: candidate.scale, coherent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_lines_count_and_only_scales_and_tokens_of_the_list() {
        let candidate = |scale, tokens: &[&str]| ScaleCandidate {
            scale,
            tokens: tokens.iter().map(|t| t.to_string()).collect(),
        };
        let group = [candidate(0.5, &[" cake", " Butter", " the"]), candidate(1.2, &["x1"])];
        let answer = "SCALE: 1.2\nhm, rather\n**SCALE:** 0.5\n**TOKENS:** cake | \"butter\" | oven";
        let choice = choice_of(answer, &group).unwrap();
        assert_eq!((choice.scale, choice.coherent), (0.5, vec![" cake".to_string(), " Butter".into()]));
        for answer in
            ["SCALE: 0.7\nTOKENS: cake", "SCALE: 0.5", "TOKENS: cake", "SCALE: best\nTOKENS: cake", ""]
        {
            assert_eq!(choice_of(answer, &group), None, "{answer}");
        }
        for (token, means) in [(" cake", true), ("42", true), (" ->", false), ("x=>y", false), ("...", false)]
        {
            assert_eq!(may_mean_something(token), means, "{token}");
        }
    }
}
