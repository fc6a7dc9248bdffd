//! The weight matrices of a model by their names, and where each touches the residual stream.

use candle_core::Result;

use super::CausalLm;
use super::arch::layers::{GatedMlp, Linear, RmsNorm, SelfAttention};
use crate::ops::weight::Matrix;

/// Where a module touches the residual stream.
#[derive(Clone, Copy)]
pub enum Stream<'a> {
    /// It reads the stream through this norm: the query, key, value, gate and up projections.
    Reads(&'a RmsNorm),
    /// It writes to the stream, in some architectures through this norm: the output and down projections.
    Writes(Option<&'a RmsNorm>),
}

/// A linear layer of a block.
#[derive(Clone, Copy)]
pub struct Module<'a> {
    /// Its name in the block (`self_attn.q_proj`).
    pub name: &'static str,
    /// The layer.
    pub linear: &'a Linear,
    /// Where it touches the stream.
    pub stream: Stream<'a>,
}

impl Module<'_> {
    /// The last part of its name (`q_proj`), by which adapters target it.
    pub fn kind(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// The seven linear layers of a block: `reads` are the norms before attention and before the MLP, `writes` those after
/// them, where the architecture has such.
pub(in crate::model) fn of_block<'a>(
    attention: &'a SelfAttention,
    mlp: &'a GatedMlp,
    reads: [&'a RmsNorm; 2],
    writes: [Option<&'a RmsNorm>; 2],
) -> Vec<Module<'a>> {
    let [before_attention, before_mlp] = reads.map(Stream::Reads);
    let [after_attention, after_mlp] = writes.map(Stream::Writes);
    [
        ("self_attn.q_proj", &attention.q_proj, before_attention),
        ("self_attn.k_proj", &attention.k_proj, before_attention),
        ("self_attn.v_proj", &attention.v_proj, before_attention),
        ("self_attn.o_proj", &attention.o_proj, after_attention),
        ("mlp.gate_proj", &mlp.gate_proj, before_mlp),
        ("mlp.up_proj", &mlp.up_proj, before_mlp),
        ("mlp.down_proj", &mlp.down_proj, after_mlp),
    ]
    .into_iter()
    .map(|(name, linear, stream)| Module { name, linear, stream })
    .collect()
}

impl RmsNorm {
    /// The factor on each element of the normed stream, `(width)`. Gemma's weights hold the gain minus one.
    ///
    /// # Errors
    /// If the weight cannot be brought to the CPU.
    pub fn gain(&self, adapter: f64) -> Result<Vec<f32>> {
        let weight = self.weight.at(adapter).to_device(&candle_core::Device::Cpu)?.to_vec1::<f32>()?;
        Ok(weight.into_iter().map(|w| w + self.offset).collect())
    }
}

impl CausalLm {
    /// The linear layers of every block, lowest block first, each with its block's number.
    pub fn modules(&self) -> Vec<(usize, Module<'_>)> {
        let blocks = self.decoder.blocks.iter().enumerate();
        blocks.flat_map(|(block, b)| b.modules().into_iter().map(move |module| (block, module))).collect()
    }

    /// The norm before the head.
    pub fn norm(&self) -> &RmsNorm {
        &self.decoder.norm
    }

    /// The table of embeddings `(vocab, hidden)`, without the factor of some architectures. `adapter` as in
    /// [`super::Pass`].
    pub fn embeddings(&self, adapter: f64) -> &Matrix {
        self.decoder.embed_tokens.at(adapter)
    }
}
