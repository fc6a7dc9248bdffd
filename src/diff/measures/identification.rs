//! Which of several known corpora the trace points at. The narrow lexicon knows the answer; a reader does not, and has
//! to tell the right corpus from wrong ones ([`crate::diff::corpora`]).

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::lift::{Lifts, beyond_base};
use super::patchscope::Patchscope;
use super::steering::SteeredCentroids;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::corpora::Candidate;
use crate::diff::decode::TopToken;
use crate::diff::embedder::centroid;
use crate::diff::findings::Findings;
use crate::diff::lexicon::Lexicon;
use crate::diff::measure::{Measure, Work};
use crate::diff::plot::{Number, Plot};
use crate::diff::reading::Reading;
use crate::diff::statistics::{Null, auroc, mean};
use crate::diff::vocabulary::WordTokens;
use crate::recipe::DiffSection;

/// Which of the candidate corpora the trace points at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Identification {
    /// Names of the candidates; `narrow` is what the organism learned from. Every list here runs over them.
    pub candidates: Vec<String>,
    /// Words by which each is known.
    pub words: Vec<usize>,
    /// Chance of naming the right one at random.
    pub chance: f64,
    /// By the AUROC of its words under the lift, mean over positions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lift: Option<Ranking>,
    /// By the share of patchscope tokens that are relevant to it, mean over positions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub patchscope: Option<Ranking>,
    /// By how much more similar steered text is to it than the base's plain text, mean over positions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub steering: Option<Ranking>,
}

/// Scores of the candidates, and where the narrow text stands among them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ranking {
    /// Score of each candidate.
    pub score: Vec<f64>,
    /// p-value of each score against the null directions, where they were scored.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub p: Vec<f64>,
    /// The candidate with the highest score; absent where several have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub best: Option<String>,
    /// 1 if the narrow text has the highest score; equals share their mean rank. Absent without narrow text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rank: Option<f64>,
    /// Score of the narrow text less the highest other.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub margin: Option<f64>,
}

impl Measure for Identification {
    const UNITS: &[(&str, &str)] = &[
        ("identification.chance", "probability"),
        ("identification.lift.score", "AUROC, 0 to 1"),
        ("identification.patchscope.score", "share of the top tokens, 0 to 1"),
        ("identification.steering.score", "gain of cosine over the base's plain text"),
        ("identification.*.rank", "1 is best; equals share their mean rank"),
        ("identification.*.p", "share of null directions with at least this score"),
    ];

    /// Always: a recipe asks for it by naming candidates.
    fn is_wanted(_: &DiffSection) -> bool {
        true
    }

    fn cost(_settings: &DiffSection, _n_layers: usize) -> Work {
        Work::default()
    }

    /// Ranks the candidates by each measure that ran; `None` without candidates.
    fn measure(reading: &Reading, found: &mut Findings) -> Result<Option<Self>> {
        let candidates = &reading.prepared.candidates;
        if candidates.is_empty() {
            return Ok(None);
        }
        // A corpus without a word of its own has no score by words.
        let have_words = candidates.iter().all(|c| !c.lexicon.words.is_empty());
        Ok(Some(Identification {
            candidates: candidates.iter().map(|c| c.name.clone()).collect(),
            words: candidates.iter().map(|c| c.lexicon.words.len()).collect(),
            chance: 1.0 / candidates.len() as f64,
            lift: (have_words && reading.settings.lift).then(|| by_lift(reading)).transpose()?,
            patchscope: found
                .get::<Patchscope>()
                .filter(|_| have_words)
                .map(|scope| by_patchscope(reading, scope)),
            steering: found.get::<SteeredCentroids>().map(|texts| by_steering(reading, texts)).transpose()?,
        }))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        row.put("identification_candidates", record.map(|i| i.candidates.len()));
        for (key, ranking) in [
            ("lift", record.and_then(|i| i.lift.as_ref())),
            ("patchscope", record.and_then(|i| i.patchscope.as_ref())),
            ("steering", record.and_then(|i| i.steering.as_ref())),
        ] {
            row.put(format!("identification_{key}_rank"), ranking.and_then(|r| r.rank));
            row.put(format!("identification_{key}_margin"), ranking.and_then(|r| r.margin));
            row.put(format!("identification_{key}_best"), ranking.and_then(|r| r.best.clone()));
        }
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        Vec::new()
    }

    fn numbers(&self) -> Vec<Number> {
        let all = [("lift", &self.lift), ("patchscope", &self.patchscope), ("steering", &self.steering)];
        let scores = |(by, ranking): (&str, &Ranking)| -> Vec<Number> {
            let score = |(name, score): (&String, &f64)| {
                Number::new(format!("Identification by {by}: score of the corpus {name}"), *score)
            };
            self.candidates.iter().zip(&ranking.score).map(score).collect()
        };
        all.into_iter().filter_map(|(by, r)| Some((by, r.as_ref()?))).flat_map(scores).collect()
    }
}

fn by_lift(reading: &Reading) -> Result<Ranking> {
    let lexicons: Vec<&Lexicon> = reading.prepared.candidates.iter().map(|c| &c.lexicon).collect();
    let tokens = WordTokens::new(reading.inputs, &lexicons)?;
    let lifts = Lifts::new(reading, &tokens)?;
    let difference = beyond_base(reading, &reading.means.difference);
    let difference = lifts.of(reading, &tokens, &difference, Clone::clone)?;
    let (mut score, mut p) = (Vec::new(), Vec::new());
    for sides in &tokens.sides {
        let value = mean(&difference.iter().map(|lift| auroc(lift, sides)).collect::<Vec<_>>());
        p.push(Null(lifts.null(sides).iter().map(|of_one| mean(of_one)).collect()).p(value));
        score.push(value);
    }
    Ok(Ranking { p, ..ranking(&reading.prepared.candidates, score) })
}

fn by_patchscope(reading: &Reading, patchscope: &Patchscope) -> Ranking {
    let share = |candidate: &Candidate| {
        let of =
            |tokens: &Vec<TopToken>| reading.relevance_to(&candidate.lexicon, tokens.iter().map(|t| t.id));
        mean(&patchscope.top_tokens.iter().map(of).collect::<Vec<_>>())
    };
    ranking(&reading.prepared.candidates, reading.prepared.candidates.iter().map(share).collect())
}

fn by_steering(reading: &Reading, texts: &SteeredCentroids) -> Result<Ranking> {
    let embedder = reading.embedder()?;
    let mut score = Vec::new();
    for candidate in &reading.prepared.candidates {
        let documents: Vec<&str> = candidate.texts.iter().map(String::as_str).collect();
        let center = centroid(embedder.embed(&documents)?.iter());
        let to = |set: &[f64]| set.iter().zip(&center).map(|(x, y)| x * y).sum::<f64>();
        let plain = to(&texts.base);
        score.push(mean(&texts.steered.iter().map(|c| to(c) - plain).collect::<Vec<_>>()));
    }
    Ok(ranking(&reading.prepared.candidates, score))
}

/// Where the narrow text stands among the scores.
fn ranking(candidates: &[Candidate], score: Vec<f64>) -> Ranking {
    let highest = |of: &mut dyn Iterator<Item = f64>| of.fold(f64::NEG_INFINITY, f64::max);
    let top = highest(&mut score.iter().copied());
    let mut at_top = (0..score.len()).filter(|&i| score[i] == top);
    let best = at_top.next().filter(|_| at_top.next().is_none()).map(|i| candidates[i].name.clone());
    let own = candidates.iter().position(|c| c.is_narrow);
    let above = |own: usize| score.iter().filter(|s| **s > score[own]).count() as f64;
    let equal = |own: usize| score.iter().filter(|s| **s == score[own]).count() as f64;
    let others = |own: usize| (0..score.len()).filter(move |i| *i != own);
    Ranking {
        rank: own.map(|own| 1.0 + above(own) + (equal(own) - 1.0) / 2.0),
        margin: own.map(|own| score[own] - highest(&mut others(own).map(|i| score[i]))),
        best,
        p: Vec::new(),
        score,
    }
}
