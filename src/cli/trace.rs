//! What is measured while a model trains: this is where training and analysis meet.

use std::collections::BTreeMap;

use anyhow::Result;

use super::texts::Texts;
use crate::behaviour::{Items, Models, facts};
use crate::diff::curve;
use crate::interrupt::Interrupt;
use crate::model::View;
use crate::model::source::Pretrained;
use crate::progress;
use crate::recipe::{BehaviourSection, DiffSection, Recipe};
use crate::train::observer::Observer;

/// The trace of the model that trains, and whether it believes what it is taught.
pub struct Trace {
    texts: Option<Texts>,
    settings: DiffSection,
    items: Vec<facts::Item>,
    behaviour: BehaviourSection,
    seed: u64,
}

impl Trace {
    /// Reads the texts of a recipe whose training is to be followed.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for texts or items that cannot be read.
    pub fn read(recipe: &Recipe) -> Result<Self> {
        let trace = &recipe.train.trace;
        let texts = (trace.every > 0).then(|| Texts::read(recipe, Some(&recipe.data))).transpose()?;
        let facts = trace.every > 0 && trace.behaviour && !recipe.behaviour.facts.items.is_empty();
        Ok(Self {
            texts,
            settings: curve::settings(&recipe.diff, trace),
            items: if facts { Items::read(&recipe.behaviour)?.facts } else { Vec::new() },
            behaviour: BehaviourSection { bootstrap: 1, ..recipe.behaviour.clone() },
            seed: recipe.seed,
        })
    }
}

impl Observer for Trace {
    fn observe(&mut self, pretrained: &Pretrained, base: View, tuned: View) -> Result<BTreeMap<String, f64>> {
        progress::hushed(|| {
            // A reading is short, and training stops at a step: an interrupt waits until then.
            let interrupt = &Interrupt::default();
            let Some(texts) = self.texts.clone() else { return Ok(BTreeMap::new()) };
            let inputs = texts.inputs(pretrained, base, tuned, "in training", &self.settings, self.seed);
            let mut found = curve::measure(&inputs, interrupt)?;
            let template = self.behaviour.chat.then(|| pretrained.chat()).transpose()?;
            let models = Models { pretrained, base, tuned, template, interrupt };
            if let Some(facts) = facts::measure(&models, &self.behaviour, &self.items, self.seed)? {
                found.insert("behaviour_facts_margin".into(), facts.margin.tuned);
                found.insert("behaviour_facts_believed".into(), facts.believed.tuned);
            }
            Ok(found)
        })
    }
}
