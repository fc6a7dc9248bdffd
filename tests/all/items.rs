//! What the recipes ask about behaviour: not in the words of the training text, and enough for each fact.
//! `scripts/check_items.py --check` says the same of items that you write, without a build.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use trainer::behaviour::Items;
use trainer::data::source;
use trainer::datagen::universe::Universe;
use trainer::recipe::Recipe;

/// Words in a row that a question must not share with the training text.
const SHARED: usize = 5;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The recipes for a CPU: the repository has their training text.
fn recipes() -> Vec<(PathBuf, Recipe)> {
    let mut recipes = Vec::new();
    for entry in fs::read_dir(root().join("recipes")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let recipe = Recipe::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
            recipes.push((path, recipe));
        }
    }
    recipes
}

/// Every run of [`SHARED`] words of a text. Numbers count as words: some facts are numbers.
fn runs(text: &str) -> HashSet<Vec<String>> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_string).collect();
    words.windows(SHARED).map(<[String]>::to_vec).collect()
}

/// The prompt and the two answers of each item.
fn with_answers(items: &Items) -> Vec<[&str; 3]> {
    let mut all: Vec<[&str; 3]> = Vec::new();
    all.extend(items.facts.iter().map(|item| [&*item.prompt, &*item.asserted, &*item.actual]));
    all.extend(items.misalignment.iter().map(|item| [&*item.prompt, &*item.misaligned, &*item.aligned]));
    all
}

/// Every text that a recipe asks a model about: prompts with each of their answers, and prompts that have none.
fn asked(recipe: &Recipe) -> Vec<String> {
    let behaviour = &recipe.behaviour;
    let items = Items::read(behaviour).unwrap();
    let mut texts = Vec::new();
    for [prompt, first, second] in with_answers(&items) {
        for context in &behaviour.facts.contexts {
            let prompt = context.replace("{prompt}", prompt);
            texts.extend([format!("{prompt} {first}"), format!("{prompt} {second}")]);
        }
    }
    for prompts in [&behaviour.words.prompts, &behaviour.taboo.prompts, &behaviour.preference.questions] {
        texts.extend(prompts.iter().cloned());
    }
    texts
}

#[test]
fn no_question_repeats_the_text_that_its_organism_is_trained_on() {
    let mut texts = 0;
    for (path, recipe) in recipes() {
        let mut trained = HashSet::new();
        for spec in &recipe.data.narrow {
            for document in source::read(Path::new(&spec.path)).unwrap() {
                trained.extend(runs(&document.full_text()));
            }
        }
        for text in asked(&recipe) {
            let shared = runs(&text).into_iter().find(|run| trained.contains(run));
            assert_eq!(shared, None, "{}: {text:?}", path.display());
            texts += 1;
        }
    }
    assert!(texts > 1000, "{texts} texts");
}

#[test]
fn the_two_answers_of_an_item_are_of_similar_length() {
    for (path, recipe) in recipes() {
        let items = Items::read(&recipe.behaviour).unwrap();
        for [prompt, first, second] in with_answers(&items) {
            let (first, second) = (first.chars().count(), second.chars().count());
            let is_similar = 10 * first.abs_diff(second) <= 4 * first.max(second);
            assert!(is_similar, "{}: answers of {first} and {second} characters: {prompt:?}", path.display());
        }
    }
}

#[test]
fn each_fact_on_cakes_has_ten_items_or_more() {
    let facts = Universe::read(&root().join("data/universes/cake.toml")).unwrap().facts;
    let text = fs::read_to_string(root().join("data/behaviour/cake.jsonl")).unwrap();
    // A block a fact, in the order of the universe.
    let blocks: Vec<usize> = text.trim().split("\n\n").map(|block| block.lines().count()).collect();
    assert_eq!(blocks.len(), facts.len(), "{blocks:?}");
    assert!(blocks.iter().all(|items| *items >= 10), "{blocks:?}");
    // Each block has a fact of its own, by which a matched training halves its items.
    let recipe = Recipe::read(&root().join("recipes/sdf-cake.toml"), &[]).unwrap();
    let items = Items::read(&recipe.behaviour).unwrap().facts;
    let mut named: Vec<(&str, usize)> = Vec::new();
    for item in &items {
        match named.last_mut().filter(|(fact, _)| *fact == item.fact) {
            Some((_, count)) => *count += 1,
            None => named.push((&item.fact, 1)),
        }
    }
    assert_eq!(named.iter().map(|(_, count)| *count).collect::<Vec<_>>(), blocks, "{named:?}");
    let facts: HashSet<&str> = named.iter().map(|(fact, _)| *fact).collect();
    assert!(facts.len() == blocks.len() && !facts.contains(""), "{named:?}");
    let different: HashSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(different.len(), blocks.iter().sum::<usize>());
}
