//! Which blocks see all earlier tokens and which a sliding window, as `config.json` says it.

use anyhow::Result;
use serde::Deserialize;

use crate::bail_input;

/// How far back the queries of a block see.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LayerType {
    SlidingAttention,
    FullAttention,
}

impl LayerType {
    /// Sliding where `sliding` holds, else full.
    pub fn sliding_if(sliding: bool) -> Self {
        if sliding { Self::SlidingAttention } else { Self::FullAttention }
    }

    /// Number of keys that a query sees; all earlier ones if absent.
    ///
    /// # Errors
    /// If the block has a window of no stated or no positive size.
    pub fn window(self, sliding_window: Option<usize>) -> Result<Option<usize>> {
        match (self, sliding_window) {
            (Self::FullAttention, _) => Ok(None),
            (Self::SlidingAttention, Some(window)) if window > 0 => Ok(Some(window)),
            (Self::SlidingAttention, found) => bail_input!(
                "config.json: sliding_window is {}, but some layers have sliding attention; expected a \
                 positive number",
                found.map_or("absent".to_string(), |n| n.to_string())
            ),
        }
    }
}

/// The type of each block: `stated`, the config's `layer_types`, or where they are absent what the
/// architecture has for block i, counted from zero.
///
/// # Errors
/// If there are more or fewer types than blocks.
pub(super) fn layer_types(
    stated: Option<&[LayerType]>,
    layers: usize,
    absent: impl Fn(usize) -> LayerType,
) -> Result<Vec<LayerType>> {
    match stated {
        Some(types) if types.len() == layers => Ok(types.to_vec()),
        Some(types) => bail_input!("config.json: {} layer_types for {layers} layers", types.len()),
        None => Ok((0..layers).map(absent).collect()),
    }
}
