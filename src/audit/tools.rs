//! What an investigator may do: look at the stored analysis for nothing, ask both models or steer the tuned one at a
//! price (the tools of the agent in arXiv 2510.13900). A call that makes no sense is refused in words; it is never a
//! failure of the command.

use std::fmt::Write;

use anyhow::{Result, anyhow};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::diff::collect::to_tensor;
use crate::diff::decode::TopToken;
use crate::diff::decode::{Decoded, DecodedMean};
use crate::diff::mean_difference::{factor_to, scaled};
use crate::diff::store::StoredAnalysis;
use crate::interrupt::Interrupt;
use crate::model::View;
use crate::model::generate::{Sampling, generate};
use crate::model::hooks::{Hook, NoHook, Steer};
use crate::model::load::source::Pretrained;
use crate::recipe::SteeringSection;

/// Temperature of answers to [`ASK`], as in the authors' toolkit.
const ASK_TEMPERATURE: f64 = 0.8;
/// Longest prompt in characters; catches slips that would fill the memory.
const LONGEST_PROMPT: usize = 4000;
/// Most prompts of a stored sample that are shown at once.
const SAMPLES_SHOWN: usize = 10;

/// Answers of both models to prompts.
pub const ASK: &str = "ask_model";
const LOGIT_LENS: &str = "get_logitlens_details";
const PATCHSCOPE: &str = "get_patchscope_details";
const SAMPLES: &str = "get_steering_samples";
const STEER: &str = "generate_steered";

/// One call, as the investigator wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Name of the tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What the investigator reads.
    pub text: String,
    /// Interactions with the models that it cost.
    pub interactions: usize,
}

/// The two models.
#[derive(Clone, Copy)]
pub struct AuditedModels<'a> {
    /// The base: its tokenizer and chat template serve both.
    pub pretrained: &'a Pretrained,
    /// The base.
    pub base: View<'a>,
    /// The tuned model.
    pub tuned: View<'a>,
}

/// The tools of one investigation.
pub struct Tools<'a> {
    /// The analysis.
    pub stored: &'a StoredAnalysis,
    /// v_p in the order of its positions.
    pub differences: &'a [Vec<f32>],
    /// `None` where no interaction is allowed.
    pub models: Option<AuditedModels<'a>>,
    /// Strength and temperature of steering where the call says nothing.
    pub steering: &'a SteeringSection,
    /// Whether the investigator sees nothing of the analysis.
    pub black_box: bool,
    /// Most new tokens of an answer or a steered text.
    pub answer_tokens: usize,
    /// Decides what is sampled, with the number of the turn.
    pub seed: u64,
    /// Ends long work.
    pub interrupt: &'a Interrupt,
}

/// A result, or why there is none in words for the investigator.
type Said<T> = std::result::Result<T, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LensArguments {
    positions: Option<Vec<usize>>,
    #[serde(default = "twenty")]
    top_k: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeArguments {
    positions: Option<Vec<usize>>,
    scales: Option<Vec<f64>>,
    #[serde(default = "twenty")]
    top_k: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleArguments {
    positions: Option<Vec<usize>>,
    prompts: Option<Vec<usize>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskArguments {
    prompts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SteerArguments {
    position: usize,
    prompts: Vec<String>,
    #[serde(default = "one")]
    samples: usize,
    strength: Option<f64>,
}

fn twenty() -> usize {
    20
}

fn one() -> usize {
    1
}

impl Tools<'_> {
    /// What each tool does, for the investigator.
    pub fn described(&self) -> String {
        let mut tools = Vec::new();
        if !self.black_box {
            tools.push(format!(
                // prose: allow beside
                "{LOGIT_LENS} {{\"positions\": [1, 2], \"top_k\": 20}}\n  free. Tokens that the difference of each \
                 position decodes to under the logit lens, with probabilities; those of the two models' mean \
                 activations beside them. All positions where none are given."
            ));
            tools.push(format!(
                "{PATCHSCOPE} {{\"positions\": [1], \"scales\": [1.0, 2.0], \"top_k\": 20}}\n  free. Tokens that the \
                 difference decodes to under the patchscope at each scale. All scales where none are given."
            ));
            tools.push(format!(
                "{SAMPLES} {{\"positions\": [1], \"prompts\": [0, 3]}}\n  free. Stored texts that the finetuned model \
                 wrote with the difference added and without, whole; prompts by number from 0."
            ));
        }
        tools.push(format!(
            "{ASK} {{\"prompts\": [\"…\"]}}\n  1 interaction a prompt. What the base model and the finetuned model \
             each {} a prompt.",
            self.verb()
        ));
        if !self.black_box {
            tools.push(format!(
                // prose: allow what-subject
                "{STEER} {{\"position\": 1, \"prompts\": [\"…\"], \"samples\": 1, \"strength\": 0.5}}\n  1 interaction \
                 a sample and prompt. What the finetuned model writes while the difference of the position is added; \
                 strength in typical activation norms, the stored one where none is given."
            ));
        }
        tools.join("\n")
    }

    /// What the models do with a prompt, in a word.
    pub fn verb(&self) -> &'static str {
        let chats = self.models.is_some_and(|m| m.pretrained.chat_template.is_some());
        if chats { "answer to" } else { "write after" }
    }

    /// Does a call for at most `left` interactions. `turn` decides what is sampled.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`], or a tensor operation that fails.
    pub fn call(&self, call: &Call, left: usize, turn: usize) -> Result<Outcome> {
        let free = |text: Said<String>| text.map(|text| Outcome { text, interactions: 0 });
        let said: Said<Outcome> = match (call.tool.as_str(), self.black_box) {
            (LOGIT_LENS, false) => free(arguments(call).and_then(|a| self.logit_lens(&a))),
            (PATCHSCOPE, false) => free(arguments(call).and_then(|a| self.patchscope(&a))),
            (SAMPLES, false) => free(arguments(call).and_then(|a| self.samples(&a))),
            (ASK, _) => {
                match arguments(call).and_then(|a: AskArguments| self.affordable(&a.prompts, 1, left)) {
                    Ok((models, prompts)) => Ok(self.ask(models, &prompts, turn)?),
                    Err(refusal) => Err(refusal),
                }
            }
            (STEER, false) => match arguments(call).and_then(|a: SteerArguments| self.steerable(a, left)) {
                Ok((models, prompts, vector)) => Ok(self.steer(models, &prompts, vector, turn)?),
                Err(refusal) => Err(refusal),
            },
            (other, _) => Err(format!("there is no tool {other:?}")),
        };
        Ok(said.unwrap_or_else(|refusal| Outcome { text: format!("ERROR: {refusal}"), interactions: 0 }))
    }

    // ---- the stored analysis -------------------------------------------------------------------

    fn logit_lens(&self, a: &LensArguments) -> Said<String> {
        let lens = self.stored.record.logit_lens.as_ref().ok_or("the analysis has no logit lens")?;
        let mut text = String::new();
        for position in self.positions(&a.positions)? {
            let at = self.stored.index(position).ok_or("no such position")?;
            let _ =
                writeln!(text, "position {position}\n  difference: {}", shown(&lens.top_tokens[at], a.top_k));
            for line in self.stored.logit_lens.iter().filter(|l| l.position == position) {
                let what = match line.variant {
                    DecodedMean::Difference => continue,
                    DecodedMean::Base => "mean activation of the base model",
                    DecodedMean::Tuned => "mean activation of the finetuned model",
                };
                let _ = writeln!(text, "  {what}: {}", shown(&line.tokens, a.top_k));
            }
        }
        Ok(text)
    }

    fn patchscope(&self, a: &ScopeArguments) -> Said<String> {
        let mut text = String::new();
        for position in self.positions(&a.positions)? {
            let chosen = self.stored.patchscope_at(position).ok_or("the analysis has no patchscope there")?;
            let _ = writeln!(text, "position {position}");
            let all: Vec<&Decoded> = self
                .stored
                .patchscope
                .iter()
                .filter(|l| l.position == position && l.variant == DecodedMean::Difference)
                .collect();
            let wanted = |scale: f64| match &a.scales {
                Some(scales) => scales.iter().any(|s| (s - scale).abs() <= 1e-9 * scale.abs()),
                None => true,
            };
            let rows: Vec<(f64, &[TopToken])> = match all.is_empty() {
                true => vec![chosen],
                false => all.iter().filter_map(|l| Some((l.scale?, l.tokens.as_slice()))).collect(),
            };
            let scales: Vec<String> = rows.iter().map(|(scale, _)| scale.to_string()).collect();
            let before = text.len();
            for (scale, tokens) in rows.iter().filter(|(scale, _)| wanted(*scale)) {
                let _ = writeln!(text, "  scale {scale}: {}", shown(tokens, a.top_k));
            }
            if text.len() == before {
                return Err(format!("none of these scales was computed; there are {}", scales.join(", ")));
            }
        }
        Ok(text)
    }

    fn samples(&self, a: &SampleArguments) -> Said<String> {
        let mut text = String::new();
        let mut positions: Vec<usize> = self.stored.steering.iter().map(|l| l.position).collect();
        positions.dedup();
        if positions.is_empty() {
            return Err("the analysis has no steered text".into());
        }
        for position in a.positions.as_ref().unwrap_or(&positions) {
            let lines: Vec<_> = self.stored.steering.iter().filter(|l| l.position == *position).collect();
            if lines.is_empty() {
                return Err(format!("nothing was steered at position {position}; there are {positions:?}"));
            }
            let wanted: Vec<usize> = match &a.prompts {
                Some(prompts) => prompts.clone(),
                None => (0..lines.len().min(SAMPLES_SHOWN)).collect(),
            };
            for i in wanted {
                let line = lines
                    .get(i)
                    .ok_or_else(|| format!("no prompt {i}; there are 0 to {}", lines.len() - 1))?;
                let pairs =
                    json!({"prompt": line.prompt, "steered": line.steered, "unsteered": line.unsteered});
                let _ =
                    writeln!(text, "position {position}, prompt {i}, strength {:.2}: {pairs}", line.strength);
            }
        }
        Ok(text)
    }

    /// The positions asked for; all where none are.
    fn positions(&self, asked: &Option<Vec<usize>>) -> Said<Vec<usize>> {
        let known = &self.stored.record.positions;
        let asked = asked.clone().unwrap_or_else(|| known.clone());
        match asked.iter().find(|p| !known.contains(p)) {
            Some(unknown) => Err(format!("position {unknown} was not read; there are {known:?}")),
            None => Ok(asked),
        }
    }

    // ---- the models ----------------------------------------------------------------------------

    /// The prompts as tokens, if they are some and there are interactions for them.
    fn affordable(
        &self,
        prompts: &[String],
        samples: usize,
        left: usize,
    ) -> Said<(AuditedModels<'_>, Vec<Prompt>)> {
        let cost = prompts.len().saturating_mul(samples);
        if cost == 0 {
            return Err("expected at least one prompt and one sample".into());
        }
        let Some(models) = self.models.filter(|_| cost <= left) else {
            return Err(format!("this costs {cost} interactions, {left} are left; nothing was done"));
        };
        let template =
            models.pretrained.chat_template.is_some().then(|| models.pretrained.chat()).transpose();
        let template = template.map_err(|e| format!("{e:#}"))?;
        let mut all = Vec::new();
        for text in prompts {
            if text.chars().count() > LONGEST_PROMPT {
                return Err(format!("a prompt has more than {LONGEST_PROMPT} characters"));
            }
            let ids = models.pretrained.prompt_ids(text, template.as_ref()).map_err(|e| format!("{e:#}"))?;
            if ids.is_empty() || text.trim().is_empty() {
                return Err("a prompt is empty".into());
            }
            all.extend((0..samples).map(|_| Prompt { text: text.clone(), ids: ids.clone() }));
        }
        Ok((models, all))
    }

    fn ask(&self, models: AuditedModels, prompts: &[Prompt], turn: usize) -> Result<Outcome> {
        let write = |view: View| self.write(models, view, prompts, ASK_TEMPERATURE, &mut NoHook, turn);
        let (base, tuned) = (write(models.base)?, write(models.tuned)?);
        let mut text = String::new();
        for ((prompt, base), tuned) in prompts.iter().zip(&base).zip(&tuned) {
            let _ = writeln!(text, "{}", json!({"prompt": prompt.text, "base": base, "finetuned": tuned}));
        }
        Ok(Outcome { text, interactions: prompts.len() })
    }

    /// Prompts with the vector of each, α·η·v_p/‖v_p‖.
    fn steerable(&self, a: SteerArguments, left: usize) -> Said<(AuditedModels<'_>, Vec<Prompt>, Vec<f32>)> {
        let at = self.stored.index(a.position).ok_or_else(|| {
            format!("position {} was not read; there are {:?}", a.position, self.stored.record.positions)
        })?;
        let strength = a.strength.unwrap_or_else(|| self.strength(a.position, at));
        if !(-1e3..=1e3).contains(&strength) {
            return Err(format!("strength {strength}: expected a number from -1000 to 1000"));
        }
        let (models, prompts) = self.affordable(&a.prompts, a.samples, left)?;
        let v = self.differences.get(at).ok_or("the analysis has no difference at this position")?;
        let factor = factor_to(strength * self.stored.record.expected_norm[at], v);
        Ok((models, prompts, scaled(v, factor)))
    }

    /// The strength that was stored for a position, or that the recipe gives it.
    fn strength(&self, position: usize, at: usize) -> f64 {
        let record = &self.stored.record;
        if let Some(line) = self.stored.steering.iter().find(|l| l.position == position) {
            return line.strength;
        }
        self.steering.strength_of(record.delta_norm[at], record.expected_norm[at])
    }

    fn steer(
        &self,
        models: AuditedModels,
        prompts: &[Prompt],
        vector: Vec<f32>,
        turn: usize,
    ) -> Result<Outcome> {
        let vector = to_tensor(&[vector], models.tuned.model)?; // (1, hidden)
        let mut hook = Steer::new(self.stored.record.layer, vec![Some(vector); prompts.len()]);
        let texts = self.write(models, models.tuned, prompts, self.steering.temperature, &mut hook, turn)?;
        let mut text = String::new();
        for (prompt, steered) in prompts.iter().zip(&texts) {
            let _ = writeln!(text, "{}", json!({"prompt": prompt.text, "steered": steered}));
        }
        Ok(Outcome { text, interactions: prompts.len() })
    }

    fn write(
        &self,
        models: AuditedModels,
        view: View,
        prompts: &[Prompt],
        temperature: f64,
        hook: &mut dyn Hook,
        turn: usize,
    ) -> Result<Vec<String>> {
        let digest = Sha256::digest(format!("{} {turn}", self.seed));
        let sampling = Sampling {
            max_new_tokens: self.answer_tokens,
            temperature,
            seed: u64::from_le_bytes(digest[..8].try_into()?),
            eos: models.pretrained.eos_token_ids.clone(),
        };
        let ids: Vec<Vec<u32>> = prompts.iter().map(|p| p.ids.clone()).collect();
        let hint = "the investigator's answers are kept; rerun the command to resume";
        let new = generate(view.model, &ids, &sampling, view.adapter, hook, |_| self.interrupt.check(hint))?;
        new.iter().map(|ids| models.pretrained.tokenizer.decode(ids, true).map_err(|e| anyhow!(e))).collect()
    }
}

/// A prompt as text and as tokens.
struct Prompt {
    text: String,
    ids: Vec<u32>,
}

fn arguments<T: DeserializeOwned>(call: &Call) -> Said<T> {
    T::deserialize(&call.arguments).map_err(|e| format!("{}: {e}", call.tool))
}

/// Tokens with their probabilities. Whether the lexicon calls them relevant stays out of it: that is the answer.
pub fn shown(tokens: &[TopToken], top_k: usize) -> String {
    let one = |t: &TopToken| format!("{} {:.4}", Value::String(t.token.clone()), t.score);
    tokens.iter().take(top_k).map(one).collect::<Vec<_>>().join(", ")
}
