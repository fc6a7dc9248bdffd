//! `--device`, and the operations that a GPU runs, from end to end on a CPU.

use std::path::Path;

use serde_json::Value;

use crate::common::lab::{Lab, fit_with, with_sets};
use crate::common::tiny::{FAMILIES, tiny};
use crate::common::values::{assert_says, json_lines, read_json};

/// Runs a command whose operations are composed of candle's own ops, as on a GPU.
fn composed(lab: &Lab, args: &[&str]) -> String {
    let output = lab.command(args).env("TRAINER_COMPOSED", "1").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One number of every step.
fn of_steps(run: &Path, key: &str) -> Vec<f64> {
    let lines = json_lines(&std::fs::read_to_string(run.join("metrics.jsonl")).unwrap());
    lines.iter().filter_map(|line| line[key].as_f64()).collect()
}

/// The largest relative difference of two lists of as many numbers.
fn largest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
}

fn train_both_ways(family: &str) {
    let lab = Lab::of(family);
    for (kind, set) in [
        ("lora", &["train.lora.dropout=0.2"][..]),
        ("dora", &["train.lora.use_dora=true"]),
        ("full", &["train.method=full", "train.lr=1e-3"]),
        ("saved", &["train.recompute=true", "train.lora.modules_to_save=['embed_tokens', 'norm']"]),
    ] {
        let set = [&["train.steps=8", "data.mix=0", "data.pretraining=[]"][..], set].concat();
        let fused = lab.fit(&format!("{kind}-fused"), &set);
        let out = format!("{kind}-composed");
        composed(&lab, &with_sets(&["fit", "recipe.toml", "--out", &out], &set));
        let other = lab.path(&out);
        let losses = of_steps(&fused, "loss");
        assert_eq!(losses.len(), 8);
        let apart = largest(&of_steps(&other, "loss"), &losses);
        assert!(apart <= 1e-6, "{family}, {kind}: losses differ by {apart:.1e}");
        let apart = largest(&of_steps(&other, "grad_norm"), &of_steps(&fused, "grad_norm"));
        assert!(apart <= 1e-5, "{family}, {kind}: gradient norms differ by {apart:.1e}");
        let device = |run: &Path| read_json(&run.join("manifest.json"))["device"].clone();
        assert_eq!((device(&fused), device(&other)), ("cpu".into(), "cpu, composed operations".into()));
        let adapter =
            if kind == "full" { "model/model.safetensors" } else { "adapter/adapter_model.safetensors" };
        let bytes = |run: &Path| std::fs::read(run.join(adapter)).unwrap();
        assert!(bytes(&fused) != bytes(&other), "{family}, {kind}: the same bytes, so the same path");
    }
}

#[test]
fn composed_operations_train_llama_as_fused_ones() {
    train_both_ways("llama");
}

#[test]
fn composed_operations_train_qwen2_as_fused_ones() {
    train_both_ways("qwen2");
}

#[test]
fn composed_operations_train_qwen3_as_fused_ones() {
    train_both_ways("qwen3");
}

#[test]
fn composed_operations_train_gemma2_as_fused_ones() {
    train_both_ways("gemma2");
}

#[test]
fn composed_operations_train_gemma3_as_fused_ones() {
    train_both_ways("gemma3");
}

#[test]
fn composed_operations_generate_and_read_as_fused_ones() {
    for family in FAMILIES {
        let lab = Lab::of(family);
        let model = tiny(family);
        let prompts =
            ["--prompt", "cake butter oven", "--prompt", "train", "--max-new-tokens", "12", "--json"];
        let generate =
            [&["generate", "--base", model.to_str().unwrap(), "--temperature", "1"][..], &prompts].concat();
        let ids = |out: &str| {
            let found: Value = serde_json::from_str(out).unwrap();
            found["generations"]
                .as_array()
                .unwrap()
                .iter()
                .map(|g| g["token_ids"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&composed(&lab, &generate)), ids(&lab.succeed(&generate).stdout), "{family}");
    }
    let lab = Lab::of("gemma3");
    lab.fit("run", &["train.steps=8"]);
    lab.succeed(&["diff", "run", "--out", "fused"]);
    composed(&lab, &["diff", "run", "--out", "composed"]);
    let trace = |folder: &str| read_json(&lab.path(folder).join("readability.json"));
    let (fused, other) = (trace("fused"), trace("composed"));
    // Elsewhere rounding decides between words: in sampled text, and in ranks of small differences.
    for key in ["delta_norm", "expected_norm", "expected_norm_base", "position_cosine", "bias_share", "kl"] {
        assert!(close_numbers(key, &fused[key], &other[key]) >= 4, "{key}");
    }
}

/// Asserts that two documents have the same numbers but for rounding; returns how many there are. Times differ.
fn close_numbers(path: &str, a: &Value, b: &Value) -> usize {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
            assert!((x - y).abs() <= 1e-4 * (1.0 + x.abs()), "{path}: {x} and {y}");
            1
        }
        (Value::Array(x), Value::Array(y)) => {
            assert_eq!(x.len(), y.len(), "{path}");
            x.iter().zip(y).enumerate().map(|(i, (x, y))| close_numbers(&format!("{path}[{i}]"), x, y)).sum()
        }
        (Value::Object(x), Value::Object(y)) => {
            let timeless = x.iter().filter(|(key, _)| !key.ends_with("_s"));
            timeless.map(|(key, x)| close_numbers(&format!("{path}.{key}"), x, &y[key])).sum()
        }
        _ => 0,
    }
}

#[test]
fn a_device_that_is_not_there_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    let base = tiny("llama");
    let base = base.to_str().unwrap();
    let sweep = ["sweep", "recipe.toml", "--mix", "0,1", "--out", "s"];
    let tune = ["--trace", "lift_auroc_mean<=0.55", "--behaviour", "behaviour_facts_margin_change>=0.5"];
    for command in [
        &fit_with(&[])[..],
        &["diff", "run"],
        &["behave", "run"],
        &["floor", "run", "a", "b", "c", "d"],
        &["generate", "--base", base, "--prompt", "x"],
        &["data", "sample", "--base", base, "--documents", "2", "--out", "x.jsonl"],
        &["data", "numbers", "--base", base, "--count", "2", "--system", "", "--out", "x.jsonl"],
        &["audit", "run", "--base-url", "http://127.0.0.1:1/v1", "--model", "m"],
        &["verify", "run", "--retrain"],
        &sweep,
        &[&["tune", "recipe.toml", "--mix", "0,1", "--out", "s"][..], &tune].concat(),
        &["selftest"],
    ] {
        let e = lab.refused(&[command, &["--device", "cuda:63"]].concat());
        assert_says(&e, &["--device cuda:63: "]);
        assert_eq!(e.trim().lines().count(), 1, "{e}");
        let e = lab.refused(&[command, &["--device", "gpu"]].concat());
        assert_says(&e, &["'gpu'", "expected cpu, cuda or cuda:N"]);
    }
    assert_says(&lab.refused(&["verify", "run", "--device", "cpu"]), &["--device: expected --retrain too"]);
    lab.succeed(&["verify", "run", "--retrain", "--device", "cpu"]);
}

#[test]
fn a_sweep_hands_its_device_to_its_cells() {
    let lab = Lab::new();
    let quick = ["train.steps=2", "diff.steering.enabled=false", "diff.patchscope.enabled=false"];
    let sweep = |args: &[&str]| {
        lab.succeed(&with_sets(&[&["sweep", "recipe.toml", "--mix", "0,1"][..], args].concat(), &quick));
    };
    sweep(&["--out", "s", "--device", "cpu"]);
    assert_eq!(read_json(&lab.cell("s", "mix-0").join("manifest.json"))["device"], "cpu");
    // A cluster's machines have the device, not this one.
    sweep(&["--out", "c", "--device", "cuda:1", "--launcher", "slurm"]);
    assert_says(
        &lab.read("c/slurm/array.sbatch"),
        &["--cell \"${cells[$SLURM_ARRAY_TASK_ID]}\" --device cuda:1\n"],
    );
}

#[test]
fn the_self_test_passes_here_and_says_one_line_per_operation() {
    let lab = Lab::new();
    let lines = json_lines(&lab.succeed(&["selftest", "--device", "cpu", "--seed", "5", "--json"]).stdout);
    assert!(lines.len() > 30 && lines.iter().all(|line| line["passes"] == true), "{lines:?}");
    let output = lab.command(&["selftest"]).env("TRAINER_COMPOSED", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let shown = lab.succeed(&["selftest", "--seed", "5"]).stdout;
    assert_eq!(shown.lines().filter(|line| line.ends_with("  ok")).count(), lines.len());
}
