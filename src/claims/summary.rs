//! One row a run: every measure, every claim and every key in which the recipes differ. `summary.csv` has them as they are.

use std::collections::HashSet;

use serde_json::Value;

use super::matching::{self, MatchedCell, matched};
use super::run::ClaimedRun;
use crate::behaviour::{Behaviour, BehaviourEffect, quality};
use crate::data::mixture::Role;
use crate::diff::MEASURES;
pub use crate::diff::columns::Row;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::recipe::{DiffSection, READERS};
use crate::results::varied;
use crate::train::manifest::Source;

/// Measures whose columns stand before those of behaviour and of the verdict, in this order; those of all others come
/// behind, in the order of [`MEASURES`]. The order of columns that exist never changes.
const FIRST: [&str; 10] = [
    "context",
    "dimensionality",
    "logit_lens",
    "patchscope",
    "lift",
    "identification",
    "steering",
    "bias_share",
    "kl",
    "causal",
];

/// The rows of some runs. All have the same columns, made for every position that any of them has.
pub fn rows(cells: &[ClaimedRun]) -> Vec<Row> {
    let layout = Layout::of(cells);
    let compared: Vec<MatchedCell> = matching::compare(cells).into_iter().flat_map(|one| one.cells).collect();
    let of = |cell: &ClaimedRun| compared.iter().find(|one| one.run == cell.id);
    cells.iter().map(|cell| row(cell, of(cell), &layout)).collect()
}

/// The columns that runs read by such a section have, but those of behaviour, which begin with `behaviour_`, and those of the
/// quality panel ([`quality_columns`]).
pub fn columns(diff: &DiffSection) -> Vec<String> {
    let layout = Layout {
        positions: diff.positions.clone(),
        steering: diff.steering.positions.clone(),
        behaviour: Vec::new(),
        quality: Vec::new(),
        varied: Vec::new(),
    };
    row(&ClaimedRun::default(), None, &layout).into_iter().map(|(name, _)| name).collect()
}

/// The columns of every value that a quality panel can have.
pub fn quality_columns() -> Vec<String> {
    let names: Vec<String> = quality::UNITS.iter().map(|(name, _)| name.to_string()).collect();
    let mut columns = Columns::default();
    effects(&mut columns, "", &names, &[]);
    columns.into_row().into_iter().map(|(name, _)| name).collect()
}

/// Positions that get columns.
struct Layout {
    positions: Vec<usize>,
    steering: Vec<usize>,
    /// Values of `behaviour.json` by name.
    behaviour: Vec<String>,
    /// Those of its quality panel.
    quality: Vec<String>,
    /// Keys of the recipe in which the runs differ.
    varied: Vec<String>,
}

impl Layout {
    fn of(cells: &[ClaimedRun]) -> Self {
        let records = || cells.iter().filter_map(|c| c.readability.as_ref());
        let mut layout = Self {
            positions: records().flat_map(|r| r.positions.clone()).collect(),
            steering: records()
                .filter_map(|r| r.steering.as_ref())
                .flat_map(|s| s.positions.clone())
                .collect(),
            behaviour: Vec::new(),
            quality: Vec::new(),
            varied: varied(cells.iter().map(|run| &run.record)),
        };
        let behaviours = || cells.iter().filter_map(|c| c.behaviour.as_ref());
        let known = behaviours().flat_map(|b| b.effects()).map(|(name, _)| name);
        layout.behaviour.extend(known);
        layout.quality.extend(behaviours().flat_map(|b| b.quality_effects()).map(|(name, _)| name));
        for names in [&mut layout.behaviour, &mut layout.quality] {
            let mut met = HashSet::new();
            names.retain(|name| met.insert(name.clone()));
        }
        for list in [&mut layout.positions, &mut layout.steering] {
            list.sort_unstable();
            list.dedup();
        }
        layout
    }
}

fn row(cell: &ClaimedRun, compared: Option<&MatchedCell>, layout: &Layout) -> Row {
    let mut f = Columns::default();
    about(&mut f, cell);
    for key in &layout.varied {
        f.put(key.clone(), cell.setting(key).map(recipe_value));
    }

    let r = cell.readability.as_ref();
    let at: &[usize] = r.map_or(&[], |r| &r.positions);
    let all = &layout.positions;
    f.put("layer", r.map(|r| r.layer));
    f.put("samples", r.map(|r| r.samples));
    let delta: &[f64] = r.map_or(&[], |r| &r.delta_norm);
    f.spread("delta_norm", all, at, delta);
    f.spread_intervals("delta_norm", all, at, r.map_or(&[], |r| &r.delta_norm_interval));
    f.overall("delta_norm", at, delta);
    f.put("expected_norm", r.and_then(|r| r.expected_norm.first().copied()));
    f.put("expected_norm_base", r.and_then(|r| r.expected_norm_base.first().copied()));
    f.spread("position_cosine", all, at, r.map_or(&[], |r| &r.position_cosine));
    let places = ColumnPlaces { measured: at, all, steered: &layout.steering };
    let first = FIRST.iter().filter_map(|key| MEASURES.iter().find(|m| m.key == *key));
    first.for_each(|measure| (measure.columns)(r, &places, &mut f));
    let found = cell.behaviour.as_ref();
    effects(&mut f, "behaviour_", &layout.behaviour, &found.map(Behaviour::effects).unwrap_or_default());

    let claims = &cell.claims;
    f.put("readable_by_lens", claims.readable.by("lens"));
    f.put("readable_by_patchscope", claims.readable.by("patchscope"));
    f.put("readable_by_lift", claims.readable.by("lift"));
    f.put("readable_by_steering", claims.readable.by("steering"));
    f.put("verdict", claims.readable.headline.clone());
    f.put("claim", claims.verdict.as_ref().map(|verdict| verdict.headline.clone()));
    for key in READERS {
        let reader = claims.verdict.as_ref().and_then(|verdict| verdict.readers.get(key));
        let floor = reader.and_then(|reader| reader.floor.as_ref());
        f.put_late(format!("floor_excess_{key}"), floor.map(|floor| floor.excess));
        f.put_late(format!("floor_z_{key}"), floor.map(|floor| floor.z));
        f.put_late(format!("holm_pvalue_{key}"), reader.and_then(|reader| reader.holm_p));
    }

    equal_behaviour(&mut f, cell, compared);

    let rest = MEASURES.iter().filter(|m| !FIRST.contains(&m.key));
    rest.for_each(|measure| (measure.columns)(r, &places, &mut f));
    f.put_late("quality_within", claims.quality.as_ref().map(|quality| quality.within));
    let mut row = f.into_row();
    let mut panel = Columns::default();
    effects(&mut panel, "", &layout.quality, &found.map(Behaviour::quality_effects).unwrap_or_default());
    row.extend(panel.into_row());
    row
}

/// What the run was and how well it learned.
fn about(f: &mut Columns, cell: &ClaimedRun) {
    let manifest = cell.manifest.as_ref();
    let mix = manifest.map(|m| &m.mix);
    f.put("id", cell.id.clone());
    f.put("name", cell.name());
    f.put("seed", cell.seed());
    f.put("base", cell.base());
    f.put("method", cell.method());
    f.put("mix_asked", cell.mix().asked);
    f.put("mix_unit", cell.mix_unit());
    f.put("mix_mode", mix.map(|m| m.mode.name()));
    f.put("mix_realised_examples", mix.map(|m| m.realised_examples));
    f.put("mix_realised_tokens", mix.and_then(|m| m.realised_tokens));
    let chat = mix.and_then(|m| m.chat.as_ref());
    f.put("chat_mix_asked", chat.map(|c| c.asked));
    f.put("chat_mix_realised_examples", chat.map(|c| c.realised_examples));
    f.put("chat_mix_realised_tokens", chat.and_then(|c| c.realised_tokens));
    f.put("mix_schedule", mix.map(|m| m.schedule.name()));
    for role in Role::ALL {
        let sum = |get: fn(&Source) -> usize| {
            let of_role = manifest?.data.iter().filter(|s| s.provenance.role == role);
            of_role.map(get).reduce(usize::saturating_add)
        };
        f.put(format!("{}_rows", role.name()), sum(|s| s.rows));
        f.put(format!("{}_examples", role.name()), sum(|s| s.exposure.examples));
        f.put(format!("{}_tokens", role.name()), sum(|s| s.exposure.tokens));
    }
    let last = cell.metrics.as_ref().and_then(|m| m.last());
    f.put("steps", last.map(|m| m.step));
    f.put("last_loss", last.and_then(|m| m.loss));
    f.put("trainable_parameters", manifest.map(|m| m.trainable_parameters));
    f.put("elapsed_s", manifest.map(|m| m.elapsed_s));
    f.put("loss_narrow_base", cell.base_losses().narrow);
    f.put("loss_narrow_tuned", cell.tuned_losses().narrow);
    f.put("loss_pretraining_base", cell.base_losses().pretraining);
    f.put("loss_pretraining_tuned", cell.tuned_losses().pretraining);
    f.put("loss_chat_base", cell.base_losses().chat);
    f.put("loss_chat_tuned", cell.tuned_losses().chat);
}

/// A value of a recipe: lists and tables as TOML.
pub fn recipe_value(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(s) => s.clone().into(),
        toml::Value::Integer(i) => (*i).into(),
        toml::Value::Float(x) => (*x).into(),
        toml::Value::Boolean(b) => (*b).into(),
        other => other.to_string().into(),
    }
}

/// Base, tuned and change of every value that any run has.
fn effects(f: &mut Columns, prefix: &str, names: &[String], effects: &[(String, &BehaviourEffect)]) {
    for name in names {
        let effect = effects.iter().find(|(n, _)| n == name).map(|(_, e)| *e);
        let key = format!("{prefix}{}", name.replace('.', "_"));
        f.put(format!("{key}_base"), effect.map(|e| e.base));
        f.put(format!("{key}_tuned"), effect.map(|e| e.tuned));
        f.put(format!("{key}_change"), effect.map(|e| e.change));
        let ends = effect.and_then(|e| e.change_interval);
        f.put(format!("{key}_change_low"), ends.map(|i| i[0]));
        f.put(format!("{key}_change_high"), ends.map(|i| i[1]));
    }
}

/// How a matched training ended, and whether the run is comparable with the others of the summary.
fn equal_behaviour(f: &mut Columns, cell: &ClaimedRun, compared: Option<&MatchedCell>) {
    let found = matched(cell);
    f.put_late("match_status", found.map(|m| m.status.name()));
    f.put_late("match_reason", found.and_then(|m| m.reason).map(|reason| reason.name()));
    f.put_late("match_measure", found.map(|m| m.measure.clone()));
    f.put_late("match_target", found.map(|m| m.target));
    f.put_late("match_tolerance", found.map(|m| m.tolerance));
    f.put_late("match_narrow_steps", found.map(|m| m.narrow_steps));
    f.put_late("match_q_match", found.map(|m| m.q_match));
    f.put_late("match_se", found.map(|m| m.se));
    f.put_late("match_q_eval", found.map(|m| m.q_eval));
    for (end, name) in ["low", "high"].into_iter().enumerate() {
        f.put_late(format!("match_q_eval_{name}"), found.map(|m| m.q_eval_interval[end]));
    }
    f.put_late("match_resolved", found.map(|m| m.resolved));
    f.put_late("match_inversions", found.map(|m| m.inversions));
    f.put_late("match_difference", compared.and_then(|c| c.difference));
    for (end, name) in ["low", "high"].into_iter().enumerate() {
        let ends = compared.and_then(|c| c.difference_interval);
        f.put_late(format!("match_difference_{name}"), ends.map(|ends| ends[end]));
    }
    f.put_late("match_comparable", compared.map(|c| c.is_comparable));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measures_that_come_first_exist() {
        assert!(FIRST.iter().all(|key| MEASURES.iter().any(|m| m.key == *key)));
    }
}
