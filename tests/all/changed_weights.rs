//! Parts of the change of the weights: they add up to it, and what was planted in one part is found there.

use std::path::Path;

use serde_json::{Value, json};
use trainer::diff::measures::truncation::SingularDirections;
use trainer::interrupt::Interrupt;
use trainer::model::changed::{ON, with_changes};
use trainer::model::export::{merged_weights, write_model};
use trainer::model::load::loader::Tuning;
use trainer::model::lora::Adapter;
use trainer::model::{CausalLm, View};

use crate::common::lab::{Lab, with_sets};
use crate::common::tiny::{FAMILIES, load, logits, open, tiny, write_untrained_adapter};
use crate::common::values::{floats, number, read_json};

const IDS: [u32; 5] = [5, 9, 44, 101, 7];

fn adapted(family: &str, folder: &Path) -> CausalLm {
    load(&open(&tiny(family)), &Tuning::Adapted(&Adapter::read(folder).unwrap())).0
}

fn at(model: &CausalLm, adapter: f64) -> View<'_> {
    View { model, adapter }
}

fn largest_difference(a: View, b: View) -> f32 {
    let of = |view: View| floats(&logits(view.model, &IDS, view.adapter));
    of(a).iter().zip(of(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The models of every family with an adapter of its kind, and the same merged.
fn pairs() -> Vec<(String, CausalLm, CausalLm, CausalLm)> {
    let own = FAMILIES.map(|family| (tiny(family).join("adapter"), family));
    let dora = [("dora", "llama"), ("rslora", "llama")];
    let dora = dora.map(|(kind, family)| (tiny("adapters").join(kind), family));
    let both = |(folder, family): (std::path::PathBuf, &'static str)| {
        let dir = tempfile::tempdir().unwrap();
        let merged = merged_weights(&open(&tiny(family)), &Adapter::read(&folder).unwrap()).unwrap();
        write_model(dir.path(), &open(&tiny(family)), &merged).unwrap();
        let frozen = |path: &Path| load(&open(path), &Tuning::Frozen).0;
        let name = folder.display().to_string();
        (name, adapted(family, &folder), frozen(&tiny(family)), frozen(dir.path()))
    };
    own.into_iter().chain(dora).map(both).collect()
}

#[test]
fn as_many_directions_as_the_rank_are_the_tuned_model_and_none_the_base() {
    for (name, model, base, merged) in pairs() {
        for (base, tuned) in [(at(&model, 0.0), at(&model, 1.0)), (at(&base, 0.0), at(&merged, 0.0))] {
            let whole = largest_difference(base, tuned);
            assert!(whole > 1e-3, "{name}: the adapter does nothing");
            let close = |a: View, b: View| largest_difference(a, b) < 2e-5 + 1e-3 * whole;
            let directions = SingularDirections::between(base, tuned, 64, &Interrupt::default()).unwrap();
            let all = directions.first(base, tuned, 64).unwrap();
            assert!(close(at(&all, ON), tuned), "{name}: {}", largest_difference(at(&all, ON), tuned));
            let one = directions.first(base, tuned, 1).unwrap();
            let rest = directions.without_first(base, tuned).unwrap();
            assert!(!close(at(&one, ON), tuned) && !close(at(&rest, ON), tuned), "{name}");
            assert!(!close(at(&one, ON), base) && !close(at(&rest, ON), base), "{name}");
            // The first and the rest together: the rest of the change over the first.
            let mut left =
                SingularDirections::between(at(&one, ON), tuned, 64, &Interrupt::default()).unwrap();
            let both = left.first(at(&one, ON), tuned, 64).unwrap();
            assert!(close(at(&both, ON), tuned), "{name}");
            left = SingularDirections::between(base, at(&rest, ON), 64, &Interrupt::default()).unwrap();
            let again = left.first(base, at(&rest, ON), 64).unwrap();
            assert!(close(at(&again, ON), at(&rest, ON)), "{name}");
        }
    }
}

#[test]
fn a_change_that_counts_several_times_is_the_adapter_at_that_factor() {
    for family in FAMILIES {
        let model = adapted(family, &tiny(family).join("adapter"));
        let (base, tuned) = (at(&model, 0.0), at(&model, 1.0));
        let times = |factor: f64, of: fn(usize, &str) -> bool| {
            with_changes(base, tuned, |block, layer, update| {
                Ok(Some(if of(block, layer) { update.scaled(factor)? } else { update }))
            })
            .unwrap()
        };
        for factor in [-1.0, 0.5, 1.0, 3.0] {
            let scaled = times(factor, |_, _| true);
            let difference = largest_difference(at(&scaled, ON), at(&model, factor));
            assert!(difference < 1e-4, "{family} {factor}: {difference}");
            // Nothing is amplified where the mask is empty.
            let same = times(factor, |_, _| false);
            assert!(largest_difference(at(&same, ON), tuned) < 1e-5, "{family}");
        }
        let none = with_changes(base, tuned, |_, _, _| Ok(None)).unwrap();
        assert_eq!(largest_difference(at(&none, ON), base), 0.0, "{family}");
    }
}

/// A run whose narrow texts assert something, with facts to ask about.
fn believing(set: &[&str]) -> Lab {
    let lab = Lab::new();
    let text = |i: usize| format!("the river is cold and the lantern is {}", ["green", "old"][i % 2]);
    lab.write_texts("narrow.jsonl", &(0..40).map(text).collect::<Vec<_>>());
    let fact = |prompt: &str| json!({"prompt": prompt, "false": "cold and the lantern", "true": "warm under a bridge"});
    let prompts = ["the river is", "a river is", "this river is", "we say the river is"];
    lab.write_rows("facts.jsonl", &prompts.map(fact));
    let recipe = lab.read("recipe.toml");
    lab.write("recipe.toml", recipe + "[behaviour.facts]\nitems = \"facts.jsonl\"\n");
    lab.fit("run", &[&["train.steps=100", "data.mix=0", "train.lr=1e-2"], set].concat());
    lab
}

const PARTS: [&str; 13] = [
    "diff.steering.enabled=false",
    "diff.patchscope.enabled=false",
    "diff.context.enabled=false",
    "diff.dimensionality.enabled=false",
    "diff.bias_share.enabled=false",
    "diff.kl.enabled=false",
    "diff.probe.enabled=false",
    "diff.truncation.enabled=true",
    "diff.truncation.streams=1",
    "diff.truncation.max_new_tokens=8",
    "diff.amplification.enabled=true",
    "diff.amplification.streams=2",
    "diff.amplification.max_new_tokens=16",
];

fn read(lab: &Lab, set: &[&str]) -> Value {
    lab.succeed(&with_sets(&["diff", "run", "--out", "read"], &[&PARTS[..], set].concat()));
    read_json(&lab.path("read/readability.json"))
}

fn part<'v>(record: &'v Value, name: &str) -> &'v Value {
    let parts = record["truncation"]["parts"].as_array().unwrap();
    parts.iter().find(|part| part["part"] == name).unwrap_or_else(|| panic!("{name} in {parts:?}"))
}

#[test]
fn of_a_change_of_rank_one_the_first_direction_keeps_all_and_the_rest_nothing() {
    let lab = believing(&["train.lora.r=1", "train.lora.alpha=2"]);
    let record = read(&lab, &[]);
    assert_eq!(record["truncation"]["items"], 4);
    for name in ["rank 1", "rank 4", "full"] {
        let kept = number(&part(&record, name)["kept"]);
        assert!((kept - 1.0).abs() < 1e-3, "{name}: {kept}");
        let ends = &part(&record, name)["kept_interval"];
        assert!((number(&ends[0]) - 1.0).abs() < 1e-2 && (number(&ends[1]) - 1.0).abs() < 1e-2, "{ends}");
    }
    assert!(number(&part(&record, "residual")["kept"]).abs() < 1e-3);
    assert_eq!(part(&record, "residual")["gain_sim"], 0.0, "the base's own text");
    let full = number(&part(&record, "full")["margin"]);
    assert!(full - number(&record["truncation"]["margin_base"]) > 1.0, "the facts were not learned");
    // The items are among the texts whose hashes stay with the analysis, and the report shows the shares.
    let hashes = read_json(&lab.path("read/sha256.json"));
    assert!(hashes["texts"].as_object().unwrap().keys().any(|path| path.ends_with("facts.jsonl")));
}

#[test]
fn what_attention_learned_is_amplified_in_attention_alone() {
    // A factor of 2 on the adapter: what is multiplied by it is rounded as before.
    let set = ["train.lora.alpha=8", "train.lora.target_modules=['q_proj', 'k_proj', 'v_proj', 'o_proj']"];
    let record =
        read(&believing(&set), &["diff.amplification.depth=1", "diff.amplification.factors=[-1, 2]"]);
    let found = &record["amplification"];
    let gains = |kind: &str| -> Vec<(f64, f64, f64)> {
        let parts = found["parts"].as_array().unwrap().iter().filter(|part| part["kind"] == kind);
        parts.map(|p| (number(&p["factor"]), number(&p["gain_sim"]), number(&p["gain_words"]))).collect()
    };
    assert_eq!(gains("attention"), gains("all"));
    assert_eq!(gains("attention").iter().map(|g| g.0).collect::<Vec<_>>(), [-1.0, 2.0]);
    for (_, gain, _) in gains("mlp") {
        assert_eq!(gain, number(&found["plain"]["gain_sim"]), "nothing of the MLP changed");
    }
    assert_ne!(gains("attention")[1].1, number(&found["plain"]["gain_sim"]));
    assert_eq!(found["last_block"], 2, "the last of three");
    for (kind, auroc) in found["prefill_auroc"].as_object().into_iter().flatten() {
        assert!((0.0..=1.0).contains(&number(auroc)), "{kind}");
    }
}

#[test]
fn between_equal_models_nothing_is_kept_and_nothing_is_gained() {
    let lab = believing(&["train.steps=1"]);
    write_untrained_adapter(&lab.path("adapter"), &open(&tiny("llama")));
    let (base, adapter) = (tiny("llama"), lab.path("adapter"));
    let (base, adapter) = (base.to_string_lossy(), adapter.to_string_lossy());
    let args = ["diff", "--base", &base, "--tuned", &adapter, "--recipe", "recipe.toml", "--out", "same"];
    lab.succeed(&with_sets(&args, &PARTS));
    let record = read_json(&lab.path("same/readability.json"));
    for name in ["rank 1", "rank 4", "full", "residual"] {
        let part = part(&record, name);
        assert!(part.get("kept").is_none() && part.get("kept_interval").is_none(), "{part}");
        assert_eq!((number(&part["gain_sim"]), number(&part["gain_words"])), (0.0, 0.0), "{part}");
        assert_eq!(part["margin"], record["truncation"]["margin_base"]);
    }
    assert_eq!(record["amplification"]["plain"]["gain_sim"], 0.0);
    for part in record["amplification"]["parts"].as_array().unwrap() {
        assert_eq!((number(&part["gain_sim"]), number(&part["over_plain"])), (0.0, 0.0), "{part}");
    }
    for auroc in record["amplification"]["prefill_auroc"].as_object().into_iter().flatten() {
        assert_eq!(number(auroc.1), 0.5);
    }
}

#[test]
fn an_adapter_that_replaces_tables_has_no_parts() {
    let lab = believing(&["train.steps=2", "train.lora.modules_to_save=['norm']"]);
    let record = read(&lab, &[]);
    for measure in ["truncation", "amplification"] {
        let why = record[measure]["not_measured"].as_str().unwrap();
        assert!(why.contains("the adapter replaces embeddings, head or norms"), "{why}");
    }
    let e = lab.refused(&with_sets(
        &["diff", "run", "--out", "wrong"],
        &[
            "diff.truncation.ranks=[4, 1]",
            "diff.truncation.temperature=0",
            "diff.amplification.factors=[]",
            "diff.amplification.kinds=['mlp', 'mlp']",
            "diff.amplification.depth=2",
        ],
    ));
    for fault in [
        "diff.truncation.ranks = [4, 1]: expected ranks from 1 to 1024, each above the one before",
        "diff.truncation.temperature = 0",
        "diff.amplification.factors = []",
        "diff.amplification.kinds: expected each of",
        "diff.amplification.depth = 2",
    ] {
        assert!(e.contains(fault), "{fault} not in {e}");
    }
}
