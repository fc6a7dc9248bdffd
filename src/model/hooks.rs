//! Named sites of the residual stream, and what may happen at them.
//!
//! A [`Hook`] sees the value at a site and returns what flows on; a forward pass takes exactly one. The
//! borrow ends with the pass, so no hook outlives it and there is no global state. Names are
//! TransformerLens's; a site is defined by the stream itself: `AttnOut` is the term that is added to it,
//! after any post-norm.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use crate::ops::project::project_out;
use crate::ops::segments::Segments;
use crate::ops::tape::Tape;

/// A place in a block where a hook is called. Every value is `(tokens, hidden)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Site {
    /// The residual stream as it enters the block.
    ResidPre,
    /// What attention adds to the stream.
    AttnOut,
    /// The stream between attention and MLP.
    ResidMid,
    /// What the MLP adds to the stream.
    MlpOut,
    /// The stream as it leaves the block: `hidden_states[layer + 1]` of transformers, before the final norm.
    ResidPost,
}

/// Reads or changes the residual stream during a forward pass.
pub trait Hook {
    /// Called at every site in order; `None` leaves the value as it is. A change of a pass that is recorded must be
    /// recorded too, on `tape`; one at the sites inside a block would be lost where blocks are recomputed.
    ///
    /// # Errors
    /// Whatever the hook's own tensor work returns; the pass ends with it.
    fn at(
        &mut self,
        layer: usize,
        site: Site,
        x: &Tensor,
        segments: &Segments,
        tape: Tape,
    ) -> Result<Option<Tensor>>;
}

/// Does nothing.
pub struct NoHook;

impl Hook for NoHook {
    fn at(&mut self, _: usize, _: Site, _: &Tensor, _: &Segments, _: Tape) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// Keeps the values at one site of some blocks, detached.
pub struct ActivationCache {
    layers: Vec<usize>,
    site: Site,
    /// The values by block, of those that the pass has reached.
    pub values: BTreeMap<usize, Tensor>,
}

impl ActivationCache {
    /// Will keep what passes `site` of the blocks `layers`.
    pub fn new(layers: &[usize], site: Site) -> Self {
        Self { layers: layers.to_vec(), site, values: BTreeMap::new() }
    }
}

impl Hook for ActivationCache {
    fn at(&mut self, layer: usize, site: Site, x: &Tensor, _: &Segments, _: Tape) -> Result<Option<Tensor>> {
        if site == self.site && self.layers.contains(&layer) {
            self.values.insert(layer, x.detach());
        }
        Ok(None)
    }
}

/// Adds a vector to every token of the output of one block, a different one (or none) for each sequence.
pub struct Steer {
    layer: usize,
    vectors: Vec<Option<Tensor>>,
}

impl Steer {
    /// `vectors[id]` `(hidden)` is added to the sequence of that id (see [`Segments::id`]).
    pub fn new(layer: usize, vectors: Vec<Option<Tensor>>) -> Self {
        Self { layer, vectors }
    }
}

impl Hook for Steer {
    fn at(
        &mut self,
        layer: usize,
        site: Site,
        x: &Tensor,
        segments: &Segments,
        _: Tape,
    ) -> Result<Option<Tensor>> {
        if (layer, site) != (self.layer, Site::ResidPost) {
            return Ok(None);
        }
        let (_, hidden) = x.dims2()?;
        let mut added = Vec::with_capacity(segments.len());
        for i in 0..segments.len() {
            let shape = (segments.rows(i).len(), hidden);
            added.push(match &self.vectors[segments.id(i)] {
                Some(v) => v.reshape((1, hidden))?.broadcast_as(shape)?.contiguous()?,
                None => Tensor::zeros(shape, x.dtype(), x.device())?,
            });
        }
        (x + Tensor::cat(&added, 0)?).map(Some)
    }
}

/// Replaces the value of given rows at the output of one block.
pub struct Patch {
    layer: usize,
    rows: Vec<u32>,
    values: Tensor,
}

impl Patch {
    /// Row `rows[i]` of the `(tokens, hidden)` stream becomes `values[i]`; `values` is `(rows, hidden)`.
    pub fn new(layer: usize, rows: Vec<u32>, values: Tensor) -> Self {
        Self { layer, rows, values }
    }
}

impl Hook for Patch {
    fn at(&mut self, layer: usize, site: Site, x: &Tensor, _: &Segments, _: Tape) -> Result<Option<Tensor>> {
        if (layer, site) != (self.layer, Site::ResidPost) {
            return Ok(None);
        }
        let rows = Tensor::from_slice(&self.rows, self.rows.len(), x.device())?;
        let old = x.index_select(&rows, 0)?;
        x.index_add(&rows, &(&self.values - old)?, 0).map(Some)
    }
}

/// Takes the part along given directions out of the output of some blocks, at every token.
pub struct Ablate {
    layers: Vec<usize>,
    basis: Tensor,
}

impl Ablate {
    /// `basis` `(directions, hidden)` has orthonormal rows.
    pub fn new(layers: &[usize], basis: Tensor) -> Self {
        Self { layers: layers.to_vec(), basis }
    }
}

impl Hook for Ablate {
    fn at(
        &mut self,
        layer: usize,
        site: Site,
        x: &Tensor,
        _: &Segments,
        tape: Tape,
    ) -> Result<Option<Tensor>> {
        if site != Site::ResidPost || !self.layers.contains(&layer) {
            return Ok(None);
        }
        project_out(x, &self.basis, tape).map(Some)
    }
}
