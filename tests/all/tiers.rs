//! Every test that a plain `cargo test` leaves out is named so that `scripts/test` finds it.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    below.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The reason why a test is ignored and its name, of all that are.
fn ignored(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut reason = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[ignore") {
            reason = Some(rest.trim_start_matches(" = ").trim_end_matches(']').trim_matches('"'));
        } else if let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
            found.extend(reason.take().map(|reason| (reason, name)));
        }
    }
    found
}

/// Ignored, but no test: a person looks at what it does, or `scripts/bench` at what it prints.
const NO_TESTS: [&str; 3] = ["pages_to_look_at", "bandwidth", "speed"];

#[test]
fn a_test_is_ignored_where_its_name_says_so_and_nowhere_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for path in sources(&root.join("src")).into_iter().chain(sources(&root.join("tests"))) {
        let text = fs::read_to_string(&path).unwrap();
        let is_named =
            |line: &&str| ["fn needs_", "fn slow_"].iter().any(|start| line.trim().starts_with(start));
        let named = text.lines().filter(is_named).count();
        let mut ignored = ignored(&text);
        ignored.retain(|(_, name)| !NO_TESTS.contains(name));
        for (reason, name) in &ignored {
            let tiers = [("needs ", "needs_"), ("slow: ", "slow_")];
            let is_told =
                tiers.iter().any(|(said, prefix)| reason.starts_with(said) && name.starts_with(prefix));
            assert!(is_told, "{}: {name} is ignored: {reason:?}", path.display());
        }
        assert_eq!(ignored.len(), named, "{}: a name promises what is not so", path.display());
        found += named;
    }
    assert!(found > 5, "{found} tests are ignored: they are not found");
}
