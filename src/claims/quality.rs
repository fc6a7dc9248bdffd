//! Whether an organism is still a language model, by bounds on its quality panel.

use serde::{Deserialize, Serialize};

use super::rules::QUALITY;
use crate::behaviour::Behaviour;
use crate::diff::statistics::Interval;

/// What the quality panel says of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QualityClaim {
    /// Whether no value is beyond its bound.
    pub within: bool,
    /// The values that have a bound, in the order of [`QUALITY`].
    pub values: Vec<BoundedValue>,
}

/// A value of the panel and how far it may change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BoundedValue {
    /// Its name in the panel.
    pub name: String,
    /// Of the base.
    pub base: f64,
    /// Of the tuned model.
    pub tuned: f64,
    /// Tuned minus base.
    pub change: f64,
    /// 95 % bootstrap interval of the change.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub change_interval: Option<Interval>,
    /// The most that it may rise or, below 0, fall.
    pub bound: f64,
    /// Whether the change is beyond the bound, and its interval leaves 0 out.
    pub is_beyond: bool,
}

impl QualityClaim {
    /// `None` without a panel.
    pub fn of(behaviour: &Behaviour) -> Option<Self> {
        let panel = behaviour.quality.as_ref()?;
        let value = |&(name, bound): &(&str, f64)| {
            let effect = panel.values.get(name)?;
            let passes = if bound < 0.0 { effect.change >= bound } else { effect.change <= bound };
            Some(BoundedValue {
                name: name.into(),
                base: effect.base,
                tuned: effect.tuned,
                change: effect.change,
                change_interval: effect.change_interval,
                bound,
                is_beyond: !passes && effect.is_clear(),
            })
        };
        let values: Vec<BoundedValue> = QUALITY.iter().filter_map(value).collect();
        Some(Self { within: values.iter().all(|value| !value.is_beyond), values })
    }

    /// The values that are beyond their bounds.
    pub fn beyond(&self) -> impl Iterator<Item = &BoundedValue> {
        self.values.iter().filter(|value| value.is_beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::BehaviourEffect;
    use crate::behaviour::quality::Quality;

    fn behaviour(values: &[(&str, f64, Option<Interval>)]) -> Behaviour {
        let effect = |change, change_interval| BehaviourEffect {
            items: 20,
            base: 0.5,
            base_interval: None,
            tuned: 0.5 + change,
            tuned_interval: None,
            change,
            change_interval,
        };
        let values = values.iter().map(|(name, change, ends)| (name.to_string(), effect(*change, *ends)));
        let quality = Quality { values: values.collect(), ..Quality::default() };
        let json = serde_json::json!({
            "schema": 1, "base": "", "tuned": "", "seed": 0, "chat": false, "units": {}, "quality": quality
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_value_is_beyond_its_bound_on_its_own_side_and_where_it_is_clear() {
        let found = |change, ends| {
            let claim = QualityClaim::of(&behaviour(&[("coherent", change, ends)])).unwrap();
            (claim.within, claim.beyond().count())
        };
        assert_eq!(found(-0.5, Some([-0.7, -0.3])), (false, 1));
        assert_eq!(found(0.5, Some([0.3, 0.7])), (true, 0), "coherent text may become more frequent");
        assert_eq!(found(-0.25, Some([-0.5, 0.0])), (true, 0), "no clear change");
        assert_eq!(found(-0.1, Some([-0.15, -0.05])), (true, 0), "within the bound");
        assert_eq!(found(-0.5, None), (true, 0), "nothing says that it is clear");
        let claim = QualityClaim::of(&behaviour(&[
            ("neutral.nats", 0.4, Some([0.3, 0.5])),
            ("longest", 30.0, Some([20.0, 40.0])),
        ]));
        let names: Vec<String> = claim.unwrap().values.into_iter().map(|value| value.name).collect();
        assert_eq!(names, ["neutral.nats"]);
        let without = Behaviour { quality: None, ..behaviour(&[]) };
        assert_eq!(QualityClaim::of(&without), None);
    }
}
