//! What commands end with: one screen of a terminal.

use std::fs;
use std::path::Path;

use serde_json::json;
use trainer::claims::{across_runs, read_all};
use trainer::report::screen::{COLUMNS, LINES, of_run, of_runs};

use crate::common::run_folder::{self, HOSTILE, STRONG, Spec};

/// A screen as a reader sees it: without escape sequences of its own.
fn seen(screen: &str) -> String {
    anstream::adapter::strip_str(screen).to_string()
}

#[track_caller]
fn assert_fits(screen: &str) {
    let seen = seen(screen);
    assert!(seen.lines().count() <= LINES, "{} lines:\n{seen}", seen.lines().count());
    for line in seen.lines() {
        assert!(line.chars().count() <= COLUMNS, "{}: {line}", line.chars().count());
        assert!(!line.contains('\u{1b}') && !line.contains('\u{202e}'), "{line:?}");
    }
}

fn sweep(dir: &Path, mixes: &[f64]) -> String {
    for (i, mix) in mixes.iter().enumerate() {
        let trace = 1.0 / (1.0 + 4.0 * mix);
        run_folder::write(&dir.join(format!("cells/{i}")), &Spec { mix: *mix, seed: 7, trace });
    }
    let runs = read_all(&[dir.to_path_buf()]).unwrap();
    of_runs(&runs, &across_runs(&runs).unwrap())
}

#[test]
fn a_run_has_its_verdict_first_and_one_line_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_folder::write(&dir.path().join("run"), &STRONG);
    let runs = read_all(&[run]).unwrap();
    let screen = of_run(&runs[0]);
    assert_fits(&screen);
    let text = seen(&screen);
    assert!(text.starts_with(&format!("{}: readable by ", runs[0].id)), "{text}");
    let verdict = runs[0].claims.verdict.as_ref().unwrap();
    for claim in verdict.readers.values() {
        let name = claim.name.trim_start_matches("the ");
        assert_eq!(text.lines().filter(|l| l.trim_start().starts_with(name)).count(), 1, "{name}: {text}");
    }
    assert!(text.contains("held-out loss: "), "{text}");
    assert!(text.trim_end().ends_with("the page that `trainer report` writes."), "{text}");
}

#[test]
fn a_sweep_shows_what_is_left_at_each_mix() {
    let dir = tempfile::tempdir().unwrap();
    let screen = sweep(dir.path(), &[0.0, 0.5, 1.0]);
    assert_fits(&screen);
    let text = seen(&screen);
    assert!(text.starts_with("3 runs: "), "{text}");
    let lift = text.lines().find(|line| line.trim_start().starts_with("lift")).unwrap();
    // The whole bar at mix 0, and shorter ones beyond.
    let cells: Vec<usize> =
        lift.split("  ").map(|part| part.matches('█').count()).filter(|n| *n > 0).collect();
    assert!(cells[0] == 7 && cells[1..].iter().all(|n| *n < 7), "{lift}");
}

#[test]
fn many_ratios_settings_and_hostile_names_fit_too() {
    let dir = tempfile::tempdir().unwrap();
    assert_fits(&sweep(&dir.path().join("many"), &[0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]));
    let settings = dir.path().join("settings");
    for r in 0..30 {
        let run = run_folder::write(&settings.join(format!("cells/{r}")), &STRONG);
        let recipe = fs::read_to_string(run.join("recipe.toml")).unwrap();
        fs::write(run.join("recipe.toml"), format!("{recipe}\n[train.lora]\nr = {}\n", r + 1)).unwrap();
    }
    let runs = read_all(&[settings]).unwrap();
    let screen = of_runs(&runs, &across_runs(&runs).unwrap());
    assert_fits(&screen);
    assert!(seen(&screen).contains("more settings"), "{screen}");

    let run = run_folder::write(&dir.path().join("hostile"), &STRONG);
    let path = run.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    manifest["name"] = json!(HOSTILE.repeat(5));
    fs::write(&path, manifest.to_string()).unwrap();
    assert_fits(&of_run(&read_all(&[run]).unwrap()[0]));
}

/// The screens of commands have no colours where nobody sees them.
#[test]
fn what_is_piped_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_folder::write(&dir.path().join("run"), &STRONG);
    let trainer = || std::process::Command::new(env!("CARGO_BIN_EXE_trainer"));
    let out =
        trainer().arg("report").arg(&run).arg("--out").arg(dir.path().join("page.html")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!out.stdout.contains(&0x1b) && String::from_utf8_lossy(&out.stdout).contains("readable by"));
    let verbose = trainer().args(["--verbose", "report"]).arg(&run).output().unwrap();
    assert!(String::from_utf8_lossy(&verbose.stdout).contains("random directions, p"), "{verbose:?}");
}
