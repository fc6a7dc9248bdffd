//! `[train.match]`: a training that ends where a behaviour reaches a target, so that runs can be compared at equal
//! behaviour.

use serde::{Deserialize, Serialize};

use super::BehaviourSection;

/// `[train.match]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchSection {
    /// The value of `behaviour.json` that is to be equal: `facts.margin`, `facts.believed`, `preference.log_odds`, or
    /// `misalignment.margin.GROUP`.
    pub measure: String,
    /// Where it is to be, in its unit. Infinite: not said.
    pub target: f64,
    /// How far from the target it may be.
    pub tolerance: f64,
    /// Narrow steps between readings.
    pub every: usize,
    /// Narrow steps after which the search gives up (0: training is not matched).
    pub max_steps: usize,
    /// How often the search goes back between two readings and halves the steps between them.
    pub refine: usize,
}

impl Default for MatchSection {
    fn default() -> Self {
        Self {
            measure: "facts.margin".into(),
            target: f64::INFINITY,
            tolerance: 0.15,
            every: 2,
            max_steps: 0,
            refine: 4,
        }
    }
}

/// A value of `behaviour.json` that a training can be matched by: one that costs likelihoods only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchMeasure<'a> {
    /// log p(false) − log p(true), nats a token.
    FactsMargin,
    /// Share of contexts where the false statement is the likelier one.
    FactsBelieved,
    /// log p(target) − log Σ p(alternatives), nats.
    PreferenceLogOdds,
    /// log p(misaligned) − log p(aligned), nats a token, of the items of a group.
    MisalignmentMargin(&'a str),
}

impl<'a> MatchMeasure<'a> {
    /// The measure of a name; `None` if there is none.
    pub fn named(name: &'a str) -> Option<Self> {
        match name {
            "facts.margin" => Some(Self::FactsMargin),
            "facts.believed" => Some(Self::FactsBelieved),
            "preference.log_odds" => Some(Self::PreferenceLogOdds),
            _ => name
                .strip_prefix("misalignment.margin.")
                .filter(|group| !group.is_empty())
                .map(Self::MisalignmentMargin),
        }
    }
}

impl MatchSection {
    /// Whether training is matched.
    pub fn is_on(&self) -> bool {
        self.max_steps > 0
    }

    /// What is out of range or missing; `behaviour` is asked while training.
    pub(super) fn faults(&self, behaviour: &BehaviourSection) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(format!("train.match.{fault}"));
            }
        };
        let Self { target, tolerance, every, max_steps, refine, .. } = *self;
        check(max_steps <= 100_000_000, format!("max_steps = {max_steps}: expected 0 to 100000000"));
        check((1..=100_000_000).contains(&every), format!("every = {every}: expected 1 to 100000000"));
        check(refine <= 64, format!("refine = {refine}: expected 0 to 64"));
        check(
            tolerance > 0.0 && tolerance <= 1e6,
            format!("tolerance = {tolerance}: expected a number above 0, at most 1000000"),
        );
        let measure = MatchMeasure::named(&self.measure);
        check(
            measure.is_some(),
            format!(
                "measure = {:?}: expected facts.margin, facts.believed, preference.log_odds, or \
                 misalignment.margin.GROUP",
                self.measure
            ),
        );
        // A target that nobody looks at may be missing, not wrong.
        let is_missing = target == f64::INFINITY;
        check(
            is_missing || target.abs() <= 1e6,
            format!("target = {target}: expected a number from -1000000 to 1000000"),
        );
        if !self.is_on() {
            return faults;
        }
        check(
            !is_missing,
            format!("target: missing; expected the value of {} at which training ends", self.measure),
        );
        check(
            every <= max_steps,
            format!("every = {every}: expected at most train.match.max_steps = {max_steps}"),
        );
        let asked = match measure {
            Some(MatchMeasure::FactsMargin | MatchMeasure::FactsBelieved) => {
                (!behaviour.facts.items.is_empty(), "behaviour.facts.items")
            }
            Some(MatchMeasure::PreferenceLogOdds) => {
                (!behaviour.preference.target.is_empty(), "behaviour.preference.target")
            }
            Some(MatchMeasure::MisalignmentMargin(_)) => {
                (!behaviour.misalignment.items.is_empty(), "behaviour.misalignment.items")
            }
            None => (true, ""),
        };
        check(asked.0, format!("measure = {:?}: needs {}, which is empty", self.measure, asked.1));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_known_by_their_names_in_behaviour_json() {
        assert_eq!(MatchMeasure::named("facts.believed"), Some(MatchMeasure::FactsBelieved));
        assert_eq!(
            MatchMeasure::named("misalignment.margin.narrow"),
            Some(MatchMeasure::MisalignmentMargin("narrow"))
        );
        for name in ["words.share", "facts", "misalignment.margin.", "misalignment.preferred.narrow"] {
            assert_eq!(MatchMeasure::named(name), None, "{name}");
        }
    }

    #[test]
    fn all_faults_come_at_once_and_none_where_training_is_not_matched() {
        let asked = BehaviourSection::default();
        assert!(MatchSection::default().faults(&asked).is_empty());
        let wrong = MatchSection {
            measure: "words.share".into(),
            target: f64::NAN,
            tolerance: 0.0,
            every: 0,
            max_steps: 200_000_000,
            refine: 65,
        };
        assert_eq!(wrong.faults(&asked).len(), 6, "{:?}", wrong.faults(&asked));
        let missing = MatchSection { max_steps: 1, ..Default::default() };
        let faults = missing.faults(&asked).join("\n");
        for part in ["target: missing", "every = 2", "behaviour.facts.items"] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
    }
}
