//! Files that would take memory, time or the process with them, each made here: refused or coped with, in little of both.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::lab::{Lab, Ran};
use crate::common::tiny::{copy_folder, tiny};
use crate::common::values::{assert_says, read_json};

/// Runs the binary with 6 GB of addresses; it must end with 0 or 2 in 20 s, without a panic.
fn ends_well(lab: &Lab, args: &[&str]) -> Ran {
    let inner = lab.command(args);
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg("ulimit -v 6000000; exec timeout -s KILL 20 \"$@\"")
        .arg("bash")
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(lab.path("."));
    for (key, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    let ran = Ran::of(command.output().unwrap(), args);
    assert!([0, 2].contains(&ran.code), "{args:?}: {}: {}", ran.code, ran.stderr);
    ran
}

fn generate(lab: &Lab, base: &str) -> Ran {
    ends_well(lab, &["generate", "--base", base, "--prompt", "Hello there", "--max-new-tokens", "1"])
}

/// A lab with a copy of a tiny model under `m`, of which one JSON file is changed.
fn with_json(family: &str, file: &str, change: impl FnOnce(&mut Value)) -> Lab {
    let lab = Lab::new();
    copy_folder(&tiny(family), &lab.path("m"));
    let mut document = read_json(&lab.path("m").join(file));
    change(&mut document);
    lab.write(&format!("m/{file}"), document.to_string());
    lab
}

#[test]
fn a_config_that_its_tensors_do_not_fit_is_refused() {
    for family in ["llama", "gemma3"] {
        for (key, bad) in [
            ("head_dim", json!(0)),
            ("head_dim", json!(1)),
            ("head_dim", json!(7)),
            ("head_dim", json!(20_000_000_000u64)),
            ("num_key_value_heads", json!(0)),
            ("num_key_value_heads", json!(3)),
            ("num_key_value_heads", json!(8)),
            ("num_hidden_layers", json!(1_000_000_000_000_000_000u64)),
            ("num_hidden_layers", json!(4000)),
            ("vocab_size", json!(1_000_000_000_000u64)),
            ("vocab_size", json!(16_000_000)),
            ("hidden_size", json!(1_000_000)),
            ("intermediate_size", json!(u64::MAX)),
            ("num_attention_heads", json!(16_384)),
        ] {
            let lab = with_json(family, "config.json", |config| config[key] = bad.clone());
            let ran = generate(&lab, "m");
            assert_eq!(ran.code, 2, "{family} {key} = {bad}");
            let message = ran.stderr.lines().count();
            assert!(message < 1100, "{family} {key} = {bad}: {message} lines");
        }
    }
}

#[test]
fn two_equal_fits_never_differ_in_memory_that_was_not_written() {
    let lab = with_json("llama", "config.json", |config| config["head_dim"] = json!(7));
    let said = lab.refused(&["fit", "recipe.toml", "--set", "model.base=m", "--out", "run"]);
    assert_says(&said, &["head_dim = 7: expected an even number"]);
}

#[test]
fn tensors_that_overlap_are_refused() {
    let lab = Lab::new();
    copy_folder(&tiny("llama"), &lab.path("m"));
    let bytes = fs::read(lab.path("m/model.safetensors")).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut head: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    let embeddings = head["model.embed_tokens.weight"].clone();
    for i in 0..2000 {
        head[format!("model.layers.{i}.mlp.more.weight")] = embeddings.clone();
    }
    let head = head.to_string();
    let whole = [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &bytes[end..]].concat();
    lab.write("m/model.safetensors", whole);
    assert_says(&generate(&lab, "m").stderr, &["model.safetensors", "overlap"]);
    // A header of more than any model has.
    let long = format!("{{\"x\": \"{}\"}}", "a".repeat(20 << 20));
    lab.write("m/model.safetensors", [&(long.len() as u64).to_le_bytes()[..], long.as_bytes()].concat());
    assert_says(&generate(&lab, "m").stderr, &["expected at most"]);
}

#[test]
fn a_tokenizer_over_which_the_library_panics_is_refused() {
    for change in [
        |t: &mut Value| t["model"]["merges"] = json!(["a zzzzz", "zz yy"]),
        |t: &mut Value| {
            t["normalizer"] = json!({"type": "Replace", "pattern": {"String": ""}, "content": "aa"})
        },
        |t: &mut Value| t["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": false}),
        |t: &mut Value| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAA=="})
        },
        |t: &mut Value| t["normalizer"] = json!({"type": "Sequence", "normalizers": vec![json!({"type": "Replace", "pattern": {"String": "l"}, "content": "l".repeat(1000)}); 6]}),
    ] {
        let lab = with_json("llama", "tokenizer.json", change);
        generate(&lab, "m");
        let long = "x".repeat(5000);
        ends_well(&lab, &["generate", "--base", "m", "--prompt", &long, "--max-new-tokens", "1"]);
    }
}

#[test]
fn a_template_that_does_not_end_or_grows_is_stopped() {
    let lab = Lab::new();
    let nested =
        |open: &str, close: &str, n: usize| format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
    for template in [
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".to_string(),
        "{% set ns = namespace(x=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}".into(),
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}".into(),
        "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% for j in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}".into(),
        "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}".into(),
        "{% set x = 'a' * 100000000 %}{% for i in range(99999) %}{{ x.count('b') }}{% endfor %}".into(),
        "{% set x = 'a' * 100000000 %}{{ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x }}".into(),
        "{{ ('a' * 1000000).replace('', 'b' * 100000) }}".into(),
        "{{ ('a\n' * 1000000) | indent(1000) }}".into(),
        "{{ [[[[[[1]]]]]] | tojson(indent='a' * 100000000) }}".into(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".into(),
        format!("{{{{ {} 1 }}}}", "-".repeat(100_000)),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}a".repeat(40_000)),
        nested("(", ")", 50_000),
        nested("[", "]", 50_000),
        format!("{{{{ 1{} }}}}", " + 1".repeat(100_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(100_000)),
        format!("{{{{ x{} }}}}", "|list".repeat(100_000)),
        format!("{}{}", "{% if x %}".repeat(20_000), "{% endif %}".repeat(20_000)),
        "{#".repeat(200_000),
        "{{ strftime_now('%Y' * 10000000) }}".into(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(),
    ] {
        lab.write("t.jinja", &template);
        let base = tiny("llama").to_string_lossy().into_owned();
        let args = ["generate", "--base", &base, "--chat", "--chat-template", "t.jinja", "--prompt", "x", "--max-new-tokens", "1"];
        let ran = ends_well(&lab, &args);
        assert!(ran.code == 2 || template.len() < 100, "{}", &template[..80.min(template.len())]);
    }
}

#[test]
fn patterns_of_an_adapter_are_compiled_once_and_given_up_in_time() {
    let lab = Lab::new();
    copy_folder(&tiny("llama").join("adapter"), &lab.path("a"));
    let config = read_json(&lab.path("a/adapter_config.json"));
    let many: serde_json::Map<String, Value> =
        (0..900).map(|i| (format!("(.*a.*b.*)*x{i}"), json!(8))).collect();
    for (key, value) in [
        ("rank_pattern", json!(many)),
        ("rank_pattern", json!({"(?=(.*))(((.+)+)+)+!": 8})),
        ("exclude_modules", json!("(?!x)((.*)*)*!")),
        ("lora_dropout", json!(2)),
        ("r", json!(u64::MAX)),
    ] {
        let mut theirs = config.clone();
        theirs[key] = value;
        lab.write("a/adapter_config.json", theirs.to_string());
        let base = tiny("llama").to_string_lossy().into_owned();
        ends_well(
            &lab,
            &["generate", "--base", &base, "--adapter", "a", "--prompt", "x", "--max-new-tokens", "1"],
        );
    }
}

fn inspect(lab: &Lab, file: &str) -> Ran {
    ends_well(lab, &["inspect", "recipe.toml", "--set", &format!("data.narrow={file}")])
}

#[test]
fn compressed_data_expand_to_no_more_than_a_document_and_a_file_may_have() {
    let lab = Lab::new();
    let bomb = |path: &Path, head: &str| {
        let mut out = zstd::Encoder::new(fs::File::create(path).unwrap(), 1).unwrap();
        out.write_all(head.as_bytes()).unwrap();
        let block = vec![b'a'; 1 << 20];
        (0..300).for_each(|_| out.write_all(&block).unwrap());
        out.finish().unwrap();
    };
    bomb(&lab.path("a.csv.zst"), "text\n\"");
    assert_says(&inspect(&lab, "a.csv.zst").stderr, &["64 MB"]);
    bomb(&lab.path("a.jsonl.zst"), "{\"text\": \"");
    assert_says(&inspect(&lab, "a.jsonl.zst").stderr, &["64 MB"]);
    // Many documents, each within the bound.
    let mut out = zstd::Encoder::new(fs::File::create(lab.path("b.jsonl.zst")).unwrap(), 1).unwrap();
    let line = format!("{{\"text\": \"{}\"}}\n", "a ".repeat(1 << 22));
    (0..60).for_each(|_| out.write_all(line.as_bytes()).unwrap());
    out.finish().unwrap();
    assert_says(&inspect(&lab, "b.jsonl.zst").stderr, &["too much for a file of"]);
    // Many small values.
    lab.write("c.jsonl", format!("{{\"text\": \"x\", \"more\": [{}0]}}\n", "0,".repeat(3 << 20)));
    assert_says(&inspect(&lab, "c.jsonl").stderr, &["values in a document"]);
}

#[test]
#[cfg(unix)]
fn pipes_and_devices_are_not_read() {
    let lab = Lab::new();
    assert!(Command::new("mkfifo").arg(lab.path("p.jsonl")).status().unwrap().success());
    assert_says(&inspect(&lab, "p.jsonl").stderr, &["not a regular file"]);
    std::os::unix::fs::symlink("/dev/zero", lab.path("z.jsonl")).unwrap();
    assert_says(&inspect(&lab, "z.jsonl").stderr, &["not a regular file"]);
    std::os::unix::fs::symlink("circle.jsonl", lab.path("circle.jsonl")).unwrap();
    inspect(&lab, "circle.jsonl");
    for name in
        ["recipe.toml", "m/config.json", "m/tokenizer.json", "m/model.safetensors", "m/chat_template.jinja"]
    {
        let lab = Lab::new();
        copy_folder(&tiny("llama"), &lab.path("m"));
        fs::remove_file(lab.path(name)).ok();
        assert!(Command::new("mkfifo").arg(lab.path(name)).status().unwrap().success());
        ends_well(&lab, &["inspect", "recipe.toml", "--set", "model.base=m"]);
    }
}

#[test]
fn a_grid_is_counted_before_it_is_expanded() {
    let lab = Lab::new();
    let values = (1..=100).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    let grids: Vec<String> =
        ["train.steps", "train.batch_size", "train.lora.r", "data.max_seq_len", "diff.samples"]
            .iter()
            .map(|key| format!("{key}={values}"))
            .collect();
    let mut args = vec!["sweep", "recipe.toml", "--out", "s"];
    grids.iter().for_each(|grid| args.extend(["--grid", grid]));
    let ran = ends_well(&lab, &args);
    assert_says(&ran.stderr, &["10000000000 cells; expected at most 100000"]);
}
