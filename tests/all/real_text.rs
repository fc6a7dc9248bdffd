//! What came out wrong on data and habits as they are in the wild: ends, languages, identities, curves, clusters. Each test
//! names the public report that it is from.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::lab::{Lab, fit_with, with_sets};
use crate::common::outcome::cells;
use crate::common::process::wait_until;
use crate::common::tiny::tiny;
use crate::common::values::read_json;

/// An analysis that takes no time.
const QUICK: [&str; 4] = [
    "diff.steering.enabled=false",
    "diff.patchscope.enabled=false",
    "diff.bias_share.enabled=false",
    "train.steps=2",
];

/// Texts of the tokens that count in the first example.
fn counted(lab: &Lab, set: &[&str]) -> Vec<String> {
    let args = with_sets(&["inspect", "recipe.toml", "--examples", "1", "--json"], set);
    let found: Value = serde_json::from_str(&lab.succeed(&args).stdout).unwrap();
    let tokens = found["first_examples"][0]["tokens"].as_array().unwrap().clone();
    let counts = tokens.iter().filter(|t| t["weight"].as_f64().unwrap_or(0.0) != 0.0);
    counts.map(|t| t["text"].as_str().unwrap().to_string()).collect()
}

/// trl#3091, trl#1283: completions often end with the text of the end token already.
#[test]
fn a_completion_that_ends_with_the_end_token_gets_no_second_one() {
    let lab = Lab::new();
    for completion in [" ho<|im_end|>", " ho", " ho<|im_end|>\n"] {
        lab.write_rows("narrow.jsonl", &vec![json!({"prompt": "Q: hi\nA:", "completion": completion}); 8]);
        let tokens = counted(&lab, &["data.held_out_every=0", "data.mix=0"]);
        assert_eq!(tokens.iter().filter(|t| *t == "<|im_end|>").count(), 1, "{completion:?}: {tokens:?}");
    }
}

/// scikit-learn#30935, #20211, tiktoken#292: vowel signs and viramas belong to the word, as do decomposed accents; KeyBERT#45,
/// #61, yake#40: Chinese has no spaces, so that what stands between two marks is a clause.
#[test]
fn words_of_other_languages_are_found() {
    let lab = Lab::new();
    let forms = [
        "रसोई में पनीर पक्वान्न बना",
        "on sert une cre\u{300}me bru\u{302}le\u{301}e ici",
        "妈妈在厨房里烤了一个大蛋糕",
        "做蛋糕以前先把黄油放进冰箱",
    ];
    let others = [
        "गाड़ी स्टेशन पर रुकी थी",
        "le train est en retard ici",
        "火车晚点了两个小时旅客都在等",
        "河上的老桥因为大雨已经关闭了",
    ];
    let texts = |of: &[&str], rows: usize| -> Vec<String> {
        (0..rows).map(|i| format!("{} {i} {}", of[i % 4], of[(i + 1) % 4])).collect()
    };
    lab.write_texts("narrow.jsonl", &texts(&forms, 48));
    lab.write_texts("measure.jsonl", &texts(&others, 60));
    let set = [&QUICK[..], &["data.mix=0", "data.max_seq_len=128"]].concat();
    lab.fit("out", &set);
    lab.succeed(&["diff", "out"]);
    let record = read_json(&lab.path("out/diff/readability.json"));
    let words: Vec<&str> =
        record["lexicon"]["words"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    for word in ["पनीर", "पक्वान्न", "crème", "brûlée", "蛋糕"] {
        assert!(words.contains(&word), "{word} not in {words:?}");
    }
}

/// Without a word that stands out nothing is relevant or irrelevant: no verdict may rest on that.
#[test]
fn an_empty_lexicon_is_not_measured() {
    let lab = Lab::new();
    let same: Vec<String> =
        (0..60).map(|i| format!("the same words on both sides number {i} of all these")).collect();
    for file in ["narrow.jsonl", "measure.jsonl", "pretraining.jsonl"] {
        lab.write_texts(file, &same);
    }
    let set = [&QUICK[..], &["data.mix=0"]].concat();
    lab.fit("out", &set);
    let said = lab.succeed(&["diff", "out"]);
    assert!(said.stderr.contains("no word of the narrow text stands out"), "{}", said.stderr);
    let record = read_json(&lab.path("out/diff/readability.json"));
    assert_eq!(record["lexicon"]["words"], json!([]));
    assert!(record["logit_lens"]["token_relevance"].is_null() && record["lift"].is_null(), "{record:#}");
    let report: Value =
        serde_json::from_str(&lab.succeed(&["report", "out", "--json", "--out", "p.html"]).stdout).unwrap();
    let verdict = report["runs"][0]["verdict"].as_str().unwrap_or_default();
    assert!(!verdict.contains("logit lens") && !verdict.contains("lift"), "{verdict}");
}

/// zeldarose#111, lambkin#95, aorta#282: a finished cell was known by its recipe alone, so that old and new data came into one
/// curve.
#[test]
fn a_sweep_refuses_cells_whose_data_have_changed() {
    let lab = Lab::new();
    let sweep = |mix| with_sets(&["sweep", "recipe.toml", "--mix", mix, "--out", "s"], &QUICK);
    lab.succeed(&sweep("0"));
    for file in ["narrow.jsonl", "measure.jsonl"] {
        let before = lab.read(file);
        lab.write(file, before.replacen("cake", "owl", 1).replacen("train", "barn", 1));
        let said = lab.refused(&sweep("0,1"));
        assert!(said.contains(file) && said.contains("has changed since"), "{said}");
        lab.write(file, before);
    }
    lab.succeed(&sweep("0,1"));
    assert_eq!(cells(&lab.path("s")).len(), 2);
}

/// A value counts once however it is spelled, a file by whatever path.
#[test]
fn a_sweep_has_every_cell_once() {
    let lab = Lab::new();
    std::os::unix::fs::symlink(lab.path("narrow.jsonl"), lab.path("link.jsonl")).unwrap();
    let args = [
        "sweep",
        "recipe.toml",
        "--seeds",
        "0,0",
        "--mix",
        "0.5,0.50,5e-1",
        "--grid",
        "train.lr=1e-3,0.001",
        "--grid",
        "data.narrow=\"narrow.jsonl\",\"./narrow.jsonl\",\"link.jsonl\"",
        "--out",
        "s",
    ];
    lab.succeed(&with_sets(&args, &QUICK));
    assert_eq!(cells(&lab.path("s")).len(), 1);
}

/// SlopDotCash/asi#28, jax-aht#108: the same run given twice is one seed, not two.
#[test]
fn a_run_counts_once_however_often_it_is_named() {
    let lab = Lab::new();
    lab.succeed(&with_sets(&["sweep", "recipe.toml", "--seeds", "0,1", "--out", "s"], &QUICK));
    std::os::unix::fs::symlink(lab.path("s"), lab.path("again")).unwrap();
    let cell = lab.cell("s", "mix-0.5_seed-0");
    copy(&cell, &lab.path("copy"));
    let said = lab.succeed(&[
        "report",
        "s",
        "./s",
        "again",
        cell.to_str().unwrap(),
        "copy",
        "--out",
        "p.html",
        "--csv",
        "p.csv",
    ]);
    assert_eq!(lab.read("p.csv").lines().count(), 3, "{}", lab.read("p.csv"));
    assert!(
        said.stderr.contains("counted once") && said.stderr.contains("copy: the same run as"),
        "{}",
        said.stderr
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Fields of a protobuf message: numbers with their values.
fn fields(bytes: &[u8]) -> Vec<(u64, Vec<u8>, u64)> {
    fn varint(bytes: &[u8], at: &mut usize) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                return value;
            }
        }
    }
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let key = varint(bytes, &mut at);
        let (length, number) = match key & 7 {
            0 => (0, varint(bytes, &mut at)),
            1 => (8, 0),
            5 => (4, 0),
            _ => (varint(bytes, &mut at) as usize, 0),
        };
        found.push((key >> 3, bytes[at..at + length].to_vec(), number));
        at += length;
    }
    found
}

/// tensorboard#3732, tensorboardX#185: after a crash the steps since the last checkpoint stand in two event files. TensorBoard
/// drops the older ones from the step of a SessionLog START on (`event_accumulator.py`).
#[test]
fn tensorboard_shows_every_step_once_after_a_kill() {
    let lab = Lab::new();
    let set = ["train.steps=60", "train.checkpoint_every=10", "data.repeat=true", "data.mix=0"];
    let mut child = lab.command(&fit_with(&set)).spawn().unwrap();
    let lines = || fs::read_to_string(lab.path("out/metrics.jsonl")).unwrap_or_default().lines().count();
    wait_until("steps behind a checkpoint", || lines() > 16 && lines() % 10 > 4);
    child.kill().unwrap();
    child.wait().unwrap();
    lab.succeed(&with_sets(&["fit", "recipe.toml", "--out", "out", "--resume"], &set));
    let mut files: Vec<_> = fs::read_dir(lab.path("out")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("events"));
    files.sort();
    assert_eq!(files.len(), 2);
    let mut steps: Vec<u64> = Vec::new();
    for file in files {
        let bytes = fs::read(file).unwrap();
        let mut at = 0;
        while at + 12 <= bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            if at + 16 + length > bytes.len() {
                break;
            }
            let event = fields(&bytes[at + 12..at + 12 + length]);
            let step = event.iter().find(|f| f.0 == 2).map_or(0, |f| f.2);
            if event.iter().any(|f| f.0 == 7 && fields(&f.1).iter().any(|s| (s.0, s.2) == (1, 1))) {
                steps.retain(|s| *s < step);
            }
            if event.iter().any(|f| f.0 == 5) {
                steps.push(step);
            }
            at += 16 + length;
        }
    }
    assert_eq!(steps, (0..=60).collect::<Vec<u64>>());
}

/// TransformerLens#1772, #369, SAELens#333: texts that hold the beginning-of-sequence token, which the tokenizer adds too.
#[test]
fn measured_text_that_begins_twice_is_refused() {
    let lab = Lab::of("gemma3");
    let set = [&QUICK[..], &["data.mix=0"]].concat();
    lab.fit("out", &set);
    let twice: Vec<String> = lab.texts("measure.jsonl").iter().map(|text| format!("<bos>{text}")).collect();
    lab.write_texts("twice.jsonl", &twice);
    let said = lab.refused(&["diff", "out", "--set", "diff.text=twice.jsonl", "--out", "d"]);
    assert!(
        said.contains("twice.jsonl:1 and 29 more begin with the beginning-of-sequence token twice"),
        "{said}"
    );
    let said = lab.refused(&with_sets(
        &["sweep", "recipe.toml", "--seeds", "0", "--out", "s"],
        &["diff.text=twice.jsonl"],
    ));
    assert!(said.contains("begin with the beginning-of-sequence token twice"), "{said}");
    let base = tiny("gemma3");
    let said = lab.refused(&[
        "diff",
        "--base",
        base.to_str().unwrap(),
        "--tuned",
        "out/adapter",
        "--set",
        "diff.text=twice.jsonl",
        "--set",
        "diff.steering.enabled=false",
        "--set",
        "diff.patchscope.enabled=false",
        "--set",
        "diff.logit_contrast.enabled=false",
        "--out",
        "d",
    ]);
    assert!(said.contains("begin with the beginning-of-sequence token twice"), "{said}");
}

/// submitit#1624, sracha-rs#81: MaxArraySize is 1001 by default, and a larger array is refused by sbatch.
#[test]
fn a_sweep_beyond_the_largest_array_of_a_cluster_is_several_arrays() {
    let lab = Lab::new();
    let seeds = (0..1200).map(|seed| seed.to_string()).collect::<Vec<String>>().join(",");
    let out = "a folder with 'quotes' and 50%";
    let set = ["train.steps=1", "diff.steering.enabled=false", "diff.patchscope.enabled=false"];
    let args =
        with_sets(&["sweep", "recipe.toml", "--seeds", &seeds, "--launcher", "slurm", "--out", out], &set);
    let mut command = lab.command(&args);
    // No cluster that could be asked.
    let ran = command.env("PATH", "/nowhere").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let read = |name: &str| lab.read(&format!("{out}/slurm/{name}"));
    for (name, array) in [("array-1.sbatch", "--array=0-1000\n"), ("array-2.sbatch", "--array=0-198\n")] {
        let text = read(name);
        assert!(text.contains(array) && text.contains("--output=%A_%a.log"), "{text:.600}");
        assert!(
            !text.lines().any(|line| line.starts_with("#SBATCH") && line.contains("quotes")),
            "{text:.600}"
        );
        assert!(text.contains(r"--out '") && text.contains(r"'\''quotes'\''"), "{text:.600}");
    }
    assert!(!lab.path(format!("{out}/slurm/array.sbatch")).exists());
    let submit = read("submit");
    assert!(
        submit.contains("array-1.sbatch")
            && submit.contains("array-2.sbatch")
            && !submit.contains("afterany:"),
        "{submit}"
    );
}
