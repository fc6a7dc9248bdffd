//! Where each measure meets its null, in sentences.

use super::number::ratio;
use super::words::capitalized;
use crate::claims::list;
use crate::claims::meets_null::MeetsNull;

/// The ratio at which a measure meets its null, and how many runs are told from it at each.
pub fn sentence(found: &MeetsNull) -> String {
    let name = capitalized(&found.name);
    let gaps: Vec<String> = found.gaps.iter().map(|gap| mix(*gap)).collect();
    let gaps = match gaps.is_empty() {
        true => String::new(),
        false => format!(", though it is not distinguishable from it at mix {}", list(&gaps)),
    };
    let words = match (found.at, found.last_told) {
        (Some(at), _) if gaps.is_empty() => format!("{name} meets its null at mix {}", mix(at)),
        (Some(at), _) => format!("{name} meets its null at mix {}{gaps} either", mix(at)),
        (None, Some(last)) => {
            let last = mix(last);
            format!("{name} does not meet its null up to mix {last}, the highest that was run{gaps}")
        }
        (None, None) => {
            format!("{name} is not distinguishable from its null at any of the ratios that were run")
        }
    };
    let counted: Vec<String> =
        found.counts.iter().map(|c| format!("{} of {} at mix {}", c.told, c.runs, mix(c.mix))).collect();
    format!("{words} (runs distinguishable from it: {}).", list(&counted))
}

/// A mix ratio, to two digits.
pub fn mix(mix: f64) -> String {
    ratio((mix * 100.0).round() / 100.0)
}
