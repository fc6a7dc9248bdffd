//! The search for the step at which a behaviour is at its target: forwards to the first reading that is past it, then back,
//! halving the steps between the two.
//!
//! After the rule of the Model Organism Lottery (arXiv 2607.01033), with readings at even distances in place of doubled ones.
//! It is a function of the readings so far alone, so a search that goes on in another process goes on as it would have.

use serde::{Deserialize, Serialize};

/// The behaviour of the model of one step, on the items that the search goes by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MatchReading {
    /// Optimizer steps done.
    pub step: usize,
    /// The behaviour, in its unit.
    pub q: f64,
    /// Its standard error over items.
    pub se: f64,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchStatus {
    /// The behaviour is at its target, within the tolerance.
    Matched,
    /// It passed the target between two readings; the model is the nearer of the two.
    Nearest,
    /// All steps were trained, and the behaviour is below its target.
    Unreached,
    /// The base was there before any step: nothing is trained.
    BelowBase,
}

impl MatchStatus {
    /// As records and tables spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Nearest => "nearest",
            Self::Unreached => "unreached",
            Self::BelowBase => "below_base",
        }
    }

    /// Whether the behaviour came to its target, or as near as steps allow.
    pub fn is_there(self) -> bool {
        matches!(self, Self::Matched | Self::Nearest)
    }
}

/// Why a search ended without a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchReason {
    /// One step leads from below the target to past it.
    Quantization,
    /// The steps between were halved as often as the recipe allows.
    SearchBudget,
    /// No two readings lie on either side of the target.
    Unbracketed,
}

impl MatchReason {
    /// As records and tables spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quantization => "quantization",
            Self::SearchBudget => "search_budget",
            Self::Unbracketed => "unbracketed",
        }
    }
}

/// What a search does next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MatchMove {
    /// Reads the model of this step. If training has to go back for it, it goes back to `from` or earlier.
    Read {
        /// Optimizer steps done.
        step: usize,
        /// A step that was read, from which everything that is still to be read can be reached.
        from: usize,
    },
    /// Ends with the model of a step.
    End {
        /// Optimizer steps done.
        step: usize,
        /// How it ended.
        status: MatchStatus,
        /// Why not with a match.
        reason: Option<MatchReason>,
    },
}

impl MatchMove {
    /// The step that it goes to.
    pub fn step(self) -> usize {
        match self {
            Self::Read { step, .. } | Self::End { step, .. } => step,
        }
    }
}

/// The rule of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatchSearch {
    /// Where the behaviour is to be.
    pub target: f64,
    /// How far from it the behaviour may be.
    pub tolerance: f64,
    /// Narrow steps between readings.
    pub every: usize,
    /// All narrow steps.
    pub narrow_steps: usize,
    /// All optimizer steps.
    pub steps: usize,
    /// How often the steps between two readings are halved.
    pub refine: usize,
}

impl MatchSearch {
    /// The step of the k-th reading on the way forwards: of narrow step k · every, what is mixed in being spread evenly.
    fn forward(&self, k: usize) -> usize {
        let narrow = k.saturating_mul(self.every).min(self.narrow_steps) as u128;
        let step = (narrow * self.steps as u128).div_ceil(self.narrow_steps.max(1) as u128);
        (step as usize).min(self.steps)
    }

    /// What comes after these readings, in the order in which they were taken.
    pub fn next(&self, readings: &[MatchReading]) -> MatchMove {
        let end = |step, status, reason| MatchMove::End { step, status, reason };
        let is_there = |reading: &MatchReading| (reading.q - self.target).abs() <= self.tolerance;
        let Some(base) = readings.first() else { return MatchMove::Read { step: 0, from: 0 } };
        if base.q >= self.target - self.tolerance {
            return end(0, MatchStatus::BelowBase, Some(MatchReason::Unbracketed));
        }
        let (mut low, mut high) = (*base, None);
        for (k, reading) in readings.iter().enumerate().skip(1) {
            if is_there(reading) {
                return end(reading.step, MatchStatus::Matched, None);
            }
            if reading.q > self.target {
                high = Some((*reading, high.map_or(k, |(_, first)| first)));
            } else {
                low = *reading;
            }
        }
        let Some((high, first)) = high else {
            let step = self.forward(readings.len());
            return match low.step < self.steps {
                true => MatchMove::Read { step, from: low.step },
                false => end(low.step, MatchStatus::Unreached, Some(MatchReason::Unbracketed)),
            };
        };
        let gap = high.step - low.step;
        let reason = if gap <= 1 {
            MatchReason::Quantization
        } else if readings.len() - first > self.refine {
            MatchReason::SearchBudget
        } else {
            return MatchMove::Read { step: low.step + gap / 2, from: low.step };
        };
        // An untrained model is no organism, however near it is.
        let is_low = low.step > 0 && self.target - low.q <= high.q - self.target;
        end(if is_low { low.step } else { high.step }, MatchStatus::Nearest, Some(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> MatchSearch {
        MatchSearch { target: 1.5, tolerance: 0.15, every: 2, narrow_steps: 24, steps: 24, refine: 4 }
    }

    /// Runs a search over a behaviour that depends on the step alone, and gives the steps that were read and the end.
    fn run(search: &MatchSearch, q: impl Fn(usize) -> f64) -> (Vec<usize>, MatchMove) {
        let mut readings = Vec::new();
        loop {
            match search.next(&readings) {
                MatchMove::Read { step, from } => {
                    // What was read is never read again, and the way there leads forwards.
                    assert!(readings.iter().all(|r: &MatchReading| r.step != step) && from <= step);
                    assert!(readings.len() < 100);
                    readings.push(MatchReading { step, q: q(step), se: 0.1 });
                }
                end => return (readings.iter().map(|r| r.step).collect(), end),
            }
        }
    }

    fn ends(step: usize, status: MatchStatus, reason: Option<MatchReason>) -> MatchMove {
        MatchMove::End { step, status, reason }
    }

    #[test]
    fn a_line_is_matched_at_the_first_reading_within_the_tolerance() {
        let (steps, end) = run(&search(), |step| 0.2 * step as f64);
        assert_eq!(steps, [0, 2, 4, 6, 8]);
        assert_eq!(end, ends(8, MatchStatus::Matched, None));
    }

    #[test]
    fn a_line_that_is_past_it_goes_back_and_is_matched_between() {
        // 1.28 at 4, 1.92 at 6.
        let (steps, end) = run(&search(), |step| 0.32 * step as f64);
        assert_eq!((steps, end), (vec![0, 2, 4, 6, 5], ends(5, MatchStatus::Matched, None)));
        // The first reading is past it already, and the way back is halved again and again.
        let coarse = MatchSearch { every: 16, ..search() };
        let (steps, end) = run(&coarse, |step| 0.53 * step as f64);
        assert_eq!((steps, end), (vec![0, 16, 8, 4, 2, 3], ends(3, MatchStatus::Matched, None)));
    }

    #[test]
    fn a_jump_over_the_band_ends_with_the_nearer_side() {
        let quantized = |end: MatchMove, step| {
            assert_eq!(end, ends(step, MatchStatus::Nearest, Some(MatchReason::Quantization)));
        };
        let (steps, end) = run(&search(), |step| if step < 7 { 1.2 } else { 2.5 });
        assert_eq!(steps, [0, 2, 4, 6, 8, 7]);
        quantized(end, 6);
        let (steps, end) = run(&search(), |step| if step < 8 { 0.2 } else { 1.7 });
        assert_eq!(steps, [0, 2, 4, 6, 8, 7]);
        quantized(end, 8);
        // The first step is too much; the base is nearer, and no organism.
        let (steps, end) = run(&search(), |step| if step == 0 { 1.3 } else { 2.5 });
        assert_eq!(steps, [0, 2, 1]);
        quantized(end, 1);
    }

    #[test]
    fn refining_ends_where_the_recipe_says() {
        let jump = |step| if step < 15 { 1.2 } else { 2.5 };
        let coarse = |refine| MatchSearch { every: 16, refine, ..search() };
        for (refine, read, step) in
            [(0, vec![0, 16], 16), (1, vec![0, 16, 8], 8), (3, vec![0, 16, 8, 12, 14], 14)]
        {
            let (steps, end) = run(&coarse(refine), jump);
            assert_eq!(steps, read);
            assert_eq!(end, ends(step, MatchStatus::Nearest, Some(MatchReason::SearchBudget)));
        }
        let (_, end) = run(&coarse(4), jump);
        assert_eq!(end, ends(14, MatchStatus::Nearest, Some(MatchReason::Quantization)));
    }

    #[test]
    fn a_curve_that_falls_or_stays_below_is_unreached_at_the_last_step() {
        let unreached = ends(24, MatchStatus::Unreached, Some(MatchReason::Unbracketed));
        let (steps, end) = run(&search(), |step| 1.0 - 0.1 * step as f64);
        assert_eq!((steps.len(), end), (13, unreached));
        // The last reading is after the last step, whatever the distance of readings.
        let (steps, end) = run(&MatchSearch { every: 7, ..search() }, |_| 0.0);
        assert_eq!((steps, end), (vec![0, 7, 14, 21, 24], unreached));
    }

    #[test]
    fn a_base_that_is_there_already_trains_nothing() {
        for base in [1.36, 3.0] {
            let (steps, end) = run(&search(), |step| base + step as f64);
            assert_eq!(steps, [0]);
            assert_eq!(end, ends(0, MatchStatus::BelowBase, Some(MatchReason::Unbracketed)));
        }
    }

    #[test]
    fn a_noisy_curve_ends_at_its_first_passage() {
        // Up to 1.2, back to .6, past the target at 12; 11 is below again.
        let q = |step: usize| match step {
            0..4 => 0.1 * step as f64,
            4 => 1.2,
            5..11 => 0.6,
            11 => 0.9,
            _ => 2.2,
        };
        let (steps, end) = run(&search(), q);
        assert_eq!(steps, [0, 2, 4, 6, 8, 10, 12, 11]);
        assert_eq!(end, ends(11, MatchStatus::Nearest, Some(MatchReason::Quantization)));
    }

    #[test]
    fn with_a_mix_readings_are_at_narrow_steps_and_refining_at_any_step() {
        // 24 narrow steps and four times as much beside: 120 steps.
        let mixed = MatchSearch { steps: 120, ..search() };
        let (steps, end) = run(&mixed, |step| if step < 26 { 0.0 } else { 2.5 });
        assert_eq!(steps, [0, 10, 20, 30, 25, 27, 26]);
        assert_eq!(end, ends(26, MatchStatus::Nearest, Some(MatchReason::Quantization)));
        // Half as much beside: 36 steps, of narrow steps 2, 4, 6.
        let half = MatchSearch { steps: 36, ..search() };
        let (steps, _) = run(&half, |_| 0.0);
        assert_eq!(steps[..4], [0, 3, 6, 9]);
        let uneven = MatchSearch { every: 1, steps: 37, narrow_steps: 24, ..search() };
        let (steps, _) = run(&uneven, |_| 0.0);
        assert_eq!((steps[..4].to_vec(), steps.last()), (vec![0, 2, 4, 5], Some(&37)));
    }

    #[test]
    fn names_are_those_of_the_records() {
        for status in
            [MatchStatus::Matched, MatchStatus::Nearest, MatchStatus::Unreached, MatchStatus::BelowBase]
        {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
        for reason in [MatchReason::Quantization, MatchReason::SearchBudget, MatchReason::Unbracketed] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
    }
}
