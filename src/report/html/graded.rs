//! What language models said of a run: grades of its tokens and texts, and audits.

use maud::{Markup, html};

use crate::audit::Record;
use crate::grade::agreement::Agreement;
use crate::grade::record::{Graded, Series};
use crate::report::number::{ABSENT, fixed, grouped, ratio};
use crate::report::visible::{one_line, visible};

/// The section on `graded.json`.
pub(super) fn section(g: &Graded) -> Markup {
    html! {
        h3 { "Graded by a language model" }
        p.note {
            "By " (one_line(&g.grader.model, 80)) ", temperature " (ratio(g.grader.temperature))
            ", which saw this description of the training data: " (one_line(&g.description, 300)) ". "
            @if let Some(a) = &g.agreement {
                "Over all lists, " (fixed(a.unanimous * 100.0, 0)) " % of the tokens got the same verdict in every \
                                                                    order"
                @if let Some(alpha) = a.alpha { " (Krippendorff’s alpha " (fixed(alpha, 2)) ")" } ". "
            }
            "Grades are only as good as the grader."
        }
        div.scroll role="region" tabindex="0" aria-label="Graded relevance of tokens" {
            table {
                caption { span { "Share of the top tokens that the grader calls relevant, by position." } }
                thead { tr {
                    th scope="col" { "Tokens of" }
                    @for p in &g.positions { th.n scope="col" { (p) } }
                    th.n scope="col" { "Mean" } th.n scope="col" { "Largest" } th.n scope="col" { "Judged alike" }
                } }
                tbody {
                    @for (by, of) in &g.token_relevance { @for (what, series) in of {
                        (row(&format!("{}, {what}", by.replace('_', " ")), series))
                    } }
                    @for (name, other) in &g.against { @for (by, series) in &other.token_relevance {
                        (row(&format!("{}, difference under the description of {name}", by.replace('_', " ")), series))
                    } }
                }
            }
        }
        @if let Some(texts) = &g.steering {
            p {
                "Coherent of the steered texts: "
                @for (i, p) in texts.positions.iter().enumerate() {
                    @if i > 0 { ", " }
                    (share(texts.coherent_share.get(i).copied().flatten())) " at position " (p)
                }
                "; of the plain texts: " (share(texts.coherent_share_unsteered)) "."
            }
        }
        @if !g.ungraded.is_empty() {
            details {
                summary { (g.ungraded.len()) " without a grade that could be read" }
                ul { @for text in &g.ungraded { li { (one_line(text, 300)) } } }
            }
        }
    }
}

fn row(name: &str, s: &Series) -> Markup {
    let alike: Vec<f64> = s.agreement.iter().flatten().map(|a: &Agreement| a.unanimous).collect();
    html! {
        tr {
            th scope="row" { (one_line(name, 120)) }
            @for value in &s.share { td.n { (share(*value)) } }
            td.n { (share(s.mean)) } td.n { (share(s.max)) } td.n { (share(crate::diff::readout::mean(&alike))) }
        }
    }
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| ABSENT.into(), |v| fixed(v, 2))
}

/// The section on audits.
pub(super) fn audits(all: &[Record]) -> Markup {
    html! {
        h3 { "Audits" }
        p.note {
            "A language model finds out what the run was trained on, without a description of it. A grader scores the \
             hypothesis from 1 (nothing is right) to 5. Black-box audits see no activations; they are the baseline."
        }
        div.scroll role="region" tabindex="0" aria-label="Audits" {
            table.wrap {
                caption { span { "Every audit of the run." } }
                thead { tr {
                    th scope="col" { "Condition" } th.n scope="col" { "Seed" } th scope="col" { "Investigator" }
                    th.n scope="col" { "Grade" } th.n scope="col" { "Turns" } th.n scope="col" { "Interactions" }
                    th.n scope="col" { "Tokens written" } th scope="col" { "Hypothesis" }
                } }
                tbody {
                    @for a in all {
                        @let used = &a.investigation.used;
                        tr {
                            th scope="row" { (one_line(&a.plan.condition, 40)) } td.n { (a.plan.seed) }
                            td { (one_line(&a.plan.investigator.model, 60)) }
                            td.n { (grade(a)) }
                            td.n { (used.turns) } td.n { (used.interactions) }
                            td.n { (grouped(used.tokens.completion_tokens)) }
                            td.text { (a.investigation.hypothesis.as_deref().map_or_else(|| "none within the budget".into(), visible)) }
                        }
                    }
                }
            }
        }
    }
}

/// The mean grade, and by how many gradings.
fn grade(a: &Record) -> String {
    match a.grade.as_ref().map(|g| &g.grades) {
        Some(Some(g)) => format!("{} of 5 ({} ×)", ratio(g.mean), g.each.len()),
        Some(None) => "unreadable".into(),
        None => "not graded".into(),
    }
}
