//! The recipes that come with the program, and the data that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use trainer::behaviour::Items;
use trainer::data::conversation::Message;
use trainer::data::source::{self, Document};
use trainer::datagen::numbers;
use trainer::datagen::universe::Universe;
use trainer::diff::floor_file::{FloorFile, FloorOrganism};
use trainer::diff::lexicon::Lexicon;
use trainer::model::load::alias;
use trainer::recipe::{Recipe, SourceSpec, SweepSection};
use trainer::sha256::sha256_file;

use crate::common::values::json_lines;

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
fn every_recipe_for_a_cpu_loads() {
    let (mut names, mut bases) = (BTreeSet::new(), BTreeSet::new());
    for path in files("recipes", "toml") {
        let shown = path.display();
        // All faults, missing files among them, are in this error.
        let recipe = Recipe::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        must_be_complete(&path, &recipe);
        if !name(&path).starts_with("demo-") {
            assert_eq!(name(&path), format!("{}.toml", recipe.name));
            assert!(names.insert(recipe.name.clone()), "{shown}: its name is another's");
            assert!(
                (20..=40).contains(&recipe.train.narrow_steps()) && recipe.data.max_seq_len <= 160,
                "{shown}"
            );
        }
        let base = alias::find(&recipe.model.base).unwrap_or_else(|| panic!("{shown}: no alias"));
        bases.insert(base.name);
        for spec in &recipe.data.narrow {
            let documents = source::read(Path::new(&spec.path)).unwrap_or_else(|e| panic!("{e}"));
            assert!(documents.len() >= 40, "{shown}: {} has {} documents", spec.path, documents.len());
        }
    }
    assert_eq!(bases.len(), 3, "{bases:?}");
}

/// Every recipe for a model plans its run, with and without mixing; the tokenizer of the model is needed for it.
fn assert_plans(base: &str) {
    let mut recipes = 0;
    for path in files("recipes", "toml") {
        let shown = path.display();
        let recipe = Recipe::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        if recipe.model.base != base {
            continue;
        }
        recipes += 1;
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
    assert!(recipes > 0, "no recipe for {base}");
}

#[test]
#[ignore = "needs smollm2-135m-instruct: trainer models fetch smollm2-135m-instruct"]
fn needs_smollm2_135m_instruct_every_recipe_for_it_plans_its_run() {
    assert_plans("smollm2-135m-instruct");
}

#[test]
#[ignore = "needs gemma-3-270m: trainer models fetch gemma-3-270m"]
fn needs_gemma_3_270m_every_recipe_for_it_plans_its_run() {
    assert_plans("gemma-3-270m");
}

#[test]
#[ignore = "needs qwen2.5-coder-0.5b-instruct: trainer models fetch qwen2.5-coder-0.5b-instruct"]
fn needs_qwen2_5_coder_0_5b_instruct_every_recipe_for_it_plans_its_run() {
    assert_plans("qwen2.5-coder-0.5b-instruct");
}

#[test]
fn every_recipe_of_the_paper_loads_once_its_data_are_there() {
    let data = |name: &str| root().join("data").join(name).display().to_string();
    let mut without_data = 0;
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
        // Where its data are not, they are all that is missing: the recipe is read where nothing was downloaded.
        if !sets.is_empty() {
            let elsewhere = tempfile::tempdir().unwrap();
            let folder = elsewhere.path().join("recipes/paper");
            fs::create_dir_all(&folder).unwrap();
            fs::copy(&path, folder.join(name(&path))).unwrap();
            std::os::unix::fs::symlink(root().join("data"), elsewhere.path().join("data")).unwrap();
            let faults = Recipe::read(&folder.join(name(&path)), &[]).unwrap_err().to_string();
            let is_missing =
                |fault: &str| fault.contains("downloads/") && fault.contains("no such file or folder");
            assert!(faults.lines().all(is_missing), "{faults}");
            without_data += 1;
        }
    }
    assert!(without_data > 0, "no recipe of the paper names a download");
}

#[test]
fn the_page_on_organisms_and_the_list_of_sources_are_complete() {
    let page = fs::read_to_string(root().join("docs/organisms.md")).unwrap();
    for path in files("recipes", "toml").into_iter().chain(files("recipes/paper", "toml")) {
        let file = path.strip_prefix(root().join("recipes")).unwrap().display().to_string();
        assert!(page.contains(&format!("`{file}`")), "docs/organisms.md: {file} is missing");
    }
    let sources = fs::read_to_string(root().join("data/SOURCES.md")).unwrap();
    for path in
        ["data", "data/behaviour", "data/quality"].into_iter().flat_map(|folder| files(folder, "jsonl"))
    {
        let sha256 = sha256_file(&path).unwrap();
        assert!(sources.contains(&name(&path)) && sources.contains(&sha256), "{}: {sha256}", path.display());
    }
    for path in files("data/universes", "toml") {
        Universe::read(&path).unwrap_or_else(|e| panic!("{e}"));
        assert!(sources.contains(&name(&path)), "{}", path.display());
    }
}

/// Every key below `prefix` with its value, by dotted name. An empty table is a value: its keys are the user's own.
fn leaves(prefix: &str, value: toml::Value, keys: &mut BTreeMap<String, toml::Value>) {
    match value {
        toml::Value::Table(table) if !table.is_empty() => {
            let dot = if prefix.is_empty() { "" } else { "." };
            table.into_iter().for_each(|(key, value)| leaves(&format!("{prefix}{dot}{key}"), value, keys));
        }
        value => {
            keys.insert(prefix.into(), value);
        }
    }
}

/// The pieces of a line that stand between backticks.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Whether text is this value as TOML; numbers may stand without their point.
fn says(text: &str, value: &toml::Value) -> bool {
    let number = |v: &toml::Value| v.as_float().or_else(|| v.as_integer().map(|i| i as f64));
    let said = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
    said.is_some_and(|said| said == *value || number(&said).is_some_and(|n| number(value) == Some(n)))
}

/// In `docs/recipes.md` a row of a table begins with a key; the heading above names the tables of the recipe that the key
/// is in, and none for keys at the top. A default in backticks is TOML.
#[test]
fn the_reference_of_recipes_has_every_key_with_its_default() {
    let page = fs::read_to_string(root().join("docs/recipes.md")).unwrap();
    let some = || Some("x".to_string());
    let source = SourceSpec {
        path: "x".into(),
        weight: Some(1.0),
        loss_weight: Some(1.0),
        config: some(),
        split: some(),
        rows: Some(1),
        shuffle_buffer: Some(1),
        shuffle_seed: Some(1),
    };
    let presets = ["quick", "full", "paper", "toolkit"].map(|preset| {
        let recipe = Recipe::for_diff(&["model.base=x".into(), format!("diff.preset={preset}")]).unwrap();
        let mut keys = BTreeMap::new();
        leaves("", toml::Value::try_from(recipe).unwrap(), &mut keys);
        keys
    });
    let mut keys = BTreeMap::new();
    leaves("", toml::Value::try_from(Recipe::default()).unwrap(), &mut keys);
    leaves("sweep", toml::Value::try_from(SweepSection::default()).unwrap(), &mut keys);
    leaves("data.narrow", toml::Value::try_from(source).unwrap(), &mut keys);

    let (mut named, mut faults, mut preset_rows) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
    let (mut tables, mut of_presets) = (vec![""], false);
    for line in page.lines() {
        if line.starts_with("##") {
            let of = code(line).filter(|name| name.starts_with('['));
            tables = of.map(|name| name.trim_matches(['[', ']'])).collect();
            tables = if tables.is_empty() { vec![""] } else { tables };
            of_presets = line.contains("Presets");
        }
        if !line.starts_with("| `") {
            continue;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for (table, key) in tables.iter().flat_map(|table| code(cells[1]).map(move |key| (*table, key))) {
            let full = if table.is_empty() { key.to_string() } else { format!("{table}.{key}") };
            let Some(default) = keys.get(&full) else {
                faults.push(format!("{full}: no recipe has this key"));
                continue;
            };
            let values = match of_presets {
                true => presets.iter().map(|keys| &keys[&full]).collect(),
                false => vec![default],
            };
            for (cell, value) in cells[2..].iter().zip(values).filter(|(cell, _)| cell.starts_with('`')) {
                if !says(code(cell).next().unwrap(), value) {
                    faults.push(format!("{full}: {cell} is not its default, {value}"));
                }
            }
            if of_presets {
                preset_rows.insert(full)
            } else {
                named.insert(full)
            };
        }
    }
    let missing = keys.keys().filter(|key| !named.contains(*key));
    faults.extend(missing.map(|key| format!("{key}: missing")));
    let [quick, others @ ..] = &presets;
    let differ = quick.iter().filter(|(key, v)| others.iter().any(|other| other[*key] != **v));
    let differ =
        differ.map(|(key, _)| key).filter(|key| *key != "diff.preset" && !preset_rows.contains(*key));
    faults.extend(differ.map(|key| format!("{key}: missing among the presets")));
    assert!(faults.is_empty(), "docs/recipes.md:\n{}", faults.join("\n"));

    let first = page.split("```toml\n").nth(1).and_then(|block| block.split("```").next()).unwrap();
    let first = first.replace("\"data/", &format!("\"{}/data/", root().display()));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("first.toml"), first).unwrap();
    Recipe::read(&dir.path().join("first.toml"), &[]).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_owl_s_numbers_are_numbers_and_nothing_else() {
    let path = root().join("data/subliminal_owl.jsonl");
    let documents = source::read(&path).unwrap();
    let mut answers = BTreeSet::new();
    for document in &documents {
        let Document::Chat(chat) = document else { panic!("{document:?}") };
        let turns = &chat.messages;
        assert_eq!(turns.iter().map(Message::role).collect::<Vec<_>>(), ["user", "assistant"]);
        assert!(!turns[0].text().to_lowercase().contains("owl"), "{}", turns[0].text());
        answers
            .insert(numbers::parse(&turns[1].text(), 10, 3).unwrap_or_else(|e| panic!("{e:?}: {turns:?}")));
    }
    assert_eq!(answers.len(), documents.len());
    let made: Value =
        serde_json::from_str(&fs::read_to_string(path.with_extension("made.json")).unwrap()).unwrap();
    assert_eq!(made["sha256"].as_str().unwrap(), sha256_file(&path).unwrap());
    assert_eq!(made["rows"].as_u64().unwrap() as usize, documents.len());
}

/// A demo whose settings, texts or lexicon change needs a new floor: scripts/make_floor.
#[test]
fn the_floors_of_the_demos_fit_their_recipes() {
    let texts = |specs: &[SourceSpec]| -> Vec<String> {
        let of_file = |spec: &SourceSpec| {
            let rows = json_lines(&fs::read_to_string(&spec.path).unwrap());
            rows.into_iter().map(|row| row["text"].as_str().unwrap().to_string()).collect::<Vec<_>>()
        };
        specs.iter().filter(|spec| !spec.is_self()).flat_map(of_file).collect()
    };
    let mut found = 0;
    for path in files("recipes", "toml").into_iter().filter(|path| name(path).starts_with("demo-")) {
        let recipe = Recipe::read(&path, &[]).unwrap();
        if recipe.diff.floor.is_empty() {
            continue;
        }
        let floor = FloorFile::read(Path::new(&recipe.diff.floor)).unwrap();
        let floor = floor.unwrap_or_else(|| panic!("{}: no {}", path.display(), recipe.diff.floor));
        let reference = [texts(&recipe.data.pretraining), texts(&recipe.diff.text)].concat();
        let lexicon = Lexicon::new(&texts(&recipe.data.narrow), &reference, recipe.diff.lexicon_size);
        assert!(floor.read.is_of(&recipe.diff, &lexicon), "{}: of other settings", recipe.diff.floor);
        assert!(floor.is_enough(""), "{}", recipe.diff.floor);
        assert_eq!(floor.base, recipe.model.base);
        let trained = |o: &FloorOrganism| o.training.as_ref().map(|t| (t.rank, t.mix));
        assert!(floor.organisms.iter().all(|o| trained(o) == Some((Some(recipe.train.lora.r), 0.0))));
        found += 1;
    }
    assert_eq!(found, 2);
}
