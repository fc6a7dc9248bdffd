//! A chart with heading, legend and caption as an HTML figure.

use anyhow::Result;
use maud::{Markup, PreEscaped, html};

use super::charts::{Ink, Mark};
use super::figures::{Figure, Key, KeyKind};

/// The figure.
pub(super) fn figure(figure: &Figure) -> Result<Markup> {
    let svg = figure.chart.svg()?;
    Ok(html! {
        figure {
            h4 { (figure.title) }
            div.chart role="img" aria-label={ (figure.title) ". " (figure.spoken) } { (PreEscaped(svg)) }
            figcaption {
                ul.key { @for key in &figure.legend { li { (swatch(key)) (key.text) } } }
                (figure.caption)
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
