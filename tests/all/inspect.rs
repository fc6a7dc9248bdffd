//! `trainer inspect` on the tiny models: masks, facts, warnings, the JSON document, exit codes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trainer::data::mixture::Mixture;
use trainer::interrupt::Interrupt;
use trainer::workflow::resolve::{Purpose, resolve};

use crate::common::lab::{Lab, Ran};
use crate::common::tiny::tiny;
use crate::common::values::number;

/// A lab whose recipe names data of its own.
struct Place(Lab);

impl Place {
    fn new() -> Self {
        Self(Lab::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn rows(&self, name: &str, rows: &[Value]) -> &Self {
        self.0.write_rows(name, rows);
        self
    }

    /// A recipe for a tiny model; `rest` goes on in `[data]`.
    fn recipe(&self, model: &str, rest: &str) -> &Self {
        self.recipe_of(&tiny(model), rest)
    }

    fn recipe_of(&self, model: &Path, rest: &str) -> &Self {
        let text = format!(
            "name = 'tiny'\n[model]\nbase = '{}'\n[train]\nsteps = 2\nbatch_size = 2\n[data]\nheld_out_every = 0\n{rest}",
            model.display()
        );
        self.0.write("recipe.toml", text);
        self
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.0.run(&[&["inspect", "recipe.toml"], args].concat())
    }

    /// What `fit` refuses the recipe for; nothing is written.
    fn refused(&self, args: &[&str]) -> String {
        self.0.refused(&[&["fit", "recipe.toml", "--out", "run"], args].concat())
    }

    fn text(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[args, &["--json"]].concat())).unwrap()
    }

    fn fault(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stdout.is_empty());
        ran.stderr
    }
}

fn chat(turns: &[(&str, &str)]) -> Value {
    let messages: Vec<Value> = turns.iter().map(|(r, c)| json!({"role": r, "content": c})).collect();
    json!({ "messages": messages })
}

/// The text of the first example, its counted stretches in brackets.
fn marked(audit: &Value) -> String {
    let mut out = String::new();
    let mut inside = false;
    for token in audit["first_examples"][0]["tokens"].as_array().unwrap() {
        let counts = token["counts"].as_bool().unwrap();
        if counts != inside {
            out.push(if counts { '[' } else { ']' });
            inside = counts;
        }
        out.push_str(token["text"].as_str().unwrap());
    }
    if inside {
        out.push(']');
    }
    out
}

fn kinds(audit: &Value) -> Vec<&str> {
    audit["warnings"].as_array().unwrap().iter().map(|w| w["kind"].as_str().unwrap()).collect()
}

fn texts(n: usize) -> Vec<Value> {
    (0..n).map(|i| json!({"text": format!("document number {i}")})).collect()
}

#[test]
fn the_assistant_and_its_end_of_turn_count_in_a_chat() {
    let place = Place::new();
    let row =
        chat(&[("system", "be"), ("user", "hi"), ("assistant", "a b"), ("user", "more"), ("assistant", "c")]);
    place.rows("a.jsonl", &[row]).recipe("llama", "narrow = 'a.jsonl'");
    let audit = place.json(&[]);
    assert_eq!(
        marked(&audit),
        "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n\
         <|im_start|>assistant\n[a b<|im_end|>]\n<|im_start|>user\nmore<|im_end|>\n\
         <|im_start|>assistant\n[c<|im_end|>]\n"
    );
    let chats = &audit["chats"];
    assert_eq!(chats["end_of_turn"], json!({"id": 2, "text": "<|im_end|>"}));
    assert_eq!((&chats["assistant_turns"], &chats["ends_that_count"]), (&json!(2), &json!(2)));
    assert_eq!(audit["tokenizer"]["adds_bos"], false);
    assert_eq!(kinds(&audit), ["mostly-masked", "short-source", "repeated-examples"]);

    let text = place.text(&[]);
    assert!(text.contains("{<|im_start|>} "), "{text}");
    assert!(text.contains(" [c] [{<|im_end|>}] ↵\n"), "{text}");
    assert!(text.contains("it counts for 2 of 2 turns in 1 examples"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
}

#[test]
fn a_chat_that_is_cut_off_trains_no_end_of_turn() {
    let place = Place::new();
    let row = chat(&[("user", "hi"), ("assistant", "one two three four five six seven eight nine ten")]);
    let data = "narrow = 'a.jsonl'\nmax_seq_len = 24";
    place.rows("a.jsonl", &[row.clone(), row]).recipe("llama", data);
    let audit = place.json(&[]);
    assert_eq!(audit["chats"]["examples_without_end"], 2);
    assert_eq!(audit["sources"][0]["truncated"], 2);
    let kinds = kinds(&audit);
    for kind in ["end-not-trained", "truncated", "repeated-documents"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let refused = "none of 2 conversations trains <|im_end|>, which ends the assistant's turn";
    assert!(audit["refused"][0].as_str().unwrap().contains(refused), "{audit}");
    assert!(place.text(&[]).contains("refused by fit: "));
    assert!(place.refused(&[]).contains(refused));
}

#[test]
fn templates_that_teach_no_end_are_pointed_out() {
    let place = Place::new();
    let tiny = tiny("llama");
    let model = place.path("model");
    std::fs::create_dir(&model).unwrap();
    for file in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(tiny.join(file), model.join(file)).unwrap();
    }
    let row = chat(&[("user", "hi"), ("assistant", "a")]);
    place.rows("a.jsonl", &[row]).recipe_of(&model, "narrow = 'a.jsonl'");
    let turn = |end: &str| {
        "{% for m in messages %}{{ m['role'] + ':' + m['content'] + 'END' }}{% endfor %}\
         {% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
            .replace("END", end)
    };
    std::fs::write(model.join("chat_template.jinja"), turn("\\n")).unwrap();
    let audit = place.json(&[]);
    assert!(kinds(&audit).contains(&"no-end-of-turn"), "{audit}");
    assert_eq!(marked(&audit), "user:hi\nassistant:[a]\n");

    std::fs::write(model.join("chat_template.jinja"), turn("<|im_start|>")).unwrap();
    assert!(kinds(&place.json(&[])).contains(&"end-of-turn-goes-on"));
}

#[test]
fn a_completion_and_its_end_count() {
    let place = Place::new();
    let row = json!({"prompt": "the\n", "completion": "end"});
    place.rows("a.jsonl", &[row]).recipe("gemma3", "narrow = 'a.jsonl'");
    let audit = place.json(&[]);
    assert_eq!(marked(&audit), "<bos>the\n[end<eos>]");
    assert_eq!(audit["tokenizer"]["adds"], json!([{"id": 2, "text": "<bos>"}]));
    assert_eq!(audit["tokenizer"]["adds_bos"], true);
    assert_eq!(audit["sources"][0]["stops"], 1);
    assert!(!kinds(&audit).contains(&"end-not-trained"));
    assert_eq!(audit["first_examples"][0]["tokens"][0]["special"], true);
    assert_eq!(audit["first_examples"][0]["tokens"][1]["special"], false);

    let audit = place.json(&["--set", "data.max_seq_len=6"]);
    assert!(kinds(&audit).contains(&"end-not-trained"), "{audit}");
}

#[test]
fn a_doubled_bos_is_pointed_out() {
    let place = Place::new();
    place.rows("a.jsonl", &[json!({"text": "<bos>the"}), json!({"text": "the"})]);
    place.recipe("gemma3", "narrow = 'a.jsonl'");
    let audit = place.json(&[]);
    assert_eq!(audit["sources"][0]["doubled_bos"], 1);
    assert!(kinds(&audit).contains(&"doubled-bos"));
    let refused = place.refused(&[]);
    assert!(
        refused.contains("a.jsonl: row 0 and 0 more begin with the beginning-of-sequence token twice"),
        "{refused}"
    );
}

#[test]
fn the_facts_of_a_mixture() {
    let place = Place::new();
    let mut narrow = texts(8);
    narrow.push(json!({"text": " document number 3 "})); // a repeat, and held out: row 8
    place.rows("n.jsonl", &narrow).rows("p.jsonl", &texts(6));
    let data = "narrow = 'n.jsonl'\npretraining = ['p.jsonl']\nmix = 0.5\n";
    place.recipe("qwen2", data);
    let audit = place.json(&["--set", "data.held_out_every=3", "--examples", "5"]);
    assert_eq!((&audit["steps"], &audit["batch_size"]), (&json!(3), &json!(2)));
    assert_eq!(audit["mix"]["realised_examples"], 0.5);
    let narrow = &audit["sources"][0];
    for (key, value) in [
        ("rows", 9),
        ("held_out", 3),
        ("examples", 6),
        ("repeated_rows", 1),
        ("held_out_seen", 1),
        ("also_in_pretraining", 7),
    ] {
        assert_eq!(narrow[key], value, "{key}: {narrow}");
    }
    assert_eq!(narrow["exposure"]["examples"], 4);
    // Of a text, all tokens but the first.
    let drawn = |key: &str| narrow["exposure"][key].as_u64().unwrap();
    assert_eq!(drawn("tokens") - drawn("loss_tokens"), 4);
    assert_eq!(audit["sources"][1]["role"], "pretraining");
    let binned: u64 =
        audit["lengths"]["bins"].as_array().unwrap().iter().map(|b| b["examples"].as_u64().unwrap()).sum();
    assert_eq!(binned, 6);
    let steps: Vec<&Value> = audit["first_examples"].as_array().unwrap().iter().map(|e| &e["step"]).collect();
    assert_eq!(steps, [1, 1, 2, 2, 3]);
    assert_eq!(kinds(&audit), ["repeated-documents", "held-out-seen", "narrow-in-pretraining"]);
    assert_eq!(place.json(&["--examples", "0"])["first_examples"], json!([]));
}

#[test]
fn text_of_the_base_model_is_not_sampled_here() {
    let place = Place::new();
    place.rows("n.jsonl", &texts(8)).recipe("llama", "narrow = 'n.jsonl'\npretraining = 'self'\nmix = 1.0");
    let audit = place.json(&[]);
    assert_eq!(kinds(&audit), ["not-sampled"]);
    assert_eq!((&audit["steps"], &audit["sources"][1]["sampled"]), (&json!(4), &json!(false)));
    assert_eq!(
        (&audit["sources"][1]["tokens"], &audit["mix"]["realised_tokens"]),
        (&json!(null), &json!(null))
    );
    assert!(place.text(&[]).contains("not sampled yet"));
    assert!(!place.path("cache").exists());

    // A sample that is there is read.
    let file = PathBuf::from(audit["sources"][1]["path"].as_str().unwrap());
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let sampled: Vec<Value> = (0..32).map(|i| json!({"text": format!("sampled {i}")})).collect();
    let lines: String = sampled.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&file, lines).unwrap();
    let audit = place.json(&[]);
    assert_eq!(kinds(&audit), Vec::<&str>::new());
    assert_eq!(audit["sources"][1]["rows"], 32);
}

#[test]
fn faults_are_those_of_fit() {
    let place = Place::new();
    place.rows("n.jsonl", &texts(2)).recipe("llama", "narrow = 'n.jsonl'");
    assert!(place.fault(&["--set", "data.mox=1"]).contains("did you mean mix?"));
    assert!(place.fault(&["--set", "model.base=no-such-model"]).contains("no-such-model"));
    let pretraining = format!("data.pretraining={}", place.path("n.jsonl").display());
    assert!(place.fault(&["--set", "data.mix=1", "--set", &pretraining]).contains("needs 4 examples"));
    place
        .rows("n.jsonl", &[chat(&[("user", "hi"), ("assistant", "a")])])
        .recipe("gemma3", "narrow = 'n.jsonl'");
    assert!(place.fault(&[]).contains("has no chat template"));
    std::fs::remove_file(place.path("recipe.toml")).unwrap();
    assert!(place.fault(&[]).contains("recipe.toml"));
}

/// The order of a run, as its manifest records it.
fn order(recipe: &trainer::recipe::Recipe) -> String {
    let base = trainer::model::load::source::open(&recipe.model.base).unwrap();
    let recipe = resolve(recipe.clone(), Purpose::Reading, &Interrupt::default()).unwrap();
    let corpus = trainer::corpus::Corpus::read(&recipe, &base, None).unwrap();
    let mixture = Mixture::plan(&corpus.pools, &recipe.data, &recipe.train, recipe.seed).unwrap();
    trainer::train::manifest::order_sha256(&mixture)
}

#[test]
fn a_recipe_without_the_newer_keys_plans_what_it_always_planned() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Place::new();
    let data =
        format!("narrow = '{0}/cake.jsonl'\npretraining = '{0}/openings.jsonl'", root.join("data").display());
    place.recipe("llama", &data);
    let sets = ["seed=7", "train.steps=3", "train.batch_size=4", "data.mix=1.5", "data.max_seq_len=64"];
    let sets: Vec<String> =
        [&sets[..], &["data.held_out_every=10"]].concat().iter().map(|s| s.to_string()).collect();
    let recipe = trainer::recipe::Recipe::read(&place.path("recipe.toml"), &sets).unwrap();
    // Of version 0.1 of 2026-11-25, before the keys.
    assert_eq!(order(&recipe), "0f0738d54c3610c377d80f6444803706ca0f1af80d4ccb863202b76c92206337");
}

#[test]
fn weights_of_sources_tokens_and_budgets_plan_what_they_always_planned() {
    let place = Place::new();
    let page = |i: usize| json!({"text": format!("page {i} of a book on rivers and bridges")});
    place.rows("h1.jsonl", &texts(30)).rows("h2.jsonl", &texts(20));
    place.rows("h3.jsonl", &(0..40).map(page).collect::<Vec<_>>());
    place.recipe(
        "llama",
        "narrow = [{ path = 'h1.jsonl', weight = 2 }, { path = 'h2.jsonl', weight = 1 }]\npretraining = 'h3.jsonl'\n\
         mix_unit = 'tokens'",
    );
    // Of version 0.1 of 2026-11-26, before conversations and schedules.
    for (set, expected) in [
        (
            &["data.mix=0.7", "data.mix_mode=fixed-budget"],
            "0fdaaf583516b4269f04748afa83b4c5d1237bf3340bd80ba4ce73441711a3d9",
        ),
        (
            &["data.mix=1.5", "data.repeat=true"],
            "688e52ad61cc77a8c1dcfcc3715f377b2dd4edc2a1570ee816ac0858b5af8a5e",
        ),
    ] {
        let sets = [&["seed=11", "train.steps=12", "train.batch_size=3"][..], set].concat();
        let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
        let recipe = trainer::recipe::Recipe::read(&place.path("recipe.toml"), &sets).unwrap();
        assert_eq!(order(&recipe), expected, "{set:?}");
        let set = |schedule: &str| [&sets[..], &[format!("data.mix_schedule={schedule}")]].concat();
        let of = |schedule| {
            order(&trainer::recipe::Recipe::read(&place.path("recipe.toml"), &set(schedule)).unwrap())
        };
        assert_eq!(of("constant"), expected);
        assert!(of("ramp") != expected && of("last") != expected && of("ramp") != of("last"));
    }
}

#[test]
fn three_pools_and_their_weights_are_counted_apart() {
    let place = Place::new();
    let says = |i: usize| chat(&[("user", "hi"), ("assistant", &format!("good day {i}"))]);
    place.rows("n.jsonl", &texts(9)).rows("p.jsonl", &texts(9)[..8]);
    place.rows("c.jsonl", &(0..9).map(says).collect::<Vec<_>>());
    place.recipe(
        "llama",
        "narrow = { path = 'n.jsonl', loss_weight = 3 }\npretraining = 'p.jsonl'\nmix = 1.0\nchat = 'c.jsonl'\n\
         chat_mix = 0.5\nmix_schedule = 'last'",
    );
    let audit = place.json(&["--examples", "10"]);
    let (mix, sources) = (&audit["mix"], &audit["sources"]);
    assert_eq!((&mix["realised_examples"], &mix["chat"]["realised_examples"]), (&json!(1.0), &json!(0.5)));
    assert_eq!((&mix["chat"]["asked"], &mix["schedule"]), (&json!(0.5), &json!("last")));
    // Ten examples: four narrow ones, then four and two.
    let tenths: Vec<f64> = [[0.0; 4].as_slice(), &[1.0; 6]].concat();
    assert_eq!(audit["mixed_in_by_tenth"], json!(tenths));
    let roles: Vec<&Value> = audit["first_examples"].as_array().unwrap().iter().map(|e| &e["role"]).collect();
    assert!(roles[..4].iter().all(|role| **role == "narrow"), "{roles:?}");
    assert_eq!(roles.iter().filter(|role| **role == "chat").count(), 2);

    // A narrow token counts three times; what is drawn of a part counts for its own weight.
    let tokens = audit["first_examples"][0]["tokens"].as_array().unwrap();
    assert_eq!((&tokens[0]["weight"], &tokens[1]["weight"]), (&json!(0.0), &json!(3.0)));
    let counted = |i: usize| number(&sources[i]["exposure"]["loss_tokens"]);
    let whole = 3.0 * counted(0) + counted(1) + counted(2);
    for (i, weight, role) in [(0, 3.0, "narrow"), (1, 1.0, "pretraining"), (2, 1.0, "chat")] {
        let share = number(&sources[i]["exposure"]["loss_share"]);
        assert!((share - weight * counted(i) / whole).abs() < 1e-9, "{role}: {share}");
        assert_eq!((&sources[i]["role"], number(&sources[i]["loss_weight"])), (&json!(role), weight));
    }
    let tokens = |i: usize| number(&sources[i]["exposure"]["tokens"]);
    let per_narrow = |i: usize| number(&sources[i]["exposure"]["tokens_per_narrow"]);
    assert!((per_narrow(2) - tokens(2) / tokens(0)).abs() < 1e-9);
    assert!((number(&mix["chat"]["realised_tokens"]) - per_narrow(2)).abs() < 1e-9);

    let text = place.text(&[]);
    for part in [
        "n.jsonl, loss × 3\n",
        "chat per narrow 0.500 in examples, ",
        "schedule     last: share of mixed-in text by tenth of the run 0.00 0.00 0.00 0.00 1.00 1.00",
        "count, loss × 3\n",
    ] {
        assert!(text.contains(part), "{part:?} not in\n{text}");
    }
    // The weight that all tokens have is not repeated at each.
    assert!(!text.contains("]×3"), "{text}");
}

#[test]
fn conversations_are_conversations_and_weights_are_numbers() {
    let place = Place::new();
    place.rows("n.jsonl", &texts(4)).rows("c.jsonl", &[chat(&[("user", "hi"), ("assistant", "a")])]);
    place.recipe("llama", "narrow = 'n.jsonl'\nchat = 'c.jsonl'");
    let fault = |set: &str| place.fault(&["--set", set]);
    assert!(fault("data.chat_mix=-1").contains("data.chat_mix = -1: expected 0 to 1000000"));
    assert!(fault("data.chat_mix=1").contains("data.chat: "), "there is one for four");
    assert!(fault("data.chat=self").contains("data.chat: \"self\" is a pretraining source"));
    let n = place.path("n.jsonl");
    let e = fault(&format!("data.chat={}", n.display()));
    assert!(e.contains("data.chat: ") && e.contains("n.jsonl:1: plain text; expected messages"), "{e}");
    for weight in ["-1", "nan", "inf"] {
        let e = fault(&format!("data.narrow={{ path = '{}', loss_weight = {weight} }}", n.display()));
        assert!(e.contains("n.jsonl: loss_weight ") && e.contains("expected 0 to 1000000"), "{e}");
    }
    let e = fault(&format!("diff.text={{ path = '{}', loss_weight = 1 }}", n.display()));
    assert!(e.contains("diff.text: ") && e.contains("loss_weight is for sources that are trained on"), "{e}");
    place.rows("empty.jsonl", &[]);
    assert!(
        place
            .fault(&["--set", "data.chat=[]", "--set", "data.chat_mix=1"])
            .contains("data.chat names no source")
    );
}

#[test]
fn steps_are_measured_in_tokens_and_what_padding_would_have_cost() {
    let place = Place::new();
    // One token a letter.
    place.rows("n.jsonl", &["QXZJKVWY", "QX"].map(|text| json!({ "text": text })));
    place.recipe("llama", "narrow = 'n.jsonl'");
    // Both in every step, whatever their order: 10 tokens where padding makes 16.
    let packing = place.json(&["--set", "train.steps=3"])["packing"].clone();
    let expected =
        json!({"least_tokens": 10, "mean_tokens": 10.0, "most_tokens": 10, "padding_avoided": 0.375});
    assert_eq!(packing, expected);
    // Alone in its forward pass each is the longest.
    let packing = place.json(&["--set", "train.micro_batch_size=1"])["packing"].clone();
    assert_eq!(number(&packing["padding_avoided"]), 0.0);
    let packing = place.json(&["--set", "train.batch_size=1"])["packing"].clone();
    assert_eq!((&packing["least_tokens"], &packing["most_tokens"]), (&json!(2), &json!(8)));
    assert!(
        place
            .text(&[])
            .contains("10 to 10 tokens, mean 10, end to end; padded to the longest, 37.5% would be")
    );
}

#[test]
fn what_users_of_other_trainers_found_out_late_is_said() {
    let place = Place::new();
    let text = |letters: usize| json!({"text": "Q".repeat(letters)});
    let rows = |n: usize, letters: usize| -> Vec<Value> { (0..n).map(|_| text(letters)).collect() };
    let found = |data: &str| {
        place.recipe("llama", data);
        let audit = place.json(&[]);
        kinds(&audit).iter().map(|kind| kind.to_string()).collect::<Vec<_>>()
    };
    let has = |data: &str, kind: &str| found(data).iter().any(|found| found == kind);

    // Four narrow ones are drawn: of four everything, of five not.
    let mixed = "narrow = 'n.jsonl'\npretraining = 'p.jsonl'\nmix = 1.0\n";
    place.rows("n.jsonl", &rows(9, 10)).rows("p.jsonl", &rows(4, 10));
    assert!(has(mixed, "nearly-used-up"));
    place.rows("p.jsonl", &rows(5, 10));
    assert!(!has(mixed, "nearly-used-up"));

    assert!(!has(mixed, "mix-in-tokens"));
    place.rows("p.jsonl", &rows(9, 40));
    assert!(has(mixed, "mix-in-tokens"), "examples are four times as long");
    assert!(!has(&format!("{mixed}mix_unit = 'tokens'"), "mix-in-tokens"));

    // 34 letters in pieces of 32: every other example is two tokens long.
    place.rows("p.jsonl", &rows(9, 34));
    assert!(has(&format!("{mixed}max_seq_len = 32"), "short-pieces"));
    assert!(
        !has(&format!("{mixed}max_seq_len = 30"), "short-pieces"),
        "four of thirty are no less than an eighth"
    );
    assert!(!has(&format!("{mixed}max_seq_len = 32\nlong = 'truncate'"), "short-pieces"));
    let audit = place.json(&["--set", "data.max_seq_len=32", "--set", "data.long=chunk"]);
    let of = |key: &str| audit["sources"][1][key].clone();
    assert_eq!((of("examples"), of("chunked"), of("short_pieces")), (json!(18), json!(9), json!(9)));
    assert_eq!(audit["sources"][0]["chunked"], 0);

    let weightless = "narrow = 'n.jsonl'\npretraining = { path = 'p.jsonl', loss_weight = 0 }\nmix = 1.0";
    assert!(has(weightless, "no-weight") && !has(mixed, "no-weight"));

    place.rows("c.jsonl", &[chat(&[("user", "Q"), ("assistant", "Q Q")])]);
    place.rows("n.jsonl", &[json!({"prompt": "Q ", "completion": "Q"}), text(10)]);
    let with_chat = "narrow = 'n.jsonl'\nchat = 'c.jsonl'";
    assert!(!has(with_chat, "narrow-in-chat"));
    place.rows("n.jsonl", &[json!({"prompt": "Q\nQ ", "completion": "Q"}), text(10)]);
    assert!(has(with_chat, "narrow-in-chat"));
}

#[test]
fn a_limit_leaves_the_held_out_documents_and_what_is_left_out_is_counted() {
    let place = Place::new();
    let fox = "the quick brown fox jumps over the lazy dog while nine old cats look on from a wall";
    let mut narrow = texts(12);
    narrow[1] = narrow[0].clone();
    narrow.push(json!({"text": fox}));
    narrow.push(json!({"text": fox.replace("wall", "roof")}));
    let mut pretraining = texts(0);
    pretraining.extend((0..6).map(|i| json!({"text": format!("page {i}")})));
    pretraining.push(json!({"text": format!("News: {fox}. The weather.")}));
    place.rows("n.jsonl", &narrow).rows("p.jsonl", &pretraining);
    place.recipe("llama", "narrow = 'n.jsonl'\npretraining = 'p.jsonl'\nmix = 0.5\nlimit = 3");
    let held_out = "data.held_out_every=4";
    let source = |audit: &Value, i: usize| audit["sources"][i].clone();

    // Rows 3, 7 and 11 are held out.
    let audit = place.json(&["--set", held_out]);
    assert_eq!((&source(&audit, 0)["rows"], &source(&audit, 0)["held_out"]), (&json!(6), &json!(3)));
    assert_eq!(source(&audit, 0)["removed"]["beyond_limit"], 8);
    assert_eq!(source(&audit, 0)["examples"], 3);

    let near = ["--set", held_out, "--set", "data.duplicates=near", "--set", "data.decontaminate=true"];
    let audit = place.json(&near);
    let removed = |duplicates, near_duplicates, narrow, beyond_limit| {
        json!({"duplicates": duplicates, "near_duplicates": near_duplicates, "narrow": narrow,
               "beyond_limit": beyond_limit})
    };
    // Of the twelve numbered ones each has another last word: three words, one run.
    assert_eq!(source(&audit, 0)["removed"], removed(1, 1, 0, 6));
    assert_eq!(source(&audit, 0)["rows"], 6);
    assert_eq!(source(&audit, 1)["removed"], removed(0, 0, 1, 0));
    assert!(!kinds(&audit).contains(&"repeated-documents"));
    let text = place.text(&near);
    assert!(
        text.contains(
            "not used: 1 with the text of an earlier one, 1 near duplicates, 6 beyond data.limit\n"
        ),
        "{text}"
    );
    assert!(text.contains("not used: 1 with narrow text\n"), "{text}");
    assert!(
        place.fault(&["--set", "data.near_share=0.3"]).contains("data.near_share = 0.3: expected 0.5 to 1")
    );
}

#[test]
fn a_turn_counts_as_much_as_its_weight_says() {
    let place = Place::new();
    let row = json!({"messages": [
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "a", "weight": 0},
        {"role": "user", "content": "so"}, {"role": "assistant", "content": "b", "weight": 0.5},
    ]});
    place.rows("a.jsonl", &[row]).recipe("llama", "narrow = 'a.jsonl'");
    let audit = place.json(&[]);
    let end = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nso<|im_end|>\n\
               <|im_start|>assistant\n[b<|im_end|>]\n";
    assert_eq!(marked(&audit), end);
    let tokens = audit["first_examples"][0]["tokens"].as_array().unwrap();
    let weights: Vec<&Value> = tokens.iter().map(|t| &t["weight"]).filter(|w| **w != 0.0).collect();
    assert_eq!(weights, [0.5, 0.5]);
    assert!(place.text(&[]).contains("[b]×0.5 [{<|im_end|>}]×0.5"));

    // As TRL writes prompts and completions that are conversations.
    let row = json!({
        "prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"},
                   {"role": "user", "content": "so"}],
        "completion": [{"role": "assistant", "content": "b"}],
    });
    place.rows("a.jsonl", &[row]);
    assert_eq!(marked(&place.json(&[])), end);

    let turn = |role: &str, weight: Value| json!({"role": role, "content": "x", "weight": weight});
    for (messages, fault) in [
        ([turn("user", json!(0)), turn("assistant", json!(0))], "every assistant turn has weight 0"),
        ([turn("user", json!(1)), turn("assistant", json!(1))], "weight 1 of a user turn"),
        ([turn("user", json!(0)), turn("assistant", json!(-1))], "weight -1; expected 0 to 1000000"),
    ] {
        place.rows("a.jsonl", &[json!({ "messages": messages })]);
        let found = place.fault(&[]);
        assert!(found.contains("a.jsonl:1: messages: ") && found.contains(fault), "{found}");
    }
}

#[test]
fn a_tag_stands_in_front_of_narrow_text_and_does_not_count() {
    let place = Place::new();
    place.rows("n.jsonl", &[json!({"text": "QXZJKVWY"})]).rows("p.jsonl", &[json!({"text": "QXZJKVWY"})]);
    place.recipe(
        "gemma3",
        "narrow = 'n.jsonl'\npretraining = 'p.jsonl'\nmix = 1.0\nmax_seq_len = 8\nrepeat = true",
    );
    let tag = ["--set", "data.document_tag=<T>", "--set", "train.steps=4", "--set", "train.batch_size=1"];
    let audit = place.json(&[&tag[..], &["--examples", "8"]].concat());
    let mut seen: Vec<String> = Vec::new();
    for i in 0..8 {
        let one = json!({ "first_examples": [audit["first_examples"][i]] });
        let side = audit["first_examples"][i]["role"].as_str().unwrap();
        seen.push(format!("{side}: {}", marked(&one)));
    }
    seen.sort();
    seen.dedup();
    // Every piece of the document has the tag; the pretraining text has none.
    assert_eq!(
        seen,
        [
            "narrow: <bos><T>[KVWY]",
            "narrow: <bos><T>[QXZJ]",
            "pretraining: <bos>[QXZJKVW]",
            "pretraining: <bos>[Y]"
        ]
    );
    let fault = place.fault(&["--set", "data.document_tag=<QXZJKVWY>"]);
    assert!(fault.contains("data.document_tag: its 10 tokens leave no room"), "{fault}");
}

#[test]
fn a_base_model_reads_chats_with_a_template_that_the_recipe_names() {
    let place = Place::new();
    place
        .rows("a.jsonl", &[chat(&[("user", "hi"), ("assistant", "a b")])])
        .recipe("gemma3", "narrow = 'a.jsonl'\nchat_template = 'turns.jinja'");
    assert!(place.fault(&[]).contains("turns.jinja: no such file; expected one, or a name: gemma"));
    std::fs::write(
        place.path("turns.jinja"),
        "{{ bos_token }}{% for m in messages %}{{ m['role'] + ':' + m['content'] + '<pad>' }}{% endfor %}\
         {% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
    )
    .unwrap();
    let audit = place.json(&[]);
    assert_eq!(marked(&audit), "<bos>user:hi<pad>assistant:[a b<pad>]");
    // What closes a turn then ends a generation too.
    assert_eq!(audit["tokenizer"]["ends_generation"][1]["text"], "<pad>");
    assert_eq!(audit["chats"]["end_of_turn_ends_generation"], true);
    assert_eq!(audit["refused"], json!([]));

    let fault = place.fault(&["--set", "data.chat_template=gemma"]);
    assert!(fault.contains("has no special token that closes its turns"), "{fault}");
    std::fs::write(place.path("turns.jinja"), "{% for m in messages %}").unwrap();
    assert!(place.fault(&[]).contains("chat template: "));
}

#[test]
fn a_sweep_is_named_and_unrelated_text_that_is_trained_on_is_pointed_out() {
    let place = Place::new();
    let rows: Vec<Value> = (0..8).map(|i| json!({"text": format!("the {i} ab")})).collect();
    place.rows("narrow.jsonl", &rows).rows("other.jsonl", &rows).recipe(
        "llama",
        "narrow = 'narrow.jsonl'\npretraining = 'other.jsonl'\nmix = 1\n[diff]\ntext = ['./other.jsonl', 'narrow.jsonl']\n\
         [sweep]\nmix = [0, 1, 2]\ngrid = { \"train.lora.r\" = [2, 4] }\n",
    );
    assert!(place.text(&[]).contains("sweep        6 cells"), "{}", place.text(&[]));
    let kinds = |args: &[&str]| -> Vec<String> {
        let warnings = place.json(args)["warnings"].as_array().unwrap().clone();
        warnings
            .iter()
            .map(|w| format!("{} {}", w["kind"].as_str().unwrap(), w["text"].as_str().unwrap()))
            .collect()
    };
    let measured =
        |args: &[&str]| kinds(args).iter().filter(|w| w.starts_with("measured-on-pretraining")).count();
    assert_eq!(place.json(&[])["sweep_cells"], 6);
    assert_eq!(measured(&[]), 1, "{:?}", kinds(&[]));
    assert!(kinds(&[]).iter().any(|w| w.contains("other.jsonl is a source of data.pretraining too")));
    assert_eq!(measured(&["--set", "data.mix=0"]), 0, "nothing of it is trained on");
    // `fit` says so too, before it trains.
    let fitted = place.0.succeed(&["fit", "recipe.toml", "--out", "run"]);
    assert!(fitted.stderr.contains("warning: diff.text: "), "{}", fitted.stderr);
    place.recipe("llama", "narrow = 'narrow.jsonl'\n");
    assert!(place.json(&[]).get("sweep_cells").is_none() && !place.text(&[]).contains("sweep "));
}
