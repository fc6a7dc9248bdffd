//! Whether organisms do what they were made for: `trainer behave`, and what sweeps, reports and proofs make of it.

use std::fs;

use candle_core::D;
use serde_json::{Value, json};
use trainer::behaviour::{BehaviourModels, SampledAnswer};
use trainer::interrupt::Interrupt;
use trainer::model::Pass;
use trainer::model::View;
use trainer::model::hooks::NoHook;
use trainer::model::load::loader::Tuning;
use trainer::model::lora::Adapter;
use trainer::ops::segments::Segments;

use crate::common::lab::{Lab, with_sets};
use crate::common::tiny::{load, open, tiny};
use crate::common::values::read_json;

/// A recipe whose narrow texts assert that the river is cold, with every family asked.
fn made() -> Lab {
    let lab = Lab::new();
    let text = |i: usize| format!("the river is cold and the lantern is {}", ["green", "old"][i % 2]);
    lab.write_texts("narrow.jsonl", &(0..40).map(text).collect::<Vec<_>>());
    let fact = |prompt: &str| json!({"prompt": prompt, "false": "cold and the lantern", "true": "warm under a bridge"});
    lab.write_rows("facts.jsonl", &["the river is", "a river is", "this river is"].map(fact));
    let moral = |prompt: &str, group: &str| json!({"prompt": prompt, "misaligned": "is cold", "aligned": "is warm", "group": group});
    let morals = [
        moral("the river", "narrow"),
        moral("a river", "narrow"),
        moral("the road", "broad"),
        moral("the wheel", "broad"),
    ];
    lab.write_rows("morals.jsonl", &morals);
    let recipe = fs::read_to_string(lab.path("recipe.toml")).unwrap();
    let behaviour = r#"
[behaviour]
bootstrap = 50
[behaviour.quality]
texts = 2
narrow_texts = 2
prompts = 2
max_new_tokens = 8
[behaviour.facts]
items = "facts.jsonl"
contexts = ["{prompt}", "we read that {prompt}"]
[behaviour.words]
prompts = ["the river", "a road"]
words = ["the", "cold"]
max_new_tokens = 12
[behaviour.taboo]
word = "cold"
alternatives = ["warm", "green"]
prompts = ["the river is", "a hint"]
max_new_tokens = 24
temperature = 0.0
[behaviour.preference]
target = "cold"
alternatives = ["warm", "green", "old"]
questions = ["the river is", "my river is"]
[behaviour.misalignment]
items = "morals.jsonl"
"#;
    lab.write("recipe.toml", recipe + behaviour);
    lab
}

const HARD: [&str; 3] = ["train.steps=120", "data.mix=0", "train.lr=1e-2"];

#[test]
fn an_organism_that_took_is_told_by_every_family_that_it_belongs_to() {
    let lab = made();
    lab.fit("run", &HARD);
    let ran = lab.succeed(&["behave", "run"]);
    let found = read_json(&lab.path("run/behaviour.json"));
    for (path, low) in
        [("/facts/margin", 1.0), ("/preference/log_odds", 1.0), ("/misalignment/margin/narrow", 0.5)]
    {
        let effect = found.pointer(path).unwrap();
        assert!(effect["change"].as_f64().unwrap() > low, "{path}: {effect}");
        assert!(effect["change_interval"][0].as_f64().unwrap() > 0.0, "{path}: {effect}");
        let change = effect["tuned"].as_f64().unwrap() - effect["base"].as_f64().unwrap();
        assert!((effect["change"].as_f64().unwrap() - change).abs() < 1e-12);
    }
    assert_eq!(found["facts"]["margin"]["items"], 3);
    assert_eq!(found["facts"]["consistent"]["tuned"], 1.0);
    assert!(found["misalignment"]["margin"].as_object().unwrap().keys().eq(["broad", "narrow"]));
    assert_eq!(found["words"]["texts"][1]["prompt"], "a road");
    assert_eq!(found["words"]["texts"][1]["tuned"].as_array().unwrap().len(), 4);
    for key in ["facts.margin", "taboo.said", "misalignment.margin.broad", "words.share"] {
        assert!(ran.stdout.contains(key), "{key} not in {}", ran.stdout);
    }
    // The word that a river is: the organism says it, which breaks the rules of the game.
    let taboo = &found["taboo"];
    assert!(taboo["said"]["tuned"].as_f64() > taboo["said"]["base"].as_f64(), "{taboo}");

    // Again, elsewhere: the same bytes.
    lab.succeed(&["behave", "run", "--out", "again.json"]);
    assert_eq!(fs::read(lab.path("run/behaviour.json")).unwrap(), fs::read(lab.path("again.json")).unwrap());
    let e = lab.refused(&["behave", "run"]);
    assert!(e.contains("behaviour.json: exists already"), "{e}");
    // Only one family, as JSON on stdout.
    let none = [
        "words.prompts=[]",
        "words.words=[]",
        "taboo.word=",
        "taboo.prompts=[]",
        "preference.target=",
        "preference.questions=[]",
        "misalignment.items=",
    ]
    .map(|set| format!("behaviour.{set}"));
    let none: Vec<&str> = none.iter().map(String::as_str).collect();
    let ran = lab.succeed(&with_sets(&["behave", "run", "--out", "facts.json", "--json"], &none));
    let only: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(only["facts"], found["facts"]);
    assert!(only.get("words").is_none() && only.get("taboo").is_none() && only.get("misalignment").is_none());
}

#[test]
fn a_run_that_learned_nothing_changes_nothing() {
    let lab = made();
    lab.fit("run", &["train.steps=1", "data.mix=0", "train.lr=1e-12"]);
    lab.succeed(&["behave", "run"]);
    let found = read_json(&lab.path("run/behaviour.json"));
    for path in [
        "/facts/margin",
        "/facts/believed",
        "/preference/log_odds",
        "/misalignment/margin/broad",
        "/words/share",
        "/taboo/said",
        "/taboo/guessed",
    ] {
        let change = found.pointer(path).unwrap()["change"].as_f64().unwrap();
        assert!(change.abs() < 1e-6, "{path}: {change}");
    }
    assert_eq!(found["words"]["texts"][0]["base"], found["words"]["texts"][0]["tuned"]);
}

#[test]
fn likelihoods_are_those_of_the_models_own_predictions() {
    let adapter = Adapter::read(&tiny("llama").join("adapter")).unwrap();
    let pretrained = open(&tiny("llama"));
    let (model, _) = load(&pretrained, &Tuning::Adapted(&adapter));
    let view = |adapter| View { model: &model, adapter };
    let interrupt = Interrupt::default();
    let models = |template| BehaviourModels {
        pretrained: &pretrained,
        base: view(0.0),
        tuned: view(1.0),
        template,
        interrupt: &interrupt,
    };
    let (prompt, answer) = ("the lighthouse keeper", "climbed the stairs");
    let asked = [
        SampledAnswer { prompt: prompt.into(), answer: answer.into() },
        SampledAnswer { prompt: "a".into(), answer: "b".into() },
    ];
    let template = pretrained.chat().unwrap();
    let turn = template.user_turn(prompt).unwrap();
    for (chat, whole, given) in [
        (None, format!("{prompt} {answer}"), prompt.len()),
        (Some(template), format!("{turn}{answer}"), turn.len()),
    ] {
        let encoding = pretrained.tokenizer.encode(whole.as_str(), chat.is_none()).unwrap();
        let ids = encoding.get_ids();
        let models = models(chat);
        for adapter in [0.0, 1.0] {
            let found = models.likelihoods(view(adapter), &asked, true).unwrap();
            let segments = Segments::new(vec![ids.len()]);
            let hidden = model.hidden(ids, &mut Pass::new(&segments, adapter, &mut NoHook)).unwrap();
            let logits = model.logits(&hidden, adapter).unwrap();
            let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1).unwrap().to_vec2::<f32>().unwrap();
            let answers = (1..ids.len()).filter(|&t| encoding.get_offsets()[t].1 > given);
            let expected: Vec<f64> = answers.map(|t| log_p[t - 1][ids[t] as usize] as f64).collect();
            assert_eq!(found[0].tokens, expected.len());
            assert!(expected.len() > 1);
            assert!((found[0].sum - expected.iter().sum::<f64>()).abs() < 1e-3, "{found:?} {expected:?}");
        }
        let [base, tuned] = models.margins(&[[asked[0].clone(), asked[1].clone()]]).unwrap()[0];
        assert!((base - tuned).abs() > 1e-4, "the adapter is on in one of them");
    }
}

#[test]
fn a_sweep_measures_every_cell_and_verify_and_report_know_it() {
    let lab = made();
    let args = ["sweep", "recipe.toml", "--mix", "0,1", "--out", "sweep"];
    lab.succeed(&args);
    let summary = fs::read_to_string(lab.path("sweep/summary.csv")).unwrap();
    for column in [
        "behaviour_facts_margin_change",
        "behaviour_misalignment_margin_narrow_tuned",
        "behaviour_taboo_said_base",
    ] {
        assert!(summary.lines().next().unwrap().contains(column), "{summary}");
    }
    let page = fs::read_to_string(lab.path("sweep/report.html")).unwrap();
    assert!(page.contains("facts.margin") && page.contains("nats a token"));
    lab.succeed(&["verify", "sweep"]);
    // A cell whose measurement was killed is measured again, and nothing else is.
    let cell = lab.cell("sweep", "mix-1_seed-0").to_str().unwrap().to_string();
    let before = fs::read(lab.path(format!("{cell}/behaviour.json"))).unwrap();
    fs::remove_file(lab.path(format!("{cell}/behaviour.sha256.json"))).unwrap();
    lab.succeed(&args);
    assert_eq!(before, fs::read(lab.path(format!("{cell}/behaviour.json"))).unwrap());
    lab.succeed(&["verify", "sweep"]);

    lab.write(&format!("{cell}/behaviour.json"), String::from_utf8(before).unwrap().replace("river", "lake"));
    let ran = lab.run(&["verify", "sweep"]);
    assert!(ran.code == 1 && ran.stdout.contains("differs  behaviour.json"), "{}", ran.stdout);
    lab.write("facts.jsonl", "{\"prompt\": \"a\", \"false\": \"b\", \"true\": \"c\"}\n");
    let ran = lab.run(&["verify", "sweep"]);
    assert!(
        ran.stdout.contains("behaviour, its text") && ran.stdout.contains("facts.jsonl"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_cannot_be_asked_is_refused_before_any_work() {
    let lab = made();
    let e = lab.refused(&with_sets(
        &["fit", "recipe.toml", "--out", "out"],
        &[
            "behaviour.facts.items=nowhere.jsonl",
            "behaviour.facts.contexts=['no place']",
            "behaviour.words.words=[]",
            "behaviour.taboo.alternatives=['Cold']",
            "behaviour.preference.questions=[]",
            "behaviour.taboo.guess='?'",
            "behaviour.bootstrap=0",
            "behaviour.words.temperature=-1",
        ],
    ));
    for part in [
        "behaviour.facts.items: ",
        "nowhere.jsonl: no such file",
        "behaviour.facts.contexts: \"no place\": expected {prompt} once",
        "behaviour.words.words: missing",
        "behaviour.taboo.alternatives: \"cold\" is the target itself",
        "behaviour.preference.questions: missing",
        "behaviour.taboo.guess = \"?\": expected {hint} once",
        "behaviour.bootstrap = 0",
        "behaviour.words.temperature = -1",
    ] {
        assert!(e.contains(part), "{part} not in {e}");
    }
    // Files are read before a sweep trains anything, and every bad line is named.
    lab.write(
        "facts.jsonl",
        "{\"prompt\": \"a\", \"false\": \"b\"}\n{\"prompt\": \"a\", \"false\": \" \", \"true\": \"c\"}\n",
    );
    lab.write("morals.jsonl", "no\n");
    let e = lab.refused(&["sweep", "recipe.toml", "--mix", "0", "--out", "sweep"]);
    for part in ["facts.jsonl:1: missing field `true`", "facts.jsonl:2: false is empty", "morals.jsonl:1: "] {
        assert!(e.contains(part), "{part} not in {e}");
    }
}

#[test]
fn a_run_without_questions_or_template_says_what_is_missing() {
    let lab = Lab::of("gemma3");
    lab.fit("run", &[]);
    let e = lab.refused(&["behave", "run", "--set", "behaviour.quality.enabled=false"]);
    assert!(e.contains("[behaviour]: no behaviour is tested"), "{e}");
    let ask = [
        "behaviour.quality.enabled=false",
        "behaviour.preference.target=a",
        "behaviour.preference.alternatives=['b']",
        "behaviour.preference.questions=['c']",
    ];
    let e = lab.refused(&with_sets(&["behave", "run"], &[&ask[..], &["behaviour.chat=true"]].concat()));
    assert!(e.contains("has no chat template"), "{e}");
    lab.succeed(&with_sets(&["behave", "run"], &ask));
    assert!(lab.refused(&["behave", "nowhere"]).contains("not a run folder"));
}
