//! Measures of the trace that are one number a run: what frontiers are drawn of, and where each meets its null.

use super::cell::Cell;
use super::dose::{Measured, Ratio};
use super::gone::{able, finds};
use super::number::ratio;
use super::verdict::list;
use crate::diff::measures::steering::Gain;
use crate::diff::plot::Ink;
use crate::diff::readout::{ALPHA, Relevance};

/// A measure of the trace.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    /// Its name in a sentence.
    pub name: &'static str,
    /// Its name in file names.
    pub key: &'static str,
    /// The title of its axis.
    pub axis: &'static str,
    /// Its colour.
    pub ink: Ink,
    /// The value of a run; `None` if it was not measured.
    pub value: fn(&Cell) -> Option<Measured>,
    /// What it is where nothing is read.
    pub null: fn(&Cell) -> Option<f64>,
    /// Whether a run is told from the null, by the rule of the verdict.
    pub told: fn(&Cell) -> Option<bool>,
}

/// All of them; those that are best told from finetuning as such come first, and get a frontier.
pub const TRACES: [Trace; 6] = [LIFT, SPECIFIC_SHARE, STEERING, LENS, PATCHSCOPE, PROBE];

/// Lift of the narrow words.
pub const LIFT: Trace = Trace {
    name: "lift AUROC",
    key: "lift",
    axis: "trace: lift, AUROC, mean over positions",
    ink: Ink::Lift,
    value: |c| {
        let lift = c.readability.as_ref()?.lift.as_ref()?;
        Some((lift.auroc_mean, Some(lift.auroc_mean_interval)))
    },
    null: |c| c.readability.as_ref()?.lift.as_ref()?.auroc_null.first().copied(),
    told: |c| Some(c.readability.as_ref()?.lift.as_ref()?.auroc_mean_p <= ALPHA),
};

/// What a constant bias explains of the gain on narrow text, beyond unrelated text.
pub const SPECIFIC_SHARE: Trace = Trace {
    name: "the specific bias share",
    key: "bias",
    axis: "trace: specific share of a constant bias",
    ink: Ink::Bias,
    value: |c| {
        let shares = c.readability.as_ref()?.bias_share.as_ref()?.shares.as_ref()?;
        Some((shares.specific_share?, shares.specific_share_interval))
    },
    null: |_| Some(0.0),
    told: |c| {
        let shares = c.readability.as_ref()?.bias_share.as_ref()?.shares.as_ref()?;
        Some(shares.specific_share_interval?[0] > 0.0)
    },
};

/// Similarity of steered text to the narrow text, at the best position.
pub const STEERING: Trace = Trace {
    name: "steering",
    key: "steering",
    axis: "trace: similarity of steered text to narrow text",
    ink: Ink::Steered,
    value: |c| {
        let gain = Gain::of(c.readability.as_ref()?)?;
        let (i, similarity) = (gain.best()?, &gain.record.similarity);
        Some((*similarity.steered_narrow.get(i)?, similarity.steered_narrow_interval.get(i).copied()))
    },
    null: |c| {
        let gain = Gain::of(c.readability.as_ref()?)?;
        gain.record.similarity.null_narrow.get(gain.best()?).copied()
    },
    told: |c| Some(!Gain::of(c.readability.as_ref()?)?.passing().is_empty()),
};

/// Relevant tokens of the logit lens, at the best position.
pub const LENS: Trace = Trace {
    name: "the logit lens",
    key: "lens",
    axis: "trace: relevant tokens of the logit lens",
    ink: Ink::Lens,
    value: |c| at_best(Relevance::lens(c.readability.as_ref()?)?),
    null: |c| null_at_best(Relevance::lens(c.readability.as_ref()?)?),
    told: |c| Some(!Relevance::lens(c.readability.as_ref()?)?.passing().is_empty()),
};

/// Relevant tokens of the patchscope, at the best position.
pub const PATCHSCOPE: Trace = Trace {
    name: "the patchscope",
    key: "patchscope",
    axis: "trace: relevant tokens of the patchscope",
    ink: Ink::Patchscope,
    value: |c| at_best(Relevance::patchscope(c.readability.as_ref()?)?),
    null: |c| null_at_best(Relevance::patchscope(c.readability.as_ref()?)?),
    told: |c| Some(!Relevance::patchscope(c.readability.as_ref()?)?.passing().is_empty()),
};

/// How far the difference lies along a probe with labelled examples.
pub const PROBE: Trace = Trace {
    name: "the probe with labelled examples",
    key: "probe",
    axis: "trace: AUROC of the difference along the probe",
    ink: Ink::Probe,
    value: |c| c.probe().map(|p| (p.auroc, Some(p.auroc_interval))),
    null: |c| c.probe().map(|p| p.auroc_null),
    // A probe that cannot tell the kinds of text apart says nothing.
    told: |c| c.probe().filter(|p| able(p)).map(finds),
};

fn at_best(m: Relevance) -> Option<Measured> {
    let i = m.best()?;
    Some((*m.share.difference.get(i)?, m.interval.get(i).copied()))
}

fn null_at_best(m: Relevance) -> Option<f64> {
    m.null.get(m.best()?).copied()
}

/// The rule behind [`meets_null`], as it is printed beside the sentences.
pub const MEETS_RULE: &str = "A measure meets its null at a ratio if at that ratio and at every higher one no more than \
half of the runs are told from it: by p ≤ 0.05 against random directions (lift; logit lens and patchscope at one \
position at least), by the 95 % intervals of the gain over plain text and over random directions above 0 (steering, at one position at least), by the \
95 % interval above 0 (specific share), by the 95 % interval above what one direction about nothing in 20 exceeds (probe with \
labelled examples; one that cannot tell held-out texts apart is not counted). It is a statement about the ratios and runs that were made; the true ratio may lie \
between two of them.";

/// The ratio at which a measure meets its null, in words; `None` with fewer than two ratios.
pub fn meets_null(trace: &Trace, groups: &[Ratio]) -> Option<String> {
    let counts = |(mix, cells): &Ratio| {
        let told: Vec<bool> = cells.iter().filter_map(|c| (trace.told)(c)).collect();
        (*mix, told.iter().filter(|t| **t).count(), told.len())
    };
    let doses: Vec<(f64, usize, usize)> = groups.iter().map(counts).filter(|d| d.2 > 0).collect();
    if doses.len() < 2 {
        return None;
    }
    let is_told = |d: &(f64, usize, usize)| 2 * d.1 > d.2;
    let mix = |d: &(f64, usize, usize)| ratio((d.0 * 100.0).round() / 100.0);
    let name = format!("{}{}", trace.name[..1].to_uppercase(), &trace.name[1..]);
    let words = match doses.iter().rposition(is_told) {
        None => format!("{name} is told from its null at none of the ratios that were run"),
        Some(last) => {
            let gaps: Vec<String> = doses[..last].iter().filter(|d| !is_told(d)).map(mix).collect();
            let gaps = match gaps.is_empty() {
                true => String::new(),
                false => {
                    let gaps: Vec<&str> = gaps.iter().map(String::as_str).collect();
                    format!(", though it is not told from it at mix {} either", list(&gaps))
                }
            };
            match doses.get(last + 1) {
                Some(first) => format!("{name} meets its null at mix {}{gaps}", mix(first)),
                None => format!(
                    "{name} does not meet its null up to mix {}, the highest that was run{}",
                    mix(&doses[last]),
                    gaps.replace(" either", "")
                ),
            }
        }
    };
    let counted: Vec<String> =
        doses.iter().map(|d| format!("{} of {} at mix {}", d.1, d.2, mix(d))).collect();
    let counted: Vec<&str> = counted.iter().map(String::as_str).collect();
    Some(format!("{words} (runs told from it: {}).", list(&counted)))
}
