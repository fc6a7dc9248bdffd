//! Draws charts as SVG.
//!
//! Colours are written as fixed values that the page's style sheet overrides in the dark
//! (`[stroke="#1F6FB4"]`), so a chart cut out of the page still has its colours.

use std::ops::Range;

use anyhow::{Result, anyhow};
use maud::html;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use super::charts::{Axis, Chart, Figure, Key, KeyKind, Line, Spacing};
use crate::diff::plot::Ink;

/// Size in CSS pixels at full width; small, so that a phone does not have to shrink it much.
const SIZE: (u32, u32) = (460, 290);
/// The SVG backend rounds to whole units: draw large and let the view box scale it down.
const FINE: u32 = 4;
const FONT: i32 = 13;
/// Height of a line of text beside the chart, in the file of a figure.
const LINE: u32 = 20;

/// Why drawing failed; the SVG backend writes to a string, which cannot.
type DrawError = DrawingAreaErrorKind<std::io::Error>;

impl Ink {
    fn color(self) -> RGBColor {
        match self {
            Ink::Lens => RGBColor(0x1F, 0x6F, 0xB4),
            Ink::Patchscope => RGBColor(0xC4, 0x54, 0x0A),
            Ink::Lift => RGBColor(0x6B, 0x6B, 0x00),
            Ink::Bias => RGBColor(0x8C, 0x4A, 0x3A),
            Ink::Probe => RGBColor(0x00, 0x78, 0x80),
            Ink::Contrast => RGBColor(0xB0, 0x45, 0x1F),
            Ink::Mining => RGBColor(0x3B, 0x5B, 0xA5),
            Ink::Completions => RGBColor(0x8A, 0x3F, 0x8F),
            Ink::Weights => RGBColor(0x4F, 0x6D, 0x1E),
            Ink::Steered => RGBColor(0x14, 0x80, 0x5A),
            Ink::Base => RGBColor(0x76, 0x76, 0x7C),
            Ink::Tuned => RGBColor(0x8A, 0x5F, 0xB5),
            Ink::Narrow => RGBColor(0xB0, 0x30, 0x6A),
            Ink::Pretraining => RGBColor(0x2B, 0x62, 0xA8),
            Ink::Chat => RGBColor(0x8A, 0x6D, 0x12),
            Ink::Total => RGBColor(0x77, 0x77, 0x7D),
        }
    }

    /// The colour as the SVG has it.
    pub fn hex(self) -> String {
        let RGBColor(r, g, b) = self.color();
        format!("#{r:02X}{g:02X}{b:02X}")
    }

    /// The shape of its points, so that lines can be told apart without colour.
    pub fn mark(self) -> Mark {
        match self {
            Ink::Patchscope | Ink::Pretraining | Ink::Bias => Mark::Square,
            Ink::Base | Ink::Total => Mark::Cross,
            Ink::Tuned | Ink::Chat | Ink::Probe => Mark::Ring,
            _ => Mark::Dot,
        }
    }
}

/// The shape of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A filled circle.
    Dot,
    /// A filled square.
    Square,
    /// An open circle.
    Ring,
    /// An oblique cross.
    Cross,
}

impl Chart {
    /// The chart as an `<svg>` element without size, so that it takes the width it is given.
    /// It is hidden from screen readers: the figure around it has to say what it shows.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (SIZE.0 * FINE, SIZE.1 * FINE)).into_drawing_area();
            self.draw(&root).map_err(|e| anyhow!("draw a chart of {}: {e}", self.y.title))?;
            root.present().map_err(|e| anyhow!("draw a chart of {}: {e}", self.y.title))?;
        }
        // The namespace is implied inside HTML, and the style sheet decides on the size.
        let (w, h) = (SIZE.0 * FINE, SIZE.1 * FINE);
        let body = body_of(svg);
        Ok(format!("<svg viewBox=\"0 0 {w} {h}\" aria-hidden=\"true\" focusable=\"false\">{body}"))
    }

    fn draw<'a>(&self, root: &DrawingArea<SVGBackend<'a>, Shift>) -> Result<(), DrawError> {
        let unit = FINE as i32;
        let font = font();

        let mut chart = ChartBuilder::on(root)
            .margin_top(26 * unit)
            .margin_right(14 * unit)
            .x_label_area_size(46 * unit)
            .y_label_area_size(46 * unit)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(RGBColor(0xDD, 0xDD, 0xE0).stroke_width(FINE))
            .light_line_style(TRANSPARENT)
            .axis_style(RGBColor(0x99, 0x99, 0x9F).stroke_width(FINE))
            .label_style(font.clone())
            .axis_desc_style(font.clone())
            .x_desc(self.x.title.clone())
            .set_all_tick_mark_size(4 * unit)
            .draw()?;
        root.draw(&Text::new(self.y.title.clone(), (4 * unit, 4 * unit), font.clone()))?;

        for band in &self.bands {
            let mut edges: Vec<_> = band
                .edges
                .iter()
                .map(|e| (self.x.spacing.place(e.0), self.y_at(e.1), self.y_at(e.2)))
                .collect();
            // Over listed values a band reaches a bit beyond them; of one value it would have no width.
            if let (Spacing::Listed(_), Some(&first), Some(&last)) =
                (&self.x.spacing, edges.first(), edges.last())
            {
                edges.insert(0, (first.0 - 0.3, first.1, first.2));
                edges.push((last.0 + 0.3, last.1, last.2));
            }
            let low = edges.iter().map(|e| (e.0, e.1));
            let high = edges.iter().rev().map(|e| (e.0, e.2));
            let outline: Vec<_> = low.chain(high).collect();
            chart.draw_series([Polygon::new(outline, band.ink.color().mix(0.16).filled())])?;
        }
        // A line at zero, where the axis has one inside.
        if self.y.range.start < 0.0 && self.y.range.end > 0.0 {
            let ends = vec![(self.x.range.start, 0.0), (self.x.range.end, 0.0)];
            chart.draw_series([PathElement::new(ends, RGBColor(0x99, 0x99, 0x9F).stroke_width(FINE))])?;
        }
        for line in &self.lines {
            self.draw_line(&mut chart, line)?;
        }
        for (x, y, text) in &self.labels {
            let at = (self.x.spacing.place(*x), self.y_at(*y));
            let beside = Text::new(text.clone(), (7 * unit, -17 * unit), font.clone());
            chart.draw_series([EmptyElement::at(at) + beside])?;
        }
        Ok(())
    }

    /// The place of a value on the vertical axis, on its end if it lies beyond (an interval that is wider than what
    /// can be: its numbers stand in the data).
    fn y_at(&self, value: f64) -> f64 {
        self.y.spacing.place(value).clamp(self.y.range.start, self.y.range.end)
    }

    fn draw_line<'a>(
        &self,
        chart: &mut ChartContext<'_, SVGBackend<'a>, Cartesian2d<Axis, Axis>>,
        line: &Line,
    ) -> Result<(), DrawError> {
        let unit = FINE as i32;
        let strength = if line.faint { 0.45 } else { 1.0 };
        let color = line.ink.color().mix(strength);
        let thin = color.stroke_width(FINE + FINE / 2);
        // Wide bars must not hide the points.
        let bar = line.ink.color().mix(0.45).stroke_width(FINE + FINE / 2);
        let thick = color.stroke_width(2 * FINE);
        let x_at = |x: f64| self.x.spacing.place(x).clamp(self.x.range.start, self.x.range.end);
        let points: Vec<(f64, f64)> = line.points.iter().map(|p| (x_at(p.0), self.y_at(p.1))).collect();
        if line.joined && points.len() > 1 {
            if line.dashed {
                let points = points.iter().copied();
                chart.draw_series(DashedLineSeries::new(points, 6 * FINE, 4 * FINE, thin))?;
            } else {
                let style = if line.faint { thin } else { thick };
                chart.draw_series([PathElement::new(points.clone(), style)])?;
            }
        }
        for &(x, low, high) in &line.bars {
            let ends = vec![(x_at(x), self.y_at(low)), (x_at(x), self.y_at(high))];
            chart.draw_series([PathElement::new(ends, bar)])?;
        }
        for &(y, low, high) in &line.spans {
            let ends = vec![(x_at(low), self.y_at(y)), (x_at(high), self.y_at(y))];
            chart.draw_series([PathElement::new(ends, bar)])?;
        }
        if !line.marked {
            return Ok(());
        }
        let r = if line.faint { 3 * unit } else { 4 * unit };
        for &at in &points {
            match line.ink.mark() {
                Mark::Dot => chart.draw_series([Circle::new(at, r, color.filled())])?,
                Mark::Ring => chart.draw_series([Circle::new(at, r, thin)])?,
                Mark::Cross => chart.draw_series([Cross::new(at, r, thin)])?,
                Mark::Square => chart.draw_series([
                    EmptyElement::at(at) + Rectangle::new([(-r, -r), (r, r)], color.filled())
                ])?,
            };
        }
        Ok(())
    }
}

/// A figure as a file of its own: heading, chart and legend on white.
pub fn svg_file(figure: &Figure) -> Result<String> {
    let top = LINE + 8;
    let height = top + SIZE.1 + LINE * figure.legend.len() as u32 + 12;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0 * FINE, height * FINE)).into_drawing_area();
        let draw = || -> Result<(), DrawError> {
            root.fill(&WHITE)?;
            let (heading, rest) = root.split_vertically(top * FINE);
            let (chart, legend) = rest.split_vertically(SIZE.1 * FINE);
            let at = (4 * FINE as i32, 6 * FINE as i32);
            heading.draw(&Text::new(figure.title.clone(), at, font().color(&BLACK)))?;
            figure.chart.draw(&chart)?;
            for (i, key) in figure.legend.iter().enumerate() {
                draw_key(&legend, key, ((i as u32 * LINE + 4) * FINE) as i32)?;
            }
            root.present()
        };
        draw().map_err(|e| anyhow!("draw {}: {e}", figure.title))?;
    }
    let (w, h) = (SIZE.0 * FINE, height * FINE);
    let words = html! { title { (figure.title) } desc { (figure.spoken) } }.into_string();
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {w} {h}\">{words}{}",
        SIZE.0 * 2,
        height * 2,
        body_of(svg)
    ))
}

/// An entry of the legend, its line `top` below the edge.
fn draw_key(area: &DrawingArea<SVGBackend, Shift>, key: &Key, top: i32) -> Result<(), DrawError> {
    let unit = FINE as i32;
    let color = key.ink.color();
    let (left, right, middle) = (10 * unit, 44 * unit, top + 8 * unit);
    let style = color.stroke_width(2 * FINE);
    match key.kind {
        KeyKind::Band => {
            let corners = [(left, middle - 6 * unit), (right, middle + 6 * unit)];
            area.draw(&Rectangle::new(corners, color.mix(0.25).filled()))?;
        }
        KeyKind::Dashed => {
            for start in (left..right).step_by(10 * FINE as usize) {
                let end = (start + 6 * unit).min(right);
                area.draw(&PathElement::new(vec![(start, middle), (end, middle)], style))?;
            }
        }
        KeyKind::Plain | KeyKind::Line => {
            area.draw(&PathElement::new(vec![(left, middle), (right, middle)], style))?;
        }
    }
    if key.kind == KeyKind::Line {
        let (at, r) = (((left + right) / 2, middle), 4 * unit);
        match key.ink.mark() {
            Mark::Dot => area.draw(&Circle::new(at, r, color.filled()))?,
            Mark::Ring => area.draw(&Circle::new(at, r, style))?,
            Mark::Cross => area.draw(&Cross::new(at, r, style))?,
            Mark::Square => {
                area.draw(&Rectangle::new([(at.0 - r, at.1 - r), (at.0 + r, at.1 + r)], color.filled()))?
            }
        }
    }
    area.draw(&Text::new(key.text.clone(), (52 * unit, top), font()))
}

/// The text of axes and legends.
fn font() -> TextStyle<'static> {
    // The SVG backend writes 1/1.24 of the size that it is asked for.
    let size = FONT as f64 * FINE as f64 * 1.24;
    TextStyle::from(("sans-serif", size).into_font()).color(&RGBColor(0x44, 0x44, 0x4A))
}

/// What follows the opening tag, the closing one included.
fn body_of(mut svg: String) -> String {
    let open_end = svg.find('>').map_or(0, |i| i + 1);
    svg.split_off(open_end)
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let span = self.range.end - self.range.start;
        let share = if span > 0.0 { (value - self.range.start) / span } else { 0.5 };
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Light points would draw further grid lines between the labelled ones.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.iter().map(|t| t.0).collect() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, v: &f64) -> String {
        let near = self.ticks.iter().min_by(|a, b| (a.0 - v).abs().total_cmp(&(b.0 - v).abs()));
        near.map(|t| t.1.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::charts::{Band, scale};
    use super::*;

    #[test]
    fn a_chart_has_its_words_without_system_fonts() {
        let chart = Chart {
            x: scale("position", [0.0, 4.0], true),
            y: scale("share of <tokens>", [0.0, 1.0], true),
            bands: vec![Band {
                ink: Ink::Lens,
                name: "null".into(),
                edges: vec![(0.0, 0.0, 0.1), (4.0, 0.0, 0.1)],
            }],
            lines: vec![Line::new(Ink::Lens, "share", vec![(0.0, 0.2), (4.0, 0.9)])],
            labels: vec![(4.0, 0.9, "last".into())],
        };
        let svg = chart.svg().unwrap();
        assert!(svg.starts_with("<svg viewBox="), "{svg}");
        assert!(svg.contains("share of &lt;tokens&gt;"));
        assert!(svg.contains(">\nposition\n</text>"));
        assert!(svg.contains(&Ink::Lens.hex()));
        assert!(!svg.contains("http"));
    }
}
