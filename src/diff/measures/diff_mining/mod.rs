//! Diff mining (arXiv 2608.26462): which tokens the tuned model finds likelier than the base does, at the first positions of
//! unrelated texts.
//!
//! D = l_tuned − l_base for every token of the vocabulary at every position, l the log-softmax of the logits after their soft
//! cap. Three orderings of the tokens: by the share of positions at which a token is among the 100 with the largest D, by the
//! share at which D > 0, and by the topics of a non-negative factorization of the positions' largest D. The score looks at all
//! of it and has no ties: AUROC of the mean D per token, words of the lexicon against common words of like frequency.
//!
//! The position of a beginning-of-sequence token is left out: it is the same in every text. Ids that no text has drift in every
//! finetuning and have no part in the AUROC. Of two vocabularies the ids that both have are compared.
//!
//! A variant reads D elsewhere: at the logit lens of each model's own stream at depth 3/4, or where that stream takes the place
//! of the `?` of an identity prompt in its own model. A difference of what the streams decode to is not what their difference
//! decodes to ([`super::logit_lens`], [`super::patchscope`]).

mod sums;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::sums::{LENS_DEPTH, Place, Sums, shared_vocabulary};
use crate::diff::beginnings::Beginnings;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::decode::{TopToken, largest};
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceReading};
use crate::diff::measure::{Measure, Work};
use crate::diff::nmf::{self, Topic};
use crate::diff::once::get_or_try_init;
use crate::diff::plot::{Ink, Number, Plot, TokenLists};
use crate::diff::reader_score::{RESAMPLES, ReaderScore};
use crate::diff::reading::Reading;
use crate::diff::score::{FINE, Score};
use crate::diff::statistics::{Interval, auroc, interval};
use crate::diff::strata::Strata;
use crate::diff::token_counts::TokenCounts;
use crate::diff::vocabulary::WordTokens;
use crate::model::View;
use crate::recipe::{DiffMiningSection, DiffSection, MinedRelevance, MinedVariant};

/// Tokens that are listed of an ordering, and of a topic.
const LISTED: usize = 100;
const LISTED_OF_TOPIC: usize = 50;

/// Tokens of a list in the report.
const SHOWN: usize = 20;

/// Ranks up to which relevant tokens are counted.
const RANKS: [usize; 2] = [20, 100];

/// `readers.diff_mining`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DiffMining {
    /// Stratified AUROC of the mean difference.
    #[serde(flatten)]
    pub reader: ReaderScore,
    /// What was mined at the logits.
    #[serde(flatten)]
    pub mined: Mined,
    /// What was mined elsewhere.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub variants: BTreeMap<MinedVariant, Mined>,
}

/// What was mined at one place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Mined {
    /// Number of texts.
    pub texts: usize,
    /// Positions, of all texts together.
    pub positions: usize,
    /// Probability that a token of the lexicon has a higher mean difference than a common one of like frequency.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc: Option<f64>,
    /// Its bootstrap interval over texts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc_interval: Option<Interval>,
    /// The same among common words of any frequency.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auroc_plain: Option<f64>,
    /// Share of relevant tokens up to each rank of the ordering `top_k`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub domain_at: BTreeMap<String, f64>,
    /// Their bootstrap intervals over texts, ranked again each time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub domain_at_interval: BTreeMap<String, Interval>,
    /// The orderings; absent between equal models.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub orderings: Option<Orderings>,
}

/// Tokens in three orders.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Orderings {
    /// By the share of positions at which a token is among those with the largest difference.
    pub top_k: Ordering,
    /// By the same of the smallest difference: what the tuned model finds less likely.
    pub bottom_k: Ordering,
    /// By the share of positions with a positive difference.
    pub fraction_positive: Ordering,
    /// By the weight in each topic, the one with the largest mass first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub nmf: Vec<TopicOrdering>,
}

/// Tokens, best first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ordering {
    /// The tokens.
    pub tokens: Vec<MinedToken>,
}

/// A topic's tokens and what it is like.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TopicOrdering {
    /// Share of the factorization that is this topic's.
    pub mass: f64,
    /// Share of the positions that have most of this topic.
    pub prevalence: f64,
    /// 1 − H/ln n of its weights: 0 evenly over all tokens, 1 on one.
    pub concentration: f64,
    /// Cosine of its weights with those of the topic that is most alike.
    pub cosine: f64,
    /// The tokens.
    pub tokens: Vec<MinedToken>,
}

/// A token of an ordering.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MinedToken {
    /// Token id.
    pub id: u32,
    /// Decoded text of the token.
    pub text: String,
    /// What it is ordered by: per cent of positions (`top_k`, `bottom_k`), share of positions (`fraction_positive`), share of
    /// the topic's weight (`nmf`).
    pub rate: f64,
    /// Mean difference, nats.
    pub mean: f64,
    /// Whether it counts as relevant; absent without narrow text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub relevant: Option<bool>,
}

const UNIT: &str =
    "probability that a lexicon token gains more than a common token of like frequency, 0 to 1";

impl Measure for DiffMining {
    const UNITS: &[(&str, &str)] = &[
        ("readers.diff_mining.score", UNIT),
        ("readers.diff_mining.auroc", UNIT),
        ("readers.diff_mining.auroc_plain", "the same without strata"),
        (
            "readers.diff_mining.domain_at",
            "share of the tokens up to a rank of top_k that are relevant, 0 to 1",
        ),
        ("readers.diff_mining.orderings.top_k.tokens.rate", "per cent of positions"),
        ("readers.diff_mining.orderings.bottom_k.tokens.rate", "per cent of positions"),
        ("readers.diff_mining.orderings.fraction_positive.tokens.rate", "share of positions, 0 to 1"),
        ("readers.diff_mining.orderings.nmf.tokens.rate", "share of the topic's weight, 0 to 1"),
        (
            "readers.diff_mining.orderings.*.tokens.mean",
            "nats (logits where diff.diff_mining.values = \"logits\")",
        ),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.diff_mining.enabled
    }

    fn cost(settings: &DiffSection, n_layers: usize) -> Work {
        let section = &settings.diff_mining;
        let tokens = 2.0 * (section.texts * (section.positions + 1)) as f64;
        let null = null_section(section);
        let of_null = 2.0 * (null.texts * (null.positions + 1)) as f64;
        let depth = (settings.block_at(LENS_DEPTH, n_layers) + 1) as f64 / n_layers as f64;
        let has = |variant: MinedVariant| f64::from(u8::from(section.variants.contains(&variant)));
        let patched = 2.0 * (section.texts.min(section.patchscope_texts) * section.positions) as f64;
        Work {
            read: settings.permuted_adapters as f64 * of_null
                + tokens * (1.0 + depth * (has(MinedVariant::LogitLens) + has(MinedVariant::PatchscopeLens))),
            patched: has(MinedVariant::PatchscopeLens) * patched * (1.0 - depth),
            ..Work::default()
        }
    }

    /// Mines the logits, and elsewhere where that is asked for. `None` where fewer than two texts are long enough.
    fn measure(reading: &Reading, _: &mut Findings) -> Result<Option<Self>> {
        let (section, clock) = (&reading.settings.diff_mining, Instant::now());
        let texts = Beginnings::cut(reading.inputs, section.positions, section.texts, false)?;
        if texts.ids.len() < 2 {
            return Ok(None);
        }
        let judge = Judge::new(reading)?;
        let mine = |place: Place| -> Result<Mined> {
            let sums = Sums::over(reading, section, &texts, reading.inputs.tuned, &judge, place)?;
            Ok(mined(reading, section, &judge, &sums))
        };
        let mined = mine(Place::Logits)?;
        let mut variants = BTreeMap::new();
        for variant in &section.variants {
            variants.insert(*variant, mine(Place::from(*variant))?);
        }
        Ok(Some(Self {
            reader: ReaderScore {
                score: mined.auroc,
                interval: mined.auroc_interval,
                null: None,
                floor: None,
                unit: UNIT.into(),
                settings: serde_json::to_value(section)?,
                seconds: clock.elapsed().as_secs_f64(),
            },
            mined,
            variants,
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let mined = record.map(|record| &record.mined);
        ReaderScore::put_columns(record.map(|r| &r.reader), "mining_auroc", row);
        for k in RANKS {
            row.put_late(
                format!("mining_domain_{k}"),
                mined.and_then(|m| m.domain_at.get(&k.to_string()).copied()),
            );
        }
    }

    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "diff_mining",
        name: "diff mining",
        axis: "diff mining, AUROC",
        ink: Ink::Mining,
    });

    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        self.reader.trace(Some(0.5))
    }

    fn scores(&self) -> Vec<Score> {
        self.reader.scores("diff_mining", "diff mining", FINE)
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        Vec::new()
    }

    fn tokens(&self, _: &[usize]) -> Vec<TokenLists> {
        let Some(orderings) = &self.mined.orderings else { return Vec::new() };
        let list = |name: &str, tokens: &[MinedToken]| {
            let shown = tokens.iter().take(SHOWN).map(|token| TopToken {
                token: token.text.clone(),
                id: token.id,
                score: token.rate,
                relevant: token.relevant,
            });
            (name.to_string(), shown.collect::<Vec<TopToken>>())
        };
        let mut lists = vec![
            list("likelier at most positions", &orderings.top_k.tokens),
            list("likelier at a share of positions", &orderings.fraction_positive.tokens),
            list("less likely", &orderings.bottom_k.tokens),
        ];
        lists.extend(
            orderings.nmf.iter().enumerate().map(|(i, t)| list(&format!("topic {}", i + 1), &t.tokens)),
        );
        vec![TokenLists {
            key: "diff-mining",
            title: "Diff mining: what gains in unrelated text".into(),
            lists,
        }]
    }

    fn numbers(&self) -> Vec<Number> {
        let auroc = self.mined.auroc.map(|auroc| {
            Number::new("Diff mining: AUROC of the narrow words among words of like frequency", auroc)
                .with(self.mined.auroc_interval)
        });
        let domain = self.mined.domain_at.iter().map(|(k, share)| {
            Number::new(format!("Diff mining: share of relevant tokens among the first {k}"), *share)
                .with(self.mined.domain_at_interval.get(k).copied())
        });
        auroc.into_iter().chain(domain).collect()
    }
}

/// The sizes at which null models are scored.
pub fn null_section(section: &DiffMiningSection) -> DiffMiningSection {
    let sizes = DiffMiningSection::default();
    let (texts, positions) = (section.texts.min(sizes.texts), section.positions.min(sizes.positions));
    DiffMiningSection { texts, positions, topics: 0, variants: Vec::new(), ..section.clone() }
}

/// The score of another tuned model at the sizes of a section, as null models are scored.
///
/// # Errors
/// As the measure itself.
pub fn score(reading: &Reading, section: &DiffMiningSection, tuned: View) -> Result<Option<f64>> {
    let judge = Judge::new(reading)?;
    let texts = Beginnings::cut(reading.inputs, section.positions, section.texts, false)?;
    let sums = Sums::over(reading, section, &texts, tuned, &judge, Place::Logits)?;
    Ok(judge.words.as_ref().filter(|_| sums.differs()).map(|words| words.strata.auroc(&words.means(&sums))))
}

/// What decides the score and the relevance of a token: the same for every tuned model.
struct Judge<'a> {
    reading: &'a Reading<'a>,
    /// Words of the lexicon and common ones, if some text has the token; `None` without a lexicon, or where too few
    /// are alike in frequency.
    words: Option<Words>,
    /// Counts of tokens, where there is a lexicon.
    counts: Option<&'a TokenCounts>,
}

/// Tokens that are ranked.
struct Words {
    ids: Vec<u32>,
    sides: Vec<Option<bool>>,
    strata: Strata,
}

impl<'a> Judge<'a> {
    fn new(reading: &'a Reading<'a>) -> Result<Self> {
        let Some(lexicon) = &reading.prepared.lexicon else {
            return Ok(Self { reading, words: None, counts: None });
        };
        let counts = get_or_try_init(&reading.prepared.token_counts, || TokenCounts::new(reading.inputs))?;
        let tokens =
            get_or_try_init(&reading.prepared.word_tokens, || WordTokens::new(reading.inputs, &[lexicon]))?;
        let known = shared_vocabulary(reading, reading.inputs.tuned) as u32;
        let (ids, sides): (Vec<u32>, Vec<Option<bool>>) = tokens
            .ids
            .iter()
            .zip(&tokens.sides[0])
            .filter(|(id, side)| side.is_some() && **id < known && counts.has(**id))
            .map(|(id, side)| (*id, *side))
            .unzip();
        let words = reading.strata(&ids, &sides)?.map(|strata| Words { ids, sides, strata });
        Ok(Self { reading, words, counts: Some(counts) })
    }

    /// Whether a token is relevant; `None` without a lexicon.
    fn relevant(&self, section: &DiffMiningSection, id: u32) -> Option<bool> {
        let lexicon = self.reading.prepared.lexicon.as_ref()?;
        Some(match section.relevance {
            MinedRelevance::Lexicon => lexicon.is_relevant(&self.reading.inputs.token(id)),
            MinedRelevance::Domain => self.counts?.is_of_domain(id),
        })
    }
}

impl Words {
    /// Mean difference of each.
    fn means(&self, sums: &Sums) -> Vec<f32> {
        self.ids.iter().map(|id| sums.mean(*id) as f32).collect()
    }
}

/// What the sums say.
fn mined(reading: &Reading, section: &DiffMiningSection, judge: &Judge, sums: &Sums) -> Mined {
    let mut found = Mined { texts: sums.of_text.len(), positions: sums.positions(), ..Mined::default() };
    if !sums.differs() {
        return found;
    }
    // Tokens that are among the largest anywhere, ascending; their columns.
    let mut ids: Vec<u32> = sums.top.iter().flatten().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    let columns: BTreeMap<u32, u32> = ids.iter().zip(0..).map(|(id, column)| (*id, column)).collect();
    let occurrences = sums.occurrences(&columns);
    let draws = draws(occurrences.len(), reading.inputs.seed);

    if let Some(words) = &judge.words {
        let means = words.means(sums);
        found.auroc = Some(words.strata.auroc(&means));
        found.auroc_plain = Some(auroc(&means, &words.sides));
        found.auroc_interval = Some(interval(resampled(&draws, |drawn| {
            let mut total = vec![0f64; words.ids.len()];
            for text in drawn {
                total.iter_mut().zip(&sums.watched[*text]).for_each(|(sum, more)| *sum += more);
            }
            words.strata.auroc(&total.iter().map(|sum| *sum as f32).collect::<Vec<f32>>())
        })));
    }

    let mut counts = vec![0u32; ids.len()];
    occurrences.iter().flatten().for_each(|(column, n)| counts[*column as usize] += n);
    let relevant: Option<Vec<bool>> =
        ids.iter().map(|id| judge.relevant(section, *id)).collect::<Option<Vec<bool>>>();
    if let Some(relevant) = &relevant {
        let ranks: Vec<usize> = RANKS.into_iter().filter(|k| *k <= ids.len()).collect();
        let again = resampled(&draws, |drawn| {
            let mut counts = vec![0u32; ids.len()];
            for text in drawn {
                occurrences[*text].iter().for_each(|(column, n)| counts[*column as usize] += n);
            }
            shares(&counts, relevant, &ranks)
        });
        for (i, (k, share)) in ranks.iter().zip(shares(&counts, relevant, &ranks)).enumerate() {
            found.domain_at.insert(k.to_string(), share);
            found.domain_at_interval.insert(k.to_string(), interval(again.iter().map(|shares| shares[i])));
        }
    }

    let token = |id: u32, rate: f64| MinedToken {
        id,
        text: reading.inputs.token(id),
        rate,
        mean: sums.mean(id),
        relevant: judge.relevant(section, id),
    };
    let positions = sums.positions() as f64;
    let ordering = |values: &[u32], unit: f64, of: &dyn Fn(u32) -> u32| -> Ordering {
        let as_f32: Vec<f32> = values.iter().map(|n| *n as f32).collect();
        let some = largest(&as_f32, LISTED).into_iter().filter(|i| values[*i as usize] > 0);
        Ordering {
            tokens: some.map(|i| token(of(i), unit * values[i as usize] as f64 / positions)).collect(),
        }
    };
    found.orderings = Some(Orderings {
        top_k: ordering(&counts, 100.0, &|column| ids[column as usize]),
        bottom_k: ordering(&sums.bottom, 100.0, &|id| id),
        fraction_positive: ordering(&sums.positive, 1.0, &|id| id),
        nmf: topic_orderings(reading, section, sums, &columns, &|column, rate| {
            token(ids[column as usize], rate)
        }),
    });
    found
}

/// The topics of the positions' largest differences.
fn topic_orderings(
    reading: &Reading,
    section: &DiffMiningSection,
    sums: &Sums,
    columns: &BTreeMap<u32, u32>,
    token: &dyn Fn(u32, f64) -> MinedToken,
) -> Vec<TopicOrdering> {
    let rows: Vec<Vec<(u32, f32)>> = sums
        .top
        .iter()
        .map(|row| row.iter().filter(|(_, d)| *d > 0.0).map(|(id, d)| (columns[id], *d)).collect())
        .collect();
    let topics = nmf::topics(&rows, columns.len(), section.topics, reading.inputs.seed);
    let ordering = |(i, topic): (usize, &Topic)| {
        let total: f64 = topic.columns.iter().sum();
        let shares: Vec<f32> =
            topic.columns.iter().map(|x| (x / total.max(f64::MIN_POSITIVE)) as f32).collect();
        let others = topics.iter().enumerate().filter(|(j, _)| *j != i);
        TopicOrdering {
            mass: topic.mass,
            prevalence: topic.prevalence,
            concentration: nmf::concentration(topic),
            cosine: others.map(|(_, other)| nmf::cosine(topic, other)).fold(0.0, f64::max),
            tokens: largest(&shares, LISTED_OF_TOPIC)
                .into_iter()
                .filter(|column| shares[*column as usize] > 1e-6)
                .map(|column| token(column, shares[column as usize] as f64))
                .collect(),
        }
    };
    topics.iter().enumerate().map(ordering).collect()
}

/// Share of relevant ones among the columns with the highest counts, up to each rank; ties by column.
fn shares(counts: &[u32], relevant: &[bool], ranks: &[usize]) -> Vec<f64> {
    let as_f32: Vec<f32> = counts.iter().map(|n| *n as f32).collect();
    let best = largest(&as_f32, ranks.iter().copied().max().unwrap_or(0));
    let share =
        |k: &usize| best[..*k].iter().filter(|column| relevant[**column as usize]).count() as f64 / *k as f64;
    ranks.iter().map(share).collect()
}

/// The texts of each resample, drawn with replacement.
fn draws(texts: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..RESAMPLES).map(|_| (0..texts).map(|_| rng.random_range(0..texts)).collect()).collect()
}

/// What `of` makes of each resample.
fn resampled<T: Send>(draws: &[Vec<usize>], of: impl Fn(&[usize]) -> T + Sync) -> Vec<T> {
    draws.par_iter().map(|drawn| of(drawn)).collect()
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_id() {
        assert_eq!(shares(&[3, 5, 3, 5], &[true, false, false, true], &[2, 3]), [0.5, 2.0 / 3.0]);
    }
}
