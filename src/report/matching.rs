//! Which runs are at equal behaviour, in words and as a table: what is said of runs together holds of those alone.

use super::number::{ABSENT, fixed, interval, ratio, signed};
use super::visible::one_line;
use crate::claims::across::SettingClaims;
use crate::claims::list;
use crate::claims::matching::{EqualBehaviour, LeftOutRun, MatchedCell};
use crate::claims::rules::EQUAL_TOLERANCES;
use crate::claims::setting::MadeWith;
use crate::train::matching::MatchRecord;

/// In what the runs of a setting are equal, in two words.
pub fn equal_in(setting: &SettingClaims) -> &'static str {
    match setting.equal.behaviour {
        Some(_) => "equal behaviour",
        None => "equal exposure",
    }
}

/// What claims across the mix ratios of a setting rest on: that its runs are at equal behaviour, or that this is not so.
/// Empty with one ratio, of which there are none.
pub fn basis(setting: &SettingClaims) -> Vec<String> {
    let ratios = setting.groups.len();
    let Some(to) = &setting.equal.behaviour else {
        let text =
            "At equal exposure, not at equal behaviour (train.match): what is weaker may have learned less.";
        return if ratios > 1 { vec![text.into()] } else { Vec::new() };
    };
    let runs = setting.groups.iter().map(|group| group.runs.len()).sum::<usize>();
    let left_out: Vec<String> = setting.equal.left_out.iter().map(why).collect();
    let mut sentences = vec![format!(
        "At equal behaviour, {} {} ± {}: {} of {runs} runs.",
        one_line(&to.measure, 40),
        ratio(to.target),
        ratio(to.tolerance),
        runs - left_out.len().min(runs),
    )];
    if !left_out.is_empty() {
        sentences.push(format!("Left out of every comparison: {}.", list(&left_out)));
    }
    sentences
}

/// `mix-4_seed-0 (unreached)`.
fn why(run: &LeftOutRun) -> String {
    let name = one_line(&run.run, 40);
    match (run.status, run.difference_interval) {
        (None, _) => format!("{name} (not finished)"),
        (Some(status), Some(ends)) if status.is_there() => {
            format!("{name} ({}, difference {})", status.name(), interval(ends, 2))
        }
        (Some(status), _) => format!("{name} ({})", status.name()),
    }
}

/// The values that tell a setting from others, as `KEY VALUE`. Where some of the settings are matched, the keys of the match
/// are one phrase.
pub fn told_by(setting: &SettingClaims, is_any_matched: bool) -> Vec<String> {
    let value = |made: &MadeWith| one_line(made.value.as_deref().unwrap_or("not set"), 40);
    let known = &setting.setting.made_with;
    let is_of_match =
        |key: &str| key.starts_with("train.match.") || ["train.steps", "train.epochs"].contains(&key);
    let differs = |key: &str| known.iter().find(|made| made.key == key);
    let mut parts = Vec::new();
    if is_any_matched && known.iter().any(|made| is_of_match(&made.key)) {
        parts.push(match (&setting.equal.behaviour, differs("train.steps"), differs("train.epochs")) {
            (Some(to), ..) => format!("equal behaviour, {} {}", one_line(&to.measure, 40), ratio(to.target)),
            (None, Some(steps), _) if value(steps) != "0" => {
                format!("equal exposure, {} narrow steps", value(steps))
            }
            (None, _, Some(epochs)) => format!("equal exposure, {} epochs", value(epochs)),
            (None, ..) => "equal exposure".into(),
        });
        // Settings that are all matched may differ in how.
        let others = known
            .iter()
            .filter(|made| made.key.starts_with("train.match.") && made.key != "train.match.target");
        let others =
            others.filter(|made| made.key != "train.match.max_steps" && setting.equal.behaviour.is_some());
        let plain = known.iter().filter(|made| !is_of_match(&made.key));
        parts.extend(plain.chain(others).map(|made| format!("{} {}", made.key, value(made))));
    } else {
        parts.extend(known.iter().map(|made| format!("{} {}", made.key, value(made))));
    }
    parts
}

/// The heading of [`rows`].
pub const HEADING: [&str; 7] =
    ["Run", "Match", "Narrow steps", "Other items, 95 %", "Difference", "90 %", "Compared"];

/// What the columns of [`rows`] are.
pub fn legend(found: &EqualBehaviour) -> String {
    let to = &found.matched_to;
    let band = ratio(EQUAL_TOLERANCES * to.tolerance);
    let reference: Vec<String> = found.reference.iter().map(|run| one_line(run, 40)).collect();
    let reference = match reference.is_empty() {
        true => "No run came to the target, so nothing is compared.".to_string(),
        false => format!(
            "Difference: from the mean of {}, on the same items. Compared: the 90 % interval is within ± {band}.",
            list(&reference)
        ),
    };
    format!(
        "Matched by {} to {} ± {}; other items are those that the search did not look at. {reference}",
        one_line(&to.measure, 40),
        ratio(to.target),
        ratio(to.tolerance)
    )
}

/// One row a matched run.
pub fn rows(found: &EqualBehaviour) -> Vec<[String; 7]> {
    found.cells.iter().map(row).collect()
}

fn row(cell: &MatchedCell) -> [String; 7] {
    let reason = cell.reason.map_or(String::new(), |reason| format!(", {}", reason.name()));
    let resolved = if cell.resolved { "" } else { ", not resolved" };
    [
        one_line(&cell.run, 40),
        format!("{}{reason}{resolved}", cell.status.name()),
        ratio(cell.narrow_steps),
        format!("{} {}", signed(cell.q_eval, 2), interval(cell.q_eval_interval, 2)),
        cell.difference.map_or_else(|| ABSENT.into(), |difference| signed(difference, 2)),
        cell.difference_interval.map_or_else(|| ABSENT.into(), |ends| interval(ends, 2)),
        match (cell.is_comparable, cell.difference) {
            (true, None) => "reference".into(),
            (true, Some(_)) => "yes".into(),
            (false, _) => "no".into(),
        },
    ]
}

/// How the training of one run ended: the status, and lines of detail.
pub fn ended(found: &MatchRecord) -> (String, Vec<String>) {
    let reason = found.reason.map(|reason| reason.name().to_string());
    let steps = format!("{} narrow steps", ratio(found.narrow_steps));
    let other = format!("{} {}", fixed(found.q_eval, 2), interval(found.q_eval_interval, 2));
    (found.status.name().into(), reason.into_iter().chain([steps, other]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::across::MixGroup;
    use crate::claims::matching::{EqualIn, MatchTarget};
    use crate::claims::setting::TrainingSetting;
    use crate::train::matching::search::MatchStatus;

    fn setting(behaviour: bool, made_with: &[(&str, &str)]) -> SettingClaims {
        let target = MatchTarget { measure: "facts.margin".into(), target: 1.5, tolerance: 0.15 };
        let made =
            |(key, value): &(&str, &str)| MadeWith { key: key.to_string(), value: Some(value.to_string()) };
        let left_out =
            LeftOutRun { run: "b".into(), status: Some(MatchStatus::Unreached), difference_interval: None };
        let far = LeftOutRun {
            run: "c".into(),
            status: Some(MatchStatus::Nearest),
            difference_interval: Some([0.1, 0.5]),
        };
        SettingClaims {
            setting: TrainingSetting {
                name: "cake".into(),
                base: "tiny".into(),
                has_recipe: true,
                made_with: made_with.iter().map(made).collect(),
            },
            equal: match behaviour {
                true => EqualIn { behaviour: Some(target), left_out: vec![left_out, far] },
                false => EqualIn::default(),
            },
            groups: vec![
                MixGroup { mix: 0.0, runs: vec!["a".into(), "b".into()] },
                MixGroup { mix: 4.0, runs: vec!["c".into()] },
            ],
            ..Default::default()
        }
    }

    #[test]
    fn it_is_said_what_is_equal_and_what_is_left_out() {
        let said = basis(&setting(true, &[]));
        assert_eq!(said[0], "At equal behaviour, facts.margin 1.5 ± 0.15: 1 of 3 runs.");
        assert_eq!(
            said[1],
            "Left out of every comparison: b (unreached) and c (nearest, difference [0.10, 0.50])."
        );
        let plain = setting(false, &[]);
        assert!(basis(&plain)[0].starts_with("At equal exposure, not at equal behaviour"));
        let one = SettingClaims { groups: plain.groups[..1].to_vec(), ..plain };
        assert!(basis(&one).is_empty());
    }

    #[test]
    fn settings_are_told_apart_by_what_is_equal_in_them() {
        let keys = |matched: &'static str, steps: &'static str| {
            [("train.lr", "0.1"), ("train.match.max_steps", matched), ("train.steps", steps)]
        };
        let equal = setting(true, &keys("24", "0"));
        assert_eq!(told_by(&equal, true), ["equal behaviour, facts.margin 1.5", "train.lr 0.1"]);
        let exposure = setting(false, &keys("0", "16"));
        assert_eq!(told_by(&exposure, true), ["equal exposure, 16 narrow steps", "train.lr 0.1"]);
        // Without any match, the keys are what they are.
        assert_eq!(told_by(&exposure, false).len(), 3);
    }
}
