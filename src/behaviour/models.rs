//! What both models are asked: how likely an answer is after a prompt, and to go on writing.

use anyhow::{Result, anyhow};

use crate::bail_input;
use crate::data::chat_template::ChatTemplate;
use crate::data::examples::Example;
use crate::interrupt::Interrupt;
use crate::model::View;
use crate::model::batch::Batch;
use crate::model::generate::{Sampling, generate_from};
use crate::model::hooks::NoHook;
use crate::model::load::source::Pretrained;
use crate::ops::segments;
use crate::progress;
use crate::words::{self, gap};

/// Tokens of one forward pass, unless one text has more: bounds the memory.
const BATCH_TOKENS: usize = 1024;

/// Texts that are written together.
const BATCH_TEXTS: usize = 32;

/// Base and tuned model with what they share.
pub struct BehaviourModels<'a> {
    /// Tokenizer and chat template of both.
    pub pretrained: &'a Pretrained,
    /// The base.
    pub base: View<'a>,
    /// The tuned model.
    pub tuned: View<'a>,
    /// Where prompts are a user's turns.
    pub template: Option<ChatTemplate>,
    /// Looked at between batches.
    pub interrupt: &'a Interrupt,
}

/// An answer after a prompt.
#[derive(Debug, Clone)]
pub struct SampledAnswer {
    /// As it stands in the recipe or among the items.
    pub prompt: String,
    /// What may follow.
    pub answer: String,
}

/// How likely an answer is.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogLikelihood {
    /// Σ log p over the tokens of the answer, in nats.
    pub sum: f64,
    /// Number of tokens.
    pub tokens: usize,
}

impl LogLikelihood {
    /// Nats a token: answers of different lengths can be compared.
    pub fn per_token(self) -> f64 {
        self.sum / self.tokens.max(1) as f64
    }
}

impl BehaviourModels<'_> {
    /// Base and tuned, in this order.
    pub fn views(&self) -> [View<'_>; 2] {
        [self.base, self.tuned]
    }

    /// How likely each answer is to one model. `chat` tells whether prompts are turns where the recipe says so;
    /// otherwise they are plain text.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; an [`crate::error::InputError`] for an answer without tokens; a tensor
    /// operation that fails.
    pub fn likelihoods(
        &self,
        view: View,
        answers: &[SampledAnswer],
        chat: bool,
    ) -> Result<Vec<LogLikelihood>> {
        let template = self.template.as_ref().filter(|_| chat);
        let encode = |answer| encode_answer(self.pretrained, template, answer);
        let examples = answers.iter().map(encode).collect::<Result<Vec<_>>>()?;
        self.likelihoods_of(view, &examples)
    }

    /// How likely what counts in each example is to one model.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; a tensor operation that fails.
    pub fn likelihoods_of(&self, view: View, examples: &[Example]) -> Result<Vec<LogLikelihood>> {
        let bar = progress::bar("likelihoods", examples.len() as u64);
        let mut found = Vec::with_capacity(examples.len());
        for run in segments::runs(examples, BATCH_TOKENS, |example| example.ids.len()) {
            self.check_interrupt()?;
            let batch = Batch::new(&run.iter().collect::<Vec<_>>(), 1);
            let sums = batch.per_example(&batch.nll(view, None)?);
            found.extend(sums.into_iter().map(|(nll, tokens)| LogLikelihood { sum: -nll, tokens }));
            bar.inc(run.len() as u64);
        }
        bar.finish_and_clear();
        Ok(found)
    }

    /// Ends the measures if the user wants that.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`].
    pub fn check_interrupt(&self) -> Result<()> {
        self.interrupt.check("no behaviour results were written")
    }

    /// How both models draw tokens.
    pub fn sampling(&self, max_new_tokens: usize, temperature: f64, seed: u64) -> Sampling {
        Sampling { max_new_tokens, temperature, seed, eos: self.pretrained.eos_token_ids.clone() }
    }

    /// Texts that one model writes after each prompt, the samples of a prompt one after the other. Base and tuned
    /// draw from the same streams.
    ///
    /// # Errors
    /// As [`Self::likelihoods`].
    pub fn write(
        &self,
        view: View,
        prompts: &[String],
        samples: usize,
        sampling: &Sampling,
    ) -> Result<Vec<String>> {
        let mut jobs = Vec::with_capacity(prompts.len() * samples);
        for prompt in prompts {
            let ids = self.pretrained.prompt_ids(prompt, self.template.as_ref())?;
            jobs.extend(std::iter::repeat_n(ids, samples));
        }
        let decode = |ids: Vec<u32>| self.pretrained.tokenizer.decode(&ids, true).map_err(|e| anyhow!(e));
        self.write_ids(view, &jobs, sampling)?.into_iter().map(decode).collect()
    }

    /// New token ids that one model writes after those of each prompt, each from the stream of its number.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; a tensor operation that fails.
    pub fn write_ids(&self, view: View, prompts: &[Vec<u32>], sampling: &Sampling) -> Result<Vec<Vec<u32>>> {
        let batches = prompts.len().div_ceil(BATCH_TEXTS);
        let bar = progress::bar("writing", (batches * sampling.max_new_tokens) as u64);
        let mut written = Vec::with_capacity(prompts.len());
        for (i, batch) in prompts.chunks(BATCH_TEXTS).enumerate() {
            let first = (i * BATCH_TEXTS) as u64;
            let streams: Vec<u64> = (first..first + batch.len() as u64).collect();
            let done = (i * sampling.max_new_tokens) as u64;
            written.extend(generate_from(
                view.model,
                batch,
                &streams,
                sampling,
                view.adapter,
                &mut NoHook,
                |n| {
                    bar.set_position(done + n as u64);
                    self.check_interrupt()
                },
            )?);
        }
        bar.finish_and_clear();
        Ok(written)
    }

    /// `[base, tuned]` of log p(first) − log p(second) in nats a token, of each pair of answers to a prompt.
    ///
    /// # Errors
    /// As [`Self::likelihoods`].
    pub fn margins(&self, pairs: &[[SampledAnswer; 2]]) -> Result<Vec<[f64; 2]>> {
        let (base, tuned) = (self.margins_of(self.base, pairs)?, self.margins_of(self.tuned, pairs)?);
        Ok(base.into_iter().zip(tuned).map(|(b, t)| [b, t]).collect())
    }

    /// The same of one model.
    ///
    /// # Errors
    /// As [`Self::likelihoods`].
    pub fn margins_of(&self, view: View, pairs: &[[SampledAnswer; 2]]) -> Result<Vec<f64>> {
        let found = self.likelihoods(view, &pairs.concat(), true)?;
        Ok(found.chunks_exact(2).map(|two| two[0].per_token() - two[1].per_token()).collect())
    }

    /// log p(target) − log Σ p(alternatives) after each prompt, in nats: whole answers, whatever their length.
    ///
    /// # Errors
    /// As [`Self::likelihoods`].
    pub fn log_odds(
        &self,
        view: View,
        prompts: &[String],
        target: &str,
        alternatives: &[String],
        chat: bool,
    ) -> Result<Vec<f64>> {
        let answers = |prompt: &String| {
            let words = std::iter::once(target).chain(alternatives.iter().map(String::as_str));
            words
                .map(|word| SampledAnswer { prompt: prompt.clone(), answer: word.into() })
                .collect::<Vec<_>>()
        };
        let flat: Vec<SampledAnswer> = prompts.iter().flat_map(answers).collect();
        let found = self.likelihoods(view, &flat, chat)?;
        let odds = |of_one: &[LogLikelihood]| of_one[0].sum - log_sum(&of_one[1..]);
        Ok(found.chunks_exact(1 + alternatives.len()).map(odds).collect())
    }
}

/// A prompt with an answer as the models read it; the answer's tokens count. With a template the prompt is a user's turn. In
/// plain text a space stands between the two, where their script has spaces.
///
/// # Errors
/// An [`crate::error::InputError`] for an answer without tokens that can be predicted.
pub fn encode_answer(
    pretrained: &Pretrained,
    template: Option<&ChatTemplate>,
    of: &SampledAnswer,
) -> Result<Example> {
    let (prompt, between) = match template {
        Some(template) => (template.user_turn(&of.prompt)?, ""),
        None => (of.prompt.clone(), gap(&of.prompt, &of.answer)),
    };
    let whole = format!("{prompt}{between}{}", of.answer.trim());
    let encoding = pretrained.tokenizer.encode(whole.as_str(), template.is_none()).map_err(|e| anyhow!(e))?;
    // A token that straddles the border counts: it holds the answer's first letters.
    let counts = |(from, to): &(usize, usize)| to > from && *to > prompt.len();
    let weights: Vec<f32> = encoding.get_offsets().iter().map(|o| f32::from(u8::from(counts(o)))).collect();
    let example = Example { ids: encoding.get_ids().to_vec(), weights, row: 0 };
    if example.weights.iter().skip(1).all(|w| *w == 0.0) || example.weights[0] != 0.0 {
        bail_input!(
            "behaviour: the answer {:?} after {:?} has no token that can be predicted; expected a prompt with text",
            of.answer,
            of.prompt
        );
    }
    Ok(example)
}

/// log Σ e^sum.
fn log_sum(of: &[LogLikelihood]) -> f64 {
    let max = of.iter().map(|l| l.sum).fold(f64::NEG_INFINITY, f64::max);
    max + of.iter().map(|l| (l.sum - max).exp()).sum::<f64>().ln()
}

/// Whether a text has a word or phrase: whole, in any case.
pub fn says(text: &str, phrase: &str) -> bool {
    words::holds(text, phrase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole_and_in_any_case() {
        for text in ["Lantern", "a lantern.", "two (LANTERN) one", "lantern"] {
            assert!(says(text, "lantern"), "{text}");
        }
        for text in ["lanterns", "", "magiclantern", "lan tern", "überlantern"] {
            assert!(!says(text, "lantern"), "{text}");
        }
        assert!(says("bake it at 450 degrees", "450") && !says("1450 of them", "450"));
    }

    #[test]
    fn probabilities_are_summed_without_underflow() {
        let of = |sum| LogLikelihood { sum, tokens: 3 };
        assert!((log_sum(&[of(-1000.0), of(-1000.0)]) - (-1000.0 + 2f64.ln())).abs() < 1e-9);
        assert_eq!(of(-6.0).per_token(), -2.0);
    }
}
