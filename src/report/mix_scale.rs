//! The axis of mix ratios.

use crate::claims::dose::Ratio;

/// Where a ratio stands on the axis: linear near zero, logarithmic beyond the smallest ratio above zero,
/// so that 0 has a place and 0.1 and 50 can both be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixScale {
    knee: f64,
}

impl MixScale {
    /// The scale for some ratios.
    pub fn over(groups: &[Ratio]) -> Self {
        let knee = groups.iter().map(|g| g.0).filter(|m| *m > 0.0).fold(f64::INFINITY, f64::min);
        Self { knee: if knee.is_finite() { knee } else { 1.0 } }
    }

    /// The place of a ratio.
    pub fn place(self, mix: f64) -> f64 {
        (mix / self.knee).asinh()
    }
}
