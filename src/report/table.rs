//! The results of some runs as plain text for a terminal.

use std::io::{self, Write};

use super::digest::{Column, Entry, READABLE_BY, columns, legend};
use super::number::ratio;
use super::rules::{GONE_RULE, READABLE_RULE};
use super::verdict::{gone_headline, gone_reasons, reasons};
use super::visible::{one_line, token};
use crate::claims::ClaimedRun;
use crate::claims::trace::STEERING;
use crate::diff::decode::TopToken;
use crate::diff::readout::Decoding;

/// Length to which an example of generated text is cut.
const EXAMPLE: usize = 120;
/// Width that running text is broken to.
const WIDTH: usize = 100;
/// Width beyond which the columns of a table go on below.
const WIDEST: usize = 120;

/// Writes the table of [`text_table`]; a reader that stopped reading (`| head`) is no error.
pub fn print_table(runs: &[ClaimedRun], out: &mut impl Write) -> io::Result<()> {
    match out.write_all(text_table(runs).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// What is the same in all runs, a table of the rest with one row a run, then some sentences on each, then the rule behind the verdicts.
pub fn text_table(runs: &[ClaimedRun]) -> String {
    let runs: Vec<&ClaimedRun> = runs.iter().collect();
    let mut columns = columns(&runs);
    // The verdict is repeated below in full.
    columns.retain(|c| c.title != READABLE_BY);
    let same = |c: &Column| {
        let mut entries = runs.iter().map(|run| (c.entry)(run));
        entries.next().is_none_or(|first| entries.all(|e| e == first))
    };
    let (names, measures) = columns.split_at(1);
    let (common, rest): (Vec<&Column>, Vec<&Column>) = measures.iter().partition(|c| same(c));
    let mut out = String::new();
    if let (false, Some(run)) = (common.is_empty(), runs.first()) {
        out.push_str(&match runs.len() {
            1 => format!("{}\n", one_line(&run.id, 60)),
            n => format!("The same in all {n} runs:\n"),
        });
        let width = common.iter().map(|c| c.title.chars().count()).max().unwrap_or(0);
        for column in &common {
            let Entry { main, detail } = (column.entry)(run);
            out.push_str(&format!("  {:width$}  {}\n", column.title, lines(main, detail).join("; ")));
        }
        out.push('\n');
    }
    if runs.len() > 1 {
        out.push_str(&grid(&runs, names[0], &rest));
    }
    out.push_str(&wrap(&legend(&columns), ""));
    for run in &runs {
        out.push('\n');
        out.push_str(&format!("{}: {}\n", one_line(&run.id, 60), run.claims.readable.headline));
        for sentence in sentences(run) {
            out.push_str(&wrap(&sentence, "  "));
        }
    }
    out.push('\n');
    out.push_str(&wrap(READABLE_RULE, ""));
    out.push_str(&wrap(GONE_RULE, ""));
    out
}

/// A column of the table: its heading, then its entry for each run, each as lines.
type Filled = Vec<Vec<String>>;

/// The rows of some runs below the headings; columns that go beyond [`WIDEST`] follow below, each part with the names.
fn grid(runs: &[&ClaimedRun], name: &Column, columns: &[&Column]) -> String {
    let filled = |c: &Column| -> Filled {
        let heading = lines(c.title.into(), c.detail.iter().map(|d| d.to_string()));
        let entries = runs.iter().map(|run| (c.entry)(run));
        std::iter::once(heading).chain(entries.map(|e| lines(e.main, e.detail))).collect()
    };
    let names = filled(name);
    let mut parts: Vec<Vec<Filled>> = Vec::new();
    let mut used = 0;
    for column in columns.iter().map(|c| filled(c)) {
        let width = 2 + width_of(&column);
        match parts.last_mut().filter(|_| used + width <= WIDEST) {
            Some(part) => part.push(column),
            None => {
                used = width_of(&names);
                parts.push(vec![names.clone(), column]);
            }
        }
        used += width;
    }
    if parts.is_empty() {
        parts.push(vec![names]);
    }
    parts.iter().map(|part| format!("{}\n", part_of(part))).collect()
}

/// The width of a column.
fn width_of(column: &[Vec<String>]) -> usize {
    column.iter().flatten().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// Columns side by side.
fn part_of(columns: &[Filled]) -> String {
    let widths: Vec<usize> = columns.iter().map(|c| width_of(c)).collect();
    let mut out = String::new();
    for n in 0..columns.first().map_or(0, Vec::len) {
        if n == 1 {
            out.push_str(&"─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
            out.push('\n');
        }
        for i in 0..columns.iter().map(|c| c[n].len()).max().unwrap_or(0) {
            let mut line = String::new();
            for (column, width) in columns.iter().zip(&widths) {
                let text = column[n].get(i).map_or("", String::as_str);
                line.push_str(text);
                line.push_str(&" ".repeat(width - text.chars().count() + 2));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

fn lines(first: String, rest: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(first).chain(rest).collect()
}

/// What stands out in one run: the verdict's reasons, the tokens at the best positions, one steered text.
fn sentences(run: &ClaimedRun) -> Vec<String> {
    let mut out = reasons(&run.claims);
    let gone = gone_headline(&run.claims);
    if !gone.is_empty() {
        out.push(format!("Gone? {}{}.", gone[..1].to_uppercase(), &gone[1..]));
    }
    out.extend(gone_reasons(&run.claims));
    let Some(r) = &run.readability else {
        out.push("The activation differences were not analysed (no diff/readability.json).".into());
        return out;
    };
    for m in Decoding::all(r) {
        for i in m.shown() {
            let shown = |t: &TopToken| match t.relevant {
                Some(true) => format!("*{}*", token(&t.token)),
                _ => token(&t.token),
            };
            let tokens: Vec<String> = m.tokens[i].iter().take(10).map(shown).collect();
            if !tokens.is_empty() {
                let name = format!("{}{}", m.name[..1].to_uppercase(), &m.name[1..]);
                let key = if m.relevance.is_some() { " (*relevant*)" } else { "" };
                out.push(format!("{name} at position {} reads{key}: {}", m.positions[i], tokens.join(" ")));
            }
        }
    }
    out.extend(example(run));
    out
}

/// The first steered text at the position whose steered text is most similar to the narrow text.
fn example(run: &ClaimedRun) -> Option<String> {
    let position = run.claims.trace.get(STEERING)?.position?;
    let line = run.steering.as_ref()?.iter().find(|l| l.position == position)?;
    let text = line.steered.iter().find(|t| !t.trim().is_empty())?;
    Some(format!(
        "Steered at position {position}, strength {} η, the prompt “{}” gives: {}",
        ratio(line.strength),
        one_line(&line.prompt, 60),
        one_line(text, EXAMPLE)
    ))
}

/// Breaks text at spaces.
fn wrap(text: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let len = word.chars().count();
        if used > 0 && used + 1 + len > WIDTH {
            out.push('\n');
            used = 0;
        }
        if used == 0 {
            out.push_str(indent);
            used = indent.len();
        } else {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += len;
    }
    out.push('\n');
    out
}
