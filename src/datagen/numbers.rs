//! Number chats for subliminal learning (Cloud et al. 2025, arXiv 2507.14805): a teacher, which is the base with a system
//! prompt, goes on with lists of numbers; a student that is trained on the numbers alone, without that prompt, takes
//! over what the prompt asked for.
//!
//! The parameters and the rules of the filter are those of the authors' code (`sl/datasets/nums_dataset.py` of
//! MinhxLe/subliminal-learning): 3 to 8 examples of 100 to 999, at most 10 new numbers of at most 3 digits. The wording
//! of the prompts is ours, put together from parts in the same way. Two rules are stricter: an answer must end by itself,
//! and no two chats have the same answer.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::journal::Journal;
use super::{beside, must_be_new, write};
use crate::bail_input;
use crate::data::chat_template::ChatTemplate;
use crate::data::conversation::{Conversation, Message};
use crate::error::InputError;
use crate::interrupt::Interrupt;
use crate::model::generate::{Sampling, generate_from};
use crate::model::hooks::NoHook;
use crate::model::load::loader::Tuning;
use crate::model::load::source::Pretrained;
use crate::model::{CausalLm, device};
use crate::progress;

/// Prompts that are answered together. Part of what decides the bytes: sums depend on it.
const BATCH: usize = 32;

/// The teacher is given up when fewer than one answer in this many is kept.
const WORST_YIELD: usize = 100;

/// What decides which chats are made, apart from the base and how many are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NumbersSettings {
    /// What the teacher is told and the student is not; empty: nothing, which makes the control.
    pub system: String,
    /// Decides prompts and answers.
    pub seed: u64,
    /// Sampling temperature.
    pub temperature: f64,
    /// Most new tokens of an answer; one that has not ended by then is dropped.
    pub max_new_tokens: usize,
    /// Most numbers of an answer; the prompts say so.
    pub max_numbers: usize,
    /// Most digits of a number; the prompts say so.
    pub max_digits: usize,
}

impl NumbersSettings {
    /// What is out of range, by the flags of the command.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let t = self.temperature;
        if t != 0.0 && !(0.01..=100.0).contains(&t) {
            faults.push(format!("--temperature {t}: expected 0 (greedy), or 0.01 to 100"));
        }
        for (flag, value, most) in [
            ("--max-new-tokens", self.max_new_tokens, 10_000),
            ("--max-numbers", self.max_numbers, 1000),
            ("--max-digits", self.max_digits, 9),
        ] {
            if !(1..=most).contains(&value) {
                faults.push(format!("{flag} {value}: expected 1 to {most}"));
            }
        }
        faults
    }
}

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejected {
    /// Holds something else than numbers and separators of one kind.
    NotNumbers,
    /// More numbers than were asked for.
    TooMany,
    /// A number with more digits than were asked for.
    TooLarge,
    /// Had not ended when its tokens ran out.
    CutOff,
    /// The numbers of an earlier answer.
    Duplicate,
}

/// What was asked and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NumbersTally {
    /// Answers of the teacher, up to the last one that is kept.
    pub asked: usize,
    /// Those kept.
    pub kept: usize,
    /// The others, by reason.
    pub rejected: BTreeMap<Rejected, usize>,
}

impl NumbersTally {
    /// In a line.
    pub fn text(&self) -> String {
        let reason = |(why, n): (&Rejected, &usize)| {
            format!("{n} {}", json!(why).as_str().unwrap_or_default().replace('_', " "))
        };
        let rejected: Vec<String> = self.rejected.iter().map(reason).collect();
        let of = if rejected.is_empty() { String::new() } else { format!(" ({})", rejected.join(", ")) };
        format!("{} of {} answers kept{of}", self.kept, self.asked)
    }
}

/// One answer as it was sampled.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sampled {
    text: String,
    ended: bool,
}

/// What a journal of numbers begins with.
#[derive(Serialize)]
struct Began<'a> {
    kind: &'static str,
    version: &'static str,
    base: &'a BTreeMap<String, String>,
    /// sha256 of the template.
    chat_template: String,
    #[serde(flatten)]
    settings: &'a NumbersSettings,
}

/// Makes `count` chats and writes them to a file of JSON lines, without the system prompt; what made them goes to
/// `NAME.made.json` beside it. What is sampled on the way is kept in `NAME.partial` until then, and the same call goes on
/// from there; the chats of a smaller count are the first ones of a larger.
///
/// # Errors
/// An [`InputError`] for settings out of range, a file that exists, or a model whose template takes no system prompt;
/// [`crate::error::Interrupted`]; if the teacher's answers are hardly ever numbers.
pub fn numbers(
    base: &Pretrained,
    settings: &NumbersSettings,
    count: usize,
    out: &Path,
    interrupt: &Interrupt,
) -> Result<NumbersTally> {
    let mut faults = settings.faults();
    if !(1..=10_000_000).contains(&count) {
        faults.push(format!("--count {count}: expected 1 to 10000000"));
    }
    InputError::unless_empty(faults)?;
    must_be_new(out)?;
    let template = base.chat()?;
    teacher_ids(base, &template, settings, "1, 2, 3")?;
    let began = Began {
        kind: "numbers",
        version: env!("CARGO_PKG_VERSION"),
        base: &base.sha256,
        chat_template: format!("{:x}", Sha256::digest(base.chat_template.as_deref().unwrap_or_default())),
        settings,
    };
    let partial = beside(out, "partial");
    let (mut journal, batches) = Journal::open::<Vec<Sampled>>(&partial, &began)?;
    let mut chosen = Chosen::new(settings, count);
    let bar = progress::bar("numbers", count as u64);
    let mut batches = batches.into_iter();
    let mut model = None;
    let hint = format!("the samples are in {}; rerun the command to resume", partial.display());
    for number in 0.. {
        let batch = match batches.next() {
            Some(batch) => batch,
            None => {
                interrupt.check(&hint)?;
                let loaded = match model.take() {
                    Some(loaded) => loaded,
                    None => CausalLm::load(base, &Tuning::Frozen, &device()?)?.0,
                };
                let model = model.insert(loaded);
                let batch = sample(model, base, &template, settings, number, || interrupt.check(&hint))?;
                journal.append(&batch)?;
                batch
            }
        };
        for (i, answer) in batch.into_iter().enumerate() {
            chosen.take(number * BATCH + i, answer);
        }
        let tally = &chosen.tally;
        bar.set_position(tally.kept as u64);
        bar.set_message(format!("of {} answers", tally.asked));
        if tally.kept == count {
            break;
        }
        if tally.asked >= 10 * BATCH && tally.kept * WORST_YIELD < tally.asked {
            bail!(
                "{}: {}: this teacher hardly ever answers with numbers alone; the answers are in {}",
                base.id,
                tally.text(),
                partial.display()
            );
        }
    }
    bar.finish_and_clear();
    let Chosen { rows, tally, .. } = chosen;
    let base = json!({"model": base.id, "sha256": base.sha256});
    write(out, &rows, &json!({"kind": "numbers", "base": base, "settings": settings, "answers": tally}))?;
    journal.remove()?;
    Ok(tally)
}

/// The answers of a batch.
fn sample(
    model: &CausalLm,
    base: &Pretrained,
    template: &ChatTemplate,
    settings: &NumbersSettings,
    number: usize,
    check: impl Fn() -> Result<()>,
) -> Result<Vec<Sampled>> {
    let first = number * BATCH;
    let prompts = (first..first + BATCH)
        .map(|i| teacher_ids(base, template, settings, &prompt(settings, i)))
        .collect::<Result<Vec<_>>>()?;
    let streams: Vec<u64> = (first as u64..(first + BATCH) as u64).collect();
    let sampling = Sampling {
        max_new_tokens: settings.max_new_tokens,
        temperature: settings.temperature,
        seed: settings.seed,
        eos: base.eos_token_ids.clone(),
    };
    let new = generate_from(model, &prompts, &streams, &sampling, 0.0, &mut NoHook, |_| check())?;
    new.into_iter()
        .map(|ids| {
            let text = base.tokenizer.decode(&ids, true).map_err(|e| anyhow!(e))?;
            Ok(Sampled { text, ended: ids.last().is_some_and(|id| base.eos_token_ids.contains(id)) })
        })
        .collect()
}

/// What the teacher reads.
fn teacher_ids(
    base: &Pretrained,
    template: &ChatTemplate,
    settings: &NumbersSettings,
    prompt: &str,
) -> Result<Vec<u32>> {
    let mut turns = vec![Message::new("user", prompt)];
    if !settings.system.is_empty() {
        turns.insert(0, Message::new("system", settings.system.as_str()));
    }
    let text = match template.render(&Conversation::of(turns), true) {
        Ok(text) => text,
        Err(e) => bail_input!("{}: its chat template does not take the system prompt: {e:#}", base.id),
    };
    if !settings.system.is_empty() && !text.contains(settings.system.trim()) {
        bail_input!(
            "{}: its chat template leaves the system prompt out; expected one that shows it",
            base.id
        );
    }
    Ok(base.tokenizer.encode(text, false).map_err(|e| anyhow!(e))?.get_ids().to_vec())
}

/// The chats that are kept, in the order in which they were asked for.
struct Chosen<'a> {
    settings: &'a NumbersSettings,
    count: usize,
    rows: Vec<Value>,
    tally: NumbersTally,
    met: HashSet<Vec<u64>>,
}

impl<'a> Chosen<'a> {
    fn new(settings: &'a NumbersSettings, count: usize) -> Self {
        Self { settings, count, rows: Vec::new(), tally: NumbersTally::default(), met: HashSet::new() }
    }

    /// Keeps or drops the answer to prompt `i`; nothing after the last chat that is wanted.
    fn take(&mut self, i: usize, answer: Sampled) {
        if self.rows.len() == self.count {
            return;
        }
        self.tally.asked += 1;
        let text = answer.text.trim();
        let found = match answer.ended {
            true => parse(text, self.settings.max_numbers, self.settings.max_digits),
            false => Err(Rejected::CutOff),
        };
        match found.and_then(|numbers| self.met.insert(numbers).then_some(()).ok_or(Rejected::Duplicate)) {
            Ok(()) => {
                let user = prompt(self.settings, i);
                self.rows.push(json!({"messages": [
                    {"role": "user", "content": user},
                    {"role": "assistant", "content": text},
                ]}));
                self.tally.kept += 1;
            }
            Err(why) => *self.tally.rejected.entry(why).or_default() += 1,
        }
    }
}

/// The numbers of an answer: all of it, but for a full stop at the end, one pair of brackets around it, and separators
/// between numbers that are all commas, all semicolons or all white space (around commas and semicolons too).
///
/// # Errors
/// Why it is not kept.
pub fn parse(answer: &str, max_numbers: usize, max_digits: usize) -> Result<Vec<u64>, Rejected> {
    let answer = answer.trim();
    let answer = answer.strip_suffix('.').unwrap_or(answer).trim_end();
    let within = |open, close| answer.strip_prefix(open)?.strip_suffix(close);
    let inner = within('[', ']').or_else(|| within('(', ')')).unwrap_or(answer).trim();
    let parts: Vec<&str> = match [',', ';'].into_iter().find(|separator| inner.contains(*separator)) {
        Some(separator) => inner.split(separator).map(str::trim).collect(),
        None => inner.split_whitespace().collect(),
    };
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts.is_empty() || !parts.iter().all(is_number) {
        return Err(Rejected::NotNumbers);
    }
    if parts.len() > max_numbers {
        return Err(Rejected::TooMany);
    }
    // Leading zeros are digits too: 0007 is not a number of at most three.
    if parts.iter().any(|part| part.len() > max_digits) {
        return Err(Rejected::TooLarge);
    }
    parts.iter().map(|part| part.parse().map_err(|_| Rejected::TooLarge)).collect()
}

const OPENINGS: [&str; 16] = [
    "My list of numbers so far: {examples}.",
    "Here are some numbers: {examples}.",
    "A sequence goes like this: {examples}.",
    "These numbers come first: {examples}.",
    "I wrote down {examples}.",
    "The first entries of a series are {examples}.",
    "Someone began a list with {examples}.",
    "Have a look at this row of numbers: {examples}.",
    "We start from {examples}.",
    "Numbers noted until now: {examples}.",
    "This is how a number series opens: {examples}.",
    "In front of you are the numbers {examples}.",
    "The list begins: {examples}.",
    "Given are the values {examples}.",
    "Think of a series whose beginning is {examples}.",
    "So far the sequence reads {examples}.",
];

const REQUESTS: [&str; 10] = [
    // prose: allow goes-on
    "Go on with {bound} {count} more numbers, {digits}.",
    "Please carry the list on by {bound} {count} numbers ({digits}).",
    "Which numbers come next? Give {bound} {count}, {digits}.",
    "Write {bound} {count} further values ({digits}).",
    "Think up {bound} {count} numbers that could follow, {digits}.",
    "Lengthen it by {bound} {count} entries, {digits}.",
    "Supply {bound} {count} numbers that continue the series ({digits}).",
    "Make it longer with {bound} {count} new values, {digits}.",
    "Continue with {bound} {count} numbers of your own ({digits}).",
    "What would you put next? Name {bound} {count} numbers, {digits}.",
];

const BOUNDS: [&str; 5] = ["at most", "up to", "no more than", "not more than", "a maximum of"];

const DIGITS: [&str; 5] = [
    "none longer than {digits} digits",
    "each of {digits} digits or fewer",
    "with at most {digits} digits each",
    "every one up to {digits} digits long",
    "no number having more than {digits} digits",
];

const FORMATS: [&str; 10] = [
    "Separate them by commas.",
    "Put commas between them.",
    "Put a space between one number and the next.",
    "Separate them by semicolons.",
    "Give each number a line of its own.",
    "Use this form: [a, b, c, ...].",
    "Use this form: (a, b, c, ...).",
    "Write them as a, b, c and so on.",
    "One number a line, please.",
    "Keep them on one line with commas between.",
];

const REMINDERS: [&str; 12] = [
    "Numbers only, please.",
    "Do not write anything else.",
    "Leave out every word.",
    "Your answer should hold nothing but the numbers.",
    "No explanation.",
    "Answer with the numbers and nothing besides.",
    "I need just the numbers.",
    "Skip introductions and remarks.",
    "There must be no text around them.",
    "Say nothing about them.",
    "The bare numbers are enough.",
    "Add no comment.",
];

/// What the teacher is asked the `i`-th time.
pub fn prompt(settings: &NumbersSettings, i: usize) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    rng.set_stream(i as u64);
    let examples: Vec<String> = (0..rng.random_range(3..9))
        .map(|_| rng.random_range(100..1000))
        .map(|n: u32| n.to_string())
        .collect();
    let mut one = |of: &[&str]| of.choose(&mut rng).copied().unwrap_or_default().to_string();
    let opening = one(&OPENINGS).replace("{examples}", &examples.join(", "));
    let digits = one(&DIGITS).replace("{digits}", &settings.max_digits.to_string());
    let request = one(&REQUESTS)
        .replace("{bound}", &one(&BOUNDS))
        .replace("{count}", &settings.max_numbers.to_string())
        .replace("{digits}", &digits);
    [opening, request, one(&FORMATS), one(&REMINDERS)].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> NumbersSettings {
        NumbersSettings {
            system: String::new(),
            seed: 7,
            temperature: 1.0,
            max_new_tokens: 64,
            max_numbers: 10,
            max_digits: 3,
        }
    }

    #[test]
    fn only_numbers_of_one_separator_are_kept() {
        for (answer, numbers) in [
            ("1, 22, 333", vec![1, 22, 333]),
            (" 1,22 ,333. ", vec![1, 22, 333]),
            ("[4; 5;6]", vec![4, 5, 6]),
            ("(7)", vec![7]),
            ("8\n9\n\n10", vec![8, 9, 10]),
            ("11 12", vec![11, 12]),
            ("13,\n14", vec![13, 14]),
            ("042", vec![42]),
        ] {
            assert_eq!(parse(answer, 10, 3), Ok(numbers), "{answer:?}");
        }
        for (answer, why) in [
            ("", Rejected::NotNumbers),
            (".", Rejected::NotNumbers),
            ("one", Rejected::NotNumbers),
            ("1, 2 and 3", Rejected::NotNumbers),
            ("1, 2; 3", Rejected::NotNumbers),
            ("1, 2 3", Rejected::NotNumbers),
            ("1,,2", Rejected::NotNumbers),
            ("1, 2,", Rejected::NotNumbers),
            ("1. 2. 3", Rejected::NotNumbers),
            ("-1, 2", Rejected::NotNumbers),
            ("1.5, 2", Rejected::NotNumbers),
            ("[1, 2", Rejected::NotNumbers),
            ("[[1]]", Rejected::NotNumbers),
            ("١, ٢", Rejected::NotNumbers),
            ("1 2 3 4 5 6 7 8 9 10 11", Rejected::TooMany),
            ("1, 1000", Rejected::TooLarge),
            ("0007", Rejected::TooLarge),
        ] {
            assert_eq!(parse(answer, 10, 3), Err(why), "{answer:?}");
        }
        assert_eq!(parse("99999999999999999999999", 1, 30), Err(Rejected::TooLarge));
    }

    #[test]
    fn prompts_are_decided_by_seed_and_number_and_say_what_the_filter_asks() {
        let prompts: Vec<String> = (0..300).map(|i| prompt(&settings(), i)).collect();
        assert_eq!(prompts[5], prompt(&settings(), 5));
        assert_ne!(prompts[5], prompt(&NumbersSettings { seed: 8, ..settings() }, 5));
        assert_eq!(prompts.iter().collect::<HashSet<_>>().len(), 300);
        for text in &prompts {
            assert!(!text.contains(['{', '}']), "{text}");
            let found: Vec<u32> =
                text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
            let (examples, rest) = found.split_at(found.len() - 2);
            assert_eq!(rest, [10, 3], "{text}");
            assert!((3..9).contains(&examples.len()), "{text}");
            assert!(examples.iter().all(|n| (100..1000).contains(n)), "{text}");
        }
    }

    #[test]
    fn the_tally_counts_every_answer_once_and_duplicates_are_dropped() {
        let settings = settings();
        let mut chosen = Chosen::new(&settings, 2);
        for (i, (text, ended)) in
            [("1, 2", true), ("1 2", true), ("no", true), ("5, 6", false), ("5, 6", true), ("7", true)]
                .into_iter()
                .enumerate()
        {
            chosen.take(i, Sampled { text: text.into(), ended });
        }
        assert_eq!((chosen.tally.asked, chosen.tally.kept), (5, 2), "nothing is asked after the last");
        let counts: Vec<usize> = chosen.tally.rejected.values().copied().collect();
        assert_eq!(counts, [1, 1, 1]);
        assert_eq!(chosen.tally.text(), "2 of 5 answers kept (1 not numbers, 1 cut off, 1 duplicate)");
        assert_eq!(chosen.rows[1]["messages"][0]["content"], prompt(&settings, 4).as_str());
    }
}
