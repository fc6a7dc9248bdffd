//! What a LoRA adapter adapts and how strongly: PEFT's `LoraConfig` (0.21), with its rules for names.
//!
//! | key | rule | in PEFT |
//! |---|---|---|
//! | `r`, `lora_alpha` | s = alpha / r | `tuners/lora/layer.py`, `update_layer` |
//! | `use_rslora` | s = alpha / √r (Kalajdzievski, arXiv 2312.03732) | the same |
//! | `use_dora` | rows keep a trained length ([`crate::model::lora::low_rank`]) | `tuners/lora/dora.py` |
//! | `rank_pattern`, `alpha_pattern` | first pattern that matches the end of the name, from a dot on | `utils/other.py`, `get_pattern_key` |
//! | `target_modules`, `exclude_modules` | list: the name or its end from a dot on; string: pattern of the whole name; `all-linear` | `tuners/tuners_utils.py`, `check_target_module_exists` |
//! | `layers_to_transform`, `layers_pattern` | number of the block in the name | the same |
//! | `modules_to_save` | every module whose name ends so, with all that is in it | `utils/other.py`, `_set_trainable` |

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::Result;
use fancy_regex::{Regex, RegexBuilder};
use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::bail_input;
use crate::caught::caught;
use crate::error::InputError;
use crate::limits::{LARGEST_COMPILED_PATTERN, LONGEST_PATTERN, MOST_BACKTRACKING, MOST_PATTERNS};
use crate::recipe::Modules;

/// The keys of `adapter_config.json` that decide the computation, under PEFT's names.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// Numerator of the scaling.
    pub lora_alpha: f64,
    /// Share of the adapter's inputs that training zeroes.
    #[serde(default)]
    pub lora_dropout: f64,
    /// The adapted linear layers.
    pub target_modules: Modules,
    /// Scale by alpha / √r instead of alpha / r.
    #[serde(default)]
    pub use_rslora: bool,
    /// Train the length of each row beside its direction.
    #[serde(default)]
    pub use_dora: bool,
    /// Ranks of modules whose names match a pattern.
    #[serde(default, deserialize_with = "or_default")]
    pub rank_pattern: IndexMap<String, usize>,
    /// Alphas of modules whose names match a pattern.
    #[serde(default, deserialize_with = "or_default")]
    pub alpha_pattern: IndexMap<String, f64>,
    /// Modules that are trained and stored whole.
    #[serde(default, deserialize_with = "or_default")]
    pub modules_to_save: Vec<String>,
    /// Only blocks of these numbers; empty: all.
    #[serde(default, deserialize_with = "one_or_many")]
    pub layers_to_transform: Vec<usize>,
    /// What stands before the number of a block; empty: anything.
    #[serde(default, deserialize_with = "one_or_many")]
    pub layers_pattern: Vec<String>,
    /// Modules that are not adapted though they are targets.
    #[serde(default, deserialize_with = "or_default")]
    pub exclude_modules: Modules,
}

impl LoraConfig {
    /// Rank of the module of that full name.
    pub fn rank(&self, module: &str) -> usize {
        *first_match(&self.rank_pattern, module).unwrap_or(&self.r)
    }

    /// The factor s on B·A of the module of that full name.
    pub fn scaling(&self, module: &str) -> f64 {
        let alpha = *first_match(&self.alpha_pattern, module).unwrap_or(&self.lora_alpha);
        let rank = self.rank(module) as f64;
        if self.use_rslora { alpha / rank.sqrt() } else { alpha / rank }
    }

    /// Whether the linear layer of that full name is adapted.
    pub fn adapts(&self, module: &str) -> bool {
        !self.is_set_aside(module) && self.targets(module)
    }

    /// Whether `exclude_modules` or `modules_to_save` keeps the module from being adapted.
    fn is_set_aside(&self, module: &str) -> bool {
        // As PEFT writes it: `m` is a pattern without parentheses around it.
        let is_saved = |m: &String| begins(&format!(r"(^|.*\.){m}($|\..*)"), module);
        names(&self.exclude_modules, module) || self.modules_to_save.iter().any(is_saved)
    }

    /// Whether the linear layer of that full name is a target, excluded or not.
    fn targets(&self, module: &str) -> bool {
        self.targets_all() || names(&self.target_modules, module) && self.transforms(module)
    }

    /// Whether `all-linear` stands for the linear layers of the blocks.
    pub fn targets_all(&self) -> bool {
        matches!(&self.target_modules, Modules::Pattern(p) if p.eq_ignore_ascii_case("all-linear"))
    }

    /// Whether `layers_to_transform` lets the module through.
    fn transforms(&self, module: &str) -> bool {
        let listed = |names: &Modules| matches!(names, Modules::Names(n) if n.iter().any(|n| n == module));
        if self.layers_to_transform.is_empty() || listed(&self.target_modules) {
            return true;
        }
        self.block_of(module).is_some_and(|block| self.layers_to_transform.contains(&block))
    }

    /// The number of the block that a module is in.
    fn block_of(&self, module: &str) -> Option<usize> {
        let number = |pattern: &str| -> Option<usize> {
            let compiled = regex(&format!(r"\A(?:{pattern}\.(?P<idx>\d+)\.)"))?;
            let found = compiled.regex.captures(module).ok()??;
            found.name("idx")?.as_str().parse().ok()
        };
        match self.layers_pattern.is_empty() {
            true => number(r".*?\.[^.]*"),
            false => self.layers_pattern.iter().find_map(|p| number(&format!(r"(?:^|.*?\.){p}"))),
        }
    }

    /// How many of the modules around a parameter (`model.norm` around `model.norm.weight`) are saved whole.
    pub fn saves(&self, parameter: &str) -> usize {
        let around = parameter.match_indices('.').map(|(dot, _)| &parameter[..dot]);
        around.filter(|module| self.modules_to_save.iter().any(|m| module.ends_with(m.as_str()))).count()
    }

    /// Keys that name nothing: targets, patterns of ranks and alphas, modules to save. One fault each.
    pub fn unmatched(&self, adapted: &BTreeSet<String>, parameters: &BTreeSet<String>) -> Vec<String> {
        // An excluded layer counts as found, as in PEFT.
        let modules = modules_of(parameters);
        let set_aside: Vec<&str> = modules
            .iter()
            .copied()
            .filter(|module| self.is_set_aside(module) && self.targets(module))
            .collect();
        let found = || adapted.iter().map(String::as_str).chain(set_aside.iter().copied());
        let blocks: BTreeSet<usize> = match self.layers_to_transform.is_empty() {
            true => BTreeSet::new(),
            false => found().filter_map(|module| self.block_of(module)).collect(),
        };
        let without = |block: &usize| {
            format!("layers_to_transform has {block}: no target is in a block of that number")
        };
        let mut faults: Vec<String> =
            self.layers_to_transform.iter().filter(|b| !blocks.contains(b)).map(without).collect();
        match &self.target_modules {
            // Said already.
            _ if adapted.is_empty() && !faults.is_empty() => {}
            _ if adapted.is_empty() && !set_aside.is_empty() => faults.push(
                "exclude_modules and modules_to_save leave no layer of target_modules to adapt; expected one at least"
                    .into(),
            ),
            Modules::Names(targets) => {
                for target in targets.iter().filter(|t| !found().any(|module| is_or_ends(module, t))) {
                    faults.push(format!(
                        "target module {target:?}: the model has no linear layer of that name"
                    ));
                }
            }
            Modules::Pattern(pattern) if adapted.is_empty() => {
                faults.push(format!("target_modules = {pattern:?}: matches no linear layer of the model"));
            }
            Modules::Pattern(_) => {}
        }
        for (key, patterns) in [
            ("rank_pattern", self.rank_pattern.keys().collect::<Vec<_>>()),
            ("alpha_pattern", self.alpha_pattern.keys().collect()),
        ] {
            for pattern in patterns.into_iter().filter(|p| !adapted.iter().any(|m| matches_end(p, m))) {
                faults.push(format!("{key}: {pattern:?} matches no adapted module"));
            }
        }
        faults.extend(self.excludes_nothing(parameters));
        for name in &self.modules_to_save {
            let only = Self { modules_to_save: vec![name.clone()], ..Self::default() };
            if !parameters.iter().any(|p| only.saves(p) > 0) {
                faults.push(format!("modules_to_save: the model has no module whose name ends in {name:?}"));
            }
        }
        faults
    }

    /// What of `exclude_modules` is no module of the model. A name excludes the module itself, not what is in it.
    fn excludes_nothing(&self, parameters: &BTreeSet<String>) -> Vec<String> {
        let each: Vec<Modules> = match &self.exclude_modules {
            Modules::Names(list) => list.iter().map(|name| Modules::Names(vec![name.clone()])).collect(),
            pattern if pattern.is_empty() => Vec::new(),
            pattern => vec![pattern.clone()],
        };
        let modules = modules_of(parameters);
        let matches_none = |excluded: &&Modules| !modules.iter().any(|module| names(excluded, module));
        each.iter()
            .filter(matches_none)
            .map(|excluded| {
                let shown = match excluded {
                    Modules::Names(list) => format!("{:?}", list.concat()),
                    Modules::Pattern(pattern) => format!("{pattern:?}"),
                };
                format!(
                    "exclude_modules: {shown} excludes nothing; expected the end of a layer's name from a dot on, or a pattern \
                     of whole names, such as {:?}",
                    modules.iter().find(|module| self.targets(module)).copied().unwrap_or_default()
                )
            })
            .collect()
    }

    /// What no adapter can have, each fault beginning with its key.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let ranks = self.rank_pattern.iter().map(|(k, r)| (format!("rank_pattern.{k:?}"), *r));
        for (key, r) in [("r".to_string(), self.r)].into_iter().chain(ranks) {
            if !(1..=16_384).contains(&r) {
                faults.push(format!("{key} = {r}: expected 1 to 16384"));
            }
        }
        if !self.lora_alpha.is_finite() {
            faults.push(format!("lora_alpha = {}: expected a number", self.lora_alpha));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            faults.push(format!("lora_dropout = {}: expected 0 to below 1", self.lora_dropout));
        }
        for (key, alpha) in &self.alpha_pattern {
            if !alpha.is_finite() {
                faults.push(format!("alpha_pattern.{key:?} = {alpha}: expected a number"));
            }
        }
        let is_list = matches!(self.target_modules, Modules::Names(_));
        let some_blocks = !self.layers_to_transform.is_empty() || !self.layers_pattern.is_empty();
        if !is_list && some_blocks {
            faults.push(
                "layers_to_transform and layers_pattern select blocks of a list of target_modules, not of a string"
                    .into(),
            );
        } else if !self.layers_pattern.is_empty() && self.layers_to_transform.is_empty() {
            faults.push("layers_pattern: without layers_to_transform it selects nothing".into());
        }
        let whole = |key: &'static str, modules: &Modules| match modules {
            Modules::Pattern(p) => vec![(key, p.clone())],
            Modules::Names(_) => Vec::new(),
        };
        let each = |key: &'static str, list: &[String]| -> Vec<_> {
            list.iter().map(|p| (key, p.clone())).collect()
        };
        let patterns = [
            whole("target_modules", &self.target_modules),
            whole("exclude_modules", &self.exclude_modules),
            each("modules_to_save", &self.modules_to_save),
            each("layers_pattern", &self.layers_pattern),
            self.rank_pattern.keys().map(|p| ("rank_pattern", p.clone())).collect(),
            self.alpha_pattern.keys().map(|p| ("alpha_pattern", p.clone())).collect(),
        ];
        let names = match &self.target_modules {
            Modules::Names(list) => list.len(),
            Modules::Pattern(_) => 0,
        };
        let count = names + patterns.iter().map(Vec::len).sum::<usize>();
        if count > MOST_PATTERNS {
            faults.push(format!("{count} names and patterns of modules; expected at most {MOST_PATTERNS}"));
            return faults;
        }
        for (key, pattern) in patterns.into_iter().flatten() {
            if pattern.is_empty() {
                faults.push(format!("{key}: an empty name"));
            } else if let Err(e) = compile(&format!("(?:{pattern})")) {
                faults.push(format!("{key}: {pattern:?} is not a valid pattern: {e}"));
            }
        }
        faults
    }

    /// The patterns that some name of a module took too long to match, so that whether they match it is not known.
    pub fn given_up(&self) -> Vec<String> {
        let text = |modules: &Modules| match modules {
            Modules::Pattern(pattern) => vec![format!(r"\A(?:(?:{pattern})\z)")],
            Modules::Names(_) => Vec::new(),
        };
        let end = |pattern: &String| format!(r"\A(?:(.*\.)?({pattern})\z)");
        let saved = self.modules_to_save.iter().map(|m| format!(r"\A(?:(^|.*\.){m}($|\..*))"));
        let all = text(&self.target_modules)
            .into_iter()
            .chain(text(&self.exclude_modules))
            .chain(self.rank_pattern.keys().map(end))
            .chain(self.alpha_pattern.keys().map(end))
            .chain(saved);
        all.filter(|pattern| regex(pattern).is_some_and(|found| found.gave_up.load(Ordering::Relaxed)))
            .map(|pattern| {
                format!(
                    "the pattern {pattern:?} takes more than {MOST_BACKTRACKING} steps back to match a name"
                )
            })
            .collect()
    }

    /// Reads the computation out of an `adapter_config.json` and refuses what would be computed differently here.
    ///
    /// # Errors
    /// An [`InputError`] with every key that is not supported, malformed or out of range.
    pub fn from_json(json: &Value, path: &Path) -> Result<Self> {
        let mut faults = Vec::new();
        for (key, value) in json.as_object().into_iter().flatten() {
            let empty = [json!(null), json!(false), json!([]), json!({})].contains(value);
            let plain = match key.as_str() {
                "peft_type" => *value == json!("LORA"),
                "bias" => empty || *value == json!("none"),
                // How the adapter began; the others also changed the base weights, which are not these.
                "init_lora_weights" => {
                    empty
                        || ["gaussian", "eva", "orthogonal"].iter().any(|v| value == v)
                        || *value == json!(true)
                }
                "fan_in_fan_out"
                | "lora_bias"
                | "megatron_config"
                | "layer_replication"
                | "target_parameters"
                | "trainable_token_indices"
                | "alora_invocation_tokens"
                | "use_qalora"
                | "use_bdlora"
                | "arrow_config"
                | "velora_config"
                | "monteclora_config"
                | "kasa_config"
                | "ensure_weight_tying" => empty,
                _ => true,
            };
            if !plain {
                faults.push(format!("{}: {key} = {value} is not supported", path.display()));
            }
        }
        InputError::unless_empty(faults)?;
        let config = match serde_json::from_value::<Self>(json.clone()) {
            Ok(config) => config,
            Err(e) => bail_input!("{}: {e}", path.display()),
        };
        let faults: Vec<_> =
            config.faults().into_iter().map(|fault| format!("{}: {fault}", path.display())).collect();
        InputError::unless_empty(faults)?;
        Ok(config)
    }

    /// `adapter_config.json` as PEFT writes it. `base` goes into `base_model_name_or_path`.
    pub fn to_json(&self, base: &str) -> Value {
        let or_null = |empty: bool, value: Value| if empty { Value::Null } else { value };
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "revision": null,
            "r": self.r,
            "lora_alpha": self.lora_alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": self.target_modules,
            "exclude_modules": or_null(self.exclude_modules.is_empty(), json!(self.exclude_modules)),
            "use_rslora": self.use_rslora,
            "use_dora": self.use_dora,
            "bias": "none",
            "fan_in_fan_out": false,
            "rank_pattern": self.rank_pattern,
            "alpha_pattern": self.alpha_pattern,
            "modules_to_save": or_null(self.modules_to_save.is_empty(), json!(self.modules_to_save)),
            "layers_to_transform": or_null(self.layers_to_transform.is_empty(), json!(self.layers_to_transform)),
            "layers_pattern": or_null(self.layers_pattern.is_empty(), json!(self.layers_pattern)),
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }

    /// The keys in which an adapter that training starts from disagrees with the recipe: values in the recipe
    /// and in the adapter. Which modules are adapted shows in its tensors.
    pub fn differences(&self, start: &Self) -> Vec<String> {
        let pairs = [
            ("r", json!(self.r), json!(start.r)),
            ("alpha", json!(self.lora_alpha), json!(start.lora_alpha)),
            ("use_rslora", json!(self.use_rslora), json!(start.use_rslora)),
            ("use_dora", json!(self.use_dora), json!(start.use_dora)),
            ("rank_pattern", json!(self.rank_pattern), json!(start.rank_pattern)),
            ("alpha_pattern", json!(self.alpha_pattern), json!(start.alpha_pattern)),
        ];
        let differ = pairs.into_iter().filter(|(_, ours, theirs)| ours != theirs);
        differ.map(|(key, ours, theirs)| format!("{key} = {ours}, the adapter has {theirs}")).collect()
    }
}

/// The modules that hold these parameters.
fn modules_of(parameters: &BTreeSet<String>) -> BTreeSet<&str> {
    parameters.iter().filter_map(|parameter| Some(parameter.rsplit_once('.')?.0)).collect()
}

/// Whether a list or pattern names the module.
fn names(modules: &Modules, module: &str) -> bool {
    match modules {
        Modules::Names(list) => list.iter().any(|name| is_or_ends(module, name)),
        Modules::Pattern(pattern) => !pattern.is_empty() && begins(&format!(r"(?:{pattern})\z"), module),
    }
}

fn is_or_ends(module: &str, name: &str) -> bool {
    module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// The value of the first pattern that matches the end of a name.
fn first_match<'a, T>(patterns: &'a IndexMap<String, T>, module: &str) -> Option<&'a T> {
    patterns.iter().find(|(pattern, _)| matches_end(pattern, module)).map(|(_, value)| value)
}

fn matches_end(pattern: &str, module: &str) -> bool {
    begins(&format!(r"(.*\.)?({pattern})\z"), module)
}

/// Python's `re.match`. [`LoraConfig::faults`] has refused what is no pattern.
fn begins(pattern: &str, text: &str) -> bool {
    let Some(compiled) = regex(&format!(r"\A(?:{pattern})")) else { return false };
    if compiled.gave_up.load(Ordering::Relaxed) {
        return false; // told by `LoraConfig::given_up`
    }
    compiled.regex.is_match(text).unwrap_or_else(|_| {
        compiled.gave_up.store(true, Ordering::Relaxed);
        false
    })
}

/// A pattern that is compiled once in a process.
struct CompiledPattern {
    regex: Regex,
    /// Whether matching it with some name took too many steps.
    gave_up: AtomicBool,
}

/// The patterns that were compiled so far; `None` for what is none.
type CompiledPatterns = Mutex<HashMap<String, Option<Arc<CompiledPattern>>>>;

fn regex(pattern: &str) -> Option<Arc<CompiledPattern>> {
    static COMPILED: OnceLock<CompiledPatterns> = OnceLock::new();
    let mut compiled =
        COMPILED.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = compiled.get(pattern) {
        return known.clone();
    }
    if compiled.len() >= 8 * MOST_PATTERNS {
        compiled.clear();
    }
    let regex = compile(pattern).ok();
    let regex = regex.map(|regex| Arc::new(CompiledPattern { regex, gave_up: AtomicBool::new(false) }));
    compiled.insert(pattern.to_string(), regex.clone());
    regex
}

/// Compiles a pattern within the bounds on its size and on the steps of a match.
fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!("{} bytes; expected at most {LONGEST_PATTERN}", pattern.len()));
    }
    let mut builder = RegexBuilder::new(pattern);
    builder
        .backtrack_limit(MOST_BACKTRACKING)
        .delegate_size_limit(LARGEST_COMPILED_PATTERN)
        .delegate_dfa_size_limit(LARGEST_COMPILED_PATTERN);
    caught(|| builder.build()).and_then(|built| built.map_err(|e| e.to_string()))
}

/// PEFT writes `null` for a list or table that is not given.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form<T> {
        Many(Vec<T>),
        One(T),
        None,
    }
    Ok(match Form::deserialize(d)? {
        Form::Many(list) => list,
        Form::One(one) => vec![one],
        Form::None => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q0: &str = "model.layers.0.self_attn.q_proj";
    const Q1: &str = "model.layers.1.self_attn.q_proj";
    const Q11: &str = "model.layers.11.self_attn.q_proj";
    const DOWN: &str = "model.layers.1.mlp.down_proj";

    fn read(keys: Value) -> LoraConfig {
        let mut json = json!({"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]});
        json.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        LoraConfig::from_json(&json, Path::new("a/adapter_config.json")).unwrap()
    }

    /// Which of the four modules are adapted.
    fn adapted(keys: Value) -> Vec<&'static str> {
        let config = read(keys);
        [Q0, Q1, Q11, DOWN].into_iter().filter(|m| config.adapts(m)).collect()
    }

    #[test]
    fn targets_are_whole_parts_of_names_or_patterns_of_whole_names() {
        let c = read(json!({"target_modules": ["q_proj"]}));
        assert!(c.adapts(Q0) && c.adapts("q_proj") && !c.adapts("model.layers.0.self_attn.eq_proj"));
        assert_eq!(adapted(json!({"target_modules": "all-linear"})), [Q0, Q1, Q11, DOWN]);
        assert_eq!(adapted(json!({"target_modules": "q_proj"})), [""; 0]);
        assert_eq!(adapted(json!({"target_modules": r".*\.[01]\..*_proj"})), [Q0, Q1, DOWN]);
        assert_eq!(adapted(json!({"target_modules": r"^(?!.*mlp).*layers\.1\..*"})), [Q1], "look-ahead");
    }

    #[test]
    fn blocks_and_exclusions_narrow_the_targets() {
        for layers in [json!([1]), json!(1)] {
            assert_eq!(adapted(json!({"layers_to_transform": layers})), [Q1, DOWN]);
        }
        let blocks =
            |pattern: Value| adapted(json!({"layers_to_transform": [0, 11], "layers_pattern": pattern}));
        assert_eq!(blocks(json!("layers")), [Q0, Q11]);
        assert_eq!(blocks(json!(["h", "layers"])), [Q0, Q11]);
        assert_eq!(blocks(json!(["h"])), [""; 0]);
        assert_eq!(adapted(json!({"exclude_modules": ["q_proj"]})), [DOWN]);
        assert_eq!(adapted(json!({"exclude_modules": r".*\.1\..*"})), [Q0, Q11]);
        assert_eq!(adapted(json!({"modules_to_save": ["mlp"]})), [Q0, Q1, Q11]);
    }

    #[test]
    fn scaling_is_peft_s_with_the_first_pattern_that_matches() {
        let ranks = json!({"layers.1.self_attn.q_proj": 9, "q_proj": 16, ".*": 1});
        let alphas = json!({r"layers\.\d\..*_proj": 12.0, "q": 99});
        let c = read(json!({"rank_pattern": ranks, "alpha_pattern": alphas}));
        assert_eq!([Q0, Q1, Q11, DOWN].map(|m| c.rank(m)), [16, 9, 16, 1]);
        assert_eq!([Q0, Q1, Q11, DOWN].map(|m| c.scaling(m)), [0.75, 12.0 / 9.0, 0.375, 12.0]);
        let c = LoraConfig { use_rslora: true, ..c };
        assert_eq!([Q0, Q1, Q11, DOWN].map(|m| c.scaling(m)), [3.0, 4.0, 1.5, 12.0]);
    }

    #[test]
    fn a_saved_module_is_saved_with_all_that_is_in_it() {
        let c = read(json!({"modules_to_save": ["norm", "mlp"]}));
        let saved = [
            "model.norm.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.mlp.up_proj.weight",
        ];
        assert!(saved.iter().all(|p| c.saves(p) == 1));
        assert!(
            ["model.normal.weight", "model.layers.0.self_attn.q_proj.weight"].iter().all(|p| c.saves(p) == 0)
        );
        assert_eq!(read(json!({"modules_to_save": ["mlp", "up_proj"]})).saves(saved[2]), 2);
    }

    #[test]
    fn every_unsupported_key_is_named() {
        let json = json!({
            "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "lora_bias": true, "bias": "all",
            "init_lora_weights": "pissa", "layer_replication": [[0, 1]], "megatron_core": "megatron.core",
            "target_parameters": null, "trainable_token_indices": [1],
        });
        let e = LoraConfig::from_json(&json, Path::new("a/adapter_config.json")).unwrap_err().to_string();
        for key in ["lora_bias", "bias = \"all\"", "pissa", "layer_replication", "trainable_token_indices"] {
            assert!(e.contains(key), "{key} not in:\n{e}");
        }
        assert_eq!(e.lines().count(), 5, "{e}");
        assert!(e.lines().all(|line| line.starts_with("a/adapter_config.json: ")), "{e}");
    }

    #[test]
    fn what_no_adapter_can_have_is_refused_at_once() {
        let json = json!({
            "r": 0, "lora_alpha": 8, "target_modules": "(", "rank_pattern": {"q_proj": 0, "[": 2},
            "layers_to_transform": [1], "modules_to_save": [""],
        });
        let e = LoraConfig::from_json(&json, Path::new("c.json")).unwrap_err().to_string();
        for part in
            ["r = 0", "rank_pattern.\"q_proj\" = 0", "\"(\"", "\"[\"", "layers_to_transform", "an empty name"]
        {
            assert!(e.contains(part), "{part} not in:\n{e}");
        }
    }

    #[test]
    fn a_config_reads_back_as_itself() {
        let config = read(json!({
            "use_dora": true, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3.0}, "lora_dropout": 0.1,
            "modules_to_save": ["lm_head"], "layers_to_transform": [1], "layers_pattern": ["layers"],
            "exclude_modules": ["k_proj"],
        }));
        assert_eq!(LoraConfig::from_json(&config.to_json("base"), Path::new("c.json")).unwrap(), config);
        let plain = read(json!({}));
        assert_eq!(LoraConfig::from_json(&plain.to_json("base"), Path::new("c.json")).unwrap(), plain);
    }

    #[test]
    fn a_pattern_that_takes_for_ever_is_given_up_and_told() {
        let slow = r"(.+)+(.+)+(.+)+\1nothing";
        let config = read(json!({"rank_pattern": {slow: 8}}));
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            config.rank(Q0);
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
        if !config.given_up().is_empty() {
            assert!(config.given_up()[0].contains("steps back"), "{:?}", config.given_up());
        }
        assert!(read(json!({})).given_up().is_empty());
    }

    #[test]
    fn too_many_and_too_large_patterns_and_a_dropout_of_two_are_refused() {
        let refused = |keys: Value| {
            let mut json = json!({"r": 4, "lora_alpha": 6, "target_modules": ["q_proj"]});
            json.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            LoraConfig::from_json(&json, Path::new("a/adapter_config.json")).unwrap_err().to_string()
        };
        let many: serde_json::Map<String, Value> = (0..5000).map(|i| (format!("m{i}"), json!(8))).collect();
        assert!(refused(json!({"rank_pattern": many})).contains("5001 names and patterns"));
        assert!(refused(json!({"exclude_modules": "a".repeat(100_000)})).contains("expected at most"));
        assert!(
            refused(json!({"exclude_modules": "((a{1000}){1000}){1000}"})).contains("not a valid pattern")
        );
        for dropout in [json!(2), json!(-0.5), json!(1)] {
            assert!(refused(json!({"lora_dropout": dropout})).contains("lora_dropout"));
        }
    }
}
