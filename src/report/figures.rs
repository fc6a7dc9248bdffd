//! Which charts a report has, and what they show in words.

use super::charts::{
    Axis, Band, Chart, Figure, Key, KeyKind, Line, Spacing, figure, finite, scale, step_axis, values,
};
use super::doses::{are_single, bars, marks};
use super::mix_scale::MixScale;
use super::number::{fixed, ratio, signed};
use super::series::MixSeries;
use super::visible::one_line;
use super::words::capitalized;
use crate::claims::dose::Dose;
use crate::claims::trace::{LENS, LIFT, PATCHSCOPE, PROBE, SPECIFIC_SHARE, STEERING, trace_measures};
use crate::diff::headline::TraceMeasure;
use crate::diff::plot::{Ink, NullBand, Plot, PlotSeries, PlotSpacing, PlotStyle};
use crate::diff::record::Readability;
use crate::diff::statistics::Interval;
use crate::run::metrics::MetricsLine;

/// Points by x.
type Points = Vec<(f64, f64)>;

/// Most points that a loss curve is drawn with; a longer one is averaged.
const MOST_POINTS: usize = 240;

/// Readability against the mix ratio: decoding, steering, words, losses. Only what was measured.
pub fn dose_response(groups: &MixSeries) -> Vec<Figure> {
    let mut figures: Vec<Figure> = [
        lift_doses(groups),
        decoding_doses(groups),
        base_steering_doses(groups),
        steering_doses(groups),
        word_doses(groups),
        bias_doses(groups),
        probe_doses(groups),
        loss_doses(groups),
    ]
    .into_iter()
    .flatten()
    .collect();
    figures.extend(behaviour_doses(groups));
    figures.extend(
        trace_measures().filter(|m| !HAVE_FIGURES.contains(&m.key)).filter_map(|m| trace_doses(m, groups)),
    );
    figures
}

/// Measures of the trace with a dose-response figure of their own; every other one has that of [`trace_doses`].
const HAVE_FIGURES: [&str; 6] = [LIFT, LENS, PATCHSCOPE, STEERING, SPECIFIC_SHARE, PROBE];

/// A measure of the trace as it declares itself.
fn trace_doses(measure: &TraceMeasure, groups: &MixSeries) -> Option<Figure> {
    let found = groups.dose(measure.key);
    let bands = vec![dose_band(found, measure.ink, "null")];
    let mut lines = null_line(found, Ink::Base, "where nothing is read");
    lines.extend(dose_lines(found, measure.ink, measure.name, false));
    let y = scale(measure.axis, values(&lines, &bands), false);
    let mut legend = vec![Key::new(measure.ink, KeyKind::Line, measure.name)];
    if lines.iter().any(|line| line.dashed) {
        legend.push(Key::new(Ink::Base, KeyKind::Dashed, "where nothing is read"));
    }
    if !bands[0].edges.is_empty() {
        legend.push(Key::new(measure.ink, KeyKind::Band, "95 % where nothing is read"));
    }
    let name = capitalized(measure.name);
    figure(Figure {
        key: format!("{}-mix", measure.key.replace('_', "-")),
        title: format!("{name} against the mix"),
        caption: marks(found, "texts"),
        spoken: spoken_doses(&name, found, |v| fixed(v, 3)),
        legend,
        chart: Chart { x: mix_axis(groups, MixScale::over(groups)), y, bands, lines, labels: vec![] },
    })
}

pub(super) fn mix_axis(groups: &MixSeries, mix: MixScale) -> Axis {
    let places: Vec<f64> = groups.iter().map(|g| mix.place(g.0)).collect();
    let low = places.first().copied().unwrap_or(0.0);
    let high = places.last().copied().unwrap_or(1.0);
    let room = (high - low).max(0.1) * 0.05;
    // Labels of ratios that lie closer than a label is wide would print over each other.
    let mut ticks: Vec<(f64, String)> = Vec::new();
    for (group, place) in groups.iter().zip(&places) {
        if ticks.last().is_none_or(|t| place - t.0 > (high - low) * 0.07) {
            ticks.push((*place, ratio((group.0 * 100.0).round() / 100.0)));
        }
    }
    Axis {
        title: "pretraining text per narrow text".into(),
        spacing: Spacing::Mix(mix),
        range: low - room..high + room,
        ticks,
    }
}

/// The mean of each ratio, and the runs behind it.
fn dose_lines(doses: &[Dose], ink: Ink, name: &str, dashed: bool) -> Vec<Line> {
    let means = doses.iter().map(|d| (d.mix, d.mean())).collect();
    let mut line = Line { dashed, marked: !dashed, ..Line::new(ink, name, means) };
    if dashed {
        return vec![line];
    }
    line.bars = bars(doses);
    if are_single(doses) {
        line.runs = doses.iter().flat_map(|d| d.runs.clone()).collect();
        return vec![line];
    }
    let several = || doses.iter().filter(|d| d.values.len() > 1);
    let points = several().flat_map(|d| d.values.iter().map(move |v| (d.mix, *v))).collect();
    let runs = Line {
        joined: false,
        faint: true,
        runs: several().flat_map(|d| d.runs.clone()).collect(),
        ..Line::new(ink, format!("{name}, single runs"), points)
    };
    vec![runs, line]
}

/// The range of a null, mean over runs.
fn dose_band(doses: &[Dose], ink: Ink, name: &str) -> Band {
    let edges = doses.iter().filter_map(|d| d.null_interval.map(|[low, high]| (d.mix, low, high)));
    Band { ink, name: name.into(), edges: edges.collect() }
}

/// A null, mean over runs.
fn null_line(doses: &[Dose], ink: Ink, name: &str) -> Vec<Line> {
    let means = doses.iter().filter_map(|d| Some((d.mix, d.null?))).collect();
    vec![Line { dashed: true, marked: false, ..Line::new(ink, name, means) }]
}

/// Shares as far as they can be: an interval of their mean may reach beyond.
fn shares(values: Vec<f64>) -> impl Iterator<Item = f64> {
    values.into_iter().map(|v| v.clamp(0.0, 1.0))
}

fn spoken_doses(name: &str, doses: &[Dose], show: impl Fn(f64) -> String) -> String {
    let points: Vec<String> =
        doses.iter().map(|d| format!("{} at mix {}", show(d.mean()), ratio(d.mix))).collect();
    if points.is_empty() { String::new() } else { format!("{name}: {}. ", points.join(", ")) }
}

fn lift_doses(groups: &MixSeries) -> Option<Figure> {
    let values_of = groups.dose(LIFT);
    let bands = vec![dose_band(values_of, Ink::Lift, "null")];
    let lines = dose_lines(values_of, Ink::Lift, "lift, mean over positions", false);
    let y = scale("AUROC of narrow words over common words", values(&lines, &bands), false);
    figure(Figure {
        key: "lift-mix".into(),
        title: "Lift of the narrow words against the mix".into(),
        caption: format!(
            "{} The band is the 95 % range of random directions; 0.5 means that the difference does not distinguish \
             narrow words from others.",
            marks(values_of, "texts")
        ),
        spoken: spoken_doses("Lift", values_of, |v| fixed(v, 3)),
        legend: vec![
            Key::new(Ink::Lift, KeyKind::Line, "lift, mean over positions"),
            Key::new(Ink::Lift, KeyKind::Band, "random directions"),
        ],
        chart: Chart { x: mix_axis(groups, MixScale::over(groups)), y, bands, lines, labels: vec![] },
    })
}

/// How much of the gain on narrow text one constant vector gives.
fn bias_doses(groups: &MixSeries) -> Option<Figure> {
    let (specific, whole) = (groups.dose(SPECIFIC_SHARE), groups.dose_beside(SPECIFIC_SHARE, "share"));
    let bands = vec![dose_band(whole, Ink::Base, "random directions: null")];
    let mut lines = null_line(whole, Ink::Base, "random directions");
    lines.extend(dose_lines(whole, Ink::Bias, "share of the gain", true));
    lines.extend(dose_lines(specific, Ink::Bias, "specific share", false));
    let y = scale("share of the gain on narrow text", values(&lines, &bands), true);
    let mut legend = Vec::new();
    if !specific.is_empty() {
        legend.push(Key::new(Ink::Bias, KeyKind::Line, "minus the gain on unrelated text (specific share)"));
    }
    legend.push(Key::new(Ink::Bias, KeyKind::Dashed, "whole share"));
    legend.push(Key::new(Ink::Base, KeyKind::Dashed, "random directions of the same norm"));
    if !bands[0].edges.is_empty() {
        legend.push(Key::new(Ink::Base, KeyKind::Band, "95 % of random directions"));
    }
    figure(Figure {
        key: "bias-mix".into(),
        title: "What a constant bias explains, against the mix".into(),
        caption: format!(
            "{} The gain from adding the mean difference alone to the base, as a share of the gain from finetuning. \
             Any finetuning may be a constant in part, so the whole share does not show narrow finetuning. The \
             specific share does; its null is 0. The band is the 95 % range of random directions of the same norm, to \
             compare the whole share with.",
            marks(specific, "documents")
        ),
        spoken: spoken_doses("Specific share", specific, |v| fixed(v, 3))
            + &spoken_doses("Share", whole, |v| fixed(v, 3)),
        legend,
        chart: Chart { x: mix_axis(groups, MixScale::over(groups)), y, bands, lines, labels: vec![] },
    })
}

/// How far the difference lies along a probe with labelled examples.
fn probe_doses(groups: &MixSeries) -> Option<Figure> {
    let found = groups.dose(PROBE);
    let bands = vec![dose_band(found, Ink::Probe, "null")];
    let lines = dose_lines(found, Ink::Probe, "probe", false);
    let y = scale("AUROC of the difference along the probe", shares(values(&lines, &bands)), true);
    figure(Figure {
        key: "probe-mix".into(),
        title: "The probe with labelled examples against the mix".into(),
        caption: format!(
            "{} The probability that the difference has a larger cosine with the probe than a random direction. For \
             random directions, every value is equally likely; the band holds 19 of 20 of them, and the interval must \
             be above it.",
            marks(found, "texts")
        ),
        spoken: spoken_doses("Probe", found, |v| fixed(v, 3)),
        legend: vec![
            Key::new(Ink::Probe, KeyKind::Line, "difference, along the probe"),
            Key::new(Ink::Probe, KeyKind::Band, "19 of 20 random directions"),
        ],
        chart: Chart { x: mix_axis(groups, MixScale::over(groups)), y, bands, lines, labels: vec![] },
    })
}

/// The main value of each family of behaviour.
fn behaviour_doses(groups: &MixSeries) -> Vec<Figure> {
    let of_name = |name: &str| {
        let (tuned, base) =
            (groups.dose_beside("behaviour", name), groups.dose_beside("behaviour_base", name));
        let unit = groups.iter().flat_map(|g| &g.1).find_map(|c| Some(c.behaviour.as_ref()?.unit(name)));
        let mut lines = dose_lines(base, Ink::Base, "base", true);
        lines.extend(dose_lines(tuned, Ink::Narrow, "tuned", false));
        let y = scale(unit.filter(|u| !u.is_empty()).unwrap_or(name), values(&lines, &[]), true);
        figure(Figure {
            key: format!("behaviour-{}-mix", name.replace('.', "-")),
            title: format!("Behaviour against the mix: {}", one_line(name, 60)),
            caption: format!(
                "{} What the organism does, measured without a grader (trainer behave).",
                marks(tuned, "items")
            ),
            spoken: spoken_doses("Tuned", tuned, |v| signed(v, 3))
                + &spoken_doses("Base", base, |v| signed(v, 3)),
            legend: vec![
                Key::new(Ink::Narrow, KeyKind::Line, "tuned"),
                Key::new(Ink::Base, KeyKind::Dashed, "base"),
            ],
            chart: Chart {
                x: mix_axis(groups, MixScale::over(groups)),
                y,
                bands: vec![],
                lines,
                labels: vec![],
            },
        })
    };
    let keys = groups.claims.doses.keys();
    keys.filter_map(|key| key.strip_prefix("behaviour.")).filter_map(of_name).collect()
}

fn decoding_doses(groups: &MixSeries) -> Option<Figure> {
    let mix = MixScale::over(groups);
    let mut lines = Vec::new();
    let mut bands = Vec::new();
    let mut legend = Vec::new();
    let mut spoken = String::new();
    // Only the logit lens has intervals within a run.
    let mut explained = String::new();
    let measures: [(&str, Ink, [&'static str; 4]); 2] = [
        (
            LENS,
            Ink::Lens,
            [
                "logit lens, best position",
                "its mean over positions",
                "random directions (logit lens)",
                "Logit lens",
            ],
        ),
        (
            PATCHSCOPE,
            Ink::Patchscope,
            [
                "patchscope, best position",
                "its mean over positions",
                "random directions (patchscope)",
                "Patchscope",
            ],
        ),
    ];
    for (key, ink, words) in measures {
        let best = groups.dose(key);
        if best.is_empty() {
            continue;
        }
        if explained.is_empty() || (are_single(best) && !bars(best).is_empty()) {
            explained = marks(best, "texts");
        }
        bands.push(dose_band(best, ink, &format!("{}: null", words[3])));
        lines.extend(dose_lines(
            groups.dose_beside(key, "mean"),
            ink,
            &format!("{}: mean over positions", words[3]),
            true,
        ));
        lines.extend(dose_lines(best, ink, words[0], false));
        legend.push(Key::new(ink, KeyKind::Line, words[0]));
        legend.push(Key::new(ink, KeyKind::Dashed, words[1]));
        legend.push(Key::new(ink, KeyKind::Band, words[2]));
        let name = format!("{}, best position", words[3]);
        spoken.push_str(&spoken_doses(&name, best, |v| fixed(v, 2)));
    }
    let y = scale("share of the top 20 tokens that are relevant", shares(values(&lines, &bands)), true);
    figure(Figure {
        key: "tokens-mix".into(),
        title: "Decoded tokens against the mix".into(),
        caption: format!(
            "{explained} The band is the 95 % range of random directions at one position; the best of several \
             positions is higher by chance."
        ),
        spoken,
        legend,
        chart: Chart { x: mix_axis(groups, mix), y, bands, lines, labels: vec![] },
    })
}

/// The similarity itself and not its gain over plain text: mixing also moves the plain text away from the
/// subject, so that the gain grows where the steered text comes no nearer.
///
/// Where the base was steered too, that is another figure: its plain text is the same for every run, so that it compares.
fn steering_doses(groups: &MixSeries) -> Option<Figure> {
    let mix = MixScale::over(groups);
    let steered = groups.dose(STEERING);
    let [mean, plain, ceiling, random] =
        ["mean", "plain", "ceiling", "random"].map(|name| groups.dose_beside(STEERING, name));
    let bands = vec![dose_band(steered, Ink::Tuned, "random directions: null")];
    let has_band = !bands[0].edges.is_empty();
    let mut lines = dose_lines(mean, Ink::Steered, "steered, mean over positions", true);
    let means = ceiling.iter().map(|d| (d.mix, d.mean())).collect();
    lines.push(Line { marked: false, ..Line::new(Ink::Narrow, "narrow text to itself", means) });
    lines.extend(dose_lines(random, Ink::Tuned, "steered by random directions", false));
    lines.extend(dose_lines(plain, Ink::Base, "plain", false));
    lines.extend(dose_lines(steered, Ink::Steered, "steered, best position", false));
    let y = scale("similarity of generated text to the narrow text", values(&lines, &bands), true);
    let show = |v| fixed(v, 3);
    figure(Figure {
        key: "steering-mix".into(),
        title: "Steering against the mix".into(),
        caption: format!(
            "{} A high value means that text written with the difference added is about the narrow subject; the \
             ceiling is the similarity of narrow texts to each other. A value no higher than plain means that the \
             difference does not lead to the subject. If plain text is high itself, the model talks about the subject \
             unasked.{}",
            marks(steered, "prompts"),
            if has_band {
                " The band is text steered by random directions, with the 95 % interval of its distance from the \
                 steered text: a mark above the band is distinguishable from random directions."
            } else {
                ""
            }
        ),
        spoken: spoken_doses("Steered, best position", steered, show)
            + &spoken_doses("Plain", plain, show)
            + &spoken_doses("Narrow text to itself", ceiling, show),
        legend: vec![
            Key::new(Ink::Steered, KeyKind::Line, "steered, best position"),
            Key::new(Ink::Steered, KeyKind::Dashed, "its mean over positions"),
            Key::new(Ink::Base, KeyKind::Line, "plain (unsteered), same model"),
            Key::new(Ink::Narrow, KeyKind::Plain, "narrow text to itself (ceiling)"),
        ]
        .into_iter()
        .chain(
            (!random.is_empty()).then(|| Key::new(Ink::Tuned, KeyKind::Line, "steered by random directions")),
        )
        .chain(has_band.then(|| Key::new(Ink::Tuned, KeyKind::Band, "95 % of random directions")))
        .collect(),
        chart: Chart { x: mix_axis(groups, mix), y, bands, lines, labels: vec![] },
    })
}

/// Steering of the base, beside what the tuned model writes by itself.
fn base_steering_doses(groups: &MixSeries) -> Option<Figure> {
    let [base, base_plain, plain] =
        ["base", "base_plain", "plain"].map(|name| groups.dose_beside(STEERING, name));
    if base.is_empty() {
        return None;
    }
    let mut lines = dose_lines(base_plain, Ink::Base, "the base, plain", true);
    lines.extend(dose_lines(plain, Ink::Tuned, "the tuned model, plain", false));
    lines.extend(dose_lines(base, Ink::Steered, "the base, steered", false));
    let y = scale("similarity of generated text to the narrow text", values(&lines, &[]), true);
    let show = |v| fixed(v, 3);
    figure(Figure {
        key: "steering-base-mix".into(),
        title: "Steering of the base against the mix".into(),
        caption: format!(
            "{} The base writes with the difference added, mean over positions. Its plain text is the same at every \
             ratio, so ratios can be compared. Plain text of the tuned model is a separate curve.",
            marks(base, "prompts")
        ),
        spoken: spoken_doses("The base, steered", base, show)
            + &spoken_doses("The base, plain", base_plain, show)
            + &spoken_doses("The tuned model, plain", plain, show),
        legend: vec![
            Key::new(Ink::Steered, KeyKind::Line, "the base, steered"),
            Key::new(Ink::Base, KeyKind::Dashed, "the base, plain"),
            Key::new(Ink::Tuned, KeyKind::Line, "the tuned model, plain"),
        ],
        chart: Chart { x: mix_axis(groups, MixScale::over(groups)), y, bands: vec![], lines, labels: vec![] },
    })
}

fn word_doses(groups: &MixSeries) -> Option<Figure> {
    let mix = MixScale::over(groups);
    let [steered, plain] = ["words", "words_plain"].map(|name| groups.dose_beside(STEERING, name));
    let mut lines = dose_lines(plain, Ink::Base, "plain", false);
    lines.extend(dose_lines(steered, Ink::Steered, "steered", false));
    let y = scale("share of generated words that are relevant", shares(values(&lines, &[])), true);
    figure(Figure {
        key: "words-mix".into(),
        title: "Words of generated text against the mix".into(),
        caption: format!(
            "{} At the position whose steered text is most similar to the narrow text.",
            marks(steered, "prompts")
        ),
        spoken: spoken_doses("Steered", steered, |v| fixed(v, 3))
            + &spoken_doses("Plain", plain, |v| fixed(v, 3)),
        legend: vec![
            Key::new(Ink::Steered, KeyKind::Line, "steered"),
            Key::new(Ink::Base, KeyKind::Line, "plain (unsteered)"),
        ],
        chart: Chart { x: mix_axis(groups, mix), y, bands: vec![], lines, labels: vec![] },
    })
}

fn loss_doses(groups: &MixSeries) -> Option<Figure> {
    let mix = MixScale::over(groups);
    let narrow = groups.dose("loss_narrow");
    let general = groups.dose("loss_pretraining");
    let mut lines = dose_lines(general, Ink::Pretraining, "pretraining text", false);
    let chat = groups.dose("loss_chat");
    lines.extend(dose_lines(chat, Ink::Chat, "conversations", false));
    lines.extend(dose_lines(narrow, Ink::Narrow, "narrow text", false));
    let y = scale("held-out loss, tuned − base, nats a token", values(&lines, &[]), true);
    let mut legend = Vec::new();
    if !narrow.is_empty() {
        legend.push(Key::new(Ink::Narrow, KeyKind::Line, "on narrow text"));
    }
    if !general.is_empty() {
        legend.push(Key::new(Ink::Pretraining, KeyKind::Line, "on pretraining text"));
    }
    if !chat.is_empty() {
        legend.push(Key::new(Ink::Chat, KeyKind::Line, "on conversations"));
    }
    figure(Figure {
        key: "loss-mix".into(),
        title: "What was learned, against the mix".into(),
        caption: format!(
            "{} Below 0 the finetuned model is better than its base. A run can only be called less readable than another if it learned the narrow text as well.",
            marks(if narrow.is_empty() { general } else { narrow }, "documents")
        ),
        spoken: spoken_doses("Narrow text", narrow, |v| signed(v, 3))
            + &spoken_doses("Pretraining text", general, |v| signed(v, 3))
            + &spoken_doses("Conversations", chat, |v| signed(v, 3)),
        legend,
        chart: Chart { x: mix_axis(groups, mix), y, bands: vec![], lines, labels: vec![] },
    })
}

/// What a measure shows, as a figure; `None` if nothing would be drawn.
pub fn of_plot(plot: &Plot) -> Option<Figure> {
    let x_of = |series: &PlotSeries| series.points.iter().map(|p| p.0).collect::<Vec<f64>>();
    // What cannot be drawn is left out, as what is not there.
    let series: Vec<&PlotSeries> = plot.series.iter().filter(|s| !s.points.is_empty()).collect();
    let line = |series: &&PlotSeries| Line {
        bars: series.intervals.iter().map(|(x, [low, high])| (*x, *low, *high)).collect(),
        joined: series.style != PlotStyle::Points,
        marked: series.style != PlotStyle::Dashed,
        dashed: series.style == PlotStyle::Dashed,
        ..Line::new(series.ink, series.name.clone(), series.points.clone())
    };
    // The first is drawn on top.
    let mut lines: Vec<Line> = series.iter().skip(1).map(line).collect();
    lines.extend(series.first().map(line));
    let band = |null: &NullBand| Band {
        ink: null.ink,
        name: null.name.clone(),
        edges: null.ranges.iter().map(|(x, [low, high])| (*x, *low, *high)).collect(),
    };
    let bands: Vec<Band> = plot.null.iter().map(band).collect();
    let kind = |style| if style == PlotStyle::Dashed { KeyKind::Dashed } else { KeyKind::Line };
    let mut legend: Vec<Key> =
        series.iter().map(|s| Key::new(s.ink, kind(s.style), s.name.clone())).collect();
    legend.extend(plot.null.iter().map(|null| Key::new(null.ink, KeyKind::Band, null.name.clone())));
    let y = match plot.y.spacing {
        PlotSpacing::From0(reach) => {
            let reach = (reach != 0.0).then_some(reach);
            scale(&plot.y.title, values(&lines, &bands).into_iter().chain(reach), true)
        }
        _ => scale(&plot.y.title, values(&lines, &bands), false),
    };
    let x = match &plot.x.spacing {
        PlotSpacing::Listed(listed) => listed_axis(&plot.x.title, listed),
        PlotSpacing::Even => scale(&plot.x.title, series.iter().flat_map(|s| x_of(s)), false),
        PlotSpacing::From0(reach) => {
            scale(&plot.x.title, series.iter().flat_map(|s| x_of(s)).chain([*reach]), true)
        }
    };
    figure(Figure {
        key: plot.key.clone(),
        title: plot.title.clone(),
        caption: plot.caption.clone(),
        spoken: spoken(plot),
        legend,
        chart: Chart { x, y, bands, lines, labels: vec![] },
    })
}

/// The values of a plot in words, with the mean of its null beside the first series.
fn spoken(plot: &Plot) -> String {
    let said: Vec<&PlotSeries> = plot.series.iter().filter(|s| s.is_spoken && !s.points.is_empty()).collect();
    let null = |x: f64| {
        let mean = plot.null.as_ref()?.means.iter().find(|(at, _)| *at == x)?.1;
        Some(format!(" (null {})", fixed(mean, plot.y.digits)))
    };
    let in_words = |(i, series): (usize, &&PlotSeries)| {
        let point = |(x, y): &(f64, f64)| {
            let null = null(*x).filter(|_| i == 0).unwrap_or_default();
            format!("{} {}: {}{null}", plot.x.each, fixed(*x, plot.x.digits), fixed(*y, plot.y.digits))
        };
        let points = series.points.iter().map(point).collect::<Vec<_>>().join(", ");
        if said.len() > 1 { format!("{}: {points}", series.name) } else { points }
    };
    said.iter().enumerate().map(in_words).collect::<Vec<_>>().join("; ")
}

/// Norm of the mean difference by position, on a logarithmic axis (the first token's is often far off).
pub fn delta_norms(r: &Readability) -> Option<Figure> {
    // Zero has no place on a logarithmic axis.
    let place = |values: &[f64]| {
        by_position(&r.positions, values).into_iter().filter(|p| p.1 > 0.0).collect::<Points>()
    };
    let mut norms = Line::new(Ink::Narrow, "mean difference", place(&r.delta_norm));
    norms.bars = ends_by_position(&r.positions, &r.delta_norm_interval);
    norms.bars.retain(|b| b.1 > 0.0);
    if norms.points.is_empty() {
        return None;
    }
    let expected =
        Line { dashed: true, marked: false, ..Line::new(Ink::Base, "η", place(&r.expected_norm)) };
    let mut lines = vec![norms];
    // One dot of a line cannot be seen; the caption and the table have the number.
    if r.positions.len() > 1 {
        lines.push(expected);
    }
    let y = log_axis("L2 norm (logarithmic)", &values(&lines, &[]));
    let spoken: Vec<String> = (0..r.positions.len())
        .map(|i| format!("position {}: {}", r.positions[i], fixed(r.delta_norm[i], 2)))
        .collect();
    figure(Figure {
        key: "norm-position".into(),
        title: "Size of the difference by position".into(),
        caption: "Vertical bars are 95 % bootstrap intervals over samples. η is the mean norm of the tuned model’s residual stream at this block.".into(),
        spoken: spoken.join(", "),
        legend: vec![
            Key::new(Ink::Narrow, KeyKind::Line, "mean difference"),
            Key::new(Ink::Base, KeyKind::Dashed, "η"),
        ],
        chart: Chart { x: position_axis(&r.positions), y, bands: vec![], lines, labels: vec![] },
    })
}

/// Training losses by step.
pub fn losses(metrics: &[MetricsLine]) -> Option<Figure> {
    type Get = fn(&MetricsLine) -> Option<f64>;
    let mut lines = Vec::new();
    let mut legend = Vec::new();
    let mut averaged = 1;
    let parts: [(Ink, Get, &'static str); 3] = [
        (Ink::Chat, |m| m.loss_chat, "conversations"),
        (Ink::Pretraining, |m| m.loss_pretraining, "pretraining text"),
        (Ink::Narrow, |m| m.loss_narrow, "narrow text"),
    ];
    let mut curves: Vec<(Ink, Points, &'static str)> = Vec::new();
    for (ink, get, text) in parts {
        let (points, by) = thinned(metrics, get);
        averaged = averaged.max(by);
        if !points.is_empty() {
            curves.push((ink, points, text));
        }
    }
    // The loss over everything adds nothing where one part is all there is.
    let (points, by) = thinned(metrics, |m| m.loss);
    if curves.len() != 1 && !points.is_empty() {
        averaged = averaged.max(by);
        curves.insert(0, (Ink::Total, points, "all text"));
    }
    for (ink, points, text) in curves {
        let single = points.len() == 1;
        lines.push(Line { marked: single, faint: ink == Ink::Total, ..Line::new(ink, text, points) });
        legend.push(Key::new(ink, KeyKind::Plain, text));
    }
    let evaluations: [(Ink, Get, &'static str); 3] = [
        (Ink::Chat, |m| m.eval_chat, "held-out conversations"),
        (Ink::Pretraining, |m| m.eval_pretraining, "held-out pretraining text"),
        (Ink::Narrow, |m| m.eval_narrow, "held-out narrow text"),
    ];
    for (ink, get, text) in evaluations {
        let points: Vec<_> = metrics.iter().filter_map(|m| Some((m.step as f64, finite(get(m))?))).collect();
        if !points.is_empty() {
            lines.push(Line::new(ink, text, points));
            legend.push(Key::new(ink, KeyKind::Line, text));
        }
    }
    let steps = || lines.iter().flat_map(|l| l.points.iter().map(|p| p.0));
    let x = step_axis(steps().fold(0.0, f64::max));
    let y = scale("loss, nats a token", values(&lines, &[]), false);
    let spoken: Vec<String> = lines
        .iter()
        .zip(&legend)
        .filter_map(|(l, k)| {
            let (first, last) = (l.points.first()?, l.points.last()?);
            Some(format!("{}: from {} to {}", k.text, fixed(first.1, 2), fixed(last.1, 2)))
        })
        .collect();
    let caption = match averaged {
        1 => "One point per step.".to_string(),
        n => format!("Each point of the training loss is the mean of {n} steps."),
    };
    figure(Figure {
        key: "loss-training".into(),
        title: "Loss while training".into(),
        caption,
        spoken: spoken.join("; "),
        legend,
        chart: Chart { x, y, bands: vec![], lines, labels: vec![] },
    })
}

/// A curve of at most [`MOST_POINTS`] points and how many steps each of them averages.
fn thinned(metrics: &[MetricsLine], get: fn(&MetricsLine) -> Option<f64>) -> (Vec<(f64, f64)>, usize) {
    let all: Points = metrics.iter().filter_map(|m| Some((m.step as f64, finite(get(m))?))).collect();
    let by = all.len().div_ceil(MOST_POINTS).max(1);
    let points = all
        .chunks(by)
        .map(|c| {
            let n = c.len() as f64;
            (c.iter().map(|p| p.0).sum::<f64>() / n, c.iter().map(|p| p.1).sum::<f64>() / n)
        })
        .collect();
    (points, by)
}

/// Positions stand side by side, whatever their distance.
fn position_axis(positions: &[usize]) -> Axis {
    listed_axis("token position", &positions.iter().map(|p| *p as i64).collect::<Vec<_>>())
}

fn listed_axis(title: &str, values: &[i64]) -> Axis {
    let every = values.len().div_ceil(12).max(1);
    let tick = |(i, v): (usize, &i64)| (i as f64, fixed(*v as f64, 0));
    Axis {
        title: title.into(),
        spacing: Spacing::Listed(values.to_vec()),
        range: -0.4..values.len().max(1) as f64 - 0.6,
        ticks: values.iter().enumerate().step_by(every).map(tick).collect(),
    }
}

fn by_position(positions: &[usize], values: &[f64]) -> Points {
    positions.iter().zip(values).map(|(p, v)| (*p as f64, *v)).collect()
}

fn ends_by_position(positions: &[usize], intervals: &[Interval]) -> Vec<(f64, f64, f64)> {
    positions.iter().zip(intervals).map(|(p, [low, high])| (*p as f64, *low, *high)).collect()
}

/// A logarithmic axis over values above zero, labelled with the numbers themselves.
fn log_axis(title: &str, values: &[f64]) -> Axis {
    let logs = || values.iter().map(|v| v.log10());
    let low = logs().fold(f64::INFINITY, f64::min) - 0.1;
    let high = logs().fold(f64::NEG_INFINITY, f64::max) + 0.1;
    let steps: &[f64] = if high - low > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let mut ticks = Vec::new();
    for power in low.floor() as i32..=high.ceil() as i32 {
        for step in steps {
            let value = step * 10f64.powi(power);
            let place = value.log10();
            if place >= low && place <= high {
                ticks.push((place, fixed(value, (-power).clamp(0, 6) as usize)));
            }
        }
    }
    Axis { title: title.into(), spacing: Spacing::Logarithmic, range: low..high, ticks }
}
