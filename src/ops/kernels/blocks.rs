//! ggml's quantised blocks, read as they lie in a file: small integers q with a scale d and a shift m for every 16 of them,
//! w = q·d + m.
//!
//! [`decode`] gives the f32 numbers, the ones that candle gives to the last bit. [`times`] multiplies rows by a vector: the
//! integers become f32 in registers, and no f32 copy of a row is ever in memory. Layouts: ggml's `ggml-common.h` and the
//! functions `dequantize_row_…` of `ggml-quants.c`.
//!
//! A sum runs in sixteen lanes, in an order that depends on the length of a row only. Where the processor multiplies and adds
//! in one step (AVX2, AVX-512), a sum is rounded less often than on the portable path.

use candle_core::quantized::GgmlDType;

use super::vectors::{Portable, SCALES, Vectors, half};

/// Numbers of a run: 8 blocks of 32, or one of 256, with as many scales and shifts as sums have lanes.
const RUN: usize = 16 * SCALES;

/// Groups of 32 numbers of a run.
const GROUPS: usize = RUN / 32;

/// The layout of a block.
trait Format {
    /// Numbers of a block.
    const NUMBERS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether 32 numbers have a scale in common.
    const EVEN: bool;
    /// Whether there are shifts.
    const SHIFTED: bool;
    /// Scales and shifts of a whole run, those of 16 numbers each. A shift that there is not is −0, which changes no number.
    fn scales<V: Vectors>(v: V, blocks: &[u8]) -> ([f32; SCALES], [f32; SCALES]);
    /// Scale and shift of one block of 32, for what is less than a run.
    fn scale(_: &[u8]) -> (f32, f32) {
        unreachable!("a block of 256 numbers is a whole run")
    }
    /// The integers of 32 numbers of a run, signed.
    fn group<V: Vectors>(v: V, blocks: &[u8], group: usize) -> [V::Bytes; 2];
}

const NO_SHIFTS: [f32; SCALES] = [-0.0; SCALES];

/// Two bytes from a place on, as a number.
#[inline(always)]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The first four bytes of every block of 32: two f16 numbers, or one and other bytes.
#[inline(always)]
fn first_words(blocks: &[u8], block: usize) -> [u32; GROUPS] {
    let mut words = [0u32; GROUPS];
    for i in 0..GROUPS {
        let four: &[u8; 4] = blocks[i * block..i * block + 4].try_into().expect("four are four");
        words[i] = u32::from_le_bytes(*four);
    }
    words
}

/// The first f16 number of every word, twice.
#[inline(always)]
fn lower_halves<V: Vectors>(v: V, words: [u32; GROUPS]) -> [f32; SCALES] {
    let mut twice = words;
    for word in &mut twice {
        *word = *word << 16 | *word & 0xffff;
    }
    v.halves(&pulp::cast(twice))
}

/// The second f16 number of every word, twice.
#[inline(always)]
fn upper_halves<V: Vectors>(v: V, words: [u32; GROUPS]) -> [f32; SCALES] {
    let mut twice = words;
    for word in &mut twice {
        *word = *word >> 16 | *word & 0xffff_0000;
    }
    v.halves(&pulp::cast(twice))
}

/// Sixteen bytes from a place on.
#[inline(always)]
fn sixteen<V: Vectors>(v: V, bytes: &[u8], at: usize) -> V::Bytes {
    let bytes: &[u8; 16] = bytes[at..at + 16].try_into().expect("sixteen are sixteen");
    v.bytes(bytes)
}

/// Sixteen scales that are small integers times a number.
#[inline(always)]
fn multiples<V: Vectors>(v: V, q: V::Bytes, d: f32) -> [f32; SCALES] {
    let mut scales = [0f32; SCALES];
    v.write(q, d, -0.0, &mut scales);
    scales
}

/// The lower and the upper four bits of sixteen bytes.
#[inline(always)]
fn nibbles<V: Vectors>(v: V, bytes: V::Bytes) -> [V::Bytes; 2] {
    let four = v.splat(15);
    [v.and(bytes, four), v.and(v.right(bytes, 4), four)]
}

/// Sixteen where the bits of a number are set, for 32 numbers.
#[inline(always)]
fn fifth_bits<V: Vectors>(v: V, bits: &[u8], at: usize) -> [V::Bytes; 2] {
    const EACH: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
    let (each, sixteen) = (v.bytes(&EACH), v.splat(16));
    let (first, second) = (v.eight_each(u16_at(bits, at)), v.eight_each(u16_at(bits, at + 2)));
    [v.and(v.has(first, each), sixteen), v.and(v.has(second, each), sixteen)]
}

macro_rules! blocks_of_32 {
    ($name:ident, bytes $bytes:literal, shifted $shifted:literal, |$v:ident, $block:ident| $group:expr) => {
        struct $name;

        impl Format for $name {
            const NUMBERS: usize = 32;
            const BYTES: usize = $bytes;
            const EVEN: bool = true;
            const SHIFTED: bool = $shifted;

            #[inline(always)]
            fn scales<V: Vectors>(v: V, blocks: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
                let words = first_words(blocks, Self::BYTES);
                (lower_halves(v, words), if $shifted { upper_halves(v, words) } else { NO_SHIFTS })
            }

            #[inline(always)]
            fn scale(block: &[u8]) -> (f32, f32) {
                (half_at(block, 0), if $shifted { half_at(block, 2) } else { -0.0 })
            }

            #[inline(always)]
            fn group<V: Vectors>($v: V, blocks: &[u8], group: usize) -> [V::Bytes; 2] {
                let $block = &blocks[group * Self::BYTES..(group + 1) * Self::BYTES];
                $group
            }
        }
    };
}

blocks_of_32!(Q40, bytes 18, shifted false, |v, block| {
    let ([low, high], eight) = (nibbles(v, sixteen(v, block, 2)), v.splat(8));
    [v.sub(low, eight), v.sub(high, eight)]
});
blocks_of_32!(Q41, bytes 20, shifted true, |v, block| nibbles(v, sixteen(v, block, 4)));
blocks_of_32!(Q50, bytes 22, shifted false, |v, block| {
    let ([low, high], fifth) = (nibbles(v, sixteen(v, block, 6)), fifth_bits(v, block, 2));
    let sixteen = v.splat(16);
    [v.sub(v.or(low, fifth[0]), sixteen), v.sub(v.or(high, fifth[1]), sixteen)]
});
blocks_of_32!(Q51, bytes 24, shifted true, |v, block| {
    let ([low, high], fifth) = (nibbles(v, sixteen(v, block, 8)), fifth_bits(v, block, 4));
    [v.or(low, fifth[0]), v.or(high, fifth[1])]
});
blocks_of_32!(Q80, bytes 34, shifted false, |v, block| [sixteen(v, block, 2), sixteen(v, block, 18)]);

/// The f16 number at a place.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    half(u16_at(block, at))
}

/// Four bytes from a place on, as a number.
#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Bytes a, b, c, d as a, a, b, b, c, c, d, d.
#[inline(always)]
fn each_byte_twice(word: u32) -> u64 {
    let pairs = (word as u64 | (word as u64) << 16) & 0x0000_ffff_0000_ffff;
    let apart = (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff;
    apart | apart << 8
}

/// Scales and minima of the eight groups of a block of Q4_K and Q5_K: six bits each, in twelve bytes.
#[inline(always)]
fn k_scales<V: Vectors>(v: V, block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
    let (d, least) = (half_at(block, 0), half_at(block, 2));
    let [low, least_low, high] = [4, 8, 12].map(|at| u32_at(block, at));
    // Four at a time, in the bytes of a word: the first four have all bits together, the others two of their six elsewhere.
    let upper = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    let scales = [low & 0x3f3f_3f3f, high & 0x0f0f_0f0f | upper(low)].map(each_byte_twice);
    let minima = [least_low & 0x3f3f_3f3f, high >> 4 & 0x0f0f_0f0f | upper(least_low)].map(each_byte_twice);
    let (scales, minima): ([u8; 16], [u8; 16]) = (pulp::cast(scales), pulp::cast(minima));
    (multiples(v, v.bytes(&scales), d), multiples(v, v.bytes(&minima), -least))
}

/// Which sixteen bytes, of 32 for two groups, hold the nibbles of a group, and how far they are shifted.
#[inline(always)]
fn k_nibbles<V: Vectors>(v: V, q: &[u8], group: usize) -> [V::Bytes; 2] {
    let (at, shift, four) = (group / 2 * 32, group as u32 % 2 * 4, v.splat(15));
    let (first, second) = (sixteen(v, q, at), sixteen(v, q, at + 16));
    [v.and(v.right(first, shift), four), v.and(v.right(second, shift), four)]
}

struct Q4K;

impl Format for Q4K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 144;
    const EVEN: bool = true;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn scales<V: Vectors>(v: V, block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
        k_scales(v, block)
    }

    #[inline(always)]
    fn group<V: Vectors>(v: V, block: &[u8], group: usize) -> [V::Bytes; 2] {
        k_nibbles(v, &block[16..144], group)
    }
}

/// A value for each of 32 bytes that has a bit.
#[inline(always)]
fn flags<V: Vectors>(v: V, bytes: &[u8], bit: u8, value: u8) -> [V::Bytes; 2] {
    let (bit, value) = (v.splat(bit), v.splat(value));
    [v.and(v.has(sixteen(v, bytes, 0), bit), value), v.and(v.has(sixteen(v, bytes, 16), bit), value)]
}

struct Q5K;

impl Format for Q5K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 176;
    const EVEN: bool = true;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn scales<V: Vectors>(v: V, block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
        k_scales(v, block)
    }

    #[inline(always)]
    fn group<V: Vectors>(v: V, block: &[u8], group: usize) -> [V::Bytes; 2] {
        let (q, fifth) = (k_nibbles(v, &block[48..176], group), &block[16..48]);
        let fifth = flags(v, fifth, 1 << group, 16);
        [v.or(q[0], fifth[0]), v.or(q[1], fifth[1])]
    }
}

struct Q6K;

impl Format for Q6K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 210;
    const EVEN: bool = false;
    const SHIFTED: bool = false;

    #[inline(always)]
    fn scales<V: Vectors>(v: V, block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
        (multiples(v, sixteen(v, block, 192), half_at(block, 208)), NO_SHIFTS)
    }

    #[inline(always)]
    fn group<V: Vectors>(v: V, block: &[u8], group: usize) -> [V::Bytes; 2] {
        // 128 numbers in four groups: their lower bits are the nibbles of 64 bytes, their upper ones pairs of bits of 32.
        let (part, of_part) = (group / 4, group % 4);
        let (low, high) = (part * 64 + of_part % 2 * 32, 128 + part * 32);
        [sixth_bits(v, block, low, high, of_part), sixth_bits(v, block, low + 16, high + 16, of_part)]
    }
}

/// Sixteen numbers of Q6_K from nibbles and pairs of bits.
#[inline(always)]
fn sixth_bits<V: Vectors>(v: V, block: &[u8], low: usize, high: usize, of_part: usize) -> V::Bytes {
    let (low, pairs) = (sixteen(v, block, low), sixteen(v, block, high));
    let low = if of_part < 2 { low } else { v.right(low, 4) };
    let high = match of_part {
        0 => v.left(pairs, 4),
        1 => v.left(pairs, 2),
        2 => pairs,
        _ => v.right(pairs, 2),
    };
    v.sub(v.or(v.and(low, v.splat(15)), v.and(high, v.splat(0x30))), v.splat(32))
}

/// Two bits of each number: four groups of 32 in 32 bytes.
#[inline(always)]
fn pairs_of_bits<V: Vectors>(v: V, q: &[u8], group: usize) -> [V::Bytes; 2] {
    let (at, shift, two) = (group / 4 * 32, group as u32 % 4 * 2, v.splat(3));
    let (first, second) = (sixteen(v, q, at), sixteen(v, q, at + 16));
    [v.and(v.right(first, shift), two), v.and(v.right(second, shift), two)]
}

struct Q2K;

impl Format for Q2K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 84;
    const EVEN: bool = false;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn scales<V: Vectors>(v: V, block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
        let [scales, minima] = nibbles(v, sixteen(v, block, 0));
        (multiples(v, scales, half_at(block, 80)), multiples(v, minima, -half_at(block, 82)))
    }

    #[inline(always)]
    fn group<V: Vectors>(v: V, block: &[u8], group: usize) -> [V::Bytes; 2] {
        pairs_of_bits(v, &block[16..80], group)
    }
}

struct Q3K;

impl Format for Q3K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 110;
    const EVEN: bool = false;
    const SHIFTED: bool = false;

    #[inline(always)]
    fn scales<V: Vectors>(v: V, block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
        // Sixteen numbers of six bits: the lower four are the nibbles of eight bytes, the upper two pairs of bits of four.
        let packed = &block[96..108];
        let mut scales = [0u8; SCALES];
        for i in 0..SCALES {
            let low = packed[i % 8] >> (i / 8 * 4) & 15;
            let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
            scales[i] = low | high << 4;
        }
        let scales = v.sub(v.bytes(&scales), v.splat(32));
        (multiples(v, scales, half_at(block, 108)), NO_SHIFTS)
    }

    #[inline(always)]
    fn group<V: Vectors>(v: V, block: &[u8], group: usize) -> [V::Bytes; 2] {
        let (q, third) = (pairs_of_bits(v, &block[32..96], group), &block[0..32]);
        let (third, four) = (flags(v, third, 1 << group, 4), v.splat(4));
        [v.sub(v.or(q[0], third[0]), four), v.sub(v.or(q[1], third[1]), four)]
    }
}

struct Q8K;

impl Format for Q8K {
    const NUMBERS: usize = 256;
    const BYTES: usize = 292;
    const EVEN: bool = true;
    const SHIFTED: bool = false;

    #[inline(always)]
    fn scales<V: Vectors>(_: V, block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
        let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        ([d; SCALES], NO_SHIFTS)
    }

    #[inline(always)]
    fn group<V: Vectors>(v: V, block: &[u8], group: usize) -> [V::Bytes; 2] {
        [sixteen(v, block, 4 + 32 * group), sixteen(v, block, 20 + 32 * group)]
    }
}

/// A block of code for each group of a run, with the number of the group known to the compiler: the layouts differ from group
/// to group, and a loop is not unrolled without fail.
macro_rules! each_group {
    ($g:ident, $body:expr) => {
        each_group!($g, $body, 0, 1, 2, 3, 4, 5, 6, 7)
    };
    ($g:ident, $body:expr, $($number:literal),*) => {
        $({
            const $g: usize = $number;
            $body
        })*
    };
}

/// What is done with rows of blocks, for any format and processor.
trait Work {
    fn run<F: Format, V: Vectors>(self, v: V);
}

/// Blocks to f32.
struct Decode<'a> {
    bytes: &'a [u8],
    values: &'a mut [f32],
}

impl Work for Decode<'_> {
    #[inline(always)]
    fn run<F: Format, V: Vectors>(self, v: V) {
        let Self { bytes, values } = self;
        let (values, _) = values.as_chunks_mut::<32>();
        let run_bytes = RUN / F::NUMBERS * F::BYTES;
        let whole = values.len() / GROUPS;
        for run in 0..whole {
            let (blocks, values) = (
                &bytes[run * run_bytes..(run + 1) * run_bytes],
                &mut values[run * GROUPS..(run + 1) * GROUPS],
            );
            let (scales, shifts) = F::scales(v, blocks);
            each_group!(G, {
                let of_group = ([scales[2 * G], scales[2 * G + 1]], [shifts[2 * G], shifts[2 * G + 1]]);
                write::<F, V>(v, blocks, G, of_group, &mut values[G]);
            });
        }
        if F::NUMBERS < RUN {
            for g in whole * GROUPS..values.len() {
                let (scale, shift) = F::scale(&bytes[g * F::BYTES..(g + 1) * F::BYTES]);
                write::<F, V>(v, bytes, g, ([scale; 2], [shift; 2]), &mut values[g]);
            }
        }
    }
}

/// One group of 32, with scales and shifts.
#[inline(always)]
fn write<F: Format, V: Vectors>(
    v: V,
    blocks: &[u8],
    group: usize,
    (scales, shifts): ([f32; 2], [f32; 2]),
    values: &mut [f32; 32],
) {
    let q = F::group(v, blocks, group);
    let (halves, _) = values.as_chunks_mut::<16>();
    v.write(q[0], scales[0], shifts[0], &mut halves[0]);
    v.write(q[1], scales[1], shifts[1], &mut halves[1]);
}

/// A row x, made ready for [`times`].
pub(in crate::ops) struct RowOfX {
    numbers: Vec<[f32; 32]>,
    /// Sums of 16 numbers each, by runs.
    sums: Vec<[f32; SCALES]>,
}

impl RowOfX {
    /// A row of whole groups of 32.
    pub(in crate::ops) fn new(x: &[f32]) -> Self {
        let (numbers, rest) = x.as_chunks::<32>();
        assert!(rest.is_empty(), "a row of {} numbers has no whole groups of 32", x.len());
        let mut sums = vec![[0f32; SCALES]; numbers.len().div_ceil(GROUPS)];
        for (g, numbers) in numbers.iter().enumerate() {
            for (half, numbers) in numbers.as_chunks::<16>().0.iter().enumerate() {
                sums[g / GROUPS][2 * (g % GROUPS) + half] = numbers.iter().sum();
            }
        }
        Self { numbers: numbers.to_vec(), sums }
    }
}

/// Rows of blocks by one row x.
struct Times<'a> {
    rows: &'a [u8],
    row_bytes: usize,
    x: &'a RowOfX,
    y: &'a mut [f32],
}

impl Work for Times<'_> {
    #[inline(always)]
    fn run<F: Format, V: Vectors>(self, v: V) {
        let Self { rows, row_bytes, x, y } = self;
        for i in 0..y.len() {
            y[i] = dot::<F, V>(v, &rows[i * row_bytes..(i + 1) * row_bytes], x);
        }
    }
}

/// Runs whose scales are worked out before their integers are multiplied: from memory, a scale comes to all lanes at no cost.
const AHEAD: usize = 8;

/// Σ over a row: of the integers by their scales, and of the sums of x by the shifts. Loops in place of iterators, which are
/// not always inlined into code for another processor.
#[inline(always)]
fn dot<F: Format, V: Vectors>(v: V, row: &[u8], x: &RowOfX) -> f32 {
    let run_bytes = RUN / F::NUMBERS * F::BYTES;
    let whole = x.numbers.len() / GROUPS;
    let mut sums = Sums { even: v.zero(), odd: v.zero() };
    let mut shifted = v.zero();
    let mut scales = [[0f32; SCALES]; AHEAD];
    let mut first = 0;
    while first < whole {
        let last = whole.min(first + AHEAD);
        for run in first..last {
            let (of_run, shifts) = F::scales(v, &row[run * run_bytes..(run + 1) * run_bytes]);
            scales[run - first] = of_run;
            if F::SHIFTED {
                shifted = v.add_product(shifted, &shifts, &x.sums[run]);
            }
        }
        for run in first..last {
            let blocks = &row[run * run_bytes..(run + 1) * run_bytes];
            let numbers = &x.numbers[run * GROUPS..(run + 1) * GROUPS];
            let scales = &scales[run - first];
            each_group!(G, {
                let of_group = [scales[2 * G], scales[2 * G + 1]];
                sums = add::<F, V>(v, sums, F::group(v, blocks, G), &numbers[G], G, of_group);
            });
        }
        first = last;
    }
    let mut rest = 0.0; // of the shifts
    if F::NUMBERS < RUN {
        for g in whole * GROUPS..x.numbers.len() {
            let (scale, shift) = F::scale(&row[g * F::BYTES..(g + 1) * F::BYTES]);
            if F::SHIFTED {
                let of_run = &x.sums[whole][2 * (g % GROUPS)..];
                rest += shift * (of_run[0] + of_run[1]);
            }
            sums = add::<F, V>(v, sums, F::group(v, row, g), &x.numbers[g], g, [scale; 2]);
        }
    }
    let (mut lanes, odd, shifted) = (v.lanes(sums.even), v.lanes(sums.odd), v.lanes(shifted));
    for i in 0..16 {
        lanes[i] += odd[i] + shifted[i];
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0] + rest
}

/// What the integers of a row add up to so far, in two sums by turns, as each waits for itself.
struct Sums<V: Vectors> {
    even: V::Sums,
    odd: V::Sums,
}

/// One group of 32, with its scales.
#[inline(always)]
fn add<F: Format, V: Vectors>(
    v: V,
    sums: Sums<V>,
    q: [V::Bytes; 2],
    x: &[f32; 32],
    group: usize,
    scales: [f32; 2],
) -> Sums<V> {
    let Sums { mut even, mut odd } = sums;
    if !F::EVEN {
        let (halves, _) = x.as_chunks::<16>();
        even = v.add_scaled(even, q[0], &halves[0], scales[0]);
        odd = v.add_scaled(odd, q[1], &halves[1], scales[1]);
    } else if group.is_multiple_of(2) {
        even = v.add_pair(even, q, x, scales[0]);
    } else {
        odd = v.add_pair(odd, q, x, scales[0]);
    }
    Sums { even, odd }
}

/// Whether blocks of this type are read here.
pub(in crate::ops) fn serves(dtype: GgmlDType) -> bool {
    use GgmlDType::*;
    matches!(dtype, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2K | Q3K | Q4K | Q5K | Q6K | Q8K)
}

/// The f32 numbers of whole blocks, on this thread.
pub(in crate::ops) fn decode(dtype: GgmlDType, bytes: &[u8], values: &mut [f32]) {
    debug_assert!(serves(dtype));
    assert_eq!(
        bytes.len(),
        values.len() / dtype.block_size() * dtype.type_size(),
        "blocks and their numbers"
    );
    run(dtype, Decode { bytes, values });
}

/// y = W·x: the rows of W in `rows`, one for each element of y.
pub(in crate::ops) fn times(dtype: GgmlDType, rows: &[u8], x: &RowOfX, y: &mut [f32]) {
    let row_bytes = x.numbers.len() * 32 / dtype.block_size() * dtype.type_size();
    assert_eq!(rows.len(), row_bytes * y.len(), "rows and their products");
    run(dtype, Times { rows, row_bytes, x, y });
}

/// Does the work with what this processor has.
fn run<W: Work>(dtype: GgmlDType, work: W) {
    #[cfg(target_arch = "x86_64")]
    {
        #[cfg(feature = "avx512")]
        if let Some(simd) = pulp::x86::V4::try_new() {
            return simd.vectorize(Within(simd, dtype, work));
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(Within(simd, dtype, work));
        }
    }
    of_type(dtype, Portable, work)
}

/// Work that is compiled for a processor.
#[cfg(target_arch = "x86_64")]
struct Within<V, W>(V, GgmlDType, W);

#[cfg(target_arch = "x86_64")]
impl<V: Vectors, W: Work> pulp::NullaryFnOnce for Within<V, W> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        of_type(self.1, self.0, self.2)
    }
}

#[inline(always)]
fn of_type<V: Vectors, W: Work>(dtype: GgmlDType, v: V, work: W) {
    match dtype {
        GgmlDType::Q4_0 => work.run::<Q40, V>(v),
        GgmlDType::Q4_1 => work.run::<Q41, V>(v),
        GgmlDType::Q5_0 => work.run::<Q50, V>(v),
        GgmlDType::Q5_1 => work.run::<Q51, V>(v),
        GgmlDType::Q8_0 => work.run::<Q80, V>(v),
        GgmlDType::Q2K => work.run::<Q2K, V>(v),
        GgmlDType::Q3K => work.run::<Q3K, V>(v),
        GgmlDType::Q4K => work.run::<Q4K, V>(v),
        GgmlDType::Q5K => work.run::<Q5K, V>(v),
        GgmlDType::Q6K => work.run::<Q6K, V>(v),
        GgmlDType::Q8K => work.run::<Q8K, V>(v),
        _ => unreachable!("`serves` lists what is read here"),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use candle_core::CpuStorage;
    use candle_core::backend::BackendStorage;

    use super::*;

    const TYPES: [GgmlDType; 11] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
        GgmlDType::Q8K,
    ];

    /// Where the f16 and f32 numbers of a block are: (places, bytes each).
    fn floats(dtype: GgmlDType) -> (&'static [usize], usize) {
        match dtype {
            GgmlDType::Q4_1 | GgmlDType::Q5_1 | GgmlDType::Q4K | GgmlDType::Q5K => (&[0, 2], 2),
            GgmlDType::Q2K => (&[80, 82], 2),
            GgmlDType::Q3K => (&[108], 2),
            GgmlDType::Q6K => (&[208], 2),
            GgmlDType::Q8K => (&[0], 4),
            _ => (&[0], 2),
        }
    }

    /// Blocks of any bytes, with scales of any sign that are subnormal now and then.
    fn blocks(dtype: GgmlDType, numbers: usize) -> Vec<u8> {
        let mut state = 0x2545_f491u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        let mut bytes: Vec<u8> =
            (0..numbers / dtype.block_size() * dtype.type_size()).map(|_| (next() >> 9) as u8).collect();
        let (places, width) = floats(dtype);
        for block in bytes.chunks_mut(dtype.type_size()) {
            for &at in places {
                let value = ((next() >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.02;
                let value = if next().is_multiple_of(8) { value * 1e-3 } else { value };
                match width {
                    2 => block[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                    _ => block[at..at + 4].copy_from_slice(&value.to_le_bytes()),
                }
            }
        }
        bytes
    }

    fn of_candle(dtype: GgmlDType, bytes: &[u8], numbers: usize) -> Vec<f32> {
        // candle wants its blocks as their fields are aligned; a vector of bytes of this size is.
        match dtype.from_data(Cow::Borrowed(bytes)).dequantize(numbers).unwrap() {
            CpuStorage::F32(values) => values,
            other => panic!("candle dequantised to {:?}", other.dtype()),
        }
    }

    /// Numbers of a row: whole runs and parts of one.
    fn widths(dtype: GgmlDType) -> &'static [usize] {
        if dtype.block_size() == 32 { &[32, 64, 256, 288, 576, 896] } else { &[256, 768] }
    }

    /// Calls `f` with every way in which this processor can work.
    fn on_every_path(f: impl Fn(&str, &dyn Fn(GgmlDType, Either))) {
        f("portable", &|dtype, work| of_type(dtype, Portable, work));
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = pulp::x86::V3::try_new() {
                f("AVX2", &|dtype, work| simd.vectorize(Within(simd, dtype, work)));
            }
            #[cfg(feature = "avx512")]
            if let Some(simd) = pulp::x86::V4::try_new() {
                f("AVX-512", &|dtype, work| simd.vectorize(Within(simd, dtype, work)));
            }
        }
    }

    enum Either<'a> {
        Decode(Decode<'a>),
        Times(Times<'a>),
    }

    impl Work for Either<'_> {
        fn run<F: Format, V: Vectors>(self, v: V) {
            match self {
                Self::Decode(work) => work.run::<F, V>(v),
                Self::Times(work) => work.run::<F, V>(v),
            }
        }
    }

    #[test]
    fn every_type_decodes_to_the_bits_of_candle_on_every_path() {
        for dtype in TYPES {
            assert!(serves(dtype));
            for &numbers in widths(dtype) {
                let bytes = blocks(dtype, numbers);
                let want: Vec<u32> = of_candle(dtype, &bytes, numbers).iter().map(|v| v.to_bits()).collect();
                on_every_path(|path, run| {
                    let mut values = vec![f32::NAN; numbers];
                    run(dtype, Either::Decode(Decode { bytes: &bytes, values: &mut values }));
                    let found: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
                    assert_eq!(found, want, "{dtype:?} {numbers} {path}");
                });
            }
        }
    }

    #[test]
    fn rows_times_a_vector_are_those_of_f64_on_every_path() {
        for dtype in TYPES {
            for &width in widths(dtype) {
                let rows = 5;
                let bytes = blocks(dtype, rows * width);
                let x: Vec<f32> = (0..width).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03 + 0.4).collect();
                let w = of_candle(dtype, &bytes, rows * width);
                let x_row = RowOfX::new(&x);
                on_every_path(|path, run| {
                    let mut y = vec![f32::NAN; rows];
                    let row_bytes = bytes.len() / rows;
                    run(dtype, Either::Times(Times { rows: &bytes, row_bytes, x: &x_row, y: &mut y }));
                    for (y, w) in y.iter().zip(w.chunks(width)) {
                        let both = || w.iter().zip(&x).map(|(w, x)| *w as f64 * *x as f64);
                        let (want, size) = (both().sum::<f64>(), both().map(f64::abs).sum::<f64>());
                        // The shift and the scaled integers may nearly cancel: relative to what is added up.
                        let spread = size + 40.0 * width as f64 * 0.02 * 1e-2;
                        assert!(
                            (*y as f64 - want).abs() < 3e-6 * spread,
                            "{dtype:?} {width} {path}: {y} {want}"
                        );
                    }
                });
            }
        }
    }
}
