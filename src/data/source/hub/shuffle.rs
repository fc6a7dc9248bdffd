//! A shuffle buffer, as `datasets.IterableDataset.shuffle` has it: shards in a random order, and each next row drawn
//! from a buffer that the row behind it then refills. (The draws are ours, not NumPy's.)

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rows on their way; without a buffer they pass as they come.
pub(super) struct Shuffle {
    size: usize,
    held: Vec<String>,
    rng: ChaCha8Rng,
}

impl Shuffle {
    pub(super) fn new(size: Option<u64>, seed: u64) -> Self {
        let size = size.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
        Self { size, held: Vec::new(), rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Puts shards into a random order, where rows are drawn.
    pub(super) fn order<T>(&mut self, shards: &mut [T]) {
        if self.size > 0 {
            shards.shuffle(&mut self.rng);
        }
    }

    /// Takes a row in; gives one out, once the buffer is full.
    pub(super) fn push(&mut self, row: String) -> Option<String> {
        if self.held.len() < self.size {
            self.held.push(row);
            return None;
        }
        if self.size == 0 {
            return Some(row);
        }
        let i = self.rng.random_range(0..self.size);
        Some(std::mem::replace(&mut self.held[i], row))
    }

    /// What is left, in a random order.
    pub(super) fn rest(mut self) -> Vec<String> {
        self.held.shuffle(&mut self.rng);
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(size: Option<u64>, seed: u64) -> Vec<usize> {
        let mut shuffle = Shuffle::new(size, seed);
        let mut out: Vec<String> = (0..100).filter_map(|i| shuffle.push(i.to_string())).collect();
        out.extend(shuffle.rest());
        out.iter().map(|row| row.parse().unwrap()).collect()
    }

    #[test]
    fn every_row_comes_once_and_none_earlier_than_the_buffer_allows() {
        let in_order: Vec<usize> = (0..100).collect();
        assert_eq!(drawn(None, 0), in_order);
        let shuffled = drawn(Some(10), 0);
        assert_ne!(shuffled, in_order);
        // The k-th row out is among the first 10 + k that came in.
        assert!(shuffled.iter().enumerate().all(|(k, row)| *row < 10 + k + 1));
        let mut sorted = shuffled.clone();
        sorted.sort();
        assert_eq!(sorted, in_order);
        assert_eq!(shuffled, drawn(Some(10), 0));
        assert_ne!(shuffled, drawn(Some(10), 1));
        // A buffer larger than the set is a whole shuffle.
        assert!(drawn(Some(1000), 0)[..10].iter().any(|row| *row > 50));
    }
}
