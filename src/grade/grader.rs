//! Language models as graders, over any OpenAI-compatible chat-completions endpoint: the protocol of arXiv 2510.13900
//! for those who want it. Nothing here knows what an activation difference is; a question goes in as text.
//!
//! [`super::endpoint`] asks, [`super::exchanges`] remembers, and each kind of question is one file: its prompt, and what counts as
//! an answer. The prompts are our own wording of the questions that the authors' toolkit asks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use crate::data::conversation::Message;
use crate::grade::endpoint::{Ask, Endpoint};

/// How often a question is asked until an answer can be read.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    /// Times at the endpoint's temperature.
    pub warm: u32,
    /// Whether it is then asked once more at temperature 0.
    pub cold: bool,
}

impl Tries {
    /// Number and temperature (none: the endpoint's) of each try.
    pub fn each(self) -> impl Iterator<Item = (u32, Option<f64>)> {
        let cold = self.cold.then_some((self.warm, Some(0.0)));
        (0..self.warm).map(|i| (i, None)).chain(cold)
    }
}

/// Asks until `read` makes something of the answer; `None` if it never does. `sample` tells apart askings of the
/// same question; those of its tries follow it.
///
/// # Errors
/// As [`Endpoint::complete`].
pub fn ask_until<T>(
    endpoint: &Endpoint,
    messages: &[Message],
    sample: u32,
    tries: Tries,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>> {
    for (i, temperature) in tries.each() {
        let answer = endpoint.complete(&Ask { messages, temperature, sample: sample + i })?;
        if let Some(read) = read(without_thoughts(&answer.text)) {
            return Ok(Some(read));
        }
    }
    Ok(None)
}

/// An answer without the thoughts that some models write before it.
pub fn without_thoughts(text: &str) -> &str {
    text.rsplit_once("</think>").map_or(text, |(_, said)| said).trim()
}

/// A question from the user's side alone.
pub fn question(text: String) -> Vec<Message> {
    vec![Message::new("user", text)]
}

/// What stands behind the last `label:` at the beginning of a line, bold or not.
pub(crate) fn last_labelled<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines().rev().find_map(|line| {
        let line = line.trim().trim_matches(['*', '`', '#', ' ']);
        let rest =
            line.get(..label.len()).filter(|l| l.eq_ignore_ascii_case(label)).map(|l| &line[l.len()..])?;
        let value = rest.trim_start_matches('*').trim_start().strip_prefix(':')?;
        Some(value.trim().trim_matches(['*', '`']).trim())
    })
}

/// Text in quotation marks, line breaks and quotation marks in it escaped.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::String(text.into()).to_string()
}

/// Does `jobs` jobs, `threads` at a time, and gives their results in order. After a failure no further one begins.
///
/// # Errors
/// The first failure, in the order of the jobs.
pub fn in_parallel<T: Send>(
    threads: usize,
    jobs: usize,
    job: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results: Vec<Mutex<Option<Result<T>>>> = (0..jobs).map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        for _ in 0..threads.min(jobs) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(slot) = results.get(i) else { break };
                    let result = job(i);
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    *slot.lock().expect("a slot has one writer") = Some(result);
                }
            });
        }
    });
    let results = results.into_iter().filter_map(|slot| slot.into_inner().ok().flatten());
    let results = results.collect::<Result<Vec<T>>>()?;
    if results.len() < jobs { Err(anyhow!("some jobs were not done")) } else { Ok(results) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_the_first_failure_is_told() {
        let squares = in_parallel(3, 20, |i| Ok(i * i)).unwrap();
        assert_eq!(squares, (0..20).map(|i| i * i).collect::<Vec<_>>());
        let failed = in_parallel(3, 20, |i| if i >= 4 { Err(anyhow!("job {i}")) } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "job 4");
        assert!(in_parallel(3, 0, |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn labels_are_found_bold_or_not_and_the_last_one_counts() {
        let text = "SCORE: 1\nbecause\n**Score:** 4\n";
        assert_eq!(last_labelled(text, "SCORE"), Some("4"));
        assert_eq!(last_labelled("**SCORE: 2**", "SCORE"), Some("2"));
        assert_eq!(last_labelled("the SCORE: 2", "SCORE"), None);
        assert_eq!(last_labelled("ÄÄÄÄÄ", "SCORE"), None);
    }
}
