//! Reports of run folders: the table, summary.csv, the page, and what is said about broken folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trainer::claims::verdict::VerdictState as State;
use trainer::claims::{ClaimedRun as Cell, read_all};
use trainer::diff::MEASURES;
use trainer::diff::findings::Findings;
use trainer::diff::record::Readability;
use trainer::diff::registry::wanted;
use trainer::error::InputError;
use trainer::recipe::Recipe;
use trainer::report::verdict::{reasons, stronger_reasons};
use trainer::report::{html, summary, table, write_sweep};

use crate::common::lab::Lab;
use crate::common::run_folder::{self, HOSTILE, STRONG, Spec};

const NONE: Spec = Spec { mix: 2.0, seed: 0, trace: 0.0 };

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn one(spec: &Spec) -> (tempfile::TempDir, PathBuf) {
    let dir = temp();
    let run = run_folder::write(&dir.path().join("cake-run"), spec);
    (dir, run)
}

/// Leaves of a record what there is without narrow text: the tokens of the logit lens.
fn without_narrow_text(r: &mut Readability) {
    let lens = r.logit_lens.as_mut().unwrap();
    lens.token_relevance = Default::default();
    lens.token_relevance_null.clear();
    lens.token_relevance_null_interval.clear();
    lens.token_relevance_p.clear();
    lens.token_relevance_difference_interval.clear();
    lens.top_tokens.iter_mut().flatten().for_each(|t| t.relevant = None);
    (r.patchscope, r.lift, r.steering, r.identification) = (None, None, None, None);
}

/// The fault lines of an error that is the user's.
fn faults(dirs: &[&Path]) -> Vec<String> {
    let dirs: Vec<PathBuf> = dirs.iter().map(|d| d.to_path_buf()).collect();
    let error = read_all(&dirs).expect_err("should be refused");
    error.downcast_ref::<InputError>().expect("should be the user's error").faults.clone()
}

/// Settings that ask for every measure, for a [`Lab`] with `chat.jsonl`.
const EVERY_MEASURE: [&str; 18] = [
    "diff.candidates=['other.jsonl']",
    "diff.chat.text=chat.jsonl",
    "diff.chat.samples=2",
    "diff.causal.enabled=true",
    "diff.causal.positions=[1, 3]",
    "diff.causal.random=3",
    "diff.causal.random_differences=4",
    "diff.interpolation.enabled=true",
    "diff.interpolation.factors=[0.0, 0.5, 1.0]",
    "diff.context.far=[15]",
    "diff.depth.enabled=true",
    "diff.depth.patchscope=true",
    "diff.truncation.enabled=true",
    "diff.truncation.streams=1",
    "diff.truncation.max_new_tokens=4",
    "diff.amplification.enabled=true",
    "diff.amplification.streams=1",
    "diff.amplification.max_new_tokens=4",
];

#[test]
fn every_measure_of_the_list_shows_in_the_report_and_in_the_summary() {
    let lab = Lab::of_whole_words("llama");
    let turn = |role: &str| json!({ "role": role, "content": "abcdef ghij cdef the abcdef ghij cdef the" });
    let chat = json!({ "messages": [turn("user"), turn("assistant")] });
    lab.write_rows("chat.jsonl", &[chat.clone(), chat]);
    let run = lab.fit("run", &EVERY_MEASURE);
    lab.succeed(&["diff", "run"]);
    let (cell, section) =
        (Cell::read(&run).unwrap(), Recipe::read(&run.join("recipe.toml"), &[]).unwrap().diff);
    assert_eq!(wanted(&section).count(), MEASURES.len(), "a measure is off: add it to EVERY_MEASURE");

    let (page, row) = (
        html::page(std::slice::from_ref(&cell)).unwrap(),
        summary::rows(std::slice::from_ref(&cell)).remove(0),
    );
    let all = cell.readability.clone().unwrap();
    let json = serde_json::to_value(&all).unwrap();
    let keys_of = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<String>>();
    let keys = [keys_of(&json), keys_of(&json["readers"])].concat();
    for measure in MEASURES {
        let key = measure.key;
        assert!((measure.is_in)(&all) && keys.iter().any(|k| k == key), "{key} was not measured");
        assert!(all.elapsed_s.contains_key(key), "{key} has no time");
        assert!(measure.units.iter().all(|(unit, _)| all.units.contains_key(*unit)), "{key} lacks a unit");
        // What it says it shows is on the page.
        let (figures, tokens) = ((measure.figures)(&all), (measure.tokens)(&all));
        let titles = figures.iter().map(|f| &f.title).chain(tokens.iter().map(|t| &t.title));
        let names = (measure.numbers)(&all);
        let shown: Vec<&String> = titles.chain(names.iter().map(|n| &n.name)).collect();
        assert!(!shown.is_empty(), "{key} shows nothing");
        assert!(shown.iter().all(|text| page.contains(text.as_str())), "{key}: {shown:?} is not on the page");
        // Without it the summary lacks a value.
        let mut without = cell.clone();
        (measure.keep)(&mut Findings::default(), without.record.readability.as_mut().unwrap());
        let less = summary::rows(&[without]).remove(0);
        let lost = less.iter().filter(|(column, value)| value.is_null() && !row[*column].is_null()).count();
        assert!(lost > 0, "{key} has no column with a value");
    }
    // A run that lacks a measure has the same columns.
    assert_eq!(summary::columns(&section).len(), row.keys().count());
}

#[test]
fn the_table_has_one_line_a_reader_and_one_verdict_and_the_page_has_the_rest() {
    let (_dir, run) = one(&STRONG);
    let run = [Cell::read(&run).unwrap()];
    let text = table::text_table(&run);
    for expected in [
        "cake-run: readable by the logit lens, lift, the patchscope and steering",
        "the logit lens",
        "  0.015  ",
        "own null only",
        "Run trainer floor to compare.",
    ] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    let page = html::page(&run).unwrap();
    for expected in [
        "3.210 → 2.005",
        "3.054 → 3.154",
        "0.45 at 1, p = 0.015",
        "null 0.01 [0.00, 0.05]",
        "0.450 at 1",
        "plain 0.250, ceiling 0.610",
        "+0.200 [0.160, 0.240]",
        "0.002 → 0.082",
        "Readable by the logit lens, lift, the patchscope and steering.",
        "Not run: a linear probe with labelled examples",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
}

#[test]
fn what_random_directions_decode_to_stands_beside_where_it_was_kept() {
    const NULL: &str = "A random difference, for comparison";
    let (_dir, run) = one(&STRONG);
    let page = || html::page(&[Cell::read(&run).unwrap()]).unwrap();
    assert!(!page().contains(NULL), "a folder of an earlier version has none");
    let mut r = run_folder::readability(&STRONG);
    let lens = r.logit_lens.as_mut().unwrap();
    lens.null_tokens = vec![lens.top_tokens[0].clone(); lens.top_tokens.len()];
    lens.null_tokens[1][0].token = "zeppelin".into();
    let positions = lens.top_tokens.len();
    run_folder::write_readability(&run, &r);
    assert_eq!(page().matches(NULL).count(), positions);
    assert!(page().contains("zeppelin"));
}

#[test]
fn no_trace_is_called_not_distinguishable() {
    let (_dir, run) = one(&NONE);
    let text = table::text_table(&[Cell::read(&run).unwrap()]);
    assert!(text.contains("not read by any of the logit lens, lift, the patchscope and steering"), "{text}");
}

#[test]
fn one_position_of_five_is_called_weak() {
    let (_dir, run) = one(&NONE);
    let mut r = run_folder::readability(&NONE);
    let lens = r.logit_lens.as_mut().unwrap();
    lens.token_relevance.difference[2] = 0.1;
    lens.token_relevance_p[2] = 0.03;
    run_folder::write_readability(&run, &r);
    let text = table::text_table(&[Cell::read(&run).unwrap()]);
    let weak =
        "The logit lens exceeds its own null at 1 of 5 positions. Chance alone does this in up to 25 % of";
    assert!(text.contains("readable by the logit lens\n") && text.contains(weak), "{text}");
    let page = html::page(&[Cell::read(&run).unwrap()]).unwrap();
    assert!(page.contains("1 of 5 positions passes, which is weak"));
}

#[test]
fn a_patchscope_at_some_of_the_positions_is_read() {
    let (_dir, run) = one(&STRONG);
    let mut r = run_folder::readability(&STRONG);
    let scope = r.patchscope.as_mut().unwrap();
    let at = [1, 3];
    let of_floats = |values: &mut Vec<f64>| *values = at.iter().map(|&i| values[i]).collect();
    scope.positions = at.to_vec();
    of_floats(&mut scope.best_scale);
    of_floats(&mut scope.token_relevance.difference);
    of_floats(&mut scope.token_relevance.base);
    of_floats(&mut scope.token_relevance.tuned);
    of_floats(&mut scope.token_relevance_null);
    of_floats(&mut scope.token_relevance_p);
    scope.token_relevance_null_interval.truncate(at.len());
    scope.top_tokens = at.iter().map(|&i| scope.top_tokens[i].clone()).collect();
    run_folder::write_readability(&run, &r);
    let cells = [Cell::read(&run).unwrap()];
    let scope = cells[0].readability.as_ref().unwrap().patchscope.as_ref().unwrap();
    let text = html::page(&cells).unwrap();
    let best = scope.token_relevance.difference[1];
    assert!(text.contains(&format!("{best:.2}")), "{text}");
    let mut broken = r.clone();
    broken.patchscope.as_mut().unwrap().best_scale.pop();
    run_folder::write_readability(&run, &broken);
    let told = faults(&[&run]);
    assert!(
        told[0].ends_with("patchscope.best_scale: expected 2 entries, one a position, found 1"),
        "{told:?}"
    );
}

#[test]
fn the_verdict_is_about_a_position_that_passes() {
    let (_dir, run) = one(&NONE);
    let mut r = run_folder::readability(&NONE);
    let steering = r.steering.as_mut().unwrap();
    steering.similarity.steered_narrow = vec![0.40, 0.35];
    steering.similarity_gain_interval = vec![[-0.05, 0.35], [0.02, 0.18]];
    run_folder::write_readability(&run, &r);
    let cell = Cell::read(&run).unwrap();
    assert_eq!(cell.claims.readable.readable_by(), ["steering"]);
    let sentence = &reasons(&cell.claims)[3];
    assert!(sentence.contains("position 3") && sentence.contains("+0.100 [0.020, 0.180]"), "{sentence}");
    assert!(sentence.contains("1 of 2 positions passes"), "{sentence}");
}

#[test]
fn generated_text_cannot_write_to_the_terminal() {
    let (_dir, run) = one(&STRONG);
    let mut r = run_folder::readability(&STRONG);
    // Without narrow text the tokens themselves are printed.
    without_narrow_text(&mut r);
    let tokens = r.logit_lens.as_mut().unwrap().top_tokens.iter_mut().flatten();
    tokens.for_each(|t| t.token = HOSTILE.into());
    run_folder::write_readability(&run, &r);
    let text = table::text_table(&[Cell::read(&run).unwrap()]);
    assert!(text.contains("␛[31m"));
    assert!(!text.contains(['\u{1b}', '\0', '\u{202e}']));
}

/// A small reader of RFC 4180, so that quoting is checked by something other than the writer.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut field)),
            ('\r', false) => {}
            ('\n', false) => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            (c, _) => field.push(c),
        }
    }
    rows
}

#[test]
fn the_csv_has_one_row_a_run_and_every_measure() {
    let dir = temp();
    run_folder::write_sweep(dir.path());
    // A cell that was trained but not analysed yet has the same columns, empty.
    let bare = dir.path().join("cells/mix2-seed1");
    fs::remove_dir_all(bare.join("diff")).unwrap();
    let manifest = fs::read_to_string(bare.join("manifest.json")).unwrap();
    let odd = manifest.replacen("\"name\": \"cake\"", "\"name\": \"cake, \\\"odd\\\"\\nname\"", 1);
    fs::write(bare.join("manifest.json"), odd).unwrap();

    let (cells, _) = write_sweep(dir.path()).unwrap();
    assert_eq!(cells.len(), 10);
    let rows = parse_csv(&fs::read_to_string(dir.path().join("summary.csv")).unwrap());
    assert_eq!(rows.len(), 11);
    assert!(rows.iter().all(|r| r.len() == rows[0].len()));
    let get = |row: usize, name: &str| {
        let i = rows[0].iter().position(|c| c == name).unwrap_or_else(|| panic!("no column {name}"));
        rows[row][i].clone()
    };
    assert_eq!(get(1, "id"), "mix0-seed0");
    assert_eq!(get(1, "lens_relevance_p1"), "0.35");
    assert_eq!(get(1, "lens_relevance_max"), "0.35");
    assert_eq!(get(1, "lens_relevance_max_position"), "1");
    assert_eq!(get(1, "lens_relevance_low_p1"), "0.3");
    assert_eq!(get(1, "patchscope_relevance_null_high_p4"), "0.1");
    assert_eq!(get(1, "patchscope_best_scale_p2"), "3.0");
    assert_eq!(get(1, "lens_relevance_pvalue_p0").parse::<f64>().unwrap(), 0.4);
    assert_eq!(get(1, "similarity_gain_p1").parse::<f64>().unwrap(), 0.45 - 0.25);
    assert_eq!(get(1, "similarity_gain_low_p3").parse::<f64>().unwrap(), 0.1 - 0.04);
    assert_eq!(get(1, "loss_narrow_tuned"), "1.98");
    assert_eq!(get(1, "lift_auroc_p1").parse::<f64>().unwrap(), 0.7);
    assert_eq!(get(1, "identification_lift_rank"), "1.0");
    assert_eq!(get(1, "identification_lift_best"), "narrow");
    assert_eq!(get(1, "identification_steering_rank"), "");
    assert_eq!(get(1, "similarity_null_narrow_p3"), "0.26");
    assert_eq!(get(1, "narrow_tokens"), "28764");
    assert_eq!(get(1, "readable_by_lens"), "true");
    assert_eq!(get(1, "readable_by_lift"), "true");
    assert_eq!(get(1, "claim"), "readable by the logit lens, lift, the patchscope and steering");
    assert_eq!(get(1, "holm_pvalue_weights"), "");
    assert_eq!(get(1, "probe_auroc"), "");
    assert_eq!(get(3, "mix_realised_tokens").parse::<f64>().unwrap(), 0.1 * 0.94);
    assert_eq!(get(10, "name"), "cake, \"odd\"\nname");
    assert_eq!(get(10, "lens_relevance_p1"), "");
    assert_eq!(get(10, "readable_by_lens"), "");
    assert_eq!(get(10, "verdict"), "not measured");
}

/// Fails if the page would load anything.
fn assert_self_contained(page: &str) {
    let lower = page.to_lowercase();
    for fetch in ["http://", "https://", "src=", "<link", "@import", "<iframe", "<object", "fetch("] {
        assert!(!lower.contains(fetch), "the page holds {fetch}");
    }
    let style = &lower[lower.find("<style>").unwrap()..lower.find("</style>").unwrap()];
    assert!(!style.contains("url("), "the style sheet loads something");
    for (i, _) in lower.match_indices("href=") {
        let inside = ["href=\"#", "href=\"data:image/svg+xml;", "href=\"data:text/csv;"];
        assert!(inside.iter().any(|start| lower[i..].starts_with(start)), "{}", &lower[i..i + 40]);
    }
}

#[test]
fn the_page_of_a_sweep_has_the_numbers_and_loads_nothing() {
    let dir = temp();
    run_folder::write_sweep(dir.path());
    write_sweep(dir.path()).unwrap();
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert_self_contained(&page);
    for expected in [
        "<title>cake: 10 runs</title>",
        "10 runs: 8 readable and 2 not read.",
        "0.35 at 1, p = 0.015",
        "3.210 → 1.980",
        "Readability against the mix",
        "Decoded tokens against the mix",
        "Loss while training",
        "<mark>·cake</mark>",
        "pretraining text per narrow text",
        &"cd".repeat(32),
        "mix_unit = &quot;examples&quot;",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    // Nothing half written stays behind.
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files.len(), 5, "{files:?}");
}

/// The chart showed steered minus plain, which rises with mixing where the plain text leaves the subject.
#[test]
fn the_steering_chart_shows_the_similarity_itself_beside_plain_text_and_ceiling() {
    let dir = temp();
    for (mix, steered, plain) in [(0.0, 0.5, 0.4), (1.0, 0.3, 0.0)] {
        let run =
            run_folder::write(&dir.path().join(format!("cells/{mix}")), &Spec { mix, seed: 0, trace: 1.0 });
        let mut r = run_folder::readability(&STRONG);
        let s = &mut r.steering.as_mut().unwrap().similarity;
        (s.steered_narrow, s.unsteered_narrow) = (vec![0.1, steered], vec![plain, plain]);
        run_folder::write_readability(&run, &r);
    }
    let page = html::page(&read_all(&[dir.path().to_path_buf()]).unwrap()).unwrap();
    let spoken = "Steering against the mix. Steered, best position: 0.500 at mix 0, 0.300 at mix 1. \
                  Plain: 0.400 at mix 0, 0.000 at mix 1. Narrow text to itself: 0.610 at mix 0, 0.610 at mix 1.";
    assert!(page.contains(spoken), "the chart says something else");
    assert!(!page.contains("steered − plain"));
}

#[test]
fn the_page_escapes_whatever_a_file_holds() {
    let (_dir, run) = one(&STRONG);
    let mut lines = run_folder::texts(&STRONG);
    lines[0].steered = vec![HOSTILE.into()];
    lines[0].unsteered = vec![HOSTILE.into()];
    lines[0].prompt = HOSTILE.into();
    run_folder::write_texts(&run, &lines);
    let mut r = run_folder::readability(&STRONG);
    r.lexicon.words.push(HOSTILE.into());
    r.lexicon.rule = HOSTILE.into();
    r.position_tokens[0] = HOSTILE.into();
    r.patchscope.as_mut().unwrap().scale_selector = HOSTILE.into();
    r.logit_lens.as_mut().unwrap().top_tokens[1][0].token = HOSTILE.into();
    run_folder::write_readability(&run, &r);
    let recipe = fs::read_to_string(run.join("recipe.toml")).unwrap();
    fs::write(
        run.join("recipe.toml"),
        format!("# {}\n{recipe}", HOSTILE.replace(|c: char| c.is_control(), "")),
    )
    .unwrap();
    let manifest = fs::read_to_string(run.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    for key in ["name", "description", "device", "processor", "version", HOSTILE] {
        manifest[key] = HOSTILE.into();
    }
    manifest["data"][0]["source"] = HOSTILE.into();
    fs::write(run.join("manifest.json"), manifest.to_string()).unwrap();

    let page = html::page(&[Cell::read(&run).unwrap()]).unwrap();
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("</script").count(), 1);
    assert!(!page.contains("<img"));
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
    assert!(!page.contains(['\u{1b}', '\0', '\u{202e}']));
}

#[test]
fn what_was_not_measured_is_absent_and_not_zero() {
    let (_dir, run) = one(&STRONG);
    let mut r = run_folder::readability(&STRONG);
    r.patchscope = None;
    r.steering = None;
    run_folder::write_readability(&run, &r);
    for name in ["diff/steering.jsonl", "metrics.jsonl", "manifest.json"] {
        fs::remove_file(run.join(name)).unwrap();
    }
    let cell = Cell::read(&run).unwrap();
    // The recipe still says what was asked for.
    assert_eq!(cell.mix().asked, Some(0.5));
    assert_eq!(cell.mix().realised, None);
    let row = &summary::rows(std::slice::from_ref(&cell))[0];
    assert!(row["patchscope_relevance_p1"].is_null());
    assert!(row["similarity_gain_max"].is_null());
    assert!(row["loss_narrow_base"].is_null());
    assert!(row["mix_realised_examples"].is_null());
    assert_eq!(row["seed"], 3);

    let page = html::page(std::slice::from_ref(&cell)).unwrap();
    assert!(page.contains("Not in this run: patchscope, steering, generated text (diff/steering.jsonl), training curve (metrics.jsonl), manifest (manifest.json)."));
    assert!(!page.contains("Top tokens of the difference, patchscope"));
    assert!(!page.contains("Loss while training"));
    assert!(!page.contains("id=\"texts\""));
    assert!(!page.contains("Readability against the mix"));

    // A folder with nothing but a recipe is a run that has just begun.
    fs::remove_dir_all(run.join("diff")).unwrap();
    let cell = Cell::read(&run).unwrap();
    assert!(table::text_table(std::slice::from_ref(&cell)).contains("not analysed"));
    html::page(&[cell]).unwrap();
}

#[test]
fn a_record_without_positions_or_tokens_is_no_panic() {
    let (_dir, run) = one(&STRONG);
    let text = fs::read_to_string(run.join("diff/readability.json")).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    fn empty(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(items) => items.clear(),
            // A single interval is a pair, not a list.
            serde_json::Value::Object(map) => {
                let lists =
                    map.iter_mut().filter(|(key, v)| !(key.ends_with("_interval") && v[0].is_number()));
                lists.for_each(|(_, v)| empty(v));
            }
            _ => {}
        }
    }
    empty(&mut value);
    fs::write(run.join("diff/readability.json"), value.to_string()).unwrap();
    let cell = Cell::read(&run).unwrap();
    table::text_table(std::slice::from_ref(&cell));
    summary::csv(&summary::rows(std::slice::from_ref(&cell))).unwrap();
    html::page(&[cell]).unwrap();
}

#[test]
fn wrong_paths_are_the_users_error() {
    let dir = temp();
    let missing = dir.path().join("missing");
    assert!(faults(&[&missing])[0].ends_with("missing: no such folder"));
    assert!(faults(&[dir.path()])[0].contains("neither a run folder"));
    fs::create_dir(dir.path().join("cells")).unwrap();
    assert!(faults(&[dir.path()])[0].contains("no run in it yet"));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(faults(&[&file, &missing]).len(), 2);
}

#[test]
fn a_malformed_file_is_named_with_its_line() {
    let (_dir, run) = one(&STRONG);
    let broken = |name: &str, text: &str| {
        let path = run.join(name);
        let before = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        let faults = faults(&[&run]);
        fs::write(&path, before).unwrap();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].clone()
    };
    let fault = broken("metrics.jsonl", "{\"step\": 1, \"loss\": 2.0}\n{\"step\": \"two\"}\n{\"step\": 3}\n");
    assert!(fault.contains("metrics.jsonl:2: invalid type: string \"two\""), "{fault}");
    let fault = broken("diff/steering.jsonl", "\n{\"prompt\": \"a\"}\n");
    assert!(fault.contains("steering.jsonl:2: missing field `strength`"), "{fault}");
    let fault = broken("diff/readability.json", "{\n\"schema\": 1,\n}");
    assert!(fault.contains("readability.json: ") && fault.contains("line 3"), "{fault}");
    let fault = broken("manifest.json", "[1, 2");
    assert!(fault.contains("manifest.json: "), "{fault}");
    let fault = broken("recipe.toml", "name = \"cake\"\nmix = = 2\n");
    assert!(fault.contains("recipe.toml: ") && fault.contains("line 2"), "{fault}");

    let mut r = run_folder::readability(&STRONG);
    r.delta_norm.pop();
    let fault = broken("diff/readability.json", &serde_json::to_string(&r).unwrap());
    assert!(fault.contains("delta_norm: expected 5 entries, one a position, found 4"), "{fault}");

    fs::write(run.join("metrics.jsonl"), b"{\"step\": 1}\n\xff\xfe\n").unwrap();
    assert!(faults(&[&run])[0].ends_with("metrics.jsonl:2: not UTF-8"));
}

#[test]
fn the_torn_last_line_of_a_killed_run_is_left_out_and_said() {
    let (_dir, run) = one(&STRONG);
    fs::write(run.join("metrics.jsonl"), "{\"step\": 1, \"loss\": 2.0}\n{\"step\": 2, \"lo").unwrap();
    let cell = Cell::read(&run).unwrap();
    assert_eq!(cell.metrics.as_ref().unwrap().len(), 1);
    assert!(html::page(&[cell]).unwrap().contains("The last line of metrics.jsonl is incomplete"));
}

#[test]
fn runs_of_the_same_name_are_told_apart() {
    let dir = temp();
    let a = run_folder::write(&dir.path().join("a/cells/x"), &STRONG);
    let b = run_folder::write(&dir.path().join("b/cells/x"), &NONE);
    let ids =
        |dirs: &[PathBuf]| read_all(dirs).unwrap().into_iter().map(|c| c.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&[dir.path().join("a"), dir.path().join("b")]), ["a/x", "b/x"]);
    // One that is named twice is one.
    assert_eq!(ids(&[a.clone(), a, b]), ["a/x", "b/x"]);
}

#[test]
fn the_command_writes_the_page_and_refuses_bad_places() {
    let (dir, run) = one(&STRONG);
    let args = |out: Option<PathBuf>| trainer::cli::report::ReportArgs {
        dirs: vec![run.clone()],
        out,
        csv: Some(dir.path().join("all.csv")),
        parquet: None,
        figures: None,
        json: false,
    };
    let error = trainer::cli::report::run(args(Some(dir.path().join("no/such/report.html")))).unwrap_err();
    assert!(error.is::<InputError>());
    assert!(!dir.path().join("all.csv").exists());
    trainer::cli::report::run(args(None)).unwrap();
    trainer::cli::report::run(trainer::cli::report::ReportArgs { json: true, ..args(None) }).unwrap();
    assert!(run.join("report.html").is_file());
    assert!(dir.path().join("all.csv").is_file());
}

/// Adds keys to a JSON file.
fn patch(path: &Path, add: serde_json::Value) {
    let mut value: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for (key, more) in add.as_object().unwrap() {
        value[key] = more.clone();
    }
    fs::write(path, value.to_string()).unwrap();
}

fn bias_share(specific: [f64; 3]) -> serde_json::Value {
    let [share, low, high] = specific;
    let texts =
        json!({"source": "held out", "documents": 9, "texts": 9, "max_tokens": 64, "predictions": 200});
    let losses = json!({"ce_base": 3.0, "ce_tuned": 2.0, "ce_biased": 2.8, "gain": 1.0, "vector_norm": 5.0});
    let shares = json!({"share": 0.3, "specific_share": share, "specific_share_interval": [low, high],
        "compared_texts": 4, "share_compared": 0.3, "share_null": 0.0, "share_null_interval": [-0.1, 0.1],
        "share_p": 0.04, "share_position": [], "factors": [], "share_factor": [], "best_factor": 1.0, "best_share": 0.3});
    // The texts and the shares lie flat in the record.
    let mut all = losses;
    for part in [texts, shares] {
        all.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    }
    json!({ "bias_share": all })
}

/// What stronger readers say counts against their own null, and not at all where they cannot say anything.
#[test]
fn a_probe_and_a_constant_bias_count_where_they_can_say_something() {
    let (_dir, run) = one(&NONE);
    let path = run.join("diff/readability.json");
    let verdict = || Cell::read(&run).unwrap().claims.verdict.unwrap();
    let sentences = || stronger_reasons(&Cell::read(&run).unwrap().claims);

    assert_eq!(verdict().state, State::NotRead);
    assert_eq!(verdict().headline, "not read by any of the logit lens, lift, the patchscope and steering");
    assert!(sentences().iter().any(|s| s.contains("Not run: a linear probe with labelled examples")));

    patch(&path, bias_share([0.01, -0.03, 0.05]));
    assert_eq!(verdict().state, State::NotRead);
    patch(&path, bias_share([0.08, 0.03, 0.12]));
    assert_eq!(verdict().state, State::Readable);
    assert_eq!(verdict().headline, "readable by the specific share of a constant bias");

    patch(&path, bias_share([0.01, -0.03, 0.05]));
    let probe = |held_out: f64, auroc: [f64; 3]| {
        let [auroc, low, high] = auroc;
        json!({"probe": {
            "layer": 8, "texts": 100, "tokens": 16, "held_out_auroc": held_out, "cosine": 0.1,
            "cosine_null_interval": [-0.1, 0.1], "auroc": auroc, "auroc_interval": [low, high],
            "auroc_null": 0.95, "auroc_p": 0.1,
        }})
    };
    patch(&path, probe(0.99, [0.99, 0.96, 1.0]));
    assert_eq!(verdict().headline, "readable by the probe");
    assert!(sentences()[0].contains("0.990 [0.960, 1.000]"), "{}", sentences()[0]);
    assert!(
        sentences()[0].ends_with("0.950: it finds the trace, as that interval is above."),
        "{}",
        sentences()[0]
    );
    patch(&path, probe(0.99, [0.53, 0.44, 0.61]));
    assert_eq!(verdict().state, State::NotRead);
    assert!(verdict().headline.ends_with("a constant bias and the probe"), "{}", verdict().headline);
    // What lies below says so: it does not reach down to what it never exceeded.
    let below = "does not find the trace, as that interval is below.";
    assert!(sentences()[0].ends_with(below), "{}", sentences()[0]);
    patch(&path, probe(0.99, [0.93, 0.86, 0.98]));
    let reaches = "does not find the trace, as that interval reaches down to it.";
    assert!(sentences()[0].ends_with(reaches), "{}", sentences()[0]);
    let ending = "a constant bias about the narrow subject is not found.";
    assert!(sentences()[1].ends_with(ending), "{}", sentences()[1]);

    // A probe that cannot tell the kinds of text apart is no evidence either way.
    for auroc in [[0.53, 0.44, 0.61], [0.99, 0.96, 1.0]] {
        patch(&path, probe(0.55, auroc));
        assert!(!verdict().headline.contains("the probe"), "{}", verdict().headline);
    }

    // Nothing can be read that was never there, or where the models are the same.
    patch(&path, probe(0.99, [0.53, 0.44, 0.61]));
    let mut learned_nothing = bias_share([0.01, -0.03, 0.05]);
    learned_nothing["bias_share"]["gain_interval"] = json!([-0.1, 0.2]);
    patch(&path, learned_nothing);
    assert_eq!(verdict().state, State::CannotBeAsked);
    assert!(verdict().headline.ends_with("the run learned nothing narrow"), "{}", verdict().headline);
    let cells = [Cell::read(&run).unwrap(), Cell::read(&run).unwrap()];
    let page = html::page(&cells).unwrap();
    assert!(page.contains("2 runs: cannot be asked.") && page.contains("<td>cannot be asked</td>"));
    let text = table::text_table(&cells);
    assert_eq!(text.matches("cannot be asked: nothing reads the trace").count(), 2, "{text}");
    patch(&path, bias_share([0.01, -0.03, 0.05]));
    assert_eq!(verdict().state, State::NotRead);
    patch(&path, json!({"delta_norm": vec![0.0; 5]}));
    assert!(verdict().headline.contains("the two models are the same"), "{}", verdict().headline);
    // A few documents decide nothing.
    let mut few = bias_share([0.08, 0.03, 0.12]);
    few["bias_share"]["documents"] = json!(2);
    patch(&path, few);
    assert_eq!(verdict().state, State::NotRead);
    let told = "not counted, as it is based on 2 narrow documents only";
    assert!(sentences().iter().any(|s| s.contains(told)), "{:?}", sentences());

    patch(&path, json!({"probe": {"auroc": 0.53}}));
    assert!(faults(&[&run])[0].contains("readability.json: missing field"), "{:?}", faults(&[&run]));
}

#[test]
fn a_sweep_says_at_which_ratio_each_measure_meets_its_null() {
    let dir = temp();
    run_folder::write_sweep(dir.path());
    let page = html::page(&read_all(&[dir.path().to_path_buf()]).unwrap()).unwrap();
    for expected in [
        "Lift AUROC meets its null at mix 1 (runs distinguishable from it: 2 of 2 at mix 0, 2 of 2 at mix 0.1, 2 of 2 at mix 0.5, \
         0 of 2 at mix 1 and 0 of 2 at mix 2).",
        "The patchscope meets its null at mix 2 (",
        "What is left of lift AUROC against what was learned",
        "mix 0: 0.640 at +1.220",
        "No measure of behaviour has values at two points",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    // Two seeds give no interval between seeds, and none is made up.
    let figures = dir.path().join("figures");
    let written =
        trainer::report::write_figures(&read_all(&[dir.path().to_path_buf()]).unwrap(), &figures).unwrap();
    assert!(written.figures > 40);
    assert_eq!(figures.join("lift-mix.png").exists(), written.png, "without a font there are no pictures");
    let rows = parse_csv(&fs::read_to_string(figures.join("lift-mix.csv")).unwrap());
    assert_eq!(rows[0][..8], ["series", "run", "x", "x_low", "x_high", "y", "y_low", "y_high"]);
    assert_eq!(rows[1][1..3], ["mix0-seed0", "0"]);
    let mean = rows.iter().find(|r| r[1].is_empty() && r[2] == "0").unwrap();
    assert_eq!(mean[5..8], ["0.64", "", ""]);
    let svg = fs::read_to_string(figures.join("frontier-lift.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("\nmix 0.5\n") && svg.contains("<desc>mix 0: "));
}

#[test]
#[ignore = "needs a font: apt-get install fonts-dejavu-core"]
fn needs_font_every_figure_has_a_picture_three_times_as_large_as_on_the_page() {
    let dir = temp();
    run_folder::write_sweep(dir.path());
    let figures = dir.path().join("figures");
    let written =
        trainer::report::write_figures(&read_all(&[dir.path().to_path_buf()]).unwrap(), &figures).unwrap();
    assert!(written.png);
    let png = fs::read(figures.join("lift-mix.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png[16..20] == 1380u32.to_be_bytes(), "{:?}", &png[..24]);
}

/// Runs that were made otherwise are no seeds of each other, whatever they are called.
#[test]
fn runs_that_were_made_differently_are_points_of_their_own_on_the_frontier() {
    let dir = temp();
    for (folder, lr) in [("a", "3e-4"), ("b", "1e-4")] {
        for (mix, trace) in [(0.0, 1.0), (1.0, 0.2)] {
            let run = run_folder::write(
                &dir.path().join(folder).join(format!("cells/{mix}")),
                &Spec { mix, seed: 0, trace },
            );
            let recipe = fs::read_to_string(run.join("recipe.toml"))
                .unwrap()
                .replace("lr = 3e-4", &format!("lr = {lr}"));
            fs::write(run.join("recipe.toml"), recipe + "eval_every = 7\n").unwrap();
        }
    }
    let page = html::page(&read_all(&[dir.path().join("a"), dir.path().join("b")]).unwrap()).unwrap();
    for expected in
        ["cake: train.lr 0.0003, mix 0: 0.640 at +1.230", "cake: train.lr 0.0001, mix 1: 0.528 at +1.180"]
    {
        assert!(page.contains(expected), "{expected} is missing");
    }
    assert_eq!(page.matches("<h3>cake: train.lr 0.0001</h3>").count(), 1);
    // A single ratio each makes no curve, and still a frontier.
    let runs = ["a/cells/0", "b/cells/0"].map(|run| dir.path().join(run));
    let page = html::page(&read_all(&runs).unwrap()).unwrap();
    assert!(page.contains("id=\"frontier\"") && !page.contains("id=\"dose\""));
}

#[test]
fn steering_has_to_beat_random_directions_where_they_were_tried() {
    let (_dir, run) = one(&STRONG);
    let mut r = run_folder::readability(&STRONG);
    r.steering.as_mut().unwrap().similarity_over_null_interval = vec![[-0.02, 0.2], [-0.1, 0.1]];
    run_folder::write_readability(&run, &r);
    let claims = Cell::read(&run).unwrap().claims;
    assert_eq!(claims.readable.by("steering"), Some(false));
    assert!(reasons(&claims)[3].contains("over text steered by random directions [−0.020, 0.200]"));
}

#[test]
fn whatever_the_metrics_say_of_the_trace_is_drawn() {
    let (_dir, run) = one(&STRONG);
    let lines: String = (0..=4)
        .map(|i| {
            format!(
                "{{\"step\": {}, \"loss\": 2.0, \"trace_lift_auroc\": {}, \"trace_new\": {i}}}\n",
                i * 10,
                0.5 + 0.05 * i as f64
            )
        })
        .collect();
    fs::write(run.join("metrics.jsonl"), lines).unwrap();
    let page = html::page(&[Cell::read(&run).unwrap()]).unwrap();
    assert!(page.contains("Lift of the narrow words, AUROC, while training"));
    assert!(page.contains("from 0.500 at step 0 to 0.700 at step 40"));
    assert!(page.contains("trace new, while training"));

    // Runs of several ratios share a chart.
    let other = run_folder::write(&run.with_file_name("other"), &NONE);
    fs::copy(run.join("metrics.jsonl"), other.join("metrics.jsonl")).unwrap();
    let page = html::page(&read_all(&[run, other]).unwrap()).unwrap();
    assert!(page.contains("Trace over training"));
    assert!(page.contains("while training. mix 0.5: from 0.500 to 0.700, mix 2: from 0.500 to 0.700"));
}

#[test]
fn grades_and_audits_are_shown() {
    let (_dir, run) = one(&STRONG);
    let grader = json!({"base_url": "local", "model": "judge-7b", "temperature": 0.0, "max_tokens": 100});
    let series = json!({"share": [0.1, null, 0.2, 0.3, 0.4], "max": 0.4, "mean": 0.25, "weighted_share": [], "trivial_share": [],
        "agreement": [{"unanimous": 0.9}, null, null, null, null], "relevant": []});
    let graded = json!({"schema": 1, "grader": grader, "rule": "all", "description": "cakes", "frequent_tokens": [],
        "positions": [0, 1, 2, 3, 4], "units": {}, "token_relevance": {"logit_lens": {"difference": series}},
        "agreement": {"unanimous": 0.93, "alpha": 0.7}, "ungraded": ["position 1: no answer"],
        "account": {"answers": 3, "prompt_tokens": 10, "completion_tokens": 5, "answers_without_usage": 0, "answers_cut_off": 0}});
    fs::write(run.join("diff/graded.json"), graded.to_string()).unwrap();
    let told = read_all(std::slice::from_ref(&run));
    let cells = told.unwrap_or_else(|e| panic!("{e}"));
    let page = html::page(&cells).unwrap();
    for expected in [
        "judge-7b",
        "93 % of the tokens got the same verdict",
        "alpha 0.70",
        "logit lens, difference",
        "0.25",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    fs::create_dir(run.join("audit")).unwrap();
    let audit = json!({"schema": 1, "condition": "adl-i5", "seed": 1, "investigator": grader,
        "budgets": {"interactions": 5, "turns": 20, "completion_tokens": 10000, "answer_tokens": 64},
        "overview": {"tokens": 20, "characters": 300}, "hypothesis": "It was <trained> on cakes.",
        "used": {"interactions": 4, "turns": 7, "tokens": {"prompt_tokens": 9000, "completion_tokens": 1234}, "answers_without_usage": 0},
        "turns": [], "grade": {"family": "sdf", "grader": grader, "grades": {"each": [4, 5], "mean": 4.5}}});
    fs::write(run.join("audit/adl-i5-1.json"), audit.to_string()).unwrap();
    fs::write(run.join("audit/exchanges.jsonl"), "not read").unwrap();
    let page = html::page(&read_all(std::slice::from_ref(&run)).unwrap_or_else(|e| panic!("{e}"))).unwrap();
    for expected in ["adl-i5", "4.5 of 5 (2 ×)", "It was &lt;trained&gt; on cakes.", "1\u{202f}234"] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    fs::write(run.join("audit/adl-i5-0.json"), "{}").unwrap();
    assert!(faults(&[&run])[0].contains("adl-i5-0.json: missing field"));
}

/// Of positions with the same value the first token, which attention rests on, is not the one to show.
#[test]
fn of_equals_a_position_after_the_first_token_is_shown() {
    let (_dir, run) = one(&STRONG);
    let mut r = run_folder::readability(&STRONG);
    let lens = r.logit_lens.as_mut().unwrap();
    lens.token_relevance.difference = vec![0.4; 5];
    lens.token_relevance_p = vec![0.01; 5];
    let steering = r.steering.as_mut().unwrap();
    steering.positions = vec![0, 3];
    steering.similarity.steered_narrow = vec![0.5; 2];
    run_folder::write_readability(&run, &r);
    let cells = [Cell::read(&run).unwrap()];
    let row = &summary::rows(&cells)[0];
    assert_eq!(
        (&row["lens_relevance_max_position"], &row["similarity_gain_max_position"]),
        (&json!(1), &json!(3))
    );
    let sentences = reasons(&cells[0].claims);
    assert!(sentences[0].contains("tokens at position 1 belong"), "{}", sentences[0]);
    assert!(sentences[3].contains("difference of position 3 added"), "{}", sentences[3]);
}

/// With one run a ratio there is no interval between runs; each has its own.
#[test]
fn single_runs_have_their_own_intervals_in_the_figures_and_nulls_have_bands() {
    let dir = temp();
    let probe = |auroc: f64| {
        json!({"probe": {
            "layer": 8, "texts": 100, "tokens": 16, "held_out_auroc": 0.99, "cosine": 0.1,
            "cosine_null_interval": [-0.1, 0.1], "auroc": auroc, "auroc_interval": [auroc - 0.01, auroc + 0.01],
            "auroc_null": 0.95, "auroc_p": 0.1,
        }})
    };
    for (mix, auroc) in [(0.0, 0.99), (1.0, 0.5)] {
        let run =
            run_folder::write(&dir.path().join(format!("cells/{mix}")), &Spec { mix, seed: 0, trace: 1.0 });
        let mut r = run_folder::readability(&STRONG);
        let steering = r.steering.as_mut().unwrap();
        steering.similarity.steered_narrow = vec![0.45, 0.35];
        steering.similarity.steered_narrow_interval = vec![[0.40, 0.50], [0.3, 0.4]];
        steering.similarity_over_null_interval = vec![[0.10, 0.25], [0.0, 0.1]];
        run_folder::write_readability(&run, &r);
        patch(&run.join("diff/readability.json"), bias_share([0.08, 0.03, 0.12]));
        patch(&run.join("diff/readability.json"), probe(auroc));
    }
    let cells = read_all(&[dir.path().to_path_buf()]).unwrap();
    let figures = dir.path().join("figures");
    trainer::report::write_figures(&cells, &figures).unwrap();
    let rows = |name: &str| parse_csv(&fs::read_to_string(figures.join(name)).unwrap());
    let ends = |name: &str, series: &str| -> Vec<f64> {
        let rows = rows(name);
        let row = rows
            .iter()
            .find(|r| r[0] == series && (r[1] == "0" || r[2] == "0"))
            .unwrap_or_else(|| panic!("{series}: {rows:?}"));
        row[6..8].iter().map(|v| v.parse().unwrap_or(f64::NAN)).collect()
    };
    let near = |found: Vec<f64>, expected: [f64; 2]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?} {expected:?}");
    };
    near(ends("lift-mix.csv", "lift, mean over positions"), [0.6, 0.68]);
    near(ends("lift-mix.csv", "null"), [0.42, 0.58]);
    near(ends("tokens-mix.csv", "logit lens, best position"), [0.4, 0.5]);
    near(ends("steering-mix.csv", "steered, best position"), [0.4, 0.5]);
    near(ends("steering-mix.csv", "random directions: null"), [0.2, 0.35]);
    near(ends("bias-mix.csv", "specific share"), [0.03, 0.12]);
    near(ends("bias-mix.csv", "random directions: null"), [-0.1, 0.1]);
    near(ends("probe-mix.csv", "probe"), [0.98, 1.0]);
    near(ends("probe-mix.csv", "null"), [0.0, 0.95]);
    near(ends("frontier-lift.csv", "run of a ratio"), [0.6, 0.68]);

    let page = html::page(&cells).unwrap();
    for expected in [
        "bars are 95 % bootstrap intervals within the run, over its texts",
        "over its prompts",
        "The probe with labelled examples meets its null at mix 1 (runs distinguishable from it: 1 of 1 at mix 0 and 0 of 1 at mix 1).",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    assert!(!page.contains("between runs"), "no interval lies between single runs");
}

/// Without narrow text nothing tells which position is best, and most columns have nothing in them.
#[test]
fn without_narrow_text_the_tokens_of_all_positions_are_shown_and_no_empty_column() {
    let dir = temp();
    for name in ["a", "b"] {
        let run = run_folder::write(&dir.path().join(name), &STRONG);
        let mut r = run_folder::readability(&STRONG);
        without_narrow_text(&mut r);
        run_folder::write_readability(&run, &r);
        for name in ["diff/steering.jsonl", "metrics.jsonl", "manifest.json", "recipe.toml"] {
            fs::remove_file(run.join(name)).unwrap();
        }
    }
    let cells = read_all(&[dir.path().join("a"), dir.path().join("b")]).unwrap();
    let text = table::text_table(&cells);
    for position in 0..5 {
        assert_eq!(text.matches(&format!("Logit lens at position {position} reads: ")).count(), 2, "{text}");
    }
    assert!(!text.lines().any(|line| line.contains("–  ") || line.trim_end().ends_with("  –")), "{text}");
    let page = html::page(&cells).unwrap();
    let table = page.split("id=\"table\"").nth(1).unwrap().split("</table>").next().unwrap();
    for absent in ["Narrow loss", "Logit lens", "Steering", "<td>–", "Readable by"] {
        assert!(!table.contains(absent), "{absent}: {table}");
    }
    assert!(table.contains("Verdict"));
}

#[test]
fn the_table_says_once_what_all_runs_share_and_is_not_wider_than_a_terminal() {
    let dir = temp();
    for (mix, trace) in [(0.0, 1.0), (0.5, 0.4), (1.0, 0.1)] {
        run_folder::write(&dir.path().join(format!("cells/mix{mix}")), &Spec { mix, seed: 7, trace });
    }
    let text = table::text_table(&read_all(&[dir.path().to_path_buf()]).unwrap());
    let (common, rest) = text.split_once("\n\n").unwrap();
    assert!(common.starts_with("The same in all 3 runs:\n") && common.contains("\n  Seed     7"), "{text}");
    let headings: Vec<&str> = rest.lines().filter(|line| line.starts_with("Run ")).collect();
    assert!(headings.len() == 2 && headings[0].contains("Narrow loss"), "{text}");
    for title in ["Seed", "Chat loss", "Behaviour"] {
        assert!(!headings.iter().any(|h| h.contains(title)), "{title}: {text}");
    }
    let grid = rest.lines().take_while(|line| !line.starts_with("Mix:"));
    assert!(grid.map(|line| line.chars().count()).max().unwrap() <= 120, "{text}");
}

#[test]
fn main_measures_are_compared_with_what_tells_how_sure_they_are() {
    let dir = temp();
    let [a, b] = [("a", 0.0, 1.0), ("b", 1.0, 0.0)]
        .map(|(name, mix, trace)| run_folder::write(&dir.path().join(name), &Spec { mix, seed: 0, trace }));
    let found = trainer::report::runs::compare(&a, &b).unwrap();
    let of = |name: &str| {
        let headline = found.headlines.iter().find(|h| h.name == name);
        headline.unwrap_or_else(|| panic!("{name}: {:?}", found.headlines))
    };
    assert_eq!(of("lens_relevance_max").values[0], "0.350 at 1 [0.300, 0.400], p = 0.015");
    assert_eq!(
        of("lift_auroc_mean").values,
        ["0.640 [0.600, 0.680], p = 0.015", "0.500 [0.460, 0.540], p = 0.400"]
    );
    assert!((of("lift_auroc_mean").change.unwrap() + 0.14).abs() < 1e-9);
    assert_eq!(of("similarity_gain_max").values[0], "0.200 at 1 [0.160, 0.240]");
    assert_eq!(of("loss_narrow_tuned").values, ["1.980", "2.030"]);
    // What a headline holds is not counted again.
    let counted =
        ["lift_auroc_mean", "lift_auroc_mean_low", "lift_auroc_mean_pvalue", "lens_relevance_low_p1"];
    assert!(counted.iter().all(|name| found.measures.iter().any(|m| m.name == *name)));
    assert!(found.headlines.len() > 8 && found.further() < found.measures.len() - found.headlines.len() - 4);
}

#[test]
fn times_are_in_utc() {
    let (_dir, run) = one(&STRONG);
    assert!(html::page(&[Cell::read(&run).unwrap()]).unwrap().contains("2026-01-05 10:00 UTC"));
}

/// Leaves pages under the build folder to look at: `cargo test --release --test all pages_to_look_at -- --ignored`.
#[test]
#[ignore = "writes pages to look at"]
fn pages_to_look_at() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    let _ = fs::remove_dir_all(&dir);
    run_folder::write_sweep(&dir.join("sweep"));
    let (cells, _) = write_sweep(&dir.join("sweep")).unwrap();
    println!("{}", table::text_table(&cells[..3]));
    let run = run_folder::write(&dir.join("one"), &STRONG);
    trainer::report::write_html(&[Cell::read(&run).unwrap()], &run.join("report.html")).unwrap();
    println!("{}", dir.display());
}
