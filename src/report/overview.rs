//! What the page says about all runs together: verdict, table, dose-response curves.

use anyhow::Result;
use maud::{Markup, html};

use super::cell::{Cell, varied};
use super::digest::{LEGEND, columns};
use super::html::Run;
use super::verdict::RULE;
use super::{dose, figures, picture};

/// The sections, in order.
pub(super) fn sections(runs: &[Run]) -> Result<Markup> {
    Ok(html! {
        (verdict(runs))
        (curves(runs)?)
        (table(runs))
    })
}

fn verdict(runs: &[Run]) -> Markup {
    let measured = runs.iter().filter(|r| r.verdict.measured()).count();
    let readable = runs.iter().filter(|r| !r.verdict.readable_by.is_empty()).count();
    html! {
        section aria-labelledby="verdict" {
            h2 #verdict { "Verdict" }
            @if let [run] = runs {
                p.lead { (sentence(&run.verdict.headline())) }
                (reasons(run))
            } @else {
                p.lead {
                    (readable) " of " (measured) " measured runs " @if readable == 1 { "is" } @else { "are" }
                    " readable by at least one measure"
                    @if measured < runs.len() { "; " (runs.len() - measured) " of " (runs.len()) " not measured" }
                    "."
                }
                ul.verdict {
                    @for run in runs {
                        li {
                            (sign(run))
                            a href={ "#" (run.anchor) } { (run.name) } ": " (run.verdict.headline()) "."
                        }
                    }
                }
            }
            details {
                summary { "How the verdict is reached" }
                p { (RULE) }
            }
        }
    }
}

/// A filled or an open circle; the words beside it say the same.
fn sign(run: &Run) -> Markup {
    let sign = match (run.verdict.measured(), run.verdict.readable_by.is_empty()) {
        (false, _) => "–",
        (true, true) => "○",
        (true, false) => "●",
    };
    html! { span.sign aria-hidden="true" { (sign) } }
}

/// The sentences behind a verdict.
pub(super) fn reasons(run: &Run) -> Markup {
    html! {
        @if run.verdict.sentences.is_empty() {
            p { "The activation differences were not analysed." }
        } @else {
            ul.verdict {
                @for text in &run.verdict.sentences {
                    li {
                        span.sign aria-hidden="true" { @if text.starts_with("Readable") { "●" } @else if text.starts_with("Not ") { "○" } @else { "–" } }
                        (text)
                    }
                }
            }
        }
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), chars.as_str()),
        None => String::new(),
    }
}

fn table(runs: &[Run]) -> Markup {
    let columns = columns(runs.iter().map(|run| run.cell));
    html! {
        section aria-labelledby="table" {
            h2 #table { "Table" }
            p.note #legend { (LEGEND) }
            div.scroll role="region" tabindex="0" aria-label="All runs, scrolls sideways" {
                table.runs aria-describedby="legend" {
                    caption.vh { "All runs" }
                    thead {
                        tr {
                            @for column in &columns {
                                th scope="col" { (column.title) @for line in column.detail { small { (line) } } }
                            }
                        }
                    }
                    tbody {
                        @for run in runs {
                            tr {
                                @for (i, column) in columns.iter().enumerate() {
                                    @let entry = (column.entry)(run.cell, &run.verdict);
                                    @if i == 0 {
                                        th scope="row" { a href={ "#" (run.anchor) } { (entry.main) } }
                                    } @else {
                                        td { (entry.main) @for line in &entry.detail { small { (line) } } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Dose-response curves for every series of runs that has more than one mix ratio.
fn curves(runs: &[Run]) -> Result<Markup> {
    let mut parts = Vec::new();
    for (name, cells) in series(runs) {
        let groups = dose::groups(&cells);
        if groups.len() < 2 {
            continue;
        }
        let mut drawn = Vec::new();
        for figure in figures::dose_response(&groups) {
            drawn.push(picture::figure(&figure)?);
        }
        if !drawn.is_empty() {
            parts.push((name, drawn));
        }
    }
    let several = parts.len() > 1;
    Ok(html! {
        @if !parts.is_empty() {
            section aria-labelledby="dose" {
                h2 #dose { "Readability against the mix" }
                p.note {
                    "Pretraining text mixed in per narrow text, as reached by the runs. The axis is linear near 0 \
                     and logarithmic beyond the smallest ratio above it."
                }
                @for (name, drawn) in &parts {
                    @if several { h3 { (name) } }
                    div.figures { @for figure in drawn { (figure) } }
                }
            }
        }
    })
}

/// Runs that may share a curve: same recipe but for mix and seed, same base and method. Where no recipe has two ratios (a sweep may
/// name every cell differently) the name does not count.
fn series(runs: &[Run]) -> Vec<(String, Vec<Cell>)> {
    let varied = varied(&runs.iter().map(|run| run.cell.clone()).collect::<Vec<_>>());
    let varied = varied.iter().filter(|key| !["model.base", "train.method"].contains(&key.as_str()));
    let setting = |cell: &Cell| {
        let values = varied.clone().filter_map(|key| Some(format!("{key} = {}", cell.setting(key)?)));
        values.collect::<Vec<_>>().join(", ")
    };
    let by = |with_name: bool| {
        let mut series: Vec<(String, Vec<Cell>)> = Vec::new();
        for run in runs {
            let cell = run.cell;
            let setting = Some(setting(cell)).filter(|s| with_name && !s.is_empty());
            let name = Some(cell.name()).filter(|_| with_name);
            let parts = [name, cell.base(), cell.method(), setting.as_deref()];
            let key =
                super::visible::one_line(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "), 80);
            match series.iter_mut().find(|s| s.0 == key) {
                Some(s) => s.1.push(cell.clone()),
                None => series.push((key, vec![cell.clone()])),
            }
        }
        series
    };
    let named = by(true);
    if named.iter().any(|s| dose::groups(&s.1).len() > 1) { named } else { by(false) }
}
