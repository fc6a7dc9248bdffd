//! `summary.csv`: one row a run, every measure and every key in which the recipes differ, for a data frame.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::atomic::write_atomically;
use crate::claims::ClaimedRun as Cell;
use crate::data::mixture::Role;
use crate::diff::measures::causal::Causal;
use crate::diff::measures::lift::Lift;
use crate::diff::readout::{Gain, Relevance, best, mean};
use crate::diff::record::Readability;
use crate::recipe::DiffSection;
use crate::results::varied;
use crate::train::manifest::Source;

/// One row: the columns in order, with `Null` for what was not measured.
pub type Row = Map<String, Value>;

/// Writes the rows of [`rows`] as CSV; the file appears whole or not at all.
pub fn write_summary(cells: &[Cell], path: &Path) -> Result<()> {
    write_atomically(path, csv(&rows(cells)).as_bytes())
}

/// The rows as RFC 4180 text with a heading. A field is quoted when it has to be; an absent value is empty.
pub fn csv(rows: &[Row]) -> String {
    let mut out = String::new();
    let mut line = |fields: Vec<String>| {
        out.push_str(&fields.join(","));
        out.push_str("\r\n");
    };
    if let Some(first) = rows.first() {
        line(first.keys().map(|k| quoted(k)).collect());
    }
    for row in rows {
        line(row.values().map(field).collect());
    }
    out
}

fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => quoted(s),
        other => other.to_string(),
    }
}

fn quoted(s: &str) -> String {
    if s.contains([',', '"', '\n', '\r']) || s.trim() != s {
        format!("\"{}\"", s.replace('"', "\"\""))
    } else {
        s.into()
    }
}

/// The rows of some runs. All have the same columns, made for every position that any of them has.
pub fn rows(cells: &[Cell]) -> Vec<Row> {
    let layout = Layout::of(cells);
    cells.iter().map(|cell| row(cell, &layout)).collect()
}

/// The columns that runs read by such a section have, but those of behaviour, which begin with `behaviour_`.
pub fn columns(diff: &DiffSection) -> Vec<String> {
    let layout = Layout {
        positions: diff.positions.clone(),
        steering: diff.steering.positions.clone(),
        behaviour: Vec::new(),
        varied: Vec::new(),
    };
    row(&Cell::default(), &layout).into_iter().map(|(name, _)| name).collect()
}

/// Positions that get columns.
struct Layout {
    positions: Vec<usize>,
    steering: Vec<usize>,
    /// Values of `behaviour.json` by name.
    behaviour: Vec<String>,
    /// Keys of the recipe in which the runs differ.
    varied: Vec<String>,
}

impl Layout {
    fn of(cells: &[Cell]) -> Self {
        let records = || cells.iter().filter_map(|c| c.readability.as_ref());
        let mut layout = Self {
            positions: records().flat_map(|r| r.positions.clone()).collect(),
            steering: records()
                .filter_map(|r| r.steering.as_ref())
                .flat_map(|s| s.positions.clone())
                .collect(),
            behaviour: Vec::new(),
            varied: varied(cells.iter().map(|run| &run.record)),
        };
        for (name, _) in cells.iter().filter_map(|c| c.behaviour.as_ref()).flat_map(|b| b.effects()) {
            if !layout.behaviour.contains(&name) {
                layout.behaviour.push(name);
            }
        }
        for list in [&mut layout.positions, &mut layout.steering] {
            list.sort_unstable();
            list.dedup();
        }
        layout
    }
}

/// A row under construction.
struct Fields(Row);

impl Fields {
    fn put(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    /// One column a position of `layout`, from values over the positions `at`.
    fn spread(&mut self, key: &str, layout: &[usize], at: &[usize], values: &[f64]) {
        for p in layout {
            let i = at.iter().position(|q| q == p);
            self.put(format!("{key}_p{p}"), i.and_then(|i| values.get(i).copied()));
        }
    }

    /// The two ends of intervals, as [`Self::spread`].
    fn spread_intervals(&mut self, key: &str, layout: &[usize], at: &[usize], values: &[[f64; 2]]) {
        for (end, name) in ["low", "high"].into_iter().enumerate() {
            let ends: Vec<f64> = values.iter().map(|v| v[end]).collect();
            self.spread(&format!("{key}_{name}"), layout, at, &ends);
        }
    }

    /// Mean, maximum and the position of the maximum.
    fn overall(&mut self, key: &str, at: &[usize], values: &[f64]) {
        let best = best(at, values);
        self.put(format!("{key}_mean"), mean(values));
        self.put(format!("{key}_max"), best.map(|i| values[i]));
        self.put(format!("{key}_max_position"), best.and_then(|i| at.get(i).copied()));
    }
}

fn row(cell: &Cell, layout: &Layout) -> Row {
    let mut f = Fields(Row::new());
    about(&mut f, cell);
    for key in &layout.varied {
        f.put(key.clone(), cell.setting(key).map(json));
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
    let context = r.and_then(|r| r.context.as_ref());
    f.put("constant_share_mean", context.and_then(|c| mean(&c.constant_share)));
    let dimensions = r.and_then(|r| r.dimensionality.as_ref());
    f.put("effective_dimension", dimensions.and_then(|d| mean(&d.uncentred.effective_dimension)));
    relevance(&mut f, "lens", layout, at, r.and_then(Relevance::lens));
    let scope = r.and_then(|r| r.patchscope.as_ref());
    let scope_at = scope.map_or(at, |s| s.positions(at));
    relevance(&mut f, "patchscope", layout, scope_at, r.and_then(Relevance::patchscope));
    f.spread("patchscope_best_scale", all, scope_at, scope.map_or(&[], |s| &s.best_scale));
    lift(&mut f, all, at, r);
    identification(&mut f, r);
    steering(&mut f, layout, r);
    losses(&mut f, r);
    behaviour(&mut f, cell, layout);

    let claims = &cell.claims;
    f.put("readable_by_lens", claims.readable.by("lens"));
    f.put("readable_by_patchscope", claims.readable.by("patchscope"));
    f.put("readable_by_lift", claims.readable.by("lift"));
    f.put("readable_by_steering", claims.readable.by("steering"));
    f.put("verdict", claims.readable.headline.clone());
    f.put("gone", claims.gone.as_ref().map(|gone| gone.headline.clone()));
    f.put("probe_auroc", cell.probe().map(|p| p.auroc));
    f.put("probe_auroc_low", cell.probe().map(|p| p.auroc_interval[0]));
    f.put("probe_auroc_high", cell.probe().map(|p| p.auroc_interval[1]));
    f.put("probe_held_out_auroc", cell.probe().map(|p| p.held_out_auroc));
    f.put("probe_auroc_null", cell.probe().map(|p| p.auroc_null));
    f.0
}

/// What the run was and how well it learned.
fn about(f: &mut Fields, cell: &Cell) {
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
pub(super) fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(s) => s.clone().into(),
        toml::Value::Integer(i) => (*i).into(),
        toml::Value::Float(x) => (*x).into(),
        toml::Value::Boolean(b) => (*b).into(),
        other => other.to_string().into(),
    }
}

fn relevance(f: &mut Fields, key: &str, layout: &Layout, at: &[usize], m: Option<Relevance>) {
    let all = &layout.positions;
    let get = |values: fn(&Relevance) -> Vec<f64>| m.as_ref().map(values).unwrap_or_default();
    let difference = get(|m| m.share.difference.clone());
    let base = get(|m| m.share.base.clone());
    let tuned = get(|m| m.share.tuned.clone());
    let null = get(|m| m.null.to_vec());
    f.spread(&format!("{key}_relevance"), all, at, &difference);
    if key == "lens" {
        // Only the logit lens is cheap enough to be bootstrapped.
        let interval = m.as_ref().map_or(&[][..], |m| m.interval);
        f.spread_intervals("lens_relevance", all, at, interval);
    }
    f.overall(&format!("{key}_relevance"), at, &difference);
    f.spread(&format!("{key}_relevance_null"), all, at, &null);
    let interval = m.as_ref().map_or(&[][..], |m| m.null_interval);
    f.spread_intervals(&format!("{key}_relevance_null"), all, at, interval);
    f.put(format!("{key}_relevance_null_mean"), mean(&null));
    f.spread(&format!("{key}_relevance_pvalue"), all, at, &get(|m| m.p.to_vec()));
    f.spread(&format!("{key}_relevance_base"), all, at, &base);
    f.overall(&format!("{key}_relevance_base"), at, &base);
    f.spread(&format!("{key}_relevance_tuned"), all, at, &tuned);
    f.overall(&format!("{key}_relevance_tuned"), at, &tuned);
}

fn lift(f: &mut Fields, layout: &[usize], at: &[usize], readability: Option<&Readability>) {
    let lift = readability.and_then(|r| r.lift.as_ref());
    let get = |values: fn(&Lift) -> &Vec<f64>| lift.map_or(&[][..], |l| values(l));
    f.spread("lift_auroc", layout, at, get(|l| &l.auroc));
    f.spread_intervals("lift_auroc", layout, at, lift.map_or(&[], |l| &l.auroc_interval));
    f.overall("lift_auroc", at, get(|l| &l.auroc));
    f.put("lift_auroc_mean_low", lift.map(|l| l.auroc_mean_interval[0]));
    f.put("lift_auroc_mean_high", lift.map(|l| l.auroc_mean_interval[1]));
    f.put("lift_auroc_mean_pvalue", lift.map(|l| l.auroc_mean_p));
    f.put("lift_auroc_null_mean", mean(get(|l| &l.auroc_null)));
    f.spread("lift_auroc_pvalue", layout, at, get(|l| &l.auroc_p));
    f.spread("lift_auroc_with_mean", layout, at, get(|l| &l.auroc_with_mean));
}

fn identification(f: &mut Fields, readability: Option<&Readability>) {
    let found = readability.and_then(|r| r.identification.as_ref());
    f.put("identification_candidates", found.map(|i| i.candidates.len()));
    for (key, ranking) in [
        ("lift", found.and_then(|i| i.lift.as_ref())),
        ("patchscope", found.and_then(|i| i.patchscope.as_ref())),
        ("steering", found.and_then(|i| i.steering.as_ref())),
    ] {
        f.put(format!("identification_{key}_rank"), ranking.and_then(|r| r.rank));
        f.put(format!("identification_{key}_margin"), ranking.and_then(|r| r.margin));
        f.put(format!("identification_{key}_best"), ranking.and_then(|r| r.best.clone()));
    }
}

fn steering(f: &mut Fields, layout: &Layout, readability: Option<&Readability>) {
    let all = &layout.steering;
    let gain = readability.and_then(Gain::of);
    let r = readability.and_then(|r| r.steering.as_ref());
    let at: &[usize] = r.map_or(&[], |r| &r.positions);
    f.spread("steering_strength", all, at, r.map_or(&[], |r| &r.strength));
    f.spread("steering_strength_in_differences", all, at, r.map_or(&[], |r| &r.strength_in_differences));
    for (key, values) in [
        ("steered_narrow", r.map(|r| &r.similarity.steered_narrow)),
        ("unsteered_narrow", r.map(|r| &r.similarity.unsteered_narrow)),
        ("steered_reference", r.map(|r| &r.similarity.steered_reference)),
        ("unsteered_reference", r.map(|r| &r.similarity.unsteered_reference)),
        ("narrow_narrow", r.map(|r| &r.similarity.narrow_narrow)),
        ("base_narrow", r.map(|r| &r.similarity.base_narrow)),
        ("base_reference", r.map(|r| &r.similarity.base_reference)),
        ("null_narrow", r.map(|r| &r.similarity.null_narrow)),
        ("null_reference", r.map(|r| &r.similarity.null_reference)),
    ] {
        let values = values.map_or(&[][..], |v| v);
        f.spread(&format!("similarity_{key}"), all, at, values);
        f.overall(&format!("similarity_{key}"), at, values);
    }
    let gains = gain.as_ref().map_or(&[][..], |g| &g.gain);
    f.spread("similarity_gain", all, at, gains);
    f.spread_intervals("similarity_gain", all, at, r.map_or(&[], |r| &r.similarity_gain_interval));
    f.overall("similarity_gain", at, gains);
    let over_null = r.map_or(&[][..], |r| &r.similarity_over_null_interval);
    f.spread_intervals("similarity_over_null", all, at, over_null);
    f.spread("similarity_pvalue", all, at, r.map_or(&[], |r| &r.similarity_p));
    f.spread("coherent_steered", all, at, r.map_or(&[], |r| &r.coherent_steered));
    f.spread("coherent_unsteered", all, at, r.map_or(&[], |r| &r.coherent_unsteered));
    let steered_interval = r.map_or(&[][..], |r| &r.similarity.steered_narrow_interval);
    f.spread_intervals("similarity_steered_narrow", all, at, steered_interval);
    for (key, values) in [
        ("relevant_words_steered", r.map(|r| &r.relevant_words_steered)),
        ("relevant_words_unsteered", r.map(|r| &r.relevant_words_unsteered)),
    ] {
        let values = values.map_or(&[][..], |v| v);
        f.spread(key, all, at, values);
        f.overall(key, at, values);
    }
}

/// Base, tuned and change of every value that any run has.
fn behaviour(f: &mut Fields, cell: &Cell, layout: &Layout) {
    let effects = cell.behaviour.as_ref().map(|b| b.effects()).unwrap_or_default();
    for name in &layout.behaviour {
        let effect = effects.iter().find(|(n, _)| n == name).map(|(_, e)| *e);
        let key = format!("behaviour_{}", name.replace('.', "_"));
        f.put(format!("{key}_base"), effect.map(|e| e.base));
        f.put(format!("{key}_tuned"), effect.map(|e| e.tuned));
        f.put(format!("{key}_change"), effect.map(|e| e.change));
        let ends = effect.and_then(|e| e.change_interval);
        f.put(format!("{key}_change_low"), ends.map(|i| i[0]));
        f.put(format!("{key}_change_high"), ends.map(|i| i[1]));
    }
}

fn losses(f: &mut Fields, r: Option<&Readability>) {
    let shares = r.and_then(|r| r.bias_share.as_ref()).and_then(|b| b.shares.as_ref());
    f.put("bias_share", shares.map(|s| s.share));
    f.put("bias_share_specific", shares.and_then(|s| s.specific_share));
    let ends = shares.and_then(|s| s.specific_share_interval);
    f.put("bias_share_specific_low", ends.map(|i| i[0]));
    f.put("bias_share_specific_high", ends.map(|i| i[1]));
    let kl = r.and_then(|r| r.kl.as_ref());
    f.put("kl_narrow", kl.and_then(|kl| kl.narrow.as_ref()).map(|kl| kl.base_to_tuned));
    f.put("kl_text", kl.and_then(|kl| kl.text.as_ref()).map(|kl| kl.base_to_tuned));
    let causal = r.and_then(|r| r.causal.as_ref());
    f.put(
        "causal_incr_ce_max",
        causal.and_then(Causal::most_on_narrow).map(|(_, e)| e.base_to_tuned.incr_ce),
    );
}
