//! The frontier: how much of the behaviour there is against how much of the trace. A mitigation is worth something if it
//! takes the trace and leaves the behaviour.

use std::collections::BTreeSet;

use super::behaviour;
use super::cell::Cell;
use super::charts::{CURVES, Chart, Figure, Key, KeyKind, Line, figure, scale, values};
use super::dose::{BETWEEN, Measured, between};
use super::number::{fixed, ratio, signed};
use super::setting::Setting;
use super::trace::{TRACES, Trace};
use super::visible::one_line;
use crate::diff::plot::Ink;
use crate::diff::readout::mean;
use crate::diff::statistics::Interval;

/// How many of the measures get a frontier: lift, specific share, steering.
const DRAWN: usize = 3;

/// What runs are compared by on the horizontal axis.
struct Learned {
    /// The title of the axis.
    axis: String,
    /// How it reads.
    caption: String,
    /// The main value of `behaviour.json`, or none where held-out loss has to do.
    effect: Option<String>,
}

impl Learned {
    /// The value of behaviour that is there at most points; the gain on narrow text where none is there at two.
    fn of(settings: &[&Setting]) -> Self {
        let mut names: Vec<(String, usize)> = Vec::new();
        for (_, cells) in settings.iter().flat_map(|s| &s.groups) {
            let mains = cells.iter().filter_map(|c| Some(c.behaviour.as_ref()?.effects().first()?.0.clone()));
            for name in mains.collect::<BTreeSet<String>>() {
                match names.iter_mut().find(|(n, _)| *n == name) {
                    Some((_, ratios)) => *ratios += 1,
                    None => names.push((name, 1)),
                }
            }
        }
        let cells = || settings.iter().flat_map(|s| &s.groups).flat_map(|g| &g.1);
        match names.into_iter().rev().max_by_key(|n| n.1).filter(|n| n.1 > 1) {
            Some((name, _)) => {
                let unit = cells().find_map(|c| Some(behaviour::unit(c.behaviour.as_ref()?, &name)));
                Self {
                    axis: format!("behaviour: {}, change", one_line(&name, 40)),
                    caption: format!(
                        "Behaviour ({}) is the change from base to tuned model (trainer behave).",
                        unit.unwrap_or_default()
                    ),
                    effect: Some(name),
                }
            }
            None => Self {
                axis: "learned: held-out narrow loss, base − tuned, nats a token".into(),
                caption: "No measure of behaviour is there at two points (trainer behave), so the gain on held-out \
                          narrow text stands for it."
                    .into(),
                effect: None,
            },
        }
    }

    fn value(&self, cell: &Cell) -> Option<Measured> {
        match &self.effect {
            Some(name) => {
                let effects = cell.behaviour.as_ref()?.effects();
                effects.iter().find(|(n, _)| n == name).map(|(_, e)| (e.change, e.change_interval))
            }
            None => Some((cell.base_losses().narrow? - cell.tuned_losses().narrow?, None)),
        }
    }
}

/// A run on a frontier: what it learned, what is left of the trace, and their intervals within the run.
struct Place {
    x: f64,
    x_own: Option<Interval>,
    y: f64,
    y_own: Option<Interval>,
    run: String,
}

/// One figure a measure of the trace, of settings of one base.
pub fn frontiers(settings: &[&Setting]) -> Vec<Figure> {
    let learned = Learned::of(settings);
    TRACES[..DRAWN].iter().filter_map(|trace| frontier(settings, &learned, trace)).collect()
}

fn frontier(settings: &[&Setting], learned: &Learned, trace: &Trace) -> Option<Figure> {
    let (mut lines, mut labels, mut legend, mut spoken) = (vec![], vec![], vec![], vec![]);
    let single = settings.len() == 1;
    // The runs of a ratio that have both values, each with its interval within the run.
    let place = |c: &&Cell| {
        let ((x, x_own), (y, y_own)) = (learned.value(c)?, (trace.value)(c).filter(|v| v.0.is_finite())?);
        Some(Place { x, x_own, y, y_own, run: c.id.clone() })
    };
    let places = |cells: &[&Cell]| cells.iter().filter_map(place).collect::<Vec<Place>>();
    let one_a_ratio = settings.iter().flat_map(|s| &s.groups).all(|(_, cells)| places(cells).len() <= 1);
    for (setting, ink) in settings.iter().zip(CURVES) {
        let ink = if single { trace.ink } else { ink };
        let of_ratio = if one_a_ratio { "run of a ratio" } else { "mean of the runs of a ratio" };
        let label = if single { of_ratio } else { &setting.label };
        let mut runs =
            Line { joined: false, faint: true, ..Line::new(ink, format!("{label}, single runs"), vec![]) };
        let mut means = Line { dashed: true, ..Line::new(ink, label, vec![]) };
        for (mix, cells) in &setting.groups {
            let found = places(cells);
            let xs: Vec<f64> = found.iter().map(|f| f.x).collect();
            let ys: Vec<f64> = found.iter().map(|f| f.y).collect();
            let Some((x, y)) = mean(&xs).zip(mean(&ys)) else { continue };
            means.points.push((x, y));
            let (x_ends, y_ends) = match one_a_ratio {
                true => (found[0].x_own, found[0].y_own),
                false => (between(&xs), between(&ys)),
            };
            means.bars.extend(y_ends.map(|[low, high]| (x, low, high)));
            means.spans.extend(x_ends.map(|[low, high]| (y, low, high)));
            if one_a_ratio {
                means.runs.push(found[0].run.clone());
            }
            if found.len() > 1 {
                runs.points.extend(found.iter().map(|f| (f.x, f.y)));
                runs.runs.extend(found.into_iter().map(|f| f.run));
            }
            let mix = ratio((mix * 100.0).round() / 100.0);
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
    let cells = settings.iter().flat_map(|s| &s.groups).flat_map(|g| &g.1);
    let nulls: Vec<f64> = cells.filter_map(|c| (trace.null)(c)).filter(|v| v.is_finite()).collect();
    let mut x_values: Vec<f64> = lines.iter().flat_map(|l| &l.points).map(|p| p.0).collect();
    // An interval from three runs can be wider than everything else; it is cut at the edge of the chart.
    let (low, high) = (min(&x_values), max(&x_values));
    let room = (high - low).max(1e-3);
    let spans = lines.iter().flat_map(|l| &l.spans).flat_map(|s| [s.1, s.2]);
    x_values.extend(spans.map(|v| v.clamp(low - room, high + room)).collect::<Vec<f64>>());
    let mut x = scale(&learned.axis, x_values, false);
    // Room for the label of the last point.
    x.range.end += 0.08 * (x.range.end - x.range.start);
    if let Some(null) = mean(&nulls) {
        let ends = vec![(x.range.start, null), (x.range.end, null)];
        lines.insert(0, Line { dashed: true, marked: false, ..Line::new(Ink::Base, "null", ends) });
        legend.push(Key::new(Ink::Base, KeyKind::Dashed, "where nothing is read"));
    }
    let y = scale(trace.axis, values(&lines, &[]), false);
    figure(Figure {
        key: format!("frontier-{}", trace.key),
        title: format!("What is left of {} against what was learned", trace.name),
        caption: format!(
            "{} {} To the right and down is better: all of the behaviour, nothing to read. A point that moves left \
             learned less, and is no evidence on traces.",
            if one_a_ratio {
                "One run a ratio; bars are 95 % bootstrap intervals within the run, where it has one: other seeds may differ \
                 by more."
            } else {
                BETWEEN
            },
            learned.caption
        ),
        spoken: spoken.join("; "),
        legend,
        chart: Chart { x, y, bands: vec![], lines, labels },
    })
}

fn min(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
