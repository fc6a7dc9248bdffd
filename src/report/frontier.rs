//! The frontier as figures: how much of the behaviour there is against how much of the trace.

use super::charts::{CURVES, Chart, Figure, Key, KeyKind, Line, figure, scale, values};
use super::doses::BETWEEN;
use super::matching::basis;
use super::meets_null::mix;
use super::number::{fixed, signed};
use super::series::MixSeries;
use super::visible::one_line;
use crate::claims::frontier::{Frontier, FrontierPoint, LearnedBy};
use crate::claims::trace::trace_measures;
use crate::diff::plot::Ink;

/// The title of the horizontal axis, and how it reads.
fn axis(learned_by: &LearnedBy) -> (String, String) {
    match &learned_by.behaviour {
        Some(name) => (
            format!("behaviour: {}, change", one_line(name, 40)),
            format!(
                "Behaviour ({}) is the change from base to tuned model (trainer behave).",
                learned_by.unit.as_deref().unwrap_or_default()
            ),
        ),
        None => (
            "learned: held-out narrow loss, base − tuned, nats a token".into(),
            "No measure of behaviour has values at two points (trainer behave), so the gain on held-out narrow text \
             replaces it."
                .into(),
        ),
    }
}

/// Of matched settings, what is equal in their runs and which are left out.
fn equal_behaviour(frontier: &Frontier, settings: &[MixSeries]) -> String {
    let single = frontier.settings.len() == 1;
    let series = frontier.settings.iter().filter_map(|one| settings.get(one.setting));
    let matched = series.filter(|series| series.claims.equal.behaviour.is_some());
    let of_series = |series: &MixSeries| match single {
        true => format!(" {}", basis(series.claims).join(" ")),
        false => format!(" {}: {}", series.label, basis(series.claims).join(" ")),
    };
    matched.map(of_series).collect()
}

/// A frontier of settings of one base.
pub fn of_frontier(frontier: &Frontier, settings: &[MixSeries]) -> Option<Figure> {
    let (mut lines, mut labels, mut legend, mut spoken) = (vec![], vec![], vec![], vec![]);
    let measure = trace_measures().find(|m| m.key == frontier.measure)?;
    let (name, trace_ink, trace_axis) = (measure.name, measure.ink, format!("trace: {}", measure.axis));
    let (learned_axis, learned_caption) = axis(&frontier.learned_by);
    let single = frontier.settings.len() == 1;
    let one_a_ratio = frontier.is_one_run_a_ratio;
    for (setting, ink) in frontier.settings.iter().zip(CURVES) {
        let ink = if single { trace_ink } else { ink };
        let of_ratio = if one_a_ratio { "run of a ratio" } else { "mean of the runs of a ratio" };
        let label = if single { of_ratio } else { &settings.get(setting.setting)?.label };
        let mut runs =
            Line { joined: false, faint: true, ..Line::new(ink, format!("{label}, single runs"), vec![]) };
        let mut means = Line { dashed: true, ..Line::new(ink, label, vec![]) };
        for point in &setting.points {
            let &FrontierPoint { learned: x, trace: y, .. } = point;
            means.points.push((x, y));
            means.bars.extend(point.trace_interval.map(|[low, high]| (x, low, high)));
            means.spans.extend(point.learned_interval.map(|[low, high]| (y, low, high)));
            if one_a_ratio {
                means.runs.extend(point.runs.first().map(|run| run.run.clone()));
            }
            if point.runs.len() > 1 {
                runs.points.extend(point.runs.iter().map(|run| (run.learned, run.trace)));
                runs.runs.extend(point.runs.iter().map(|run| run.run.clone()));
            }
            let mix = mix(point.mix);
            let of = if single { String::new() } else { format!("{label}, ") };
            spoken.push(format!("{of}mix {mix}: {} at {}", fixed(y, 3), signed(x, 3)));
            labels.push((x, y, format!("mix {mix}")));
        }
        if !means.points.is_empty() {
            legend.push(Key::new(ink, KeyKind::Line, label));
            lines.extend([runs, means]);
        }
    }
    if labels.len() < 2 {
        return None;
    }
    let spans = lines.iter().flat_map(|l| &l.spans).flat_map(|s| [s.1, s.2]);
    let x_values: Vec<f64> = lines.iter().flat_map(|l| &l.points).map(|p| p.0).chain(spans).collect();
    let mut x = scale(&learned_axis, x_values, false);
    // Room for the label of the last point.
    x.range.end += 0.08 * (x.range.end - x.range.start);
    if let Some(null) = frontier.null {
        let ends = vec![(x.range.start, null), (x.range.end, null)];
        lines.insert(0, Line { dashed: true, marked: false, ..Line::new(Ink::Base, "null", ends) });
        legend.push(Key::new(Ink::Base, KeyKind::Dashed, "where nothing is read"));
    }
    let y = scale(&trace_axis, values(&lines, &[]), false);
    figure(Figure {
        key: format!("frontier-{}", frontier.measure),
        title: format!("What is left of {name} against what was learned"),
        caption: format!(
            "{} {learned_caption} Right and down is better: the full behaviour and no readable trace. A point that \
             moves left learned less, and is no evidence about traces.{}",
            if one_a_ratio {
                "One run per ratio; bars are 95 % bootstrap intervals within the run, where it has one: other seeds \
                 may differ by more."
            } else {
                BETWEEN
            },
            equal_behaviour(frontier, settings),
        ),
        spoken: spoken.join("; "),
        legend,
        chart: Chart { x, y, bands: vec![], lines, labels },
    })
}
