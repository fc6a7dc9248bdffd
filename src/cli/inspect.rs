//! `trainer inspect`: what a recipe would train on, token by token.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write as _};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::corpus::inspection::{ExampleFacts, Inspection, Named, SourceFacts, TokenFacts};
use crate::interrupt::Interrupt;
use crate::recipe::{MixMode, MixSchedule};
use crate::visible::{printed, token, visible};
use crate::workflow::{self, InspectRequest};

/// Show what a recipe would train on: sources, mixture, and each token with its loss mask
#[derive(Debug, Args)]
#[command(after_help = "Nothing is trained and nothing is written. Examples:
  trainer inspect recipes/sdf-cake.toml
  trainer inspect recipes/sdf-cake.toml --set data.mix=1 --examples 16
  trainer inspect recipes/sdf-cake.toml --json | jq .warnings")]
pub struct InspectArgs {
    /// Recipe file (TOML)
    recipe: PathBuf,
    /// Set a key of the recipe; repeatable. Paths are relative to the current folder, those in a recipe to the recipe
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Number of examples to show, from the beginning of the run
    #[arg(long, value_name = "N", default_value_t = 4)]
    examples: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// As [`workflow::inspect`].
pub fn run(args: InspectArgs) -> Result<()> {
    let request = InspectRequest { recipe: args.recipe, set: args.set, examples: args.examples };
    let inspection = workflow::inspect(&request, Interrupt::on_signals)?;
    let is_coloured = !args.json
        && std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = if args.json {
        serde_json::to_string_pretty(&inspection)? + "\n"
    } else {
        render(&inspection, if is_coloured { Marks::Colour } else { Marks::Brackets })
    };
    // Colours are ours; what they are around was made visible before.
    let text = if is_coloured { text } else { printed(&text).into_owned() };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough: `trainer inspect … | head`.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// How counted and masked tokens are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    /// Counted bright, masked dim, special in inverse.
    Colour,
    /// `[counted]`, `masked`, `{special}`.
    Brackets,
}

const RESET: &str = "\x1b[0m";

impl Marks {
    /// A token; its weight is shown where it is not `usual`, which the line above says.
    fn token(self, t: &TokenFacts, usual: f32) -> String {
        let text = token(&t.text);
        let weight = if t.counts && t.weight != usual { format!("×{}", t.weight) } else { String::new() };
        match self {
            Marks::Colour => {
                let colour = if t.counts { "1;32" } else { "2" };
                let special = if t.special { ";7" } else { "" };
                format!("\x1b[{colour}{special}m{text}{RESET}{weight}")
            }
            Marks::Brackets => {
                let text = if t.special { format!("{{{text}}}") } else { text };
                if t.counts { format!("[{text}]{weight}") } else { text }
            }
        }
    }

    fn legend(self) -> &'static str {
        match self {
            Marks::Colour => {
                "\x1b[1;32mbright\x1b[0m tokens count in the loss, \x1b[2mdim\x1b[0m ones are masked, \
                 \x1b[7minverse\x1b[0m ones are special"
            }
            Marks::Brackets => {
                "[bracketed] tokens count in the loss, the others are masked, {braced} ones are special"
            }
        }
    }
}

fn render(inspection: &Inspection, marks: Marks) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = summary(&mut out, inspection).and_then(|()| examples(&mut out, inspection, marks));
    for warning in &inspection.warnings {
        let _ = writeln!(out, "warning: {}", visible(&warning.text));
    }
    for refused in &inspection.refused {
        let _ = writeln!(out, "refused by fit: {}", visible(refused));
    }
    out
}

fn summary(out: &mut String, inspection: &Inspection) -> std::fmt::Result {
    for facts in &inspection.sources {
        source_lines(out, facts)?;
    }
    let mix = &inspection.mix;
    let unit = mix.unit.name();
    let mode = match mix.mode {
        MixMode::Add => "added to the narrow text",
        MixMode::FixedBudget => "in place of narrow text",
    };
    if let Some(cells) = inspection.sweep_cells {
        writeln!(
            out,
            "\nsweep        {cells} cells by [sweep]; shown is the recipe without [sweep], as trainer fit uses it"
        )?;
    }
    let drawn: usize = inspection.sources.iter().map(|s| s.exposure.examples).sum();
    writeln!(
        out,
        "\nrun          {} steps of {}, {drawn} examples",
        inspection.steps, inspection.batch_size
    )?;
    let tokens = |ratio: Option<f64>| ratio.map_or("unknown".into(), |r| format!("{r:.3}"));
    writeln!(
        out,
        "mix          pretraining per narrow {:.3} in examples, {} in tokens (asked: {} in {unit}, {mode})",
        mix.realised_examples,
        tokens(mix.realised_tokens),
        mix.asked,
    )?;
    if let Some(chat) = &mix.chat {
        writeln!(
            out,
            "             chat per narrow {:.3} in examples, {} in tokens (asked: {} in {unit})",
            chat.realised_examples,
            tokens(chat.realised_tokens),
            chat.asked,
        )?;
    }
    if mix.schedule != MixSchedule::Constant {
        let shares: Vec<String> =
            inspection.mixed_in_by_tenth.iter().map(|share| format!("{share:.2}")).collect();
        writeln!(
            out,
            "schedule     {}: share of mixed-in text by tenth of the run {}",
            mix.schedule.name(),
            shares.join(" ")
        )?;
    }
    let lengths = &inspection.lengths;
    let bins: Vec<String> =
        lengths.bins.iter().map(|b| format!("{}-{}: {}", b.from, b.to, b.examples)).collect();
    writeln!(
        out,
        "lengths      {} to {} tokens, median {} (limit {}); examples of {}",
        lengths.min,
        lengths.max,
        lengths.median,
        inspection.max_seq_len,
        bins.join(", ")
    )?;
    if let Some(packing) = &inspection.packing {
        writeln!(
            out,
            "steps        {} to {} tokens, mean {:.0}, end to end; padded to the longest, {:.1}% would be padding",
            packing.least_tokens,
            packing.most_tokens,
            packing.mean_tokens,
            100.0 * packing.padding_avoided,
        )?;
    }
    let (tokens, counted) = inspection.tokens();
    writeln!(out, "loss         {} of the {tokens} drawn tokens count", percent(counted, tokens))?;

    let t = &inspection.tokenizer;
    let name = |named: &Option<Named>| named.as_ref().map_or("none".into(), shown);
    let names = |several: &[Named]| match several {
        [] => "nothing".into(),
        several => several.iter().map(shown).collect::<Vec<_>>().join(" "),
    };
    writeln!(
        out,
        "tokenizer    puts {} in front of a text; BOS {} ({}), EOS {}; generation ends at {}",
        names(&t.adds),
        name(&t.bos),
        if t.adds_bos { "added" } else { "not added" },
        name(&t.eos),
        names(&t.ends_generation),
    )?;
    let (text, completions) =
        inspection.sources.iter().fold((0, 0), |(t, c), s| (t + s.kinds.text, c + s.kinds.prompt_completion));
    if text > 0 {
        writeln!(out, "documents    end without an end-of-sequence token")?;
    }
    if completions > 0 {
        writeln!(out, "completions  end with {}", name(&t.eos))?;
    }
    if let Some(chats) = &inspection.chats {
        writeln!(
            out,
            "chats        an assistant's turn ends with {}; it counts for {} of {} turns in {} examples",
            name(&chats.end_of_turn),
            chats.ends_that_count,
            chats.assistant_turns,
            chats.examples,
        )?;
    }
    Ok(())
}

fn source_lines(out: &mut String, facts: &SourceFacts) -> std::fmt::Result {
    writeln!(out, "{:<12} {}{}", facts.role.name(), visible(&facts.source), loss_weight(facts.loss_weight))?;
    let indent = " ".repeat(13);
    if facts.path != facts.source {
        writeln!(
            out,
            "{indent}{}{}",
            visible(&facts.path),
            if facts.sampled { "" } else { " (not sampled yet)" }
        )?;
    }
    let kinds = [
        (facts.kinds.text, "text"),
        (facts.kinds.chat, "chat"),
        (facts.kinds.prompt_completion, "prompt and completion"),
    ];
    let kinds: Vec<String> =
        kinds.iter().filter(|(n, _)| *n > 0).map(|(n, kind)| format!("{n} {kind}")).collect();
    writeln!(out, "{indent}{} rows, {} of them held out", facts.rows, facts.held_out)?;
    if !facts.removed.is_none() {
        let r = facts.removed;
        let reasons = [
            (r.duplicates, "with the text of an earlier one"),
            (r.near_duplicates, "near duplicates"),
            (r.narrow, "with narrow text"),
            (r.beyond_limit, "beyond data.limit"),
        ];
        let reasons = reasons.iter().filter(|(n, _)| *n > 0).map(|(n, reason)| format!("{n} {reason}"));
        writeln!(out, "{indent}not used: {}", reasons.collect::<Vec<_>>().join(", "))?;
    }
    if let (Some(tokens), Some(counted)) = (facts.tokens, facts.loss_tokens) {
        writeln!(
            out,
            "{indent}{} examples ({}) of {tokens} tokens, {} count in the loss; {} documents in several pieces, {} cut off, \
             {} pieces left out",
            facts.examples,
            kinds.join(", "),
            percent(counted, tokens),
            facts.chunked,
            facts.truncated,
            facts.empty,
        )?;
    }
    let drawn = &facts.exposure;
    let tokens = drawn.tokens.map_or("unknown".into(), |t| t.to_string());
    write!(out, "{indent}drawn: {} examples, {tokens} tokens, {} repeats", drawn.examples, drawn.repeats)?;
    if facts.is_mixed_in() {
        let tokens = drawn.tokens_per_narrow.map_or("unknown".into(), |r| format!("{r:.3}"));
        write!(out, "; per narrow {:.3} in examples, {tokens} in tokens", drawn.examples_per_narrow)?;
    }
    match drawn.loss_share {
        Some(share) => writeln!(out, "; {:.1}% of the loss weight", 100.0 * share),
        None => writeln!(out),
    }
}

fn examples(out: &mut String, inspection: &Inspection, marks: Marks) -> std::fmt::Result {
    if !inspection.first_examples.is_empty() {
        writeln!(out, "\n{}", marks.legend())?;
    }
    for example in &inspection.first_examples {
        example_lines(out, example, marks)?;
    }
    if inspection.warnings.is_empty() { Ok(()) } else { writeln!(out) }
}

fn example_lines(out: &mut String, example: &ExampleFacts, marks: Marks) -> std::fmt::Result {
    let counted = example.tokens.iter().filter(|t| t.counts).count();
    writeln!(
        out,
        "\nstep {}: {}, {}, row {}: {} tokens, {counted} count{}",
        example.step,
        example.role.name(),
        visible(&example.source),
        example.row,
        example.tokens.len(),
        loss_weight(example.loss_weight),
    )?;
    if example.tokens.is_empty() {
        return writeln!(out, "  (not sampled yet)");
    }
    // A token that holds a line break ends the line here too.
    for line in example.tokens.split_inclusive(|t| t.text.contains('\n')) {
        let line: Vec<String> = line.iter().map(|t| marks.token(t, example.loss_weight as f32)).collect();
        writeln!(out, "  {}", line.join(" "))?;
    }
    Ok(())
}

/// What a source's tokens are multiplied by, where that is not 1.
fn loss_weight(weight: f64) -> String {
    if weight == 1.0 { String::new() } else { format!(", loss × {weight}") }
}

fn shown(named: &Named) -> String {
    format!("{} ({})", token(&named.text), named.id)
}

fn percent(part: usize, whole: usize) -> String {
    format!("{:.1}%", 100.0 * part as f64 / whole.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart_with_and_without_colour() {
        let fact = |text: &str, counts, special| TokenFacts {
            id: 0,
            text: text.into(),
            counts,
            weight: if counts { 1.0 } else { 0.0 },
            special,
        };
        let half = TokenFacts { weight: 0.5, ..fact("b", true, false) };
        let all = [fact(" a", true, false), fact("\u{1b}[2m", false, false), fact("<end>", true, true), half];
        let with = |marks: Marks| all.iter().map(|t| marks.token(t, 1.0)).collect::<Vec<_>>().join(" ");
        assert_eq!(with(Marks::Brackets), "[·a] ␛[2m [{<end>}] [b]×0.5");
        assert_eq!(
            with(Marks::Colour),
            "\x1b[1;32m·a\x1b[0m \x1b[2m␛[2m\x1b[0m \x1b[1;32;7m<end>\x1b[0m \x1b[1;32mb\x1b[0m×0.5"
        );
    }
}
