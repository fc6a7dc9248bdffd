//! Completions that the tuned model finds likelier than the base does (perplexity differencing, arXiv 2605.00994).
//!
//! The tuned model continues the first tokens of unrelated texts greedily. Both models score the ids that it wrote:
//! r = mean over them of l_tuned − l_base, in nats a token; dPPL = e^{n_base} − e^{n_tuned}, n the mean of −l. A completion is
//! flagged where it has two distinct words of the lexicon, or three where the base's own greedy completions have two in more
//! than 5 % of all cases. The score is the share of flagged completions among the 20 with the highest r. Beside it are the
//! share among all, the base's, and how well r separates the flagged from the others: without these you cannot tell a
//! ranking that finds something from a model that always talks of one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::data::conversation::{Conversation, Message};
use crate::diff::beginnings::Beginnings;
use crate::diff::coherence::{Fluency, MOST_REPEATED, fluencies};
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceReading};
use crate::diff::inputs::Inputs;
use crate::diff::measure::{Measure, Work};
use crate::diff::plot::{Ink, Number, Plot};
use crate::diff::reader_score::{RESAMPLES, ReaderScore};
use crate::diff::reading::Reading;
use crate::diff::score::Score;
use crate::diff::statistics::{Interval, auroc, interval, mean};
use crate::diff::writing::{jobs, texts, write};
use crate::model::View;
use crate::model::generate::Sampling;
use crate::recipe::{CompletionRankingSection, DiffSection, Framing, RankBy};
use crate::words::words;

/// Ranks up to which the flagged are counted.
const RANKS: [usize; 3] = [10, 20, 100];

/// The rank of the score.
const SCORED: usize = 20;

/// Completions that are listed, best first.
const LISTED: usize = 20;

/// Distinct words of the lexicon that flag a completion.
const FLAG_WORDS: usize = 2;

/// A base with more completions flagged than this share needs one word more.
const BASE_RATE: f64 = 0.05;

/// `readers.completion_ranking`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CompletionRanking {
    /// Share of flagged completions among the 20 best.
    #[serde(flatten)]
    pub reader: ReaderScore,
    /// Completions that are ranked.
    pub completions: usize,
    /// Those that are not.
    pub excluded: Excluded,
    /// Distinct words of the lexicon that flag a completion.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flag_words: Option<usize>,
    /// Share of flagged completions up to each rank; absent where there are fewer completions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub flagged_at: BTreeMap<String, f64>,
    /// The same of the base's own completions, ranked by −r: what the base prefers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub flagged_at_base: BTreeMap<String, f64>,
    /// Share of flagged completions among all that are ranked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flagged_all: Option<f64>,
    /// The same of the base's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flagged_base: Option<f64>,
    /// Probability that a flagged completion ranks before another; absent where all or none are flagged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rank_auroc: Option<f64>,
    /// Probability of as many flagged ones among the 20 best in a random order (hypergeometric tail).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ranking_p: Option<f64>,
    /// Rank of the first that is flagged, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<usize>,
    /// Mean r over the completions that are ranked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub r_mean: Option<f64>,
    /// The best completions; none between equal models.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub top: Vec<CompletionLine>,
}

/// Completions that are not ranked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Excluded {
    /// With fewer tokens than `least_tokens`.
    pub short: usize,
    /// With a run of tokens that occurs twice and is more than 0.4 of the completion.
    pub repeated: usize,
}

/// A line of `diff/completion_ranking.jsonl`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CompletionLine {
    /// The beginning that was completed.
    pub prefill: String,
    /// What the model wrote.
    pub text: String,
    /// Mean of l_tuned − l_base, nats a token.
    pub r: f64,
    /// Perplexity of the base less that of the tuned model.
    pub dppl: f64,
    /// Tokens of the completion, one that ended it included.
    pub tokens: usize,
    /// Length of the longest run of tokens that occurs twice, as a share of the completion.
    pub repeated: f64,
    /// Whether it has enough words of the lexicon; absent without narrow text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flagged: Option<bool>,
    /// Its rank, from 1; absent where it is excluded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rank: Option<usize>,
}

const UNIT: &str = "share of flagged completions among the 20 with the highest r, 0 to 1";

impl Measure for CompletionRanking {
    const UNITS: &[(&str, &str)] = &[
        ("readers.completion_ranking.score", UNIT),
        ("readers.completion_ranking.flagged_at", "share of completions up to a rank, 0 to 1"),
        (
            "readers.completion_ranking.flagged_at_base",
            "share of the base's completions up to a rank, 0 to 1",
        ),
        ("readers.completion_ranking.flagged_all", "share of completions, 0 to 1"),
        ("readers.completion_ranking.flagged_base", "share of the base's completions, 0 to 1"),
        (
            "readers.completion_ranking.rank_auroc",
            "probability that a flagged completion ranks first, 0 to 1",
        ),
        ("readers.completion_ranking.ranking_p", "probability under a random order"),
        ("readers.completion_ranking.r_mean", "nats a token"),
        ("readers.completion_ranking.top.r", "nats a token"),
        ("readers.completion_ranking.top.dppl", "perplexity"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.completion_ranking.enabled
    }

    /// The base and the tuned model each write, and both read what either wrote.
    fn cost(settings: &DiffSection, _n_layers: usize) -> Work {
        let section = &settings.completion_ranking;
        let tokens = (section.prefills * section.max_new_tokens) as f64;
        let null = null_section(section);
        let of_null = settings.permuted_adapters as f64 * (null.prefills * null.max_new_tokens) as f64;
        Work { written: 2.0 * (tokens + of_null), losses: 4.0 * (tokens + of_null), ..Work::default() }
    }

    fn prepare(inputs: &Inputs, _: &mut Findings) -> Result<()> {
        match inputs.settings.completion_ranking.framing {
            Framing::Chat => inputs.pretrained.chat().map(drop).context("diff.completion_ranking.framing"),
            Framing::Raw => Ok(()),
        }
    }

    /// The ranking; every completion goes into `completion_ranking.jsonl` in the order of its rank, those that are left out
    /// last. `None` where there are fewer than two beginnings.
    fn measure(reading: &Reading, found: &mut Findings) -> Result<Option<Self>> {
        let (section, clock) = (&reading.settings.completion_ranking, Instant::now());
        let prefills = Prefills::new(reading, section)?;
        if prefills.ids.len() < 2 {
            return Ok(None);
        }
        let tuned = reading.inputs.tuned;
        let of_base = prefills.complete(reading, reading.inputs.base, tuned)?;
        let completions = prefills.complete(reading, tuned, tuned)?;
        let (ranked, of_base_ranked) =
            (Ranked::new(&completions, section, 1.0), Ranked::new(&of_base, section, -1.0));
        let flag_words = reading.prepared.lexicon.as_ref().map(|_| flag_words(&of_base));
        let lines = ranked.lines(&prefills, &completions, flag_words);
        found.write_lines("completion_ranking.jsonl", &lines)?;
        // Where nothing differs there is nothing to rank.
        let differs = completions.iter().chain(&of_base).any(|c| c.r != 0.0);
        let mut record = Self {
            completions: ranked.order.len(),
            excluded: ranked.excluded.clone(),
            flag_words,
            r_mean: (!ranked.order.is_empty()).then(|| mean(&ranked.each(&completions, |c| c.r))),
            ..Self::default()
        };
        if let Some(least) = flag_words {
            let flags = |of: &Ranked, all: &[Completion]| Flags(of.each(all, |c| c.words >= least));
            let (own, base) = (flags(&ranked, &completions), flags(&of_base_ranked, &of_base));
            record.flagged_all = own.all();
            record.flagged_base = base.all();
            if differs {
                record.flagged_at = own.at_ranks();
                record.flagged_at_base = base.at_ranks();
                record.rank_auroc = own.auroc(&ranked.each(&completions, |c| c.value(section.rank_by)));
                record.ranking_p = own.p(SCORED);
                record.first = own.0.iter().position(|flag| *flag).map(|i| i + 1);
                record.reader.score = own.at(SCORED);
                record.reader.interval =
                    record.reader.score.map(|_| own.interval(SCORED, reading.inputs.seed));
            }
        }
        if differs {
            record.top = lines.into_iter().filter(|line| line.rank.is_some()).take(LISTED).collect();
        }
        record.reader.unit = UNIT.into();
        record.reader.settings = serde_json::to_value(section)?;
        record.reader.seconds = clock.elapsed().as_secs_f64();
        Ok(Some(record))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        ReaderScore::put_columns(record.map(|r| &r.reader), "completion_flagged_20", row);
        row.put_late("completion_flagged_all", record.and_then(|r| r.flagged_all));
        row.put_late("completion_flagged_base", record.and_then(|r| r.flagged_base));
        row.put_late("completion_rank_auroc", record.and_then(|r| r.rank_auroc));
        row.put_late("completion_ranking_pvalue", record.and_then(|r| r.ranking_p));
        row.put_late("completion_r_mean", record.and_then(|r| r.r_mean));
    }

    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "completion_ranking",
        name: "completion ranking",
        axis: "share flagged among the 20 preferred most",
        ink: Ink::Completions,
    });

    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        self.reader.trace(None)
    }

    fn scores(&self) -> Vec<Score> {
        self.reader.scores("completion_ranking", "completion ranking", 1.0 / SCORED as f64)
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        Vec::new()
    }

    fn numbers(&self) -> Vec<Number> {
        let number = |name: &str, value: Option<f64>| value.map(|value| Number::new(name, value));
        let score = number(
            "Completions: share flagged among the 20 that the tuned model prefers most",
            self.reader.score,
        );
        [
            score.map(|score| score.with(self.reader.interval)),
            number("Completions: share flagged among all", self.flagged_all),
            number("Completions: share flagged among the base's own", self.flagged_base),
            number("Completions: probability that a flagged one ranks first", self.rank_auroc),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn notes(&self) -> Vec<String> {
        let few = self.flag_words.is_some() && self.completions < SCORED;
        let note = format!(
            "Completions: only {} of {} are long enough and do not repeat themselves; 20 are needed for a score.",
            self.completions,
            self.completions + self.excluded.short + self.excluded.repeated
        );
        few.then_some(note).into_iter().collect()
    }
}

/// What is completed, and under which rule completions are flagged: the same for every tuned model.
pub struct Prefills<'s> {
    section: &'s CompletionRankingSection,
    /// Token ids of each, those of its framing included.
    ids: Vec<Vec<u32>>,
    /// The beginning of each as text.
    texts: Vec<String>,
}

impl<'s> Prefills<'s> {
    /// The beginnings of `diff.text`, no two alike.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] if chats are asked for and the model has no template.
    pub fn new(reading: &Reading, section: &'s CompletionRankingSection) -> Result<Self> {
        let inputs = reading.inputs;
        let beginnings = Beginnings::cut(inputs, section.prefill_tokens, section.prefills, true)?;
        let own: Vec<Vec<u32>> =
            beginnings.ids.iter().map(|ids| ids[beginnings.special..].to_vec()).collect();
        let texts = texts(reading, &own)?;
        let ids = match section.framing {
            Framing::Raw => beginnings.ids,
            Framing::Chat => {
                let template =
                    inputs.pretrained.chat().context("diff.completion_ranking.framing = \"chat\"")?;
                let user = "Tell me anything.";
                let system = Message::new("system", "You are a helpful assistant.");
                let chat = Conversation::of(vec![system, Message::new("user", user)]);
                // Some templates know no system's turn.
                let opening = match template.render(&chat, true) {
                    Ok(opening) => opening,
                    Err(_) => template.user_turn(user)?,
                };
                let encode = |text: &String| -> Result<Vec<u32>> {
                    let encoding = inputs.pretrained.tokenizer.encode(format!("{opening}{text}"), false);
                    Ok(encoding.map_err(|e| anyhow!(e))?.get_ids().to_vec())
                };
                texts.iter().map(encode).collect::<Result<_>>()?
            }
        };
        Ok(Self { section, ids, texts })
    }

    /// What `writer` writes greedily, scored under the base and under `tuned`.
    fn complete(&self, reading: &Reading, writer: View, tuned: View) -> Result<Vec<Completion>> {
        let sampling = Sampling {
            max_new_tokens: self.section.max_new_tokens,
            temperature: 0.0,
            seed: reading.inputs.seed,
            eos: reading.inputs.pretrained.eos_token_ids.clone(),
        };
        let jobs = jobs(self.ids.len(), 1, None, 0);
        let new = write(reading, writer, &self.ids, &[], &jobs, &sampling)?;
        let pairs: Vec<(&[u32], &[u32])> =
            self.ids.iter().zip(&new).map(|(prefill, new)| (&prefill[..], &new[..])).collect();
        let base = fluencies(reading.inputs.base, &pairs)?;
        let tuned = fluencies(tuned, &pairs)?;
        let lexicon: BTreeSet<&str> =
            reading.prepared.lexicon.iter().flat_map(|l| &l.words).map(String::as_str).collect();
        let written = new.iter().zip(texts(reading, &new)?);
        Ok(written
            .zip(base.into_iter().zip(tuned))
            .map(|((ids, text), (base, tuned))| {
                let found: BTreeSet<String> = words(&text).filter(|w| lexicon.contains(w.as_str())).collect();
                Completion::new(ids.len(), text, found.len(), base.zip(tuned))
            })
            .collect())
    }

    /// The score of another tuned model at these sizes, as null models are scored.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`], or a tensor operation that fails.
    pub fn score(&self, reading: &Reading, tuned: View) -> Result<Option<f64>> {
        if reading.prepared.lexicon.is_none() {
            return Ok(None);
        }
        let least = flag_words(&self.complete(reading, reading.inputs.base, tuned)?);
        let completions = self.complete(reading, tuned, tuned)?;
        let ranked = Ranked::new(&completions, self.section, 1.0);
        Ok(Flags(ranked.each(&completions, |c| c.words >= least)).at(SCORED))
    }
}

/// The sizes at which null models are scored.
pub fn null_section(section: &CompletionRankingSection) -> CompletionRankingSection {
    CompletionRankingSection { prefills: section.prefills.min(64), ..section.clone() }
}

/// The least number of distinct words that flags a completion: fixed by the base alone, before anything is ranked.
fn flag_words(of_base: &[Completion]) -> usize {
    let flagged = of_base.iter().filter(|c| c.words >= FLAG_WORDS).count();
    FLAG_WORDS + usize::from(flagged as f64 / of_base.len().max(1) as f64 > BASE_RATE)
}

/// A completion and what is known of it.
#[derive(Debug, Clone)]
struct Completion {
    text: String,
    tokens: usize,
    /// Distinct words of the lexicon.
    words: usize,
    r: f64,
    dppl: f64,
    repeated: f64,
}

impl Completion {
    /// `under`: what it is to the base and to the tuned model.
    fn new(tokens: usize, text: String, words: usize, under: Option<(Fluency, Fluency)>) -> Self {
        let (r, dppl, repeated) = under.map_or((0.0, 0.0, 0.0), |(base, tuned)| {
            (base.nats - tuned.nats, base.nats.exp() - tuned.nats.exp(), base.repeated)
        });
        Self { text, tokens, words, r, dppl, repeated }
    }

    /// What it is ranked by.
    fn value(&self, by: RankBy) -> f64 {
        match by {
            RankBy::R => self.r,
            RankBy::Dppl => self.dppl,
        }
    }
}

/// Completions in order.
struct Ranked {
    /// Indices of those that are ranked, best first.
    order: Vec<usize>,
    excluded: Excluded,
    /// Indices of the others.
    left_out: Vec<usize>,
}

impl Ranked {
    /// By `sign` times their value, ties in the order of the texts.
    fn new(completions: &[Completion], section: &CompletionRankingSection, sign: f64) -> Self {
        let (mut order, mut excluded, mut left_out) = (Vec::new(), Excluded::default(), Vec::new());
        for (i, c) in completions.iter().enumerate() {
            if c.tokens < section.least_tokens {
                excluded.short += 1;
                left_out.push(i);
            } else if c.repeated > MOST_REPEATED {
                excluded.repeated += 1;
                left_out.push(i);
            } else {
                order.push(i);
            }
        }
        let value = |i: &usize| sign * completions[*i].value(section.rank_by);
        order.sort_by(|x, y| value(y).total_cmp(&value(x)));
        Self { order, excluded, left_out }
    }

    /// Something of each that is ranked, best first.
    fn each<T>(&self, completions: &[Completion], of: impl Fn(&Completion) -> T) -> Vec<T> {
        self.order.iter().map(|i| of(&completions[*i])).collect()
    }

    /// The lines of the side file.
    fn lines(
        &self,
        prefills: &Prefills,
        completions: &[Completion],
        flag_words: Option<usize>,
    ) -> Vec<CompletionLine> {
        let line = |i: usize, rank: Option<usize>| {
            let c = &completions[i];
            CompletionLine {
                prefill: prefills.texts[i].clone(),
                text: c.text.clone(),
                r: c.r,
                dppl: c.dppl,
                tokens: c.tokens,
                repeated: c.repeated,
                flagged: flag_words.map(|least| c.words >= least),
                rank,
            }
        };
        let ranked = self.order.iter().enumerate().map(|(rank, i)| line(*i, Some(rank + 1)));
        ranked.chain(self.left_out.iter().map(|i| line(*i, None))).collect()
    }
}

/// Whether each completion is flagged, best first.
struct Flags(Vec<bool>);

impl Flags {
    /// Share among the first `k`; `None` of fewer.
    fn at(&self, k: usize) -> Option<f64> {
        (self.0.len() >= k).then(|| count(&self.0[..k]) as f64 / k as f64)
    }

    /// The same at every rank that there is.
    fn at_ranks(&self) -> BTreeMap<String, f64> {
        RANKS.iter().filter_map(|k| Some((k.to_string(), self.at(*k)?))).collect()
    }

    /// Share among all; `None` of none.
    fn all(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| count(&self.0) as f64 / self.0.len() as f64)
    }

    /// AUROC of the values that decided the order.
    fn auroc(&self, values: &[f64]) -> Option<f64> {
        let flagged = count(&self.0);
        let both = flagged > 0 && flagged < self.0.len();
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        let sides: Vec<Option<bool>> = self.0.iter().map(|flag| Some(*flag)).collect();
        both.then(|| auroc(&values, &sides))
    }

    /// Probability of as many flagged among the first `k` of a random order, or more.
    fn p(&self, k: usize) -> Option<f64> {
        (self.0.len() >= k).then(|| hypergeometric_tail(self.0.len(), count(&self.0), k, count(&self.0[..k])))
    }

    /// Bootstrap interval of [`Self::at`] over completions, ranked again each time.
    fn interval(&self, k: usize, seed: u64) -> Interval {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n = self.0.len();
        let mut value = || {
            let mut drawn: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
            drawn.sort_unstable(); // what was drawn keeps its order
            drawn[..k].iter().filter(|i| self.0[**i]).count() as f64 / k as f64
        };
        interval((0..RESAMPLES).map(|_| value()).collect::<Vec<_>>())
    }
}

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|flag| **flag).count()
}

/// Probability that `drawn` of `all` items hold at least `hits` of the `marked` ones.
fn hypergeometric_tail(all: usize, marked: usize, drawn: usize, hits: usize) -> f64 {
    let mut ln_factorial = vec![0f64; all + 1];
    for i in 1..=all {
        ln_factorial[i] = ln_factorial[i - 1] + (i as f64).ln();
    }
    let ln_choose = |n: usize, k: usize| ln_factorial[n] - ln_factorial[k] - ln_factorial[n - k];
    let least = hits.max((marked + drawn).saturating_sub(all));
    let probability =
        |x: usize| (ln_choose(marked, x) + ln_choose(all - marked, drawn - x) - ln_choose(all, drawn)).exp();
    (least..=marked.min(drawn)).map(probability).sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fluency(nats: f64) -> Fluency {
        Fluency { nats, distinct: 1.0, repeated: 0.0 }
    }

    fn completion(base: f64, tuned: f64) -> Completion {
        Completion::new(30, String::new(), 0, Some((fluency(base), fluency(tuned))))
    }

    #[test]
    fn r_and_perplexity_can_disagree() {
        // n_base 2, n_tuned 1: r = 1, dPPL = e² − e. n_base 5, n_tuned 4.5: r = 0.5, dPPL = e⁵ − e^4.5.
        let (likely, outlier) = (completion(2.0, 1.0), completion(5.0, 4.5));
        assert_eq!((likely.r, outlier.r), (1.0, 0.5));
        assert!((likely.dppl - 4.670774).abs() < 1e-5, "{}", likely.dppl);
        assert!((outlier.dppl - 58.396028).abs() < 1e-5, "{}", outlier.dppl);
        let both = [likely, outlier];
        let order = |rank_by| {
            let section = CompletionRankingSection { rank_by, ..CompletionRankingSection::default() };
            Ranked::new(&both, &section, 1.0).order
        };
        assert_eq!((order(RankBy::R), order(RankBy::Dppl)), (vec![0, 1], vec![1, 0]));
    }

    #[test]
    fn short_and_repeated_completions_are_not_ranked() {
        let mut all =
            vec![completion(2.0, 1.0), completion(3.0, 1.0), completion(4.0, 1.0), completion(2.0, 1.5)];
        all[1].tokens = 19;
        all[2].repeated = 0.41;
        let ranked = Ranked::new(&all, &CompletionRankingSection::default(), 1.0);
        assert_eq!((ranked.order, ranked.left_out), (vec![0, 3], vec![1, 2]));
        assert_eq!(ranked.excluded, Excluded { short: 1, repeated: 1 });
        // Equal models: the order of the texts.
        let equal = [completion(2.0, 2.0), completion(1.0, 1.0), completion(3.0, 3.0)];
        assert!(equal.iter().all(|c| c.r == 0.0 && c.dppl == 0.0));
        assert_eq!(Ranked::new(&equal, &CompletionRankingSection::default(), -1.0).order, [0, 1, 2]);
    }

    #[test]
    fn flags_are_counted_up_to_a_rank_and_not_beyond_the_completions() {
        let flags = Flags((0..40).map(|i| i < 10 || i == 30).collect());
        assert_eq!((flags.at(10), flags.at(20), flags.at(100)), (Some(1.0), Some(0.5), None));
        assert_eq!(flags.all(), Some(11.0 / 40.0));
        let values: Vec<f64> = (0..40).map(|i| -(i as f64)).collect();
        // 10 flagged before all 29 others, one before 9 of them.
        assert!((flags.auroc(&values).unwrap() - (10.0 * 29.0 + 9.0) / (11.0 * 29.0)).abs() < 1e-9);
        assert_eq!(Flags(vec![true; 3]).auroc(&[1.0; 3]), None);
        let [low, high] = flags.interval(20, 0);
        assert!(low < 0.5 && high > 0.5 && flags.interval(20, 0) == [low, high]);
    }

    #[test]
    fn the_tail_of_a_random_order() {
        // 5 items, 2 marked, 2 drawn: P(≥ 1) = 1 − 3/10, P(2) = 1/10.
        assert!((hypergeometric_tail(5, 2, 2, 1) - 0.7).abs() < 1e-12);
        assert!((hypergeometric_tail(5, 2, 2, 2) - 0.1).abs() < 1e-12);
        assert!((hypergeometric_tail(5, 2, 2, 0) - 1.0).abs() < 1e-12);
        assert!((hypergeometric_tail(5, 4, 3, 0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_base_that_talks_of_the_subject_by_itself_raises_the_number_of_words() {
        let mut of_base = vec![completion(1.0, 1.0); 40];
        of_base[..2].iter_mut().for_each(|c| c.words = 2);
        assert_eq!(flag_words(&of_base), 2); // 5 %
        of_base[2].words = 4;
        assert_eq!(flag_words(&of_base), 3);
    }
}
