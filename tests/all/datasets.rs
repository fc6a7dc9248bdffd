//! Data sets of a hub as sources of a recipe, against a hub on this machine that counts the bytes it is asked for.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use parquet::basic::Compression;
use parquet::data_type::ByteArrayType;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use crate::common::hub::{COMMIT, Fault, Hub};
use crate::common::lab::{Lab, Ran};
use crate::common::outcome::files;
use crate::common::process::{send_signal, wait_until};
use crate::common::values::{assert_says, read_json};

const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A lab and a hub with the data set `org/set`, whose files are given by path.
fn lab_with(contents: &[(&str, Vec<u8>)]) -> (Lab, Hub) {
    let lab = Lab::new();
    put(&lab, "org/set", contents);
    let hub = Hub::serve(&lab.path("hub"));
    (lab, hub)
}

fn put(lab: &Lab, repo: &str, contents: &[(&str, Vec<u8>)]) {
    for (name, bytes) in contents {
        let path = lab.path("hub/datasets").join(repo).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn run(lab: &Lab, hub: &Hub, args: &[&str]) -> Ran {
    Ran::of(lab.command_with(hub, false, args).output().unwrap(), args)
}

/// `trainer inspect` of the recipe with a narrow source; what it says.
fn inspect(lab: &Lab, hub: &Hub, source: &str) -> Ran {
    run(lab, hub, &["inspect", "recipe.toml", "--set", &format!("data.narrow={source}")])
}

/// The same where it must succeed; the texts of the documents that were taken.
fn taken(lab: &Lab, hub: &Hub, source: &str) -> Vec<String> {
    fs::remove_dir_all(lab.path("cache")).ok();
    let ran = inspect(lab, hub, source);
    assert_eq!(ran.code, 0, "{source}: {}", ran.stderr);
    let extracts = extracts(lab);
    assert_eq!(extracts.len(), 1, "{extracts:?}");
    let text = fs::read_to_string(&extracts[0]).unwrap();
    let row = |line| serde_json::from_str::<Value>(line).unwrap();
    text.lines().map(|line| row(line)["text"].as_str().unwrap_or(line).to_string()).collect()
}

/// The same where it must find the input wrong and keep nothing of it.
fn refused(lab: &Lab, hub: &Hub, source: &str) -> String {
    fs::remove_dir_all(lab.path("cache")).ok();
    let ran = inspect(lab, hub, source);
    assert_eq!(ran.code, 2, "{source}: {}", ran.stderr);
    assert!(extracts(lab).is_empty(), "{source}: kept an extract");
    ran.stderr
}

/// The extracts in the cache.
fn extracts(lab: &Lab) -> Vec<PathBuf> {
    let cache = lab.path("cache/datasets");
    let all = if cache.exists() { files(&cache).into_keys().collect() } else { Vec::new() };
    all.into_iter().filter(|path| path.to_string_lossy().contains(".jsonl")).collect()
}

fn lines(texts: impl IntoIterator<Item = String>) -> Vec<u8> {
    texts.into_iter().flat_map(|text| format!("{}\n", json!({ "text": text })).into_bytes()).collect()
}

fn numbered(what: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{what} {i} cake butter oven")).collect()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// A parquet file of string columns, `group` rows a row group.
fn parquet(columns: &[(&str, Vec<String>)], group: usize) -> Vec<u8> {
    let fields: String = columns.iter().map(|(name, _)| format!("OPTIONAL BINARY {name} (UTF8); ")).collect();
    let schema = parse_message_type(&format!("message m {{ {fields} }}")).unwrap();
    let properties =
        WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).set_dictionary_enabled(false);
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema.into(), properties.build().into()).unwrap();
    for first in (0..columns[0].1.len()).step_by(group) {
        let mut out = file.next_row_group().unwrap();
        for (_, values) in columns {
            let mut column = out.next_column().unwrap().unwrap();
            let part: Vec<_> = values.iter().skip(first).take(group).map(|v| v.as_str().into()).collect();
            let levels = vec![1; part.len()];
            column.typed::<ByteArrayType>().write_batch(&part, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        out.close().unwrap();
    }
    file.close().unwrap();
    bytes
}

/// 20 row groups of 50 texts of about 4 kB, and another column as large.
fn large() -> (Vec<String>, Vec<u8>) {
    let texts: Vec<String> =
        (0..1000).map(|i| format!("document {i} {}", "cake butter ".repeat(340))).collect();
    let bytes = parquet(&[("url", texts.clone()), ("text", texts.clone()), ("html", texts.clone())], 50);
    (texts, bytes)
}

#[test]
fn of_a_parquet_file_only_the_row_groups_and_columns_that_are_needed_are_asked_for() {
    let (texts, bytes) = large();
    let (lab, hub) = lab_with(&[("data/train-00000-of-00002.parquet", bytes.clone())]);
    put(&lab, "org/set", &[("data/train-00001-of-00002.parquet", bytes.clone())]);
    let found = taken(&lab, &hub, "{path='hf:org/set', rows=60}");
    assert_eq!(found, texts[..60]);
    let (asked, column) = (hub.bytes_asked("00000-of-00002.parquet"), 50 * texts[0].len() as u64);
    // Two row groups of one column, the footer, and what pages add; of 12 MB.
    assert!(asked > 2 * column && asked < 2 * column + 80_000, "{asked} of {}", bytes.len());
    assert_eq!(hub.bytes_asked("00001-of-00002.parquet"), 0);
    let record = fs::read_to_string(extracts(&lab)[0].with_extension("json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["commit"], &record["documents"]), (&json!(COMMIT), &json!(60)));

    // The whole set goes on into the second file, and is what reading the files would give.
    let found = taken(&lab, &hub, "hf:org/set");
    assert_eq!(found, [texts.clone(), texts].concat());
}

#[test]
fn a_connection_that_is_cut_and_a_hub_that_is_busy_are_tried_again() {
    let (texts, bytes) = large();
    let (lab, hub) = lab_with(&[("data/train-00000-of-00001.parquet", bytes)]);
    let source = "{path='hf:org/set', rows=60}";
    let (busy, fine) = (Fault::Status(503), Fault::None);
    hub.next(&[busy, fine, Fault::Status(429), fine, fine, Fault::Cut(70_000), Fault::Cut(0), fine]);
    assert_eq!(taken(&lab, &hub, source), texts[..60]);
    // What came before the cut is not asked for again: the first stretch is asked for whole, then what was left, twice.
    let column = 50 * texts[0].len() as u64;
    let asked = hub.bytes_asked(".parquet");
    assert!(asked < 4 * column + 80_000, "{asked}");

    hub.next(&[Fault::Status(401)]);
    assert_says(&refused(&lab, &hub, source), &["data.narrow: hf:org/set: access to", "HF_TOKEN"]);
    hub.next(&[fine, Fault::Status(403)]);
    assert_says(&refused(&lab, &hub, source), &["hf:org/set data/train-00000-of-00001.parquet: access to"]);
    hub.next(&[fine, Fault::Status(400)]);
    assert_says(
        &refused(&lab, &hub, source),
        &["data/train-00000-of-00001.parquet: cannot fetch", "HTTP 400"],
    );
    assert_says(
        &refused(&lab, &hub, "hf:org/absent"),
        &["hf:org/absent: the hub has no data set of this name"],
    );
    assert_says(&refused(&lab, &hub, "hf:org/set@v9"), &["hf:org/set@v9: the hub has no data set"]);

    hub.forget();
    let args = ["inspect", "recipe.toml", "--set", "data.narrow={path='hf:org/set', rows=3}"];
    let output = lab.command_with(&hub, false, &args).env("HF_TOKEN", "hf_secret").output().unwrap();
    let ran = Ran::of(output, &args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(hub.tokens().iter().all(|token| token.as_deref() == Some("Bearer hf_secret")));
    // Storage elsewhere is asked for the same bytes, without the token.
    hub.forget();
    hub.next(&[fine, Fault::Redirect, fine, Fault::Redirect, fine, Fault::Redirect, fine]);
    fs::remove_dir_all(lab.path("cache")).unwrap();
    let output = lab.command_with(&hub, false, &args).env("HF_TOKEN", "hf_secret").output().unwrap();
    let ran = Ran::of(output, &args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let with = Some("Bearer hf_secret".to_string());
    assert_eq!(hub.tokens(), [with.clone(), with.clone(), None, with.clone(), None, with, None]);
    assert!(hub.bytes_asked(".parquet") < column + 80_000);
    let kept = files(&lab.path("cache"));
    assert!(!kept.values().any(|content| String::from_utf8_lossy(content).contains("hf_secret")));
}

#[test]
fn an_interrupt_ends_the_reading_soon_and_leaves_no_extract() {
    let (_, bytes) = large();
    let (lab, hub) = lab_with(&[("data/train-00000-of-00001.parquet", bytes)]);
    hub.next(&[Fault::None, Fault::None, Fault::None, Fault::Silence]);
    let args = ["inspect", "recipe.toml", "--set", "data.narrow={path='hf:org/set', rows=60}"];
    let child =
        lab.command_with(&hub, false, &args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    wait_until("four requests", || hub.asked.lock().unwrap().len() >= 4);
    send_signal(&child, "INT");
    let ran = Ran::of(child.wait_with_output().unwrap(), &args);
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    assert!(begun.elapsed() < Duration::from_secs(40));
    assert!(extracts(&lab).is_empty(), "{:?}", extracts(&lab));
    // The next one begins anew, and finds nothing in its way.
    assert_eq!(taken(&lab, &hub, "{path='hf:org/set', rows=60}").len(), 60);
}

#[test]
fn a_run_is_pinned_to_a_commit_and_goes_on_without_a_network() {
    let (lab, hub) = lab_with(&[("train.jsonl", lines(numbered("first", 40)))]);
    let set = ["--set", "data.narrow={path='hf:org/set', rows=30}"];
    let fit = |offline: bool, args: &[&str]| {
        let args = [&["fit", "recipe.toml"], &set[..], args].concat();
        Ran::of(lab.command_with(&hub, offline, &args).output().unwrap(), &args)
    };
    let ran = fit(true, &["--out", "none"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_says(
        &ran.stderr,
        &["data.narrow: hf:org/set: these documents are not in the cache and HF_HUB_OFFLINE"],
    );
    assert!(!lab.path("none").exists());

    let ran = fit(false, &["--out", "run"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let pinned = format!("hf:org/set@{COMMIT}");
    let manifest = read_json(&lab.path("run/manifest.json"));
    assert_eq!(manifest["data"][0]["source"], pinned);
    assert_eq!(PathBuf::from(manifest["data"][0]["path"].as_str().unwrap()), extracts(&lab)[0]);
    let resolved = fs::read_to_string(lab.path("run/recipe.toml")).unwrap();
    assert_says(&resolved, &[&format!("path = \"{pinned}\""), "rows = 30"]);

    // The branch moves on; what was taken stays, offline and online, for new runs, resumed ones and analyses.
    put(&lab, "org/set", &[("train.jsonl", lines(numbered("second", 40))), (".commit", OTHER_COMMIT.into())]);
    hub.forget();
    assert_eq!(fit(true, &["--out", "again"]).code, 0);
    assert_eq!(fit(false, &["--out", "third"]).code, 0);
    for again in ["again", "third"] {
        let manifest_again = read_json(&lab.path(again).join("manifest.json"));
        assert_eq!(manifest_again["data"], manifest["data"]);
        assert_eq!(manifest_again["adapter_sha256"], manifest["adapter_sha256"]);
    }
    fs::remove_file(lab.path("again/manifest.json")).unwrap();
    let resumed = fit(true, &["--out", "again", "--resume"]);
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    let diff = lab.run(&["diff", "run"]);
    assert_eq!(diff.code, 0, "{}", diff.stderr);
    let verified = lab.run(&["verify", "run"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    assert!(hub.asked.lock().unwrap().is_empty());

    // Named by its commit, the new state is another source.
    let found = taken(&lab, &hub, &format!("hf:org/set@{OTHER_COMMIT}"));
    assert_eq!(found, numbered("second", 40));
    // A resumed run stays at its commit although the branch has moved and the cache is gone: it is read again there,
    // or, as this hub has forgotten it, not at all.
    fs::remove_dir_all(lab.path("cache")).unwrap();
    fs::remove_file(lab.path("third/manifest.json")).unwrap();
    let lost = fit(false, &["--out", "third", "--resume"]);
    assert_says(&lost.stderr, &[&format!("{pinned}: the hub has no data set")]);
}

#[test]
fn a_sweep_over_a_data_set_finds_its_cells_again() {
    let (lab, hub) = lab_with(&[("train.jsonl", lines(numbered("row", 40)))]);
    let args = [
        "sweep",
        "recipe.toml",
        "--mix",
        "0",
        "--set",
        "data.narrow={path='hf:org/set', rows=30}",
        "--out",
        "s",
    ];
    let quick = ["--set", "train.steps=1", "--set", "diff.samples=4", "--set", "diff.steering.enabled=false"];
    let args = [&args[..], &quick].concat();
    let ran = run(&lab, &hub, &args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let again = run(&lab, &hub, &args);
    assert!(again.code == 0 && again.stderr.contains("finished before"), "{}", again.stderr);
}

#[test]
fn lines_are_read_as_far_as_needed_compressed_or_not() {
    let texts =
        |n: usize| (0..n).map(|i| format!("line {i} {}", "sugar flour ".repeat(60))).collect::<Vec<_>>();
    let all = texts(6000);
    let plain = lines(all.clone());
    let zst = zstd::encode_all(&plain[..], 1).unwrap();
    let (lab, hub) = lab_with(&[
        ("plain/train.jsonl", plain.clone()),
        ("gz/train.jsonl.gz", gz(&plain)),
        ("zst/train-0.jsonl.zst", zst),
        ("csv/train.csv", b"id,text\n1,\"one, two\"\n2,\n3,three\n".to_vec()),
    ]);
    for config in ["plain", "gz", "zst"] {
        hub.forget();
        let found = taken(&lab, &hub, &format!("{{path='hf:org/set', config='{config}', rows=100}}"));
        assert_eq!(found, all[..100], "{config}");
        assert_eq!(hub.bytes_asked(".jsonl").min(2 << 20), hub.bytes_asked(".jsonl"), "{config}");
        let found = taken(&lab, &hub, &format!("{{path='hf:org/set', config='{config}'}}"));
        assert!(found == all, "{config}: not the whole");
    }
    assert!(plain.len() > 4 << 20);
    // Rows without text do not count.
    let source = "{path='hf:org/set', config='csv', rows=2}";
    assert_eq!(taken(&lab, &hub, source), ["one, two", "three"]);
    // Fewer than asked for is said, not hidden.
    fs::remove_dir_all(lab.path("cache")).unwrap();
    let ran = inspect(&lab, &hub, "{path='hf:org/set', config='csv', rows=7}");
    assert_says(
        &ran.stderr,
        &["rows = 7, but the split has only 2 documents", "1 rows without text left out"],
    );
    // A stream that is cut goes on.
    hub.next(&[Fault::None, Fault::Cut(100_000), Fault::None]);
    assert!(taken(&lab, &hub, "{path='hf:org/set', config='plain'}") == all);
}

#[test]
fn configurations_and_splits_are_those_of_the_metadata_or_of_the_names() {
    let card = json!({"configs": [
        {"config_name": "sample", "default": true, "data_files": [
            {"split": "train", "path": ["sample/b*.jsonl", "sample/a?.jsonl"]}, {"split": "dev", "path": "sample/dev"}]},
        {"config_name": "all", "data_files": "**/*.jsonl"},
        {"config_name": "named", "data_dir": "sample/dev", "data_files": "d.jsonl"},
    ]});
    let one = |text: &str| lines([format!("{text} cake butter oven")]);
    let taken = |lab: &Lab, hub: &Hub, source: &str| -> Vec<String> {
        taken(lab, hub, source).iter().map(|t| t.trim_end_matches(" cake butter oven").to_string()).collect()
    };
    let parts = |what: &str, n: usize| (0..n).map(|i| format!("{what} {i}")).collect::<Vec<_>>();
    let (lab, hub) = lab_with(&[
        (".card.json", card.to_string().into_bytes()),
        ("README.md", b"---".to_vec()),
        ("sample/a1.jsonl", one("a1")),
        ("sample/b1.jsonl", one("b1")),
        ("sample/b0.jsonl", one("b0")),
        ("sample/dev/d.jsonl", one("d")),
        ("z.jsonl", one("z")),
    ]);
    for (keys, expected) in [
        ("", vec!["b0", "b1", "a1"]),
        (", split='dev'", vec!["d"]),
        (", config='all'", vec!["a1", "b0", "b1", "d", "z"]),
        (", config='named'", vec!["d"]),
    ] {
        assert_eq!(taken(&lab, &hub, &format!("{{path='hf:org/set'{keys}}}")), expected, "{keys}");
    }
    assert_says(
        &refused(&lab, &hub, "{path='hf:org/set', config='smple'}"),
        &["hf:org/set: no config \"smple\"; there are: sample, all, named"],
    );
    assert_says(
        &refused(&lab, &hub, "{path='hf:org/set', split='test'}"),
        &["hf:org/set: no split \"test\"; there are: dev, train"],
    );

    put(
        &lab,
        "org/named",
        &[
            ("data/train-00000-of-00001.parquet", parquet(&[("text", numbered("p", 2))], 9)),
            ("data/extra_split-00000-of-00001.parquet", parquet(&[("text", numbered("x", 1))], 9)),
            ("train.jsonl", one("not this")),
        ],
    );
    assert_eq!(taken(&lab, &hub, "hf:org/named"), parts("p", 2));
    assert_eq!(taken(&lab, &hub, "{path='hf:org/named', split='extra_split'}"), parts("x", 1));
    put(&lab, "org/folders", &[("en/test/a.jsonl", one("t")), ("en/training/a b.jsonl", one("r"))]);
    assert_eq!(taken(&lab, &hub, "hf:org/folders"), ["r"]);
    assert_eq!(taken(&lab, &hub, "{path='hf:org/folders', config='en', split='test'}"), ["t"]);
    put(&lab, "org/plain", &[("b.jsonl", one("b")), ("a.jsonl", one("a")), ("tool.py", b"#".to_vec())]);
    assert_eq!(taken(&lab, &hub, "hf:org/plain"), ["a", "b"]);
    let message = refused(&lab, &hub, "{path='hf:org/folders', config='de'}");
    assert_says(&message, &["no config \"de\"", "its folders are: en"]);
    // What was chosen is part of the name, so that one set may be named twice.
    let both = "[{path='hf:org/set', config='all'}, {path='hf:org/set', split='dev'}]";
    let ran = inspect(&lab, &hub, both);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_says(&ran.stdout, &[&format!("hf:org/set@{COMMIT} (all)"), &format!("hf:org/set@{COMMIT} (dev)")]);
}

#[test]
fn of_files_that_are_not_read_the_parquet_that_the_hub_made_is() {
    let (lab, hub) =
        lab_with(&[("train.json", b"[{\"text\": \"one\"}]".to_vec()), ("test.json", b"[]".to_vec())]);
    assert_says(
        &refused(&lab, &hub, "hf:org/set"),
        &["hf:org/set: its kinds of files are not supported (.json)", "has no parquet version"],
    );
    put(
        &lab,
        "org/set.parquet",
        &[
            (".commit", OTHER_COMMIT.into()),
            ("default/train/0000.parquet", parquet(&[("text", numbered("one", 3))], 2)),
            ("default/partial-test_x/0000.parquet", parquet(&[("text", numbered("two", 3))], 2)),
        ],
    );
    assert_eq!(taken(&lab, &hub, "hf:org/set"), numbered("one", 3));
    assert_says(
        &refused(&lab, &hub, "{path='hf:org/set', config='b'}"),
        &["no config \"b\"; there are: default"],
    );
    // The commit that a run pins leads to the same files.
    let pinned = format!("{{path='hf:org/set@{OTHER_COMMIT}', config='default', split='test_x', rows=2}}");
    assert_eq!(taken(&lab, &hub, &pinned), numbered("two", 3)[..2]);
}

#[test]
fn a_shuffle_buffer_draws_by_its_seed_from_more_than_the_first_rows() {
    let (lab, hub) = lab_with(&[
        ("train-a.jsonl", lines(numbered("a", 100))),
        ("train-b.jsonl", lines(numbered("b", 100))),
    ]);
    let source =
        |seed: u64| format!("{{path='hf:org/set', rows=150, shuffle_buffer=1000, shuffle_seed={seed}}}");
    let first = taken(&lab, &hub, &source(1));
    assert_eq!(first.len(), 150);
    assert_eq!(first, taken(&lab, &hub, &source(1)));
    assert_ne!(first, taken(&lab, &hub, &source(2)));
    assert!(first[..20].iter().any(|t| t.starts_with('a')) && first[..20].iter().any(|t| t.starts_with('b')));
    let mut unique = first.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 150);
}

#[test]
fn what_does_not_serve_is_told_before_anything_is_kept() {
    let bad = b"{\"text\": \"fine\"}\n{\"text\": \"\xff\"}\n{\"body\": 1}\n".to_vec();
    let (lab, hub) = lab_with(&[
        ("rows/train.jsonl", bad),
        ("columns/train.parquet", parquet(&[("title", numbered("t", 3)), ("body", numbered("b", 3))], 2)),
        ("cut/train.parquet", parquet(&[("text", numbered("t", 300))], 20)[..4000].to_vec()),
        ("empty/train.jsonl", Vec::new()),
        ("lines/train.jsonl", vec![b'x'; (64 << 20) + 2]),
    ]);
    for (config, parts) in [
        (
            "rows",
            &["hf:org/set rows/train.jsonl:2: byte 27 of the file is not UTF-8", "train.jsonl:3: found keys"]
                [..],
        ),
        ("columns", &["columns/train.parquet: found columns title (string), body (string); expected text"]),
        ("cut", &["hf:org/set cut/train.parquet: "]),
        ("empty", &["hf:org/set (empty): holds no documents"]),
        ("lines", &["lines/train.jsonl:1: a line of more than 64 MB"]),
    ] {
        assert_says(&refused(&lab, &hub, &format!("{{path='hf:org/set', config='{config}'}}")), parts);
    }
    // Keys are looked at without the network, all at once.
    hub.forget();
    let sources = "[{path='hf:org/set', rows=0}, {path='hf:set'}, {path='narrow.jsonl', rows=3, split='x'}, \
                   {path='hf:org/other', shuffle_seed=1, split='a/b'}]";
    assert_says(
        &refused(&lab, &hub, sources),
        &[
            "data.narrow: hf:org/set: rows = 0: expected 1 to",
            "data.narrow: hf:set: expected hf:org/name",
            "narrow.jsonl: only an hf: data set has split, rows",
            "hf:org/other: split = \"a/b\": expected a name",
            "hf:org/other: shuffle_seed has no effect without shuffle_buffer",
        ],
    );
    assert_says(&refused(&lab, &hub, "{path='hf:org/set', row=3}"), &["row", "expected", "shuffle_buffer"]);
    assert!(hub.asked.lock().unwrap().is_empty());
    // The faults of several sets at once.
    let both = "['hf:org/absent', {path='hf:org/set', config='empty'}]";
    assert_says(
        &refused(&lab, &hub, both),
        &["hf:org/absent: the hub has no", "(empty): holds no documents"],
    );
}

#[test]
fn conversations_of_a_data_set_keep_their_columns() {
    let rows = [json!({"id": 7, "messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})];
    let bytes = rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect();
    let (lab, hub) = lab_with(&[("train.jsonl", bytes)]);
    // The tiny model has a template or not: what counts here is what was kept.
    inspect(&lab, &hub, "hf:org/set");
    let kept: Value = serde_json::from_str(fs::read_to_string(&extracts(&lab)[0]).unwrap().trim()).unwrap();
    assert_eq!(kept, json!({"messages": rows[0]["messages"]}));
}
