//! The binary: exit codes, what it says about wrong input, what it prints.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::lab::{FIT, Lab, Ran, fit_with, with_sets};
use crate::common::outcome::{assert_same, files, outcome};
use crate::common::tiny::tiny;
use crate::common::values::{assert_says, read_json};

// ---- wrong input -------------------------------------------------------------------------------

#[test]
fn every_fault_of_a_recipe_is_told_at_once_and_nothing_is_written() {
    let lab = Lab::new();
    let recipe = fs::read_to_string(lab.path("recipe.toml")).unwrap();
    let recipe = recipe
        .replace("batch_size = 4", "batch_sizes = 4")
        .replace("lr = 3e-3", "lr = nan")
        .replace("alpha = 6", "alpha = \"six\"")
        .replace("samples = 12", "samples = 1")
        .replace("[\"pretraining.jsonl\"]", "[\"nowhere.jsonl\"]");
    lab.write("recipe.toml", recipe);
    let e = lab.refused(&fit_with(&["data.mix=-1", "diff.positions=[1, 99]", "train.lora.r=-3"]));
    assert_says(
        &e,
        &[
            "train.batch_sizes: unknown key; did you mean batch_size?",
            "train.lr = NaN",
            "train.lora.alpha = \"six\": invalid type: string \"six\", expected a number",
            "train.lora.r = -3: invalid value: integer `-3`, expected a whole number from 0",
            "diff.samples = 1: expected 2 to",
            "data.mix = -1: expected 0 to",
            "diff.positions has 99, but diff.tokens = 16",
            "nowhere.jsonl: no such file or folder",
        ],
    );
    assert!(e.lines().all(|line| line.contains("recipe.toml: ")), "each fault names the file:\n{e}");
}

#[test]
fn numbers_that_no_run_can_have_are_refused() {
    let lab = Lab::new();
    for set in [
        "train.lr=0",
        "train.lr=inf",
        "train.lr=-1e-3",
        "train.epochs=1", // beside steps
        "train.epochs=-1",
        "train.epochs=nan",
        "train.steps=0",
        "train.steps=9223372036854775807",
        "train.batch_size=0",
        "train.batch_size=4611686018427387904",
        "train.beta1=1",
        "train.eps=0",
        "train.eps=inf",
        "train.weight_decay=nan",
        "train.clip=-1",
        "train.lora.r=0",
        "train.lora.r=1000000000",
        "train.lora.alpha=inf",
        "train.lora.dropout=1",
        "train.lora.target_modules=[]",
        "train.lora.target_modules=['q']",
        "data.mix=nan",
        "data.mix=1e300",
        "data.max_seq_len=1",
        "data.held_out_every=1",
        "data.narrow=[]",
        "data.narrow=''",
        "data.narrow=self",
        "data.narrow=['narrow.jsonl', 'narrow.jsonl']",
        "data.narrow=[{path='narrow.jsonl', weight=0}]",
        "data.narrow=[{path='narrow.jsonl', weight=1e300}]",
        "data.narrow=[{path='narrow.jsonl', weight=1}, 'measure.jsonl']",
        "seed=-1",
        "seed=1.5",
        "model.base=",
        "diff.layer=1.5",
        "diff.layer=nan",
        "diff.positions=[]",
        "diff.positions=[1, 1, 3]",
        "diff.top_k=0",
        "diff.null_directions=0",
        "diff.bootstrap=9223372036854775807",
        "diff.patchscope.scales=[]",
        "diff.patchscope.scales=[inf]",
        "diff.steering.samples=0",
        "diff.steering.max_new_tokens=0",
        "diff.steering.strength=nan",
        "diff.steering.differences=inf",
        "diff.steering.temperature=1e-300",
        "diff.steering.prompts=21",
        "diff.steering.positions=[7]",
    ] {
        let e = lab.refused(&fit_with(&[set]));
        let key = set.split('=').next().unwrap().trim_end_matches(".target_modules");
        let last = key.rsplit('.').next().unwrap();
        assert!(e.contains(last) || e.contains("target module"), "{set}: does not name the key: {e}");
    }
    // Two that are possible alone, but not together.
    let e = lab.refused(&fit_with(&["train.steps=100000000", "train.batch_size=1000000"]));
    assert_says(&e, &["the run has 150000000000000 examples"]);
}

#[test]
fn a_model_that_is_not_there_is_told_with_what_to_do() {
    let lab = Lab::new();
    fs::create_dir(lab.path("empty")).unwrap();
    for (base, part) in [
        ("gema-3-270m", "did you mean gemma-3-270m?"),
        ("no-such-model-at-all", "aliases: smollm2-135m-instruct"),
        ("gemma-3-270m", "HF_HUB_OFFLINE is set; run: trainer models fetch gemma-3-270m"),
        ("hf:org/name@v1", "run: trainer models fetch hf:org/name@v1"),
        ("hf:", "expected hf:org/name"),
        ("all-minilm-l6-v2", "is a sentence embedder, not a language model"),
        ("./empty", "neither config.json nor a .gguf file"),
        ("./narrow.jsonl", "expected a folder or a .gguf file"),
    ] {
        let e = lab.refused(&fit_with(&[&format!("model.base={base}")]));
        assert_says(&e, &[part]);
        let e = lab.refused(&["generate", "--base", base.trim_start_matches("./"), "--prompt", "x"]);
        assert_says(&e, &[part]);
    }
}

#[test]
fn malformed_documents_are_told_by_file_and_line() {
    let lab = Lab::new();
    fs::create_dir(lab.path("folder.jsonl")).unwrap();
    for (content, parts) in [
        (&b"{\"text\": \"fine\"}\n{broken\n\n{\"txt\": 1}\n"[..], &["x.jsonl:2: not a line of JSON", "x.jsonl:4: found keys [\"txt\"]"][..]),
        (b"{\"text\": \"\xff\"}\n", &["x.jsonl:1: byte 10 of the file is not UTF-8"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", &["x.jsonl: a Git LFS pointer"]),
        (b"{\"text\": \" \\n\"}\n", &["x.jsonl:1: text is empty"]),
        (
            b"{\"text\": 3}\n{\"text\": null}\n{\"prompt\": [], \"completion\": true}\n",
            &["x.jsonl:1: text is a number; expected a string", "x.jsonl:2: found keys", "x.jsonl:3: completion is true or false"],
        ),
        (b"", &["x.jsonl: holds no documents"]),
        (b"\n \n", &["x.jsonl: holds no documents"]),
        (b"[]\n\"text\"\nnull\n", &["x.jsonl:1:", "x.jsonl:2:", "x.jsonl:3:"]),
        (b"{\"prompt\": \"p\", \"completion\": \"\"}\n", &["x.jsonl:1: completion is empty"]),
        (
            b"{\"messages\": []}\n{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}\n{\"messages\": 3}\n",
            &["x.jsonl:1: messages: no assistant turn", "x.jsonl:2: messages: no assistant turn", "x.jsonl:3: messages:"],
        ),
        (b"{\"text\": \"a\"}\n", &["x.jsonl: no piece of at most 32 tokens has a token that counts"]),
    ] {
        lab.write("x.jsonl", content);
        assert_says(&lab.refused(&fit_with(&["data.narrow=x.jsonl"])), parts);
    }
    for (path, part) in [
        ("nowhere.jsonl", "nowhere.jsonl: no such file"),
        ("folder.jsonl", "folder.jsonl: a folder without .txt or .md files"),
        ("recipe.toml", "recipe.toml: unknown kind of data"),
        ("hf:org/set", "hf:org/set: these documents are not in the cache and HF_HUB_OFFLINE is set"),
    ] {
        assert_says(&lab.refused(&fit_with(&[&format!("data.narrow={path}")])), &[part]);
    }
    // The faults of several sources at once.
    lab.write("x.jsonl", "{\n");
    lab.write("y.jsonl", "");
    assert_says(
        &lab.refused(&fit_with(&["data.narrow=['x.jsonl', 'y.jsonl']"])),
        &["x.jsonl:1", "y.jsonl: holds"],
    );
}

#[test]
fn a_mix_larger_than_its_source_is_refused_unless_it_may_repeat() {
    let lab = Lab::new();
    lab.write_texts("pretraining.jsonl", &lab.texts("pretraining.jsonl")[..3]);
    let e = lab.refused(&fit_with(&["data.mix=2"]));
    assert_says(&e, &["pretraining.jsonl: mix = 2 needs 32 examples", "data.repeat = true"]);
    lab.succeed(&fit_with(&["data.mix=2", "data.repeat=true"]));
    let manifest = read_json(&lab.path("out/manifest.json"));
    let source = &manifest["data"][1];
    assert!(source["examples"] == 32 && source["repeats"].as_u64().unwrap() > 0, "{source}");
    assert_eq!(manifest["mix"]["realised_examples"], 2.0);
}

#[test]
fn weights_stay_as_the_file_has_them_only_where_they_are_frozen_and_in_a_gguf_file() {
    let lab = Lab::new();
    let native = "model.dtype=native";
    assert_says(&lab.refused(&fit_with(&[native])), &["model.dtype = \"native\"", "is not a GGUF file"]);
    assert_says(
        &lab.refused(&fit_with(&[native, "train.method=full"])),
        &["model.dtype = \"native\"", "expected train.method = \"lora\""],
    );
    assert_says(
        &lab.refused(&fit_with(&["model.dtype=bf16", "train.method=full"])),
        &["model.dtype = \"bf16\"", "expected train.method = \"lora\""],
    );
    let base = tiny("llama");
    let generate =
        ["generate", "--base", &base.to_string_lossy(), "--prompt", "the cat", "--dtype", "native"];
    assert_says(&lab.refused(&generate), &["dtype = \"native\"", "is not a GGUF file"]);
}

#[test]
fn an_adapter_that_does_not_match_the_base_is_refused_matrix_by_matrix() {
    let lab = Lab::new();
    let (base, adapter) = (tiny("llama"), tiny("qwen2").join("adapter"));
    let (base, adapter) = (base.to_str().unwrap(), adapter.to_str().unwrap());
    let mismatch = ["mlp.gate_proj.lora_B.weight: shape [56, 4], expected [72, 4]"];
    assert_says(
        &lab.refused(&["generate", "--base", base, "--adapter", adapter, "--prompt", "x"]),
        &mismatch,
    );
    let diff = ["diff", "--base", base, "--recipe", "recipe.toml", "--out", "d", "--tuned"];
    assert_says(&lab.refused(&[&diff[..], &[adapter]].concat()), &mismatch);
    let other = tiny("qwen2");
    let e = lab.refused(&[&diff[..], &[other.to_str().unwrap()]].concat());
    assert_says(&e, &["they cannot be compared"]);
}

#[test]
fn what_exists_is_never_written_over() {
    let lab = Lab::new();
    lab.fit("out", &[]);
    assert_says(&lab.refused(&FIT), &["out: exists already", "--resume"]);
    lab.succeed(&[&FIT[..], &["--resume"]].concat()); // complete: nothing to do
    lab.succeed(&["diff", "out"]);
    assert_says(&lab.refused(&["diff", "out"]), &["exists already"]);
    let e = lab.refused(&["merge", "out", "--out", "out"]);
    assert!(e.contains("exists already") && !e.contains("--resume"), "merge cannot resume: {e}");
    fs::create_dir(lab.path("other")).unwrap();
    lab.write("other/notes.txt", "mine");
    assert_says(&lab.refused(&["fit", "recipe.toml", "--out", "other"]), &["other: exists already"]);
    assert_says(
        &lab.refused(&["fit", "recipe.toml", "--out", "recipe.toml"]),
        &["recipe.toml: exists already"],
    );
    for args in [&["--out", "other", "--resume"][..], &["--out", "nowhere", "--resume"]] {
        assert_says(&lab.refused(&[&["fit", "recipe.toml"], args].concat()), &["nothing to resume"]);
    }
}

#[test]
fn a_recipe_that_cannot_be_read_is_named() {
    let lab = Lab::new();
    fs::create_dir(lab.path("folder")).unwrap();
    lab.write("twice.toml", "seed = 1\nseed = 2\n");
    lab.write("bytes.toml", b"name = \"\xff\"\n");
    for (path, part) in [
        ("nowhere.toml", "nowhere.toml: No such file"),
        ("folder", "folder: Is a directory"),
        ("twice.toml", "duplicate key"),
        ("bytes.toml", "UTF-8"),
        ("narrow.jsonl", "narrow.jsonl: TOML parse error at line 1"),
    ] {
        assert_says(&lab.refused(&["fit", path, "--out", "out"]), &[path, part]);
    }
    lab.write("empty.toml", "");
    let e = lab.refused(&["fit", "empty.toml", "--out", "out"]);
    assert_says(&e, &["model.base: missing", "data.narrow: missing", "train.steps"]);
}

#[test]
fn arguments_that_make_no_sense_exit_2() {
    let lab = Lab::new();
    lab.write("prompts.jsonl", "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n");
    let base = tiny("llama");
    let base = base.to_str().unwrap();
    for (args, part) in [
        (&["no-such-command"][..], "unrecognized subcommand"),
        (&[], "Usage: trainer"),
        (&["fit"], "<RECIPE>"),
        (&["diff"], "<RUN_DIR>"),
        (&["diff", "nowhere"], "not a run folder"),
        (&["merge", "nowhere", "--out", "m"], "nowhere: not a run folder"),
        (&["report", "nowhere"], "no such folder"),
        (&["generate", "--base", base], "--prompt"),
        (&["generate", "--base", base, "--prompt", ""], "prompt 1: has no tokens"),
        (&["generate", "--base", base, "--prompts", "nowhere"], "nowhere: No such file"),
        (
            &["generate", "--base", base, "--prompts", "prompts.jsonl"],
            "prompts.jsonl:2: expected {\"prompt\": text}",
        ),
        (&["generate", "--base", base, "--prompt", "x", "--temperature", "nan"], "--temperature NaN"),
        (&["generate", "--base", base, "--prompt", "x", "--temperature=-1"], "--temperature -1"),
        (&["generate", "--base", base, "--prompt", "x", "--temperature", "1e-300"], "expected 0 (greedy)"),
        (
            &["generate", "--base", base, "--prompt", "x", "--adapter", "nowhere"],
            "expected a PEFT adapter folder",
        ),
        (&["models", "fetch", "nothing"], "no such alias"),
        (&["models", "fetch", "gemma-3-270m"], "HF_HUB_OFFLINE"),
        (&["completions", "dos"], "invalid value 'dos'"),
        (
            &["fit", "recipe.toml", "--out", "o", "--set", "train.lr"],
            "--set train.lr: expected key.path=value",
        ),
        (
            &["fit", "recipe.toml", "--out", "o", "--set", "train..lr=1"],
            "--set train..lr=1: expected key.path=value",
        ),
        (&["fit", "recipe.toml", "--out", "o", "--set", "=1"], "expected key.path=value"),
        (&["fit", "recipe.toml", "--out", "o", "--set", "train.lr.x=1"], "lr is a value, not a table"),
        (&["fit", "recipe.toml", "--out", "o", "--set", "train=1"], "train = 1"),
        (&["fit", "recipe.toml", "--out", "o", "--set", "trian.lr=1"], "did you mean train?"),
        (&["sweep", "recipe.toml", "--mix", "0,nan", "--out", "s"], "data.mix = NaN"),
        (&["sweep", "recipe.toml", "--mix", "0,99", "--out", "s"], "mix = 99 needs"),
        (&["sweep", "recipe.toml", "--mix", "0", "--seeds", "18446744073709551615", "--out", "s"], "seed"),
    ] {
        assert_says(&lab.refused(args), &[part]);
    }
    let gemma = tiny("gemma3");
    let e = lab.refused(&["generate", "--base", gemma.to_str().unwrap(), "--prompt", "x", "--chat"]);
    assert_says(&e, &["has no chat template", "--chat-template"]);
}

#[test]
fn a_base_model_answers_in_the_template_that_is_named() {
    let lab = Lab::new();
    let gemma = tiny("gemma3");
    let base = ["generate", "--base", gemma.to_str().unwrap(), "--max-new-tokens", "6", "--json"];
    let said = |args: &[&str]| -> Vec<Value> {
        let ran = lab.succeed(&[&base, args].concat());
        let generations = serde_json::from_str::<Value>(&ran.stdout).unwrap();
        generations["generations"][0]["token_ids"].as_array().unwrap().clone()
    };
    lab.write(
        "turns.jinja",
        "{{ bos_token }}{% for m in messages %}{{ m['role'] + ':' + m['content'] + '<pad>' }}{% endfor %}\
         {% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
    );
    let in_turns = said(&["--prompt", "hi", "--chat", "--chat-template", "turns.jinja"]);
    // As after the same text, up to the token that closes a turn in that template.
    let written_out = said(&["--prompt", "user:hi<pad>assistant:"]);
    let end = written_out.iter().position(|id| *id == 0).map_or(written_out.len(), |at| at + 1);
    assert_eq!(in_turns, written_out[..end]);
    assert_ne!(in_turns, said(&["--prompt", "hi"]));
    let without_chat = [&base[..], &["--prompt", "x", "--chat-template", "turns.jinja"]].concat();
    assert_says(&lab.refused(&without_chat), &["--chat"]);
}

#[test]
fn what_a_sweep_varies_is_no_key_to_set_and_its_faults_come_with_all_others() {
    let lab = Lab::new();
    let sets = ["sweep.mix=[0, 1]", "sweep.grid={}", "train.lr=-1"];
    let e = lab.refused(&fit_with(&sets));
    assert_says(
        &e,
        &["--set sweep.mix=[0, 1]: the axes of a sweep have their own flags", "--mix R,R", "train.lr = -1"],
    );
    assert_says(&e, &["--set sweep.grid={}: "]);
    let recipe = fs::read_to_string(lab.path("recipe.toml")).unwrap();
    lab.write(
        "recipe.toml",
        recipe.replace("lr = 3e-3", "lr = nan")
            + "[sweep]\nmx = [0, 1]\nseeds = \"one\"\ngrid = { seed = [] }\n",
    );
    let parts =
        ["sweep.mx: unknown key; did you mean mix?", "sweep.seeds = \"one\"", "sweep.grid.seed", "lr = NaN"];
    for args in [
        &["sweep", "recipe.toml", "--out", "s"][..],
        &["sweep", "recipe.toml", "--out", "s", "--grid", "train.lr"],
        &FIT,
    ] {
        let e = lab.refused(args);
        assert_says(&e, &parts);
        assert_eq!(e.matches("sweep.mx").count(), 1, "told twice:\n{e}");
        assert_eq!(e.contains("--grid train.lr: expected KEY.PATH=VALUE"), args.len() > 4, "{e}");
    }
}

#[test]
fn a_run_that_is_read_cannot_be_told_how_to_train_and_changed_data_are_warned_of() {
    let lab = Lab::new();
    let items = r#"{"prompt": "a", "false": "b", "true": "c"}"#;
    lab.write("facts.jsonl", items);
    lab.fit("run", &["behaviour.facts.items=facts.jsonl"]);
    for (command, table) in [("diff", "[diff]"), ("behave", "[behaviour]")] {
        let sets = ["train.lr=1", "data.mix=0", "name=other", "data.limit=3"];
        let e = lab.refused(&with_sets(&[command, "run"], &sets));
        for set in sets {
            assert_says(
                &e,
                &[
                    &format!(
                        "--set {set}: the run is trained, and trainer {command} cannot change its training"
                    ),
                    table,
                ],
            );
        }
        let e = lab.refused(&with_sets(&[command, "run"], &["data.narrow=measure.jsonl"]));
        assert_says(
            &e,
            &["--set data.narrow: ", "measure.jsonl is not the file that the run was trained on"],
        );
        let e =
            lab.refused(&with_sets(&[command, "run"], &["data.narrow=['narrow.jsonl', 'measure.jsonl']"]));
        assert_says(&e, &["--set data.narrow: 2 files, but the run was trained on 1"]);
        let table = if command == "diff" { "behaviour.bootstrap=9" } else { "diff.samples=3" };
        assert_says(&lab.refused(&with_sets(&[command, "run"], &[table])), &[table, "the run is trained"]);
    }
    let quick = ["diff.steering.enabled=false", "diff.patchscope.enabled=false", "seed=1"];
    let read = |out: &str, set: &[&str]| {
        lab.succeed(&with_sets(&["diff", "run", "--out", out], &[&quick[..], set].concat())).stderr
    };
    // The same file in another place is no other training.
    fs::copy(lab.path("narrow.jsonl"), lab.path("moved.jsonl")).unwrap();
    let said = read("moved", &["data.narrow=moved.jsonl"]);
    assert!(!said.contains("warning"), "{said}");

    lab.write_texts("narrow.jsonl", &lab.texts("narrow.jsonl")[1..]);
    let said = read("changed", &[]);
    assert_says(
        &said,
        &["warning: data.narrow: ", "narrow.jsonl has changed since the run was trained on it"],
    );
    assert!(!said.contains("pretraining.jsonl"), "{said}");
    let said = read("again", &["data.narrow=moved.jsonl"]);
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn a_wrong_number_is_told_with_what_would_be_right() {
    let lab = Lab::new();
    for (set, part) in [
        ("train.lr=inf", "train.lr = inf: expected a number above 0, at most 1000000000"),
        ("train.lr=nan", "train.lr = NaN: expected a number above 0, at most 1000000000"),
        ("train.epochs=inf", "train.epochs = inf: expected 0 to 1000000"),
        ("train.clip=inf", "train.clip = inf: expected 0 to 1000000000"),
        ("train.steps=1e3", "a whole number, written without point and exponent: 1000\n"),
        ("train.steps=1.5", "expected a whole number from 0"),
    ] {
        assert_says(&lab.refused(&fit_with(&[set])), &[part]);
    }
    // Of a key that cannot be read nothing else is said.
    let e = lab.refused(&fit_with(&["train.steps=1e3"]));
    assert!(!e.contains("exactly one"), "{e}");
    let base = tiny("llama");
    let base = base.to_str().unwrap();
    for (args, part) in [
        (&["sweep", "recipe.toml", "--mix", "-1", "--out", "s"][..], "data.mix = -1: expected 0 to 1000000"),
        (&["sweep", "recipe.toml", "--seeds", "-1", "--out", "s"], "invalid value '-1' for '--seeds"),
        (
            &["generate", "--base", base, "--prompt", "x", "--temperature", "-1"],
            "--temperature -1: expected 0",
        ),
    ] {
        assert_says(&lab.refused(args), &[part]);
    }
}

#[test]
fn an_adapter_that_lacks_something_is_told_by_what_it_lacks() {
    let lab = Lab::new();
    let base = tiny("llama");
    let (base, from) = (base.to_str().unwrap(), tiny("llama").join("adapter"));
    fs::create_dir(lab.path("adapter")).unwrap();
    let weights = fs::read(from.join("adapter_model.safetensors")).unwrap();
    lab.write("adapter/adapter_model.safetensors", &weights);
    let diff = ["diff", "--base", base, "--recipe", "recipe.toml", "--out", "d", "--tuned", "adapter"];
    assert_says(&lab.refused(&diff), &["adapter: expected a PEFT adapter (adapter_config.json is missing)"]);
    fs::copy(from.join("adapter_config.json"), lab.path("adapter/adapter_config.json")).unwrap();
    for length in [0, 4, 400, weights.len() - 1] {
        lab.write("adapter/adapter_model.safetensors", &weights[..length]);
        let e = lab.refused(&diff);
        assert_says(&e, &["adapter/adapter_model.safetensors: cut short, or no safetensors file"]);
    }
    fs::remove_file(lab.path("adapter/adapter_model.safetensors")).unwrap();
    assert_says(&lab.refused(&diff), &["adapter/adapter_model.safetensors: No such file"]);
}

#[test]
fn what_cannot_be_merged_is_told_why() {
    let lab = Lab::new();
    lab.fit("full", &["train.method=full"]);
    let (base, adapter) = (tiny("llama"), tiny("llama").join("adapter"));
    for (from, part) in [
        (base.to_str().unwrap(), "a model without an adapter"),
        ("gemma-3-270m", "a model without an adapter"),
        ("hf:org/name", "a model without an adapter"),
        (adapter.to_str().unwrap(), "an adapter without its run"),
        ("full", "not a LoRA run"),
    ] {
        assert_says(&lab.refused(&["merge", from, "--out", "m"]), &[part]);
    }
}

#[test]
fn a_byte_order_mark_is_read_over_in_every_file() {
    let lab = Lab::new();
    let mark = "\u{feff}";
    let text = |name: &str| mark.to_string() + &fs::read_to_string(lab.path(name)).unwrap();
    for name in ["narrow.jsonl", "recipe.toml"] {
        lab.write(name, text(name));
    }
    lab.write("facts.jsonl", format!("{mark}{}\n", r#"{"prompt": "a", "false": "b", "true": "c"}"#));
    lab.write("prompts.jsonl", format!("{mark}{}\n", r#"{"prompt": "a"}"#));
    lab.write("plain.txt", format!("{mark}plain text of some words"));
    lab.fit(
        "run",
        &["behaviour.facts.items=facts.jsonl", "data.pretraining=['pretraining.jsonl', 'plain.txt']"],
    );
    lab.succeed(&["behave", "run"]);
    let base = tiny("llama");
    lab.succeed(&["generate", "--base", base.to_str().unwrap(), "--prompts", "prompts.jsonl"]);
    lab.write("empty.txt", mark);
    assert_says(&lab.refused(&fit_with(&["data.narrow=empty.txt", "data.mix=0"])), &["empty.txt: is empty"]);
}

// ---- failures while working --------------------------------------------------------------------

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_exits_1_says_so_and_leaves_nothing() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    let before = lab.files();
    // Nobody can make a folder there.
    for args in [
        &["fit", "recipe.toml", "--out", "/proc/nothing/out"][..],
        &["diff", "run", "--out", "/proc/nothing/out"],
        &["merge", "run", "--out", "/proc/nothing/out"],
    ] {
        let ran = lab.run(args);
        assert_eq!(ran.code, 1, "{args:?}: {}", ran.stderr);
        assert_says(&ran.stderr, &["writing /proc/nothing/out"]);
        assert_eq!(before, lab.files(), "{args:?} left something");
    }
}

#[cfg(unix)]
#[test]
fn a_place_below_a_file_or_behind_a_link_to_nowhere_is_wrong_input() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    std::os::unix::fs::symlink("nowhere", lab.path("link")).unwrap();
    for (out, parts) in [
        ("narrow.jsonl/out", ["narrow.jsonl is a file", "expected a folder"]),
        ("link", ["link is a symbolic link to nowhere", "expected a path"]),
        ("link/out", ["link is a symbolic link to nowhere", "expected a path"]),
    ] {
        for args in [
            &["fit", "recipe.toml", "--out", out][..],
            &["diff", "run", "--out", out],
            &["merge", "run", "--out", out],
            &["sweep", "recipe.toml", "--mix", "0", "--out", out],
        ] {
            let before = fs::read_dir(lab.path(".")).unwrap().count();
            let ran = lab.run(args);
            assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
            assert_says(&ran.stderr, &parts);
            assert_eq!(before, fs::read_dir(lab.path(".")).unwrap().count(), "{args:?} left something");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_is_a_failure_but_a_closed_one_is_not() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    lab.succeed(&["diff", "run"]);
    assert_says(
        &lab.refused(&fit_with(&["model.dtype=bf16", "train.method=full"])),
        &["model.dtype = \"bf16\"", "expected train.method = \"lora\""],
    );
    let base = tiny("llama");
    let generate = ["generate", "--base", base.to_str().unwrap(), "--prompt", "x", "--max-new-tokens", "2"];
    let recipe = ["sweep", "recipe.toml", "--mix", "0", "--out", "sweep", "--json"];
    let sweep = with_sets(&recipe, &["diff.steering.enabled=false", "diff.patchscope.enabled=false"]);
    for args in [
        &["models"][..],
        &["models", "--json"],
        &["completions", "bash"],
        &generate,
        &["report", "run"],
        &["inspect", "recipe.toml"],
        &["diff", "run", "--out", "again", "--json"],
        &sweep,
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = lab.command(args).stdout(full).output().unwrap();
        let ran = Ran::of(output, args);
        assert_eq!(ran.code, 1, "{args:?}: {}", ran.stderr);
        assert_says(&ran.stderr, &["No space left on device"]);

        // As `trainer … | head` does.
        fs::remove_dir_all(lab.path("again")).ok();
        let mut child = lab.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::of(child.wait_with_output().unwrap(), args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn training_that_blows_up_exits_1_and_says_what_to_change() {
    let lab = Lab::new();
    let ran = lab.run(&fit_with(&["train.lr=1e9", "train.method=full", "train.clip=0"]));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_says(&ran.stderr, &["are not finite; lower train.lr"]);
    assert!(!lab.path("out/manifest.json").exists() && !lab.path("out/model").exists());
}

// ---- what is right -----------------------------------------------------------------------------

#[test]
fn overrides_reach_the_resolved_recipe_which_makes_the_same_run_again() {
    let lab = Lab::new();
    let set = [
        "train.lr=1e-3",
        "name=à la carte",
        "data.pretraining=measure.jsonl",
        "train.lora.target_modules=['v_proj']",
    ];
    let run = lab.fit("one", &set);
    let resolved: toml::Table = fs::read_to_string(run.join("recipe.toml")).unwrap().parse().unwrap();
    assert_eq!(resolved["train"]["lr"].as_float(), Some(1e-3));
    assert_eq!(resolved["name"].as_str(), Some("à la carte"));
    assert_eq!(resolved["train"]["beta2"].as_float(), Some(0.999), "defaults are written out");
    let adapter = read_json(&run.join("adapter/adapter_config.json"));
    assert_eq!(adapter["target_modules"], json!(["v_proj"]));
    assert_eq!((&adapter["r"], &adapter["lora_alpha"]), (&json!(4), &json!(6.0)));

    lab.succeed(&["fit", "one/recipe.toml", "--out", "two"]);
    assert_says(&fs::read_to_string(lab.path("two/recipe.toml")).unwrap(), &["lr = 0.001"]);
    assert_same(&outcome(&run), &outcome(&lab.path("two")), "made again");
}

#[test]
fn generate_prints_json_with_only_the_new_tokens() {
    let lab = Lab::new();
    lab.write("prompts.jsonl", "{\"prompt\": \"the cake\"}\n\n{\"prompt\": \"🎂 \\u0000 é\", \"more\": 1}\n");
    assert_says(
        &lab.refused(&fit_with(&["model.dtype=bf16", "train.method=full"])),
        &["model.dtype = \"bf16\"", "expected train.method = \"lora\""],
    );
    let base = tiny("llama");
    let generate = |more: &[&str]| -> Vec<Value> {
        let args = [&["generate", "--base", base.to_str().unwrap(), "--json"], more].concat();
        let ran = lab.succeed(&args);
        let document: Value = serde_json::from_str(&ran.stdout).expect("stdout is one JSON document");
        assert!(document["elapsed_s"].as_f64().unwrap() > 0.0 && document.as_object().unwrap().len() == 2);
        let generations = document["generations"].as_array().unwrap().clone();
        for g in &generations {
            let keys: Vec<&String> = g.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["prompt", "token_ids", "text"]);
            assert!(g["token_ids"].as_array().unwrap().iter().all(|id| id.as_u64().unwrap() < 288));
        }
        generations
    };
    let both = generate(&["--prompts", "prompts.jsonl", "--max-new-tokens", "6"]);
    assert_eq!(both.len(), 2);
    assert_eq!(both[0]["prompt"], "the cake");
    assert_eq!(both[1]["prompt"], "🎂 \0 é");
    let alone = generate(&["--prompt", "the cake", "--max-new-tokens", "6"]);
    assert_eq!(alone[0], both[0], "another prompt in the batch changes nothing");
    assert!((1..=6).contains(&alone[0]["token_ids"].as_array().unwrap().len()));
    assert_eq!(generate(&["--prompt", "x", "--max-new-tokens", "0"])[0]["token_ids"], json!([]));

    let sample =
        |seed| generate(&["--prompt", "x", "--temperature", "1", "--seed", seed, "--max-new-tokens", "16"]);
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

#[test]
fn every_command_has_help_and_the_completions_know_it() {
    let lab = Lab::new();
    let help = lab.succeed(&["--help"]).stdout;
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for command in ["fit", "diff", "sweep", "report", "generate", "merge", "models", "completions"] {
        assert!(commands.contains(&command), "{command} is not in {commands:?}");
    }
    let completions = lab.succeed(&["completions", "bash"]).stdout;
    for command in commands.into_iter().filter(|command| *command != "help") {
        let help = lab.succeed(&[command, "--help"]).stdout;
        assert_says(&help, &["Usage: trainer", command]);
        if command != "completions" {
            assert_says(&help, &["Example", &format!("trainer {command}")]);
        }
        assert_says(&completions, &[command]);
    }
    assert_eq!(lab.succeed(&["--version"]).stdout.trim(), concat!("trainer ", env!("CARGO_PKG_VERSION")));
    for shell in ["zsh", "fish"] {
        assert!(lab.succeed(&["completions", shell]).stdout.len() > 500);
    }
}

#[test]
fn an_organism_goes_from_recipe_to_report() {
    let lab = Lab::new();
    lab.succeed(&FIT);
    let ran = lab.succeed(&["diff", "out"]);
    assert_says(&ran.stdout, &["out: ", "the logit lens", "the patchscope", "trainer floor"]);
    lab.succeed(&["report", "out"]);
    let page = fs::read_to_string(lab.path("out/report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("cake"));
    let ran = lab.succeed(&["report", "out", "--json"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_sweep_skips_finished_cells_and_refuses_another_recipe_s_folder() {
    let lab = Lab::new();
    let quick = ["diff.steering.enabled=false", "diff.patchscope.enabled=false", "train.steps=2"];
    let sweep =
        |mix| with_sets(&["sweep", "recipe.toml", "--mix", mix, "--seeds", "0,1", "--out", "sweep"], &quick);
    lab.succeed(&sweep("0"));
    let cell = lab.cell("sweep", "mix-0_seed-1");
    let before = files(&cell);
    let ran = lab.succeed(&sweep("0,0.5"));
    assert_says(&ran.stderr, &["mix-0_seed-1_", ": finished before"]);
    assert_eq!(before, files(&cell), "a finished cell was touched");
    let summary = fs::read_to_string(lab.path("sweep/summary.csv")).unwrap();
    assert_eq!(summary.lines().count(), 5, "{summary}");
    let e = lab.refused(&[&sweep("0")[..], &["--set", "train.lr=1e-4"]].concat());
    assert_says(&e, &["holds a sweep of another recipe"]);
    // A sweep begun before a key was there goes on: it had the default.
    let mark = lab.path("sweep/sweep.toml");
    let text = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, text.replace("mix_schedule = \"constant\"\n", "")).unwrap();
    let ran = lab.succeed(&sweep("0,0.5"));
    assert_eq!(ran.stderr.matches("finished before").count(), 4, "{}", ran.stderr);
}
