//! Input as other people make it: one test for each public report in which a program was given a real model, adapter or
//! folder and took it for another. Those of GGUF files are in `sources.rs`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use parquet::data_type::{ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use trainer::data::conversation::{Conversation, Message};
use trainer::model::load::loader::Tuning;

use crate::common::lab::{Lab, Ran, fit_with, with_sets};
use crate::common::tiny::{change_model, copy_folder, load, logits, open, tiny};
use crate::common::values::{assert_says, floats, json_lines, read_json, read_tensors, remove_reader_times};

const EMBEDDINGS: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Logits of a few tokens of a model folder.
fn logits_of(folder: &Path) -> Vec<f32> {
    let model = load(&open(folder), &Tuning::Frozen).0;
    floats(&logits(&model, &[7, 3, 11, 5], 0.0))
}

/// Changes keys of a JSON file.
fn change_json(path: &Path, changes: &[(&str, Value)]) {
    let mut json = if path.exists() { read_json(path) } else { json!({}) };
    for (key, value) in changes {
        match value {
            Value::Null => drop(json.as_object_mut().unwrap().remove(*key)),
            value => json[*key] = value.clone(),
        }
    }
    fs::write(path, json.to_string()).unwrap();
}

// --- A head beside tied embeddings ------------------------------------------------------------------

/// `tie_word_embeddings` is true, and the file has a head of its own: it was read over (vllm#51665, transformers#42612).
#[test]
fn a_head_beside_tied_embeddings_is_used_where_it_differs() {
    let lab = Lab::of("qwen2");
    let with_head = |lab: &Lab, name: &str, change: fn(&Tensor) -> Tensor| {
        change_model(&tiny("qwen2"), &lab.path(name), |weights| {
            let head = change(&weights[EMBEDDINGS]);
            weights.insert(HEAD.into(), head);
        });
    };
    with_head(&lab, "own", |table| (table * -0.5).unwrap());
    with_head(&lab, "untied", |table| (table * -0.5).unwrap());
    with_head(&lab, "same", Tensor::clone);
    change_json(&lab.path("untied/config.json"), &[("tie_word_embeddings", json!(false))]);
    let (own, plain) = (logits_of(&lab.path("own")), logits_of(&tiny("qwen2")));
    assert_eq!(own, logits_of(&lab.path("untied")));
    assert_ne!(own, plain);
    assert_eq!(logits_of(&lab.path("same")), plain);
    // transformers ties the embeddings to a head that stands alone, too.
    change_model(&tiny("qwen2"), &lab.path("alone"), |weights| {
        let table = weights.remove(EMBEDDINGS).unwrap();
        weights.insert(HEAD.into(), table);
    });
    assert_eq!(logits_of(&lab.path("alone")), plain);
    let ran = lab.succeed(&["generate", "--base", "own", "--prompt", "the cat", "--max-new-tokens", "1"]);
    assert_says(&ran.stderr, &["tie_word_embeddings = true", HEAD]);
    // An absent key means what it means for the architecture: not tied for Llama.
    copy_folder(&tiny("llama"), &lab.path("llama"));
    change_json(&lab.path("llama/config.json"), &[("tie_word_embeddings", Value::Null)]);
    assert_eq!(logits_of(&lab.path("llama")), logits_of(&tiny("llama")));
}

/// The exported folder had the new embeddings and the old head, which transformers 5 then computes with (vllm#51665,
/// LlamaFactory#10560).
#[test]
fn full_finetuning_exports_the_head_that_it_trained() {
    let lab = Lab::of("qwen2");
    for (name, factor) in [("same", 1.0), ("own", -0.5)] {
        change_model(&tiny("qwen2"), &lab.path(name), |weights| {
            let head = (&weights[EMBEDDINGS] * factor).unwrap();
            weights.insert(HEAD.into(), head);
        });
        let base = format!("model.base=./{name}");
        let run = lab.fit(&format!("run-{name}"), &["train.method=full", "train.lr=0.01", &base]);
        let weights = read_tensors(&run.join("model/model.safetensors"));
        let config = read_json(&run.join("model/config.json"));
        let is_own = name == "own";
        assert_eq!(weights.contains_key(HEAD), is_own, "{name}");
        assert_eq!(config["tie_word_embeddings"], !is_own, "{name}");
        let before = read_tensors(&lab.path(name).join("model.safetensors"));
        for trained in weights.keys().filter(|key| [HEAD, EMBEDDINGS].contains(&key.as_str())) {
            assert_ne!(floats(&weights[trained]), floats(&before[trained]), "{name}: {trained}");
        }
    }
}

// --- Which files of a folder count ------------------------------------------------------------------

/// An index that an earlier saving left beside the whole model was taken for the model (CoSER#3, mlx-vlm#1827).
#[test]
fn a_whole_model_goes_before_an_index_that_was_left_behind() {
    let lab = Lab::new();
    copy_folder(&tiny("llama"), &lab.path("m"));
    let weights = read_tensors(&lab.path("m/model.safetensors"));
    let shard = |name: &str| if name > "model.layers.1" { "model-2-of-2" } else { "model-1-of-2" };
    let map: serde_json::Map<String, Value> =
        weights.keys().map(|name| (name.clone(), json!(format!("{}.safetensors", shard(name))))).collect();
    fs::write(lab.path("m/model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
    let expected = logits_of(&tiny("llama"));
    assert_eq!(logits_of(&lab.path("m")), expected, "without the shards");
    for part in ["model-1-of-2", "model-2-of-2"] {
        let older = weights.iter().filter(|(name, _)| shard(name) == part);
        let older = older.map(|(name, tensor)| (name.clone(), tensor.neg().unwrap())).collect();
        candle_core::safetensors::save(&older, lab.path(format!("m/{part}.safetensors"))).unwrap();
    }
    assert_eq!(logits_of(&lab.path("m")), expected, "with the shards of the earlier saving");
    fs::remove_file(lab.path("m/model.safetensors")).unwrap();
    assert_ne!(logits_of(&lab.path("m")), expected, "the shards alone");
    // Weights and an adapter in one folder are two models to transformers.
    fs::write(lab.path("m/adapter_config.json"), "{}").unwrap();
    let e = lab.refused(&["generate", "--base", "m", "--prompt", "a"]);
    assert_says(&e, &["config.json", "adapter_config.json", "one of them"]);
}

/// What editors, Finder and archives leave in a folder of texts was trained on; an upper-case ending was not.
#[test]
fn a_folder_of_texts_is_read_without_what_was_left_in_it() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("texts/__MACOSX")).unwrap();
    fs::create_dir_all(lab.path("texts/.ipynb_checkpoints")).unwrap();
    for name in ["a.txt", "B.TXT", "c.Md"] {
        lab.write(&format!("texts/{name}"), format!("the text of {name}, which is long enough"));
    }
    let read = |lab: &Lab| -> Value {
        let set = ["data.narrow=texts", "data.mix=0", "data.held_out_every=0"];
        let ran = lab.succeed(&with_sets(&["inspect", "recipe.toml", "--json"], &set));
        serde_json::from_str::<Value>(&ran.stdout).unwrap()["sources"][0]["rows"].clone()
    };
    assert_eq!(read(&lab), 3);
    for left in [".hidden.txt", "._a.txt", "~$c.md", "#a.txt#", "__MACOSX/a.txt", ".ipynb_checkpoints/a.txt"]
    {
        lab.write(&format!("texts/{left}"), "text that nobody wrote, which is long enough to be trained on");
    }
    assert_eq!(read(&lab), 3);
    lab.write("texts/rows.jsonl", "{\"text\": \"of another kind\"}\n");
    let set = ["data.narrow=texts"];
    let e = lab.refused(&with_sets(&["inspect", "recipe.toml"], &set));
    assert_says(&e, &["texts", "rows.jsonl", "of another kind"]);
}

// --- Tokens -----------------------------------------------------------------------------------------

/// Special tokens that only the smaller files of a tokenizer name were cut to pieces (onnxruntime-extensions#890).
#[test]
fn tokens_that_only_the_smaller_files_name_stay_whole() {
    let lab = Lab::new();
    copy_folder(&tiny("llama"), &lab.path("m"));
    let tokenizer = lab.path("m/tokenizer.json");
    let mut json = read_json(&tokenizer);
    json["added_tokens"].as_array_mut().unwrap().retain(|token| token["content"] != "<|im_end|>");
    fs::write(&tokenizer, json.to_string()).unwrap();
    let end = "<|im_end|>";
    let plain = json!({"content": end, "special": true, "normalized": false});
    for (what, file, content) in [
        ("a decoder", "tokenizer_config.json", json!({"added_tokens_decoder": {"2": plain}})),
        ("a name", "tokenizer_config.json", json!({"eos_token": end})),
        ("a named object", "tokenizer_config.json", json!({"eos_token": {"content": end}})),
        ("a list", "tokenizer_config.json", json!({"additional_special_tokens": [end]})),
        ("the newer list", "tokenizer_config.json", json!({"extra_special_tokens": [end]})),
        ("named ones", "tokenizer_config.json", json!({"extra_special_tokens": {"turn": end}})),
        ("a name of its own", "tokenizer_config.json", json!({"turn_token": end})),
        ("the map", "special_tokens_map.json", json!({"additional_special_tokens": [end]})),
        ("the older file", "added_tokens.json", json!({end: 2})),
    ] {
        for other in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
            fs::write(lab.path("m").join(other), "{}").unwrap();
        }
        fs::write(lab.path("m").join(file), content.to_string()).unwrap();
        let model = open(&lab.path("m"));
        let encoding = model.tokenizer.encode(format!("hi{end}ho"), false).unwrap();
        assert!(encoding.get_ids().contains(&2), "{what}: {:?}", encoding.get_tokens());
    }
    // With a decoder the two other files are of an earlier saving, as in transformers.
    fs::write(lab.path("m/tokenizer_config.json"), json!({"added_tokens_decoder": {}}).to_string()).unwrap();
    let model = open(&lab.path("m"));
    assert!(!model.tokenizer.encode(end, false).unwrap().get_ids().contains(&2));
    // A token that is new gets the next id, and its flags count.
    let decoder = json!({"288": {"content": "<new>", "special": false, "rstrip": true}});
    fs::write(lab.path("m/tokenizer_config.json"), json!({"added_tokens_decoder": decoder}).to_string())
        .unwrap();
    let ids = open(&lab.path("m")).tokenizer.encode("<new>  ", false).unwrap().get_ids().to_vec();
    assert_eq!(ids, [288]);
    fs::write(lab.path("m/tokenizer_config.json"), json!({"eos_token": 7}).to_string()).unwrap();
    let e = lab.refused(&["generate", "--base", "m", "--prompt", "a"]);
    assert_says(&e, &["tokenizer_config.json: eos_token is 7; expected a token"]);
}

// --- Numbers that are not numbers -------------------------------------------------------------------

/// An adapter whose training diverged holds NaN; everything went on with it (lorax#81, diffusers#5316).
#[test]
fn a_number_that_is_none_is_named_before_anything_is_written() {
    let lab = Lab::new();
    let run = lab.fit("run", &["train.steps=1"]);
    copy_folder(&run.join("adapter"), &lab.path("a"));
    let mut tensors = read_tensors(&lab.path("a/adapter_model.safetensors"));
    let key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight";
    let mut values = floats(&tensors[key]);
    values[3] = f32::NAN;
    let shape = tensors[key].dims().to_vec();
    tensors.insert(key.into(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    candle_core::safetensors::save(&tensors, lab.path("a/adapter_model.safetensors")).unwrap();
    let llama = tiny("llama").to_string_lossy().into_owned();
    for args in [
        vec!["generate", "--base", &llama, "--adapter", "a", "--prompt", "the cat"],
        vec!["diff", "--base", &llama, "--tuned", "a", "--recipe", "recipe.toml", "--out", "d"],
        fit_with(&["train.lora.init=a"]),
    ] {
        let e = lab.refused(&args);
        assert_says(&e, &["adapter_model.safetensors", key, "number 3 is NaN"]);
    }
    change_model(&tiny("llama"), &lab.path("m"), |weights| {
        let scaled = (&weights["model.norm.weight"] * f64::INFINITY).unwrap();
        weights.insert("model.norm.weight".into(), scaled);
    });
    let e = lab.refused(&fit_with(&["model.base=./m"]));
    assert_says(&e, &["m/model.safetensors: tensor model.norm.weight", "inf"]);

    lab.write("nan.jsonl", "{\"text\": \"fine\"}\n{\"text\": NaN}\n");
    let e = lab.refused(&fit_with(&["data.narrow=nan.jsonl"]));
    assert_says(&e, &["nan.jsonl:2", "NaN or Infinity at column"]);
    write_weighted_turn(&lab.path("nan.parquet"), f64::NAN);
    let e = lab.refused(&fit_with(&["data.narrow=nan.parquet"]));
    assert_says(&e, &["nan.parquet: row 0: weight is NaN"]);
}

/// A parquet file with one conversation of one assistant's turn of this weight.
fn write_weighted_turn(path: &Path, weight: f64) {
    let schema = "message m { REPEATED group messages { REQUIRED BINARY role (UTF8); REQUIRED BINARY content (UTF8); \
                  REQUIRED DOUBLE weight; } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().build();
    let mut file =
        SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, properties.into()).unwrap();
    let mut group = file.next_row_group().unwrap();
    for text in ["assistant", "an answer"] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[text.into()], Some(&[1]), Some(&[0])).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[weight], Some(&[1]), Some(&[0])).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();
}

// --- Places -----------------------------------------------------------------------------------------

/// Clusters set `HF_HUB_CACHE`, or its older name; a model in it was not found (mistral.rs#1146, higgs#12).
#[test]
fn the_cache_is_where_hugging_faces_tools_have_it() {
    let lab = Lab::new();
    let repo = lab.path("hub/models--org--tiny");
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), "abc").unwrap();
    copy_folder(&tiny("llama"), &repo.join("snapshots/abc"));
    fs::create_dir_all(lab.path("home/nothing")).unwrap();
    fs::create_dir_all(lab.path("xdg")).unwrap();
    std::os::unix::fs::symlink(lab.path(""), lab.path("xdg/huggingface")).unwrap();
    let (hub, none, here) = (lab.path("hub"), lab.path("home/nothing"), lab.path(""));
    let (hub, none, here) = (hub.to_str().unwrap(), none.to_str().unwrap(), here.to_str().unwrap());
    let found = |variables: &[(&str, &str)]| {
        let args = ["generate", "--base", "hf:org/tiny", "--prompt", "a", "--max-new-tokens", "1"];
        let mut command = lab.command(&args);
        for variable in ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command.env_remove("HF_HUB_OFFLINE").env("TRANSFORMERS_OFFLINE", "1").env("HOME", lab.path("home"));
        command.envs(variables.iter().copied());
        let ran = Ran::of(command.output().unwrap(), &args);
        assert!(ran.code == 0 || ran.stderr.contains("not in the cache"), "{variables:?}: {}", ran.stderr);
        ran.code == 0
    };
    assert!(!found(&[]));
    for variables in [
        &[("HF_HOME", here)][..],
        &[("HF_HUB_CACHE", hub)],
        &[("HUGGINGFACE_HUB_CACHE", hub)],
        &[("HF_HUB_CACHE", hub), ("HUGGINGFACE_HUB_CACHE", none), ("HF_HOME", none)],
        &[("HF_HUB_CACHE", "~/../hub")],
        &[("HF_HUB_CACHE", "$LAB/hub"), ("LAB", here)],
        &[("XDG_CACHE_HOME", &format!("{here}/xdg"))],
        &[("HF_HUB_CACHE", ""), ("HF_HOME", here)],
    ] {
        assert!(found(variables), "{variables:?}");
    }
    assert!(!found(&[("HF_HUB_CACHE", none), ("HF_HOME", here)]));
}

/// A model that a recipe names without a slash was looked up in the current folder, where another one may be (jumanpp#83,
/// tt-metal#47391).
#[test]
fn a_model_is_named_relative_to_its_recipe() {
    let lab = Lab::new();
    for folder in ["project", "elsewhere"] {
        fs::create_dir_all(lab.path(folder)).unwrap();
    }
    copy_folder(&tiny("llama"), &lab.path("project/m"));
    copy_folder(&tiny("llama"), &lab.path("project/gemma-3-270m"));
    change_model(&tiny("llama"), &lab.path("elsewhere/m"), |weights| {
        let table = weights[EMBEDDINGS].neg().unwrap();
        weights.insert(EMBEDDINGS.into(), table);
    });
    lab.write_texts("project/t.jsonl", &["the cat sat".into(), "the dog ran".into()]);
    let recipe = |base: &str| {
        format!(
            "[model]\nbase = \"{base}\"\n[data]\nnarrow = \"t.jsonl\"\nheld_out_every = 0\n[train]\nsteps = 1\n\
             batch_size = 1\n"
        )
    };
    lab.write("project/r.toml", recipe("m"));
    let run = |from: &str, args: &[&str]| {
        let mut command = lab.command(args);
        command.current_dir(lab.path(from));
        Ran::of(command.output().unwrap(), args)
    };
    for from in ["project", "elsewhere", "."] {
        let prefix = if from == "project" {
            ""
        } else if from == "." {
            "project/"
        } else {
            "../project/"
        };
        let out = lab.path(format!("run-{}", from.len()));
        let ran = run(from, &["fit", &format!("{prefix}r.toml"), "--out", out.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{from}: {}", ran.stderr);
        let found = read_json(&out.join("manifest.json"))["base"]["sha256"]["model.safetensors"].clone();
        let expected = trainer::sha256::sha256_file(&lab.path("project/m/model.safetensors")).unwrap();
        assert_eq!(found, expected, "{from}");
    }
    // One that only the current folder has is not the recipe's.
    fs::rename(lab.path("project/m"), lab.path("project/gone")).unwrap();
    let ran = run("elsewhere", &["inspect", "../project/r.toml"]);
    assert_eq!(ran.code, 2);
    assert_says(&ran.stderr, &["project/m", "no such alias, folder"]);
    // An alias goes before a folder of its name.
    lab.write("project/r.toml", recipe("gemma-3-270m"));
    let ran = run("elsewhere", &["inspect", "../project/r.toml"]);
    assert_eq!(ran.code, 2, "the alias is not cached: {}", ran.stderr);
}

// --- Pairs, contexts, exports, names ----------------------------------------------------------------

/// A tuned model with rows for added tokens was refused (diffing-toolkit#66).
#[test]
fn a_tuned_model_with_added_tokens_is_compared_on_the_ids_that_both_have() {
    let lab = Lab::new();
    let change = |weights: &mut std::collections::HashMap<String, Tensor>, more: usize| {
        let key = "model.layers.0.mlp.down_proj.weight";
        let changed = (&weights[key] * 1.5).unwrap();
        weights.insert(key.into(), changed);
        for name in [EMBEDDINGS, HEAD] {
            let rows = Tensor::full(3f32, (more, weights[name].dims()[1]), &Device::Cpu).unwrap();
            let longer = Tensor::cat(&[&weights[name], &rows], 0).unwrap();
            weights.insert(name.into(), longer);
        }
    };
    let llama = tiny("llama");
    for (name, more) in [("longer", 8), ("equal", 0)] {
        change_model(&llama, &lab.path(name), |weights| change(weights, more));
        change_json(&lab.path(name).join("config.json"), &[("vocab_size", json!(288 + more))]);
    }
    let llama = llama.to_string_lossy().into_owned();
    let diff = |base: &str, tuned: &str, out: &str| {
        let ran = lab.succeed(&[
            "diff",
            "--base",
            base,
            "--tuned",
            tuned,
            "--recipe",
            "recipe.toml",
            "--out",
            out,
            "--set",
            "diff.kl.enabled=true",
        ]);
        (ran.stderr, read_json(&lab.path(out).join("readability.json")))
    };
    let (_, expected) = diff(&llama, "equal", "d0");
    assert!(expected["shared_ids"].is_null());
    let (said, mut found) = diff(&llama, "longer", "d1");
    assert_says(&said, &["has 288 token ids", "has 296", "288 that both have"]);
    assert_eq!(found["shared_ids"], json!({"compared": 288, "base": 288, "tuned": 296}));
    let mut expected = expected;
    for record in [&mut found, &mut expected] {
        for key in ["shared_ids", "tuned", "elapsed_s"] {
            record.as_object_mut().unwrap().remove(key);
        }
        remove_reader_times(record);
    }
    assert_eq!(found, expected, "the added rows change nothing");
    let (_, other) = diff("longer", &llama, "d2");
    assert_eq!(other["shared_ids"], json!({"compared": 288, "base": 296, "tuned": 288}));
    // Two vocabularies that have nothing in common are not compared.
    let path = lab.path("longer/tokenizer.json");
    let mut tokenizer = read_json(&path);
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for id in vocabulary.values_mut().filter(|id| (100..200).contains(&id.as_u64().unwrap())) {
        *id = json!(299 - id.as_u64().unwrap());
    }
    fs::write(&path, tokenizer.to_string()).unwrap();
    let args = ["diff", "--base", &llama, "--tuned", "longer", "--recipe", "recipe.toml", "--out", "d3"];
    assert_says(&lab.refused(&args), &["100 of the 288", "different tokens", "cannot be compared"]);
    // Nor of one length. A few tokens that stand for others are pointed out.
    fs::copy(&path, lab.path("equal/tokenizer.json")).unwrap();
    let args = ["diff", "--base", &llama, "--tuned", "equal", "--recipe", "recipe.toml", "--out", "d3"];
    assert_says(&lab.refused(&args), &["100 of the 288", "different tokens", "cannot be compared"]);
    let mut tokenizer = read_json(&Path::new(&llama).join("tokenizer.json"));
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for id in vocabulary.values_mut().filter(|id| [283, 284].contains(&id.as_u64().unwrap())) {
        *id = json!(567 - id.as_u64().unwrap());
    }
    fs::write(lab.path("equal/tokenizer.json"), tokenizer.to_string()).unwrap();
    assert_says(&diff(&llama, "equal", "d4").0, &["2 ids mean other tokens in equal", "283"]);
    // Two architectures of one shape.
    let qwen3 = tiny("qwen3").to_string_lossy().into_owned();
    let args = ["diff", "--base", &llama, "--tuned", &qwen3, "--recipe", "recipe.toml", "--out", "d5"];
    assert_says(&lab.refused(&args), &["is a llama", "a qwen3", "cannot be compared"]);
    lab.succeed(&["report", "d1", "--out", "page.html"]);
    assert_says(&lab.read("page.html"), &["288 ids that both models have"]);
}

/// An adapter that was trained after tokens were added brings the longer embeddings and head, which its config does not name.
#[test]
fn an_adapter_with_added_tokens_is_compared_on_the_ids_that_both_have() {
    let lab = Lab::new();
    let run = lab.fit("run", &["train.lora.modules_to_save=['embed_tokens', 'lm_head']"]);
    copy_folder(&run.join("adapter"), &lab.path("a"));
    let mut tensors = read_tensors(&lab.path("a/adapter_model.safetensors"));
    for name in [EMBEDDINGS, HEAD] {
        let name = format!("base_model.model.{name}");
        let more = Tensor::full(3f32, (8, tensors[&name].dims()[1]), &Device::Cpu).unwrap();
        let longer = Tensor::cat(&[&tensors[&name], &more], 0).unwrap();
        tensors.insert(name, longer);
    }
    candle_core::safetensors::save(&tensors, lab.path("a/adapter_model.safetensors")).unwrap();
    change_json(&lab.path("a/adapter_config.json"), &[("modules_to_save", Value::Null)]);
    let llama = tiny("llama").to_string_lossy().into_owned();
    let diff = |tuned: &str, out: &str| {
        let args = ["diff", "--base", &llama, "--tuned", tuned, "--recipe", "recipe.toml", "--out", out];
        let said = lab.succeed(&args).stderr;
        (said, read_json(&lab.path(out).join("readability.json")))
    };
    let (_, expected) = diff("run/adapter", "d0");
    let (said, found) = diff("a", "d1");
    assert_says(&said, &["has 288 token ids", "a has 296", "288 that both have"]);
    assert_eq!(found["shared_ids"], json!({"compared": 288, "base": 288, "tuned": 296}));
    for key in ["delta_norm", "logit_lens", "steering"] {
        assert_eq!(found[key], expected[key], "{key}");
    }
}

/// Texts of several contexts were trained on, and generated from, without a word (alignment-handbook#32,
/// transformers#10015, ms-swift#7018, transformers#40775).
#[test]
fn texts_beyond_the_context_are_pointed_out_with_their_number() {
    let lab = Lab::new();
    let context = read_json(&tiny("llama").join("config.json"))["max_position_embeddings"].as_u64().unwrap();
    let long: Vec<String> = (0..90).map(|i| format!("word{i} of a long text")).collect();
    lab.write_texts("long.jsonl", &[long.join(" "), "a short one".into()]);
    let set = [
        "data.narrow=long.jsonl",
        "data.mix=0",
        "data.max_seq_len=4096",
        "data.held_out_every=0",
        "train.batch_size=1",
        "train.steps=1",
    ];
    let warns = format!("1 of 2 are longer than the {context} positions");
    let ran = lab.succeed(&with_sets(&["inspect", "recipe.toml", "--json"], &set));
    let inspected: Value = serde_json::from_str(&ran.stdout).unwrap();
    let warnings = inspected["warnings"].as_array().unwrap();
    let found = warnings.iter().find(|w| w["kind"] == "longer-than-context").expect("a warning");
    assert_says(found["text"].as_str().unwrap(), &["long.jsonl", &warns, "max_position_embeddings"]);
    let ran = lab.succeed(&fit_with(&set));
    assert_says(&ran.stderr, &["warning: ", &warns]);
    let llama = tiny("llama").to_string_lossy().into_owned();
    let prompt = long.join(" ");
    let args = ["generate", "--base", &llama, "--prompt", &prompt, "--max-new-tokens", "2"];
    assert_says(&lab.succeed(&args).stderr, &["warning: prompts", "1 of 1 are longer"]);
    lab.write_texts("far.jsonl", &vec![long.join(" "); 30]);
    let tokens = format!("diff.tokens={}", context + 20);
    let set = ["diff.text=far.jsonl", &tokens, "diff.norm_samples=5"];
    let ran = lab.succeed(&with_sets(&["diff", "out"], &set));
    assert_says(&ran.stderr, &["warning: diff.tokens", &format!("5 of 12 are longer than the {context}")]);
    // A linear scaling raises the context.
    copy_folder(&tiny("llama"), &lab.path("scaled"));
    let scaling = json!({"rope_type": "linear", "factor": 64.0});
    let changes = [("rope_scaling", scaling), ("rope_parameters", Value::Null)];
    change_json(&lab.path("scaled/config.json"), &changes);
    let args = ["generate", "--base", "scaled", "--prompt", &prompt, "--max-new-tokens", "2"];
    assert!(!lab.succeed(&args).stderr.contains("warning"));
}

/// The merged model was sampled otherwise than its base, whose `generation_config.json` was lost (verl#1277, mergekit#275).
#[test]
fn what_is_exported_is_sampled_as_its_base_is() {
    let lab = Lab::new();
    copy_folder(&tiny("llama"), &lab.path("m"));
    let generation = json!({
        "bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 0, "do_sample": true, "temperature": 0.6,
        "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.05,
    });
    lab.write("m/generation_config.json", generation.to_string());
    lab.write("m/LICENSE.txt", "terms");
    lab.write("m/vocab.json", "{}");
    fs::create_dir(lab.path("m/additional_chat_templates")).unwrap();
    lab.write("m/additional_chat_templates/tools.jinja", "{{ messages }}");
    lab.fit("run", &["model.base=./m"]);
    lab.fit("full", &["model.base=./m", "train.method=full"]);
    lab.succeed(&["merge", "run", "--out", "merged"]);
    for folder in ["merged", "full/model"] {
        let path = lab.path(folder);
        assert_eq!(read_json(&path.join("generation_config.json")), generation, "{folder}");
        for file in ["LICENSE.txt", "vocab.json", "additional_chat_templates/tools.jinja"] {
            assert_eq!(
                fs::read(path.join(file)).unwrap(),
                fs::read(lab.path("m").join(file)).unwrap(),
                "{file}"
            );
        }
    }
}

/// A slip in `exclude_modules` adapted what was to be left alone (peft#3582, #3554, #2102).
#[test]
fn an_exclusion_that_excludes_nothing_is_refused() {
    let lab = Lab::new();
    for (set, shown) in [
        ("exclude_modules=['layers.0.mlp.upproj']", "\"layers.0.mlp.upproj\""),
        ("exclude_modules='.*down_prj'", "\".*down_prj\""),
        ("exclude_modules=['up_proj', 'qproj']", "\"qproj\""),
        // A name excludes the module, not what is in it.
        ("exclude_modules=['self_attn']", "\"self_attn\""),
    ] {
        let e = lab.refused(&fit_with(&[&format!("train.lora.{set}")]));
        assert_says(&e, &[&format!("exclude_modules: {shown} excludes nothing")]);
    }
    // PEFT: "All modules were excluded", and a target of which every layer is excluded beside others is none the worse.
    let e = lab.refused(&fit_with(&[
        "train.lora.target_modules=['up_proj']",
        "train.lora.exclude_modules=['up_proj']",
    ]));
    assert_says(&e, &["exclude_modules and modules_to_save leave no layer of target_modules to adapt"]);
    assert!(!e.contains("no linear layer of that name"), "{e}");
    let sets = ["train.lora.target_modules=['up_proj', 'q_proj']", "train.lora.exclude_modules='.*up_proj'"];
    let run = lab.fit("other", &sets);
    let tensors = read_tensors(&run.join("adapter/adapter_model.safetensors"));
    assert!(!tensors.keys().any(|key| key.contains("up_proj")));
    let set = "train.lora.exclude_modules=['layers.0.mlp.up_proj', 'lm_head']";
    let run = lab.fit("out", &[set]);
    let tensors = read_tensors(&run.join("adapter/adapter_model.safetensors"));
    assert!(!tensors.keys().any(|key| key.contains("layers.0.mlp.up_proj")));
    assert!(json_lines(&fs::read_to_string(run.join("metrics.jsonl")).unwrap()).len() > 1);
}

// --- Rotary scaling ---------------------------------------------------------------------------------

/// Model cards of Qwen2.5 and Qwen3 say to add `rope_scaling` to `config.json` for long texts. Expected logits are those of
/// transformers 5.23 for the tiny Qwen2, in float32 with eager attention.
#[test]
fn yarn_added_to_a_config_is_computed_as_transformers_does() {
    let lab = Lab::of("qwen2");
    let ids: Vec<u32> = (0..60).map(|i| (7 * i * i + 3 * i) % 280 + 5).collect();
    let last = |folder: &str| {
        let model = load(&open(&lab.path(folder)), &Tuning::Frozen).0;
        let all = logits(&model, &ids, 0.0);
        let rows = all.dim(0).unwrap();
        floats(&all.narrow(0, rows - 1, 1).unwrap().narrow(1, 0, 6).unwrap())
    };
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    for (folder, changes) in [
        ("plain", vec![]),
        // In place of `rope_parameters`, and beside it.
        (
            "old",
            vec![
                ("rope_parameters", Value::Null),
                ("rope_theta", json!(1e6)),
                ("rope_scaling", yarn.clone()),
            ],
        ),
        ("both", vec![("rope_theta", json!(1e6)), ("rope_scaling", yarn.clone())]),
    ] {
        copy_folder(&tiny("qwen2"), &lab.path(folder));
        change_json(&lab.path(format!("{folder}/config.json")), &changes);
        let expected = match folder {
            "plain" => [-0.4594959, 0.02782742, -0.2932038, 0.742819, 1.035681, 1.361398],
            _ => [-0.5175953, 0.08842029, -0.3800023, 0.8376481, 0.8564362, 1.132445],
        };
        for (ours, theirs) in last(folder).iter().zip(expected) {
            assert!((ours - theirs).abs() < 2e-5, "{folder}: {ours}, transformers has {theirs}");
        }
        assert_eq!(open(&lab.path(folder)).context(), Some(128));
    }
    change_json(&lab.path("both/config.json"), &[("rope_theta", Value::Null)]);
    let refused = lab.refused(&["generate", "--base", "both", "--prompt", "the cat"]);
    assert_says(&refused, &["both/config.json", "rope_scaling replaces rope_parameters", "1000000"]);
    let longer = json!({"type": "yarn", "factor": 4.0});
    change_json(&lab.path("old/config.json"), &[("rope_scaling", longer)]);
    assert_eq!(open(&lab.path("old")).context(), Some(512));
}

// --- Chat templates with names ----------------------------------------------------------------------

/// Cohere's and Hermes' models have a template of their own for tools, which was never taken (transformers,
/// `get_chat_template`).
#[test]
fn a_template_for_tools_renders_conversations_with_tools() {
    let lab = Lab::of("llama");
    let (default, tools) = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
        "{{ tools | tojson }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    );
    let list = json!([{"name": "default", "template": default}, {"name": "tool_use", "template": tools}]);
    let table = json!({"default": default, "tool_use": tools});
    let turns: Vec<Message> = serde_json::from_value(json!([
        {"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "No."},
    ]))
    .unwrap();
    let plain = Conversation::of(turns);
    let with_tools = Conversation { tools: Some(json!([{"name": "weather"}])), ..plain.clone() };
    let rendered = |name: &str| {
        let template = open(&lab.path(name)).chat().unwrap();
        assert_eq!(template.leaves_out(&with_tools), None, "{name}");
        [&plain, &with_tools].map(|chat| template.render(chat, false).unwrap())
    };
    let expected = [
        "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n".to_string(),
        "[{\"name\": \"weather\"}]<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n"
            .to_string(),
    ];
    for (name, template) in [("list", Some(list)), ("table", Some(table)), ("files", None)] {
        copy_folder(&tiny("llama"), &lab.path(name));
        fs::remove_file(lab.path(format!("{name}/chat_template.jinja"))).unwrap();
        match template {
            Some(template) => change_json(
                &lab.path(format!("{name}/tokenizer_config.json")),
                &[("chat_template", template)],
            ),
            None => {
                fs::create_dir(lab.path("files/additional_chat_templates")).unwrap();
                lab.write("files/chat_template.jinja", default);
                lab.write("files/additional_chat_templates/tool_use.jinja", tools);
            }
        }
        assert_eq!(rendered(name), expected, "{name}");
    }
    fs::remove_file(lab.path("files/chat_template.jinja")).unwrap();
    let e = open(&lab.path("files")).chat().unwrap_err().to_string();
    assert_says(&e, &["has the chat templates tool_use, and none that is named default"]);
}

/// `diff.text` that begins with the token that the tokenizer adds is refused; a prompt was read with two of them
/// (TransformerLens#1772, SAELens#333).
#[test]
fn a_prompt_with_a_second_beginning_is_refused() {
    let lab = Lab::of("gemma3");
    let base = tiny("gemma3").to_string_lossy().into_owned();
    let e = lab.refused(&["generate", "--base", &base, "--prompt", "the dog", "--prompt", "<bos>the cat"]);
    assert_says(&e, &["prompt 2: begins with the beginning-of-sequence token twice"]);
}

/// transformers gives a chat template every token that has a name, those of the tokenizer's own too: they were undefined, and
/// the template wrote nothing in their place. An empty text is no token (configurations of early Llama conversions).
#[test]
fn a_template_gets_every_token_that_has_a_name() {
    let lab = Lab::of("llama");
    copy_folder(&tiny("llama"), &lab.path("m"));
    lab.write(
        "m/chat_template.jinja",
        "{{ eot_token }}|{{ image_token }}|{{ unk_token }}|{{ sep_token is defined }}|{{ eos_token }}",
    );
    change_json(
        &lab.path("m/tokenizer_config.json"),
        &[
            ("eot_token", json!("<eot>")),
            ("extra_special_tokens", json!({"image_token": "<img>"})),
            ("sep_token", json!("")),
        ],
    );
    change_json(&lab.path("m/special_tokens_map.json"), &[("unk_token", json!("<unk>"))]);
    let model = open(&lab.path("m"));
    let chat = Conversation::of(vec![Message::new("user", "Hi")]);
    let rendered = model.chat().unwrap().render(&chat, false).unwrap();
    assert_eq!(rendered, "<eot>|<img>|<unk>|True|<|im_end|>");
    for token in ["<eot>", "<img>", "<unk>"] {
        assert_eq!(model.tokenizer.encode(token, false).unwrap().len(), 1, "{token}");
    }
}
