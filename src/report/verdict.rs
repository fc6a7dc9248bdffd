//! The claims on one run in sentences that say no more than the numbers do.

use super::matching::basis;
use super::meets_null::mix;
use super::number::{ABSENT, fixed, interval, p_value, ratio, signed};
use crate::claims::across::{MixGroup, RunCounts, SettingClaims};
use crate::claims::learned::Learned;
use crate::claims::length::DifferenceLength;
use crate::claims::power::MixVerdict;
use crate::claims::readable::{DecodingEvidence, ReadableBy, SteeringEvidence};
use crate::claims::rules::ALPHA;
use crate::claims::stronger::{BiasEvidence, ProbeEvidence, StrongerReaders};
use crate::claims::verdict::{ReaderClaim, ReaderState, Verdict, VerdictState};
use crate::claims::{ClaimedRun, RunClaims, list};

/// Why a run counts as readable or not: one sentence a measure, in the order logit lens, patchscope, lift, steering; then how
/// long the difference is, and how well the run learned, where that is known; then one on what the organism does. Empty
/// without an analysis.
pub fn reasons(claims: &RunClaims) -> Vec<String> {
    if claims.verdict.is_none() {
        return Vec::new();
    }
    let mut sentences: Vec<String> = claims.readable.measures.values().map(of_measure).collect();
    if claims.readable.without_words {
        sentences.push(
            "No word of the narrow text stands out against the pretraining and measured text, so the relevance of \
             tokens was not measured."
                .into(),
        );
    }
    if sentences.is_empty() {
        sentences.push(
            "No narrow text was given (data.narrow), so tokens and texts cannot be scored: judge the tokens and texts \
             below yourself."
                .into(),
        );
    } else {
        // Whether there was anything to read: a run that learned nothing is not evidence on traces.
        sentences.extend(claims.length.as_ref().map(of_length));
        sentences.extend(loss(&claims.learned));
    }
    if let Some(e) = &claims.learned.behaviour {
        let ends = e.change_interval.map(|i| format!(" {}", interval(i, 3))).unwrap_or_default();
        sentences.push(format!(
            "Behaviour: {} went from {} to {}, a change of {}{ends}.",
            e.name,
            signed(e.base, 3),
            signed(e.tuned, 3),
            signed(e.change, 3)
        ));
    }
    sentences
}

/// What the run learned of narrow text, as far as it was measured.
pub(super) fn loss(learned: &Learned) -> Option<String> {
    let (base, tuned) = learned.loss_base.zip(learned.loss_tuned)?;
    let (base, tuned) = (fixed(base, 3), fixed(tuned, 3));
    Some(format!("Held-out loss on narrow text went from {base} to {tuned} nats a token."))
}

fn of_measure(m: &ReadableBy) -> String {
    let start = match m.is_readable() {
        true => format!("Readable by {}", m.name),
        false => format!("Not distinguishable from the null by {}", m.name),
    };
    match (&m.decoding, &m.steering) {
        (Some(found), _) => start + &of_decoding(m, found),
        (_, Some(found)) => start + &of_steering(m, found),
        _ => start + &of_lift(m),
    }
}

fn of_decoding(m: &ReadableBy, found: &DecodingEvidence) -> String {
    let mut s = format!(
        ": {} of the top {} {} tokens at position {} belong to the narrow vocabulary; null {} {}, p {}",
        fixed(m.value, 2),
        found.top,
        m.name,
        m.position.unwrap_or_default(),
        fixed(m.null.unwrap_or_default(), 2),
        interval(m.null_interval.unwrap_or_default(), 2),
        p_value(m.p.unwrap_or_default()),
    );
    s.push_str(&match m.passing.is_empty() {
        true => " (the highest of its positions).".to_string(),
        false => format!(" ({}).", count(m.passing.len(), m.tried)),
    });
    // A trace that the base model's own mean activation shows too was not put there by the finetuning.
    if found.base > 0.0 && found.base >= m.value {
        let base = fixed(found.base, 2);
        s.push_str(&format!(
            " The base model’s mean activation decodes to as many ({base}) at that position."
        ));
    }
    s
}

fn of_lift(m: &ReadableBy) -> String {
    let mut s = format!(
        ": a narrow word ranks above another common word with probability {} {}, mean over positions",
        fixed(m.value, 3),
        interval(m.interval.unwrap_or_default(), 3),
    );
    if let Some((null, ends)) = m.null.zip(m.null_interval) {
        s.push_str(&format!("; null {} {}", fixed(null, 3), interval(ends, 3)));
    }
    s.push_str(&format!(", p {}.", p_value(m.p.unwrap_or_default())));
    s
}

fn of_steering(m: &ReadableBy, found: &SteeringEvidence) -> String {
    let mut s = format!(
        ": with the difference of position {} added at strength {} η, the similarity of generated text to the \
         narrow text is {}, without it {}, a change of {} {} (narrow text to itself: {})",
        m.position.unwrap_or_default(),
        ratio(found.strength),
        fixed(found.steered, 3),
        fixed(found.plain, 3),
        signed(m.value, 3),
        interval(m.interval.unwrap_or_default(), 3),
        fixed(found.ceiling, 3),
    );
    if let Some(ends) = found.over_null_interval {
        s.push_str(&format!("; over text steered by random directions {}", interval(ends, 3)));
    }
    s.push_str(&match m.passing.is_empty() {
        true => ".".to_string(),
        false => format!(" ({}).", count(m.passing.len(), m.tried)),
    });
    s
}

/// How long the difference is, and where and on what it was read.
fn of_length(found: &DifferenceLength) -> String {
    let DifferenceLength { relative, layer, n_layers, samples, .. } = *found;
    let little = match found.is_next_to_nothing {
        true => ": next to nothing, so the tokens that it decodes to mean little",
        false => "",
    };
    let is_tiny = relative > 0.0 && relative < 0.001;
    let shown = if is_tiny { format!("{relative:.0e}") } else { fixed(relative, 3) };
    format!(
        "The difference is {shown} of the expected norm after block {layer} of {n_layers} (counted from 0; mean over positions \
         ≥ 1, {samples} texts){little}."
    )
}

/// How many of the positions pass; one of several is weak evidence and is called so.
fn count(passing: usize, of: usize) -> String {
    match (passing, of) {
        (1, 1) => "the only position tried".into(),
        (1, of) if of > 2 => format!(
            "1 of {of} positions passes, which is weak: chance alone does this in up to {} % of runs",
            // Bonferroni's bound; the positions are not independent, so this is the most it can be.
            fixed((ALPHA * of as f64 * 100.0).min(100.0), 0)
        ),
        (1, of) => format!("1 of {of} positions passes"),
        (n, of) => format!("{n} of {of} positions pass"),
    }
}

/// What the stronger readers of activation differences say: a sentence a reader that ran, then one on those that did not.
/// Empty without an analysis.
pub fn stronger_reasons(claims: &RunClaims) -> Vec<String> {
    let Some(stronger) = &claims.stronger else { return Vec::new() };
    let StrongerReaders { probe, bias, depth, components, not_run } = stronger;
    let depth = depth.as_ref().map(|found| {
        let blocks: Vec<String> = found.layers.iter().map(usize::to_string).collect();
        format!(
            "After blocks {} the logit lens reads at most {} relevant tokens of {} (after block {}; without a null, \
             so not counted).",
            list(&blocks),
            fixed(found.relevant, 0),
            found.top,
            found.layer,
        )
    });
    let components = components.as_ref().map(|found| {
        format!(
            "The principal components of the differences of single texts, centred on their mean, decode to at most {} \
             relevant tokens of {} (without a null, so not counted).",
            fixed(found.relevant, 0),
            found.top
        )
    });
    let not_run = (!not_run.is_empty()).then(|| format!("Not run: {}.", list(not_run)));
    let ran = [probe.as_ref().map(of_probe), bias.as_ref().map(of_bias), depth, components, not_run];
    ran.into_iter().flatten().collect()
}

fn of_probe(probe: &ProbeEvidence) -> String {
    let kinds = format!(
        "A linear probe with labelled examples after block {} separates held-out narrow text from unrelated text with \
         an AUROC of {}",
        probe.layer,
        fixed(probe.held_out_auroc, 3)
    );
    if !probe.is_able {
        return format!("{kinds}, too low to say anything about the difference.");
    }
    let found = if probe.finds {
        "it finds the trace, as that interval is above"
    } else if probe.auroc_interval[1] < probe.auroc_null {
        "it does not find the trace, as that interval is below"
    } else {
        "it does not find the trace, as that interval reaches down to it"
    };
    format!(
        "{kinds}. Along it, the difference exceeds random directions with probability {} {}; one random direction in \
         20 reaches {}: {found}.",
        fixed(probe.auroc, 3),
        interval(probe.auroc_interval, 3),
        fixed(probe.auroc_null, 3),
    )
}

fn of_bias(bias: &BiasEvidence) -> String {
    let documents = bias.documents;
    let ending = if !bias.counts {
        format!(", not counted, as it is based on {documents} narrow documents only")
    } else if bias.finds {
        format!(" ({documents} documents): a constant bias about the narrow subject is left")
    } else {
        format!(" ({documents} documents): a constant bias about the narrow subject is not found")
    };
    format!(
        "Adding the mean difference alone to the base gives {} {} of the gain on narrow text, beyond its gain on \
         unrelated text{ending}.",
        fixed(bias.specific_share, 3),
        interval(bias.specific_share_interval, 3),
    )
}

/// The heading of [`reader_rows`].
pub const READER_HEADING: [&str; 8] = [
    "reader",
    "score",
    "95 %",
    "random directions, p",
    "other organisms: mean, bound (n)",
    "excess",
    "z; p, Holm",
    "reads it",
];

/// One row a reader: its score, what it is compared with, and what that says.
pub fn reader_rows(verdict: &Verdict) -> Vec<[String; 8]> {
    verdict.readers.values().map(reader_row).collect()
}

fn reader_row(claim: &ReaderClaim) -> [String; 8] {
    let absent = || ABSENT.to_string();
    let p_value = |p: f64| p_value(p).trim_start_matches("= ").to_string();
    let own = match (claim.exceeds_own_null, claim.own_null_p) {
        (Some(_), Some(p)) => p_value(p),
        (Some(true), None) => "above".into(),
        (Some(false), None) => "not above".into(),
        (None, _) => absent(),
    };
    let (others, excess, test) = match &claim.floor {
        Some(floor) => (
            format!("{}, {} ({})", fixed(floor.mean, 3), fixed(floor.bound, 3), floor.values.len()),
            signed(floor.excess, 3),
            format!("{}; {}", fixed(floor.z, 1), claim.holm_p.map_or_else(absent, p_value)),
        ),
        None => (absent(), absent(), absent()),
    };
    let reads = match claim.state {
        ReaderState::Reads => "yes",
        ReaderState::ReadsAgainstOwnNull => "own null only",
        ReaderState::DoesNotRead => "no",
        ReaderState::NotCompared => "not compared",
    };
    let name = if claim.is_primary { format!("{}*", claim.name) } else { claim.name.clone() };
    let ends = claim.interval.map_or_else(absent, |ends| interval(ends, 3));
    [name, fixed(claim.value, 3), ends, own, others, excess, test, reads.into()]
}

/// What the columns of [`reader_rows`] are.
pub const READER_LEGEND: &str = "* named beforehand (claims.primaries). Random directions: the null of the measures of activation differences. Other organisms: \
the mean score of n other organisms under this lexicon, and the bound that one more exceeds with probability .05 (orange mark). \
z: the excess over the spread of these organisms. p: its tail under Student’s t, corrected by Holm’s method for the readers of its \
family. Own null only: above random directions, and not compared with other organisms.";

/// What each other organism scores by each reader, and the rank of the run among them.
pub fn floors(verdict: &Verdict) -> Vec<String> {
    let with_floor = verdict.readers.values().filter_map(|claim| Some((claim, claim.floor.as_ref()?)));
    with_floor
        .map(|(claim, floor)| {
            let others = floor.names.iter().zip(&floor.values);
            let others: Vec<String> =
                others.map(|(name, value)| format!("{name} {}", fixed(*value, 3))).collect();
            let (rank, of) = (floor.rank, floor.values.len() + 1);
            format!("{}: {}; {}, rank {rank} of {of}.", claim.name, fixed(claim.value, 3), others.join(", "))
        })
        .collect()
}

/// What holds of the runs: `readable`, or of how many of them each verdict holds: `2 readable and 1 not read`.
pub fn shares_of_states(counts: &RunCounts) -> String {
    match counts.verdicts.as_slice() {
        [] => "not measured".into(),
        [all] if all.runs == counts.runs => all.state.words().into(),
        some => list(&some.iter().map(|c| format!("{} {}", c.runs, c.state.words())).collect::<Vec<_>>()),
    }
}

/// What holds at each mix ratio, ratios of which the same holds in one sentence; then the readers that say nothing there, and
/// in what the runs are equal.
pub fn by_mix(claims: &SettingClaims, runs: &[ClaimedRun]) -> Vec<String> {
    let mut alike: Vec<(Vec<String>, String)> = Vec::new();
    for (ratio, words) in at_ratios(claims, runs) {
        match alike.last_mut().filter(|(_, last)| *last == words) {
            Some((ratios, _)) => ratios.push(mix(ratio)),
            None => alike.push((vec![mix(ratio)], words)),
        }
    }
    let sentence = |(ratios, words): &(Vec<String>, String)| format!("Mix {}: {words}.", list(ratios));
    let mut sentences: Vec<String> = alike.iter().map(sentence).collect();
    let without: Vec<&str> = claims.power.iter().filter(|p| !p.is_powered).map(|p| p.name.as_str()).collect();
    if !without.is_empty() {
        sentences.push(format!("Without power at mix 0, and not counted: {}.", list(&without)));
    }
    sentences.extend(basis(claims));
    sentences
}

/// What holds at each mix ratio: what the readers with power say, else what holds of how many runs.
fn at_ratios(claims: &SettingClaims, runs: &[ClaimedRun]) -> Vec<(f64, String)> {
    if !claims.verdicts.is_empty() {
        let of_ratio = |found: &MixVerdict| (found.mix, counted(found.runs, &found.headline));
        return claims.verdicts.iter().map(of_ratio).collect();
    }
    let of_group = |group: &MixGroup| {
        let those = runs.iter().filter(|run| group.runs.contains(&run.id) && claims.equal.includes(&run.id));
        let found: Vec<&Verdict> = those.filter_map(|run| run.claims.verdict.as_ref()).collect();
        let words = match found.as_slice() {
            [] if !group.runs.iter().any(|run| claims.equal.includes(run)) => "not at equal behaviour".into(),
            [] => "not analysed".to_string(),
            [first, rest @ ..] if rest.iter().all(|v| v.headline == first.headline) => {
                counted(found.len(), &first.headline)
            }
            _ => {
                let count = |state| found.iter().filter(|v| v.state == state).count();
                let states = VerdictState::ALL.map(|state| (count(state), state.words()));
                let states = states.iter().filter(|(n, _)| *n > 0);
                states.map(|(n, words)| format!("{n} {words}")).collect::<Vec<_>>().join(", ")
            }
        };
        (group.mix, words)
    };
    claims.groups.iter().map(of_group).collect()
}

fn counted(runs: usize, headline: &str) -> String {
    if runs == 1 { headline.into() } else { format!("{headline} ({runs} runs)") }
}
