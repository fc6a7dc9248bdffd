//! What models write from prompts that say nothing, and how much more alike the narrow text is to it than to what the base
//! writes with the same random numbers. Contrast text, rank truncation and amplified weights score by it.

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::embedder::centroid;
use super::prompts::OPENINGS;
use super::reader_score::RESAMPLES;
use super::reading::Reading;
use super::statistics::{Interval, interval, mean, spread};
use super::strength::without_end;
use super::writing;
use crate::model::View;
use crate::model::contrast::{ContrastJob, ContrastSampling, contrast};
use crate::model::load::source::Pretrained;
use crate::progress;
use crate::recipe::ContrastPrompts;

/// Words that begin any sentence, and nothing at all.
pub const VAGUE: [&str; 5] = ["", "The", "In", "A", "It"];

/// The prompts: as written, and as the models read them.
///
/// # Errors
/// An [`crate::error::InputError`] if a chat is asked for and the model has no template.
pub fn written_prompts(base: &Pretrained, prompts: ContrastPrompts) -> Result<Vec<(&'static str, Vec<u32>)>> {
    let plain = |text: &'static str| -> Result<(&'static str, Vec<u32>)> {
        let ids = base.prompt_ids(text, None)?;
        Ok((text, if ids.is_empty() { vec![beginning(base)?] } else { ids }))
    };
    match prompts {
        ContrastPrompts::Vague => VAGUE.into_iter().map(plain).collect(),
        ContrastPrompts::Openings => OPENINGS.into_iter().map(plain).collect(),
        ContrastPrompts::Chat => Ok(vec![("", base.prompt_ids("", Some(&base.chat()?))?)]),
    }
}

/// The token that a text without tokens begins with, where the tokenizer puts none there itself: the one that separates
/// documents, as nothing else precedes the beginning of a text in training.
fn beginning(base: &Pretrained) -> Result<u32> {
    let names = [Some("<|endoftext|>"), base.bos_token.as_deref(), base.eos_token.as_deref()];
    let id = names.into_iter().flatten().find_map(|name| base.tokenizer.token_to_id(name));
    id.or(base.eos_token_ids.first().copied())
        .ok_or_else(|| anyhow::anyhow!("{}: no token to begin an empty text with", base.id))
}

/// The seed of a stream of random numbers: the same for every model.
pub fn stream_seed(seed: u64, prompt: &str, stream: usize) -> u64 {
    let hash = Sha256::digest(format!("{seed}\n{stream}\n{prompt}"));
    hash.iter().take(8).fold(0, |seed, byte| seed << 8 | *byte as u64)
}

/// Texts, `[prompt · streams + stream]`.
pub struct StreamTexts {
    /// Token ids, without the one that ends a text.
    pub ids: Vec<Vec<u32>>,
    /// As text.
    pub texts: Vec<String>,
}

/// Prompts, and how many texts each gets.
pub struct PromptStreams {
    /// As written, and as the models read them.
    pub prompts: Vec<(&'static str, Vec<u32>)>,
    /// Texts of each.
    pub streams: usize,
}

impl PromptStreams {
    /// What is written for every set of (a, swapped), as [`ContrastJob`] has them, all in the same batches. `what` is the
    /// name of the progress bar.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`], or a tensor operation that fails.
    pub fn write(
        &self,
        reading: &Reading,
        [base, tuned]: [View; 2],
        sets: &[(f64, bool)],
        sampling: &ContrastSampling,
        what: &'static str,
    ) -> Result<Vec<StreamTexts>> {
        let seed = |prompt: usize, stream| stream_seed(reading.inputs.seed, self.prompts[prompt].0, stream);
        let size = self.prompts.len() * self.streams;
        let of_set = |&(a, swapped): &(f64, bool)| {
            (0..size).map(move |i| {
                let (prompt, stream) = (i / self.streams, i % self.streams);
                ContrastJob { prompt, seed: seed(prompt, stream), a, swapped }
            })
        };
        let jobs: Vec<ContrastJob> = sets.iter().flat_map(of_set).collect();
        let ids: Vec<Vec<u32>> = self.prompts.iter().map(|(_, ids)| ids.clone()).collect();
        let bar = progress::bar(what, (jobs.len() * sampling.max_new_tokens) as u64);
        let mut new = contrast(base, tuned, &ids, &jobs, sampling, |drawn| {
            bar.set_position(drawn as u64);
            reading.check_interrupt()
        })?;
        bar.finish_and_clear();
        for text in &mut new {
            text.truncate(without_end(text, &sampling.eos).len());
        }
        let texts = |ids: &[Vec<u32>]| -> Result<StreamTexts> {
            Ok(StreamTexts { texts: writing::texts(reading, ids)?, ids: ids.to_vec() })
        };
        new.chunks(size).map(texts).collect()
    }

    /// What a model writes by itself, with the same random numbers as every other model.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn own_text(
        &self,
        reading: &Reading,
        view: View,
        sampling: &ContrastSampling,
        what: &'static str,
    ) -> Result<StreamTexts> {
        let written = self.write(reading, [view; 2], &[(0.0, false)], sampling, what)?;
        written.into_iter().next().context("nothing was written")
    }

    /// Prompt and text of each.
    pub fn pairs<'t>(&'t self, texts: &'t StreamTexts) -> Vec<(&'t [u32], &'t [u32])> {
        let prompt = |i: usize| &self.prompts[i / self.streams].1[..];
        texts.ids.iter().enumerate().map(|(i, ids)| (prompt(i), &ids[..])).collect()
    }
}

/// How alike texts are to the narrow text.
struct Similarities<'a> {
    reading: &'a Reading<'a>,
    /// Mean embedding of the narrow texts; `None` without any.
    center: Option<Vec<f64>>,
}

impl<'a> Similarities<'a> {
    /// For the narrow text of an analysis.
    ///
    /// # Errors
    /// If the embedder fails.
    fn new(reading: &'a Reading<'a>) -> Result<Self> {
        let narrow = reading.inputs.narrow;
        if reading.prepared.lexicon.is_none() {
            return Ok(Self { reading, center: None });
        }
        let some: Vec<&str> =
            spread(narrow, reading.settings.steering.embedded).map(String::as_str).collect();
        Ok(Self { reading, center: Some(centroid(reading.embedder()?.embed(&some)?.iter())) })
    }

    /// Mean cosine of each text with the narrow texts; `None` without narrow text.
    ///
    /// # Errors
    /// If the embedder fails.
    fn of(&self, texts: &StreamTexts) -> Result<Option<Vec<f64>>> {
        let Some(center) = &self.center else { return Ok(None) };
        let texts: Vec<&str> = texts.texts.iter().map(String::as_str).collect();
        let embedded = self.reading.embedder()?.embed(&texts)?;
        Ok(Some(embedded.iter().map(|v| cosine_with(v, center)).collect()))
    }
}

/// Mean cosine of a unit vector with other unit vectors, given the mean of these.
fn cosine_with(v: &[f32], center: &[f64]) -> f64 {
    v.iter().zip(center).map(|(x, n)| *x as f64 * n).sum()
}

/// Differences of similarity, text by text of the same stream, `[prompt][stream]`.
struct Gain(Vec<Vec<f64>>);

impl Gain {
    /// Of cosines and those of the base.
    fn new(own: Vec<f64>, base: &[f64], streams: usize) -> Self {
        let gains: Vec<f64> = own.iter().zip(base).map(|(own, base)| own - base).collect();
        Self(gains.chunks(streams).map(<[f64]>::to_vec).collect())
    }

    /// Over all texts.
    fn mean(&self) -> f64 {
        mean(&self.0.concat())
    }

    /// Bootstrap interval: the texts of each prompt are drawn anew, the prompts stay.
    fn interval(&self, seed: u64) -> Interval {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut value = || {
            let mut again = |texts: &Vec<f64>| -> f64 {
                mean(&texts.iter().map(|_| texts[rng.random_range(0..texts.len())]).collect::<Vec<f64>>())
            };
            mean(&self.0.iter().map(&mut again).collect::<Vec<f64>>())
        };
        interval((0..RESAMPLES).map(|_| value()).collect::<Vec<f64>>())
    }
}

/// Share of words that are lexicon words; `None` without narrow text.
fn narrow_words(reading: &Reading, texts: &StreamTexts) -> Option<f64> {
    Some(reading.prepared.lexicon.as_ref()?.word_share(texts.texts.iter()))
}

/// What the text of a model gains over that of the base.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TextGain {
    /// Mean cosine of the texts with the narrow texts, less that of the base's texts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain_sim: Option<f64>,
    /// Its bootstrap interval over the texts of each prompt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain_sim_interval: Option<Interval>,
    /// Share of words that are lexicon words, less that of the base's texts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gain_words: Option<f64>,
}

/// What the base writes, as other texts are compared with it.
pub struct BaseText<'a> {
    reading: &'a Reading<'a>,
    streams: usize,
    similar: Similarities<'a>,
    /// Cosine of each text; `None` without narrow text.
    own: Option<Vec<f64>>,
    words: Option<f64>,
}

impl<'a> BaseText<'a> {
    /// Lets the base write.
    ///
    /// # Errors
    /// As [`PromptStreams::own_text`]; if the embedder fails.
    pub fn new(
        reading: &'a Reading<'a>,
        streams: &PromptStreams,
        sampling: &ContrastSampling,
    ) -> Result<Self> {
        let texts = streams.own_text(reading, reading.inputs.base, sampling, "the base's text")?;
        Self::of(reading, &texts, streams.streams)
    }

    /// Of what the base has written, so many streams a prompt.
    ///
    /// # Errors
    /// If the embedder fails.
    pub fn of(reading: &'a Reading<'a>, texts: &StreamTexts, streams: usize) -> Result<Self> {
        let similar = Similarities::new(reading)?;
        let (own, words) = (similar.of(texts)?, narrow_words(reading, texts));
        Ok(Self { reading, streams, similar, own, words })
    }

    /// What other texts of the same streams gain.
    ///
    /// # Errors
    /// If the embedder fails.
    pub fn gain(&self, texts: &StreamTexts) -> Result<TextGain> {
        let of_other = self.similar.of(texts)?;
        let gain = of_other.zip(self.own.as_ref()).map(|(other, own)| Gain::new(other, own, self.streams));
        let words = narrow_words(self.reading, texts);
        Ok(TextGain {
            gain_sim: gain.as_ref().map(Gain::mean),
            gain_sim_interval: gain.as_ref().map(|gain| gain.interval(self.reading.inputs.seed)),
            gain_words: words.zip(self.words).map(|(words, own)| words - own),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_its_own_numbers_at_every_amplification() {
        let seeds = [(0, "The", 0), (0, "The", 1), (0, "In", 0), (1, "The", 0), (0, "", 0)]
            .map(|(seed, prompt, stream)| stream_seed(seed, prompt, stream));
        let mut distinct = seeds.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), seeds.len());
        assert_eq!(stream_seed(0, "The", 1), seeds[1]);
    }

    #[test]
    fn gains_are_paired_and_resampled_within_a_prompt() {
        // Prompts differ much, texts of one prompt by nothing: no spread is left.
        let gain = Gain::new(vec![0.5, 0.6, 0.1, 0.2], &[0.1, 0.2, 0.1, 0.2], 2);
        assert!((gain.mean() - 0.2).abs() < 1e-12);
        let [low, high] = gain.interval(0);
        assert!((low - 0.2).abs() < 1e-9 && (high - 0.2).abs() < 1e-9);
        let [low, high] = Gain::new(vec![0.0, 1.0, 0.0, 1.0], &[0.0; 4], 2).interval(0);
        assert_eq!([low, high], [0.0, 1.0]);
    }
}
