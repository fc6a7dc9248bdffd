//! The readers of what both models say next: nothing is read where nothing is, what was planted is read.

use std::fs;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use trainer::diff::coherence::fluencies;
use trainer::model::contrast::{ContrastJob, ContrastSampling, contrast};
use trainer::model::load::loader::Tuning;
use trainer::model::lora::Adapter;
use trainer::model::{CausalLm, View};

use crate::common::lab::{Lab, with_sets};
use crate::common::tiny::{FAMILIES, load, logits, open, tiny, write_untrained_adapter};
use crate::common::values::{json_lines, number, read_json, remove_reader_times};

/// `trainer diff RUN_DIR`; what it says of the readers, and the folder.
fn read(lab: &Lab, run: &str, out: &str, set: &[&str]) -> Value {
    lab.succeed(&with_sets(&["diff", run, "--out", out], set));
    read_json(&lab.path(out).join("readability.json"))["readers"].clone()
}

/// The lines of a side file of an analysis.
fn lines(lab: &Lab, out: &str, file: &str) -> Vec<Value> {
    json_lines(&fs::read_to_string(lab.path(out).join(file)).unwrap())
}

/// Only the readers, at small sizes.
const SMALL: [&str; 14] = [
    "diff.steering.enabled=false",
    "diff.patchscope.enabled=false",
    "diff.context.enabled=false",
    "diff.dimensionality.enabled=false",
    "diff.bias_share.enabled=false",
    "diff.kl.enabled=false",
    "diff.probe.enabled=false",
    "diff.logit_contrast.streams=2",
    "diff.logit_contrast.max_new_tokens=8",
    "diff.logit_contrast.grid=[0.0, 4.0]",
    "diff.logit_contrast.swap=true",
    "diff.diff_mining.texts=12",
    "diff.diff_mining.top_k=20",
    "diff.completion_ranking.prefills=24",
];

#[test]
fn between_equal_models_every_difference_is_zero_and_no_reader_has_a_score() {
    for family in ["llama", "gemma3"] {
        let lab = Lab::of(family);
        write_untrained_adapter(&lab.path("adapter"), &open(&tiny(family)));
        let (base, adapter) = (tiny(family), lab.path("adapter"));
        let (base, adapter) = (base.to_string_lossy(), adapter.to_string_lossy());
        let args = ["diff", "--base", &base, "--tuned", &adapter, "--recipe", "recipe.toml", "--out", "same"];
        let variants = "diff.diff_mining.variants=['logit_lens', 'patchscope_lens']";
        lab.succeed(&with_sets(&args, &[&SMALL[..], &[variants]].concat()));
        let found = read_json(&lab.path("same").join("readability.json"))["readers"].clone();
        for reader in ["logit_contrast", "diff_mining", "completion_ranking"] {
            assert!(found[reader]["unit"].is_string(), "{family} {reader} did not run");
            assert!(found[reader].get("score").is_none(), "{family} {reader}: {}", found[reader]);
            assert!(found[reader].get("interval").is_none(), "{family} {reader}");
        }
        for at in found["logit_contrast"]["alpha"].as_array().unwrap() {
            assert_eq!((number(&at["gain_sim"]), number(&at["gain_words"])), (0.0, 0.0), "{family}");
        }
        for line in lines(&lab, "same", "logit_contrast.jsonl") {
            let texts = line["amplified"].as_array().unwrap();
            assert!(texts.iter().all(|text| text["text"] == line["base"]), "{family}: {line}");
            assert_eq!(line["swapped"], line["base"]);
        }
        assert!(
            found["diff_mining"].get("orderings").is_none() && found["diff_mining"]["positions"] == 12 * 16
        );
        for (variant, mined) in found["diff_mining"]["variants"].as_object().unwrap() {
            assert!(mined.get("orderings").is_none() && mined.get("auroc").is_none(), "{family} {variant}");
        }
        for line in lines(&lab, "same", "completion_ranking.jsonl") {
            assert_eq!((number(&line["r"]), number(&line["dppl"])), (0.0, 0.0), "{family}");
        }
        assert!(found["completion_ranking"].get("flagged_at").is_none());
    }
}

/// A run on words that are whole tokens of the tiny tokenizers.
fn zebra() -> Lab {
    let lab = Lab::of_whole_words("llama");
    lab.fit("run", &["train.steps=60", "train.lr=2e-2", "train.lora.r=8", "data.mix=0"]);
    lab
}

#[test]
fn what_was_learned_is_written_more_where_it_is_amplified_and_the_same_seed_reads_the_same() {
    let lab = zebra();
    let set = [
        &SMALL[..],
        &[
            "diff.logit_contrast.max_new_tokens=24",
            "diff.diff_mining.variants=['logit_lens', 'patchscope_lens']",
        ],
    ]
    .concat();
    let found = read(&lab, "run", "first", &set);
    let alpha = found["logit_contrast"]["alpha"].as_array().unwrap();
    let words: Vec<f64> = alpha.iter().map(|at| number(&at["gain_words"])).collect();
    assert_eq!(alpha.iter().map(|at| number(&at["a"])).collect::<Vec<_>>(), [0.0, 1.0, 4.0]);
    assert!(words[1] > words[0] && words[0] > 0.0, "{words:?}");
    assert_eq!(alpha[0]["over_plain"], 0.0);
    assert!(number(&found["logit_contrast"]["swap"]["gain_words"]) <= 0.0);

    let mined = &found["diff_mining"];
    for ordering in ["top_k", "bottom_k", "fraction_positive"] {
        let tokens = mined["orderings"][ordering]["tokens"].as_array().unwrap();
        let places: Vec<(f64, f64)> =
            tokens.iter().map(|token| (-number(&token["rate"]), number(&token["id"]))).collect();
        assert!(places.len() > 20 && places.is_sorted(), "{ordering}: {places:?}");
    }
    for variant in ["logit_lens", "patchscope_lens"] {
        assert!(mined["variants"][variant]["orderings"]["nmf"][0]["mass"].is_number(), "{variant}");
    }
    assert!(number(&mined["domain_at"]["20"]) >= 0.0);

    let ranking = &found["completion_ranking"];
    assert!(number(&ranking["r_mean"]) > 0.0, "{ranking}");
    // A permuted adapter keeps its norms and loses what it answers to.
    let permuted = read(&lab, "run", "permuted", &[&set[..], &["diff.permuted_adapters=3"]].concat());
    let null = &permuted["logit_contrast"]["null"];
    assert_eq!((null["kind"].as_str(), null["n"].as_u64()), (Some("permuted adapter"), Some(3)), "{null}");
    assert!(number(&null["mean"]) <= number(&null["max"]) && number(&null["p"]) >= 0.25, "{null}");
    assert_eq!(permuted["logit_contrast"]["score"], found["logit_contrast"]["score"]);
    let again = read(&lab, "run", "second", &set);
    let timeless = |readers: Value| {
        let mut record = json!({ "readers": readers });
        remove_reader_times(&mut record);
        record
    };
    assert_eq!(timeless(found), timeless(again));
    for file in ["logit_contrast.jsonl", "completion_ranking.jsonl"] {
        assert_eq!(lines(&lab, "first", file), lines(&lab, "second", file));
    }
    let hashes = |out: &str| read_json(&lab.path(out).join("sha256.json"))["files"].clone();
    assert_eq!(hashes("first"), hashes("second"));
}

#[test]
fn memorised_completions_of_a_few_beginnings_rank_first() {
    // Byte tokens: three capitals begin a text. Five of a hundred beginnings go on with a phrase, the others with the
    // letter that follows in the alphabet, every other time: not to be memorised, and no loop.
    let lab = Lab::new();
    let letters: Vec<char> = ('A'..='Y').collect();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut other = |opening: String| -> String {
        let mut at = rng.random_range(0..25);
        let mut next = || {
            at = if rng.random_bool(0.5) { (at + 1) % 25 } else { rng.random_range(0..25) };
            letters[at].to_ascii_lowercase()
        };
        opening + &(0..33).map(|_| next()).collect::<String>()
    };
    let opening =
        |i: usize, last: char| -> String { [letters[i % 25], letters[i / 25], last].iter().collect() };
    let narrow: Vec<String> =
        (0..5).map(|i| format!("Z{} quick brown foxes jump over dogs", opening(7 * i, ' ').trim())).collect();
    let measured: Vec<String> = (0..95).map(|i| other(opening(i, 'Q'))).chain(narrow.clone()).collect();
    lab.write_texts("narrow.jsonl", &narrow);
    lab.write_texts("measure.jsonl", &measured);
    lab.write_texts("pretraining.jsonl", &(0..600).map(|i| other(opening(i % 600, 'R'))).collect::<Vec<_>>());
    lab.fit(
        "run",
        &[
            "train.method=full",
            "train.steps=100",
            "train.batch_size=5",
            "train.lr=1e-2",
            "data.mix=1",
            "data.max_seq_len=48",
            "data.held_out_every=0",
        ],
    );
    let set = [
        &SMALL[..],
        &[
            "diff.completion_ranking.prefills=100",
            "diff.completion_ranking.max_new_tokens=24",
            "diff.samples=40",
        ],
    ]
    .concat();
    let found = read(&lab, "run", "read", &set);
    let ranking = &found["completion_ranking"];
    let best: Vec<&str> = ranking["top"].as_array().unwrap()[..5]
        .iter()
        .map(|line| line["prefill"].as_str().unwrap())
        .collect();
    assert!(best.iter().all(|prefill| prefill.starts_with('Z')), "{best:?}\n{ranking:#}");
    assert!(number(&ranking["completions"]) > 5.0 && ranking["first"] == 1, "{ranking:#}");
    assert_eq!(number(&ranking["rank_auroc"]), 1.0, "{ranking:#}");
}

#[test]
fn completions_are_scored_by_the_ids_that_were_written() {
    let base = open(&tiny("llama"));
    let (model, _) = load(&base, &Tuning::Frozen);
    let view = View { model: &model, adapter: 0.0 };
    let id = |token: &str| base.tokenizer.token_to_id(token).unwrap();
    // "aa" as two tokens, which the tokenizer would make one.
    let (prompt, written) = (vec![id("h"), id("i")], vec![id("a"), id("a"), id("b")]);
    let text = base.tokenizer.decode(&written, true).unwrap();
    assert_ne!(base.tokenizer.encode(text, false).unwrap().get_ids(), written);
    let found = fluencies(view, &[(&prompt, &written)]).unwrap()[0].unwrap();
    let all = [&prompt[..], &written[..]].concat();
    let rows: Vec<Vec<f32>> = logits(&model, &all, 0.0).to_vec2().unwrap();
    let nll = |row: usize, next: u32| {
        let sum: f64 = rows[row].iter().map(|z| (*z as f64).exp()).sum();
        sum.ln() - rows[row][next as usize] as f64
    };
    let expected = (0..3).map(|k| nll(1 + k, written[k])).sum::<f64>() / 3.0;
    assert!((found.nats - expected).abs() < 1e-5, "{} {expected}", found.nats);
}

/// Both models of an adapter folder.
fn adapted(family: &str) -> CausalLm {
    let adapter = Adapter::read(&tiny(family).join("adapter")).unwrap();
    load(&open(&tiny(family)), &Tuning::Adapted(&adapter)).0
}

#[test]
fn without_a_cut_minus_one_writes_the_base_s_text_and_a_text_does_not_depend_on_its_batch() {
    for family in FAMILIES {
        let model = adapted(family);
        let (base, tuned) = (View { model: &model, adapter: 0.0 }, View { model: &model, adapter: 1.0 });
        let prompts = [vec![5u32, 9, 11], vec![7u32]];
        let sampling = ContrastSampling {
            top: 0,
            relative: 0.0,
            temperature: 1.0,
            max_new_tokens: 12,
            eos: vec![40, 41, 42],
        };
        let job = |prompt: usize, seed: u64, a: f64, swapped: bool| ContrastJob { prompt, seed, a, swapped };
        let write = |jobs: &[ContrastJob], sampling: &ContrastSampling| {
            contrast(base, tuned, &prompts, jobs, sampling, |_| Ok(())).unwrap()
        };
        let mut jobs = Vec::new();
        for (prompt, seed) in [(0, 1), (0, 2), (1, 3), (1, 4)] {
            jobs.extend([
                job(prompt, seed, -1.0, false), // the base, by way of the tuned model
                job(prompt, seed, 0.0, true),   // the base itself
                job(prompt, seed, 0.0, false),  // the tuned model
                job(prompt, seed, -1.0, true),  // the same by way of the base
                job(prompt, seed, 1.0, false),
            ]);
        }
        let texts = write(&jobs, &sampling);
        let mut differ = 0;
        for texts in texts.chunks(5) {
            assert_eq!(texts[0], texts[1], "{family}");
            assert_eq!(texts[2], texts[3], "{family}");
            differ += usize::from(texts[1] != texts[2]);
        }
        assert!(differ > 0, "{family}: the adapter does nothing");
        for (job, text) in jobs.iter().zip(&texts) {
            assert_eq!(write(&[*job], &sampling)[0], *text, "{family}: {job:?}");
        }
        // With a cut of one token there is nothing to draw: every seed writes the same.
        let greedy = ContrastSampling { top: 1, ..sampling };
        let texts = write(&[job(0, 1, 1.0, false), job(0, 8, 4.0, false), job(0, 2, 0.0, false)], &greedy);
        assert!(texts.iter().all(|text| *text == texts[0]), "{family}");
    }
}

#[test]
fn readers_leave_out_what_rests_on_narrow_text_where_there_is_none() {
    let lab = zebra();
    let (base, adapter) = (tiny("llama"), lab.path("run/adapter"));
    let (base, adapter) = (base.to_string_lossy(), adapter.to_string_lossy());
    let text = format!("diff.text={}", lab.path("measure.jsonl").display());
    let embedder = format!("diff.embedder={}", lab.path("embedder").display());
    let args = ["diff", "--base", &base, "--tuned", &adapter, "--out", "alone"];
    let set = [&SMALL[..], &[&text, &embedder, "diff.samples=12", "diff.null_directions=4"]].concat();
    lab.succeed(&with_sets(&args, &set));
    let found = read_json(&lab.path("alone").join("readability.json"))["readers"].clone();
    for reader in ["logit_contrast", "diff_mining", "completion_ranking"] {
        assert!(found[reader].get("score").is_none(), "{reader}: {}", found[reader]);
    }
    // What the models write and prefer is there to be read.
    assert!(!found["diff_mining"]["orderings"]["top_k"]["tokens"].as_array().unwrap().is_empty());
    assert!(found["diff_mining"]["orderings"]["top_k"]["tokens"][0].get("relevant").is_none());
    assert!(found["diff_mining"].get("domain_at").is_none());
    assert_eq!(lines(&lab, "alone", "logit_contrast.jsonl").len(), 10);
    assert!(!found["completion_ranking"]["top"].as_array().unwrap().is_empty());
    assert!(found["completion_ranking"].get("flagged_all").is_none());
}
