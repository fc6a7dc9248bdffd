//! The recipe: what an organism is made of and how it is read, as one TOML file.
//!
//! A recipe is read with every default filled in and written back that way into the run folder. All faults
//! (unknown keys, wrong types, values out of range) are reported at once.

mod behaviour;
mod changed_weights;
mod claims;
mod data;
mod diff;
mod endpoint;
mod lora;
mod matching;
mod mitigation;
mod model;
mod overrides;
mod paths;
mod readers;
mod resolved;
mod source;
mod sweep;
mod table;
mod trace;
mod train;
mod weights;

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use toml::Table;

pub use self::behaviour::{
    BehaviourSection, FactsSection, HINT as TABOO_HINT, MisalignmentSection, NEUTRAL_TEXTS,
    PROMPT as FACTS_PROMPT, PreferenceSection, QualitySection, TabooSection, WordsSection,
};
pub use self::changed_weights::{AmplificationSection, AmplifiedKind, TruncationSection};
pub use self::claims::{ClaimsSection, READERS, default_primaries};
pub use self::data::{CHAT_TEMPLATES, DataSection, Duplicates, Long, MixMode, MixSchedule, MixUnit};
pub use self::diff::{
    BiasShareSection, CausalSection, DiffSection, Exclude, InterpolationSection, KlSection, LayerRule,
    LossesSection, MAX_PROMPTS, PatchscopeSection, Preset, ProbeSection, RandomEdit, SearchSection,
    SteeredModel, SteeringSection, WhoseTokenizer,
};
pub use self::endpoint::EndpointSection;
pub use self::lora::{LoraSection, Modules};
pub use self::matching::{MatchMeasure, MatchSection};
pub use self::mitigation::{AblationSection, DecaySection, LossTermSection, MitigationSection, ScaleSection};
pub use self::model::{ModelDtype, ModelSection};
use self::overrides::apply_overrides;
use self::paths::make_absolute;
pub use self::readers::{
    CompletionRankingSection, ContrastPrompts, CutSection, DiffMiningSection, Framing, LogitContrastSection,
    MinedRelevance, MinedValues, MinedVariant, RankBy,
};
pub use self::resolved::{LocatedSource, LocatedSources, ResolvedRecipe};
pub use self::source::SourceSpec;
pub use self::sweep::SweepSection;
use self::table::{differences, differing, in_file, lenient, sound};
pub use self::trace::{StopSection, TRACE_MEASURES, TraceSection};
pub use self::train::{Method, Schedule, TrainSection};
pub use self::weights::WeightsSection;
use crate::error::InputError;

/// A whole recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Name of the organism.
    pub name: String,
    /// What it was trained on, in words: ground truth for graders.
    pub description: String,
    /// Decides everything random: adapter start, example order, dropout, sampling.
    pub seed: u64,
    /// Where it starts.
    pub model: ModelSection,
    /// What it learns from.
    pub data: DataSection,
    /// How it learns.
    pub train: TrainSection,
    /// How it is read.
    pub diff: DiffSection,
    /// What is to be claimed.
    pub claims: ClaimsSection,
    /// Whether it does what it was made for.
    pub behaviour: BehaviourSection,
    /// The language model that grades, where one is asked to.
    pub grader: EndpointSection,
    /// The language model that investigates, where one is asked to.
    pub investigator: EndpointSection,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            name: String::new(),
            description: String::new(),
            seed: 0,
            model: ModelSection::default(),
            data: DataSection::default(),
            train: TrainSection::default(),
            diff: DiffSection::default(),
            claims: ClaimsSection::default(),
            behaviour: BehaviourSection::default(),
            grader: EndpointSection::default(),
            investigator: EndpointSection::investigator(),
        }
    }
}

impl Recipe {
    /// Reads a recipe file, puts in `--set key.path=value` overrides, checks everything, and makes its
    /// paths absolute: those of the file are relative to its folder, those of overrides to the current one. Of `[sweep]`
    /// only the faults are told; [`SweepSection`] reads it.
    ///
    /// # Errors
    /// An [`InputError`] with every fault.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let mut table = table::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let (_, of_sweep) = SweepSection::of(table.remove("sweep"), folder);
        table.iter_mut().for_each(|(key, value)| make_absolute(key, value, folder));
        let mut faults = apply_overrides(&mut table, overrides);
        let (recipe, mut of_recipe) = Self::from_table(&table);
        let of_default = |fault: &String| of_recipe.iter().any(|wrong| is_about_the_same(fault, wrong));
        // Of a key with a wrong type the default is there, about which nothing is to be said.
        let of_values: Vec<String> = recipe.faults().into_iter().filter(|fault| !of_default(fault)).collect();
        of_recipe.extend(of_values);
        of_recipe.extend(of_sweep);
        faults.extend(in_file(path, of_recipe));
        InputError::unless_empty(faults)?;
        Ok(recipe)
    }

    /// The resolved recipe of a run folder, without asking whether the files that it names are still there.
    ///
    /// # Errors
    /// An [`InputError`] if it cannot be read, or holds keys or types that no recipe has.
    pub fn stored(path: &Path) -> Result<Self> {
        let (recipe, faults) = Self::from_table(&table::read(path)?);
        sound(path, recipe, faults)
    }

    /// The defaults with overrides, for an analysis without a recipe: nothing has to be said about training,
    /// and the narrow data may be unknown.
    ///
    /// # Errors
    /// An [`InputError`] with every fault.
    pub fn for_diff(overrides: &[String]) -> Result<Self> {
        let mut table = Table::new();
        let mut faults = apply_overrides(&mut table, overrides);
        let (recipe, of_recipe) = Self::from_table(&table);
        faults.extend(of_recipe);
        faults.extend(recipe.diff_faults());
        InputError::unless_empty(faults)?;
        Ok(recipe)
    }

    /// A recipe from a table, with a fault for each key that is unknown or of the wrong type.
    fn from_table(table: &Table) -> (Self, Vec<String>) {
        let mut faults = Vec::new();
        let preset = table.get("diff").and_then(|diff| diff.get("preset")).cloned();
        let preset = preset.and_then(|p| p.try_into::<Preset>().ok()).unwrap_or_default();
        let default = Recipe { diff: DiffSection::of(preset), ..Recipe::default() };
        let recipe = lenient("", table, &default, &mut faults);
        (recipe, faults)
    }

    /// Every list of sources with its key.
    pub fn sources(&self) -> [(&'static str, &Vec<SourceSpec>); 6] {
        [
            ("data.narrow", &self.data.narrow),
            ("data.pretraining", &self.data.pretraining),
            ("data.chat", &self.data.chat),
            ("diff.text", &self.diff.text),
            ("diff.chat.text", &self.diff.chat.text),
            ("diff.candidates", &self.diff.candidates),
        ]
    }

    /// The same, to change them.
    pub fn sources_mut(&mut self) -> [(&'static str, &mut Vec<SourceSpec>); 6] {
        [
            ("data.narrow", &mut self.data.narrow),
            ("data.pretraining", &mut self.data.pretraining),
            ("data.chat", &mut self.data.chat),
            ("diff.text", &mut self.diff.text),
            ("diff.chat.text", &mut self.diff.chat.text),
            ("diff.candidates", &mut self.diff.candidates),
        ]
    }

    /// The same with the places of the models that it names changed by `place`.
    pub fn with_models(mut self, place: impl Fn(&str) -> String) -> Self {
        self.model.base = place(&self.model.base);
        self.diff.embedder = place(&self.diff.embedder);
        self
    }

    /// A table with every default filled in; `None` if it is no recipe.
    pub fn completed(table: &Table) -> Option<Table> {
        let (recipe, faults) = Self::from_table(table);
        faults.is_empty().then(|| Table::try_from(&recipe).ok()).flatten()
    }

    /// The resolved recipe as TOML: every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe holds nothing that TOML cannot")
    }

    /// Whether training reads `[diff]` too: the block and the positions of what is done against the trace, or how the trace is
    /// followed.
    pub fn trains_by_diff(&self) -> bool {
        let (mitigation, trace) = (&self.train.mitigation, &self.train.trace);
        let ablates_where_read =
            !mitigation.ablation.directions.is_empty() && mitigation.ablation.layers.is_empty();
        mitigation.difference.weight > 0.0 || ablates_where_read || trace.every > 0
    }

    /// What decides a training, as TOML: all but `[diff]`, and that where training reads it. Keys that recipes of version
    /// 0.1.0 did not have are left out where they say what was done without them, so that a run begun then can be resumed.
    pub fn training_toml(&self) -> String {
        let newer = ["chat = []", "chat_mix = 0.0", "mix_schedule = \"constant\"", "tokenizer = \"base\""];
        let (default, train) = (TrainSection::default(), &self.train);
        let newer_tables = [
            ("[train.mitigation", train.mitigation == default.mitigation),
            ("[train.trace", train.trace == default.trace),
            ("[train.match", train.matching == default.matching),
            // No training reads them.
            ("[diff.logit_contrast", true),
            ("[diff.diff_mining", true),
            ("[diff.completion_ranking", true),
            ("[diff.weights", true),
            ("[diff.truncation", true),
            ("[diff.amplification", true),
            ("[behaviour.quality", true),
        ];
        let diff = if self.trains_by_diff() { self.diff.clone() } else { DiffSection::default() };
        let toml = Self { diff, ..self.clone() }.to_toml();
        let mut left_out = false; // the table that a line stands in
        let mut text = String::new();
        for line in toml.lines().filter(|line| !newer.contains(line)) {
            if line.starts_with('[') {
                left_out =
                    newer_tables.iter().any(|(table, says_nothing)| *says_nothing && line.starts_with(table));
            }
            if !left_out {
                text.extend([line, "\n"]);
            }
        }
        text
    }

    /// The keys in which this recipe is another than `before`, each with its value here and there.
    pub fn differences(&self, before: &Self) -> Vec<(String, String, String)> {
        let table = |recipe: &Self| Table::try_from(recipe).expect("a recipe is a table");
        let mut found = Vec::new();
        differences("", &table(self), &table(before), &mut found);
        found
    }

    /// The keys whose values are not the defaults: what makes this recipe the one it is, whatever keys a later version
    /// adds.
    pub fn beyond_defaults(&self) -> Table {
        let table = |recipe: &Self| Table::try_from(recipe).expect("a recipe is a table");
        differing(&table(self), &table(&Self::default()))
    }

    /// Number of optimizer steps, as far as it is known without the data: not where `epochs` or tokens count.
    fn steps(&self) -> Option<usize> {
        let (d, t) = (&self.data, &self.train);
        let examples = t.narrow_steps() as f64 * t.batch_size as f64;
        let added = match (d.mix_mode, d.mix_unit) {
            (MixMode::Add, MixUnit::Tokens) if d.mix + d.chat_mix > 0.0 => return None,
            (MixMode::Add, _) => (examples * d.mix).round() + (examples * d.chat_mix).round(),
            (MixMode::FixedBudget, _) => 0.0,
        };
        (examples > 0.0).then(|| ((examples + added) / t.batch_size as f64).ceil() as usize)
    }

    /// What is out of range or missing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.diff_faults();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(fault);
            }
        };
        let (d, t) = (&self.data, &self.train);
        let warmup = self.steps().and_then(|steps| t.warmup_fault(steps));
        check(warmup.is_none(), warmup.unwrap_or_default());
        check(
            self.model.dtype == ModelDtype::F32 || t.method == Method::Lora,
            format!(
                "model.dtype = {:?} keeps the base frozen: expected train.method = \"lora\", or dtype = \"f32\"",
                self.model.dtype.name()
            ),
        );
        check(
            !t.mitigation.reads_pretraining() || !d.pretraining.is_empty(),
            "train.mitigation: divergence and difference are computed on pretraining text, but data.pretraining names \
             no source"
                .into(),
        );
        check(
            t.trace.every == 0 || !self.diff.text.is_empty(),
            "train.trace.every: the trace is measured on diff.text, which names no source".into(),
        );
        check(
            !t.matching.is_on() || d.mix_schedule == MixSchedule::Constant,
            "data.mix_schedule: the mix of a matched training (train.match) must not move; expected \"constant\"".into(),
        );
        faults.extend(d.faults());
        faults.extend(t.faults());
        faults.extend(t.matching.faults(&self.behaviour));
        faults
    }

    /// What an analysis without training needs and is out of range or missing.
    fn diff_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(fault);
            }
        };
        check(
            !self.model.base.is_empty(),
            "model.base: missing; expected an alias, hf: id, folder or .gguf file".into(),
        );
        check(self.seed <= i64::MAX as u64, format!("seed = {}: expected 0 to {}", self.seed, i64::MAX));
        faults.extend(self.sources().iter().flat_map(|(key, sources)| source::faults(key, sources)));
        faults.extend(self.data.chat_template_fault());
        faults.extend(self.diff.faults());
        faults.extend(self.claims.faults());
        faults.extend(self.behaviour.faults());
        faults.extend(self.grader.faults("grader"));
        faults.extend(self.investigator.faults("investigator"));
        faults
    }
}

/// Whether a fault is about the key of another one, or a key below it.
fn is_about_the_same(fault: &str, wrong: &str) -> bool {
    let key = wrong.split([' ', ':']).next().unwrap_or_default();
    let begins =
        |text: &str| text.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', ':', '.', '[']));
    begins(fault) || fault.split(" and ").skip(1).any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_table_is_found_at_once() {
        let table: Table = r#"
            name = 3
            sed = 1
            [train]
            lr = "fast"
            stepz = 4
            [data]
            mix_unit = "words"
            narrow = "a.jsonl"
        "#
        .parse()
        .unwrap();
        let (recipe, faults) = Recipe::from_table(&table);
        let text = faults.join("\n");
        for part in
            ["name = 3", "sed: unknown key; did you mean seed?", "train.lr", "train.stepz", "data.mix_unit"]
        {
            assert!(text.contains(part), "{part} not in:\n{text}");
        }
        assert_eq!(faults.len(), 5, "{text}");
        assert_eq!(recipe.data.narrow[0].path, "a.jsonl");
    }

    #[test]
    fn a_recipe_of_before_decides_the_same_training() {
        let old = Recipe::default();
        for line in [
            "\nchat = []\n",
            "\nchat_mix = 0.0\n",
            "\nmix_schedule = \"constant\"\n",
            "\ntokenizer = \"base\"\n",
        ] {
            assert!(old.to_toml().contains(line), "{line} is not written");
            assert!(!old.training_toml().contains(line), "{line} is hashed");
        }
        let data = DataSection {
            chat: vec![SourceSpec { loss_weight: Some(2.0), ..SourceSpec::of("a") }],
            chat_mix: 0.5,
            mix_schedule: MixSchedule::Last,
            ..Default::default()
        };
        let new = Recipe { data, ..Recipe::default() }.training_toml();
        for part in ["path = \"a\"", "loss_weight = 2.0", "chat_mix = 0.5", "mix_schedule = \"last\""] {
            assert!(new.contains(part), "{part} not in\n{new}");
        }
    }

    #[test]
    fn where_the_trace_is_read_decides_a_training_that_looks_at_it() {
        let read_elsewhere = |recipe: &Recipe| Recipe {
            diff: DiffSection { layer: 0.25, ..Default::default() },
            ..recipe.clone()
        };
        let plain = Recipe::default();
        assert_eq!(plain.training_toml(), read_elsewhere(&plain).training_toml());
        let changes: [fn(&mut TrainSection); 3] = [
            |train| train.mitigation.difference.weight = 1.0,
            |train| train.mitigation.ablation.directions = "v.safetensors".into(),
            |train| train.trace.every = 5,
        ];
        for change in changes {
            let mut recipe = Recipe::default();
            change(&mut recipe.train);
            assert_ne!(recipe.training_toml(), read_elsewhere(&recipe).training_toml());
        }
        let mut elsewhere = Recipe::default();
        elsewhere.train.mitigation.ablation.directions = "v.safetensors".into();
        elsewhere.train.mitigation.ablation.layers = vec![1];
        assert_eq!(elsewhere.training_toml(), read_elsewhere(&elsewhere).training_toml());
    }

    #[test]
    fn differences_are_told_by_key_whatever_their_form() {
        let before = Recipe::default();
        let mut now = before.clone();
        now.data.chat = vec![SourceSpec { loss_weight: Some(2.0), ..SourceSpec::of("a") }];
        now.train.lr = 0.5;
        now.train.lora.rank_pattern.insert("b".into(), 2);
        let differences = now.differences(&before);
        let found: Vec<(&str, &str, &str)> = differences
            .iter()
            .map(|(key, now, before)| (key.as_str(), now.as_str(), before.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("data.chat", "[{ path = \"a\", loss_weight = 2.0 }]", "[]"),
                ("train.lr", "0.5", "0.0003"),
                ("train.lora.rank_pattern.b", "2", "nothing"),
            ]
        );
    }

    #[test]
    fn a_resolved_recipe_reads_back_as_itself() {
        let recipe = Recipe { name: "x".into(), ..Recipe::default() };
        let (again, faults) = Recipe::from_table(&recipe.to_toml().parse().unwrap());
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(recipe, again);
    }
}
