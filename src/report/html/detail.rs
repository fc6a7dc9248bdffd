//! What the page says about one run: tokens, numbers by position, losses, provenance.

use anyhow::Result;
use maud::{Markup, html};

use super::overview::headline;
use super::page_run::PageRun;
use super::{graded, overview, picture, provenance};
use crate::diff::MEASURES;
use crate::diff::decode::TopToken;
use crate::diff::measures::lift::Lift;
use crate::diff::measures::steering::SteeringGain;
use crate::diff::plot::{Baseline, Number, TokenLists};
use crate::diff::readout::{DecodedRelevance, Decoding};
use crate::diff::record::Readability;
use crate::report::charts::Figure;
use crate::report::number::{ABSENT, fixed, interval, p_value, ratio, signed};
use crate::report::visible::{one_line, token};
use crate::report::{behaviour, figures, training};

/// The section of a run; folded away when there are several.
pub(super) fn section(run: &PageRun, single: bool) -> Result<Markup> {
    let body = body(run, single)?;
    Ok(if single {
        html! {
            section aria-labelledby=(run.anchor) { h2 id=(run.anchor) { "Run " (run.name) } (body) }
        }
    } else {
        html! {
            details.run {
                summary {
                    h2 id=(run.anchor) { (run.name) }
                    small {
                        (headline(run))
                    }
                }
                (body)
            }
        }
    })
}

/// The figures of a run: by position, other ones of its measures, and by step of training. Their names begin with the run's
/// where there are several.
pub(super) fn figures(run: &PageRun, single: bool) -> [Vec<Figure>; 3] {
    let cell = run.held;
    let (mut by_position, mut others) = (Vec::new(), Vec::new());
    if let Some(r) = &cell.readability {
        for plot in MEASURES.iter().flat_map(|measure| (measure.figures)(r)) {
            let place = if plot.x.each == "position" { &mut by_position } else { &mut others };
            place.extend(figures::of_plot(&plot));
        }
        by_position.extend(figures::delta_norms(r));
    }
    let mut by_step = training::figures(cell);
    by_step.extend(cell.metrics.as_deref().and_then(figures::losses));
    if !single {
        // The name of a folder may hold what no address or other folder may.
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let name: String = run.name.chars().map(plain).collect();
        let all = by_position.iter_mut().chain(&mut others).chain(&mut by_step);
        all.for_each(|f| f.key = format!("{}-{name}-{}", run.anchor, f.key));
    }
    [by_position, others, by_step]
}

fn body(run: &PageRun, single: bool) -> Result<Markup> {
    let cell = run.held;
    let [by_position, others, by_step] = figures(run, single);
    Ok(html! {
        @if !single { (overview::claims(run)) }
        @if let Some(r) = &cell.readability {
            (setting(r))
            @for m in Decoding::all(r) { (tokens(run, r, &m)) }
            @if let Some(lift) = &r.lift { (lifted(run, r, lift)) }
        }
        @if !by_position.is_empty() { h3 { "By position" } (picture::grid(&by_position)?) }
        @if !others.is_empty() { h3 { "By depth, component and factor" } (picture::grid(&others)?) }
        @if !by_step.is_empty() { h3 { "While training" } (picture::grid(&by_step)?) }
        @if cell.metrics_cut_off {
            p.note { "The last line of metrics.jsonl is incomplete, as when a run is killed; it was left out." }
        }
        (absent(run))
        @if let Some(found) = &cell.behaviour { (behaviour::section(found)) }
        @if let Some(found) = &cell.graded { (graded::section(found)) }
        @if !cell.audits.is_empty() { (graded::audits(&cell.audits)) }
        @if let Some(r) = &cell.readability {
            (numbers(r))
            @if let Some(gain) = SteeringGain::of(r) { (steering(&gain)) }
            (measured(r))
            (further_tokens(run, r))
            @if !r.lexicon.rule.is_empty() { (lexicon(r)) }
        }
        @if let Some(manifest) = &cell.manifest { (provenance::mix(manifest)) }
        (provenance::section(cell))
    })
}

/// Where and on what the difference was taken.
fn setting(r: &Readability) -> Markup {
    html! {
        p.soft {
            "Difference of the residual stream after block " (r.layer) " of " (r.n_layers) " (counted from 0), "
            "mean over the first tokens of " (r.samples) " texts that are unrelated to the narrow data."
            @if let Some(shared) = &r.shared_ids {
                " The base has " (shared.base) " token ids, the tuned model " (shared.tuned) "; the comparison uses \
                                                                                              the "
                (shared.compared) " ids that both models have."
            }
        }
    }
}

/// What the run folder lacks.
fn absent(run: &PageRun) -> Markup {
    let cell = run.held;
    let mut missing = Vec::new();
    match &cell.readability {
        None => missing.push("activation differences (diff/readability.json)"),
        Some(r) => {
            if r.logit_lens.is_none() {
                missing.push("logit lens");
            }
            if r.patchscope.is_none() {
                missing.push("patchscope");
            }
            if r.steering.is_none() {
                missing.push("steering");
            }
            if r.lexicon.rule.is_empty() {
                missing.push("narrow text to compare tokens and generated text with (data.narrow)");
            }
        }
    }
    if cell.steering.is_none() {
        missing.push("generated text (diff/steering.jsonl)");
    }
    if cell.metrics.is_none() {
        missing.push("training curve (metrics.jsonl)");
    }
    if cell.manifest.is_none() {
        missing.push("manifest (manifest.json)");
    }
    html! { @if !missing.is_empty() { p.note { "Not in this run: " (missing.join(", ")) "." } } }
}

fn tokens(run: &PageRun, r: &Readability, m: &Decoding) -> Markup {
    let heading = format!("{}-{}", run.anchor, m.key);
    let opposite = if m.key == "lens" { r.logit_lens.as_ref().map(|l| &l.bottom_tokens) } else { None };
    html! {
        h3 id=(heading) { "Top tokens of the difference, " (m.name) }
        p.note {
            @if m.relevance.is_some() { "Best first; " mark { "underlined" } " tokens belong to the narrow vocabulary, · is a space." }
            @else { "Best first; · is a space." }
            @if let Some(scope) = r.patchscope.as_ref().filter(|_| m.key == "patchscope") {
                @if !scope.scale_selector.is_empty() { " Scale: " (one_line(&scope.scale_selector, 300)) }
            }
        }
        dl.tokens aria-labelledby=(heading) {
            @for (i, list) in m.tokens.iter().enumerate() {
                div {
                    dt {
                        "Position " (m.positions[i])
                        small {
                            @if let Some(m) = m.relevance {
                                (fixed(m.share.difference[i], 2)) " relevant; null " (fixed(m.null[i], 2)) " "
                                (interval(m.null_interval[i], 2)) ", p " (p_value(m.p[i])) " "
                            }
                            @if let Some(scale) = m.scale.get(i) { "scale " (ratio(*scale)) " " }
                            @if let Some(fixed) = fixed_token(r, m.positions[i]) { "always " code { (fixed) } }
                        }
                    }
                    dd {
                        (token_list(list))
                        @if let Some(null) = m.null.get(i) {
                            p.null { "A random difference, for comparison" }
                            (token_list(null))
                        }
                    }
                }
            }
        }
        @if let Some(lists) = opposite.filter(|l| l.iter().any(|t| !t.is_empty())) {
            details {
                summary { "Tokens of the opposite direction" }
                dl.tokens {
                    @for (i, list) in lists.iter().enumerate() {
                        div { dt { "Position " (m.positions[i]) } dd { (token_list(list)) } }
                    }
                }
            }
        }
    }
}

/// The words that are lifted most, and how the narrow ones rank.
fn lifted(run: &PageRun, r: &Readability, lift: &Lift) -> Markup {
    let heading = format!("{}-lift", run.anchor);
    html! {
        @if !lift.top_tokens.is_empty() {
            h3 id=(heading) { "Most lifted words" }
            p.note {
                "Words of the vocabulary by their logit in root mean squares over random directions; AUROC is the \
                 probability that a narrow word ranks above another common word, 0.5 if nothing is read."
            }
            dl.tokens aria-labelledby=(heading) {
                @for (i, list) in lift.top_tokens.iter().enumerate() {
                    div {
                        dt {
                            "Position " (r.positions.get(i).map(usize::to_string).unwrap_or_default())
                            @if let (Some(auroc), Some(ends), Some(null), Some(range)) = (
                                lift.auroc.get(i), lift.auroc_interval.get(i),
                                lift.auroc_null.get(i), lift.auroc_null_interval.get(i),
                            ) {
                                small {
                                    "AUROC " (fixed(*auroc, 2)) " " (interval(*ends, 2)) "; null " (fixed(*null, 2)) " "
                                    (interval(*range, 2))
                                }
                            }
                        }
                        dd { (token_list(list)) }
                    }
                }
            }
        }
    }
}

/// The token at a position where all samples have the same (a BOS token).
fn fixed_token(r: &Readability, position: usize) -> Option<String> {
    let i = r.positions.iter().position(|p| *p == position)?;
    r.position_tokens.get(i).filter(|t| !t.is_empty()).map(|t| token(t))
}

fn token_list(tokens: &[TopToken]) -> Markup {
    html! {
        @if tokens.is_empty() { (ABSENT) } @else {
            ol {
                @for t in tokens {
                    li title={ "token " (t.id) ", score " (format!("{:.3e}", t.score)) } {
                        @if t.relevant == Some(true) { mark { (token(&t.token)) } span.vh { " (relevant)" } }
                        @else { (token(&t.token)) }
                    }
                }
            }
        }
    }
}

/// Every number by position.
fn numbers(r: &Readability) -> Markup {
    let n = |x: f64, digits: usize| html! { td.n { (fixed(x, digits)) } };
    html! {
        h3 { "Numbers by position" }
        div.scroll role="region" tabindex="0" aria-label="Size of the difference by position" {
            table {
                caption { span { "Size of the mean difference. η is the mean norm of the tuned model’s residual \
                                  stream. Cosine: to the mean of the other positions from 1 on. Constant: the share \
                                  of the squared difference that is the same for all texts. Directions: the effective \
                                  number of directions in which single texts differ." } }
                thead { tr {
                    th scope="col" { "Position" }
                    th.n scope="col" { "Norm" } th scope="col" { "95 %" } th.n scope="col" { "η" }
                    th.n scope="col" { "Norm / η" } th.n scope="col" { "η of base" } th.n scope="col" { "Cosine" }
                    @if r.context.is_some() { th.n scope="col" { "Constant" } }
                    @if r.dimensionality.is_some() { th.n scope="col" { "Directions" } }
                } }
                tbody {
                    @for (i, p) in r.positions.iter().enumerate() {
                        tr {
                            th scope="row" { (p) }
                            (n(r.delta_norm[i], 3)) td { (interval(r.delta_norm_interval[i], 3)) }
                            (n(r.expected_norm[i], 2))
                            @if r.expected_norm[i] > 0.0 { (n(r.delta_norm[i] / r.expected_norm[i], 4)) } @else { td.n { (ABSENT) } }
                            (n(r.expected_norm_base[i], 2)) (n(r.position_cosine[i], 2))
                            @if let Some(c) = &r.context { (n(c.constant_share[i], 3)) }
                            @if let Some(d) = &r.dimensionality { (n(d.uncentred.effective_dimension[i], 2)) }
                        }
                    }
                }
            }
        }
        @for m in DecodedRelevance::all(r) {
            div.scroll role="region" tabindex="0" aria-label={ "Relevance by position, " (m.name) } {
                table {
                    caption { span { "Share of the top 20 tokens that are relevant, " (m.name) "." } }
                    thead { tr {
                        th scope="col" { "Position" } th.n scope="col" { "Difference" }
                        @if !m.interval.is_empty() { th scope="col" { "95 %" } }
                        th.n scope="col" { "Null" } th scope="col" { "95 % of null" } th.n scope="col" { "p" }
                        th.n scope="col" { "Base mean" } th.n scope="col" { "Tuned mean" }
                        @if !m.scale.is_empty() { th.n scope="col" { "Scale, η" } }
                    } }
                    tbody {
                        @for (i, p) in m.positions.iter().enumerate() {
                            tr {
                                th scope="row" { (p) } (n(m.share.difference[i], 2))
                                @if let Some(ends) = m.interval.get(i) { td { (interval(*ends, 2)) } }
                                (n(m.null[i], 3)) td { (interval(m.null_interval[i], 2)) } (n(m.p[i], 3))
                                (n(m.share.base[i], 2)) (n(m.share.tuned[i], 2))
                                @if let Some(scale) = m.scale.get(i) { td.n { (ratio(*scale)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn steering(gain: &SteeringGain) -> Markup {
    let r = gain.record;
    let s = &r.similarity;
    html! {
        div.scroll role="region" tabindex="0" aria-label="Steering by position" {
            table {
                caption { span { "Steering: mean cosine between sets of texts. Plain is unsteered, the reference is \
                                  unrelated text, the gain is the similarity to narrow text, steered minus plain." } }
                thead { tr {
                    th scope="col" { "Position" } th.n scope="col" { "Strength, η" } th.n scope="col" { "in differences" }
                    th.n scope="col" { "Steered to narrow" } th.n scope="col" { "Plain to narrow" }
                    th.n scope="col" { "Narrow to itself" }
                    th.n scope="col" { "Gain" } th scope="col" { "95 %" }
                    th.n scope="col" { "Steered to ref." } th.n scope="col" { "Plain to ref." }
                    th.n scope="col" { "Words steered" } th.n scope="col" { "Words plain" }
                } }
                tbody {
                    @for (i, p) in r.positions.iter().enumerate() {
                        tr {
                            th scope="row" { (p) }
                            td.n { (ratio(r.strength[i])) } td.n { (fixed(r.strength_in_differences[i], 1)) }
                            @for x in [s.steered_narrow[i], s.unsteered_narrow[i], s.narrow_narrow[i]] { td.n { (fixed(x, 3)) } }
                            td.n { (signed(gain.gain[i], 3)) } td { (interval(r.similarity_gain_interval[i], 3)) }
                            @for x in [
                                s.steered_reference.get(i), s.unsteered_reference.get(i),
                                r.relevant_words_steered.get(i), r.relevant_words_unsteered.get(i),
                            ] { td.n { (x.map_or_else(|| ABSENT.into(), |x| fixed(*x, 3))) } }
                        }
                    }
                }
            }
        }
    }
}

/// Measures whose numbers stand in the table of losses, in this order.
const LOSSES: [&str; 3] = ["kl", "bias_share", "causal"];

/// The numbers of measures that are one for the run: those about losses, and the others.
fn measured(r: &Readability) -> Markup {
    let of = |key: &&str| MEASURES.iter().find(|measure| measure.key == *key);
    let losses: Vec<Number> = LOSSES.iter().filter_map(of).flat_map(|m| (m.numbers)(r)).collect();
    let others = MEASURES.iter().filter(|measure| !LOSSES.contains(&measure.key));
    let others: Vec<Number> = others.flat_map(|m| (m.numbers)(r)).collect();
    let notes: Vec<String> = MEASURES.iter().flat_map(|measure| (measure.notes)(r)).collect();
    html! {
        (table("Losses", "Losses. The gain is base minus tuned; intervals are over documents.", &losses))
        (table("Other measures", "Other measures.", &others))
        @for note in &notes { p.note { (one_line(note, 300)) } }
    }
}

fn table(label: &str, caption: &str, numbers: &[Number]) -> Markup {
    html! {
        @if !numbers.is_empty() {
            div.scroll role="region" tabindex="0" aria-label=(label) {
                table {
                    caption { span { (caption) } }
                    thead { tr {
                        th scope="col" { "Measure" } th.n scope="col" { "Value" } th scope="col" { "95 %" } th scope="col" { "Baseline" }
                    } }
                    tbody {
                        @for number in numbers {
                            tr {
                                th scope="row" { (one_line(&number.name, 200)) } td.n { (fixed(number.value, 4)) }
                                td { @if let Some(ends) = number.interval { (interval(ends, 4)) } @else { (ABSENT) } }
                                td { @if let Some(baseline) = &number.baseline { (in_words(baseline)) } @else { (ABSENT) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn in_words(baseline: &Baseline) -> String {
    let (value, digits) = match baseline.is_change {
        true => (signed(baseline.value, 4), 4),
        false => (fixed(baseline.value, 3), 3),
    };
    let range = interval(baseline.interval, digits);
    format!("{} {value} {range}, p = {}", baseline.name, fixed(baseline.p, 3))
}

/// Lists of tokens of measures that have no section of their own, folded away.
fn further_tokens(run: &PageRun, r: &Readability) -> Markup {
    let all = MEASURES.iter().flat_map(|measure| (measure.tokens)(r));
    let some: Vec<TokenLists> = all.filter(|found| found.lists.iter().any(|l| !l.1.is_empty())).collect();
    html! {
        @for found in &some {
            details {
                summary id={ (run.anchor) "-" (found.key) } { (found.title) }
                dl.tokens {
                    @for (name, tokens) in &found.lists { div { dt { (one_line(name, 60)) } dd { (token_list(tokens)) } } }
                }
            }
        }
    }
}

fn lexicon(r: &Readability) -> Markup {
    html! {
        details {
            summary { "The narrow vocabulary (" (r.lexicon.words.len()) " words)" }
            @if !r.lexicon.rule.is_empty() { p.note { (one_line(&r.lexicon.rule, 1000)) } }
            p { (r.lexicon.words.iter().map(|w| one_line(w, 60)).collect::<Vec<_>>().join(", ")) }
        }
    }
}
