//! `exp` and its relatives in a form that the compiler turns into vector code.

/// e^x in f32, relative error below 2e-7 on the whole range; 0 below −87.3, clamped above 88.3.
///
/// Cephes `expf` (netlib cephes/single/expf.c): x = n·ln 2 + r, a degree-5 polynomial in r, and 2^n put
/// together from its bits. Without a branch or a call, so that a loop over it vectorises.
#[inline(always)]
pub(in crate::ops) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2^23: adding it rounds to an integer
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5.000_000_3e-1;
    let y = p * r * r + r + 1.0;
    let two_n = f32::from_bits((((shifted.to_bits() as i32) << 23).wrapping_add(127 << 23)) as u32);
    if x < -87.3 { 0.0 } else { y * two_n }
}

/// 1 / (1 + e^−x).
#[inline(always)]
pub(in crate::ops) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x = 2·sigmoid(2x) − 1.
#[inline(always)]
pub(in crate::ops) fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// Runs a block compiled for the widest vector unit of this processor.
///
/// A macro, so that its closure is inlined without fail: one that is not is compiled for the vector unit that every
/// processor has, at a quarter of the speed.
macro_rules! vectorized {
    ($block:expr) => {
        pulp::Arch::new().dispatch($crate::ops::kernels::exp::Vectorized(
            #[inline(always)]
            || $block,
        ))
    };
}
pub(in crate::ops) use vectorized;

/// What [`vectorized`] hands to pulp. `FnMut`, as a call by value goes through a function that is not inlined.
pub(in crate::ops) struct Vectorized<F>(pub F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Vectorized<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Turns a row of logits into e^(x − max) in place and returns (max, Σ e^(x − max)).
#[inline(always)]
pub(in crate::ops) fn exp_row(row: &mut [f32]) -> (f32, f32) {
    let max = max(row);
    for v in row.iter_mut() {
        *v = exp(*v - max);
    }
    (max, sum(row))
}

/// Turns a row of logits into probabilities in place.
pub(crate) fn softmax(row: &mut [f32]) {
    vectorized!({
        let (_, sum) = exp_row(row);
        row.iter_mut().for_each(|v| *v /= sum);
    });
}

/// Largest element; −∞ of nothing. Sixteen lanes, so that it vectorises.
#[inline(always)]
pub(in crate::ops) fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for c in chunks {
        for (l, v) in lanes.iter_mut().zip(c) {
            *l = if *v > *l { *v } else { *l };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// Σ of a row in sixteen lanes: vectorises, in an order that depends on the length only.
#[inline(always)]
pub(in crate::ops) fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for c in chunks {
        for (l, v) in lanes.iter_mut().zip(c) {
            *l += *v;
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Σ aᵢ·bᵢ in sixteen lanes.
#[inline(always)]
pub(in crate::ops) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (ca, ra) = a.as_chunks::<16>();
    let (cb, rb) = b.as_chunks::<16>();
    for (x, y) in ca.iter().zip(cb) {
        for ((l, u), v) in lanes.iter_mut().zip(x).zip(y) {
            *l += u * v;
        }
    }
    lanes.iter().sum::<f32>() + ra.iter().zip(rb).map(|(u, v)| u * v).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_f64() {
        let mut worst = 0f64;
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let want = (x as f64).exp();
            worst = worst.max(((exp(x) as f64 - want) / want).abs());
        }
        assert!(worst < 2e-7, "relative error {worst}");
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_softmax_is_that_of_f64() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 * 0.3 - 9.0).collect();
        let sum: f64 = row.iter().map(|z| (*z as f64).exp()).sum();
        let mut p = row.clone();
        softmax(&mut p);
        for (p, z) in p.iter().zip(&row) {
            let want = (*z as f64).exp() / sum;
            assert!(((*p as f64 - want) / want).abs() < 1e-5, "{p} {want}");
        }
    }

    #[test]
    fn tanh_and_sigmoid() {
        for i in -2000..2000 {
            let x = i as f32 * 1e-2;
            assert!((tanh(x) - x.tanh()).abs() < 5e-7, "tanh {x}");
            assert!((sigmoid(x) - 1.0 / (1.0 + (-x).exp())).abs() < 5e-7, "sigmoid {x}");
        }
    }
}
