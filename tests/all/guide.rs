//! The guide is right: its commands run as they are written.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The blocks of a page that a reader types, without what builds the program.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let builds = |line: &&str| !line.starts_with("cargo build") && !line.starts_with("export PATH");
    let blocks = blocks.map(|block| block.lines().filter(builds).collect::<Vec<_>>().join("\n"));
    blocks.filter(|block| !block.is_empty()).collect()
}

#[test]
fn the_commands_of_the_guide_are_found() {
    let found = commands(&fs::read_to_string("docs/guide.md").unwrap());
    for command in ["inspect", "fit", "behave", "diff", "floor", "sweep", "report", "verify"] {
        assert!(
            found.iter().any(|block| block.contains(&format!("trainer {command} "))),
            "{command}: {found:?}"
        );
    }
    assert_eq!(commands("a\n```sh\ncargo build\ntrainer x\n```\n```sh\nexport PATH=y\n```\n"), ["trainer x"]);
}

/// Trains 16 organisms of 135M weights and reads 12: about half an hour on two cores.
#[test]
#[ignore = "slow: half an hour; needs smollm2-135m-instruct"]
fn slow_the_commands_of_the_guide_run_as_written() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    for name in ["recipes", "data"] {
        symlink(here.join(name), dir.path().join(name)).unwrap();
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_trainer")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    for block in commands(&fs::read_to_string(here.join("docs/guide.md")).unwrap()) {
        let clock = Instant::now();
        let mut run = Command::new("bash");
        run.args(["-euo", "pipefail", "-c", &block]).env("PATH", &path).current_dir(dir.path());
        let status = run.status().unwrap();
        println!("{:.0} s: {block}", clock.elapsed().as_secs_f64());
        assert!(status.success(), "{block}");
    }
}
