//! One forward pass, and the keys and values that it leaves for the next.

use candle_core::Tensor;
use rand_chacha::ChaCha8Rng;

use super::hooks::{Hook, Site};
use crate::ops::attention::LayerCache;
use crate::ops::segments::Segments;
use crate::ops::tape::Tape;

/// One forward pass: which sequences, with how much of the adapter, watched by which hook.
pub struct Pass<'a> {
    /// Where the sequences lie in the `(tokens, …)` tensors.
    pub segments: &'a Segments,
    /// Factor on the adapter: 1 is the tuned model, 0 the base; any other scales the low-rank terms.
    pub adapter: f64,
    /// Called at every site of every block.
    pub hook: &'a mut dyn Hook,
    /// Keys and values of earlier tokens; takes up the new ones.
    pub cache: Option<&'a mut KvCache>,
    /// Where operations note their backward while training.
    pub tape: Tape<'a>,
    /// Present while training: dropout draws from it.
    pub dropout: Option<&'a mut ChaCha8Rng>,
    /// Whether the backward computes each block again instead of keeping what happened in it.
    pub recompute: bool,
}

impl<'a> Pass<'a> {
    /// A pass without cache and gradients.
    pub fn new(segments: &'a Segments, adapter: f64, hook: &'a mut dyn Hook) -> Self {
        Self { segments, adapter, hook, cache: None, tape: Tape::OFF, dropout: None, recompute: false }
    }
}

/// Lets the hook see a value and gives back what flows on.
pub(crate) fn at_site(pass: &mut Pass, layer: usize, site: Site, x: Tensor) -> candle_core::Result<Tensor> {
    match pass.hook.at(layer, site, &x, pass.segments, pass.tape)? {
        Some(changed) if pass.tape.tracks(&x) && !pass.tape.tracks(&changed) => {
            candle_core::bail!("a hook changed a pass that is recorded, but did not record the change")
        }
        Some(changed) => Ok(changed),
        None => Ok(x),
    }
}

/// Keys and values of every block for the tokens that earlier passes have seen.
#[derive(Debug, Clone)]
pub struct KvCache {
    /// By block index; a pass over some blocks fills these only.
    pub layers: Vec<LayerCache>,
}

impl KvCache {
    /// An empty cache for a model of so many blocks.
    pub fn new(n_layers: usize) -> Self {
        Self { layers: vec![LayerCache::default(); n_layers] }
    }

    /// The cache of the given sequences, in that order; a sequence may come several times.
    pub fn select(&self, sequences: &[usize]) -> Self {
        Self { layers: self.layers.iter().map(|l| l.select(sequences)).collect() }
    }

    /// Forgets the sequences for which `keep` is false.
    pub fn retain(&mut self, keep: &[bool]) {
        self.layers.iter_mut().for_each(|l| l.retain(keep));
    }
}
