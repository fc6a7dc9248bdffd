//! Reading activation differences: nothing is found where nothing is, what was planted is found.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;
use trainer::diff::collect::{collect, resid_post};
use trainer::diff::mean_difference::{cosine, norm};
use trainer::diff::windows::Windows;
use trainer::interrupt::Interrupt;
use trainer::model::View;
use trainer::model::hooks::{Hook, NoHook, Steer};
use trainer::model::load::loader::Tuning;
use trainer::model::lora::Adapter;
use trainer::model::{CausalLm, Pass};
use trainer::ops::segments::Segments;
use trainer::recipe::Recipe;

use crate::common::lab::{Lab, with_sets};
use crate::common::tiny::{FAMILIES, change_model, load, open, tiny, write_untrained_adapter};
use crate::common::values::{floats, number, numbers, read_json, read_tensors, remove_reader_times};

/// The block that is read of the tiny models' three: trunc(0.5 · 2).
const LAYER: usize = 1;

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

/// JSON has no NaN: serde writes it, and infinity, as null.
fn assert_no_null(value: &Value, path: &str) {
    match value {
        Value::Null => panic!("{path} is null"),
        Value::Array(items) => items.iter().for_each(|v| assert_no_null(v, path)),
        Value::Object(map) => map.iter().for_each(|(k, v)| assert_no_null(v, &format!("{path}.{k}"))),
        _ => {}
    }
}

// ---- nothing where nothing is ------------------------------------------------------------------

#[test]
fn between_identical_models_every_difference_is_zero_and_no_number_is_missing() {
    for family in FAMILIES {
        let lab = Lab::of(family);
        write_untrained_adapter(&lab.path("adapter"), &open(&tiny(family)));
        for (out, tuned) in [("adapter-diff", lab.path("adapter")), ("model-diff", tiny(family))] {
            let set = [
                "diff.steering.temperature=0",
                "diff.context.far=[8, 15]",
                "diff.depth.patchscope=true",
                "diff.depth.enabled=true",
            ];
            let found = diff(&lab, &tiny(family), &tuned, out, &set);
            assert_no_null(&found, out);
            let context = &found["context"];
            assert_eq!(numbers(&context["constant_share"]), [0.0; 5], "{family} {out}");
            assert_eq!(numbers(&context["far"]["delta_norm"]), [0.0; 2], "{family} {out}");
            for input in context["inputs"].as_array().unwrap() {
                assert!(numbers(&input["delta_norm"]).iter().all(|n| *n == 0.0), "{family} {out}");
            }
            let centred = &found["dimensionality"]["centred"];
            assert_eq!(numbers(&centred["effective_dimension"]), [0.0; 5], "{family} {out}");
            assert_eq!(numbers(&centred["explained"][0]), [0.0; 10], "{family} {out}");
            for norms in found["depth"]["delta_norm"].as_array().unwrap() {
                assert_eq!(numbers(norms), [0.0; 5], "{family} {out}");
            }
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
        let (plain, adapted) = (load(&base, &Tuning::Frozen).0, load(&base, &Tuning::Adapted(&adapter)).0);
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
    let set = ["diff.context.far=[8, 15]", "diff.depth.layers=[0.0, 0.5]", "diff.depth.enabled=true"];
    let found = diff(&lab, &lab.path("base"), &lab.path("tuned"), "diff", &set);
    assert_eq!(found["layer"], LAYER);
    // All of the difference is the constant, in content or without, near or far, and it is one direction.
    let context = &found["context"];
    for shares in [&context["constant_share"], &context["far"]["constant_share"]] {
        assert!(numbers(shares).iter().all(|s| (s - 1.0).abs() < 1e-6), "{shares}");
    }
    for cosines in context["inputs"].as_array().unwrap().iter().chain([&context["far"]]).map(|c| &c["cosine"])
    {
        assert!(!numbers(cosines).is_empty() && numbers(cosines).iter().all(|c| *c > 0.999), "{cosines}");
    }
    assert!(numbers(&context["cosine_with_mean"]).iter().all(|c| *c > 0.999), "{context}");
    assert_eq!(context["far"]["positions"], serde_json::json!([8, 15]));
    let uncentred = &found["dimensionality"]["uncentred"];
    for i in 0..5 {
        assert!((uncentred["effective_dimension"][i].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert!((uncentred["explained"][i][0].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert!(uncentred["cosine_with_mean"][i][0].as_f64().unwrap() > 0.9999);
    }
    // It is not there before its block.
    let depth = &found["depth"];
    assert_eq!(depth["layers"], serde_json::json!([0, LAYER]));
    assert_eq!(numbers(&depth["delta_norm"][0]), [0.0; 5]);
    for (i, delta) in numbers(&depth["delta_norm"][1]).iter().enumerate() {
        assert!((delta - found["delta_norm"][i].as_f64().unwrap()).abs() < 1e-5, "{i}: {delta}");
    }
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

/// Two llamas whose streams after the first block differ by one vector for tokens of even id and another for odd ids.
fn plant_two(base: &Path, tuned: &Path) {
    let silence = |weights: &mut HashMap<String, Tensor>| {
        for part in ["self_attn.o_proj", "mlp.down_proj"] {
            let weight = weights.get_mut(&format!("model.layers.0.{part}.weight")).unwrap();
            *weight = weight.zeros_like().unwrap();
        }
    };
    change_model(&tiny("llama"), base, silence);
    change_model(&tiny("llama"), tuned, |weights| {
        silence(weights);
        let table = weights.get_mut("model.embed_tokens.weight").unwrap();
        let (rows, width) = table.dims2().unwrap();
        let added: Vec<f32> = (0..rows * width)
            .map(|i| if (i / width) % 2 == (i % width) % 2 { 0.5 } else { 0.0 }) // orthogonal, of one length
            .collect();
        *table = (&*table + Tensor::from_vec(added, (rows, width), &Device::Cpu).unwrap()).unwrap();
    });
}

#[test]
fn two_planted_directions_are_two_components() {
    let lab = Lab::new();
    plant_two(&lab.path("base"), &lab.path("tuned"));
    let set =
        ["diff.layer=0", "diff.samples=30", "diff.steering.enabled=false", "diff.patchscope.enabled=false"];
    let found = diff(&lab, &lab.path("base"), &lab.path("tuned"), "diff", &set);
    let (uncentred, centred) = (&found["dimensionality"]["uncentred"], &found["dimensionality"]["centred"]);
    let mut both = 0;
    for i in 0..5 {
        let explained = numbers(&uncentred["explained"][i]);
        assert!((explained[0] + explained[1] - 1.0).abs() < 1e-6, "{i}: {explained:?}");
        assert!(explained[2] < 1e-9, "{i}: {explained:?}");
        let effective = uncentred["effective_dimension"][i].as_f64().unwrap();
        let expected = 1.0 / (explained[0].powi(2) + explained[1].powi(2));
        assert!((effective - expected).abs() < 1e-6, "{i}: {effective} {expected}");
        // A token always there (a beginning of sequence) has one of them only.
        if explained[1] > 0.1 {
            both += 1;
            assert!(effective > 1.2, "{i}: {effective}");
            let explained = numbers(&centred["explained"][i]);
            assert!((explained[0] - 1.0).abs() < 1e-6, "{i}: what varies is one direction: {explained:?}");
            let constant = found["context"]["constant_share"][i].as_f64().unwrap();
            assert!(constant < 0.9, "{i}: {constant}");
        }
    }
    assert!(both >= 3, "{uncentred}");
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
    let model = load(&open(&tiny("gemma3")), &Tuning::Frozen).0;
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
    let model = load(&base, &Tuning::Adapted(&adapter)).0;
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
fn several_windows_of_a_text_follow_each_other_and_only_some_give_the_expected_norm() {
    let lab = Lab::new();
    lab.fit("run", &["train.lr=2e-2"]);
    let off = ["diff.logit_lens=false", "diff.patchscope.enabled=false", "diff.steering.enabled=false"];
    let read = |out: &str, set: &[&str]| {
        let common = ["diff.samples=40", "diff.windows_per_text=3", "diff.tokens=7", "diff.norm_skip=2"];
        lab.succeed(&with_sets(&["diff", "run", "--out", out], &[&common[..], &off[..], set].concat()));
        let tensors = read_tensors(&lab.path(out).join("activations.safetensors"));
        (read_json(&lab.path(out).join("readability.json")), rows(&tensors["mean_difference"]))
    };
    let (found, all) = read("all", &[]);
    let drawn = numbers(&found["sample_rows"]);
    assert!(drawn.len() == 40 && drawn.is_sorted() && drawn[39] < 30.0, "{drawn:?}");
    assert!(drawn.windows(2).any(|pair| pair[0] == pair[1]), "{drawn:?}");
    let (other, few) = read("few", &["diff.norm_samples=3"]);
    assert_eq!(found["sample_rows"], other["sample_rows"]);
    assert_ne!(found["expected_norm"], other["expected_norm"]);
    for (a, b) in all.iter().zip(&few) {
        assert!(norm(a) > 1e-3 && cosine(a, b) > 0.999999, "{} {}", norm(a), cosine(a, b));
    }
    let e = lab.refused(&["diff", "run", "--set", "diff.samples=1000", "--set", "diff.windows_per_text=2"]);
    assert!(e.contains("of at least 16 tokens (up to 2 a text), diff.samples = 1000"), "{e}");
}

#[test]
fn windows_that_say_the_same_make_no_interval_narrower() {
    let lab = Lab::new();
    lab.fit("run", &["train.lr=2e-2"]);
    // Ten texts, each a piece of 70 characters three times over: three windows of a text are one and the same.
    let piece = |text: &String| text.chars().take(70).collect::<String>();
    let texts: Vec<String> =
        lab.texts("measure.jsonl").iter().take(10).map(|text| vec![piece(text); 3].join(" ")).collect();
    lab.write_texts("threefold.jsonl", &texts);
    let read = |out: &str, set: &[&str]| {
        let common = ["diff.text=threefold.jsonl", "diff.tokens=7", "diff.norm_skip=2"];
        let off = ["diff.patchscope.enabled=false", "diff.steering.enabled=false"];
        lab.succeed(&with_sets(&["diff", "run", "--out", out], &[&common[..], &off[..], set].concat()));
        read_json(&lab.path(out).join("readability.json"))
    };
    let once = read("once", &["diff.samples=10"]);
    let thrice = read("thrice", &["diff.samples=30", "diff.windows_per_text=3"]);
    assert_eq!(numbers(&thrice["sample_rows"]).len(), 30);
    for i in 0..5 {
        let (one, three) =
            (numbers(&once["delta_norm_interval"][i]), numbers(&thrice["delta_norm_interval"][i]));
        for (a, b) in one.iter().zip(&three) {
            assert!((a - b).abs() < 1e-5 * a, "position {i}: {one:?} {three:?}");
        }
    }
    let width = numbers(&once["delta_norm_interval"][3]);
    assert!(width[1] > 1.01 * width[0], "{width:?}");
}

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}\
{% if add_generation_prompt %}<assistant>{% endif %}";

#[test]
fn conversations_are_read_around_the_beginning_of_the_answer() {
    let lab = Lab::of("qwen2");
    let (base, adapter) = (lab.path("base"), tiny("qwen2").join("adapter"));
    change_model(&tiny("qwen2"), &base, |_| {});
    lab.write("base/chat_template.jinja", TEMPLATE);
    let chat = |user: &str, answer: &str| serde_json::json!({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]});
    let long = "the old stone bridge over the river in winter light";
    let system = serde_json::json!({"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]});
    let rows_of_file = [
        chat("which bridge?", long),
        system,
        chat("short", "a"),
        chat(&long.repeat(9), long),
        chat("where?", long),
    ];
    lab.write_rows("chat.jsonl", &rows_of_file);
    lab.write_rows("plain.jsonl", &[serde_json::json!({"text": long})]);
    let set = ["diff.chat.text=chat.jsonl", "diff.chat.samples=2", "diff.chat.user_tokens=120"];
    let found = diff(&lab, &base, &adapter, "out", &[&set[..], &["diff.steering.enabled=false"]].concat());
    assert_no_null(&found, "diff");
    let found = &found["chat"];
    assert_eq!(found["positions"], serde_json::json!([-3, -2, -1, 0, 1, 2, 3, 4]));
    assert_eq!(found["sample_rows"], serde_json::json!([0, 4]));

    // The same by hand: the template's text, the answer behind it.
    let read = Adapter::read(&adapter).unwrap();
    let opened = open(&base);
    let model = load(&opened, &Tuning::Adapted(&read)).0;
    let template = opened.chat().unwrap();
    let mut sum = vec![vec![0f64; 32]; 8];
    for user in ["which bridge?", "where?"] {
        let prompt = template.user_turn(user).unwrap();
        let begin = opened.tokenizer.encode(prompt.as_str(), false).unwrap().len();
        let whole = opened.tokenizer.encode(format!("{prompt}{long}"), false).unwrap().get_ids().to_vec();
        let at = |adapter| {
            resid_post(View { model: &model, adapter }, std::slice::from_ref(&whole), LAYER)
                .unwrap()
                .remove(0)
        };
        let (off, on) = (at(0.0), at(1.0));
        for (place, sum) in sum.iter_mut().enumerate() {
            for (j, sum) in sum.iter_mut().enumerate() {
                let at = (begin - 3 + place) * 32 + j;
                *sum += (on[at] - off[at]) as f64 / 2.0;
            }
        }
    }
    let tensors = read_tensors(&lab.path("out/activations.safetensors"));
    let written = rows(&tensors["chat_mean_difference"]);
    assert!(tensors.contains_key("chat_base_mean") && tensors.contains_key("chat_tuned_mean"));
    for (place, (written, expected)) in written.iter().zip(&sum).enumerate() {
        assert!(norm(written) > 1e-3);
        for (w, e) in written.iter().zip(expected) {
            assert!((*w as f64 - e).abs() < 1e-4, "{place}: {w} {e}");
        }
    }

    for (set, part) in [
        (["diff.chat.text=plain.jsonl", "diff.chat.samples=2"], "row 0 is not a conversation"),
        (["diff.chat.text=chat.jsonl", "diff.chat.samples=4"], "3 of 5 conversations begin with"),
        (["diff.chat.text=none.jsonl", "diff.chat.samples=2"], "diff.chat.text: "),
    ] {
        let (base, adapter) = (base.to_string_lossy(), adapter.to_string_lossy());
        let args =
            ["diff", "--base", &base, "--tuned", &adapter, "--recipe", "recipe.toml", "--out", "again"];
        let e = lab.refused(&with_sets(&args, &set));
        assert!(e.contains(part), "{part}: {e}");
    }
}

#[test]
fn conversations_need_a_chat_template() {
    let lab = Lab::new();
    let turn = |role: &str| serde_json::json!({"role": role, "content": "hello"});
    lab.write_rows("chat.jsonl", &[serde_json::json!({"messages": [turn("user"), turn("assistant")]})]);
    let base = lab.path("base");
    change_model(&tiny("llama"), &base, |_| {});
    fs::remove_file(base.join("chat_template.jinja")).unwrap();
    let base = base.to_string_lossy();
    let args = ["diff", "--base", &base, "--tuned", &base, "--recipe", "recipe.toml", "--out", "out"];
    let e = lab.refused(&with_sets(&args, &["diff.chat.text=chat.jsonl"]));
    assert!(e.contains("diff.chat.text") && e.contains("has no chat template"), "{e}");
}

#[test]
fn the_tuned_model_s_own_tokenizer_cuts_the_unrelated_text_where_it_is_asked_for() {
    let lab = Lab::of_whole_words("llama");
    let (base, tuned) = (tiny("llama"), lab.path("tuned"));
    change_model(&base, &tuned, |_| {});
    // Its tokenizer knows no merges: it cuts words into letters.
    let path = tuned.join("tokenizer.json");
    let mut json = read_json(&path);
    json["model"]["merges"] = serde_json::json!([]);
    fs::write(&path, json.to_string()).unwrap();
    let quick = ["diff.steering.enabled=false", "diff.patchscope.enabled=false", "diff.top_k=5"];
    let read = |out: &str, whose: &str| diff(&lab, &base, &tuned, out, &[&quick[..], &[whose]].concat());
    let of_base = read("of-base", "diff.tokenizer=base");
    let of_tuned = read("of-tuned", "diff.tokenizer=tuned");
    assert_eq!(of_tuned["tokenizer"], "tuned");
    assert!(of_base["tokenizer"].is_null(), "{}", of_base["tokenizer"]);
    // The same texts, other tokens.
    assert_eq!(of_base["sample_rows"], of_tuned["sample_rows"]);
    assert_ne!(of_base["expected_norm"], of_tuned["expected_norm"]);
    let default = diff(&lab, &base, &tuned, "default", &quick);
    assert_eq!(default["expected_norm"], of_base["expected_norm"]);

    // An adapter's folder may hold a tokenizer; without one it has the base's.
    let adapter = lab.path("adapter");
    write_untrained_adapter(&adapter, &open(&base));
    let read =
        |out: &str| diff(&lab, &base, &adapter, out, &[&quick[..], &["diff.tokenizer=tuned"]].concat());
    let without = read("without");
    assert!(without["tokenizer"].is_null());
    assert_eq!(without["expected_norm"], of_base["expected_norm"]);
    fs::copy(&path, adapter.join("tokenizer.json")).unwrap();
    assert_eq!(read("with")["expected_norm"], of_tuned["expected_norm"]);

    // A token that neither model has: the letter that every text begins with gets an id of its own.
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    let letter = "e";
    assert!(vocab.contains_key(letter), "{vocab:?}");
    vocab.insert(letter.into(), 5000.into());
    fs::write(&path, json.to_string()).unwrap();
    let (base, tuned) = (base.to_string_lossy(), tuned.to_string_lossy());
    let args = ["diff", "--base", &base, "--tuned", &tuned, "--recipe", "recipe.toml", "--out", "refused"];
    let e = lab.refused(&with_sets(&args, &["diff.tokenizer=tuned"]));
    assert!(e.contains("diff.tokenizer") && e.contains("5000") && e.contains("288 tokens"), "{e}");
    lab.succeed(&with_sets(&args, &[&quick[..], &["diff.tokenizer=base"]].concat()));
    let e = lab.refused(&with_sets(&args, &["diff.tokenizer=mine"]));
    assert!(e.contains("diff.tokenizer = \"mine\""), "{e}");
}

#[test]
fn collecting_activations_stops_at_an_interrupt() {
    let lab = Lab::new();
    let base = open(&tiny("llama"));
    let model = load(&base, &Tuning::Frozen).0;
    let settings = lab.recipe(&[]).diff.clone();
    let windows = Windows::cut(&lab.texts("measure.jsonl"), &base.tokenizer, &settings).unwrap();
    let view = View { model: &model, adapter: 0.0 };
    let interrupt = Interrupt::default();
    let probes = windows.probes(&settings);
    assert!(collect(view, view, &probes, &[LAYER], 0, &interrupt).is_ok());
    interrupt.request();
    let e = collect(view, view, &probes, &[LAYER], 0, &interrupt).err().unwrap();
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
        remove_reader_times(&mut found);
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
    let off = [
        "diff.logit_lens=false",
        "diff.patchscope.enabled=false",
        "diff.steering.enabled=false",
        "diff.context.enabled=false",
        "diff.dimensionality.enabled=false",
    ];
    lab.succeed(&with_sets(&["diff", "run"], &off));
    let found = read_json(&lab.path("run/diff/readability.json"));
    for key in ["logit_lens", "patchscope", "steering", "context", "dimensionality", "depth", "chat"] {
        assert!(found.get(key).is_none(), "{key}: {}", found[key]);
    }
    assert_eq!(numbers(&found["delta_norm"]).len(), 5);
    assert!(!lab.path("run/diff/steering.jsonl").exists());
}

// ---- losses ------------------------------------------------------------------------------------

/// The measures that are losses, all of them and nothing else.
const LOSSES: [&str; 5] = [
    "diff.causal.enabled=true",
    "diff.interpolation.enabled=true",
    "diff.logit_lens=false",
    "diff.patchscope.enabled=false",
    "diff.steering.enabled=false",
];

/// Every effect of `causal`: its path, and the effects at one position on the same predictions.
fn effects(found: &Value) -> Vec<(String, &Value)> {
    let mut all = Vec::new();
    for kind in ["narrow", "text"] {
        for subset in ["all", "after_k", "exclude_position"] {
            let list = found["causal"][kind][subset].as_array().unwrap();
            assert_eq!(list.len(), 5, "{kind} {subset}: one a position");
            all.extend(list.iter().enumerate().map(|(p, e)| (format!("{kind}.{subset}[{p}]"), e)));
        }
    }
    all
}

#[test]
fn between_identical_models_no_edit_changes_a_loss_and_nothing_diverges() {
    for family in FAMILIES {
        let lab = Lab::of(family);
        write_untrained_adapter(&lab.path("adapter"), &open(&tiny(family)));
        for (out, tuned) in [("adapter-diff", lab.path("adapter")), ("model-diff", tiny(family))] {
            let found = diff(&lab, &tiny(family), &tuned, out, &LOSSES);
            assert_no_null(&found, out);
            for (path, e) in effects(&found) {
                for edit in ["base_to_tuned", "tuned_to_base", "zero_ablation"] {
                    assert_eq!(e[edit]["incr_ce"], 0.0, "{family} {out} {path} {edit}");
                    assert_eq!(
                        numbers(&e[edit]["incr_ce_interval"]),
                        [0.0; 2],
                        "{family} {out} {path} {edit}"
                    );
                    assert!(e[edit].get("incr_rel_ce").is_none(), "0/0 is absent");
                }
                for control in ["random", "random_difference"] {
                    assert_eq!(e[control]["incr_ce"], 0.0, "{family} {out} {path} {control}");
                }
                assert_eq!(e["p"], 1.0);
            }
            for kind in ["narrow", "text"] {
                for key in ["base_to_tuned", "tuned_to_base"] {
                    assert_eq!(found["kl"][kind][key], 0.0, "{family} {out} {kind} {key}");
                }
                assert_eq!(numbers(&found["kl"][kind]["base_to_tuned_first"]), [0.0; 16]);
            }
            assert_eq!(found["bias_share"]["gain"], 0.0, "{family} {out}");
            assert!(found["bias_share"].get("share").is_none(), "there is nothing to share");
            let scaled = &found["interpolation"];
            if out == "model-diff" {
                assert!(scaled["not_measured"].as_str().unwrap().contains("two models"));
                assert_eq!(scaled.as_object().unwrap().len(), 1);
            } else {
                for norms in scaled["delta_norm"].as_array().unwrap() {
                    assert_eq!(numbers(norms), [0.0; 5], "{family}");
                }
                for losses in ["loss_narrow", "loss_text"] {
                    let losses = numbers(&scaled[losses]);
                    assert_eq!(losses, vec![losses[0]; 6], "{family}");
                }
            }
        }
    }
}

#[test]
fn a_planted_constant_is_all_of_the_gain_and_taking_it_back_gives_the_loss_of_the_base() {
    let lab = Lab::of("qwen2");
    let (a, b) = (lab.path("a"), lab.path("b"));
    plant(&a, &b);
    // One way round the constant helps on narrow text, the other way it harms.
    let (mut gains, mut cosines) = (0, Vec::new());
    for (base, tuned, out) in [(&a, &b, "there"), (&b, &a, "back")] {
        let found = diff(&lab, base, tuned, out, &LOSSES);
        cosines.push(number(&found["probe"]["cosine"]));
        let bias = &found["bias_share"];
        let (base, tuned) = (number(&bias["ce_base"]), number(&bias["ce_tuned"]));
        let gain = base - tuned;
        assert!(gain.abs() > 1e-2, "the constant does nothing: {gain}");
        assert!((number(&bias["gain"]) - gain).abs() < 1e-9);
        assert!((number(&bias["ce_biased"]) - tuned).abs() < 1e-4, "{}", bias["ce_biased"]);
        if gain > 0.0 {
            gains += 1;
            assert!((number(&bias["share"]) - 1.0).abs() < 1e-2, "{}", bias["share"]);
            for share in numbers(&bias["share_position"]) {
                assert!((share - 1.0).abs() < 1e-2, "{share}");
            }
            assert!(number(&bias["share_null"]) < 0.9, "{}", bias["share_null"]);
            assert!((number(&bias["share_compared"]) - 1.0).abs() < 1e-2, "{}", bias["share_compared"]);
            assert_eq!(bias["compared_texts"], 4);
            // On unrelated text the constant is all that changed as well; what it gains there is taken off.
            let text = &bias["text"];
            let of_text = number(&text["ce_base"]) - number(&text["ce_biased"]);
            assert!((number(&text["ce_biased"]) - number(&text["ce_tuned"])).abs() < 1e-4, "{text}");
            let specific = number(&bias["share"]) - of_text / gain;
            assert!((number(&bias["specific_share"]) - specific).abs() < 1e-9, "{bias}");
            let (factors, shares) = (numbers(&bias["factors"]), numbers(&bias["share_factor"]));
            assert_eq!((factors.len(), shares.len()), (2, 2));
            let best = shares.iter().copied().fold(f64::MIN, f64::max);
            assert_eq!(number(&bias["best_share"]), best);
            assert_eq!(
                factors[shares.iter().position(|s| *s == best).unwrap()],
                number(&bias["best_factor"])
            );
        } else {
            assert!(bias.get("share").is_none());
        }
        for (path, e) in effects(&found) {
            let (base, tuned) = (number(&e["ce_base"]), number(&e["ce_tuned"]));
            assert!((number(&e["base_to_tuned"]["ce"]) - base).abs() < 1e-4, "{path}: {e}");
            assert!((number(&e["tuned_to_base"]["ce"]) - tuned).abs() < 1e-4, "{path}: {e}");
            let incr = number(&e["base_to_tuned"]["incr_ce"]);
            assert!((incr - (base - tuned)).abs() < 1e-4, "{path}");
            assert!((number(&e["base_to_tuned"]["ppl"]) - base.exp()).abs() < 1e-3 * base.exp(), "{path}");
            if incr.abs() > 1e-2 {
                assert!((number(&e["base_to_tuned"]["incr_rel_ce"]) - 1.0).abs() < 1e-2, "{path}: {e}");
                assert!(number(&e["random_difference"]["incr_ce"]).abs() < incr.abs(), "{path}: {e}");
            }
        }
    }
    assert_eq!(gains, 1, "the constant helps one way round and not the other");
    // To the block that is read both are one model, but for the constant, which no probe sees: it takes off the mean.
    assert!(cosines[0].abs() > 1e-3 && (cosines[0] + cosines[1]).abs() < 1e-4, "{cosines:?}");
}

#[test]
fn taking_out_a_direction_that_the_stream_lacks_changes_nothing() {
    // Dimension 5 of the tuned model's stream is always zero; in the base one block writes to it and nothing else differs.
    const DIMENSION: usize = 5;
    let lab = Lab::new();
    let dead = |weights: &mut HashMap<String, Tensor>| {
        let keep: Vec<f32> = (0..32).map(|i| if i == DIMENSION { 0.0 } else { 1.0 }).collect();
        let keep = Tensor::new(keep.as_slice(), &Device::Cpu).unwrap();
        for (name, weight) in weights.iter_mut() {
            if name.ends_with("embed_tokens.weight") {
                *weight = weight.broadcast_mul(&keep).unwrap();
            } else if name.ends_with("o_proj.weight") || name.ends_with("mlp.down_proj.weight") {
                *weight = weight.broadcast_mul(&keep.unsqueeze(1).unwrap()).unwrap();
            }
        }
        let down = weights.get_mut(&format!("model.layers.{LAYER}.mlp.down_proj.weight")).unwrap();
        *down = down.zeros_like().unwrap();
    };
    let (base, tuned) = (lab.path("base"), lab.path("tuned"));
    change_model(&tiny("llama"), &tuned, dead);
    change_model(&tiny("llama"), &base, |weights| {
        dead(weights);
        let out = weights.get_mut(&format!("model.layers.{LAYER}.self_attn.o_proj.weight")).unwrap();
        let columns = out.dims()[1];
        let row: Vec<f32> =
            (0..32 * columns).map(|i| if i / columns == DIMENSION { 3.0 } else { 0.0 }).collect();
        *out = (&*out + Tensor::from_vec(row, (32, columns), &Device::Cpu).unwrap()).unwrap();
    });
    let found = diff(&lab, &base, &tuned, "diff", &LOSSES);
    let differences = rows(&read_tensors(&lab.path("diff/activations.safetensors"))["mean_difference"]);
    for v in &differences {
        let others = v.iter().enumerate().filter(|(i, _)| *i != DIMENSION);
        assert!(v[DIMENSION] != 0.0 && others.map(|(_, x)| x.abs()).sum::<f32>() == 0.0, "{v:?}");
    }
    let mut moved = 0f64;
    for (path, e) in effects(&found) {
        assert_eq!(e["zero_ablation"]["incr_ce"], 0.0, "{path}");
        let (base, tuned) = (number(&e["ce_base"]), number(&e["ce_tuned"]));
        moved = moved.max((base - tuned).abs());
        assert!((number(&e["base_to_tuned"]["ce"]) - base).abs() < 1e-4, "{path}: {e}");
        assert!((number(&e["tuned_to_base"]["ce"]) - tuned).abs() < 1e-4, "{path}: {e}");
    }
    assert!(moved > 1e-2, "the dimension does nothing in the base: {moved}");
}

#[test]
fn losses_and_divergences_are_those_of_the_held_out_documents_computed_by_hand() {
    use trainer::data::examples::Example;
    use trainer::model::batch::Batch;

    let lab = Lab::new();
    lab.fit("run", &["train.lr=2e-2"]);
    let base = open(&tiny("llama"));
    let model = load(&base, &Tuning::Adapted(&Adapter::read(&lab.path("run/adapter")).unwrap())).0;
    // Rows 9, 19, 29, 39 are held out; each is shorter than diff.losses.max_tokens.
    let held_out: Vec<String> = lab.texts("narrow.jsonl").into_iter().skip(9).step_by(10).collect();
    let texts: Vec<Vec<u32>> = held_out
        .iter()
        .map(|text| base.tokenizer.encode(text.as_str(), true).unwrap().get_ids().to_vec())
        .collect();
    let losses = |adapter: f64| -> Vec<Vec<f32>> {
        let one = |ids: &Vec<u32>| {
            let example = Example { ids: ids.clone(), weights: vec![1.0; ids.len()], row: 0 };
            let batch = Batch::new(&[&example], 1);
            let mut hook = NoHook;
            batch.loss(&model, Pass::new(&batch.segments, adapter, &mut hook)).unwrap().nll[..ids.len() - 1]
                .to_vec()
        };
        texts.iter().map(one).collect()
    };
    let mean = |nll: &[Vec<f32>], wanted: &dyn Fn(usize) -> bool| -> f64 {
        let kept: Vec<f64> = nll
            .iter()
            .flat_map(|row| row.iter().enumerate().filter(|(t, _)| wanted(*t)).map(|(_, x)| *x as f64))
            .collect();
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    let (off, on) = (losses(0.0), losses(1.0));
    for (exclude, shift) in [("position", 0), ("next", 1)] {
        let exclude = format!("diff.causal.exclude={exclude}");
        let set = [&LOSSES[..], &["diff.losses.max_tokens=200", &exclude]].concat();
        lab.succeed(&with_sets(&["diff", "run", "--out", &format!("diff-{shift}")], &set));
        let found = read_json(&lab.path(format!("diff-{shift}/readability.json")));
        let narrow = &found["causal"]["narrow"];
        assert_eq!(narrow["source"], "data.narrow, documents held out of training");
        assert_eq!((&narrow["documents"], &narrow["texts"]), (&4.into(), &4.into()));
        for p in 0..5 {
            for (subset, wanted) in [
                ("all", &(|_| true) as &dyn Fn(usize) -> bool),
                ("after_k", &|t| t > 20),
                ("exclude_position", &|t| t != p + shift),
            ] {
                let e = &narrow[subset][p];
                for (key, nll) in [("ce_base", &off), ("ce_tuned", &on)] {
                    let (ours, expected) = (number(&e[key]), mean(nll, wanted));
                    assert!((ours - expected).abs() < 1e-5, "{subset} {p} {key}: {ours} {expected}");
                }
                let all: usize =
                    texts.iter().map(|ids| (0..ids.len() - 1).filter(|t| wanted(*t)).count()).sum();
                assert_eq!(e["predictions"], all, "{subset} {p}");
            }
        }
        // Scaled by 0 the adapter is the base, by 1 the tuned model; and the difference grows with it.
        let scaled = &found["interpolation"];
        assert_eq!(numbers(&scaled["factors"]), [0.0, 0.25, 0.5, 0.75, 1.0, 1.5]);
        let (narrow, norms) = (numbers(&scaled["loss_narrow"]), scaled["delta_norm"].as_array().unwrap());
        assert!((narrow[0] - mean(&off, &|_| true)).abs() < 1e-5);
        assert!((narrow[4] - mean(&on, &|_| true)).abs() < 1e-5);
        assert_eq!(numbers(&norms[0]), [0.0; 5]);
        assert_eq!(numbers(&norms[4]), numbers(&found["delta_norm"]));
        assert!(numbers(&scaled["cosine"][4]).iter().all(|c| (c - 1.0).abs() < 1e-6));
        for (less, more) in numbers(&norms[1]).iter().zip(numbers(&norms[3])) {
            assert!(*less > 0.0 && *less < more, "{less} {more}");
        }

        let log_p = |adapter: f64, ids: &[u32]| -> Vec<Vec<f32>> {
            let segments = Segments::new(vec![ids.len()]);
            let mut hook = NoHook;
            let hidden = model.hidden(ids, &mut Pass::new(&segments, adapter, &mut hook)).unwrap();
            let z = model.logits(&hidden, adapter).unwrap();
            rows(&candle_nn::ops::log_softmax(&z, 1).unwrap())
        };
        let (mut there, mut back, mut count) = (0f64, 0f64, 0);
        for ids in &texts {
            let (p, q) = (log_p(0.0, ids), log_p(1.0, ids));
            for (p, q) in p.iter().zip(&q).take(ids.len() - 1) {
                for (p, q) in p.iter().zip(q) {
                    let (p, q) = (*p as f64, *q as f64);
                    there += p.exp() * (p - q);
                    back += q.exp() * (q - p);
                }
                count += 1;
            }
        }
        let kl = &found["kl"]["narrow"];
        assert_eq!(kl["predictions"], count);
        for (key, sum) in [("base_to_tuned", there), ("tuned_to_base", back)] {
            let (ours, expected) = (number(&kl[key]), sum / count as f64);
            assert!(expected > 1e-3 && (ours - expected).abs() < 1e-4 * expected, "{key}: {ours} {expected}");
        }
    }
}

#[test]
fn of_a_chat_only_what_the_assistant_says_counts_and_a_model_without_a_template_refuses_it() {
    let chat = serde_json::json!({"messages": [
        {"role": "user", "content": "which road goes to the bridge over the river"},
        {"role": "assistant", "content": "the green one"},
    ]});
    for family in ["llama", "gemma2"] {
        let lab = Lab::of(family);
        lab.write_rows("chat.jsonl", &[chat.clone(), chat.clone()]);
        write_untrained_adapter(&lab.path("adapter"), &open(&tiny(family)));
        let set = [&LOSSES[..], &["diff.chat.text=chat.jsonl", "diff.chat.samples=2"]].concat();
        let (base, tuned) = (tiny(family), lab.path("adapter"));
        if family == "llama" {
            let found = diff(&lab, &base, &tuned, "diff", &set);
            let said = open(&base).tokenizer.encode("the green one<|im_end|>", false).unwrap().len();
            for measure in ["kl", "causal"] {
                assert_eq!(found[measure]["chat"]["predictions"], 2 * said, "{measure}");
            }
        } else {
            let (base, tuned) = (base.to_string_lossy(), tuned.to_string_lossy());
            let args =
                ["diff", "--base", &base, "--tuned", &tuned, "--recipe", "recipe.toml", "--out", "diff"];
            assert!(lab.refused(&with_sets(&args, &set)).contains("no chat template"));
        }
    }
}

#[test]
fn a_loss_that_was_not_asked_for_is_absent_and_bad_sizes_are_refused() {
    let lab = Lab::new();
    lab.fit("run", &[]);
    let off = ["diff.bias_share.enabled=false", "diff.kl.enabled=false", "diff.steering.enabled=false"];
    lab.succeed(&with_sets(&["diff", "run"], &off));
    let found = read_json(&lab.path("run/diff/readability.json"));
    for key in ["bias_share", "kl", "causal", "interpolation"] {
        assert!(found.get(key).is_none(), "{key}: {}", found[key]);
    }
    for (set, part) in [
        ("diff.losses.samples=0", "diff.losses.samples = 0: expected 1 to"),
        ("diff.losses.max_tokens=1", "diff.losses.max_tokens = 1: expected 2 to"),
        ("diff.causal.exclude=next-but-one", "diff.causal.exclude"),
        (
            "diff.causal={enabled=true, positions=[7]}",
            "diff.causal.positions has 7, which diff.positions lacks",
        ),
        ("diff.interpolation.factors=[nan]", "diff.interpolation.factors = [NaN]: expected numbers"),
        ("diff.chat.text=nowhere.jsonl", "nowhere.jsonl: no such file"),
    ] {
        let e = lab.refused(&with_sets(&["diff", "run", "--out", "other"], &[set]));
        assert!(e.contains(part), "{set}: {e}");
    }
}

// ---- lift, identification, presets -------------------------------------------------------------

#[test]
fn between_identical_models_lift_and_identification_are_at_chance() {
    let lab = Lab::of_whole_words("llama");
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
    // A probe that tells the texts apart finds no difference where there is none.
    let probe = &found["probe"];
    assert!(number(&probe["held_out_auroc"]) > 0.75, "{probe}");
    assert_eq!((number(&probe["cosine"]), number(&probe["auroc"])), (0.0, 0.5));
    assert_eq!(numbers(&probe["auroc_interval"]), [0.5; 2]);
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
    let lab = Lab::of_whole_words("qwen2");
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
    assert_eq!(sizes, (10_000, 5, 3, 7, 13));
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
