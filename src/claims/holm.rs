//! Holm's correction for several tests: Scandinavian Journal of Statistics 6:65, 1979.

/// p-values corrected for all tests of a family: the i-th smallest of m times m − i + 1, never below the one before it, 1 at
/// most. In the order given.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut corrected = vec![0.0; p.len()];
    let mut last = 0f64;
    for (i, at) in order.iter().enumerate() {
        last = last.max((p[*at] * (p.len() - i) as f64).min(1.0));
        corrected[*at] = last;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_r_has_it() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{corrected:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
