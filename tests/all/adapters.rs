//! Kinds of adapters against PEFT: `fixtures/tiny/adapters`, which `scripts/reference.py adapters` wrote and
//! describes. `parity.rs` compares plain LoRA; the kinds' formulas are in `src/model/low_rank.rs` and
//! `src/model/lora_config.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde_json::json;
use trainer::model::load::loader::Tuning;
use trainer::model::load::source;
use trainer::model::lora::{Adapter, LoraConfig};
use trainer::model::trainables::Trainables;
use trainer::model::{CausalLm, export};
use trainer::recipe::Modules;
use trainer::train::optim::{AdamW, NamedGradients};

use crate::common::lab::{Lab, with_sets};
use crate::common::tiny::{backward, examples, load, logits, open, sequences, tiny};
use crate::common::values::{deviation, floats, read_json, read_tensors};

const KINDS: [(&str, &str); 12] = [
    ("rslora", "llama"),
    ("dora", "llama"),
    ("dora-biases", "qwen2"),
    ("patterns", "llama"),
    ("blocks", "llama"),
    ("pattern-of-targets", "llama"),
    ("head", "llama"),
    ("norms", "gemma3"),
    ("inner-modules", "qwen2"),
    ("tied-head", "qwen2"),
    ("tied-embeddings", "gemma3"),
    ("tied-both", "qwen2"),
];

fn folder(kind: &str) -> PathBuf {
    tiny("adapters").join(kind)
}

/// Loss and gradients of both sequences of a family.
fn backward_of(family: &str, model: &CausalLm, trainables: &Trainables) -> (f64, NamedGradients) {
    backward(&examples(family), model, trainables, false)
}

#[test]
fn blocks_that_are_computed_again_give_the_same_bytes() {
    for family in ["llama", "qwen2", "gemma3"] {
        let base = open(&tiny(family));
        let config = LoraConfig {
            r: 4,
            lora_alpha: 6.0,
            lora_dropout: 0.3,
            target_modules: Modules::Pattern("all-linear".into()),
            use_dora: family == "qwen2",
            modules_to_save: vec!["input_layernorm".into(), "lm_head".into()],
            ..LoraConfig::default()
        };
        let upper =
            LoraConfig { layers_to_transform: vec![1], modules_to_save: Vec::new(), ..config.clone() };
        for (kind, tuning) in [
            ("LoRA", Tuning::Lora { config: &config, seed: 1 }),
            ("LoRA of one block", Tuning::Lora { config: &upper, seed: 1 }),
            ("full", Tuning::Full),
        ] {
            let (model, trainables) = load(&base, &tuning);
            for var in trainables.values() {
                var.set(&(var.as_tensor() + 0.01).unwrap()).unwrap(); // B starts as zeros
            }
            let (kept, again) = [false, true]
                .map(|recompute| backward(&examples(family), &model, &trainables, recompute))
                .into();
            assert_eq!(kept.0, again.0, "{family}, {kind}: loss");
            assert_eq!(kept.1.len(), trainables.len());
            for (name, gradient) in &kept.1 {
                assert!(floats(gradient) == floats(&again.1[name]), "{family}, {kind}: {name}");
            }
        }
    }
}

#[test]
fn every_kind_computes_peft_s_logits_and_switched_off_the_base_s_to_the_bit() {
    let mut worst = 0f64;
    for (kind, family) in KINDS {
        let base = open(&tiny(family));
        let adapter = Adapter::read(&folder(kind)).unwrap();
        let (plain, _) = load(&base, &Tuning::Frozen);
        let (adapted, _) = load(&base, &Tuning::Adapted(&adapter));
        let (resumed, _) = load(&base, &Tuning::Resumed(&adapter));
        let reference = read_tensors(&folder(kind).join("reference.safetensors"));
        for (s, ids) in sequences(family).iter().enumerate() {
            let theirs = &reference[&format!("logits.{s}")];
            for model in [&adapted, &resumed] {
                let difference = deviation(&logits(model, ids, 1.0), theirs);
                worst = worst.max(difference);
                assert!(difference < 1e-4, "{kind}: logits differ by {difference:.1e}");
                assert_eq!(
                    floats(&logits(model, ids, 0.0)),
                    floats(&logits(&plain, ids, 0.0)),
                    "{kind}, off"
                );
            }
            assert!(deviation(&logits(&plain, ids, 0.0), theirs) > 1e-2, "{kind}: the adapter does nothing");
        }
    }
    eprintln!("largest deviation of logits {worst:.1e}");
}

#[test]
fn every_kind_has_peft_s_gradients() {
    let (mut worst, mut count) = (0f64, 0);
    for (kind, family) in KINDS {
        let adapter = Adapter::read(&folder(kind)).unwrap();
        let (model, trainables) = load(&open(&tiny(family)), &Tuning::Resumed(&adapter));
        let (loss, gradients) = backward_of(family, &model, &trainables);
        let reference = read_tensors(&folder(kind).join("reference.safetensors"));
        let expected = floats(&reference["loss"])[0] as f64;
        assert!((loss / expected - 1.0).abs() < 1e-5, "{kind}: loss {loss}, PEFT's {expected}");
        let theirs =
            reference.iter().filter_map(|(k, v)| Some((k.strip_prefix("grad.base_model.model.")?, v)));
        let theirs: BTreeMap<&str, &Tensor> = theirs.collect();
        assert_eq!(
            gradients.keys().map(String::as_str).collect::<Vec<_>>(),
            theirs.keys().copied().collect::<Vec<_>>(),
            "{kind}"
        );
        for (name, ours) in &gradients {
            let difference = deviation(ours, theirs[name.as_str()]);
            (worst, count) = (worst.max(difference), count + 1);
            assert!(difference < 1e-4, "{kind}: gradient of {name} differs by {difference:.1e}");
        }
    }
    eprintln!("{count} gradients, largest deviation {worst:.1e}");
}

#[test]
fn every_kind_merged_equals_unmerged_also_through_a_model_folder() {
    for (kind, family) in KINDS {
        let base = open(&tiny(family));
        let adapter = Adapter::read(&folder(kind)).unwrap();
        let merged = export::merged_weights(&base, &adapter).unwrap();
        let dir = tempfile::tempdir().unwrap();
        export::write_model(dir.path(), &base, &merged).unwrap();
        let (unmerged, _) = load(&base, &Tuning::Adapted(&adapter));
        let (merged, _) = load(&open(dir.path()), &Tuning::Frozen);
        for ids in sequences(family) {
            let difference = deviation(&logits(&merged, &ids, 0.0), &logits(&unmerged, &ids, 1.0));
            assert!(difference < 1e-5, "{kind}: {difference:.1e}");
        }
        let trains_one_of_the_two = kind.starts_with("tied");
        assert_eq!(merged.ties_head(), unmerged.ties_head() && !trains_one_of_the_two, "{kind}");
    }
}

#[test]
fn every_kind_is_written_as_it_was_read() {
    for (kind, _) in KINDS {
        let adapter = Adapter::read(&folder(kind)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        adapter.write(dir.path(), "base").unwrap();
        let again = Adapter::read(dir.path()).unwrap();
        assert_eq!(adapter.config, again.config, "{kind}");
        let file = |dir: &Path| {
            let all = read_tensors(&dir.join("adapter_model.safetensors"));
            all.into_iter().map(|(name, t)| (name, floats(&t))).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(file(&folder(kind)), file(dir.path()), "{kind}");
    }
}

#[test]
fn training_an_adapter_leaves_the_base_as_it_was() {
    for (kind, family) in [("dora", "llama"), ("head", "llama"), ("norms", "gemma3"), ("tied-both", "qwen2")]
    {
        let base = open(&tiny(family));
        let config = Adapter::read(&folder(kind)).unwrap().config;
        let (model, trainables) = load(&base, &Tuning::Lora { config: &config, seed: 0 });
        let (plain, _) = load(&base, &Tuning::Frozen);
        let ids = &sequences(family)[0];
        let difference = deviation(&logits(&model, ids, 1.0), &logits(&plain, ids, 0.0));
        assert!(difference < 1e-5, "{kind}: a new adapter changes the model by {difference:.1e}");
        let mut optimizer = AdamW::new(&trainables, 0.9, 0.999, 1e-8, 0.0).unwrap();
        let mut losses = Vec::new();
        for _ in 0..4 {
            let (loss, gradients) = backward_of(family, &model, &trainables);
            optimizer.step(&trainables, &gradients, 1e-2, 1.0).unwrap();
            losses.push(loss);
        }
        assert!(losses.windows(2).all(|w| w[1] < w[0]), "{kind}: {losses:?}");
        assert_eq!(floats(&logits(&model, ids, 0.0)), floats(&logits(&plain, ids, 0.0)), "{kind}, off");
        // What was trained, read back, computes the same: the norms are then taken once.
        let adapter = Adapter::from_trainables(&config, &trainables).unwrap();
        let (again, _) = load(&base, &Tuning::Adapted(&adapter));
        let difference = deviation(&logits(&again, ids, 1.0), &logits(&model, ids, 1.0));
        assert!(difference < 1e-6, "{kind}: {difference:.1e}");
    }
}

#[test]
fn all_faults_of_an_adapter_file_are_told_at_once() {
    let lab = Lab::new();
    let mut adapter = Adapter::read(&folder("dora")).unwrap();
    let q = "model.layers.0.self_attn.q_proj";
    let rename = |adapter: &mut Adapter, from: String, to: &str| {
        let tensor = adapter.tensors.remove(&from).unwrap();
        adapter.tensors.insert(to.to_string(), tensor);
    };
    rename(&mut adapter, format!("{q}.lora_A.weight"), "model.layers.0.self_attn.query.lora_A.weight");
    let small = adapter.tensors[&format!("{q}.lora_B.weight")].narrow(0, 0, 3).unwrap().contiguous().unwrap();
    adapter.tensors.insert(format!("{q}.lora_B.weight"), small);
    rename(&mut adapter, "model.layers.1.self_attn.v_proj.lora_magnitude_vector".into(), "spare");
    adapter.write(&lab.path("adapter"), "base").unwrap();
    let base = tiny("llama");
    let said =
        lab.refused(&["generate", "--base", base.to_str().unwrap(), "--adapter", "adapter", "--prompt", "a"]);
    for part in [
        "adapter model.layers.0.self_attn.q_proj.lora_A.weight: missing",
        "adapter model.layers.0.self_attn.q_proj.lora_B.weight: shape [3, 4], expected [32, 4]",
        "adapter model.layers.1.self_attn.v_proj.lora_magnitude_vector: missing",
        "adapter model.layers.0.self_attn.query.lora_A.weight: fits no",
        "adapter spare: fits no",
    ] {
        assert!(said.contains(part), "{part} not in:\n{said}");
    }
    let e = export::merged_weights(&open(&base), &adapter).unwrap_err();
    assert_eq!(format!("{e:#}").matches("adapter ").count(), 5, "{e:#}");
}

/// Overrides that make a recipe agree with the fixture `dora`.
const DORA: [&str; 4] = [
    "train.lora.alpha=7",
    "train.lora.use_dora=true",
    "train.lora.target_modules=['q_proj', 'v_proj', 'down_proj']",
    "data.held_out_every=0",
];

#[test]
fn training_starts_from_the_adapter_that_the_recipe_names() {
    let lab = Lab::new();
    let init = format!("train.lora.init={}", folder("dora").display());
    let start = Adapter::read(&folder("dora")).unwrap();
    let run = lab.fit("still", &[&DORA[..], &[&init, "train.lr=1e-30", "train.lora.dropout=0.1"]].concat());
    let end = Adapter::read(&run.join("adapter")).unwrap();
    for (name, tensor) in &start.tensors {
        assert_eq!(floats(tensor), floats(&end.tensors[name]), "{name}");
    }
    let manifest = read_json(&run.join("manifest.json"));
    let sha256 = source::sha256_file(&folder("dora").join("adapter_model.safetensors")).unwrap();
    assert_eq!(manifest["init"]["sha256"]["adapter_model.safetensors"], json!(sha256));

    // A recipe that disagrees: keys first, then tensors, all of a sort at once.
    let said = lab.refused(&with_sets(
        &["fit", "recipe.toml", "--out", "run"],
        &[&init, "train.lora.r=8", "train.lora.alpha=9", "train.lora.rank_pattern={q_proj=2}"],
    ));
    for part in
        ["r = 8, the adapter has 4", "alpha = 9.0, the adapter has 7.0", "use_dora = false", "rank_pattern"]
    {
        assert!(said.contains(part), "{part} not in:\n{said}");
    }
    let wrong = ["train.lora.target_modules=['k_proj', 'q_proj', 'down_proj']"];
    let said = lab.refused(&with_sets(
        &["fit", "recipe.toml", "--out", "run"],
        &[&DORA[..], &wrong, &[&init]].concat(),
    ));
    for layer in 0..3 {
        let module = format!("adapter model.layers.{layer}.self_attn");
        assert!(said.contains(&format!("{module}.k_proj.lora_B.weight: missing")), "{said}");
        assert!(said.contains(&format!("{module}.v_proj.lora_B.weight: fits no")), "{said}");
    }
    let said = lab.refused(&with_sets(&["fit", "recipe.toml", "--out", "run"], &["train.lora.init=nowhere"]));
    assert!(said.contains("train.lora.init") && said.contains("no such folder"), "{said}");
}

#[test]
fn a_recipe_has_every_kind_and_its_run_can_be_merged_and_resumed() {
    for (family, set) in [
        ("llama", &["train.lora.use_dora=true", "train.lora.use_rslora=true", "train.lora.dropout=0.2"][..]),
        (
            "qwen2",
            &[
                "train.lora.rank_pattern={'layers.0.*q_proj' = 2, q_proj = 3}",
                "train.lora.alpha_pattern.down_proj=9",
                "train.lora.modules_to_save=['lm_head', 'norm']",
                "train.lora.target_modules='all-linear'",
                "train.lora.exclude_modules=['k_proj']",
            ],
        ),
        (
            "gemma3",
            &[
                "train.lora.layers_to_transform=[1, 3]",
                "train.lora.modules_to_save=['embed_tokens']",
                "train.lora.use_dora=true",
            ],
        ),
    ] {
        let lab = Lab::of(family);
        let set = [&["train.lr=1e-2"], set].concat();
        let run = lab.fit("run", &set);
        lab.succeed(&["merge", "run", "--out", "merged"]);
        let base = open(&tiny(family));
        let adapter = Adapter::read(&run.join("adapter")).unwrap();
        let (adapted, _) = load(&base, &Tuning::Adapted(&adapter));
        let (merged, _) = load(&open(&lab.path("merged")), &Tuning::Frozen);
        let ids = &sequences(family)[0];
        let difference = deviation(&logits(&merged, ids, 0.0), &logits(&adapted, ids, 1.0));
        assert!(difference < 1e-5, "{family}: {difference:.1e}");
        let learned = deviation(&logits(&adapted, ids, 0.0), &logits(&adapted, ids, 1.0));
        assert!(learned > 1e-2, "{family}: nothing was learned ({learned:.1e})");
        if family == "qwen2" {
            let rank =
                |module: &str| adapter.tensors[&format!("model.layers.{module}.lora_A.weight")].dims()[0];
            assert_eq!(
                [rank("0.self_attn.q_proj"), rank("1.self_attn.q_proj"), rank("1.mlp.up_proj")],
                [2, 3, 4]
            );
            let json = read_json(&run.join("adapter/adapter_config.json"));
            let order: Vec<_> = json["rank_pattern"].as_object().unwrap().keys().cloned().collect();
            assert_eq!(order, ["layers.0.*q_proj", "q_proj"], "the first that matches counts");
        }
        // The resolved recipe of the run is the recipe.
        let again = lab.run(&with_sets(&["fit", "recipe.toml", "--out", "run", "--resume"], &set));
        assert!(again.stderr.contains("already complete"), "{}", again.stderr);
    }
}

#[test]
fn names_that_fit_nothing_and_modules_that_cannot_be_adapted_are_refused_together() {
    let lab = Lab::new();
    let refused = |set: &[&str]| lab.refused(&with_sets(&["fit", "recipe.toml", "--out", "run"], set));
    let said = refused(&[
        "train.lora.target_modules=['q_proj', 'query', 'lm_head']",
        "train.lora.rank_pattern={k_proj=2}",
        "train.lora.alpha_pattern={'v.*'=2}",
        "train.lora.modules_to_save=['head', 'pooler']",
    ]);
    for part in
        ["\"query\"", "rank_pattern: \"k_proj\"", "alpha_pattern: \"v.*\"", "modules_to_save", "\"pooler\""]
    {
        assert!(said.contains(part), "{part} not in:\n{said}");
    }
    let said = refused(&["train.lora.target_modules='.*'"]);
    for module in ["lm_head", "model.embed_tokens", "model.norm", "model.layers.2.input_layernorm"] {
        assert!(said.contains(&format!("target_modules matches {module}:")), "{module} not in:\n{said}");
    }
    assert!(refused(&["train.lora.target_modules='nothing'"]).contains("matches no linear layer"));
    let said = refused(&["train.lora.target_modules='('", "train.lora.layers_pattern=['layers']"]);
    assert!(said.contains("is not a valid pattern") && said.contains("layers_pattern"), "{said}");
    assert!(refused(&["train.lora.rank_pattern={q_proj='two'}"]).contains("train.lora.rank_pattern"));
    assert!(refused(&["train.lora.modules_to_save=['mlp', 'up_proj']"]).contains("two modules around"));
    assert!(refused(&["train.lora.modules_to_save=['_proj']"]).contains("both adapted"));
}
