//! Where a run comes from: recipe, data, hashes, versions.

use maud::{Markup, html};
use serde_json::Value;

use super::cell::Cell;
use super::manifest::{Manifest, Source};
use super::number::{ABSENT, duration, grouped, ratio};
use super::visible::visible;

/// The folded section of a run.
pub(super) fn section(cell: &Cell) -> Markup {
    html! {
        details {
            summary { "Provenance: data, hashes, versions, recipe" }
            @if let Some(manifest) = &cell.manifest {
                @if !manifest.data.is_empty() { (data(&manifest.data)) }
                (facts(manifest))
            }
            @if let Some(recipe) = &cell.recipe {
                h4 { "recipe.toml" }
                pre tabindex="0" { (visible(recipe)) }
            }
            @if cell.manifest.is_none() && cell.recipe.is_none() { p { "Neither recipe.toml nor manifest.json in the run folder." } }
        }
    }
}

fn data(sources: &[Source]) -> Markup {
    let count = |n: Option<u64>| html! { td.n { (n.map_or_else(|| ABSENT.into(), grouped)) } };
    html! {
        div.scroll role="region" tabindex="0" aria-label="Training data" {
            table.wrap {
                caption { span { "Training data." } }
                thead { tr {
                    th scope="col" { "Source" } th scope="col" { "Role" } th.n scope="col" { "Rows" }
                    th.n scope="col" { "Examples" } th.n scope="col" { "Tokens" } th.n scope="col" { "Repeats" }
                    th scope="col" { "SHA-256" }
                } }
                tbody {
                    @for s in sources {
                        tr {
                            th scope="row" {
                                (shown(s.source.as_ref().or(s.path.as_ref())))
                                @if s.source.is_some() && s.path.is_some() && s.path != s.source { small { (shown(s.path.as_ref())) } }
                            }
                            td { (visible(s.role.as_deref().unwrap_or(ABSENT))) }
                            (count(s.rows)) (count(s.examples)) (count(s.tokens))
                            td.n { (s.repeats.map_or_else(|| ABSENT.into(), ratio)) }
                            td.hash { (shown(s.sha256.as_ref())) }
                        }
                    }
                }
            }
        }
    }
}

/// The rest of the manifest, one row a key.
fn facts(m: &Manifest) -> Markup {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push((key.into(), value));
        }
    };
    let base = m.base.as_ref();
    row("Base model", base.and_then(|b| b.id.clone()));
    row("Base weights, SHA-256", base.and_then(|b| b.sha256.as_ref()).map(|v| shown(Some(v))));
    row("Method", m.method.clone());
    row("Trained parameters", m.trainable_parameters.map(grouped));
    row("Seed", m.seed.map(|s| s.to_string()));
    row("Training time", m.elapsed_s.map(duration));
    if let Some(mix) = &m.mix {
        let both = |a: Option<f64>| a.map_or_else(|| ABSENT.into(), ratio);
        row(
            "Mix",
            Some(format!(
                "asked {} ({}, {}); reached {} in examples, {} in tokens",
                both(mix.asked),
                mix.unit.as_deref().unwrap_or(ABSENT),
                mix.mode.as_deref().unwrap_or(ABSENT),
                both(mix.realised_examples),
                both(mix.realised_tokens)
            )),
        );
    }
    for (key, value) in &m.other {
        if !value.is_null() {
            rows.push((key.clone(), shown(Some(value))));
        }
    }
    html! {
        div.scroll role="region" tabindex="0" aria-label="Manifest" {
            table.wrap {
                caption { span { "From manifest.json." } }
                tbody {
                    @for (key, value) in &rows { tr { th scope="row" { (visible(key)) } td.hash { (visible(value)) } } }
                }
            }
        }
    }
}

/// A JSON value as text: a string without quotes, a list with commas, anything else as JSON. Long lists
/// (the order of examples) are cut.
fn shown(value: Option<&Value>) -> String {
    const LONGEST: usize = 2000;
    let text = match value {
        None | Some(Value::Null) => ABSENT.into(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Array(items)) if items.iter().all(|v| !v.is_object() && !v.is_array()) => {
            items.iter().map(|v| shown(Some(v))).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    };
    let text = visible(&text);
    if text.chars().count() <= LONGEST {
        return text;
    }
    let mut cut: String = text.chars().take(LONGEST).collect();
    cut.push('…');
    cut
}
