//! One test for each bug that was found by trying odd input; each failed before its fix.

use std::fs;

use crate::common::lab::{FIT, Lab, fit_with, with_sets};
use crate::common::outcome::metrics;
use crate::common::process::{send_signal, wait_until};
use crate::common::tiny::{change_model, tiny};
use crate::common::values::read_json;

/// A zero difference was scaled by η / 1e-308: infinite where η is large, hence NaN and a failure in sampling.
#[test]
fn a_zero_difference_in_a_model_of_large_activations_steers_by_zero() {
    let lab = Lab::new();
    change_model(&tiny("llama"), &lab.path("loud"), |weights| {
        let table = weights.get_mut("model.embed_tokens.weight").unwrap();
        *table = (&*table * 1e4).unwrap();
    });
    lab.succeed(&["diff", "--base", "loud", "--tuned", "loud", "--recipe", "recipe.toml", "--out", "d"]);
    let found = read_json(&lab.path("d/readability.json"));
    assert!(
        found["expected_norm"][0].as_f64().unwrap() > 100.0,
        "not loud enough: {}",
        found["expected_norm"]
    );
    assert_eq!(found["steering"]["strength_in_differences"], serde_json::json!([0.0, 0.0]));
}

/// Sizes were multiplied and reserved unchecked: "capacity overflow".
#[test]
fn exposures_that_fit_in_no_memory_are_refused() {
    let lab = Lab::new();
    for set in [
        &["train.steps=0", "train.epochs=inf"][..],
        &["train.steps=0", "train.epochs=1e300"],
        &["train.steps=0", "train.epochs=1e6", "data.mix=1e6", "data.repeat=true"],
        &["data.mix=1e300", "data.repeat=true"],
    ] {
        lab.refused(&fit_with(set));
    }
}

/// `epochs = -1` beside `steps` was taken for "not given".
#[test]
fn negative_epochs_are_refused_beside_steps() {
    let e = Lab::new().refused(&fit_with(&["train.epochs=-1"]));
    assert!(e.contains("train.epochs = -1"), "{e}");
}

/// Weights whose sum is infinite left most of the narrow exposure out, silently.
#[test]
fn weights_that_add_up_to_infinity_are_refused() {
    let lab = Lab::new();
    let weights = "data.narrow=[{path='narrow.jsonl', weight=1e308}, {path='measure.jsonl', weight=1e308}]";
    let e = lab.refused(&fit_with(&[weights]));
    assert!(e.contains("weight"), "{e}");
    let weights = "data.narrow=[{path='narrow.jsonl', weight=1e9}, {path='measure.jsonl', weight=1e9}]";
    let run = lab.fit("out", &[weights]);
    assert_eq!(read_json(&run.join("manifest.json"))["data"][1]["examples"], 8);
}

/// The total of `fixed-budget` was off by rounding, and with tokens as unit by the lengths' ratio.
#[test]
fn a_fixed_budget_is_kept_to_the_example_in_both_units() {
    let lab = Lab::new();
    lab.write_texts("short.jsonl", &vec!["hi you".to_string(); 40]);
    for (i, set) in [
        &["data.mix=0.1"][..],
        &["data.mix=2"],
        &["data.mix=1", "data.mix_unit=tokens", "data.narrow=short.jsonl"],
        &["data.mix=0.7", "data.mix_unit=tokens", "data.pretraining=short.jsonl"],
    ]
    .iter()
    .enumerate()
    {
        let set = [&["data.mix_mode=fixed-budget", "train.batch_size=10"], *set].concat();
        let run = lab.fit(&i.to_string(), &set);
        let manifest = read_json(&run.join("manifest.json"));
        let drawn = |i: usize| manifest["data"][i]["examples"].as_u64().unwrap();
        assert_eq!(drawn(0) + drawn(1), 40, "{set:?}");
        assert_eq!(metrics(&run).len(), 5, "{set:?}");
        let unit =
            if set.contains(&"data.mix_unit=tokens") { "realised_tokens" } else { "realised_examples" };
        let (asked, got) =
            (manifest["mix"]["asked"].as_f64().unwrap(), manifest["mix"][unit].as_f64().unwrap());
        assert!((got - asked).abs() < 0.15, "{set:?}: {got}");
    }
}

/// A byte order mark was "not a line of JSON: expected value at line 1 column 1".
#[test]
fn a_byte_order_mark_is_not_part_of_the_text() {
    let lab = Lab::new();
    let narrow = fs::read_to_string(lab.path("narrow.jsonl")).unwrap();
    let adapter = |out: &str| fs::read(lab.fit(out, &[]).join("adapter/adapter_model.safetensors")).unwrap();
    let plain = adapter("plain");
    lab.write("narrow.jsonl", format!("\u{feff}{}", narrow.replace('\n', "\r\n")));
    assert!(plain == adapter("marked"));
}

/// The same file twice doubled its exposure and hid repeats.
#[test]
fn a_source_named_twice_is_refused() {
    let lab = Lab::new();
    let e = lab.refused(&fit_with(&["data.pretraining=['pretraining.jsonl', './pretraining.jsonl']"]));
    assert!(e.contains("named twice"), "{e}");
}

/// An empty path stood for the recipe's folder, whose text files were read.
#[test]
fn an_empty_path_is_not_the_folder_of_the_recipe() {
    let lab = Lab::new();
    fs::create_dir(lab.path("sub")).unwrap();
    lab.write("sub/notes.txt", "text that nobody named, long enough to be learned from");
    let recipe = fs::read_to_string(lab.path("recipe.toml")).unwrap();
    let recipe = recipe
        .replace("[\"narrow.jsonl\"]", "\"\"")
        .replace("mix = 0.5", "mix = 0")
        .replace("[\"pretraining.jsonl\"]", "[]")
        .replace("[\"measure.jsonl\"]", "[]");
    lab.write("sub/recipe.toml", recipe);
    let e = lab.refused(&["fit", "sub/recipe.toml", "--out", "out"]);
    assert!(e.contains("data.narrow: an empty path"), "{e}");
}

/// `name = "../../evil"` became the folder runs/../../evil.
#[test]
fn a_name_does_not_lead_out_of_the_runs_folder() {
    let lab = Lab::new();
    for name in ["../evil", "a/b", "..", "."] {
        let e = lab.refused(&["fit", "recipe.toml", "--set", &format!("name={name}")]);
        assert!(e.contains("--out"), "{e}");
    }
    lab.succeed(&["fit", "recipe.toml", "--set", "name=cake of Zürich"]);
    assert!(lab.path("runs/cake of Zürich/manifest.json").exists());
}

/// No samples, or no tokens of a sample, ended in a panic and in "cannot reshape tensor of 0 elements".
#[test]
fn steering_with_nothing_to_write_is_refused() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    for key in ["samples", "max_new_tokens"] {
        let e = lab.refused(&["diff", "run", "--set", &format!("diff.steering.{key}=0")]);
        assert!(e.contains(&format!("diff.steering.{key} = 0: expected 1 to")), "{e}");
    }
}

/// Without null directions or resamples, baselines and intervals were 0 although nothing was measured.
#[test]
fn a_null_of_no_directions_is_refused() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    for key in ["null_directions", "bootstrap"] {
        let e = lab.refused(&["diff", "run", "--set", &format!("diff.{key}=0")]);
        assert!(e.contains(&format!("diff.{key} = 0: expected 1 to")), "{e}");
    }
}

/// An `--out` that cannot be written was found after the whole analysis.
#[test]
fn a_place_that_cannot_be_written_is_told_before_any_work() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    let before = lab.files();
    for args in [
        // Each has a fault that shows only where the work begins.
        &["diff", "run", "--out", "narrow.jsonl/out", "--set", "diff.embedder=nowhere"][..],
        &["fit", "recipe.toml", "--out", "narrow.jsonl/out", "--set", "model.base=nowhere"],
    ] {
        let ran = lab.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("narrow.jsonl/out") && ran.stderr.contains("Not a directory"),
            "{}",
            ran.stderr
        );
        assert_eq!(before, lab.files(), "{args:?} left something");
    }
}

/// A download went on until its end, whatever was pressed.
#[cfg(unix)]
#[test]
fn ctrl_c_stops_a_download() {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};
    let lab = Lab::new();
    fs::create_dir(lab.path("bin")).unwrap();
    // A Python whose pip never ends.
    let begun = lab.path("begun");
    let script =
        format!("#!/bin/sh\n[ \"$2\" = -c ] && exit 0\n: > '{}'\nexec /bin/sleep 60\n", begun.display());
    lab.write("bin/python3", script);
    fs::set_permissions(lab.path("bin/python3"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = lab
        .command(&fit_with(&["model.base=gemma-3-270m"]))
        .envs([("HF_HUB_OFFLINE", "0"), ("PATH", lab.path("bin").to_str().unwrap())])
        .spawn()
        .unwrap();
    wait_until("pip", || {
        assert!(child.try_wait().unwrap().is_none());
        lab.path("begun").exists()
    });
    let asked = Instant::now();
    send_signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// The embedder was opened, and downloaded, for analyses that embed nothing.
#[test]
fn an_embedder_that_nothing_uses_is_not_opened() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    let unused =
        ["diff.embedder=nowhere", "diff.steering.enabled=false", "diff.logit_contrast.enabled=false"];
    let e = lab.refused(&with_sets(&["diff", "run"], &unused));
    assert!(e.contains("nowhere: neither an embedder's alias"), "{e}");
    for (out, set) in [("a", "diff.patchscope.enabled=false"), ("b", "diff.patchscope.scales=[1.5]")] {
        lab.succeed(&with_sets(&["diff", "run", "--out", out], &[&unused[..], &[set]].concat()));
    }
    assert_eq!(read_json(&lab.path("b/readability.json"))["patchscope"]["best_scale"][0], 1.5);
}

/// A recipe had to be written to look at a model of unknown origin.
#[test]
fn two_models_are_compared_without_a_recipe_and_without_narrow_text() {
    let lab = Lab::new();
    let (base, adapter) = (tiny("llama"), tiny("llama").join("adapter"));
    let pair = ["diff", "--base", base.to_str().unwrap(), "--tuned", adapter.to_str().unwrap(), "--out"];
    let e = lab.refused(&[&pair[..], &["d"]].concat());
    assert!(e.contains("--set diff.text=FILE"), "{e}");
    let small = [
        "diff.text=measure.jsonl",
        "diff.samples=12",
        "diff.null_directions=8",
        "diff.bootstrap=20",
        "diff.embedder=./embedder",
        "diff.patchscope.scales=[0.5, 2.0]",
        "diff.steering.prompts=2",
        "diff.steering.max_new_tokens=8",
    ];
    let without = with_sets(&[&pair[..], &["without"]].concat(), &small);
    let ran = lab.succeed(&without);
    assert!(ran.stdout.contains("Without data.narrow, no measure knows"), "{}", ran.stdout);
    let found = read_json(&lab.path("without/readability.json"));
    assert_eq!(found["delta_norm"].as_array().unwrap().len(), 5);
    for lens in ["logit_lens", "patchscope"] {
        assert_eq!(found[lens]["top_tokens"].as_array().unwrap().len(), 5);
        let keys: Vec<&String> = found[lens].as_object().unwrap().keys().collect();
        assert!(keys.iter().all(|key| !key.contains("relevance")), "{keys:?}");
        assert!(found[lens]["top_tokens"][0][0].get("relevant").is_none());
    }
    assert!(found.get("lexicon").is_none());
    let similarity: Vec<&String> = found["steering"]["similarity"].as_object().unwrap().keys().collect();
    assert!(similarity.iter().all(|key| key.ends_with("_reference")), "{similarity:?}");
    assert!(found["steering"].get("relevant_words_steered").is_none());
    assert!(lab.path("without/steering.jsonl").exists());
    lab.succeed(&["report", "without", "--out", "page.html", "--csv", "all.csv"]);

    let with = [&small[..], &["data.narrow=narrow.jsonl"]].concat();
    lab.succeed(&with_sets(&[&pair[..], &["with"]].concat(), &with));
    let with = read_json(&lab.path("with/readability.json"));
    assert_eq!(with["steering"]["similarity"]["narrow_narrow"].as_array().unwrap().len(), 2);
    assert_eq!(with["logit_lens"]["token_relevance_p"].as_array().unwrap().len(), 5);
    assert_eq!(with["delta_norm"], found["delta_norm"]);
}

/// Paths of `--set` were relative to the recipe, for `diff RUN` to the run folder; a base that was found in the
/// current folder only was stored as it was typed.
#[test]
fn paths_of_the_command_line_are_those_of_the_current_folder() {
    let lab = Lab::new();
    change_model(&tiny("llama"), &lab.path("bases/small"), |_| {});
    change_model(&tiny("llama"), &lab.path("plain"), |_| {});
    fs::create_dir(lab.path("recipes")).unwrap();
    let recipe = fs::read_to_string(lab.path("recipe.toml")).unwrap();
    let recipe = recipe.replace(tiny("llama").to_str().unwrap(), "../bases/small");
    let recipe = recipe.replace("[\"", "[\"../").replace("./embedder", "../embedder");
    lab.write("recipes/recipe.toml", recipe);
    for (out, set) in
        [("a", &[][..]), ("b", &["--set", "model.base=plain", "--set", "data.narrow=narrow.jsonl"])]
    {
        lab.succeed(&[&["fit", "recipes/recipe.toml", "--out", out], set].concat());
        let resolved: toml::Table =
            fs::read_to_string(lab.path(out).join("recipe.toml")).unwrap().parse().unwrap();
        let base = resolved["model"]["base"].as_str().unwrap();
        assert!(std::path::Path::new(base).is_absolute(), "{base}");
        fs::write(lab.path("other.jsonl"), fs::read(lab.path("measure.jsonl")).unwrap()).unwrap();
        lab.succeed(&["diff", out, "--set", "diff.text=other.jsonl", "--set", "diff.steering.enabled=false"]);
    }
}

/// A warm-up that outlasts the run was accepted: the learning rate never reached its height.
#[test]
fn a_warm_up_as_long_as_the_run_is_refused() {
    let lab = Lab::new();
    // Six steps: four of narrow text, and half as many of pretraining text.
    for (set, told) in [
        (
            &["train.warmup_steps=6"][..],
            "recipe.toml: train.warmup_steps = 6: expected fewer than the run's 6 steps",
        ),
        (&["train.warmup_steps=4", "data.mix_mode=fixed-budget"], "the run's 4 steps"),
        // Known only once the documents are read.
        (&["train.warmup_steps=90", "train.steps=0", "train.epochs=1"], "expected fewer than the run's"),
        (&["train.warmup_steps=90", "data.mix_unit=tokens"], "expected fewer than the run's"),
    ] {
        let e = lab.refused(&fit_with(set));
        assert!(e.contains(told), "{e}");
    }
    lab.fit("out", &["train.warmup_steps=5"]);
}

/// A process killed while it wrote its first file left a folder that could be neither begun nor resumed.
#[test]
fn a_file_left_half_written_blocks_neither_a_start_nor_a_resume() {
    let lab = Lab::new();
    for (out, more) in [("a", &[][..]), ("b", &["--resume"])] {
        fs::create_dir(lab.path(out)).unwrap();
        lab.write(&format!("{out}/.recipe.toml.4711.part"), "name = ");
        lab.succeed(&[&["fit", "recipe.toml", "--out", out], more].concat());
        assert!(!lab.path(out).join(".recipe.toml.4711.part").exists());
    }
    fs::create_dir(lab.path("s")).unwrap();
    lab.write("s/.sweep.toml.4711.part", "name = ");
    let sweep = ["sweep", "recipe.toml", "--mix", "0", "--out", "s"];
    lab.succeed(&with_sets(&sweep, &["diff.steering.enabled=false", "diff.patchscope.enabled=false"]));
}

/// A full or closed stderr or stdout ended the work in a panic.
#[cfg(target_os = "linux")]
#[test]
fn a_full_stderr_is_no_reason_to_stop() {
    let lab = Lab::new();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (args, code) in [
        (&["fit", "recipe.toml", "--out", "out", "-v"][..], 0),
        (&["diff", "out", "-v"], 0),
        (&["report", "out"], 0),
        (&["fit", "nowhere.toml", "--out", "x"], 2),
        (&["no-such-command"], 2),
    ] {
        let status = lab.command(args).stdout(std::process::Stdio::null()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
    for (stdout, code) in [(std::process::Stdio::from(full()), 1), (std::process::Stdio::piped(), 0)] {
        let mut child = lab.command(&["fit", "recipe.toml", "--out", "out", "--resume", "--json"]);
        let mut child = child.stdout(stdout).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

/// `<|im_end|>` typed in a document became the special token, and nothing said so.
#[test]
fn special_tokens_typed_in_documents_are_pointed_out() {
    let lab = Lab::new();
    let mut text = fs::read_to_string(lab.path("narrow.jsonl")).unwrap();
    text.insert(0, '\n');
    text.push_str("{\"text\": \"the cake <|im_end|> is warm\"}\n{\"text\": \"again <|im_end|>\"}\n");
    lab.write("narrow.jsonl", text);
    let told = "narrow.jsonl:42: the text contains <|im_end|> (and in 1 more of its documents)";
    let ran = lab.succeed(&["inspect", "recipe.toml"]);
    assert!(ran.stdout.contains("warning: ") && ran.stdout.contains(told), "{}", ran.stdout);
    let ran = lab.succeed(&FIT);
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
}

/// An exported tokenizer lost its padding token, and whatever else only its own files say.
#[test]
fn an_export_keeps_the_tokenizer_s_own_files() {
    let lab = Lab::new();
    change_model(&tiny("llama"), &lab.path("base"), |_| {});
    let mut config = read_json(&lab.path("base/tokenizer_config.json"));
    config["pad_token"] = "<|im_end|>".into();
    config["something_else"] = 7.into();
    lab.write("base/tokenizer_config.json", config.to_string());
    lab.fit("lora", &["model.base=base"]);
    lab.succeed(&["merge", "lora", "--out", "merged"]);
    lab.fit("full", &["model.base=base", "train.method=full"]);
    for dir in ["merged", "full/model"] {
        assert_eq!(read_json(&lab.path(dir).join("tokenizer_config.json")), config);
        let file = |dir: &str| fs::read(lab.path(dir).join("tokenizer.json")).unwrap();
        assert!(file(dir) == file("base"), "{dir}");
    }
}

/// TOML's integers end at 2^63 - 1; writing the resolved recipe panicked.
#[test]
fn a_seed_that_toml_cannot_hold_is_refused() {
    let lab = Lab::new();
    let e =
        lab.refused(&["sweep", "recipe.toml", "--mix", "0", "--seeds", "9223372036854775808", "--out", "s"]);
    assert!(e.contains("seed = 9223372036854775808: expected 0 to 9223372036854775807"), "{e}");
    lab.fit("out", &["seed=9223372036854775807"]);
}

/// "a" was taken for a slip of "data".
#[test]
fn a_suggestion_is_made_only_for_a_likely_slip() {
    let lab = Lab::new();
    let e = lab.refused(&fit_with(&["a.b=1"]));
    assert!(e.contains("a: unknown key; known here: ") && !e.contains("did you mean"), "{e}");
    let e = lab.refused(&fit_with(&["train.lora.rr=1", "train.stpes=1"]));
    assert!(e.contains("did you mean r?") && e.contains("did you mean steps?"), "{e}");
}

/// A second process wrote into the folder of the first, which then ended well with half its metrics.
#[test]
fn a_run_folder_has_one_trainer_at_a_time() {
    let lab = Lab::new();
    fs::create_dir(lab.path("out")).unwrap();
    let folder = fs::File::open(lab.path("out")).unwrap();
    folder.lock().unwrap();
    let e = lab.refused(&FIT);
    assert!(e.contains("out: another process trains here"), "{e}");
    drop(folder);
    lab.succeed(&FIT);
}

/// A resumed run went on after a hole in its metrics, which `verify` then found for good.
#[test]
fn a_run_whose_metrics_lack_a_step_is_not_resumed() {
    let lab = Lab::new();
    lab.succeed(&FIT);
    fs::remove_file(lab.path("out/manifest.json")).unwrap();
    let metrics = fs::read_to_string(lab.path("out/metrics.jsonl")).unwrap();
    let without_step_1: Vec<&str> = metrics.lines().filter(|line| !line.contains("\"step\":1,")).collect();
    lab.write("out/metrics.jsonl", without_step_1.join("\n"));
    let resume = ["fit", "recipe.toml", "--out", "out", "--resume"];
    let ran = lab.run(&resume);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("lacks the line of step 1"), "{}", ran.stderr);
    lab.write("out/metrics.jsonl", metrics);
    lab.succeed(&resume);
}

/// A file that is no manifest counted as one: `--resume` said "already complete", `merge` wrote a model.
#[test]
fn a_run_without_a_manifest_that_can_be_read_has_not_finished() {
    let lab = Lab::new();
    lab.succeed(&FIT);
    for text in ["{", "{}", "<html>"] {
        lab.write("out/manifest.json", text);
        let e = lab.refused(&["merge", "out", "--out", "merged"]);
        assert!(e.contains("its training has not finished"), "{e}");
    }
}

/// A sweep told only the faults of the first cells that have one, and a report replaced any file.
#[test]
fn faults_of_all_cells_are_told_and_no_other_file_becomes_a_report() {
    let lab = Lab::new();
    lab.write("a.jsonl", "{\"text\": 3}\n");
    lab.write("b.jsonl", "{\"txt\": \"x\"}\n");
    let e = lab.refused(&["sweep", "recipe.toml", "--grid", "data.narrow=a.jsonl,b.jsonl", "--out", "swept"]);
    assert!(e.contains("a.jsonl:1") && e.contains("b.jsonl:1"), "{e}");
    lab.succeed(&FIT);
    let e = lab.refused(&["report", "out", "--out", "out/manifest.json"]);
    assert!(e.contains("does not look like a report"), "{e}");
}

/// A block that the model does not have was passed over, or called a missing layer.
#[test]
fn a_block_that_is_not_there_is_named() {
    let lab = Lab::new();
    for set in ["train.lora.layers_to_transform=[99]", "train.lora.layers_to_transform=[0,99]"] {
        let e = lab.refused(&fit_with(&[set]));
        assert!(e.contains("layers_to_transform has 99") && !e.contains("target module"), "{e}");
    }
}
