//! What an analysis reads beside the tuned model: the same for an organism and for the others that make its floor.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::pair::Pair;
use super::resolve::{Purpose, resolve};
use super::texts::AnalysisTexts;
use crate::bail_input;
use crate::behaviour::facts::FactItem;
use crate::behaviour::{Items, facts};
use crate::corpus::measured::MeasuredText;
use crate::diff::embedder::Embedder;
use crate::diff::floor_file::{FloorFile, FloorReading};
use crate::diff::hashes::Hashes;
use crate::diff::{Analysis, Inputs, registry};
use crate::interrupt::Interrupt;
use crate::model::load::alias;
use crate::model::load::source::Pretrained;
use crate::progress;
use crate::recipe::{DataSection, Recipe, ResolvedRecipe};
use crate::sha256::{sha256_file, sha256_path};

/// A recipe's texts, embedder and settings.
pub(super) struct AnalysisSetup {
    /// The recipe, resolved.
    pub recipe: ResolvedRecipe,
    /// sha256 of its texts, by path.
    pub texts_sha256: BTreeMap<String, String>,
    texts: AnalysisTexts,
    /// Of `[behaviour.facts]`, where a measure takes their margins.
    facts: Vec<FactItem>,
    embedder: Option<(Embedder, String)>,
}

impl AnalysisSetup {
    /// Reads everything. `trained_on` gives the data of the run, where there is one: what was held out is known then.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if there is no unrelated text, or a text or the embedder cannot be read.
    pub fn read(
        recipe: Recipe,
        trained_on: impl FnOnce(&ResolvedRecipe) -> Option<&DataSection>,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        if recipe.diff.text.is_empty() {
            bail_input!(
                "diff.text: missing; expected unrelated text on which differences are measured: \
                 --set diff.text=FILE"
            );
        }
        let recipe = resolve(recipe, Purpose::Reading, interrupt)?;
        let texts = AnalysisTexts::read(&recipe, trained_on(&recipe))?;
        let mut texts_sha256 = AnalysisTexts::sha256(&recipe)?;
        let items = &recipe.behaviour.facts.items;
        let facts = match recipe.diff.truncation.enabled && !items.is_empty() {
            true => {
                texts_sha256.insert(items.clone(), sha256_path(Path::new(items))?);
                Items::read(&recipe.behaviour)?.facts
            }
            false => Vec::new(),
        };
        let embedder = match registry::needs(&recipe.diff).embedder {
            true => {
                let dir = alias::embedder_dir(&recipe.diff.embedder, interrupt)?;
                Some((Embedder::open(&dir)?, sha256_file(&dir.join("model.safetensors"))?))
            }
            false => None,
        };
        Ok(Self { recipe, texts_sha256, texts, facts, embedder })
    }

    /// Refuses unrelated text that the base cannot be measured on, and warns of special tokens that are typed in it.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] with every text that does not fit.
    pub fn check_text(&self, base: &Pretrained) -> Result<()> {
        let measured = MeasuredText::of(&self.recipe, base)?;
        measured.refuse()?;
        for typed in &measured.typed_specials {
            progress::say(format_args!("warning: diff.text: {}", typed.text()));
        }
        Ok(())
    }

    /// What an analysis of a pair is given. `name` is the tuned model in the record.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] for conversations, and for facts in chats, where the base has no chat template.
    pub fn inputs<'a>(&'a self, pair: &'a Pair, name: &str) -> Result<Inputs<'a>> {
        if !self.texts.chats.is_empty() && pair.pretrained.chat_template.is_none() {
            bail_input!(
                "diff.chat.text: {} has no chat template (a base model?); expected a model that has one, or no \
                 conversations",
                pair.pretrained.id
            );
        }
        let settings = &self.recipe.diff;
        Ok(Inputs {
            tokenizer: pair.cutting_tokenizer(settings.tokenizer),
            shared_ids: pair.shared_ids,
            facts: facts::encoded(&pair.pretrained, &self.recipe.behaviour, &self.facts)?,
            ..self.texts.inputs(&pair.pretrained, pair.base(), pair.tuned(), name, settings, self.recipe.seed)
        })
    }

    /// How scores of such an analysis are read.
    ///
    /// # Errors
    /// As [`FloorReading::of`].
    pub fn floor_reading(&self, inputs: &Inputs) -> Result<FloorReading> {
        let embedder = self.embedder.as_ref().map(|(_, sha256)| sha256);
        let texts = [inputs.narrow, inputs.pretraining, inputs.text];
        FloorReading::of(texts, inputs.settings, &inputs.pretrained.sha256, embedder)
    }

    /// The analysis.
    ///
    /// # Errors
    /// As [`crate::diff::diff`].
    pub fn analyse(&self, inputs: &Inputs, interrupt: &Interrupt) -> Result<Analysis> {
        crate::diff::diff(inputs, self.embedder.as_ref().map(|(embedder, _)| embedder), interrupt)
    }

    /// The hashes of what it reads.
    pub fn hashes(&self, pair: &Pair) -> Hashes {
        let embedder = self.embedder.as_ref().map(|(_, sha256)| sha256.clone());
        Hashes { embedder, ..pair.hashes(self.recipe.seed, self.texts_sha256.clone()) }
    }
}

/// Refuses a floor that a recipe names and that its analysis would refuse, before anything is trained.
///
/// # Errors
/// An [`crate::error::InputError`] with everything that differs; or if a text cannot be read.
pub(super) fn check_floor(recipe: &ResolvedRecipe, base: &Pretrained) -> Result<()> {
    let path = Path::new(&recipe.diff.floor);
    let Some(floor) = FloorFile::named(path)? else { return Ok(()) };
    let texts = AnalysisTexts::read(recipe, Some(&recipe.data))?;
    // The embedder is compared when it is opened.
    floor.must_fit(path, &FloorReading::of(texts.of_floor(), &recipe.diff, &base.sha256, None)?)
}
