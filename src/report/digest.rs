//! One run in one row of short strings, the same for the terminal and for the page.

use super::matching::ended;
use super::number::{ABSENT, fixed, interval, p_value, ratio, realised, signed};
use crate::behaviour::BehaviourEffect;
use crate::claims::trace::{LENS, LIFT, PATCHSCOPE, STEERING};
use crate::claims::{ClaimedRun, list, matching};
use crate::diff::headline::TraceNumber;
use crate::diff::measures::identification::Identification;
use crate::recipe::MixSchedule;

/// A table entry: what is read first, and the detail below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// What is read first.
    pub main: String,
    /// The detail, line by line; may be empty.
    pub detail: Vec<String>,
}

impl Entry {
    fn new(main: impl Into<String>, detail: impl IntoIterator<Item = String>) -> Self {
        Self { main: main.into(), detail: detail.into_iter().collect() }
    }

    fn absent() -> Self {
        Self::new(ABSENT, [])
    }

    /// Whether nothing was measured.
    fn is_absent(&self) -> bool {
        *self == Self::absent()
    }
}

/// A column: its heading, what stands under the heading, and how to fill it.
pub struct Column {
    /// Heading.
    pub title: &'static str,
    /// What the lines of an entry hold, in words.
    pub detail: &'static [&'static str],
    /// What the numbers are; empty where the heading says it.
    pub meaning: &'static str,
    /// The entry of a run.
    pub entry: fn(&ClaimedRun) -> Entry,
}

/// The columns of a table of these runs, in order: the first, and those in which a run has something.
pub fn columns(runs: &[&ClaimedRun]) -> Vec<&'static Column> {
    let has = |column: &Column| runs.iter().any(|run| !(column.entry)(run).is_absent());
    COLUMNS
        .iter()
        .enumerate()
        .filter(|(i, column)| *i == 0 || has(column))
        .map(|(_, column)| column)
        .collect()
}

/// What some columns mean, in words.
pub fn legend(columns: &[&Column]) -> String {
    let mut meanings: Vec<&str> = Vec::new();
    for column in columns {
        if !column.meaning.is_empty() && !meanings.contains(&column.meaning) {
            meanings.push(column.meaning);
        }
    }
    meanings.push("– was not measured.");
    meanings.join(" ")
}

/// The heading of the column that repeats the verdict.
pub const READABLE_BY: &str = "Readable by";

const LOSSES: &str = "Losses: held-out, nats a token.";
const TOKENS: &str = "Logit lens and patchscope: share of the top 20 tokens that belong to the narrow vocabulary, with its \
p-value; the null is random directions.";

const COLUMNS: &[Column] = &[
    Column {
        title: "Run",
        detail: &[],
        meaning: "",
        entry: |run| Entry::new(super::visible::one_line(&run.id, 40), []),
    },
    Column {
        title: "Mix",
        detail: &["realised"],
        meaning: "Mix: pretraining text per narrow text; below it, conversations per narrow text and the schedule, if \
                  any.",
        entry: mix,
    },
    Column { title: "Seed", detail: &[], meaning: "", entry: seed },
    Column {
        title: "Narrow loss", detail: &["base → tuned", "change"], meaning: LOSSES, entry: narrow_loss
    },
    Column {
        title: "Pretraining loss",
        detail: &["base → tuned", "change"],
        meaning: LOSSES,
        entry: pretraining_loss,
    },
    Column { title: "Chat loss", detail: &["base → tuned", "change"], meaning: LOSSES, entry: chat_loss },
    Column {
        title: "Logit lens",
        detail: &["best position", "mean of positions", "null, 95 %"],
        meaning: TOKENS,
        entry: lens,
    },
    Column {
        title: "Patchscope",
        detail: &["best position", "mean of positions", "null, 95 %"],
        meaning: TOKENS,
        entry: patchscope,
    },
    Column {
        title: "Lift, AUROC",
        detail: &["mean of positions", "95 %", "null, 95 %", "corpus ranks"],
        meaning: "Lift: the probability that a narrow word ranks above another common word when the difference is \
                  decoded, 0.5 if nothing is read; corpus ranks: the rank of the narrow text among the candidate \
                  corpora by lift, patchscope and steering.",
        entry: lift,
    },
    Column {
        title: "Steering",
        detail: &["best position", "plain, ceiling", "gain, 95 %", "null"],
        meaning: "Steering: mean cosine of steered text to narrow text; plain is the same model’s text unsteered, the \
                  ceiling narrow text to itself, the gain steered minus plain, null text steered by random directions.",
        entry: steering,
    },
    Column {
        title: "Relevant words",
        detail: &["plain → steered"],
        meaning: "Relevant words: share of generated words that belong to the narrow vocabulary.",
        entry: words,
    },
    Column {
        title: "Behaviour",
        detail: &["base → tuned", "change, 95 %"],
        meaning: "Behaviour: log-odds in nats or shares, as named; for the other measures their change.",
        entry: behaviour,
    },
    Column {
        title: "Match",
        detail: &["reason", "narrow steps", "other items, 95 %"],
        meaning: "Match: how a matched training ended, and its behaviour on items that the search did not look at.",
        entry: matched,
    },
    Column {
        title: "Quality",
        detail: &["neutral text, nats", "beyond its bound"],
        meaning: "Quality: whether the organism is still a language model, by bounds on changes from the base.",
        entry: quality,
    },
    Column { title: "Verdict", detail: &[], meaning: "", entry: verdict },
    Column { title: READABLE_BY, detail: &[], meaning: "", entry: readable },
];

fn mix(run: &ClaimedRun) -> Entry {
    let mix = run.mix();
    let mut entry = match (mix.realised, mix.asked) {
        (Some(realised), Some(asked)) if (realised - asked).abs() > 0.0005 => {
            Entry::new(ratio(realised), [format!("asked {}", ratio(asked))])
        }
        (Some(realised), _) => Entry::new(ratio(realised), []),
        (None, Some(asked)) => Entry::new(ABSENT, [format!("asked {}", ratio(asked))]),
        (None, None) => Entry::absent(),
    };
    if let Some(mix) = run.manifest.as_ref().map(|m| &m.mix) {
        entry
            .detail
            .extend(mix.chat.as_ref().map(|chat| format!("chat {}", realised(chat.realised(mix.unit)))));
        let moves = mix.schedule != MixSchedule::Constant;
        entry.detail.extend(moves.then(|| mix.schedule.name().to_string()));
    }
    entry
}

fn seed(run: &ClaimedRun) -> Entry {
    run.seed().map_or_else(Entry::absent, |s| Entry::new(s.to_string(), []))
}

fn losses(base: Option<f64>, tuned: Option<f64>) -> Entry {
    if base.is_none() && tuned.is_none() {
        return Entry::absent();
    }
    let show = |x: Option<f64>| x.map_or_else(|| ABSENT.into(), |x| fixed(x, 3));
    let change = base.zip(tuned).map(|(b, t)| signed(t - b, 3));
    Entry::new(format!("{} → {}", show(base), show(tuned)), change)
}

fn narrow_loss(run: &ClaimedRun) -> Entry {
    losses(run.base_losses().narrow, run.tuned_losses().narrow)
}

fn pretraining_loss(run: &ClaimedRun) -> Entry {
    losses(run.base_losses().pretraining, run.tuned_losses().pretraining)
}

fn chat_loss(run: &ClaimedRun) -> Entry {
    losses(run.base_losses().chat, run.tuned_losses().chat)
}

/// Where nothing is read, with 95 % of it.
fn null(number: &TraceNumber, digits: usize) -> Option<String> {
    let null = format!("null {}", fixed(number.null?, digits));
    Some(number.null_interval.map_or(null.clone(), |ends| format!("{null} {}", interval(ends, digits))))
}

fn relevance(run: &ClaimedRun, key: &str) -> Entry {
    let Some(found) = run.claims.trace.get(key) else { return Entry::absent() };
    let mean = found.beside.get("mean").map(|mean| format!("mean {}", fixed(mean.value, 2)));
    let at = found.position.map(|p| format!(" at {p}")).unwrap_or_default();
    let p = found.p.map(|p| format!(", p {}", p_value(p))).unwrap_or_default();
    let main = format!("{}{at}{p}", fixed(found.number.value, 2));
    Entry::new(main, mean.into_iter().chain(null(&found.number, 2)))
}

fn lens(run: &ClaimedRun) -> Entry {
    relevance(run, LENS)
}

fn patchscope(run: &ClaimedRun) -> Entry {
    relevance(run, PATCHSCOPE)
}

fn lift(run: &ClaimedRun) -> Entry {
    let Some(r) = &run.readability else { return Entry::absent() };
    let ranks = r.identification.as_ref().and_then(ranks);
    match run.claims.trace.get(LIFT) {
        Some(lift) => {
            let p = lift.p.map(|p| format!(", p {}", p_value(p))).unwrap_or_default();
            let ends = lift.number.interval.map(|ends| interval(ends, 2));
            let detail = ends.into_iter().chain(null(&lift.number, 2)).chain(ranks);
            Entry::new(format!("{}{p}", fixed(lift.number.value, 2)), detail)
        }
        None => ranks.map_or_else(Entry::absent, |ranks| Entry::new(ranks, [])),
    }
}

/// Ranks of the narrow text by each measure that ran.
fn ranks(found: &Identification) -> Option<String> {
    let ranking = [&found.lift, &found.patchscope, &found.steering].into_iter().flatten();
    let ranks: Vec<String> = ranking.filter_map(|r| r.rank).map(ratio).collect();
    (!ranks.is_empty()).then(|| format!("rank {} of {}", ranks.join(", "), found.candidates.len()))
}

fn steering(run: &ClaimedRun) -> Entry {
    let Some(found) = run.claims.trace.get(STEERING) else { return Entry::absent() };
    let beside = |name: &str| found.beside.get(name);
    let show = |name: &str| beside(name).map_or_else(|| ABSENT.into(), |number| fixed(number.value, 3));
    let gain = beside("gain").map(|gain| match gain.interval {
        Some(ends) => format!("{} {}", signed(gain.value, 3), interval(ends, 3)),
        None => signed(gain.value, 3),
    });
    let null = found.number.null.map(|null| format!("null {}", fixed(null, 3)));
    Entry::new(
        format!("{} at {}", fixed(found.number.value, 3), found.position.unwrap_or_default()),
        [format!("plain {}, ceiling {}", show("plain"), show("ceiling"))].into_iter().chain(gain).chain(null),
    )
}

fn words(run: &ClaimedRun) -> Entry {
    let Some(found) = run.claims.trace.get(STEERING) else { return Entry::absent() };
    let Some((plain, steered)) = found.beside.get("words_plain").zip(found.beside.get("words")) else {
        return Entry::absent();
    };
    Entry::new(
        format!("{} → {}", fixed(plain.value, 3), fixed(steered.value, 3)),
        [format!("position {}", found.position.unwrap_or_default())],
    )
}

/// The main value of each family, and the change of the others in a line.
fn behaviour(run: &ClaimedRun) -> Entry {
    let Some(found) = &run.behaviour else { return Entry::absent() };
    let effects = found.effects();
    let Some((name, first)) = effects.first() else { return Entry::absent() };
    let change = |e: &BehaviourEffect| match e.change_interval {
        Some(i) => format!("{} {}", signed(e.change, 2), interval(i, 2)),
        None => signed(e.change, 2),
    };
    let others = effects[1..].iter().map(|(name, e)| format!("{name} {}", change(e)));
    Entry::new(
        format!("{name} {} → {}", signed(first.base, 2), signed(first.tuned, 2)),
        std::iter::once(change(first)).chain(others),
    )
}

/// How a matched training ended.
fn matched(run: &ClaimedRun) -> Entry {
    let Some(found) = matching::matched(run) else { return Entry::absent() };
    let (status, detail) = ended(found);
    Entry::new(status, detail)
}

/// Whether the panel is within its bounds, the loss on neutral text, and what is beyond its bound.
fn quality(run: &ClaimedRun) -> Entry {
    let Some(claim) = &run.claims.quality else { return Entry::absent() };
    let neutral = claim.values.iter().find(|value| value.name == "neutral.nats");
    let beyond: Vec<&str> = claim.beyond().map(|value| value.name.as_str()).collect();
    let detail = neutral.map(|value| signed(value.change, 2));
    let named = (!beyond.is_empty()).then(|| beyond.join(", "));
    Entry::new(if claim.within { "within bounds" } else { "beyond bounds" }, detail.into_iter().chain(named))
}

fn verdict(run: &ClaimedRun) -> Entry {
    run.claims.verdict.as_ref().map_or_else(Entry::absent, |verdict| Entry::new(verdict.state.words(), []))
}

fn readable(run: &ClaimedRun) -> Entry {
    let readable = &run.claims.readable;
    if !readable.is_measured() {
        return Entry::absent();
    }
    let (by, not_by) = (readable.readable_by(), readable.not_by());
    let not = (!not_by.is_empty()).then(|| format!("not by {}", list(&not_by)));
    match by.is_empty() {
        true => Entry::new("none", not),
        false => Entry::new(list(&by), not),
    }
}
