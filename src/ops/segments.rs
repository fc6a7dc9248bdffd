//! Where the sequences of a batch lie when their tokens stand end to end.

/// Lengths of the sequences in one pass, and how many tokens of each were seen in earlier passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    lens: Vec<usize>,
    past: Vec<usize>,
    starts: Vec<usize>,
    ids: Vec<usize>,
}

impl Segments {
    /// Sequences that begin here: `lens[i]` tokens each, positions from zero.
    pub fn new(lens: Vec<usize>) -> Self {
        let past = vec![0; lens.len()];
        Self::with_past(lens, past)
    }

    /// Sequences that go on: `lens[i]` new tokens after `past[i]` tokens held in a cache.
    pub fn with_past(lens: Vec<usize>, past: Vec<usize>) -> Self {
        assert_eq!(lens.len(), past.len(), "one past length a sequence");
        let mut starts = Vec::with_capacity(lens.len());
        let mut at = 0;
        for &len in &lens {
            starts.push(at);
            at += len;
        }
        let ids = (0..lens.len()).collect();
        Self { lens, past, starts, ids }
    }

    /// The same with names for the sequences: their places in a batch of which some have left.
    pub fn named(self, ids: Vec<usize>) -> Self {
        assert_eq!(ids.len(), self.lens.len(), "one id a sequence");
        Self { ids, ..self }
    }

    /// Place of sequence `i` in the batch that it came from.
    pub fn id(&self, i: usize) -> usize {
        self.ids[i]
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.lens.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// Number of tokens of this pass.
    pub fn tokens(&self) -> usize {
        self.lens.iter().sum()
    }

    /// Rows of sequence `i` in the `(tokens, …)` tensor.
    pub fn rows(&self, i: usize) -> std::ops::Range<usize> {
        self.starts[i]..self.starts[i] + self.lens[i]
    }

    /// Tokens of sequence `i` that were seen before this pass.
    pub fn past(&self, i: usize) -> usize {
        self.past[i]
    }

    /// Row of the last token of each sequence.
    pub fn last_rows(&self) -> Vec<u32> {
        (0..self.len()).map(|i| (self.rows(i).end - 1) as u32).collect()
    }

    /// Position of each token in its own sequence.
    pub fn positions(&self) -> Vec<usize> {
        (0..self.len())
            .flat_map(|i| (0..self.lens[i]).map(move |t| (i, t)))
            .map(|(i, t)| self.past[i] + t)
            .collect()
    }

    /// The largest position of this pass plus one.
    pub fn max_len(&self) -> usize {
        self.lens.iter().zip(&self.past).map(|(l, p)| l + p).max().unwrap_or(0)
    }
}

/// Keeps the items of sequences whose flag is set; one item and one flag a sequence.
pub fn keep_flagged<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut flags = keep.iter();
    items.retain(|_| *flags.next().expect("one flag a sequence"));
}

/// Items cut into runs whose lengths add up to `most` tokens at most, for a forward pass each; an item longer than that is a
/// run of its own.
pub fn runs<T>(items: &[T], most: usize, tokens: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut runs, mut rest) = (Vec::new(), items);
    while !rest.is_empty() {
        let mut sum = 0;
        let fits = |item: &&T| {
            sum += tokens(item);
            sum <= most
        };
        let (run, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        runs.push(run);
        rest = later;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_every_item_in_order_and_no_more_tokens_than_they_may() {
        let of = |lengths: &[usize]| {
            runs(lengths, 10, |n| *n).into_iter().map(<[usize]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(of(&[4, 6, 1, 12, 3, 7, 2]), [vec![4, 6], vec![1], vec![12], vec![3, 7], vec![2]]);
        assert!(of(&[]).is_empty());
    }
}
