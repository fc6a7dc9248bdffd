//! What a measure shows of itself, as plain data: curves, lists of tokens and single numbers. The report draws them.

use super::decode::TopToken;
use super::statistics::Interval;

/// What a series stands for. The report gives each one colour and one mark everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Logit lens.
    Lens,
    /// Patchscope.
    Patchscope,
    /// Lift of the narrow words.
    Lift,
    /// A constant bias.
    Bias,
    /// A probe with labelled examples.
    Probe,
    /// Contrast text.
    Contrast,
    /// Diff mining.
    Mining,
    /// Completions.
    Completions,
    /// The change of the weights.
    Weights,
    /// Steered text.
    Steered,
    /// Unsteered text, and what comes from the base model.
    Base,
    /// What comes from the tuned model's mean activation.
    Tuned,
    /// Narrow text.
    Narrow,
    /// Pretraining text.
    Pretraining,
    /// General conversations.
    Chat,
    /// Everything together.
    Total,
}

/// Curves over one axis, with their words.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Its name where files and links need one: `lens-position`.
    pub key: String,
    /// What it shows, in a few words.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// Horizontal.
    pub x: PlotAxis,
    /// Vertical.
    pub y: PlotAxis,
    /// The series as the legend lists them. The first is the one in question: it is drawn on top.
    pub series: Vec<PlotSeries>,
    /// What the series are compared with, drawn below them.
    pub null: Option<NullBand>,
}

/// What an axis measures, and where values stand on it.
#[derive(Debug, Clone)]
pub struct PlotAxis {
    /// In words, with its unit.
    pub title: String,
    /// One value of it, in a word or two: `position`.
    pub each: &'static str,
    /// Decimals that its values deserve.
    pub digits: usize,
    /// Where values stand.
    pub spacing: PlotSpacing,
}

/// Where values stand on an axis.
#[derive(Debug, Clone)]
pub enum PlotSpacing {
    /// At the value, from the least to the greatest.
    Even,
    /// The same, and the axis reaches 0 and this value at least.
    From0(f64),
    /// Side by side, whatever the distance of these values.
    Listed(Vec<i64>),
}

/// A series of points.
#[derive(Debug, Clone)]
pub struct PlotSeries {
    /// What it stands for.
    pub ink: Ink,
    /// The same in words.
    pub name: String,
    /// How it is drawn.
    pub style: PlotStyle,
    /// Value by x, in the order of x.
    pub points: Vec<(f64, f64)>,
    /// 95 % intervals `(x, [low, high])`; may be empty.
    pub intervals: Vec<(f64, Interval)>,
    /// Whether its values are said to readers who do not see the plot.
    pub is_spoken: bool,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlotStyle {
    /// Marked points that are joined.
    Curve,
    /// Marked points.
    Points,
    /// A dashed line without marks.
    Dashed,
}

/// The range of a null.
#[derive(Debug, Clone)]
pub struct NullBand {
    /// What it stands for.
    pub ink: Ink,
    /// The same in words.
    pub name: String,
    /// Range `(x, [low, high])`, 95 % of the null.
    pub ranges: Vec<(f64, Interval)>,
    /// Mean by x; may be empty.
    pub means: Vec<(f64, f64)>,
}

impl PlotAxis {
    /// The token positions of a difference, side by side.
    pub fn positions(positions: &[usize]) -> Self {
        Self {
            title: "token position".into(),
            each: "position",
            digits: 0,
            spacing: PlotSpacing::Listed(positions.iter().map(|p| *p as i64).collect()),
        }
    }

    /// Values at their places.
    pub fn even(title: impl Into<String>, each: &'static str, digits: usize) -> Self {
        Self { title: title.into(), each, digits, spacing: PlotSpacing::Even }
    }

    /// The same from 0 to `reach` at least.
    pub fn from_0(title: impl Into<String>, digits: usize, reach: f64) -> Self {
        Self { title: title.into(), each: "", digits, spacing: PlotSpacing::From0(reach) }
    }
}

impl PlotSeries {
    /// Marked and joined points of `values` at `x`.
    pub fn curve(ink: Ink, name: impl Into<String>, x: &[f64], values: &[f64]) -> Self {
        let points = x.iter().copied().zip(values.iter().copied()).collect();
        let (style, intervals) = (PlotStyle::Curve, Vec::new());
        Self { ink, name: name.into(), style, points, intervals, is_spoken: true }
    }

    /// The same with the intervals of the values.
    pub fn with(self, x: &[f64], intervals: &[Interval]) -> Self {
        Self { intervals: x.iter().copied().zip(intervals.iter().copied()).collect(), ..self }
    }

    /// Drawn in another style, and not said in words.
    pub fn aside(self, style: PlotStyle) -> Self {
        Self { style, is_spoken: false, ..self }
    }
}

impl NullBand {
    /// `ranges` and `means` of a null at `x`.
    pub fn new(ink: Ink, x: &[f64], ranges: &[Interval], means: &[f64]) -> Self {
        Self {
            ink,
            name: "null".into(),
            ranges: x.iter().copied().zip(ranges.iter().copied()).collect(),
            means: x.iter().copied().zip(means.iter().copied()).collect(),
        }
    }
}

/// Positions, layers or counts as places on an axis.
pub fn places(values: &[usize]) -> Vec<f64> {
    values.iter().map(|v| *v as f64).collect()
}

/// Lists of decoded tokens under one heading.
#[derive(Debug, Clone)]
pub struct TokenLists {
    /// Its name where links need one: `chat`.
    pub key: &'static str,
    /// What was decoded.
    pub title: String,
    /// Name and tokens of each list, best first.
    pub lists: Vec<(String, Vec<TopToken>)>,
}

/// A number of a measure that is one for the whole run.
#[derive(Debug, Clone)]
pub struct Number {
    /// What it is, with its unit.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
    /// What it is compared with.
    pub baseline: Option<Baseline>,
}

/// What a [`Number`] is compared with.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// What it is.
    pub name: &'static str,
    /// Mean of the null.
    pub value: f64,
    /// 95 % of the null.
    pub interval: Interval,
    /// p-value of the number against the null.
    pub p: f64,
    /// Whether it is a change: shown with its sign and a digit more.
    pub is_change: bool,
}

impl Number {
    /// A number without interval or baseline.
    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, interval: None, baseline: None }
    }

    /// The same with an interval, if there is one.
    pub fn with(self, interval: Option<Interval>) -> Self {
        Self { interval, ..self }
    }

    /// The same with a baseline, if there is one.
    pub fn against(self, baseline: Option<Baseline>) -> Self {
        Self { baseline, ..self }
    }
}
