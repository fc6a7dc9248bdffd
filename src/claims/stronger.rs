//! Readers of activation differences that are stronger than decoding and steering: what each says for itself. Whether that
//! makes a claim, [`super::verdict`] says.

use serde::{Deserialize, Serialize};

use super::rules::{ABLE_PROBE, FEWEST_DOCUMENTS};
use crate::diff::measures::probe::Probe;
use crate::diff::record::Readability;
use crate::diff::statistics::Interval;

/// The evidence of each stronger reader that ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StrongerReaders {
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

impl StrongerReaders {
    /// The evidence of an analysis.
    pub fn of(r: &Readability) -> Self {
        let probe = r.probe.as_ref().map(ProbeEvidence::of);
        let (bias, depth, components) = (bias(r), depth(r), components(r));
        let not_run = [
            (probe.is_some(), "a linear probe with labelled examples"),
            (bias.is_some(), "the specific share of a constant bias"),
            (depth.is_some(), "other depths"),
            (components.is_some(), "principal components"),
        ];
        let not_run = not_run.into_iter().filter(|(ran, _)| !ran).map(|(_, name)| name.to_string()).collect();
        Self { probe, bias, depth, components, not_run }
    }
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
