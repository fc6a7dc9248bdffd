//! 64 bytes and sixteen sums, and what processors do with them: the portable way, AVX2 and AVX-512.
//!
//! All take the same steps in the same lanes. AVX2 and AVX-512 multiply and add in one step, which rounds once where the
//! portable way rounds twice. [`super::blocks`] compares the three.

use std::array::from_fn;

/// Scales of a run, those of 16 numbers each: as many as there are lanes.
pub(super) const SCALES: usize = 16;

/// Numbers of a quarter of a run: 64 bytes.
pub(super) const QUARTER: usize = 64;

/// 64 numbers of x, every fourth together: the number 4·lane + k at `[k][lane]`.
pub(super) type Quarter = [[f32; 16]; 4];

/// 64 bytes, sixteen sums, and what a processor does with them. Bytes are also sixteen words of 32 bits, lowest byte first.
pub(super) trait Vectors: Copy {
    type Bytes: Copy;
    type Sums: Copy;
    /// What sums of integers are to be multiplied by: a byte becomes a number as the uppermost of four, which has its sign.
    const UNIT: f32 = 1.0 / (1u32 << 24) as f32;
    fn bytes(self, from: &[u8; 64]) -> Self::Bytes;
    /// One after the other.
    fn both(self, first: &[u8; 32], second: &[u8; 32]) -> Self::Bytes;
    /// The same bytes again.
    fn twice(self, from: &[u8; 32]) -> Self::Bytes {
        self.both(from, from)
    }
    /// The first sixteen twice, then the second twice.
    fn each_twice(self, first: &[u8; 16], second: &[u8; 16]) -> Self::Bytes;
    fn splat(self, byte: u8) -> Self::Bytes;
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// a − b, each byte modulo 256.
    fn sub(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Every word shifted right by its own number of bits, across bytes.
    fn right_by(self, a: Self::Bytes, bits: &[u32; 16]) -> Self::Bytes;
    /// Every word shifted left by its own number of bits, across bytes.
    fn left_by(self, a: Self::Bytes, bits: &[u32; 16]) -> Self::Bytes;
    /// The byte where a bit is set, else 0.
    fn where_set(self, bits: u64, byte: u8) -> Self::Bytes;
    /// An f16 number as f32.
    fn half(self, bits: u16) -> f32;
    /// The lower f16 number of each word, twice, and the upper ones, twice.
    fn halves(self, words: &[u32; SCALES / 2]) -> ([f32; SCALES], [f32; SCALES]);
    /// Sixteen signed bytes times a number.
    fn multiples(self, q: [u8; SCALES], d: f32) -> [f32; SCALES];
    fn zero(self) -> Self::Sums;
    /// sums + Σ d·q∘x / [`UNIT`](Self::UNIT), the bytes read as signed, with the scales of this quarter of a run. A lane adds up
    /// four numbers that lie side by side.
    fn add_quarter(
        self,
        sums: Self::Sums,
        q: Self::Bytes,
        x: &Quarter,
        scales: &[f32; SCALES],
        quarter: usize,
    ) -> Self::Sums;
    /// sums + a∘b.
    fn add_product(self, sums: Self::Sums, a: &[f32; 16], b: &[f32; 16]) -> Self::Sums;
    fn lanes(self, sums: Self::Sums) -> [f32; 16];
    /// q·d + m with the scales and shifts of this quarter of a run, rounded twice, as candle does.
    fn write(
        self,
        q: Self::Bytes,
        scales: &[f32; SCALES],
        shifts: &[f32; SCALES],
        quarter: usize,
        to: &mut [f32; QUARTER],
    );
}

/// Any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Vectors for Portable {
    type Bytes = [u8; 64];
    type Sums = [f32; 16];

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> [u8; 64] {
        *from
    }
    #[inline(always)]
    fn both(self, first: &[u8; 32], second: &[u8; 32]) -> [u8; 64] {
        pulp::cast([*first, *second])
    }
    #[inline(always)]
    fn each_twice(self, first: &[u8; 16], second: &[u8; 16]) -> [u8; 64] {
        pulp::cast([*first, *first, *second, *second])
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> [u8; 64] {
        [byte; 64]
    }
    #[inline(always)]
    fn and(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn sub(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn right_by(self, a: [u8; 64], bits: &[u32; 16]) -> [u8; 64] {
        shifted(a, |word, i| word >> bits[i])
    }
    #[inline(always)]
    fn left_by(self, a: [u8; 64], bits: &[u32; 16]) -> [u8; 64] {
        shifted(a, |word, i| word << bits[i])
    }
    #[inline(always)]
    fn where_set(self, bits: u64, byte: u8) -> [u8; 64] {
        from_fn(|i| if bits >> i & 1 == 1 { byte } else { 0 })
    }
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        half(bits)
    }
    #[inline(always)]
    fn halves(self, words: &[u32; SCALES / 2]) -> ([f32; SCALES], [f32; SCALES]) {
        (from_fn(|i| half(words[i / 2] as u16)), from_fn(|i| half((words[i / 2] >> 16) as u16)))
    }
    #[inline(always)]
    fn multiples(self, q: [u8; SCALES], d: f32) -> [f32; SCALES] {
        q.map(|q| q as i8 as f32 * d)
    }
    #[inline(always)]
    fn zero(self) -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    fn add_quarter(
        self,
        mut sums: [f32; 16],
        q: [u8; 64],
        x: &Quarter,
        scales: &[f32; SCALES],
        quarter: usize,
    ) -> [f32; 16] {
        for lane in 0..16 {
            let mut sum = 0.0;
            for k in 0..4 {
                sum += ((q[4 * lane + k] as i8 as i32) << 24) as f32 * x[k][lane];
            }
            sums[lane] += scales[4 * quarter + lane / 4] * sum;
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
    fn write(
        self,
        q: [u8; 64],
        scales: &[f32; SCALES],
        shifts: &[f32; SCALES],
        quarter: usize,
        to: &mut [f32; QUARTER],
    ) {
        for i in 0..QUARTER {
            let of = 4 * quarter + i / 16;
            to[i] = q[i] as i8 as f32 * scales[of] + shifts[of];
        }
    }
}

/// The words of 32 bits, each shifted.
#[inline(always)]
fn shifted(bytes: [u8; 64], by: impl Fn(u32, usize) -> u32) -> [u8; 64] {
    let mut words = bytes;
    for (i, word) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *word = by(u32::from_le_bytes(*word), i).to_le_bytes();
    }
    words
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
    use std::arch::x86_64::{__m128i, __m256, __m256i};
    #[cfg(feature = "avx512")]
    use std::arch::x86_64::{__m512, __m512i};

    use pulp::cast;
    use pulp::x86::V3;
    #[cfg(feature = "avx512")]
    use pulp::x86::V4;

    use super::{QUARTER, Quarter, SCALES, Vectors, half};

    /// For each k: where the bytes 4·word + k of a register come from, so that they are the uppermost of their words and the
    /// others are zero.
    const UPPERMOST: [[[u8; 16]; 4]; 4] = {
        let mut places = [[[128; 16]; 4]; 4];
        let mut at = 0;
        while at < 64 {
            let (k, lane, word) = (at / 16, at / 4 % 4, at % 4);
            places[k][lane][4 * word + 3] = (4 * word + k) as u8;
            at += 1;
        }
        places
    };

    /// For each quarter: which scale is of which lane.
    const SCALES_OF: [[u32; 16]; 4] = {
        let mut of = [[0; 16]; 4];
        let mut at = 0;
        while at < 64 {
            of[at / 16][at % 16] = (at / 16 * 4 + at % 16 / 4) as u32;
            at += 1;
        }
        of
    };

    #[cfg(feature = "avx512")]
    impl Vectors for V4 {
        type Bytes = __m512i;
        type Sums = __m512;

        #[inline(always)]
        fn bytes(self, from: &[u8; 64]) -> __m512i {
            cast(*from)
        }
        #[inline(always)]
        fn both(self, first: &[u8; 32], second: &[u8; 32]) -> __m512i {
            cast([*first, *second])
        }
        #[inline(always)]
        fn twice(self, from: &[u8; 32]) -> __m512i {
            self.avx512f._mm512_broadcast_i64x4(cast(*from))
        }
        #[inline(always)]
        fn each_twice(self, first: &[u8; 16], second: &[u8; 16]) -> __m512i {
            cast([*first, *first, *second, *second])
        }
        #[inline(always)]
        fn splat(self, byte: u8) -> __m512i {
            cast([byte; 64])
        }
        #[inline(always)]
        fn and(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512f._mm512_and_si512(a, b)
        }
        #[inline(always)]
        fn or(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512f._mm512_or_si512(a, b)
        }
        #[inline(always)]
        fn sub(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512bw._mm512_sub_epi8(a, b)
        }
        #[inline(always)]
        fn right_by(self, a: __m512i, bits: &[u32; 16]) -> __m512i {
            self.avx512f._mm512_srlv_epi32(a, cast(*bits))
        }
        #[inline(always)]
        fn left_by(self, a: __m512i, bits: &[u32; 16]) -> __m512i {
            self.avx512f._mm512_sllv_epi32(a, cast(*bits))
        }
        #[inline(always)]
        fn where_set(self, bits: u64, byte: u8) -> __m512i {
            self.avx512bw._mm512_maskz_mov_epi8(bits, self.splat(byte))
        }
        #[inline(always)]
        fn half(self, bits: u16) -> f32 {
            let sixteen: [f32; 16] = cast(self.avx512f._mm512_cvtph_ps(cast([bits as u128, 0])));
            sixteen[0]
        }
        #[inline(always)]
        fn halves(self, words: &[u32; SCALES / 2]) -> ([f32; SCALES], [f32; SCALES]) {
            let both = self.avx512f._mm512_cvtph_ps(cast(*words));
            (cast(self.avx512f._mm512_moveldup_ps(both)), cast(self.avx512f._mm512_movehdup_ps(both)))
        }
        #[inline(always)]
        fn multiples(self, q: [u8; SCALES], d: f32) -> [f32; SCALES] {
            let f = self.avx512f;
            let q = f._mm512_cvtepi32_ps(f._mm512_cvtepi8_epi32(cast(q)));
            cast(f._mm512_mul_ps(q, f._mm512_set1_ps(d)))
        }
        #[inline(always)]
        fn zero(self) -> __m512 {
            self.avx512f._mm512_setzero_ps()
        }
        #[inline(always)]
        fn add_quarter(
            self,
            sums: __m512,
            q: __m512i,
            x: &Quarter,
            scales: &[f32; SCALES],
            quarter: usize,
        ) -> __m512 {
            let f = self.avx512f;
            let mut sum = f._mm512_setzero_ps();
            for k in 0..4 {
                let numbers = f._mm512_cvtepi32_ps(self.avx512bw._mm512_shuffle_epi8(q, cast(UPPERMOST[k])));
                sum = f._mm512_fmadd_ps(numbers, cast(x[k]), sum);
            }
            let scales = f._mm512_permutexvar_ps(cast(SCALES_OF[quarter]), cast(*scales));
            f._mm512_fmadd_ps(sum, scales, sums)
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
        fn write(
            self,
            q: __m512i,
            scales: &[f32; SCALES],
            shifts: &[f32; SCALES],
            quarter: usize,
            to: &mut [f32; QUARTER],
        ) {
            let (f, q): (_, [__m128i; 4]) = (self.avx512f, cast(q));
            let (parts, _) = to.as_chunks_mut::<16>();
            for i in 0..4 {
                let of = 4 * quarter + i;
                let numbers = f._mm512_cvtepi32_ps(f._mm512_cvtepi8_epi32(q[i]));
                let scaled = f._mm512_mul_ps(numbers, f._mm512_set1_ps(scales[of]));
                parts[i] = cast(f._mm512_add_ps(scaled, f._mm512_set1_ps(shifts[of])));
            }
        }
    }

    /// One operation for each half of 64 bytes.
    macro_rules! halves {
        ($simd:expr, $operation:ident, $a:expr, $b:expr) => {
            [$simd.avx2.$operation($a[0], $b[0]), $simd.avx2.$operation($a[1], $b[1])]
        };
    }

    impl Vectors for V3 {
        type Bytes = [__m256i; 2];
        type Sums = [__m256; 2];

        #[inline(always)]
        fn bytes(self, from: &[u8; 64]) -> [__m256i; 2] {
            cast(*from)
        }
        #[inline(always)]
        fn both(self, first: &[u8; 32], second: &[u8; 32]) -> [__m256i; 2] {
            [cast(*first), cast(*second)]
        }
        #[inline(always)]
        fn each_twice(self, first: &[u8; 16], second: &[u8; 16]) -> [__m256i; 2] {
            [cast([*first, *first]), cast([*second, *second])]
        }
        #[inline(always)]
        fn splat(self, byte: u8) -> [__m256i; 2] {
            cast([byte; 64])
        }
        #[inline(always)]
        fn and(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            halves!(self, _mm256_and_si256, a, b)
        }
        #[inline(always)]
        fn or(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            halves!(self, _mm256_or_si256, a, b)
        }
        #[inline(always)]
        fn sub(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            halves!(self, _mm256_sub_epi8, a, b)
        }
        #[inline(always)]
        fn right_by(self, a: [__m256i; 2], bits: &[u32; 16]) -> [__m256i; 2] {
            let bits: [__m256i; 2] = cast(*bits);
            halves!(self, _mm256_srlv_epi32, a, bits)
        }
        #[inline(always)]
        fn left_by(self, a: [__m256i; 2], bits: &[u32; 16]) -> [__m256i; 2] {
            let bits: [__m256i; 2] = cast(*bits);
            halves!(self, _mm256_sllv_epi32, a, bits)
        }
        #[inline(always)]
        fn where_set(self, bits: u64, byte: u8) -> [__m256i; 2] {
            // Each byte gets the one of its word that has its bit, and looks at that bit.
            const EACH: [u8; 32] = {
                let (mut each, mut i) = ([0; 32], 0);
                while i < 32 {
                    each[i] = 1 << (i % 8);
                    i += 1;
                }
                each
            };
            const PLACES: [u8; 32] = {
                let (mut places, mut i) = ([0; 32], 0);
                while i < 32 {
                    places[i] = (i / 8) as u8;
                    i += 1;
                }
                places
            };
            let half = |bits: u32| {
                let spread =
                    self.avx2._mm256_shuffle_epi8(self.avx._mm256_set1_epi32(bits as i32), cast(PLACES));
                let each = cast(EACH);
                let set = self.avx2._mm256_cmpeq_epi8(self.avx2._mm256_and_si256(spread, each), each);
                self.avx2._mm256_and_si256(set, cast([byte; 32]))
            };
            [half(bits as u32), half((bits >> 32) as u32)]
        }
        #[inline(always)]
        fn half(self, bits: u16) -> f32 {
            half(bits)
        }
        #[inline(always)]
        fn halves(self, words: &[u32; SCALES / 2]) -> ([f32; SCALES], [f32; SCALES]) {
            super::Portable.halves(words)
        }
        #[inline(always)]
        fn multiples(self, q: [u8; SCALES], d: f32) -> [f32; SCALES] {
            let (q, d): (__m128i, _) = (cast(q), self.avx._mm256_set1_ps(d));
            let of = |eight| {
                self.avx._mm256_mul_ps(self.avx._mm256_cvtepi32_ps(self.avx2._mm256_cvtepi8_epi32(eight)), d)
            };
            cast([of(q), of(self.sse2._mm_unpackhi_epi64(q, q))])
        }
        #[inline(always)]
        fn zero(self) -> [__m256; 2] {
            [self.avx._mm256_setzero_ps(); 2]
        }
        #[inline(always)]
        fn add_quarter(
            self,
            mut sums: [__m256; 2],
            q: [__m256i; 2],
            x: &Quarter,
            scales: &[f32; SCALES],
            quarter: usize,
        ) -> [__m256; 2] {
            let scales: [[f32; 8]; 2] = cast(*scales);
            let lanes: [[u32; 8]; 2] = cast(SCALES_OF[quarter]);
            for i in 0..2 {
                let mut sum = self.avx._mm256_setzero_ps();
                for k in 0..4 {
                    let [places, _]: [[[u8; 16]; 2]; 2] = cast(UPPERMOST[k]);
                    let numbers =
                        self.avx._mm256_cvtepi32_ps(self.avx2._mm256_shuffle_epi8(q[i], cast(places)));
                    let x: [[f32; 8]; 2] = cast(x[k]);
                    sum = self.fma._mm256_fmadd_ps(numbers, cast(x[i]), sum);
                }
                // The lanes' numbers count from the half of the scales that they are in.
                let of_lanes = self.avx2._mm256_permutevar8x32_ps(cast(scales[quarter / 2]), cast(lanes[i]));
                sums[i] = self.fma._mm256_fmadd_ps(sum, of_lanes, sums[i]);
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
        fn write(
            self,
            q: [__m256i; 2],
            scales: &[f32; SCALES],
            shifts: &[f32; SCALES],
            quarter: usize,
            to: &mut [f32; QUARTER],
        ) {
            let q: [__m128i; 4] = cast(q);
            let (parts, _) = to.as_chunks_mut::<8>();
            for i in 0..8 {
                let (bytes, of) = (q[i / 2], 4 * quarter + i / 2);
                let bytes = if i % 2 == 0 { bytes } else { self.sse2._mm_unpackhi_epi64(bytes, bytes) };
                let numbers = self.avx._mm256_cvtepi32_ps(self.avx2._mm256_cvtepi8_epi32(bytes));
                let scaled = self.avx._mm256_mul_ps(numbers, self.avx._mm256_set1_ps(scales[of]));
                parts[i] = cast(self.avx._mm256_add_ps(scaled, self.avx._mm256_set1_ps(shifts[of])));
            }
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
