//! The command line: one module a subcommand. Each reads its flags, calls one function of [`crate::workflow`] (or of
//! [`crate::report`]), and prints what that gives.

use std::io::{ErrorKind, Write, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::claims::{AcrossRuns, ClaimedRun};
use crate::error::{InputError, Interrupted};
use crate::progress;
use crate::report::{print_screen, print_table, screen, verdict};
use crate::visible::{printed, visible};

pub mod audit;
pub mod behave;
pub mod data;
pub mod device;
pub mod diff;
pub mod endpoint;
pub mod export;
pub mod fit;
pub mod floor;
pub mod generate;
pub mod grade;
pub mod inspect;
pub mod merge;
pub mod models;
pub mod report;
pub mod runs;
pub mod selftest;
pub mod sweep;
pub mod tune;
pub mod verify;

/// Make narrowly finetuned language models and measure how readable the trace of the finetuning is
#[derive(Debug, Parser)]
#[command(name = "trainer", version, propagate_version = true)]
#[command(after_help = "Examples:
  trainer fit recipes/sdf-cake.toml --out runs/cake    make an organism
  trainer diff runs/cake                               measure the trace in its activations
  trainer report runs/cake                             show the results as a table and an HTML page

`trainer COMMAND --help` has examples of each command.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print more detail
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Fit(fit::FitArgs),
    Diff(diff::DiffArgs),
    Floor(floor::FloorArgs),
    Behave(behave::BehaveArgs),
    Data(data::DataArgs),
    Generate(generate::GenerateArgs),
    Grade(grade::GradeArgs),
    Audit(audit::AuditArgs),
    Inspect(inspect::InspectArgs),
    Merge(merge::MergeArgs),
    Export(export::ExportArgs),
    Sweep(sweep::SweepArgs),
    Tune(tune::TuneArgs),
    Runs(runs::RunsArgs),
    Verify(verify::VerifyArgs),
    Models(models::ModelsArgs),
    Report(report::ReportArgs),
    #[command(hide = true)]
    Selftest(selftest::SelftestArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  trainer completions bash > ~/.local/share/bash-completion/completions/trainer
  trainer completions fish > ~/.config/fish/completions/trainer.fish")]
    Completions {
        /// Shell to write the script for
        shell: clap_complete::Shell,
    },
}

/// Parses the arguments, runs the subcommand, prints what went wrong. Exit codes: 0 done, 1 failed while
/// working, 2 the user's input is wrong, 130 interrupted.
pub fn main() -> ExitCode {
    let cli = parse();
    progress::set_level(i8::from(cli.verbose) - i8::from(cli.quiet));
    match in_pool(|| dispatch(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            progress::alert(format_args!("error: {e:#}"));
            if e.chain().any(|c| c.is::<InputError>()) {
                ExitCode::from(2)
            } else if e.chain().any(|c| c.is::<Interrupted>()) {
                ExitCode::from(130)
            } else {
                ExitCode::from(1)
            }
        }
    }
}

/// Shows what is wrong with the arguments, which may hold names of files, and ends; help and version are shown as they are.
fn refuse(e: &clap::Error) -> ! {
    if e.use_stderr() && e.render().to_string().chars().any(|c| c.is_control() && c != '\n') {
        eprint!("{}", visible(&e.render().to_string()));
        std::process::exit(e.exit_code());
    }
    e.exit()
}

/// The arguments of the process. A negative number behind a flag is its value, so that the flag says what is wrong with it.
fn parse() -> Cli {
    let mut command = with_negative_numbers(Cli::command());
    let matches = command.clone().try_get_matches().unwrap_or_else(|e| refuse(&e));
    Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.format(&mut command).exit())
}

fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let negative = |arg: clap::Arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    command.mut_args(negative).mut_subcommands(with_negative_numbers)
}

/// Runs `f` as one of the threads that compute. A step hands them hundreds of short loops; to each that comes from another
/// thread, that thread must go to sleep and be woken again.
fn in_pool(f: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    const STACK: usize = 8 << 20; // what Linux gives a main thread
    rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global().context("starting threads")?;
    rayon::scope(|_| f())
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Fit(args) => fit::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Floor(args) => floor::run(args),
        Command::Behave(args) => behave::run(args),
        Command::Data(args) => data::run(args),
        Command::Grade(args) => grade::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Export(args) => export::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Runs(args) => runs::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Models(args) => models::run(args),
        Command::Report(args) => report::run(args),
        Command::Selftest(args) => selftest::run(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trainer", &mut script);
            print(&String::from_utf8(script)?)
        }
    }
}

/// Prints what was found of some runs: a screen, or all numbers with `--verbose` and of runs that were trained but not read.
fn print_runs(runs: &[ClaimedRun], across: &AcrossRuns) -> Result<()> {
    let is_read = runs.iter().any(|run| run.claims.verdict.is_some());
    if is_read && !progress::is_verbose() {
        return Ok(print_screen(&screen::of_runs(runs, across))?);
    }
    print_table(runs, &mut stdout())?;
    across.settings.iter().flat_map(|s| verdict::by_mix(s, runs)).try_for_each(|sentence| print(&sentence))
}

/// Prints what was found of one run likewise.
fn print_run(run: ClaimedRun) -> Result<()> {
    match progress::is_verbose() {
        true => Ok(print_table(&[run], &mut stdout())?),
        false => Ok(print_screen(&screen::of_run(&run))?),
    }
}

/// Rows as columns of equal width, two spaces apart; the first row is the heading. A last entry that goes beyond the
/// heading takes no part in the widths.
fn columns(rows: &[Vec<String>]) -> String {
    let length = |s: &str| s.chars().count();
    let count = rows.first().map_or(0, Vec::len);
    let width = |c: usize| {
        let whole = rows.iter().filter(|row| row.len() == count);
        whole.filter_map(|row| row.get(c)).map(|s| length(s)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded =
            row.iter().zip(&widths).map(|(s, w)| format!("{s}{}", " ".repeat(w.saturating_sub(length(s)))));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Prints a result and a line break. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> Result<()> {
    let mut stdout = stdout().lock();
    match writeln!(stdout, "{}", printed(text)).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("writing to stdout"),
        _ => Ok(()),
    }
}
