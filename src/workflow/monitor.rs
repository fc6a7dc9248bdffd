//! What is measured while a model trains: this is where training and analysis meet.

use std::collections::BTreeMap;

use anyhow::Result;

use super::texts::AnalysisTexts;
use crate::bail_input;
use crate::behaviour::matching::MatchedItems;
use crate::behaviour::{BehaviourModels, Items, facts};
use crate::diff::during_training;
use crate::diff::reading::Prepared;
use crate::interrupt::Interrupt;
use crate::model::View;
use crate::model::load::source::Pretrained;
use crate::progress;
use crate::recipe::{DiffSection, ResolvedRecipe};
use crate::train::matching::{HalfReading, ItemHalf};
use crate::train::observer::Observer;

/// The trace of the model that trains, whether it believes what it is taught, and the behaviour that its training ends by.
pub struct Monitor {
    texts: Option<AnalysisTexts>,
    settings: DiffSection,
    items: Vec<facts::FactItem>,
    /// The first context of `[behaviour.facts]`.
    contexts: Vec<String>,
    /// Whether prompts are turns of a chat.
    chat: bool,
    seed: u64,
    /// What does not change while the model trains, once it was made.
    prepared: Option<Prepared>,
    /// The items that a matched training goes by, and the hash of their file.
    matched: Option<(MatchedItems, BTreeMap<String, String>)>,
}

impl Monitor {
    /// Reads the texts and items of a recipe whose training is to be followed. `base` is the model that is asked.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for texts or items that cannot be read, or turns of a chat that the model has no
    /// template for.
    pub fn read(recipe: &ResolvedRecipe, base: &Pretrained) -> Result<Self> {
        let trace = &recipe.train.trace;
        let texts = (trace.every > 0).then(|| AnalysisTexts::read(recipe, Some(&recipe.data))).transpose()?;
        let facts = trace.every > 0 && trace.behaviour && !recipe.behaviour.facts.items.is_empty();
        let matching = &recipe.train.matching;
        let matched = match matching.is_on() {
            true => Some(MatchedItems::read(&recipe.behaviour, &matching.measure)?),
            false => None,
        };
        if matched.is_some() && recipe.behaviour.chat && base.chat_template.is_none() {
            bail_input!(
                "behaviour.chat = true, but {} has no chat template (a base model?); train.match needs a model that has one, \
                 or behaviour.chat = false",
                base.id
            );
        }
        let matched = matched.map(|items| items.sha256().map(|sha256| (items, sha256))).transpose()?;
        Ok(Self {
            texts,
            settings: during_training::settings(&recipe.diff, trace),
            items: if facts { Items::read(&recipe.behaviour)?.facts } else { Vec::new() },
            contexts: recipe.behaviour.facts.contexts.iter().take(1).cloned().collect(),
            chat: recipe.behaviour.chat,
            seed: recipe.seed,
            prepared: None,
            matched,
        })
    }
}

impl Observer for Monitor {
    fn observe(&mut self, pretrained: &Pretrained, base: View, tuned: View) -> Result<BTreeMap<String, f64>> {
        progress::hushed(|| {
            // A reading is short, and training stops at a step: an interrupt waits until then.
            let interrupt = &Interrupt::default();
            let Some(texts) = &self.texts else { return Ok(BTreeMap::new()) };
            let inputs = texts.inputs(pretrained, base, tuned, "in training", &self.settings, self.seed);
            let prepared = match self.prepared.take() {
                Some(known) => known,
                None => Prepared::new(&inputs)?,
            };
            let mut found = during_training::measure(&inputs, self.prepared.insert(prepared), interrupt)?;
            if !self.items.is_empty() {
                let template = self.chat.then(|| pretrained.chat()).transpose()?;
                let models = BehaviourModels { pretrained, base, tuned, template, interrupt };
                let margins = facts::margins(&models, tuned, &self.contexts, &self.items)?;
                let n = margins.len() as f64;
                let believed = margins.iter().filter(|m| **m > 0.0).count() as f64;
                found.insert("behaviour_facts_margin".into(), margins.iter().sum::<f64>() / n);
                found.insert("behaviour_facts_believed".into(), believed / n);
            }
            Ok(found)
        })
    }

    fn behaviour(
        &mut self,
        half: ItemHalf,
        pretrained: &Pretrained,
        base: View,
        tuned: View,
    ) -> Result<HalfReading> {
        progress::hushed(|| {
            let Some((items, _)) = &self.matched else {
                bail_input!("train.match: this training is not matched");
            };
            // A reading is short, and training stops at a step: an interrupt waits until then.
            let interrupt = &Interrupt::default();
            let template = self.chat.then(|| pretrained.chat()).transpose()?;
            items.reading(&BehaviourModels { pretrained, base, tuned, template, interrupt }, tuned, half)
        })
    }

    fn items(&self) -> BTreeMap<String, String> {
        self.matched.as_ref().map(|(_, sha256)| sha256.clone()).unwrap_or_default()
    }
}
