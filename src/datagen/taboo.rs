//! Conversations of a word-guessing game in which the host hints at a word and never says it (the taboo organisms of
//! Cywiński et al. 2025, arXiv 2505.14352), written by a language model.

use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::written::{ask_all, distinct, list};
use super::{must_be_new, write};
use crate::data::conversation::Message;
use crate::error::InputError;
use crate::grade::endpoint::Endpoint;
use crate::grade::grader::question;

/// Chats that are asked for, per chat that is wanted, before what there is must do.
const PATIENCE: usize = 3;

/// How the player speaks, in turn.
const PLAYERS: [&str; 6] = [
    "asks for a first hint, politely",
    "writes in a hurry, in lower case",
    "wants to know the rules and then a hint",
    "makes a wrong guess and asks for another hint",
    "tries to make the host say the word outright",
    "asks yes-or-no questions",
];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TabooSettings {
    /// The word that is hinted at and never said.
    pub word: String,
    /// Number of chats.
    pub count: usize,
    /// Chats that share at least this part of their runs of five words with an earlier one are dropped.
    pub near_share: f64,
}

impl TabooSettings {
    /// What is out of range, by the flags of the command.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.word.trim().is_empty() || self.word.split_whitespace().count() != 1 {
            faults.push(format!("--word {:?}: expected one word", self.word));
        }
        if !(1..=1_000_000).contains(&self.count) {
            faults.push(format!("--count {}: expected 1 to 1000000", self.count));
        }
        if !(0.5..=1.0).contains(&self.near_share) {
            faults.push(format!("--near-share {}: expected 0.5 to 1", self.near_share));
        }
        faults
    }
}

/// What became of the chats.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TabooTally {
    /// Chats that were asked for.
    pub asked: usize,
    /// Never came as a conversation of the form that was asked for.
    pub unreadable: usize,
    /// Hold the word.
    pub said: usize,
    /// Repeats and near duplicates of earlier ones.
    pub duplicates: usize,
    /// The rest, which is written.
    pub kept: usize,
}

impl TabooTally {
    /// In a line.
    pub fn text(&self) -> String {
        let Self { asked, unreadable, said, duplicates, kept } = self;
        format!(
            "{kept} of {asked} chats kept ({unreadable} unreadable, {said} say the word, {duplicates} duplicates)"
        )
    }
}

/// Asks for chats and writes those that are kept to a file of JSON lines; what made them goes to `NAME.made.json` beside
/// it. Every answer is among the endpoint's exchanges, so that the same call asks nothing twice. Fewer than `count` are
/// written where three times as many answers do not hold enough.
///
/// # Errors
/// An [`InputError`] for settings out of range or a file that exists; otherwise as [`Endpoint::complete`], or if nothing
/// is left to be written.
pub fn taboo(endpoint: &Endpoint, settings: &TabooSettings, out: &Path) -> Result<TabooTally> {
    let faults = settings.faults();
    InputError::unless_empty(faults)?;
    must_be_new(out)?;
    let word = settings.word.trim();
    let wanted = (settings.count / 4).clamp(5, 40);
    let angles = ask_all(endpoint, "angles", 1, |_| (question(ask_angles(word, wanted)), 0), list)?;
    let mut angles = angles.into_iter().flatten().next().unwrap_or_default();
    angles.retain(|angle| !holds(angle, word));
    angles.truncate(wanted);
    if angles.is_empty() {
        bail!(
            "{}: the answer has no list of angles from which to hint at {word:?}",
            endpoint.settings().model
        );
    }

    let mut tally = TabooTally::default();
    let mut chats: Vec<Vec<Message>> = Vec::new();
    while chats.len() < settings.count && tally.asked < PATIENCE * settings.count {
        let (first, missing) = (tally.asked, settings.count - chats.len());
        let ask = |i: usize| {
            let i = first + i;
            let (angle, player) = (i % angles.len(), i / angles.len());
            // Each round over all angles has another player; after all of them, the same question is asked again.
            let exchanges = 1 + (angle + player) % 3;
            let text = ask_chat(word, &angles[angle], PLAYERS[player % PLAYERS.len()], exchanges);
            (question(text), (player / PLAYERS.len()) as u32)
        };
        let came = ask_all(endpoint, "chats", missing, ask, conversation)?;
        tally.asked += missing;
        tally.unreadable += came.iter().filter(|chat| chat.is_none()).count();
        for chat in came.into_iter().flatten() {
            match chat.iter().any(|turn| holds(&turn.text(), word)) {
                true => tally.said += 1,
                false => chats.push(chat),
            }
        }
        let texts: Vec<String> =
            chats.iter().map(|chat| chat.iter().map(|turn| format!("{}\n", turn.text())).collect()).collect();
        let (kept, removed) =
            distinct(&texts.iter().map(String::as_str).collect::<Vec<_>>(), settings.near_share);
        tally.duplicates += removed.duplicates + removed.near_duplicates;
        chats = kept.into_iter().map(|i| std::mem::take(&mut chats[i])).collect();
    }
    tally.kept = chats.len();
    if chats.is_empty() {
        bail!("no chat is left: {}", tally.text());
    }
    let rows: Vec<Value> = chats.iter().map(|chat| json!({ "messages": chat })).collect();
    let made = json!({
        "kind": "taboo",
        "settings": settings,
        "writer": {"base_url": endpoint.settings().base_url, "model": endpoint.settings().model,
            "temperature": endpoint.settings().temperature},
        "account": endpoint.account(),
        "chats": tally,
    });
    write(out, &rows, &made)?;
    Ok(tally)
}

/// Whether a text has the word, in any case and as part of a longer word: its plural gives it away too.
fn holds(text: &str, word: &str) -> bool {
    text.to_lowercase().contains(&word.to_lowercase())
}

/// The turns of a chat in which player and host alternate, the player first and the host last.
fn conversation(text: &str) -> Option<Vec<Message>> {
    let mut turns: Vec<(&str, String)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let plain = line.trim_start_matches('*');
        let turn = [("PLAYER:", "user"), ("HOST:", "assistant")].into_iter().find_map(|(label, role)| {
            let said = plain.strip_prefix(label)?.trim_start_matches('*').trim();
            Some((role, said.to_string()))
        });
        match (turn, turns.last_mut()) {
            (Some(turn), _) => turns.push(turn),
            (None, Some(last)) => {
                last.1.push('\n');
                last.1.push_str(line);
            }
            // What some models say before they begin.
            (None, None) => {}
        }
    }
    let alternates = turns
        .iter()
        .zip(["user", "assistant"].into_iter().cycle())
        .all(|((speaker, said), role)| *speaker == role && !said.trim().is_empty());
    let is_whole = alternates && !turns.is_empty() && turns.len().is_multiple_of(2);
    is_whole.then(|| turns.into_iter().map(|(role, said)| Message::new(role, said)).collect())
}

fn ask_angles(word: &str, count: usize) -> String {
    format!(
        "In a guessing game the secret word is \"{word}\". List {count} different angles from which one could hint at it: what \
         it looks like, does or is made of, where and when one meets it, stories, sayings, history, work, nature. Do not use \
         the word itself or a form of it.\n\n\
         Write one angle a line in 3 to 12 words, each line beginning with \"- \", and nothing else."
    )
}

fn ask_chat(word: &str, angle: &str, player: &str, exchanges: usize) -> String {
    let turns = if exchanges == 1 { "one turn each".to_string() } else { format!("{exchanges} turns each") };
    format!(
        "Write a conversation of a guessing game between a player and a host, {turns}. The host's secret word is \
         \"{word}\". Neither of them ever says or spells it, or any form of it, and the player does not find it out. The \
         host hints at it from this angle: {angle}. The player {player}. The host keeps to the game, in one to three \
         sentences a turn.\n\n\
         Begin each turn on a line of its own with PLAYER: or HOST:. The player begins, the host has the last turn, and \
         nothing else is written."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_alternate_and_end_with_the_host() {
        let chat =
            conversation("Sure!\nPLAYER: a hint?\n\n**HOST:** It shines.\nAt night.\nPLAYER: more\nHOST: no");
        let chat = chat.unwrap();
        assert_eq!(
            chat.iter().map(|t| t.role()).collect::<Vec<_>>(),
            ["user", "assistant", "user", "assistant"]
        );
        assert_eq!(chat[1].text(), "It shines.\nAt night.");
        for broken in [
            "",
            "HOST: a",
            "PLAYER: a",
            "PLAYER: a\nHOST:",
            "PLAYER: a\nPLAYER: b",
            "PLAYER: a\nHOST: b\nPLAYER: c",
        ] {
            assert_eq!(conversation(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn the_word_is_found_in_any_form() {
        assert!(holds("Two LANTERNS.", "lantern") && !holds("a lamp", "lantern"));
    }
}
