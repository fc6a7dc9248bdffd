//! Sweeps: cells as processes, killed and resumed, failed and tried again.

use std::fs::{self};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use trainer::sweep::{HELD, JobDir, Lock};

use crate::common::lab::{Lab, with_sets};
use crate::common::outcome::{assert_same, cells, parquet_rows, sweep_outcome};
use crate::common::process::{send_signal, wait_until};
use crate::common::values::read_json;

/// An analysis that takes no time.
const QUICK: [&str; 3] = ["diff.steering.enabled=false", "diff.patchscope.enabled=false", "train.steps=2"];

fn status(lab: &Lab, dir: &str) -> Value {
    serde_json::from_str(&lab.succeed(&["sweep", "--status", dir, "--json"]).stdout).unwrap()
}

/// Lines of metrics of all cells.
fn steps(dir: &Path) -> usize {
    let lines =
        |cell: PathBuf| fs::read_to_string(cell.join("metrics.jsonl")).unwrap_or_default().lines().count();
    cells(dir).into_iter().map(lines).sum()
}

fn begin(lab: &Lab, args: &[&str]) -> Child {
    lab.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

const AXES: [&str; 8] =
    ["sweep", "recipe.toml", "--mix", "0,1", "--seeds", "0,1", "--grid", "train.lora.r=2,4"];
const LONG: [&str; 5] = [
    "train.steps=40",
    "data.repeat=true",
    "train.checkpoint_every=1",
    "diff.samples=8",
    "diff.null_directions=4",
];

#[test]
fn a_sweep_killed_ten_times_equals_one_that_never_was() {
    let lab = Lab::new();
    let sweep =
        |out| with_sets(&[&AXES[..], &["--jobs", "2", "--threads", "1", "--out", out]].concat(), &LONG);
    lab.succeed(&sweep("whole"));
    let total = steps(&lab.path("whole"));
    assert_eq!(total, 4 * 41 + 4 * 81);

    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let cut = lab.path("cut");
    let mut found_running = 0;
    for round in 0..10 {
        let mut child = begin(&lab, &sweep("cut"));
        let until = ((round as f64 + rng.random_range(0.0..1.0)) / 10.0 * 0.9 * total as f64) as usize;
        wait_until("progress", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            steps(&cut) >= until
        });
        std::thread::sleep(Duration::from_millis(rng.random_range(0..40)));
        child.kill().unwrap();
        child.wait().unwrap();
        if !cut.join("sweep.toml").exists() {
            continue; // killed while it planned
        }
        found_running += status(&lab, "cut")["running"].as_u64().unwrap();
        // Every other time the next sweep finds cells whose processes are still about to stop.
        if round % 2 == 0 {
            wait_until("the killed sweep's cells to stop", || status(&lab, "cut")["running"] == 0);
            let before = steps(&cut);
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(steps(&cut), before, "a cell went on without its sweep");
        }
    }
    assert!(found_running > 0, "no kill fell while a cell was running");
    lab.succeed(&sweep("cut"));
    assert_same(&sweep_outcome(&lab.path("whole")), &sweep_outcome(&cut), "killed ten times");
    assert_eq!(status(&lab, "cut")["done"], 8);
    lab.succeed(&["verify", "cut"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_every_cell_at_a_checkpoint_and_exits_130() {
    let lab = Lab::new();
    let set = ["train.steps=2000", "data.repeat=true", "train.checkpoint_every=0", QUICK[0], QUICK[1]];
    let args = with_sets(&["sweep", "recipe.toml", "--seeds", "0,1,2", "--jobs", "2", "--out", "s"], &set);
    let child = begin(&lab, &args);
    wait_until("progress", || cells(&lab.path("s")).len() == 2 && steps(&lab.path("s")) > 20);
    send_signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let status = status(&lab, "s");
    for (state, count) in [("running", 0), ("interrupted", 2), ("waiting", 1)] {
        assert_eq!(status[state], count, "{status:#}");
    }
    for cell in cells(&lab.path("s")) {
        assert_eq!(fs::read_dir(cell.join("checkpoints")).unwrap().count(), 1, "{}", cell.display());
    }
}

#[test]
fn cells_are_found_by_content_and_every_key_that_varies_is_a_column() {
    let lab = Lab::new();
    let recipe = fs::read_to_string(lab.path("recipe.toml")).unwrap();
    lab.write(
        "swept.toml",
        format!("{recipe}\n[sweep]\nmix = [0.0, 1.0]\n[sweep.grid]\ntrain.lr = [1e-3, 3e-3]\n\"data.long\" = [\"chunk\"]\n"),
    );
    let run = |more: &[&str]| {
        lab.succeed(&with_sets(&[&["sweep", "swept.toml", "--out", "s"], more].concat(), &QUICK))
    };
    run(&["--mix", "0"]);
    let rows = parquet_rows(&lab.path("s/summary.parquet"));
    let lr: Vec<&Value> = rows.iter().map(|row| &row["train.lr"]).collect();
    assert_eq!(
        (rows.len(), lr.contains(&&1e-3.into()), lr.contains(&&3e-3.into())),
        (2, true, true),
        "{lr:?}"
    );
    // The axes of the recipe, then one of them as the recipe's own value: the same cells.
    let ran = run(&[]);
    assert_eq!(ran.stderr.matches("finished before").count(), 2, "{}", ran.stderr);
    let ran = run(&["--grid", "train.lr=0.003,0.001"]);
    assert_eq!(ran.stderr.matches("finished before").count(), 4, "{}", ran.stderr);
    let csv = fs::read_to_string(lab.path("s/summary.csv")).unwrap();
    assert!(csv.lines().count() == 5 && csv.lines().next().unwrap().contains(",train.lr,"), "{csv}");
    assert_eq!(parquet_rows(&lab.path("s/summary.parquet")).len(), 4);
}

#[test]
fn the_faults_of_all_cells_come_at_once_and_nothing_is_written() {
    let lab = Lab::new();
    let said = lab.refused(&[
        "sweep",
        "recipe.toml",
        "--grid",
        "train.lr=-1,1e-3",
        "--grid",
        "train.lora.r=0,4",
        "--grid",
        "data.lng=1",
        "--out",
        "s",
    ]);
    for part in ["train.lr = -1", "train.lora.r = 0", "data.lng: unknown key; did you mean long?"] {
        assert_eq!(said.matches(part).count(), 1, "{part}: {said}");
    }
    let said =
        lab.refused(&["sweep", "recipe.toml", "--mix", "0,5,99", "--grid", "train.steps=4,90", "--out", "s"]);
    for part in ["mix = 99 needs", "mix = 5 needs"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for (args, part) in [
        (&["sweep", "recipe.toml", "--out", "s"][..], "nothing to vary"),
        (
            &["sweep", "recipe.toml", "--mix", "0", "--memory", "0.01", "--out", "s2"],
            "the largest cell takes about",
        ),
        (&["sweep", "recipe.toml", "--mix", "0", "--sbatch=-p x", "--out", "s"], "expected --launcher slurm"),
        (&["sweep", "--status", "nowhere"], "not a sweep folder"),
        (&["sweep", "--cell", "../x", "--out", "s"], "no cell"),
    ] {
        let said = lab.refused(args);
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_cell_that_fails_is_listed_costs_no_other_and_is_tried_again() {
    let lab = Lab::new();
    let args = with_sets(&["sweep", "recipe.toml", "--seeds", "0,1", "--out", "s"], &QUICK);
    lab.succeed(&[&args[..], &["--launcher", "slurm"]].concat());
    let waiting = status(&lab, "s");
    assert_eq!(waiting["waiting"], 2, "{waiting:#}");
    let id = waiting["cells"][0]["id"].as_str().unwrap();
    // Something that is no run stands in the way.
    fs::create_dir_all(lab.path("s/cells").join(id)).unwrap();
    fs::write(lab.path("s/cells").join(id).join("adapter"), "x").unwrap();
    let ran = lab.run(&[&args[..], &["--retry", "1"]].concat());
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("1 of 2 cells failed") && ran.stderr.contains("exists already"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr.matches(": failed: ").count(), 2, "tried twice: {}", ran.stderr);
    let found = status(&lab, "s");
    assert_eq!((&found["done"], &found["failed"]), (&1.into(), &1.into()), "{found:#}");
    assert!(found["cells"][0]["error"].as_str().unwrap().contains("exists already"), "{found:#}");
    fs::remove_file(lab.path("s/cells").join(id).join("adapter")).unwrap();
    lab.succeed(&args);
    assert_eq!(status(&lab, "s")["done"], 2);
}

#[test]
fn a_cell_is_worked_on_by_one_process_at_a_time() {
    let lab = Lab::new();
    let args = with_sets(&["sweep", "recipe.toml", "--mix", "0", "--out", "s"], &QUICK);
    lab.succeed(&[&args[..], &["--launcher", "slurm"]].concat());
    let id = status(&lab, "s")["cells"][0]["id"].as_str().unwrap().to_string();
    let lock = Lock::take(&JobDir::new(&lab.path("s"), &id)).unwrap().expect("nobody has it");
    assert_eq!(status(&lab, "s")["running"], 1);
    let ran = lab.run(&["sweep", "--cell", &id, "--out", "s"]);
    assert_eq!(ran.code, i32::from(HELD), "{}", ran.stderr);
    assert!(cells(&lab.path("s")).is_empty());
    // A sweep waits until the other lets go.
    let mut child = begin(&lab, &args);
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none());
    drop(lock);
    assert!(child.wait().unwrap().success());
    assert_eq!(status(&lab, "s")["done"], 1);
}

#[test]
fn cells_run_at_once_as_far_as_their_memory_allows() {
    let lab = Lab::new();
    let set = ["train.steps=400", "data.repeat=true", QUICK[0], QUICK[1]];
    let most_running = |out: &str, more: &[&str]| {
        let args =
            ["sweep", "recipe.toml", "--seeds", "0,1,2", "--jobs", "3", "--threads", "1", "--out", out];
        let mut child = begin(&lab, &with_sets(&[&args[..], more].concat(), &set));
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            if lab.path(out).join("sweep.toml").exists() {
                // Cells are looked at one after the other: one may end and the next begin in between.
                let running = || status(&lab, out)["running"].as_u64().unwrap();
                most = most.max(running().min(running()));
            }
        }
        assert_eq!(status(&lab, out)["done"], 3);
        most
    };
    // Each is estimated at half a GiB, the least that an analysis is said to take.
    assert_eq!((most_running("few", &["--memory", "0.9"]), most_running("many", &["--memory", "2"])), (1, 3));
}

#[test]
fn a_sweep_that_lost_what_its_processes_need_is_gone_on_with() {
    let lab = Lab::new();
    let args = |mix| with_sets(&["sweep", "recipe.toml", "--mix", mix, "--out", "s"], &QUICK);
    lab.succeed(&args("0"));
    fs::remove_dir_all(lab.path("s/jobs")).unwrap();
    assert_eq!(status(&lab, "s")["done"], 1);
    let ran = lab.succeed(&args("0,1"));
    assert!(ran.stderr.contains(": finished before"), "{}", ran.stderr);
    assert_eq!(cells(&lab.path("s")).len(), 2);
    lab.succeed(&["report", "s"]);
}

// ---- tune --------------------------------------------------------------------------------------

#[test]
fn tune_chooses_the_cheapest_setting_that_meets_both_goals_and_writes_its_recipe() {
    let lab = Lab::new();
    let quick = [QUICK[0], QUICK[1], "train.steps=4"];
    let axes = ["recipe.toml", "--mix", "0,1,3", "--grid", "train.lora.r=2,4", "--out", "s"];
    lab.succeed(&with_sets(&[&["sweep"][..], &axes].concat(), &quick));
    let rows = parquet_rows(&lab.path("s/summary.parquet"));
    let loss = |mix: f64, r: i64| {
        let row = rows.iter().find(|row| row["mix_asked"] == mix && row["train.lora.r"] == r).unwrap();
        row["loss_pretraining_tuned"].as_f64().unwrap()
    };
    let (unmixed, mixed) = (loss(0.0, 2).min(loss(0.0, 4)), loss(1.0, 2).max(loss(1.0, 4)));
    assert!(mixed < unmixed, "mixing must lower the loss on what is mixed in: {mixed} {unmixed}");

    let trace = format!("loss_pretraining_tuned<={}", (mixed + unmixed) / 2.0);
    let tune = |trace: &str, more: &[&str]| {
        let goals = ["--trace", trace, "--behaviour", "loss_narrow_tuned<=100"];
        lab.run(&with_sets(&[&["tune"][..], &axes, &goals, more].concat(), &quick))
    };
    let ran = tune(&trace, &["--json", "--rungs", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["chosen"], "mix 1, train.lora.r = 2", "{found:#}");
    assert!(found["frontier"].as_array().is_some_and(|f| !f.is_empty()), "{found:#}");
    // Half the steps for all six, then three of them in full, which the sweep had made before.
    let rung = |n: usize| found["rungs"][n]["settings"].as_array().unwrap().len();
    assert_eq!((rung(0), rung(1), cells(&lab.path("s")).len()), (6, 3, 12), "{found:#}");
    assert!(ran.stderr.matches("finished before").count() >= 3, "{}", ran.stderr);
    // Few steps put the most mixed first; a cheaper one is gone back to.
    let ran = tune(&trace, &["--json", "--rungs", "2", "--factor", "3"]);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["chosen"], "mix 1, train.lora.r = 2", "{found:#}");
    assert!(found["rungs"].as_array().unwrap().len() > 2, "{found:#}");
    let chosen = fs::read_to_string(lab.path("s/chosen.toml")).unwrap();
    assert!(chosen.starts_with("# Chosen by trainer tune. mix 1"), "{chosen}");
    let learned = lab.fit("again", &[]); // another recipe
    lab.succeed(&["fit", "s/chosen.toml", "--out", "chosen"]);
    let adapter = |run: &Path| fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    let cell = cells(&lab.path("s")).into_iter().find(|cell| {
        let recipe = |run: &Path| fs::read_to_string(run.join("recipe.toml")).unwrap();
        recipe(cell) == recipe(&lab.path("chosen"))
    });
    assert_eq!(adapter(&lab.path("chosen")), adapter(&cell.expect("the chosen setting is a cell")));
    assert_ne!(adapter(&lab.path("chosen")), adapter(&learned));

    // Nothing is so good: every setting is tried in full before it gives up.
    let ran = tune("loss_pretraining_tuned<=0", &["--rungs", "2"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("no setting has loss_pretraining_tuned ≤ 0"), "{}", ran.stderr);
    let found = read_json(&lab.path("s/tune.json"));
    assert_eq!((&found["chosen"], found["not_run_in_full"].as_array().unwrap().len()), (&Value::Null, 0));
    assert!(!lab.path("s/chosen.toml").exists());
    let ran = tune("loss_pretrainin_tuned<=0", &["--rungs", "1"]);
    assert!(
        ran.code == 2 && ran.stderr.contains("did you mean one of loss_pretraining_tuned"),
        "{}",
        ran.stderr
    );
}

#[test]
fn tune_refuses_what_it_cannot_do_before_any_work() {
    let lab = Lab::new();
    let tune = |trace: &str, behaviour: &str, more: &[&str]| {
        let args =
            ["tune", "recipe.toml", "--mix", "0", "--trace", trace, "--behaviour", behaviour, "--out", "t"];
        lab.refused(&[&args[..], more].concat())
    };
    for (said, part) in [
        (tune("x<1", "y>=1", &[]), "expected MEASURE<=NUMBER"),
        (tune("x<=1", "behaviour_facts_margin_change>=1", &[]), "no behaviour is tested"),
        (tune("layer<=1", "layer>=1", &["--grid", "train.steps=1,2"]), "the rungs set it"),
        (tune("lift<=1", "loss_narow>=1", &[]), "lift: no column of summary.csv; did you mean one of"),
        (tune("lift<=1", "loss_narow>=1", &[]), "loss_narow: no column"),
        (tune("layer<=1", "layer>=1", &["--set", "train.warmup_steps=2"]), "train.warmup_steps = 2"),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

// ---- runs --------------------------------------------------------------------------------------

#[test]
fn runs_are_listed_compared_and_pruned_only_when_asked_to() {
    let lab = Lab::new();
    let args = with_sets(&["sweep", "recipe.toml", "--grid", "train.lora.r=2,4", "--out", "runs/s"], &QUICK);
    lab.succeed(&args);
    lab.fit("runs/alone", &["train.steps=2"]);
    let list =
        || -> Value { serde_json::from_str(&lab.succeed(&["runs", "list", "--json"]).stdout).unwrap() };
    let states: Vec<Value> =
        list()["runs"].as_array().unwrap().iter().map(|run| run["state"].clone()).collect();
    assert_eq!(states, ["trained", "done", "done"]);
    let shown = lab.succeed(&["runs", "list"]).stdout;
    assert!(
        shown.lines().count() == 4 && shown.contains("runs/alone") && shown.contains("narrow, base"),
        "{shown}"
    );

    let cells = cells(&lab.path("runs/s"));
    let paths: Vec<&str> = cells.iter().map(|cell| cell.to_str().unwrap()).collect();
    let compared = lab.succeed(&["runs", "compare", paths[0], paths[1], "--json"]).stdout;
    let compared: Value = serde_json::from_str(&compared).unwrap();
    let recipe = compared["recipe"].as_array().unwrap();
    assert_eq!((recipe.len(), &recipe[0]["name"]), (1, &"train.lora.r".into()), "{compared:#}");
    assert_eq!(recipe[0]["change"].as_f64().unwrap().abs(), 2.0);
    let measures: Vec<&Value> = compared["measures"].as_array().unwrap().iter().map(|m| &m["name"]).collect();
    assert!(
        measures.contains(&&"loss_narrow_tuned".into()) && !measures.contains(&&"loss_narrow_base".into())
    );
    let all = lab.succeed(&["runs", "compare", paths[0], paths[1], "--all"]).stdout;
    // A heading, the key of the recipe, every measure, and how many are the same.
    assert_eq!(all.lines().count(), measures.len() + 3, "{all}");
    let main = lab.succeed(&["runs", "compare", paths[0], paths[1]]).stdout;
    let rows = || main.lines().map(|line| line.split_whitespace().next().unwrap_or_default());
    assert!(
        rows().any(|name| name == "loss_narrow_tuned") && !rows().any(|name| name == "delta_norm_p1"),
        "{main}"
    );
    let further = main.lines().find(|line| line.ends_with("more measures differ; --all shows them")).unwrap();
    let further: usize = further.split(' ').next().unwrap().parse().unwrap();
    assert!(further > 5 && further < measures.len(), "{further} of {}: {main}", measures.len());
    assert!(main.lines().count() < 25 && main.contains("measures are the same"), "{main}");
    assert!(lab.refused(&["runs", "compare", "runs/s", "runs/alone"]).contains("expected two run folders"));
    assert!(lab.refused(&["runs", "list", "nowhere"]).contains("no such folder"));

    // A run that was killed needs its checkpoint.
    fs::create_dir_all(lab.path("runs/cut/checkpoints/step-000001")).unwrap();
    for name in ["metrics.jsonl", "recipe.toml"] {
        fs::copy(lab.path("runs/alone").join(name), lab.path("runs/cut").join(name)).unwrap();
    }
    lab.write("runs/alone/.metrics.jsonl.4194999.part", "half");
    let before = lab.files();
    let ran = lab.succeed(&["runs", "prune", "runs"]);
    assert!(ran.stdout.contains("can be removed; add --yes to remove it"), "{}", ran.stdout);
    assert_eq!(before.len(), lab.files().len(), "it removed something unasked");
    lab.succeed(&["runs", "prune", "runs", "--yes"]);
    assert!(!lab.path("runs/alone/checkpoints").exists() && !cells[0].join("checkpoints").exists());
    assert!(!lab.path("runs/alone/.metrics.jsonl.4194999.part").exists());
    assert!(lab.path("runs/cut/checkpoints/step-000001").exists());
    lab.succeed(&["verify", "runs/alone", "runs/s"]);
    assert!(lab.succeed(&["runs", "prune", "runs"]).stdout.contains("nothing to remove"));
    // What was pruned is still finished.
    assert_eq!(lab.succeed(&args).stderr.matches("finished before").count(), 2);
}
