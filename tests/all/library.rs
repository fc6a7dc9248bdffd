//! The library without its command line: what a program that uses `trainer::workflow` does, from a recipe to a setting
//! that hides the trace.

use std::fs;

use trainer::error::Interrupted;
use trainer::interrupt::Interrupt;
use trainer::sweep::State;
use trainer::workflow::{
    AxesRequest, BehaveRequest, DiffRequest, DiffSubject, FitRequest, InspectRequest, LimitsRequest, Runner,
    SweepOutcome, SweepRequest, TuneRequest, behave, diff, fit, inspect, status, sweep, tune,
};

use crate::common::lab::Lab;
use crate::common::outcome::{assert_same, outcome};
use crate::common::values::read_json;

/// The overrides under which a cell takes a second.
const SMALL: [&str; 6] = [
    "train.steps=2",
    "diff.samples=4",
    "diff.steering.enabled=false",
    "diff.bias_share.enabled=false",
    "behaviour.words={prompts=['cake'], words=['butter'], samples=1, max_new_tokens=4}",
    "behaviour.quality={texts=2, narrow_texts=2, prompts=2, max_new_tokens=4}",
];

fn small() -> Vec<String> {
    SMALL.iter().map(|set| set.to_string()).collect()
}

#[test]
fn an_organism_is_made_read_and_asked_as_the_command_line_does_it() {
    let lab = Lab::new();
    let interrupt = Interrupt::default();
    let recipe = lab.path("recipe.toml");

    let request = InspectRequest { recipe: recipe.clone(), set: small(), examples: 1 };
    let planned = inspect(&request, || Ok(Interrupt::default())).unwrap();
    assert_eq!((planned.steps, planned.first_examples.len()), (3, 1));

    let out = Some(lab.path("library"));
    let mut request = FitRequest { recipe, set: small(), out, resume: false };
    let run = fit(&request, &interrupt).unwrap();
    assert!(run.is_trained() && run.adapter().exists());
    request.resume = true;
    fit(&request, &interrupt).unwrap();

    let read = diff(&DiffRequest::of(DiffSubject::Run(run.path().into())), &interrupt).unwrap();
    assert!(read.readability.is_some());
    let asked = BehaveRequest { run: run.path().into(), ..Default::default() };
    assert!(behave(&asked, &interrupt).unwrap().words.is_some());

    lab.fit("commands", &SMALL);
    lab.succeed(&["diff", "commands"]);
    lab.succeed(&["behave", "commands"]);
    assert_same(&outcome(&lab.path("library")), &outcome(&lab.path("commands")), "library and commands");
    let behaviour = |run: &str| fs::read(lab.path(run).join("behaviour.json")).unwrap();
    assert!(behaviour("library") == behaviour("commands"));
}

#[test]
fn a_sweep_and_a_search_run_in_the_process_that_asks_for_them() {
    let lab = Lab::new();
    let interrupt = Interrupt::default();
    let axes = AxesRequest { mix: vec![0.0, 0.5], ..Default::default() };
    let request = SweepRequest {
        recipe: lab.path("recipe.toml"),
        set: small(),
        axes: axes.clone(),
        limits: LimitsRequest::default(),
        runner: Runner::InProcess,
        out: lab.path("sweep"),
    };
    let SweepOutcome::Ran(result) = sweep(&request, &interrupt).unwrap() else { panic!("it was not run") };
    assert_eq!((result.planned, result.failed.len()), (2, 0));
    let (cells, claims) = result.cells.as_ref().unwrap();
    assert!(cells.len() == 2 && cells.iter().all(|cell| cell.readability.is_some()));
    assert!(lab.path("sweep/summary.csv").exists() && lab.path("sweep/report.html").exists());
    assert_eq!(claims.counts.runs, 2);
    assert_eq!(read_json(&lab.path("sweep/claims.json")), serde_json::to_value(claims).unwrap());

    // Processes of the command line make the same cells, and find these finished.
    let args = ["sweep", "recipe.toml", "--mix", "0,0.5", "--out"];
    let args = |out: &'static str| -> Vec<&str> {
        args.into_iter().chain([out]).chain(SMALL.into_iter().flat_map(|set| ["--set", set])).collect()
    };
    assert_eq!(lab.succeed(&args("sweep")).stderr.matches("finished before").count(), 2);
    lab.succeed(&args("processes"));
    for id in ["mix-0_seed-0", "mix-0.5_seed-0"] {
        assert_same(&outcome(&lab.cell("sweep", id)), &outcome(&lab.cell("processes", id)), id);
    }

    let request = TuneRequest {
        recipe: lab.path("recipe.toml"),
        set: small(),
        trace: "delta_norm_mean<=1000".into(),
        behaviour: "behaviour_words_share_change>=-1".into(),
        bounds: vec!["quality_neutral_nats_change<=1000".into()],
        axes,
        limits: LimitsRequest::default(),
        runner: Runner::InProcess,
        rungs: 2,
        factor: 2,
        out: lab.path("tuned"),
    };
    let found = tune(&request, &interrupt).unwrap();
    assert_eq!(found.record.chosen.as_deref(), Some("mix 0"), "{}", found.record.why);
    assert_eq!(read_json(&lab.path("tuned/tune.json")), serde_json::to_value(&found.record).unwrap());
    assert!(lab.path("tuned/chosen.toml").exists());
}

#[test]
fn a_cell_that_fails_is_named_and_the_others_are_run() {
    let lab = Lab::new();
    let mut request = SweepRequest {
        recipe: lab.path("recipe.toml"),
        set: small(),
        axes: AxesRequest { seeds: vec![0, 1], ..Default::default() },
        limits: LimitsRequest { retry: 1, ..Default::default() },
        runner: Runner::Slurm { sbatch: Vec::new() },
        out: lab.path("sweep"),
    };
    assert!(matches!(sweep(&request, &Interrupt::default()).unwrap(), SweepOutcome::Submit(_)));
    // Something that is no run stands in the way.
    let jobs = fs::read_dir(lab.path("sweep/jobs")).unwrap();
    let id =
        jobs.map(|job| job.unwrap().file_name()).find(|id| id.to_string_lossy().contains("seed-1")).unwrap();
    let in_the_way = lab.path("sweep/cells").join(&id);
    fs::create_dir_all(&in_the_way).unwrap();
    fs::write(in_the_way.join("adapter"), "x").unwrap();

    request.runner = Runner::InProcess;
    let interrupt = Interrupt::default();
    interrupt.request();
    assert!(sweep(&request, &interrupt).unwrap_err().is::<Interrupted>());
    let SweepOutcome::Ran(result) = sweep(&request, &Interrupt::default()).unwrap() else {
        panic!("not run")
    };
    let faults = result.must_be_whole().unwrap_err().to_string();
    assert!(faults.starts_with("1 of 2 cells failed") && faults.contains("exists already"), "{faults}");
    let states: Vec<State> = status(&request.out).unwrap().iter().map(|cell| cell.state).collect();
    assert_eq!(states, [State::Done, State::Failed]);
}
