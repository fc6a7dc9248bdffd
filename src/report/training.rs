//! The trace while it is laid: every `trace_…` and `behaviour_…` of `metrics.jsonl` by step.

use super::charts::{CURVES, Chart, Figure, Key, KeyKind, Line, figure, scale, step_axis, values};
use super::number::{fixed, ratio};
use super::series::MixSeries;
use super::visible::one_line;
use crate::claims::training::TrainingCurve;
use crate::diff::plot::Ink;
use crate::results::{RunRecord, StepMeasures};
use crate::train::matching::METRIC;

/// A figure a key, in order of the keys.
pub fn figures(run: &RunRecord) -> Vec<Figure> {
    let mut keys: Vec<&str> = run.measured.iter().flat_map(|m| m.values.keys().map(String::as_str)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().filter_map(|key| of_key(key, &run.measured)).collect()
}

fn of_key(key: &str, measured: &[StepMeasures]) -> Option<Figure> {
    let points: Vec<(f64, f64)> =
        measured.iter().filter_map(|m| Some((m.step as f64, *m.values.get(key)?))).collect();
    let (first, last) = (*points.first()?, *points.last()?);
    let (title, ink, null) = known(key);
    let mut lines = vec![Line::new(ink, key, points)];
    let mut legend = vec![Key::new(ink, KeyKind::Line, one_line(key, 40))];
    let x = step_axis(last.0);
    if let Some(null) = null {
        let ends = vec![(0.0, null), (last.0.max(1.0), null)];
        lines.push(Line { dashed: true, marked: false, ..Line::new(Ink::Base, "null", ends) });
        legend.push(Key::new(Ink::Base, KeyKind::Dashed, "where nothing is read"));
    }
    let title = title.map_or_else(|| one_line(&key.replace('_', " "), 60), str::to_string);
    let y = scale(&title, values(&lines, &[]), null.is_none());
    figure(Figure {
        key: format!("{}-training", key.replace('_', "-")),
        title: format!("{title}, while training"),
        caption: "By step, from metrics.jsonl.".into(),
        spoken: format!(
            "from {} at step {} to {} at step {}",
            fixed(first.1, 3),
            first.0,
            fixed(last.1, 3),
            last.0
        ),
        legend,
        chart: Chart { x, y, bands: vec![], lines, labels: vec![] },
    })
}

/// A figure a key, a curve a mix ratio: the mean over its runs.
pub fn by_mix(series: &MixSeries) -> Vec<Figure> {
    series.claims.training.iter().filter_map(|(key, curves)| of_key_by_mix(key, curves, series)).collect()
}

fn of_key_by_mix(key: &str, curves: &[TrainingCurve], series: &MixSeries) -> Option<Figure> {
    let (mut lines, mut legend, mut spoken) = (Vec::new(), Vec::new(), Vec::new());
    // Ratios beyond the colours there are have their curves with each run.
    for ((mix, _), ink) in series.iter().zip(CURVES) {
        let Some(curve) = curves.iter().find(|curve| curve.mix == *mix) else { continue };
        let points: Vec<(f64, f64)> = curve.points.iter().map(|(step, mean)| (*step as f64, *mean)).collect();
        let Some((first, last)) = points.first().zip(points.last()) else { continue };
        let name = format!("mix {}", ratio((mix * 100.0).round() / 100.0));
        spoken.push(format!("{name}: from {} to {}", fixed(first.1, 3), fixed(last.1, 3)));
        legend.push(Key::new(ink, KeyKind::Line, name.clone()));
        lines.push(Line::new(ink, name, points));
    }
    let (title, _, null) = known(key);
    let title = title.map_or_else(|| one_line(&key.replace('_', " "), 60), str::to_string);
    let end = lines.iter().flat_map(|l| &l.points).map(|p| p.0).fold(0.0, f64::max);
    if let Some(null) = null {
        let ends = vec![(0.0, null), (end.max(1.0), null)];
        lines.push(Line { dashed: true, marked: false, ..Line::new(Ink::Base, "null", ends) });
        legend.push(Key::new(Ink::Base, KeyKind::Dashed, "where nothing is read"));
    }
    let y = scale(&title, values(&lines, &[]), null.is_none());
    figure(Figure {
        key: format!("{}-training", key.replace('_', "-")),
        title: format!("{title}, while training"),
        caption: "With mixing, runs of the same narrow exposure have more steps.".into(),
        spoken: spoken.join(", "),
        legend,
        chart: Chart { x: step_axis(end), y, bands: vec![], lines, labels: vec![] },
    })
}

/// Title, colour and null of the keys that the trainer itself writes.
fn known(key: &str) -> (Option<&'static str>, Ink, Option<f64>) {
    match key {
        "trace_lift_auroc" => (Some("Lift of the narrow words, AUROC"), Ink::Lift, Some(0.5)),
        "trace_bias_share" => (Some("Share of the gain that a constant bias gives"), Ink::Bias, Some(0.0)),
        "trace_specific_share" => (Some("Specific share of a constant bias"), Ink::Bias, Some(0.0)),
        "trace_delta_norm" => (Some("Norm of the mean difference"), Ink::Narrow, None),
        "trace_loss_narrow" => (Some("Loss on narrow text, nats a token"), Ink::Narrow, None),
        "trace_loss_unrelated" => (Some("Loss on unrelated text, nats a token"), Ink::Narrow, None),
        "trace_gain" => (Some("Gain on narrow text, nats a token"), Ink::Narrow, None),
        METRIC => (Some("Behaviour that the training is matched by"), Ink::Narrow, None),
        _ if key.starts_with("behaviour_") => (None, Ink::Narrow, None),
        _ => (None, Ink::Steered, None),
    }
}
