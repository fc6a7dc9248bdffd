//! The four questions that a page answers first: is the trace readable, by what, is it still there after mixing, and did the
//! organism keep its behaviour?

use super::matching::equal_in;
use super::meets_null::mix;
use super::number::{fixed, interval, signed};
use super::quality;
use super::remaining::left_at;
use super::series::MixSeries;
use super::verdict::{by_mix, loss, shares_of_states};
use super::words::capitalized;
use crate::claims::across::RunCounts;
use crate::claims::rules::ALPHA;
use crate::claims::verdict::{ReaderClaim, ReaderState, Verdict};
use crate::claims::{ClaimedRun, list};

/// A question, and sentences that answer it.
pub(super) type Answer = (&'static str, Vec<String>);

const READABLE: &str = "Is the trace readable?";
const BY_WHAT: &str = "By what?";
const MIXED: &str = "Is it still there after mixing?";
const BEHAVIOUR: &str = "Does the organism do what it was made for?";

/// Most settings that are answered for one by one.
const SETTINGS: usize = 4;

/// The answers on one run.
pub(super) fn of_run(run: &ClaimedRun) -> Vec<Answer> {
    let Some(verdict) = &run.claims.verdict else {
        return vec![(READABLE, vec!["Not analysed: run trainer diff.".into()])];
    };
    let mut answers = vec![(READABLE, vec![capitalized(&format!("{}.", verdict.headline))])];
    let by_what = by_what(verdict);
    if !by_what.is_empty() {
        answers.push((BY_WHAT, by_what));
    }
    let behaviour = behaviour(run);
    if !behaviour.is_empty() {
        answers.push((BEHAVIOUR, behaviour));
    }
    answers
}

/// The answers on several runs, of some settings.
pub(super) fn of_runs(runs: &[ClaimedRun], counts: &RunCounts, settings: &[MixSeries]) -> Vec<Answer> {
    let name = |series: &MixSeries, text: String| match settings.len() {
        1 => capitalized(&text),
        _ => format!("{}: {text}", series.label),
    };
    let readable = vec![format!("{} runs: {}.", counts.runs, shares_of_states(counts))];
    let (mut by_what, mut mixed, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for series in settings.iter().take(SETTINGS) {
        by_what.extend(by_mix(series.claims, runs).into_iter().map(|text| name(series, text)));
        let Some((lowest, _)) = series.first() else { continue };
        let lowest = mix(*lowest);
        let (mut trace, mut behaviour) = (Vec::new(), Vec::new());
        for (ratio, _) in series.iter().skip(1) {
            let sentence = |left: Vec<String>, of: &str| {
                let (ratio, equal) = (mix(*ratio), equal_in(series.claims));
                let text =
                    format!("at mix {ratio}, {} of the {of} at mix {lowest} (at {equal}).", list(&left));
                (!left.is_empty()).then(|| name(series, text))
            };
            trace.extend(sentence(left_at(series, *ratio, false), "value"));
            behaviour.extend(sentence(left_at(series, *ratio, true), "change"));
        }
        if series.len() > 1 && trace.is_empty() {
            trace.push(name(series, format!("no measure exceeds its null at mix {lowest}.")));
        }
        let has_behaviour = series.claims.doses.keys().any(|key| key.starts_with("behaviour."));
        if has_behaviour && series.len() > 1 && behaviour.is_empty() {
            behaviour
                .push(name(series, format!("no behaviour clearly differs from the base at mix {lowest}.")));
        }
        mixed.extend(trace);
        kept.extend(behaviour);
    }
    let answers = [(READABLE, readable), (BY_WHAT, by_what), (MIXED, mixed), (BEHAVIOUR, kept)];
    answers.into_iter().filter(|(_, sentences)| !sentences.is_empty()).collect()
}

/// Which readers read it, with their excess, which do not, and which were not compared.
fn by_what(verdict: &Verdict) -> Vec<String> {
    let named = |state: ReaderState| {
        let those = verdict.readers.values().filter(move |claim| claim.state == state);
        those.map(with_floor).collect::<Vec<_>>()
    };
    let groups = [
        (ReaderState::Reads, "Above the floor of other organisms"),
        (ReaderState::ReadsAgainstOwnNull, "Above random directions only, not compared with other organisms"),
        (ReaderState::DoesNotRead, "Not above what they were compared with"),
        (ReaderState::NotCompared, "Not compared"),
    ];
    let said = groups.map(|(state, words)| (words, named(state)));
    said.iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(words, names)| format!("{words}: {}.", list(names)))
        .collect()
}

/// The score of a reader and its floor; of one that is above its floor and does not read the trace, also why.
fn with_floor(claim: &ReaderClaim) -> String {
    let score = format!("{} {}", claim.name, fixed(claim.value, 2));
    let Some(floor) = &claim.floor else { return score };
    let is_above = claim.state == ReaderState::DoesNotRead && claim.value > floor.bound;
    let why = match claim.holm_p {
        Some(p) if is_above && p > ALPHA => format!("; Holm's p {}", fixed(p, 2)),
        _ if is_above => "; not above random directions".into(),
        _ => String::new(),
    };
    format!("{score} (floor {}{why})", fixed(floor.bound, 2))
}

fn behaviour(run: &ClaimedRun) -> Vec<String> {
    let learned = &run.claims.learned;
    let mut sentences = Vec::new();
    if let Some(e) = &learned.behaviour {
        let ends = e.change_interval.map(|i| format!(" {}", interval(i, 2))).unwrap_or_default();
        let (base, tuned, change) = (signed(e.base, 2), signed(e.tuned, 2), signed(e.change, 2));
        sentences
            .push(format!("Behaviour {} went from {base} to {tuned}, a change of {change}{ends}.", e.name));
    }
    sentences.extend(loss(learned));
    sentences.extend(run.claims.quality.as_ref().map(|claim| capitalized(&quality::line(claim))));
    sentences
}
