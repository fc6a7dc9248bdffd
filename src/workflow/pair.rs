//! Base and tuned model, loaded once.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::bail_input;
use crate::diff::hashes::Hashes;
use crate::diff::inputs::SharedIds;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::model::View;
use crate::model::load::loader::Tuning;
use crate::model::load::source;
use crate::model::load::source::{Pretrained, Tuned};
use crate::model::lora::Adapter;
use crate::model::{CausalLm, device};
use crate::progress;
use crate::recipe::{Recipe, WhoseTokenizer};
use crate::tokenizer::Tokenizer;
use crate::train::manifest::adapter_sha256;

/// Two models to compare: one with its adapter off and on, or two of the same shape.
pub struct Pair {
    /// The base: its tokenizer and chat template serve both.
    pub pretrained: Pretrained,
    /// sha256 of the adapter's or the tuned model's files, by name.
    pub tuned_sha256: BTreeMap<String, String>,
    /// sha256 of the files of what the tuned model is compared with, where that is not the base; empty otherwise.
    pub reference_sha256: BTreeMap<String, String>,
    /// Ids that both have, where one has more.
    pub shared_ids: Option<SharedIds>,
    model: CausalLm,
    /// How much of its adapter `model` has where it is compared with: 1 for a reference that is an adapter.
    compared_adapter: f64,
    /// The tuned model and how much of its adapter it has, where it is not the adapter on `model`.
    other: Option<(CausalLm, f64)>,
    /// The tuned model's own tokenizer, where it has one.
    tuned_tokenizer: Option<Tokenizer>,
}

impl Pair {
    /// Loads the recipe's base with an adapter or another model.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for a model or adapter that cannot be read or does not match.
    pub fn load(recipe: &Recipe, tuned: &str, interrupt: &Interrupt) -> Result<Self> {
        let mut pretrained = open_base(recipe, interrupt)?;
        let device = device()?;
        let other = match source::open_tuned(tuned, interrupt)? {
            Tuned::Adapter(dir) => {
                // One loaded model: the adapter is switched off for the base.
                let mut adapter = Adapter::read(&dir)?;
                let shared_ids = match pretrained.vocabulary() {
                    Some(rows) => adapter.keep_vocabulary(rows)?.map(|of_tuned| {
                        let shared = SharedIds { compared: rows, base: rows, tuned: of_tuned };
                        note_shared(&shared, &pretrained.id, tuned);
                        shared
                    }),
                    None => None,
                };
                let tuned_tokenizer = match recipe.diff.tokenizer {
                    WhoseTokenizer::Base => None,
                    WhoseTokenizer::Tuned => adapter_tokenizer(tuned, &dir)?,
                };
                note_other_base(&adapter, &pretrained);
                let tuned_sha256 = adapter_sha256(&dir)?;
                let model = CausalLm::load(&pretrained, &Tuning::Adapted(&adapter), &device)?.0;
                return Ok(Self {
                    pretrained,
                    tuned_sha256,
                    reference_sha256: BTreeMap::new(),
                    shared_ids,
                    model,
                    compared_adapter: 0.0,
                    other: None,
                    tuned_tokenizer,
                });
            }
            Tuned::Model(other) => other,
        };
        let mut other = other;
        let shared_ids = share_ids(&mut pretrained, &mut other)?;
        let model = CausalLm::load(&pretrained, &Tuning::Frozen, &device)?.0;
        let tuned_model = CausalLm::load(&other, &Tuning::Frozen, &device)?.0;
        must_match(&pretrained, &model, &other, &tuned_model)?;
        Ok(Self {
            pretrained,
            tuned_sha256: other.sha256,
            reference_sha256: BTreeMap::new(),
            shared_ids,
            model,
            compared_adapter: 0.0,
            other: Some((tuned_model, 0.0)),
            tuned_tokenizer: Some(other.tokenizer),
        })
    }

    /// Loads the recipe's base twice: with an adapter or another model, and with a reference that this one is compared with
    /// in the base's place, such as a control that learned from the mix alone. `must_fit` refuses a base that is not the
    /// reference's.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_against(
        recipe: &Recipe,
        tuned: &str,
        reference: &str,
        must_fit: impl FnOnce(&Pretrained) -> Result<()>,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let pretrained = open_base(recipe, interrupt)?;
        must_fit(&pretrained)?;
        let reference = Side::load(&pretrained, reference, interrupt)?;
        let tuned = Side::load(&pretrained, tuned, interrupt)?;
        must_have_shape_of(&pretrained.id, &reference.model, &tuned.id, &tuned.model)?;
        Ok(Self {
            pretrained,
            tuned_sha256: tuned.sha256,
            reference_sha256: reference.sha256,
            shared_ids: None,
            model: reference.model,
            compared_adapter: reference.adapter,
            other: Some((tuned.model, tuned.adapter)),
            tuned_tokenizer: tuned.tokenizer,
        })
    }

    /// The tokenizer that cuts the unrelated text. An adapter without one of its own was trained with the base's.
    pub fn cutting_tokenizer(&self, whose: WhoseTokenizer) -> &Tokenizer {
        match (whose, &self.tuned_tokenizer) {
            (WhoseTokenizer::Tuned, Some(own)) => own,
            _ => &self.pretrained.tokenizer,
        }
    }

    /// The hashes of what an analysis of the pair reads, without an embedder and before anything is written.
    pub fn hashes(&self, seed: u64, texts: BTreeMap<String, String>) -> Hashes {
        Hashes {
            version: env!("CARGO_PKG_VERSION").into(),
            seed,
            machine: Machine::here(),
            base: self.pretrained.sha256.clone(),
            tuned: self.tuned_sha256.clone(),
            reference: self.reference_sha256.clone(),
            embedder: None,
            texts,
            files: BTreeMap::new(),
        }
    }

    /// The base, or the reference in its place.
    pub fn base(&self) -> View<'_> {
        View { model: &self.model, adapter: self.compared_adapter }
    }

    /// The tuned model.
    pub fn tuned(&self) -> View<'_> {
        match &self.other {
            Some((model, adapter)) => View { model, adapter: *adapter },
            None => View { model: &self.model, adapter: 1.0 },
        }
    }
}

/// One of two models on the same base, each loaded for itself.
struct Side {
    id: String,
    model: CausalLm,
    adapter: f64,
    sha256: BTreeMap<String, String>,
    tokenizer: Option<Tokenizer>,
}

impl Side {
    fn load(base: &Pretrained, tuned: &str, interrupt: &Interrupt) -> Result<Self> {
        let (device, id) = (device()?, tuned.to_string());
        match source::open_tuned(tuned, interrupt)? {
            Tuned::Adapter(dir) => {
                let adapter = Adapter::read(&dir)?;
                note_other_base(&adapter, base);
                let model = CausalLm::load(base, &Tuning::Adapted(&adapter), &device)?.0;
                Ok(Self { id, model, adapter: 1.0, sha256: adapter_sha256(&dir)?, tokenizer: None })
            }
            Tuned::Model(other) => {
                let model = CausalLm::load(&other, &Tuning::Frozen, &device)?.0;
                Ok(Self { id, model, adapter: 0.0, sha256: other.sha256, tokenizer: Some(other.tokenizer) })
            }
        }
    }
}

/// The recipe's base, as it is to be loaded.
fn open_base(recipe: &Recipe, interrupt: &Interrupt) -> Result<Pretrained> {
    let mut pretrained = source::open_or_stop(&recipe.model.base, interrupt)?;
    pretrained.set_dtype(recipe.model.dtype)?;
    pretrained.set_chat_template(&recipe.data.chat_template)?;
    Ok(pretrained)
}

/// The tokenizer in an adapter's folder. Of an adapter on a hub it is not fetched, so that without it nothing is known.
fn adapter_tokenizer(tuned: &str, dir: &Path) -> Result<Option<Tokenizer>> {
    match source::tokenizer_of(dir)? {
        None if tuned.starts_with("hf:") => bail_input!(
            "diff.tokenizer = \"tuned\": the cache has no tokenizer.json of the adapter {tuned}; expected the \
             adapter's whole folder, or diff.tokenizer = \"base\""
        ),
        own => Ok(own),
    }
}

/// Says so where an adapter was trained beside another model than the one it is read with.
fn note_other_base(adapter: &Adapter, base: &Pretrained) {
    let plain = |id: &str| id.trim_start_matches("hf:").to_string();
    if let Some(named) = adapter.base_model.as_deref().filter(|n| plain(n) != plain(&base.id)) {
        progress::say(format_args!(
            "note: the adapter names {named} as its base; it is read with {}",
            base.id
        ));
    }
}

/// Of so many ids one may stand for another token where vocabularies differ in length: a reserved token that got a name.
const SAME_OF: usize = 20;

/// Leaves both models the ids that both have, where one has more (tokens that were added for finetuning, rows that pad the
/// table), and says so; and says where some ids stand for other tokens.
///
/// # Errors
/// An [`crate::error::InputError`] if the models are of two architectures, or the ids are those of other tokens: one is no
/// finetune of the other.
fn share_ids(base: &mut Pretrained, tuned: &mut Pretrained) -> Result<Option<SharedIds>> {
    let Some((of_base, of_tuned)) = base.vocabulary().zip(tuned.vocabulary()) else { return Ok(None) };
    let compared = of_base.min(of_tuned);
    let kind = |model: &Pretrained| model.config["model_type"].as_str().unwrap_or_default().to_string();
    if kind(base) != kind(tuned) {
        bail_input!(
            "{} is a {} with {of_base} token ids, {} is a {} with {of_tuned}: they cannot be compared",
            base.id,
            kind(base),
            tuned.id,
            kind(tuned)
        );
    }
    let token = |model: &Pretrained, id: usize| model.tokenizer.id_to_token(id as u32);
    let others: Vec<usize> = (0..compared)
        .filter(|&id| token(base, id).zip(token(tuned, id)).is_some_and(|(b, t)| b != t))
        .collect();
    if let (Some(&first), true) = (others.first(), others.len() * SAME_OF > compared) {
        bail_input!(
            "{} has {of_base} token ids and {} has {of_tuned}, and {} of the {compared} shared ids are different \
             tokens (the first: {first}, {:?} and {:?}): they cannot be compared",
            base.id,
            tuned.id,
            others.len(),
            token(base, first).unwrap_or_default(),
            token(tuned, first).unwrap_or_default()
        );
    }
    if let Some(&first) = others.first() {
        progress::say(format_args!(
            "note: {} ids mean other tokens in {} than in {} (the first: {first}, {:?} and {:?})",
            others.len(),
            tuned.id,
            base.id,
            token(tuned, first).unwrap_or_default(),
            token(base, first).unwrap_or_default()
        ));
    }
    if of_base == of_tuned {
        return Ok(None);
    }
    let shared = SharedIds { compared, base: of_base, tuned: of_tuned };
    note_shared(&shared, &base.id, &tuned.id);
    base.keep_vocabulary(compared);
    tuned.keep_vocabulary(compared);
    Ok(Some(shared))
}

fn note_shared(shared: &SharedIds, base: &str, tuned: &str) {
    progress::say(format_args!(
        "note: {base} has {} token ids, {tuned} has {}: they are compared on the {} that both have",
        shared.base, shared.tuned, shared.compared
    ));
}

fn must_match(base: &Pretrained, b: &CausalLm, tuned: &Pretrained, t: &CausalLm) -> Result<()> {
    must_have_shape_of(&base.id, b, &tuned.id, t)
}

fn must_have_shape_of(base: &str, b: &CausalLm, tuned: &str, t: &CausalLm) -> Result<()> {
    let shape = |m: &CausalLm| (m.n_layers(), m.hidden_size(), m.vocab_size());
    if shape(b) != shape(t) {
        bail_input!(
            "{} has {:?} blocks, width and vocabulary, {} has {:?}: they cannot be compared",
            base,
            shape(b),
            tuned,
            shape(t)
        );
    }
    Ok(())
}
