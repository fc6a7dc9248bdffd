//! `trainer verify`: a run folder is what its manifest says, or the part that is not is named.

use std::fs;
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Value, json};
use trainer::sha256::sha256_file;

use crate::common::lab::{Lab, with_sets};
use crate::common::outcome::metrics;
use crate::common::tiny::{change_model, tiny};
use crate::common::values::{read_json, read_tensors};

/// A lab whose base lies in it, with a run `run` that was read.
fn made(method: &str) -> Lab {
    let lab = Lab::new();
    change_model(&tiny("llama"), &lab.path("base"), |_| {});
    let recipe = fs::read_to_string(lab.path("recipe.toml")).unwrap();
    lab.write("recipe.toml", recipe.replace(&*tiny("llama").to_string_lossy(), "./base"));
    lab.fit("run", &[&format!("train.method={method}")]);
    lab.succeed(&["diff", "run"]);
    lab
}

/// Runs `verify`, which must find something wrong; returns what it prints.
fn wrong(lab: &Lab, args: &[&str]) -> String {
    let ran = lab.run(&[&["verify"], args].concat());
    assert_eq!(ran.code, 1, "{args:?}: {}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("differ from their manifests"), "{}", ran.stderr);
    ran.stdout
}

fn line<'a>(text: &'a str, what: &str) -> &'a str {
    text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in\n{text}"))
}

/// Another byte in the middle of what follows `after`, or of the whole file.
fn changed(bytes: &[u8], after: &str) -> Vec<u8> {
    let at = match after {
        "" => bytes.len() / 2,
        _ => String::from_utf8_lossy(bytes).find(after).unwrap() + after.len(),
    };
    let mut bytes = bytes.to_vec();
    bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
    bytes
}

#[test]
fn a_changed_byte_is_found_in_every_kind_of_file() {
    for method in ["lora", "full"] {
        let lab = made(method);
        let ran = lab.succeed(&["verify", "run"]);
        assert!(ran.stdout.lines().rev().skip(1).all(|line| line.starts_with("ok       ")), "{}", ran.stdout);
        let mut cases = vec![
            ("run/recipe.toml", "description = \"", "differs  recipe.toml"),
            ("run/manifest.json", "\"order_sha256\": \"", "differs  example order"),
            ("run/manifest.json", "", "differs  "),
            ("run/metrics.jsonl", "\"step\":3,\"tokens\":", "differs  metrics.jsonl"),
            ("run/metrics.jsonl", "\"loss\":", "differs  metrics.jsonl"),
            ("run/checkpoints/step-000006/weights.safetensors", "", "differs  checkpoints/"),
            ("run/checkpoints/step-000006/optimizer.safetensors", "", "differs  checkpoints/"),
            ("run/checkpoints/step-000006/trainer_state.json", "\"tokens\": ", "differs  checkpoints/"),
            ("run/diff/readability.json", "\"samples\": ", "differs  diff/readability.json"),
            ("run/diff/activations.safetensors", "", "differs  diff/activations.safetensors"),
            ("run/diff/steering.jsonl", "", "differs  diff/steering.jsonl"),
            ("run/diff/sha256.json", "\"model.safetensors\": \"", "differs  diff"),
            ("run/claims.json", "", "differs  claims.json"),
            ("run/claims.json", "\"samples\": ", "differs  claims.json, length.samples: found "),
            ("run/claims.json", "\"headline\": \"", "differs  claims.json, readable.headline: found "),
            (
                "run/claims.json",
                "\"manifest.json\": \"",
                "differs  claims.json, rests_on.manifest.json: found ",
            ),
            (
                "run/diff/readability.json",
                "\"samples\": ",
                "differs  claims.json, rests_on.diff/readability.json",
            ),
            ("narrow.jsonl", "text\":\"", "differs  data"),
            ("pretraining.jsonl", "text\":\"", "differs  data"),
            ("measure.jsonl", "text\":\"", "differs  diff, its text"),
            ("base/model.safetensors", "", "differs  base"),
        ];
        cases.extend(match method {
            "lora" => [
                ("run/adapter/adapter_config.json", "\"r\": ", "differs  adapter/adapter_config.json"),
                ("run/adapter/adapter_model.safetensors", "", "differs  adapter/adapter_model.safetensors"),
            ],
            _ => [
                ("run/model/config.json", "\"hidden_size\": ", "differs  model/config.json"),
                ("run/model/model.safetensors", "", "differs  model/model.safetensors"),
            ],
        });
        for (file, after, said) in cases {
            let before = fs::read(lab.path(file)).unwrap();
            lab.write(file, changed(&before, after));
            let text = wrong(&lab, &["run"]);
            assert!(line(&text, said).contains(", expected "), "{method}, {file}:\n{text}");
            lab.write(file, before);
        }
        lab.succeed(&["verify", "run"]);
    }
}

#[test]
fn what_is_gone_is_told_unless_nothing_rests_on_it() {
    let lab = made("lora");
    for (file, said) in [
        ("narrow.jsonl", "missing  data"),
        ("run/metrics.jsonl", "missing  metrics.jsonl"),
        ("run/adapter/adapter_model.safetensors", "missing  adapter/adapter_model.safetensors"),
        ("run/diff/steering.jsonl", "missing  diff/steering.jsonl"),
        ("run/diff/sha256.json", "missing  diff/sha256.json"),
        ("base/model.safetensors", "differs  base"),
    ] {
        let before = fs::read(lab.path(file)).unwrap();
        fs::remove_file(lab.path(file)).unwrap();
        line(&wrong(&lab, &["run"]), said);
        lab.write(file, before);
    }
    fs::remove_dir_all(lab.path("run/checkpoints")).unwrap();
    fs::remove_dir_all(lab.path("run/diff")).unwrap();
    line(&wrong(&lab, &["run"]), "differs  claims.json, rests_on.diff/readability.json: found ");
    fs::remove_file(lab.path("run/claims.json")).unwrap();
    let ran = lab.succeed(&["verify", "run"]);
    line(&ran.stdout, "removed  checkpoints/step-000006/weights.safetensors");
}

#[test]
fn a_step_that_stands_twice_or_nowhere_is_found() {
    let lab = made("lora");
    let text = fs::read_to_string(lab.path("run/metrics.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 7, "six steps and the line before them");
    let said = |lines: &[&str]| {
        lab.write("run/metrics.jsonl", lines.join("\n") + "\n");
        line(&wrong(&lab, &["run"]), "each step once").to_string()
    };
    assert!(said(&[&lines[..3], &lines[2..]].concat()).contains("step 2 in line 4, where 3 belongs"));
    assert!(said(&[&lines[..3], &lines[4..]].concat()).contains("step 4 in line 4, where 3 belongs"));
    assert!(said(&lines[..6]).contains("found 6 lines, expected steps 0 to 6"));
    assert!(said(&[&lines[..2], &["{"], &lines[3..]].concat()).contains("found not readable: line 3: EOF"));
}

#[test]
fn moved_data_and_base_are_found_by_the_ends_of_their_paths() {
    let lab = made("lora");
    fs::create_dir_all(lab.path("elsewhere/texts")).unwrap();
    for name in ["narrow.jsonl", "pretraining.jsonl", "measure.jsonl", "base"] {
        fs::rename(lab.path(name), lab.path("elsewhere").join(name)).unwrap();
    }
    let text = wrong(&lab, &["run"]);
    assert!(
        line(&text, "narrow.jsonl").starts_with("missing  data") && text.contains("missing  base"),
        "{text}"
    );
    lab.succeed(&["verify", "run", "--data", "elsewhere", "--retrain"]);
    let narrow = fs::read_to_string(lab.path("elsewhere/narrow.jsonl")).unwrap();
    lab.write("elsewhere/narrow.jsonl", narrow.replacen("cake", "coke", 1));
    line(&wrong(&lab, &["run", "--data", "elsewhere"]), "differs  data");
    assert!(lab.refused(&["verify", "run", "--data", "nowhere"]).contains("no such folder"));
}

#[test]
fn a_sweep_is_its_cells_and_what_is_no_run_is_refused() {
    let lab = Lab::new();
    let off = ["diff.patchscope.enabled=false", "diff.steering.enabled=false"];
    lab.succeed(&with_sets(&["sweep", "recipe.toml", "--mix", "0,1", "--out", "sweep"], &off));
    let ran = lab.succeed(&["verify", "sweep", "--json"]);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((found["holds"].as_bool(), found["runs"].as_array().unwrap().len()), (Some(true), 2));
    assert_eq!(found["sweeps"][0]["checks"], json!([{ "what": "claims.json", "status": "ok" }]));

    // The claims on all cells: a damaged file, another value, a cell that was read again.
    let claims = fs::read(lab.path("sweep/claims.json")).unwrap();
    let found_wrong = || {
        let ran = lab.run(&["verify", "sweep"]);
        assert_eq!(ran.code, 1, "{}", ran.stdout);
        assert!(
            ran.stderr.contains("sweep: claims.json differs from the claims of the runs"),
            "{}",
            ran.stderr
        );
        ran.stdout
    };
    lab.write("sweep/claims.json", &claims[..claims.len() / 2]);
    line(&found_wrong(), "differs  claims.json: found not readable: ");
    lab.write("sweep/claims.json", changed(&claims, "\"mean\": "));
    let text = found_wrong();
    assert!(line(&text, "differs  claims.json, settings[0].doses.").contains("[0].mean: found "), "{text}");
    assert!(text.contains("sweep: 0 of 1 checks on all cells together hold"), "{text}");
    let mut of_before: Value = serde_json::from_slice(&claims).unwrap();
    of_before["schema"] = 1.into();
    lab.write("sweep/claims.json", of_before.to_string());
    line(&lab.succeed(&["verify", "sweep"]).stdout, "ok       claims.json: schema 1, this program uses ");
    lab.write("sweep/claims.json", &claims);
    let cell = lab.cell("sweep", "mix-1_seed-0");
    fs::remove_dir_all(cell.join("diff")).unwrap();
    lab.succeed(&["diff", cell.to_str().unwrap(), "--set", "diff.top_k=7"]);
    let name = cell.file_name().unwrap().to_string_lossy();
    line(
        &found_wrong(),
        &format!("differs  claims.json, rests_on.cells/{name}/diff/readability.json: found "),
    );
    let adapter = lab.cell("sweep", "mix-1_seed-0").join("adapter/adapter_model.safetensors");
    fs::write(&adapter, changed(&fs::read(&adapter).unwrap(), "")).unwrap();
    let found: Value = serde_json::from_str(&wrong(&lab, &["sweep", "--json"])).unwrap();
    let holds: Vec<bool> =
        found["runs"].as_array().unwrap().iter().map(|r| r["holds"].as_bool().unwrap()).collect();
    assert_eq!(holds, [true, false], "{found:#}");

    fs::create_dir(lab.path("empty")).unwrap();
    assert!(lab.refused(&["verify", "empty"]).contains("not a run folder"));
    assert!(lab.refused(&["verify", "nowhere"]).contains("not a run folder"));
    fs::remove_file(lab.cell("sweep", "mix-0_seed-0").join("manifest.json")).unwrap();
    assert!(lab.refused(&["verify", "sweep"]).contains("its training has not finished"));
}

/// Changes a run's adapter and everything that would tell.
fn forge(run: &Path, change: f64, told: Option<(&str, &str)>) {
    let path = run.join("adapter/adapter_model.safetensors");
    let tensors = read_tensors(&path);
    let forged = tensors.into_iter().map(|(name, t)| (name, (t * (1.0 + change)).unwrap()));
    let forged: std::collections::HashMap<String, Tensor> = forged.collect();
    candle_core::safetensors::save(&forged, &path).unwrap();
    let mut manifest = read_json(&run.join("manifest.json"));
    let sha256 = json!(sha256_file(&path).unwrap());
    manifest["adapter_sha256"] = sha256.clone();
    manifest["files"]["adapter/adapter_model.safetensors"] = sha256;
    if let Some((key, value)) = told {
        manifest[key] = json!(value);
    }
    fs::write(run.join("manifest.json"), manifest.to_string()).unwrap();
}

#[test]
fn training_again_proves_what_hashes_cannot() {
    let lab = Lab::new();
    let run = lab.fit("run", &["train.lora.dropout=0.2", "train.micro_batch_size=3"]);
    let ran = lab.succeed(&["verify", "run", "--retrain"]);
    for what in [
        "adapter/adapter_model.safetensors",
        "checkpoints/step-000006/optimizer.safetensors",
        "metrics.jsonl",
    ] {
        line(&ran.stdout, &format!("ok       trained again, {what}"));
    }
    forge(&run, 1e-3, None);
    lab.succeed(&["verify", "run"]);
    let text = wrong(&lab, &["run", "--retrain"]);
    line(&text, "differs  trained again, adapter/adapter_model.safetensors");

    // By another version, or elsewhere, other bytes are allowed as long as the losses are the same.
    let manifest = fs::read(run.join("manifest.json")).unwrap();
    forge(&run, 0.0, Some(("version", "0.0.1")));
    let ran = lab.succeed(&["verify", "run", "--retrain"]);
    assert!(ran.stderr.contains("not 0.0.1"), "{}", ran.stderr);
    line(&ran.stdout, "ok       trained again, losses: largest relative difference");
    fs::write(run.join("manifest.json"), manifest).unwrap();
    forge(&run, 0.0, Some(("processor", "another processor")));
    let ran = lab.succeed(&["verify", "run", "--retrain"]);
    assert!(
        ran.stderr.contains("not another processor") && ran.stderr.contains("within 0.1 %"),
        "{}",
        ran.stderr
    );
    line(&ran.stdout, "ok       trained again, losses: largest relative difference");
    let mut lines = metrics(&run);
    lines[6]["eval_narrow"] = json!(lines[6]["eval_narrow"].as_f64().unwrap() * 1.005);
    for line in &mut lines {
        (line["tokens_per_s"], line["elapsed_s"]) = (json!(1.0), json!(1.0));
    }
    fs::write(run.join("metrics.jsonl"), lines.iter().map(|line| format!("{line}\n")).collect::<String>())
        .unwrap();
    let mut manifest = read_json(&run.join("manifest.json"));
    manifest["files"]["metrics.jsonl"] =
        json!(trainer::sha256::sha256_content(&run.join("metrics.jsonl")).unwrap());
    fs::write(run.join("manifest.json"), manifest.to_string()).unwrap();
    line(&wrong(&lab, &["run", "--retrain"]), "differs  trained again, losses");
}
