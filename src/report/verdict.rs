//! The verdict on one run, in words that claim no more than the numbers do. It is two claims: whether the trace is
//! readable by measures of activation differences, and whether it is gone ([`super::gone`]).

use super::cell::Cell;
use super::gone::Gone;
use super::number::{fixed, interval, p_value, ratio, signed};
use crate::diff::mean_difference::later;
use crate::diff::measures::lift::Lift;
use crate::diff::measures::steering::Gain;
use crate::diff::readout::{ALPHA, Relevance, best, mean};
use crate::diff::record::Readability;

/// A difference that is shorter than this, in expected norms, is next to nothing.
const NEXT_TO_NOTHING: f64 = 1e-4;

/// The rule behind every verdict, as it is printed beside them.
pub const RULE: &str = "A run counts as readable by a decoding measure (logit lens, patchscope) if at one of \
its positions at least the share of relevant tokens has p ≤ 0.05 against random directions, as \
readable by lift if the AUROC of the narrow words, mean over positions, has p ≤ 0.05 against single random directions, and as \
readable by steering if at one of its positions at least the 95 % intervals of the gain in similarity over plain text and, where it was written, over text steered by random \
directions lie above 0. \
The gain is over the same model’s plain text: it tells whether the difference steers, not how far. Where plain text \
is about the narrow subject already, little is left to gain; to compare runs, compare the steered similarity. \
Nothing is corrected for trying several positions (lift tries none): with five positions and no trace at all, up to one run in \
four would still pass at some position, so the number of positions that pass is given. \
“Not distinguishable” is about these measures with this many samples; it does not say that the \
finetuning left no trace, nor that the model behaves like its base.";

/// What the measures say about one run.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Measures by which the run is readable.
    pub readable_by: Vec<&'static str>,
    /// Measures that were run and do not tell it from the null.
    pub not_by: Vec<&'static str>,
    /// Those of [`Self::readable_by`] that read it at one of several positions only, and of how many.
    weakly: Vec<(&'static str, usize)>,
    /// One sentence a measure, in the order logit lens, patchscope, lift, steering; then how long the difference is, and how
    /// well the run learned, where that is known; then one on what the organism does.
    pub sentences: Vec<String>,
    /// Whether the trace is gone.
    pub gone: Gone,
}

impl Verdict {
    /// Applies [`RULE`] to a run.
    pub fn of(cell: &Cell) -> Self {
        let mut verdict = Self::default();
        let Some(r) = &cell.readability else { return verdict };
        for relevance in Relevance::all(r) {
            verdict.relevance(&relevance);
        }
        if let Some(lift) = &r.lift {
            verdict.lift(lift);
        }
        if let Some(gain) = Gain::of(r) {
            verdict.steering(&gain);
        }
        if !verdict.measured() {
            verdict.sentences.push(
                "No narrow text was given (data.narrow), so nothing tells which tokens and texts are about the \
                 finetuning: judge the ones below."
                    .into(),
            );
        }
        // Whether there was anything to read: a run that learned nothing is not evidence on traces.
        if verdict.measured() {
            verdict.sentences.extend(of_length(r));
        }
        let losses = cell.base_losses().narrow.zip(cell.tuned_losses().narrow);
        if let Some((base, tuned)) = losses.filter(|_| verdict.measured()) {
            verdict.sentences.push(format!(
                "Held-out loss on narrow text went from {} to {} nats a token.",
                fixed(base, 3),
                fixed(tuned, 3)
            ));
        }
        let effects = cell.behaviour.as_ref().map(|b| b.effects()).unwrap_or_default();
        if let Some((name, e)) = effects.first() {
            let ends = e.change_interval.map(|i| format!(" {}", interval(i, 3))).unwrap_or_default();
            verdict.sentences.push(format!(
                "Behaviour: {name} went from {} to {}, a change of {}{ends}.",
                signed(e.base, 3),
                signed(e.tuned, 3),
                signed(e.change, 3)
            ));
        }
        verdict.gone = Gone::of(cell, &verdict.readable_by);
        verdict
    }

    /// Whether the run is readable by a measure; `None` if the measure was not run.
    pub fn by(&self, measure: &str) -> Option<bool> {
        if self.readable_by.contains(&measure) {
            Some(true)
        } else if self.not_by.contains(&measure) {
            Some(false)
        } else {
            None
        }
    }

    /// Whether any measure was run.
    pub fn measured(&self) -> bool {
        !(self.readable_by.is_empty() && self.not_by.is_empty())
    }

    /// The verdict in one phrase.
    pub fn headline(&self) -> String {
        if !self.measured() {
            return "not measured".into();
        }
        if self.readable_by.is_empty() {
            return format!("not distinguishable from the null by any measure run ({})", list(&self.not_by));
        }
        let name = |name: &&'static str| match self.weakly.iter().find(|w| w.0 == *name) {
            Some((_, of)) => format!("{name} (weakly: at 1 of {of} positions)"),
            None => name.to_string(),
        };
        let names: Vec<String> = self.readable_by.iter().map(name).collect();
        let mut s = format!("readable by {}", list(&names.iter().map(String::as_str).collect::<Vec<_>>()));
        if !self.not_by.is_empty() {
            s.push_str(&format!("; not distinguishable from the null by {}", list(&self.not_by)));
        }
        s
    }

    /// The same of several positions, of which some pass.
    fn enter_some(&mut self, name: &'static str, passing: usize, of: usize) -> String {
        if passing == 1 && of > 2 {
            self.weakly.push((name, of));
        }
        self.enter(name, passing > 0)
    }

    fn enter(&mut self, name: &'static str, readable: bool) -> String {
        if readable {
            self.readable_by.push(name);
            format!("Readable by {name}")
        } else {
            self.not_by.push(name);
            format!("Not distinguishable from the null by {name}")
        }
    }

    fn relevance(&mut self, m: &Relevance) {
        let passing = m.passing();
        let Some(i) = best_of(&passing, m.positions, &m.share.difference).or_else(|| m.best()) else {
            return;
        };
        let mut s = self.enter_some(m.name, passing.len(), m.positions.len());
        let value = m.share.difference[i];
        s.push_str(&format!(
            ": {} of the top {} {} tokens at position {} belong to the narrow vocabulary; null {} {}, p {}",
            fixed(value, 2),
            m.top,
            m.name,
            m.positions[i],
            fixed(m.null[i], 2),
            interval(m.null_interval[i], 2),
            p_value(m.p[i]),
        ));
        if passing.is_empty() {
            s.push_str(" (the highest of its positions).");
        } else {
            s.push_str(&format!(" ({}).", count(passing.len(), m.positions.len())));
        }
        // A trace that the base model's own mean activation shows too was not put there by the finetuning.
        let base = m.share.base[i];
        if base > 0.0 && base >= value {
            s.push_str(&format!(
                " The base model’s mean activation decodes to as many ({}) at that position.",
                fixed(base, 2)
            ));
        }
        self.sentences.push(s);
    }

    fn lift(&mut self, lift: &Lift) {
        let mut s = self.enter("lift", lift.auroc_mean_p <= ALPHA);
        s.push_str(&format!(
            ": a narrow word ranks above another common word with probability {} {}, mean over positions",
            fixed(lift.auroc_mean, 3),
            interval(lift.auroc_mean_interval, 3),
        ));
        if let Some((null, ends)) = lift.auroc_null.first().zip(lift.auroc_null_interval.first()) {
            s.push_str(&format!("; null {} {}", fixed(*null, 3), interval(*ends, 3)));
        }
        s.push_str(&format!(", p {}.", p_value(lift.auroc_mean_p)));
        self.sentences.push(s);
    }

    fn steering(&mut self, gain: &Gain) {
        let passing = gain.passing();
        let r = gain.record;
        let of_all = || best(&r.positions, &gain.gain);
        let Some(i) = best_of(&passing, &r.positions, &gain.gain).or_else(of_all) else {
            return;
        };
        let mut s = self.enter_some("steering", passing.len(), gain.gain.len());
        s.push_str(&format!(
            ": with the difference of position {} added at strength {} η, the similarity of generated text to the \
             narrow text is {}, without it {}, a change of {} {} (narrow text to itself: {})",
            r.positions[i],
            ratio(r.strength[i]),
            fixed(r.similarity.steered_narrow[i], 3),
            fixed(r.similarity.unsteered_narrow[i], 3),
            signed(gain.gain[i], 3),
            interval(r.similarity_gain_interval[i], 3),
            fixed(r.similarity.narrow_narrow[i], 3),
        ));
        if let Some(ends) = r.similarity_over_null_interval.get(i) {
            s.push_str(&format!("; over text steered by random directions {}", interval(*ends, 3)));
        }
        if passing.is_empty() {
            s.push('.');
        } else {
            s.push_str(&format!(" ({}).", count(passing.len(), r.positions.len())));
        }
        self.sentences.push(s);
    }
}

/// The position that a sentence is about, where some pass: the highest of those. A higher value with a wider interval may
/// fail, and would be a poor witness for "readable".
fn best_of(passing: &[usize], positions: &[usize], values: &[f64]) -> Option<usize> {
    let passing: Vec<usize> =
        passing.iter().copied().filter(|&i| i < values.len() && i < positions.len()).collect();
    let positions: Vec<usize> = passing.iter().map(|&i| positions[i]).collect();
    let values: Vec<f64> = passing.iter().map(|&i| values[i]).collect();
    best(&positions, &values).map(|i| passing[i])
}

/// How long the difference is, and where and on what it was read.
fn of_length(r: &Readability) -> Option<String> {
    let relative =
        |&i: &usize| Some(r.delta_norm.get(i)? / r.expected_norm.get(i).filter(|eta| **eta > 0.0)?);
    let lengths: Vec<f64> = later(&r.positions).iter().filter_map(relative).collect();
    let length = mean(&lengths)?;
    let little = if length < NEXT_TO_NOTHING {
        ": next to nothing, so that what it decodes to says little"
    } else {
        ""
    };
    let shown = if length > 0.0 && length < 0.001 { format!("{length:.0e}") } else { fixed(length, 3) };
    let (block, blocks, texts) = (r.layer, r.n_layers, r.samples);
    Some(format!(
        "The difference is {shown} of the expected norm after block {block} of {blocks} (counted from 0; mean over positions \
         ≥ 1, {texts} texts){little}."
    ))
}

/// How many of the positions pass; one of several is weak evidence and is called so.
fn count(passing: usize, of: usize) -> String {
    match (passing, of) {
        (1, 1) => "the only position tried".into(),
        (1, of) if of > 2 => format!(
            "1 of {of} positions passes, which is weak: chance alone does as much in up to {} % of runs",
            // Bonferroni's bound; the positions are not independent, so this is the most it can be.
            fixed((ALPHA * of as f64 * 100.0).min(100.0), 0)
        ),
        (1, of) => format!("1 of {of} positions passes"),
        (n, of) => format!("{n} of {of} positions pass"),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(items: &[&str]) -> String {
    match items {
        [] => String::new(),
        [one] => (*one).into(),
        [front @ .., last] => format!("{} and {last}", front.join(", ")),
    }
}
