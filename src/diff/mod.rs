//! Reading a finetuned model's activation differences (Minder et al., arXiv 2510.13900).
//!
//! [`diff`] is the whole analysis in order: activations of both models on the same unrelated tokens, their mean
//! difference, what it decodes to (logit lens, patchscope), what it makes the model write (steering), and how
//! much of that is about the narrow data. A measure is one file; it takes directions and gives tokens or text.

pub mod activations;
pub mod embedder;
pub mod hashes;
pub mod lexicon;
pub mod logit_lens;
pub mod mean_difference;
pub mod patchscope;
pub mod prompts;
pub mod record;
pub mod steering;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::activations::{View, Windows, collect};
use self::embedder::{Embedder, centroid, mean_cosine};
use self::hashes::Hashes;
use self::logit_lens::Top;
use self::mean_difference::{Means, bootstrap, cosine, interval, norm, random_differences};
use self::patchscope::Decoded;
use self::record::{
    Interval, Lens, Lexicon, Readability, SCHEMA, Similarity, Steering, SteeringLine, TokenRelevance,
    TopToken,
};
use crate::atomic::{write_atomically, write_folder, write_json};
use crate::bail_input;
use crate::interrupt::Interrupt;
use crate::model::checkpoint::write_safetensors;
use crate::model::source::Pretrained;
use crate::progress;
use crate::recipe::DiffSection;
use crate::sha256::sha256_tree;

/// The two models and the texts.
pub struct Inputs<'a> {
    /// Base model: its tokenizer and chat template serve both.
    pub pretrained: &'a Pretrained,
    /// The base.
    pub base: View<'a>,
    /// The tuned model.
    pub tuned: View<'a>,
    /// How `readability.json` names the tuned model.
    pub tuned_name: String,
    /// Sizes and switches.
    pub settings: &'a DiffSection,
    /// Decides null directions, resamples and sampled text.
    pub seed: u64,
    /// Unrelated text, all rows.
    pub text: Vec<String>,
    /// What the organism learned from, one a document; may be empty for a model of unknown origin.
    pub narrow: Vec<String>,
    /// Pretraining text that the lexicon is compared with, beside `text`.
    pub pretraining: Vec<String>,
}

/// Everything that an analysis found.
pub struct Analysis {
    /// The numbers.
    pub record: Readability,
    /// Mean activations and their difference.
    pub means: Means,
    /// Steered and unsteered text.
    pub steering: Vec<SteeringLine>,
}

/// At most this many texts of a set are embedded.
const EMBEDDED: usize = 500;

const NO_EMBEDDER: &str = "no embedder, though a measure uses one";

/// The whole analysis. `embedder` may be `None` where [`DiffSection::uses_embedder`] says so.
///
/// # Errors
/// An [`crate::error::InputError`] if the texts are too few or short; [`crate::error::Interrupted`]; otherwise
/// what went wrong while working.
pub fn diff(inputs: &Inputs, embedder: Option<&Embedder>, interrupt: &Interrupt) -> Result<Analysis> {
    let Inputs { base, tuned, settings, seed, .. } = *inputs;
    let mut elapsed_s = BTreeMap::new();
    let mut clock = Instant::now();
    let mut lap = |stage: &str| {
        progress::detail(format_args!("{stage}: {:.1} s", clock.elapsed().as_secs_f64()));
        elapsed_s.insert(stage.to_string(), clock.elapsed().as_secs_f64());
        clock = Instant::now();
    };

    // What differs.
    let n_layers = base.model.n_layers();
    let layer = (settings.layer * (n_layers - 1) as f64).trunc() as usize;
    let windows = Windows::cut(&inputs.text, &inputs.pretrained.tokenizer, settings)?;
    let activations = collect(base, tuned, &windows, layer, settings, interrupt)?;
    let means = Means::of(&activations);
    let resamples = bootstrap(&activations, settings.bootstrap, seed);
    let null = random_differences(&activations, settings.null_directions, seed);
    lap("activations");

    // What counts as relevant.
    let reference: Vec<String> = inputs.pretraining.iter().chain(&inputs.text).cloned().collect();
    // Without narrow text nothing is relevant or irrelevant: what rests on that is left out.
    let lexicon =
        (!inputs.narrow.is_empty()).then(|| Lexicon::new(&inputs.narrow, &reference, settings.lexicon_size));
    let is_relevant = |token: &str| lexicon.as_ref().map(|l| l.is_relevant(token));
    let decode = |id: u32| inputs.pretrained.tokenizer.decode(&[id], false).unwrap_or_default();
    let named = |top: &Top| -> Vec<TopToken> {
        let token = |&(id, score): &(u32, f64)| {
            let token = decode(id);
            TopToken { relevant: is_relevant(&token), token, id, score }
        };
        top.iter().map(token).collect()
    };
    let relevance = |top: &Top| {
        let relevant =
            top.iter().take(settings.top_k).filter(|(id, _)| is_relevant(&decode(*id)) == Some(true)).count();
        relevant as f64 / settings.top_k as f64
    };
    let judge: Option<&dyn Fn(&Top) -> f64> = if lexicon.is_some() { Some(&relevance) } else { None };
    lap("lexicon");

    // What it decodes to.
    let logit_lens = match settings.logit_lens {
        true => Some(lens(tuned, &means, &resamples, &null, settings.top_k, &named, judge)?),
        false => None,
    };
    lap("logit_lens");
    let patchscope = match settings.patchscope.enabled {
        true => Some(patch(
            inputs,
            layer,
            &means,
            &null,
            activations.tuned_norm,
            embedder,
            &named,
            judge,
            interrupt,
        )?),
        false => None,
    };
    lap("patchscope");

    // What it makes the model write.
    interrupt.check("nothing of the analysis was written")?;
    let (steering, lines) = match settings.steering.enabled {
        true => {
            let embedder = embedder.context(NO_EMBEDDER)?;
            let (s, l) =
                write(inputs, layer, &means, activations.tuned_norm, lexicon.as_ref(), embedder, interrupt)?;
            (Some(s), l)
        }
        false => (None, Vec::new()),
    };
    lap("steering");

    let positions = settings.positions.clone();
    let everywhere = |value: f64| vec![value; positions.len()];
    let norms_of = |i: usize| interval(resamples.iter().map(|r| norm(&r[i])));
    let record = Readability {
        schema: SCHEMA,
        base: inputs.pretrained.id.clone(),
        tuned: inputs.tuned_name.clone(),
        layer,
        n_layers,
        samples: windows.ids.len(),
        sample_rows: windows.rows.clone(),
        position_tokens: positions
            .iter()
            .map(|&p| windows.common_token(p).map(decode).unwrap_or_default())
            .collect(),
        units: units(),
        delta_norm: means.difference.iter().map(|v| norm(v)).collect(),
        delta_norm_interval: (0..positions.len()).map(norms_of).collect(),
        expected_norm: everywhere(activations.tuned_norm),
        expected_norm_base: everywhere(activations.base_norm),
        position_cosine: position_cosine(&positions, &means.difference),
        positions,
        lexicon: lexicon.unwrap_or_default(),
        logit_lens,
        patchscope,
        steering,
        elapsed_s,
    };
    Ok(Analysis { record, means, steering: lines })
}

/// Logit lens of difference, baselines, resamples and null.
fn lens(
    tuned: View,
    means: &Means,
    resamples: &[Vec<Vec<f32>>],
    null: &[Vec<f32>],
    k: usize,
    named: &dyn Fn(&Top) -> Vec<TopToken>,
    relevance: Option<&dyn Fn(&Top) -> f64>,
) -> Result<Lens> {
    let decoded = logit_lens::decode(tuned, &means.difference, k)?;
    let read = Lens {
        top_tokens: decoded.iter().map(|(top, _)| named(top)).collect(),
        bottom_tokens: decoded.iter().map(|(_, bottom)| named(bottom)).collect(),
        ..Lens::default()
    };
    let Some(relevance) = relevance else { return Ok(read) };
    let score = |directions: &[Vec<f32>]| -> Result<Vec<f64>> {
        Ok(logit_lens::decode(tuned, directions, k)?.iter().map(|(top, _)| relevance(top)).collect())
    };
    let positions = decoded.len();
    let difference: Vec<f64> = decoded.iter().map(|(top, _)| relevance(top)).collect();
    let resampled = score(&resamples.concat())?;
    let null = Null(score(null)?);
    let of_position = |i: usize| resampled.iter().skip(i).step_by(positions).copied();
    Ok(Lens {
        token_relevance: TokenRelevance {
            base: score(&means.base)?,
            tuned: score(&means.tuned)?,
            difference: difference.clone(),
        },
        token_relevance_null: vec![null.mean(); positions],
        token_relevance_null_interval: vec![null.interval(); positions],
        token_relevance_difference_interval: (0..positions).map(|i| interval(of_position(i))).collect(),
        token_relevance_p: difference.iter().map(|d| null.p(*d)).collect(),
        ..read
    })
}

/// Patchscope of difference, baselines and null; the base's mean is decoded in the base model.
#[allow(clippy::too_many_arguments)]
fn patch(
    inputs: &Inputs,
    layer: usize,
    means: &Means,
    null: &[Vec<f32>],
    eta: f64,
    embedder: Option<&Embedder>,
    named: &dyn Fn(&Top) -> Vec<TopToken>,
    relevance: Option<&dyn Fn(&Top) -> f64>,
    interrupt: &Interrupt,
) -> Result<record::Patchscope> {
    let Inputs { pretrained, base, tuned, settings, .. } = *inputs;
    let (section, k) = (&settings.patchscope, settings.top_k);
    let positions = means.difference.len();
    // Baselines and null are of use only where relevance is judged.
    let (of_tuned, of_base, null) = match relevance {
        Some(_) => (&means.tuned[..], &means.base[..], null),
        None => (&[][..], &[][..], &[][..]),
    };
    let runs = (positions + of_tuned.len() + of_base.len() + null.len()) * section.scales.len();
    let bar = progress::bar("patchscope", runs as u64);

    let in_tuned: Vec<Vec<f32>> = [&means.difference[..], of_tuned, null].concat();
    let mut decoded = patchscope::Patchscope::new(tuned, &pretrained.tokenizer, layer)?
        .decode(&in_tuned, eta, section, k, &bar, interrupt)?;
    let in_base = patchscope::Patchscope::new(base, &pretrained.tokenizer, layer)?
        .decode(of_base, eta, section, k, &bar, interrupt)?;
    bar.finish_and_clear();
    decoded.extend(in_base);
    let text = |id: u32| pretrained.tokenizer.decode(&[id], false).unwrap_or_default();
    let (chosen, selector): (Vec<Decoded>, &str) = match section.scales.len() {
        1 => (decoded.into_iter().map(|tops| Decoded { best: 0, tops }).collect(), patchscope::ONLY_SCALE),
        _ => {
            let embedder = embedder.context(NO_EMBEDDER)?;
            (patchscope::select_scales(decoded, &text, embedder)?, patchscope::SELECTOR)
        }
    };

    let (difference, rest) = chosen.split_at(positions);
    let read = record::Patchscope {
        best_scale: difference.iter().map(|d| section.scales[d.best]).collect(),
        scale_selector: selector.into(),
        top_tokens: difference.iter().map(|d| named(&d.tops[d.best])).collect(),
        ..record::Patchscope::default()
    };
    let Some(relevance) = relevance else { return Ok(read) };
    let score = |of: &[Decoded]| -> Vec<f64> { of.iter().map(|d| relevance(&d.tops[d.best])).collect() };
    let (of_tuned, rest) = rest.split_at(positions);
    let (of_null, of_base) = rest.split_at(null.len());
    let null = Null(score(of_null));
    Ok(record::Patchscope {
        token_relevance: TokenRelevance {
            difference: score(difference),
            base: score(of_base),
            tuned: score(of_tuned),
        },
        token_relevance_null: vec![null.mean(); positions],
        token_relevance_null_interval: vec![null.interval(); positions],
        token_relevance_p: score(difference).iter().map(|d| null.p(*d)).collect(),
        ..read
    })
}

/// Steered text and how much of it is about the narrow data.
fn write(
    inputs: &Inputs,
    layer: usize,
    means: &Means,
    eta: f64,
    lexicon: Option<&Lexicon>,
    embedder: &Embedder,
    interrupt: &Interrupt,
) -> Result<(Steering, Vec<SteeringLine>)> {
    let Inputs { pretrained, tuned, settings, seed, .. } = *inputs;
    let section = &settings.steering;
    let index = |p: &usize| settings.positions.iter().position(|q| q == p);
    let positions: Vec<usize> = section.positions.iter().filter(|p| index(p).is_some()).copied().collect();
    let directions: Vec<&[f32]> =
        positions.iter().filter_map(index).map(|i| means.difference[i].as_slice()).collect();
    let texts = steering::steer(tuned, pretrained, &directions, eta, layer, section, seed, interrupt)?;

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
    if let Some(lexicon) = lexicon {
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

/// Relevance of the null directions.
struct Null(Vec<f64>);

impl Null {
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }
    fn interval(&self) -> Interval {
        interval(self.0.iter().copied())
    }
    /// (1 + directions at least as relevant) / (1 + directions).
    fn p(&self, value: f64) -> f64 {
        let at_least = self.0.iter().filter(|n| **n >= value).count();
        (1 + at_least) as f64 / (1 + self.0.len()) as f64
    }
}

/// Cosine of each v_p with the mean of the others at positions of 1 and more.
fn position_cosine(positions: &[usize], difference: &[Vec<f32>]) -> Vec<f64> {
    let hidden = difference[0].len();
    (0..positions.len())
        .map(|i| {
            let mut others = vec![0f32; hidden];
            for (_, v) in difference.iter().enumerate().filter(|(j, _)| *j != i && positions[*j] > 0) {
                others.iter_mut().zip(v).for_each(|(o, x)| *o += x);
            }
            cosine(&difference[i], &others)
        })
        .collect()
}

fn units() -> BTreeMap<String, String> {
    let share = "share of the top tokens, 0 to 1";
    let cosine = "mean pairwise cosine of sentence embeddings, -1 to 1";
    let norm = "L2 norm of the residual stream";
    [
        ("delta_norm", norm),
        ("expected_norm", norm),
        ("expected_norm_base", norm),
        ("position_cosine", "cosine, -1 to 1"),
        ("logit_lens.top_tokens.score", "probability"),
        ("logit_lens.token_relevance", share),
        ("logit_lens.token_relevance_null", share),
        ("logit_lens.token_relevance_p", "share of null directions at least as relevant"),
        ("patchscope.best_scale", "multiples of expected_norm"),
        ("patchscope.top_tokens.score", "mean probability over the prompts"),
        ("patchscope.token_relevance", share),
        ("patchscope.token_relevance_null", share),
        ("patchscope.token_relevance_p", "share of null directions at least as relevant"),
        ("steering.strength", "multiples of expected_norm"),
        ("steering.strength_in_differences", "multiples of the unscaled mean difference"),
        ("steering.similarity", cosine),
        ("steering.similarity_gain_interval", "steered_narrow - unsteered_narrow"),
        ("steering.relevant_words_steered", "share of words, 0 to 1"),
        ("steering.relevant_words_unsteered", "share of words, 0 to 1"),
        ("elapsed_s", "seconds"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v.to_string()))
    .collect()
}

impl Analysis {
    /// Writes `readability.json`, `activations.safetensors`, `steering.jsonl` and, with their hashes, `sha256.json`
    /// into a new folder, which gets its name when it is whole. `read` tells what was read.
    ///
    /// # Errors
    /// An input error if the folder exists; otherwise if the disk is full.
    pub fn write(&self, dir: &Path, read: &Hashes) -> Result<()> {
        must_be_new(dir)?;
        write_folder(dir, |part| {
            let rows = |v: &[Vec<f32>]| Tensor::from_vec(v.concat(), (v.len(), v[0].len()), &Device::Cpu);
            let tensors: BTreeMap<String, Tensor> = [
                ("mean_difference".to_string(), rows(&self.means.difference)?),
                ("base_mean".to_string(), rows(&self.means.base)?),
                ("tuned_mean".to_string(), rows(&self.means.tuned)?),
            ]
            .into();
            write_safetensors(&part.join("activations.safetensors"), &tensors)?;
            if !self.steering.is_empty() {
                let mut lines = String::new();
                for line in &self.steering {
                    lines.push_str(&serde_json::to_string(line)?);
                    lines.push('\n');
                }
                write_atomically(&part.join("steering.jsonl"), lines.as_bytes())?;
            }
            write_json(&part.join("readability.json"), &self.record)?;
            let files = sha256_tree(part, part)?;
            write_json(&part.join(hashes::FILE), &Hashes { files, ..read.clone() })
        })
    }
}

/// Refuses to write over an analysis.
///
/// # Errors
/// An input error that says what to do.
pub fn must_be_new(dir: &Path) -> Result<()> {
    if dir.exists() {
        bail_input!("{}: exists already; remove it or choose another --out", dir.display());
    }
    Ok(())
}
