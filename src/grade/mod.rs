//! Grading a stored analysis with a language model: which decoded tokens are about the narrow data, which scale of
//! the patchscope says most, and whether steered text can be read. The analysis itself is not touched.

pub mod agreement;
pub mod coherence;
pub mod endpoint;
pub mod exchanges;
pub mod frequent;
pub mod grader;
pub mod hypothesis;
pub mod record;
mod redact;
pub mod relevance;
pub mod scale;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use indicatif::ProgressBar;

use self::record::{Against, Chosen, Coherences, Graded, Grader, SCHEMA, Series, UNITS};
use crate::diff::decode::TopToken;
use crate::diff::decode::{Decoded, DecodedMean};
use crate::diff::measures::steering::SteeringLine;
use crate::diff::store::StoredAnalysis;
use crate::grade::agreement::Agreement;
use crate::grade::coherence::CoherenceTally;
use crate::grade::endpoint::Endpoint;
use crate::grade::frequent::plain;
use crate::grade::grader::in_parallel;
use crate::grade::relevance::{Rule, Subject, Votes};
use crate::grade::scale::{Choice, ScaleCandidate};
use crate::progress;

/// Tokens of a list that are graded, as in the paper.
const CANDIDATES: usize = 20;

const LOGIT_LENS: &str = "logit_lens";
const PATCHSCOPE: &str = "patchscope";
const TOURNAMENT: &str = "patchscope_tournament";

/// What is graded, and for whom.
pub struct GradeInputs<'a> {
    /// The analysis.
    pub stored: &'a StoredAnalysis,
    /// The organism.
    pub subject: Subject,
    /// Other organisms by name: their relevance is the null.
    pub against: BTreeMap<String, Subject>,
    /// When a token counts as relevant.
    pub rule: Rule,
}

/// Asks everything that the analysis has something for.
///
/// # Errors
/// As [`Endpoint::complete`]; an answer that cannot be read is noted in [`Graded::ungraded`].
pub fn grade(inputs: &GradeInputs, endpoint: &Endpoint) -> Result<Graded> {
    let positions = &inputs.stored.record.positions;
    let mut ungraded = Vec::new();
    let tournament = tournament(inputs.stored, endpoint, &mut ungraded)?;
    let lists = lists(inputs, &tournament);
    let votes = over(endpoint, "token relevance", lists.len(), |i| {
        let tokens: Vec<String> = lists[i].tokens.iter().map(|t| t.token.clone()).collect();
        relevance::grade(endpoint, lists[i].subject, &tokens)
    })?;
    for (list, _) in lists.iter().zip(&votes).filter(|(_, votes)| votes.is_none()) {
        ungraded.push(format!("{}: the grader left tokens without a verdict", list.shown(positions)));
    }

    let mut relevance: BTreeMap<String, BTreeMap<String, Series>> = BTreeMap::new();
    let mut against: BTreeMap<String, Against> = BTreeMap::new();
    for (list, votes) in lists.iter().zip(&votes) {
        let series = match list.against {
            None => relevance
                .entry(list.source.into())
                .or_default()
                .entry(list.variant.name().into())
                .or_default(),
            Some(name) => {
                let description = list.subject.description.clone();
                let new = || Against { description, token_relevance: BTreeMap::new() };
                let other = against.entry(name.to_string()).or_insert_with(new);
                other.token_relevance.entry(list.source.into()).or_default()
            }
        };
        series.put(list, votes.as_ref(), inputs.rule, positions.len());
    }
    let all = relevance.values_mut().flat_map(BTreeMap::values_mut);
    all.chain(against.values_mut().flat_map(|a| a.token_relevance.values_mut())).for_each(Series::summarise);

    let chosen = |(variant, row): (DecodedMean, Vec<Option<Chosen>>)| (variant.name().to_string(), row);
    Ok(Graded {
        schema: SCHEMA,
        grader: Grader::of(endpoint),
        rule: inputs.rule,
        description: inputs.subject.description.clone(),
        frequent_tokens: inputs.subject.frequent.clone(),
        positions: positions.clone(),
        units: UNITS.iter().map(|(key, unit)| (key.to_string(), unit.to_string())).collect(),
        token_relevance: relevance,
        agreement: Agreement::of(votes.iter().flatten().flat_map(|Votes(votes)| votes)),
        against,
        tournament: tournament.into_iter().map(chosen).collect(),
        steering: coherences(&inputs.stored.steering, endpoint)?,
        ungraded,
        account: endpoint.account(),
    })
}

/// Jobs with a bar.
fn over<T: Send>(
    endpoint: &Endpoint,
    what: &str,
    jobs: usize,
    job: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let bar: ProgressBar = progress::bar(what, jobs as u64);
    let done = in_parallel(endpoint.settings().parallel, jobs, |i| job(i).inspect(|_| bar.inc(1)));
    bar.finish_and_clear();
    done
}

// ---- which scale -------------------------------------------------------------------------------

/// The scale that wins at each position, by what was decoded; nothing without `patchscope.jsonl`.
fn tournament(
    stored: &StoredAnalysis,
    endpoint: &Endpoint,
    ungraded: &mut Vec<String>,
) -> Result<BTreeMap<DecodedMean, Vec<Option<Chosen>>>> {
    let positions = &stored.record.positions;
    let variants: BTreeSet<DecodedMean> = stored.patchscope.iter().map(|line| line.variant).collect();
    let places: Vec<(DecodedMean, usize)> =
        variants.iter().flat_map(|v| positions.iter().map(move |p| (*v, *p))).collect();
    let of = |&(variant, position): &(DecodedMean, usize)| -> Vec<&Decoded> {
        stored.patchscope.iter().filter(|l| l.variant == variant && l.position == position).collect()
    };
    let found = over(endpoint, "patchscope tournament", places.len(), |i| {
        let candidate =
            |line: &&Decoded| Some(ScaleCandidate { scale: line.scale?, tokens: texts(&line.tokens) });
        scale::choose(endpoint, &of(&places[i]).iter().filter_map(candidate).collect::<Vec<_>>())
    })?;
    let mut rows: BTreeMap<DecodedMean, Vec<Option<Chosen>>> = BTreeMap::new();
    for (place, choice) in places.iter().zip(found) {
        // A position that the patchscope was not run at has nothing to choose from.
        if choice.is_none() && !of(place).is_empty() {
            let (variant, position) = (place.0.name(), place.1);
            ungraded.push(format!(
                "{TOURNAMENT}, {variant}, position {position}: no scale of the list was chosen"
            ));
        }
        let chosen = choice.map(|Choice { scale, coherent }| Chosen {
            scale,
            coherent,
            tokens: of(place)
                .iter()
                .find(|l| l.scale == Some(scale))
                .map(|l| texts(&l.tokens))
                .unwrap_or_default(),
        });
        rows.entry(place.0).or_default().push(chosen);
    }
    Ok(rows)
}

fn texts(tokens: &[TopToken]) -> Vec<String> {
    tokens.iter().take(CANDIDATES).map(|t| t.token.clone()).collect()
}

// ---- which tokens ------------------------------------------------------------------------------

/// A list of tokens to be judged.
struct List<'a> {
    source: &'static str,
    variant: DecodedMean,
    /// Index of the position.
    at: usize,
    /// Name of the other organism that it is judged for.
    against: Option<&'a str>,
    subject: &'a Subject,
    tokens: Vec<TopToken>,
    /// Those that the tournament called coherent.
    selected: Option<Vec<String>>,
}

impl List<'_> {
    fn shown(&self, positions: &[usize]) -> String {
        let against = self.against.map(|name| format!(", against {name}")).unwrap_or_default();
        format!("{}, {}, position {}{against}", self.source, self.variant.name(), positions[self.at])
    }
}

/// Source, variant, index of the position, tokens, and the coherent ones among them where those were chosen.
type Found = (&'static str, DecodedMean, usize, Vec<TopToken>, Option<Vec<String>>);

/// Every list: of the organism itself all of them, of others those of the difference.
fn lists<'a>(
    inputs: &'a GradeInputs,
    tournament: &BTreeMap<DecodedMean, Vec<Option<Chosen>>>,
) -> Vec<List<'a>> {
    let stored = inputs.stored;
    let mut found: Vec<Found> = Vec::new();
    for line in &stored.logit_lens {
        let at = stored.index(line.position);
        found.extend(at.map(|at| (LOGIT_LENS, line.variant, at, line.tokens.clone(), None)));
    }
    if let Some(patchscope) = &stored.record.patchscope {
        let positions = patchscope.positions(&stored.record.positions);
        for (position, top) in positions.iter().zip(&patchscope.top_tokens) {
            let at = stored.index(*position);
            found.extend(at.map(|at| (PATCHSCOPE, DecodedMean::Difference, at, top.clone(), None)));
        }
    }
    for (&variant, row) in tournament {
        for (at, chosen) in row.iter().enumerate() {
            let Some(chosen) = chosen else { continue };
            let position = stored.record.positions[at];
            let is_chosen = |l: &&Decoded| {
                l.variant == variant && l.position == position && l.scale == Some(chosen.scale)
            };
            let tokens =
                stored.patchscope.iter().find(is_chosen).map(|l| l.tokens.clone()).unwrap_or_default();
            found.push((TOURNAMENT, variant, at, tokens, Some(chosen.coherent.clone())));
        }
    }
    let mut subjects: Vec<(Option<&str>, &Subject)> = vec![(None, &inputs.subject)];
    subjects.extend(inputs.against.iter().map(|(name, subject)| (Some(name.as_str()), subject)));
    let mut lists = Vec::new();
    for (against, subject) in subjects {
        for (source, variant, at, tokens, selected) in &found {
            let wanted = against.is_none() || *variant == DecodedMean::Difference;
            if wanted && !tokens.is_empty() {
                lists.push(List {
                    source,
                    variant: *variant,
                    at: *at,
                    against,
                    subject,
                    tokens: tokens.iter().take(CANDIDATES).cloned().collect(),
                    selected: selected.clone(),
                });
            }
        }
    }
    lists
}

impl Series {
    /// Enters the verdicts on one list.
    fn put(&mut self, list: &List, votes: Option<&Votes>, rule: Rule, positions: usize) {
        self.share.resize(positions, None);
        self.weighted_share.resize(positions, None);
        self.trivial_share.resize(positions, None);
        self.agreement.resize(positions, None);
        self.relevant.resize(positions, None);
        let (at, tokens) = (list.at, &list.tokens);
        let is_trivial = |t: &&TopToken| list.subject.frequent.iter().any(|f| f == plain(&t.token));
        self.trivial_share[at] = share(tokens.iter().filter(is_trivial).count(), tokens.len());
        let Some(votes) = votes else { return };
        let verdicts = votes.relevant(rule);
        let relevant: Vec<&TopToken> =
            tokens.iter().zip(&verdicts).filter(|(_, v)| **v).map(|(t, _)| t).collect();
        self.share[at] = share(relevant.len(), tokens.len());
        let weight = |tokens: &mut dyn Iterator<Item = &TopToken>| tokens.map(|t| t.score).sum::<f64>();
        let all = weight(&mut tokens.iter());
        self.weighted_share[at] = (all > 0.0).then(|| weight(&mut relevant.iter().copied()) / all);
        self.agreement[at] = votes.agreement();
        if let Some(selected) = &list.selected {
            self.selected_share.resize(positions, None);
            let hits = relevant.iter().filter(|t| selected.contains(&t.token)).count();
            let among = tokens.iter().filter(|t| selected.contains(&t.token)).count();
            self.selected_share[at] = share(hits, among);
        }
        self.relevant[at] = Some(relevant.iter().map(|t| t.token.clone()).collect());
    }

    fn summarise(&mut self) {
        let known: Vec<f64> = self.share.iter().flatten().copied().collect();
        self.max = known.iter().copied().reduce(f64::max);
        self.mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
    }
}

fn share(part: usize, all: usize) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

// ---- which texts -------------------------------------------------------------------------------

/// Coherence of the steered texts of each position, and of the unsteered ones, which are the same for all.
fn coherences(lines: &[SteeringLine], endpoint: &Endpoint) -> Result<Option<Coherences>> {
    let mut positions: Vec<(usize, f64)> = Vec::new();
    for line in lines {
        if !positions.iter().any(|(p, _)| *p == line.position) {
            positions.push((line.position, line.strength));
        }
    }
    let Some(&(first, _)) = positions.first() else { return Ok(None) };
    let of = |position: usize, texts: fn(&SteeringLine) -> &Vec<String>| {
        lines.iter().filter(move |l| l.position == position).flat_map(texts).filter(|t| !t.trim().is_empty())
    };
    // Sets of texts: the unsteered ones, then those of each position.
    let mut sets: Vec<Vec<&String>> = vec![of(first, |l| &l.unsteered).collect()];
    sets.extend(positions.iter().map(|(p, _)| of(*p, |l| &l.steered).collect::<Vec<_>>()));
    let texts: Vec<&String> = sets.iter().flatten().copied().collect();
    let mut verdicts =
        over(endpoint, "coherence", texts.len(), |i| coherence::grade(endpoint, texts[i]))?.into_iter();
    let mut tallies =
        sets.iter().map(|set| CoherenceTally::of(verdicts.by_ref().take(set.len()))).collect::<Vec<_>>();
    let unsteered = tallies.remove(0);
    Ok(Some(Coherences {
        positions: positions.iter().map(|(p, _)| *p).collect(),
        strength: positions.iter().map(|(_, s)| *s).collect(),
        coherent_share: tallies.iter().map(|t| t.share()).collect(),
        steered: tallies,
        coherent_share_unsteered: unsteered.share(),
        unsteered,
    }))
}
