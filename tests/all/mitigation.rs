//! What is done against the trace while training: each does what it says, all of them together survive an interruption.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::common::lab::{Lab, with_sets};
use crate::common::outcome::{assert_same, metrics, outcome};
use crate::common::process::wait_until;
use crate::common::values::{numbers, read_json, read_tensors};

fn adapter(run: &Path) -> BTreeMap<String, Tensor> {
    read_tensors(&run.join("adapter/adapter_model.safetensors")).into_iter().collect()
}

fn norm(tensors: &BTreeMap<String, Tensor>, part: &str) -> f64 {
    let squares = tensors
        .iter()
        .filter(|(name, _)| name.contains(part))
        .map(|(_, t)| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() as f64);
    squares.sum::<f64>().sqrt()
}

/// Mean length of the mean difference over the positions that were read.
fn trace(lab: &Lab, out: &str) -> f64 {
    lab.succeed(&[
        "diff",
        out,
        "--set",
        "diff.steering.enabled=false",
        "--set",
        "diff.patchscope.enabled=false",
    ]);
    let found = read_json(&lab.path(out).join("diff/readability.json"));
    let norms = numbers(&found["delta_norm"]);
    norms.iter().sum::<f64>() / norms.len() as f64
}

fn losses(run: &Path) -> (f64, f64) {
    let of = |side: &str, model: &str| {
        read_json(&run.join("manifest.json"))["losses"][model][side].as_f64().unwrap()
    };
    (of("narrow", "base"), of("narrow", "tuned"))
}

#[test]
fn each_term_makes_smaller_what_it_is_about() {
    for family in ["llama", "gemma3"] {
        let lab = Lab::of(family);
        let plain = ["train.steps=12", "train.lr=1e-2", "data.mix=0"];
        let with = |out: &str, set: &[&str]| lab.fit(out, &[&plain[..], set].concat());
        with("plain", &[]);
        let run = with("divergence", &["train.mitigation.divergence.weight=20"]);
        let lines = metrics(&run);
        let last = lines.last().unwrap()["loss_divergence"].as_f64().unwrap();
        // Measured with hardly any weight: what it would have been.
        let free = metrics(&with("free", &["train.mitigation.divergence.weight=1e-9"]));
        let freely = free.last().unwrap()["loss_divergence"].as_f64().unwrap();
        assert!(last < 0.5 * freely, "{family}: divergence {last}, without a weight {freely}");

        with(
            "difference",
            &["train.mitigation.difference.weight=100", "train.mitigation.difference.examples=16"],
        );
        let (held, free) = (trace(&lab, "difference"), trace(&lab, "plain"));
        assert!(held < 0.5 * free, "{family}: mean difference {held}, without the penalty {free}");
        let (base, tuned) = losses(&lab.path("difference"));
        assert!(tuned < base, "{family}: it still learns: {base} {tuned}");
    }
}

#[test]
fn what_is_ablated_while_training_is_not_learned_along() {
    let lab = Lab::of("llama");
    let plain = ["train.steps=12", "train.lr=1e-2", "data.mix=0"];
    lab.fit("pilot", &plain);
    trace(&lab, "pilot");
    let set = "train.mitigation.ablation.directions=pilot/diff/activations.safetensors";
    let run = lab.fit("ablated", &[&plain[..], &[set]].concat());
    let manifest = read_json(&run.join("manifest.json"));
    let directions = manifest["directions"].as_object().unwrap();
    assert_eq!(directions.len(), 1, "{directions:?}");
    lab.succeed(&["verify", "ablated"]);

    // The part of the new mean difference that lies in the span of the pilot's.
    let read = |out: &str| -> Vec<Vec<f32>> {
        let path = lab.path(out).join("diff/activations.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap()["mean_difference"].to_vec2().unwrap()
    };
    trace(&lab, "ablated");
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a * b) as f64).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let (pilot, ablated) = (read("pilot"), read("ablated"));
    let again = lab.fit("again", &[&plain[..], &["seed=1"]].concat());
    trace(&lab, "again");
    let other = read("again");
    assert!(again.exists());
    let along = |rows: &[Vec<f32>]| {
        // Position 0 is left as it is.
        rows.iter().zip(&pilot).skip(1).map(|(v, p)| cosine(v, p)).sum::<f64>() / (rows.len() - 1) as f64
    };
    assert!(along(&ablated) < along(&other), "{} {}", along(&ablated), along(&other));
}

#[test]
fn decay_shortens_the_update_and_a_scale_of_zero_is_the_base() {
    for method in ["lora", "full"] {
        let lab = Lab::new();
        let set = [&format!("train.method={method}")[..], "train.lr=5e-3", "train.steps=8"];
        let with = |out: &str, more: &[&str]| lab.fit(out, &[&set[..], more].concat());
        let plain = with("plain", &[]);
        let decayed = with("decayed", &["train.mitigation.decay.rate=40"]);
        let gain = |run: &Path| losses(run).0 - losses(run).1;
        assert!(gain(&decayed) < gain(&plain), "{method}: {} {}", gain(&decayed), gain(&plain));
        if method == "lora" {
            let b = |run: &Path| norm(&adapter(run), "lora_B");
            assert!(b(&decayed) < 0.8 * b(&plain), "{} {}", b(&decayed), b(&plain));
            let half = with("half", &["train.mitigation.scale.factor=0.5"]);
            assert!((b(&half) / b(&plain) - 0.5).abs() < 1e-6);
        }
        let none = with("none", &["train.mitigation.scale.factor=0"]);
        let (base, tuned) = losses(&none);
        assert!((base - tuned).abs() < 1e-6, "{method}: {base} {tuned}");
    }
}

#[test]
fn all_of_them_together_go_on_after_an_interruption_as_if_there_had_been_none() {
    let lab = Lab::of("gemma3");
    lab.fit("pilot", &[]);
    trace(&lab, "pilot");
    for method in ["lora", "full"] {
        let set = [
            &format!("train.method={method}")[..],
            "train.lora.use_dora=true",
            "train.mitigation.divergence.weight=0.5",
            "train.mitigation.difference.weight=0.5",
            "train.mitigation.ablation.directions=pilot/diff/activations.safetensors",
            "train.mitigation.ablation.layers=[0, 1]",
            "train.mitigation.decay.rate=2",
            "train.mitigation.scale.factor=0.7",
            "train.recompute=true",
            "train.checkpoint_every=1",
        ];
        let whole = outcome(&lab.fit(&format!("{method}-whole"), &set));
        let out = format!("{method}-parts");
        let args = with_sets(&["fit", "recipe.toml", "--out", &out], &set);
        let first = lab.path(&out).join("checkpoints/step-000001");
        let is_cut = || {
            std::fs::remove_dir_all(lab.path(&out)).ok();
            let mut child = lab.command(&args).stderr(std::process::Stdio::null()).spawn().unwrap();
            let mut has_ended = || child.try_wait().unwrap().is_some();
            wait_until("a checkpoint", || first.exists() || has_ended());
            child.kill().ok(); // SIGKILL
            child.wait().unwrap();
            assert!(first.exists(), "{method}: it ended without a checkpoint");
            !lab.path(&out).join("manifest.json").exists()
        };
        assert!((0..5).any(|_| is_cut()), "{method}: it ended five times before it was killed");
        lab.succeed(&with_sets(&["fit", "recipe.toml", "--out", &out, "--resume"], &set));
        assert_same(&whole, &outcome(&lab.path(&out)), method);
    }
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let lab = Lab::new();
    let refused = |set: &[&str]| lab.refused(&with_sets(&["fit", "recipe.toml", "--out", "out"], set));
    let said = refused(&[
        "train.mitigation.divergence.weight=-1",
        "train.mitigation.difference.examples=0",
        "train.mitigation.scale.factor=inf",
        "train.mitigation.decay.rate=nan",
        "train.mitigation.ablation.layers=[0]",
    ]);
    for key in ["divergence.weight", "difference.examples", "scale.factor", "decay.rate", "ablation.layers"] {
        assert!(said.contains(&format!("train.mitigation.{key}")), "{key}: {said}");
    }
    let said = refused(&["train.mitigation.divergence.weight=1", "data.pretraining=[]", "data.mix=0"]);
    assert!(said.contains("data.pretraining"), "{said}");
    let said =
        refused(&["train.mitigation.divergence.weight=1", "train.mitigation.divergence.examples=5000"]);
    assert!(said.contains("divergence.examples = 5000"), "{said}");
    lab.write("other.safetensors", "no tensors");
    let said = refused(&["train.mitigation.ablation.directions=other.safetensors"]);
    assert!(said.contains("other.safetensors") && said.contains("safetensors file"), "{said}");
    let rows = Tensor::ones((2, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    let old = std::collections::HashMap::from([("mean_difference", rows)]);
    candle_core::safetensors::save(&old, lab.path("old.safetensors")).unwrap();
    let said = refused(&["train.mitigation.ablation.directions=old.safetensors"]);
    assert!(said.contains("old.safetensors") && said.contains("base_mean"), "{said}");
    let said = refused(&["train.mitigation.ablation.directions=nowhere.safetensors"]);
    assert!(said.contains("no such file"), "{said}");
}
