//! The measures of readability of one run in a form that tables, charts and verdicts share.

use crate::diff::decode::TopToken;
use crate::diff::measures::steering::Steering;
use crate::diff::record::Readability;
use crate::diff::relevance::TokenRelevance;
use crate::diff::statistics::Interval;

/// A value is told from its null when its p-value is at most this.
pub const ALPHA: f64 = 0.05;

/// What the difference decodes to, one way (logit lens or patchscope).
#[derive(Debug, Clone, Copy)]
pub struct Decoding<'a> {
    /// `logit lens` or `patchscope`.
    pub name: &'static str,
    /// `lens` or `patchscope`.
    pub key: &'static str,
    /// Token positions.
    pub positions: &'a [usize],
    /// Scale that was chosen; empty for the logit lens.
    pub scale: &'a [f64],
    /// Tokens of the difference.
    pub tokens: &'a [Vec<TopToken>],
    /// Tokens of random differences, as many as there are positions; none in the folders of earlier versions.
    pub null: &'a [Vec<TopToken>],
    /// How many of them are relevant; absent where there was no narrow text to tell.
    pub relevance: Option<Relevance<'a>>,
}

impl<'a> Decoding<'a> {
    /// Both ways, those that were run.
    pub fn all(r: &'a Readability) -> impl Iterator<Item = Self> {
        let positions = &r.positions[..];
        let lens = r.logit_lens.as_ref().map(|lens| Self {
            name: "logit lens",
            key: "lens",
            positions,
            scale: &[],
            tokens: &lens.top_tokens,
            null: &lens.null_tokens,
            relevance: Relevance::lens(r),
        });
        let patchscope = r.patchscope.as_ref().map(|scope| Self {
            name: "patchscope",
            key: "patchscope",
            positions: scope.positions(positions),
            scale: &scope.best_scale,
            tokens: &scope.top_tokens,
            null: &scope.null_tokens,
            relevance: Relevance::patchscope(r),
        });
        [lens, patchscope].into_iter().flatten()
    }

    /// Indices of the positions to show: that with the highest share of relevant tokens, or all where nothing tells.
    pub fn shown(&self) -> Vec<usize> {
        match self.relevance {
            Some(relevance) => relevance.best().into_iter().collect(),
            None => (0..self.tokens.len()).collect(),
        }
    }
}

/// Share of relevant tokens over positions, decoded one way (logit lens or patchscope).
#[derive(Debug, Clone, Copy)]
pub struct Relevance<'a> {
    /// `logit lens` or `patchscope`.
    pub name: &'static str,
    /// How many tokens count as decoded.
    pub top: usize,
    /// Column prefix: `lens` or `patchscope`.
    pub key: &'static str,
    /// Token positions.
    pub positions: &'a [usize],
    /// The difference and its two baselines.
    pub share: &'a TokenRelevance,
    /// Mean over the null directions.
    pub null: &'a [f64],
    /// Their 2.5 % and 97.5 % quantiles.
    pub null_interval: &'a [Interval],
    /// p-value of the difference against the null.
    pub p: &'a [f64],
    /// Bootstrap interval of the difference's share; empty when there is none.
    pub interval: &'a [Interval],
    /// Scale that was chosen; empty for the logit lens.
    pub scale: &'a [f64],
}

impl<'a> Relevance<'a> {
    /// The logit lens, if it was run and there was narrow text.
    pub fn lens(r: &'a Readability) -> Option<Self> {
        let lens = r.logit_lens.as_ref().filter(|l| !l.token_relevance.difference.is_empty())?;
        Some(Self {
            name: "logit lens",
            top: lens.top_tokens.first().map_or(0, Vec::len),
            key: "lens",
            positions: &r.positions,
            share: &lens.token_relevance,
            null: &lens.token_relevance_null,
            null_interval: &lens.token_relevance_null_interval,
            p: &lens.token_relevance_p,
            interval: &lens.token_relevance_difference_interval,
            scale: &[],
        })
    }

    /// The patchscope, if it was run and there was narrow text.
    pub fn patchscope(r: &'a Readability) -> Option<Self> {
        let scope = r.patchscope.as_ref().filter(|s| !s.token_relevance.difference.is_empty())?;
        Some(Self {
            name: "patchscope",
            top: scope.top_tokens.first().map_or(0, Vec::len),
            key: "patchscope",
            positions: scope.positions(&r.positions),
            share: &scope.token_relevance,
            null: &scope.token_relevance_null,
            null_interval: &scope.token_relevance_null_interval,
            p: &scope.token_relevance_p,
            interval: &[],
            scale: &scope.best_scale,
        })
    }

    /// Both measures, those that were run.
    pub fn all(r: &'a Readability) -> impl Iterator<Item = Self> {
        [Self::lens(r), Self::patchscope(r)].into_iter().flatten()
    }

    /// Index of the position with the highest share.
    pub fn best(&self) -> Option<usize> {
        best(self.positions, &self.share.difference)
    }

    /// Mean share over positions.
    pub fn mean(&self) -> Option<f64> {
        mean(&self.share.difference)
    }

    /// Indices of the positions where the share is told from the null.
    pub fn passing(&self) -> Vec<usize> {
        (0..self.p.len()).filter(|&i| self.p[i] <= ALPHA).collect()
    }
}

/// How similar steered text is to the narrow text, and how much of that is gained over plain (unsteered) text.
///
/// The gain says whether steering does anything in one model. Between models it misleads: plain text of an
/// organism that talks about its subject unasked leaves little to gain.
#[derive(Debug, Clone)]
pub struct Gain<'a> {
    /// The record.
    pub record: &'a Steering,
    /// `steered_narrow − unsteered_narrow` per steering position.
    pub gain: Vec<f64>,
}

impl<'a> Gain<'a> {
    /// Steering, if it was run and there was narrow text.
    pub fn of(r: &'a Readability) -> Option<Self> {
        let record = r.steering.as_ref().filter(|s| !s.similarity.steered_narrow.is_empty())?;
        let s = &record.similarity;
        let pairs = s.steered_narrow.iter().zip(&s.unsteered_narrow);
        Some(Self { record, gain: pairs.map(|(a, b)| a - b).collect() })
    }

    /// Index of the steering position whose text is most similar to the narrow text.
    pub fn best(&self) -> Option<usize> {
        best(&self.record.positions, &self.record.similarity.steered_narrow)
    }

    /// Indices of the steering positions whose text is told from plain text and, where random directions were steered
    /// with, from theirs: both intervals lie above zero.
    pub fn passing(&self) -> Vec<usize> {
        let over_plain = &self.record.similarity_gain_interval;
        let over_null = &self.record.similarity_over_null_interval;
        let above = |i: usize| over_plain[i][0] > 0.0 && over_null.get(i).is_none_or(|ends| ends[0] > 0.0);
        (0..over_plain.len()).filter(|&i| above(i)).collect()
    }
}

/// Index of the largest value over some positions. Of equals the first, but not that of position 0: often a token that
/// attention rests on, with a difference of its own.
pub fn best(positions: &[usize], values: &[f64]) -> Option<usize> {
    let finite = (0..values.len()).filter(|&i| !values[i].is_nan());
    let first = finite.reduce(|a, b| if values[b] > values[a] { b } else { a })?;
    let later = |&i: &usize| values[i] == values[first] && positions.get(i).is_some_and(|p| *p > 0);
    (0..values.len()).find(later).or(Some(first))
}

/// Arithmetic mean, `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_best() {
        assert_eq!(best(&[0, 1, 2], &[0.1, 0.4, 0.4]), Some(1));
        assert_eq!(best(&[0, 1], &[f64::NAN, 0.0]), Some(1));
        assert_eq!(best(&[], &[]), None);
        // Position 0 only where no other is as good.
        assert_eq!(best(&[0, 1, 2], &[0.4, 0.1, 0.4]), Some(2));
        assert_eq!(best(&[0, 1, 2], &[0.5, 0.1, 0.4]), Some(0));
        assert_eq!(mean(&[]), None);
    }
}
