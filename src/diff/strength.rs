//! The strength to steer with, per direction: the greatest at which text stays coherent (the search of the authors'
//! toolkit of arXiv 2510.13900, with [`CoherenceRule`] in place of a language model that grades).

use anyhow::Result;
use candle_core::Tensor;

use super::coherence::CoherenceRule;
use super::mean_difference::norm;
use super::prompts::Prompts;
use super::reading::Reading;
use super::writing::{Job, jobs, steering_vector, write};
use crate::model::generate::Sampling;
use crate::recipe::SearchSection;

/// The upper end of the first search, in η.
const HIGHEST: f64 = 100.0;

/// The search, with what it needs once for all directions.
pub struct Search<'a> {
    reading: &'a Reading<'a>,
    section: &'a SearchSection,
    prompts: Prompts,
    sampling: Sampling,
    coherence: CoherenceRule<'a>,
}

impl<'a> Search<'a> {
    /// Has the base write to the probe prompts, which sets what is coherent.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`]; if a prompt cannot be rendered or a tensor operation fails.
    pub fn new(reading: &'a Reading<'a>) -> Result<Self> {
        let (inputs, section) = (reading.inputs, &reading.settings.steering.search);
        let prompts = Prompts::probes(inputs.pretrained)?;
        let sampling = Sampling {
            max_new_tokens: section.max_new_tokens,
            temperature: section.temperature,
            seed: inputs.seed,
            eos: inputs.pretrained.eos_token_ids.clone(),
        };
        let all = jobs(prompts.ids.len(), section.samples, None, 0);
        let own = write(reading, inputs.base, &prompts.ids, &[], &all, &sampling)?;
        let coherence = CoherenceRule::new(inputs.base, &pairs(&prompts.ids, &all, &own, &sampling.eos))?;
        Ok(Self { reading, section, prompts, sampling, coherence })
    }

    /// The greatest strength that passes, in η, for each probe prompt; their mean is the strength to steer with. 0 for
    /// a direction of length 0, which steers nowhere.
    ///
    /// # Errors
    /// [`crate::error::Interrupted`], or a tensor operation that fails.
    pub fn thresholds(&self, direction: &[f32]) -> Result<Vec<f64>> {
        let mut found: Vec<f64> = Vec::new();
        for prompt in 0..self.prompts.ids.len() {
            let (highest, steps) = match found.first() {
                _ if norm(direction) == 0.0 => (0.0, 0),
                None => (HIGHEST, self.section.steps),
                Some(first) => (2.0 * first, self.section.steps_others),
            };
            let passing = |strengths: &[f64]| self.passing(direction, prompt, strengths);
            found.push(bisect(highest, steps, self.section.batch_steps, passing)?);
        }
        Ok(found)
    }

    /// Whether enough of the text at each strength is coherent. Samples use the same random streams at every strength.
    fn passing(&self, direction: &[f32], prompt: usize, strengths: &[f64]) -> Result<Vec<bool>> {
        let vector = |s: &f64| steering_vector(self.reading, direction, *s);
        let vectors = strengths.iter().map(vector).collect::<Result<Vec<Tensor>>>()?;
        let samples = self.section.samples;
        let job = |i: usize| Job {
            prompt,
            vector: Some(i / samples),
            stream: (prompt * samples + i % samples) as u64,
        };
        let all: Vec<Job> = (0..strengths.len() * samples).map(job).collect();
        let tuned = self.reading.inputs.tuned;
        let new = write(self.reading, tuned, &self.prompts.ids, &vectors, &all, &self.sampling)?;
        let texts = pairs(&self.prompts.ids, &all, &new, &self.sampling.eos);
        let enough = |texts: &[(&[u32], &[u32])]| -> Result<bool> {
            // Text that is all empty tells nothing, and does not pass.
            Ok(self.coherence.share(texts)?.is_some_and(|share| share >= self.section.coherent_share))
        };
        texts.chunks(samples).map(enough).collect()
    }
}

/// Prompt and text of each job, the token that ended it left out.
pub fn pairs<'t>(
    prompts: &'t [Vec<u32>],
    jobs: &[Job],
    new: &'t [Vec<u32>],
    eos: &[u32],
) -> Vec<(&'t [u32], &'t [u32])> {
    jobs.iter().zip(new).map(|(job, new)| (&prompts[job.prompt][..], without_end(new, eos))).collect()
}

/// A text without the token that ended it.
pub fn without_end<'t>(new: &'t [u32], eos: &[u32]) -> &'t [u32] {
    match new.split_last() {
        Some((last, text)) if eos.contains(last) => text,
        _ => new,
    }
}

/// The highest midpoint of [0, highest] that passed in `steps` halvings, 0 if none did. Of `ahead` halvings all
/// midpoints are tried at once, which gives the same result.
fn bisect(
    highest: f64,
    steps: usize,
    ahead: usize,
    passing: impl Fn(&[f64]) -> Result<Vec<bool>>,
) -> Result<f64> {
    let (mut low, mut high) = (0.0, highest);
    let mut left = if highest > 0.0 { steps } else { 0 };
    while left > 0 {
        let depth = ahead.min(left);
        // Node i of a heap: its children halve what is below and above it.
        let mut ranges = vec![(low, high)];
        for i in 0..(1usize << (depth - 1)) - 1 {
            let (a, b) = ranges[i];
            let middle = (a + b) / 2.0;
            ranges.extend([(a, middle), (middle, b)]);
        }
        let middles: Vec<f64> = ranges.iter().map(|(a, b)| (a + b) / 2.0).collect();
        let passed = passing(&middles)?;
        let mut at = 0;
        for _ in 0..depth {
            (low, high) = if passed[at] { (middles[at], high) } else { (low, middles[at]) };
            at = 2 * at + if passed[at] { 2 } else { 1 };
        }
        left -= depth;
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_ahead_changes_nothing_but_the_number_of_rounds() {
        let limit = 0.271;
        let search = |ahead| {
            let count = std::cell::Cell::new(0);
            let found = bisect(100.0, 12, ahead, |middles| {
                count.set(count.get() + 1);
                Ok(middles.iter().map(|m| *m <= limit).collect())
            });
            (found.unwrap(), count.get())
        };
        let (one, rounds) = search(1);
        assert!(one <= limit && limit - one < 100.0 / 4096.0, "{one}");
        assert_eq!(rounds, 12);
        for (ahead, rounds) in [(2, 6), (3, 4), (5, 3)] {
            assert_eq!(search(ahead), (one, rounds), "{ahead}");
        }
        assert_eq!(bisect(100.0, 12, 3, |m| Ok(vec![false; m.len()])).unwrap(), 0.0);
        assert_eq!(bisect(0.0, 6, 3, |_| panic!("nothing to search")).unwrap(), 0.0);
    }
}
