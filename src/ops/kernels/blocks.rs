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

use super::vectors::{Portable, QUARTER, Quarter, SCALES, Vectors};

/// Numbers of a run: 8 blocks of 32, or one of 256, with as many scales and shifts as sums have lanes.
const RUN: usize = 4 * QUARTER;

/// Blocks of 32 numbers of a run.
const BLOCKS: usize = RUN / 32;

/// The layout of a block.
trait Format {
    /// Numbers of a block.
    const NUMBERS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether there are shifts.
    const SHIFTED: bool;
    /// Scales and shifts of a run, or of the end of a row, those of 16 numbers each. A shift that there is not is −0, which changes
    /// no number.
    fn scales<V: Vectors>(v: V, blocks: &[u8]) -> ([f32; SCALES], [f32; SCALES]);
    /// The integers of a quarter of a run, signed.
    fn quarter<V: Vectors>(v: V, blocks: &[u8], quarter: usize) -> V::Bytes;
}

const NO_SHIFTS: [f32; SCALES] = [-0.0; SCALES];

/// Bytes from a place on.
#[inline(always)]
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..at + N].try_into().expect("as many as are asked for")
}

/// Four bytes from a place on, as a number.
#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes_at(bytes, at))
}

/// The f16 number at a place.
#[inline(always)]
fn half_at<V: Vectors>(v: V, bytes: &[u8], at: usize) -> f32 {
    v.half(u16::from_le_bytes(*bytes_at(bytes, at)))
}

/// The first four bytes of every block of 32: two f16 numbers, or one and other bytes. Zero where a row ends before.
#[inline(always)]
#[allow(
    clippy::needless_range_loop,
    reason = "iterators are not always inlined into code for another processor"
)]
fn first_words(blocks: &[u8], block: usize) -> [u32; BLOCKS] {
    let mut words = [0u32; BLOCKS];
    for i in 0..BLOCKS.min(blocks.len() / block) {
        words[i] = u32_at(blocks, i * block);
    }
    words
}

/// Bits to shift by in a quarter's sixteen words of 32 bits: one number for its first half, one for its second.
const fn by_half(first: u32, second: u32) -> [u32; 16] {
    let mut bits = [first; 16];
    let mut i = 8;
    while i < 16 {
        bits[i] = second;
        i += 1;
    }
    bits
}

/// Two blocks' sixteen bytes of nibbles as 64 numbers: the lower four bits of a block, then its upper ones.
#[inline(always)]
fn nibbles<V: Vectors>(v: V, first: &[u8; 16], second: &[u8; 16]) -> V::Bytes {
    const BITS: [u32; 16] = [0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4];
    v.and(v.right_by(v.each_twice(first, second), &BITS), v.splat(15))
}

/// Sixteen where the bit of a number is set, for two blocks with 32 bits each.
#[inline(always)]
fn fifth_bits<V: Vectors>(v: V, first: u32, second: u32) -> V::Bytes {
    v.where_set(first as u64 | (second as u64) << 32, 16)
}

macro_rules! blocks_of_32 {
    ($name:ident, bytes $bytes:literal, shifted $shifted:literal, |$v:ident, $a:ident, $b:ident| $quarter:expr) => {
        struct $name;

        impl Format for $name {
            const NUMBERS: usize = 32;
            const BYTES: usize = $bytes;
            const SHIFTED: bool = $shifted;

            #[inline(always)]
            fn scales<V: Vectors>(v: V, blocks: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
                let (scales, shifts) = v.halves(&first_words(blocks, Self::BYTES));
                (scales, if $shifted { shifts } else { NO_SHIFTS })
            }

            #[inline(always)]
            fn quarter<V: Vectors>($v: V, blocks: &[u8], quarter: usize) -> V::Bytes {
                let $a: &[u8; $bytes] = bytes_at(blocks, 2 * quarter * $bytes);
                let $b: &[u8; $bytes] = bytes_at(blocks, (2 * quarter + 1) * $bytes);
                $quarter
            }
        }
    };
}

blocks_of_32!(Q40, bytes 18, shifted false, |v, a, b| {
    v.sub(nibbles(v, bytes_at(a, 2), bytes_at(b, 2)), v.splat(8))
});
blocks_of_32!(Q41, bytes 20, shifted true, |v, a, b| nibbles(v, bytes_at(a, 4), bytes_at(b, 4)));
blocks_of_32!(Q50, bytes 22, shifted false, |v, a, b| {
    let lower = nibbles(v, bytes_at(a, 6), bytes_at(b, 6));
    v.sub(v.or(lower, fifth_bits(v, u32_at(a, 2), u32_at(b, 2))), v.splat(16))
});
blocks_of_32!(Q51, bytes 24, shifted true, |v, a, b| {
    let lower = nibbles(v, bytes_at(a, 8), bytes_at(b, 8));
    v.or(lower, fifth_bits(v, u32_at(a, 4), u32_at(b, 4)))
});
blocks_of_32!(Q80, bytes 34, shifted false, |v, a, b| v.both(bytes_at(a, 2), bytes_at(b, 2)));

/// Bytes a, b, c, d as a, a, b, b, c, c, d, d.
#[inline(always)]
fn each_byte_twice(word: u32) -> u64 {
    let pairs = (word as u64 | (word as u64) << 16) & 0x0000_ffff_0000_ffff;
    let apart = (pairs | pairs << 8) & 0x00ff_00ff_00ff_00ff;
    apart | apart << 8
}

/// Scales and minima of the eight parts of a block of Q4_K and Q5_K: six bits each, in twelve bytes.
#[inline(always)]
fn k_scales<V: Vectors>(v: V, block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
    let (d, least) = (half_at(v, block, 0), half_at(v, block, 2));
    let [low, least_low, high] = [4, 8, 12].map(|at| u32_at(block, at));
    // Four at a time, in the bytes of a word: the first four have all bits together, the others two of their six elsewhere.
    let upper = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    let scales = [low & 0x3f3f_3f3f, high & 0x0f0f_0f0f | upper(low)].map(each_byte_twice);
    let minima = [least_low & 0x3f3f_3f3f, high >> 4 & 0x0f0f_0f0f | upper(least_low)].map(each_byte_twice);
    (v.multiples(pulp::cast(scales), d), v.multiples(pulp::cast(minima), -least))
}

/// A quarter of a block of Q4_K and Q5_K without fifth bits: the lower nibbles of 32 bytes, then the upper ones.
#[inline(always)]
fn k_nibbles<V: Vectors>(v: V, q: &[u8; 128], quarter: usize) -> V::Bytes {
    v.and(v.right_by(v.twice(bytes_at(q, 32 * quarter)), &const { by_half(0, 4) }), v.splat(15))
}

/// One bit of each of 32 bytes for each 32 numbers of a quarter, moved to its place in the number.
#[inline(always)]
fn k_bits<V: Vectors>(v: V, bytes: &[u8; 32], quarter: usize, place: u32) -> V::Bytes {
    let first = 2 * quarter as u32;
    let lowest = v.and(v.right_by(v.twice(bytes), &by_half(first, first + 1)), v.splat(1));
    v.left_by(lowest, &[place; 16])
}

/// Two bits of each number: 128 numbers in 32 bytes.
#[inline(always)]
fn k_pairs<V: Vectors>(v: V, q: &[u8; 64], quarter: usize) -> V::Bytes {
    let (at, first) = (quarter / 2 * 32, quarter as u32 % 2 * 4);
    v.and(v.right_by(v.twice(bytes_at(q, at)), &by_half(first, first + 2)), v.splat(3))
}

macro_rules! blocks_of_256 {
    (
        $name:ident, bytes $bytes:literal, shifted $shifted:literal,
        |$v:ident, $block:ident| $scales:expr, |$quarter:ident| $numbers:expr
    ) => {
        struct $name;

        impl Format for $name {
            const NUMBERS: usize = 256;
            const BYTES: usize = $bytes;
            const SHIFTED: bool = $shifted;

            #[inline(always)]
            #[allow(unused_variables, reason = "Q8_K has its scale as f32")]
            fn scales<V: Vectors>($v: V, $block: &[u8]) -> ([f32; SCALES], [f32; SCALES]) {
                $scales
            }

            #[inline(always)]
            fn quarter<V: Vectors>($v: V, $block: &[u8], $quarter: usize) -> V::Bytes {
                $numbers
            }
        }
    };
}

blocks_of_256!(Q2K, bytes 84, shifted true, |v, block| {
    let packed: &[u8; 16] = bytes_at(block, 0);
    (v.multiples(packed.map(|b| b & 15), half_at(v, block, 80)), v.multiples(packed.map(|b| b >> 4), -half_at(v, block, 82)))
}, |quarter| k_pairs(v, bytes_at(block, 16), quarter));

blocks_of_256!(Q3K, bytes 110, shifted false, |v, block| {
    // Sixteen numbers of six bits: the lower four are the nibbles of eight bytes, the upper two pairs of bits of four.
    let packed: &[u8; 12] = bytes_at(block, 96);
    let mut scales = [0u8; SCALES];
    for i in 0..SCALES {
        let low = packed[i % 8] >> (i / 8 * 4) & 15;
        let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        scales[i] = (low | high << 4).wrapping_sub(32);
    }
    (v.multiples(scales, half_at(v, block, 108)), NO_SHIFTS)
}, |quarter| {
    let third = k_bits(v, bytes_at(block, 0), quarter, 2);
    v.sub(v.or(k_pairs(v, bytes_at(block, 32), quarter), third), v.splat(4))
});

blocks_of_256!(Q4K, bytes 144, shifted true, |v, block| k_scales(v, block), |quarter| {
    k_nibbles(v, bytes_at(block, 16), quarter)
});

blocks_of_256!(Q5K, bytes 176, shifted true, |v, block| k_scales(v, block), |quarter| {
    v.or(k_nibbles(v, bytes_at(block, 48), quarter), k_bits(v, bytes_at(block, 16), quarter, 4))
});

blocks_of_256!(Q6K, bytes 210, shifted false, |v, block| {
    (v.multiples(*bytes_at(block, 192), half_at(v, block, 208)), NO_SHIFTS)
}, |quarter| {
    // 128 numbers in two quarters: their lower bits are the lower nibbles of 64 bytes, then the upper ones; their upper ones
    // pairs of bits of 32 bytes, lowest first.
    let (part, of_part) = (quarter / 2, quarter as u32 % 2);
    let lower = v.right_by(v.bytes(bytes_at(block, part * 64)), &[4 * of_part; 16]);
    let pairs = v.right_by(v.twice(bytes_at(block, 128 + part * 32)), &by_half(4 * of_part, 4 * of_part + 2));
    let upper = v.left_by(v.and(pairs, v.splat(3)), &[4; 16]);
    v.sub(v.or(v.and(lower, v.splat(15)), upper), v.splat(32))
});

blocks_of_256!(Q8K, bytes 292, shifted false, |v, block| ([f32::from_bits(u32_at(block, 0)); SCALES], NO_SHIFTS), |quarter| {
    v.bytes(bytes_at(block, 4 + QUARTER * quarter))
});

/// A block of code for each quarter of a run, with its number known to the compiler: the layouts differ from quarter to
/// quarter, and a loop is not unrolled without fail.
macro_rules! each_quarter {
    ($q:ident, $body:expr) => {
        each_quarter!($q, $body, 0, 1, 2, 3)
    };
    ($q:ident, $body:expr, $($number:literal),*) => {
        $({
            const $q: usize = $number;
            $body
        })*
    };
}

/// Bytes of a run.
const fn run_bytes<F: Format>() -> usize {
    RUN / F::NUMBERS * F::BYTES
}

/// Bytes of a quarter at the end of a row: its second block is zero where the row has only one.
#[inline(always)]
fn last_quarter<F: Format>(block: &[u8]) -> [u8; 2 * Q80::BYTES] {
    let mut blocks = [0u8; 2 * Q80::BYTES];
    blocks[..F::BYTES].copy_from_slice(block);
    blocks
}

/// The integers of each quarter at the end of a row, where it is less than a run.
macro_rules! each_quarter_of_rest {
    ($format:ident, $v:ident, $blocks:expr, |$q:ident, $numbers:ident| $body:expr) => {
        let (blocks, bytes) = ($blocks, 2 * $format::BYTES);
        each_quarter!($q, {
            if ($q + 1) * bytes <= blocks.len() {
                let $numbers = $format::quarter($v, blocks, $q);
                $body
            } else if $q * bytes < blocks.len() {
                let $numbers = $format::quarter($v, &last_quarter::<$format>(&blocks[$q * bytes..]), 0);
                $body
            }
        });
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
        let (runs, rest) = self.values.as_chunks_mut::<RUN>();
        let (blocks, rest_blocks) = self.bytes.split_at(runs.len() * run_bytes::<F>());
        for (i, values) in runs.iter_mut().enumerate() {
            let blocks = bytes_of_run::<F>(blocks, i);
            let (scales, shifts) = F::scales(v, blocks);
            let (quarters, _) = values.as_chunks_mut::<QUARTER>();
            each_quarter!(Q, v.write(F::quarter(v, blocks, Q), &scales, &shifts, Q, &mut quarters[Q]));
        }
        if F::NUMBERS < RUN && !rest.is_empty() {
            let (scales, shifts) = F::scales(v, rest_blocks);
            each_quarter_of_rest!(F, v, rest_blocks, |Q, q| {
                let mut values = [0f32; QUARTER];
                v.write(q, &scales, &shifts, Q, &mut values);
                let to = &mut rest[Q * QUARTER..];
                let count = to.len().min(QUARTER);
                to[..count].copy_from_slice(&values[..count]);
            });
        }
    }
}

/// The blocks of a run.
#[inline(always)]
fn bytes_of_run<F: Format>(blocks: &[u8], run: usize) -> &[u8] {
    &blocks[run * run_bytes::<F>()..(run + 1) * run_bytes::<F>()]
}

/// A row x, made ready for [`times`].
pub(in crate::ops) struct RowOfX {
    len: usize,
    /// Its quarters of a run, every fourth number together. What is missing in the last is zero.
    quarters: Vec<Quarter>,
    /// Sums of 16 numbers each, by runs.
    sums: Vec<[f32; SCALES]>,
}

impl RowOfX {
    /// A row of whole blocks of 32.
    pub(in crate::ops) fn new(x: &[f32]) -> Self {
        assert!(x.len().is_multiple_of(32), "a row of {} numbers has no whole blocks of 32", x.len());
        let mut quarters = vec![[[0f32; 16]; 4]; x.len().div_ceil(QUARTER)];
        for (quarter, numbers) in quarters.iter_mut().zip(x.chunks(QUARTER)) {
            for (i, number) in numbers.iter().enumerate() {
                quarter[i % 4][i / 4] = *number;
            }
        }
        let mut sums = vec![[0f32; SCALES]; x.len().div_ceil(RUN)];
        for (i, numbers) in x.chunks_exact(16).enumerate() {
            sums[i / SCALES][i % SCALES] = numbers.iter().sum();
        }
        Self { len: x.len(), quarters, sums }
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

/// Runs whose scales are worked out before their integers are multiplied: they then come from memory without a wait.
const AHEAD: usize = 8;

/// Σ over a row: of the integers by their scales, and of the sums of x by the shifts. Loops in place of iterators, which are
/// not always inlined into code for another processor.
#[inline(always)]
fn dot<F: Format, V: Vectors>(v: V, row: &[u8], x: &RowOfX) -> f32 {
    let whole = x.len / RUN;
    // Two sums by turns, as each waits for itself.
    let (mut even, mut odd, mut shifted) = (v.zero(), v.zero(), v.zero());
    let mut scales = [[0f32; SCALES]; AHEAD];
    let mut first = 0;
    while first < whole {
        let last = whole.min(first + AHEAD);
        for run in first..last {
            let (of_run, shifts) = F::scales(v, bytes_of_run::<F>(row, run));
            scales[run - first] = of_run;
            if F::SHIFTED {
                shifted = v.add_product(shifted, &shifts, &x.sums[run]);
            }
        }
        for run in first..last {
            let (blocks, scales) = (bytes_of_run::<F>(row, run), &scales[run - first]);
            let x: &[Quarter; 4] = x.quarters[4 * run..4 * run + 4].try_into().expect("four are four");
            each_quarter!(Q, {
                let q = F::quarter(v, blocks, Q);
                if Q.is_multiple_of(2) {
                    even = v.add_quarter(even, q, &x[Q], scales, Q);
                } else {
                    odd = v.add_quarter(odd, q, &x[Q], scales, Q);
                }
            });
        }
        first = last;
    }
    if F::NUMBERS < RUN && !x.len.is_multiple_of(RUN) {
        let blocks = &row[whole * run_bytes::<F>()..];
        let (scales, shifts) = F::scales(v, blocks);
        if F::SHIFTED {
            shifted = v.add_product(shifted, &shifts, &x.sums[whole]);
        }
        let x = &x.quarters[4 * whole..];
        each_quarter_of_rest!(F, v, blocks, |Q, q| even = v.add_quarter(even, q, &x[Q], &scales, Q));
    }
    let (mut lanes, odd, shifted) = (v.lanes(even), v.lanes(odd), v.lanes(shifted));
    for i in 0..16 {
        lanes[i] = (lanes[i] + odd[i]) * V::UNIT + shifted[i];
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
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
    let row_bytes = x.len / dtype.block_size() * dtype.type_size();
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
