//! The change of the weights read by itself: what was planted is found, and nothing where nothing is.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use trainer::diff::measures::weights::spectrum::{ModuleSpectrum, Spectra, SpectrumComparison, spectra};
use trainer::diff::measures::weights::vocabulary::{
    Draws, Energies, Vocabulary, directions, energies, null_energies,
};
use trainer::interrupt::Interrupt;
use trainer::model::export::{merged_weights, write_model};
use trainer::model::load::loader::Tuning;
use trainer::model::lora::permuted::permuted;
use trainer::model::lora::{Adapter, LoraConfig};
use trainer::model::{CausalLm, View};
use trainer::recipe::Modules;

use crate::common::lab::{Lab, with_sets};
use crate::common::tiny::{FAMILIES, change_model, load, logits, open, tiny};
use crate::common::values::{floats, number, numbers, read_json, read_tensors};

/// The block whose modules are changed.
const BLOCK: &str = "model.layers.1";

/// The token that is planted.
const PLANTED: usize = 101;

fn frozen(path: &Path) -> CausalLm {
    load(&open(path), &Tuning::Frozen).0
}

fn adapted(path: &Path, adapter: &Adapter) -> CausalLm {
    load(&open(path), &Tuning::Adapted(adapter)).0
}

fn at(model: &CausalLm, adapter: f64) -> View<'_> {
    View { model, adapter }
}

fn spectra_of(base: View, tuned: View) -> Spectra {
    spectra(base, tuned, &Interrupt::default()).unwrap()
}

fn all_ids(model: &CausalLm) -> Vec<u32> {
    (0..model.vocab_size() as u32).collect()
}

fn energies_of(base: View, tuned: View) -> Energies {
    let mut vocabulary = Vocabulary::new(base, &all_ids(base.model)).unwrap();
    energies(&mut vocabulary, &SpectrumComparison::linears(base, tuned), || Ok(())).unwrap()
}

fn largest(values: &[f32]) -> usize {
    (0..values.len()).max_by(|&i, &j| values[i].total_cmp(&values[j])).unwrap()
}

/// Adds left · rightᵀ to a weight.
fn add_outer(weights: &mut HashMap<String, Tensor>, name: &str, left: &[f32], right: &[f32]) {
    let outer: Vec<f32> = left.iter().flat_map(|l| right.iter().map(move |r| l * r)).collect();
    let outer = Tensor::from_vec(outer, (left.len(), right.len()), &Device::Cpu).unwrap();
    let weight = weights.get_mut(&format!("{BLOCK}.{name}.weight")).unwrap();
    *weight = (&*weight + outer).unwrap();
}

/// The planted token's row of a table under gains, each stored as the family stores it.
fn row(weights: &HashMap<String, Tensor>, family: &str, table: &str, norms: &[&str]) -> Vec<f32> {
    let mut row = floats(&weights[table].get(PLANTED).unwrap());
    let offset = if family.starts_with("gemma") { 1.0 } else { 0.0 };
    for norm in norms {
        row.iter_mut().zip(floats(&weights[*norm])).for_each(|(x, gain)| *x *= gain + offset);
    }
    row
}

fn head(weights: &HashMap<String, Tensor>) -> &'static str {
    if weights.contains_key("lm_head.weight") { "lm_head.weight" } else { "model.embed_tokens.weight" }
}

#[test]
fn a_token_written_by_one_module_has_the_most_write_energy_and_leads_the_directions() {
    for family in FAMILIES {
        let dir = tempfile::tempdir().unwrap();
        let weights = read_tensors(&tiny(family).join("model.safetensors"));
        let after = format!("{BLOCK}.post_feedforward_layernorm.weight");
        let mut norms = vec!["model.norm.weight"];
        norms.extend(family.starts_with("gemma").then_some(after.as_str()));
        let w = row(&weights, family, head(&weights), &norms);
        let inner = weights[&format!("{BLOCK}.mlp.down_proj.weight")].dim(1).unwrap();
        let x: Vec<f32> = (0..inner).map(|i| (i as f32 * 0.7).sin()).collect();
        change_model(&tiny(family), dir.path(), |weights| add_outer(weights, "mlp.down_proj", &w, &x));

        let (base, tuned) = (frozen(&tiny(family)), frozen(dir.path()));
        let (base, tuned) = (at(&base, 0.0), at(&tuned, 0.0));
        let found = spectra_of(base, tuned);
        let names: Vec<&str> = found.modules.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, [format!("{BLOCK}.mlp.down_proj")], "{family}");
        let length = |v: &[f32]| v.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt();
        let module = &found.modules[0];
        assert!((module.fro / (length(&w) * length(&x)) - 1.0).abs() < 1e-4, "{family}: {module:?}");
        assert!((module.stable_rank - 1.0).abs() < 1e-4, "{family}: {module:?}");
        assert_eq!((found.share_block[1], found.share_kind["down_proj"]), (1.0, 1.0));

        let energies = energies_of(base, tuned);
        assert_eq!(largest(energies.write.as_ref().unwrap()), PLANTED, "{family}");
        assert!(energies.read.is_none(), "{family}: no module that reads has changed");
        let compared = SpectrumComparison::linears(base, tuned);
        let place = found.values.iter().position(|values| !values.is_empty()).unwrap();
        let mut vocabulary = Vocabulary::new(base, &all_ids(base.model)).unwrap();
        let cosines = &directions(&mut vocabulary, &compared[place], 4).unwrap()[0];
        let sizes: Vec<f32> = cosines.iter().map(|c| c.abs()).collect();
        assert_eq!(largest(&sizes), PLANTED, "{family}");
        assert!(sizes[PLANTED] > 0.999, "{family}: {}", sizes[PLANTED]);
    }
}

#[test]
fn a_token_read_by_one_module_has_the_most_read_energy() {
    for family in FAMILIES {
        let weights = read_tensors(&tiny(family).join("model.safetensors"));
        let before_mlp = match family.starts_with("gemma") {
            true => "pre_feedforward_layernorm",
            false => "post_attention_layernorm",
        };
        for (module, norm) in [("self_attn.k_proj", "input_layernorm"), ("mlp.up_proj", before_mlp)] {
            let dir = tempfile::tempdir().unwrap();
            let norm = format!("{BLOCK}.{norm}.weight");
            let e = row(&weights, family, "model.embed_tokens.weight", &[&norm]);
            let out = weights[&format!("{BLOCK}.{module}.weight")].dim(0).unwrap();
            let y: Vec<f32> = (0..out).map(|i| (i as f32 * 0.3).cos()).collect();
            change_model(&tiny(family), dir.path(), |weights| add_outer(weights, module, &y, &e));
            let (base, tuned) = (frozen(&tiny(family)), frozen(dir.path()));
            let energies = energies_of(at(&base, 0.0), at(&tuned, 0.0));
            assert_eq!(largest(energies.read.as_ref().unwrap()), PLANTED, "{family} {module}");
            assert!(energies.write.is_none() && energies.write_without_top_gains.is_none());
        }
    }
}

/// Of each module by name.
fn by_name(found: &Spectra) -> BTreeMap<&str, &ModuleSpectrum> {
    found.modules.iter().map(|m| (m.name.as_str(), m)).collect()
}

#[test]
fn an_adapter_and_its_merged_weights_have_the_same_spectra_and_energies() {
    let own = FAMILIES.map(|family| (tiny(family).join("adapter"), family));
    let kinds = [("rslora", "llama"), ("patterns", "llama"), ("dora", "llama"), ("dora-biases", "qwen2")];
    let kinds = kinds.map(|(kind, family)| (tiny("adapters").join(kind), family));
    for (folder, family) in own.into_iter().chain(kinds) {
        let adapter = Adapter::read(&folder).unwrap();
        let (with_adapter, plain) = (adapted(&tiny(family), &adapter), frozen(&tiny(family)));
        let dir = tempfile::tempdir().unwrap();
        let merged = merged_weights(&open(&tiny(family)), &adapter).unwrap();
        write_model(dir.path(), &open(&tiny(family)), &merged).unwrap();
        let merged = frozen(dir.path());

        let by_adapter = spectra_of(at(&with_adapter, 0.0), at(&with_adapter, 1.0));
        let by_weights = spectra_of(at(&plain, 0.0), at(&merged, 0.0));
        let (ours, theirs) = (by_name(&by_adapter), by_name(&by_weights));
        assert!(!ours.is_empty() && ours.keys().eq(theirs.keys()), "{}", folder.display());
        for (name, ours) in &ours {
            let numbers = |m: &ModuleSpectrum| {
                let ModuleSpectrum {
                    name: _,
                    fro,
                    spectral,
                    relative,
                    stable_rank,
                    top_share,
                    effective_rank,
                    participation,
                    aligned,
                } = *m;
                [fro, spectral, relative, stable_rank, top_share, effective_rank, participation, aligned]
            };
            for (x, y) in numbers(ours).into_iter().zip(numbers(theirs[name])) {
                assert!(
                    (x / y - 1.0).abs() < 1e-4,
                    "{} {name}: {ours:?} {:?}",
                    folder.display(),
                    theirs[name]
                );
            }
        }
        let energies = [
            energies_of(at(&with_adapter, 0.0), at(&with_adapter, 1.0)),
            energies_of(at(&plain, 0.0), at(&merged, 0.0)),
        ];
        for of in [|e: &Energies| e.write.clone(), |e: &Energies| e.read.clone()] {
            let [ours, theirs] = energies.each_ref().map(|e| of(e).unwrap_or_default());
            assert_eq!(ours.len(), theirs.len());
            assert!(
                ours.iter().zip(&theirs).all(|(x, y)| (x / y - 1.0).abs() < 1e-3),
                "{}",
                folder.display()
            );
        }
    }
}

#[test]
fn a_larger_alpha_is_a_longer_change_and_the_same_order_of_words() {
    let adapter = Adapter::read(&tiny("gemma3").join("adapter")).unwrap();
    let mut larger = Adapter::read(&tiny("gemma3").join("adapter")).unwrap();
    larger.config.lora_alpha *= 4.0;
    let models = [adapter, larger].map(|adapter| adapted(&tiny("gemma3"), &adapter));
    let found = models.each_ref().map(|model| spectra_of(at(model, 0.0), at(model, 1.0)));
    for (one, four) in found[0].modules.iter().zip(&found[1].modules) {
        assert!((four.fro / one.fro - 4.0).abs() < 1e-9 && (four.spectral / one.spectral - 4.0).abs() < 1e-9);
        assert!((four.stable_rank / one.stable_rank - 1.0).abs() < 1e-9);
        assert!((four.aligned / one.aligned - 1.0).abs() < 1e-5);
    }
    assert!((found[1].total.relative / found[0].total.relative - 4.0).abs() < 1e-9);
    let energies = models.each_ref().map(|model| energies_of(at(model, 0.0), at(model, 1.0)));
    let [one, four] = energies.map(|e| e.write.unwrap());
    // A power of two: the same numbers, so any AUROC is the same.
    assert!(one.iter().zip(&four).all(|(x, y)| 16.0 * x == *y));
}

#[test]
fn a_permuted_adapter_has_the_norms_and_the_spectrum_and_computes_something_else() {
    for family in FAMILIES {
        let adapter = Adapter::read(&tiny(family).join("adapter")).unwrap();
        let model = adapted(&tiny(family), &adapter);
        let null = permuted(&model, 3).unwrap().unwrap();
        let (ours, theirs) = [&model, &null].map(|m| spectra_of(at(m, 0.0), at(m, 1.0))).into();
        assert_eq!(ours.modules.len(), theirs.modules.len());
        for (ours, theirs) in ours.modules.iter().zip(&theirs.modules) {
            assert_eq!(ours.name, theirs.name);
            for (x, y) in [(ours.fro, theirs.fro), (ours.effective_rank, theirs.effective_rank)] {
                assert!((x / y - 1.0).abs() < 1e-9, "{family}: {ours:?} {theirs:?}");
            }
        }
        // What it writes is the same, what it reads is not.
        let [ours, theirs] = [&model, &null].map(|m| energies_of(at(m, 0.0), at(m, 1.0)));
        let close = |x: &[f32], y: &[f32]| x.iter().zip(y).all(|(x, y)| (x / y - 1.0).abs() < 1e-4);
        if let (Some(x), Some(y)) = (&ours.write, &theirs.write) {
            assert!(close(x, y), "{family}");
        }
        if let (Some(x), Some(y)) = (&ours.read, &theirs.read) {
            assert!(!close(x, y), "{family}");
        }
        let ids = [5, 9, 44, 101, 7];
        let of = |model: &CausalLm, adapter: f64| floats(&logits(model, &ids, adapter));
        assert_eq!(of(&model, 0.0), of(&null, 0.0), "{family}: the base is another");
        assert_ne!(of(&model, 1.0), of(&null, 1.0), "{family}");
        assert_eq!(of(&null, 1.0), of(&permuted(&model, 3).unwrap().unwrap(), 1.0), "{family}");
        assert_ne!(of(&null, 1.0), of(&permuted(&model, 4).unwrap().unwrap(), 1.0), "{family}");
    }
    // Where it would be no null there is none.
    let none = |model: CausalLm| permuted(&model, 0).unwrap().is_none();
    assert!(none(frozen(&tiny("llama"))));
    for (kind, family) in [("dora", "llama"), ("head", "llama"), ("norms", "gemma3"), ("tied-both", "qwen2")]
    {
        let adapter = Adapter::read(&tiny("adapters").join(kind)).unwrap();
        assert!(none(adapted(&tiny(family), &adapter)), "{kind}");
    }
}

#[test]
fn tables_that_an_adapter_saves_whole_are_among_the_modules() {
    for (kind, family, tables) in [
        ("head", "llama", &["lm_head"][..]),
        ("tied-embeddings", "gemma3", &["model.embed_tokens"]),
        ("tied-head", "qwen2", &["lm_head"]),
        ("tied-both", "qwen2", &["model.embed_tokens", "lm_head"]),
    ] {
        let adapter = Adapter::read(&tiny("adapters").join(kind)).unwrap();
        let model = adapted(&tiny(family), &adapter);
        let found = spectra_of(at(&model, 0.0), at(&model, 1.0));
        let names: Vec<&str> = found.modules.iter().map(|m| m.name.as_str()).collect();
        for name in ["model.embed_tokens", "lm_head"] {
            assert_eq!(names.contains(&name), tables.contains(&name), "{kind}: {names:?}");
        }
        assert!((found.share_kind.values().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn random_changes_are_the_same_for_a_seed_and_centred_where_nothing_is() {
    let adapter = Adapter::read(&tiny("llama").join("adapter")).unwrap();
    let model = adapted(&tiny("llama"), &adapter);
    let (base, tuned) = (at(&model, 0.0), at(&model, 1.0));
    let (found, compared) = (spectra_of(base, tuned), SpectrumComparison::linears(base, tuned));
    let mut vocabulary = Vocabulary::new(base, &all_ids(&model)).unwrap();
    let mut null =
        |n, seed| null_energies(&mut vocabulary, &compared, &found, Draws { n, seed }, || Ok(())).unwrap();
    let (some, again, others) = (null(64, 0), null(64, 0), null(64, 1));
    assert_eq!(some.len(), 64);
    assert!(some == again && some != others);
    assert!(null(3, 0)[..] == some[..3], "how many there are changes none of them");
    // In expectation every word has Σs² / hidden.
    let expected: f64 = compared
        .iter()
        .zip(&found.values)
        .filter(|(module, _)| module.name().ends_with("o_proj") || module.name().ends_with("down_proj"))
        .flat_map(|(_, values)| values.iter().map(|s| s * s / model.hidden_size() as f64))
        .sum();
    let mean = some.iter().flatten().map(|e| *e as f64).sum::<f64>() / (64 * model.vocab_size()) as f64;
    assert!((mean / expected - 1.0).abs() < 0.05, "{mean} {expected}");
}

// ---- the whole tool ----------------------------------------------------------------------------

fn diff(lab: &Lab, base: &Path, tuned: &Path, out: &str, set: &[&str]) -> Value {
    let (base, tuned) = (base.to_string_lossy(), tuned.to_string_lossy());
    let args = ["diff", "--base", &base, "--tuned", &tuned, "--recipe", "recipe.toml", "--out", out];
    let off = ["steering", "patchscope", "bias_share", "logit_contrast", "diff_mining", "completion_ranking"]
        .map(|measure| format!("diff.{measure}.enabled=false"));
    let off = off.each_ref().map(String::as_str);
    lab.succeed(&with_sets(&args, &[&off[..], set].concat()));
    read_json(&lab.path(out).join("readability.json"))
}

/// An adapter as it stands before the first step: A drawn, B zero.
fn untrained(dir: PathBuf) -> PathBuf {
    let config = LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        target_modules: Modules::Names(vec!["q_proj".into(), "down_proj".into()]),
        ..LoraConfig::default()
    };
    let base = open(&tiny("llama"));
    let (_, trainables) = load(&base, &Tuning::Lora { config: &config, seed: 0 });
    Adapter::from_trainables(&config, &trainables).unwrap().write(&dir, &base.id).unwrap();
    dir
}

#[test]
fn models_with_the_same_weights_have_no_module_and_no_score() {
    let lab = Lab::new();
    for (out, tuned) in [("adapter", untrained(lab.path("untrained"))), ("model", tiny("llama"))] {
        let found = diff(&lab, &tiny("llama"), &tuned, out, &[]);
        let weights = &found["readers"]["weights"];
        assert_eq!(weights["total"], json!({"modules": 0, "fro": 0.0, "spectral": 0.0, "relative": 0.0}));
        for absent in ["score", "interval", "null", "write_auroc", "read_auroc", "auroc_plain", "modules"] {
            assert!(weights.get(absent).is_none(), "{out}: {absent} is {}", weights[absent]);
        }
        assert_eq!(weights["settings"]["null_draws"], 64);
        assert!(number(&weights["seconds"]) >= 0.0 && weights["unit"].is_string());
    }
}

#[test]
fn an_adapter_is_read_the_same_way_twice_and_with_or_without_narrow_text() {
    let lab = Lab::of_whole_words("llama");
    let adapter = tiny("llama").join("adapter");
    let read = |out: &str, set: &[&str]| {
        let mut found = diff(&lab, &tiny("llama"), &adapter, out, set)["readers"]["weights"].take();
        found.as_object_mut().unwrap().remove("seconds");
        found
    };
    let found = read("one", &["diff.weights.modules=2", "diff.weights.null_draws=16"]);
    assert_eq!(found, read("two", &["diff.weights.modules=2", "diff.weights.null_draws=16"]));
    // Too few words for strata, so no score; but the plain AUROCs and words are there.
    assert!(found.get("score").is_none());
    let plain = number(&found["auroc_plain"]);
    assert!((0.0..=1.0).contains(&plain));
    assert!(!found["modules"].as_array().unwrap().is_empty());
    let shown = found["directions"].as_array().unwrap();
    assert_eq!(shown.len(), 8, "four directions of two modules");
    assert_eq!(found["directions_null"]["n"], 16);
    let best = shown.iter().flat_map(|d| numbers(&d["relevant"])).fold(0.0, f64::max);
    assert_eq!(number(&found["directions_best"]), best);
    for direction in shown {
        let (top, bottom) = (direction["top"].as_array().unwrap(), direction["bottom"].as_array().unwrap());
        assert!(!top.is_empty() && top.len() == bottom.len());
        assert!(number(&top[0]["score"]) >= -number(&bottom.last().unwrap()["score"]));
    }

    let (base, tuned) =
        (tiny("llama").to_string_lossy().into_owned(), adapter.to_string_lossy().into_owned());
    let args = ["diff", "--base", &base, "--tuned", &tuned, "--out", "unknown"];
    let small = ["diff.text=measure.jsonl", "diff.samples=12", "diff.null_directions=8", "diff.bootstrap=20"];
    let off = ["steering", "patchscope", "logit_contrast", "diff_mining", "completion_ranking"]
        .map(|measure| format!("diff.{measure}.enabled=false"));
    let off = off.each_ref().map(String::as_str);
    lab.succeed(&with_sets(&args, &[&small[..], &off].concat()));
    let unknown = read_json(&lab.path("unknown/readability.json"))["readers"]["weights"].take();
    assert!(unknown.get("auroc_plain").is_none() && unknown.get("directions_best").is_none());
    assert!(!unknown["directions"].as_array().unwrap().is_empty());
    assert_eq!(unknown["modules"], found["modules"]);
}
