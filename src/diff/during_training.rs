//! The measures that are cheap enough to be taken again and again while a model trains: those of the full analysis, on
//! fewer texts and without intervals.

use std::collections::BTreeMap;

use anyhow::Result;

use super::findings::Findings;
use super::inputs::Inputs;
use super::mean_difference::{later, norm};
use super::measure::Measure;
use super::measures::bias_share::BiasShare;
use super::measures::lift::Lift;
use super::reading::{Prepared, Reading};
use super::statistics::mean;
use crate::interrupt::Interrupt;
use crate::recipe::{
    BiasShareSection, DiffSection, LossesSection, PatchscopeSection, SteeringSection, TraceSection,
};

/// `[diff]` for such a reading: where it reads and what it compares with is the recipe's.
pub fn settings(diff: &DiffSection, trace: &TraceSection) -> DiffSection {
    DiffSection {
        samples: trace.samples,
        windows_per_text: 1,
        bootstrap: 1,
        candidates: Vec::new(),
        chat: Default::default(),
        // What is compared with the difference is not reported: as little of it as there can be.
        bias_share: BiasShareSection { enabled: true, factors: Vec::new(), directions: 1, compared: 1 },
        losses: LossesSection { samples: trace.texts, ..diff.losses.clone() },
        patchscope: PatchscopeSection { enabled: false, ..diff.patchscope.clone() },
        steering: SteeringSection { enabled: false, ..diff.steering.clone() },
        ..diff.clone()
    }
}

/// - `trace_delta_norm`: mean over the positions ≥ 1 (all, if there is no other) of ‖v_p‖ / η;
/// - `trace_lift_auroc`: [`Lift::auroc_mean`];
/// - `trace_bias_share`, `trace_specific_share`: [`super::measures::bias_share::Shares`], absent while nothing is gained;
/// - `trace_loss_narrow`, `trace_loss_unrelated`: [`BiasShare`]'s `ce_tuned` on either kind of text;
/// - `trace_gain`: what the narrow one fell by, [`BiasShare::gain`].
///
/// `prepared` is that of these inputs; what the base makes of the texts stays in it.
///
/// # Errors
/// As the measures.
pub fn measure(inputs: &Inputs, prepared: &Prepared, interrupt: &Interrupt) -> Result<BTreeMap<String, f64>> {
    let reading = Reading::new(inputs, prepared, None, false, interrupt)?;
    let mut found = BTreeMap::new();
    let relative = |i: usize| norm(&reading.means.difference[i]) / reading.eta();
    let norms: Vec<f64> = later(&reading.settings.positions).into_iter().map(relative).collect();
    found.insert("trace_delta_norm".to_string(), mean(&norms));
    if let Some(lift) = Lift::measure(&reading, &mut Findings::default())? {
        found.insert("trace_lift_auroc".to_string(), lift.auroc_mean);
    }
    let Some(bias) = BiasShare::measure(&reading, &mut Findings::default())? else { return Ok(found) };
    found.insert("trace_loss_narrow".to_string(), bias.ce_tuned);
    found.insert("trace_gain".to_string(), bias.gain);
    found.extend(bias.text.map(|text| ("trace_loss_unrelated".to_string(), text.ce_tuned)));
    if let Some(shares) = bias.shares {
        found.insert("trace_bias_share".to_string(), shares.share);
        found.extend(shares.specific_share.map(|share| ("trace_specific_share".to_string(), share)));
    }
    Ok(found)
}
