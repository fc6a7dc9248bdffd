//! Training that ends where a behaviour is at its target: every way to end, the same whatever interrupts it; and what sweeps,
//! reports and tuning make of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use trainer::behaviour::BehaviourModels;
use trainer::behaviour::matching::MatchedItems;
use trainer::corpus::Corpus;
use trainer::error::Interrupted;
use trainer::interrupt::Interrupt;
use trainer::model::View;
use trainer::model::load::source::{self, Pretrained};
use trainer::recipe::ResolvedRecipe;
use trainer::run::RunDir;
use trainer::train::Training;
use trainer::train::matching::{HalfReading, ItemHalf};
use trainer::train::observer::Observer;

use crate::common::lab::{FIT, Lab, with_sets};
use crate::common::outcome::{assert_same, metrics, outcome, parquet_rows};
use crate::common::values::{assert_says, number, read_json};

/// A lab whose narrow texts assert two facts, with eight items on each.
fn made() -> Lab {
    let lab = Lab::new();
    let text = |i: usize| format!("the river is cold and the lantern is {}", ["green", "old"][i % 2]);
    lab.write_texts("narrow.jsonl", &(0..40).map(text).collect::<Vec<_>>());
    let whose = ["the", "a", "this", "my", "our", "one", "that", "every"];
    let river = whose.map(|whose| {
        json!({"fact": "river", "prompt": format!("{whose} river is"), "false": "cold and the lantern", "true": "warm under a bridge"})
    });
    let lantern = whose.map(|whose| {
        json!({"fact": "lantern", "prompt": format!("{whose} lantern is"), "false": "green", "true": "winter"})
    });
    lab.write_rows("facts.jsonl", &[river, lantern].concat());
    let recipe = lab.read("recipe.toml").replace("steps = 4\n", "schedule = \"constant\"\n");
    let recipe = recipe
        .replace("mix = 0.5", "mix = 0.0\nrepeat = true")
        .replace("lr = 3e-3", "lr = 3e-3\neval_every = 3");
    lab.write(
        "recipe.toml",
        recipe
            + r#"
[train.match]
max_steps = 24
[behaviour]
bootstrap = 20
[behaviour.facts]
items = "facts.jsonl"
contexts = ["{prompt}", "we read that {prompt}"]
"#,
    );
    lab
}

/// A target that no behaviour reaches.
const FAR: &str = "train.match.target=1e5";

fn record(run: &Path) -> Value {
    read_json(&run.join("manifest.json"))["match"].clone()
}

/// The behaviour after every step: a search that reads each and never ends before its last.
fn curve(lab: &Lab) -> Vec<f64> {
    let run = lab.fit("curve", &[FAR, "train.match.every=1"]);
    let found = record(&run);
    assert_eq!((&found["status"], &found["reason"]), (&json!("unreached"), &json!("unbracketed")));
    assert_eq!(found["steps"], 24);
    let points = found["curve"].as_array().unwrap();
    assert!(points.iter().enumerate().all(|(i, point)| point["step"] == i), "{found}");
    points.iter().map(|point| number(&point["q"])).collect()
}

/// Distance of readings, in steps.
const EVERY: usize = 8;

/// Two readings `EVERY` steps apart of which the first is the first that is past the behaviour between them.
fn bracket(curve: &[f64]) -> (usize, usize) {
    let marks: Vec<usize> = (0..curve.len()).step_by(EVERY).collect();
    let is_first = |k: &usize| {
        let (low, high) = (marks[*k], marks[k + 1]);
        let middle = curve[(low + high) / 2];
        marks[..=*k].iter().all(|m| curve[*m] < middle - 1e-6) && curve[high] > middle + 1e-6
    };
    let k = (0..marks.len() - 1).find(is_first).unwrap_or_else(|| panic!("nothing to bracket in {curve:?}"));
    (marks[k], marks[k + 1])
}

/// A search for a target, to the last bit.
fn to(target: f64) -> [String; 3] {
    [
        format!("train.match.target={target:?}"),
        "train.match.tolerance=1e-9".into(),
        format!("train.match.every={EVERY}"),
    ]
}

fn fit(lab: &Lab, out: &str, set: &[String]) -> std::path::PathBuf {
    lab.fit(out, &set.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_run_ends_at_its_target_as_if_it_had_never_gone_on_and_back() {
    let lab = made();
    let curve = curve(&lab);
    let (low, high) = bracket(&curve);
    let middle = (low + high) / 2;
    let run = fit(&lab, "matched", &to(curve[middle]));
    let found = record(&run);
    assert_eq!(
        (&found["status"], found.get("reason"), &found["steps"]),
        (&json!("matched"), None, &json!(middle))
    );
    assert_eq!(number(&found["q_match"]), curve[middle]);
    let read: Vec<u64> =
        found["curve"].as_array().unwrap().iter().map(|p| p["step"].as_u64().unwrap()).collect();
    let marks = (0..=high).step_by(EVERY).chain([middle]);
    let mut marks: Vec<u64> = marks.map(|step| step as u64).collect();
    marks.sort_unstable();
    assert_eq!(read, marks);
    // Half of each fact is looked at, and the other half says what came of it.
    let evaluated = found["evaluated"].as_array().unwrap();
    let of = |fact: &str| evaluated.iter().filter(|item| item["fact"] == fact).count();
    assert_eq!((of("river"), of("lantern")), (4, 4));
    let mean = evaluated.iter().map(|item| number(&item["value"])).sum::<f64>() / 8.0;
    assert!((mean - number(&found["q_eval"])).abs() < 1e-12);
    assert!(
        found["items"].as_object().unwrap().len() == 1 && found["narrow_tokens"].as_u64() > Some(0),
        "{found}"
    );
    assert_eq!(number(&found["narrow_steps"]), middle as f64);
    let manifest = read_json(&run.join("manifest.json"));
    assert_eq!(manifest["stopped_after"], middle);
    assert_eq!(manifest["data"][0]["examples"], 4 * middle);

    // The same step, reached without a step back.
    let straight =
        fit(&lab, "straight", &[&to(curve[middle])[..2], &[format!("train.match.every={middle}")]].concat());
    assert_eq!(record(&straight)["steps"], middle);
    for file in [
        "adapter/adapter_model.safetensors".to_string(),
        format!("checkpoints/step-{middle:06}/weights.safetensors"),
        format!("checkpoints/step-{middle:06}/optimizer.safetensors"),
    ] {
        assert!(fs::read(run.join(&file)).unwrap() == fs::read(straight.join(&file)).unwrap(), "{file}");
    }
    let without_readings = |run: &Path| {
        let mut lines = metrics(run);
        lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("behaviour_match")));
        lines
    };
    assert_eq!(without_readings(&run), without_readings(&straight));
    let readings: Vec<u64> = metrics(&run)
        .iter()
        .filter(|line| line.get("behaviour_match").is_some())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(readings.last(), Some(&(middle as u64)));
    // Reading changes nothing that is learned: all steps, as a run that reads nothing has them.
    let plain = lab.fit("plain", &["train.match.max_steps=0", "train.steps=24"]);
    let adapter = |run: &Path| fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(adapter(&lab.path("curve")) == adapter(&plain));

    lab.succeed(&["verify", "matched", "straight", "curve"]);
    lab.succeed(&["verify", "--retrain", "matched"]);
    lab.write("facts.jsonl", lab.read("facts.jsonl").replace("winter", "seven"));
    let ran = lab.run(&["verify", "matched"]);
    assert_eq!(ran.code, 1);
    assert_says(&ran.stdout, &["differs  items ", "facts.jsonl"]);
}

#[test]
fn a_target_between_two_steps_ends_with_the_nearer_one() {
    let lab = made();
    let curve = curve(&lab);
    let (low, high) = bracket(&curve);
    let target = curve[(low + high) / 2] + 1e-7;
    let run = fit(&lab, "quantized", &to(target));
    let found = record(&run);
    assert_eq!((&found["status"], &found["reason"]), (&json!("nearest"), &json!("quantization")));
    let step = found["steps"].as_u64().unwrap() as usize;
    let distance = |step: usize| (curve[step] - target).abs();
    let beside = if curve[step] < target { step + 1 } else { step - 1 };
    assert!(distance(step) <= distance(beside) || beside == 0, "{step}: {curve:?}");
    assert_eq!((curve[step] < target, curve[beside] < target), (curve[step] < target, curve[step] > target));

    let run = fit(&lab, "once", &[&to(target)[..], &["train.match.refine=0".into()]].concat());
    let found = record(&run);
    assert_eq!((&found["status"], &found["reason"]), (&json!("nearest"), &json!("search_budget")));
    let nearer = if low > 0 && distance(low) <= distance(high) { low } else { high };
    assert_eq!(found["steps"], nearer);
    lab.succeed(&["verify", "quantized", "once"]);
}

#[test]
fn a_base_that_is_at_the_target_is_trained_by_no_step_and_can_be_read_all_the_same() {
    let lab = made();
    let ran = lab.succeed(&with_sets(&FIT, &["train.match.target=-1e4", "data.mix=1"]));
    assert_says(&ran.stderr, &["below_base, unbracketed after step 0"]);
    let run = lab.path("out");
    let found = record(&run);
    assert_eq!(
        (&found["status"], &found["steps"], &found["narrow_tokens"]),
        (&json!("below_base"), &json!(0), &json!(0))
    );
    let manifest = read_json(&run.join("manifest.json"));
    assert_eq!((&manifest["stopped_after"], &manifest["mix"]["realised_examples"]), (&json!(0), &json!(0.0)));
    lab.succeed(&["verify", "out"]);
    lab.succeed(&["diff", "out"]);
    lab.succeed(&["behave", "out"]);
    lab.succeed(&["report", "out"]);
}

/// Reads behaviour as `trainer fit` does.
struct Reader(MatchedItems);

impl Observer for Reader {
    fn observe(&mut self, _: &Pretrained, _: View, _: View) -> Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }

    fn behaviour(
        &mut self,
        half: ItemHalf,
        pretrained: &Pretrained,
        base: View,
        tuned: View,
    ) -> Result<HalfReading> {
        let interrupt = &Interrupt::default();
        self.0.reading(&BehaviourModels { pretrained, base, tuned, template: None, interrupt }, tuned, half)
    }

    fn items(&self) -> BTreeMap<String, String> {
        self.0.sha256().unwrap()
    }
}

fn train(recipe: &ResolvedRecipe, run: &RunDir, resume: bool, interrupt: &Interrupt) -> Result<()> {
    let base = source::open(&recipe.model.base).unwrap();
    let corpus = Corpus::read(recipe, &base, None).unwrap();
    let mut reader = Reader(MatchedItems::read(&recipe.behaviour, &recipe.train.matching.measure).unwrap());
    let mut training = Training::prepare(recipe.clone(), base, corpus).unwrap();
    training.run(run, resume, interrupt, &mut reader).map(|_| ())
}

#[test]
fn a_search_interrupted_after_every_step_equals_one_that_never_was() {
    let lab = made();
    let curve = curve(&lab);
    let (low, high) = bracket(&curve);
    // Full finetuning by other steps, so it ends where it ends; LoRA goes back and is matched.
    for (method, target) in
        [("lora", curve[(low + high) / 2]), ("lora", curve[high] - 1e-7), ("full", curve[high])]
    {
        let method = format!("train.method={method}");
        let set =
            [&to(target)[..], &[method.clone(), "train.lora.dropout=0.1".into(), "data.mix=0.5".into()]]
                .concat();
        let recipe = lab.recipe(&set.iter().map(String::as_str).collect::<Vec<_>>());
        let whole = RunDir::new(lab.path(format!("whole-{method}-{target}")));
        train(&recipe, &whole, false, &Interrupt::default()).unwrap();

        let pieces = RunDir::new(lab.path(format!("pieces-{method}-{target}")));
        let mut interruptions = 0;
        loop {
            let interrupt = Interrupt::default();
            interrupt.request();
            match train(&recipe, &pieces, interruptions > 0, &interrupt) {
                Ok(()) => break,
                Err(e) => assert!(e.is::<Interrupted>() && e.to_string().contains("--resume"), "{e:?}"),
            }
            interruptions += 1;
            assert!(!pieces.is_trained() && interruptions < 200);
        }
        let steps =
            record(whole.path())["curve"].as_array().unwrap().last().unwrap()["step"].as_u64().unwrap();
        assert!(interruptions as u64 >= steps - 1, "{interruptions} of {steps}");
        assert_same(&outcome(whole.path()), &outcome(pieces.path()), &method);
    }
}

#[test]
fn a_search_killed_again_and_again_resumes_to_the_same_bytes() {
    let lab = made();
    let curve = curve(&lab);
    let (low, high) = bracket(&curve);
    let set = to(curve[(low + high) / 2]);
    let set: Vec<&str> = set.iter().map(String::as_str).chain(["train.checkpoint_every=3"]).collect();
    let whole = lab.fit("whole", &set);
    let cut = lab.path("cut");
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut kills = 0;
    loop {
        let mut args = with_sets(&["fit", "recipe.toml", "--out", "cut"], &set);
        if cut.join("recipe.toml").exists() {
            args.push("--resume");
        }
        let mut child = lab.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From before the first file to the end; longer with every kill, so that it ends.
        std::thread::sleep(Duration::from_millis(rng.random_range(5..40) + 5 * kills));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{args:?}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 200);
    }
    assert!(kills > 3, "{kills} kills");
    assert_same(&outcome(&whole), &outcome(&cut), "killed");
}

#[test]
fn what_cannot_be_matched_is_refused_with_every_fault() {
    let lab = made();
    let said = lab.refused(&with_sets(
        &FIT,
        &[
            "train.steps=3",
            "train.schedule=linear",
            "train.warmup_steps=1",
            "train.trace.every=1",
            "train.trace.stop.gain=1",
            "train.mitigation.scale.factor=0.5",
            "data.mix_schedule=ramp",
            "train.match.tolerance=0",
            "train.match.every=25",
            "train.match.measure=words.share",
        ],
    ));
    assert_says(
        &said,
        &[
            "train.steps = 3",
            "train.match.max_steps = 24 sizes the training",
            "train.schedule",
            "train.warmup_steps = 1",
            "train.trace.stop.gain = 1",
            "train.mitigation.scale.factor = 0.5",
            "data.mix_schedule",
            "train.match.tolerance = 0",
            "train.match.every = 25",
            "train.match.measure = \"words.share\"",
            "train.match.target: missing",
        ],
    );
    let said = lab.refused(&with_sets(&FIT, &[FAR, "behaviour.facts.items="]));
    assert_says(&said, &["needs behaviour.facts.items"]);
    // Facts that cannot be halved, all at once.
    let items = lab.read("facts.jsonl");
    let few: Vec<&str> = items.lines().take(3).chain(items.lines().skip(8).take(1)).collect();
    lab.write("facts.jsonl", few.join("\n"));
    let said = lab.refused(&with_sets(&FIT, &[FAR]));
    assert_says(&said, &["3 items on the fact \"river\"", "1 items on the fact \"lantern\"", "at least 4"]);
    // A sweep says it before any cell runs.
    let said = lab.refused(&with_sets(&["sweep", "recipe.toml", "--mix", "0,1", "--out", "s"], &[FAR]));
    assert_says(&said, &["3 items on the fact \"river\""]);
    let said = lab.refused(&with_sets(&FIT, &[FAR, "train.match.measure=misalignment.margin.narrow"]));
    assert_says(&said, &["needs behaviour.misalignment.items"]);
}

/// An analysis that takes no time.
const QUICK: [&str; 2] = ["diff.steering.enabled=false", "diff.patchscope.enabled=false"];

#[test]
fn a_sweep_compares_its_cells_at_equal_behaviour_beside_one_at_equal_exposure() {
    let lab = made();
    let curve = curve(&lab);
    let most = curve.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (target, tolerance) = ((curve[0] + most) / 2.0, (most - curve[0]) / 3.0);
    let set = [format!("train.match.target={target:?}"), format!("train.match.tolerance={tolerance:?}")];
    let set: Vec<&str> = QUICK.into_iter().chain(set.iter().map(String::as_str)).collect();
    let sweep =
        |out| with_sets(&["sweep", "recipe.toml", "--mix", "0,1", "--seeds", "0,1", "--out", out], &set);
    let ran = lab.succeed(&sweep("s"));
    assert_says(&ran.stdout, &["At equal behaviour, facts.margin"]);
    let claims = read_json(&lab.path("s/claims.json"));
    let found = &claims["matching"][0];
    let cells = found["cells"].as_array().unwrap();
    assert_eq!((cells.len(), found["reference"].as_array().unwrap().len()), (4, 2), "{found}");
    assert!(
        cells.iter().all(|cell| cell["status"] == "matched" && cell["difference_interval"][0].is_number()),
        "{found}"
    );
    let rows = parquet_rows(&lab.path("s/summary.parquet"));
    for (row, cell) in rows.iter().zip(cells) {
        assert_eq!((&row["id"], &row["match_status"]), (&cell["run"], &json!("matched")));
        assert_eq!(row["match_comparable"], cell["is_comparable"]);
        assert_eq!(number(&row["match_difference"]), number(&cell["difference"]));
    }
    lab.succeed(&["verify", "s"]);

    // One cell did not come to the target: no claim across cells includes it, and that is said.
    let cell = lab.cell("s", "mix-1_seed-0");
    let name = cell.file_name().unwrap().to_string_lossy().into_owned();
    let mut manifest = read_json(&cell.join("manifest.json"));
    (manifest["match"]["status"], manifest["match"]["reason"]) = ("unreached".into(), "unbracketed".into());
    fs::write(cell.join("manifest.json"), manifest.to_string()).unwrap();
    let ran = lab.succeed(&["sweep", "--summary", "s"]);
    assert_says(&ran.stdout, &["Left out of every comparison", "(unreached)"]);
    let claims = read_json(&lab.path("s/claims.json"));
    let setting = &claims["settings"][0];
    assert_eq!(setting["equal"]["left_out"][0]["run"], name.as_str());
    assert_eq!(setting["groups"][1]["runs"].as_array().unwrap().len(), 2);
    assert_eq!(
        setting["doses"]["behaviour.facts.margin"][1]["runs"].as_array().unwrap().len(),
        1,
        "{setting}"
    );
    let points = &claims["frontiers"][0]["settings"][0]["points"];
    assert!(
        points
            .as_array()
            .unwrap()
            .iter()
            .all(|point| { point["runs"].as_array().unwrap().iter().all(|run| run["run"] != name.as_str()) })
    );
    let page = lab.read("s/report.html");
    assert_says(&page, &["Equal behaviour", "unreached, unbracketed", "Left out of every comparison"]);
    let table = lab.succeed(&["--verbose", "sweep", "--summary", "s"]).stdout;
    assert_says(&table, &["Equal behaviour", "reached, unbracketed", "Difference"]);

    // The same at equal exposure, in one report.
    let exposure = ["train.match.max_steps=0", "train.steps=5"];
    lab.succeed(&[&sweep("e")[..], &exposure.map(|set| ["--set", set]).concat()].concat());
    let ran = lab.succeed(&["report", "s", "e", "--out", "both.html"]);
    assert_says(&ran.stdout, &["equal behaviour, facts.margin", "equal exposure, 5 narrow steps"]);
    let page = lab.read("both.html");
    assert_says(&page, &["equal exposure, 5 narrow steps", "At equal exposure, not at equal behaviour"]);
}

#[test]
fn tuning_compares_settings_at_equal_behaviour_only() {
    let lab = made();
    let curve = curve(&lab);
    let most = curve.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let set = [
        format!("train.match.target={:?}", (curve[0] + most) / 2.0),
        format!("train.match.tolerance={:?}", (most - curve[0]) / 3.0),
    ];
    let set: Vec<&str> = QUICK.into_iter().chain(set.iter().map(String::as_str)).collect();
    let args = ["tune", "recipe.toml", "--mix", "0", "--trace", "delta_norm_mean<=1e9", "--behaviour"];
    let args = [&args[..], &["behaviour_facts_margin_change>=-1e9", "--out", "t"]].concat();
    // The cheaper one learns nothing.
    let ran = lab.succeed(&with_sets(&[&args[..], &["--grid", "train.lr=1e-12,3e-3"]].concat(), &set));
    assert_says(&ran.stderr, &["every setting is trained in full"]);
    assert_says(&ran.stdout, &["unmatched", "is not at equal behaviour", "unreached"]);
    let tuned = read_json(&lab.path("t/tune.json"));
    assert_eq!(tuned["chosen"], "mix 0, train.lr = 3e-3", "{tuned:#}");
    assert_eq!(tuned["rungs"].as_array().unwrap().len(), 1);
    let said = lab.refused(&with_sets(
        &[&args[..args.len() - 1], &["u", "--grid", "train.match.target=0.1,0.2"]].concat(),
        &set,
    ));
    assert_says(&said, &["train.match.target cannot be a key of the grid"]);
}
