//! A null for what reads an adapter: the same adapter with the inputs of each module exchanged among themselves.
//!
//! The columns of each `lora_A` are permuted, which leaves the norms and singular values of s·B·A, and all that it writes, as
//! they are, and takes away what it answers to (as StressKit's controls do). Only plain LoRA can be treated so.

use anyhow::Result;
use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::model::CausalLm;

/// A model with its adapter permuted; all else is shared with `model`. `seed` and a module's name decide its permutation.
/// `None` of a model without LoRA matrices, with DoRA, or with modules that its adapter saves whole: then the null would
/// not be one.
///
/// # Errors
/// If a tensor operation fails.
pub fn permuted(model: &CausalLm, seed: u64) -> Result<Option<CausalLm>> {
    if !is_plain(model) {
        return Ok(None);
    }
    let mut fault = Ok(());
    let changed = model.with_linears(|name, linear| {
        let Some(term) = &mut linear.low_rank else { return };
        match permute_columns(&term.a, seed, name) {
            Ok(a) => term.a = a,
            Err(e) => fault = Err(e),
        }
    });
    fault?;
    Ok(Some(changed))
}

/// Whether the adapter is LoRA and nothing else.
fn is_plain(model: &CausalLm) -> bool {
    let modules = model.modules();
    let saves_whole = model.saves_tables()
        || model.saves_norms()
        || modules.iter().any(|(_, module)| {
            let linear = module.linear;
            let saves_bias = linear.bias.as_ref().is_some_and(|bias| bias.saved.is_some());
            linear.weight.saved.is_some() || saves_bias
        });
    let mut terms = modules.iter().filter_map(|(_, module)| module.linear.low_rank.as_ref()).peekable();
    !saves_whole && terms.peek().is_some() && terms.all(|term| term.dora.is_none())
}

/// `(r, in)` with its columns in another order.
fn permute_columns(a: &Tensor, seed: u64, module: &str) -> Result<Tensor> {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(module.as_bytes());
    let mut rng = ChaCha8Rng::from_seed(hash.finalize().into());
    let mut order: Vec<u32> = (0..a.dim(1)? as u32).collect();
    order.shuffle(&mut rng);
    let order = Tensor::new(order, &Device::Cpu)?.to_device(a.device())?;
    Ok(a.detach().index_select(&order, 1)?)
}
