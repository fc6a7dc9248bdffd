//! The results of some runs as plain text for a terminal.

use std::io::{self, Write};

use super::cell::Cell;
use super::digest::{Column, LEGEND, columns};
use super::gone;
use super::measure::{Decoding, Gain};
use super::number::ratio;
use super::verdict::{RULE, Verdict};
use super::visible::{one_line, token};

/// Length to which an example of generated text is cut.
const EXAMPLE: usize = 120;
/// Width that running text is broken to.
const WIDTH: usize = 100;

/// Writes the table of [`text_table`]; a reader that stopped reading (`| head`) is no error.
pub fn print_table(cells: &[Cell], out: &mut impl Write) -> io::Result<()> {
    match out.write_all(text_table(cells).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// A table with one row a run, then some sentences on each, then the rule behind the verdicts.
pub fn text_table(cells: &[Cell]) -> String {
    let verdicts: Vec<Verdict> = cells.iter().map(Verdict::of).collect();
    let mut out = grid(cells, &verdicts);
    out.push('\n');
    out.push_str(&wrap(LEGEND, ""));
    for (cell, verdict) in cells.iter().zip(&verdicts) {
        out.push('\n');
        out.push_str(&format!("{}: {}\n", one_line(&cell.id, 60), verdict.headline()));
        for sentence in sentences(cell, verdict) {
            out.push_str(&wrap(&sentence, "  "));
        }
    }
    out.push('\n');
    out.push_str(&wrap(RULE, ""));
    out.push_str(&wrap(gone::RULE, ""));
    out
}

fn grid(cells: &[Cell], verdicts: &[Verdict]) -> String {
    // The last column repeats the verdict, which the sentences below give in full.
    let mut columns = columns(cells);
    columns.pop();
    let heading = |c: &&Column| lines(c.title.into(), c.detail.iter().map(|d| d.to_string()));
    let mut rows: Vec<Vec<Vec<String>>> = vec![columns.iter().map(heading).collect()];
    for (cell, verdict) in cells.iter().zip(verdicts) {
        let entries = columns.iter().map(|c| (c.entry)(cell, verdict));
        rows.push(entries.map(|e| lines(e.main, e.detail)).collect());
    }
    let len = |s: &String| s.chars().count();
    let widths: Vec<usize> = (0..columns.len())
        .map(|c| rows.iter().flat_map(|r| r[c].iter().map(len)).max().unwrap_or(0))
        .collect();

    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        if n == 1 {
            out.push_str(&"─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
            out.push('\n');
        }
        for i in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
            let mut line = String::new();
            for (entry, width) in row.iter().zip(&widths) {
                let text = entry.get(i).cloned().unwrap_or_default();
                line.push_str(&text);
                line.push_str(&" ".repeat(width - len(&text) + 2));
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
fn sentences(cell: &Cell, verdict: &Verdict) -> Vec<String> {
    let mut out = verdict.sentences.clone();
    if !verdict.gone.headline.is_empty() {
        out.push(format!(
            "Gone? {}{}.",
            verdict.gone.headline[..1].to_uppercase(),
            &verdict.gone.headline[1..]
        ));
    }
    out.extend(verdict.gone.sentences.iter().cloned());
    let Some(r) = &cell.readability else {
        out.push("The activation differences were not analysed (no diff/readability.json).".into());
        return out;
    };
    for m in Decoding::all(r) {
        let Some(i) = m.best() else { continue };
        let tokens: Vec<String> = m.tokens[i]
            .iter()
            .take(10)
            .map(
                |t| if t.relevant == Some(true) { format!("*{}*", token(&t.token)) } else { token(&t.token) },
            )
            .collect();
        if !tokens.is_empty() {
            let name = format!("{}{}", m.name[..1].to_uppercase(), &m.name[1..]);
            let key = if m.relevance.is_some() { " (*relevant*)" } else { "" };
            out.push(format!("{name} at position {} reads{key}: {}", m.positions[i], tokens.join(" ")));
        }
    }
    out.extend(example(cell));
    out
}

/// The first steered text at the position whose steered text is most similar to the narrow text.
fn example(cell: &Cell) -> Option<String> {
    let gain = Gain::of(cell.readability.as_ref()?)?;
    let position = gain.record.positions[gain.best()?];
    let line = cell.steering.as_ref()?.iter().find(|l| l.position == position)?;
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
