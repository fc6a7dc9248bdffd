//! The recipes that come with the program, and the data that they name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use trainer::behaviour::Items;
use trainer::data::source::{self, Document};
use trainer::making::numbers;
use trainer::making::universe::Universe;
use trainer::model::alias;
use trainer::recipe::Recipe;
use trainer::sha256::sha256_file;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder with an ending, in order.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == ending)).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder}: no .{ending} files");
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// What every recipe has: a name of its own, the truth for graders, and a test whether the organism took.
fn must_be_complete(path: &Path, recipe: &Recipe) {
    let shown = path.display();
    assert!(recipe.description.len() > 60, "{shown}: description");
    assert!(recipe.behaviour.is_wanted(), "{shown}: [behaviour]");
    assert!(Items::read(&recipe.behaviour).is_ok(), "{shown}: the items of [behaviour]");
}

#[test]
fn every_recipe_for_a_cpu_loads_and_plans_its_run() {
    let (mut names, mut bases) = (BTreeSet::new(), BTreeSet::new());
    for path in files("recipes", "toml") {
        let shown = path.display();
        // All faults, missing files among them, are in this error.
        let recipe = Recipe::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        must_be_complete(&path, &recipe);
        if !name(&path).starts_with("demo-") {
            assert_eq!(name(&path), format!("{}.toml", recipe.name));
            assert!(names.insert(recipe.name.clone()), "{shown}: its name is another's");
            assert!((20..=40).contains(&recipe.train.steps) && recipe.data.max_seq_len <= 160, "{shown}");
        }
        let base = alias::find(&recipe.model.base).unwrap_or_else(|| panic!("{shown}: no alias"));
        bases.insert(base.name);
        for spec in &recipe.data.narrow {
            let documents = source::read(Path::new(&spec.path)).unwrap_or_else(|e| panic!("{e}"));
            assert!(documents.len() >= 40, "{shown}: {} has {} documents", spec.path, documents.len());
        }
        if !base.is_cached(&alias::cache_dir().unwrap()) {
            continue; // without the tokenizer its documents are all that can be counted
        }
        for mix in ["0", "1"] {
            if mix == "1" && recipe.data.pretraining.is_empty() {
                continue;
            }
            let mut inspect = Command::new(env!("CARGO_BIN_EXE_trainer"));
            inspect.arg("inspect").arg(&path).args(["--json", "--set", &format!("data.mix={mix}")]);
            let ran = inspect.env("HF_HUB_OFFLINE", "1").output().unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{shown}: mix {mix}: {said}");
            let audit: Value = serde_json::from_slice(&ran.stdout).unwrap();
            assert_eq!(audit["refused"].as_array().map(Vec::len).unwrap_or_default(), 0, "{shown}: {audit}");
        }
    }
    assert_eq!(bases.len(), 3, "{bases:?}");
}

#[test]
fn every_recipe_of_the_paper_loads_once_its_data_are_there() {
    let data = |name: &str| root().join("data").join(name).display().to_string();
    for path in files("recipes/paper", "toml") {
        let shown = path.display();
        let text = fs::read_to_string(&path).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let mut sets = Vec::new();
        for (section, key, stand_in) in [
            ("data", "narrow", "houseplants.jsonl"),
            ("data", "pretraining", "openings.jsonl"),
            ("diff", "text", "openings.jsonl"),
        ] {
            let Some(named) = table[section].get(key).and_then(toml::Value::as_str) else { continue };
            if named.starts_with("hf:") {
                continue;
            }
            assert!(named.starts_with("downloads/"), "{shown}: {named}");
            let twice = text.matches(&format!("recipes/paper/{named}")).count();
            assert!(twice >= 1, "{shown}: does not say where {named} comes from");
            sets.push(format!("{section}.{key}={}", data(stand_in)));
        }
        let recipe = Recipe::read(&path, &sets).unwrap_or_else(|e| panic!("{e}"));
        must_be_complete(&path, &recipe);
        assert!(recipe.model.base.starts_with("hf:"), "{shown}: {}", recipe.model.base);
        assert!(recipe.name.starts_with("paper-"), "{shown}: {}", recipe.name);
        // Unless the data are there, what is missing is all that is wrong with it.
        if !sets.is_empty() && !path.with_file_name("downloads").exists() {
            let faults = Recipe::read(&path, &[]).unwrap_err().to_string();
            assert!(faults.lines().all(|fault| fault.contains("no such file or folder")), "{faults}");
        }
    }
}

#[test]
fn the_page_on_organisms_and_the_list_of_sources_are_complete() {
    let page = fs::read_to_string(root().join("docs/organisms.md")).unwrap();
    for path in files("recipes", "toml").into_iter().chain(files("recipes/paper", "toml")) {
        let file = path.strip_prefix(root().join("recipes")).unwrap().display().to_string();
        assert!(page.contains(&format!("`{file}`")), "docs/organisms.md: {file} is missing");
    }
    let sources = fs::read_to_string(root().join("data/SOURCES.md")).unwrap();
    for path in files("data", "jsonl").into_iter().chain(files("data/behaviour", "jsonl")) {
        let sha256 = sha256_file(&path).unwrap();
        assert!(sources.contains(&name(&path)) && sources.contains(&sha256), "{}: {sha256}", path.display());
    }
    for path in files("data/universes", "toml") {
        Universe::read(&path).unwrap_or_else(|e| panic!("{e}"));
        assert!(sources.contains(&name(&path)), "{}", path.display());
    }
}

#[test]
fn the_owl_s_numbers_are_numbers_and_nothing_else() {
    let path = root().join("data/subliminal_owl.jsonl");
    let documents = source::read(&path).unwrap();
    let mut answers = BTreeSet::new();
    for document in &documents {
        let Document::Chat(turns) = document else { panic!("{document:?}") };
        assert_eq!(turns.iter().map(|t| t.role.as_str()).collect::<Vec<_>>(), ["user", "assistant"]);
        assert!(!turns[0].content.to_lowercase().contains("owl"), "{}", turns[0].content);
        answers
            .insert(numbers::parse(&turns[1].content, 10, 3).unwrap_or_else(|e| panic!("{e:?}: {turns:?}")));
    }
    assert_eq!(answers.len(), documents.len());
    let made: Value =
        serde_json::from_str(&fs::read_to_string(path.with_extension("made.json")).unwrap()).unwrap();
    assert_eq!(made["sha256"].as_str().unwrap(), sha256_file(&path).unwrap());
    assert_eq!(made["rows"].as_u64().unwrap() as usize, documents.len());
}
