//! Steering: α·η·v_p/‖v_p‖ is added to the output of the block that is read, at every token, while the tuned
//! model writes.

use anyhow::Result;
use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::diff::coherence::CoherenceRule;
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::embedder::{centroid, mean_cosine};
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceNumber, TraceReading};
use crate::diff::mean_difference::{factor_to, norm};
use crate::diff::measure::{Measure, Needs, Work};
use crate::diff::plot::{Ink, Number, Plot, PlotAxis, PlotSeries, PlotStyle, places};
use crate::diff::prompts::Prompts;
use crate::diff::reading::Reading;
use crate::diff::readout::{self, best};
use crate::diff::score::{FINE, Score};
use crate::diff::statistics::{Interval, Null, interval, mean, spread};
use crate::diff::strength::{Search, pairs};
use crate::diff::writing::{Job, jobs, steering_vector, texts, write};
use crate::model::generate::Sampling;
use crate::recipe::DiffSection;

/// The name of its file in the folder of an analysis.
pub const FILE: &str = "steering.jsonl";

/// Text generated while v_p·η/‖v_p‖·strength is added to the residual stream at every token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Steering {
    /// Positions whose difference was used.
    pub positions: Vec<usize>,
    /// Strength in units of η, per steering position.
    pub strength: Vec<f64>,
    /// The same strength in multiples of the unscaled difference, per steering position.
    pub strength_in_differences: Vec<f64>,
    /// Where the strength was searched for: the greatest that passed for each probe prompt, per steering position.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub strength_thresholds: Vec<Vec<f64>>,
    /// The rule for coherent text, in words.
    #[serde(default)]
    pub coherence_rule: String,
    /// Share of the steered texts that are coherent, of those that are not empty.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub coherent_steered: Vec<f64>,
    /// The same of unsteered text.
    #[serde(default)]
    pub coherent_unsteered: Vec<f64>,
    /// Mean pairwise cosine of sentence embeddings, per steering position.
    pub similarity: Similarity,
    /// Bootstrap interval (over prompts) of `steered_narrow − unsteered_narrow`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub similarity_gain_interval: Vec<Interval>,
    /// Bootstrap interval (over prompts) of `steered_base_narrow − base_narrow`. Its plain text is that of the base, the same
    /// for every organism, so that it compares between runs where `similarity_gain_interval` does not.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub similarity_base_gain_interval: Vec<Interval>,
    /// Bootstrap interval (over prompts and null directions) of `steered_narrow − null_narrow`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub similarity_over_null_interval: Vec<Interval>,
    /// (1 + null directions whose text is at least as similar to the narrow text) / (1 + null directions).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub similarity_p: Vec<f64>,
    /// Share of words of the steered text that are lexicon words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub relevant_words_steered: Vec<f64>,
    /// Share of words of the unsteered text that are lexicon words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub relevant_words_unsteered: Vec<f64>,
    /// Share of words of the base's steered text that are lexicon words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub relevant_words_steered_base: Vec<f64>,
    /// Share of words of the base's unsteered text that are lexicon words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub relevant_words_base: Vec<f64>,
}

/// Mean pairwise cosine between sets of texts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Similarity {
    /// Steered text to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_narrow: Vec<f64>,
    /// Bootstrap interval of [`Self::steered_narrow`] over prompts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_narrow_interval: Vec<Interval>,
    /// Unsteered text to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unsteered_narrow: Vec<f64>,
    /// Bootstrap interval of [`Self::unsteered_narrow`] over prompts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unsteered_narrow_interval: Vec<Interval>,
    /// Unsteered text of the base to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub base_narrow: Vec<f64>,
    /// Bootstrap interval of [`Self::base_narrow`] over prompts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub base_narrow_interval: Vec<Interval>,
    /// Text steered by null directions, at the strength of the position, to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub null_narrow: Vec<f64>,
    /// The base's text, steered by the same vectors, to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_base_narrow: Vec<f64>,
    /// Bootstrap interval of [`Self::steered_base_narrow`] over prompts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_base_narrow_interval: Vec<Interval>,
    /// The base's text, steered by the same vectors, to the reference.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_base_reference: Vec<f64>,
    /// Steered text to the reference (`diff.text`).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_reference: Vec<f64>,
    /// Unsteered text to the reference.
    pub unsteered_reference: Vec<f64>,
    /// Unsteered text of the base to the reference.
    #[serde(default)]
    pub base_reference: Vec<f64>,
    /// Text steered by null directions to the reference.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub null_reference: Vec<f64>,
    /// Narrow text to itself, self pairs included: the ceiling.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub narrow_narrow: Vec<f64>,
}

/// A line of `diff/steering.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SteeringLine {
    /// The prompt, as written.
    pub prompt: String,
    /// Strength in units of η.
    pub strength: f64,
    /// Position whose difference was used.
    pub position: usize,
    /// Generated text with the difference added.
    pub steered: Vec<String>,
    /// Generated text without.
    pub unsteered: Vec<String>,
    /// What the base writes, unsteered.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub base: Vec<String>,
    /// What the base writes with the difference added.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_base: Vec<String>,
    /// Text with null directions added in its place, one direction after the other.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub null: Vec<String>,
}

/// Where the texts lie that were written.
pub struct SteeredCentroids {
    /// Mean embedding of the steered texts, per steering position.
    pub steered: Vec<Vec<f64>>,
    /// Mean embedding of the base's unsteered texts.
    pub base: Vec<f64>,
}

impl Steering {
    /// The gain over plain text; `None` where there was no narrow text.
    pub fn gain(&self) -> Option<SteeringGain<'_>> {
        let s = &self.similarity;
        let pairs = s.steered_narrow.iter().zip(&s.unsteered_narrow);
        let gain = pairs.map(|(steered, plain)| steered - plain).collect();
        (!s.steered_narrow.is_empty()).then_some(SteeringGain { record: self, gain })
    }
}

/// How similar steered text is to the narrow text, and how much of that is gained over plain (unsteered) text.
///
/// The gain says whether steering does anything in one model. Between models it misleads: plain text of an
/// organism that talks about its subject unasked leaves little to gain.
#[derive(Debug, Clone)]
pub struct SteeringGain<'a> {
    /// The record.
    pub record: &'a Steering,
    /// `steered_narrow − unsteered_narrow` per steering position.
    pub gain: Vec<f64>,
}

impl<'a> SteeringGain<'a> {
    /// Index of the steering position whose text is most similar to the narrow text.
    pub fn best(&self) -> Option<usize> {
        best(&self.record.positions, &self.record.similarity.steered_narrow)
    }
}

impl Measure for Steering {
    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "steering",
        name: "steering",
        axis: "similarity of steered text to narrow text",
        ink: Ink::Steered,
    });

    const UNITS: &[(&str, &str)] = &[
        ("steering.strength", "multiples of expected_norm"),
        ("steering.strength_in_differences", "multiples of the unscaled mean difference"),
        ("steering.similarity", "mean pairwise cosine of sentence embeddings, -1 to 1"),
        ("steering.strength_thresholds", "multiples of expected_norm"),
        ("steering.coherent_steered", "share of texts, 0 to 1"),
        ("steering.coherent_unsteered", "share of texts, 0 to 1"),
        ("steering.similarity_gain_interval", "steered_narrow - unsteered_narrow"),
        ("steering.similarity_over_null_interval", "steered_narrow - null_narrow"),
        ("steering.similarity_p", "share of null directions whose text is at least as similar"),
        ("steering.relevant_words_steered", "share of words, 0 to 1"),
        ("steering.relevant_words_unsteered", "share of words, 0 to 1"),
        ("steering.similarity_base_gain_interval", "steered_base_narrow - base_narrow"),
        ("steering.relevant_words_steered_base", "share of words, 0 to 1"),
        ("steering.relevant_words_base", "share of words, 0 to 1"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.steering.enabled
    }

    fn needs(_: &DiffSection) -> Needs {
        Needs { embedder: true, ..Needs::default() }
    }

    /// Text is taken to be written to the end, which is the most.
    fn cost(settings: &DiffSection, _n_layers: usize) -> Work {
        let (section, search) = (&settings.steering, &settings.steering.search);
        let of_tuned = if section.model.is_tuned() { 1 + section.null_directions } else { 0 };
        let sets = section.positions.len() * (of_tuned + usize::from(section.model.is_base())) + 2;
        let texts = (sets * section.prompts * section.samples * section.max_new_tokens) as f64;
        let middles = |steps: usize| -> usize {
            let (rounds, rest) = (steps / search.batch_steps, steps % search.batch_steps);
            rounds * ((1 << search.batch_steps) - 1) + ((1 << rest) - 1)
        };
        let middles = middles(search.steps) + 2 * middles(search.steps_others);
        let searched =
            (section.positions.len() * middles + 3) as f64 * (search.samples * search.max_new_tokens) as f64;
        Work { written: texts + if section.auto { searched } else { 0.0 }, ..Work::default() }
    }

    /// Steered text and how much of it is about the narrow data.
    fn measure(reading: &Reading, found: &mut Findings) -> Result<Option<Self>> {
        let Reading { inputs, settings, means, .. } = reading;
        let (section, seed, embedder) = (&settings.steering, inputs.seed, reading.embedder()?);
        let index = |p: &usize| settings.positions.iter().position(|q| q == p);
        let positions: Vec<usize> =
            section.positions.iter().filter(|p| index(p).is_some()).copied().collect();
        let directions: Vec<&[f32]> =
            positions.iter().filter_map(index).map(|i| means.difference[i].as_slice()).collect();
        let (strengths, thresholds) = strengths(reading, &directions)?;
        let texts = steer(reading, &directions, &strengths)?;

        let embed = |texts: &[String]| -> Result<Vec<Vec<f32>>> {
            embedder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let some = |all: &[String]| -> Vec<String> { spread(all, section.embedded).cloned().collect() };
        let narrow = embed(&some(inputs.narrow))?;
        let reference = embed(&some(inputs.text))?;
        let unsteered = embed(&texts.unsteered)?;
        let base = embed(&texts.base)?;
        let steered = texts.steered.iter().map(|t| embed(t)).collect::<Result<Vec<_>>>()?;
        // [position][direction][text]
        let of_directions =
            |sets: &Vec<Vec<String>>| sets.iter().map(|t| embed(t)).collect::<Result<Vec<_>>>();
        let null = texts.null.iter().map(of_directions).collect::<Result<Vec<Vec<Vec<Vec<f32>>>>>>()?;
        let steered_base = texts.steered_base.iter().map(|t| embed(t)).collect::<Result<Vec<_>>>()?;
        let with_null = section.null_directions > 0 && section.model.is_tuned();

        let everywhere = |value: f64| vec![value; positions.len()];
        let mut record = Steering {
            strength_in_differences: strengths
                .iter()
                .zip(&directions)
                .map(|(a, v)| factor_to(a * reading.eta(), v))
                .collect(),
            strength: strengths,
            strength_thresholds: thresholds,
            coherence_rule: texts.coherence_rule.clone(),
            coherent_steered: texts.coherent.clone(),
            coherent_unsteered: everywhere(texts.coherent_unsteered),
            similarity: Similarity {
                steered_reference: steered.iter().map(|s| mean_cosine(s, &reference)).collect(),
                unsteered_reference: everywhere(mean_cosine(&unsteered, &reference)),
                base_reference: everywhere(mean_cosine(&base, &reference)),
                steered_base_reference: steered_base.iter().map(|s| mean_cosine(s, &reference)).collect(),
                null_reference: null
                    .iter()
                    .filter(|_| with_null)
                    .map(|n| mean_cosine(&n.concat(), &reference))
                    .collect(),
                ..Similarity::default()
            },
            positions: positions.clone(),
            ..Steering::default()
        };
        if !reading.inputs.narrow.is_empty() {
            let center = centroid(narrow.iter());
            // Similarity of each text to the narrow set: the mean of a set's is that of the set.
            let each = |set: &Vec<Vec<f32>>| -> Vec<f64> {
                set.iter().map(|v| v.iter().zip(&center).map(|(x, n)| *x as f64 * n).sum()).collect()
            };
            let (each_prompt, draws) = (section.samples, settings.bootstrap);
            let resample =
                |sets: &[&[f64]], of: &dyn Fn(&[f64]) -> f64| bootstrap(sets, each_prompt, of, draws, seed);
            let of_steered: Vec<Vec<f64>> = steered.iter().map(each).collect();
            let (plain, of_base) = (each(&unsteered), each(&base));
            let of_null: Vec<Vec<Vec<f64>>> = null.iter().map(|n| n.iter().map(each).collect()).collect();
            let own = |values: &Vec<f64>| resample(&[values], &|m| m[0]);
            let s = &mut record.similarity;
            s.steered_narrow = of_steered.iter().map(|v| mean(v)).collect();
            s.steered_narrow_interval = of_steered.iter().map(own).collect();
            s.unsteered_narrow = everywhere(mean(&plain));
            s.unsteered_narrow_interval = vec![own(&plain); positions.len()];
            s.base_narrow = everywhere(mean(&of_base));
            s.base_narrow_interval = vec![own(&of_base); positions.len()];
            s.narrow_narrow = everywhere(mean_cosine(&narrow, &narrow));
            let of_steered_base: Vec<Vec<f64>> = steered_base.iter().map(each).collect();
            s.steered_base_narrow = of_steered_base.iter().map(|v| mean(v)).collect();
            s.steered_base_narrow_interval = of_steered_base.iter().map(own).collect();
            record.similarity_base_gain_interval =
                of_steered_base.iter().map(|v| resample(&[v, &of_base], &|m| m[0] - m[1])).collect();
            record.similarity_gain_interval =
                of_steered.iter().map(|v| resample(&[v, &plain], &|m| m[0] - m[1])).collect();
            for (steered, null) in of_steered.iter().zip(&of_null).filter(|_| with_null) {
                let per_direction = Null(null.iter().map(|texts| mean(texts)).collect());
                record.similarity.null_narrow.push(per_direction.mean());
                record.similarity_p.push(per_direction.p(mean(steered)));
                record.similarity_over_null_interval.push(over_null(steered, null, each_prompt, draws, seed));
            }
            if let Some(lexicon) = &reading.prepared.lexicon {
                let shares = |texts: &Vec<String>| lexicon.word_share(texts.iter());
                record.relevant_words_steered = texts.steered.iter().map(shares).collect();
                record.relevant_words_unsteered = everywhere(shares(&texts.unsteered));
                record.relevant_words_steered_base = texts.steered_base.iter().map(shares).collect();
                record.relevant_words_base = everywhere(shares(&texts.base));
            }
        }
        found.write_lines(FILE, &texts.lines(&positions, &record.strength, section.samples))?;
        if section.model.is_tuned() {
            found.put(SteeredCentroids {
                steered: steered.iter().map(|s| centroid(s.iter())).collect(),
                base: centroid(base.iter()),
            });
        }
        Ok(Some(record))
    }

    fn columns(record: Option<&Self>, places: &ColumnPlaces, row: &mut Columns) {
        let all = places.steered;
        let at: &[usize] = record.map_or(&[], |r| &r.positions);
        let get = |values: fn(&Self) -> &Vec<f64>| record.map_or(&[][..], |r| values(r));
        row.spread("steering_strength", all, at, get(|r| &r.strength));
        row.spread("steering_strength_in_differences", all, at, get(|r| &r.strength_in_differences));
        for (key, values) in [
            ("steered_narrow", get(|r| &r.similarity.steered_narrow)),
            ("unsteered_narrow", get(|r| &r.similarity.unsteered_narrow)),
            ("steered_reference", get(|r| &r.similarity.steered_reference)),
            ("unsteered_reference", get(|r| &r.similarity.unsteered_reference)),
            ("narrow_narrow", get(|r| &r.similarity.narrow_narrow)),
            ("base_narrow", get(|r| &r.similarity.base_narrow)),
            ("steered_base_narrow", get(|r| &r.similarity.steered_base_narrow)),
            ("base_reference", get(|r| &r.similarity.base_reference)),
            ("null_narrow", get(|r| &r.similarity.null_narrow)),
            ("null_reference", get(|r| &r.similarity.null_reference)),
        ] {
            row.spread(&format!("similarity_{key}"), all, at, values);
            row.overall(&format!("similarity_{key}"), at, values);
        }
        let gain = record.and_then(Self::gain);
        let gains = gain.as_ref().map_or(&[][..], |g| &g.gain);
        row.spread("similarity_gain", all, at, gains);
        row.spread_intervals("similarity_gain", all, at, record.map_or(&[], |r| &r.similarity_gain_interval));
        row.overall("similarity_gain", at, gains);
        let over_null = record.map_or(&[][..], |r| &r.similarity_over_null_interval);
        row.spread_intervals("similarity_over_null", all, at, over_null);
        row.spread("similarity_pvalue", all, at, get(|r| &r.similarity_p));
        row.spread("coherent_steered", all, at, get(|r| &r.coherent_steered));
        row.spread("coherent_unsteered", all, at, get(|r| &r.coherent_unsteered));
        let steered_interval = record.map_or(&[][..], |r| &r.similarity.steered_narrow_interval);
        row.spread_intervals("similarity_steered_narrow", all, at, steered_interval);
        for (key, values) in [
            ("relevant_words_steered", get(|r| &r.relevant_words_steered)),
            ("relevant_words_unsteered", get(|r| &r.relevant_words_unsteered)),
        ] {
            row.spread(key, all, at, values);
            row.overall(key, at, values);
        }
    }

    /// Similarity of steered text to the narrow text, mean over positions: of the tuned model's text and of the base's.
    fn scores(&self) -> Vec<Score> {
        let of = |key, name, values: &[f64]| {
            let score = |value| Score { key, name, value, interval: None, resolution: FINE };
            readout::mean(values).map(score)
        };
        let s = &self.similarity;
        let both = [
            of("steering", "steering", &s.steered_narrow),
            of("steering_base", "steering of the base", &s.steered_base_narrow),
        ];
        both.into_iter().flatten().collect()
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let (at, s) = (places(&self.positions), &self.similarity);
        let curve = |ink, name: &str, values: &[f64]| PlotSeries::curve(ink, name, &at, values);
        vec![Plot {
            key: "steering-position".into(),
            title: "Steering by position".into(),
            caption: "Mean cosine of generated text to the narrow text. Vertical bars are 95 % bootstrap intervals over \
                      prompts."
                .into(),
            x: PlotAxis::positions(&self.positions),
            y: PlotAxis::from_0("similarity of generated text to the narrow text", 3, 0.0),
            series: vec![
                curve(Ink::Steered, "steered", &s.steered_narrow).with(&at, &s.steered_narrow_interval),
                curve(Ink::Base, "plain (unsteered), same model", &s.unsteered_narrow).aside(PlotStyle::Points),
                curve(Ink::Tuned, "steered by random directions", &s.null_narrow).aside(PlotStyle::Points),
                curve(Ink::Narrow, "narrow text to itself (ceiling)", &s.narrow_narrow).aside(PlotStyle::Dashed),
            ],
            null: None,
        }]
    }

    /// What steering did to the text, where there is no narrow text to compare it with.
    fn numbers(&self) -> Vec<Number> {
        let of = |name: &str, values: &[f64]| {
            let (name, n) = (format!("Steering: {name}, mean of positions"), values.len());
            (n > 0).then(|| Number::new(name, mean(values)))
        };
        let found = [
            of("share of the steered texts that are coherent", &self.coherent_steered),
            of("share of the unsteered texts that are coherent", &self.coherent_unsteered),
        ];
        found.into_iter().flatten().collect()
    }

    /// Steered text's similarity to narrow text at the best position. What is kept of the null is the interval of steered less
    /// null. Taken off the steered similarity it is a range of the null, which the value lies above if and only if the claim
    /// is that it is told from it.
    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        let gain = self.gain()?;
        let (i, s) = (gain.best()?, &self.similarity);
        let value = *s.steered_narrow.get(i)?;
        let number = TraceNumber {
            value,
            interval: s.steered_narrow_interval.get(i).copied(),
            null: s.null_narrow.get(i).copied(),
            null_interval: self
                .similarity_over_null_interval
                .get(i)
                .map(|[low, high]| [value - high, value - low]),
        };
        let of = |values: &[f64]| values.get(i).copied().map(TraceNumber::new);
        let base = readout::mean(&s.steered_base_narrow);
        let of_base =
            base.map(|value| TraceNumber { null: s.base_narrow.first().copied(), ..TraceNumber::new(value) });
        let gained = gain.gain.get(i).map(|gained| TraceNumber {
            interval: self.similarity_gain_interval.get(i).copied(),
            ..TraceNumber::new(*gained)
        });
        let (position, p) = (self.positions.get(i).copied(), self.similarity_p.get(i).copied());
        let reading = TraceReading { number, position, p, ..TraceReading::default() };
        Some(
            reading
                .beside("mean", Some(TraceNumber::new(mean(&s.steered_narrow))))
                .beside("gain", gained)
                .beside("plain", of(&s.unsteered_narrow))
                .beside("random", of(&s.null_narrow))
                .beside("ceiling", of(&s.narrow_narrow))
                .beside("base", of_base)
                .beside("base_plain", of(&s.base_narrow))
                .beside("words", of(&self.relevant_words_steered))
                .beside("words_plain", of(&self.relevant_words_unsteered)),
        )
    }
}

/// Strength in η of each direction, and the thresholds behind it where it was searched for.
fn strengths(reading: &Reading, directions: &[&[f32]]) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let section = &reading.settings.steering;
    if section.auto {
        let search = Search::new(reading)?;
        let thresholds = directions.iter().map(|v| search.thresholds(v)).collect::<Result<Vec<_>>>()?;
        return Ok((thresholds.iter().map(|t| mean(t)).collect(), thresholds));
    }
    let strength = |v: &&[f32]| section.strength_of(norm(v), reading.eta());
    Ok((directions.iter().map(strength).collect(), Vec::new()))
}

/// As many of `n` prompts, drawn with replacement. The texts of a prompt are drawn together, for they are alike: its samples,
/// and those of every set that answers it.
fn redraw(n: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    (0..n).map(|_| rng.random_range(0..n)).collect()
}

/// Mean over the prompts that were drawn, of which each has `samples` consecutive values.
fn mean_over(drawn: &[usize], values: &[f64], samples: usize) -> f64 {
    let of_prompt = |p: &usize| mean(&values[p * samples..(p + 1) * samples]);
    drawn.iter().map(of_prompt).sum::<f64>() / drawn.len().max(1) as f64
}

/// Interval of what `of` makes of the means of sets that answer the same prompts, these drawn with replacement.
fn bootstrap(
    sets: &[&[f64]],
    samples: usize,
    of: &dyn Fn(&[f64]) -> f64,
    resamples: usize,
    seed: u64,
) -> Interval {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let prompts = sets.first().map_or(0, |set| set.len() / samples);
    let mut value = || {
        let drawn = redraw(prompts, &mut rng);
        of(&sets.iter().map(|set| mean_over(&drawn, set, samples)).collect::<Vec<_>>())
    };
    interval((0..resamples).map(|_| value()).collect::<Vec<_>>())
}

/// Interval of mean(steered) − mean(null) when prompts, and the directions of the null, are drawn with replacement.
fn over_null(steered: &[f64], null: &[Vec<f64>], samples: usize, resamples: usize, seed: u64) -> Interval {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut difference = || {
        let drawn = redraw(steered.len() / samples, &mut rng);
        let mut of_null = |_| mean_over(&drawn, &null[rng.random_range(0..null.len())], samples);
        let of_null: Vec<f64> = (0..null.len()).map(&mut of_null).collect();
        mean_over(&drawn, steered, samples) - mean(&of_null)
    };
    interval((0..resamples).map(|_| difference()).collect::<Vec<_>>())
}

/// Texts of each position and without steering, per prompt.
pub struct SteeredTexts {
    /// `[position][prompt · samples + sample]`; empty where the tuned model is not steered.
    pub steered: Vec<Vec<String>>,
    /// Of null directions at the strength of the position, `[position][direction][prompt · samples + sample]`.
    pub null: Vec<Vec<Vec<String>>>,
    /// `[prompt · samples + sample]`; does not depend on the position.
    pub unsteered: Vec<String>,
    /// The base's, likewise.
    pub base: Vec<String>,
    /// The base's with the difference of each position added, `[position][prompt · samples + sample]`; empty where the base
    /// is not steered.
    pub steered_base: Vec<Vec<String>>,
    /// The prompts as they are written, without a template.
    pub prompts: Vec<&'static str>,
    /// Share of the steered texts of each position that are coherent.
    pub coherent: Vec<f64>,
    /// Share of the unsteered texts that are.
    pub coherent_unsteered: f64,
    /// The rule for that, in words.
    pub coherence_rule: String,
}

impl SteeredTexts {
    /// The lines of `steering.jsonl`.
    pub fn lines(&self, positions: &[usize], strength: &[f64], samples: usize) -> Vec<SteeringLine> {
        let mut lines = Vec::new();
        for (i, &position) in positions.iter().enumerate() {
            for (p, prompt) in self.prompts.iter().enumerate() {
                let of = |texts: &[String]| texts[p * samples..(p + 1) * samples].to_vec();
                lines.push(SteeringLine {
                    prompt: prompt.to_string(),
                    strength: strength[i],
                    position,
                    steered: self.steered.get(i).map(|texts| of(texts)).unwrap_or_default(),
                    unsteered: of(&self.unsteered),
                    base: of(&self.base),
                    steered_base: self.steered_base.get(i).map(|texts| of(texts)).unwrap_or_default(),
                    null: self
                        .null
                        .get(i)
                        .iter()
                        .flat_map(|sets| sets.iter())
                        .flat_map(|texts| of(texts))
                        .collect(),
                });
            }
        }
        lines
    }
}

/// Writes with each direction, with null directions at the same strengths, and without, in the tuned model; with each
/// direction and without in the base. Which of them are steered, `diff.steering.model` says.
///
/// # Errors
/// If a prompt cannot be rendered or a tensor operation fails.
pub fn steer(reading: &Reading, directions: &[&[f32]], strengths: &[f64]) -> Result<SteeredTexts> {
    let (inputs, section) = (reading.inputs, &reading.settings.steering);
    let prompts = Prompts::neutral(inputs.pretrained, section.prompts)?;
    let null = &reading.null[..section.null_directions];
    let of_null = strengths.iter().flat_map(|s| null.iter().map(move |v| (v.as_slice(), *s)));
    let steering: Vec<(&[f32], f64)> =
        directions.iter().copied().zip(strengths.iter().copied()).chain(of_null).collect();
    let vectors =
        steering.iter().map(|(v, s)| steering_vector(reading, v, *s)).collect::<Result<Vec<Tensor>>>()?;

    let block = prompts.ids.len() * section.samples;
    let with = |vector, number: usize| jobs(prompts.ids.len(), section.samples, vector, number * block);
    // The null comes last, so that the rest is the same with and without it.
    let plain = with(None, directions.len());
    let of_directions: Vec<Job> = (0..directions.len()).flat_map(|v| with(Some(v), v)).collect();
    let positions = if section.model.is_tuned() { directions.len() } else { 0 };
    let mut all: Vec<Job> = Vec::new();
    if section.model.is_tuned() {
        all.extend(&of_directions);
    }
    all.extend(&plain);
    if section.model.is_tuned() {
        all.extend((directions.len()..vectors.len()).flat_map(|v| with(Some(v), v + 1)));
    }
    let sampling = Sampling {
        max_new_tokens: section.max_new_tokens,
        temperature: section.temperature,
        seed: inputs.seed,
        eos: inputs.pretrained.eos_token_ids.clone(),
    };
    let new = write(reading, inputs.tuned, &prompts.ids, &vectors, &all, &sampling)?;
    let of_base = write(reading, inputs.base, &prompts.ids, &[], &plain, &sampling)?;
    let steered_base = match section.model.is_base() {
        true => write(reading, inputs.base, &prompts.ids, &vectors, &of_directions, &sampling)?,
        false => Vec::new(),
    };

    let eos = &sampling.eos;
    let coherence = CoherenceRule::new(inputs.base, &pairs(&prompts.ids, &plain, &of_base, eos))?;
    let shares = all[..(positions + 1) * block]
        .chunks(block)
        .zip(new.chunks(block))
        .map(|(jobs, new)| Ok(coherence.share(&pairs(&prompts.ids, jobs, new, eos))?.unwrap_or(0.0)))
        .collect::<Result<Vec<f64>>>()?;
    let mut blocks = new.chunks(block).map(|new| texts(reading, new)).collect::<Result<Vec<_>>>()?;
    let null_blocks = blocks.split_off(positions + 1);
    let null = null.len();
    Ok(SteeredTexts {
        unsteered: blocks.pop().unwrap_or_default(),
        steered: blocks,
        null: (0..positions).map(|i| null_blocks[i * null..(i + 1) * null].to_vec()).collect(),
        base: texts(reading, &of_base)?,
        steered_base: steered_base
            .chunks(block)
            .map(|new| texts(reading, new))
            .collect::<Result<Vec<_>>>()?,
        prompts: prompts.texts,
        coherent: shares[..positions].to_vec(),
        coherent_unsteered: shares[positions],
        coherence_rule: coherence.rule(),
    })
}
