//! Whether a run learned anything narrow. If it did not, that nothing can be read says nothing of traces.

use serde::{Deserialize, Serialize};

use crate::diff::statistics::Interval;
use crate::results::RunRecord;

/// What a run learned, as far as it was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// Whether the run does what it was made for, or predicts narrow text better than its base; absent where nothing says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub learned: Option<bool>,
    /// What decided.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rests_on: Option<LearnedFrom>,
    /// Values of behaviour whose change has a 95 % interval without 0.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub clear_behaviour: Vec<String>,
    /// The main value of behaviour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub behaviour: Option<BehaviourChange>,
    /// Gain on narrow text, base minus tuned, nats a token (`bias_share.gain`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain: Option<f64>,
    /// Its 95 % interval over documents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain_interval: Option<Interval>,
    /// The base's loss on held-out narrow text, nats a token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_base: Option<f64>,
    /// The tuned model's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_tuned: Option<f64>,
}

/// What decided whether a run learned something narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearnedFrom {
    /// A clear change of behaviour.
    Behaviour,
    /// The gain on narrow text, by its whole interval where there is one.
    Gain,
    /// The loss on held-out narrow text.
    HeldOutLoss,
}

/// A value of `behaviour.json`, in its unit there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BehaviourChange {
    /// Its name, such as `facts.margin`.
    pub name: String,
    /// Of the base.
    pub base: f64,
    /// Of the tuned model.
    pub tuned: f64,
    /// Tuned minus base.
    pub change: f64,
    /// 95 % bootstrap interval of the change over items.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub change_interval: Option<Interval>,
}

impl Learned {
    /// A clear change of behaviour says yes. Else the gain on narrow text decides, and where that was not measured, the loss
    /// on held-out narrow text.
    pub fn of(run: &RunRecord) -> Self {
        let effects = run.behaviour.as_ref().map(|b| b.effects()).unwrap_or_default();
        let clear = effects.iter().filter(|(_, e)| e.is_clear()).map(|(name, _)| name.clone());
        let bias = run.readability.as_ref().and_then(|r| r.bias_share.as_ref());
        let (base, tuned) = (run.base_losses().narrow, run.tuned_losses().narrow);
        let mut found = Self {
            learned: None,
            rests_on: None,
            clear_behaviour: clear.collect(),
            behaviour: effects.first().map(|(name, e)| BehaviourChange {
                name: name.clone(),
                base: e.base,
                tuned: e.tuned,
                change: e.change,
                change_interval: e.change_interval,
            }),
            gain: bias.map(|bias| bias.gain),
            gain_interval: bias.and_then(|bias| bias.gain_interval),
            loss_base: base,
            loss_tuned: tuned,
        };
        let gain = found.gain.map(|gain| found.gain_interval.map_or(gain, |[low, _]| low));
        let fell = base.zip(tuned).map(|(base, tuned)| base - tuned);
        (found.learned, found.rests_on) = match (found.clear_behaviour.is_empty(), gain, fell) {
            (false, _, _) => (Some(true), Some(LearnedFrom::Behaviour)),
            (true, Some(gain), _) => (Some(gain > 0.0), Some(LearnedFrom::Gain)),
            (true, None, Some(fell)) => (Some(fell > 0.0), Some(LearnedFrom::HeldOutLoss)),
            (true, None, None) => (None, None),
        };
        found
    }
}
