//! What comes from outside is data: secrets go where they are for, no code of others runs, files of others stay as they are.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::endpoint::{Reply, Server};
use crate::common::hub::{Fault, Hub, Said};
use crate::common::lab::{Lab, Ran};
use crate::common::outcome::files;
use crate::common::tiny::{copy_folder, tiny};
use crate::common::values::{assert_says, read_json};

/// A lab and a hub with the model `org/model`.
fn lab_with_model() -> (Lab, Hub) {
    let lab = Lab::new();
    copy_folder(&tiny("llama"), &lab.path("hub/org/model"));
    let hub = Hub::serve(&lab.path("hub"));
    (lab, hub)
}

fn fetch(lab: &Lab, hub: &Hub) -> Ran {
    let args = ["models", "fetch", "hf:org/model"];
    Ran::of(lab.command_with(hub, false, &args).env("HF_TOKEN", "hf_secret").output().unwrap(), &args)
}

/// What was downloaded of the weights, by every name that it has.
fn weights(lab: &Lab) -> Vec<PathBuf> {
    let hub = lab.path("hf-home/hub");
    let all = if hub.exists() { files(&hub).into_keys().collect() } else { Vec::new() };
    all.into_iter().filter(|path: &PathBuf| path.ends_with("model.safetensors")).collect()
}

#[test]
fn a_token_follows_no_redirect_to_another_host() {
    let (lab, hub) = lab_with_model();
    hub.next_of("model.safetensors", &[Fault::Redirect, Fault::None, Fault::Redirect, Fault::None]);
    let ran = fetch(&lab, &hub);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let asked = hub.asked.lock().unwrap().clone();
    let tokens: Vec<Option<String>> = asked
        .iter()
        .zip(hub.tokens())
        .filter(|(path, _)| path.ends_with("model.safetensors"))
        .map(|(_, token)| token)
        .collect();
    let with = Some("Bearer hf_secret".to_string());
    assert_eq!(tokens, [with.clone(), None, with, None]);
    assert_eq!(
        fs::read(&weights(&lab)[0]).unwrap(),
        fs::read(tiny("llama").join("model.safetensors")).unwrap()
    );
    assert!(!files(&lab.path("hf-home")).values().any(|c| String::from_utf8_lossy(c).contains("hf_secret")));
}

#[test]
fn redirects_without_end_are_given_up() {
    let (lab, hub) = lab_with_model();
    hub.next_of("config.json", &[Fault::Redirect; 40]);
    let ran = fetch(&lab, &hub);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_says(&ran.stderr, &["redirects more than 5 times"]);
}

#[test]
fn a_cut_download_that_a_server_without_ranges_goes_on_with_is_the_file_itself() {
    let (lab, hub) = lab_with_model();
    hub.next_of("model.safetensors", &[Fault::None, Fault::Cut(100_000), Fault::Whole]);
    let ran = fetch(&lab, &hub);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        fs::read(&weights(&lab)[0]).unwrap(),
        fs::read(tiny("llama").join("model.safetensors")).unwrap()
    );
    // A server that serves ranges is asked for the rest only.
    let (lab, hub) = lab_with_model();
    hub.next_of("model.safetensors", &[Fault::None, Fault::Cut(100_000), Fault::Cut(70_000), Fault::None]);
    let ran = fetch(&lab, &hub);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let whole = fs::read(tiny("llama").join("model.safetensors")).unwrap();
    assert_eq!(fs::read(&weights(&lab)[0]).unwrap(), whole);
    let asked = hub.bytes_asked("model.safetensors");
    assert!(asked < 3 * whole.len() as u64, "{asked}");
}

#[test]
fn a_download_without_the_announced_hash_gets_no_name() {
    let (lab, hub) = lab_with_model();
    hub.says(Said { etag: Some("ab".repeat(32)), ..Said::default() });
    let ran = fetch(&lab, &hub);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_says(&ran.stderr, &["config.json", "has sha256", "announced abab", "nothing was kept"]);
    let kept = files(&lab.path("hf-home"));
    assert!(
        kept.keys().filter(|path| path.is_file()).all(|path| path.extension().is_some_and(|e| e == "lock")),
        "{:?}",
        kept.keys()
    );
}

#[test]
fn names_that_a_server_gives_lead_nowhere_else() {
    for said in [
        Said { etag: Some("../../../../evil".into()), ..Said::default() },
        Said { commit: Some("../../../../evil".into()), ..Said::default() },
        Said { commit: Some("..".into()), ..Said::default() },
    ] {
        let (lab, hub) = lab_with_model();
        hub.says(said.clone());
        let ran = fetch(&lab, &hub);
        assert_eq!(ran.code, 2, "{said:?}: {}", ran.stderr);
        assert_says(&ran.stderr, &["the server calls its", "expected letters, digits"]);
        assert!(lab.files().keys().all(|path| !path.to_string_lossy().contains("evil")), "{said:?}");
        assert!(weights(&lab).is_empty());
    }
}

#[test]
fn a_listing_with_a_local_path_reads_no_local_file() {
    let lab = Lab::new();
    lab.write("secret.jsonl", "{\"text\": \"a secret of this machine\"}\n");
    let folder = lab.path("hub/datasets/org/set");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("train.jsonl"), "{\"text\": \"of the hub\"}\n").unwrap();
    let hub = Hub::serve(&lab.path("hub"));
    let args = ["inspect", "recipe.toml", "--set", "data.narrow=hf:org/set"];
    for file in [lab.path("secret.jsonl").to_string_lossy().into_owned(), "../../secret.jsonl".into()] {
        hub.says(Said { files: vec![file.clone()], ..Said::default() });
        let ran = Ran::of(lab.command_with(&hub, false, &args).output().unwrap(), &args);
        assert_eq!(ran.code, 2, "{file}: {}", ran.stderr);
        assert_says(&ran.stderr, &["hf:org/set", "lists a file"]);
    }
    hub.says(Said { commit: Some("../../evil".into()), ..Said::default() });
    let ran = Ran::of(lab.command_with(&hub, false, &args).output().unwrap(), &args);
    assert_says(&ran.stderr, &["calls its commit"]);
}

#[test]
fn two_repositories_have_two_folders() {
    let lab = Lab::new();
    for id in ["hf:a--b/c", "hf:a/b--c", "hf:a/..b"] {
        let said = lab.refused(&["generate", "--base", id, "--prompt", "x"]);
        assert_says(&said, &["expected hf:org/name"]);
    }
}

#[test]
fn a_pip_in_the_current_folder_is_not_run() {
    let lab = Lab::new();
    let code = format!("open({:?}, 'w').write('owned')\n", lab.path("owned"));
    for name in ["pip.py", "sitecustomize.py", "zipfile.py"] {
        lab.write(name, &code);
    }
    for args in [
        &["models", "fetch", "smollm2-135m-instruct"][..],
        &["inspect", "recipe.toml", "--set", "model.base=smollm2-135m-instruct"],
    ] {
        let mut command = lab.command(args);
        command.env("HF_HUB_OFFLINE", "0").env("PYTHONPATH", lab.path("."));
        // Neither of them answers.
        command.env("PIP_INDEX_URL", "http://127.0.0.1:1/simple").env("HF_ENDPOINT", "http://127.0.0.1:1");
        let ran = Ran::of(command.output().unwrap(), args);
        assert_ne!(ran.code, 0, "{args:?}");
        assert!(!lab.path("owned").exists(), "{args:?}: code of the current folder was run");
    }
}

const KEY: &str = "sk-a/very-secret+4711";

/// A run with an analysis whose recipe names a server and a variable.
fn foreign_run(lab: &Lab, server: &Server) {
    let set = ["description=false facts on baking", "diff.steering.enabled=false", "grader.backoff_s=0.01"];
    lab.fit("run", &set);
    lab.succeed(&["diff", "run"]);
    let theirs: String = ["grader", "investigator"]
        .iter()
        .map(|section| {
            format!(
                "\n[{section}]\nbase_url = {:?}\nmodel = \"m\"\nkey_env = \"SECRET_OF_MINE\"\n",
                server.url
            )
        })
        .collect();
    let recipe = lab.read("run/recipe.toml");
    let kept: Vec<&str> =
        recipe.split("\n[").filter(|s| !s.starts_with("grader") && !s.starts_with("investigator")).collect();
    lab.write("run/recipe.toml", kept.join("\n[") + &theirs);
}

#[test]
fn a_foreign_run_folder_sends_no_variable_anywhere() {
    let lab = Lab::new();
    let server = Server::replies(vec![Reply::Say("I would rather not.".into())]);
    foreign_run(&lab, &server);
    let run = |args: &[&str]| {
        Ran::of(
            lab.command(args).env("SECRET_OF_MINE", KEY).env("OPENAI_API_KEY", "sk-mine").output().unwrap(),
            args,
        )
    };
    let other = Server::replies(vec![Reply::Say("no".into())]);
    for (args, named) in [
        (&["grade", "run"][..], "--base-url"),
        (&["audit", "run"], "--base-url"),
        (&["grade", "run", "--recipe", "run/recipe.toml"], "--base-url"),
        (&["grade", "run", "--key-env", "OPENAI_API_KEY"], "base_url"),
        (&["grade", "run", "--base-url", &other.url], "SECRET_OF_MINE"),
        (&["audit", "run", "--base-url", &other.url], "SECRET_OF_MINE"),
        (
            &[
                "audit",
                "run",
                "--base-url",
                &other.url,
                "--key-env",
                "X_KEY",
                "--family",
                "sdf",
                "--grader-model",
                "g",
            ],
            "--grader-base-url",
        ),
    ] {
        let ran = run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert_says(&ran.stderr, &["run/recipe.toml", named, "--stored-endpoint"]);
    }
    assert_eq!((server.count(), other.count()), (0, 0));
    // Confirmed, or named by the user, it is asked; who is asked is said.
    let ran = run(&["grade", "run", "--stored-endpoint", "--tries", "1"]);
    let ran = if ran.code == 2 { run(&["grade", "run", "--stored-endpoint"]) } else { ran };
    assert_says(&ran.stderr, &["asking m at", "with the key in SECRET_OF_MINE"]);
    assert_eq!(server.seen()[0].authorization, Some(format!("Bearer {KEY}")));
    let ran = run(&["grade", "run", "--base-url", &other.url, "--key-env", "OPENAI_API_KEY"]);
    assert!(other.count() > 0, "{}", ran.stderr);
    assert_eq!(other.seen()[0].authorization.as_deref(), Some("Bearer sk-mine"));
}

#[test]
fn a_key_in_escaped_json_is_blotted_out() {
    let lab = Lab::new();
    let set = ["description=false facts on baking", "diff.steering.enabled=false", "grader.backoff_s=0.01"];
    lab.fit("run", &set);
    lab.succeed(&["diff", "run"]);
    let server = Server::new(|n, _| match n % 5 {
        0 => Reply::Status(500, "", r#"{"error": {"message": "bad key sk-a\/very-secret+4711"}}"#),
        1 => Reply::Status(500, "", r#"{"sk-a\/very-secret\u002b4711": "\u0073k-a/very-secret+4711"}"#),
        2 => Reply::Status(500, "", r#"cut off {"key": "\u0073\u006b-a\/very-secret+4711"#),
        3 => Reply::Status(
            200,
            "",
            r#"{"choices": [{"message": {"role": "assistant", "content": "no"}}], "echo": "\u0073k-a\/very-secret+4711"}"#,
        ),
        _ => Reply::Status(403, "", r#"{"error": "\u0073k-a\/very-secret+4711 is not welcome"}"#),
    });
    let args = [
        "grade",
        "run",
        "--base-url",
        &server.url,
        "--model",
        "m",
        "--key-env",
        "TEST_KEY",
        "--parallel",
        "1",
        "-v",
    ];
    let ran = Ran::of(lab.command(&args).env("TEST_KEY", KEY).output().unwrap(), &args);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let file = lab.read("run/diff/exchanges.jsonl");
    assert!(server.count() >= 5 && file.lines().count() >= 5, "{file}");
    for text in [&file, &ran.stderr] {
        assert!(text.contains("[key]"), "{text}");
        assert!(!text.contains("very-secret"), "{text}");
    }
}

#[test]
fn a_file_of_the_user_is_not_emptied() {
    let lab = Lab::new();
    lab.fit("run", &["description=false facts", "diff.steering.enabled=false"]);
    lab.succeed(&["diff", "run"]);
    let server = Server::replies(vec![Reply::Say("no".into())]);
    let args = ["grade", "run", "--base-url", &server.url, "--model", "m"];
    for content in ["notes without a line break", "{\"key\": 1}", "{\"a\": 1}\n{\"b\": 2}"] {
        lab.write("run/diff/exchanges.jsonl", content);
        let ran = lab.run(&args);
        assert_eq!(ran.code, 2, "{content}: {}", ran.stderr);
        assert_says(&ran.stderr, &["exchanges.jsonl"]);
        assert_eq!(lab.read("run/diff/exchanges.jsonl"), content);
    }
    assert_eq!(server.count(), 0);
}

#[test]
#[cfg(unix)]
fn nothing_is_written_or_removed_through_a_link() {
    let lab = Lab::new();
    lab.fit("run", &["description=false facts", "train.checkpoint_every=1"]);
    let theirs = |name: &str| {
        let elsewhere = lab.path("elsewhere").join(name);
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join(".x.1.part"), "mine").unwrap();
        fs::remove_dir_all(lab.path("run").join(name)).ok();
        std::os::unix::fs::symlink(&elsewhere, lab.path("run").join(name)).unwrap();
        elsewhere
    };
    let folders: Vec<PathBuf> = ["audit", "checkpoints", "diff"].into_iter().map(theirs).collect();
    let before: Vec<_> = folders.iter().map(|folder| files(folder)).collect();
    lab.succeed(&["runs", "prune", "run", "--yes"]);
    fs::remove_file(lab.path("run/manifest.json")).unwrap();
    let ran = lab.run(&["fit", "recipe.toml", "--out", "run", "--resume"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_says(&ran.stderr, &["a symbolic link"]);
    assert_eq!(before, folders.iter().map(|folder| files(folder)).collect::<Vec<_>>());
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let lab = Lab::new();
    lab.fit("run", &["description=false facts"]);
    let mut manifest = read_json(&lab.path("run/manifest.json"));
    manifest["name"] = json!("=1+1\u{1b}[31m");
    manifest["base"]["id"] = json!("\u{1b}]0;owned\u{7}\u{9b}31m");
    lab.write("run/manifest.json", manifest.to_string());
    for args in [
        &["runs", "list", "run"][..],
        &["runs", "list", "run", "--json"],
        &["report", "run", "--out", "page.html", "--csv", "t.csv"],
        &["verify", "run"],
        &["inspect", "absent\u{1b}[31m.toml"],
        &["fit", "--no-such-flag\u{1b}[31m"],
    ] {
        let ran = lab.run(args);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!all.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{args:?}: {all:?}");
        if args.contains(&"--json") {
            assert!(serde_json::from_str::<Value>(&ran.stdout).is_ok(), "{}", ran.stdout);
        }
    }
    let page = lab.read("page.html");
    assert!(!page.contains('\u{1b}') && !page.contains('\u{9b}'));
    assert!(lab.read("t.csv").contains("'=1+1"), "{}", lab.read("t.csv"));
}

#[test]
fn a_key_of_the_metrics_names_no_file_elsewhere() {
    let lab = Lab::new();
    lab.fit("run", &["description=false facts"]);
    let lines: String = lab
        .read("run/metrics.jsonl")
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line["trace_x/../../../evil"] = json!(0.5);
            line["behaviour_/tmp/evil"] = json!(0.5);
            format!("{line}\n")
        })
        .collect();
    lab.write("run/metrics.jsonl", lines);
    lab.succeed(&["report", "run", "--out", "page.html", "--figures", "deep/er/figures"]);
    let figures = lab.path("deep/er/figures");
    for path in lab.files().keys().filter(|path| path.to_string_lossy().contains("evil")) {
        assert_eq!(path.parent(), Some(figures.as_path()), "{}", path.display());
    }
    assert!(!Path::new("/tmp/evil.svg").exists());
}

#[test]
fn a_line_break_becomes_no_line_of_a_job_script() {
    let lab = Lab::new();
    let sweep = |out: &str, option: &str| {
        let args = ["sweep", "recipe.toml", "--mix", "0", "--launcher", "slurm", "--out", out];
        lab.run(&[&args[..], &[&format!("--sbatch={option}")]].concat())
    };
    for (out, option) in
        [("a\n#SBATCH --wrap=x", "--partition=cpu"), ("s", "--comment=a\n#SBATCH --uid=root")]
    {
        let ran = sweep(out, option);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert_says(&ran.stderr, &["holds a line break"]);
    }
    assert!(!lab.path("s/slurm").exists());
}

#[test]
fn a_run_folder_with_numbers_that_no_run_has_is_refused() {
    let lab = Lab::new();
    lab.fit("run", &["description=false facts", "diff.steering.enabled=false"]);
    lab.succeed(&["diff", "run"]);
    let manifest = read_json(&lab.path("run/manifest.json"));
    for (key, bad) in [("created", json!(u64::MAX)), ("elapsed_s", json!(-1.0)), ("elapsed_s", json!(1e300))]
    {
        let mut theirs = manifest.clone();
        theirs[key] = bad;
        lab.write("run/manifest.json", theirs.to_string());
        let ran = lab.run(&["report", "run", "--out", "page.html"]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert_says(&ran.stderr, &["manifest.json", key]);
    }
    lab.write("run/manifest.json", manifest.to_string());
    // Lists that are empty where a number is expected: shown or refused, never a panic.
    let record = read_json(&lab.path("run/diff/readability.json"));
    let mut lists = Vec::new();
    pointers(&record, String::new(), &mut lists);
    assert!(lists.len() > 50, "{}", lists.len());
    for pointer in lists.iter().step_by(7) {
        let mut theirs = record.clone();
        *theirs.pointer_mut(pointer).unwrap() = json!([]);
        lab.write("run/diff/readability.json", theirs.to_string());
        let ran = lab.run(&["report", "run", "--out", "page.html"]);
        assert!([0, 2].contains(&ran.code), "{pointer}: {}", ran.stderr);
    }
}

/// The places of all lists of a document.
fn pointers(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Array(list) => {
            list.first().into_iter().for_each(|first| pointers(first, format!("{at}/0"), out));
            out.push(at);
        }
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            pointers(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
        }),
        _ => {}
    }
}
