//! What is left of trace and behaviour as pretraining text is mixed in: one figure, and in words.

use super::charts::{Chart, Figure, Key, KeyKind, Line, figure, scale, values};
use super::figures::mix_axis;
use super::matching::basis;
use super::meets_null::mix;
use super::mix_scale::MixScale;
use super::number::fixed;
use super::series::MixSeries;
use super::visible::one_line;
use super::words::capitalized;
use crate::claims::list;
use crate::claims::remaining::Remaining;
use crate::claims::trace::{LIFT, trace_measures};
use crate::diff::plot::Ink;
use crate::recipe::default_primaries;

/// What is shown: behaviours, the readers that recipes preregister by default, and lift, whose numbers compare between runs;
/// every measure where none of these readers ran.
fn shown<'a>(series: &MixSeries<'a>) -> Vec<&'a Remaining> {
    let all = &series.claims.remaining;
    let is_primary = |one: &Remaining| default_primaries().contains(&one.key.as_str());
    let is_old = !all.iter().any(is_primary);
    all.iter().filter(|one| is_old || one.is_behaviour || one.key == LIFT || is_primary(one)).collect()
}

/// The figure; `None` for a setting with one ratio.
pub(super) fn of_series(series: &MixSeries) -> Option<Figure> {
    let shown = shown(series);
    let line = |one: &&Remaining| {
        let ink = trace_measures().find(|m| m.key == one.key).map_or(Ink::Narrow, |m| m.ink);
        let points = one.shares.iter().map(|s| (s.mix, s.share)).collect();
        Line { dashed: one.is_behaviour, ..Line::new(ink, label(one), points) }
    };
    let lines: Vec<Line> = shown.iter().map(line).collect();
    let kind = |line: &Line| if line.dashed { KeyKind::Dashed } else { KeyKind::Line };
    let legend = lines.iter().map(|line| Key::new(line.ink, kind(line), line.name.clone())).collect();
    let lowest = mix(series.first()?.0);
    figure(Figure {
        key: "remaining-mix".into(),
        title: "What is left of trace and behaviour".into(),
        caption: format!(
            "Each value as a share of its value at mix {lowest}, mean over runs. 0 is the null of a measure of the trace, and \
             the base for a behaviour (dashed). A trace that falls while the behaviour stays is harder to read at equal \
             learning; the sections below have the values with their intervals. {}",
            basis(series.claims).join(" ")
        ),
        spoken: shown.iter().map(|one| sentence(one)).collect::<Vec<_>>().join(" "),
        legend,
        chart: Chart {
            x: mix_axis(series, MixScale::over(series)),
            y: scale(&format!("share of the value at mix {lowest}"), values(&lines, &[]), true),
            bands: vec![],
            lines,
            labels: vec![],
        },
    })
}

/// The name of a measure or behaviour.
fn label(one: &Remaining) -> String {
    if one.is_behaviour { format!("behaviour {}", one_line(&one.name, 40)) } else { one.name.clone() }
}

/// `Lift AUROC: 31 % at mix 1 and 12 % at mix 4.`
fn sentence(one: &Remaining) -> String {
    let shares: Vec<String> =
        one.shares.iter().skip(1).map(|s| format!("{} at mix {}", percent(s.share), mix(s.mix))).collect();
    format!("{}: {}.", capitalized(&label(one)), list(&shares))
}

/// What is left at one ratio, of traces or of behaviours: `contrast text 45 %, diff mining 71 %`.
pub(super) fn left_at(series: &MixSeries, ratio: f64, is_behaviour: bool) -> Vec<String> {
    let of = |one: &Remaining| {
        let share = one.shares.iter().find(|s| s.mix == ratio)?.share;
        Some(format!("{} {}", one.name, percent(share)))
    };
    shown(series).into_iter().filter(|one| one.is_behaviour == is_behaviour).filter_map(of).collect()
}

fn percent(share: f64) -> String {
    format!("{} %", fixed(100.0 * share, 0))
}
