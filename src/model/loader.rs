//! Builds layers from named weights: checks every shape, attaches adapters, registers what is trained.
//!
//! A missing or misshapen tensor does not stop the loader at once: it notes the fault and goes on with
//! zeros, so that all faults of a checkpoint are reported together.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::layers::{Linear, Lora, RmsNorm};
use super::lora::{Adapter, LoraConfig};
use super::source::Weights;
use crate::error::InputError;

/// What is trained, by name, in an order that does not vary. LoRA matrices are named as PEFT names them
/// inside the model (`model.layers.0.self_attn.q_proj.lora_A.weight`).
pub type Trainables = BTreeMap<String, Var>;

/// Which weights learn.
pub enum Tuning<'a> {
    /// None: the model as it is.
    Frozen,
    /// None: the model with a finished adapter.
    Adapted(&'a Adapter),
    /// New low-rank matrices, drawn as PEFT draws them (A uniform in ±1/√in, B zero).
    Lora {
        /// Rank, alpha, targets.
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
    weights: &'a Weights,
    tuning: &'a Tuning<'a>,
    device: Device,
    used: BTreeSet<String>,
    adapted: BTreeSet<String>,
    faults: Vec<String>,
    trainables: Trainables,
}

impl<'a> Loader<'a> {
    /// A loader that places every tensor on `device`.
    pub fn new(weights: &'a Weights, tuning: &'a Tuning<'a>, device: &Device) -> Self {
        Self {
            weights,
            tuning,
            device: device.clone(),
            used: BTreeSet::new(),
            adapted: BTreeSet::new(),
            faults: Vec::new(),
            trainables: Trainables::new(),
        }
    }

    /// Whether the checkpoint has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.weights.shape(name).is_some()
    }

    /// A weight, trained if everything is.
    ///
    /// # Errors
    /// If its bytes cannot be read. A missing name or a wrong shape becomes a fault of [`Self::finish`].
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.used.insert(name.to_string());
        let found = self.weights.shape(name);
        if found.as_deref() != Some(shape) {
            self.faults.push(match found {
                Some(found) => format!("{name}: shape {found:?}, expected {shape:?}"),
                None => format!("{name}: missing from the checkpoint"),
            });
            return Ok(Tensor::zeros(shape, DType::F32, &self.device)?);
        }
        let tensor = self.weights.get(name)?.to_device(&self.device)?;
        match self.tuning {
            Tuning::Full => {
                let var = Var::from_tensor(&tensor)?;
                let tensor = var.as_tensor().clone();
                self.trainables.insert(name.to_string(), var);
                Ok(tensor)
            }
            _ => Ok(tensor),
        }
    }

    /// The linear layer `name` (without `.weight`) with its adapter, if the tuning has one for it.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn linear(&mut self, name: &str, out: usize, inp: usize, bias: bool) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[out, inp])?;
        let bias = match bias {
            true => Some(self.tensor(&format!("{name}.bias"), &[out])?),
            false => None,
        };
        let lora = self.lora(name, out, inp)?;
        Ok(Linear { weight, bias, lora })
    }

    fn lora(&mut self, name: &str, out: usize, inp: usize) -> Result<Option<Lora>> {
        let (config, tensors, learns) = match self.tuning {
            Tuning::Lora { config, seed } if config.targets(name) => {
                let a = random_a(*seed, name, config.r, inp, &self.device)?;
                let b = Tensor::zeros((out, config.r), DType::F32, &self.device)?;
                (*config, (a, b), true)
            }
            Tuning::Adapted(adapter) | Tuning::Resumed(adapter) if adapter.config.targets(name) => {
                let Some(pair) = self.adapter_pair(adapter, name, out, inp)? else { return Ok(None) };
                (&adapter.config, pair, matches!(self.tuning, Tuning::Resumed(_)))
            }
            _ => return Ok(None),
        };
        self.adapted.insert(name.to_string());
        let mut place = |side: &str, tensor: Tensor| -> Result<Tensor> {
            if !learns {
                return Ok(tensor);
            }
            let var = Var::from_tensor(&tensor)?;
            let tensor = var.as_tensor().clone();
            self.trainables.insert(format!("{name}.{side}.weight"), var);
            Ok(tensor)
        };
        let a = place("lora_A", tensors.0)?;
        let b = place("lora_B", tensors.1)?;
        Ok(Some(Lora { a, b, scaling: config.scaling(), dropout: config.lora_dropout }))
    }

    /// A and B of a finished adapter; faults if they are missing or do not fit the layer.
    fn adapter_pair(
        &mut self,
        adapter: &Adapter,
        name: &str,
        out: usize,
        inp: usize,
    ) -> Result<Option<(Tensor, Tensor)>> {
        let r = adapter.config.r;
        let mut side = |side: &str, shape: [usize; 2]| -> Result<Option<Tensor>> {
            let key = format!("{name}.{side}.weight");
            match adapter.tensors.get(&key) {
                Some(t) if t.dims() == shape => Ok(Some(t.to_device(&self.device)?)),
                Some(t) => {
                    self.faults.push(format!("adapter {key}: shape {:?}, expected {shape:?}", t.dims()));
                    Ok(None)
                }
                None => {
                    self.faults.push(format!("adapter {key}: missing"));
                    Ok(None)
                }
            }
        };
        let (a, b) = (side("lora_A", [r, inp])?, side("lora_B", [out, r])?);
        Ok(a.zip(b))
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
    /// for, adapter matrices that fit no layer, targets that name no layer.
    pub fn finish(mut self) -> Result<Trainables> {
        for name in self.weights.names() {
            // Some exporters write the tied head and the rotary buffers out; they hold nothing new.
            let redundant = name == "lm_head.weight" || name.ends_with("rotary_emb.inv_freq");
            if !self.used.contains(&name) && !redundant {
                self.faults
                    .push(format!("{name}: in the checkpoint, but no layer of this architecture uses it"));
            }
        }
        let config = match self.tuning {
            Tuning::Lora { config, .. } => Some(*config),
            Tuning::Adapted(adapter) | Tuning::Resumed(adapter) => {
                for key in adapter.tensors.keys() {
                    let module = key.rsplit_once(".lora_").map_or(key.as_str(), |(module, _)| module);
                    if !self.adapted.contains(module) {
                        self.faults.push(format!("adapter {key}: fits no adapted layer of the base model"));
                    }
                }
                Some(&adapter.config)
            }
            Tuning::Frozen | Tuning::Full => None,
        };
        for target in config.iter().flat_map(|c| c.unmatched(&self.adapted)) {
            self.faults.push(format!("target module {target:?}: the model has no linear layer of that name"));
        }
        if self.faults.is_empty() {
            Ok(self.trainables)
        } else {
            Err(InputError { faults: self.faults }).context("the weights do not fit the model")
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
