//! The parts of every decoder: what a file of `arch/` builds.

use std::sync::Arc;

use candle_core::Tensor;

use super::arch::layers::{Linear, Parameter, RmsNorm};
use super::modules::Module;
use super::pass::Pass;
use crate::ops::weight::Matrix;

/// One block of a decoder.
pub trait Block: Send + Sync {
    /// The residual stream `(tokens, hidden)` through the block. Calls the hook at the sites inside
    /// ([`AttnOut`](crate::model::hooks::Site::AttnOut), [`ResidMid`](crate::model::hooks::Site::ResidMid), [`MlpOut`](crate::model::hooks::Site::MlpOut)).
    ///
    /// # Errors
    /// If a tensor operation or the hook fails.
    fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass) -> candle_core::Result<Tensor>;

    /// The linear layers of the block.
    fn modules(&self) -> Vec<Module<'_>>;

    /// The block with its linear layers changed, each by its name in the block (`self_attn.q_proj`). What is not changed is
    /// shared.
    fn with_linears(&self, change: &mut dyn FnMut(&'static str, &mut Linear)) -> Arc<dyn Block>;
}

/// What an architecture file builds.
#[derive(Clone)]
pub struct Decoder {
    /// Token embeddings `(vocab, hidden)`.
    pub embed_tokens: Parameter<Matrix>,
    /// Factor on embeddings.
    pub embed_scale: f64,
    /// The blocks, lowest first.
    pub blocks: Vec<Arc<dyn Block>>,
    /// The norm before the head.
    pub norm: RmsNorm,
    /// The unembedding `(vocab, hidden)`; the embeddings themselves where they are tied.
    pub lm_head: Parameter<Matrix>,
    /// Soft cap c on the logits, c·tanh(z / c).
    pub final_logit_softcapping: Option<f32>,
}
