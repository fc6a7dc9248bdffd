//! A chart with heading, legend, caption and its files as an HTML figure.

use anyhow::Result;
use maud::{Markup, PreEscaped, html};

use super::charts::{Figure, Key, KeyKind};
use super::draw::{Mark, svg_file};
use crate::diff::plot::Ink;

/// Figures side by side.
pub(super) fn grid(figures: &[Figure]) -> Result<Markup> {
    let drawn = figures.iter().map(figure).collect::<Result<Vec<Markup>>>()?;
    Ok(html! { @if !drawn.is_empty() { div.figures { @for one in &drawn { (one) } } } })
}

/// The figure, with links to its file and its numbers: both lie in the page.
fn figure(figure: &Figure) -> Result<Markup> {
    let svg = figure.chart.svg()?;
    let title = &figure.title;
    Ok(html! {
        figure id=(figure.key) {
            // As a paragraph: figures stand under headings of several levels.
            p.title { (title) }
            div.chart role="img" aria-label={ (figure.title) ". " (figure.spoken) } { (PreEscaped(svg)) }
            figcaption {
                ul.key { @for key in &figure.legend { li { (swatch(key)) (key.text) } } }
                (figure.caption)
                p.files {
                    a download={ (figure.key) ".svg" } href=(data("image/svg+xml", &svg_file(figure)?))
                        aria-label={ "SVG: " (title) } { "SVG" }
                    // Without scripts nothing can draw it.
                    button type="button" hidden data-png=(figure.key) aria-label={ "PNG: " (title) } { "PNG" }
                    a download={ (figure.key) ".csv" } href=(data("text/csv", &figure.csv()?))
                        aria-label={ "Data as CSV: " (title) } { "CSV" }
                }
            }
        }
    })
}

fn swatch(key: &Key) -> Markup {
    let color = key.ink.hex();
    html! {
        span.chart aria-hidden="true" {
            svg viewBox="0 0 38 16" style="display:inline-block" {
                @match key.kind {
                    KeyKind::Band => { rect x="2" y="2" width="34" height="12" fill=(color) opacity="0.25" {} }
                    KeyKind::Dashed => { line x1="1" y1="8" x2="37" y2="8" stroke=(color) stroke-width="2.5" stroke-dasharray="7 5" {} }
                    KeyKind::Plain => { line x1="1" y1="8" x2="37" y2="8" stroke=(color) stroke-width="3" {} }
                    KeyKind::Line => {
                        line x1="1" y1="8" x2="37" y2="8" stroke=(color) stroke-width="2.5" {}
                        (mark(key.ink, &color))
                    }
                }
            }
        }
    }
}

fn mark(ink: Ink, color: &str) -> Markup {
    html! {
        @match ink.mark() {
            Mark::Dot => { circle cx="19" cy="8" r="5" fill=(color) {} }
            Mark::Ring => { circle cx="19" cy="8" r="5" fill="none" stroke=(color) stroke-width="2" {} }
            Mark::Square => { rect x="14" y="3" width="10" height="10" fill=(color) {} }
            Mark::Cross => { path d="M14 3l10 10M24 3l-10 10" stroke=(color) stroke-width="2" {} }
        }
    }
}

/// A `data:` address of some text.
fn data(kind: &str, text: &str) -> String {
    let mut uri = format!("data:{kind};charset=utf-8,");
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'='
            | b'/'
            | b','
            | b'('
            | b')' => {
                uri.push(byte as char);
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_an_address_is_encoded() {
        assert_eq!(data("text/csv", "a,#1\n%ä"), "data:text/csv;charset=utf-8,a,%231%0A%25%C3%A4");
    }
}
