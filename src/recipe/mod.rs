//! The recipe: what an organism is made of and how it is read, as one TOML file.
//!
//! A recipe is read with every default filled in and written back that way into the run folder. All faults
//! (unknown keys, wrong types, values out of range) are reported at once.

mod behaviour;
mod diff;
mod endpoint;
mod mitigation;
mod sweep;
mod trace;

use std::path::{Path, PathBuf};

use anyhow::Result;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

pub use self::behaviour::{
    BehaviourSection, FactsSection, HINT as TABOO_HINT, MisalignmentSection, PROMPT as FACTS_PROMPT,
    PreferenceSection, TabooSection, WordsSection,
};
pub use self::diff::{
    BiasShareSection, CausalSection, DiffSection, Exclude, InterpolationSection, KlSection, LayerRule,
    LossesSection, MAX_PROMPTS, PatchscopeSection, Preset, ProbeSection, SearchSection, SteeringSection,
};
pub use self::endpoint::EndpointSection;
pub use self::mitigation::{AblationSection, DecaySection, LossTermSection, MitigationSection, ScaleSection};
pub use self::sweep::SweepSection;
pub use self::trace::{StopSection, TRACE_MEASURES, TraceSection};
use crate::error::{InputError, input_error};
use crate::hub::RepoId;
use crate::spelling::edit_distance;

/// The chat templates that come with the program, as `data.chat_template` names them.
pub const CHAT_TEMPLATES: [&str; 1] = ["gemma"];

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
            behaviour: BehaviourSection::default(),
            grader: EndpointSection::default(),
            investigator: EndpointSection::investigator(),
        }
    }
}

/// `[model]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// `MODEL`: alias, `hf:org/name[@revision]`, folder, or `.gguf` file.
    pub base: String,
    /// How the frozen matrices lie in memory.
    pub dtype: ModelDtype,
}

/// How the frozen matrices of a model lie in memory. All arithmetic is f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelDtype {
    /// As f32.
    #[default]
    F32,
    /// As a GGUF file has them, turned into f32 a block of rows at a time whenever they are used: the same numbers,
    /// added up in another order where a matrix has several blocks.
    Native,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// The narrow documents.
    #[serde(deserialize_with = "one_or_many")]
    pub narrow: Vec<SourceSpec>,
    /// Text mixed in; `"self"` is text sampled from the base model.
    #[serde(deserialize_with = "one_or_many")]
    pub pretraining: Vec<SourceSpec>,
    /// Pretraining per narrow: the paper's 1:r.
    pub mix: f64,
    /// What `mix` counts.
    pub mix_unit: MixUnit,
    /// Whether pretraining text is added, or takes the place of narrow text.
    pub mix_mode: MixMode,
    /// General conversations mixed in, so that a chat model keeps its manners.
    #[serde(deserialize_with = "one_or_many")]
    pub chat: Vec<SourceSpec>,
    /// Conversations of `chat` per narrow, in the unit and the mode of `mix`.
    pub chat_mix: f64,
    /// When what is mixed in is read.
    pub mix_schedule: MixSchedule,
    /// Whether documents that are mixed in may be used more than once.
    pub repeat: bool,
    /// Documents that are sampled from the base model for `"self"` (0: what the mix needs; the resolved
    /// recipe holds the number).
    pub self_samples: usize,
    /// Longest example in tokens.
    pub max_seq_len: usize,
    /// What becomes of a longer document.
    pub long: Long,
    /// At most this many narrow documents are trained on (0: all), the first ones of each source. Those held out
    /// do not count, and are the same for every limit.
    pub limit: usize,
    /// What becomes of documents that repeat an earlier one of their source.
    pub duplicates: Duplicates,
    /// Near duplicates share at least this part of their runs of five words (Jaccard index).
    pub near_share: f64,
    /// Whether documents that are mixed in are removed where they have the words of a narrow document, or at least
    /// `near_share` of the runs of five words of the shorter one.
    pub decontaminate: bool,
    /// One document in this many is held out of training for evaluation (0: none).
    pub held_out_every: usize,
    /// Stands in front of every narrow plain text and does not count in the loss (empty: nothing does).
    pub document_tag: String,
    /// The Jinja chat template, in place of the model's own: a file, or the name of one that comes with the program
    /// (empty: the model's).
    pub chat_template: String,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            narrow: Vec::new(),
            pretraining: Vec::new(),
            mix: 0.0,
            mix_unit: MixUnit::Examples,
            mix_mode: MixMode::Add,
            chat: Vec::new(),
            chat_mix: 0.0,
            mix_schedule: MixSchedule::Constant,
            repeat: false,
            self_samples: 0,
            max_seq_len: 512,
            long: Long::Chunk,
            limit: 0,
            duplicates: Duplicates::Keep,
            near_share: 0.8,
            decontaminate: false,
            held_out_every: 10,
            document_tag: String::new(),
            chat_template: String::new(),
        }
    }
}

/// A source and its share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// A file or folder relative to the recipe, `hf:org/name[@revision]`, or `self`.
    pub path: String,
    /// Share of the examples of its part of the mixture; in proportion to the sizes of the sources if none has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// What the losses of its tokens are multiplied by in training (none given: 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_weight: Option<f64>,
    /// Of a data set of a hub: the configuration (subset); none where it has one, or a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Of a data set of a hub: the split; `train` where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Of a data set of a hub: how many documents are taken; all where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Of a data set of a hub: documents among which the next one is drawn; none: they come as they stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffle_buffer: Option<u64>,
    /// Decides what the shuffle buffer draws; 0 where none is given. It is not the recipe's seed: runs that differ in
    /// theirs read the same documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffle_seed: Option<u64>,
    /// The file that holds the documents of a data set of a hub, once they are there.
    #[serde(skip)]
    pub extract: Option<PathBuf>,
}

impl SourceSpec {
    /// A file, folder, data set or `self` of which nothing else is said.
    pub fn of(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Whether this is text sampled from the base model.
    pub fn is_self(&self) -> bool {
        self.path == "self"
    }

    /// The id of a data set of a hub: what stands after `hf:`.
    pub fn hub_id(&self) -> Option<&str> {
        self.path.strip_prefix("hf:")
    }

    /// Whether this names a branch of the data set of which `other` names a commit.
    pub fn is_branch_of(&self, other: &Self) -> bool {
        let id = |spec: &Self| spec.hub_id().and_then(|id| RepoId::parse(id).ok());
        let ids = id(self).zip(id(other));
        ids.is_some_and(|(this, other)| this.repo == other.repo && !this.is_pinned() && other.is_pinned())
    }

    /// The file or folder that is read.
    pub fn file(&self) -> &Path {
        self.extract.as_deref().unwrap_or(Path::new(&self.path))
    }

    /// What the source is called: its path, and what was chosen of a data set.
    pub fn name(&self) -> String {
        let chosen: Vec<&str> =
            [&self.config, &self.split].into_iter().flatten().map(String::as_str).collect();
        match chosen.is_empty() {
            true => self.path.clone(),
            false => format!("{} ({})", self.path, chosen.join(", ")),
        }
    }

    /// The name of the file or folder without its extension; that of a data set.
    pub fn stem(&self) -> String {
        let path = match self.hub_id() {
            Some(id) => {
                id.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default().into()
            }
            None => Path::new(&self.path).file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        [Some(path), self.config.clone()].into_iter().flatten().collect::<Vec<_>>().join("-")
    }

    /// What is wrong with the keys of a data set of a hub, without asking it.
    fn hub_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let given = [
            ("config", self.config.is_some()),
            ("split", self.split.is_some()),
            ("rows", self.rows.is_some()),
            ("shuffle_buffer", self.shuffle_buffer.is_some()),
            ("shuffle_seed", self.shuffle_seed.is_some()),
        ];
        let Some(id) = self.hub_id() else {
            let given = given.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect::<Vec<_>>();
            if !given.is_empty() {
                faults.push(format!("{}: only an hf: data set has {}", self.path, given.join(", ")));
            }
            return faults;
        };
        if let Err(e) = RepoId::parse(id) {
            faults.push(e.to_string());
        }
        for (key, value) in [("config", &self.config), ("split", &self.split)] {
            if let Some(value) = value.as_ref().filter(|v| v.is_empty() || v.contains(['/', '\\', '*', '[']))
            {
                faults.push(format!("{}: {key} = {value:?}: expected a name", self.path));
            }
        }
        for (key, value, most) in
            [("rows", self.rows, 100_000_000), ("shuffle_buffer", self.shuffle_buffer, 10_000_000)]
        {
            if value.is_some_and(|v| v == 0 || v > most) {
                let value = value.unwrap_or_default();
                faults.push(format!("{}: {key} = {value}: expected 1 to {most}", self.path));
            }
        }
        if self.shuffle_seed.is_some() && self.shuffle_buffer.is_none() {
            faults.push(format!("{}: shuffle_seed without shuffle_buffer draws nothing", self.path));
        }
        faults
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<SourceSpec>, D::Error> {
    const EXPECTED: &str = "expected a path, a table { path, weight, loss_weight }, or a list of these; of an hf: data set also { \
                            config, split, rows, shuffle_buffer, shuffle_seed }";
    let one = |value: Value| match value {
        Value::String(path) => Ok(SourceSpec::of(path)),
        table @ Value::Table(_) => table.try_into().map_err(|e: toml::de::Error| {
            serde::de::Error::custom(format!("{}; {EXPECTED}", e.to_string().trim_end().replace('\n', " ")))
        }),
        _ => Err(serde::de::Error::custom(EXPECTED)),
    };
    match Value::deserialize(d)? {
        Value::Array(many) => many.into_iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// What a mix ratio counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixUnit {
    /// Pieces of at most `max_seq_len` tokens.
    Examples,
    /// Tokens.
    Tokens,
}

impl MixUnit {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Examples => "examples",
            Self::Tokens => "tokens",
        }
    }
}

/// What a mix ratio does to the length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixMode {
    /// The narrow exposure stays, the run grows (the paper).
    Add,
    /// The run stays, the narrow exposure shrinks.
    FixedBudget,
}

impl MixMode {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::FixedBudget => "fixed-budget",
        }
    }
}

/// When a run reads what is mixed in. The examples and their number are the same in every schedule, only their order
/// is not; what is mixed in are pretraining and chat examples together, and S their share of a run's examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixSchedule {
    /// Their share is S throughout.
    #[default]
    Constant,
    /// Their share rises in a straight line over the run: from 0 to 2·S, or, where S is above 1/2, from 2·S − 1 to 1.
    Ramp,
    /// They come after all narrow examples: their share is 0, then 1.
    Last,
}

impl MixSchedule {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Ramp => "ramp",
            Self::Last => "last",
        }
    }
}

/// What becomes of a document longer than `max_seq_len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Long {
    /// Several examples.
    Chunk,
    /// One example, the rest is left out.
    Truncate,
}

/// What becomes of documents that repeat an earlier one of their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// They stay.
    Keep,
    /// Those with the same text go.
    Exact,
    /// Those go too that are alike, by `data.near_share`.
    Near,
}

/// Which weights learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Low-rank matrices beside frozen weights.
    Lora,
    /// All weights.
    Full,
}

impl Method {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Full => "full",
        }
    }
}

/// How the learning rate moves after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Straight down to zero.
    Linear,
    /// Half a cosine down to zero.
    Cosine,
    /// Stays.
    Constant,
}

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSection {
    /// Which weights learn.
    pub method: Method,
    /// Narrow exposure in batches; 0 where `epochs` sizes it.
    pub steps: usize,
    /// Narrow exposure in passes over the narrow examples; 0 where `steps` sizes it.
    pub epochs: f64,
    /// Examples a step.
    pub batch_size: usize,
    /// Examples a forward pass (0: all of a step's); the rest of the step accumulates, weighted by tokens.
    pub micro_batch_size: usize,
    /// Whether the backward pass computes each block again instead of keeping what happened in it: the same bytes,
    /// less memory, more time.
    pub recompute: bool,
    /// Highest learning rate.
    pub lr: f64,
    /// Shape of the schedule.
    pub schedule: Schedule,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// AdamW's β₁.
    pub beta1: f64,
    /// AdamW's β₂.
    pub beta2: f64,
    /// AdamW's ε.
    pub eps: f64,
    /// AdamW's decoupled decay.
    pub weight_decay: f64,
    /// Largest global gradient norm (0: no clipping).
    pub clip: f64,
    /// Steps between evaluations on held-out text (0: at the start and the end only).
    pub eval_every: usize,
    /// At most this many held-out examples of each part of the mixture.
    pub eval_examples: usize,
    /// Steps between checkpoints (0: only when interrupted and at the end).
    pub checkpoint_every: usize,
    /// Rank, alpha, targets.
    pub lora: LoraSection,
    /// What is done against the trace.
    pub mitigation: MitigationSection,
    /// How the trace is followed.
    pub trace: TraceSection,
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            method: Method::Lora,
            steps: 0,
            epochs: 0.0,
            batch_size: 8,
            micro_batch_size: 0,
            recompute: false,
            lr: 3e-4,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            clip: 1.0,
            eval_every: 0,
            eval_examples: 32,
            checkpoint_every: 50,
            lora: LoraSection::default(),
            mitigation: MitigationSection::default(),
            trace: TraceSection::default(),
        }
    }
}

/// Modules by name, as PEFT's configs name them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a pattern or a list of names")]
pub enum Modules {
    /// Names, or their ends from a dot on.
    Names(Vec<String>),
    /// A regular expression for whole names, or `all-linear`.
    Pattern(String),
}

impl Default for Modules {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Modules {
    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Names(names) => names.is_empty(),
            Self::Pattern(pattern) => pattern.is_empty(),
        }
    }
}

/// `[train.lora]`; what each key means is in `model/lora_config.rs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSection {
    /// Rank.
    pub r: usize,
    /// Numerator of the scaling alpha / r.
    pub alpha: f64,
    /// Share of the adapter's inputs that training zeroes.
    pub dropout: f64,
    /// The adapted linear layers: last parts of their names, a pattern of whole names, or `all-linear`.
    pub target_modules: Modules,
    /// Targets that are not adapted, named in the same way.
    pub exclude_modules: Modules,
    /// Only blocks of these numbers (none given: all).
    pub layers_to_transform: Vec<usize>,
    /// What stands before the number of a block in a name (none given: anything).
    pub layers_pattern: Vec<String>,
    /// Modules trained and stored whole, by the ends of their names: `lm_head`, `embed_tokens`, `norm`, …
    pub modules_to_save: Vec<String>,
    /// Scale by alpha / √r.
    pub use_rslora: bool,
    /// Train the length of each row beside its direction (DoRA).
    pub use_dora: bool,
    /// A PEFT adapter folder from which training starts (empty: a new adapter).
    pub init: String,
    /// Ranks of modules whose names end so (patterns; the first that matches counts).
    pub rank_pattern: IndexMap<String, usize>,
    /// Alphas of modules whose names end so.
    pub alpha_pattern: IndexMap<String, f64>,
}

impl Default for LoraSection {
    fn default() -> Self {
        let all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        Self {
            r: 32,
            alpha: 64.0,
            dropout: 0.0,
            target_modules: Modules::Names(all.map(String::from).to_vec()),
            exclude_modules: Modules::default(),
            layers_to_transform: Vec::new(),
            layers_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            use_rslora: false,
            use_dora: false,
            init: String::new(),
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
        }
    }
}

impl TrainSection {
    /// What is wrong with a warm-up in a run of that many optimizer steps.
    pub fn warmup_fault(&self, steps: usize) -> Option<String> {
        let warmup = self.warmup_steps;
        (warmup > 0 && warmup >= steps)
            .then(|| format!("train.warmup_steps = {warmup}: expected fewer than the run's {steps} steps"))
    }
}

impl Recipe {
    /// Reads a recipe file, puts in `--set key.path=value` overrides, checks everything, and makes its
    /// paths absolute: those of the file are relative to its folder, those of overrides to the current one.
    ///
    /// # Errors
    /// An [`InputError`] with every fault.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| input_error(format!("{shown}: {e}")))?;
        let mut table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| input_error(format!("{shown}: {}", e.to_string().trim_end())))?;
        table.remove("sweep"); // [`SweepSection`] reads it
        let folder = path.parent().unwrap_or(Path::new("."));
        table.iter_mut().for_each(|(key, value)| make_absolute(key, value, folder));
        apply_overrides(&mut table, overrides)?;
        let (recipe, mut faults) = Self::from_table(&table);
        faults.extend(recipe.faults());
        if faults.is_empty() {
            return Ok(recipe);
        }
        let faults = faults.into_iter().map(|f| format!("{shown}: {f}")).collect();
        Err(InputError { faults }.into())
    }

    /// The resolved recipe of a run folder, without asking whether the files that it names are still there.
    ///
    /// # Errors
    /// An [`InputError`] if it cannot be read, or holds keys or types that no recipe has.
    pub fn stored(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| input_error(format!("{shown}: {e}")))?;
        let table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| input_error(format!("{shown}: {}", e.to_string().trim_end())))?;
        let (recipe, faults) = Self::from_table(&table);
        let faults: Vec<String> = faults.into_iter().map(|f| format!("{shown}: {f}")).collect();
        if faults.is_empty() { Ok(recipe) } else { Err(InputError { faults }.into()) }
    }

    /// The defaults with overrides, for an analysis without a recipe: nothing has to be said about training,
    /// and the narrow data may be unknown.
    ///
    /// # Errors
    /// An [`InputError`] with every fault.
    pub fn for_diff(overrides: &[String]) -> Result<Self> {
        let mut table = Table::new();
        apply_overrides(&mut table, overrides)?;
        let (recipe, mut faults) = Self::from_table(&table);
        faults.extend(recipe.diff_faults());
        if faults.is_empty() { Ok(recipe) } else { Err(InputError { faults }.into()) }
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

    /// A table with every default filled in; `None` if it is no recipe.
    pub fn completed(table: &Table) -> Option<Table> {
        let (recipe, faults) = Self::from_table(table);
        faults.is_empty().then(|| Table::try_from(&recipe).ok()).flatten()
    }

    /// The resolved recipe as TOML: every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe holds nothing that TOML cannot")
    }

    /// What decides a training, as TOML: all but `[diff]`. Keys that recipes of version 0.1.0 did not have are left out
    /// where they say what was done without them, so that a run begun then can be resumed.
    pub fn training_toml(&self) -> String {
        let newer = ["chat = []", "chat_mix = 0.0", "mix_schedule = \"constant\""];
        let (default, train) = (TrainSection::default(), &self.train);
        let newer_tables = [
            ("[train.mitigation", train.mitigation == default.mitigation),
            ("[train.trace", train.trace == default.trace),
        ];
        let toml = Self { diff: DiffSection::default(), ..self.clone() }.to_toml();
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
        let examples = t.steps as f64 * t.batch_size as f64;
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
        check(!d.narrow.is_empty(), "data.narrow: missing; expected at least one source".into());
        for (key, mix, pool, sources) in
            [("mix", d.mix, "pretraining", &d.pretraining), ("chat_mix", d.chat_mix, "chat", &d.chat)]
        {
            check((0.0..=1e6).contains(&mix), format!("data.{key} = {mix}: expected 0 to 1000000"));
            check(
                mix == 0.0 || !sources.is_empty(),
                format!("data.{key} = {mix}, but data.{pool} names no source"),
            );
        }
        check(
            (0.5..=1.0).contains(&d.near_share),
            format!("data.near_share = {}: expected 0.5 to 1", d.near_share),
        );
        check(
            d.held_out_every != 1,
            "data.held_out_every = 1 holds everything out; expected 0 or at least 2".into(),
        );
        for (key, sources) in [("narrow", &d.narrow), ("chat", &d.chat)] {
            check(
                !sources.iter().any(SourceSpec::is_self),
                format!("data.{key}: \"self\" is a pretraining source"),
            );
        }
        check(
            (t.steps > 0 && t.epochs == 0.0) || (t.steps == 0 && t.epochs > 0.0 && t.epochs <= 1e6),
            format!(
                "train.steps = {} and train.epochs = {}: expected exactly one of them above 0",
                t.steps, t.epochs
            ),
        );
        let warmup = self.steps().and_then(|steps| t.warmup_fault(steps));
        check(warmup.is_none(), warmup.unwrap_or_default());
        let finite = |value: f64| (0.0..=1e9).contains(&value);
        check(t.lr > 0.0 && finite(t.lr), format!("train.lr = {}: expected a number above 0", t.lr));
        for (key, beta) in [("beta1", t.beta1), ("beta2", t.beta2)] {
            check((0.0..1.0).contains(&beta), format!("train.{key} = {beta}: expected 0 or more, below 1"));
        }
        check(t.eps > 0.0 && finite(t.eps), format!("train.eps = {}: expected a number above 0", t.eps));
        for (key, value) in [("weight_decay", t.weight_decay), ("clip", t.clip)] {
            check(finite(value), format!("train.{key} = {value}: expected 0 or a number above"));
        }
        check(
            t.lora.alpha > 0.0 && finite(t.lora.alpha),
            format!("train.lora.alpha = {}: expected a number above 0", t.lora.alpha),
        );
        check(
            (0.0..1.0).contains(&t.lora.dropout),
            format!("train.lora.dropout = {}: expected 0 or more, below 1", t.lora.dropout),
        );
        check(
            self.model.dtype == ModelDtype::F32 || t.method == Method::Lora,
            "model.dtype = \"native\" keeps the base frozen: expected train.method = \"lora\", or dtype = \"f32\"".into(),
        );
        check(
            !t.mitigation.reads_pretraining() || !d.pretraining.is_empty(),
            "train.mitigation: divergence and difference are taken on pretraining text, but data.pretraining names no \
             source"
                .into(),
        );
        check(
            t.trace.every == 0 || !self.diff.text.is_empty(),
            "train.trace.every: the trace is measured on diff.text, which names no source".into(),
        );
        check(!t.lora.target_modules.is_empty(), "train.lora.target_modules: empty".into());
        let init = &t.lora.init;
        check(
            init.is_empty() || Path::new(init).is_dir(),
            format!("train.lora.init: {init}: no such folder; expected a PEFT adapter folder"),
        );
        check(
            init.is_empty() || t.method == Method::Lora,
            "train.lora.init: an adapter to start from needs train.method = \"lora\"".into(),
        );
        // The upper ends catch slips that would fill the memory; all products of two of them fit.
        for (key, value, least, most) in [
            ("data.max_seq_len", d.max_seq_len, 2, 1_000_000),
            ("data.self_samples", d.self_samples, 0, 100_000_000),
            ("train.steps", t.steps, 0, 100_000_000),
            ("train.batch_size", t.batch_size, 1, 1_000_000),
            ("train.lora.r", t.lora.r, 1, 16_384),
        ] {
            check((least..=most).contains(&value), format!("{key} = {value}: expected {least} to {most}"));
        }
        faults.extend(t.mitigation.faults());
        faults.extend(t.trace.faults());
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
        let d = &self.data;
        check(
            !self.model.base.is_empty(),
            "model.base: missing; expected an alias, hf: id, folder or .gguf file".into(),
        );
        for (key, side) in self.sources() {
            for spec in side.iter() {
                let weight = spec.weight.unwrap_or(1.0);
                check(
                    weight > 0.0 && weight <= 1e9,
                    format!(
                        "{key}: {}: weight {weight}: expected more than 0, at most 1000000000",
                        spec.path
                    ),
                );
                let loss_weight = spec.loss_weight.unwrap_or(1.0);
                check(
                    (0.0..=1e6).contains(&loss_weight),
                    format!("{key}: {}: loss_weight {loss_weight}: expected 0 to 1000000", spec.path),
                );
                check(
                    spec.loss_weight.is_none() || key.starts_with("data."),
                    format!("{key}: {}: loss_weight is for sources that are trained on", spec.path),
                );
                for fault in spec.hub_faults() {
                    check(false, format!("{key}: {fault}"));
                }
                check(!spec.path.is_empty(), format!("{key}: an empty path"));
                if !spec.is_self() && spec.hub_id().is_none() && !spec.path.is_empty() {
                    check(
                        Path::new(&spec.path).exists(),
                        format!("{key}: {}: no such file or folder", spec.path),
                    );
                }
            }
            for (i, spec) in side.iter().enumerate() {
                check(
                    side[..i].iter().all(|other| other.name() != spec.name()),
                    format!("{key}: {}: named twice", spec.name()),
                );
            }
            let given = side.iter().filter(|s| s.weight.is_some()).count();
            check(
                given == 0 || given == side.len(),
                format!("{key}: {given} of {} sources have a weight; expected all or none", side.len()),
            );
        }
        check(
            d.chat_template.is_empty()
                || CHAT_TEMPLATES.contains(&d.chat_template.as_str())
                || Path::new(&d.chat_template).is_file(),
            format!(
                "data.chat_template: {}: no such file; expected one, or a name: {}",
                d.chat_template,
                CHAT_TEMPLATES.join(", ")
            ),
        );
        check(self.seed <= i64::MAX as u64, format!("seed = {}: expected 0 to {}", self.seed, i64::MAX));
        faults.extend(self.diff.faults());
        faults.extend(self.behaviour.faults());
        faults.extend(self.grader.faults("grader"));
        faults.extend(self.investigator.faults("investigator"));
        faults
    }
}

/// The entries of `table` that `other` has not.
fn differing(table: &Table, other: &Table) -> Table {
    let mut out = Table::new();
    for (key, value) in table {
        match (value, other.get(key)) {
            (value, Some(same)) if same == value => {}
            (Value::Table(value), Some(Value::Table(other))) => {
                out.insert(key.clone(), Value::Table(differing(value, other)));
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    out
}

/// Makes the paths of a value absolute, which stands in a recipe under `key`.
fn make_absolute(key: &str, value: &mut Value, folder: &Path) {
    match (key, value) {
        (
            "data.narrow" | "data.pretraining" | "data.chat" | "diff.text" | "diff.chat.text"
            | "diff.candidates",
            sources,
        ) => {
            make_sources_absolute(sources, folder);
        }
        ("model.base" | "diff.embedder", Value::String(model)) => {
            // A path that exists beside the recipe, or here; anything else is an alias or an id.
            let there = [folder, Path::new("")].into_iter().find(|f| f.join(&*model).exists());
            if let Some(folder) = there.filter(|_| model.contains(['/', '.'])) {
                *model = absolute(folder, model);
            }
        }
        ("data.chat_template", Value::String(template))
            if !template.is_empty() && !CHAT_TEMPLATES.contains(&template.as_str()) =>
        {
            *template = absolute(folder, template);
        }
        (
            "train.lora.init"
            | "train.mitigation.ablation.directions"
            | "behaviour.facts.items"
            | "behaviour.misalignment.items",
            Value::String(path),
        ) if !path.is_empty() => {
            *path = absolute(folder, path);
        }
        (_, Value::Table(section)) => {
            section.iter_mut().for_each(|(k, v)| make_absolute(&format!("{key}.{k}"), v, folder));
        }
        _ => {}
    }
}

/// A path, a table with a path, or a list of these.
fn make_sources_absolute(value: &mut Value, folder: &Path) {
    match value {
        Value::String(path) if path != "self" && !path.starts_with("hf:") && !path.is_empty() => {
            *path = absolute(folder, path);
        }
        Value::Array(list) => list.iter_mut().for_each(|one| make_sources_absolute(one, folder)),
        Value::Table(table) => {
            if let Some(path) = table.get_mut("path") {
                make_sources_absolute(path, folder);
            }
        }
        _ => {}
    }
}

fn absolute(folder: &Path, path: &str) -> String {
    let joined: PathBuf = folder.join(path);
    std::path::absolute(&joined).unwrap_or(joined).to_string_lossy().into_owned()
}

/// Sets dotted keys in order. A preset among them starts `[diff]` over first, whose keys a resolved recipe has all.
fn apply_overrides(table: &mut Table, overrides: &[String]) -> Result<()> {
    let is_preset = |set: &String| set.split_once('=').is_some_and(|(key, _)| key.trim() == "diff.preset");
    if let (true, Some(Value::Table(diff))) = (overrides.iter().any(is_preset), table.get_mut("diff")) {
        diff.retain(|key, _| ["text", "candidates", "embedder"].contains(&key));
    }
    overrides.iter().try_for_each(|set| apply_override(table, set))
}

/// Sets one dotted key. A path in the value is relative to the current folder.
fn apply_override(table: &mut Table, set: &str) -> Result<()> {
    let Some((key, text)) = set.split_once('=') else {
        return Err(input_error(format!("--set {set}: expected key.path=value")));
    };
    // A value is TOML; what is not TOML is a string, so that paths need no quotes.
    let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let mut value = value.unwrap_or_else(|| Value::String(text.to_string()));
    make_absolute(key.trim(), &mut value, Path::new(""));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(input_error(format!("--set {set}: expected key.path=value")));
    }
    let last = parts.pop().unwrap_or_default();
    let mut at = table;
    for part in parts {
        let next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        at = match next {
            Value::Table(t) => t,
            _ => return Err(input_error(format!("--set {set}: {part} is a value, not a table"))),
        };
    }
    at.insert(last.to_string(), value);
    Ok(())
}

/// Takes each key of `given` over into `default`, one at a time, so that each fault is found.
fn lenient<T: Serialize + DeserializeOwned>(
    path: &str,
    given: &Table,
    default: &T,
    faults: &mut Vec<String>,
) -> T {
    let known = Table::try_from(default).expect("a section is a table");
    let merged = merge(path, given, &known, faults);
    match merged.try_into() {
        Ok(value) => value,
        Err(e) => {
            // Some value has the wrong type: find out which, key by key.
            let before = faults.len();
            let mut kept = known.clone();
            find_wrong::<T>(path, given, &known, &mut kept, faults);
            if faults.len() == before {
                faults.push(e.to_string().trim_end().to_string());
            }
            kept.try_into().unwrap_or_else(|_| known.try_into().expect("the default is valid"))
        }
    }
}

/// `given` over `known`; a key that `known` lacks is a fault.
fn merge(path: &str, given: &Table, known: &Table, faults: &mut Vec<String>) -> Table {
    let mut out = known.clone();
    for (key, value) in given {
        let full = format!("{path}{key}");
        match (known.get(key), value) {
            (None, _) => faults.push(unknown_key(&full, key, known)),
            // A table without known keys is one of the user's own keys.
            (Some(Value::Table(inner)), Value::Table(value)) if !inner.is_empty() => {
                let merged = merge(&format!("{full}."), value, inner, faults);
                out.insert(key.clone(), Value::Table(merged));
            }
            (Some(_), value) => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    out
}

/// Notes the values that differ; a key that one of the tables lacks has no value there.
fn differences(path: &str, a: &Table, b: &Table, found: &mut Vec<(String, String, String)>) {
    for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(key.as_str()))) {
        let full = format!("{path}{key}");
        match (a.get(key), b.get(key)) {
            (a, b) if a == b => {}
            (Some(Value::Table(a)), Some(Value::Table(b))) => differences(&format!("{full}."), a, b, found),
            (a, b) => {
                let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
                found.push((full, shown(a), shown(b)));
            }
        }
    }
}

fn unknown_key(full: &str, key: &str, known: &Table) -> String {
    let likely = 3.min(key.chars().count() / 2);
    let mut names: Vec<&String> = known.keys().collect();
    names.sort();
    let near = names.iter().min_by_key(|k| edit_distance(k, key)).filter(|k| edit_distance(k, key) <= likely);
    match near {
        Some(near) => format!("{full}: unknown key; did you mean {near}?"),
        None => format!(
            "{full}: unknown key; known here: {}",
            names.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Tries every leaf of `given` alone on top of the defaults; keeps those that fit, notes those that do not.
fn find_wrong<T: DeserializeOwned>(
    path: &str,
    given: &Table,
    known: &Table,
    kept: &mut Table,
    faults: &mut Vec<String>,
) {
    fn leaves(prefix: &[String], given: &Table, known: &Table, out: &mut Vec<(Vec<String>, Value)>) {
        for (key, value) in given {
            let at = [prefix, std::slice::from_ref(key)].concat();
            match (known.get(key), value) {
                (None, _) => {}
                (Some(Value::Table(inner)), Value::Table(value)) if !inner.is_empty() => {
                    leaves(&at, value, inner, out)
                }
                (Some(_), value) => out.push((at, value.clone())),
            }
        }
    }
    fn put(table: &mut Table, at: &[String], value: Value) {
        match at {
            [last] => {
                table.insert(last.clone(), value);
            }
            [first, rest @ ..] => {
                if let Some(Value::Table(inner)) = table.get_mut(first) {
                    put(inner, rest, value);
                }
            }
            [] => {}
        }
    }
    let mut all = Vec::new();
    leaves(&[], given, known, &mut all);
    for (at, value) in all {
        let mut trial = kept.clone();
        put(&mut trial, &at, value.clone());
        match trial.clone().try_into::<T>() {
            Ok(_) => *kept = trial,
            Err(e) => {
                let why = e.to_string();
                let why = in_words(why.lines().next().unwrap_or("wrong type"));
                faults.push(format!("{path}{} = {value}: {why}", at.join(".")));
            }
        }
    }
}

/// A type error without the names of Rust's types.
fn in_words(why: &str) -> String {
    let Some((found, expected)) = why.rsplit_once("expected ") else { return why.to_string() };
    let words = match expected.split(' ').next().unwrap_or_default() {
        "usize" | "u64" => "a whole number from 0 to 9223372036854775807",
        "f64" => "a number",
        "struct" => "a table",
        "a" if expected.ends_with("sequence") => "a list",
        _ => expected,
    };
    format!("{found}expected {words}")
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
        for line in ["\nchat = []\n", "\nchat_mix = 0.0\n", "\nmix_schedule = \"constant\"\n"] {
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
    fn overrides_reach_nested_keys() {
        let mut table = Table::new();
        for set in ["train.lora.r=4", "data.mix=1", "name=cake", "data.pretraining=self", "train.lr=1e-5"] {
            apply_override(&mut table, set).unwrap();
        }
        let (recipe, faults) = Recipe::from_table(&table);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!((recipe.train.lora.r, recipe.data.mix, recipe.train.lr), (4, 1.0, 1e-5));
        assert!(recipe.data.pretraining[0].is_self());
    }

    #[test]
    fn paths_of_overrides_are_those_of_the_current_folder() {
        let here = std::env::current_dir().unwrap();
        let mut table = Table::new();
        for set in [
            "data.narrow=['a.jsonl', {path='/b.jsonl', weight=1}, 'hf:c/d', 'self']",
            "diff={text='sub/../e.jsonl', embedder='src'}",
            "model={base='src/lib.rs'}",
        ] {
            apply_override(&mut table, set).unwrap();
        }
        let (recipe, faults) = Recipe::from_table(&table);
        assert!(faults.is_empty(), "{faults:?}");
        let here = |name: &str| here.join(name).to_str().unwrap().to_string();
        let paths: Vec<&str> = recipe.data.narrow.iter().map(|s| s.path.as_str()).collect();
        assert_eq!(paths, [here("a.jsonl").as_str(), "/b.jsonl", "hf:c/d", "self"]);
        assert_eq!(recipe.diff.text[0].path, here("sub/../e.jsonl"));
        assert_eq!((recipe.model.base, recipe.diff.embedder), (here("src/lib.rs"), "src".into()));
    }

    #[test]
    fn a_resolved_recipe_reads_back_as_itself() {
        let recipe = Recipe { name: "x".into(), ..Recipe::default() };
        let (again, faults) = Recipe::from_table(&recipe.to_toml().parse().unwrap());
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(recipe, again);
    }
}
