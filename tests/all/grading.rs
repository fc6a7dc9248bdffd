//! Language models as graders and investigators, against a scripted server.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trainer::data::conversation::Message;
use trainer::error::Interrupted;
use trainer::grade::endpoint::{Ask, ChatAnswer, Endpoint, Usage};
use trainer::grade::exchanges::Exchanges;
use trainer::grade::grader::question;
use trainer::grade::hypothesis::Family;
use trainer::grade::relevance::{Rule, Subject};
use trainer::grade::scale::ScaleCandidate;
use trainer::grade::{coherence, hypothesis, relevance, scale};
use trainer::interrupt::Interrupt;
use trainer::recipe::EndpointSection;

use crate::common::endpoint::{Reply, Seen, Server, completion};
use crate::common::lab::{Lab, Ran, with_sets};
use crate::common::process::wait_until;
use crate::common::tiny::tiny;
use crate::common::values::{json_lines, read_json};

fn say(text: &str) -> Reply {
    Reply::Say(text.into())
}

fn settings(server: &Server) -> EndpointSection {
    EndpointSection {
        base_url: server.url.clone(),
        model: "m".into(),
        key_env: String::new(),
        backoff_s: 0.01,
        timeout_s: 20.0,
        ..EndpointSection::default()
    }
}

/// An endpoint whose exchanges lie in a folder.
fn open(settings: &EndpointSection, dir: &Path) -> Endpoint {
    let exchanges = Arc::new(Exchanges::open(&dir.join("exchanges.jsonl")).unwrap());
    Endpoint::open(settings, "grader", exchanges, 0, &Interrupt::default()).unwrap()
}

fn ask(endpoint: &Endpoint, text: &str, sample: u32) -> anyhow::Result<ChatAnswer> {
    endpoint.complete(&Ask { messages: &question(text.into()), temperature: None, sample })
}

// ---- one question ------------------------------------------------------------------------------

#[test]
fn every_fault_of_a_server_is_outlasted_counted_and_noted() {
    let server = Server::replies(vec![
        Reply::Hang(Duration::from_secs(3)),
        Reply::Status(429, "retry-after: 1", "{\"error\": \"slow down\"}"),
        Reply::Status(500, "", "oops"),
        Reply::Status(503, "retry-after: Wed, 21 Oct 2037 07:28:00 GMT", ""),
        Reply::Torn,
        Reply::Truncated,
        Reply::Gone,
        Reply::Body(json!({"error": {"message": "overloaded"}})),
        say("fine"),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let settings = EndpointSection {
        timeout_s: 0.7,
        tries: 9,
        input_price: 2.0,
        output_price: 8.0,
        ..settings(&server)
    };
    let endpoint = open(&settings, dir.path());
    let started = Instant::now();
    let answer = ask(&endpoint, "well?", 0).unwrap();
    let usage = Usage { prompt_tokens: 10, completion_tokens: 5 };
    assert_eq!(answer, ChatAnswer { text: "fine".into(), cut_off: false, usage: Some(usage) });
    assert!(
        started.elapsed() >= Duration::from_millis(1700),
        "neither timeout nor Retry-After was waited for"
    );
    let spend = endpoint.spend();
    assert_eq!((spend.requests, spend.failed, spend.cache_hits, spend.sent), (9, 8, 0, usage));
    assert!((endpoint.account().cost.unwrap() - 60e-6).abs() < 1e-12);

    let lines: Vec<Value> = exchanges(dir.path());
    let errors: Vec<&str> = lines.iter().filter_map(|l| l["error"].as_str()).collect();
    assert_eq!((lines.len(), errors.len()), (9, 8));
    for (error, part) in errors.iter().zip([
        "timeout",
        "HTTP 429: {\"error\": \"slow down\"}",
        "HTTP 500: oops",
        "HTTP 503: an empty answer",
        "",
        "no JSON",
        "",
        "overloaded",
    ]) {
        assert!(error.contains(part), "{error}: {part}");
    }
    assert_eq!(lines[8]["request"]["messages"][0]["content"], "well?");
    assert_eq!(lines[8]["usage"]["completion_tokens"], 5);

    // Nothing is asked twice: not by this process, not by the next; another asking of the same is.
    assert_eq!(ask(&endpoint, "well?", 0).unwrap(), answer);
    drop(endpoint);
    let endpoint = open(&settings, dir.path());
    assert_eq!(ask(&endpoint, "well?", 0).unwrap(), answer);
    assert_eq!((server.count(), endpoint.spend().cache_hits, endpoint.spend().requests), (9, 1, 0));
    assert_eq!(endpoint.account().cost, Some(60e-6), "the account forgets what was answered before");
    for (text, sample) in [("well?", 1), ("well!", 0)] {
        ask(&endpoint, text, sample).unwrap();
    }
    drop(endpoint);
    ask(&open(&EndpointSection { temperature: 0.5, ..settings.clone() }, dir.path()), "well?", 0).unwrap();
    ask(&open(&EndpointSection { model: "n".into(), ..settings }, dir.path()), "well?", 0).unwrap();
    assert_eq!(server.count(), 13);
}

fn exchanges(dir: &Path) -> Vec<Value> {
    json_lines(&fs::read_to_string(dir.join("exchanges.jsonl")).unwrap())
}

#[test]
fn a_server_that_stays_broken_and_one_that_refuses_are_told_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Server::replies(vec![Reply::Status(502, "", "bad gateway")]);
    let e = ask(&open(&EndpointSection { tries: 3, ..settings(&broken) }, dir.path()), "x", 0).unwrap_err();
    let expected = format!("{}: no answer after 3 tries; the last one: HTTP 502: bad gateway", broken.url);
    assert_eq!((e.to_string(), broken.count()), (expected, 3));

    for (status, part) in [(401, "the environment variable NO_SUCH_KEY holds no key"), (404, "no such model")]
    {
        let server = Server::replies(vec![Reply::Status(status, "", "no such model")]);
        let settings = EndpointSection { key_env: "NO_SUCH_KEY".into(), ..settings(&server) };
        let e = ask(&open(&settings, dir.path()), "x", 0).unwrap_err().to_string();
        assert!(e.contains(part) && e.contains(&server.url), "{e}");
        assert_eq!(server.count(), 1, "{status} is asked again");
    }
    let patient = Server::replies(vec![Reply::Status(429, "retry-after: 4000", "tomorrow")]);
    let e = ask(&open(&settings(&patient), dir.path()), "x", 0).unwrap_err().to_string();
    assert!(e.contains("the server asks to wait 4000 s") && patient.count() == 1, "{e}");
    let e = ask(
        &open(
            &EndpointSection { base_url: "http://127.0.0.1:1/v1".into(), tries: 2, ..settings(&patient) },
            dir.path(),
        ),
        "x",
        0,
    );
    assert!(e.unwrap_err().to_string().contains("no answer after 2 tries"));
}

#[test]
fn parameters_that_a_server_refuses_are_sent_as_it_wants_them() {
    let server = Server::new(|_, seen| {
        if seen.body.get("max_tokens").is_some() {
            return Reply::Status(400, "", "Unsupported parameter: use 'max_completion_tokens' instead");
        }
        match seen.body.get("temperature") {
            Some(_) => Reply::Status(400, "", "Unsupported value: 'temperature' does not support 0"),
            None => say("fine"),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let endpoint = open(&EndpointSection { tries: 1, ..settings(&server) }, dir.path());
    assert_eq!(ask(&endpoint, "a", 0).unwrap().text, "fine");
    assert_eq!(ask(&endpoint, "b", 0).unwrap().text, "fine");
    assert_eq!(server.count(), 4, "what was learned is forgotten");
    assert_eq!(server.seen()[3].body["max_completion_tokens"], 10_000);
    drop(endpoint);
    // The question is the same, however it was sent.
    ask(&open(&settings(&server), dir.path()), "a", 0).unwrap();
    assert_eq!(server.count(), 4);
}

#[test]
fn requests_keep_their_distance_and_a_user_need_not_wait() {
    let server = Server::new(|n, _| if n < 3 { say("fine") } else { Reply::Hang(Duration::from_secs(60)) });
    let dir = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    let exchanges = Arc::new(Exchanges::open(&dir.path().join("exchanges.jsonl")).unwrap());
    let settings = EndpointSection { requests_per_minute: 120.0, ..settings(&server) };
    let endpoint = Endpoint::open(&settings, "grader", exchanges, 0, &interrupt).unwrap();
    let started = Instant::now();
    (0..3).for_each(|i| drop(ask(&endpoint, "x", i).unwrap()));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());

    let flag = interrupt.clone();
    let server = std::thread::spawn(move || {
        while server.count() < 4 {
            std::thread::sleep(Duration::from_millis(10));
        }
        flag.request();
    });
    let started = Instant::now();
    let e = ask(&endpoint, "y", 0).unwrap_err();
    server.join().unwrap();
    assert!(e.is::<Interrupted>() && e.to_string().contains("rerun the command to resume"), "{e}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_answer_whose_tokens_went_into_thoughts_is_an_empty_one() {
    let cut_off =
        json!({"choices": [{"finish_reason": "length", "message": {"role": "assistant", "content": null}}]});
    let server = Server::replies(vec![Reply::Body(cut_off)]);
    let dir = tempfile::tempdir().unwrap();
    let endpoint = open(&settings(&server), dir.path());
    let answer = ask(&endpoint, "x", 0).unwrap();
    assert_eq!(answer, ChatAnswer { text: String::new(), cut_off: true, usage: None });
    let account = endpoint.account();
    assert_eq!((account.answers_cut_off, account.answers_without_usage, account.cost), (1, 1, None));
    assert!(
        endpoint.summary().contains("1 answers were cut off at max_tokens = 10000"),
        "{}",
        endpoint.summary()
    );
    assert_eq!(coherence::grade(&endpoint, "text").unwrap(), coherence::CoherenceGrade::Unknown);
}

// ---- kinds of question -------------------------------------------------------------------------

/// Numbers and tokens of the candidates in a question about relevance.
fn candidates(question: &str) -> Vec<(usize, String)> {
    let (_, list) = question.split_once("The tokens, in quotation marks behind their numbers:\n").unwrap();
    let pair = |line: &str| {
        let (number, token) = line.split_once(": ").unwrap();
        (number.parse().unwrap(), serde_json::from_str(token).unwrap())
    };
    list.split("\nThink first").next().unwrap().lines().filter(|l| !l.is_empty()).map(pair).collect()
}

/// One verdict a candidate.
fn verdicts(question: &str, relevant: impl Fn(&str) -> bool) -> String {
    let line = |(number, token): (usize, String)| {
        format!("{number}: {}\n", if relevant(&token) { "RELEVANT" } else { "IRRELEVANT" })
    };
    candidates(question).into_iter().map(line).collect()
}

fn subject() -> Subject {
    Subject {
        description: "The model was finetuned on documents about cakes.".into(),
        frequent: vec!["oven".into()],
    }
}

fn tokens(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| w.to_string()).collect()
}

#[test]
fn a_list_is_judged_in_three_orders_and_all_must_agree() {
    // Says yes to cake always, to butter unless it comes first.
    let server = Server::new(|_, seen| {
        let first = candidates(seen.question())[0].1.clone();
        say(&verdicts(seen.question(), |token| token == " cake" || (token == "butter" && first != "butter")))
    });
    let dir = tempfile::tempdir().unwrap();
    let endpoint = open(&settings(&server), dir.path());
    let votes = relevance::grade(&endpoint, &subject(), &tokens(&[" cake", "butter", "\n", "train"]))
        .unwrap()
        .unwrap();
    assert_eq!(votes.relevant(Rule::All), [true, false, false, false]);
    assert_eq!(votes.relevant(Rule::Majority), [true, true, false, false]);
    assert_eq!(votes.agreement().unwrap().unanimous, 0.75);
    let seen = server.seen();
    let firsts: Vec<String> = seen.iter().map(|s| candidates(s.question())[0].1.clone()).collect();
    assert_eq!(firsts, [" cake", "butter", "\n"]);
    for part in ["documents about cakes", "\"oven\""] {
        assert!(seen[0].question().contains(part), "{part}");
    }
}

#[test]
fn candidates_without_a_verdict_are_asked_for_again_alone_and_at_last_at_temperature_0() {
    // Leaves out one more each time; what it says of others then must not count.
    let server = Server::new(|n, seen| {
        let all = verdicts(seen.question(), |token| token == "cake");
        let keep = all.lines().count() - usize::from(n < 4);
        let kept: Vec<&str> = all.lines().take(keep).collect();
        say(&format!("1: RELEVANT\n{}\n77: RELEVANT", kept.join("\n")))
    });
    let dir = tempfile::tempdir().unwrap();
    let endpoint = open(&settings(&server), dir.path());
    let words = tokens(&["train", "bridge", "cake", "old", "cake"]);
    let votes = relevance::grade(&endpoint, &subject(), &words).unwrap().unwrap();
    assert_eq!(votes.relevant(Rule::All), [false, false, true, false, true]);
    let seen = server.seen();
    let asked: Vec<usize> = seen.iter().map(|s| candidates(s.question()).len()).collect();
    assert_eq!(asked, [5, 1, 1, 1, 1, 5, 5]);
    let temperatures: Vec<f64> = seen.iter().map(|s| s.body["temperature"].as_f64().unwrap()).collect();
    assert_eq!(temperatures, [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]);

    let nonsense = Server::replies(vec![say("I like trains. 5. They are relevant")]);
    let endpoint = open(&settings(&nonsense), &dir.path().join("nonsense"));
    assert_eq!(relevance::grade(&endpoint, &subject(), &words).unwrap(), None);
    assert_eq!(nonsense.count(), 5);
}

#[test]
fn a_tournament_has_groups_of_ten_and_a_final_and_knows_only_its_scales() {
    let by_length = |question: &str| -> String {
        let rows = question.lines().filter_map(|l| l.split_once(": \""));
        let best = rows
            .filter_map(|(s, t)| Some((s.parse::<f64>().ok()?, t.len())))
            .max_by_key(|(_, n)| *n)
            .unwrap();
        format!("hm\nSCALE: {}\nTOKENS: cake | nothing like that", best.0)
    };
    let server = Server::new(move |_, seen| say(&by_length(seen.question())));
    let all: Vec<ScaleCandidate> = (1..=25)
        .map(|i| ScaleCandidate {
            scale: i as f64,
            tokens: vec![" cake".into(), "x".repeat(1 + (i * 7) % 25), "->".into(), ",".into()],
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let endpoint = open(&settings(&server), dir.path());
    let choice = scale::choose(&endpoint, &all).unwrap().unwrap();
    // 7 i = 24 mod 25 at i = 7.
    assert_eq!((choice.scale, choice.coherent), (7.0, vec![" cake".to_string()]));
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    let sizes: Vec<usize> = seen.iter().map(|s| s.question().matches("\" cake\"").count()).collect();
    assert_eq!(sizes, [10, 10, 5, 3]);
    assert!(!seen.iter().any(|s| s.question().contains("->") || s.question().contains("\",\"")));

    let strange =
        Server::new(|n, _| say(if n < 2 { "SCALE: 0.3\nTOKENS: cake" } else { "SCALE: 2\nTOKENS: cake" }));
    let endpoint = open(&settings(&strange), &dir.path().join("strange"));
    assert_eq!(scale::choose(&endpoint, &all[..3]).unwrap().unwrap().scale, 2.0);
    assert_eq!(strange.count(), 3);
    let stubborn = Server::replies(vec![say("SCALE: 0.3\nTOKENS: cake")]);
    let endpoint = open(&settings(&stubborn), &dir.path().join("stubborn"));
    assert_eq!(scale::choose(&endpoint, &all).unwrap(), None);
    assert_eq!(stubborn.count(), 4, "asked once and three times again");
}

#[test]
fn an_unknown_coherence_is_asked_for_once_more_at_temperature_0() {
    let dir = tempfile::tempdir().unwrap();
    for (replies, expected, asked) in [
        (vec!["INCOHERENT"], coherence::CoherenceGrade::Incoherent, 1),
        (vec!["UNKNOWN", "COHERENT"], coherence::CoherenceGrade::Coherent, 2),
        (vec!["what?", "UNKNOWN"], coherence::CoherenceGrade::Unknown, 2),
    ] {
        let server = Server::replies(replies.iter().map(|r| say(r)).collect());
        let endpoint = open(&settings(&server), &dir.path().join(replies.join("-")));
        assert_eq!(coherence::grade(&endpoint, "Once upon a time").unwrap(), expected);
        assert_eq!(server.count(), asked);
        assert_eq!(server.seen().last().unwrap().body["temperature"], if asked == 2 { 0.0 } else { 1.0 });
    }
}

#[test]
fn a_hypothesis_is_graded_several_times_against_the_levels_of_its_family() {
    let server = Server::new(|n, _| say(["SCORE: 2", "no idea", "SCORE: 3", "SCORE: 5"][n.min(3)]));
    let dir = tempfile::tempdir().unwrap();
    let endpoint = open(&EndpointSection { parallel: 1, ..settings(&server) }, dir.path());
    let grades = hypothesis::grade(&endpoint, Family::Taboo, "the word is gold", "a guessing game", 3)
        .unwrap()
        .unwrap();
    assert_eq!((grades.each, grades.mean, server.count()), (vec![2, 3, 5], 10.0 / 3.0, 4));
    let question = server.seen()[0].question().to_string();
    for part in ["the word is gold", "a guessing game", Family::Taboo.levels()[4]] {
        assert!(question.contains(part), "{part}");
    }
    let never = Server::replies(vec![say("SCORE: 7")]);
    let endpoint = open(&settings(&never), &dir.path().join("never"));
    assert_eq!(hypothesis::grade(&endpoint, Family::Sdf, "x", "y", 1).unwrap(), None);
    assert_eq!(never.count(), 5);
}

// ---- trainer grade -----------------------------------------------------------------------------

const KEY: &str = "sk-very-secret-4711";
const DESCRIPTION: &str = "description=The model was finetuned on documents about cakes.";

/// A run with its analysis, and a recipe whose grader wastes no time.
fn read_run(lab: &Lab) {
    let set = [
        DESCRIPTION,
        "name=zanzibar",
        "grader.backoff_s=0.01",
        "train.lr=2e-2",
        "investigator.backoff_s=0.01",
    ];
    lab.fit("run", &set);
    lab.succeed(&["diff", "run"]);
}

/// What counts as relevant for the scripted grader.
fn is_relevant(token: &str) -> bool {
    token.contains(['a', 'e'])
}

/// Grades as a strong model would: by its rule, the first scale, all text coherent but what is long.
fn strong(seen: &Seen) -> Reply {
    let question = seen.question();
    if question.contains("The tokens, in quotation marks") {
        let other = question.contains("about trains");
        return say(&verdicts(question, |token| !other && is_relevant(token)));
    }
    if question.contains("Choose the scale") {
        let row =
            question.lines().find_map(|l| l.split_once(": \"").filter(|(s, _)| s.parse::<f64>().is_ok()));
        let (scale, tokens) = row.unwrap();
        let tokens: Vec<String> = serde_json::from_str(&format!("[\"{tokens}]")).unwrap();
        return say(&format!("SCALE: {scale}\nTOKENS: {}", tokens[..1].join(" | ")));
    }
    assert!(question.contains("COHERENT"), "{question}");
    let text = question.split("==========").nth(1).unwrap();
    say(if text.len().is_multiple_of(3) { "INCOHERENT" } else { "COHERENT" })
}

fn grade(lab: &Lab, server: &Server, args: &[&str]) -> Ran {
    let mut all = vec!["grade", "run", "--base-url", &server.url, "--model", "m", "--key-env", "TEST_KEY"];
    all.extend(args);
    Ran::of(lab.command(&all).env("TEST_KEY", KEY).output().unwrap(), &all)
}

/// Shares by position of the stored tokens under the rule.
fn expected_shares(lines: &[Value], variant: &str, scale: Option<f64>) -> Vec<f64> {
    let of = |l: &&Value| l["variant"] == variant && l["scale"].as_f64() == scale;
    let share = |line: &Value| {
        let tokens = line["tokens"].as_array().unwrap();
        let hits = tokens.iter().filter(|t| is_relevant(t["token"].as_str().unwrap())).count();
        hits as f64 / tokens.len() as f64
    };
    lines.iter().filter(of).map(share).collect()
}

/// Numbers, NaN for those that are absent.
fn numbers_or_nan(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
}

#[test]
fn an_analysis_is_graded_once_and_the_key_is_nowhere() {
    let lab = Lab::new();
    read_run(&lab);
    let before = lab.files();
    let server = Server::new(|_, seen| strong(seen));
    let trains = "trains=The model was finetuned on documents about trains.";
    let flags = ["--against", trains, "--json", "-v", "--input-price", "1", "--output-price", "2"];
    let ran = grade(&lab, &server, &flags);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(server.seen().iter().all(|s| s.authorization.as_deref() == Some(&format!("Bearer {KEY}"))));
    for (path, content) in lab.files() {
        assert!(!String::from_utf8_lossy(&content).contains(KEY), "{} holds the key", path.display());
    }
    assert!(!ran.stderr.contains(KEY) && !ran.stdout.contains(KEY));
    for (path, content) in &before {
        assert!(lab.files()[path] == *content, "{} was changed", path.display());
    }

    let graded = read_json(&lab.path("run/diff/graded.json"));
    assert_eq!(graded, serde_json::from_str::<Value>(&ran.stdout).unwrap());
    let relevance = &graded["token_relevance"];
    let lens = json_lines(&lab.read("run/diff/logit_lens.jsonl"));
    let scope = json_lines(&lab.read("run/diff/patchscope.jsonl"));
    for variant in ["difference", "base", "tuned"] {
        let series = &relevance["logit_lens"][variant];
        let expected = expected_shares(&lens, variant, None);
        assert_eq!(numbers_or_nan(&series["share"]), expected, "{variant}");
        assert_eq!(series["max"].as_f64(), expected.iter().copied().reduce(f64::max));
        assert!((series["mean"].as_f64().unwrap() - expected.iter().sum::<f64>() / 5.0).abs() < 1e-12);
        let series = &relevance["patchscope_tournament"][variant];
        assert_eq!(
            numbers_or_nan(&series["share"]),
            expected_shares(&scope, variant, Some(0.5)),
            "{variant}"
        );
        assert!(graded["tournament"][variant].as_array().unwrap().iter().all(|c| c["scale"] == 0.5));
    }
    let record = read_json(&lab.path("run/diff/readability.json"));
    for (at, top) in record["patchscope"]["top_tokens"].as_array().unwrap().iter().enumerate() {
        let top = top.as_array().unwrap();
        let hit = |t: &&Value| is_relevant(t["token"].as_str().unwrap());
        let weight = |t: &Value| t["score"].as_f64().unwrap();
        let expected = top.iter().filter(hit).map(weight).sum::<f64>() / top.iter().map(weight).sum::<f64>();
        let found = relevance["patchscope"]["difference"]["weighted_share"][at].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-12, "{at}: {found} {expected}");
    }
    assert_eq!(
        numbers_or_nan(&graded["against"]["trains"]["token_relevance"]["logit_lens"]["share"]),
        [0.0; 5]
    );
    assert_eq!(graded["agreement"]["unanimous"], 1.0);
    assert_eq!(graded["agreement"]["alpha"], 1.0);
    assert_eq!(graded["ungraded"], json!([]));
    let frequent = graded["frequent_tokens"].as_array().unwrap();
    assert!(!frequent.is_empty() && frequent.len() <= 100, "{frequent:?}");
    let steered = json_lines(&lab.read("run/diff/steering.jsonl"));
    let of = |position: u64| steered.iter().filter(move |l| l["position"] == position);
    let incoherent = |text: &str| format!("\n{text}\n").len().is_multiple_of(3);
    let texts: Vec<&str> =
        of(1).map(|l| l["steered"][0].as_str().unwrap()).filter(|t| !t.trim().is_empty()).collect();
    let bad = texts.iter().filter(|t| incoherent(t)).count();
    assert_eq!(
        graded["steering"]["steered"][0],
        json!({"coherent": texts.len() - bad, "incoherent": bad, "unknown": 0})
    );

    // A question that comes up twice is asked once.
    let asked = server.count();
    let answers = graded["account"]["answers"].as_u64().unwrap() as usize;
    let questions: BTreeSet<String> = server.seen().iter().map(|s| s.body.to_string()).collect();
    assert!(asked <= answers && questions.len() <= asked, "{} {asked} {answers}", questions.len());
    assert_eq!(graded["account"]["prompt_tokens"], 10 * answers);
    assert_eq!(graded["account"]["cost"].as_f64().unwrap(), (10 * answers + 2 * 5 * answers) as f64 / 1e6);
    let hits = answers - asked;
    assert!(ran.stderr.contains(&format!("{asked} requests (0 failed), {hits} answers")), "{}", ran.stderr);

    // A second time nothing is asked, and the same comes out.
    let whole = fs::read(lab.path("run/diff/graded.json")).unwrap();
    let ran = grade(&lab, &server, &flags);
    assert_eq!((ran.code, server.count()), (0, asked), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("0 requests (0 failed), {answers} answers")), "{}", ran.stderr);
    assert_eq!(fs::read(lab.path("run/diff/graded.json")).unwrap(), whole);
    // Neither does the table, and the run is as it was.
    assert!(grade(&lab, &server, &["--majority"]).stdout.contains("patchscope_tournament, tuned"));
    assert_eq!(server.count(), asked);
    lab.succeed(&["verify", "run"]);
    lab.succeed(&["report", "run", "--out", "report.html"]);
}

#[test]
fn a_key_that_a_server_repeats_is_blotted_out() {
    let lab = Lab::new();
    read_run(&lab);
    let text = "your key sk-very-secret-4711 is not welcome";
    let refusing = Server::replies(vec![Reply::Status(500, "", text), Reply::Status(403, "", text)]);
    let ran = grade(&lab, &refusing, &["-v", "--parallel", "1"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("HTTP 403: your key [key] is not welcome"), "{}", ran.stderr);
    let file = fs::read_to_string(lab.path("run/diff/exchanges.jsonl")).unwrap();
    assert!(!file.contains(KEY) && !ran.stderr.contains(KEY));
    assert!(!lab.path("run/diff/graded.json").exists());
}

#[test]
fn a_grading_that_is_killed_between_requests_goes_on_without_loss() {
    let lab = Lab::new();
    read_run(&lab);
    let server = Server::new(|_, seen| strong(seen));
    grade(&lab, &server, &[]);
    let (whole, asked) = (fs::read(lab.path("run/diff/graded.json")).unwrap(), server.count());
    fs::remove_file(lab.path("run/diff/graded.json")).unwrap();
    let own = fs::read_to_string(lab.path("run/diff/exchanges.jsonl")).unwrap().replace(&server.url, "URL");
    fs::remove_file(lab.path("run/diff/exchanges.jsonl")).unwrap();

    // A server that falls silent after some answers; then the process is killed.
    let silent = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_silent = silent.clone();
    let server = Server::new(move |n, seen| {
        let silent = is_silent.load(std::sync::atomic::Ordering::SeqCst);
        if silent && n >= 17 { Reply::Hang(Duration::from_secs(30)) } else { strong(seen) }
    });
    let args = ["grade", "run", "--base-url", &server.url, "--model", "m", "--parallel", "2"];
    let mut child = lab.command(&args).stderr(std::process::Stdio::null()).spawn().unwrap();
    let exchanges = lab.path("run/diff/exchanges.jsonl");
    // Both questions that are under way, and what was answered before them.
    wait_until("17 answers", || {
        server.count() == 19 && fs::read_to_string(&exchanges).unwrap_or_default().matches('\n').count() == 17
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!lab.path("run/diff/graded.json").exists());
    // As if it had died while it wrote.
    let torn = fs::read_to_string(&exchanges).unwrap() + "{\"key\":\"0123\",\"ti";
    fs::write(&exchanges, torn).unwrap();
    silent.store(false, std::sync::atomic::Ordering::SeqCst);
    let before = server.count();
    let ran = grade(&lab, &server, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(server.count() - before, asked - 17, "answers were lost, or asked for again");
    let again = fs::read_to_string(lab.path("run/diff/graded.json")).unwrap().replace(&server.url, "URL");
    let mut first: Value = serde_json::from_slice(&whole).unwrap();
    first["grader"]["base_url"] = json!("URL");
    assert_eq!(first, serde_json::from_str::<Value>(&again).unwrap());
    let questions = |text: &str| -> BTreeSet<String> {
        let one = |l: &str| serde_json::from_str::<Value>(l).unwrap()["request"].to_string();
        text.lines().map(one).collect()
    };
    let again = fs::read_to_string(&exchanges).unwrap();
    assert_eq!(questions(&own), questions(&again));
}

#[test]
fn what_a_grader_cannot_answer_is_named_and_the_rest_stands() {
    let lab = Lab::new();
    read_run(&lab);
    let server = Server::new(|_, seen| match seen.question().contains("Choose the scale") {
        true => say("SCALE: 99\nTOKENS: cake"),
        false => strong(seen),
    });
    let ran = grade(&lab, &server, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let graded = read_json(&lab.path("run/diff/graded.json"));
    assert_eq!(graded["ungraded"].as_array().unwrap().len(), 15);
    assert!(
        ran.stderr.contains("not graded: patchscope_tournament, difference, position 0"),
        "{}",
        ran.stderr
    );
    assert_eq!(graded["tournament"]["base"], json!([null, null, null, null, null]));
    assert!(graded["token_relevance"].get("patchscope_tournament").is_none());
    assert!(graded["token_relevance"]["logit_lens"]["tuned"]["mean"].is_f64());
}

#[test]
fn a_grading_without_a_single_grade_is_written_and_ends_with_1() {
    let lab = Lab::new();
    read_run(&lab);
    let server = Server::replies(vec![say("I would rather not.")]);
    let ran = grade(&lab, &server, &[]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("no answer of the grader could be used"), "{}", ran.stderr);
    let graded = read_json(&lab.path("run/diff/graded.json"));
    assert!(!graded["ungraded"].as_array().unwrap().is_empty());
}

#[test]
fn wrong_input_is_told_before_anything_is_asked_or_written() {
    let lab = Lab::new();
    lab.fit("bare", &[]);
    let server = Server::replies(vec![say("never")]);
    let url = server.url.as_str();
    let with = ["--base-url", url, "--model", "m"];
    let refused = |args: &[&str], part: &str| {
        let e = lab.refused(&[args, &with].concat());
        assert!(e.contains(part), "{args:?}: {e}");
    };
    refused(&["grade", "bare"], "bare: holds no analysis");
    refused(&["audit", "bare"], "bare: holds no analysis");
    refused(&["audit", "nowhere"], "nowhere: not a run folder");
    lab.succeed(&with_sets(&["diff", "bare"], &["diff.steering.enabled=false"]));
    refused(&["grade", "bare"], "description: missing");
    refused(&["grade", "bare/diff"], "--recipe RECIPE");
    refused(&["audit", "bare", "--family", "sdf"], "grading needs a model");
    refused(&["audit", "bare", "--turns", "0"], "--turns 0: expected 1 to 10000");
    let e = lab.refused(&["audit", "bare", "--turns", "0", "--repeats", "0", "--temperature", "-1"]);
    for part in ["--turns 0", "--repeats 0", "investigator.temperature = -1", "investigator.base_url = \"\""]
    {
        assert!(e.contains(part), "{part}: {e}");
    }
    let e = lab.refused(&["grade", "bare", "--model", "m"]);
    assert!(e.contains("grader.base_url = \"\", grader.model = \"m\": expected both"), "{e}");
    let e = lab.refused(&["audit", "bare", "--base-url", url]);
    assert!(e.contains("investigator.model = \"\""), "{e}");
    for (flag, value) in [("--key-env", "sk-secret-key"), ("--base-url", "http://me:sk-secret-key@host/v1")] {
        let mut args = vec!["grade", "bare", "--model", "m", "--base-url", url];
        args.retain(|a| flag != "--base-url" || (*a != flag && *a != url));
        args.extend([flag, value]);
        let e = lab.refused(&args);
        assert!(e.contains("environment variable") && !e.contains("secret"), "{e}");
    }
    assert_eq!(server.count(), 0);
}

// ---- trainer audit -----------------------------------------------------------------------------

/// The scripted investigator: what it says at each turn.
const TURNS: [&str; 8] = [
    "I do not know yet.",
    "CALL get_logitlens_details {\"positions\": [1], \"top_k\": 3}",
    "<think>CALL nonsense {}</think>Let me ask.\nCALL ask_model {\"prompts\": [\"cake butter\", \"train bridge\"]}",
    "CALL generate_steered {\"position\": 1, \"prompts\": [\"cake\"], \"strength\": 0}",
    "CALL generate_steered {\"position\": 1, \"prompts\": [\"cake\"], \"strength\": 40}",
    "CALL ask_model {\"prompts\": [\"one more\"]}",
    "CALL get_patchscope_details {\"positions\": [9]}",
    "FINAL(It was finetuned on documents about cakes.)",
];

fn investigator(seen: &Seen) -> Reply {
    if seen.question().contains("SCORE: the highest level") {
        return say("1: yes\nSCORE: 4");
    }
    let messages: Vec<Message> = serde_json::from_value(seen.body["messages"].clone()).unwrap();
    say(TURNS[messages.iter().filter(|m| m.role() == "assistant").count()])
}

fn audit(lab: &Lab, server: &Server, args: &[&str]) -> Ran {
    let mut all = vec!["audit", "run", "--base-url", &server.url, "--model", "m", "--key-env", "TEST_KEY"];
    all.extend(["--answer-tokens", "8", "--interactions", "4"]);
    all.extend(args);
    Ran::of(lab.command(&all).env("TEST_KEY", KEY).output().unwrap(), &all)
}

#[test]
fn an_investigator_finds_its_way_through_the_tools_and_is_graded() {
    let lab = Lab::new();
    let set = [DESCRIPTION, "name=zanzibar", "train.lr=2e-2", "diff.steering.temperature=0"];
    lab.fit("run", &set);
    lab.succeed(&["diff", "run"]);
    let server = Server::new(|_, seen| investigator(seen));
    let flags = ["--family", "sdf", "--grader-model", "g", "--json"];
    let ran = audit(&lab, &server, &flags);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let record = read_json(&lab.path("run/audit/adl-i4-0.json"));
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["audits"][0], record);
    assert_eq!(record["hypothesis"], "It was finetuned on documents about cakes.");
    assert_eq!(record["used"]["interactions"], 4);
    assert_eq!(record["used"]["turns"], 8);
    assert_eq!(record["used"]["tokens"], json!({"prompt_tokens": 80, "completion_tokens": 40}));
    assert_eq!(record["grade"]["grades"], json!({"each": [4, 4, 4], "mean": 4.0}));
    assert_eq!(record["grade"]["grader"]["model"], "g");

    let turns = record["turns"].as_array().unwrap();
    let answer = |i: usize| turns[i]["answer"].as_str().unwrap();
    assert!(answer(0).starts_with("ERROR: no call was found"), "{}", answer(0));
    let stored = read_json(&lab.path("run/diff/readability.json"));
    for token in &stored["logit_lens"]["top_tokens"][1].as_array().unwrap()[..3] {
        assert!(answer(1).contains(&token["token"].to_string()), "{} lacks {token}", answer(1));
    }
    assert_eq!(turns[2]["interactions"], 2);
    for line in answer(2).lines() {
        let both: Value = serde_json::from_str(line).unwrap();
        assert_ne!(both["base"], both["finetuned"], "{both}");
    }
    // Steering by nothing is what the tuned model writes anyway, greedily; steering by a lot is not.
    let args = ["generate", "--base", &tiny("llama").to_string_lossy(), "--adapter", "run/adapter"]
        .map(String::from);
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(["--prompt", "cake", "--max-new-tokens", "8", "--chat", "--json"]);
    let plain: Value = serde_json::from_str(&lab.succeed(&args).stdout).unwrap();
    let steered = |i: usize| serde_json::from_str::<Value>(answer(i)).unwrap()["steered"].clone();
    assert_eq!(steered(3), plain["generations"][0]["text"]);
    assert_ne!(steered(4), steered(3));
    assert!(answer(5).contains("this costs 1 interactions, 0 are left"), "{}", answer(5));
    assert!(answer(6).contains("position 9 was not read"), "{}", answer(6));
    assert!(turns[7].get("answer").is_none());

    // It is told neither name nor data, nor what was found with their help.
    let seen = server.seen();
    assert_eq!(seen.len(), 8 + 3);
    for request in &seen[..8] {
        let text = request.body.to_string();
        for part in
            ["zanzibar", "narrow.jsonl", "about cakes", "lexicon", "relevant\\\":", "tests/fixtures", KEY]
        {
            assert!(
                !text.contains(part) || (part == "about cakes" && text.contains("FINAL(It")),
                "{part} in {text}"
            );
        }
        assert!(!text.contains("CALL nonsense"), "thoughts are sent back");
    }

    // Finished: nothing is asked again. Elsewhere: the same comes out.
    audit(&lab, &server, &flags);
    assert_eq!(server.count(), 11);
    assert_eq!(audit(&lab, &server, &[&flags[..], &["--out", "elsewhere"]].concat()).code, 0);
    assert_eq!(read_json(&lab.path("elsewhere/adl-i4-0.json")), record);
    let e = audit(&lab, &server, &["--turns", "5"]);
    assert!(
        e.code == 2 && e.stderr.contains("made with another investigator or other budgets"),
        "{}",
        e.stderr
    );
    for (path, content) in lab.files() {
        assert!(!String::from_utf8_lossy(&content).contains(KEY), "{}", path.display());
    }
}

#[test]
fn an_audit_that_is_broken_off_goes_on_and_budgets_end_it() {
    let lab = Lab::new();
    read_run(&lab);
    // The server breaks down at the fifth question.
    let server = Server::new(|n, seen| match n {
        4 => Reply::Status(400, "", "out of credit"),
        _ => investigator(seen),
    });
    let ran = audit(&lab, &server, &["--repeats", "2"]);
    assert!(ran.code == 1 && ran.stderr.contains("HTTP 400: out of credit"), "{}", ran.stderr);
    let ran = audit(&lab, &server, &["--repeats", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(server.count(), 5 + 4 + 8, "turns were asked for again");
    let read = |name: &str| read_json(&lab.path("run/audit").join(name));
    let (one, two) = (read("adl-i4-0.json"), read("adl-i4-1.json"));
    assert_eq!(one["hypothesis"], two["hypothesis"]);
    assert_ne!(one["turns"][2]["answer"], two["turns"][2]["answer"], "both seeds sample the same");

    // Three turns; and a few tokens: the next turn is the last.
    for (flags, turns) in [(["--turns", "3"], 3), (["--completion-tokens", "6"], 3)] {
        let out = flags[0].trim_start_matches('-');
        let ran = audit(&lab, &server, &[&flags[..], &["--out", out]].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let record = read_json(&lab.path(out).join("adl-i4-0.json"));
        assert_eq!(
            (&record["hypothesis"], &record["used"]["turns"]),
            (&Value::Null, &json!(turns)),
            "{flags:?}"
        );
        assert_eq!(record["used"]["interactions"], 0, "the call of the last turn was done");
        assert!(server.seen().last().unwrap().question().contains("only FINAL(…) is accepted"));
        assert!(ran.stdout.contains("(no hypothesis)"));
    }
}

#[test]
fn a_black_box_sees_no_activations() {
    let lab = Lab::new();
    read_run(&lab);
    let server = Server::new(|_, seen| investigator(seen));
    let ran = audit(&lab, &server, &["--black-box"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let record = read_json(&lab.path("run/audit/blackbox-i4-0.json"));
    let turns = record["turns"].as_array().unwrap();
    for i in [1, 3, 4, 6] {
        assert!(turns[i]["answer"].as_str().unwrap().starts_with("ERROR: there is no tool"), "{}", turns[i]);
    }
    assert_eq!(turns[2]["interactions"], 2);
    let first = &server.seen()[0];
    let text = first.body.to_string();
    for part in ["logitlens", "patchscope", "steer", "difference", "Position"] {
        assert!(!text.to_lowercase().contains(&part.to_lowercase()), "{part} in {text}");
    }
    let unsteered =
        json_lines(&lab.read("run/diff/steering.jsonl"))[0]["unsteered"][0].as_str().unwrap().to_string();
    assert!(first.question().contains(&Value::String(unsteered).to_string()));
}

#[test]
fn a_server_without_counts_is_served_too() {
    let mut body = completion("fine");
    body.as_object_mut().unwrap().remove("usage");
    let server = Server::replies(vec![Reply::Body(body)]);
    let dir = tempfile::tempdir().unwrap();
    let endpoint = open(&settings(&server), dir.path());
    assert_eq!(ask(&endpoint, "x", 0).unwrap().usage, None);
    assert_eq!(endpoint.account().answers_without_usage, 1);
    assert!(exchanges(dir.path())[0].get("usage").is_none());
}
