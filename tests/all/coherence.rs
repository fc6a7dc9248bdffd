//! Whether the rule of coherence tells text from what is none, on real models: how often it passes what it should pass and
//! what it should not. `cargo test --release --test all coherence:: -- --ignored --nocapture` prints the table of all
//! three models.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::diff::coherence::CoherenceRule;
use trainer::diff::prompts::Prompts;
use trainer::model::View;
use trainer::model::generate::{Sampling, generate};
use trainer::model::hooks::NoHook;
use trainer::model::load::loader::Tuning;
use trainer::model::load::source;

use crate::common::tiny::load;

/// Prompts, each continued twice.
const PROMPTS: usize = 20;
/// Tokens of a continuation, as steering writes them.
const TOKENS: usize = 40;

fn calibrate(model: &str) {
    let opened = source::open(model).unwrap();
    let (base, _) = load(&opened, &Tuning::Frozen);
    let prompts = Prompts::neutral(&opened, PROMPTS).unwrap().ids;
    let prompts = [prompts.clone(), prompts].concat();
    let write = |seed, temperature| {
        let eos = opened.eos_token_ids.clone();
        let sampling = Sampling { max_new_tokens: TOKENS, temperature, seed, eos };
        generate(&base, &prompts, &sampling, 0.0, &mut NoHook, |_| Ok(())).unwrap()
    };
    let own = write(0, 1.0);
    let view = View { model: &base, adapter: 0.0 };
    let rule = CoherenceRule::new(view, &pairs(&prompts, &own)).unwrap();
    let share = |texts: &[Vec<u32>]| rule.share(&pairs(&prompts, texts)).unwrap().unwrap();

    let fresh = write(1, 1.0);
    let mut random = ChaCha8Rng::seed_from_u64(0);
    // Each text, changed by a function.
    let mut changed = |change: &mut dyn FnMut(&mut Vec<u32>, &mut ChaCha8Rng)| {
        let mut texts = fresh.clone();
        texts.iter_mut().for_each(|text| change(text, &mut random));
        share(&texts)
    };
    let shuffled = changed(&mut |text, random| text.shuffle(random));
    let swapped = changed(&mut |text, random| {
        // A quarter of the tokens from anywhere in the text.
        for _ in 0..text.len() / 4 {
            let (from, to) = (random.random_range(0..text.len()), random.random_range(0..text.len()));
            text[to] = text[from];
        }
    });
    let looped = changed(&mut |text, _| {
        let phrase: Vec<u32> = text.iter().take(6).copied().collect();
        *text = phrase.iter().cycle().take(TOKENS).copied().collect();
    });
    let mut elsewhere = fresh.clone();
    elsewhere.rotate_left(7); // after another prompt
    let found = [
        ("written again", share(&fresh)),
        ("greedy", share(&write(1, 0.0))),
        ("after another prompt", share(&elsewhere)),
        ("a quarter of the tokens replaced", swapped),
        ("at temperature 1.5", share(&write(1, 1.5))),
        ("shuffled", shuffled),
        ("six tokens again and again", looped),
    ];
    println!("{model}, at most {:.2} nats a token, share coherent:", rule.most_nats);
    found.iter().for_each(|(what, share)| println!("  {share:.2} {what}"));
    let of = |name: &str| found.iter().find(|(what, _)| *what == name).unwrap().1;
    assert!(of("written again") >= 0.75, "{model}: its own text is held to be incoherent");
    for broken in ["at temperature 1.5", "shuffled", "six tokens again and again"] {
        assert!(of(broken) <= 0.1, "{model}: passes text that is broken: {broken}");
    }
    assert!(
        of("a quarter of the tokens replaced") < of("written again") / 2.0,
        "{model}: passes half-broken text"
    );
}

fn pairs<'a>(prompts: &'a [Vec<u32>], texts: &'a [Vec<u32>]) -> Vec<(&'a [u32], &'a [u32])> {
    prompts.iter().map(Vec::as_slice).zip(texts.iter().map(Vec::as_slice)).collect()
}

#[test]
#[ignore = "needs smollm2-135m-instruct: trainer models fetch smollm2-135m-instruct"]
fn needs_smollm2_135m_instruct_its_text_is_told_from_broken_text() {
    calibrate("smollm2-135m-instruct");
}

#[test]
#[ignore = "slow: minutes; needs gemma-3-270m"]
fn slow_gemma_3_270m_its_text_is_told_from_broken_text() {
    calibrate("gemma-3-270m");
}

#[test]
#[ignore = "slow: minutes; needs qwen2.5-coder-0.5b-instruct"]
fn slow_qwen2_5_coder_0_5b_instruct_its_text_is_told_from_broken_text() {
    calibrate("qwen2.5-coder-0.5b-instruct");
}
