//! Reading activation differences: nothing is found where nothing is, what was planted is found.

mod lab;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use lab::{FAMILIES, Lab, change_model, floats, read_json, read_tensors, tiny, with_sets};
use serde_json::Value;
use trainer::diff::activations::{View, Windows, collect, resid_post};
use trainer::diff::mean_difference::{cosine, norm};
use trainer::interrupt::Interrupt;
use trainer::model::hooks::{Hook, NoHook, Steer};
use trainer::model::loader::Tuning;
use trainer::model::lora::{Adapter, LoraConfig};
use trainer::model::source::{self, Pretrained};
use trainer::model::{CausalLm, Pass};
use trainer::ops::segments::Segments;
use trainer::recipe::{Modules, Recipe};

/// The block that is read of the tiny models' three: trunc(0.5 · 2).
const LAYER: usize = 1;

fn open(path: &Path) -> Pretrained {
    source::open(&path.to_string_lossy()).unwrap()
}

fn load(from: &Pretrained, tuning: &Tuning) -> CausalLm {
    CausalLm::load(from, tuning, &Device::Cpu).unwrap().0
}

fn recipe(lab: &Lab, set: &[&str]) -> Recipe {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    Recipe::read(&lab.path("recipe.toml"), &set).unwrap()
}

/// `trainer diff` of two models into `out`.
fn diff(lab: &Lab, base: &Path, tuned: &Path, out: &str, set: &[&str]) -> Value {
    let (base, tuned) = (base.to_string_lossy(), tuned.to_string_lossy());
    let args = ["diff", "--base", &base, "--tuned", &tuned, "--recipe", "recipe.toml", "--out", out];
    lab.succeed(&with_sets(&args, set));
    read_json(&lab.path(out).join("readability.json"))
}

fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// JSON has no NaN: serde writes it, and infinity, as null.
fn assert_no_null(value: &Value, path: &str) {
    match value {
        Value::Null => panic!("{path} is null"),
        Value::Array(items) => items.iter().for_each(|v| assert_no_null(v, path)),
        Value::Object(map) => map.iter().for_each(|(k, v)| assert_no_null(v, &format!("{path}.{k}"))),
        _ => {}
    }
}

/// An adapter as it stands before the first step: A drawn, B zero.
fn write_untrained_adapter(dir: &Path, base: &Pretrained) {
    let config = LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        lora_dropout: 0.0,
        target_modules: Modules::Names(vec!["q_proj".into(), "down_proj".into()]),
        ..LoraConfig::default()
    };
    let tuning = Tuning::Lora { config: &config, seed: 0 };
    let (_, trainables) = CausalLm::load(base, &tuning, &Device::Cpu).unwrap();
    Adapter::from_trainables(&config, &trainables).unwrap().write(dir, &base.id).unwrap();
}

// ---- nothing where nothing is ------------------------------------------------------------------

#[test]
fn between_identical_models_every_difference_is_zero_and_no_number_is_missing() {
    for family in FAMILIES {
        let lab = Lab::of(family);
        write_untrained_adapter(&lab.path("adapter"), &open(&tiny(family)));
        for (out, tuned) in [("adapter-diff", lab.path("adapter")), ("model-diff", tiny(family))] {
            let greedy = ["diff.steering.temperature=0"];
            let found = diff(&lab, &tiny(family), &tuned, out, &greedy);
            assert_no_null(&found, out);
            assert_eq!(numbers(&found["delta_norm"]), [0.0; 5], "{family} {out}");
            for interval in found["delta_norm_interval"].as_array().unwrap() {
                assert_eq!(numbers(interval), [0.0; 2], "{family} {out}");
            }
            assert!(numbers(&found["expected_norm"]).iter().all(|n| *n > 0.0));
            assert_eq!(found["expected_norm"], found["expected_norm_base"]);
            for lens in ["logit_lens", "patchscope"] {
                let scores = &found[lens]["token_relevance"];
                assert_eq!(scores["base"], scores["tuned"], "{family} {out} {lens}");
                assert_eq!(numbers(&found[lens]["token_relevance_p"]), [1.0; 5], "{family} {out} {lens}");
            }
            // Steering by nothing is not steering.
            let steering = &found["steering"];
            assert_eq!(steering["similarity"]["steered_narrow"], steering["similarity"]["unsteered_narrow"]);
            for interval in steering["similarity_gain_interval"].as_array().unwrap() {
                let interval = numbers(interval);
                assert!(interval[0] <= 0.0 && interval[1] >= 0.0, "{family} {out}: {interval:?}");
            }
            let lines = fs::read_to_string(lab.path(out).join("steering.jsonl")).unwrap();
            assert_eq!(lines.lines().count(), 4, "two positions of two prompts");
            for line in lines.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["steered"], line["unsteered"]);
            }
        }
    }
}

#[test]
fn with_the_adapter_off_the_base_is_exactly_the_base_without_it() {
    for family in FAMILIES {
        let base = open(&tiny(family));
        let adapter = Adapter::read(&tiny(family).join("adapter")).unwrap();
        let (plain, adapted) = (load(&base, &Tuning::Frozen), load(&base, &Tuning::Adapted(&adapter)));
        let windows = [vec![9, 8, 7, 6, 5], vec![4, 3]];
        let at = |model, adapter| resid_post(View { model, adapter }, &windows, LAYER).unwrap();
        let (expected, off) = (at(&plain, 0.0), at(&adapted, 0.0));
        assert!(expected == off, "{family}");
        assert!(expected != at(&adapted, 1.0), "{family}: the adapter does nothing");
    }
}

// ---- what was planted --------------------------------------------------------------------------

/// Two Qwen2 models that differ by a known constant at the output of one block.
///
/// Attention weights sum to 1, so a constant in the value bias comes through attention unchanged; the MLP of
/// that block is silenced in both, so nothing else reacts to it. Returns W_o applied to the constant.
fn plant(base: &Path, tuned: &Path) -> Vec<f32> {
    let block = format!("model.layers.{LAYER}");
    let silence = |weights: &mut HashMap<String, Tensor>| {
        let down = weights.get_mut(&format!("{block}.mlp.down_proj.weight")).unwrap();
        *down = down.zeros_like().unwrap();
    };
    change_model(&tiny("qwen2"), base, silence);
    let constant: Vec<f32> = (0..8).map(|i| (i as f32 - 2.5) / 3.0).collect(); // one key-value head of 8
    change_model(&tiny("qwen2"), tuned, |weights| {
        silence(weights);
        let bias = weights.get_mut(&format!("{block}.self_attn.v_proj.bias")).unwrap();
        *bias = (&*bias + Tensor::new(constant.as_slice(), &Device::Cpu).unwrap()).unwrap();
    });
    let out =
        read_tensors(&base.join("model.safetensors"))[&format!("{block}.self_attn.o_proj.weight")].clone();
    let of_every_head = Tensor::new(constant.repeat(4), &Device::Cpu).unwrap().reshape((32, 1)).unwrap();
    floats(&out.matmul(&of_every_head).unwrap())
}

#[test]
fn a_constant_planted_at_a_block_is_recovered_at_every_position() {
    let lab = Lab::of("qwen2");
    let planted = plant(&lab.path("base"), &lab.path("tuned"));
    let found = diff(&lab, &lab.path("base"), &lab.path("tuned"), "diff", &[]);
    assert_eq!(found["layer"], LAYER);
    let tensors = read_tensors(&lab.path("diff/activations.safetensors"));
    let difference = rows(&tensors["mean_difference"]);
    assert_eq!(difference.len(), 5);
    for (i, v) in difference.iter().enumerate() {
        assert!(cosine(v, &planted) > 0.9999, "position {i}: {}", cosine(v, &planted));
        let delta = found["delta_norm"][i].as_f64().unwrap();
        assert!((delta - norm(&planted)).abs() < 1e-4 * norm(&planted), "position {i}: {delta}");
        assert!((delta - norm(v)).abs() < 1e-6);
        // It is the same in every text, so resampling them moves nothing.
        for bound in numbers(&found["delta_norm_interval"][i]) {
            assert!((bound - delta).abs() < 1e-4 * delta, "position {i}: {bound}");
        }
        assert!(found["position_cosine"][i].as_f64().unwrap() > 0.9999);
    }
    let (base, tuned) = (rows(&tensors["base_mean"]), rows(&tensors["tuned_mean"]));
    for i in 0..5 {
        for j in 0..32 {
            assert!((tuned[i][j] - base[i][j] - difference[i][j]).abs() < 1e-4);
        }
    }
}

/// `resid_post` of each sequence under a hook.
fn under(model: &CausalLm, hook: &mut dyn Hook, sequences: &[Vec<u32>], layer: usize) -> Tensor {
    let segments = Segments::new(sequences.iter().map(Vec::len).collect());
    let mut pass = Pass::new(&segments, 0.0, hook);
    let x = model.embed(&sequences.concat(), &pass).unwrap();
    model.run(x, 0..layer + 1, &mut pass).unwrap()
}

#[test]
fn steering_adds_its_vector_to_every_token_of_the_block_that_is_read_and_to_no_other() {
    let model = load(&open(&tiny("gemma3")), &Tuning::Frozen);
    let vector: Vec<f32> = (0..model.hidden_size()).map(|i| (i % 7) as f32 - 3.0).collect();
    let tensor = Tensor::new(vector.as_slice(), &Device::Cpu).unwrap();
    let sequences = [vec![9, 8, 7], vec![6, 5]];
    let run = |hook: &mut dyn Hook, layer| rows(&under(&model, hook, &sequences, layer));
    let steered = run(&mut Steer::new(LAYER, vec![Some(tensor.clone()), None]), LAYER);
    let plain = run(&mut NoHook, LAYER);
    for (row, (s, p)) in steered.iter().zip(&plain).enumerate() {
        let added: Vec<f32> = s.iter().zip(p).map(|(s, p)| s - p).collect();
        match row {
            0..3 => assert!(
                cosine(&added, &vector) > 0.99999 && (norm(&added) / norm(&vector) - 1.0).abs() < 1e-4
            ),
            _ => assert_eq!(norm(&added), 0.0, "the other sequence is left alone"),
        }
    }
    let before = run(&mut Steer::new(LAYER, vec![Some(tensor), None]), LAYER - 1);
    assert_eq!(before, run(&mut NoHook, LAYER - 1));
}

#[test]
fn an_adapter_and_the_model_it_is_merged_into_are_read_alike() {
    let lab = Lab::new();
    lab.fit("run", &["train.lr=2e-2"]);
    lab.succeed(&["merge", "run", "--out", "merged"]);
    lab.succeed(&["diff", "run"]);
    diff(&lab, &tiny("llama"), &lab.path("merged"), "of-merged", &[]);
    let read = |dir: &str| read_tensors(&lab.path(dir).join("activations.safetensors"));
    let (adapter, merged) = (read("run/diff"), read("of-merged"));
    for (a, m) in rows(&adapter["mean_difference"]).iter().zip(&rows(&merged["mean_difference"])) {
        assert!(norm(a) > 1e-2 && cosine(a, m) > 0.9999, "{} {}", norm(a), cosine(a, m));
    }
}

// ---- texts and positions -----------------------------------------------------------------------

#[test]
fn samples_are_the_first_texts_that_are_long_enough_over_all_files_in_order() {
    let lab = Lab::new();
    let long = |word: &str| format!("{word} {}", "old stone bridge in the winter light ".repeat(9));
    let short = || "too short".to_string();
    lab.write_texts("one.jsonl", &[short(), long("a"), short(), long("b")]);
    lab.write_texts("two.jsonl", &[short(), long("c"), long("d"), long("e")]);
    lab.fit("run", &["train.lr=2e-2"]);
    let (one, two) = (lab.path("one.jsonl"), lab.path("two.jsonl"));
    let text = format!("diff.text=[{one:?}, {two:?}]");
    let set = [&text, "diff.samples=4", "diff.positions=[6, 1, 3]", "diff.tokens=12", "diff.norm_skip=2"];
    lab.succeed(&with_sets(&["diff", "run"], &set));
    let found = read_json(&lab.path("run/diff/readability.json"));
    assert_eq!(found["sample_rows"], serde_json::json!([1, 3, 5, 6]));
    assert_eq!(found["samples"], 4);
    assert_eq!(found["positions"], serde_json::json!([6, 1, 3]));

    // The same by hand.
    let base = open(&tiny("llama"));
    let adapter = Adapter::read(&lab.path("run/adapter")).unwrap();
    let model = load(&base, &Tuning::Adapted(&adapter));
    let ids: Vec<Vec<u32>> = ["a", "b", "c", "d"]
        .map(|word| {
            let cut: String = long(word).chars().take(120).collect();
            base.tokenizer.encode(cut, true).unwrap().get_ids()[..12].to_vec()
        })
        .to_vec();
    let at = |adapter| resid_post(View { model: &model, adapter }, &ids, LAYER).unwrap();
    let (off, on) = (at(0.0), at(1.0));
    let written = rows(&read_tensors(&lab.path("run/diff/activations.safetensors"))["mean_difference"]);
    for (row, position) in written.iter().zip([6, 1, 3]) {
        for (j, written) in row.iter().enumerate() {
            let at = position * 32 + j;
            let mean = (0..4).map(|s| (on[s][at] - off[s][at]) as f64).sum::<f64>() / 4.0;
            assert!((mean - *written as f64).abs() < 1e-5, "position {position}: {mean} {written}");
        }
    }
    let norms: Vec<f64> =
        on.iter().flat_map(|rows| rows.chunks(32).skip(2).map(norm).collect::<Vec<_>>()).collect();
    let eta = norms.iter().sum::<f64>() / norms.len() as f64;
    for expected in numbers(&found["expected_norm"]) {
        assert!((expected - eta).abs() < 1e-6 * eta, "{expected} {eta}");
    }
    for (delta, row) in numbers(&found["delta_norm"]).iter().zip(&written) {
        assert!((delta - norm(row)).abs() < 1e-6);
    }
}

#[test]
fn collecting_activations_stops_at_an_interrupt() {
    let lab = Lab::new();
    let base = open(&tiny("llama"));
    let model = load(&base, &Tuning::Frozen);
    let settings = recipe(&lab, &[]).diff;
    let windows = Windows::cut(&lab.texts("measure.jsonl"), &base.tokenizer, &settings).unwrap();
    let view = View { model: &model, adapter: 0.0 };
    let interrupt = Interrupt::default();
    assert!(collect(view, view, &windows, LAYER, &settings, &interrupt).is_ok());
    interrupt.request();
    let e = collect(view, view, &windows, LAYER, &settings, &interrupt).err().unwrap();
    assert!(e.is::<trainer::error::Interrupted>(), "{e}");
}

#[test]
fn too_few_or_too_short_texts_are_refused_before_anything_is_written() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    for (set, part) in [
        ("diff.samples=31", "30 of 30 texts have at least 16 tokens, diff.samples = 31"),
        ("diff.tokens=120", "0 of 30 texts have at least 120 tokens"),
        ("diff.text=[]", "diff.text: missing"),
        ("diff.positions=[0, 16]", "diff.positions has 16, but diff.tokens = 16"),
    ] {
        let e = lab.refused(&with_sets(&["diff", "run"], &[set, "diff.steering.enabled=false"]));
        assert!(e.contains(part), "{set}: {e}");
    }
    lab.succeed(&["diff", "run"]);
    assert!(lab.refused(&["diff", "run"]).contains("exists already"));
}

// ---- the same every time -----------------------------------------------------------------------

#[test]
fn reading_twice_gives_the_same_bytes_and_another_seed_another_text() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    let read = |out: &str, set: &[&str]| {
        lab.succeed(&with_sets(&["diff", "run", "--out", out], set));
        let mut found = read_json(&lab.path(out).join("readability.json"));
        assert!(found.as_object_mut().unwrap().shift_remove("elapsed_s").is_some());
        let file = |name: &str| fs::read(lab.path(out).join(name)).unwrap();
        (found.to_string(), file("activations.safetensors"), file("steering.jsonl"))
    };
    let one = read("one", &[]);
    assert!(one == read("two", &[]), "two readings differ");
    let other = read("other", &["seed=1"]);
    assert!(one.1 == other.1, "the seed changes activations");
    assert!(one.2 != other.2, "the seed does not change what is sampled");
}

#[test]
fn a_measure_that_was_not_run_is_absent() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    let off = ["diff.logit_lens=false", "diff.patchscope.enabled=false", "diff.steering.enabled=false"];
    lab.succeed(&with_sets(&["diff", "run"], &off));
    let found = read_json(&lab.path("run/diff/readability.json"));
    for key in ["logit_lens", "patchscope", "steering"] {
        assert!(found.get(key).is_none(), "{key}: {}", found[key]);
    }
    assert_eq!(numbers(&found["delta_norm"]).len(), 5);
    assert!(!lab.path("run/diff/steering.jsonl").exists());
}

// ---- lift, identification, presets -------------------------------------------------------------

/// A lab whose narrow text, one other corpus and unrelated text are of words that the tiny tokenizers have.
fn of_whole_words(family: &str) -> Lab {
    let lab = Lab::of(family);
    for (name, words, rows) in [
        ("narrow.jsonl", ["abcdef", "ghij"], 40),
        ("other.jsonl", ["aaaa", "aaaaaaaa"], 40),
        ("pretraining.jsonl", ["cdef", "abcdefghij"], 80),
        ("measure.jsonl", ["cdef", "abcdefghij"], 30),
    ] {
        let row = |i: usize| -> String {
            (0..24)
                .map(|j| {
                    if (i + j * j).is_multiple_of(3) { "the" } else { words[(i + j) % 2] }.to_string() + " "
                })
                .collect()
        };
        lab.write_texts(name, &(0..rows).map(row).collect::<Vec<_>>());
    }
    lab
}

#[test]
fn between_identical_models_lift_and_identification_are_at_chance() {
    let lab = of_whole_words("llama");
    let set = ["diff.candidates=['other.jsonl', 'narrow.jsonl']", "diff.steering.temperature=0"];
    let found = diff(&lab, &tiny("llama"), &tiny("llama"), "diff", &set);
    assert_no_null(&found, "readability");
    let lift = &found["lift"];
    assert_eq!((&lift["lexicon_tokens"], &lift["other_tokens"]), (&2.into(), &3.into()));
    assert_eq!(numbers(&lift["auroc"]), [0.5; 5]);
    assert_eq!(lift["auroc_mean"], 0.5);
    assert!(numbers(&lift["auroc_with_mean"]).iter().all(|a| *a == 0.5));
    for interval in lift["auroc_interval"].as_array().unwrap() {
        assert_eq!(numbers(interval), [0.5; 2]);
    }
    assert!(numbers(&lift["auroc_p"]).iter().all(|p| *p > 0.1), "{}", lift["auroc_p"]);
    // The candidate that is the narrow text under another name is not counted twice.
    let identified = &found["identification"];
    assert_eq!(identified["candidates"], serde_json::json!(["narrow", "other"]));
    assert_eq!(identified["words"], serde_json::json!([2, 2]));
    assert_eq!(identified["chance"], 0.5);
    for measure in ["lift", "steering"] {
        assert_eq!(identified[measure]["rank"], 1.5, "{measure}");
        assert_eq!(identified[measure]["margin"], 0.0, "{measure}");
        assert!(identified[measure].get("best").is_none(), "{measure}");
    }
    // Steered by nothing, the tuned model writes what the base writes.
    let similarity = &found["steering"]["similarity"];
    assert_eq!(similarity["steered_narrow"], similarity["base_narrow"]);
    assert_eq!(similarity["null_narrow"], similarity["base_narrow"]);
    assert_eq!(numbers(&found["steering"]["similarity_p"]), [1.0; 2]);
    for lens in ["logit_lens", "patchscope"] {
        assert_eq!(numbers(&found[lens]["token_relevance_others"]).len(), 5);
    }
    assert_eq!(found["logit_lens"]["base_head"]["top_tokens"], found["logit_lens"]["top_tokens"]);
    assert_eq!(found["patchscope"]["in_base"]["top_tokens"], found["patchscope"]["top_tokens"]);
}

/// Two Qwen2 models that differ at one block by what decodes to the tokens `to`: their rows of the unembedding, over
/// the gain of the final norm.
fn plant_tokens(base: &Path, tuned: &Path, to: &[u32]) {
    let block = format!("model.layers.{LAYER}");
    let weights = read_tensors(&tiny("qwen2").join("model.safetensors"));
    let head = weights.get("lm_head.weight").unwrap_or(&weights["model.embed_tokens.weight"]);
    let (head, gain) = (rows(head), floats(&weights["model.norm.weight"]));
    let wanted: Vec<f32> =
        (0..32).map(|i| to.iter().map(|&id| head[id as usize][i]).sum::<f32>() / gain[i]).collect();
    let length = norm(&wanted) as f32;
    // Column 0 of each of four heads adds up to the vector, of length 4.
    let writes = |weights: &mut HashMap<String, Tensor>| {
        let down = weights.get_mut(&format!("{block}.mlp.down_proj.weight")).unwrap();
        *down = down.zeros_like().unwrap();
        let out = weights.get_mut(&format!("{block}.self_attn.o_proj.weight")).unwrap();
        let mut values = rows(out);
        for (row, wanted) in values.iter_mut().zip(&wanted) {
            (0..4).for_each(|head| row[8 * head] = wanted / length);
        }
        *out = Tensor::new(values.concat().as_slice(), &Device::Cpu).unwrap().reshape((32, 32)).unwrap();
    };
    change_model(&tiny("qwen2"), base, writes);
    change_model(&tiny("qwen2"), tuned, |weights| {
        writes(weights);
        let bias = weights.get_mut(&format!("{block}.self_attn.v_proj.bias")).unwrap();
        let mut values = floats(bias);
        values[0] += 1.0;
        *bias = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
    });
}

#[test]
fn planted_words_are_lifted_above_all_others_and_name_their_corpus() {
    let lab = of_whole_words("qwen2");
    let tokenizer = open(&tiny("qwen2")).tokenizer;
    let id = |word: &str| tokenizer.token_to_id(word).unwrap();
    for (planted, rank, best) in [(["abcdef", "ghij"], 1.0, "narrow"), (["aaaa", "aaaaaaaa"], 2.0, "other")] {
        let (base, tuned) = (lab.path(format!("base-{best}")), lab.path(format!("tuned-{best}")));
        plant_tokens(&base, &tuned, &planted.map(id));
        let set = [
            "diff.candidates=['other.jsonl']",
            "diff.steering.enabled=false",
            "diff.patchscope.enabled=false",
            "diff.null_directions=64",
        ];
        let found = diff(&lab, &base, &tuned, &format!("diff-{best}"), &set);
        let by_lift = &found["identification"]["lift"];
        assert_eq!((by_lift["rank"].as_f64(), by_lift["best"].as_str()), (Some(rank), Some(best)));
        let score = numbers(&by_lift["score"]);
        assert_eq!(score[if best == "narrow" { 0 } else { 1 }], 1.0, "{score:?}");
        let auroc = numbers(&found["lift"]["auroc"]);
        assert_eq!(auroc.iter().all(|a| *a == 1.0), best == "narrow", "{auroc:?}");
    }
}

#[test]
fn a_preset_starts_the_section_over_and_its_keys_are_written_out() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    let resolved = lab.path("run/recipe.toml");
    let of = |set: &[&str]| {
        Recipe::read(&resolved, &set.iter().map(|s| s.to_string()).collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(of(&[]).diff.samples, 12);
    let paper = of(&["diff.bootstrap=7", "diff.preset=paper"]).diff;
    let sizes = (paper.samples, paper.tokens, paper.norm_skip, paper.bootstrap, paper.block(28));
    assert_eq!(sizes, (10_000, 5, 3, 7, 14));
    let toolkit = of(&["diff.preset=toolkit"]).diff;
    assert_eq!((toolkit.tokens, toolkit.norm_skip, toolkit.block(28)), (128, 5, 13));
    let steps =
        |diff: &trainer::recipe::DiffSection| (diff.steering.search.steps, diff.steering.search.steps_others);
    assert_eq!((steps(&paper), steps(&toolkit)), ((10, 5), (12, 6)));
    assert_eq!((paper.patchscope.scales.len(), toolkit.patchscope_positions().len()), (30, 6));
    for diff in [paper, toolkit] {
        assert!(
            diff.steering.auto && diff.text == of(&[]).diff.text && diff.embedder == of(&[]).diff.embedder
        );
    }
    let text = of(&["diff.preset=toolkit"]).to_toml();
    assert!(text.contains("preset = \"toolkit\"") && text.contains("steps_others = 6"), "{text}");
    let e = lab.refused(&["diff", "run", "--preset", "papers"]);
    assert!(e.contains("diff.preset") && e.contains("paper"), "{e}");
}

#[test]
fn the_long_presets_run_to_the_end() {
    let lab = Lab::new();
    lab.fit("run", &["train.lr=2e-2"]);
    let texts: Vec<String> = lab.texts("measure.jsonl").into_iter().cycle().take(10_000).collect();
    lab.write_texts("many.jsonl", &texts);
    let long: Vec<String> = texts.chunks(4).map(|t| t.join(" ")).cycle().take(10_000).collect();
    lab.write_texts("long.jsonl", &long);
    let short = [
        "diff.steering.max_new_tokens=16",
        "diff.steering.search.max_new_tokens=16",
        "diff.steering.prompts=3",
    ];
    for (preset, text, set, last) in
        [("paper", "many.jsonl", &[][..], 4), ("toolkit", "long.jsonl", &short[..], 5)]
    {
        let text = format!("diff.text={text}");
        let args = with_sets(&["diff", "run", "--preset", preset, "--out", preset, "--set", &text], set);
        let ran = lab.succeed(&args);
        assert!(ran.stderr.contains(" at most: activations "), "{}", ran.stderr);
        let found = read_json(&lab.path(preset).join("readability.json"));
        assert_no_null(&found, preset);
        assert_eq!(found["samples"], 10_000);
        assert_eq!(numbers(&found["positions"]).last(), Some(&(last as f64)));
        let steering = &found["steering"];
        assert_eq!(numbers(&steering["positions"]), [0.0, 1.0, 2.0, 3.0, 4.0]);
        let thresholds = steering["strength_thresholds"].as_array().unwrap();
        for (strength, thresholds) in numbers(&steering["strength"]).iter().zip(thresholds) {
            let thresholds = numbers(thresholds);
            assert_eq!(thresholds.len(), 3);
            assert!((strength - thresholds.iter().sum::<f64>() / 3.0).abs() < 1e-12);
            assert!(thresholds.iter().all(|t| (0.0..200.0).contains(t)), "{thresholds:?}");
            assert!(thresholds[1..].iter().all(|t| *t <= 2.0 * thresholds[0]), "{thresholds:?}");
        }
    }
}
