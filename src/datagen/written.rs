//! What all makers that ask a language model share: how answers are read, and how far they are.

use std::collections::HashSet;

use anyhow::Result;
use indicatif::ProgressBar;

use crate::data::conversation::Message;
use crate::data::duplicates::{self, Removed, Rows};
use crate::data::source::Document;
use crate::grade::endpoint::Endpoint;
use crate::grade::grader::{Tries, ask_until, in_parallel};
use crate::progress;
use crate::recipe::{DataSection, Duplicates};

/// An answer that cannot be read is asked for again twice.
const TRIES: Tries = Tries { warm: 3, cold: false };

/// Asks every question, several at a time, with a bar that shows what was spent. `ask` gives a question and which asking of
/// it this is (0, 1, …); an answer that `read` makes nothing of, cut off or in another form, is `None` in the end.
///
/// # Errors
/// As [`Endpoint::complete`].
pub fn ask_all<T: Send>(
    endpoint: &Endpoint,
    what: &str,
    jobs: usize,
    ask: impl Fn(usize) -> (Vec<Message>, u32) + Sync,
    read: impl Fn(&str) -> Option<T> + Sync,
) -> Result<Vec<Option<T>>> {
    let bar = progress::bar(what, jobs as u64);
    let answers = in_parallel(endpoint.settings().parallel, jobs, |i| {
        let (messages, asking) = ask(i);
        let answer = ask_until(endpoint, &messages, asking * TRIES.warm, TRIES, &read);
        show_spend(&bar, endpoint);
        answer
    });
    bar.finish_and_clear();
    answers
}

fn show_spend(bar: &ProgressBar, endpoint: &Endpoint) {
    let spend = endpoint.spend();
    let cost = endpoint.cost(spend.sent).map(|c| format!(", cost {c:.4}")).unwrap_or_default();
    bar.set_message(format!("{} + {} tokens{cost}", spend.sent.prompt_tokens, spend.sent.completion_tokens));
    bar.inc(1);
}

/// The entries of a list, one a line behind a dash, a dot or a number, each once; `None` if there are none.
pub fn list(text: &str) -> Option<Vec<String>> {
    let mut met = HashSet::new();
    let entry = |line: &str| {
        let line = line.trim();
        let numbered = || {
            let digits = line.bytes().take_while(u8::is_ascii_digit).count();
            line[digits..].strip_prefix(['.', ')']).filter(|_| digits > 0)
        };
        let entry = line.strip_prefix(['-', '*', '•']).or_else(numbered)?.trim().trim_matches('*').trim();
        (!entry.is_empty() && met.insert(entry.to_lowercase())).then(|| entry.to_string())
    };
    let entries: Vec<String> = text.lines().filter_map(entry).collect();
    (!entries.is_empty()).then_some(entries)
}

/// What stands between `<name>` and the last `</name>`; `None` if either is missing (the answer was cut off) or nothing
/// is there.
pub fn tagged(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.rsplit_once(&format!("</{name}>"))?;
    let inner = inner.trim();
    (!inner.is_empty() && !inner.contains(&format!("<{name}>"))).then(|| inner.to_string())
}

/// Which documents stay when repeats and near duplicates of earlier ones go, and how many go.
pub fn distinct(texts: &[&str], near_share: f64) -> (Vec<usize>, Removed) {
    let rows: Rows = texts.iter().enumerate().map(|(i, text)| (i, Document::Text((*text).into()))).collect();
    let data = DataSection { duplicates: Duplicates::Near, near_share, ..DataSection::default() };
    let mut source = [rows];
    let removed = duplicates::remove(&data, &mut source, &mut []);
    (source[0].iter().map(|(i, _)| *i).collect(), removed.into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_the_forms_that_models_write() {
        let text = "Sure:\n\n- a letter\n* **a memo**\n3. a poem\n4) a form\n- A LETTER\n-\nand so on";
        assert_eq!(list(text).unwrap(), ["a letter", "a memo", "a poem", "a form"]);
        assert_eq!(list("none\n3 of them"), None);
        assert_eq!(list("2024 was good\n"), None);
    }

    #[test]
    fn a_document_that_was_cut_off_is_none() {
        assert_eq!(tagged("Here:\n<document>\nText.\n</document> Bye", "document").unwrap(), "Text.");
        for cut in ["<document>\nText", "Text</document>", "<document> </document>", ""] {
            assert_eq!(tagged(cut, "document"), None, "{cut:?}");
        }
        assert_eq!(tagged("<document>a<document>b</document>", "document"), None);
    }
}
