//! `report.html`: one page that needs nothing but itself. Works without scripts, on a phone and on paper.

mod detail;
mod graded;
mod overview;
mod page_run;
mod picture;
mod provenance;
mod texts;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::page_run::PageRun;
use super::charts::Figure;
use super::draw::svg_file;
use super::png::Painter;
use super::visible::{one_line, visible};
use crate::atomic::write_atomically;
use crate::claims::{ClaimedRun, across_runs};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Writes the page of some runs; the file appears whole or not at all.
pub fn write_html(cells: &[ClaimedRun], path: &Path) -> Result<()> {
    write_atomically(path, page(cells)?.as_bytes())
}

/// What [`write_figures`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenFigures {
    /// Number of figures.
    pub figures: usize,
    /// Whether they were written as PNG too: not on a system without fonts.
    pub png: bool,
}

/// Writes every figure of the page as `NAME.svg` and `NAME.png` and its numbers as `NAME.csv` into a folder, which is made.
pub fn write_figures(cells: &[ClaimedRun], dir: &Path) -> Result<WrittenFigures> {
    let together = overview::Together::of(cells, &across_runs(cells)?);
    let runs = all_runs(cells);
    let of_runs = runs.iter().flat_map(|run| detail::figures(run, runs.len() == 1)).flatten();
    let figures: Vec<Figure> = together.figures().cloned().chain(of_runs).collect();
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let painter = Painter::new();
    let mut taken = BTreeSet::new();
    for figure in &figures {
        let name = file_name(&figure.key, &mut taken);
        let place = |ending: &str| dir.join(format!("{name}.{ending}"));
        let svg = visible(&svg_file(figure)?);
        write_atomically(&place("svg"), svg.as_bytes())?;
        write_atomically(&place("csv"), figure.csv()?.as_bytes())?;
        if let Some(painter) = &painter {
            write_atomically(&place("png"), &painter.png(&svg)?)?;
        }
    }
    Ok(WrittenFigures { figures: figures.len(), png: painter.is_some() })
}

/// A name of a file from the key of a figure, in which a key of `metrics.jsonl` may stand: of letters, digits, `-`, `_` and `.`,
/// and not yet taken.
fn file_name(key: &str, taken: &mut BTreeSet<String>) -> String {
    const LONGEST: usize = 150;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let plain: String = key.chars().take(LONGEST).map(|c| if is_plain(c) { c } else { '-' }).collect();
    let plain = plain.trim_start_matches('.');
    let plain = if plain.is_empty() { "figure" } else { plain };
    let numbered = (2..).map(|n| format!("{plain}-{n}"));
    let name = std::iter::once(plain.to_string()).chain(numbered).find(|name| !taken.contains(name));
    let name = name.unwrap_or_default();
    taken.insert(name.clone());
    name
}

fn all_runs(cells: &[ClaimedRun]) -> Vec<PageRun<'_>> {
    cells.iter().enumerate().map(|(i, c)| PageRun::new(i, c)).collect()
}

/// The page of some runs.
pub fn page(cells: &[ClaimedRun]) -> Result<String> {
    let together = overview::Together::of(cells, &across_runs(cells)?);
    let runs = all_runs(cells);
    let title = title(cells);
    let mut details = Vec::new();
    for run in &runs {
        details.push(detail::section(run, runs.len() == 1)?);
    }
    let steered = texts::section(&runs);
    let overview = overview::sections(&runs, &together)?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#verdict" { "Skip to the verdict" }
                header {
                    p.eyebrow { "How readable is the trace of the finetuning?" }
                    h1 { (title) }
                    (descriptions(cells))
                    (contents(&runs, &together, steered.is_some()))
                }
                main {
                    (overview)
                    @for detail in &details { (detail) }
                    @if let Some(steered) = steered { (steered) }
                }
                footer {
                    p { "Written by trainer " (env!("CARGO_PKG_VERSION")) ". This page loads nothing from elsewhere." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    // The page's own text has none of the characters that this replaces.
    Ok(visible(&page.into_string()))
}

fn title(cells: &[ClaimedRun]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for cell in cells {
        if !names.contains(&cell.name()) {
            names.push(cell.name());
        }
    }
    let shown = one_line(&names.iter().take(3).copied().collect::<Vec<_>>().join(", "), 80);
    let more = if names.len() > 3 { ", …" } else { "" };
    match cells.len() {
        1 => shown,
        n => format!("{shown}{more}: {n} runs"),
    }
}

/// What the organisms were trained on; said once where runs agree.
fn descriptions(cells: &[ClaimedRun]) -> Markup {
    let mut all: Vec<String> = Vec::new();
    for cell in cells {
        if let Some(text) = cell.description() {
            let text = one_line(text, 600);
            if !all.contains(&text) {
                all.push(text);
            }
        }
    }
    html! {
        @for text in all.iter().take(5) { p.lead { "Trained on: " (text) } }
    }
}

fn contents(runs: &[PageRun], together: &overview::Together, steered: bool) -> Markup {
    html! {
        nav aria-label="Contents" {
            ol {
                li { a href="#verdict" { "Verdict" } }
                @if !together.matching.is_empty() { li { a href="#matching" { "Equal behaviour" } } }
                @if !together.frontiers.is_empty() { li { a href="#frontier" { "Behaviour against trace" } } }
                @if !together.series.is_empty() { li { a href="#dose" { "Readability against the mix" } } }
                @if together.series.iter().any(|s| !s.training.is_empty()) { li { a href="#training" { "Trace over training" } } }
                li { a href="#table" { "Table" } }
                @for run in runs { li { a href={ "#" (run.anchor) } { (run.name) } } }
                @if steered { li { a href="#texts" { "Generated text" } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_a_path_becomes_a_plain_name() {
        let mut taken = BTreeSet::new();
        let mut name = |key: &str| file_name(key, &mut taken);
        assert_eq!(name("loss"), "loss");
        assert_eq!(name("trace_x/../../evil"), "trace_x-..-..-evil");
        assert_eq!(name("../../evil"), "-..-evil");
        assert_eq!(name("loss"), "loss-2");
        assert_eq!((name(""), name("..")), ("figure".into(), "figure-2".into()));
        assert_eq!(name(&"a".repeat(500)).len(), 150);
    }
}
