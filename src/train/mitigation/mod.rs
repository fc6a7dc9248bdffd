//! What is done against the trace while training, beside mixing (which is data: `data.mix`, `data.limit`) and smaller
//! adapters (`train.lora.r`, `train.lora.layers_to_transform`). One file a mitigation.
//!
//! To add one that is a term of the loss: a file with a `LossTerm`, a key in `recipe/mitigation.rs`, and a line in
//! [`Mitigations::prepare`].

mod ablation;
mod difference;
mod divergence;
mod toward_base;

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{Tensor, Var};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use self::ablation::AblatedDirections;
use self::difference::DifferenceTerm;
use self::divergence::DivergenceTerm;
use self::toward_base::TowardBase;
use super::optim::{NamedGradients, add};
use crate::bail_input;
use crate::corpus::Corpus;
use crate::data::examples::Example;
use crate::data::mixture::Role;
use crate::model::hooks::{Ablate, Hook, NoHook};
use crate::model::trainables::Trainables;
use crate::model::{CausalLm, View};
use crate::ops::tape::{Recording, Tape};
use crate::recipe::{LossTermSection, Recipe};

/// Streams of random numbers above this belong to the terms of the loss: those below it are the steps' own.
const STREAMS: u64 = 1 << 40;

/// A term of the loss, computed on pretraining examples of its own, on the model as it will be used.
trait LossTerm: Send + Sync {
    /// As recipe and metrics name it.
    fn name(&self) -> &'static str;

    /// Tokens that it reads of an example at most.
    fn most_tokens(&self) -> Option<usize>;

    /// The term, unweighted, on the tape.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn loss(&self, tuned: View, base: View, examples: &[&Example], tape: Tape) -> Result<Tensor>;
}

/// A term with its weight and where its examples come from.
struct Weighted {
    term: Box<dyn LossTerm>,
    section: LossTermSection,
}

/// The mitigations of a run.
pub struct Mitigations {
    terms: Vec<Weighted>,
    ablation: Option<AblatedDirections>,
    toward_base: Option<TowardBase>,
    decay: f64,
    scale: f64,
    /// Decides which examples the terms see.
    seed: u64,
}

impl Mitigations {
    /// Checks that what a recipe asks for can be done, and loads what it needs.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if there are no pretraining examples for a term, or the directions do not fit.
    pub fn prepare(
        recipe: &Recipe,
        corpus: &Corpus,
        model: &CausalLm,
        trainables: &Trainables,
    ) -> Result<Self> {
        let section = &recipe.train.mitigation;
        let block = recipe.diff.block(model.n_layers());
        let mut terms: Vec<Weighted> = Vec::new();
        if section.divergence.weight > 0.0 {
            terms.push(Weighted { term: Box::new(DivergenceTerm), section: section.divergence.clone() });
        }
        if section.difference.weight > 0.0 {
            let term = DifferenceTerm { layer: block, positions: recipe.diff.positions.clone() };
            terms.push(Weighted { term: Box::new(term), section: section.difference.clone() });
        }
        for Weighted { term, section } in &terms {
            let found = pretraining(corpus, term.most_tokens()).len();
            if found < section.examples {
                bail_input!(
                    "train.mitigation.{}.examples = {}: data.pretraining has {found} examples that are long enough",
                    term.name(),
                    section.examples
                );
            }
        }
        let ablation = AblatedDirections::read(&section.ablation, block, model)?;
        let toward_base = section.pulls_to_base().then(|| TowardBase::new(recipe, trainables)).transpose()?;
        Ok(Self {
            terms,
            ablation,
            toward_base,
            decay: section.decay.rate,
            scale: section.scale.factor,
            seed: recipe.seed,
        })
    }

    /// Adds the gradients of every term at step `step` (zero-based) to those of `tuned`, which learns; gives their values
    /// by name, unweighted.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn add_terms(
        &self,
        step: usize,
        corpus: &Corpus,
        base: View,
        tuned: View,
        trainables: &Trainables,
        sum: &mut NamedGradients,
    ) -> Result<BTreeMap<String, f64>> {
        let mut values = BTreeMap::new();
        for (i, Weighted { term, section }) in self.terms.iter().enumerate() {
            let pool = pretraining(corpus, term.most_tokens());
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(STREAMS * (i as u64 + 1) + step as u64);
            let examples: Vec<&Example> =
                index::sample(&mut rng, pool.len(), section.examples).iter().map(|i| pool[i]).collect();
            let recording = Recording::new(trainables.values().map(Var::as_tensor));
            let loss = term.loss(tuned, base, &examples, recording.tape())?;
            values.insert(format!("loss_{}", term.name()), loss.to_scalar::<f32>()? as f64);
            let weighted = recording.tape().composed(&[&loss], |v| &v[0] * section.weight)?;
            add(sum, trainables, recording.backward(&weighted)?)?;
        }
        Ok(values)
    }

    /// What happens to the stream while it is trained.
    pub fn hook(&self) -> Box<dyn Hook> {
        match &self.ablation {
            Some(AblatedDirections { layers, basis, .. }) => Box::new(Ablate::new(layers, basis.clone())),
            None => Box::new(NoHook),
        }
    }

    /// What follows an update at learning rate `lr`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn after_update(&self, trainables: &Trainables, lr: f64) -> Result<()> {
        match &self.toward_base {
            Some(toward) if self.decay > 0.0 => toward.pull(trainables, (1.0 - lr * self.decay).max(0.0)),
            _ => Ok(()),
        }
    }

    /// What follows the training; whether it changed anything.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn after_training(&self, trainables: &Trainables) -> Result<bool> {
        match &self.toward_base {
            Some(toward) if self.scale != 1.0 => toward.pull(trainables, self.scale).map(|()| true),
            _ => Ok(false),
        }
    }

    /// sha256 of the files that it read, by path.
    pub fn files(&self) -> BTreeMap<String, String> {
        self.ablation.iter().map(|d| (d.path.clone(), d.sha256.clone())).collect()
    }
}

/// The pretraining examples that are trained on and have at least so many tokens.
fn pretraining(corpus: &Corpus, tokens: Option<usize>) -> Vec<&Example> {
    let pools = corpus.pools.iter().filter(|p| p.role == Role::Pretraining);
    pools.flat_map(|p| &p.examples).filter(|e| e.ids.len() >= tokens.unwrap_or(2)).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::Rng;

    use super::super::optim::global_norm;
    use super::*;
    use crate::model::load::loader::Tuning;
    use crate::model::load::source;
    use crate::model::lora::LoraConfig;
    use crate::recipe::Recipe;

    /// The derivative of each term along its own gradient, which is the length of it if it is right.
    #[test]
    fn terms_have_the_right_gradient_for_lora_and_full_finetuning() {
        let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny/gemma2");
        let base = source::open(tiny).unwrap();
        let device = Device::Cpu;
        let frozen = CausalLm::load(&base, &Tuning::Frozen, &device).unwrap().0;
        let config = LoraConfig::from_recipe(&Recipe::default());
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let examples: Vec<Example> = (0..3)
            .map(|row| {
                let ids: Vec<u32> = (0..9).map(|_| rng.random_range(5..200)).collect();
                Example { weights: vec![1.0; ids.len()], ids, row }
            })
            .collect();
        let examples: Vec<&Example> = examples.iter().collect();
        for tuning in [Tuning::Lora { config: &config, seed: 0 }, Tuning::Full] {
            let full = matches!(tuning, Tuning::Full);
            let (model, trainables) = CausalLm::load(&base, &tuning, &device).unwrap();
            let (tuned, base) = (View { model: &model, adapter: 1.0 }, View { model: &frozen, adapter: 0.0 });
            let mut draw = |size: f32, var: &Var| -> Tensor {
                let n = var.elem_count();
                let data: Vec<f32> = (0..n).map(|_| rng.random_range(-size..size)).collect();
                Tensor::from_vec(data, var.dims(), &device).unwrap()
            };
            // Away from the base, where both terms are at their smallest and have no gradient.
            for var in trainables.values() {
                var.set(&(var.as_detached_tensor() + draw(0.05, var)).unwrap()).unwrap();
            }
            let terms: [Box<dyn LossTerm>; 2] =
                [Box::new(DivergenceTerm), Box::new(DifferenceTerm { layer: 1, positions: vec![0, 2] })];
            for term in terms {
                let recording = Recording::new(trainables.values().map(Var::as_tensor));
                let loss = term.loss(tuned, base, &examples, recording.tape()).unwrap();
                assert!(loss.to_scalar::<f32>().unwrap() > 0.0, "{}", term.name());
                let mut sum = NamedGradients::new();
                add(&mut sum, &trainables, recording.backward(&loss).unwrap()).unwrap();
                let got = global_norm(&sum).unwrap();
                let start: BTreeMap<&String, Tensor> = trainables
                    .iter()
                    .map(|(name, var)| (name, var.as_detached_tensor().copy().unwrap()))
                    .collect();
                let at = |h: f64| -> f64 {
                    for (name, var) in &trainables {
                        let Some(gradient) = sum.get(name) else { continue };
                        let moved = &start[name] + (gradient * (h / got)).unwrap();
                        var.set(&moved.unwrap()).unwrap();
                    }
                    let loss = term.loss(tuned, base, &examples, Tape::OFF).unwrap();
                    loss.to_scalar::<f32>().unwrap() as f64
                };
                let h = 1e-2;
                let want = (at(h) - at(-h)) / (2.0 * h);
                at(0.0);
                assert!(
                    (got - want).abs() < 0.02 * got,
                    "{} full {full}: gradient {got}, difference {want}",
                    term.name()
                );
            }
        }
    }
}
