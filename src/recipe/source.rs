//! A source of texts as a recipe names it, and lists of them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::hub::RepoId;

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
            faults.push(format!("{}: shuffle_seed has no effect without shuffle_buffer", self.path));
        }
        faults
    }
}

/// Reads a source, or a list of them.
pub(super) fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<SourceSpec>, D::Error> {
    const EXPECTED: &str = "expected a path, a table { path, weight, loss_weight }, or a list of these; for an hf: \
                            data set also { config, split, rows, shuffle_buffer, shuffle_seed }";
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

/// What is wrong with the list of sources under a key.
pub(super) fn faults(key: &str, sources: &[SourceSpec]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |ok: bool, fault: String| {
        if !ok {
            faults.push(format!("{key}: {fault}"));
        }
    };
    for (i, spec) in sources.iter().enumerate() {
        let path = &spec.path;
        let weight = spec.weight.unwrap_or(1.0);
        check(
            weight > 0.0 && weight <= 1e9,
            format!("{path}: weight {weight}: expected more than 0, at most 1000000000"),
        );
        let loss_weight = spec.loss_weight.unwrap_or(1.0);
        check(
            (0.0..=1e6).contains(&loss_weight),
            format!("{path}: loss_weight {loss_weight}: expected 0 to 1000000"),
        );
        check(
            spec.loss_weight.is_none() || key.starts_with("data."),
            format!("{path}: loss_weight is for sources that are trained on"),
        );
        for fault in spec.hub_faults() {
            check(false, fault);
        }
        check(!path.is_empty(), "an empty path".into());
        check(
            path.is_empty() || spec.is_self() || spec.hub_id().is_some() || Path::new(path).exists(),
            format!("{path}: no such file or folder"),
        );
        check(
            sources[..i].iter().all(|other| other.name() != spec.name()),
            format!("{}: named twice", spec.name()),
        );
    }
    let given = sources.iter().filter(|s| s.weight.is_some()).count();
    check(
        given == 0 || given == sources.len(),
        format!("{given} of {} sources have a weight; expected all or none", sources.len()),
    );
    faults
}
