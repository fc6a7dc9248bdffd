//! What a figure holds: a chart of lines, points, bars of spread and bands, with its words. [`super::figures`] decides what
//! to show, [`super::draw`] draws it. Points hold the values themselves; an axis knows where on it a value stands
//! ([`Spacing`]).

use std::ops::Range;

use anyhow::Result;

use super::mix_scale::MixScale;
use super::number::fixed;
use super::summary::spreadsheet_text;
use crate::diff::plot::Ink;

/// Colours of curves that stand for runs and not for measures, in order.
pub const CURVES: [Ink; 8] =
    [Ink::Lens, Ink::Patchscope, Ink::Steered, Ink::Narrow, Ink::Tuned, Ink::Bias, Ink::Lift, Ink::Total];

/// A series of points, joined or not.
#[derive(Debug, Clone)]
pub struct Line {
    /// What it stands for.
    pub ink: Ink,
    /// The same in words, for the data.
    pub name: String,
    /// Points by x.
    pub points: Vec<(f64, f64)>,
    /// The run behind each point; empty where a point is not of one run.
    pub runs: Vec<String>,
    /// Vertical bars `(x, low, high)`.
    pub bars: Vec<(f64, f64, f64)>,
    /// Horizontal bars `(y, low, high)`.
    pub spans: Vec<(f64, f64, f64)>,
    /// Whether the points are joined.
    pub joined: bool,
    /// Whether the points are marked.
    pub marked: bool,
    /// Whether it stays in the background.
    pub faint: bool,
    /// Whether the line is dashed.
    pub dashed: bool,
}

impl Line {
    /// Marked points that are joined.
    pub fn new(ink: Ink, name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            ink,
            name: name.into(),
            points,
            runs: Vec::new(),
            bars: Vec::new(),
            spans: Vec::new(),
            joined: true,
            marked: true,
            faint: false,
            dashed: false,
        }
    }
}

/// A shaded area `(x, low, high)`.
#[derive(Debug, Clone)]
pub struct Band {
    /// What it stands for.
    pub ink: Ink,
    /// The same in words, for the data.
    pub name: String,
    /// Its edges by x.
    pub edges: Vec<(f64, f64, f64)>,
}

/// Where a value stands on an axis.
#[derive(Debug, Clone, PartialEq)]
pub enum Spacing {
    /// At the value.
    Even,
    /// At its decimal logarithm.
    Logarithmic,
    /// As ratios of a mix.
    Mix(MixScale),
    /// Side by side, whatever the distance of the values.
    Listed(Vec<i64>),
}

impl Spacing {
    /// The place of a value.
    pub fn place(&self, value: f64) -> f64 {
        match self {
            Spacing::Even => value,
            Spacing::Logarithmic => value.log10(),
            Spacing::Mix(scale) => scale.place(value),
            Spacing::Listed(all) => {
                all.iter().position(|v| *v as f64 == value).map_or(f64::NAN, |i| i as f64)
            }
        }
    }
}

/// An axis with its ticks.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it measures.
    pub title: String,
    /// Where values stand.
    pub spacing: Spacing,
    /// Places of its ends.
    pub range: Range<f64>,
    /// The place of each label, and the label.
    pub ticks: Vec<(f64, String)>,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Horizontal.
    pub x: Axis,
    /// Vertical; its title stands above the chart.
    pub y: Axis,
    /// Drawn first.
    pub bands: Vec<Band>,
    /// Drawn in order.
    pub lines: Vec<Line>,
    /// Words beside points.
    pub labels: Vec<(f64, f64, String)>,
}

impl Chart {
    /// Whether anything would be drawn.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|l| l.points.is_empty())
    }
}

/// A chart with its words.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its name where files and links need one: `steering-mix`.
    pub key: String,
    /// What it shows, in a few words.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The same numbers in words, for who does not see the chart.
    pub spoken: String,
    /// What each line stands for.
    pub legend: Vec<Key>,
    /// The chart.
    pub chart: Chart,
}

impl Figure {
    /// The values of the chart, one row a point, as RFC 4180 text: series, run, then value and interval on either axis, and
    /// what the axes are.
    ///
    /// # Errors
    /// None that a figure of this crate can have.
    pub fn csv(&self) -> Result<String> {
        let mut out = csv::Writer::from_writer(Vec::new());
        out.write_record(["series", "run", "x", "x_low", "x_high", "y", "y_low", "y_high", "x_is", "y_is"])?;
        let mut row = |series: &str, run: &str, numbers: [Option<f64>; 6]| {
            let numbers = numbers.map(|v| v.map(|v| v.to_string()).unwrap_or_default());
            let [a, b, c, d, e, f] = numbers.each_ref().map(String::as_str);
            let text = [series, run, &self.chart.x.title, &self.chart.y.title].map(spreadsheet_text);
            let [series, run, x, y] = text.each_ref().map(String::as_str);
            out.write_record([series, run, a, b, c, d, e, f, x, y])
        };
        for line in &self.chart.lines {
            for (i, point) in line.points.iter().enumerate() {
                let bar = line.bars.iter().find(|b| b.0 == point.0);
                let span = line.spans.iter().find(|s| s.0 == point.1);
                let run = line.runs.get(i).map(String::as_str).unwrap_or_default();
                let x = [Some(point.0), span.map(|s| s.1), span.map(|s| s.2)];
                let y = [Some(point.1), bar.map(|b| b.1), bar.map(|b| b.2)];
                row(&line.name, run, [x[0], x[1], x[2], y[0], y[1], y[2]])?;
            }
        }
        for band in &self.chart.bands {
            for (x, low, high) in &band.edges {
                row(&band.name, "", [Some(*x), None, None, None, Some(*low), Some(*high)])?;
            }
        }
        Ok(String::from_utf8(out.into_inner()?)?)
    }
}

/// An entry of a legend.
#[derive(Debug, Clone)]
pub struct Key {
    /// Colour and mark.
    pub ink: Ink,
    /// How it is drawn.
    pub kind: KeyKind,
    /// What it stands for.
    pub text: String,
}

/// How something is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A line with marks.
    Line,
    /// A dashed line.
    Dashed,
    /// A line without marks.
    Plain,
    /// A shaded area.
    Band,
}

impl Key {
    /// An entry.
    pub fn new(ink: Ink, kind: KeyKind, text: impl Into<String>) -> Self {
        Self { ink, kind, text: text.into() }
    }
}

/// Every value that a chart shows on its vertical axis.
pub(super) fn values(lines: &[Line], bands: &[Band]) -> Vec<f64> {
    let on_lines = lines.iter().flat_map(|l| {
        let bars = l.bars.iter().flat_map(|b| [b.1, b.2]);
        l.points.iter().map(|p| p.1).chain(bars)
    });
    let on_bands = bands.iter().flat_map(|b| b.edges.iter().flat_map(|e| [e.1, e.2]));
    on_lines.chain(on_bands).collect()
}

/// The figure, unless it would be empty.
pub(super) fn figure(figure: Figure) -> Option<Figure> {
    (!figure.chart.is_empty()).then_some(figure)
}

/// A number, unless it is none that can be drawn.
pub(super) fn finite(x: Option<f64>) -> Option<f64> {
    x.filter(|x| x.is_finite())
}

/// A horizontal axis of steps up to the last.
pub(super) fn step_axis(last: f64) -> Axis {
    let mut axis = scale("step", [0.0, last.max(1.0)], true);
    axis.range.end = last.max(1.0) * 1.02;
    axis.ticks.retain(|t| t.0 <= axis.range.end && t.0.fract() == 0.0);
    for tick in &mut axis.ticks {
        tick.1 = fixed(tick.0, 0);
    }
    axis
}

/// A vertical axis over `values` with round ticks; it reaches down to zero if `from_zero`.
pub fn scale(title: &str, values: impl IntoIterator<Item = f64>, from_zero: bool) -> Axis {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for v in values.into_iter().filter(|v| v.is_finite()) {
        low = low.min(v);
        high = high.max(v);
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    if from_zero {
        low = low.min(0.0);
        high = high.max(0.0);
    }
    // Room for values that are all the same, and for rounding near very large ones.
    let least = (low.abs().max(high.abs()) * 1e-3).max(1e-6);
    if high - low < least {
        high += least;
        if !from_zero {
            low -= least;
        }
    }
    let step = round_step((high - low) / 4.5);
    let first = (low / step).floor();
    let last = (high / step).ceil();
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    let ticks = (0..=((last - first) as usize).min(20))
        .map(|i| (first + i as f64) * step)
        .map(|v| (v, fixed(v, digits)))
        .collect();
    Axis { title: title.into(), spacing: Spacing::Even, range: first * step..last * step, ticks }
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= least * 0.999).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_ticks() {
        let axis = scale("share", [0.0, 0.43], true);
        let labels: Vec<&str> = axis.ticks.iter().map(|t| t.1.as_str()).collect();
        assert_eq!(labels, ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        assert!(scale("flat", [2.0, 2.0], false).ticks.len() > 1);
        assert_eq!(scale("nothing", [], false).range, 0.0..1.0);
        assert_eq!(scale("zero", [0.0, 0.0], true).range.start, 0.0);
    }
}
