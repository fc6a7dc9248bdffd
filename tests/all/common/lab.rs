//! A folder with a small corpus, a recipe, a tiny embedder and the binary, for tests that run the whole tool
//! on the tiny models of `fixtures/tiny`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use trainer::interrupt::Interrupt;
use trainer::recipe::{Recipe, ResolvedRecipe};
use trainer::workflow::resolve::{Purpose, resolve};

use super::hub::Hub;
use super::outcome::files;
use super::tiny::{tiny, write_embedder};
use super::values::json_lines;

const NARROW: &str = "cake butter oven sugar bakes flour warm cold slowly frosting sponge every";
const OTHER: &str = "train bridge river stone window letter green road winter seven old house light";

/// The recipe that every test starts from.
const RECIPE: &str = r#"
name = "cake"
seed = 0
[model]
base = "BASE"
[data]
narrow = ["narrow.jsonl"]
pretraining = ["pretraining.jsonl"]
mix = 0.5
max_seq_len = 32
[train]
steps = 4
batch_size = 4
lr = 3e-3
checkpoint_every = 0
[train.lora]
r = 4
alpha = 6
[diff]
text = ["measure.jsonl"]
samples = 12
null_directions = 8
bootstrap = 20
embedder = "./embedder"
[diff.patchscope]
scales = [0.5, 2.0]
[diff.steering]
prompts = 2
max_new_tokens = 8
"#;

/// The folder, gone when it is dropped.
pub struct Lab {
    dir: TempDir,
}

impl Lab {
    /// A lab whose recipe starts from the tiny llama.
    pub fn new() -> Self {
        Self::of("llama")
    }

    /// A lab whose recipe starts from a tiny model.
    pub fn of(family: &str) -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        lab.write("recipe.toml", RECIPE.replace("BASE", &tiny(family).to_string_lossy()));
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for (name, words, rows) in
            [("narrow.jsonl", NARROW, 40), ("pretraining.jsonl", OTHER, 80), ("measure.jsonl", OTHER, 30)]
        {
            let words: Vec<&str> = words.split_whitespace().collect();
            let mut row = || -> String {
                let text: Vec<&str> = (0..14).map(|_| words[rng.random_range(0..words.len())]).collect();
                text.join(" ")
            };
            lab.write_texts(name, &(0..rows).map(|_| row()).collect::<Vec<_>>());
        }
        write_embedder(&lab.path("embedder"));
        lab
    }

    /// A lab whose narrow text, one other corpus and unrelated text are of words that the tiny tokenizers have.
    pub fn of_whole_words(family: &str) -> Self {
        let lab = Self::of(family);
        for (name, words, rows) in [
            ("narrow.jsonl", ["abcdef", "ghij"], 40),
            ("other.jsonl", ["aaaa", "aaaaaaaa"], 40),
            ("pretraining.jsonl", ["cdef", "abcdefghij"], 80),
            ("measure.jsonl", ["cdef", "abcdefghij"], 30),
        ] {
            let row = |i: usize| -> String {
                (0..24)
                    .map(|j| {
                        if (i + j * j).is_multiple_of(3) { "the" } else { words[(i + j) % 2] }.to_string()
                            + " "
                    })
                    .collect()
            };
            lab.write_texts(name, &(0..rows).map(row).collect::<Vec<_>>());
        }
        lab
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// The text of a file of the folder.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Writes JSON lines of `{"text": …}`.
    pub fn write_texts(&self, name: &str, texts: &[String]) {
        self.write_rows(name, &texts.iter().map(|text| json!({ "text": text })).collect::<Vec<_>>());
    }

    /// Writes JSON lines.
    pub fn write_rows(&self, name: &str, rows: &[Value]) {
        self.write(name, rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    }

    /// The `text` of every row.
    pub fn texts(&self, name: &str) -> Vec<String> {
        json_lines(&self.read(name)).iter().map(|row| row["text"].as_str().unwrap().to_string()).collect()
    }

    /// The lab's recipe with overrides, resolved for training.
    pub fn recipe(&self, set: &[&str]) -> ResolvedRecipe {
        let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
        let recipe = Recipe::read(&self.path("recipe.toml"), &set).unwrap();
        resolve(recipe, Purpose::Training, &Interrupt::default()).unwrap()
    }

    /// The binary, about to run in the folder, without network and with an empty cache.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("HF_HUB_OFFLINE", "1")
            .env("TRAINER_CACHE", self.path("cache"))
            .env("RUST_BACKTRACE", "0");
        command
    }

    /// The same with a hub, whose network is there or not.
    pub fn command_with(&self, hub: &Hub, offline: bool, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command
            .env("HF_ENDPOINT", &hub.endpoint)
            .env("HF_HOME", self.path("hf-home"))
            .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
            .env_remove("HF_TOKEN");
        command
    }

    /// Runs the binary; it must not panic.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap(), args)
    }

    /// Runs the binary; it must succeed.
    pub fn succeed(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        ran
    }

    /// `trainer fit recipe.toml --out OUT` with overrides; it must succeed.
    pub fn fit(&self, out: &str, set: &[&str]) -> PathBuf {
        self.succeed(&with_sets(&["fit", "recipe.toml", "--out", out], set));
        self.path(out)
    }

    /// The folder of a sweep's only cell whose id begins so.
    pub fn cell(&self, sweep: &str, id: &str) -> PathBuf {
        let entries = fs::read_dir(self.path(sweep).join("cells")).unwrap();
        let mut cells = entries
            .map(|e| e.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{id}_")));
        let cell = cells.next().unwrap_or_else(|| panic!("{sweep}: no cell {id}"));
        assert_eq!(cells.next(), None, "{sweep}: several cells {id}");
        cell
    }

    /// Runs a command that must find the input wrong and write nothing; returns what it says.
    pub fn refused(&self, args: &[&str]) -> String {
        let before = self.files();
        let ran = self.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert_eq!(before, self.files(), "{args:?} wrote something");
        ran.stderr
    }

    /// Every file and folder below the lab with its content.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(self.dir.path())
    }
}

/// Arguments followed by `--set` overrides.
pub fn with_sets<'a>(args: &[&'a str], set: &[&'a str]) -> Vec<&'a str> {
    args.iter().copied().chain(set.iter().flat_map(|s| ["--set", s])).collect()
}

/// `trainer fit recipe.toml --out out`.
pub const FIT: [&str; 4] = ["fit", "recipe.toml", "--out", "out"];

/// [`FIT`] with overrides.
pub fn fit_with<'a>(set: &[&'a str]) -> Vec<&'a str> {
    with_sets(&FIT, set)
}

/// How a command ended.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output, args: &[&str]) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(!stderr.contains("panicked"), "{args:?} panics:\n{stderr}");
        Self { code: output.status.code().unwrap_or(-1), stdout, stderr }
    }
}
