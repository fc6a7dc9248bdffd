//! Threads in teams, each of which does a part of the work from beginning to end.
//!
//! Where all threads share every product, they wait for each other thousands of times a step and read what another core
//! has just written. A team has sequences of its own instead: it waits for nobody until the end, and what one operation
//! writes the next one finds in the cache of the same core.
//!
//! How work is divided does not depend on the number of threads, so that results do not either.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Tokens of a part, about: fewer, and preparing the weights for their products takes a larger share of the time; more,
/// and the activations of more tokens are held at once.
pub const PART_TOKENS: usize = 384;

/// The same where activations are what takes the memory. Half as many make LoRA 1 % slower and hold a sixth less.
pub const PART_TOKENS_OF_FEW_GRADIENTS: usize = 192;

/// Fewest tokens that are divided at all.
const FEWEST_TOKENS: usize = 64;

/// Teams by their number. They stay, as what a thread has freed is best used again by itself.
static TEAMS: LazyLock<Mutex<BTreeMap<usize, Arc<Vec<ThreadPool>>>>> = LazyLock::new(Mutex::default);

/// Divides sequences of these lengths into parts with about as many tokens each, about `part_tokens`: the numbers of the
/// sequences of every part, ascending. On another device than the CPU, all of them in one.
///
/// The longest first, each to the part that has least so far (Graham 1969, "Bounds on multiprocessing timing anomalies").
/// Two parts, or a higher power of two where there are more tokens, as processors have such numbers of cores.
pub fn divide(lengths: &[usize], part_tokens: usize, device: &Device) -> Vec<Vec<usize>> {
    let tokens: usize = lengths.iter().sum();
    let mut number = if tokens < FEWEST_TOKENS || !device.is_cpu() { 1 } else { 2 };
    while number > 1 && tokens as f64 / number as f64 > part_tokens as f64 * std::f64::consts::SQRT_2 {
        number *= 2;
    }
    let mut parts = vec![(0, Vec::new()); number.min(lengths.len())];
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    for i in longest_first {
        if let Some((tokens, part)) = parts.iter_mut().min_by_key(|(tokens, _)| *tokens) {
            *tokens += lengths[i];
            part.push(i);
        }
    }
    let mut parts: Vec<Vec<usize>> = parts.into_iter().map(|(_, part)| part).collect();
    parts.iter_mut().for_each(|part| part.sort_unstable());
    parts
}

/// Gives the results of `work(0)` to `work(n - 1)` to `take`, in that order. As many run at a time as there are threads, and
/// few results wait for their turn.
///
/// # Errors
/// The first that `work` or `take` returns; what has not begun by then is left undone.
pub fn each<T: Send, E: Send>(
    n: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
    mut take: impl FnMut(usize, T) -> Result<(), E> + Send,
) -> Result<(), E> {
    let threads = rayon::current_num_threads();
    let Some(teams) = (n.min(threads) > 1).then(|| teams(n.min(threads), threads)).flatten() else {
        return (0..n).try_for_each(|i| take(i, work(i)?));
    };
    let begun = AtomicUsize::new(0);
    let taking = Mutex::new(InOrder { waiting: BTreeMap::new(), next: 0, take: &mut take, failed: None });
    std::thread::scope(|scope| {
        for team in teams.iter() {
            scope.spawn(|| {
                team.install(|| {
                    loop {
                        let i = begun.fetch_add(1, Ordering::Relaxed);
                        if i >= n || locked(&taking).failed.is_some() {
                            break;
                        }
                        let result = work(i);
                        locked(&taking).put(i, result);
                    }
                })
            });
        }
    });
    match taking.into_inner().unwrap_or_else(PoisonError::into_inner).failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Runs `work` while the other threads stay awake and look for what it divides.
///
/// A thread that finds nothing to do falls asleep within some 30 µs, and waking it takes longer than the short operations of
/// a step of generation: the first thread would be through with nearly all of them. One work at a time is run so; what comes
/// meanwhile is run as ever.
pub fn awake<R>(work: impl FnOnce() -> R) -> R {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let others = rayon::current_num_threads().saturating_sub(1);
    if others == 0 || rayon::current_thread_index().is_none() || TAKEN.swap(true, Ordering::Acquire) {
        return work();
    }
    let (begun, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let _freed = OnDrop(|| TAKEN.store(false, Ordering::Release));
    rayon::in_place_scope(|scope| {
        let _ends = OnDrop(|| over.store(true, Ordering::Relaxed)); // also if `work` panics, or the scope would not end
        for _ in 0..others {
            scope.spawn(|_| {
                begun.fetch_add(1, Ordering::Relaxed);
                look_for_work(&over);
            });
        }
        // All must be taken up by other threads before there is any work: one that this thread, or one in the midst of that
        // work, came upon would keep it.
        let patience = Instant::now() + PATIENCE;
        while begun.load(Ordering::Relaxed) < others && Instant::now() < patience {
            std::hint::spin_loop();
        }
        if begun.load(Ordering::Relaxed) < others {
            over.store(true, Ordering::Relaxed); // they are busy: as ever
        }
        work()
    })
}

/// How long [`awake`] waits for the other threads.
const PATIENCE: Duration = Duration::from_millis(20);

/// Takes what other threads divide until it is over; now and then lets other programs have the processor.
fn look_for_work(over: &AtomicBool) {
    let mut idle = 0u32;
    while !over.load(Ordering::Relaxed) {
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => idle = 0,
            _ => idle = idle.wrapping_add(1),
        }
        match idle % 256 {
            255 => std::thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
}

/// Calls the function when it goes out of scope.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// [`each`] over a list: the items go to `take` in their order, each with what `work` made of it. On another device than the CPU, one
/// after the other.
///
/// # Errors
/// As [`each`].
pub fn over<I: Sync, T: Send, E: Send>(
    items: &[I],
    device: &Device,
    work: impl Fn(&I) -> Result<T, E> + Sync,
    mut take: impl FnMut(&I, T) -> Result<(), E> + Send,
) -> Result<(), E> {
    match device.is_cpu() {
        true => each(items.len(), |i| work(&items[i]), |i, found| take(&items[i], found)),
        false => items.iter().try_for_each(|item| take(item, work(item)?)),
    }
}

/// Results until those before them are there.
struct InOrder<F, T, E> {
    waiting: BTreeMap<usize, T>,
    next: usize,
    take: F,
    failed: Option<E>,
}

impl<T, E, F: FnMut(usize, T) -> Result<(), E>> InOrder<F, T, E> {
    fn put(&mut self, i: usize, result: Result<T, E>) {
        match result {
            Ok(result) => _ = self.waiting.insert(i, result),
            Err(e) => _ = self.failed.get_or_insert(e),
        }
        while self.failed.is_none() {
            let Some(result) = self.waiting.remove(&self.next) else { break };
            self.failed = (self.take)(self.next, result).err();
            self.next += 1;
        }
    }
}

/// A lock whatever became of the thread that held it: a panic of `work` goes on through the scope.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `threads` threads in so many teams; nothing if the system gives no more threads.
fn teams(number: usize, threads: usize) -> Option<Arc<Vec<ThreadPool>>> {
    let mut all = locked(&TEAMS);
    if let Some(teams) = all.get(&number) {
        return Some(teams.clone());
    }
    let sizes = (0..number).map(|i| threads / number + usize::from(i < threads % number));
    let built = sizes.map(|size| ThreadPoolBuilder::new().num_threads(size).build());
    let teams = Arc::new(built.collect::<Result<Vec<_>, _>>().ok()?);
    all.insert(number, teams.clone());
    Some(teams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_every_sequence_once_and_about_as_many_tokens() {
        const FEW: usize = PART_TOKENS_OF_FEW_GRADIENTS;
        for (lengths, part_tokens, parts) in [
            (vec![], PART_TOKENS, 0),
            (vec![300], PART_TOKENS, 1),
            (vec![5; 9], FEW, 1),
            (vec![96; 8], PART_TOKENS, 2),
            (vec![96; 8], FEW, 4),
            (vec![512; 4], PART_TOKENS, 4),
            (vec![512; 4], FEW, 4),
            (vec![96; 32], PART_TOKENS, 8),
            (vec![9, 89, 40, 38, 12, 55, 31, 30], FEW, 2),
            (vec![2048], FEW, 1),
        ] {
            let divided = divide(&lengths, part_tokens, &Device::Cpu);
            assert_eq!(divided.len(), parts, "{lengths:?}");
            let mut all = divided.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..lengths.len()), "{divided:?}");
            let tokens: Vec<usize> =
                divided.iter().map(|part| part.iter().map(|&i| lengths[i]).sum()).collect();
            let (least, most) = (tokens.iter().min(), tokens.iter().max());
            assert!(most.zip(least).is_none_or(|(most, least)| *most <= least + least / 10), "{tokens:?}");
        }
    }

    #[test]
    fn work_is_done_with_the_others_awake_also_within_itself_and_after_a_panic() {
        use std::panic::AssertUnwindSafe;

        use rayon::prelude::*;
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let sum = |n: u64| (0..n).into_par_iter().sum::<u64>();
        for round in 0..50 {
            let n = 100 + round;
            assert_eq!(pool.install(|| awake(|| sum(n) + awake(|| sum(n)))), n * (n - 1));
        }
        let panics = AssertUnwindSafe(|| pool.install(|| awake(|| -> u64 { panic!("within") })));
        let panicked = std::panic::catch_unwind(panics);
        assert!(panicked.is_err());
        assert_eq!(pool.install(|| awake(|| sum(10))), 45);
        assert_eq!(awake(|| 1), 1); // outside of any pool
        // Two at a time in one pool: the second as ever.
        let both = pool.install(|| rayon::join(|| awake(|| sum(100)), || awake(|| sum(200))));
        assert_eq!(both, (4950, 19900));
    }

    #[test]
    fn results_come_in_order_whoever_is_first_and_an_error_ends_the_work() {
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let run = |fails: usize| {
            let mut taken = Vec::new();
            let work = |i: usize| {
                std::thread::sleep(std::time::Duration::from_millis(if i.is_multiple_of(3) { 9 } else { 1 }));
                if i == fails { Err(i) } else { Ok(10 * i) }
            };
            let result = pool.install(|| {
                each(7, work, |i, ten| {
                    taken.push((i, ten));
                    Ok(())
                })
            });
            (result, taken)
        };
        let all: Vec<_> = (0..7).map(|i| (i, 10 * i)).collect();
        assert_eq!(run(7), (Ok(()), all.clone()));
        let (result, taken) = run(4);
        assert_eq!(result, Err(4));
        assert!(all[..4].starts_with(&taken));
    }
}
