//! The same differences after other blocks: how large they are there and what they decode to.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::patchscope::{IdentityPrompts, choose_scales};
use crate::diff::collect::{Sequence, collect};
use crate::diff::decode::TopToken;
use crate::diff::mean_difference::norm;
use crate::diff::reading::{Prepared, Reading};
use crate::diff::relevance;
use crate::progress;

/// Mean differences by depth. Arrays run over `layers`, those within them over positions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Depth {
    /// Depths that were asked for, 0 the first block and 1 the last.
    pub depths: Vec<f64>,
    /// Zero-based index of each block.
    pub layers: Vec<usize>,
    /// Number of windows.
    pub samples: usize,
    /// ‖v_p‖.
    pub delta_norm: Vec<Vec<f64>>,
    /// η of the tuned model after the block.
    pub expected_norm: Vec<f64>,
    /// ‖v_p‖ / η.
    pub relative_norm: Vec<Vec<f64>>,
    /// Logit lens of v_p: best tokens.
    pub top_tokens: Vec<Vec<Vec<TopToken>>>,
    /// Share of them that is relevant.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub token_relevance: Vec<Vec<f64>>,
    /// The same of the patchscope at the block, each direction at its own best scale.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub patchscope_token_relevance: Vec<Vec<f64>>,
}

/// Units of [`Depth`].
pub const UNITS: &[(&str, &str)] = &[
    ("depth.delta_norm", "L2 norm of the residual stream"),
    ("depth.expected_norm", "L2 norm of the residual stream"),
    ("depth.relative_norm", "multiples of expected_norm of the block"),
    ("depth.token_relevance", "share of the top tokens, 0 to 1"),
    ("depth.patchscope_token_relevance", "share of the top tokens, 0 to 1"),
];

/// Mean differences after each of the blocks, from one pass of either model over the first windows.
///
/// # Errors
/// [`crate::error::Interrupted`], or a tensor operation that fails.
pub fn measure(reading: &Reading) -> Result<Depth> {
    let Reading { inputs, settings, prepared: Prepared { windows, .. }, .. } = reading;
    let layers: Vec<usize> = settings
        .depth
        .layers
        .iter()
        .map(|depth| settings.block_at(*depth, inputs.base.model.n_layers()))
        .collect();
    let probe = |ids: &Vec<u32>| Sequence {
        ids: ids.clone(),
        read: settings.positions.clone(),
        norm: settings.norm_skip..ids.len(),
    };
    let probes: Vec<Sequence> = windows.ids.iter().take(settings.depth.samples).map(probe).collect();
    let of_layers = collect(inputs.base, inputs.tuned, &probes, &layers, 0, reading.interrupt)?;

    let mut record =
        Depth { depths: settings.depth.layers.clone(), samples: probes.len(), ..Depth::default() };
    for (&layer, found) in layers.iter().zip(&of_layers) {
        let (differences, eta) = (found.means().difference, found.tuned_norm());
        let lens = relevance::read(reading, &differences)?;
        let norms: Vec<f64> = differences.iter().map(|v| norm(v)).collect();
        record.relative_norm.push(norms.iter().map(|n| n / eta).collect());
        record.delta_norm.push(norms);
        record.expected_norm.push(eta);
        record.top_tokens.push(lens.top_tokens);
        if reading.prepared.lexicon.is_some() {
            record.token_relevance.push(lens.token_relevance);
            if settings.depth.patchscope {
                record.patchscope_token_relevance.push(patchscope(reading, layer, eta, &differences)?);
            }
        }
    }
    Ok(Depth { layers, ..record })
}

/// Relevance of what the patchscope at a block decodes directions to.
fn patchscope(reading: &Reading, layer: usize, eta: f64, directions: &[Vec<f32>]) -> Result<Vec<f64>> {
    let (section, k) = (&reading.settings.patchscope, reading.settings.top_k);
    let bar = progress::bar("patchscope", (directions.len() * section.scales.len()) as u64);
    let prompts = IdentityPrompts::new(reading.inputs.tuned, &reading.inputs.pretrained.tokenizer, layer)?;
    let decoded = prompts.decode(directions, eta, section, k, &bar, reading.interrupt)?;
    bar.finish_and_clear();
    let (chosen, _) = choose_scales(reading, decoded)?;
    Ok(reading.relevances(chosen.iter().map(|d| &d.tops[d.best])))
}
