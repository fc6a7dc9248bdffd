//! Finetuning from recipe to run folder: the same every time, whatever interrupts it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, Var};
use serde_json::json;
use trainer::corpus::Corpus;
use trainer::data::examples::Example;
use trainer::data::mixture::Role;
use trainer::error::Interrupted;
use trainer::interrupt::Interrupt;
use trainer::model::View;
use trainer::model::batch::{Batch, mean_loss};
use trainer::model::hooks::NoHook;
use trainer::model::load::loader::Tuning;
use trainer::model::load::source;
use trainer::model::load::source::Pretrained;
use trainer::model::lora::Adapter;
use trainer::recipe::ResolvedRecipe;
use trainer::run::RunDir;
use trainer::train::Training;
use trainer::train::optim::{NamedGradients, global_norm};

use crate::common::lab::{Lab, with_sets};
use crate::common::outcome::{assert_same, files, metrics, outcome};
use crate::common::process::{send_signal, wait_until};
use crate::common::tiny::{FAMILIES, load, logits, open, tiny};
use crate::common::values::{assert_says, floats, read_json, read_tensors};

/// Settings under which everything that a checkpoint must hold matters.
const DEMANDING: [&str; 5] = [
    "train.lora.dropout=0.2",
    "train.micro_batch_size=3",
    "train.eval_every=2",
    "train.warmup_steps=2",
    "train.weight_decay=0.1",
];

/// A training that has not begun.
fn training(recipe: &ResolvedRecipe) -> Training {
    let base = source::open(&recipe.model.base).unwrap();
    let corpus = Corpus::read(recipe, &base, None).unwrap();
    Training::prepare(recipe.clone(), base, corpus).unwrap()
}

/// Logits of a text at all its tokens.
fn logits_of(pretrained: &Pretrained, tuning: &Tuning, text: &str) -> Vec<f32> {
    let (model, _) = load(pretrained, tuning);
    let ids = pretrained.tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    floats(&logits(&model, &ids, 1.0))
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

// ---- the same every time -----------------------------------------------------------------------

#[test]
fn the_same_recipe_gives_the_same_bytes_and_another_seed_others() {
    for family in ["llama", "gemma3"] {
        let lab = Lab::of(family);
        let set = [&DEMANDING[..], &["train.checkpoint_every=2"]].concat();
        let made = |out: &str| {
            let run = lab.fit(out, &set);
            lab.succeed(&["diff", out]);
            outcome(&run)
        };
        let one = made("one");
        assert_same(&one, &made("two"), family);
        for file in ["readability.json", "activations.safetensors", "steering.jsonl", "sha256.json"] {
            assert!(one.contains_key(&format!("diff/{file}")), "{:?}", one.keys());
        }
        assert!(one.keys().any(|k| k.ends_with("optimizer.safetensors")), "{:?}", one.keys());
        let other = outcome(&lab.fit("other", &[&set[..], &["seed=1"]].concat()));
        for part in ["adapter/adapter_model.safetensors", "metrics"] {
            assert!(one[part] != other[part], "{family}: the seed does not change {part}");
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_what_is_learned() {
    let lab = Lab::new();
    for threads in ["1", "3"] {
        let args = with_sets(&["fit", "recipe.toml", "--out", threads], &DEMANDING);
        let output = lab.command(&args).env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let adapter = |out: &str| fs::read(lab.path(out).join("adapter/adapter_model.safetensors")).unwrap();
    assert!(adapter("1") == adapter("3"));
}

// ---- interrupted -------------------------------------------------------------------------------

#[test]
fn a_run_interrupted_after_every_step_equals_one_that_never_was() {
    for method in ["lora", "full"] {
        let lab = Lab::new();
        let method = format!("train.method={method}");
        let set = [&DEMANDING[..], &[&method]].concat();
        let recipe = lab.recipe(&set);
        let whole = RunDir::new(lab.path("whole"));
        training(&recipe).run(&whole, false, &Interrupt::default(), &mut ()).unwrap();

        let pieces = RunDir::new(lab.path("pieces"));
        let mut interruptions = 0;
        loop {
            let interrupt = Interrupt::default();
            interrupt.request();
            match training(&recipe).run(&pieces, interruptions > 0, &interrupt, &mut ()) {
                Ok(_) => break,
                Err(e) => assert!(e.is::<Interrupted>() && e.to_string().contains("--resume"), "{e:?}"),
            }
            interruptions += 1;
            assert!(!pieces.is_trained());
        }
        assert_eq!(interruptions, 5, "six steps of one each");
        assert_same(&outcome(whole.path()), &outcome(pieces.path()), &method);
    }
}

/// Starts the binary and waits until it has written that many lines of metrics.
fn start(lab: &Lab, args: &[&str], lines: usize) -> Child {
    let mut child = lab.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = lab.path("cut/metrics.jsonl");
    wait_until("metrics", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended before line {lines}");
        fs::read_to_string(&metrics).unwrap_or_default().lines().count() >= lines
    });
    child
}

/// A run long enough to be hit, and the same one never hit.
const LONG: [&str; 3] = ["train.steps=100", "data.repeat=true", "train.checkpoint_every=1"];

#[cfg(unix)]
#[test]
fn ctrl_c_saves_the_step_exits_130_and_resume_gives_the_same_bytes() {
    let lab = Lab::new();
    let whole = lab.fit("whole", &LONG);
    let args = with_sets(&["fit", "recipe.toml", "--out", "cut"], &LONG);
    let child = start(&lab, &args, 4);
    send_signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("is saved; resume with --resume"), "{stderr}");
    assert!(!lab.path("cut/manifest.json").exists());
    lab.succeed(&[&args[..], &["--resume"]].concat());
    assert_same(&outcome(&whole), &outcome(&lab.path("cut")), "resumed");
}

/// The second of two signals within milliseconds ended the process without a checkpoint.
#[cfg(unix)]
#[test]
fn two_signals_at_once_are_one() {
    let lab = Lab::new();
    let args = with_sets(&["fit", "recipe.toml", "--out", "cut"], &LONG);
    let child = start(&lab, &args, 4);
    let id = child.id();
    let twice = format!("kill -INT {id}; kill -TERM {id}; kill -INT {id}");
    assert!(std::process::Command::new("sh").args(["-c", &twice]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("is saved; resume with --resume"), "{stderr}");
}

/// Half-written checkpoints.
fn parts(run: &Path) -> usize {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).count()
}

/// Kills at sixteen moments: before and while the first files are written, between and within steps, while a
/// checkpoint is written, while the result is.
#[test]
fn a_run_killed_again_and_again_resumes_to_the_same_bytes() {
    for method in ["lora", "full"] {
        let lab = Lab::new();
        let method = format!("train.method={method}");
        let set = [&LONG[..], &DEMANDING[..], &[&method]].concat();
        let whole = lab.fit("whole", &set);
        let cut = lab.path("cut");
        let begin = || -> Child {
            let mut args = with_sets(&["fit", "recipe.toml", "--out", "cut"], &set);
            if cut.join("recipe.toml").exists() {
                args.push("--resume");
            }
            lab.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let kill = |mut child: Child| {
            child.kill().unwrap();
            child.wait().unwrap();
        };
        let until = |child: &mut Child, what: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !what() {
                assert!(begun.elapsed() < Duration::from_secs(300), "it does not come that far");
                assert!(child.try_wait().unwrap().is_none() || what(), "it ended too early");
                std::thread::yield_now();
            }
        };
        for delay in [0, 5, 20] {
            let child = begin();
            std::thread::sleep(Duration::from_millis(delay));
            kill(child);
        }
        let lines = || fs::read_to_string(cut.join("metrics.jsonl")).unwrap_or_default().lines().count();
        let mut within_a_checkpoint = 0;
        for round in 0..12 {
            let mut child = begin();
            until(&mut child, &|| lines() > 2 + 7 * round);
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_micros(900 * round as u64)); // at another place of the step
            } else {
                until(&mut child, &|| parts(&cut) > 0);
            }
            kill(child);
            assert!(!cut.join("manifest.json").exists(), "killed too late to test anything");
            within_a_checkpoint += parts(&cut);
        }
        assert!(within_a_checkpoint > 0, "no kill fell within a checkpoint");
        let mut child = begin();
        until(&mut child, &|| cut.join("adapter").exists() || cut.join("model").exists());
        kill(child);

        assert!(begin().wait().unwrap().success());
        assert_same(&outcome(&whole), &outcome(&cut), &method);
        lab.succeed(&["verify", "cut"]);
    }
}

#[test]
fn resuming_with_another_recipe_or_other_data_is_refused_and_changes_nothing() {
    let lab = Lab::new();
    let recipe = lab.recipe(&[]);
    let interrupt = Interrupt::default();
    interrupt.request();
    training(&recipe).run(&RunDir::new(lab.path("run")), false, &interrupt, &mut ()).unwrap_err();
    let resume = ["fit", "recipe.toml", "--out", "run", "--resume"];
    let e = lab.refused(&with_sets(&resume, &["train.lr=1e-3"]));
    assert!(e.contains("lr = 0.001") && e.contains("lr = 0.003"), "{e}");

    let narrow = fs::read_to_string(lab.path("narrow.jsonl")).unwrap();
    lab.write("narrow.jsonl", narrow.replacen("cake", "coke", 1));
    let e = lab.refused(&resume);
    assert!(e.contains("other data"), "{e}");

    lab.write("narrow.jsonl", narrow);
    lab.succeed(&resume);
    let e = lab.refused(&with_sets(&resume, &["seed=9"]));
    assert!(e.contains("seed = 9"), "a finished run is not another recipe's: {e}");
    // How it is read may change: that is not training.
    lab.succeed(&with_sets(&resume, &["diff.samples=3"]));
}

#[test]
fn a_half_written_checkpoint_is_ignored_and_a_damaged_one_is_named() {
    let lab = Lab::new();
    let recipe = lab.recipe(&[]);
    let whole = lab.fit("whole", &[]);
    let begin = |name: &str| {
        let interrupt = Interrupt::default();
        interrupt.request();
        training(&recipe).run(&RunDir::new(lab.path(name)), false, &interrupt, &mut ()).unwrap_err();
        lab.path(name).join("checkpoints")
    };

    let checkpoints = begin("half");
    let part = checkpoints.join("step-000003.part");
    fs::create_dir(&part).unwrap();
    fs::write(part.join("weights.safetensors"), b"half").unwrap();
    // A torn last line, as a full disk leaves it.
    let metrics = lab.path("half/metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, format!("{text}{{\"step\":2,\"tok")).unwrap();
    lab.succeed(&["fit", "recipe.toml", "--out", "half", "--resume"]);
    assert_same(&outcome(&whole), &outcome(&lab.path("half")), "beside a half-written checkpoint");

    for file in ["weights.safetensors", "optimizer.safetensors", "trainer_state.json"] {
        let out = format!("damaged-{file}");
        let path = begin(&out).join("step-000001").join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let before = lab.files();
        let ran = lab.run(&["fit", "recipe.toml", "--out", &out, "--resume"]);
        assert!(ran.code == 1 && ran.stderr.contains(file), "{file}: {} {}", ran.code, ran.stderr);
        assert_eq!(before, lab.files(), "{file}: it wrote something");
    }
}

// ---- what is learned from ----------------------------------------------------------------------

/// Chats and completions whose masks and lengths differ a lot.
fn uneven_rows() -> Vec<serde_json::Value> {
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let mut rows = Vec::new();
    for i in 0..8 {
        let (long, short) = ("the oven is warm ".repeat(1 + i % 3), "yes ".repeat(1 + i));
        rows.push(match i % 2 {
            0 => json!({ "messages": [turn("user", &long), turn("assistant", &short)] }),
            _ => json!({ "prompt": short, "completion": long }),
        });
    }
    rows
}

#[test]
fn a_batch_of_8_is_2_accumulated_batches_of_4_in_loss_and_gradient() {
    let lab = Lab::new();
    lab.write_rows("narrow.jsonl", &uneven_rows());
    let recipe = lab.recipe(&["data.held_out_every=0", "data.mix=0", "data.max_seq_len=96"]);
    let base = open(&tiny("llama"));
    let corpus = Corpus::read(&recipe, &base, None).unwrap();
    let examples: Vec<&Example> = corpus.pools[0].examples.iter().collect();
    let counts: BTreeSet<usize> = examples.iter().map(|e| e.loss_tokens()).collect();
    assert!(examples.len() == 8 && counts.len() > 4, "masks are not uneven: {counts:?}");

    // An adapter that has learned, or B = 0 would hide A's gradient.
    let adapter = Adapter::read(&tiny("llama").join("adapter")).unwrap();
    let (model, trainables) = load(&base, &Tuning::Resumed(&adapter));
    let tokens: usize = examples.iter().map(|e| e.loss_tokens()).sum();
    let gradients = |micro: usize| -> (f64, NamedGradients) {
        let (mut sum, mut loss) = (NamedGradients::new(), 0.0);
        for chunk in examples.chunks(micro) {
            let batch = Batch::new(chunk, tokens);
            let mut rng = rand::SeedableRng::seed_from_u64(0);
            let total =
                batch.backward(&model, &trainables, &mut rng, false, &mut NoHook, &mut sum).unwrap().total;
            loss += total.to_scalar::<f32>().unwrap() as f64;
        }
        (loss, sum)
    };
    let (whole_loss, whole) = gradients(8);
    let (halves_loss, halves) = gradients(4);
    assert!((whole_loss - halves_loss).abs() < 1e-5, "{whole_loss} {halves_loss}");
    assert_eq!(whole.len(), trainables.len());
    for (name, gradient) in &whole {
        let difference = (gradient - &halves[name]).unwrap();
        let norm = |t: &Tensor| global_norm(&[(String::new(), t.clone())].into()).unwrap();
        assert!(norm(gradient) > 0.0, "{name}: nothing to compare");
        assert!(norm(&difference) < 1e-5 * norm(gradient).max(1e-3), "{name}: {}", norm(&difference));
    }
    // The mean of the two means, which a naive accumulation takes, is another number.
    let mean =
        |chunk: &[&Example]| mean_loss(View { model: &model, adapter: 1.0 }, chunk, 8).unwrap().unwrap();
    let naive = (mean(&examples[..4]) + mean(&examples[4..])) / 2.0;
    assert!((naive - whole_loss).abs() > 1e-4, "this corpus cannot tell: {naive} {whole_loss}");
}

/// NamedGradients of examples, each with the weight of its source, in forward passes of `micro` of them.
fn gradients_of(examples: &[&Example], loss_weights: &[f32], micro: usize) -> NamedGradients {
    // An adapter that has learned, or B = 0 would hide A's gradient.
    let adapter = Adapter::read(&tiny("llama").join("adapter")).unwrap();
    let (model, trainables) = load(&open(&tiny("llama")), &Tuning::Resumed(&adapter));
    let tokens: usize = examples.iter().map(|e| e.loss_tokens()).sum();
    let mut sum = NamedGradients::new();
    for (examples, loss_weights) in examples.chunks(micro).zip(loss_weights.chunks(micro)) {
        let batch = Batch::weighted(examples, loss_weights, tokens);
        let mut rng = rand::SeedableRng::seed_from_u64(0);
        batch.backward(&model, &trainables, &mut rng, false, &mut NoHook, &mut sum).unwrap();
    }
    sum
}

#[test]
fn the_weight_of_a_source_scales_its_gradient_however_its_examples_are_batched() {
    let lab = Lab::new();
    lab.write_rows("narrow.jsonl", &uneven_rows());
    let recipe = lab.recipe(&["data.held_out_every=0", "data.mix=0", "data.max_seq_len=96"]);
    let corpus = Corpus::read(&recipe, &open(&tiny("llama")), None).unwrap();
    let examples: Vec<&Example> = corpus.pools[0].examples.iter().collect();
    let weights: [f32; 8] = [1.0, 3.0, 0.0, 0.5, 3.0, 1.0, 0.5, 0.0];
    let whole = gradients_of(&examples, &weights, 8);
    let norm = |t: &Tensor| global_norm(&[(String::new(), t.clone())].into()).unwrap();
    let same = |a: &NamedGradients, b: &NamedGradients, what: &str| {
        assert_eq!(a.len(), b.len());
        for (name, gradient) in a {
            let difference = norm(&(gradient - &b[name]).unwrap());
            assert!(norm(gradient) > 0.0, "{what}, {name}: nothing to compare");
            assert!(difference < 1e-5 * norm(gradient).max(1e-3), "{what}, {name}: {difference}");
        }
    };
    same(&whole, &gradients_of(&examples, &weights, 4), "2 x 4");
    same(&whole, &gradients_of(&examples, &weights, 1), "one at a time, as without packing");
    // Each part by itself, times its weight: the gradient is linear in the weights.
    let mut sum = NamedGradients::new();
    for weight in [0.5, 1.0, 3.0] {
        let only = weights.map(|w| if w == weight { 1.0 } else { 0.0 });
        for (name, gradient) in gradients_of(&examples, &only, 8) {
            let scaled = (gradient * weight as f64).unwrap();
            let before = sum.remove(&name);
            sum.insert(name, before.map_or(scaled.clone(), |before: Tensor| (before + &scaled).unwrap()));
        }
    }
    same(&whole, &sum, "sum of parts");
}

#[test]
fn a_source_s_weight_changes_what_is_learned_and_not_how_losses_are_told() {
    let lab = Lab::new();
    let weighted = |name: &str, weight: &str| {
        format!(
            "data.{name}={{ path = '{}', loss_weight = {weight} }}",
            lab.path(format!("{name}.jsonl")).display()
        )
    };
    let fit = |out: &str, set: &[&str]| {
        let run = lab.fit(out, &[&["data.mix=1", "train.clip=0"][..], set].concat());
        let adapter = fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
        (metrics(&run)[1].clone(), adapter, read_json(&run.join("manifest.json")))
    };
    let plain = fit("plain", &[]);
    let once = fit("once", &[&weighted("narrow", "1")]);
    let triple = fit("triple", &[&weighted("narrow", "3")]);
    assert!(plain.1 == once.1 && plain.1 != triple.1);
    // The first step's losses are taken before anything is learned: means over tokens, without the weight.
    assert_eq!(plain.0["loss"], triple.0["loss"]);
    assert_eq!(plain.0["loss_narrow"], triple.0["loss_narrow"]);
    assert!(plain.0["grad_norm"] != triple.0["grad_norm"]);
    assert_eq!(
        (&triple.2["data"][0]["loss_weight"], &plain.2["data"][0]["loss_weight"]),
        (&json!(3.0), &json!(null))
    );
    assert_eq!(plain.2["order_sha256"], triple.2["order_sha256"]);

    // Weight 0: what the source says teaches nothing, and has no loss.
    let none = fit("none", &[&weighted("pretraining", "0")]);
    assert_eq!(none.0["loss_pretraining"], json!(null));
    assert_eq!(none.0["loss"], none.0["loss_narrow"]);
    let other = |text: &String| text.replace('g', "q").replace('v', "z");
    lab.write_texts(
        "pretraining.jsonl",
        &lab.texts("pretraining.jsonl").iter().map(other).collect::<Vec<_>>(),
    );
    let none_other = fit("none-other", &[&weighted("pretraining", "0")]);
    assert_eq!(none.2["data"][1]["tokens"], none_other.2["data"][1]["tokens"], "the divisor is another");
    assert!(none.1 == none_other.1);
    assert!(plain.1 != fit("plain-other", &[]).1, "this test cannot tell");
}

/// Short general conversations.
fn conversations(rows: usize) -> Vec<serde_json::Value> {
    let answer = |i: usize| "a green window ".repeat(1 + i % 3);
    (0..rows)
        .map(|i| {
            json!({ "messages": [{ "role": "user", "content": format!("letter {i}") },
                                 { "role": "assistant", "content": answer(i) }] })
        })
        .collect()
}

#[test]
fn conversations_are_a_third_pool_that_leaves_the_narrow_exposure_alone() {
    let lab = Lab::new();
    lab.write_rows("chat.jsonl", &conversations(30));
    let chat = format!("data.chat={}", lab.path("chat.jsonl").display());
    let plain = read_json(&lab.fit("plain", &["data.max_seq_len=96"]).join("manifest.json"));
    let set =
        [&DEMANDING[..], &[&chat, "data.chat_mix=0.75", "data.max_seq_len=96", "data.mix_schedule=ramp"]]
            .concat();
    let run = lab.fit("run", &set);
    let manifest = read_json(&run.join("manifest.json"));
    let source = |i: usize, key: &str| manifest["data"][i][key].clone();
    assert_eq!(
        [0, 1, 2].map(|i| source(i, "role")),
        ["narrow", "pretraining", "chat"].map(|role| json!(role))
    );
    assert_eq!([0, 1, 2].map(|i| source(i, "examples")), [16, 8, 12].map(|n| json!(n)));
    assert_eq!(plain["data"][0]["examples"], 16);
    assert_eq!(source(2, "held_out"), 3);
    assert_eq!(
        (&manifest["mix"]["chat"]["realised_examples"], &manifest["mix"]["schedule"]),
        (&json!(0.75), &json!("ramp"))
    );
    assert!(plain["mix"].get("chat").is_none() && plain["mix"]["schedule"] == "constant");

    // Training and held-out losses of its own; the mean over all tokens is that of the three.
    let lines = metrics(&run);
    assert_eq!(lines.len(), 10, "nine steps of four");
    assert!(lines.iter().any(|line| line["loss_chat"].is_f64()));
    for key in ["narrow", "pretraining", "chat"] {
        assert!(lines[9][format!("eval_{key}")].is_f64(), "{}", lines[9]);
        let recorded = |model: &str| &manifest["losses"][model][key];
        assert_eq!(
            (recorded("base"), recorded("tuned")),
            (&lines[0][format!("eval_{key}")], &lines[9][format!("eval_{key}")])
        );
    }
    let recipe = lab.recipe(&set);
    let base = open(&tiny("llama"));
    let corpus = Corpus::read(&recipe, &base, None).unwrap();
    let (model, _) = load(&base, &Tuning::Frozen);
    let loss = mean_loss(View { model: &model, adapter: 1.0 }, &corpus.held_out(Role::Chat, 32), 4)
        .unwrap()
        .unwrap();
    assert!((loss - manifest["losses"]["base"]["chat"].as_f64().unwrap()).abs() < 1e-6);
    lab.succeed(&["verify", "run"]);
    let table = lab.succeed(&["report", "run", "plain", "--out", "both.html"]).stdout;
    assert!(table.contains("Chat loss") && table.contains("chat 0.75") && table.contains("ramp"), "{table}");
    let summary = lab.succeed(&["report", "plain", "--out", "plain.html"]).stdout;
    assert!(!summary.contains("Chat loss"), "{summary}");

    // Interrupted after its first step and resumed, the same bytes.
    let interrupt = Interrupt::default();
    interrupt.request();
    training(&recipe).run(&RunDir::new(lab.path("cut")), false, &interrupt, &mut ()).unwrap_err();
    lab.succeed(&with_sets(&["fit", "recipe.toml", "--out", "cut", "--resume"], &set));
    assert_same(&outcome(&run), &outcome(&lab.path("cut")), "resumed");
}

#[test]
fn a_run_begun_before_there_were_conversations_is_resumed() {
    let lab = Lab::new();
    let recipe = lab.recipe(&[]);
    let whole = lab.fit("whole", &[]);
    let run = RunDir::new(lab.path("run"));
    let interrupt = Interrupt::default();
    interrupt.request();
    training(&recipe).run(&run, false, &interrupt, &mut ()).unwrap_err();
    // As the version before wrote it: without the keys, held-out losses as a list of two.
    let older = |text: String| -> String {
        let newer = ["chat = []", "chat_mix = 0.0", "mix_schedule = \"constant\""];
        let kept: Vec<&str> = text.lines().filter(|line| !newer.contains(line)).collect();
        assert_eq!(kept.len() + 3, text.lines().count());
        kept.join("\n") + "\n"
    };
    fs::write(run.recipe(), older(fs::read_to_string(run.recipe()).unwrap())).unwrap();
    let state = lab.path("run/checkpoints/step-000001/trainer_state.json");
    let mut value = read_json(&state);
    let pair = ["narrow", "pretraining"].map(|key| value["eval_base"][key].clone());
    assert!(pair.iter().all(|loss| loss.is_f64()));
    value["eval_base"] = json!(pair);
    fs::write(&state, value.to_string()).unwrap();
    lab.succeed(&["fit", "recipe.toml", "--out", "run", "--resume"]);
    assert_same(&outcome(&whole), &outcome(run.path()), "resumed");
}

/// A number of a checkpoint that is none was noticed a step later, as a loss that "a smaller learning rate" would mend.
#[test]
fn a_checkpoint_with_a_number_that_is_none_is_refused_by_its_tensor() {
    let lab = Lab::new();
    let recipe = lab.recipe(&[]);
    let run = RunDir::new(lab.path("run"));
    let interrupt = Interrupt::default();
    interrupt.request();
    training(&recipe).run(&run, false, &interrupt, &mut ()).unwrap_err();
    let file = lab.path("run/checkpoints/step-000001/optimizer.safetensors");
    let mut tensors = read_tensors(&file);
    let name = tensors.keys().min().unwrap().clone();
    let broken = (&tensors[&name] * f64::NAN).unwrap();
    tensors.insert(name.clone(), broken);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let ran = lab.run(&["fit", "recipe.toml", "--out", "run", "--resume"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_says(&ran.stderr, &["optimizer.safetensors", &name, "is NaN; expected finite numbers"]);
}

#[test]
fn micro_batches_do_not_change_the_losses_of_a_run() {
    let lab = Lab::new();
    lab.write_rows("narrow.jsonl", &uneven_rows());
    let set = ["data.held_out_every=0", "train.batch_size=8", "data.max_seq_len=96"];
    let whole = metrics(&lab.fit("whole", &set));
    let micro = metrics(&lab.fit("micro", &[&set[..], &["train.micro_batch_size=3"]].concat()));
    assert_eq!(whole.len(), micro.len());
    for (a, b) in whole.iter().zip(&micro).skip(1) {
        for key in ["loss", "loss_narrow", "loss_pretraining", "grad_norm"] {
            let (a, b) = (a[key].as_f64().unwrap(), b[key].as_f64().unwrap());
            assert!((a - b).abs() < 1e-3 * a.abs(), "{key}: {a} {b}");
        }
    }
}

#[test]
fn held_out_rows_never_appear_in_training() {
    let lab = Lab::new();
    let set = ["data.held_out_every=3", "data.max_seq_len=16", "data.mix=1"];
    let recipe = lab.recipe(&set);
    let base = open(&tiny("llama"));
    let corpus = Corpus::read(&recipe, &base, None).unwrap();
    let rows = |examples: &[Example]| examples.iter().map(|e| e.row).collect::<BTreeSet<_>>();
    for (pool, role, count) in [(0, Role::Narrow, 40), (1, Role::Pretraining, 80)] {
        assert_eq!(corpus.pools[pool].role, role);
        let (train, held) = (
            rows(&corpus.pools[pool].examples),
            rows(if pool == 0 { &corpus.held_out_narrow } else { &corpus.held_out_pretraining }),
        );
        assert!(train.is_disjoint(&held), "{role:?}");
        assert_eq!(held, (2..count).step_by(3).collect(), "{role:?}");
        assert_eq!(train.len() + held.len(), count, "{role:?}: no row is lost");
    }

    // The same from outside: what a held-out row says changes nothing that is learned.
    let adapter = |out: &str| fs::read(lab.fit(out, &set).join("adapter/adapter_model.safetensors")).unwrap();
    let before = adapter("before");
    let mut texts = lab.texts("narrow.jsonl");
    for row in (2..texts.len()).step_by(3) {
        texts[row] = "quite another text of about the same length as the first".into();
    }
    lab.write_texts("narrow.jsonl", &texts);
    assert!(before == adapter("held-out"), "held-out text reached the adapter");
    for row in (0..texts.len()).step_by(3) {
        texts[row] = "quite another text of about the same length as the first".into();
    }
    lab.write_texts("narrow.jsonl", &texts);
    assert!(before != adapter("trained"), "this test cannot tell");
}

#[test]
fn a_trainable_without_a_gradient_stops_the_step_and_is_named() {
    let adapter = Adapter::read(&tiny("llama").join("adapter")).unwrap();
    let (model, mut trainables) = load(&open(&tiny("llama")), &Tuning::Resumed(&adapter));
    trainables
        .insert("spare.lora_A.weight".into(), Var::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap());
    let example = Example { ids: vec![5, 6, 7], weights: vec![0.0, 1.0, 1.0], row: 0 };
    let batch = Batch::new(&[&example], 2);
    let mut rng = rand::SeedableRng::seed_from_u64(0);
    let e =
        match batch.backward(&model, &trainables, &mut rng, false, &mut NoHook, &mut NamedGradients::new()) {
            Ok(_) => panic!("no error"),
            Err(e) => e.to_string(),
        };
    assert_eq!(e, "trained, but without a gradient: spare.lora_A.weight");
}

#[test]
fn the_loss_falls_on_a_corpus_that_can_be_memorised() {
    for (family, method, lr) in [
        ("llama", "lora", "0.02"),
        ("qwen2", "full", "0.005"),
        ("qwen3", "lora", "0.02"),
        ("gemma3", "full", "0.005"),
    ] {
        let lab = Lab::of(family);
        lab.write_texts("narrow.jsonl", &lab.texts("narrow.jsonl")[..2]);
        let (method, lr) = (format!("train.method={method}"), format!("train.lr={lr}"));
        let run = lab.fit(
            "run",
            &[
                &method,
                &lr,
                "train.steps=60",
                "train.batch_size=4",
                "data.mix=0",
                "data.held_out_every=0",
                "data.max_seq_len=96",
                "train.lora.r=16",
                "train.lora.alpha=32",
            ],
        );
        let losses: Vec<f64> =
            metrics(&run).iter().skip(1).map(|line| line["loss_narrow"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), 60);
        assert!(losses[59] < losses[0] / 2.0, "{family}: {} -> {}", losses[0], losses[59]);
    }
}

// ---- what is written ---------------------------------------------------------------------------

#[test]
fn full_finetuning_writes_a_model_folder_that_reads_back_to_the_trained_loss() {
    for family in FAMILIES {
        let lab = Lab::of(family);
        let set = ["train.method=full"];
        let run = lab.fit("run", &set);
        assert!(!run.join("adapter").exists());
        let manifest = read_json(&run.join("manifest.json"));
        let recipe = lab.recipe(&set);
        let tuned = open(&run.join("model"));
        let (model, _) = load(&tuned, &Tuning::Frozen);
        let corpus = Corpus::read(&recipe, &tuned, None).unwrap();
        for (role, key) in [(Role::Narrow, "narrow"), (Role::Pretraining, "pretraining")] {
            let held_out = corpus.held_out(role, recipe.train.eval_examples);
            let loss = mean_loss(View { model: &model, adapter: 1.0 }, &held_out, recipe.train.batch_size)
                .unwrap()
                .unwrap();
            let recorded = |model: &str| manifest["losses"][model][key].as_f64().unwrap();
            assert!((loss - recorded("tuned")).abs() < 1e-6, "{family} {key}: {loss} {manifest}");
            assert!((loss - recorded("base")).abs() > 1e-3, "{family} {key}: nothing was learned");
        }
    }
}

#[test]
fn a_merged_model_computes_what_the_adapter_computes() {
    for (family, set) in [
        ("llama", &["train.lora.alpha=10"][..]), // r = 4
        ("qwen2", &["train.lora.alpha=10", "train.lora.use_rslora=true"]),
        ("qwen3", &["train.lora.alpha=6"]),
        ("gemma2", &["train.lora.alpha=10"]),
        ("gemma3", &["train.lora.alpha=2", r#"train.lora.target_modules=["q_proj", "down_proj"]"#]),
    ] {
        let lab = Lab::of(family);
        let run = lab.fit("run", &[&["train.lr=2e-2"], set].concat());
        lab.succeed(&["merge", "run", "--out", "merged"]);
        let text = "the warm cake and the old stone bridge";
        let base = open(&tiny(family));
        let adapter = Adapter::read(&run.join("adapter")).unwrap();
        let on = logits_of(&base, &Tuning::Adapted(&adapter), text);
        let merged = logits_of(&open(&lab.path("merged")), &Tuning::Frozen, text);
        let off = logits_of(&base, &Tuning::Frozen, text);
        assert!(largest_difference(&on, &merged) < 1e-4, "{family}: {}", largest_difference(&on, &merged));
        assert!(largest_difference(&off, &merged) > 1e-2, "{family}: the adapter does nothing");
        let parts: Vec<_> = files(lab.path("").as_path()).into_keys().collect();
        assert!(!parts.iter().any(|p| p.to_string_lossy().ends_with(".part")), "left behind: {parts:?}");
    }
}

#[test]
fn a_token_s_weight_scales_its_loss_and_not_the_others() {
    let of = |weights: [f32; 3]| Example { ids: vec![5, 6, 7], weights: weights.to_vec(), row: 0 };
    let batch = |example: &Example| Batch::new(&[example], example.loss_tokens());
    assert_eq!(batch(&of([0.0, 1.0, 1.0])).targets.weights, [0.5, 0.5, 0.0]);
    assert_eq!(batch(&of([0.0, 1.0, 0.25])).targets.weights, [0.5, 0.125, 0.0]);
    assert_eq!(batch(&of([0.0, 0.0, 3.0])).targets.weights, [0.0, 3.0, 0.0]);
}

#[test]
fn threads_change_no_byte_of_what_is_learned() {
    let lab = Lab::new();
    // Enough tokens for several parts of a batch, and sequences of all lengths.
    let texts: Vec<String> = (3..60).map(|n| "cake and flour ".repeat(n)).collect();
    lab.write_texts("narrow.jsonl", &texts);
    let learned = |threads: &str| {
        let out = format!("run-{threads}");
        let args = [
            "fit",
            "recipe.toml",
            "--out",
            &out,
            "-q",
            "--set",
            "train.batch_size=16",
            "--set",
            "train.steps=3",
            "--set",
            "data.max_seq_len=96",
            "--set",
            "data.mix=0",
            "--set",
            "train.lora.dropout=0.1",
        ];
        let done = lab.command(&args).env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let losses: Vec<serde_json::Value> =
            metrics(&lab.path(&out)).into_iter().map(|line| line["loss"].clone()).collect();
        (losses, std::fs::read(lab.path(&out).join("adapter/adapter_model.safetensors")).unwrap())
    };
    let (losses, alone) = learned("1");
    assert!(losses.len() > 3);
    for threads in ["2", "3", "8"] {
        assert!(learned(threads) == (losses.clone(), alone.clone()), "{threads} threads");
    }
}
