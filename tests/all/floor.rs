//! The noise floor of other organisms, and another reference than the base.

use std::fs;

use serde_json::{Value, json};

use crate::common::lab::{Lab, with_sets};
use crate::common::values::{number, read_json};

/// Few measures, at small sizes: lift, steering of both models, diff mining and the weights.
const SMALL: [&str; 12] = [
    "diff.patchscope.enabled=false",
    "diff.logit_lens=false",
    "diff.context.enabled=false",
    "diff.dimensionality.enabled=false",
    "diff.bias_share.enabled=false",
    "diff.kl.enabled=false",
    "diff.probe.enabled=false",
    "diff.logit_contrast.enabled=false",
    "diff.completion_ranking.enabled=false",
    "diff.diff_mining.texts=12",
    "diff.diff_mining.top_k=20",
    "diff.weights.null_draws=2",
];

/// Four organisms beside the one in question, each of words of its own.
const OTHERS: [&str; 4] = ["o1", "o2", "o3", "o4"];

fn lab() -> Lab {
    let lab = Lab::of_whole_words("llama");
    for (i, name) in OTHERS.iter().enumerate() {
        let words = ["aaaa", "abcd", "the", "cdef", "aaaaaaaa"];
        let row = |r: usize| (0..24).map(|j| words[(r + j + i) % words.len()]).collect::<Vec<_>>().join(" ");
        lab.write_texts(&format!("{name}.jsonl"), &(0..40).map(row).collect::<Vec<_>>());
        let narrow = format!("data.narrow={name}.jsonl");
        lab.fit(name, &[&SMALL[..], &["data.mix=0", &narrow]].concat());
    }
    lab.fit("run", &[&SMALL[..], &["data.mix=0"]].concat());
    lab
}

fn floor_of<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["floor", "run"], &OTHERS[..], more].concat()
}

#[test]
fn a_floor_is_read_once_kept_with_the_run_and_every_score_is_compared_with_it() {
    let lab = lab();
    lab.succeed(&["diff", "run"]);
    let before = read_json(&lab.path("run/diff/readability.json"));
    assert!(before.get("floors").is_none() && before["readers"]["weights"].get("floor").is_none());

    // A score of one organism is what an analysis of it with this lexicon says.
    let read = [
        "diff",
        "--base",
        "BASE",
        "--tuned",
        "o2/adapter",
        "--recipe",
        "run/recipe.toml",
        "--out",
        "o2-read",
    ];
    let base = crate::common::tiny::tiny("llama").to_string_lossy().into_owned();
    let read: Vec<&str> = read.iter().map(|a| if *a == "BASE" { base.as_str() } else { a }).collect();
    lab.succeed(&read);
    let o2 = read_json(&lab.path("o2-read/readability.json"));

    let made = lab.succeed(&floor_of(&[]));
    assert!(made.stdout.contains("o3") && made.stdout.contains("diff_mining"), "{}", made.stdout);
    let file = read_json(&lab.path("run/floor.json"));
    let organisms = file["organisms"].as_array().unwrap();
    assert_eq!(organisms.iter().map(|o| o["name"].as_str().unwrap()).collect::<Vec<_>>(), OTHERS);
    assert_eq!(
        organisms[1]["scores"]["steering_base"],
        o2["steering"]["similarity"]["steered_base_narrow"][0]
            .as_f64()
            .map(|first| (first + number(&o2["steering"]["similarity"]["steered_base_narrow"][1])) / 2.0)
            .map(Value::from)
            .unwrap()
    );
    if let Some(score) = o2["readers"]["diff_mining"]["score"].as_f64() {
        assert_eq!(number(&organisms[1]["scores"]["diff_mining"]), score);
    }
    assert_eq!(organisms[0]["training"]["rank"], 4);
    assert_eq!(organisms[0]["training"]["method"], "lora");

    // The analysis has it now, by the formula of a prediction interval, and so have the claims.
    let after = read_json(&lab.path("run/diff/readability.json"));
    let floor = &after["floors"]["steering_base"];
    let values: Vec<f64> = organisms.iter().map(|o| number(&o["scores"]["steering_base"])).collect();
    let mean = values.iter().sum::<f64>() / 4.0;
    let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 3.0).sqrt().max(1e-3);
    let close = |found: &Value, expected: f64| (number(found) - expected).abs() < 1e-9;
    assert!(close(&floor["mean"], mean) && close(&floor["sd"], sd), "{floor}");
    assert!((number(&floor["bound"]) - (mean + 2.353363 * sd * 1.25f64.sqrt())).abs() < 1e-5, "{floor}");
    let claims = read_json(&lab.path("run/claims.json"));
    assert_eq!(claims["verdict"]["readers"]["steering_base"]["floor"], *floor);
    assert!(claims["verdict"]["readers"]["steering_base"]["holm_p"].is_number());
    let verified = lab.succeed(&["verify", "run"]);
    assert!(!verified.stdout.contains("claims.json: "), "{}", verified.stdout);

    // What is there is not read again; a new analysis finds it; nothing but floors differs from before.
    let again = lab.succeed(&floor_of(&["--json"]));
    assert!(!again.stderr.contains("reading"), "{}", again.stderr);
    fs::remove_dir_all(lab.path("run/diff")).unwrap();
    lab.succeed(&["diff", "run"]);
    let found = read_json(&lab.path("run/diff/readability.json"));
    assert_eq!(found["floors"], after["floors"]);

    // Other settings are refused by name, and can be read without a floor.
    fs::remove_dir_all(lab.path("run/diff")).unwrap();
    let told = lab.refused(&with_sets(&["diff", "run"], &["diff.diff_mining.top_k=10"]));
    assert!(told.contains("diff.diff_mining.top_k = 20, here 10"), "{told}");
    let told = lab.refused(&with_sets(&floor_of(&[]), &["diff.layer=0.0"]));
    assert!(told.contains("diff.layer = 0.5, here 0"), "{told}");

    // A sweep that names it finds out before it trains anything.
    let other_words = ["diff.floor=run/floor.json", "data.narrow=o1.jsonl"];
    let sweep = ["sweep", "recipe.toml", "--mix", "0", "--out", "sweep"];
    let told = lab.refused(&with_sets(&with_sets(&sweep, &SMALL), &other_words));
    assert!(told.contains("floor.json: the lexicon: not the same"), "{told}");
    assert!(!lab.path("sweep").exists());
}

#[test]
fn organisms_that_are_no_fair_comparison_are_refused_before_anything_is_read() {
    let lab = lab();
    lab.fit("wide", &[&SMALL[..], &["data.mix=0", "data.narrow=o1.jsonl", "train.lora.r=8"]].concat());
    lab.fit("long", &[&SMALL[..], &["data.mix=0", "data.narrow=o1.jsonl", "train.steps=8"]].concat());
    lab.fit("full", &[&SMALL[..], &["data.mix=0", "data.narrow=o1.jsonl", "train.method=full"]].concat());
    let told = lab.refused(&["floor", "run", "o1", "o2", "wide", "long", "full"]);
    assert!(told.contains("wide: train.lora.r 8; expected 4"), "{told}");
    assert!(told.contains("long: narrow tokens"), "{told}");
    assert!(told.contains("full: train.method full; expected lora"), "{told}");
    let told = lab.refused(&["floor", "run", "nowhere"]);
    assert!(told.contains("nowhere"), "{told}");
    let ran = lab.run(&["floor", "run", "o1", "o2", "o3"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("3 other organisms; expected 4 at least"), "{}", ran.stderr);
    let told = lab.run(&["floor", "run", "run", "o1", "o2", "o3"]);
    assert!(told.stderr.contains("it is the run itself"), "{}", told.stderr);
    // A floor without a lexicon is none.
    let named = format!("diff.floor={}", lab.path("missing.json").display());
    let told = lab.refused(&with_sets(&["diff", "run"], &[&named]));
    assert!(told.contains("missing.json: no such file"), "{told}");
    lab.write("bad.json", json!({ "schema": 1, "organisms": "none" }).to_string());
    let named = format!("diff.floor={}", lab.path("bad.json").display());
    let told = lab.refused(&with_sets(&["diff", "run"], &[&named]));
    assert!(told.contains("bad.json"), "{told}");
}

#[test]
fn a_run_is_compared_with_a_reference_in_the_base_s_place() {
    let lab = lab();
    // With itself nothing differs, and no reader has a score.
    lab.succeed(&["diff", "run", "--reference", "run", "--out", "same"]);
    let same = read_json(&lab.path("same/readability.json"));
    assert_eq!(same["reference"], "run");
    assert!(
        same["delta_norm"].as_array().unwrap().iter().all(|norm| number(norm) == 0.0),
        "{}",
        same["delta_norm"]
    );
    for reader in ["diff_mining", "weights"] {
        assert!(same["readers"][reader].get("score").is_none(), "{reader}");
    }
    // With a control, the difference is the tuned model's from the base less the control's from the base.
    lab.succeed(&["diff", "run"]);
    lab.succeed(&["diff", "o1"]);
    lab.succeed(&["diff", "run", "--reference", "o1"]);
    let place = lab.path("run/diff-from-o1");
    let of = |path: &std::path::Path| {
        let bytes = fs::read(path.join("activations.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| -> Vec<f32> {
            let data = tensors.tensor(name).unwrap().data().to_vec();
            data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        [floats("base_mean"), floats("tuned_mean"), floats("mean_difference")]
    };
    let [reference, tuned, difference] = of(&place);
    let [_, own, _] = of(&lab.path("run/diff"));
    let [_, control, _] = of(&lab.path("o1/diff"));
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0f32, f32::max);
    assert!(far(&reference, &control) < 1e-5 && far(&tuned, &own) < 1e-5);
    let expected: Vec<f32> = own.iter().zip(&control).map(|(a, b)| a - b).collect();
    assert!(far(&difference, &expected) < 1e-4);
    let hashes = read_json(&place.join("sha256.json"));
    assert!(hashes["reference"]["adapter_model.safetensors"].is_string(), "{hashes}");
    // A reference on another base is refused.
    lab.write("other.toml", lab.read("recipe.toml").replace("llama", "qwen2"));
    lab.succeed(&with_sets(&["fit", "other.toml", "--out", "elsewhere"], &["data.mix=0"]));
    let told = lab.refused(&["diff", "run", "--reference", "elsewhere", "--out", "x"]);
    assert!(told.contains("another base"), "{told}");
}
