//! Mutated files against everything that reads files: no panic, no hang, no gigabytes, whatever a file holds.
//!
//! Each target starts from small files that are right, changes them at random (bytes; values of JSON and TOML), and reads them
//! as the program does. `TRAINER_FUZZ_SECONDS` is the time of each target (1 by default, 10 in CI), `TRAINER_FUZZ_SEED` the first
//! seed. A case that fails names its seed, and leaves its file under `TRAINER_FUZZ_KEEP`, if that is set:
//!
//! ```sh
//! TRAINER_FUZZ_SECONDS=600 cargo test --release --test fuzz -- --nocapture --test-threads 1
//! ```

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use trainer::claims;
use trainer::data::source as data;
use trainer::jinja::Template;
use trainer::model::CausalLm;
use trainer::model::load::loader::Tuning;
use trainer::model::load::source;
use trainer::model::lora::Adapter;
use trainer::recipe::Recipe;
use trainer::report;

/// Longest time of one case.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most memory that the process may ever have had, in kB.
const MEMORY_KB: u64 = 3 << 20;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(name)
}

fn seconds() -> f64 {
    std::env::var("TRAINER_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1.0)
}

/// The most memory that this process has had, in kB; 0 where that cannot be told.
fn peak_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

/// Runs cases of a target until its time is over. `read` gets a new folder and a source of chance, and gives what it wrote.
fn fuzz(target: &str, mut case: impl FnMut(&Path, &mut ChaCha8Rng)) {
    let first: u64 = std::env::var("TRAINER_FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let begun = Instant::now();
    let (mut seed, mut slowest) = (first, (Duration::ZERO, 0));
    while begun.elapsed().as_secs_f64() < seconds() || seed == first {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let clock = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| case(dir.path(), &mut rng)));
        let took = clock.elapsed();
        let is_fine = ended.is_ok() && took < PATIENCE && peak_kb() < MEMORY_KB;
        if !is_fine && let Ok(keep) = std::env::var("TRAINER_FUZZ_KEEP") {
            let to = Path::new(&keep).join(format!("{target}-{seed}"));
            fs::create_dir_all(&to).unwrap();
            for entry in fs::read_dir(dir.path()).unwrap().flatten().filter(|e| e.path().is_file()) {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        assert!(ended.is_ok(), "{target}: seed {seed} panics");
        assert!(took < PATIENCE, "{target}: seed {seed} takes {took:?}");
        assert!(peak_kb() < MEMORY_KB, "{target}: seed {seed}: {} kB", peak_kb());
        if took > slowest.0 {
            slowest = (took, seed);
        }
        seed += 1;
    }
    println!(
        "{target}: {} cases in {:.1} s, the slowest {:.2} s (seed {}), at most {} MB",
        seed - first,
        begun.elapsed().as_secs_f64(),
        slowest.0.as_secs_f64(),
        slowest.1,
        peak_kb() >> 10
    );
}

/// Changes some bytes: flips, repeats, leaves out, cuts off, puts in numbers at the edges.
fn mutated(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..6) {
        if out.is_empty() {
            break;
        }
        let at = rng.random_range(0..out.len());
        match rng.random_range(0..7) {
            0 => out[at] ^= 1 << rng.random_range(0..8),
            1 => out[at] = rng.random(),
            2 => out.truncate(at),
            3 => {
                let end = (at + rng.random_range(1..200)).min(out.len());
                let part = out[at..end].to_vec();
                let times = rng.random_range(1..50);
                (0..times).for_each(|_| drop(out.splice(at..at, part.iter().copied())));
            }
            4 => drop(out.drain(at..(at + rng.random_range(1..50)).min(out.len()))),
            5 => {
                let edges: [u64; 8] =
                    [0, 1, 0x7f, 0xff, 0xffff_ffff, u64::MAX, i64::MAX as u64, 1 << rng.random_range(0..63)];
                let edge = edges.choose(rng).unwrap().to_le_bytes();
                let width = [1, 2, 4, 8][rng.random_range(0..4)];
                let end = (at + width).min(out.len());
                out[at..end].copy_from_slice(&edge[..end - at]);
            }
            _ => {
                let from = rng.random_range(0..out.len());
                let end = (from + rng.random_range(1..64)).min(out.len());
                let part = out[from..end].to_vec();
                drop(out.splice(at..at, part));
            }
        }
    }
    out
}

/// A value from the edges.
fn edge(rng: &mut ChaCha8Rng) -> Value {
    let nested = |depth: usize, list: bool| {
        (0..depth).fold(json!(1), |inner, _| if list { json!([inner]) } else { json!({ "a": inner }) })
    };
    match rng.random_range(0..22) {
        0 => json!(0),
        1 => json!(1),
        2 => json!(-1),
        3 => json!(7),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1e300),
        7 => json!(-1e-300),
        8 => json!(10_000_000),
        9 => json!(20_000_000_000u64),
        10 => json!(""),
        11 => json!("\u{1b}[31m=1+1\n"),
        12 => json!("a".repeat(rng.random_range(1..5000))),
        13 => json!("(a+)+$"),
        14 => json!([]),
        15 => json!({}),
        16 => json!(null),
        17 => json!(true),
        18 => nested(100, true),
        19 => nested(100, false),
        20 => json!(vec![0; rng.random_range(1..2000)]),
        _ => json!(rng.random_range(-100.0..100.0)),
    }
}

/// Changes some values of a document: at the edges, left out, repeated, or exchanged with others of it.
fn mutated_json(document: &Value, rng: &mut ChaCha8Rng) -> Value {
    let mut document = document.clone();
    for _ in 0..rng.random_range(1..4) {
        let mut pointers = Vec::new();
        collect(&document, String::new(), &mut pointers);
        let other = document.pointer(pointers.choose(rng).unwrap()).cloned().unwrap_or_default();
        let Some(place) = document.pointer_mut(pointers.choose(rng).unwrap()) else { continue };
        match (rng.random_range(0..6), &mut *place) {
            (0, _) => *place = other,
            (1, Value::Array(list)) if !list.is_empty() => {
                let one = list[rng.random_range(0..list.len())].clone();
                list.extend(std::iter::repeat_n(one, rng.random_range(1..30)));
            }
            (1 | 2, Value::Array(list)) if !list.is_empty() => {
                drop(list.remove(rng.random_range(0..list.len())))
            }
            (1 | 2, Value::Object(map)) if !map.is_empty() => {
                let key = map.keys().nth(rng.random_range(0..map.len())).cloned().unwrap();
                map.shift_remove(&key);
            }
            _ => *place = edge(rng),
        }
    }
    document
}

/// Places in a document, few of each long list.
fn collect(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Array(list) => {
            let step = (list.len() / 8).max(1);
            list.iter().enumerate().step_by(step).for_each(|(i, v)| collect(v, format!("{at}/{i}"), out));
        }
        Value::Object(map) => {
            let step = (map.len() / 40).max(1);
            map.iter().step_by(step).for_each(|(key, v)| {
                collect(v, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            });
        }
        _ => {}
    }
    out.push(at);
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Either way of changing a JSON file.
fn mutated_text(document: &Value, rng: &mut ChaCha8Rng) -> Vec<u8> {
    match rng.random_range(0..4) {
        0 => mutated(document.to_string().as_bytes(), rng),
        _ => mutated_json(document, rng).to_string().into_bytes(),
    }
}

fn copy(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        if from.join(name).is_file() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

const MODEL: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "chat_template.jinja",
];

/// Opens a model, builds it, and runs a step of it.
fn use_model(path: &Path) {
    let Ok(from) = source::open(&path.to_string_lossy()) else { return };
    let _ = from.chat().and_then(|chat| from.prompt_ids("Hello there", Some(&chat)));
    let Ok(ids) = from.prompt_ids("Hello there, world 123", None) else { return };
    let Ok((model, _)) = CausalLm::load(&from, &Tuning::Frozen, &Device::Cpu) else { return };
    let ids: Vec<u32> = ids.into_iter().take(16).collect();
    if ids.is_empty() {
        return;
    }
    let segments = trainer::ops::segments::Segments::new(vec![ids.len()]);
    let mut hook = trainer::model::hooks::NoHook;
    let mut pass = trainer::model::Pass::new(&segments, 0.0, &mut hook);
    let _ = model.hidden(&ids, &mut pass).and_then(|x| model.logits(&x, 0.0));
}

#[test]
fn config_and_safetensors() {
    let families = ["llama", "qwen2", "qwen3", "gemma2", "gemma3"];
    fuzz("config + safetensors", |dir, rng| {
        let from = fixture(families[rng.random_range(0..families.len())]);
        copy(&from, dir, &MODEL);
        match rng.random_range(0..3) {
            0 => {
                let bytes = fs::read(from.join("model.safetensors")).unwrap();
                let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                let bytes = match rng.random_range(0..3) {
                    // The header alone, where the interesting things are.
                    0 => [mutated(&bytes[..header], rng), bytes[header..].to_vec()].concat(),
                    1 => {
                        let head: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
                        let head = mutated_json(&head, rng).to_string().into_bytes();
                        [(head.len() as u64).to_le_bytes().to_vec(), head, bytes[header..].to_vec()].concat()
                    }
                    _ => mutated(&bytes, rng),
                };
                fs::write(dir.join("model.safetensors"), bytes).unwrap();
            }
            _ => {
                let config = read_json(&from.join("config.json"));
                fs::write(dir.join("config.json"), mutated_text(&config, rng)).unwrap();
            }
        }
        use_model(dir);
    });
}

#[test]
fn gguf() {
    // A file of the format's parts, without weights that fit: what is read first is what allocates.
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let mut head = b"GGUF\x03\0\0\0".to_vec();
    head.extend(2u64.to_le_bytes());
    head.extend(10u64.to_le_bytes());
    for (key, value) in [
        ("general.architecture", "llama"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "smollm"),
    ] {
        text(&mut head, key);
        head.extend(8u32.to_le_bytes());
        text(&mut head, value);
    }
    for (key, value) in [
        ("llama.block_count", 1u32),
        ("llama.context_length", 64),
        ("llama.embedding_length", 8),
        ("llama.feed_forward_length", 16),
        ("llama.attention.head_count", 2),
    ] {
        text(&mut head, key);
        head.extend(4u32.to_le_bytes());
        head.extend(value.to_le_bytes());
    }
    text(&mut head, "llama.attention.layer_norm_rms_epsilon");
    head.extend(6u32.to_le_bytes());
    head.extend(1e-5f32.to_le_bytes());
    text(&mut head, "tokenizer.ggml.tokens");
    head.extend(9u32.to_le_bytes());
    head.extend(8u32.to_le_bytes());
    head.extend(4u64.to_le_bytes());
    ["a", "b", "ab", "<e>"].into_iter().for_each(|token| text(&mut head, token));
    for (name, shape) in [("token_embd.weight", [8u64, 4]), ("blk.0.attn_q.weight", [8, 8])] {
        text(&mut head, name);
        head.extend(2u32.to_le_bytes());
        shape.into_iter().for_each(|n| head.extend(n.to_le_bytes()));
        head.extend(0u32.to_le_bytes());
        head.extend(0u64.to_le_bytes());
    }
    head.resize(head.len() + 600, 0);
    fuzz("gguf", |dir, rng| {
        let path = dir.join("m.gguf");
        fs::write(&path, mutated(&head, rng)).unwrap();
        use_model(&path);
    });
}

#[test]
fn tokenizers() {
    let mut documents: Vec<Value> =
        ["llama", "gemma3", "qwen2"].map(|family| read_json(&fixture(family).join("tokenizer.json"))).into();
    let mut rich = documents[0].clone();
    rich["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": true, "strip_right": true},
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Precompiled", "precompiled_charsmap": "ALQCAACEAAAAAACAAQAAgMz8AgC4BQAAhyIAgMzkAgC4PQAAeyIAgMzs"},
    ]});
    rich["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
        {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    ]});
    documents.push(rich);
    let mut unigram = documents[0].clone();
    unigram["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["ab", -2.0]], "byte_fallback": false});
    documents.push(unigram);
    let mut word_piece = documents[0].clone();
    word_piece["model"] = json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"a": 0, "##b": 1}});
    documents.push(word_piece);
    let long = "ab 12\u{e9}\u{1f600} ".repeat(600);
    fuzz("tokenizer.json", |_, rng| {
        let document = documents.choose(rng).unwrap();
        let Ok(tokenizer) = trainer::tokenizer::Tokenizer::from_bytes(&mutated_text(document, rng)) else {
            return;
        };
        for text in ["", "a", "Hello there, wörld 123  x", &long] {
            if let Ok(encoding) = tokenizer.encode(text, true) {
                let _ = tokenizer.decode(encoding.get_ids(), false);
            }
        }
    });
}

#[test]
fn adapters() {
    let folders: Vec<PathBuf> =
        fs::read_dir(fixture("adapters")).unwrap().flatten().map(|e| e.path()).collect();
    let folders: Vec<PathBuf> =
        folders.into_iter().filter(|f| f.join("adapter_config.json").is_file()).collect();
    let base = source::open(&fixture("llama").to_string_lossy()).unwrap();
    fuzz("adapter_config.json", |dir, rng| {
        let from = folders.choose(rng).unwrap();
        copy(from, dir, &["adapter_config.json", "adapter_model.safetensors"]);
        let config = read_json(&from.join("adapter_config.json"));
        fs::write(dir.join("adapter_config.json"), mutated_text(&config, rng)).unwrap();
        if rng.random_range(0..4) == 0 {
            let bytes = fs::read(from.join("adapter_model.safetensors")).unwrap();
            fs::write(dir.join("adapter_model.safetensors"), mutated(&bytes, rng)).unwrap();
        }
        if let Ok(adapter) = Adapter::read(dir) {
            let _ = CausalLm::load(&base, &Tuning::Adapted(&adapter), &Device::Cpu);
        }
    });
}

#[test]
fn templates() {
    let mut sources: Vec<String> = ["llama", "qwen2", "qwen3", "gemma2", "gemma3"]
        .iter()
        .filter_map(|family| fs::read_to_string(fixture(family).join("chat_template.jinja")).ok())
        .collect();
    sources.push(
        "{% macro m(a, b=2) %}{{ a ~ b }}{% endmacro %}{% for x in messages recursive %}{{ loop.index }}{{ m(x.content) }}\
         {% endfor %}{% set ns = namespace(x='a', l=[]) %}{% for i in range(50) %}{% set ns.x = ns.x + ns.x %}{% set ns.l = [ns.l, ns.l] %}\
         {% endfor %}{{ ns.l | tojson(indent=4) }}{{ 'a,b'.split(',') | join('-') | upper | replace('A', 'bb') }}{{ '%05d' % 3 }}\
         {{ [1, 2, 3] | map('string') | list | sort | unique | list }}{{ -(-1) if not false else 2 ** 8 }}"
            .into(),
    );
    sources.push("{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x.count('') }}".into());
    let parts = [
        "{% for i in range(99999) %}",
        "{% endfor %}",
        "{{ x }}",
        "(((((((((((((((((((((((",
        "- - - - - - - -",
        " ~ x ~ x ~ x",
        "{% if x %}",
        "{% elif x %}",
        "{% endif %}",
        " | tojson(indent=1000)",
        " * 1000000",
        ".replace('', 'aaaa')",
        "['a'][0]",
        "not ",
        "{% set x = [x, x] %}",
        " | indent(1000)",
        ".center(100000)",
        "{#",
        "#}",
        "{% raw %}",
        " or a and b == c + d * e ** f",
        "[",
        "{",
    ];
    let mut variables = Map::new();
    variables.insert(
        "messages".into(),
        json!([{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]),
    );
    variables.insert("x".into(), json!("y"));
    fuzz("template", |_, rng| {
        let mut source = sources.choose(rng).unwrap().clone().into_bytes();
        for _ in 0..rng.random_range(1..4) {
            if rng.random_range(0..3) == 0 {
                source = mutated(&source, rng);
            } else {
                let at = rng.random_range(0..=source.len());
                let part = parts.choose(rng).unwrap().repeat([1, 1, 1, 5, 300][rng.random_range(0..5)]);
                drop(source.splice(at..at, part.into_bytes()));
            }
        }
        if let Ok(template) = Template::parse(&String::from_utf8_lossy(&source)) {
            let _ = template.render(&variables);
        }
    });
}

#[test]
fn files_of_data() {
    let rows = [
        json!({"text": "one two three"}),
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 1}]}),
        json!({"prompt": "p", "completion": "c"}),
        json!({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}),
    ];
    fuzz("json lines", |dir, rng| {
        let mut lines = Vec::new();
        for _ in 0..rng.random_range(1..6) {
            let row = rows.choose(rng).unwrap();
            lines.extend(if rng.random_range(0..2) == 0 {
                mutated_text(row, rng)
            } else {
                row.to_string().into_bytes()
            });
            lines.push(b'\n');
        }
        let path = dir.join("a.jsonl");
        fs::write(&path, lines).unwrap();
        let _ = data::read(&path);
    });
    let table = b"id,text,messages\n1,\"one, \"\"two\"\"\nthree\",\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"q\"\"}]\"\n2,x,\n".repeat(3);
    fuzz("csv, gzip, zstd", |dir, rng| {
        let plain = if rng.random_range(0..2) == 0 { mutated(&table, rng) } else { table.clone() };
        let (name, bytes) = match rng.random_range(0..4) {
            0 => ("a.csv.zst", zstd::encode_all(&plain[..], 1).unwrap()),
            1 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut encoder, &plain).unwrap();
                ("a.csv.gz", encoder.finish().unwrap())
            }
            2 => ("a.tsv", plain),
            _ => ("a.csv", plain),
        };
        let path = dir.join(name);
        fs::write(&path, if name.len() > 5 { mutated(&bytes, rng) } else { bytes }).unwrap();
        let _ = data::read(&path);
    });
}

/// A parquet file with a column of text and one of lists.
fn parquet(
    compression: parquet::basic::Compression,
    version: parquet::file::properties::WriterVersion,
) -> Vec<u8> {
    use parquet::data_type::ByteArrayType;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    let schema = "message m { OPTIONAL BINARY text (UTF8); OPTIONAL GROUP messages (LIST) { REPEATED GROUP list { \
                  OPTIONAL GROUP element { OPTIONAL BINARY role (UTF8); OPTIONAL BINARY content (UTF8); } } } }";
    let schema = parse_message_type(schema).unwrap();
    let properties =
        WriterProperties::builder().set_compression(compression).set_writer_version(version).build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema.into(), properties.into()).unwrap();
    for group in 0..2 {
        let mut out = file.next_row_group().unwrap();
        let texts: Vec<_> = (0..20).map(|i| format!("row {group} {}", i % 5).as_str().into()).collect();
        let mut column = out.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1; 20]), None).unwrap();
        column.close().unwrap();
        for _ in 0..2 {
            let mut column = out.next_column().unwrap().unwrap();
            let values: Vec<_> = (0..40).map(|i| format!("turn {i}").as_str().into()).collect();
            let levels: Vec<i16> = (0..40).map(|i| i % 2).collect();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&[4; 40]), Some(&levels)).unwrap();
            column.close().unwrap();
        }
        out.close().unwrap();
    }
    file.close().unwrap();
    bytes
}

#[test]
fn parquet_files() {
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterVersion;
    let mut files = Vec::new();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            files.push(parquet(compression, version));
        }
    }
    fuzz("parquet", |dir, rng| {
        let path = dir.join("a.parquet");
        let bytes = files.choose(rng).unwrap();
        // What stands behind the pages describes them.
        let length = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
        let footer = bytes.len() - 8 - length;
        let changed = match rng.random_range(0..3) {
            0 => mutated(bytes, rng),
            1 => {
                let changed = mutated(&bytes[footer..bytes.len() - 8], rng);
                [&bytes[..footer], &changed, &(changed.len() as u32).to_le_bytes(), b"PAR1"].concat()
            }
            _ => {
                let mut changed = bytes.clone();
                for _ in 0..rng.random_range(1..5) {
                    let at = rng.random_range(4..bytes.len() - 8);
                    changed[at] = rng.random();
                }
                changed
            }
        };
        fs::write(&path, changed).unwrap();
        let _ = data::read(&path);
    });
}

#[test]
fn recipes() {
    let text = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")).unwrap().flatten();
    let texts: Vec<String> = text.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    let tables: Vec<Value> = texts
        .iter()
        .filter_map(|text| serde_json::to_value(text.parse::<toml::Table>().ok()?).ok())
        .collect();
    assert!(!tables.is_empty());
    fuzz("recipe", |dir, rng| {
        let path = dir.join("recipe.toml");
        let text = match rng.random_range(0..3) {
            0 => mutated(texts.choose(rng).unwrap().as_bytes(), rng),
            _ => {
                let changed = mutated_json(tables.choose(rng).unwrap(), rng);
                match toml::Table::try_from(changed) {
                    Ok(table) => table.to_string().into_bytes(),
                    Err(_) => return, // TOML has no null
                }
            }
        };
        fs::write(&path, text).unwrap();
        let _ = Recipe::read(&path, &[]);
        let _ = Recipe::stored(&path);
    });
}

#[test]
fn run_folders() {
    let lab = tempfile::tempdir().unwrap();
    let run = lab.path().join("run");
    make_run(lab.path(), &run);
    let files = ["manifest.json", "recipe.toml", "metrics.jsonl", "diff/readability.json"];
    fuzz("run folder", |dir, rng| {
        let dir = dir.join("run");
        fs::create_dir_all(dir.join("diff")).unwrap();
        copy(&run, &dir, &files[..3]);
        copy(&run.join("diff"), &dir.join("diff"), &["readability.json", "steering.jsonl"]);
        let name = files[rng.random_range(0..files.len())];
        let bytes = fs::read(run.join(name)).unwrap();
        let changed = match name.ends_with(".json") {
            true => mutated_text(&serde_json::from_slice(&bytes).unwrap(), rng),
            false if name.ends_with("jsonl") => {
                let lines = String::from_utf8(bytes).unwrap();
                let mut lines: Vec<Vec<u8>> = lines.lines().map(|line| line.as_bytes().to_vec()).collect();
                let at = rng.random_range(0..lines.len());
                let line: Value = serde_json::from_slice(&lines[at]).unwrap();
                lines[at] = mutated_text(&line, rng);
                lines.join(&b'\n')
            }
            false => mutated(&bytes, rng),
        };
        fs::write(dir.join(name), changed).unwrap();
        if let Ok(cells) = claims::read_all(&[dir]) {
            let _ = report::must_fit(&cells);
        }
    });
}

/// A run with an analysis, made by the program.
fn make_run(lab: &Path, run: &Path) {
    let texts: String = (0..40)
        .map(|i| format!("{{\"text\": \"the cat {i} sat on the mat and the dog ran to the river\"}}\n"))
        .collect();
    fs::write(lab.join("t.jsonl"), texts).unwrap();
    let recipe = format!(
        "name = \"x\"\ndescription = \"cats\"\n[model]\nbase = {:?}\n[data]\nnarrow = \"t.jsonl\"\npretraining = \"t.jsonl\"\nmix = 0.5\n\
         max_seq_len = 32\n[train]\nsteps = 2\nbatch_size = 2\n[diff]\ntext = [\"t.jsonl\"]\nsamples = 8\nnull_directions = 4\n\
         bootstrap = 8\n[diff.steering]\nenabled = false\n",
        fixture("llama")
    );
    fs::write(lab.join("r.toml"), recipe).unwrap();
    for args in [vec!["fit", "r.toml", "--out", "run"], vec!["diff", "run"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trainer"));
        let output = command.args(&args).current_dir(lab).env("HF_HUB_OFFLINE", "1").output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(run.join("diff/readability.json").is_file());
}
