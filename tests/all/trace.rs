//! The trace while training: the numbers of the full analysis, without a change to what is learned; and ending by it.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::common::lab::{Lab, with_sets};
use crate::common::outcome::{assert_same, metrics, outcome};
use crate::common::process::wait_until;
use crate::common::values::{number, read_json};

const TRACED: [&str; 4] =
    ["train.trace.every=3", "train.trace.samples=12", "train.trace.texts=4", "data.held_out_every=4"];

fn adapter(run: &Path) -> Vec<u8> {
    fs::read(run.join("adapter/adapter_model.safetensors")).unwrap()
}

#[test]
fn readings_are_those_of_the_analysis_and_change_nothing_that_is_learned() {
    for (family, method) in [("llama", "lora"), ("gemma3", "full")] {
        let lab = Lab::of_whole_words(family);
        let set =
            [&format!("train.method={method}")[..], "train.steps=5", "data.mix=0.5", "data.held_out_every=4"];
        let traced = lab.fit("traced", &[&set[..], &TRACED].concat());
        let lines = metrics(&traced);
        let read: Vec<u64> = lines
            .iter()
            .filter(|line| line.get("trace_lift_auroc").is_some())
            .map(|line| line["step"].as_u64().unwrap())
            .collect();
        assert_eq!(read, [0, 3, 6, 8], "{family}");
        assert_eq!(number(&lines[0]["trace_delta_norm"]), 0.0);
        assert_eq!(number(&lines[0]["trace_lift_auroc"]), 0.5);
        assert!(lines.iter().all(|l| l.get("trace_lift_auroc").is_none() || l["trace_loss_narrow"].is_f64()));

        lab.succeed(&with_sets(
            &["diff", "traced"],
            &[
                "diff.samples=12",
                "diff.losses.samples=4",
                "diff.patchscope.enabled=false",
                "diff.steering.enabled=false",
            ],
        ));
        let full = read_json(&traced.join("diff/readability.json"));
        let last = lines.last().unwrap();
        assert_eq!(number(&last["trace_lift_auroc"]), number(&full["lift"]["auroc_mean"]), "{family}");
        for (kept, key) in [("trace_bias_share", "share"), ("trace_specific_share", "specific_share")] {
            let (kept, full) = (number(&last[kept]), number(&full["bias_share"][key]));
            assert!((kept - full).abs() < 1e-9, "{family} {key}: {kept} {full}");
        }
        let bias = &full["bias_share"];
        for (kept, full) in [
            ("trace_loss_narrow", &bias["ce_tuned"]),
            ("trace_loss_unrelated", &bias["text"]["ce_tuned"]),
            ("trace_gain", &bias["gain"]),
        ] {
            assert!((number(&last[kept]) - full.as_f64().unwrap()).abs() < 1e-9, "{family} {kept}: {full}");
        }

        if method == "lora" {
            assert!(
                adapter(&traced) == adapter(&lab.fit("plain", &set)),
                "{family}: reading changed the weights"
            );
        }
    }
}

#[test]
fn a_run_ends_when_it_has_taken_and_is_not_read_also_after_a_kill() {
    let lab = Lab::of_whole_words("llama");
    // Any reading after the first gain is below 1.1.
    let set = [&TRACED[..], &["train.steps=8", "train.trace.stop.gain=1e-6", "train.trace.stop.below=1.1"]]
        .concat();
    let run = lab.fit("stopped", &set);
    let manifest = read_json(&run.join("manifest.json"));
    assert_eq!(manifest["stopped_after"], 3);
    assert_eq!(metrics(&run).last().unwrap()["step"], 3);
    let examples: u64 =
        manifest["data"].as_array().unwrap().iter().map(|s| s["examples"].as_u64().unwrap()).sum();
    assert_eq!(examples, 12);
    lab.succeed(&["verify", "stopped"]);

    // As a process leaves it that is killed between its last checkpoint and its manifest.
    let whole = outcome(&run);
    fs::remove_file(run.join("manifest.json")).unwrap();
    fs::remove_dir_all(run.join("adapter")).unwrap();
    lab.succeed(&with_sets(&["fit", "recipe.toml", "--out", "stopped", "--resume"], &set));
    assert_same(&whole, &outcome(&run), "resumed");

    // A goal that is out of reach.
    let far = lab.fit("far", &[&set[..], &["train.trace.stop.gain=50"]].concat());
    assert_eq!(read_json(&far.join("manifest.json")).get("stopped_after"), None);
}

#[test]
fn readings_after_an_interruption_are_those_of_a_run_that_had_none() {
    for method in ["lora", "full"] {
        let lab = Lab::of_whole_words("llama");
        let method = format!("train.method={method}");
        let set = [
            &TRACED[..],
            &[
                &method,
                "train.steps=60",
                "data.repeat=true",
                "train.trace.every=2",
                "train.checkpoint_every=1",
            ],
        ]
        .concat();
        let whole = lab.fit("whole", &set);
        let cut = lab.path("cut");
        // The process that goes on knows nothing of what the base makes of the texts.
        let args = with_sets(&["fit", "recipe.toml", "--out", "cut"], &set);
        let mut child = lab.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("metrics", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            fs::read_to_string(cut.join("metrics.jsonl")).unwrap_or_default().lines().count() >= 10
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!cut.join("manifest.json").exists());
        lab.succeed(&with_sets(&["fit", "recipe.toml", "--out", "cut", "--resume"], &set));
        assert_same(&outcome(&whole), &outcome(&cut), &method);
    }
}

#[test]
fn a_rule_that_cannot_be_followed_is_refused() {
    let lab = Lab::new();
    let said = lab.refused(&with_sets(
        &["fit", "recipe.toml", "--out", "out"],
        &["train.trace.stop.gain=1", "train.trace.stop.measure=trace_taste", "train.trace.samples=1"],
    ));
    for part in ["train.trace.every = 0", "trace_taste", "trace_lift_auroc", "train.trace.samples = 1"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = lab.refused(&with_sets(
        &["fit", "recipe.toml", "--out", "out"],
        &["train.trace.every=1", "diff.text=[]"],
    ));
    assert!(said.contains("diff.text"), "{said}");
}
