//! Where a run comes from: recipe, data, hashes, versions.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::report::number::{ABSENT, duration, fixed, grouped, ratio, realised, utc};
use crate::report::visible::visible;
use crate::results::RunRecord;
use crate::train::manifest::{Manifest, Source};
use crate::train::matching::MatchRecord;

/// The folded section of a run.
pub(super) fn section(run: &RunRecord) -> Markup {
    html! {
        details {
            summary { "Provenance: data, hashes, versions, recipe" }
            @if let Some(manifest) = &run.manifest {
                @if !manifest.data.is_empty() { (data(&manifest.data)) }
                (facts(manifest))
            }
            @if let Some(recipe) = &run.recipe {
                h4 { "recipe.toml" }
                pre tabindex="0" { (visible(recipe)) }
            }
            @if run.manifest.is_none() && run.recipe.is_none() { p { "Neither recipe.toml nor manifest.json in the run folder." } }
        }
    }
}

/// What was asked of the mix and what came of it, source by source.
pub(super) fn mix(m: &Manifest) -> Markup {
    let count = |n: usize| html! { td.n { (grouped(n as u64)) } };
    let all: usize = m.data.iter().map(|s| s.exposure.tokens).sum();
    let mix = &m.mix;
    html! {
        h3 { "Mix audit" }
        p {
            "Asked for " (ratio(mix.asked)) " pretraining " (mix.unit.name()) " per narrow (" (mix.mode.name())
            "); reached " (ratio(mix.realised_examples)) " in examples and " (realised(mix.realised_tokens)) " in tokens."
            " To see which tokens of an example count in the loss, run trainer inspect on the recipe below."
        }
        @if !m.data.is_empty() {
            div.scroll role="region" tabindex="0" aria-label="Mix audit" {
                table.wrap {
                    caption { span { "The data that training used from each source. Empty: pieces left out because \
                                      none of their tokens counts in the loss. Cut: documents that were cut off." } }
                    thead { tr {
                        th scope="col" { "Source" } th scope="col" { "Role" } th.n scope="col" { "Documents" }
                        th.n scope="col" { "Held out" } th.n scope="col" { "Cut" } th.n scope="col" { "Empty" }
                        th.n scope="col" { "Examples seen" } th.n scope="col" { "Repeats" } th.n scope="col" { "Tokens seen" }
                        th.n scope="col" { "Share of tokens" }
                    } }
                    tbody {
                        @for Source { provenance, rows, exposure, .. } in &m.data {
                            tr {
                                th scope="row" { (file_name(&provenance.source)) }
                                td { (provenance.role.name()) }
                                (count(*rows)) (count(provenance.held_out)) (count(provenance.tally.truncated))
                                (count(provenance.tally.empty)) (count(exposure.examples)) (count(exposure.repeats))
                                (count(exposure.tokens))
                                td.n { @if all > 0 { (fixed(exposure.tokens as f64 / all as f64, 3)) } @else { (ABSENT) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The last part of a path; the whole stands under provenance.
fn file_name(source: &str) -> String {
    visible(source.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or(source))
}

fn data(sources: &[Source]) -> Markup {
    let count = |n: usize| html! { td.n { (grouped(n as u64)) } };
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
                    @for Source { provenance, rows, loss_weight, exposure } in sources {
                        tr {
                            th scope="row" {
                                (visible(&provenance.source))
                                @if provenance.path != provenance.source { small { (visible(&provenance.path)) } }
                            }
                            td {
                                (provenance.role.name())
                                @if let Some(weight) = loss_weight { small { "loss × " (weight) } }
                            }
                            (count(*rows)) (count(exposure.examples)) (count(exposure.tokens)) (count(exposure.repeats))
                            td.hash { (visible(&provenance.sha256)) }
                        }
                    }
                }
            }
        }
    }
}

/// The rest of the manifest, one row a fact.
fn facts(m: &Manifest) -> Markup {
    let hashes = |map: &BTreeMap<String, String>| -> String {
        map.iter().map(|(name, sha256)| format!("{name}: {sha256}")).collect::<Vec<_>>().join("\n")
    };
    let mix = &m.mix;
    let mut rows = vec![
        ("Base model", m.base.id.clone()),
        ("Base weights, SHA-256", hashes(&m.base.sha256)),
        ("Method", m.method.name().into()),
        ("Trained parameters", grouped(m.trainable_parameters as u64)),
        ("Seed", m.seed.to_string()),
        ("Training time", duration(m.elapsed_s)),
        ("Readings while training", m.trace_s.map(duration).unwrap_or_default()),
        ("Matched training", m.matched.as_ref().map(MatchRecord::outcome).unwrap_or_default()),
        (
            "Mix",
            format!(
                "asked {} ({}, {}); reached {} in examples, {} in tokens",
                ratio(mix.asked),
                mix.unit.name(),
                mix.mode.name(),
                ratio(mix.realised_examples),
                realised(mix.realised_tokens)
            ),
        ),
        (
            "Conversations mixed in",
            mix.chat.as_ref().map_or(String::new(), |chat| {
                format!(
                    "asked {}; reached {} in examples, {} in tokens",
                    ratio(chat.asked),
                    ratio(chat.realised_examples),
                    realised(chat.realised_tokens)
                )
            }),
        ),
        ("Schedule of the mix", mix.schedule.name().into()),
        ("Order of examples, SHA-256", m.order_sha256.clone()),
        ("Trained weights, SHA-256", m.adapter_sha256.clone()),
        ("Device", m.machine.device.clone()),
        ("Processor", m.machine.processor.clone()),
        ("Threads", m.machine.threads.to_string()),
        ("Finished", utc(m.created)),
        ("Version", m.version.clone()),
    ];
    if let Some(init) = &m.init {
        rows.push(("Started from", init.path.clone()));
        rows.push(("Its files, SHA-256", hashes(&init.sha256)));
    }
    rows.retain(|(_, value)| !value.is_empty());
    html! {
        div.scroll role="region" tabindex="0" aria-label="Manifest" {
            table.wrap {
                caption { span { "From manifest.json." } }
                tbody {
                    @for (key, value) in &rows { tr { th scope="row" { (key) } td.hash { (visible(value)) } } }
                }
            }
        }
    }
}
