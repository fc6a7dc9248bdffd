//! The second claim: whether the trace is gone. That the measures of activation differences read nothing does not say so;
//! it takes readers that are stronger than they are, and where none ran, nothing is claimed.

use crate::results::run_record::Cell;
use super::learned::learned;
use crate::report::number::{fixed, interval};
use crate::report::verdict::list;
use crate::diff::measures::probe::Probe;
use crate::diff::record::Readability;

/// The rule, as it is printed beside the claim.
pub const RULE: &str = "Whether the trace is gone is a second claim, with evidence of its own. It is not gone if a \
stronger reader finds it: a linear probe with labelled examples (one that tells held-out narrow text from unrelated text with an AUROC of 0.75 or more) along which the difference lies further, by its whole 95 % interval, than one in 20 directions about nothing; or a \
constant bias whose specific share, over 8 documents or more, has a 95 % interval above 0. It is called gone as far as a \
probe tells only if such a probe ran and neither finds it, and if there is something to be gone: the run learned \
something narrow, and the models differ after the block that is read. Of a run that learned nothing narrow and that nothing \
reads, it cannot be asked. Where no such probe ran, it is not known. The logit lens at other depths and of the principal \
components is told but not counted, for no null is taken there.";

/// The least AUROC on held-out text with which a probe counts.
const ABLE: f64 = 0.75;

/// The fewest documents that an interval over documents counts with.
const FEWEST_DOCUMENTS: usize = 8;

/// What the stronger readers say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
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

impl State {
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

/// The claim, with its evidence.
#[derive(Debug, Clone, Default)]
pub struct Gone {
    /// What holds.
    pub state: State,
    /// The claim in one phrase; empty where there is no analysis.
    pub headline: String,
    /// A sentence a reader that ran, then one on those that did not.
    pub sentences: Vec<String>,
}

impl Gone {
    /// Applies [`RULE`]; `readable_by` are the measures of activation differences that read the trace.
    pub fn of(cell: &Cell, readable_by: &[&str]) -> Self {
        let Some(r) = &cell.readability else { return Self::default() };
        let mut gone = Self::default();
        let mut finding = Vec::new();
        let mut not_run = Vec::new();
        match cell.probe() {
            Some(probe) => {
                if finds(probe) {
                    finding.push("a probe with labelled examples");
                }
                gone.sentences.push(of_probe(probe));
            }
            None => not_run.push("a linear probe with labelled examples"),
        }
        match bias(r) {
            Some((finds, sentence)) => {
                if finds {
                    finding.push("a constant bias");
                }
                gone.sentences.push(sentence);
            }
            None => not_run.push("the specific share of a constant bias"),
        }
        match depth(r) {
            Some(sentence) => gone.sentences.push(sentence),
            None => not_run.push("other depths"),
        }
        match components(r) {
            Some(sentence) => gone.sentences.push(sentence),
            None => not_run.push("principal components"),
        }
        if !not_run.is_empty() {
            gone.sentences.push(format!("Not run: {}.", list(&not_run)));
        }
        (gone.state, gone.headline) = if !finding.is_empty() {
            (State::Remains, format!("the trace is not gone: {} still finds it", list(&finding)))
        } else if !readable_by.is_empty() {
            (State::Remains, "the trace is not gone, on the evidence that makes it readable".into())
        } else if learned(cell) == Some(false) {
            (
                State::CannotBeAsked,
                "whether the trace is gone cannot be asked: the run learned nothing narrow".into(),
            )
        } else if let Some(why) = nothing_to_see(r) {
            (State::Unknown, why)
        } else if cell.probe().is_some_and(able) {
            (State::NotFound, "gone as far as a probe with labelled examples tells".into())
        } else {
            (
                State::Unknown,
                "whether the trace is gone is not known: no probe with labelled examples ran that can tell \
                 narrow text from other text"
                    .into(),
            )
        };
        if finding.len() > 1 {
            gone.headline = gone.headline.replace("finds it", "find it");
        }
        gone
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

/// Whether the probe can tell narrow text from unrelated text it has not seen: one that cannot is no evidence.
pub(super) fn able(probe: &Probe) -> bool {
    probe.held_out_auroc >= ABLE
}

/// Whether the interval lies above what directions about nothing reach.
pub(super) fn finds(probe: &Probe) -> bool {
    able(probe) && probe.auroc_interval[0] > probe.auroc_null
}

fn of_probe(probe: &Probe) -> String {
    let kinds = format!(
        "A linear probe with labelled examples after block {} tells held-out narrow text from unrelated text with an AUROC of \
         {}",
        probe.layer,
        fixed(probe.held_out_auroc, 3)
    );
    if !able(probe) {
        return format!("{kinds}, too little to tell anything of the difference.");
    }
    let [low, high] = probe.auroc_interval;
    let found = if low > probe.auroc_null {
        "it finds the trace, as that interval lies above"
    } else if high < probe.auroc_null {
        "it does not find the trace, as that interval lies below"
    } else {
        "it does not find the trace, as that interval reaches down to it"
    };
    format!(
        "{kinds}; among directions about nothing the difference reaches {} {} along it, one in 20 of them {}: {found}.",
        fixed(probe.auroc, 3),
        interval(probe.auroc_interval, 3),
        fixed(probe.auroc_null, 3),
    )
}

/// Whether the specific share lies above zero, and the sentence on it.
fn bias(r: &Readability) -> Option<(bool, String)> {
    let bias = r.bias_share.as_ref()?;
    let (shares, documents) = (bias.shares.as_ref()?, bias.texts.documents);
    let (share, ends) = (shares.specific_share?, shares.specific_share_interval?);
    let counts = documents >= FEWEST_DOCUMENTS;
    let finds = counts && ends[0] > 0.0;
    let ending = if !counts {
        format!(", not counted, as it rests on {documents} narrow documents")
    } else if finds {
        format!(" ({documents} documents): a constant bias about the narrow subject is left")
    } else {
        format!(" ({documents} documents): a constant bias about the narrow subject is not found")
    };
    Some((
        finds,
        format!(
            "Adding the mean difference alone to the base gives {} {} of the gain on narrow text beyond what it gives on \
             unrelated text{ending}.",
            fixed(share, 3),
            interval(ends, 3),
        ),
    ))
}

fn depth(r: &Readability) -> Option<String> {
    let depth = r.depth.as_ref()?;
    let best = depth.layers.iter().zip(&depth.token_relevance);
    let best = best.filter_map(|(layer, shares)| Some((layer, shares.iter().copied().reduce(f64::max)?)));
    let (layer, share) = best.reduce(|a, b| if b.1 > a.1 { b } else { a })?;
    let top = depth.top_tokens.iter().flatten().map(Vec::len).max().unwrap_or(0);
    let blocks: Vec<String> = depth.layers.iter().map(usize::to_string).collect();
    let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
    Some(format!(
        "After blocks {} the logit lens reads at most {} relevant tokens of {top} (after block {layer}; no null there, not \
         counted).",
        list(&blocks),
        fixed(share * top as f64, 0),
    ))
}

fn components(r: &Readability) -> Option<String> {
    let found = &r.dimensionality.as_ref()?.centred;
    let shares = found.token_relevance.iter().chain(&found.opposite_token_relevance).flatten().copied();
    let best = shares.reduce(f64::max)?;
    let top = found.top_tokens.iter().flatten().map(Vec::len).max().unwrap_or(0);
    Some(format!(
        "The principal components of single texts’ differences, the mean taken off, decode to at most {} relevant tokens \
         of {top} (no null there, not counted).",
        fixed(best * top as f64, 0)
    ))
}
