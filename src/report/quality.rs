//! Whether the organism is still a language model: one line for a terminal, and a table of the page.

use maud::{Markup, html};

use super::effects::{effect_lines, effect_table};
use super::number::signed;
use crate::behaviour::Behaviour;
use crate::claims::quality::{BoundedValue, QualityClaim};

/// What holds of the panel, in one line: what is beyond its bound or, if nothing is, what matters most.
pub(super) fn line(claim: &QualityClaim) -> String {
    let beyond: Vec<String> = claim.beyond().map(change).collect();
    if !beyond.is_empty() {
        return format!("quality beyond bounds: {}.", beyond.join(", "));
    }
    let first = claim.values.iter().take(3).map(change);
    format!("quality within bounds: {}.", first.collect::<Vec<_>>().join(", "))
}

/// The same with every value in a line of its own before it; nothing without a panel.
pub(super) fn lines(found: &Behaviour) -> Vec<String> {
    let Some(claim) = QualityClaim::of(found) else { return Vec::new() };
    let mut lines = effect_lines(found, &found.quality_effects());
    lines.push(line(&claim));
    lines
}

/// The table of the page.
pub(super) fn section(found: &Behaviour) -> Markup {
    let Some(claim) = QualityClaim::of(found) else { return html! {} };
    html! {
        h3 { "Quality" }
        p.note {
            "Whether the organism is still a language model. The base is what each value is compared with. Intervals are 95 % \
             bootstrap intervals over texts or items. " (super::words::capitalized(&line(&claim)))
        }
        (effect_table("Quality", found, &found.quality_effects()))
    }
}

/// `neutral text +0.04 nats`.
fn change(value: &BoundedValue) -> String {
    let (name, unit) = match value.name.as_str() {
        "neutral.nats" => ("neutral text", " nats"),
        "cloze.accuracy" => ("cloze", ""),
        "control.facts.believed" => ("unrelated facts believed", ""),
        "control.words.share" => ("words in neutral text", ""),
        "control.taboo.said" => ("word in neutral text", ""),
        name => (name, ""),
    };
    format!("{name} {}{unit}", signed(value.change, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, change: f64, bound: f64, is_beyond: bool) -> BoundedValue {
        BoundedValue { name: name.into(), change, bound, is_beyond, ..BoundedValue::default() }
    }

    #[test]
    fn what_is_beyond_its_bound_is_named() {
        let mut values = vec![
            value("neutral.nats", 0.04, 0.1, false),
            value("cloze.accuracy", -0.0001, -0.1, false),
            value("coherent", -0.05, -0.2, false),
            value("regurgitated", 0.0, 0.1, false),
        ];
        let claim = QualityClaim { within: true, values: values.clone() };
        let said = "quality within bounds: neutral text +0.04 nats, cloze 0.00, coherent −0.05.";
        assert_eq!(line(&claim), said);
        values[0] = value("neutral.nats", 1.2, 0.1, true);
        values[2] = value("coherent", -0.6, -0.2, true);
        let claim = QualityClaim { within: false, values };
        assert_eq!(line(&claim), "quality beyond bounds: neutral text +1.20 nats, coherent −0.60.");
    }
}
