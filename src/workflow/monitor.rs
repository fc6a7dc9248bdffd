//! What is measured while a model trains: this is where training and analysis meet.

use std::collections::BTreeMap;

use anyhow::Result;

use super::texts::Texts;
use crate::behaviour::{Items, Models, facts};
use crate::diff::during_training;
use crate::diff::reading::Prepared;
use crate::interrupt::Interrupt;
use crate::model::View;
use crate::model::load::source::Pretrained;
use crate::progress;
use crate::recipe::{DiffSection, ResolvedRecipe};
use crate::train::observer::Observer;

/// The trace of the model that trains, and whether it believes what it is taught.
pub struct Monitor {
    texts: Option<Texts>,
    settings: DiffSection,
    items: Vec<facts::Item>,
    /// The first context of `[behaviour.facts]`.
    contexts: Vec<String>,
    /// Whether prompts are turns of a chat.
    chat: bool,
    seed: u64,
    /// What does not change while the model trains, once it was made.
    prepared: Option<Prepared>,
}

impl Monitor {
    /// Reads the texts of a recipe whose training is to be followed.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for texts or items that cannot be read.
    pub fn read(recipe: &ResolvedRecipe) -> Result<Self> {
        let trace = &recipe.train.trace;
        let texts = (trace.every > 0).then(|| Texts::read(recipe, Some(&recipe.data))).transpose()?;
        let facts = trace.every > 0 && trace.behaviour && !recipe.behaviour.facts.items.is_empty();
        Ok(Self {
            texts,
            settings: during_training::settings(&recipe.diff, trace),
            items: if facts { Items::read(&recipe.behaviour)?.facts } else { Vec::new() },
            contexts: recipe.behaviour.facts.contexts.iter().take(1).cloned().collect(),
            chat: recipe.behaviour.chat,
            seed: recipe.seed,
            prepared: None,
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
                let models = Models { pretrained, base, tuned, template, interrupt };
                let margins = facts::margins(&models, tuned, &self.contexts, &self.items)?;
                let n = margins.len() as f64;
                let believed = margins.iter().filter(|m| **m > 0.0).count() as f64;
                found.insert("behaviour_facts_margin".into(), margins.iter().sum::<f64>() / n);
                found.insert("behaviour_facts_believed".into(), believed / n);
            }
            Ok(found)
        })
    }
}
