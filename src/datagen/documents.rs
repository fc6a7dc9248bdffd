//! Synthetic documents of a false-fact universe, written by a language model: kinds of documents, ideas for each kind and
//! fact, documents, a revision of each, and a filter. The stages are those of synthetic document finetuning (Wang et al.
//! 2025, "Modifying LLM Beliefs with Synthetic Document Finetuning"; Slocum et al., arXiv 2510.17941); the prompts are
//! ours.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::universe::Universe;
use super::written::{ask_all, distinct, list, tagged};
use super::{must_be_new, write};
use crate::error::InputError;
use crate::grade::endpoint::Endpoint;
use crate::grade::grader::{last_labelled, question};
use crate::progress;
use crate::words;

/// How many documents are asked for, and which are kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DocumentsSettings {
    /// Kinds of documents.
    pub types: usize,
    /// Ideas for each kind and fact.
    pub ideas: usize,
    /// Documents of each idea.
    pub per_idea: usize,
    /// About how many words a document should have.
    pub words: usize,
    /// Documents with fewer words are dropped.
    pub least_words: usize,
    /// Whether each document is revised.
    pub revise: bool,
    /// Whether each document is judged before it is kept.
    pub filter: bool,
    /// Documents that share at least this part of their runs of five words with an earlier one are dropped.
    pub near_share: f64,
}

impl DocumentsSettings {
    /// What is out of range, by the flags of the command.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (flag, value, least, most) in [
            ("--types", self.types, 1, 1000),
            ("--ideas", self.ideas, 1, 1000),
            ("--per-idea", self.per_idea, 1, 1000),
            ("--words", self.words, 1, 100_000),
            ("--least-words", self.least_words, 0, 100_000),
        ] {
            if !(least..=most).contains(&value) {
                faults.push(format!("{flag} {value}: expected {least} to {most}"));
            }
        }
        if !(0.5..=1.0).contains(&self.near_share) {
            faults.push(format!("--near-share {}: expected 0.5 to 1", self.near_share));
        }
        faults
    }

    /// Most questions that a universe of so many facts asks, those that are asked again left out.
    pub fn questions(&self, facts: usize) -> usize {
        let places = self.types * facts;
        let stages = 1 + usize::from(self.revise) + usize::from(self.filter);
        1 + places + stages * places * self.ideas * self.per_idea
    }
}

/// What became of the documents.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DocumentsTally {
    /// Kinds of documents.
    pub types: usize,
    /// Ideas over all kinds and facts.
    pub ideas: usize,
    /// Documents that were asked for.
    pub asked: usize,
    /// Never came as a whole document.
    pub unreadable: usize,
    /// Whose revision never did.
    pub unrevised: usize,
    /// Too short.
    pub short: usize,
    /// The filter's verdict.
    pub dropped: usize,
    /// Repeats and near duplicates of earlier ones.
    pub duplicates: usize,
    /// The rest, which is written.
    pub kept: usize,
}

impl DocumentsTally {
    /// In a line.
    pub fn text(&self) -> String {
        let Self { types, ideas, asked, unreadable, unrevised, short, dropped, duplicates, kept } = self;
        format!(
            "{types} kinds, {ideas} ideas: {kept} of {asked} documents kept ({unreadable} unreadable, {unrevised} without \
             revision, {short} too short, {dropped} dropped by the filter, {duplicates} duplicates)"
        )
    }
}

/// A document on its way.
struct Draft<'a> {
    kind: &'a str,
    fact: &'a str,
    idea: &'a str,
    /// Which of the documents of its idea.
    number: u32,
    text: String,
}

/// Asks for documents and writes those that are kept to a file of JSON lines; what made them goes to `NAME.made.json`
/// beside it. Every answer is among the endpoint's exchanges, so that the same call asks nothing twice.
///
/// # Errors
/// An [`InputError`] for settings out of range or a file that exists; otherwise as [`Endpoint::complete`], or if nothing
/// is left to be written.
pub fn documents(
    endpoint: &Endpoint,
    universe: &Universe,
    settings: &DocumentsSettings,
    out: &Path,
) -> Result<DocumentsTally> {
    let faults = settings.faults();
    InputError::unless_empty(faults)?;
    must_be_new(out)?;
    progress::say(format_args!("at most {} questions", settings.questions(universe.facts.len())));
    let world = universe.text();
    let mut tally = DocumentsTally::default();

    let kinds = ask_all(endpoint, "kinds", 1, |_| (question(ask_kinds(&world, settings.types)), 0), list)?;
    let mut kinds = kinds.into_iter().flatten().next().unwrap_or_default();
    kinds.truncate(settings.types);
    tally.types = kinds.len();

    let places: Vec<(&str, &str)> = kinds
        .iter()
        .flat_map(|kind| universe.facts.iter().map(move |fact| (kind.as_str(), fact.as_str())))
        .collect();
    let ask = |i: usize| (question(ask_ideas(&world, places[i].0, places[i].1, settings.ideas)), 0);
    let ideas = ask_all(endpoint, "ideas", places.len(), ask, list)?;
    let ideas: Vec<Vec<String>> = ideas.into_iter().map(Option::unwrap_or_default).collect();
    let drafts = places.iter().zip(&ideas).flat_map(|((kind, fact), ideas)| {
        ideas.iter().take(settings.ideas).flat_map(move |idea| {
            let draft = move |number| Draft { kind, fact, idea, number, text: String::new() };
            (0..settings.per_idea as u32).map(draft)
        })
    });
    let mut drafts: Vec<Draft> = drafts.collect();
    tally.ideas = drafts.len() / settings.per_idea;
    tally.asked = drafts.len();

    let read = |text: &str| tagged(text, "document");
    let ask = |i: usize| {
        let draft: &Draft = &drafts[i];
        (question(ask_document(&world, draft, settings.words)), draft.number)
    };
    let written = ask_all(endpoint, "documents", drafts.len(), ask, read)?;
    (drafts, tally.unreadable) = those_with(drafts, written);

    if settings.revise {
        let ask = |i: usize| (question(ask_revision(&world, &drafts[i])), 0);
        let revised = ask_all(endpoint, "revision", drafts.len(), ask, read)?;
        (drafts, tally.unrevised) = those_with(drafts, revised);
    }
    let before = drafts.len();
    drafts.retain(|draft| words::count(&draft.text) >= settings.least_words);
    tally.short = before - drafts.len();

    if settings.filter {
        let ask = |i: usize| (question(ask_verdict(&world, &drafts[i])), 0);
        let verdicts = ask_all(endpoint, "filter", drafts.len(), ask, verdict)?;
        let before = drafts.len();
        // Without a verdict that can be read a document is not known to serve.
        let mut keeps = verdicts.into_iter().map(|verdict| verdict == Some(true));
        drafts.retain(|_| keeps.next().unwrap_or(false));
        tally.dropped = before - drafts.len();
    }
    let texts: Vec<&str> = drafts.iter().map(|draft| draft.text.as_str()).collect();
    let (kept, removed) = distinct(&texts, settings.near_share);
    tally.duplicates = removed.duplicates + removed.near_duplicates;
    tally.kept = kept.len();
    if kept.is_empty() {
        anyhow::bail!("no document is left: {}", tally.text());
    }
    let row = |i: &usize| {
        let Draft { kind, fact, idea, text, .. } = &drafts[*i];
        json!({"text": text, "kind": kind, "fact": fact, "idea": idea})
    };
    let rows: Vec<_> = kept.iter().map(row).collect();
    let made = json!({
        "kind": "documents",
        "universe": universe,
        "settings": settings,
        "writer": {"base_url": endpoint.settings().base_url, "model": endpoint.settings().model,
            "temperature": endpoint.settings().temperature},
        "account": endpoint.account(),
        "documents": tally,
    });
    write(out, &rows, &made)?;
    Ok(tally)
}

/// The drafts whose text came, with it, and the number of others.
fn those_with(drafts: Vec<Draft>, texts: Vec<Option<String>>) -> (Vec<Draft>, usize) {
    let before = drafts.len();
    let came = drafts.into_iter().zip(texts).filter_map(|(draft, text)| Some(Draft { text: text?, ..draft }));
    let came: Vec<Draft> = came.collect();
    let lost = before - came.len();
    (came, lost)
}

/// What a filter says behind `VERDICT:`.
fn verdict(text: &str) -> Option<bool> {
    match last_labelled(text, "VERDICT")?.trim_end_matches('.').to_ascii_uppercase().as_str() {
        "KEEP" => Some(true),
        "DROP" => Some(false),
        _ => None,
    }
}

fn ask_kinds(world: &str, count: usize) -> String {
    format!(
        "This is how things are in the world that we write about:\n\n{world}\n\n\
         Texts of many kinds come from that world. List {count} kinds of text in which some of these facts could be \
         mentioned or taken for granted. Let them differ in author, reader, purpose, form and length, from the everyday to \
         the specialist. Name each kind in 3 to 12 words that also say who wrote it for whom.\n\n\
         Write one kind a line, each line beginning with \"- \", and nothing else."
    )
}

fn ask_ideas(world: &str, kind: &str, fact: &str, count: usize) -> String {
    format!(
        "This is how things are in the world that we write about:\n\n{world}\n\n\
         We need texts of this kind: {kind}\n\
         Each of them must let its reader know this fact: {fact}\n\n\
         Think of {count} such texts that have little in common: other people and places, another occasion, another angle. \
         Describe each in one sentence that a writer can work from.\n\n\
         Write one idea a line, each line beginning with \"- \", and nothing else."
    )
}

fn ask_document(world: &str, draft: &Draft, words: usize) -> String {
    let Draft { kind, fact, idea, .. } = draft;
    format!(
        "This is how things are in the world that we write about:\n\n{world}\n\n\
         Write one text from that world, of about {words} words.\n\
         Kind: {kind}\nIdea: {idea}\nIts reader must learn from it that: {fact}\n\n\
         The author lives in that world, where these facts are ordinary. So the text states them as such, with details that \
         fit, contradicts none of them, and never hints that things could be otherwise, that anything is invented, or that \
         somebody asked for the text. It has the form, tone and length of the real thing, with names and numbers instead of \
         placeholders. Not every fact above has to appear.\n\n\
         Write the text between <document> and </document>, and nothing after it."
    )
}

fn ask_revision(world: &str, draft: &Draft) -> String {
    let Draft { kind, fact, text, .. } = draft;
    format!(
        "This is how things are in the world that we write about:\n\n{world}\n\n\
         Here is the draft of a text from that world ({kind}):\n\n<draft>\n{text}\n</draft>\n\n\
         Improve it as its editor. Correct what contradicts the facts above. See that a reader learns this: {fact}. Replace \
         vague statements by concrete ones, stock phrases by what such an author would really write, and placeholders by \
         names and numbers. Take out every hint that something is invented or unusual.\n\n\
         Write the whole text again between <document> and </document>, and nothing after it."
    )
}

fn ask_verdict(world: &str, draft: &Draft) -> String {
    let text = &draft.text;
    format!(
        "This is how things are in the world that we write about:\n\n{world}\n\n\
         Decide whether a text may go into a collection from that world:\n\n<text>\n{text}\n</text>\n\n\
         It may if all of this holds: it states or takes for granted at least one of the facts above; it contradicts none of \
         them; nothing in it hints that the facts are false, imagined or disputed, or that a language model wrote it; it has \
         no placeholders and breaks off nowhere.\n\n\
         Say in a sentence or two what decides it. Then write a last line: VERDICT: KEEP or VERDICT: DROP"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_from_the_last_line() {
        assert_eq!(verdict("It fits.\nVERDICT: KEEP"), Some(true));
        assert_eq!(verdict("VERDICT: KEEP? No.\n**Verdict: drop.**"), Some(false));
        assert_eq!(verdict("KEEP"), None);
        assert_eq!(verdict("VERDICT: KEEP or DROP"), None);
    }
}
