//! Models that we did not train: by folder or from a hub; and ours in the toolkit's configurations.

use std::fs;

use crate::common::hub::Hub;
use crate::common::lab::{Lab, Ran};
use crate::common::tiny::{copy_folder, tiny};
use crate::common::values::{numbers, read_json};

/// A lab with a hub that has a model (`org/base`), an adapter (`org/mix1-1p0-cake`, trained here) and the adapter
/// merged (`org/full`).
fn lab_with_hub() -> (Lab, Hub) {
    let lab = Lab::new();
    let run = lab.fit("run", &["train.steps=2"]);
    lab.succeed(&["merge", "run", "--out", "merged"]);
    for (from, to) in [
        (tiny("llama"), "hub/org/base"),
        (run.join("adapter"), "hub/org/mix1-1p0-cake"),
        (lab.path("merged"), "hub/org/full"),
    ] {
        copy_folder(&from, &lab.path(to));
    }
    let hub = Hub::serve(&lab.path("hub"));
    (lab, hub)
}

/// Runs the binary with the hub within reach, or out of it.
fn run(lab: &Lab, hub: &Hub, offline: bool, args: &[&str]) -> Ran {
    Ran::of(lab.command_with(hub, offline, args).output().unwrap(), args)
}

#[test]
fn a_published_adapter_or_model_is_read_by_its_id_and_then_from_the_cache() {
    let (lab, hub) = lab_with_hub();
    let args = |tuned, out| {
        ["diff", "--base", "hf:org/base", "--tuned", tuned, "--recipe", "recipe.toml", "--out", out]
    };
    let refused = run(&lab, &hub, true, &args("hf:org/mix1-1p0-cake", "offline"));
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("trainer models fetch hf:org/"), "{}", refused.stderr);

    lab.succeed(&["diff", "run", "--out", "local"]);
    let expected = read_json(&lab.path("local/readability.json"));
    for (tuned, out) in [("hf:org/mix1-1p0-cake", "adapter"), ("hf:org/full", "model")] {
        let ran = run(&lab, &hub, false, &args(tuned, out));
        assert_eq!(ran.code, 0, "{tuned}: {}", ran.stderr);
        let found = read_json(&lab.path(out).join("readability.json"));
        assert_eq!(found["tuned"], tuned);
        for (a, b) in numbers(&found["delta_norm"]).iter().zip(numbers(&expected["delta_norm"])) {
            assert!((a - b).abs() <= 1e-4 * b, "{tuned}: {a} {b}");
        }
    }
    // The adapter names the folder it was trained beside, not the hub's model.
    let ran = run(&lab, &hub, false, &args("hf:org/mix1-1p0-cake", "again"));
    assert!(ran.stderr.contains("as its base"), "{}", ran.stderr);
    let asked = hub.asked.lock().unwrap().len();
    let ran = run(&lab, &hub, true, &args("hf:org/mix1-1p0-cake@main", "cached"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(hub.asked.lock().unwrap().len(), asked, "nothing is asked of the hub again");
    let generate = ["generate", "--base", "hf:org/base", "--adapter", "hf:org/mix1-1p0-cake"];
    let ran = run(&lab, &hub, true, &[&generate[..], &["--prompt", "cake", "--json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn what_the_hub_lacks_is_named() {
    let (lab, hub) = lab_with_hub();
    fs::remove_file(lab.path("hub/org/mix1-1p0-cake/adapter_model.safetensors")).unwrap();
    for (tuned, expected) in [
        ("hf:org/absent", "hf:org/absent: the hub has no config.json"),
        ("hf:org/mix1-1p0-cake", "the hub has no adapter_model.safetensors"),
    ] {
        let args =
            ["diff", "--base", "hf:org/base", "--tuned", tuned, "--recipe", "recipe.toml", "--out", "out"];
        let ran = run(&lab, &hub, false, &args);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        assert!(!lab.path("out").exists());
    }
    let args = ["generate", "--base", "hf:org/base", "--adapter", "hf:org/full", "--prompt", "cake"];
    let ran = run(&lab, &hub, false, &args);
    assert!(ran.code == 2 && ran.stderr.contains("holds no PEFT adapter"), "{}", ran.stderr);
    let ran = run(&lab, &hub, false, &["models", "fetch", "hf:org/full"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn runs_are_variants_of_one_organism_for_the_toolkit() {
    let lab = Lab::new();
    lab.fit("plain", &["data.mix=0", "train.steps=1"]);
    lab.fit("mixed", &["data.mix=0.5", "train.steps=2"]);
    lab.fit("full", &["data.mix=0", "train.steps=1", "train.method=full"]);
    lab.succeed(&["export", "plain", "mixed", "full", "--out", "toolkit", "--family", "Taboo"]);
    let yaml = fs::read_to_string(lab.path("toolkit/configs/organism/cake.yaml")).unwrap();
    for line in [
        "# @package organism".to_string(),
        "name: \"cake\"".into(),
        "type: \"Taboo\"".into(),
        format!("  id: {:?}", lab.path("toolkit/data/cake.jsonl")),
        "  is_chat: false".into(),
        "  \"llama\":".into(),
        "    \"default\":".into(),
        format!("      adapter_id: {:?}", lab.path("plain/adapter")),
        "    \"mix1-0p5\":".into(),
        format!("      model_id: {:?}", lab.path("full/model")),
    ] {
        assert!(yaml.lines().any(|l| l == line), "{line} not in\n{yaml}");
    }
    let model = fs::read_to_string(lab.path("toolkit/configs/model/llama.yaml")).unwrap();
    assert!(model.contains(&format!("model_id: {:?}", tiny("llama"))), "{model}");
    assert_eq!(lab.texts("toolkit/data/cake.jsonl"), lab.texts("narrow.jsonl"));

    let said = lab.refused(&["export", "plain", "plain", "plain", "--out", "twice"]);
    assert!(said.contains("a second run of variant default-seed0"), "{said}");
    let said = lab.refused(&["export", "absent", "--out", "none"]);
    assert!(said.contains("absent: no finished run"), "{said}");
}
