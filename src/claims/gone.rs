//! The second claim: whether the trace is gone. That the measures of activation differences read nothing does not say so;
//! it takes readers that are stronger than they are, and where none ran, nothing is claimed.

use serde::{Deserialize, Serialize};

use super::learned::Learned;
use super::list;
use super::readable::Readable;
use super::rules::{ABLE_PROBE, FEWEST_DOCUMENTS};
use crate::diff::measures::probe::Probe;
use crate::diff::record::Readability;
use crate::diff::statistics::Interval;

/// What the stronger readers say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoneState {
    /// Readable, by them or by the measures of activation differences.
    Remains,
    /// A probe with labelled examples ran, and nothing finds it.
    NotFound,
    /// The run learned nothing narrow, so that there is nothing to be gone.
    CannotBeAsked,
    /// No probe ran, and nothing that ran finds it; or the models are the same where it is looked for.
    #[default]
    Unknown,
}

impl GoneState {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Remains, Self::NotFound, Self::CannotBeAsked, Self::Unknown];

    /// What holds, in a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Remains => "not gone",
            Self::NotFound => "gone as far as a probe tells",
            Self::CannotBeAsked => "cannot be asked",
            Self::Unknown => "not known",
        }
    }
}

/// The claim, with the evidence of each stronger reader that ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gone {
    /// What holds.
    pub state: GoneState,
    /// The claim in one phrase.
    pub headline: String,
    /// A linear probe with labelled examples.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probe: Option<ProbeEvidence>,
    /// The specific share of a constant bias.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bias: Option<BiasEvidence>,
    /// The logit lens after other blocks; no null, so not counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub depth: Option<DepthEvidence>,
    /// The logit lens of principal components; no null, so not counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub components: Option<ComponentEvidence>,
    /// Readers that did not run, in words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub not_run: Vec<String>,
}

/// What a probe with labelled examples says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeEvidence {
    /// Whether it tells held-out narrow text from unrelated text well enough ([`ABLE_PROBE`]).
    pub is_able: bool,
    /// Whether it is able and its whole interval lies above what one direction about nothing in 20 exceeds.
    pub finds: bool,
    /// Zero-based block after which it reads.
    pub layer: usize,
    /// AUROC of narrow against unrelated text that it has not seen.
    pub held_out_auroc: f64,
    /// How far the difference lies along it, among directions about nothing: AUROC.
    pub auroc: f64,
    /// 95 % interval of that over texts.
    pub auroc_interval: Interval,
    /// The 95 % quantile of directions about nothing.
    pub auroc_null: f64,
}

impl ProbeEvidence {
    /// Of the record of a probe.
    pub fn of(probe: &Probe) -> Self {
        let is_able = probe.held_out_auroc >= ABLE_PROBE;
        Self {
            is_able,
            finds: is_able && probe.auroc_interval[0] > probe.auroc_null,
            layer: probe.layer,
            held_out_auroc: probe.held_out_auroc,
            auroc: probe.auroc,
            auroc_interval: probe.auroc_interval,
            auroc_null: probe.auroc_null,
        }
    }
}

/// What a constant bias says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BiasEvidence {
    /// Whether it rests on [`FEWEST_DOCUMENTS`] documents or more.
    pub counts: bool,
    /// Whether it counts and its interval lies above 0.
    pub finds: bool,
    /// Narrow documents.
    pub documents: usize,
    /// Share of the gain on narrow text that adding the mean difference gives, less what it gives on unrelated text.
    pub specific_share: f64,
    /// 95 % interval of that over documents.
    pub specific_share_interval: Interval,
}

/// What the logit lens reads after other blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DepthEvidence {
    /// Zero-based blocks that were read.
    pub layers: Vec<usize>,
    /// The one with the most relevant tokens.
    pub layer: usize,
    /// How many those are.
    pub relevant: f64,
    /// Among so many.
    pub top: usize,
}

/// What the logit lens reads of the principal components of single texts' differences, the mean taken off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentEvidence {
    /// The most relevant tokens of any component.
    pub relevant: f64,
    /// Among so many.
    pub top: usize,
}

impl Gone {
    /// Applies the rule to an analysis.
    pub fn of(r: &Readability, readable: &Readable, learned: &Learned) -> Self {
        let probe = r.probe.as_ref().map(ProbeEvidence::of);
        let (bias, depth, components) = (bias(r), depth(r), components(r));
        let finding: Vec<&str> = [
            (probe.as_ref().is_some_and(|p| p.finds), "a probe with labelled examples"),
            (bias.as_ref().is_some_and(|b| b.finds), "a constant bias"),
        ]
        .into_iter()
        .filter_map(|(finds, name)| finds.then_some(name))
        .collect();
        let (state, headline) = if !finding.is_empty() {
            let verb = if finding.len() > 1 { "find" } else { "finds" };
            (GoneState::Remains, format!("the trace is not gone: {} still {verb} it", list(&finding)))
        } else if !readable.readable_by().is_empty() {
            (GoneState::Remains, "the trace is not gone, on the evidence that makes it readable".into())
        } else if learned.learned == Some(false) {
            (
                GoneState::CannotBeAsked,
                "whether the trace is gone cannot be asked: the run learned nothing narrow".into(),
            )
        } else if let Some(why) = nothing_to_see(r) {
            (GoneState::Unknown, why)
        } else if probe.as_ref().is_some_and(|p| p.is_able) {
            (GoneState::NotFound, "gone as far as a probe with labelled examples tells".into())
        } else {
            (
                GoneState::Unknown,
                "whether the trace is gone is not known: no probe with labelled examples ran that can tell \
                 narrow text from other text"
                    .into(),
            )
        };
        let not_run = [
            (probe.is_some(), "a linear probe with labelled examples"),
            (bias.is_some(), "the specific share of a constant bias"),
            (depth.is_some(), "other depths"),
            (components.is_some(), "principal components"),
        ];
        let not_run = not_run.into_iter().filter(|(ran, _)| !ran).map(|(_, name)| name.to_string()).collect();
        Self { state, headline, probe, bias, depth, components, not_run }
    }
}

/// Why a trace that nothing finds is not called gone: it is looked for where the models are the same.
fn nothing_to_see(r: &Readability) -> Option<String> {
    r.delta_norm.iter().all(|norm| *norm == 0.0).then(|| {
        format!(
            "whether the trace is gone is not known: up to block {}, after which it is read, the two models are the same; \
             a later block (diff.layer) may tell",
            r.layer
        )
    })
}

fn bias(r: &Readability) -> Option<BiasEvidence> {
    let bias = r.bias_share.as_ref()?;
    let (shares, documents) = (bias.shares.as_ref()?, bias.texts.documents);
    let (specific_share, specific_share_interval) = (shares.specific_share?, shares.specific_share_interval?);
    let counts = documents >= FEWEST_DOCUMENTS;
    let finds = counts && specific_share_interval[0] > 0.0;
    Some(BiasEvidence { counts, finds, documents, specific_share, specific_share_interval })
}

fn depth(r: &Readability) -> Option<DepthEvidence> {
    let depth = r.depth.as_ref()?;
    let best = depth.layers.iter().zip(&depth.token_relevance);
    let best = best.filter_map(|(layer, shares)| Some((*layer, shares.iter().copied().reduce(f64::max)?)));
    let (layer, share) = best.reduce(|a, b| if b.1 > a.1 { b } else { a })?;
    let top = depth.top_tokens.iter().flatten().map(Vec::len).max().unwrap_or(0);
    Some(DepthEvidence { layers: depth.layers.clone(), layer, relevant: share * top as f64, top })
}

fn components(r: &Readability) -> Option<ComponentEvidence> {
    let found = &r.dimensionality.as_ref()?.centred;
    let shares = found.token_relevance.iter().chain(&found.opposite_token_relevance).flatten().copied();
    let best = shares.reduce(f64::max)?;
    let top = found.top_tokens.iter().flatten().map(Vec::len).max().unwrap_or(0);
    Some(ComponentEvidence { relevant: best * top as f64, top })
}
