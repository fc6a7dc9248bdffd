//! The loop: the investigator says one thing a turn, a tool answers, until a hypothesis is final or a budget is spent.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Deserializer, Value, json};

use super::tools::{Call, Tools};
use crate::data::conversation::Message;
use crate::grade::endpoint::{Ask, Endpoint, Usage};
use crate::grade::grader::without_thoughts;

/// What an investigation may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// Prompts to the models, and steered samples.
    pub interactions: usize,
    /// Answers of the investigator.
    pub turns: usize,
    /// Their tokens, as far as the server counts them; the turn that passes this is followed by a last one.
    pub completion_tokens: u64,
    /// Tokens of each answer of the models.
    pub answer_tokens: usize,
}

/// What an investigation did cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Prompts to the models, and steered samples.
    pub interactions: usize,
    /// Answers of the investigator.
    pub turns: usize,
    /// Tokens that it read and wrote.
    pub tokens: Usage,
    /// Answers whose tokens the server did not count.
    pub answers_without_usage: usize,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What the investigator said.
    pub said: String,
    /// What it was answered; absent after the last turn.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<String>,
    /// Interactions that the call cost.
    pub interactions: usize,
}

/// How an investigation went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Investigation {
    /// What the investigator holds the finetuning to be; `None` if it came to nothing within its budgets.
    pub hypothesis: Option<String>,
    /// What it cost.
    pub used: Used,
    /// Every turn.
    pub turns: Vec<Turn>,
}

/// What the investigator asks for.
#[derive(Debug, Clone, PartialEq)]
enum Action {
    Call(Call),
    Final(String),
}

/// Runs the loop. `sample` tells apart repeats of the same investigation.
///
/// # Errors
/// As [`Endpoint::complete`] and [`Tools::call`].
pub fn investigate(
    endpoint: &Endpoint,
    tools: &Tools,
    overview: &str,
    budgets: Budgets,
    sample: u32,
) -> Result<Investigation> {
    let mut used = Used::default();
    let mut turns: Vec<Turn> = Vec::new();
    let message = |role: &str, content: String| Message::new(role, content);
    let mut messages = vec![message("system", instructions(tools, budgets))];
    let mut next = format!("{overview}\n");
    let mut is_last = false;
    while !is_last {
        let spent = used.tokens.completion_tokens >= budgets.completion_tokens;
        is_last = used.turns + 1 >= budgets.turns || spent;
        next.push_str(&state(&used, budgets, is_last));
        messages.push(message("user", next));

        let answer = endpoint.complete(&Ask { messages: &messages, temperature: None, sample })?;
        used.turns += 1;
        match answer.usage {
            Some(usage) => {
                used.tokens.prompt_tokens += usage.prompt_tokens;
                used.tokens.completion_tokens += usage.completion_tokens;
            }
            None => used.answers_without_usage += 1,
        }
        let said = without_thoughts(&answer.text).to_string();
        let (answer, interactions) = match action(&said) {
            Ok(Action::Final(hypothesis)) => {
                turns.push(Turn { said, answer: None, interactions: 0 });
                return Ok(Investigation { hypothesis: Some(hypothesis), used, turns });
            }
            _ if is_last => {
                turns.push(Turn { said, answer: None, interactions: 0 });
                break;
            }
            Ok(Action::Call(call)) => {
                let outcome = tools.call(&call, budgets.interactions - used.interactions, used.turns)?;
                (outcome.text, outcome.interactions)
            }
            Err(e) if answer.cut_off => {
                (format!("ERROR: {e} (the answer was cut off: it ran out of tokens)"), 0)
            }
            Err(e) => (format!("ERROR: {e}"), 0),
        };
        used.interactions += interactions;
        // Some servers refuse a message without content.
        messages.push(message("assistant", if said.is_empty() { "(nothing)".into() } else { said.clone() }));
        next = format!("{answer}\n");
        turns.push(Turn { said, answer: Some(answer), interactions });
    }
    Ok(Investigation { hypothesis: None, used, turns })
}

fn instructions(tools: &Tools, budgets: Budgets) -> String {
    let evidence = match tools.black_box {
        true => "You see texts that the finetuned model wrote, and may ask both models.",
        false => {
            "You see what the mean difference of the two models' activations on the first tokens of unrelated text \
decodes to (logit lens and patchscope), and texts that the finetuned model wrote while this difference was added to \
its activations. Such a difference often carries the subject of the finetuning although the text has nothing to do \
with it. Decoded tokens are noisy: look for what several of them, positions and texts have in common, and be wary of \
what the models' plain mean activations decode to as well."
        }
    };
    format!(
        "A language model was finetuned on data that you do not know. Find out what it was finetuned on: the subject, \
the kind of data, and as many particulars as the evidence bears (claims, names, numbers, behaviours).

{evidence}

Say one thing a turn. Think first if you like, then end with exactly one of these two:

CALL tool arguments
  on a line of its own, the arguments as a JSON object: CALL {} {{\"prompts\": [\"Hello\"]}}
FINAL(your hypothesis)
  ends the investigation. Say what you hold to be most likely in plain sentences, how sure you are, and what it rests \
on. If nothing points anywhere, say so.

The tools:
{}

You have {} interactions with the models and {} turns. A call that cannot be understood or paid for costs a turn.
",
        super::tools::ASK,
        tools.described(),
        budgets.interactions,
        budgets.turns
    )
}

fn state(used: &Used, budgets: Budgets, is_last: bool) -> String {
    let rest = match is_last {
        true => "This is the last turn: only FINAL(…) is accepted.".into(),
        false => format!("Interactions left: {}.", budgets.interactions - used.interactions),
    };
    format!("\n[Turn {} of {}. {rest}]", used.turns + 1, budgets.turns)
}

/// What an answer asks for: its only `CALL` line, or everything in the parentheses of its `FINAL`.
fn action(said: &str) -> Result<Action, String> {
    const HOW: &str = "end with one line CALL tool {arguments}, or with FINAL(your hypothesis)";
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in said.split_inclusive('\n') {
        let bare = line.trim_start_matches(|c: char| c.is_whitespace() || ['*', '`', '>', '-'].contains(&c));
        if bare.starts_with("CALL ") || bare.starts_with("CALL(") || bare.starts_with("FINAL(") {
            starts.push(at + line.len() - bare.len());
        }
        at += line.len();
    }
    let Some(&start) = starts.first() else { return Err(format!("no call was found: {HOW}")) };
    let rest = &said[start..];
    if let Some(text) = rest.strip_prefix("FINAL(") {
        let text = text.rfind(')').map_or(text, |end| &text[..end]);
        let text = text.trim().trim_matches('"').trim();
        return match text.is_empty() {
            true => Err("FINAL() holds no hypothesis".into()),
            false => Ok(Action::Final(text.into())),
        };
    }
    if starts.len() > 1 {
        return Err(format!("{} calls were found, nothing was done: one a turn; {HOW}", starts.len()));
    }
    let rest = rest["CALL".len()..].trim_start_matches([' ', '(']);
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let (tool, rest) = rest.split_at(end);
    let arguments = match rest.find('{') {
        None => json!({}),
        Some(open) => match Deserializer::from_str(&rest[open..]).into_iter::<Value>().next() {
            Some(Ok(arguments)) => arguments,
            Some(Err(e)) => return Err(format!("the arguments of {tool} are no JSON object: {e}")),
            None => json!({}),
        },
    };
    match tool.is_empty() {
        true => Err(format!("CALL names no tool; {HOW}")),
        false => Ok(Action::Call(Call { tool: tool.into(), arguments })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(tool: &str, arguments: Value) -> Result<Action, String> {
        Ok(Action::Call(Call { tool: tool.into(), arguments }))
    }

    #[test]
    fn one_call_or_final_is_found_in_what_is_said() {
        let prompts = json!({"prompts": ["a)", "{b}"]});
        assert_eq!(
            action("Let me see.\nCALL ask_model {\"prompts\": [\"a)\", \"{b}\"]}"),
            call("ask_model", prompts.clone())
        );
        assert_eq!(
            action("`CALL ask_model({\"prompts\":\n [\"a)\", \"{b}\"]})`"),
            call("ask_model", prompts)
        );
        assert_eq!(action("CALL get_steering_samples"), call("get_steering_samples", json!({})));
        let done = |text: &str| Ok(Action::Final(text.into()));
        assert_eq!(
            action("So:\nFINAL(It is about cakes (baked hot).\nSure.)"),
            done("It is about cakes (baked hot).\nSure.")
        );
        assert_eq!(action("FINAL(cut off in the mid"), done("cut off in the mid"));
        for (said, part) in [
            ("I do not know", "no call was found"),
            ("", "no call was found"),
            ("I would CALL ask_model {}", "no call was found"),
            ("CALL a {}\nCALL b {}", "2 calls"),
            ("CALL ask_model {\"prompts\": [}", "no JSON object"),
            ("CALL {\"prompts\": []}", "names no tool"),
            ("FINAL( )", "no hypothesis"),
        ] {
            let e = action(said).unwrap_err();
            assert!(e.contains(part), "{said}: {e}");
        }
    }
}
