//! How measures of the trace are drawn.

use crate::claims::trace::{LENS, LIFT, PATCHSCOPE, PROBE, SPECIFIC_SHARE, STEERING};
use crate::diff::plot::Ink;

/// Colour and axis of a measure of the trace, given by its key.
pub fn drawn(measure: &str) -> (Ink, &'static str) {
    match measure {
        LIFT => (Ink::Lift, "trace: lift, AUROC, mean over positions"),
        SPECIFIC_SHARE => (Ink::Bias, "trace: specific share of a constant bias"),
        STEERING => (Ink::Steered, "trace: similarity of steered text to narrow text"),
        LENS => (Ink::Lens, "trace: relevant tokens of the logit lens"),
        PATCHSCOPE => (Ink::Patchscope, "trace: relevant tokens of the patchscope"),
        PROBE => (Ink::Probe, "trace: AUROC of the difference along the probe"),
        _ => (Ink::Total, "trace"),
    }
}
