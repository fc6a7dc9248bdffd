//! What the page says about all runs together: verdict, table, dose-response curves.

use std::collections::BTreeSet;

use anyhow::Result;
use maud::{Markup, html};

use super::cell::Cell;
use super::charts::Figure;
use super::digest::{columns, legend};
use super::gone::{self, State};
use super::page_run::Run;
use super::setting::{Setting, settings};
use super::trace::{MEETS_RULE, TRACES, meets_null};
use super::verdict::{RULE, list};
use super::visible::one_line;
use super::{figures, frontier, picture, training};

/// The sections, in order.
pub(super) fn sections(runs: &[Run], together: &Together) -> Result<Markup> {
    Ok(html! {
        (verdict(runs, &together.series))
        (curves(together)?)
        (table(runs))
    })
}

fn verdict(runs: &[Run], series: &[Series]) -> Markup {
    let measured = runs.iter().filter(|r| r.verdict.measured()).count();
    let readable = runs.iter().filter(|r| !r.verdict.readable_by.is_empty()).count();
    let mut gone = Vec::new();
    for state in State::ALL {
        let analysed = runs.iter().filter(|r| r.cell.readability.is_some());
        let words = state.words();
        match analysed.filter(|r| r.verdict.gone.state == state).count() {
            0 => {}
            1 => gone.push(format!("1 run: {words}")),
            n => gone.push(format!("{n} runs: {words}")),
        }
    }
    html! {
        section aria-labelledby="verdict" {
            h2 #verdict { "Verdict" }
            @if let [run] = runs { (claims(run)) } @else {
                p.lead {
                    "Readable? " (readable) " of " (measured) " measured runs " @if readable == 1 { "is" } @else { "are" }
                    " readable by at least one measure of activation differences"
                    @if measured < runs.len() { "; " (runs.len() - measured) " of " (runs.len()) " not measured" }
                    "."
                }
                @if !gone.is_empty() { p.lead {
                    "Gone? " (list(&gone.iter().map(String::as_str).collect::<Vec<_>>())) "."
                } }
                @if series.iter().any(|s| !s.meeting.is_empty()) {
                    h3.claim { "Where does each measure meet its null?" }
                }
                @for one in series.iter().filter(|s| !s.meeting.is_empty()) {
                    @if series.len() > 1 { h4 { (one.name) } }
                    ul.verdict { @for text in &one.meeting { li { span.sign aria-hidden="true" { "–" } (text) } } }
                }
                details open[runs.len() <= 6] {
                    summary { "Run by run" }
                    ul.verdict {
                        @for run in runs {
                            li {
                                (sign(run))
                                a href={ "#" (run.anchor) } { (run.name) } ": " (run.verdict.headline())
                                @if !run.verdict.gone.headline.is_empty() { "; " (run.verdict.gone.headline) }
                                "."
                            }
                        }
                    }
                }
            }
            details {
                summary { "How the verdict is reached" }
                p { (RULE) }
                p { (gone::RULE) }
                @if !series.is_empty() { p { (MEETS_RULE) } }
            }
        }
    }
}

/// Both claims on one run, each with its evidence.
pub(super) fn claims(run: &Run) -> Markup {
    let level = |text: &str| html! { h3.claim { (text) } };
    html! {
        (level("Is it readable by activation differences?"))
        p.lead { (sentence(&run.verdict.headline())) }
        @if let Some(r) = &run.cell.readability {
            p.note { "Read after block " (r.layer) ", at positions " (places(&r.positions)) ", on " (r.samples) " texts." }
        }
        (evidence(&run.verdict.sentences))
        @if !run.verdict.gone.headline.is_empty() {
            (level("Is it gone?"))
            p.lead { (sentence(&run.verdict.gone.headline)) }
            (evidence(&run.verdict.gone.sentences))
        }
    }
}

fn places(positions: &[usize]) -> String {
    let all: Vec<String> = positions.iter().map(usize::to_string).collect();
    list(&all.iter().map(String::as_str).collect::<Vec<_>>())
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

/// The sentences behind a claim.
fn evidence(sentences: &[String]) -> Markup {
    html! {
        @if sentences.is_empty() {
            p { "The activation differences were not analysed." }
        } @else {
            ul.verdict {
                @for text in sentences {
                    li {
                        span.sign aria-hidden="true" { @if text.starts_with("Readable") { "●" } @else if text.starts_with("Not distinguishable") { "○" } @else { "–" } }
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
    let columns = columns(&runs.iter().map(|run| (run.cell, &run.verdict)).collect::<Vec<_>>());
    html! {
        section aria-labelledby="table" {
            h2 #table { "Table" }
            p.note #legend { (legend(&columns)) }
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

/// What there is to say of runs together.
#[derive(Default)]
pub(super) struct Together {
    /// Behaviour against trace, by base.
    pub frontiers: Vec<(String, Vec<Figure>)>,
    /// Runs made alike that differ in the mix.
    pub series: Vec<Series>,
}

/// Runs of one setting, of more than one mix ratio.
pub(super) struct Series {
    /// The setting.
    name: String,
    /// Where each measure meets its null, in words.
    meeting: Vec<String>,
    /// Dose-response curves.
    doses: Vec<Figure>,
    /// The trace over training, a curve a ratio.
    pub training: Vec<Figure>,
}

impl Together {
    /// Of all runs.
    pub fn of(runs: &[Run]) -> Self {
        let cells: Vec<&Cell> = runs.iter().map(|r| r.cell).collect();
        let settings = settings(&cells);
        let mut together = Self::default();
        for setting in settings.iter().filter(|s| s.groups.len() > 1) {
            together.series.push(Series {
                name: setting.label.clone(),
                meeting: TRACES.iter().filter_map(|t| meets_null(t, &setting.groups)).collect(),
                doses: figures::dose_response(&setting.groups),
                training: training::by_mix(&setting.groups),
            });
        }
        let bases: BTreeSet<&str> = settings.iter().map(|s| s.base).collect();
        for base in bases {
            let of_base: Vec<&Setting> = settings.iter().filter(|s| s.base == base).collect();
            let frontiers = frontier::frontiers(&of_base);
            if !frontiers.is_empty() {
                together.frontiers.push((one_line(base, 60), frontiers));
            }
        }
        // Figures of several series would have the same names.
        if together.series.len() > 1 {
            for (i, series) in together.series.iter_mut().enumerate() {
                let figures = series.doses.iter_mut().chain(&mut series.training);
                figures.for_each(|f| f.key = format!("series-{}-{}", i + 1, f.key));
            }
        }
        if together.frontiers.len() > 1 {
            for (i, (_, figures)) in together.frontiers.iter_mut().enumerate() {
                figures.iter_mut().for_each(|f| f.key = format!("base-{}-{}", i + 1, f.key));
            }
        }
        together
    }

    /// Every figure.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        let frontiers = self.frontiers.iter().flat_map(|f| &f.1);
        frontiers.chain(self.series.iter().flat_map(|s| s.doses.iter().chain(&s.training)))
    }
}

fn curves(together: &Together) -> Result<Markup> {
    let several = together.series.len() > 1;
    Ok(html! {
        @if !together.frontiers.is_empty() {
            section aria-labelledby="frontier" {
                h2 #frontier { "Behaviour against trace" }
                p.note {
                    "What the runs learned to the right, what can be read of it upwards. Each mark is labelled by the \
                     pretraining text that was mixed in per narrow text."
                }
                @for (base, frontiers) in &together.frontiers {
                    @if together.frontiers.len() > 1 { h3 { (base) } }
                    (picture::grid(frontiers)?)
                }
            }
        }
        @if !together.series.is_empty() {
            section aria-labelledby="dose" {
                h2 #dose { "Readability against the mix" }
                @for series in &together.series {
                    @if several { h3 { (series.name) } }
                    (picture::grid(&series.doses)?)
                }
                p.note {
                    "Pretraining text mixed in per narrow text, as reached by the runs. The axis is linear near 0 \
                     and logarithmic beyond the smallest ratio above it."
                }
            }
            @if together.series.iter().any(|s| !s.training.is_empty()) {
                section aria-labelledby="training" {
                    h2 #training { "Trace over training" }
                    p.note { "A curve a ratio, the mean over its runs. Losses are with each run." }
                    @for series in &together.series {
                        @if several { h3 { (series.name) } }
                        (picture::grid(&series.training)?)
                    }
                }
            }
        }
    })
}
