//! The score of a measure: the one number by which it is compared with other organisms. It is fixed before anything is
//! read, and is no maximum over positions, layers or strengths.

use super::decode::TopToken;
use super::readout::mean;
use super::statistics::Interval;

/// What a score is resolved to where it is not a count.
pub const FINE: f64 = 1e-3;

/// One number of a measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The measure's key, with a suffix where it has several.
    pub key: &'static str,
    /// The measure in a sentence.
    pub name: &'static str,
    /// The number, higher where more is read.
    pub value: f64,
    /// Its 95 % interval within the run, where it has one.
    pub interval: Option<Interval>,
    /// The least step of the number: 1/k of a share of k.
    pub resolution: f64,
}

/// Mean share of relevant tokens over positions; none without narrow text.
pub fn relevance_score(
    key: &'static str,
    name: &'static str,
    shares: &[f64],
    tokens: &[Vec<TopToken>],
) -> Vec<Score> {
    let decoded: usize = tokens.iter().map(Vec::len).sum();
    let of = |value| Score { key, name, value, interval: None, resolution: 1.0 / decoded.max(1) as f64 };
    mean(shares).map(of).into_iter().collect()
}
