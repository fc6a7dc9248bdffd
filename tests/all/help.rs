//! The examples of `--help`: every command has some, and the arguments of each are those that the command takes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::lab::Ran;

/// How long an example may run. Arguments are parsed at once; the rest of the work is not looked at.
const LONGEST: Duration = Duration::from_secs(5);

/// In every error of the parser of arguments, and in no other.
const OF_THE_PARSER: &str = "try '--help'";

/// Runs the binary in an empty folder with an empty cache and no network, for as long as [`LONGEST`].
fn run(args: &[&str]) -> Ran {
    let dir = TempDir::new().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(args)
        .current_dir(dir.path())
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", dir.path().join("hf-home"))
        .env("TRAINER_CACHE", dir.path().join("cache"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, ended) = std::sync::mpsc::channel::<()>();
    let id = child.id();
    let killer = std::thread::spawn(move || {
        if ended.recv_timeout(LONGEST).is_err() {
            Command::new("kill").args(["-KILL", &id.to_string()]).status().unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = sender.send(());
    killer.join().unwrap();
    Ran::of(output, args)
}

/// The commands that a help text lists, without `help` itself.
fn subcommands(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

/// The help of the program, of its commands and of theirs, each with its name.
fn all_help(path: &[&str]) -> Vec<(String, String)> {
    let ran = run(&[path, &["--help"]].concat());
    assert_eq!(ran.code, 0, "{path:?}: {}", ran.stderr);
    let mut all = vec![(path.join(" "), ran.stdout.clone())];
    for name in subcommands(&ran.stdout) {
        all.extend(all_help(&[path, &[name]].concat()));
    }
    all
}

/// The lines of a help text that begin with `trainer`, continued ones joined.
fn examples(help: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut continues = false;
    for line in help.lines() {
        if continues && let Some(last) = found.last_mut() {
            last.push_str(line.trim_end_matches('\\'));
        } else if line.starts_with("  trainer ") {
            found.push(line.trim_end_matches('\\').to_string());
        } else {
            continue;
        }
        continues = line.ends_with('\\');
    }
    found
}

/// The words of an example as a shell splits them; a pipe, a redirection, or two spaces before a remark end it.
fn words(example: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut spaces) = (false, 0);
    for c in example.trim().chars() {
        if c == ' ' && !quoted {
            spaces += 1;
            continue;
        }
        let ends = "|>".contains(c) || (spaces > 1 && c != '-');
        if ends && spaces > 0 && !quoted {
            break;
        }
        if spaces > 0 {
            words.push(String::new());
            spaces = 0;
        }
        match c {
            '\'' => quoted = !quoted,
            _ => words.last_mut().unwrap().push(c),
        }
    }
    assert!(!quoted, "a quote is not closed: {example}");
    words
}

/// Files of this repository that an example reads.
fn files_of_repository(words: &[String]) -> Vec<&str> {
    let reads = |i: &usize| *i == 0 || words[i - 1] != "--out";
    let read = (0..words.len()).filter(reads).map(|i| words[i].rsplit('=').next().unwrap_or_default());
    read.filter(|word| word.starts_with("recipes/") || word.starts_with("data/")).collect()
}

#[test]
fn every_command_has_examples_and_their_arguments_are_parsed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = all_help(&[]);
    assert!(all.len() > 25, "{:?}", all.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let started = Instant::now();
    let mut count = 0;
    for (name, help) in &all {
        let examples = examples(help);
        assert!(!examples.is_empty(), "trainer {name}: no examples:\n{help}");
        for example in examples {
            let words = words(&example);
            let of = name.split_whitespace().collect::<Vec<_>>();
            assert!(words[1..].iter().zip(&of).all(|(word, of)| word == of), "trainer {name} has: {example}");
            for file in files_of_repository(&words) {
                assert!(root.join(file).exists(), "no {file} in this repository: {example}");
            }
            // Whoever listens on the port of the example is left alone; on port 9 nobody does.
            let words: Vec<String> =
                words[1..].iter().map(|word| word.replace("localhost:8000", "127.0.0.1:9")).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ran = run(&words);
            assert!(!ran.stderr.contains(OF_THE_PARSER), "{example}\n{}", ran.stderr);
            count += 1;
        }
    }
    assert!(count > 50, "{count} examples");
    assert!(started.elapsed() < LONGEST * count, "every example ran until it was stopped");
}

#[test]
fn arguments_that_a_command_does_not_take_are_noticed() {
    for wrong in
        ["fit --no-such-flag", "fit", "sweep r.toml --out s --jobs none", "audit runs/a --family nonsense"]
    {
        let words = words(wrong);
        let ran = run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran.code, 2, "{wrong}: {}", ran.stderr);
        assert!(ran.stderr.contains(OF_THE_PARSER), "{wrong}: {}", ran.stderr);
    }
    // A file that is missing is another error with the same code.
    let ran = run(&["fit", "r.toml"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(!ran.stderr.contains(OF_THE_PARSER) && ran.stderr.contains("r.toml"), "{}", ran.stderr);
}

#[test]
fn examples_are_split_as_a_shell_splits_them() {
    let help = "Usage\n  trainer fit a \\\n    --set 'b=[1, 2]' ''  a remark\n\n  trainer runs --json | jq .runs\ntrainer no\n";
    let found: Vec<Vec<String>> = examples(help).iter().map(|example| words(example)).collect();
    assert_eq!(
        found,
        [vec!["trainer", "fit", "a", "--set", "b=[1, 2]", ""], vec!["trainer", "runs", "--json"]]
    );
}
