//! The results of some runs as plain text for a terminal.

use std::io::{self, Write};

use super::digest::{Column, Entry, READABLE_BY, columns, legend};
use super::matching;
use super::verdict::{READER_HEADING, READER_LEGEND, reader_rows};
use super::visible::{one_line, printed, token};
use super::words::{capitalized, wrapped};
use crate::claims::ClaimedRun;
use crate::claims::matching::{EqualBehaviour, compare};
use crate::diff::readout::Decoding;

/// Width that running text is broken to.
const WIDTH: usize = 100;
/// Width beyond which the columns of a table go on below.
const WIDEST: usize = 120;

/// Writes the table of [`text_table`]; a reader that stopped reading (`| head`) is no error.
pub fn print_table(runs: &[ClaimedRun], out: &mut impl Write) -> io::Result<()> {
    print_text(&printed(&text_table(runs)), out)
}

/// Writes a text; a reader that stopped reading (`| head`) is no error.
pub(super) fn print_text(text: &str, out: &mut impl Write) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Of several runs what is the same in all and a table of the rest, one row a run, and which of them are at equal behaviour.
/// Then of each run the verdict, one line a reader, and what limits the claim; everything else is in the report.
pub fn text_table(runs: &[ClaimedRun]) -> String {
    let matched = compare(runs);
    let runs: Vec<&ClaimedRun> = runs.iter().collect();
    let mut out = String::new();
    if runs.len() > 1 {
        let mut columns = columns(&runs);
        // The verdict is repeated below in full.
        columns.retain(|c| c.title != READABLE_BY);
        let same = |c: &Column| {
            let mut entries = runs.iter().map(|run| (c.entry)(run));
            entries.next().is_none_or(|first| entries.all(|e| e == first))
        };
        let (names, measures) = columns.split_at(1);
        let (common, rest): (Vec<&Column>, Vec<&Column>) = measures.iter().partition(|c| same(c));
        if let (false, Some(run)) = (common.is_empty(), runs.first()) {
            out.push_str(&format!("The same in all {} runs:\n", runs.len()));
            let width = common.iter().map(|c| c.title.chars().count()).max().unwrap_or(0);
            for column in &common {
                let Entry { main, detail } = (column.entry)(run);
                out.push_str(&format!("  {:width$}  {}\n", column.title, lines(main, detail).join("; ")));
            }
            out.push('\n');
        }
        out.push_str(&grid(&runs, names[0], &rest));
        out.push_str(&wrap(&legend(&columns), ""));
        out.push('\n');
        matched.iter().for_each(|found| out.push_str(&equal_behaviour(found)));
    }
    let is_measured = |run: &&ClaimedRun| run.claims.verdict.as_ref().is_some_and(|v| !v.readers.is_empty());
    for (i, run) in runs.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        out.push_str(&of_run(run));
    }
    if runs.iter().any(is_measured) {
        out.push('\n');
        out.push_str(&wrap(READER_LEGEND, ""));
    }
    out
}

/// Which runs are at equal behaviour.
fn equal_behaviour(found: &EqualBehaviour) -> String {
    let rows: Vec<[String; 7]> =
        [matching::HEADING.map(String::from)].into_iter().chain(matching::rows(found)).collect();
    let columns: Vec<Filled> =
        (0..matching::HEADING.len()).map(|c| rows.iter().map(|row| vec![row[c].clone()]).collect()).collect();
    format!("Equal behaviour\n{}{}\n", part_of(&columns), wrap(&matching::legend(found), ""))
}

/// The verdict on a run, one line a reader, and what limits the claim.
fn of_run(run: &ClaimedRun) -> String {
    let name = one_line(&run.id, 60);
    let Some(verdict) = &run.claims.verdict else {
        return format!("{name}: not analysed (no diff/readability.json).\n");
    };
    let mut out = format!("{name}: {}\n", verdict.headline);
    if !verdict.readers.is_empty() {
        let heading = READER_HEADING.map(String::from);
        let rows: Vec<[String; 8]> = [heading].into_iter().chain(reader_rows(verdict)).collect();
        let columns: Vec<Filled> = (0..READER_HEADING.len())
            .map(|c| rows.iter().map(|row| vec![row[c].clone()]).collect())
            .collect();
        out.push_str(&part_of(&columns));
    }
    for limit in &verdict.limits {
        out.push_str(&wrap(limit, "  "));
    }
    if verdict.readers.is_empty() {
        out.push_str(&wrap(
            "No narrow text was given (data.narrow), so tokens and texts cannot be scored: judge these tokens yourself.",
            "  ",
        ));
        tokens(run).iter().for_each(|line| out.push_str(&wrap(line, "  ")));
    }
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

/// What the difference of a run decodes to.
pub(super) fn tokens(run: &ClaimedRun) -> Vec<String> {
    let mut out = Vec::new();
    for m in run.readability.iter().flat_map(Decoding::all) {
        for i in m.shown() {
            let tokens: Vec<String> = m.tokens[i].iter().take(10).map(|t| token(&t.token)).collect();
            if !tokens.is_empty() {
                let name = capitalized(m.name);
                out.push(format!("{name} at position {} reads: {}", m.positions[i], tokens.join(" ")));
            }
        }
    }
    out
}

/// Running text as lines, the last one with its end too.
fn wrap(text: &str, indent: &str) -> String {
    wrapped(text, indent, WIDTH).join("\n") + "\n"
}
