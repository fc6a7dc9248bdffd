//! Decoded tokens and their relevance in a form that tables, charts and verdicts share, whichever measure they come from.

use super::decode::TopToken;
use super::headline::{TraceNumber, TraceReading};
use super::plot::{Ink, NullBand, Plot, PlotAxis, PlotSeries, PlotStyle, places};
use super::relevance::TokenRelevance;
use super::statistics::Interval;

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
    /// Tokens of random differences, as many as there are positions; none without a lexicon.
    pub null: &'a [Vec<TopToken>],
    /// How many of them are relevant; absent where there was no narrow text to tell.
    pub relevance: Option<DecodedRelevance<'a>>,
}

impl<'a> Decoding<'a> {
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
pub struct DecodedRelevance<'a> {
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

impl<'a> DecodedRelevance<'a> {
    /// Index of the position with the highest share.
    pub fn best(&self) -> Option<usize> {
        best(self.positions, &self.share.difference)
    }

    /// Mean share over positions.
    pub fn mean(&self) -> Option<f64> {
        mean(&self.share.difference)
    }

    /// The share at the best position, and its mean over positions beside it.
    pub fn trace(&self) -> Option<TraceReading> {
        let i = self.best()?;
        let number = TraceNumber {
            value: *self.share.difference.get(i)?,
            interval: self.interval.get(i).copied(),
            null: self.null.get(i).copied(),
            null_interval: self.null_interval.get(i).copied(),
        };
        let (position, p) = (self.positions.get(i).copied(), self.p.get(i).copied());
        let reading = TraceReading { number, position, p, ..TraceReading::default() };
        Some(reading.beside("mean", self.mean().map(TraceNumber::new)))
    }

    /// Share of relevant tokens by position, with its baselines and null.
    pub fn plot(&self, ink: Ink) -> Plot {
        let at = places(self.positions);
        let bars = if self.interval.is_empty() {
            ""
        } else {
            " Vertical bars are 95 % bootstrap intervals over samples."
        };
        let baseline =
            |ink, name: &str, share| PlotSeries::curve(ink, name, &at, share).aside(PlotStyle::Points);
        Plot {
            key: format!("{}-position", self.key),
            title: format!("Relevant tokens by position, {}", self.name),
            caption: format!("The band is the 95 % range of random directions.{bars}"),
            x: PlotAxis::positions(self.positions),
            y: PlotAxis::from_0("share of the top 20 tokens that are relevant", 2, 0.2),
            series: vec![
                PlotSeries::curve(ink, "difference", &at, &self.share.difference).with(&at, self.interval),
                baseline(Ink::Base, "base model’s mean activation", &self.share.base),
                baseline(Ink::Tuned, "tuned model’s mean activation", &self.share.tuned),
            ],
            null: Some(NullBand::new(ink, &at, self.null_interval, self.null)),
        }
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
