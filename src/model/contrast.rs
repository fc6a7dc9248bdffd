//! Text drawn from what sets two models apart: logits (1 + a)·z_amplified − a·z_other, both of the same prefix, on the
//! tokens that the amplified model finds plausible (Li et al., arXiv 2210.15097, with its cut; O'Brien & Lewis, arXiv
//! 2309.09117, for the form; Goodfire's model-diff amplification for the use on a finetuned model and its base).
//!
//! Log-probabilities instead of logits give the same distribution: they differ by a constant. It is computed as
//! z + a·(z − z_other), so that equal models give exactly what one of them gives, at every a.

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::View;
use super::generate::Going;
use super::hooks::NoHook;
use crate::ops::kernels::teams;

/// Bytes that the logits of one model may take in a pass: bounds the texts that are written together.
const LOGIT_BYTES: usize = 128 << 20;

/// How tokens are drawn, and how many.
#[derive(Debug, Clone)]
pub struct ContrastSampling {
    /// Tokens that may be drawn: so many of the amplified model's likeliest; 0: all.
    pub top: usize,
    /// And those of at least this share of the likeliest one's probability; 0: all.
    pub relative: f64,
    /// Temperature, above 0.
    pub temperature: f64,
    /// At most this many new tokens a text.
    pub max_new_tokens: usize,
    /// A token of these ends its text and is kept as its last.
    pub eos: Vec<u32>,
}

/// One text to write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContrastJob {
    /// Index of the prompt.
    pub prompt: usize,
    /// Decides the draws: the same seed draws with the same random numbers at every a.
    pub seed: u64,
    /// How much the difference is amplified. 0: the amplified model's own text; −1: the other's, on what the amplified model
    /// finds plausible.
    pub a: f64,
    /// Whether the base is amplified, and the tuned model taken off.
    pub swapped: bool,
}

impl ContrastJob {
    /// Whether the base and whether the tuned model has a part in it.
    fn needs(&self) -> [bool; 2] {
        let both = self.a != 0.0;
        [self.swapped || both, !self.swapped || both]
    }
}

/// New token ids of each job. The prompts must not be empty. Jobs that a model has no part in cost it nothing.
/// `on_token` is called after every token with the number drawn so far; its error ends the work.
///
/// # Errors
/// If a prompt is empty, or a tensor operation fails.
pub fn contrast(
    base: View,
    tuned: View,
    prompts: &[Vec<u32>],
    jobs: &[ContrastJob],
    sampling: &ContrastSampling,
    mut on_token: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<u32>>> {
    ensure!(prompts.iter().all(|p| !p.is_empty()), "a prompt has no tokens");
    let vocab = base.model.vocab_size().max(tuned.model.vocab_size());
    let together = (LOGIT_BYTES / (4 * vocab)).max(1);
    let (mut out, mut drawn) = (Vec::with_capacity(jobs.len()), 0);
    for jobs in jobs.chunks(together) {
        let count = |n: usize| {
            drawn += n;
            on_token(drawn)
        };
        out.extend(write_together([base, tuned], prompts, jobs, sampling, count)?);
    }
    Ok(out)
}

/// The texts of jobs that fit into one pass.
fn write_together(
    views: [View; 2],
    prompts: &[Vec<u32>],
    jobs: &[ContrastJob],
    sampling: &ContrastSampling,
    mut on_tokens: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<u32>>> {
    // The jobs of each model, by its own numbering of sequences.
    let members: [Vec<usize>; 2] =
        [0, 1].map(|side| (0..jobs.len()).filter(|&i| jobs[i].needs()[side]).collect());
    let mut going = [0, 1].map(|side: usize| {
        let of_jobs: Vec<Vec<u32>> = members[side].iter().map(|&i| prompts[jobs[i].prompt].clone()).collect();
        Going::new(views[side], &of_jobs)
    });
    let mut rngs: Vec<ChaCha8Rng> = jobs.iter().map(|job| ChaCha8Rng::seed_from_u64(job.seed)).collect();
    let mut new: Vec<Vec<u32>> = vec![Vec::new(); jobs.len()];
    let mut open = vec![true; jobs.len()];
    let sizes = views.map(|view| view.model.vocab_size());
    teams::awake(|| -> Result<()> {
        for _ in 0..sampling.max_new_tokens {
            // Values of all rows of each model, and the row of each job there.
            let mut logits: [Vec<f32>; 2] = [Vec::new(), Vec::new()];
            let mut row_of = [vec![None; jobs.len()], vec![None; jobs.len()]];
            for side in [0, 1] {
                if going[side].is_empty() {
                    continue;
                }
                logits[side] = going[side].logits(&mut NoHook)?.flatten_all()?.to_vec1()?;
                for (row, id) in going[side].ids().enumerate() {
                    row_of[side][members[side][id]] = Some(row);
                }
            }
            let row = |side: usize, job: usize| {
                row_of[side][job].map(|row: usize| &logits[side][row * sizes[side]..(row + 1) * sizes[side]])
            };
            let chosen: Vec<Option<u32>> = rngs
                .par_iter_mut()
                .enumerate()
                .map(|(i, rng)| {
                    let amplified = usize::from(!jobs[i].swapped);
                    let own = row(amplified, i).filter(|_| open[i])?;
                    Some(draw(own, row(1 - amplified, i), jobs[i].a, sampling, rng.random()))
                })
                .collect();
            for (i, id) in chosen.iter().enumerate() {
                new[i].extend(id);
                open[i] &= id.is_some_and(|id| !sampling.eos.contains(&id));
            }
            for side in [0, 1] {
                let of_side: Vec<usize> = going[side].ids().map(|id| members[side][id]).collect();
                let keep: Vec<bool> = of_side.iter().map(|&i| open[i]).collect();
                going[side].advance(of_side.iter().filter_map(|&i| chosen[i]).collect(), &keep);
            }
            on_tokens(chosen.iter().flatten().count())?;
            if !open.contains(&true) {
                break;
            }
        }
        Ok(())
    })?;
    Ok(new)
}

/// The token at which the cumulative probability, over ascending ids, passes `u` in [0, 1). Tokens that one of the models
/// lacks are never drawn.
fn draw(own: &[f32], other: Option<&[f32]>, a: f64, sampling: &ContrastSampling, u: f64) -> u32 {
    let own = &own[..own.len().min(other.map_or(usize::MAX, <[f32]>::len))];
    let scores: Vec<(u32, f64)> = plausible(own, sampling)
        .into_iter()
        .map(|id| {
            let z = own[id as usize] as f64;
            let difference = other.map_or(0.0, |other| z - other[id as usize] as f64);
            (id, (z + a * difference) / sampling.temperature)
        })
        .collect();
    let most = scores.iter().fold(f64::NEG_INFINITY, |most, (_, s)| most.max(*s));
    let total: f64 = scores.iter().map(|(_, s)| (s - most).exp()).sum();
    let mut left = u * total;
    for (id, s) in &scores {
        left -= (s - most).exp();
        if left < 0.0 {
            return *id;
        }
    }
    // Rounding: the last one that has any probability.
    scores.iter().rev().find(|(_, s)| *s > f64::NEG_INFINITY).map_or(0, |(id, _)| *id)
}

/// The ids that may be drawn, ascending.
fn plausible(logits: &[f32], sampling: &ContrastSampling) -> Vec<u32> {
    let mut least = f32::NEG_INFINITY;
    if sampling.relative > 0.0 {
        let most = logits.iter().fold(f32::NEG_INFINITY, |most, z| most.max(*z));
        least = most + sampling.relative.ln() as f32;
    }
    let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|&id| logits[id as usize] >= least).collect();
    if sampling.top > 0 && sampling.top < ids.len() {
        // The largest first, ties by id.
        let order = |x: &u32, y: &u32| logits[*y as usize].total_cmp(&logits[*x as usize]).then(x.cmp(y));
        ids.select_nth_unstable_by(sampling.top - 1, order);
        ids.truncate(sampling.top);
        ids.sort_unstable();
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uncut() -> ContrastSampling {
        ContrastSampling { top: 0, relative: 0.0, temperature: 1.0, max_new_tokens: 1, eos: Vec::new() }
    }

    /// Shares of each token among many draws.
    fn shares(own: &[f32], other: &[f32], a: f64, sampling: &ContrastSampling) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut counts = vec![0f64; own.len()];
        const DRAWS: usize = 10_000;
        for _ in 0..DRAWS {
            counts[draw(own, Some(other), a, sampling, rng.random()) as usize] += 1.0 / DRAWS as f64;
        }
        counts
    }

    #[test]
    fn the_log_odds_of_a_token_rise_by_its_difference_one_plus_a_times() {
        const DELTA: f32 = 0.4;
        let base = [0.3f32, -0.2, 0.1, 0.0];
        let mut tuned = base;
        tuned[1] += DELTA; // D is δ at token 1, but for a constant
        let log_odds = |shares: &[f64]| (shares[1] / (1.0 - shares[1])).ln();
        let of_base = shares(&base, &base, 0.0, &uncut());
        for a in [0.0, 1.0, 2.0] {
            let drawn = shares(&tuned, &base, a, &uncut());
            let rise = log_odds(&drawn) - log_odds(&of_base);
            let variance = |p: f64| 1.0 / (10_000.0 * p * (1.0 - p)); // of log-odds
            let three_se = 3.0 * (variance(drawn[1]) + variance(of_base[1])).sqrt();
            assert!((rise - (1.0 + a) * DELTA as f64).abs() < three_se, "a = {a}: {rise}");
        }
    }

    #[test]
    fn minus_one_is_the_other_model_zero_its_own_and_equal_models_agree_at_every_a() {
        let (own, other) = ([0.1f32, 2.0, -1.5, 0.7], [1.3f32, -0.4, 0.2, 0.9]);
        for k in 0..100 {
            let u = k as f64 / 100.0;
            let of = |own: &[f32], other: Option<&[f32]>, a: f64| draw(own, other, a, &uncut(), u);
            assert_eq!(of(&own, Some(&other), -1.0), of(&other, None, 0.0));
            assert_eq!(of(&own, Some(&other), 0.0), of(&own, None, 0.0));
            for a in [-1.0, 0.3, 1.0, 4.0] {
                assert_eq!(of(&own, Some(&own), a), of(&own, None, 0.0));
            }
        }
    }

    #[test]
    fn only_plausible_tokens_are_drawn_and_none_that_a_model_lacks() {
        let own = [0.0f32, 3.0, 2.9, -1.0, 2.9];
        let other = [9.0f32, 3.0, 2.9, -9.0]; // lacks token 4
        let top = ContrastSampling { top: 2, ..uncut() };
        assert_eq!(plausible(&own, &top), [1, 2]);
        assert_eq!(plausible(&own, &ContrastSampling { relative: 0.5, ..uncut() }), [1, 2, 4]);
        assert_eq!(plausible(&own, &ContrastSampling { relative: 0.95, top: 2, ..uncut() }), [1]);
        // Without a cut a token that the base finds unlikely wins; with one it is not there.
        assert!(shares(&own[..4], &other, 20.0, &uncut())[3] > 0.99);
        assert_eq!(shares(&own, &other, 20.0, &top)[3], 0.0);
        assert_eq!(shares(&own, &other, 0.0, &uncut())[4], 0.0);
    }
}
