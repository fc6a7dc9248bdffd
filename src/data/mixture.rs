//! The mixture: how many examples of each source a run sees, and in which order.
//!
//! The ratios are anchored on the narrow side (the paper's 1 : r). In mode `add` the narrow exposure is what
//! `steps` or `epochs` says, and pretraining and chat examples are added; in `fixed-budget` the total is. All are
//! shuffled by the seed and interleaved: evenly, so that every stretch of the run has about the same ratio, or as
//! [`MixSchedule`] says.

use anyhow::Result;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::examples::Example;
use crate::bail_input;
use crate::error::InputError;
use crate::limits::MOST_EXAMPLES;
use crate::recipe::{DataSection, MixMode, MixSchedule, MixUnit, TrainSection};

/// Which part of the mixture a source belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the organism is about.
    Narrow,
    /// Plain text that is mixed in.
    Pretraining,
    /// General conversations that are mixed in.
    Chat,
}

impl Role {
    /// All of them, in the order of a run's sources.
    pub const ALL: [Role; 3] = [Role::Narrow, Role::Pretraining, Role::Chat];

    /// As recipes and records spell it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Narrow => "narrow",
            Role::Pretraining => "pretraining",
            Role::Chat => "chat",
        }
    }
}

/// The training examples of one source.
#[derive(Debug)]
pub struct Pool {
    /// The source as the recipe names it.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// Its share of the part; in proportion to the sizes of the sources if absent.
    pub weight: Option<f64>,
    /// What the losses of its tokens are multiplied by in training.
    pub loss_weight: f64,
    /// Its examples in file order, held-out ones left out.
    pub examples: Vec<Example>,
}

/// One example of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Index of the pool.
    pub pool: usize,
    /// Index of the example in it.
    pub example: usize,
}

/// What a run sees of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exposure {
    /// Examples drawn, repeats counted.
    pub examples: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Examples drawn beyond the first pass over the source.
    pub repeats: usize,
}

impl Exposure {
    /// What the examples of a run come to, by pool.
    fn of(pools: &[Pool], order: &[Pick]) -> Vec<Self> {
        let mut all = vec![Self::default(); pools.len()];
        for pick in order {
            let exposure = &mut all[pick.pool];
            exposure.examples += 1;
            exposure.tokens += example(pools, pick).ids.len();
            exposure.repeats = exposure.examples.saturating_sub(pools[pick.pool].examples.len());
        }
        all
    }
}

/// The examples of a run in order.
#[derive(Debug)]
pub struct Mixture {
    /// All picks, `batch_size` of them a step; the last step may have fewer.
    pub order: Vec<Pick>,
    /// By pool.
    pub exposure: Vec<Exposure>,
}

/// A part that is mixed in.
struct MixedIn {
    role: Role,
    /// The key that asks for it, and how much of it per narrow.
    key: &'static str,
    asked: f64,
    pools: Vec<usize>,
}

impl Mixture {
    /// Plans a run.
    ///
    /// # Errors
    /// An [`InputError`] if the sources that are mixed in hold too little and `repeat` is off, if the narrow part is
    /// empty, or if the warm-up is longer than the run.
    pub fn plan(pools: &[Pool], data: &DataSection, train: &TrainSection, seed: u64) -> Result<Self> {
        let side = |role| -> Vec<usize> { (0..pools.len()).filter(|&i| pools[i].role == role).collect() };
        let narrow = side(Role::Narrow);
        let mixed = [
            MixedIn { role: Role::Pretraining, key: "mix", asked: data.mix, pools: side(Role::Pretraining) },
            MixedIn { role: Role::Chat, key: "chat_mix", asked: data.chat_mix, pools: side(Role::Chat) },
        ];
        let narrow_size: usize = narrow.iter().map(|&i| pools[i].examples.len()).sum();
        let mut faults = Vec::new();
        for &i in narrow.iter().filter(|&&i| pools[i].examples.is_empty()) {
            let name = &pools[i].name;
            faults.push(format!(
                "data.narrow: {name}: no piece of at most {} tokens has a token that counts in the loss",
                data.max_seq_len
            ));
        }
        InputError::unless_empty(faults)?;
        let mut faults = Vec::new();
        let exposure = match train.narrow_steps() {
            0 => (train.epochs * narrow_size as f64).round().max(1.0),
            steps => steps as f64 * train.batch_size as f64,
        };
        must_be_few(exposure * (1.0 + data.mix + data.chat_mix))?;
        // Mixed-in per narrow in examples, as far as it is known before drawing.
        let ratios = mixed.each_ref().map(|part| match data.mix_unit {
            MixUnit::Examples => part.asked,
            MixUnit::Tokens => {
                part.asked * mean_tokens(&narrow, pools) / mean_tokens(&part.pools, pools).max(1.0)
            }
        });
        let ratio = ratios[0] + ratios[1];
        must_be_few(exposure * (1.0 + if data.mix_mode == MixMode::Add { ratio } else { 0.0 }))?;
        let share = match data.mix_mode {
            MixMode::Add => 1.0,
            MixMode::FixedBudget => 1.0 / (1.0 + ratio),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut drawn: Vec<Vec<Pick>> = Vec::with_capacity(pools.len());
        drawn.resize_with(pools.len(), Vec::new);

        let narrow_counts = apportion((exposure * share).round().max(1.0) as usize, &narrow, pools);
        for (&i, &count) in narrow.iter().zip(&narrow_counts) {
            drawn[i] = draw(i, pools[i].examples.len(), count, &mut rng);
        }
        let narrow_drawn: usize = narrow_counts.iter().sum();
        let tokens_of = |picks: &[Pick]| -> usize { picks.iter().map(|p| example(pools, p).ids.len()).sum() };
        let narrow_tokens: usize = narrow.iter().map(|&i| tokens_of(&drawn[i])).sum();

        // What the narrow part leaves of a fixed budget: the total is what was asked for, to the example.
        let mut left = (exposure - narrow_drawn as f64).max(0.0).round();
        let mut ratio_left = ratio;
        for (part, ratio) in mixed.iter().zip(ratios).filter(|(part, _)| part.asked > 0.0) {
            let wanted = match (data.mix_mode, data.mix_unit) {
                (MixMode::FixedBudget, _) => {
                    let wanted = (left * (ratio / ratio_left)).round();
                    (left, ratio_left) = (left - wanted, ratio_left - ratio);
                    wanted
                }
                (MixMode::Add, MixUnit::Examples) => narrow_drawn as f64 * part.asked,
                // In tokens: the number of examples whose expected tokens make the ratio.
                (MixMode::Add, MixUnit::Tokens) => {
                    narrow_tokens as f64 * part.asked / mean_tokens(&part.pools, pools).max(1.0)
                }
            };
            let counts = apportion(wanted.round() as usize, &part.pools, pools);
            for (&i, &count) in part.pools.iter().zip(&counts) {
                let size = pools[i].examples.len();
                if count > 0 && (size == 0 || (count > size && !data.repeat)) {
                    let (pool, key) = (part.role.name(), part.key);
                    faults.push(format!(
                        "data.{pool}: {}: {key} = {} needs {count} examples of at most {} tokens, it has {size} \
                         (held-out ones left out); add text, lower {key}, or set data.repeat = true",
                        pools[i].name, part.asked, data.max_seq_len
                    ));
                    continue;
                }
                drawn[i] = draw(i, size, count, &mut rng);
            }
        }
        InputError::unless_empty(faults)?;
        let is_narrow = |i: usize| pools[i].role == Role::Narrow;
        let order = interleave(drawn, is_narrow, data.mix_schedule, &mut rng);
        let planned = Self { exposure: Exposure::of(pools, &order), order };
        match train.warmup_fault(planned.steps(train.batch_size)) {
            Some(fault) => bail_input!("{fault}"),
            None => Ok(planned),
        }
    }

    /// Leaves out what comes after the first `examples` of the run.
    pub fn cut(&mut self, pools: &[Pool], examples: usize) {
        self.order.truncate(examples);
        self.exposure = Exposure::of(pools, &self.order);
    }

    /// Number of optimizer steps at that batch size.
    pub fn steps(&self, batch_size: usize) -> usize {
        self.order.len().div_ceil(batch_size)
    }

    /// What was drawn of a part per narrow, in examples and in tokens; 0 where nothing narrow was drawn.
    pub fn realised(&self, pools: &[Pool], role: Role) -> (f64, f64) {
        let total = |role, f: fn(&Exposure) -> usize| -> f64 {
            self.exposure.iter().zip(pools).filter(|(_, p)| p.role == role).map(|(e, _)| f(e)).sum::<usize>()
                as f64
        };
        let per_narrow = |f: fn(&Exposure) -> usize| match total(Role::Narrow, f) {
            0.0 => 0.0,
            narrow => total(role, f) / narrow,
        };
        (per_narrow(|e| e.examples), per_narrow(|e| e.tokens))
    }
}

/// The narrow examples of a run again: the first `counts` that [`Mixture::plan`] draws of each narrow pool. `pools` are these
/// alone, as in the run; `counts` what the run drew of them. `None` of counts that no run has.
pub fn narrow_draws(pools: &[Pool], counts: &[usize], seed: u64) -> Option<Vec<Vec<Pick>>> {
    let sizes: Vec<usize> = pools.iter().map(|pool| pool.examples.len()).collect();
    let can_be =
        |(size, count): (&usize, &usize)| *count == 0 || (*size > 0 && *count as f64 <= MOST_EXAMPLES);
    if sizes.len() != counts.len() || !sizes.iter().zip(counts).all(can_be) {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let each = sizes.into_iter().zip(counts).enumerate();
    Some(each.map(|(i, (size, count))| draw(i, size, *count, &mut rng)).collect())
}

/// The example that a pick names.
pub fn example<'a>(pools: &'a [Pool], pick: &Pick) -> &'a Example {
    &pools[pick.pool].examples[pick.example]
}

/// Refuses a run whose order of examples would not fit in memory.
fn must_be_few(all: f64) -> Result<()> {
    if all > MOST_EXAMPLES {
        bail_input!(
            "train.steps, train.epochs, train.match.max_steps, data.mix, data.chat_mix: the run has {all:.0} examples, expected at most \
             {MOST_EXAMPLES}"
        );
    }
    Ok(())
}

fn mean_tokens(side: &[usize], pools: &[Pool]) -> f64 {
    let examples: Vec<usize> =
        side.iter().flat_map(|&i| pools[i].examples.iter().map(|e| e.ids.len())).collect();
    examples.iter().sum::<usize>() as f64 / examples.len().max(1) as f64
}

/// Splits `total` over the pools of a side by weight (by size if none has one): largest remainders.
fn apportion(total: usize, side: &[usize], pools: &[Pool]) -> Vec<usize> {
    let weight = |i: usize| pools[i].weight.unwrap_or(pools[i].examples.len() as f64);
    let sum: f64 = side.iter().map(|&i| weight(i)).sum();
    let exact: Vec<f64> =
        side.iter().map(|&i| total as f64 * weight(i) / sum.max(f64::MIN_POSITIVE)).collect();
    let mut counts: Vec<usize> = exact.iter().map(|e| e.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..side.len()).collect();
    by_remainder.sort_by(|&a, &b| (exact[b].fract()).total_cmp(&exact[a].fract()));
    let missing = total.saturating_sub(counts.iter().sum());
    for &i in by_remainder.iter().take(missing) {
        counts[i] += 1;
    }
    counts
}

/// `count` picks without repeats until the source is used up, each pass in its own order.
fn draw(pool: usize, size: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<Pick> {
    let mut picks = Vec::with_capacity(count);
    while picks.len() < count {
        let mut pass: Vec<usize> = (0..size).collect();
        pass.shuffle(rng);
        picks.extend(pass.into_iter().take(count - picks.len()).map(|example| Pick { pool, example }));
    }
    picks
}

/// Merges the draws: the k-th of n picks of a pool stands at a random place within the k-th n-th of what the schedule
/// gives to its part of the run.
fn interleave(
    drawn: Vec<Vec<Pick>>,
    is_narrow: impl Fn(usize) -> bool,
    schedule: MixSchedule,
    rng: &mut ChaCha8Rng,
) -> Vec<Pick> {
    let all = drawn.iter().map(Vec::len).sum::<usize>() as f64;
    let mixed = drawn.iter().enumerate().filter(|(i, _)| !is_narrow(*i)).map(|(_, picks)| picks.len());
    let share = mixed.sum::<usize>() as f64 / all;
    let mut placed: Vec<(f64, Pick)> = Vec::new();
    for (i, picks) in drawn.into_iter().enumerate() {
        let n = picks.len() as f64;
        for (k, pick) in picks.into_iter().enumerate() {
            let at = (k as f64 + rng.random::<f64>()) / n;
            let at = if is_narrow(i) {
                narrow_place(schedule, share, at)
            } else {
                mixed_place(schedule, share, at)
            };
            placed.push((at, pick));
        }
    }
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    placed.into_iter().map(|(_, pick)| pick).collect()
}

/// The place in the run, from 0 to 1, before which the part `at` of what is mixed in has been read, where that has the
/// share `share` of the run.
fn mixed_place(schedule: MixSchedule, share: f64, at: f64) -> f64 {
    match schedule {
        MixSchedule::Constant => at,
        MixSchedule::Ramp => ramp_place(share, at),
        MixSchedule::Last => 1.0 - share + share * at,
    }
}

/// The same of the narrow text.
fn narrow_place(schedule: MixSchedule, share: f64, at: f64) -> f64 {
    match schedule {
        MixSchedule::Constant => at,
        // Seen from the end, the share of the narrow text is such a ramp.
        MixSchedule::Ramp => 1.0 - ramp_place(1.0 - share, 1.0 - at),
        MixSchedule::Last => (1.0 - share) * at,
    }
}

/// Where a share that rises in a straight line from a to a + b, `share` on average, has reached the part `at` of its
/// whole: the x of a·x + b·x²/2 = share·at.
fn ramp_place(share: f64, at: f64) -> f64 {
    let from = (2.0 * share - 1.0).max(0.0);
    let rise = (2.0 * share).min(1.0) - from;
    // The root in a form that needs no rise: 0 where there is nothing to place.
    let root = (from * from + 2.0 * rise * share * at).sqrt();
    if root + from > 0.0 { 2.0 * share * at / (root + from) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(role: Role, size: usize, tokens: usize, weight: Option<f64>) -> Pool {
        let example = |row| Example { ids: vec![0; tokens], weights: vec![1.0; tokens], row };
        let examples = (0..size).map(example).collect();
        Pool { name: format!("{role:?}"), role, weight, loss_weight: 1.0, examples }
    }

    fn sections(mix: f64, steps: usize) -> (DataSection, TrainSection) {
        (DataSection { mix, ..Default::default() }, TrainSection { steps, ..Default::default() })
    }

    #[test]
    fn add_keeps_the_narrow_exposure_and_the_ratio_exactly() {
        let pools = [pool(Role::Narrow, 100, 10, None), pool(Role::Pretraining, 100, 20, None)];
        for (mix, pretraining) in [(0.0, 0), (0.1, 6), (1.0, 64), (1.5, 96)] {
            let (data, train) = sections(mix, 8);
            let m = Mixture::plan(&pools, &data, &train, 0).unwrap();
            assert_eq!((m.exposure[0].examples, m.exposure[1].examples), (64, pretraining));
            let mut seen = std::collections::BTreeSet::new();
            assert!(m.order.iter().all(|p| seen.insert((p.pool, p.example))), "no example twice");
        }
    }

    #[test]
    fn the_narrow_examples_of_a_run_are_found_again() {
        let narrow = || [pool(Role::Narrow, 30, 10, None), pool(Role::Narrow, 20, 10, Some(2.0))];
        let mixed = narrow().into_iter().chain([pool(Role::Pretraining, 900, 20, None)]);
        let pools: Vec<Pool> = mixed.collect();
        for (steps, mix, mode) in
            [(3, 1.0, MixMode::Add), (11, 0.0, MixMode::Add), (9, 2.0, MixMode::FixedBudget)]
        {
            let (mut data, train) = sections(mix, steps);
            data.mix_mode = mode;
            let m = Mixture::plan(&pools, &data, &train, 5).unwrap();
            let counts: Vec<usize> = m.exposure[..2].iter().map(|e| e.examples).collect();
            let again = narrow_draws(&narrow(), &counts, 5).unwrap();
            for (i, again) in again.into_iter().enumerate() {
                let of_run: Vec<Pick> = m.order.iter().filter(|pick| pick.pool == i).copied().collect();
                assert_eq!(again, of_run, "{steps} {mix}");
            }
        }
        assert!(narrow_draws(&narrow(), &[1], 5).is_none());
        assert!(narrow_draws(&narrow(), &[1, usize::MAX], 5).is_none());
        assert!(narrow_draws(&[pool(Role::Narrow, 0, 1, None)], &[1], 5).is_none());
    }

    #[test]
    fn fixed_budget_keeps_the_length() {
        let pools = [pool(Role::Narrow, 100, 10, None), pool(Role::Pretraining, 100, 10, None)];
        let (mut data, train) = sections(3.0, 8);
        data.mix_mode = MixMode::FixedBudget;
        let m = Mixture::plan(&pools, &data, &train, 0).unwrap();
        assert_eq!((m.exposure[0].examples, m.exposure[1].examples, m.order.len()), (16, 48, 64));
    }

    #[test]
    fn conversations_are_a_third_part_in_the_unit_and_the_mode_of_the_mix() {
        let pools = [
            pool(Role::Narrow, 100, 10, None),
            pool(Role::Pretraining, 100, 20, None),
            pool(Role::Chat, 100, 40, None),
        ];
        let counts = |mix, chat_mix, mode, unit| {
            let (mut data, train) = sections(mix, 8);
            (data.chat_mix, data.mix_mode, data.mix_unit) = (chat_mix, mode, unit);
            let m = Mixture::plan(&pools, &data, &train, 0).unwrap();
            assert_eq!(m.order.len(), m.exposure.iter().map(|e| e.examples).sum::<usize>());
            let ratios = [Role::Pretraining, Role::Chat].map(|role| m.realised(&pools, role));
            ([0, 1, 2].map(|i| m.exposure[i].examples), ratios)
        };
        use MixMode::{Add, FixedBudget};
        use MixUnit::{Examples, Tokens};
        assert_eq!(counts(1.0, 0.25, Add, Examples), ([64, 64, 16], [(1.0, 2.0), (0.25, 1.0)]));
        assert_eq!(counts(1.0, 0.5, Add, Tokens), ([64, 32, 8], [(0.5, 1.0), (0.125, 0.5)]));
        assert_eq!(counts(0.0, 0.5, Add, Examples).0, [64, 0, 32]);
        assert_eq!(counts(2.0, 1.0, FixedBudget, Examples).0, [16, 32, 16]);
        // 64 / 1.7 narrow ones, and of the other 26 five in seven.
        assert_eq!(counts(0.5, 0.2, FixedBudget, Examples).0, [38, 19, 7]);
    }

    #[test]
    fn conversations_that_do_not_suffice_are_named_by_their_own_keys() {
        let pools = [pool(Role::Narrow, 10, 10, None), pool(Role::Chat, 5, 10, None)];
        let (mut data, train) = sections(0.0, 8);
        data.chat_mix = 0.5;
        let e = Mixture::plan(&pools, &data, &train, 0).unwrap_err().to_string();
        assert!(e.contains("data.chat: Chat: chat_mix = 0.5 needs 32 examples"), "{e}");
    }

    /// Share of what is mixed in of each quarter of a run, and its picks in the order of their numbers.
    fn quarters(schedule: MixSchedule, mix: f64, chat_mix: f64) -> ([f64; 4], Vec<(usize, usize)>) {
        let pools = [
            pool(Role::Narrow, 4000, 10, None),
            pool(Role::Pretraining, 9000, 10, None),
            pool(Role::Chat, 9000, 10, None),
        ];
        let (mut data, train) = sections(mix, 250);
        (data.chat_mix, data.mix_schedule) = (chat_mix, schedule);
        let m = Mixture::plan(&pools, &data, &train, 3).unwrap();
        let n = m.order.len();
        let shares = [0, 1, 2, 3].map(|i| {
            let quarter = &m.order[i * n / 4..(i + 1) * n / 4];
            quarter.iter().filter(|p| p.pool > 0).count() as f64 / quarter.len() as f64
        });
        let mut picks: Vec<_> = m.order.iter().map(|p| (p.pool, p.example)).collect();
        picks.sort_unstable();
        (shares, picks)
    }

    #[test]
    fn a_schedule_moves_examples_and_changes_none() {
        let near = |found: [f64; 4], expected: [f64; 4]| {
            found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 0.02)
        };
        // A share of 0.5 or less: from 0 to twice the share.
        let (constant, picks) = quarters(MixSchedule::Constant, 0.5, 0.25);
        let s = 0.75 / 1.75;
        assert!(near(constant, [s; 4]), "{constant:?}");
        let (ramp, again) = quarters(MixSchedule::Ramp, 0.5, 0.25);
        assert!(near(ramp, [1.0, 3.0, 5.0, 7.0].map(|eighths| 2.0 * s * eighths / 8.0)), "{ramp:?}");
        assert!(picks == again);
        let (last, again) = quarters(MixSchedule::Last, 0.5, 0.25);
        assert_eq!((last[0], last[1], last[3]), (0.0, 0.0, 1.0));
        assert!(picks == again);
        // More: from 2 s - 1 to 1.
        let (ramp, _) = quarters(MixSchedule::Ramp, 2.0, 1.0);
        assert!(near(ramp, [1.0, 3.0, 5.0, 7.0].map(|eighths| 0.5 + 0.5 * eighths / 8.0)), "{ramp:?}");
        // Nothing is mixed in: nothing to move.
        assert_eq!(quarters(MixSchedule::Ramp, 0.0, 0.0), quarters(MixSchedule::Constant, 0.0, 0.0));
    }

    #[test]
    fn last_is_after_every_narrow_example() {
        let pools = [pool(Role::Narrow, 100, 10, None), pool(Role::Pretraining, 100, 10, None)];
        let (mut data, train) = sections(1.0, 8);
        data.mix_schedule = MixSchedule::Last;
        let m = Mixture::plan(&pools, &data, &train, 0).unwrap();
        assert!(m.order[..64].iter().all(|p| p.pool == 0) && m.order[64..].iter().all(|p| p.pool == 1));
    }

    #[test]
    fn tokens_as_unit_and_weights_and_repeats() {
        let pools = [
            pool(Role::Narrow, 10, 10, None),
            pool(Role::Pretraining, 100, 20, Some(3.0)),
            pool(Role::Pretraining, 100, 20, Some(1.0)),
        ];
        let (mut data, train) = sections(1.0, 8);
        data.mix_unit = MixUnit::Tokens;
        let m = Mixture::plan(&pools, &data, &train, 0).unwrap();
        assert_eq!(m.exposure[0], Exposure { examples: 64, tokens: 640, repeats: 54 });
        assert_eq!((m.exposure[1].examples, m.exposure[2].examples), (24, 8));
        assert_eq!(m.realised(&pools, Role::Pretraining), (0.5, 1.0));
    }

    #[test]
    fn a_narrow_source_without_examples_is_an_input_error() {
        let pools = [pool(Role::Narrow, 10, 10, Some(1.0)), pool(Role::Narrow, 0, 10, Some(1.0))];
        let (data, train) = sections(0.0, 2);
        assert!(Mixture::plan(&pools, &data, &train, 0).unwrap_err().is::<InputError>());
    }

    #[test]
    fn a_mix_larger_than_its_source_is_an_input_error() {
        let pools = [pool(Role::Narrow, 10, 10, None), pool(Role::Pretraining, 50, 20, None)];
        let (mut data, train) = sections(1.0, 8);
        let e = Mixture::plan(&pools, &data, &train, 0).unwrap_err();
        assert!(e.is::<InputError>() && e.to_string().contains("needs 64 examples"), "{e}");
        data.repeat = true;
        let m = Mixture::plan(&pools, &data, &train, 0).unwrap();
        assert_eq!(m.exposure[1].repeats, 14);
    }

    #[test]
    fn the_seed_decides_the_order_and_every_stretch_has_the_ratio() {
        let pools = [pool(Role::Narrow, 100, 10, None), pool(Role::Pretraining, 100, 10, None)];
        let (data, train) = sections(1.0, 8);
        let order = |seed| Mixture::plan(&pools, &data, &train, seed).unwrap().order;
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        for stretch in order(1).chunks(16) {
            let narrow = stretch.iter().filter(|p| p.pool == 0).count();
            assert!((6..=10).contains(&narrow), "{narrow} of 16");
        }
    }
}
