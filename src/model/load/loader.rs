//! Builds layers from named weights: checks every shape, attaches adapters, registers what is trained.
//!
//! A missing or misshapen tensor does not stop the loader at once: it notes the fault and goes on with
//! zeros, so that all faults of a checkpoint are reported together.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

pub use super::weights::{EMBEDDINGS, HEAD};
use super::weights::{Frozen, NamedTensors, element_count};
use crate::error::InputError;
use crate::limits::{MOST_FAULTS, MOST_MISSING_ELEMENTS};
use crate::model::arch::layers::{GatedMlp, Linear, Parameter, RmsNorm, SelfAttention};
use crate::model::lora::low_rank::{Dora, LowRank};
use crate::model::lora::{Adapter, LoraConfig};
use crate::model::trainables::Trainables;
use crate::ops::attention::Attention;
use crate::ops::gated_mlp::Activation;
use crate::ops::kernels::fused;
use crate::ops::rope::Rotary;
use crate::ops::weight::Matrix;

/// Which weights learn.
pub enum Tuning<'a> {
    /// None: the model as it is.
    Frozen,
    /// None: the model with a finished adapter.
    Adapted(&'a Adapter),
    /// New low-rank matrices, drawn as PEFT draws them (A uniform in ±1/√in, B zero; with DoRA the lengths of
    /// the rows of W). Modules to save start as they are.
    Lora {
        /// What is adapted and how.
        config: &'a LoraConfig,
        /// Decides A; each matrix has its own stream, so targets do not influence each other.
        seed: u64,
    },
    /// The adapter goes on learning.
    Resumed(&'a Adapter),
    /// All weights.
    Full,
}

/// Builds layers from named weights.
pub struct Loader<'a> {
    weights: &'a NamedTensors,
    tuning: &'a Tuning<'a>,
    device: Device,
    used: BTreeSet<String>,
    linears: BTreeSet<String>,
    adapted: BTreeSet<String>,
    asked_of_adapter: BTreeSet<String>,
    faults: Vec<String>,
    /// Elements of the tensors that the faults are about, in place of which there are zeros.
    missing: usize,
    trainables: Trainables,
}

impl<'a> Loader<'a> {
    /// A loader that places every tensor on `device`.
    pub fn new(weights: &'a NamedTensors, tuning: &'a Tuning<'a>, device: &Device) -> Self {
        Self {
            weights,
            tuning,
            device: device.clone(),
            used: BTreeSet::new(),
            linears: BTreeSet::new(),
            adapted: BTreeSet::new(),
            asked_of_adapter: BTreeSet::new(),
            faults: Vec::new(),
            missing: 0,
            trainables: Trainables::new(),
        }
    }

    /// Whether the checkpoint has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.weights.shape(name).is_some()
    }

    /// Whether a layer has asked for the tensor of that name.
    pub(in crate::model) fn has_read(&self, name: &str) -> bool {
        self.used.contains(name)
    }

    /// A weight, trained if everything is or if the adapter saves the module it belongs to.
    ///
    /// # Errors
    /// If its bytes cannot be read. A missing name or a wrong shape becomes a fault of [`Self::finish`].
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Parameter> {
        let base = match self.fits(name, shape)? {
            true => self.weights.get(name)?.to_device(&self.device)?,
            false => Tensor::zeros(shape, DType::F32, &self.device)?,
        };
        let base = match self.tuning {
            Tuning::Full => self.learns(name, &base)?,
            _ => base,
        };
        let saved = self.saved(name, shape, || Ok(base.copy()?))?;
        Ok(Parameter { base, saved })
    }

    /// A weight matrix, trained as [`Self::tensor`] is. A frozen one is held as
    /// [`crate::model::load::source::Pretrained::set_dtype`] says.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Parameter<Matrix>> {
        self.matrix_held(name, shape, self.weights.frozen)
    }

    /// The table of embeddings and the head, both `(vocab, hidden)`, and one where the model ties them. A table beside a
    /// head of its own is never multiplied by, only looked up in: frozen, it stays as its file has it.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn embeddings_and_head(
        &mut self,
        shape: [usize; 2],
        tied: bool,
    ) -> Result<(Parameter<Matrix>, Parameter<Matrix>)> {
        let only_looked_up = !tied && fused(&self.device);
        let held = match self.weights.frozen {
            Frozen::F32 if only_looked_up => Frozen::AsStored,
            held => held,
        };
        let embed_tokens = self.matrix_held(EMBEDDINGS, shape, held)?;
        let lm_head = match tied {
            true => self.tied_head(&embed_tokens)?,
            false => self.matrix(HEAD, shape)?,
        };
        Ok((embed_tokens, lm_head))
    }

    fn matrix_held(&mut self, name: &str, shape: [usize; 2], held: Frozen) -> Result<Parameter<Matrix>> {
        if held == Frozen::F32 || matches!(self.tuning, Tuning::Full) {
            let Parameter { base, saved } = self.tensor(name, &shape)?;
            return Ok(Parameter { base: base.into(), saved: saved.map(Matrix::from) });
        }
        let base = match self.fits(name, &shape)? {
            true if held == Frozen::Bf16 => self.weights.rounded(name)?,
            true => self.weights.packed(name)?,
            false => Tensor::zeros(&shape, DType::F32, &self.device)?.into(),
        };
        let saved = self.saved(name, &shape, || Ok(base.dense()?))?.map(Matrix::from);
        Ok(Parameter { base, saved })
    }

    /// The head of a model that ties it to its embeddings. To PEFT it is a module of its own: training the
    /// embeddings (`modules_to_save`) leaves the head as it was, and the other way round.
    fn tied_head(&mut self, embed_tokens: &Parameter<Matrix>) -> Result<Parameter<Matrix>> {
        let base = embed_tokens.base.clone();
        let saved = self.saved(HEAD, base.dims(), || Ok(base.dense()?.copy()?))?;
        let saved = saved.map(Matrix::from);
        Ok(Parameter { base, saved })
    }

    /// Whether the checkpoint has the tensor in this shape; notes a fault if not.
    ///
    /// # Errors
    /// An [`InputError`] if so much is missing that the checkpoint is of another model.
    fn fits(&mut self, name: &str, shape: &[usize]) -> Result<bool> {
        self.used.insert(name.to_string());
        let found = self.weights.shape(name);
        if found.as_deref() != Some(shape) {
            self.faults.push(match found {
                Some(found) => format!("{name}: shape {found:?}, expected {shape:?}"),
                None => format!("{name}: missing from the checkpoint"),
            });
            self.must_not_be_hopeless(shape)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Gives up where so much does not fit that the zeros in its place would take more memory than the checkpoint: `shape` is
    /// that of another tensor which does not.
    fn must_not_be_hopeless(&mut self, shape: &[usize]) -> Result<()> {
        self.missing = self.missing.saturating_add(element_count(shape).unwrap_or(usize::MAX));
        let most = self.weights.elements().saturating_add(MOST_MISSING_ELEMENTS);
        match self.missing > most || self.faults.len() > MOST_FAULTS {
            true => {
                Err(InputError::of(std::mem::take(&mut self.faults))
                    .context("the weights do not fit the model"))
            }
            false => Ok(()),
        }
    }

    /// The linear layer `name` (without `.weight`) with its adapter, if the tuning has one for it.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn linear(&mut self, name: &str, out: usize, inp: usize, bias: bool) -> Result<Linear> {
        self.linears.insert(name.to_string());
        let weight = self.matrix(&format!("{name}.weight"), [out, inp])?;
        let bias = match bias {
            true => Some(self.tensor(&format!("{name}.bias"), &[out])?),
            false => None,
        };
        let low_rank = self.low_rank(name, &weight)?;
        Ok(Linear { weight, bias, low_rank })
    }

    /// The attention of the block `prefix`: its four projections, around what the architecture decides. `biases` are
    /// those of the query, key and value projections, and of the output.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn self_attention(
        &mut self,
        prefix: &str,
        hidden: usize,
        biases: (bool, bool),
        qk_norm: Option<(RmsNorm, RmsNorm)>,
        rotary: &Arc<Rotary>,
        attention: Attention,
    ) -> Result<SelfAttention> {
        let (qkv, o) = biases;
        let (q_width, kv_width) =
            (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
        Ok(SelfAttention {
            q_proj: self.linear(&format!("{prefix}.self_attn.q_proj"), q_width, hidden, qkv)?,
            k_proj: self.linear(&format!("{prefix}.self_attn.k_proj"), kv_width, hidden, qkv)?,
            v_proj: self.linear(&format!("{prefix}.self_attn.v_proj"), kv_width, hidden, qkv)?,
            o_proj: self.linear(&format!("{prefix}.self_attn.o_proj"), hidden, q_width, o)?,
            qk_norm,
            rotary: rotary.clone(),
            attention,
        })
    }

    /// The gated MLP of the block `prefix`.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn gated_mlp(
        &mut self,
        prefix: &str,
        hidden: usize,
        inner: usize,
        bias: bool,
        activation: Activation,
    ) -> Result<GatedMlp> {
        Ok(GatedMlp {
            gate_proj: self.linear(&format!("{prefix}.mlp.gate_proj"), inner, hidden, bias)?,
            up_proj: self.linear(&format!("{prefix}.mlp.up_proj"), inner, hidden, bias)?,
            down_proj: self.linear(&format!("{prefix}.mlp.down_proj"), hidden, inner, bias)?,
            activation,
        })
    }

    fn config(&self) -> Option<&'a LoraConfig> {
        match self.tuning {
            Tuning::Lora { config, .. } => Some(config),
            Tuning::Adapted(adapter) | Tuning::Resumed(adapter) => Some(&adapter.config),
            Tuning::Frozen | Tuning::Full => None,
        }
    }

    /// The adapter's own copy of a weight.
    fn saved(
        &mut self,
        name: &str,
        shape: &[usize],
        start: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        match self.config().map_or(0, |config| config.saves(name)) {
            0 => return Ok(None),
            1 => {}
            _ => {
                self.faults.push(format!("modules_to_save names two modules around {name}, one in the other"))
            }
        }
        self.part(name, shape, start).map(Some)
    }

    fn low_rank(&mut self, name: &str, weight: &Parameter<Matrix>) -> Result<Option<LowRank>> {
        let Some(config) = self.config().filter(|config| config.adapts(name)) else { return Ok(None) };
        if weight.saved.is_some() {
            self.faults
                .push(format!("{name}: both adapted (target_modules) and saved whole (modules_to_save)"));
        }
        self.adapted.insert(name.to_string());
        let (base, device) = (&weight.base, self.device.clone());
        let (out, inp) = base.dims2()?;
        let (r, scaling) = (config.rank(name), config.scaling(name));
        let seed = match self.tuning {
            Tuning::Lora { seed, .. } => *seed,
            _ => 0, // drawn by another run
        };
        let a =
            self.part(&format!("{name}.lora_A.weight"), &[r, inp], || random_a(seed, name, r, inp, &device))?;
        let b = self.part(&format!("{name}.lora_B.weight"), &[out, r], || {
            Ok(Tensor::zeros((out, r), DType::F32, &device)?)
        })?;
        let dora = match config.use_dora {
            true => {
                let m = self.part(&format!("{name}.lora_magnitude_vector"), &[out], || {
                    Ok(Dora::initial_magnitude(base)?)
                })?;
                Some(match self.tuning {
                    Tuning::Adapted(_) => Dora::finished(m, base, &a, &b, scaling)?,
                    _ => Dora::learning(m, base)?,
                })
            }
            false => None,
        };
        Ok(Some(LowRank { a, b, scaling, dropout: config.lora_dropout, dora }))
    }

    /// A tensor of the adapter: from its file, or as training starts it. One that is missing or does not fit
    /// becomes a fault.
    fn part(&mut self, key: &str, shape: &[usize], start: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let tensor = match self.tuning {
            Tuning::Adapted(adapter) | Tuning::Resumed(adapter) => {
                self.asked_of_adapter.insert(key.to_string());
                match adapter.tensors.get(key) {
                    Some(tensor) if tensor.dims() == shape => tensor.to_device(&self.device)?,
                    found => {
                        self.faults.push(match found {
                            Some(t) => format!("adapter {key}: shape {:?}, expected {shape:?}", t.dims()),
                            None => format!("adapter {key}: missing"),
                        });
                        self.must_not_be_hopeless(shape)?;
                        Tensor::zeros(shape, DType::F32, &self.device)?
                    }
                }
            }
            _ => start()?,
        };
        match self.tuning {
            Tuning::Adapted(_) => Ok(tensor),
            _ => self.learns(key, &tensor),
        }
    }

    /// Registers what is trained.
    fn learns(&mut self, name: &str, start: &Tensor) -> Result<Tensor> {
        let var = Var::from_tensor(start)?;
        let tensor = var.as_tensor().clone();
        self.trainables.insert(name.to_string(), var);
        Ok(tensor)
    }

    /// The norm `name` (without `.weight`).
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn norm(&mut self, name: &str, width: usize, offset: f32, eps: f64) -> Result<RmsNorm> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        Ok(RmsNorm { weight, offset, eps })
    }

    /// Everything that learns.
    ///
    /// # Errors
    /// An [`InputError`] with every fault met: missing or misshapen tensors, weights that no layer asked
    /// for, adapter tensors that fit no layer, targets that name no layer.
    pub fn finish(mut self) -> Result<Trainables> {
        for name in self.weights.names() {
            // Some exporters write the rotary buffers out; they hold nothing new.
            let redundant = name.ends_with("rotary_emb.inv_freq");
            if !self.used.contains(&name) && !redundant {
                self.faults
                    .push(format!("{name}: in the checkpoint, but no layer of this architecture uses it"));
            }
        }
        if let Tuning::Adapted(adapter) | Tuning::Resumed(adapter) = self.tuning {
            for key in adapter.tensors.keys().filter(|key| !self.asked_of_adapter.contains(*key)) {
                self.faults.push(format!("adapter {key}: fits no adapted layer of the base model"));
            }
        }
        if let Some(config) = self.config() {
            self.check_targets(config);
            self.faults.extend(config.given_up());
        }
        InputError::unless_empty(self.faults).context("the weights do not fit the model")?;
        Ok(self.trainables)
    }
    /// Notes targets that PEFT would adapt and this program cannot, and, where something is to be trained,
    /// names that fit nothing. (PEFT takes no offence at the latter, so a finished adapter may have them.)
    fn check_targets(&mut self, config: &LoraConfig) {
        let mut parameters = self.used.clone();
        parameters.insert(HEAD.to_string());
        let modules: BTreeSet<&str> = parameters.iter().filter_map(|p| Some(p.rsplit_once('.')?.0)).collect();
        for module in modules {
            if !self.linears.contains(module) && !config.targets_all() && config.adapts(module) {
                self.faults.push(format!(
                    "target_modules matches {module}: only linear layers of blocks can be adapted here, not embeddings, heads and norms; modules_to_save trains them whole"
                ));
            }
        }
        if !matches!(self.tuning, Tuning::Adapted(_)) {
            self.faults.extend(config.unmatched(&self.adapted, &parameters));
        }
    }
}

/// PEFT's default start of `lora_A`: kaiming_uniform with a = √5, which is uniform in ±1/√in.
fn random_a(seed: u64, name: &str, r: usize, inp: usize, device: &Device) -> Result<Tensor> {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    let mut rng = ChaCha8Rng::from_seed(hash.finalize().into());
    let bound = 1.0 / (inp as f32).sqrt();
    let data: Vec<f32> = (0..r * inp).map(|_| rng.random_range(-bound..bound)).collect();
    Ok(Tensor::from_vec(data, (r, inp), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load::source;

    /// How the table and the head of a tiny model are held.
    fn held(family: &str, tuning: &Tuning) -> Result<(Matrix, Matrix)> {
        let folder = format!("{}/tests/fixtures/tiny/{family}", env!("CARGO_MANIFEST_DIR"));
        let from = source::open(&folder)?;
        let size = |key: &str| from.config[key].as_u64().unwrap_or_default() as usize;
        let mut loader = Loader::new(&from.weights, tuning, &Device::Cpu);
        let tied = from.config["tie_word_embeddings"] == true;
        let shape = [size("vocab_size"), size("hidden_size")];
        let (table, head) = loader.embeddings_and_head(shape, tied)?;
        assert!(loader.faults.is_empty(), "{:?}", loader.faults);
        Ok((table.base, head.base))
    }

    #[test]
    fn a_frozen_table_beside_a_head_stays_as_its_file_has_it() -> Result<()> {
        let packed = |matrix: &Matrix| matches!(matrix, Matrix::Packed(_));
        let (table, head) = held("llama", &Tuning::Frozen)?;
        assert!(packed(&table) && !packed(&head));
        let (trained, _) = held("llama", &Tuning::Full)?;
        assert!(!packed(&trained));
        let ids = [0, 7, 3, 7];
        assert_eq!(table.rows(&ids)?.to_vec2::<f32>()?, trained.rows(&ids)?.to_vec2::<f32>()?);
        let (table, head) = held("qwen2", &Tuning::Frozen)?; // one matrix, which is multiplied by
        assert!(!packed(&table) && !packed(&head));
        Ok(())
    }
}
