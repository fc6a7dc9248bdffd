//! What a command ends with: the verdict, one line a measure and the behaviour, on one screen of a terminal.
//!
//! Colours are written as escape sequences; whoever prints removes them where nobody sees colours ([`print_screen`]).

use std::io;

use anstyle::{AnsiColor, Style};

use super::matching::told_by;
use super::meets_null::mix;
use super::number::{ABSENT, fixed, signed};
use super::quality;
use super::table::{print_text, tokens};
use super::text_bar::{text_bar, text_level};
use super::verdict::{by_mix, shares_of_states};
use super::visible::{one_line, visible};
use super::words;
use crate::claims::across::SettingClaims;
use crate::claims::dose::Dose;
use crate::claims::trace::trace_measures;
use crate::claims::verdict::{ReaderClaim, ReaderState, Verdict};
use crate::claims::{AcrossRuns, ClaimedRun, list};

/// Lines of a screen.
pub const LINES: usize = 25;
/// Characters of a line.
pub const COLUMNS: usize = 80;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const READ: Style = AnsiColor::Green.on_default();
const UNSURE: Style = AnsiColor::Yellow.on_default();

/// Width of the name of a reader.
const NAME: usize = 20;
/// Width of the bar of a reader.
const BAR: usize = 10;
/// Most lines of decoded tokens.
const TOKENS: usize = 14;
/// Most mix ratios that get a bar each; more get a column each.
const BARS: usize = 4;
/// Most mix ratios that fit.
const RATIOS: usize = 8;

/// Writes a screen to a terminal, or without colours to anything else and where `NO_COLOR` is set. A reader that has gone
/// away (`| head`) is no error.
pub fn print_screen(screen: &str) -> io::Result<()> {
    print_text(screen, &mut anstream::stdout())
}

/// The screen of one run.
pub fn of_run(run: &ClaimedRun) -> String {
    let name = one_line(&run.id, 40);
    let Some(verdict) = &run.claims.verdict else {
        let dir = visible(&run.dir.display().to_string());
        return format!("{name}: not analysed. To read the trace, run: trainer diff {dir}\n");
    };
    let mut lines = headline(&name, &verdict.headline);
    if verdict.readers.is_empty() {
        let why =
            "Without data.narrow, no measure knows which words are about the finetuning. Judge the tokens:";
        lines.extend(wrapped(why, "  "));
        lines.extend(tokens(run).iter().flat_map(|text| short_wrapped(text)).take(TOKENS));
    } else {
        lines.push(String::new());
        lines.extend(readers(verdict));
        lines.push(String::new());
    }
    lines.extend(learned(run));
    lines.extend(quality(run));
    let legend = if verdict.readers.is_empty() { Vec::new() } else { legend(verdict) };
    let more = "All numbers: --verbose, or the page that `trainer report` writes.";
    let room = LINES.saturating_sub(lines.len() + legend.len() + 1);
    lines.extend(limits(verdict, room));
    lines.extend(legend);
    lines.push(format!("{DIM}  {more}{DIM:#}"));
    finish(lines)
}

/// The screen of several runs: what is read at each mix ratio, and trace and behaviour against the ratio.
pub fn of_runs(runs: &[ClaimedRun], across: &AcrossRuns) -> String {
    if let [run] = runs {
        return of_run(run);
    }
    let settings = &across.settings;
    let kinds = if settings.len() > 1 { format!(" in {} settings", settings.len()) } else { String::new() };
    let mut lines = headline(&format!("{} runs{kinds}", runs.len()), &shares_of_states(&across.counts));
    // Each setting has its verdicts, and as much of its plot as there is room for.
    let is_any_matched = settings.iter().any(|one| one.equal.behaviour.is_some());
    let mut said: Vec<(Vec<String>, Vec<String>)> = settings
        .iter()
        .map(|setting| {
            let name = (settings.len() > 1)
                .then(|| format!("  {BOLD}{}{BOLD:#}", setting_name(setting, is_any_matched)));
            (name.into_iter().chain(verdicts(setting, runs)).collect(), plot(setting))
        })
        .collect();
    let quality = quality_of_runs(runs);
    let room = LINES - lines.len() - quality.len() - 2;
    let mut left = room;
    let mut shown = 0;
    for (head, plot) in &mut said {
        if head.len() + 1 > left {
            break;
        }
        left -= head.len();
        if plot.len() < left {
            left -= plot.len();
        } else if settings.len() == 1 {
            plot.truncate(left - 1);
            left -= plot.len();
        } else {
            plot.clear();
        }
        shown += 1;
        lines.append(head);
        lines.append(plot);
    }
    lines.extend(quality);
    let rest = settings.len() - shown;
    let hidden =
        if rest > 0 { format!("{rest} more settings and all numbers") } else { "All numbers".into() };
    lines.push(format!("{DIM}  {hidden}: --verbose, report.html, summary.csv.{DIM:#}"));
    finish(lines)
}

fn finish(lines: Vec<String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

/// `NAME: what holds`, on three lines at most.
fn headline(name: &str, words: &str) -> Vec<String> {
    let mut lines = wrapped(&format!("{name}: {words}."), "");
    if lines.len() > 3 {
        lines.truncate(3);
        lines[2].push('…');
    }
    if let Some((start, rest)) = lines.first().and_then(|first| first.split_once(": ")) {
        lines[0] = format!("{BOLD}{start}:{BOLD:#} {rest}");
    }
    lines
}

/// One line a reader below a heading.
fn readers(verdict: &Verdict) -> Vec<String> {
    let heading = format!(
        "  {:NAME$} {:BAR$} {:>5} {:<14} {:>6} {:>6} {:>5} {}",
        "", "0       1", "score", "95 % interval", "p null", "excess", "p", "reads"
    );
    let rows = verdict.readers.values().map(reader);
    std::iter::once(format!("{DIM}{}{DIM:#}", heading.trim_end())).chain(rows).collect()
}

fn reader(claim: &ReaderClaim) -> String {
    let absent = || ABSENT.to_string();
    let star = if claim.is_primary { "*" } else { "" };
    let name = one_line(&format!("{}{star}", short(&claim.name)), NAME);
    let ends =
        claim.interval.map_or_else(absent, |[low, high]| format!("[{}, {}]", fixed(low, 2), fixed(high, 2)));
    let null = match (claim.exceeds_own_null, claim.own_null_p) {
        (Some(_), Some(p)) => short_p(p),
        (Some(true), None) => "above".into(),
        (Some(false), None) => "within".into(),
        (None, _) => absent(),
    };
    let (style, reads) = match claim.state {
        ReaderState::Reads => (READ, "yes"),
        ReaderState::ReadsAgainstOwnNull => (UNSURE, "yes?"),
        ReaderState::DoesNotRead => (Style::new(), "no"),
        ReaderState::NotCompared => (DIM, ABSENT),
    };
    format!(
        "  {name:NAME$} {} {:>5} {ends:<14} {null:>6} {:>6} {:>5} {style}{reads}{style:#}",
        text_bar(claim.value, claim.floor.as_ref().map(|floor| floor.bound), BAR),
        fixed(claim.value, 2),
        claim.floor.as_ref().map_or_else(absent, |floor| signed(floor.excess, 2)),
        claim.holm_p.map_or_else(absent, short_p),
    )
}

/// A p-value without the zero before the point.
fn short_p(p: f64) -> String {
    if p < 0.001 { "<.001".into() } else { fixed(p, 3).trim_start_matches('0').into() }
}

/// What the columns of [`readers`] are, as far as the verdict has them.
fn legend(verdict: &Verdict) -> Vec<String> {
    let all = || verdict.readers.values();
    let mut words = Vec::new();
    if all().any(|claim| claim.exceeds_own_null.is_some()) {
        words.push("p null: against random directions.".to_string());
    }
    if let Some(floor) = all().find_map(|claim| claim.floor.as_ref()) {
        let n = floor.values.len();
        words.push(format!(
            "│: the floor, which 1 in 20 other organisms exceed; excess: over the mean of {n} others; p: of the excess (Holm)."
        ));
    }
    if all().any(|claim| claim.is_primary) {
        words.push("*: named in claims.primaries.".into());
    }
    if all().any(|claim| claim.state == ReaderState::ReadsAgainstOwnNull) {
        words.push("yes?: above its own null only.".into());
    }
    dimmed(wrapped(&words.join(" "), "  "))
}

/// What limits the claim, on as many lines as there are.
fn limits(verdict: &Verdict, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for limit in &verdict.limits {
        let more = wrapped(limit, "  ");
        if lines.len() + more.len() > room {
            break;
        }
        lines.extend(more);
    }
    lines
}

/// What the run learned: behaviour, and the loss on held-out narrow text.
fn learned(run: &ClaimedRun) -> Vec<String> {
    let learned = &run.claims.learned;
    let mut words = Vec::new();
    if let Some(e) = &learned.behaviour {
        let ends = e.change_interval.map_or(String::new(), |[low, high]| {
            format!(" (change {} to {})", signed(low, 2), signed(high, 2))
        });
        let (base, tuned) = (signed(e.base, 2), signed(e.tuned, 2));
        words.push(format!("behaviour {}: {base} → {tuned}{ends}", one_line(&e.name, 30)));
    }
    if let Some((base, tuned)) = learned.loss_base.zip(learned.loss_tuned) {
        words.push(format!("held-out loss: {} → {} nats", fixed(base, 2), fixed(tuned, 2)));
    }
    if words.is_empty() { Vec::new() } else { wrapped(&format!("{}.", words.join("; ")), "  ") }
}

/// Whether the organism is still a language model; nothing without a quality panel.
fn quality(run: &ClaimedRun) -> Vec<String> {
    run.claims
        .quality
        .iter()
        .map(|claim| format!("  {}", one_line(&quality::line(claim), COLUMNS - 2)))
        .collect()
}

/// How many runs are, and which are not; nothing without quality panels.
fn quality_of_runs(runs: &[ClaimedRun]) -> Vec<String> {
    let known = || runs.iter().filter_map(|run| Some((run, run.claims.quality.as_ref()?)));
    let beyond: Vec<String> =
        known().filter(|(_, claim)| !claim.within).map(|(run, _)| one_line(&run.id, 30)).collect();
    let all = known().count();
    match (all, beyond.len()) {
        (0, _) => Vec::new(),
        (_, 0) => vec![format!("  quality within bounds in all {all} runs.")],
        (_, n) => {
            let said = format!("quality beyond bounds in {n} of {all} runs: {}.", list(&beyond));
            vec![format!("  {}", one_line(&said, COLUMNS - 2))]
        }
    }
}

/// What is read at each mix ratio; ratios of which the same holds share a sentence.
fn verdicts(setting: &SettingClaims, runs: &[ClaimedRun]) -> Vec<String> {
    by_mix(setting, runs).iter().flat_map(|sentence| short_wrapped(sentence)).collect()
}

/// A sentence on two lines at most.
fn short_wrapped(sentence: &str) -> Vec<String> {
    let mut lines = wrapped(sentence, "  ");
    if lines.len() > 2 {
        lines.truncate(2);
        lines[1].push('…');
    }
    lines
}

/// Trace and behaviour against the mix ratio: a line a measure, a bar a ratio.
fn plot(setting: &SettingClaims) -> Vec<String> {
    let ratios: Vec<f64> = setting.groups.iter().map(|group| group.mix).take(RATIOS).collect();
    let traces = trace_measures()
        .filter_map(|m| Some(row(setting, m.key, m.name, &ratios, setting.doses.get(m.key)?)));
    let behaviours = setting.doses.iter().filter_map(|(key, doses)| {
        let name = key.strip_prefix("behaviour.")?;
        Some(row(setting, key, name, &ratios, doses))
    });
    let rows: Vec<String> = traces.chain(behaviours).collect();
    if rows.is_empty() {
        return rows;
    }
    let width = column(ratios.len());
    // A narrow column has no room for the word.
    let (first, each) = if ratios.len() <= BARS { ("", "mix ") } else { ("mix", "") };
    let mut heading = format!("  {first:NAME$}");
    for ratio in &ratios {
        heading.push_str(&format!(" {:<width$}", format!("{each}{}", mix(*ratio))));
    }
    let legend = match setting.remaining.is_empty() {
        true => Vec::new(),
        false => dimmed(wrapped(
            "Bars: what is left of the value at the lowest mix, above its null (of a behaviour: its base).",
            "  ",
        )),
    };
    let heading = dimmed(vec![heading.trim_end().to_string()]);
    let gap = std::iter::once(String::new());
    gap.chain(heading).chain(rows).chain(legend).collect()
}

fn dimmed(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| format!("{DIM}{line}{DIM:#}")).collect()
}

/// Width of the column of a ratio.
fn column(ratios: usize) -> usize {
    if ratios <= BARS { 13 } else { 6 }
}

/// Means over runs at each ratio, with what is left as a bar.
fn row(setting: &SettingClaims, key: &str, name: &str, ratios: &[f64], doses: &[Dose]) -> String {
    let remaining = setting.remaining.iter().find(|one| one.key == key);
    let width = column(ratios.len());
    let mut line = format!("  {:NAME$}", one_line(short(name), NAME));
    for ratio in ratios {
        let share =
            remaining.and_then(|one| one.shares.iter().find(|s| s.mix == *ratio)).map_or(0.0, |s| s.share);
        let cell = match doses.iter().find(|dose| dose.mix == *ratio) {
            None => ABSENT.to_string(),
            Some(dose) if ratios.len() <= BARS => {
                format!("{} {:>5}", text_bar(share, None, 7), fixed(dose.mean(), 2))
            }
            Some(dose) => format!("{}{}", text_level(share), fixed(dose.mean(), 2)),
        };
        line.push_str(&format!(" {cell:<width$}"));
    }
    line.trim_end().to_string()
}

/// The values that tell a setting from the others.
fn setting_name(setting: &SettingClaims, is_any_matched: bool) -> String {
    let values = told_by(setting, is_any_matched);
    let name = if values.is_empty() { setting.setting.name.clone() } else { values.join(", ") };
    one_line(&name, COLUMNS - 2)
}

/// The name of a measure in a table, where a sentence has an article and a description.
fn short(name: &str) -> &str {
    let name = name.strip_prefix("the ").unwrap_or(name);
    let end =
        [" with labelled examples", " of a constant bias", " AUROC"].iter().find_map(|end| name.find(end));
    &name[..end.unwrap_or(name.len())]
}

/// Lines of a screen.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    words::wrapped(text, indent, COLUMNS)
}
