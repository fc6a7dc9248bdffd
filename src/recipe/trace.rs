//! `[train.trace]`: how often a run is read while it trains, and when it may end before its time.

use serde::{Deserialize, Serialize};

/// The measures of [`crate::diff::during_training`] that a run may end by, as `metrics.jsonl` names them.
pub const TRACE_MEASURES: [&str; 4] =
    ["trace_delta_norm", "trace_lift_auroc", "trace_bias_share", "trace_specific_share"];

/// `[train.trace]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSection {
    /// Steps between readings, the first before training, one after the last step (0: none).
    pub every: usize,
    /// Texts of `diff.text` that v is measured on.
    pub samples: usize,
    /// Texts of each kind that losses are taken on.
    pub texts: usize,
    /// Whether `[behaviour.facts]` is measured too, in the first of its contexts.
    pub behaviour: bool,
    /// When training ends early.
    pub stop: StopSection,
}

impl Default for TraceSection {
    fn default() -> Self {
        Self { every: 0, samples: 64, texts: 8, behaviour: true, stop: StopSection::default() }
    }
}

/// `[train.trace.stop]`: training ends at the first reading by which the organism has taken and is not read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopSection {
    /// Nats a token by which the loss on narrow text (held out, where any is) must be below the base's: `trace_gain` (0: it
    /// is trained to the end).
    pub gain: f64,
    /// The measure of the trace.
    pub measure: String,
    /// What it must be below.
    pub below: f64,
}

impl Default for StopSection {
    fn default() -> Self {
        Self { gain: 0.0, measure: "trace_lift_auroc".into(), below: 0.5 }
    }
}

impl TraceSection {
    /// What is out of range or contradicts itself.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(format!("train.trace.{fault}"));
            }
        };
        for (key, value) in [("samples", self.samples), ("texts", self.texts)] {
            check((2..=1_000_000).contains(&value), format!("{key} = {value}: expected 2 to 1000000"));
        }
        let stop = &self.stop;
        check((0.0..=1e6).contains(&stop.gain), format!("stop.gain = {}: expected 0 to 1000000", stop.gain));
        check(stop.below.is_finite(), format!("stop.below = {}: expected a number", stop.below));
        check(
            stop.gain == 0.0 || self.every > 0,
            "stop.gain: a run cannot stop by its trace without readings during training (train.trace.every = 0); \
             expected train.trace.every above 0".into(),
        );
        check(
            TRACE_MEASURES.contains(&stop.measure.as_str()),
            format!("stop.measure = {:?}: expected one of {}", stop.measure, TRACE_MEASURES.join(", ")),
        );
        faults
    }
}
