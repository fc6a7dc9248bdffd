//! `[train.lora]`: which adapter learns.

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

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

impl LoraSection {
    /// What is out of range or missing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: String| {
            if !ok {
                faults.push(format!("train.lora.{fault}"));
            }
        };
        let (r, alpha, dropout, init) = (self.r, self.alpha, self.dropout, &self.init);
        check((1..=16_384).contains(&r), format!("r = {r}: expected 1 to 16384"));
        check(
            alpha > 0.0 && alpha <= 1e9,
            format!("alpha = {alpha}: expected a number above 0, at most 1000000000"),
        );
        check((0.0..1.0).contains(&dropout), format!("dropout = {dropout}: expected 0 or more, below 1"));
        check(!self.target_modules.is_empty(), "target_modules: empty".into());
        check(
            init.is_empty() || Path::new(init).is_dir(),
            format!("init: {init}: no such folder; expected a PEFT adapter folder"),
        );
        faults
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
