//! Claims are data beside what they rest on: whoever shows them reads them there.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use trainer::claims::{self, ClaimedRun, across_runs, read_all, write_run};
use trainer::report::{analysis_json, html, summary, table, write_sweep};

use crate::common::run_folder::{self, STRONG, Spec};
use crate::common::values::read_json;

fn change(path: &Path, with: impl Fn(&mut Value)) {
    let mut document = read_json(path);
    with(&mut document);
    fs::write(path, document.to_string()).unwrap();
}

#[test]
fn table_page_and_summary_say_what_the_claims_say() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_folder::write(&dir.path().join("run"), &STRONG);
    let written = write_run(&run).unwrap();
    assert_eq!(written.claims, ClaimedRun::read(&run).unwrap().claims);

    // Nobody who computed claims would say this of these numbers.
    change(&run.join("claims.json"), |claims| {
        assert_eq!(claims["readable"]["measures"]["lift"]["state"], "readable");
        claims["readable"]["measures"]["lift"]["state"] = "not-distinguishable".into();
        claims["readable"]["measures"]["lens"]["value"] = 0.75.into();
        claims["readable"]["headline"] = "readable by reading claims.json".into();
        claims["verdict"]["state"] = "hidden".into();
        claims["verdict"]["headline"] = "hidden as claims.json says".into();
        claims["verdict"]["readers"]["lift"]["value"] = 0.123.into();
        let lens = &mut claims["trace"]["lens"];
        (lens["value"], lens["position"], lens["p"]) = (0.35.into(), 3.into(), 0.125.into());
        lens["null"] = 0.45.into();
        let steering = &mut claims["trace"]["steering"]["beside"];
        assert!(steering["plain"]["value"].is_number(), "{steering}");
        steering["plain"]["value"] = 0.255.into();
        steering["ceiling"]["value"] = 0.265.into();
        steering["gain"]["value"] = 0.275.into();
        claims["length"]["relative"] = 0.625.into();
        claims["learned"]["loss_tuned"] = 7.5.into();
    });
    let run = [ClaimedRun::read(&run).unwrap()];
    let row = &summary::rows(&run)[0];
    assert_eq!(row["verdict"], "readable by reading claims.json");
    assert_eq!(row["claim"], "hidden as claims.json says");
    assert_eq!((&row["readable_by_lift"], &row["readable_by_lens"]), (&json!(false), &json!(true)));
    // Breaks of lines are not what is looked at.
    let table = table::text_table(&run).split_whitespace().collect::<Vec<_>>().join(" ");
    let page = html::page(&run).unwrap();
    for text in ["hidden as claims.json says", "0.123"] {
        assert!(table.contains(text), "{text}: {table}");
    }
    for text in [
        "hidden as claims.json says",
        "0.123",
        "Not distinguishable from the null by lift",
        "Readable by logit lens: 0.75 of the top 20",
        "The difference is 0.625 of the expected norm",
        "to 7.500 nats a token",
    ] {
        assert!(page.to_lowercase().contains(&text.to_lowercase()), "{text}");
    }
    // The row of the table of the page too.
    for part in ["0.35 at 3, p = 0.125", "null 0.45", "plain 0.255, ceiling 0.265", "+0.275"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let json = analysis_json(&run[0]).unwrap();
    assert_eq!(json["claims"]["verdict"]["state"], "hidden");
    assert_eq!(json["layer"], 8);
}

#[test]
fn the_page_of_a_sweep_says_what_its_claims_say() {
    let dir = tempfile::tempdir().unwrap();
    run_folder::write_sweep(dir.path());
    let (_, across) = write_sweep(dir.path()).unwrap();
    let runs = || read_all(&[dir.path().to_path_buf()]).unwrap();
    assert_eq!(across, across_runs(&runs()).unwrap());
    let page = html::page(&runs()).unwrap();
    assert!(!page.contains("meets its null at mix 7.5"));

    change(&dir.path().join("claims.json"), |claims| {
        let lift = &mut claims["settings"][0]["doses"]["lift"][0];
        assert_eq!(lift["runs"].as_array().unwrap().len(), 2);
        lift["mean"] = 0.987.into();
        let doses = &mut claims["settings"][0]["doses"];
        doses["steering.plain"][0]["mean"] = 0.654.into();
        doses["steering.ceiling"][0]["mean"] = 0.765.into();
        let meets = &mut claims["settings"][0]["meets_null"][0];
        assert_eq!(meets["measure"], "lift");
        meets["at"] = 7.5.into();
        claims["frontiers"][0]["settings"][0]["points"][0]["trace"] = 0.876.into();
        claims["counts"]["verdicts"][0]["runs"] = 3.into();
    });
    let page = html::page(&runs()).unwrap();
    for text in [
        "Lift AUROC meets its null at mix 7.5",
        "Lift: 0.987 at mix 0",
        "Plain: 0.654 at mix 0",
        "Narrow text to itself: 0.765 at mix 0",
        ": 0.876 at ",
        "runs: 3 readable",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // Some of the cells, or a cell that has changed, is another set of runs.
    let some = html::page(&runs()[1..]).unwrap();
    assert!(!some.contains("mix 7.5") && !some.contains("0.987 at mix 0"));
    let cell = dir.path().join("cells/mix0-seed0/recipe.toml");
    fs::write(&cell, fs::read_to_string(&cell).unwrap() + "# looked at\n").unwrap();
    assert!(!html::page(&runs()).unwrap().contains("mix 7.5"));
}

#[test]
fn claims_that_are_not_fresh_are_made_again_and_nothing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_folder::write(&dir.path().join("run"), &STRONG);
    let path = run.join("claims.json");
    let fresh = || ClaimedRun::read(&run).unwrap().claims;
    // A folder of before has none, and reading one writes nothing.
    let computed = fresh();
    assert!(!path.exists());
    assert_eq!(write_run(&run).unwrap().claims, computed);
    assert_eq!(
        computed.rests_on.keys().collect::<Vec<_>>(),
        ["diff/readability.json", "manifest.json", "recipe.toml"]
    );
    assert_eq!(
        computed.rests_on["manifest.json"],
        trainer::sha256::sha256_content(&run.join("manifest.json")).unwrap()
    );

    let lie = |claims: &mut Value| claims["readable"]["headline"] = "a lie".into();
    change(&path, lie);
    assert_eq!(fresh().readable.headline, "a lie");
    run_folder::write_readability(&run, &run_folder::readability(&Spec { trace: 0.0, ..STRONG }));
    assert!(fresh().readable.headline.starts_with("not distinguishable"), "{}", fresh().readable.headline);
    // Of another version of the rules, or damaged.
    write_run(&run).unwrap();
    change(&path, |claims| {
        lie(claims);
        claims["schema"] = 0.into();
    });
    assert_ne!(fresh().readable.headline, "a lie");
    fs::write(&path, "{").unwrap();
    assert_ne!(fresh().readable.headline, "a lie");
}

#[test]
fn an_analysis_without_a_run_has_claims_too_and_a_run_that_has_only_begun_none() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_folder::write(&dir.path().join("run"), &STRONG);
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::copy(run.join("diff/readability.json"), out.join("readability.json")).unwrap();
    let claims = write_run(&out).unwrap().claims;
    assert_eq!(claims.rests_on.keys().collect::<Vec<_>>(), ["readability.json"]);
    assert_eq!(claims.learned.learned, None);

    let sweep = dir.path().join("sweep");
    run_folder::write(&sweep.join("cells/done"), &STRONG);
    fs::create_dir_all(sweep.join("cells/begun")).unwrap();
    fs::copy(run.join("recipe.toml"), sweep.join("cells/begun/recipe.toml")).unwrap();
    let (runs, _) = claims::write_sweep(&sweep).unwrap();
    assert_eq!(runs.len(), 2);
    assert!(sweep.join("cells/done/claims.json").exists());
    assert!(!sweep.join("cells/begun/claims.json").exists());
}
