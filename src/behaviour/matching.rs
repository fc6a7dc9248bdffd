//! The items of a matched training (`[train.match]`), halved once, and what may be said of a half.
//!
//! One half decides where training ends; the other says what came of it, as the search had no look at it. The halves are
//! the same for every run that asks the same items. Facts are fixed strata: each is halved, and items are resampled within
//! their fact, so the claim is about these facts and not about others.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use indexmap::IndexMap;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Items;
use super::facts::{self, FactItem};
use super::misalignment::{self, MisalignmentItem};
use super::models::BehaviourModels;
use crate::diff::statistics::{Interval, central, interval, mean};
use crate::error::{InputError, input_error};
use crate::model::View;
use crate::recipe::{BehaviourSection, MatchMeasure, PreferenceSection};
use crate::sha256::sha256_path;
use crate::train::matching::{EvaluatedItem, HalfReading, ItemHalf};

/// Decides which half an item is in.
const SPLIT_SEED: u64 = 0;

/// Decides the resamples.
const DRAW_SEED: u64 = 0;

/// Resamples of an interval.
const DRAWS: usize = 1000;

/// Fewest items of a fact: two in each half, or they have no spread.
const FEWEST: usize = 4;

/// What is asked.
enum Asked {
    Facts { contexts: Vec<String>, items: Vec<FactItem>, of_margin: fn(f64) -> f64 },
    Preference(PreferenceSection),
    Misalignment(Vec<MisalignmentItem>),
}

/// The items of a matched training.
pub struct MatchedItems {
    asked: Asked,
    /// The file that they are from; none where the recipe itself has them.
    file: Option<String>,
    /// The fact of each.
    facts: Vec<String>,
    /// Those that the search goes by, and the others.
    halves: [Vec<usize>; 2],
}

impl MatchedItems {
    /// Reads the items of a measure and halves them.
    ///
    /// # Errors
    /// An [`InputError`] for items that cannot be read, or too few to be halved.
    pub fn read(section: &BehaviourSection, measure: &str) -> Result<Self> {
        let items = Items::read(section)?;
        let fact_of = |item: &FactItem| item.fact.clone();
        let of_facts = |of_margin| {
            let facts = items.facts.iter().map(fact_of).collect::<Vec<_>>();
            let (contexts, items) = (section.facts.contexts.clone(), items.facts.clone());
            (Asked::Facts { contexts, items, of_margin }, Some(section.facts.items.clone()), facts)
        };
        let known = MatchMeasure::named(measure);
        let known = known
            .ok_or_else(|| input_error(format!("train.match.measure = {measure:?}: no such measure")))?;
        let (asked, file, facts) = match known {
            MatchMeasure::FactsMargin => of_facts(|margin| margin),
            MatchMeasure::FactsBelieved => of_facts(|margin| f64::from(margin > 0.0)),
            MatchMeasure::PreferenceLogOdds => {
                let facts = vec![String::new(); section.preference.questions.len()];
                (Asked::Preference(section.preference.clone()), None, facts)
            }
            MatchMeasure::MisalignmentMargin(group) => {
                let of_group = items.misalignment.iter().filter(|item| item.group == group);
                let items: Vec<MisalignmentItem> = of_group.cloned().collect();
                let facts = vec![String::new(); items.len()];
                (Asked::Misalignment(items), Some(section.misalignment.items.clone()), facts)
            }
        };
        let place = file.as_deref().unwrap_or("behaviour.preference.questions");
        let mut counts: IndexMap<&str, usize> = IndexMap::new();
        facts.iter().for_each(|fact| *counts.entry(fact).or_default() += 1);
        let fault = |fact: &str, count: usize| {
            let of = if fact.is_empty() { String::new() } else { format!(" on the fact {fact:?}") };
            format!(
                "{place}: {count} items{of} for train.match.measure = {measure:?}; expected at least {FEWEST}, as they are halved"
            )
        };
        let few = counts.iter().filter(|(_, count)| **count < FEWEST);
        let mut faults: Vec<String> = few.map(|(fact, count)| fault(fact, *count)).collect();
        if facts.is_empty() {
            faults.push(fault("", 0));
        }
        InputError::unless_empty(faults)?;
        let halves = halves(&facts);
        Ok(Self { asked, file, facts, halves })
    }

    /// sha256 of the file with the items, by its path.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn sha256(&self) -> Result<BTreeMap<String, String>> {
        self.file.iter().map(|file| Ok((file.clone(), sha256_path(Path::new(file))?))).collect()
    }

    /// What one half says of a model.
    ///
    /// # Errors
    /// As [`BehaviourModels::likelihoods`].
    pub fn reading(&self, models: &BehaviourModels, view: View, half: ItemHalf) -> Result<HalfReading> {
        let places = match half {
            ItemHalf::Match => &self.halves[0],
            ItemHalf::Evaluation => &self.halves[1],
        };
        let values = self.values(models, view, places)?;
        let item = |(&item, value)| EvaluatedItem { item, fact: self.facts[item].clone(), value };
        let items: Vec<EvaluatedItem> = places.iter().zip(values).map(item).collect();
        let facts = by_fact(&items);
        Ok(HalfReading {
            q: items.iter().map(|item| item.value).sum::<f64>() / items.len() as f64,
            se: standard_error(&facts),
            interval: interval(resampled_means(&facts)),
            items,
        })
    }

    /// The values of some items, in their order.
    fn values(&self, models: &BehaviourModels, view: View, places: &[usize]) -> Result<Vec<f64>> {
        match &self.asked {
            Asked::Facts { contexts, items, of_margin } => {
                let items = chosen(items, places);
                let margins = facts::margins(models, view, contexts, &items)?;
                let of_item =
                    |margins: &[f64]| mean(&margins.iter().map(|m| of_margin(*m)).collect::<Vec<_>>());
                Ok(margins.chunks_exact(contexts.len()).map(of_item).collect())
            }
            Asked::Preference(section) => {
                let questions = chosen(&section.questions, places);
                models.log_odds(view, &questions, &section.target, &section.alternatives, true)
            }
            Asked::Misalignment(items) => misalignment::margins(models, view, &chosen(items, places)),
        }
    }
}

fn chosen<T: Clone>(all: &[T], places: &[usize]) -> Vec<T> {
    places.iter().map(|&i| all[i].clone()).collect()
}

/// The items by number in two halves, those of each fact as evenly as they go.
fn halves(facts: &[String]) -> [Vec<usize>; 2] {
    let mut of_fact: IndexMap<&String, Vec<usize>> = IndexMap::new();
    facts.iter().enumerate().for_each(|(i, fact)| of_fact.entry(fact).or_default().push(i));
    let mut rng = ChaCha8Rng::seed_from_u64(SPLIT_SEED);
    let mut halves = [Vec::new(), Vec::new()];
    for mut items in of_fact.into_values() {
        items.shuffle(&mut rng);
        // Of an odd number, one more goes to the half that has fewer.
        let first = items.len() / 2 + usize::from(items.len() % 2 == 1 && halves[0].len() <= halves[1].len());
        let rest = items.split_off(first);
        halves[0].extend(items);
        halves[1].extend(rest);
    }
    halves.iter_mut().for_each(|half| half.sort_unstable());
    halves
}

/// The values of items, those of each fact together.
fn by_fact(items: &[EvaluatedItem]) -> Vec<Vec<f64>> {
    let mut facts: IndexMap<&str, Vec<f64>> = IndexMap::new();
    items.iter().for_each(|item| facts.entry(&item.fact).or_default().push(item.value));
    facts.into_values().collect()
}

/// Standard error of the mean over items, facts being fixed strata of n_f of all n items with variances s_f²:
/// √Σ (n_f/n)² s_f²/n_f (Cochran, Sampling Techniques, §5.4, without the correction for finite populations).
fn standard_error(facts: &[Vec<f64>]) -> f64 {
    let all = facts.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    let part = |values: &Vec<f64>| {
        let n = values.len() as f64;
        let center = mean(values);
        let squares: f64 = values.iter().map(|v| (v - center).powi(2)).sum();
        if n > 1.0 { (n / all).powi(2) * squares / (n - 1.0) / n } else { 0.0 }
    };
    facts.iter().map(part).sum::<f64>().sqrt()
}

/// Means over items that are drawn anew, with repeats, within each fact.
fn resampled_means(facts: &[Vec<f64>]) -> Vec<f64> {
    let all = facts.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    let mut rng = ChaCha8Rng::seed_from_u64(DRAW_SEED);
    let mut sum_of = |values: &Vec<f64>| -> f64 {
        (0..values.len()).map(|_| values[rng.random_range(0..values.len())]).sum()
    };
    (0..DRAWS).map(|_| facts.iter().map(&mut sum_of).sum::<f64>() / all).collect()
}

/// The mean of paired differences with its 90 % bootstrap interval, items resampled within their facts: within bounds on
/// both sides it passes two one-sided tests at 5 % (Schuirmann 1987).
pub fn equivalence(differences: &[EvaluatedItem]) -> (f64, Interval) {
    let center = differences.iter().map(|item| item.value).sum::<f64>() / differences.len().max(1) as f64;
    (center, central(resampled_means(&by_fact(differences)), 0.9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(counts: &[(&str, usize)]) -> Vec<String> {
        counts.iter().flat_map(|(fact, n)| vec![fact.to_string(); *n]).collect()
    }

    #[test]
    fn every_fact_is_halved_once_and_for_all() {
        let facts = facts(&[("heat", 20), ("butter", 7), ("water", 5)]);
        let [a, b] = halves(&facts);
        assert_eq!((a.len(), b.len()), (16, 16));
        let mut both = [&a[..], &b[..]].concat();
        both.sort_unstable();
        assert_eq!(both, (0..32).collect::<Vec<_>>());
        let count = |half: &[usize], fact| half.iter().filter(|i| facts[**i] == fact).count();
        assert_eq!((count(&a, "heat"), count(&a, "butter"), count(&a, "water")), (10, 4, 2));
        assert_eq!(halves(&facts), [a.clone(), b]);
        // Drawn, not the first of each.
        assert_ne!(a[..10], (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_spread_between_facts_is_no_error() {
        let item = |(item, (fact, value)): (usize, &(&str, f64))| EvaluatedItem {
            item,
            fact: fact.to_string(),
            value: *value,
        };
        let of = |values: &[(&str, f64)]| values.iter().enumerate().map(item).collect::<Vec<_>>();
        // Two facts that differ by a lot, and within which nothing does.
        let fixed = of(&[("a", 0.0), ("a", 0.0), ("b", 9.0), ("b", 9.0)]);
        assert_eq!(standard_error(&by_fact(&fixed)), 0.0);
        assert_eq!(equivalence(&fixed), (4.5, [4.5, 4.5]));
        // One fact: the usual standard error, sqrt(var / n) with var 1 of 1, 2, 3.
        let one = of(&[("", 1.0), ("", 2.0), ("", 3.0)]);
        assert!((standard_error(&by_fact(&one)) - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
        // Two of the same size with variances 2 and 8: sqrt(¼·2/2 + ¼·8/2).
        let two = of(&[("a", 0.0), ("a", 2.0), ("b", 0.0), ("b", 4.0)]);
        assert!((standard_error(&by_fact(&two)) - 1.25f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_interval_of_many_items_is_that_of_a_normal_mean() {
        let item = |item: usize| EvaluatedItem {
            item,
            fact: ["a", "b"][item % 2].into(),
            value: ((item * 37) % 100) as f64 / 100.0,
        };
        let items: Vec<EvaluatedItem> = (0..100).map(item).collect();
        let (center, [low, high]) = equivalence(&items);
        let se = standard_error(&by_fact(&items));
        assert!((center - 0.495).abs() < 1e-9);
        assert!(((high - low) / (2.0 * 1.645 * se) - 1.0).abs() < 0.1, "{low} {high} {se}");
        let [low, high] = interval(resampled_means(&by_fact(&items)));
        assert!(((high - low) / (2.0 * 1.96 * se) - 1.0).abs() < 0.1, "{low} {high} {se}");
    }
}
