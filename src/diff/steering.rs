//! Steering: α·η·v_p/‖v_p‖ is added to the output of the block that is read, at every token, while the tuned
//! model writes.

use anyhow::{Result, anyhow};

use super::activations::{View, to_tensor};
use super::mean_difference::{factor_to, norm};
use super::prompts::{OPENINGS, REQUESTS};
use super::record::SteeringLine;
use crate::interrupt::Interrupt;
use crate::model::generate::{Sampling, generate};
use crate::model::hooks::Steer;
use crate::model::source::Pretrained;
use crate::progress;
use crate::recipe::SteeringSection;

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
#[allow(clippy::too_many_arguments)]
pub fn steer(
    view: View,
    base: &Pretrained,
    directions: &[&[f32]],
    eta: f64,
    layer: usize,
    settings: &SteeringSection,
    seed: u64,
    interrupt: &Interrupt,
) -> Result<Steered> {
    let (prompts, ids) = prompts(base, settings.prompts)?;
    let mut strength = Vec::new();
    let mut vectors = Vec::new();
    for v in directions {
        let alpha = match settings.differences {
            0.0 => settings.strength,
            multiple => multiple * norm(v) / eta,
        };
        let factor = factor_to(alpha * eta, v);
        let scaled: Vec<f32> = v.iter().map(|x| (*x as f64 * factor) as f32).collect();
        strength.push(alpha);
        vectors.push(Some(to_tensor(&[scaled], view.model)?));
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
        seed,
        eos: base.eos_token_ids.clone(),
    };
    let new = generate(view.model, &batch, &sampling, view.adapter, &mut Steer::new(layer, per_row), |n| {
        bar.set_position(n as u64);
        interrupt.check("nothing of the analysis was written")
    })?;
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
