//! Steering: α·η·v_p/‖v_p‖ is added to the output of the block that is read, at every token, while the tuned
//! model writes.

use anyhow::{Result, anyhow};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::activations::to_tensor;
use super::embedder::{centroid, mean_cosine};
use super::mean_difference::{factor_to, norm, scaled};
use super::prompts::{OPENINGS, REQUESTS};
use super::reading::Reading;
use super::statistics::{Interval, interval};
use crate::model::generate::{Sampling, generate};
use crate::model::hooks::Steer;
use crate::model::source::Pretrained;
use crate::progress;

/// Text generated while v_p·η/‖v_p‖·strength is added to the residual stream at every token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Steering {
    /// Positions whose difference was used.
    pub positions: Vec<usize>,
    /// Strength in units of η, per steering position.
    pub strength: Vec<f64>,
    /// The same strength in multiples of the unscaled difference, per steering position.
    pub strength_in_differences: Vec<f64>,
    /// Mean pairwise cosine of sentence embeddings, per steering position.
    pub similarity: Similarity,
    /// Bootstrap interval (over texts) of `steered_narrow − unsteered_narrow`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub similarity_gain_interval: Vec<Interval>,
    /// Share of words of the steered text that are lexicon words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub relevant_words_steered: Vec<f64>,
    /// Share of words of the unsteered text that are lexicon words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub relevant_words_unsteered: Vec<f64>,
}

/// Mean pairwise cosine between sets of texts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Similarity {
    /// Steered text to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steered_narrow: Vec<f64>,
    /// Unsteered text to narrow text.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unsteered_narrow: Vec<f64>,
    /// Steered text to the reference (`diff.text`).
    pub steered_reference: Vec<f64>,
    /// Unsteered text to the reference.
    pub unsteered_reference: Vec<f64>,
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
}

/// Units of [`Steering`].
pub const UNITS: &[(&str, &str)] = &[
    ("steering.strength", "multiples of expected_norm"),
    ("steering.strength_in_differences", "multiples of the unscaled mean difference"),
    ("steering.similarity", "mean pairwise cosine of sentence embeddings, -1 to 1"),
    ("steering.similarity_gain_interval", "steered_narrow - unsteered_narrow"),
    ("steering.relevant_words_steered", "share of words, 0 to 1"),
    ("steering.relevant_words_unsteered", "share of words, 0 to 1"),
];

/// At most this many texts of a set are embedded.
const EMBEDDED: usize = 500;

/// Steered text and how much of it is about the narrow data.
///
/// # Errors
/// [`crate::error::Interrupted`]; if a prompt cannot be rendered or a tensor operation fails.
pub fn measure(reading: &Reading) -> Result<(Steering, Vec<SteeringLine>)> {
    let Reading { inputs, settings, means, .. } = reading;
    let (section, seed, embedder) = (&settings.steering, inputs.seed, reading.embedder()?);
    let index = |p: &usize| settings.positions.iter().position(|q| q == p);
    let positions: Vec<usize> = section.positions.iter().filter(|p| index(p).is_some()).copied().collect();
    let directions: Vec<&[f32]> =
        positions.iter().filter_map(index).map(|i| means.difference[i].as_slice()).collect();
    let texts = steer(reading, &directions)?;

    // Spread over the whole set, so that a sorted file does not bias the choice.
    let spread = |all: &[String]| -> Vec<String> {
        let step = all.len().div_ceil(EMBEDDED).max(1);
        all.iter().step_by(step).cloned().collect()
    };
    let embed = |texts: &[String]| -> Result<Vec<Vec<f32>>> {
        embedder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let narrow = embed(&spread(&inputs.narrow))?;
    let reference = embed(&spread(&inputs.text))?;
    let unsteered = embed(&texts.unsteered)?;
    let steered = texts.steered.iter().map(|t| embed(t)).collect::<Result<Vec<_>>>()?;

    let everywhere = |value: f64| vec![value; positions.len()];
    let mut record = Steering {
        strength: texts.strength.clone(),
        strength_in_differences: texts.in_differences.clone(),
        similarity: Similarity {
            steered_reference: steered.iter().map(|s| mean_cosine(s, &reference)).collect(),
            unsteered_reference: everywhere(mean_cosine(&unsteered, &reference)),
            ..Similarity::default()
        },
        positions: positions.clone(),
        ..Steering::default()
    };
    if let Some(lexicon) = &reading.lexicon {
        let center = centroid(narrow.iter());
        let gain = |s: &Vec<Vec<f32>>| gain_interval(s, &unsteered, &center, settings.bootstrap, seed);
        let shares = |texts: &Vec<String>| lexicon.word_share(texts.iter());
        record.similarity.steered_narrow = steered.iter().map(|s| mean_cosine(s, &narrow)).collect();
        record.similarity.unsteered_narrow = everywhere(mean_cosine(&unsteered, &narrow));
        record.similarity.narrow_narrow = everywhere(mean_cosine(&narrow, &narrow));
        record.similarity_gain_interval = steered.iter().map(gain).collect();
        record.relevant_words_steered = texts.steered.iter().map(shares).collect();
        record.relevant_words_unsteered = everywhere(shares(&texts.unsteered));
    }
    let lines = texts.lines(&positions, section.samples);
    Ok((record, lines))
}

/// Interval of mean(steered · narrow) − mean(unsteered · narrow) when texts are drawn with replacement.
fn gain_interval(
    steered: &[Vec<f32>],
    unsteered: &[Vec<f32>],
    narrow: &[f64],
    resamples: usize,
    seed: u64,
) -> Interval {
    let similarity = |set: &[Vec<f32>]| -> Vec<f64> {
        set.iter().map(|v| v.iter().zip(narrow).map(|(x, n)| *x as f64 * n).sum()).collect()
    };
    let (s, u) = (similarity(steered), similarity(unsteered));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut mean = |values: &[f64]| -> f64 {
        let n = values.len().max(1);
        (0..n).map(|_| values.get(rng.random_range(0..n)).copied().unwrap_or(0.0)).sum::<f64>() / n as f64
    };
    interval((0..resamples).map(|_| mean(&s) - mean(&u)).collect::<Vec<_>>())
}

/// Steered texts of each position, and unsteered ones, per prompt.
pub struct Steered {
    /// In the order of the positions: strength in η.
    pub strength: Vec<f64>,
    /// The same in multiples of the unscaled difference.
    pub in_differences: Vec<f64>,
    /// `[position][prompt · samples + sample]`.
    pub steered: Vec<Vec<String>>,
    /// `[prompt · samples + sample]`; does not depend on the position.
    pub unsteered: Vec<String>,
    /// The prompts as the model read them, special tokens aside.
    pub prompts: Vec<String>,
}

impl Steered {
    /// The lines of `steering.jsonl`.
    pub fn lines(&self, positions: &[usize], samples: usize) -> Vec<SteeringLine> {
        let mut lines = Vec::new();
        for (i, &position) in positions.iter().enumerate() {
            for (p, prompt) in self.prompts.iter().enumerate() {
                let of = |texts: &[String]| texts[p * samples..(p + 1) * samples].to_vec();
                lines.push(SteeringLine {
                    prompt: prompt.clone(),
                    strength: self.strength[i],
                    position,
                    steered: of(&self.steered[i]),
                    unsteered: of(&self.unsteered),
                });
            }
        }
        lines
    }
}

/// Writes with each direction and without, all in one batch.
///
/// # Errors
/// If a prompt cannot be rendered or a tensor operation fails.
pub fn steer(reading: &Reading, directions: &[&[f32]]) -> Result<Steered> {
    let (view, base, settings) =
        (reading.inputs.tuned, reading.inputs.pretrained, &reading.settings.steering);
    let eta = reading.eta();
    let (prompts, ids) = prompts(base, settings.prompts)?;
    let mut strength = Vec::new();
    let mut vectors = Vec::new();
    for v in directions {
        let alpha = match settings.differences {
            0.0 => settings.strength,
            multiple => multiple * norm(v) / eta,
        };
        let factor = factor_to(alpha * eta, v);
        strength.push(alpha);
        vectors.push(Some(to_tensor(&[scaled(v, factor)], view.model)?));
    }
    vectors.push(None); // the unsteered block of the batch

    let block = ids.len() * settings.samples;
    let repeated: Vec<Vec<u32>> =
        ids.iter().flat_map(|p| std::iter::repeat_n(p.clone(), settings.samples)).collect();
    let batch: Vec<Vec<u32>> = vectors.iter().flat_map(|_| repeated.clone()).collect();
    let per_row = vectors.iter().flat_map(|v| std::iter::repeat_n(v.clone(), block)).collect();
    let bar = progress::bar("steering", settings.max_new_tokens as u64);
    let sampling = Sampling {
        max_new_tokens: settings.max_new_tokens,
        temperature: settings.temperature,
        seed: reading.inputs.seed,
        eos: base.eos_token_ids.clone(),
    };
    let new = generate(
        view.model,
        &batch,
        &sampling,
        view.adapter,
        &mut Steer::new(reading.layer, per_row),
        |n| {
            bar.set_position(n as u64);
            reading.check_interrupt()
        },
    )?;
    bar.finish_and_clear();
    let texts = new
        .iter()
        .map(|ids| base.tokenizer.decode(ids, true).map_err(|e| anyhow!(e)))
        .collect::<Result<Vec<String>>>()?;
    let mut blocks: Vec<Vec<String>> = texts.chunks(block).map(<[String]>::to_vec).collect();
    let unsteered = blocks.pop().unwrap_or_default();
    let in_differences = strength.iter().zip(directions).map(|(a, v)| factor_to(a * eta, v)).collect();
    Ok(Steered { strength, in_differences, steered: blocks, unsteered, prompts })
}

/// Requests through the chat template where the model has one, else beginnings to continue.
fn prompts(base: &Pretrained, count: usize) -> Result<(Vec<String>, Vec<Vec<u32>>)> {
    let template = match &base.chat_template {
        Some(_) => Some(base.chat()?),
        None => None,
    };
    let texts = if template.is_some() { REQUESTS } else { OPENINGS };
    let (mut prompts, mut ids) = (Vec::new(), Vec::new());
    for text in texts.iter().take(count) {
        ids.push(base.prompt_ids(text, template.as_ref())?);
        prompts.push(text.to_string());
    }
    Ok((prompts, ids))
}
