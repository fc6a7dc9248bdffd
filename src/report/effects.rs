//! Values of base and tuned model with their change, as lines for a terminal and as a table of the page.

use maud::{Markup, html};

use super::number::{ABSENT, interval, signed};
use super::visible::one_line;
use crate::behaviour::{Behaviour, BehaviourEffect};
use crate::diff::statistics::Interval;

/// One line a value.
pub(super) fn effect_lines(found: &Behaviour, effects: &[(String, &BehaviourEffect)]) -> Vec<String> {
    let width = effects.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, e): &(String, &BehaviourEffect)| {
        let [base, tuned, change] = [e.base, e.tuned, e.change].map(|x| signed(x, 3));
        let (unit, items) = (found.unit(name), e.items);
        format!(
            "{name:<width$}  {base:>7} → {tuned:>7}  change {change} {}  {items} items, {unit}",
            shown(e.change_interval)
        )
    };
    effects.iter().map(line).collect()
}

/// A row a value.
pub(super) fn effect_table(title: &str, found: &Behaviour, effects: &[(String, &BehaviourEffect)]) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-label={ (title) ", scrolls sideways" } {
            table {
                thead { tr {
                    @for title in ["Value", "Base", "Tuned", "Change", "Items"] { th scope="col" { (title) } }
                } }
                tbody {
                    @for (name, e) in effects {
                        tr {
                            th scope="row" { (one_line(name, 60)) small { (found.unit(name)) } }
                            td { (signed(e.base, 3)) small { (shown(e.base_interval)) } }
                            td { (signed(e.tuned, 3)) small { (shown(e.tuned_interval)) } }
                            td { (signed(e.change, 3)) small { (shown(e.change_interval)) } }
                            td { (e.items) }
                        }
                    }
                }
            }
        }
    }
}

fn shown(i: Option<Interval>) -> String {
    i.map_or_else(|| ABSENT.into(), |i| interval(i, 3))
}
