//! A folder with a small corpus, a recipe, a tiny embedder and the binary, for tests that run the whole tool
//! on the tiny models of `fixtures/tiny`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The tiny random models, one of each architecture.
pub const FAMILIES: [&str; 5] = ["llama", "qwen2", "qwen3", "gemma2", "gemma3"];

/// The folder of a tiny random model, one of [`FAMILIES`].
pub fn tiny(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(family)
}

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
        let text = fs::read_to_string(self.path(name)).unwrap();
        let row = |line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_string();
        text.lines().map(row).collect()
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

/// Every file and folder below a folder with its content (that of a folder is empty).
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, Vec::new());
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// The lines of `metrics.jsonl` without what depends on the clock.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        assert!(line.remove("tokens_per_s").is_some() && line.remove("elapsed_s").is_some());
    }
    lines
}

/// What a finished run has learned and recorded, without what depends on the clock.
pub fn outcome(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut outcome = BTreeMap::new();
    for (path, content) in files(run) {
        let name = path.strip_prefix(run).unwrap().to_string_lossy().into_owned();
        if name.starts_with("adapter/") || name.starts_with("model/") || name == "recipe.toml" {
            outcome.insert(name, content);
        } else if name.ends_with("/trainer_state.json") {
            outcome.insert(name, without(&content, &["elapsed_s", "trace_s"]));
        } else if name == "diff/readability.json" {
            outcome.insert(name, without(&content, &["elapsed_s"]));
        } else if name.starts_with("checkpoints/") || name.starts_with("diff/") {
            outcome.insert(name, content);
        } else if name == "manifest.json" {
            let recipe = fs::read_to_string(run.join("recipe.toml")).unwrap();
            let section = recipe.split("[train.trace]\n").nth(1).unwrap_or("every = 0");
            let traced = (!section.starts_with("every = 0")).then_some("trace_s");
            outcome.insert(name, without(&content, &[&["elapsed_s", "created"], traced.as_slice()].concat()));
        }
    }
    outcome.insert("metrics".into(), serde_json::to_vec(&metrics(run)).unwrap());
    assert!(outcome.contains_key("manifest.json"), "{}: not finished", run.display());
    outcome
}

/// Panics with the names of the parts that differ.
pub fn assert_same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}: other files");
    let differing: Vec<&String> = a.iter().filter(|(k, v)| b[*k] != **v).map(|(k, _)| k).collect();
    assert!(differing.is_empty(), "{what}: {differing:?} differ");
}

fn without(json: &[u8], keys: &[&str]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(json).unwrap();
    for key in keys {
        assert!(value.as_object_mut().unwrap().shift_remove(*key).is_some(), "no {key}");
    }
    serde_json::to_vec(&value).unwrap()
}

/// A JSON file.
pub fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// All numbers of a tensor.
pub fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Copies a model folder and changes its weights.
pub fn change_model(from: &Path, to: &Path, change: impl Fn(&mut HashMap<String, Tensor>)) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut weights = read_tensors(&from.join("model.safetensors"));
    change(&mut weights);
    candle_core::safetensors::save(&weights, to.join("model.safetensors")).unwrap();
}

/// A random sentence-transformers BERT of one layer, over the tiny llama's tokenizer.
fn write_embedder(dir: &Path) {
    const WIDTH: usize = 16;
    const INNER: usize = 32;
    fs::create_dir_all(dir).unwrap();
    fs::copy(tiny("llama").join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut weights = HashMap::new();
    let mut random = |name: &str, shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-0.9..0.9)).collect();
        weights.insert(name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    };
    for (table, rows) in [("word", 288), ("position", 256), ("token_type", 2)] {
        random(&format!("embeddings.{table}_embeddings.weight"), &[rows, WIDTH]);
    }
    let layer = "encoder.layer.0.";
    for (name, out, inp) in [
        ("attention.self.query", WIDTH, WIDTH),
        ("attention.self.key", WIDTH, WIDTH),
        ("attention.self.value", WIDTH, WIDTH),
        ("attention.output.dense", WIDTH, WIDTH),
        ("intermediate.dense", INNER, WIDTH),
        ("output.dense", WIDTH, INNER),
    ] {
        random(&format!("{layer}{name}.weight"), &[out, inp]);
        random(&format!("{layer}{name}.bias"), &[out]);
    }
    for norm in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        random(&format!("{norm}.LayerNorm.weight"), &[WIDTH]);
        random(&format!("{norm}.LayerNorm.bias"), &[WIDTH]);
    }
    candle_core::safetensors::save(&weights, dir.join("model.safetensors")).unwrap();
    let config = json!({
        "model_type": "bert", "vocab_size": 288, "hidden_size": WIDTH, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": INNER, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "max_position_embeddings": 256, "type_vocab_size": 2,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}
