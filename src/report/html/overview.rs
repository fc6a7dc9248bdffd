//! What the page says about all runs together: verdict, table, dose-response curves.

use anyhow::Result;
use maud::{Markup, html};

use super::page_run::PageRun;
use super::picture;
use crate::claims::across::{AcrossRuns, RunCounts};
use crate::claims::matching::EqualBehaviour;
use crate::claims::verdict::{ReaderClaim, VerdictState};
use crate::claims::{ClaimedRun, list};
use crate::report::answers::{self, Answer};
use crate::report::charts::Figure;
use crate::report::digest::{columns, legend};
use crate::report::meets_null::sentence as meets_null;
use crate::report::rules::{MEETS_NULL_RULE, READABLE_RULE, VERDICT_RULE};
use crate::report::series::MixSeries;
use crate::report::verdict::{READER_HEADING, READER_LEGEND, floors, reader_rows, reasons, stronger_reasons};
use crate::report::visible::one_line;
use crate::report::words::capitalized;
use crate::report::{figures, frontier, matching, remaining, training};

/// The sections, in order.
pub(super) fn sections(runs: &[PageRun], together: &Together) -> Result<Markup> {
    Ok(html! {
        (verdict(runs, together)?)
        (equal_behaviour(together))
        (curves(together)?)
        (table(runs))
    })
}

fn verdict(runs: &[PageRun], together: &Together) -> Result<Markup> {
    let (series, counts) = (&together.series, &together.counts);
    let RunCounts { measured, .. } = *counts;
    Ok(html! {
        section aria-labelledby="verdict" {
            h2 #verdict { "Verdict" }
            dl.answers {
                @for (question, sentences) in &together.answers {
                    div { dt { (question) } dd { @for text in sentences { p { (text) } } } }
                }
            }
            @if runs.len() > 1 && measured < runs.len() {
                p.note { (runs.len() - measured) " of " (runs.len()) " runs have no measure of activation differences." }
            }
            @if !together.remaining.is_empty() { (picture::grid(&together.remaining)?) }
            @if let [run] = runs { (evidence_of(run)) } @else {
                @if series.iter().any(|s| !s.meeting.is_empty()) {
                    details {
                        summary { "The ratio at which each measure meets its null" }
                        @for one in series.iter().filter(|s| !s.meeting.is_empty()) {
                            @if series.len() > 1 { h4 { (one.name) } }
                            ul.verdict { @for text in &one.meeting { li { span.sign aria-hidden="true" { "–" } (text) } } }
                        }
                    }
                }
                details open[runs.len() <= 6] {
                    summary { "Run by run" }
                    ul.verdict {
                        @for run in runs {
                            li {
                                (sign(run))
                                a href={ "#" (run.anchor) } { (run.name) } ": " (headline(run)) "."
                            }
                        }
                    }
                }
            }
            details {
                summary { "How the verdict is reached" }
                p { (VERDICT_RULE) }
                p { (READABLE_RULE) }
                @if !series.is_empty() { p { (MEETS_NULL_RULE) } }
            }
        }
    })
}

/// The claim on a run in one phrase.
pub(super) fn headline<'a>(run: &PageRun<'a>) -> &'a str {
    run.held.claims.verdict.as_ref().map_or("not measured", |verdict| &verdict.headline)
}

/// The claim on one run, what each reader says, and the evidence of the measures of activation differences.
pub(super) fn claims(run: &PageRun) -> Markup {
    html! { p.lead { (sentence(headline(run))) } (evidence_of(run)) }
}

/// What each reader says of a run.
fn evidence_of(run: &PageRun) -> Markup {
    let claims = &run.held.claims;
    html! {
        @if let Some(verdict) = claims.verdict.as_ref().filter(|verdict| !verdict.readers.is_empty()) {
            div.scroll role="region" tabindex="0" aria-label="Readers, scrolls sideways" {
                table {
                    caption { span { "What each reader says." } }
                    thead { tr {
                        @for (i, heading) in READER_HEADING.iter().enumerate() {
                            @let (main, rest) = heading.split_once([':', ',']).unwrap_or((heading, ""));
                            th scope="col" { (main) @if !rest.is_empty() { small { (rest) } } }
                            @if i == 0 { th scope="col" { "0 to 1" } }
                        }
                    } }
                    tbody {
                        @for (claim, row) in verdict.readers.values().zip(reader_rows(verdict)) {
                            tr { @for (i, cell) in row.iter().enumerate() {
                                @if i == 0 { th scope="row" { (cell) } td { (score_bar(claim)) } } @else { td { (cell) } }
                            } }
                        }
                    }
                }
            }
            p.note { (READER_LEGEND) }
            @for limit in &verdict.limits { p.note { (limit) } }
            @let floors = floors(verdict);
            @if !floors.is_empty() {
                details { summary { "The other organisms, one by one" } ul.verdict { @for line in &floors { li { (line) } } } }
            }
        }
        h3.claim { "What the measures of activation differences say" }
        @if let Some(r) = &run.held.readability {
            p.note {
                "Read after block " (r.layer) ", at positions " (places(&r.positions)) ", on " (r.samples) " texts"
                @if !r.reference.is_empty() { "; compared with " (r.reference) " instead of the base" }
                "."
            }
        }
        (evidence(&reasons(claims)))
        @if !stronger_reasons(claims).is_empty() { (evidence(&stronger_reasons(claims))) }
    }
}

/// The score as a bar from 0 to 1 with its interval as a line, and the bound of the floor as a mark.
fn score_bar(claim: &ReaderClaim) -> Markup {
    let place = |x: f64| format!("{:.1}", 100.0 * x.clamp(0.0, 1.0));
    html! {
        svg.score viewBox="0 0 100 12" aria-hidden="true" focusable="false" {
            rect x="0" y="1" width="100" height="10" fill="currentColor" opacity="0.08" {}
            rect x="0" y="1" width=(place(claim.value)) height="10" fill="currentColor" opacity="0.45" {}
            @if let Some([low, high]) = claim.interval {
                line x1=(place(low)) y1="6" x2=(place(high)) y2="6" stroke="currentColor" stroke-width="1.5" {}
            }
            @if let Some(floor) = &claim.floor {
                line x1=(place(floor.bound)) y1="0" x2=(place(floor.bound)) y2="12" stroke="#C4540A" stroke-width="2" {}
            }
        }
    }
}

fn places(positions: &[usize]) -> String {
    list(&positions.iter().map(usize::to_string).collect::<Vec<_>>())
}

/// A filled or an open circle; the words beside it say the same.
fn sign(run: &PageRun) -> Markup {
    let state = run.held.claims.verdict.as_ref().map(|verdict| verdict.state);
    let sign = match state {
        Some(VerdictState::Readable | VerdictState::Hidden) => "●",
        Some(VerdictState::NotRead) => "○",
        _ => "–",
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
    if text.is_empty() { String::new() } else { format!("{}.", capitalized(text)) }
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

/// Most settings of which it is shown what is left of trace and behaviour.
const REMAINING: usize = 4;

/// What there is to say of runs together.
#[derive(Default)]
pub(super) struct Together {
    /// How many runs each claim holds of.
    counts: RunCounts,
    /// What a reader asks first.
    answers: Vec<Answer>,
    /// What is left of trace and behaviour, of the first settings with several ratios.
    remaining: Vec<Figure>,
    /// Which runs are at equal behaviour.
    pub matching: Vec<EqualBehaviour>,
    /// Behaviour against trace, by base.
    pub frontiers: Vec<(String, Vec<Figure>)>,
    /// Runs made alike that differ in the mix.
    pub series: Vec<SeriesFigures>,
}

/// Runs of one setting, of more than one mix ratio.
pub(super) struct SeriesFigures {
    /// The setting.
    name: String,
    /// In what its runs are equal, in words.
    basis: Vec<String>,
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
        let answers = match runs {
            [run] => answers::of_run(run),
            _ => answers::of_runs(runs, &across.counts, &settings),
        };
        let several: Vec<&MixSeries> =
            settings.iter().filter(|series| series.len() > 1).take(REMAINING).collect();
        let mut left: Vec<(&MixSeries, Figure)> =
            several.into_iter().filter_map(|series| Some((series, remaining::of_series(series)?))).collect();
        if left.len() > 1 {
            for (i, (series, figure)) in left.iter_mut().enumerate() {
                figure.key = format!("series-{}-{}", i + 1, figure.key);
                figure.title = format!("{}: {}", figure.title, series.label);
            }
        }
        let mut together = Self {
            counts: across.counts.clone(),
            answers,
            remaining: left.into_iter().map(|(_, figure)| figure).collect(),
            matching: across.matching.clone(),
            ..Self::default()
        };
        for series in settings.iter().filter(|series| series.len() > 1) {
            together.series.push(SeriesFigures {
                name: series.label.clone(),
                basis: matching::basis(series.claims),
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
        self.remaining
            .iter()
            .chain(frontiers)
            .chain(self.series.iter().flat_map(|s| s.doses.iter().chain(&s.training)))
    }
}

/// Which runs are at equal behaviour, with the interval of the difference.
fn equal_behaviour(together: &Together) -> Markup {
    html! {
        @if !together.matching.is_empty() {
            section aria-labelledby="matching" {
                h2 #matching { "Equal behaviour" }
                p.note {
                    "Training ended where the behaviour was at its target. What is said of runs together holds of those that \
                     are compared."
                }
                @for found in &together.matching {
                    div.scroll role="region" tabindex="0" aria-label="Equal behaviour, scrolls sideways" {
                        table {
                            caption { span { (matching::legend(found)) } }
                            thead { tr { @for heading in matching::HEADING { th scope="col" { (heading) } } } }
                            tbody {
                                @for row in matching::rows(found) {
                                    tr { @for (i, cell) in row.iter().enumerate() {
                                        @if i == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                                    } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn curves(together: &Together) -> Result<Markup> {
    let several = together.series.len() > 1;
    Ok(html! {
        @if !together.frontiers.is_empty() {
            section aria-labelledby="frontier" {
                h2 #frontier { "Behaviour against trace" }
                p.note {
                    "The horizontal axis is what the runs learned, the vertical axis the trace that can be read. \
                     Labels give the pretraining text mixed in per narrow text."
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
                    p.note { (series.basis.join(" ")) }
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
                    p.note { "One curve per ratio, the mean over its runs. Losses are in the section of each run." }
                    @for series in &together.series {
                        @if several { h3 { (series.name) } }
                        (picture::grid(&series.training)?)
                    }
                }
            }
        }
    })
}
