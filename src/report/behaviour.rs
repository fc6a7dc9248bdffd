//! Whether the organism does what it was made for, as lines for a terminal and as a table of the page.

use maud::{Markup, html};

use super::effects::{effect_lines, effect_table};
use super::quality;
use crate::behaviour::Behaviour;

/// One line a value: base, tuned, change with its interval. Those of the quality panel follow, and what they come to.
pub fn lines(found: &Behaviour) -> Vec<String> {
    let mut lines = effect_lines(found, &found.effects());
    let of_panel = quality::lines(found);
    if !lines.is_empty() && !of_panel.is_empty() {
        lines.push(String::new());
    }
    lines.extend(of_panel);
    lines
}

/// The table of the page.
pub(super) fn section(found: &Behaviour) -> Markup {
    let effects = found.effects();
    html! {
        @if !effects.is_empty() {
            h3 { "Behaviour" }
            p.note {
                "Whether the organism does what it was made for. Intervals are 95 % bootstrap intervals over items."
            }
            (effect_table("Behaviour", found, &effects))
        }
        (quality::section(found))
    }
}
