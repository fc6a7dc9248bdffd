//! Generated text, steered beside unsteered, of all runs.

use std::collections::HashSet;

use maud::{Markup, html};

use super::page_run::PageRun;
use crate::diff::measures::steering::SteeringLine;
use crate::report::number::{ABSENT, ratio};
use crate::report::visible::{one_line, visible};
use crate::words::{all_words, spans};

/// The section, if any run has generated text.
pub(super) fn section(runs: &[PageRun]) -> Option<Markup> {
    let with_text: Vec<(&PageRun, &[SteeringLine])> = runs
        .iter()
        .filter_map(|r| Some((r, r.held.steering.as_deref().filter(|l| !l.is_empty())?)))
        .collect();
    if with_text.is_empty() {
        return None;
    }
    let mut first = true;
    let mut groups = Vec::new();
    let (mut positions, mut strengths) = (Vec::new(), Vec::new());
    for (run, lines) in &with_text {
        for (position, strength) in settings(lines) {
            positions.push(position);
            strengths.push(ratio(strength));
            let of_group: Vec<&SteeringLine> =
                lines.iter().filter(|l| l.position == position && l.strength == strength).collect();
            groups.push(group(run, position, strength, &of_group, first));
            first = false;
        }
    }
    positions.sort_unstable();
    positions.dedup();
    let positions: Vec<(String, String)> = positions.iter().map(|p| (p.to_string(), p.to_string())).collect();
    strengths.sort_by(|a, b| number(a).total_cmp(&number(b)));
    strengths.dedup();
    let strengths: Vec<(String, String)> =
        strengths.into_iter().map(|s| (s.clone(), format!("{s} η"))).collect();
    let of_runs: Vec<(String, String)> =
        with_text.iter().map(|(run, _)| (run.anchor.clone(), run.name.clone())).collect();
    Some(html! {
        section aria-labelledby="texts" {
            h2 #texts { "Generated text" }
            p.note {
                "Text of the finetuned model on neutral prompts, with the mean difference of one position added to \
                 its residual stream (steered) and without (plain). Texts of the base, and texts with random \
                 directions added, are shown where they exist. Words of the narrow vocabulary are " mark { "underlined" } "."
            }
            // Without scripts there is nothing to filter with, so the form stays hidden.
            form.filter hidden aria-label="Filter generated text" {
                (choice("Run", "run", &of_runs))
                (choice("Position", "position", &positions))
                (choice("Strength", "strength", &strengths))
                label { "Containing " input type="search" name="words" autocomplete="off"; }
                output aria-live="polite" {}
                button type="reset" { "Show all" }
            }
            @for group in &groups { (group) }
        }
    })
}

/// A number as [`ratio`] writes it.
fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::INFINITY)
}

/// A choice of one value or all, where there is more than one.
fn choice(label: &str, name: &str, values: &[(String, String)]) -> Markup {
    html! {
        @if values.len() > 1 { label {
            (label) " "
            select name=(name) {
                option value="" { "all" }
                @for (value, text) in values { option value=(value) { (text) } }
            }
        } }
    }
}

/// Positions and strengths, as they first come.
fn settings(lines: &[SteeringLine]) -> Vec<(usize, f64)> {
    let mut settings = Vec::new();
    for line in lines {
        let setting = (line.position, line.strength);
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    settings
}

fn group(run: &PageRun, position: usize, strength: f64, lines: &[&SteeringLine], open: bool) -> Markup {
    let words: HashSet<String> = run
        .held
        .readability
        .as_ref()
        .map(|r| r.lexicon.words.iter().map(|w| w.to_lowercase()).collect())
        .unwrap_or_default();
    html! {
        details data-run=(run.anchor) data-position=(position) data-strength=(ratio(strength)) open[open] {
            summary { h3 { (run.name) ", difference of position " (position) ", strength " (ratio(strength)) " η" } }
            @for line in lines {
                article.pair {
                    header { "Prompt: " b dir="auto" { (one_line(&line.prompt, 400)) } }
                    div.sides {
                        (side("Steered", &line.steered, &words))
                        (side("Plain", &line.unsteered, &words))
                    }
                    @if !(line.base.is_empty() && line.null.is_empty()) {
                        details.more {
                            summary { "Base, and random directions" }
                            div.sides {
                                (side("Base, plain", &line.base, &words))
                                (side("Random directions added", &line.null, &words))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn side(name: &str, texts: &[String], words: &HashSet<String>) -> Markup {
    html! {
        div {
            p.side { (name) }
            @if texts.is_empty() { (ABSENT) }
            @for text in texts { blockquote dir="auto" { (marked(text, words)) } }
        }
    }
}

/// The text with the words of the vocabulary marked.
fn marked(text: &str, words: &HashSet<String>) -> Markup {
    let text = visible(text.trim());
    html! {
        @for (piece, is_word) in pieces(&text) {
            @if is_word && all_words(piece).iter().any(|word| words.contains(word)) { mark { (piece) } } @else { (piece) }
        }
    }
}

/// Splits a text into words and what lies between them.
fn pieces(text: &str) -> Vec<(&str, bool)> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    for (from, to) in spans(text) {
        pieces.extend([(&text[at..from], false), (&text[from..to], true)]);
        at = to;
    }
    pieces.push((&text[at..], false));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_vocabulary_are_marked_and_the_rest_is_escaped() {
        let words = HashSet::from(["cake".to_string()]);
        let html = marked("Cake, <b>cakes</b> & cake\u{1b}", &words).into_string();
        assert_eq!(html, "<mark>Cake</mark>, &lt;b&gt;cakes&lt;/b&gt; &amp; <mark>cake</mark>␛");
    }
}
