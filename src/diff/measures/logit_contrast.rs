//! Logit-contrast text: what is written where the difference of the two models is amplified.
//!
//! Each token is drawn from (1 + a)·l_tuned − a·l_base on the tokens that the tuned model finds plausible
//! ([`crate::model::contrast`]); a = 0 is the tuned model itself. The prompts say nothing: by default an empty text and four
//! words that begin any sentence. Score: how much more alike the narrow text is to what was written than to what the base
//! writes with the same random numbers, by the embedder and the centroid that steering uses.
//!
//! Whether text is coherent is decided by the rule of steering with its likelihood under the tuned model: the base finds
//! narrow text unlikely, which is no fault of it. Text that is not coherent stays in the score.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::identification::{Ranking, ranking};
use crate::diff::coherence::{CoherenceRule, fluencies};
use crate::diff::columns::{ColumnPlaces, Columns};
use crate::diff::embedder::centroid;
use crate::diff::findings::Findings;
use crate::diff::headline::{TraceMeasure, TraceReading};
use crate::diff::inputs::Inputs;
use crate::diff::likeness::{BaseText, PromptStreams, StreamTexts, TextGain, VAGUE, written_prompts};
use crate::diff::measure::{Measure, Needs, Work};
use crate::diff::plot::{Ink, Number, Plot, PlotAxis, PlotSeries};
use crate::diff::prompts::OPENINGS;
use crate::diff::reader_score::ReaderScore;
use crate::diff::reading::Reading;
use crate::diff::score::{FINE, Score};
use crate::diff::statistics::{Interval, mean};
use crate::model::View;
use crate::model::contrast::ContrastSampling;
use crate::recipe::{ContrastPrompts, DiffSection, LogitContrastSection};

/// Text is degenerate if less than this share of it is coherent.
const LEAST_COHERENT: f64 = 0.5;

/// `readers.logit_contrast`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LogitContrast {
    /// `gain_sim` at `settings.a`.
    #[serde(flatten)]
    pub reader: ReaderScore,
    /// Number of prompts.
    pub prompts: usize,
    /// What was written at each a, ascending.
    pub alpha: Vec<AtAlpha>,
    /// Whether less than half of the text at `settings.a` is coherent; absent where a = 0 is not in the grid, which sets the
    /// rule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub degenerate: Option<bool>,
    /// The rule for coherent text, in words.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub coherence_rule: String,
    /// Text that amplifies the base against the tuned model, at `settings.a`: it must not gain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub swap: Option<Swapped>,
    /// Which of the candidate corpora has the highest gain at `settings.a`, in the order of `identification.candidates`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identification: Option<Ranking>,
}

impl LogitContrast {
    /// What was written at the a of the score.
    fn headline(&self) -> Option<&AtAlpha> {
        let a = self.reader.settings["a"].as_f64()?;
        self.alpha.iter().find(|at| at.a == a)
    }
}

/// What was written at one a.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AtAlpha {
    /// How much the difference is amplified.
    pub a: f64,
    /// What it gains over the base's text.
    #[serde(flatten)]
    pub gain: TextGain,
    /// `gain_sim` less that at a = 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub over_plain: Option<f64>,
    /// Share of the texts that are coherent, of those that are not empty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coherent: Option<f64>,
    /// Mean negative log-likelihood of the texts under the base, nats a token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nats_base: Option<f64>,
    /// Number of texts.
    pub texts: usize,
}

/// What was written with the roles exchanged.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Swapped {
    /// As [`TextGain::gain_sim`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain_sim: Option<f64>,
    /// As [`TextGain::gain_words`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain_words: Option<f64>,
}

/// A line of `diff/logit_contrast.jsonl`: what was written with one stream of random numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContrastLine {
    /// The prompt, as written.
    pub prompt: String,
    /// Number of the stream of random numbers among those of the prompt.
    pub stream: usize,
    /// The base's text.
    pub base: String,
    /// The text at each a.
    pub amplified: Vec<AmplifiedText>,
    /// Text that amplifies the base against the tuned model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub swapped: Option<String>,
}

/// A text and how much the difference was amplified for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AmplifiedText {
    /// How much.
    pub a: f64,
    /// The text.
    pub text: String,
}

const UNIT: &str = "mean cosine of sentence embeddings with the narrow text, less that of the base's text";

impl Measure for LogitContrast {
    const UNITS: &[(&str, &str)] = &[
        ("readers.logit_contrast.score", UNIT),
        ("readers.logit_contrast.alpha.gain_sim", UNIT),
        ("readers.logit_contrast.alpha.gain_words", "share of words that are lexicon words, less the base's"),
        ("readers.logit_contrast.alpha.over_plain", "gain_sim less that of the tuned model's own text"),
        ("readers.logit_contrast.alpha.coherent", "share of texts, 0 to 1"),
        ("readers.logit_contrast.alpha.nats_base", "nats a token under the base"),
        ("readers.logit_contrast.identification.score", "gain of cosine over the base's text"),
    ];

    fn is_wanted(settings: &DiffSection) -> bool {
        settings.logit_contrast.enabled
    }

    fn needs(_: &DiffSection) -> Needs {
        Needs { embedder: true, ..Needs::default() }
    }

    /// Where something is amplified, both models read every token.
    fn cost(settings: &DiffSection, _n_layers: usize) -> Work {
        let section = &settings.logit_contrast;
        let amplified = section.alphas().into_iter().map(|a| if a == 0.0 { 1.0 } else { 2.0 });
        let sets = 1.0 + amplified.sum::<f64>() + if section.swap { 2.0 } else { 0.0 };
        let texts = (number_of_prompts(section.prompts) * section.streams * section.max_new_tokens) as f64;
        let null = null_section(section);
        let of_null = 4.0 * (number_of_prompts(null.prompts) * null.streams * null.max_new_tokens) as f64;
        let draws = settings.permuted_adapters as f64;
        Work { written: sets * texts + draws * of_null, ..Work::default() }
    }

    fn prepare(inputs: &Inputs, _: &mut Findings) -> Result<()> {
        match inputs.settings.logit_contrast.prompts {
            ContrastPrompts::Chat => {
                inputs.pretrained.chat().map(drop).context("diff.logit_contrast.prompts")
            }
            ContrastPrompts::Vague | ContrastPrompts::Openings => Ok(()),
        }
    }

    /// Text at every a and what it is like; the texts go into `logit_contrast.jsonl`.
    fn measure(reading: &Reading, found: &mut Findings) -> Result<Option<Self>> {
        let (section, clock) = (&reading.settings.logit_contrast, Instant::now());
        let inputs = reading.inputs;
        let written = Written::new(reading, section, inputs.tuned)?;
        let base = BaseText::of(reading, &written.base, section.streams)?;
        let mut record = Self { prompts: written.streams.prompts.len(), ..Self::default() };

        let plain = written.amplified.iter().find(|(a, _)| *a == 0.0).map(|(_, texts)| texts);
        let coherence =
            plain.map(|plain| CoherenceRule::new(inputs.tuned, &written.streams.pairs(plain))).transpose()?;
        let of_plain = plain.map(|plain| base.gain(plain)).transpose()?.and_then(|gain| gain.gain_sim);
        for (a, texts) in &written.amplified {
            let gain = base.gain(texts)?;
            let pairs = written.streams.pairs(texts);
            let nats: Vec<f64> = fluencies(inputs.base, &pairs)?.iter().flatten().map(|f| f.nats).collect();
            let coherent = coherence.as_ref().map(|rule| rule.share(&pairs)).transpose()?.flatten();
            if *a == section.a {
                record.degenerate = coherent.map(|share| share < LEAST_COHERENT);
            }
            record.alpha.push(AtAlpha {
                a: *a,
                over_plain: gain.gain_sim.zip(of_plain).map(|(gain, plain)| gain - plain),
                gain,
                coherent,
                nats_base: (!nats.is_empty()).then(|| mean(&nats)),
                texts: texts.texts.len(),
            });
        }
        record.coherence_rule = coherence.map(|rule| rule.rule_under("the tuned model")).unwrap_or_default();
        record.swap = match &written.swapped {
            Some(texts) => {
                let TextGain { gain_sim, gain_words, .. } = base.gain(texts)?;
                Some(Swapped { gain_sim, gain_words })
            }
            None => None,
        };
        let amplified = written.at(section.a);
        record.identification = identify(reading, amplified, &written.base)?;
        // Between equal models nothing was amplified.
        let differs = amplified.is_some_and(|texts| texts.ids != written.base.ids);
        if let Some(headline) = record.alpha.iter().find(|at| at.a == section.a).filter(|_| differs) {
            record.reader.score = headline.gain.gain_sim;
            record.reader.interval = headline.gain.gain_sim_interval;
        }
        found.write_lines("logit_contrast.jsonl", &written.lines())?;
        record.reader.unit = UNIT.into();
        record.reader.settings = serde_json::to_value(section)?;
        record.reader.seconds = clock.elapsed().as_secs_f64();
        Ok(Some(record))
    }

    fn columns(record: Option<&Self>, _: &ColumnPlaces, row: &mut Columns) {
        let headline = record.and_then(LogitContrast::headline);
        ReaderScore::put_columns(record.map(|r| &r.reader), "contrast_gain", row);
        row.put_late("contrast_words", headline.and_then(|at| at.gain.gain_words));
        row.put_late("contrast_over_plain", headline.and_then(|at| at.over_plain));
        row.put_late("contrast_coherent", headline.and_then(|at| at.coherent));
    }

    const TRACE: Option<TraceMeasure> = Some(TraceMeasure {
        key: "logit_contrast",
        name: "contrast text",
        axis: "gain in similarity over the base’s text",
        ink: Ink::Contrast,
    });

    fn trace(&self, _: &[usize]) -> Option<TraceReading> {
        self.reader.trace(Some(0.0))
    }

    fn scores(&self) -> Vec<Score> {
        self.reader.scores("logit_contrast", "contrast text", FINE)
    }

    fn figures(&self, _: &[usize]) -> Vec<Plot> {
        let known: Vec<(f64, f64, Interval)> = self
            .alpha
            .iter()
            .filter_map(|at| Some((at.a, at.gain.gain_sim?, at.gain.gain_sim_interval?)))
            .collect();
        if known.len() < 2 {
            return Vec::new();
        }
        let at: Vec<f64> = known.iter().map(|(a, ..)| *a).collect();
        let gains: Vec<f64> = known.iter().map(|(_, gain, _)| *gain).collect();
        let intervals: Vec<Interval> = known.iter().map(|(.., ends)| *ends).collect();
        vec![Plot {
            key: "contrast".into(),
            title: "Text that amplifies what sets the models apart".into(),
            caption: "Similarity of the text to the narrow text minus that of the base's text, against the factor by \
                      which the difference of the two models is amplified. Factor 0 is the tuned model's own text. \
                      Vertical bars are 95 % bootstrap intervals over texts."
                .into(),
            x: PlotAxis::even("amplification", "a", 1),
            y: PlotAxis::from_0("gain in similarity over the base's text", 3, 0.0),
            series: vec![PlotSeries::curve(Ink::Steered, "amplified", &at, &gains).with(&at, &intervals)],
            null: None,
        }]
    }

    fn numbers(&self) -> Vec<Number> {
        let number = |name: &str, value: Option<f64>| value.map(|value| Number::new(name, value));
        let gain = number("Logit contrast: gain in similarity over the base's text", self.reader.score);
        let words = self.headline().and_then(|at| at.gain.gain_words);
        [
            gain.map(|gain| gain.with(self.reader.interval)),
            number("Logit contrast: gain in the share of narrow words over the base's text", words),
            number(
                "Logit contrast: the same gain in similarity with the roles exchanged",
                self.swap.as_ref().and_then(|s| s.gain_sim),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn notes(&self) -> Vec<String> {
        let degenerate = self.degenerate == Some(true);
        let note = "Logit contrast: less than half of the text is coherent.";
        degenerate.then(|| note.to_string()).into_iter().collect()
    }
}

/// The sizes at which null models are scored: 20 texts of at most 32 tokens.
pub fn null_section(section: &LogitContrastSection) -> LogitContrastSection {
    LogitContrastSection {
        streams: section.streams.min((20 / number_of_prompts(section.prompts)).max(1)),
        max_new_tokens: section.max_new_tokens.min(32),
        grid: Vec::new(),
        swap: false,
        ..section.clone()
    }
}

/// The score of another tuned model at the sizes of a section, as null models are scored.
///
/// # Errors
/// As the measure itself.
pub fn score(reading: &Reading, section: &LogitContrastSection, tuned: View) -> Result<Option<f64>> {
    let written = Written::new(reading, section, tuned)?;
    let Some(texts) = written.at(section.a).filter(|texts| texts.ids != written.base.ids) else {
        return Ok(None);
    };
    Ok(BaseText::of(reading, &written.base, section.streams)?.gain(texts)?.gain_sim)
}

fn number_of_prompts(prompts: ContrastPrompts) -> usize {
    match prompts {
        ContrastPrompts::Vague => VAGUE.len(),
        ContrastPrompts::Openings => OPENINGS.len(),
        ContrastPrompts::Chat => 1,
    }
}

/// What was written.
struct Written {
    streams: PromptStreams,
    /// By a, ascending.
    amplified: Vec<(f64, StreamTexts)>,
    base: StreamTexts,
    swapped: Option<StreamTexts>,
}

impl Written {
    /// All in the same batches.
    fn new(reading: &Reading, section: &LogitContrastSection, tuned: View) -> Result<Self> {
        let inputs = reading.inputs;
        let streams = PromptStreams {
            prompts: written_prompts(inputs.pretrained, section.prompts)?,
            streams: section.streams,
        };
        let alphas = section.alphas();
        let mut sets: Vec<(f64, bool)> = alphas.iter().map(|a| (*a, false)).collect();
        sets.push((0.0, true)); // the base's own text
        sets.extend(section.swap.then_some((section.a, true)));
        let sampling = ContrastSampling {
            top: section.cut.top,
            relative: section.cut.relative,
            temperature: section.temperature,
            max_new_tokens: section.max_new_tokens,
            eos: inputs.pretrained.eos_token_ids.clone(),
        };
        let mut sets = streams.write(reading, [inputs.base, tuned], &sets, &sampling, "contrast")?;
        let mut after = sets.split_off(alphas.len()).into_iter();
        let base = after.next().unwrap_or_else(|| StreamTexts { ids: Vec::new(), texts: Vec::new() });
        Ok(Self { streams, amplified: alphas.into_iter().zip(sets).collect(), base, swapped: after.next() })
    }

    /// The texts at an a.
    fn at(&self, a: f64) -> Option<&StreamTexts> {
        self.amplified.iter().find(|(of, _)| *of == a).map(|(_, texts)| texts)
    }

    fn lines(&self) -> Vec<ContrastLine> {
        let line = |i: usize| ContrastLine {
            prompt: self.streams.prompts[i / self.streams.streams].0.to_string(),
            stream: i % self.streams.streams,
            base: self.base.texts[i].clone(),
            amplified: self
                .amplified
                .iter()
                .map(|(a, texts)| AmplifiedText { a: *a, text: texts.texts[i].clone() })
                .collect(),
            swapped: self.swapped.as_ref().map(|texts| texts.texts[i].clone()),
        };
        (0..self.base.texts.len()).map(line).collect()
    }
}

/// Which of the candidate corpora the texts gain most on; `None` without candidates.
fn identify(
    reading: &Reading,
    amplified: Option<&StreamTexts>,
    base: &StreamTexts,
) -> Result<Option<Ranking>> {
    let candidates = &reading.prepared.candidates;
    let Some(amplified) = amplified.filter(|_| !candidates.is_empty()) else { return Ok(None) };
    let embedder = reading.embedder()?;
    let embed = |texts: &[String]| -> Result<Vec<f64>> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Ok(centroid(embedder.embed(&texts)?.iter()))
    };
    let (own, base) = (embed(&amplified.texts)?, embed(&base.texts)?);
    let mut score = Vec::new();
    for candidate in candidates {
        let center = embed(&candidate.texts)?;
        let to = |set: &[f64]| set.iter().zip(&center).map(|(x, y)| x * y).sum::<f64>();
        score.push(to(&own) - to(&base));
    }
    Ok(Some(ranking(candidates, score)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_models_write_twenty_texts() {
        let full = LogitContrastSection::full();
        let sizes = |prompts| {
            let null = null_section(&LogitContrastSection { prompts, ..full.clone() });
            (null.streams, null.max_new_tokens, null.grid.len(), null.swap)
        };
        assert_eq!(sizes(ContrastPrompts::Vague), (4, 32, 0, false));
        assert_eq!(sizes(ContrastPrompts::Openings), (1, 32, 0, false));
        assert_eq!(sizes(ContrastPrompts::Chat), (8, 32, 0, false));
    }
}
