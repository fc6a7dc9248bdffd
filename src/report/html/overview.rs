//! What the page says about all runs together: verdict, table, dose-response curves.

use anyhow::Result;
use maud::{Markup, html};

use super::page_run::PageRun;
use super::picture;
use crate::claims::across::{AcrossRuns, RunCounts};
use crate::claims::{ClaimedRun, list};
use crate::report::charts::Figure;
use crate::report::digest::{columns, legend};
use crate::report::meets_null::sentence as meets_null;
use crate::report::rules::{GONE_RULE, MEETS_NULL_RULE, READABLE_RULE};
use crate::report::series::MixSeries;
use crate::report::verdict::{gone_headline, gone_reasons, reasons};
use crate::report::visible::one_line;
use crate::report::{figures, frontier, training};

/// The sections, in order.
pub(super) fn sections(runs: &[PageRun], together: &Together) -> Result<Markup> {
    Ok(html! {
        (verdict(runs, together))
        (curves(together)?)
        (table(runs))
    })
}

fn verdict(runs: &[PageRun], together: &Together) -> Markup {
    let (series, counts) = (&together.series, &together.counts);
    let RunCounts { measured, readable, .. } = *counts;
    let gone = counts.gone.iter().map(|c| match (c.runs, c.state.words()) {
        (1, words) => format!("1 run: {words}"),
        (n, words) => format!("{n} runs: {words}"),
    });
    let gone: Vec<String> = gone.collect();
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
                    "Gone? " (list(&gone)) "."
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
                                a href={ "#" (run.anchor) } { (run.name) } ": " (run.held.claims.readable.headline)
                                @if let Some(gone) = &run.held.claims.gone { "; " (gone.headline) }
                                "."
                            }
                        }
                    }
                }
            }
            details {
                summary { "How the verdict is reached" }
                p { (READABLE_RULE) }
                p { (GONE_RULE) }
                @if !series.is_empty() { p { (MEETS_NULL_RULE) } }
            }
        }
    }
}

/// Both claims on one run, each with its evidence.
pub(super) fn claims(run: &PageRun) -> Markup {
    let level = |text: &str| html! { h3.claim { (text) } };
    let claims = &run.held.claims;
    let gone = gone_headline(claims);
    html! {
        (level("Is it readable by activation differences?"))
        p.lead { (sentence(&claims.readable.headline)) }
        @if let Some(r) = &run.held.readability {
            p.note { "Read after block " (r.layer) ", at positions " (places(&r.positions)) ", on " (r.samples) " texts." }
        }
        (evidence(&reasons(claims)))
        @if !gone.is_empty() {
            (level("Is it gone?"))
            p.lead { (sentence(gone)) }
            (evidence(&gone_reasons(claims)))
        }
    }
}

fn places(positions: &[usize]) -> String {
    list(&positions.iter().map(usize::to_string).collect::<Vec<_>>())
}

/// A filled or an open circle; the words beside it say the same.
fn sign(run: &PageRun) -> Markup {
    let readable = &run.held.claims.readable;
    let sign = match (readable.is_measured(), readable.readable_by().is_empty()) {
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

fn table(runs: &[PageRun]) -> Markup {
    let columns = columns(&runs.iter().map(|run| run.held).collect::<Vec<_>>());
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
                                    @let entry = (column.entry)(run.held);
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
    /// How many runs each claim holds of.
    counts: RunCounts,
    /// Behaviour against trace, by base.
    pub frontiers: Vec<(String, Vec<Figure>)>,
    /// Runs made alike that differ in the mix.
    pub series: Vec<SeriesFigures>,
}

/// Runs of one setting, of more than one mix ratio.
pub(super) struct SeriesFigures {
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
    pub fn of(runs: &[ClaimedRun], across: &AcrossRuns) -> Self {
        let settings = MixSeries::all(across, runs);
        let mut together = Self { counts: across.counts.clone(), ..Self::default() };
        for series in settings.iter().filter(|series| series.len() > 1) {
            together.series.push(SeriesFigures {
                name: series.label.clone(),
                meeting: series.claims.meets_null.iter().map(meets_null).collect(),
                doses: figures::dose_response(series),
                training: training::by_mix(series),
            });
        }
        for one in &across.frontiers {
            let Some(figure) = frontier::of_frontier(one, &settings) else { continue };
            let base = one_line(&one.base, 60);
            match together.frontiers.last_mut().filter(|(last, _)| *last == base) {
                Some((_, figures)) => figures.push(figure),
                None => together.frontiers.push((base, vec![figure])),
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
