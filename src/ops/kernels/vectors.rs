//! Sixteen bytes and sixteen sums, and what processors do with them: the portable way, AVX2 and AVX-512.
//!
//! All take the same steps in the same lanes. AVX2 and AVX-512 multiply and add in one step, which rounds once where the
//! portable way rounds twice. [`super::blocks`] compares the three.

/// Scales that are read at a time: as many as there are lanes.
pub(super) const SCALES: usize = 16;

/// Sixteen bytes, sixteen sums, and what a processor does with them.
pub(super) trait Vectors: Copy {
    type Bytes: Copy;
    type Sums: Copy;
    fn bytes(self, from: &[u8; 16]) -> Self::Bytes;
    fn splat(self, byte: u8) -> Self::Bytes;
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// a − b, each byte modulo 256.
    fn sub(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Every byte shifted right, with any bits in place of those that come in.
    fn right(self, a: Self::Bytes, bits: u32) -> Self::Bytes;
    /// Every byte shifted left, with any bits in place of those that come in.
    fn left(self, a: Self::Bytes, bits: u32) -> Self::Bytes;
    /// 255 where a byte has all bits of the mask, else 0.
    fn has(self, a: Self::Bytes, mask: Self::Bytes) -> Self::Bytes;
    /// The lower byte eight times, then the upper one.
    fn eight_each(self, pair: u16) -> Self::Bytes;
    /// f16 numbers as f32.
    fn halves(self, bits: &[u16; SCALES]) -> [f32; SCALES];
    fn zero(self) -> Self::Sums;
    /// sums + d·(q∘x), the bytes read as signed.
    fn add_scaled(self, sums: Self::Sums, q: Self::Bytes, x: &[f32; 16], d: f32) -> Self::Sums;
    /// sums + d·(q₀∘x₀ + q₁∘x₁).
    fn add_pair(self, sums: Self::Sums, q: [Self::Bytes; 2], x: &[f32; 32], d: f32) -> Self::Sums;
    /// sums + a∘b.
    fn add_product(self, sums: Self::Sums, a: &[f32; 16], b: &[f32; 16]) -> Self::Sums;
    fn lanes(self, sums: Self::Sums) -> [f32; 16];
    /// q·d + m, rounded twice, as candle does.
    fn write(self, q: Self::Bytes, d: f32, m: f32, to: &mut [f32; 16]);
}

/// Any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Vectors for Portable {
    type Bytes = [u8; 16];
    type Sums = [f32; 16];

    #[inline(always)]
    fn bytes(self, from: &[u8; 16]) -> [u8; 16] {
        *from
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> [u8; 16] {
        [byte; 16]
    }
    #[inline(always)]
    fn and(self, a: [u8; 16], b: [u8; 16]) -> [u8; 16] {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: [u8; 16], b: [u8; 16]) -> [u8; 16] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn sub(self, a: [u8; 16], b: [u8; 16]) -> [u8; 16] {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn right(self, a: [u8; 16], bits: u32) -> [u8; 16] {
        a.map(|byte| byte >> bits)
    }
    #[inline(always)]
    fn left(self, a: [u8; 16], bits: u32) -> [u8; 16] {
        a.map(|byte| byte << bits)
    }
    #[inline(always)]
    fn has(self, a: [u8; 16], mask: [u8; 16]) -> [u8; 16] {
        std::array::from_fn(|i| if a[i] & mask[i] == mask[i] { 255 } else { 0 })
    }
    #[inline(always)]
    fn eight_each(self, pair: u16) -> [u8; 16] {
        let [low, high] = pair.to_le_bytes();
        std::array::from_fn(|i| if i < 8 { low } else { high })
    }
    #[inline(always)]
    fn halves(self, bits: &[u16; SCALES]) -> [f32; SCALES] {
        bits.map(half)
    }
    #[inline(always)]
    fn zero(self) -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    fn add_scaled(self, mut sums: [f32; 16], q: [u8; 16], x: &[f32; 16], d: f32) -> [f32; 16] {
        for i in 0..16 {
            sums[i] += d * (q[i] as i8 as f32 * x[i]);
        }
        sums
    }
    #[inline(always)]
    fn add_pair(self, mut sums: [f32; 16], q: [[u8; 16]; 2], x: &[f32; 32], d: f32) -> [f32; 16] {
        for i in 0..16 {
            sums[i] += d * (q[0][i] as i8 as f32 * x[i] + q[1][i] as i8 as f32 * x[16 + i]);
        }
        sums
    }
    #[inline(always)]
    fn add_product(self, mut sums: [f32; 16], a: &[f32; 16], b: &[f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
        sums
    }
    #[inline(always)]
    fn lanes(self, sums: [f32; 16]) -> [f32; 16] {
        sums
    }
    #[inline(always)]
    fn write(self, q: [u8; 16], d: f32, m: f32, to: &mut [f32; 16]) {
        for i in 0..16 {
            to[i] = q[i] as i8 as f32 * d + m;
        }
    }
}

/// An f16 number as f32 (IEEE 754): its exponent is moved by a product with a power of two, which is right for subnormal
/// numbers too.
#[inline(always)]
pub(super) fn half(bits: u16) -> f32 {
    const EXPONENT: u32 = 0x7c00;
    let (sign, rest) = ((bits as u32 & 0x8000) << 16, bits as u32 & 0x7fff);
    let finite = f32::from_bits(rest << 13) * f32::from_bits((127 + 127 - 15) << 23);
    let magnitude = if rest >= EXPONENT { 0x7f80_0000 | (rest << 13) } else { finite.to_bits() };
    f32::from_bits(sign | magnitude)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[cfg(feature = "avx512")]
    use std::arch::x86_64::__m512;
    use std::arch::x86_64::{__m128i, __m256};

    use pulp::cast;
    use pulp::x86::V3;
    #[cfg(feature = "avx512")]
    use pulp::x86::V4;

    use super::{SCALES, Vectors, half};

    /// The bytes of both are sixteen in an SSE register.
    macro_rules! bytes_of_sse {
        () => {
            type Bytes = __m128i;

            #[inline(always)]
            fn bytes(self, from: &[u8; 16]) -> __m128i {
                cast(*from)
            }
            #[inline(always)]
            fn splat(self, byte: u8) -> __m128i {
                cast([byte; 16])
            }
            #[inline(always)]
            fn and(self, a: __m128i, b: __m128i) -> __m128i {
                self.sse2._mm_and_si128(a, b)
            }
            #[inline(always)]
            fn or(self, a: __m128i, b: __m128i) -> __m128i {
                self.sse2._mm_or_si128(a, b)
            }
            #[inline(always)]
            fn sub(self, a: __m128i, b: __m128i) -> __m128i {
                self.sse2._mm_sub_epi8(a, b)
            }
            #[inline(always)]
            fn right(self, a: __m128i, bits: u32) -> __m128i {
                self.sse2._mm_srl_epi16(a, self.sse2._mm_cvtsi32_si128(bits as i32))
            }
            #[inline(always)]
            fn left(self, a: __m128i, bits: u32) -> __m128i {
                self.sse2._mm_sll_epi16(a, self.sse2._mm_cvtsi32_si128(bits as i32))
            }
            #[inline(always)]
            fn has(self, a: __m128i, mask: __m128i) -> __m128i {
                self.sse2._mm_cmpeq_epi8(self.sse2._mm_and_si128(a, mask), mask)
            }
            #[inline(always)]
            fn eight_each(self, pair: u16) -> __m128i {
                const PLACES: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];
                self.ssse3._mm_shuffle_epi8(self.sse2._mm_set1_epi16(pair as i16), cast(PLACES))
            }
        };
    }

    #[cfg(feature = "avx512")]
    impl Vectors for V4 {
        bytes_of_sse!();
        type Sums = __m512;

        #[inline(always)]
        fn halves(self, bits: &[u16; SCALES]) -> [f32; SCALES] {
            cast(self.avx512f._mm512_cvtph_ps(cast(*bits)))
        }
        #[inline(always)]
        fn zero(self) -> __m512 {
            self.avx512f._mm512_setzero_ps()
        }
        #[inline(always)]
        fn add_scaled(self, sums: __m512, q: __m128i, x: &[f32; 16], d: f32) -> __m512 {
            let f = self.avx512f;
            let q = f._mm512_cvtepi32_ps(f._mm512_cvtepi8_epi32(q));
            f._mm512_fmadd_ps(f._mm512_mul_ps(q, cast(*x)), f._mm512_set1_ps(d), sums)
        }
        #[inline(always)]
        fn add_pair(self, sums: __m512, q: [__m128i; 2], x: &[f32; 32], d: f32) -> __m512 {
            let f = self.avx512f;
            let [x0, x1]: [[f32; 16]; 2] = cast(*x);
            let low = f._mm512_cvtepi32_ps(f._mm512_cvtepi8_epi32(q[0]));
            let high = f._mm512_cvtepi32_ps(f._mm512_cvtepi8_epi32(q[1]));
            let both = f._mm512_fmadd_ps(high, cast(x1), f._mm512_mul_ps(low, cast(x0)));
            f._mm512_fmadd_ps(both, f._mm512_set1_ps(d), sums)
        }
        #[inline(always)]
        fn add_product(self, sums: __m512, a: &[f32; 16], b: &[f32; 16]) -> __m512 {
            self.avx512f._mm512_fmadd_ps(cast(*a), cast(*b), sums)
        }
        #[inline(always)]
        fn lanes(self, sums: __m512) -> [f32; 16] {
            cast(sums)
        }
        #[inline(always)]
        fn write(self, q: __m128i, d: f32, m: f32, to: &mut [f32; 16]) {
            let f = self.avx512f;
            let q = f._mm512_cvtepi32_ps(f._mm512_cvtepi8_epi32(q));
            let scaled = f._mm512_mul_ps(q, f._mm512_set1_ps(d));
            *to = cast(f._mm512_add_ps(scaled, f._mm512_set1_ps(m)));
        }
    }

    /// Eight of the sixteen lanes.
    #[inline(always)]
    fn eight(simd: V3, q: __m128i, half: usize) -> __m256 {
        let q = if half == 0 { q } else { simd.sse2._mm_unpackhi_epi64(q, q) };
        simd.avx._mm256_cvtepi32_ps(simd.avx2._mm256_cvtepi8_epi32(q))
    }

    impl Vectors for V3 {
        bytes_of_sse!();
        type Sums = [__m256; 2];

        #[inline(always)]
        fn halves(self, bits: &[u16; SCALES]) -> [f32; SCALES] {
            bits.map(half)
        }
        #[inline(always)]
        fn zero(self) -> [__m256; 2] {
            [self.avx._mm256_setzero_ps(); 2]
        }
        #[inline(always)]
        fn add_scaled(self, mut sums: [__m256; 2], q: __m128i, x: &[f32; 16], d: f32) -> [__m256; 2] {
            let (x, d): ([[f32; 8]; 2], _) = (cast(*x), self.avx._mm256_set1_ps(d));
            for i in 0..2 {
                let product = self.avx._mm256_mul_ps(eight(self, q, i), cast(x[i]));
                sums[i] = self.fma._mm256_fmadd_ps(product, d, sums[i]);
            }
            sums
        }
        #[inline(always)]
        fn add_pair(self, mut sums: [__m256; 2], q: [__m128i; 2], x: &[f32; 32], d: f32) -> [__m256; 2] {
            let (x, d): ([[f32; 8]; 4], _) = (cast(*x), self.avx._mm256_set1_ps(d));
            for i in 0..2 {
                let low = self.avx._mm256_mul_ps(eight(self, q[0], i), cast(x[i]));
                let both = self.fma._mm256_fmadd_ps(eight(self, q[1], i), cast(x[2 + i]), low);
                sums[i] = self.fma._mm256_fmadd_ps(both, d, sums[i]);
            }
            sums
        }
        #[inline(always)]
        fn add_product(self, mut sums: [__m256; 2], a: &[f32; 16], b: &[f32; 16]) -> [__m256; 2] {
            let (a, b): ([[f32; 8]; 2], [[f32; 8]; 2]) = (cast(*a), cast(*b));
            for i in 0..2 {
                sums[i] = self.fma._mm256_fmadd_ps(cast(a[i]), cast(b[i]), sums[i]);
            }
            sums
        }
        #[inline(always)]
        fn lanes(self, sums: [__m256; 2]) -> [f32; 16] {
            cast(sums)
        }
        #[inline(always)]
        fn write(self, q: __m128i, d: f32, m: f32, to: &mut [f32; 16]) {
            let (d, m) = (self.avx._mm256_set1_ps(d), self.avx._mm256_set1_ps(m));
            let mut halves: [[f32; 8]; 2] = [[0.0; 8]; 2];
            for (i, half) in halves.iter_mut().enumerate() {
                let scaled = self.avx._mm256_mul_ps(eight(self, q, i), d);
                *half = cast(self.avx._mm256_add_ps(scaled, m));
            }
            *to = cast(halves);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_those_of_ieee_754() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
        }
    }
}
