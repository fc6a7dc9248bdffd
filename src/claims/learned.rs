//! Whether a run learned anything narrow. If it did not, that nothing can be read says nothing of traces.

use crate::results::run_record::Cell;

/// Whether the run does what it was made for, or predicts narrow text better than its base; `None` where nothing tells.
///
/// A clear change of behaviour says yes. Else the gain on narrow text decides, by its whole interval where there is one,
/// and where the gain was not measured, the loss on held-out narrow text.
pub fn learned(cell: &Cell) -> Option<bool> {
    let behaves = cell.behaviour.as_ref().is_some_and(|b| b.effects().iter().any(|(_, e)| e.is_clear()));
    if behaves {
        return Some(true);
    }
    let bias = cell.readability.as_ref().and_then(|r| r.bias_share.as_ref());
    let gain = bias.map(|bias| bias.gain_interval.map_or(bias.gain, |[low, _]| low));
    let fell = cell.base_losses().narrow.zip(cell.tuned_losses().narrow).map(|(base, tuned)| base - tuned);
    gain.or(fell).map(|gain| gain > 0.0)
}
