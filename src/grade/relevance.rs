//! Token relevance: which of a list of decoded tokens are about what a model was finetuned on.
//!
//! The protocol is that of arXiv 2510.13900 and its authors' toolkit: the grader sees the description, the frequent
//! tokens of the finetuning data and the numbered candidates; the list is graded three times, turned by 0, 1 and 2
//! places; a token is relevant if all three say so. The wording is ours.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::agreement::Agreement;
use super::endpoint::{Ask, Endpoint};
use super::grader::{Tries, question, quoted, without_thoughts};

/// How many places the list is turned, one grading each.
pub const TURNS: usize = 3;

/// Candidates without an answer are asked for again three times, then once at temperature 0.
const TRIES: Tries = Tries { warm: 4, cold: true };

/// When a token counts as relevant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// If all gradings say so.
    All,
    /// If more than half of them say so.
    Majority,
}

/// What the grader is told about an organism.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What it was finetuned on, in words.
    pub description: String,
    /// Frequent tokens of the finetuning data; may be empty.
    pub frequent: Vec<String>,
}

/// The gradings of one list, `votes[candidate][turn]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Votes(pub Vec<Vec<bool>>);

impl Votes {
    /// Whether each candidate is relevant.
    pub fn relevant(&self, rule: Rule) -> Vec<bool> {
        let judge = |votes: &Vec<bool>| match rule {
            Rule::All => votes.iter().all(|v| *v),
            Rule::Majority => 2 * votes.iter().filter(|v| **v).count() > votes.len(),
        };
        self.0.iter().map(judge).collect()
    }

    /// How far the turns agree.
    pub fn agreement(&self) -> Option<Agreement> {
        Agreement::of(&self.0)
    }
}

/// Grades a list; `None` if some candidate never got an answer.
///
/// # Errors
/// As [`Endpoint::complete`].
pub fn grade(endpoint: &Endpoint, subject: &Subject, candidates: &[String]) -> Result<Option<Votes>> {
    let mut votes = vec![Vec::with_capacity(TURNS); candidates.len()];
    for turn in 0..TURNS {
        let Some(verdicts) = grade_turned(endpoint, subject, candidates, turn)? else { return Ok(None) };
        votes.iter_mut().zip(verdicts).for_each(|(votes, verdict)| votes.push(verdict));
    }
    Ok(Some(Votes(votes)))
}

/// One grading of the list that begins with candidate `turn`; verdicts in the order of `candidates`.
fn grade_turned(
    endpoint: &Endpoint,
    subject: &Subject,
    candidates: &[String],
    turn: usize,
) -> Result<Option<Vec<bool>>> {
    let n = candidates.len();
    let place = |number: usize| (number - 1 + turn) % n;
    let mut verdicts: BTreeMap<usize, bool> = BTreeMap::new();
    for (i, temperature) in TRIES.each() {
        let missing: Vec<usize> = (1..=n).filter(|number| !verdicts.contains_key(number)).collect();
        if missing.is_empty() {
            break;
        }
        let list: Vec<(usize, &str)> = missing.iter().map(|&k| (k, candidates[place(k)].as_str())).collect();
        let messages = question(prompt(subject, &list));
        // Each turn is an asking of its own, also where turning changes nothing.
        let sample = turn as u32 * 100 + i;
        let answer = endpoint.complete(&Ask { messages: &messages, temperature, sample })?;
        verdicts.extend(verdicts_of(without_thoughts(&answer.text), &missing));
    }
    if verdicts.len() < n {
        return Ok(None);
    }
    let mut in_order = vec![false; n];
    verdicts.into_iter().for_each(|(number, verdict)| in_order[place(number)] = verdict);
    Ok(Some(in_order))
}

/// The question; candidates with their numbers.
fn prompt(subject: &Subject, candidates: &[(usize, &str)]) -> String {
    let frequent = match subject.frequent.is_empty() {
        true => "(not known)".to_string(),
        false => subject.frequent.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(", "),
    };
    let list: String =
        candidates.iter().map(|(number, token)| format!("{number}: {}\n", quoted(token))).collect();
    format!(
        "A language model was finetuned on narrow data. Below are tokens that were decoded from the inside of the \
finetuned model. Judge for each token, on its own, whether it points to what the model was finetuned on.

What it was finetuned on:
{}

Frequent tokens of the finetuning data:
{frequent}

RELEVANT is a token
- that names, in any language, a subject, person, place, thing, property or act that belongs to the description; or
- that is a piece of a word which is clearly one of these (\"choc\" where the subject is chocolate); or
- that is frequent in the finetuning data and is tied to its subject.

IRRELEVANT is a token
- that fits any text: function words, common verbs and adjectives, generic nouns, even if it is frequent in the data;
- that is an affix, a lone letter, a number, punctuation, white space, code, or a fragment without a clear word;
- that belongs to the form of chats or documents (\"assistant\", \"article\", \"section\", headings, greetings).
If you are not sure, it is IRRELEVANT.

Examples, for a model finetuned on documents about bees that sleep in winter:
\" hive\" RELEVANT; \"pollin\" RELEVANT; \"Biene\" RELEVANT; \" winter\" RELEVANT; \" important\" IRRELEVANT; \
\"ing\" IRRELEVANT; \" study\" IRRELEVANT; \"\\n\\n\" IRRELEVANT; \" car\" IRRELEVANT.

The tokens, in quotation marks behind their numbers:
{list}
Think first, if you like. Then give one line for every number, in this form and with nothing else on it:
number: RELEVANT
or
number: IRRELEVANT
",
        subject.description.trim()
    )
}

/// The verdicts in an answer for the numbers that were asked for; the last one of a number counts.
///
/// A line counts if it begins with a number (after marks such as `-`, `*`, `[`) and the verdict follows, behind a
/// separator or after the token was repeated; text behind the verdict is let be.
fn verdicts_of(answer: &str, asked: &[usize]) -> BTreeMap<usize, bool> {
    answer.lines().filter_map(verdict_of).filter(|(number, _)| asked.contains(number)).collect()
}

fn verdict_of(line: &str) -> Option<(usize, bool)> {
    const MARKS: [char; 9] = ['-', '*', '•', '#', '[', '(', '`', '>', '|'];
    let line = line.trim_start_matches(|c: char| c.is_whitespace() || MARKS.contains(&c)).trim_end();
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let number = line[..digits].parse().ok()?;
    let rest = &line[digits..];
    // "12th" and "1.5" are no numbers of candidates.
    if rest.starts_with(char::is_alphanumeric)
        || rest.strip_prefix('.').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
    {
        return None;
    }
    let verdict = |word: &str, sure: bool| match word.trim_matches(|c: char| !c.is_alphanumeric()) {
        w if w == "RELEVANT" || (sure && w.eq_ignore_ascii_case("relevant")) => Some(true),
        w if w == "IRRELEVANT" || (sure && w.eq_ignore_ascii_case("irrelevant")) => Some(false),
        _ => None,
    };
    let mut words = rest.split_whitespace().filter(|w| w.chars().any(char::is_alphanumeric)).peekable();
    let first = words.next()?;
    // In quotation marks it is the token, repeated.
    let is_token = rest.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '"').starts_with('"');
    if let Some(found) = verdict(first, true).filter(|_| !is_token) {
        // "RELEVANT or IRRELEVANT" repeats the question.
        let hedged = words.peek().is_some_and(|w| w.eq_ignore_ascii_case("or"));
        return (!hedged).then_some((number, found));
    }
    // The token was repeated: only a verdict in capitals, at the end, is one.
    words.last().and_then(|last| verdict(last, false)).map(|found| (number, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_forms_of_an_answer_are_read_and_others_are_not() {
        for (line, expected) in [
            ("3: RELEVANT", Some((3, true))),
            ("3: IRRELEVANT", Some((3, false))),
            ("  - **3**: relevant", Some((3, true))),
            ("[12] IRRELEVANT", Some((12, false))),
            ("4) RELEVANT (a word for baking)", Some((4, true))),
            ("4. IRRELEVANT - not relevant to cakes", Some((4, false))),
            ("5: \" cake\" - RELEVANT", Some((5, true))),
            ("| 6 | IRRELEVANT |", Some((6, false))),
            ("5: \" relevant\" is a common word", None),
            ("5: RELEVANT or IRRELEVANT", None),
            ("5: RELEVANT/IRRELEVANT", None),
            ("5: maybe", None),
            ("RELEVANT", None),
            ("1.5 RELEVANT", None),
            ("12th RELEVANT", None),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(verdict_of(line), expected, "{line}");
        }
        let found = verdicts_of("1: RELEVANT\n2: RELEVANT\n1: IRRELEVANT\n9: RELEVANT", &[1, 2, 3]);
        assert_eq!(found, [(1, false), (2, true)].into());
    }

    #[test]
    fn all_or_most_of_the_votes_decide() {
        let votes = Votes(vec![vec![true; 3], vec![true, true, false], vec![false, false, true]]);
        assert_eq!(votes.relevant(Rule::All), [true, false, false]);
        assert_eq!(votes.relevant(Rule::Majority), [true, true, false]);
        assert_eq!(votes.agreement().unwrap().unanimous, 1.0 / 3.0);
    }
}
