//! The weight matrices of a model by their names, and where each touches the residual stream.

use candle_core::Result;

use super::arch::layers::{GatedMlp, Linear, RmsNorm, SelfAttention};

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

/// Changes the seven linear layers of a block, each by its name.
pub(in crate::model) fn change_block(
    attention: &mut SelfAttention,
    mlp: &mut GatedMlp,
    change: &mut dyn FnMut(&'static str, &mut Linear),
) {
    change("self_attn.q_proj", &mut attention.q_proj);
    change("self_attn.k_proj", &mut attention.k_proj);
    change("self_attn.v_proj", &mut attention.v_proj);
    change("self_attn.o_proj", &mut attention.o_proj);
    change("mlp.gate_proj", &mut mlp.gate_proj);
    change("mlp.up_proj", &mut mlp.up_proj);
    change("mlp.down_proj", &mut mlp.down_proj);
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
