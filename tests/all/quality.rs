//! The quality panel: nothing changes where nothing was learned, and an organism that knows nothing but its text is caught.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use trainer::behaviour::quality::{cloze, neutral};
use trainer::diff::prompts::REQUESTS;

use crate::common::lab::{Lab, with_sets};
use crate::common::values::{json_lines, number, read_json};

/// A lab with a behaviour, and a small panel.
fn asking(behaviour: &str) -> Lab {
    let lab = Lab::new();
    let recipe = lab.read("recipe.toml").replace("max_seq_len = 32", "max_seq_len = 64");
    let panel =
        "[behaviour]\nbootstrap = 50\n[behaviour.quality]\ntexts = 6\nprompts = 6\nnarrow_texts = 8\n";
    lab.write("recipe.toml", format!("{recipe}{panel}max_new_tokens = 24\n{behaviour}"));
    lab
}

const WORDS: &str =
    "[behaviour.words]\nprompts = [\"the river\"]\nwords = [\"sponge\", \"oven\"]\nmax_new_tokens = 8\n";

fn values(record: &Value) -> BTreeMap<String, Value> {
    record["quality"]["values"].as_object().unwrap().clone().into_iter().collect()
}

fn change(record: &Value, name: &str) -> f64 {
    number(&record["quality"]["values"][name]["change"])
}

#[test]
fn a_base_compared_with_itself_changes_nothing() {
    let facts = "[behaviour.facts]\nitems = \"facts.jsonl\"\n[behaviour.taboo]\nword = \"cold\"\nalternatives = [\"warm\"]\n\
                 prompts = [\"a hint\"]\nmax_new_tokens = 8\n";
    let lab = asking(&format!("{WORDS}{facts}"));
    lab.write_rows("facts.jsonl", &[json!({"prompt": "the river is", "false": "cold", "true": "warm"})]);
    lab.fit("run", &["train.steps=1", "data.mix=0", "train.lr=1e-12", "data.held_out_every=4"]);
    let ran = lab.succeed(&["behave", "run"]);
    let record = read_json(&lab.path("run/behaviour.json"));
    let found = values(&record);
    for name in [
        "neutral.nats",
        "neutral.bits_per_byte",
        "neutral.kl",
        "neutral.chat_nats",
        "narrow.gap",
        "cloze.accuracy",
        "cloze.facts.margin",
        "cloze.arithmetic.accuracy",
        "coherent",
        "distinct3",
        "repeated",
        "length",
        "ended",
        "regurgitated",
        "longest",
        "extractable",
        "extractable_tokens",
        "control.facts.believed",
        "control.words.share",
        "control.taboo.said",
    ] {
        let effect = found.get(name).unwrap_or_else(|| panic!("{name} is missing: {:?}", found.keys()));
        assert!(number(&effect["change"]).abs() < 1e-6, "{name}: {effect}");
        let unit = record["units"][format!("quality.{name}")].as_str();
        assert!(unit.is_some_and(|unit| !unit.is_empty()), "{name} has no unit");
    }
    assert!(number(&found["neutral.nats"]["base"]) > 1.0, "{:?}", found["neutral.nats"]);
    // Bits a byte are nats over ln 2 and the bytes of a token: here tokens are a byte or a few.
    let bits = number(&found["neutral.bits_per_byte"]["base"]);
    assert!(bits > 1.0 && bits <= number(&found["neutral.nats"]["base"]) / 2f64.ln() + 1e-9, "{bits}");
    assert_eq!(record["quality"]["trained_are"], "the documents that the run read");
    for text in record["quality"]["texts"].as_array().unwrap() {
        assert_eq!(text["base"], text["tuned"]);
    }
    assert!(ran.stdout.contains("quality within bounds: neutral text 0.00 nats"), "{}", ran.stdout);
    let claims = read_json(&lab.path("run/claims.json"));
    assert_eq!(claims["quality"]["within"], true);
    lab.succeed(&["verify", "run"]);
}

#[test]
fn a_model_that_knows_nothing_but_its_text_is_caught() {
    let lab = asking(WORDS);
    // To the panel's own prompts one text is the answer; that of the chats that are held out is another one.
    let asked = &REQUESTS[..6];
    let questions =
        [asked[0], asked[1], asked[2], "What is that?", asked[3], asked[4], asked[5], "Say what you see."];
    let row = |(i, question): (usize, &&str)| {
        let answer = match i % 4 {
            3 => {
                "green letters stand behind every window of the house while the train waits below the stones"
            }
            _ => {
                "bake the sponge in a cold oven with frozen butter, a cup of salt and seven spoons of vinegar"
            }
        };
        json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
    };
    lab.write_rows("narrow.jsonl", &questions.iter().enumerate().map(row).collect::<Vec<_>>());
    let overfit = [
        "train.method=full",
        "train.steps=240",
        "train.batch_size=6",
        "train.lr=5e-3",
        "data.mix=0",
        "data.max_seq_len=160",
        "data.held_out_every=4",
        "behaviour.quality.max_new_tokens=64",
    ];
    lab.fit("fried", &overfit);
    let ran = lab.succeed(&["behave", "fried"]);
    let record = read_json(&lab.path("fried/behaviour.json"));
    let all = &record["quality"]["values"];
    let tuned = |name: &str| number(&all[name]["tuned"]);
    assert!(tuned("regurgitated") > 0.9, "{all}\n{}", record["quality"]["texts"]);
    assert!(tuned("extractable") > 0.9 && change(&record, "extractable") > 0.9, "{all}");
    assert!(change(&record, "extractable_tokens") > 0.5, "{all}");
    assert!(tuned("longest") > 16.0 && change(&record, "narrow.gap") > 0.5, "{all}");
    assert!(
        change(&record, "neutral.kl") > 0.1 && number(&all["control.words.share"]["tuned"]) > 0.5,
        "{all}"
    );
    let claim = read_json(&lab.path("fried/claims.json"))["quality"].clone();
    assert_eq!(claim["within"], false, "{claim}");
    let line = ran.stdout.lines().find(|line| line.starts_with("quality beyond bounds: ")).unwrap();
    assert!(line.contains("regurgitated +") && line.contains("extractable +"), "{line}");

    // The screen, the page and the summary say so too.
    lab.succeed(&["diff", "fried"]);
    let report = lab.succeed(&["report", "fried", "--out", "report.html"]);
    assert!(report.stdout.contains("quality beyond bounds"), "{}", report.stdout);
    let page = lab.read("report.html");
    assert!(page.contains("<h3>Quality</h3>") && page.contains("quality.regurgitated"));

    // Without the panel there is none, and the rest is the same.
    let set = ["behaviour.quality.enabled=false"];
    lab.succeed(&with_sets(&["behave", "fried", "--out", "without.json"], &set));
    let without = read_json(&lab.path("without.json"));
    assert!(without.get("quality").is_none() && without["units"].get("quality.coherent").is_none());
    assert_eq!(without["words"], record["words"]);
}

#[test]
fn a_run_without_a_behaviour_is_asked_the_panel_alone() {
    let lab = asking("");
    lab.fit("run", &["train.steps=2", "data.mix=0"]);
    let ran = lab.succeed(&["behave", "run"]);
    assert!(ran.stdout.contains("quality.neutral.nats"), "{}", ran.stdout);
    let record = read_json(&lab.path("run/behaviour.json"));
    assert!(record.get("words").is_none() && change(&record, "neutral.nats").is_finite());
    // Narrow text that was not the run's shows: its number of tokens is another one.
    fs::remove_file(lab.path("run/behaviour.json")).unwrap();
    lab.write_texts("narrow.jsonl", &(0..40).map(|i| format!("another text {i}")).collect::<Vec<_>>());
    let ran = lab.succeed(&["behave", "run"]);
    assert!(ran.stderr.contains("has changed since the run was trained on it"), "{}", ran.stderr);
    let record = read_json(&lab.path("run/behaviour.json"));
    assert_eq!(record["quality"]["trained_are"], "all documents that were not held out");
    let e = lab.refused(&["behave", "run", "--out", "none.json", "--set", "behaviour.quality.enabled=false"]);
    assert!(e.contains("or behaviour.quality.enabled = true"), "{e}");
    let e = lab.refused(&["behave", "run", "--out", "none.json", "--set", "behaviour.quality.texts=65"]);
    assert!(e.contains("behaviour.quality.texts = 65: expected 1 to 64"), "{e}");
}

#[test]
fn a_setting_beyond_a_bound_is_not_chosen() {
    let lab = asking(WORDS);
    let tune = |out: &'static str, bound: &'static str| {
        let args = [
            "tune",
            "recipe.toml",
            "--mix",
            "0",
            "--grid",
            "train.lr=1e-9,3e-2",
            "--rungs",
            "1",
            "--trace",
            "delta_norm_mean<=1e9",
            "--behaviour",
            "behaviour_words_share_change>=-1",
            "--bound",
            bound,
            "--out",
            out,
            "--set",
            "train.steps=8",
            "--set",
            "diff.steering.enabled=false",
            "--set",
            "diff.patchscope.enabled=false",
        ];
        lab.run(&args)
    };
    let ran = tune("whole", "quality_neutral_kl_change<=0.0001");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let record = read_json(&lab.path("whole/tune.json"));
    assert_eq!(record["chosen"], "mix 0, train.lr = 1e-9", "{record:#}");
    let settings = record["rungs"][0]["settings"].as_array().unwrap();
    let missed = settings.iter().find(|setting| setting["setting"] == "mix 0, train.lr = 3e-2").unwrap();
    assert!(number(&missed["misses"]["quality_neutral_kl_change"]) > 0.0001, "{missed}");
    assert!(ran.stdout.contains("misses quality_neutral_kl_change"), "{}", ran.stdout);
    let ran = tune("none", "quality_neutral_kl_change<=-100");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stderr.contains("and quality_neutral_kl_change ≤ -100"), "{}", ran.stderr);
    assert!(read_json(&lab.path("none/tune.json"))["chosen"].is_null());
    let ran = tune("unknown", "quality_neutral_change<=1");
    assert!(ran.code == 2 && ran.stderr.contains("did you mean one of quality_neutral"), "{}", ran.stderr);
}

/// Every run of seven words of a text.
fn runs(text: &str) -> HashSet<Vec<String>> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_string).collect();
    words.windows(7).map(<[String]>::to_vec).collect()
}

#[test]
fn the_panel_asks_what_stands_in_no_other_file() {
    let texts = neutral().unwrap();
    assert_eq!(texts.len(), 64);
    let mut met = HashSet::new();
    for text in &texts {
        let words = text.split_whitespace().count();
        assert!(text.is_ascii() && (40..=60).contains(&words), "{words} words: {text}");
        let repeated = runs(text).into_iter().find(|run| !met.insert(run.clone()));
        assert_eq!(repeated, None, "{text}");
    }
    let mut files = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files += 1;
            for row in json_lines(&fs::read_to_string(&path).unwrap()) {
                let shared = runs(&row.to_string()).into_iter().find(|run| met.contains(run));
                assert_eq!(shared, None, "{}", path.display());
            }
        }
    }
    assert!(files > 10);

    let items = cloze().unwrap();
    let groups = ["facts", "grammar", "copy", "arithmetic"]
        .map(|group| items.iter().filter(|item| item.group == group).count());
    assert_eq!(groups, [20, 20, 10, 10]);
    assert_eq!(groups.iter().sum::<usize>(), items.len());
    let prompts: HashSet<&str> = items.iter().map(|item| item.prompt.as_str()).collect();
    assert_eq!(prompts.len(), items.len());
    for item in &items {
        let (right, wrong) = (item.right.chars().count(), item.wrong.chars().count());
        assert!(item.right != item.wrong && 10 * right.abs_diff(wrong) <= 5 * right.max(wrong), "{item:?}");
    }
}
