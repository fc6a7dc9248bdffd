//! One run folder, read strictly. Whatever the folder lacks stays `None`: absent is not zero.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::ranges;
use crate::behaviour::Behaviour;
use crate::corpus::mix::Mix;
use crate::diff::measures::steering::SteeringLine;
use crate::diff::record::Readability;
use crate::diff::store;
use crate::error::{InputError, input_error, or_collect};
use crate::grade::record::Graded;
use crate::limits::LARGEST_RECIPE;
use crate::recipe::{ClaimsSection, Recipe};
use crate::run::RunDir;
use crate::run::metrics::{self, MetricsLine};
use crate::train::manifest::{HeldOutLosses, Losses, Manifest};
use crate::{audit, grade, json};

/// What one run folder holds.
#[derive(Debug, Clone, Default)]
pub struct RunRecord {
    /// Name of the run in the report: the name of its folder.
    pub id: String,
    /// The folder.
    pub dir: PathBuf,
    /// `recipe.toml`, as text.
    pub recipe: Option<String>,
    /// The same, parsed, with every default filled in.
    recipe_table: Option<toml::Table>,
    /// `manifest.json`.
    pub manifest: Option<Manifest>,
    /// `metrics.jsonl`, by step.
    pub metrics: Option<Vec<MetricsLine>>,
    /// Whether the last line of `metrics.jsonl` was cut off (the run was killed while it wrote).
    pub metrics_cut_off: bool,
    /// What `metrics.jsonl` has of the trace and of behaviour, by step.
    pub measured: Vec<StepMeasures>,
    /// `diff/readability.json`.
    pub readability: Option<Readability>,
    /// `diff/graded.json`.
    pub graded: Option<Graded>,
    /// `audit/CONDITION-SEED.json`, by name.
    pub audits: Vec<audit::Record>,
    /// `behaviour.json`.
    pub behaviour: Option<Behaviour>,
    /// `diff/steering.jsonl`.
    pub steering: Option<Vec<SteeringLine>>,
}

/// A line of `metrics.jsonl` with measures of the trace or of behaviour.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMeasures {
    /// Steps done.
    pub step: usize,
    /// Values under keys that begin with `trace_` or `behaviour_`.
    pub values: BTreeMap<String, f64>,
}

/// Pretraining text per narrow text, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MixRatio {
    /// What the recipe asks for.
    pub asked: Option<f64>,
    /// What the run reached.
    pub realised: Option<f64>,
}

impl MixRatio {
    /// The ratio that cells are grouped by: what was asked, so that the seeds of one setting stay together.
    pub fn nominal(&self) -> Option<f64> {
        self.asked.or(self.realised)
    }
}

impl RunRecord {
    /// The readers that its recipe names beforehand (`claims.primaries`), or the default.
    pub fn primaries(&self) -> Vec<String> {
        let named =
            self.recipe_table.as_ref().and_then(|table| table.get("claims")?.get("primaries")?.as_array());
        let keys =
            |list: &Vec<toml::Value>| list.iter().filter_map(|v| v.as_str().map(String::from)).collect();
        named.map_or_else(|| ClaimsSection::default().primaries, keys)
    }

    /// Reads a run folder. A path that is no run folder, or a file in it that cannot be understood, is an
    /// [`InputError`] that lists every fault found.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        must_be_folder(dir)?;
        if !looks_like_run(dir) {
            return Err(input_error(format!(
                "{}: not a run folder (no recipe.toml, manifest.json, metrics.jsonl or diff/)",
                dir.display()
            )));
        }
        Self::read_folder(dir)
    }

    /// The same of a folder that is known to hold a run.
    pub(super) fn read_folder(dir: &Path) -> Result<Self> {
        let mut faults = Vec::new();
        let run = RunDir::new(dir);
        let analysis = store::folder_of(dir);

        let recipe = or_collect(json::text(&run.recipe()), &mut faults)?.flatten();
        let recipe_table = recipe.as_deref().and_then(|text| {
            if text.len() > LARGEST_RECIPE {
                faults.push(format!(
                    "{}: {} bytes; expected at most {LARGEST_RECIPE}",
                    run.recipe().display(),
                    text.len()
                ));
                return None;
            }
            let fault = |e: toml::de::Error| {
                faults.push(format!("{}: {}", run.recipe().display(), e.to_string().trim_end()))
            };
            text.parse::<toml::Table>().map_err(fault).ok()
        });
        // A run of an earlier version lacks keys that came since; it did what their defaults say.
        let recipe_table = recipe_table.map(|table| Recipe::completed(&table).unwrap_or(table));
        let manifest = or_collect(Manifest::read(&run.manifest()), &mut faults)?.flatten();
        let metrics = or_collect(metrics::read(&run.metrics()), &mut faults)?.flatten();
        let metrics_cut_off = metrics.as_ref().is_some_and(|lines| lines.cut_off);
        let metrics = metrics.map(|lines| lines.values);
        let measured = metrics.as_deref().map(measured_by_step).unwrap_or_default();
        let metrics = metrics.map(by_step);
        let readability = or_collect(store::read_readability(&analysis), &mut faults)?.flatten();
        let steering = or_collect(store::read_steering(&analysis), &mut faults)?.flatten();
        let behaviour = or_collect(Behaviour::read(&run.behaviour()), &mut faults)?.flatten();
        let graded = or_collect(Graded::read(&analysis.join(grade::record::FILE)), &mut faults)?.flatten();
        let audits = or_collect(audit::Record::read_all(&run.audit()), &mut faults)?.unwrap_or_default();

        if let Some(manifest) = &manifest {
            let in_file = |fault| format!("{}: {fault}", run.manifest().display());
            faults.extend(ranges::of_manifest(manifest).into_iter().map(in_file));
        }
        if let Some(metrics) = &metrics {
            let in_file = |fault| format!("{}: {fault}", run.metrics().display());
            faults.extend(ranges::of_metrics(metrics).map(in_file));
        }
        InputError::unless_empty(faults)?;
        Ok(Self {
            id: folder_name(dir),
            dir: dir.to_path_buf(),
            recipe,
            recipe_table,
            manifest,
            metrics,
            metrics_cut_off,
            measured,
            readability,
            graded,
            audits,
            behaviour,
            steering,
        })
    }

    /// That the numbers of the folder do not fit each other, found where they are used together.
    pub fn does_not_fit(&self, said: &str) -> anyhow::Error {
        input_error(format!(
            "{}: the numbers in its files do not fit together ({said}); expected the folder as trainer wrote it",
            self.dir.display()
        ))
    }

    /// Name of the recipe, else of the folder.
    pub fn name(&self) -> &str {
        self.manifest
            .as_ref()
            .map(|m| m.name.as_str())
            .or_else(|| self.recipe_value(&["name"])?.as_str())
            .unwrap_or(&self.id)
    }

    /// What the organism was trained on, in words.
    pub fn description(&self) -> Option<&str> {
        self.manifest
            .as_ref()
            .map(|m| m.description.as_str())
            .or_else(|| self.recipe_value(&["description"])?.as_str())
            .filter(|d| !d.trim().is_empty())
    }

    /// Seed of the run.
    pub fn seed(&self) -> Option<u64> {
        let manifest = self.manifest.as_ref().map(|m| m.seed);
        manifest.or_else(|| self.recipe_value(&["seed"])?.as_integer()?.try_into().ok())
    }

    /// The `MODEL` string of the base.
    pub fn base(&self) -> Option<&str> {
        self.manifest
            .as_ref()
            .map(|m| m.base.id.as_str())
            .or_else(|| self.recipe_value(&["model", "base"])?.as_str())
            .or_else(|| Some(self.readability.as_ref()?.base.as_str()))
    }

    /// `lora` or `full`.
    pub fn method(&self) -> Option<&str> {
        let manifest = self.manifest.as_ref().map(|m| m.method.name());
        manifest.or_else(|| self.recipe_value(&["train", "method"])?.as_str())
    }

    /// Pretraining text per narrow text.
    pub fn mix(&self) -> MixRatio {
        let mix = self.manifest.as_ref().map(|m| &m.mix);
        MixRatio {
            asked: mix.map(|m| m.asked).or_else(|| {
                let value = self.recipe_value(&["data", "mix"])?;
                value.as_float().or_else(|| value.as_integer().map(|i| i as f64))
            }),
            realised: mix.and_then(Mix::realised),
        }
    }

    /// `examples` or `tokens`: the unit of [`Self::mix`].
    pub fn mix_unit(&self) -> Option<&str> {
        self.manifest
            .as_ref()
            .map(|m| m.mix.unit.name())
            .or_else(|| self.recipe_value(&["data", "mix_unit"])?.as_str())
    }

    /// Held-out losses of the base model.
    pub fn base_losses(&self) -> HeldOutLosses {
        self.losses().base
    }

    /// Held-out losses of the finetuned model.
    pub fn tuned_losses(&self) -> HeldOutLosses {
        self.losses().tuned
    }

    fn losses(&self) -> Losses {
        self.manifest.as_ref().map(|m| m.losses.clone()).unwrap_or_default()
    }

    /// The values of the recipe's keys by their dotted names.
    pub fn recipe_leaves(&self) -> BTreeMap<String, &toml::Value> {
        fn walk<'a>(prefix: &str, table: &'a toml::Table, out: &mut BTreeMap<String, &'a toml::Value>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) if !inner.is_empty() => {
                        walk(&format!("{prefix}{key}."), inner, out)
                    }
                    value => {
                        out.insert(format!("{prefix}{key}"), value);
                    }
                }
            }
        }
        let mut out = BTreeMap::new();
        if let Some(table) = &self.recipe_table {
            walk("", table, &mut out);
        }
        out
    }

    /// What makes it the same run as another: the recipe but for its name, the contents of the data, the weights. `None` of a
    /// run that has not finished.
    pub(super) fn identity(&self) -> Option<String> {
        let manifest = self.manifest.as_ref()?;
        if self.recipe_table.is_none() || manifest.adapter_sha256.is_empty() {
            return None;
        }
        let mut leaves = self.recipe_leaves();
        // Files are known by their contents, wherever they are.
        let aside = ["name", "description", "data.narrow", "data.pretraining", "data.chat", "model.base"];
        leaves.retain(|key, _| !aside.contains(&key.as_str()));
        let data: Vec<&str> = manifest.data.iter().map(|source| source.provenance.sha256.as_str()).collect();
        Some(format!("{leaves:?} {data:?} {:?} {}", manifest.base.sha256, manifest.adapter_sha256))
    }

    /// The value of a key of the recipe, given by its dotted name.
    pub fn setting(&self, key: &str) -> Option<&toml::Value> {
        self.recipe_value(&key.split('.').collect::<Vec<_>>())
    }

    /// `recipe.toml`, parsed.
    pub fn recipe_table(&self) -> Option<&toml::Table> {
        self.recipe_table.as_ref()
    }

    fn recipe_value(&self, path: &[&str]) -> Option<&toml::Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.recipe_table.as_ref()?.get(*first)?;
        for key in rest {
            value = value.get(*key)?;
        }
        Some(value)
    }
}

/// Refuses what is no folder.
pub(super) fn must_be_folder(dir: &Path) -> Result<()> {
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(input_error(format!("{}: a file, not a run folder", dir.display()))),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(input_error(format!("{}: no such folder", dir.display())))
        }
        Err(e) => Err(input_error(format!("{}: {e}", dir.display()))),
    }
}

/// Whether a folder holds any file of a run.
pub(super) fn looks_like_run(dir: &Path) -> bool {
    ["recipe.toml", "manifest.json", "metrics.jsonl", "diff", "readability.json"]
        .iter()
        .any(|name| dir.join(name).exists())
}

fn folder_name(dir: &Path) -> String {
    // "." and ".." have no name of their own.
    let full = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    full.file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned())
}

/// The values that are named for what they measure; where a resumed run wrote a step again, the later line counts.
fn measured_by_step(lines: &[MetricsLine]) -> Vec<StepMeasures> {
    let mut steps: BTreeMap<usize, BTreeMap<String, f64>> = BTreeMap::new();
    for line in lines {
        let named = line.more.iter().filter(|(k, _)| k.starts_with("trace_") || k.starts_with("behaviour_"));
        let values: BTreeMap<String, f64> = named.map(|(k, v)| (k.clone(), *v)).collect();
        if !values.is_empty() {
            steps.insert(line.step, values);
        }
    }
    steps.into_iter().map(|(step, values)| StepMeasures { step, values }).collect()
}

/// In order of steps; where a resumed run wrote a step again, the later line counts.
fn by_step(lines: Vec<MetricsLine>) -> Vec<MetricsLine> {
    let steps: BTreeMap<usize, MetricsLine> = lines.into_iter().map(|line| (line.step, line)).collect();
    steps.into_values().collect()
}
