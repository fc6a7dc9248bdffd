//! What is left of trace and behaviour as pretraining text is mixed in, as a share of what there is at the lowest ratio.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::dose::{Dose, Ratio};
use super::meets_null::ToldRuns;
use super::trace::trace_measures;
use crate::diff::statistics::Interval;

/// One measure or behaviour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remaining {
    /// Its key in the dose tables.
    pub key: String,
    /// Its name in a sentence.
    pub name: String,
    /// Whether it is a behaviour, not a measure of the trace.
    pub is_behaviour: bool,
    /// The value that counts as nothing: the null of the measure, else 0; of a behaviour, the base.
    pub nothing: f64,
    /// What is left at each ratio; the first is 1.
    pub shares: Vec<RemainingShare>,
}

/// What is left at one ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RemainingShare {
    /// Pretraining text per narrow text.
    pub mix: f64,
    /// (value − nothing) / (value at the lowest ratio − nothing), of means over runs. Below 0 beyond nothing.
    pub share: f64,
}

/// Of the dose tables of a setting, every measure of the trace and every behaviour that is there at the lowest ratio: a share of
/// noise says nothing.
pub fn remaining(doses: &IndexMap<String, Vec<Dose>>, groups: &[Ratio]) -> Vec<Remaining> {
    let traces = trace_measures().filter_map(|m| {
        let found = doses.get(m.key)?;
        let first = found.first()?;
        let nothing = first.null.unwrap_or(0.0);
        let is_there = is_told(m.key, groups).unwrap_or_else(|| of_most(first, |[low, _]| low > nothing));
        if is_there { of_doses(m.key, m.name, false, nothing, found) } else { None }
    });
    let behaviours = doses.iter().filter_map(|(key, found)| {
        let name = key.strip_prefix("behaviour.")?;
        let base = doses.get(&format!("behaviour_base.{name}"))?.first()?.mean();
        let first = found.first()?;
        let is_there = of_most(first, |[low, _]| low > base) || of_most(first, |[_, high]| high < base);
        if is_there { of_doses(key, name, true, base, found) } else { None }
    });
    traces.chain(behaviours).collect()
}

/// Whether the runs at the lowest ratio are told from the null; `None` where nothing says.
fn is_told(key: &str, groups: &[Ratio]) -> Option<bool> {
    let told = ToldRuns::of(key, groups.first()?);
    (told.runs > 0).then(|| told.is_told())
}

/// Whether it holds of the intervals within more than half of the runs; of a run without, of the value itself.
fn of_most(dose: &Dose, holds: impl Fn(Interval) -> bool) -> bool {
    let own = dose.values.iter().zip(&dose.own).map(|(value, own)| own.unwrap_or([*value; 2]));
    2 * own.filter(|own| holds(*own)).count() > dose.values.len()
}

fn of_doses(key: &str, name: &str, is_behaviour: bool, nothing: f64, doses: &[Dose]) -> Option<Remaining> {
    let whole = doses.first()?.mean() - nothing;
    if whole == 0.0 || !whole.is_finite() || (whole < 0.0 && !is_behaviour) {
        return None;
    }
    let share = |dose: &Dose| RemainingShare { mix: dose.mix, share: (dose.mean() - nothing) / whole };
    let shares = doses.iter().map(share).collect();
    Some(Remaining { key: key.into(), name: name.into(), is_behaviour, nothing, shares })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doses(null: Option<f64>, values: &[(f64, f64)]) -> Vec<Dose> {
        let dose = |(mix, value): &(f64, f64)| {
            let mut dose = Dose::new(*mix, vec![*value], vec!["run".into()], vec![None]);
            dose.null = null;
            dose
        };
        values.iter().map(dose).collect()
    }

    #[test]
    fn shares_are_of_what_lies_above_the_null_or_the_base() {
        let tables = IndexMap::from([
            ("lift".to_string(), doses(Some(0.5), &[(0.0, 0.9), (1.0, 0.6), (4.0, 0.4)])),
            // No trace at the lowest ratio: no share of it.
            ("lens".to_string(), doses(Some(0.2), &[(0.0, 0.1), (1.0, 0.3)])),
            // The facts were unlikely at first: the change counts, from the base.
            ("behaviour.facts".to_string(), doses(None, &[(0.0, 1.0), (1.0, 0.5)])),
            ("behaviour_base.facts".to_string(), doses(None, &[(0.0, -1.0), (1.0, -1.0)])),
            // Its interval reaches down to the null.
            (
                "steering".to_string(),
                vec![Dose::new(0.0, vec![0.1], vec!["run".into()], vec![Some([-0.1, 0.3])])],
            ),
        ]);
        let found = remaining(&tables, &[]);
        let keys: Vec<&str> = found.iter().map(|r| r.key.as_str()).collect();
        assert_eq!(keys, ["lift", "behaviour.facts"]);
        let shares =
            |i: usize| found[i].shares.iter().map(|s| (s.share * 1e6).round() / 1e6).collect::<Vec<_>>();
        assert_eq!(shares(0), [1.0, 0.25, -0.25]);
        assert_eq!(shares(1), [1.0, 0.75]);
    }
}
