//! Causal grouped-query attention over sequences that lie end to end.
//!
//! For a query at position i and the keys j ≤ i of its own sequence (j > i − window with a sliding window):
//! s_ij = cap(scale · q_i·k_j), p_i = softmax(s_i), o_i = Σ_j p_ij·v_j (Vaswani et al., arXiv 1706.03762,
//! eq. 1; grouped queries: Ainslie et al., arXiv 2305.13245; cap(s) = c·tanh(s / c): Gemma 2, arXiv
//! 2408.00118, §2). The backward computes p again block by block, as FlashAttention does (Dao et al.,
//! arXiv 2205.14135), so nothing quadratic is kept.
//!
//! Shapes: q, o `(tokens, heads · head_dim)`; k, v `(tokens, kv_heads · head_dim)`.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::kernels::cpu::{fused, tensor, view};
use super::kernels::exp::{dot, exp_row, tanh, vectorized};
use super::kernels::mat::Mat;
use super::kernels::matmul::{Threads, matmul, product};
use super::segments::{Segments, keep_flagged};
use super::tape::Tape;

/// Query rows that are handled together: bounds the score block and skips keys above the diagonal.
const BLOCK: usize = 64;

/// What does not change from call to call.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// Number of keys that a query sees, itself included; all earlier ones if absent.
    pub window: Option<usize>,
    /// Soft cap c on the scores.
    pub softcap: Option<f32>,
}

/// Keys and values of one block for the tokens that earlier passes have seen.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    /// Per sequence `(past, kv_heads · head_dim)`, row after row.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl LayerCache {
    /// Forgets the sequences for which `keep` is false.
    pub fn retain(&mut self, keep: &[bool]) {
        keep_flagged(&mut self.keys, keep);
        keep_flagged(&mut self.values, keep);
    }

    /// The cache of the given sequences of this one, in that order; a sequence may come several times.
    pub fn select(&self, sequences: &[usize]) -> Self {
        Self {
            keys: sequences.iter().map(|&i| self.keys[i].clone()).collect(),
            values: sequences.iter().map(|&i| self.values[i].clone()).collect(),
        }
    }
}

impl Attention {
    /// Attention of every token to its own sequence, with gradients for q, k and v.
    pub fn apply(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        segments: &Segments,
        tape: Tape,
    ) -> Result<Tensor> {
        if !fused(q.device()) {
            return tape.composed(&[q, k, v], |t| self.composed(&t[0], &t[1], &t[2], segments));
        }
        let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
        let o = {
            let (qs, ks, vs) = (view(&q)?, view(&k)?, view(&v)?);
            let (qs, ks, vs): (&[f32], &[f32], &[f32]) = (&qs, &ks, &vs);
            let keys = |i| (self.sequence(ks, segments, i), self.sequence(vs, segments, i));
            tensor(self.forward(qs, segments, keys), q.shape())?
        };
        if [&q, &k, &v].into_iter().any(|t| tape.tracks(t)) {
            let (attention, segments) = (self.clone(), segments.clone());
            tape.record(&o, move |gradient, into| {
                let gradient = gradient.contiguous()?;
                let (dq, dk, dv) =
                    attention.backward(&view(&q)?, &view(&k)?, &view(&v)?, &view(&gradient)?, &segments);
                into.add(q.id(), tensor(dq, q.shape())?)?;
                into.add(k.id(), tensor(dk, k.shape())?)?;
                into.add(v.id(), tensor(dv, v.shape())?)
            });
        }
        Ok(o)
    }

    /// The same where the first `segments.past(i)` tokens of sequence i are in the cache, which then takes
    /// up the new ones. Without gradients.
    pub fn apply_cached(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        segments: &Segments,
        cache: &mut LayerCache,
    ) -> Result<Tensor> {
        let width = self.kv_heads * self.head_dim;
        let host = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous(); // itself on the CPU
        let (q_host, k, v) = (host(q)?, host(k)?, host(v)?);
        let (qs, k, v) = (view(&q_host)?, view(&k)?, view(&v)?);
        cache.keys.resize(segments.len(), Vec::new());
        cache.values.resize(segments.len(), Vec::new());
        for i in 0..segments.len() {
            let rows = segments.rows(i);
            let range = rows.start * width..rows.end * width;
            assert_eq!(
                cache.keys[i].len(),
                segments.past(i) * width,
                "the cache holds sequence {i} up to its past"
            );
            cache.keys[i].extend_from_slice(&k[range.clone()]);
            cache.values[i].extend_from_slice(&v[range]);
        }
        let out = self.forward(&qs, segments, |i| (&cache.keys[i], &cache.values[i]));
        tensor(out, q.shape())?.to_device(q.device())
    }

    /// [`Self::apply`] in candle's own ops.
    pub fn composed(&self, q: &Tensor, k: &Tensor, v: &Tensor, segments: &Segments) -> Result<Tensor> {
        let mut outs = Vec::with_capacity(segments.len());
        for i in 0..segments.len() {
            let rows = segments.rows(i);
            let n = rows.len();
            let split = |t: &Tensor, heads: usize| -> Result<Tensor> {
                let t = t.narrow(0, rows.start, n)?.reshape((n, heads, self.head_dim))?;
                let t = t.transpose(0, 1)?.contiguous()?; // (heads, n, head_dim)
                let group = self.heads / heads;
                let t = t.unsqueeze(1)?.broadcast_as((heads, group, n, self.head_dim))?;
                t.reshape((self.heads, n, self.head_dim))
            };
            let (q, k, v) = (split(q, self.heads)?, split(k, self.kv_heads)?, split(v, self.kv_heads)?);
            let mut s = (q.matmul(&k.t()?)? * self.scale as f64)?; // (heads, n, n)
            if let Some(cap) = self.softcap {
                s = ((s / cap as f64)?.tanh()? * cap as f64)?;
            }
            let window = self.window.unwrap_or(usize::MAX);
            let mask: Vec<f32> = (0..n)
                .flat_map(|i| (0..n).map(move |j| (i, j)))
                .map(|(i, j)| if j <= i && i - j < window { 0.0 } else { f32::NEG_INFINITY })
                .collect();
            let mask = Tensor::from_vec(mask, (1, n, n), q.device())?;
            let p = candle_nn::ops::softmax(&s.broadcast_add(&mask)?, 2)?;
            outs.push(p.matmul(&v)?.transpose(0, 1)?.reshape((n, self.heads * self.head_dim))?);
        }
        Tensor::cat(&outs, 0)
    }

    /// `(sequence, query head)` of every independent piece of work.
    fn tasks(&self, segments: &Segments) -> Vec<(usize, usize)> {
        (0..segments.len()).flat_map(|i| (0..self.heads).map(move |h| (i, h))).collect()
    }

    /// Output rows for queries `(tokens, heads · head_dim)`; `keys(i)` gives all keys and values of a sequence.
    fn forward<'a>(
        &self,
        q: &[f32],
        segments: &Segments,
        keys: impl Fn(usize) -> (&'a [f32], &'a [f32]) + Sync,
    ) -> Vec<f32> {
        let (d, width) = (self.head_dim, self.heads * self.head_dim);
        let tasks = self.tasks(segments);
        let heads: Vec<Vec<f32>> = tasks
            .par_iter()
            .map(|&(i, h)| {
                let (k, v) = keys(i);
                let head = self.head(q, k, v, segments, i, h);
                let mut out = vec![0f32; head.len * d];
                for block in head.blocks() {
                    let (p, _) = head.probabilities(&block);
                    let values = head.values(&block);
                    let p = Mat::new(&p, block.rows.len(), block.keys.len());
                    matmul(&mut out[block.rows.start * d..], d, false, 1.0, p, values, Threads::One);
                }
                out
            })
            .collect();
        let mut out = vec![0f32; segments.tokens() * width];
        for ((i, h), rows) in tasks.into_iter().zip(heads) {
            scatter(&mut out, &rows, segments.rows(i), h * d, width, d);
        }
        out
    }

    /// Gradients of q, k and v, given that of the output.
    fn backward(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        gradient: &[f32],
        segments: &Segments,
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let d = self.head_dim;
        let (width, kv_width) = (self.heads * d, self.kv_heads * d);
        let tasks = self.tasks(segments);
        let heads: Vec<HeadGradient> = tasks
            .par_iter()
            .map(|&(i, h)| {
                let (k, v) = (self.sequence(k, segments, i), self.sequence(v, segments, i));
                let head = self.head(q, k, v, segments, i, h);
                head.backward(&gradient[segments.rows(i).start * width + h * d..])
            })
            .collect();
        let (mut dq, mut dk, mut dv) = (vec![0f32; q.len()], vec![0f32; k.len()], vec![0f32; v.len()]);
        for ((i, h), g) in tasks.into_iter().zip(heads) {
            let (rows, kv) = (segments.rows(i), h / (self.heads / self.kv_heads));
            scatter(&mut dq, &g.q, rows.clone(), h * d, width, d);
            scatter(&mut dk, &g.k, rows.clone(), kv * d, kv_width, d);
            scatter(&mut dv, &g.v, rows, kv * d, kv_width, d);
        }
        (dq, dk, dv)
    }

    /// The rows of one sequence in a `(tokens, kv_heads · head_dim)` slice.
    fn sequence<'a>(&self, data: &'a [f32], segments: &Segments, i: usize) -> &'a [f32] {
        let (rows, width) = (segments.rows(i), self.kv_heads * self.head_dim);
        &data[rows.start * width..rows.end * width]
    }

    fn head<'a>(
        &'a self,
        q: &'a [f32],
        k: &'a [f32],
        v: &'a [f32],
        segments: &Segments,
        i: usize,
        h: usize,
    ) -> Head<'a> {
        let (rows, d) = (segments.rows(i), self.head_dim);
        let kv = h / (self.heads / self.kv_heads);
        Head {
            attention: self,
            q: &q[rows.start * self.heads * d + h * d..],
            k: &k[kv * d..],
            v: &v[kv * d..],
            len: rows.len(),
            past: segments.past(i),
        }
    }
}

/// Adds a head's rows to its columns of a wider matrix.
fn scatter(
    wide: &mut [f32],
    rows: &[f32],
    range: std::ops::Range<usize>,
    column: usize,
    width: usize,
    d: usize,
) {
    for (row, from) in range.zip(rows.chunks_exact(d)) {
        let to = &mut wide[row * width + column..][..d];
        to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
    }
}

/// One query head of one sequence. Slices begin at the head's first element; rows are strided.
struct Head<'a> {
    attention: &'a Attention,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    len: usize,
    past: usize,
}

/// Query rows (of this pass) and the keys (of the whole sequence) that any of them sees.
struct Block {
    rows: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
}

impl Head<'_> {
    fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let window = self.attention.window.unwrap_or(usize::MAX);
        (0..self.len).step_by(BLOCK).map(move |start| {
            let rows = start..(start + BLOCK).min(self.len);
            let first = (self.past + rows.start + 1).saturating_sub(window);
            let keys = first..self.past + rows.end;
            Block { rows, keys }
        })
    }

    fn queries(&self, b: &Block) -> Mat<'_> {
        let (a, d) = (self.attention, self.attention.head_dim);
        let stride = a.heads * d;
        Mat::strided(&self.q[b.rows.start * stride..], b.rows.len(), d, stride)
    }

    fn kv<'b>(&self, data: &'b [f32], b: &Block) -> Mat<'b> {
        let d = self.attention.head_dim;
        let stride = self.attention.kv_heads * d;
        Mat::strided(&data[b.keys.start * stride..], b.keys.len(), d, stride)
    }

    fn values(&self, b: &Block) -> Mat<'_> {
        self.kv(self.v, b)
    }

    /// p `(rows, keys)`, and with a soft cap d s / d(scale·q·k).
    fn probabilities(&self, b: &Block) -> (Vec<f32>, Option<Vec<f32>>) {
        let a = self.attention;
        let keys = b.keys.len();
        let mut s = product(a.scale, self.queries(b), self.kv(self.k, b).t(), Threads::One);
        let window = a.window.unwrap_or(usize::MAX);
        let slope = vectorized!({
            let slope = a.softcap.map(|cap| {
                s.iter_mut()
                    .map(|s| {
                        let t = tanh(*s / cap);
                        *s = cap * t;
                        1.0 - t * t
                    })
                    .collect()
            });
            for (r, row) in s.chunks_exact_mut(keys).enumerate() {
                let at = self.past + b.rows.start + r; // position of this query
                let last = at - b.keys.start; // the query's own key
                let first = (at + 1).saturating_sub(window).max(b.keys.start) - b.keys.start;
                row[..first].fill(0.0);
                row[last + 1..].fill(0.0);
                let seen = &mut row[first..=last];
                let (_, sum) = exp_row(seen);
                let inv = 1.0 / sum;
                seen.iter_mut().for_each(|p| *p *= inv);
            }
            slope
        });
        (s, slope)
    }

    /// Gradients of this head's queries, keys and values, given the gradient of its output.
    fn backward(&self, grad: &[f32]) -> HeadGradient {
        let (a, d) = (self.attention, self.attention.head_dim);
        let stride = a.heads * d;
        let keys = self.past + self.len;
        let mut out =
            HeadGradient { q: vec![0f32; self.len * d], k: vec![0f32; keys * d], v: vec![0f32; keys * d] };
        for b in self.blocks() {
            let (p, slope) = self.probabilities(&b);
            let (rows, cols) = (b.rows.len(), b.keys.len());
            let g = Mat::strided(&grad[b.rows.start * stride..], rows, d, stride);
            let pm = Mat::new(&p, rows, cols);
            // dV += Pᵀ·dO;  dP = dO·Vᵀ
            matmul(&mut out.v[b.keys.start * d..], d, true, 1.0, pm.t(), g, Threads::One);
            let mut ds = product(1.0, g, self.values(&b).t(), Threads::One);
            // dS = P ∘ (dP − Σ P∘dP), through the cap
            vectorized!({
                for (ds, p) in ds.chunks_exact_mut(cols).zip(p.chunks_exact(cols)) {
                    let mean = dot(ds, p);
                    ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - mean));
                }
                if let Some(slope) = &slope {
                    ds.iter_mut().zip(slope).for_each(|(ds, s)| *ds *= s);
                }
            });
            // dQ = scale·dS·K;  dK += scale·dSᵀ·Q
            let dm = Mat::new(&ds, rows, cols);
            matmul(&mut out.q[b.rows.start * d..], d, false, a.scale, dm, self.kv(self.k, &b), Threads::One);
            matmul(&mut out.k[b.keys.start * d..], d, true, a.scale, dm.t(), self.queries(&b), Threads::One);
        }
        out
    }
}

struct HeadGradient {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, gradients, random};
    use super::*;

    fn attention(window: Option<usize>, softcap: Option<f32>) -> Attention {
        Attention { heads: 4, kv_heads: 2, head_dim: 3, scale: 0.7, window, softcap }
    }

    #[test]
    fn equals_composed_and_has_the_right_gradient() -> Result<()> {
        let segments = Segments::new(vec![4, 1, 3]);
        for (window, softcap) in [(None, None), (Some(2), None), (None, Some(0.8)), (Some(3), Some(1.5))] {
            let a = attention(window, softcap);
            let vars = [random(&[8, 12], 1)?, random(&[8, 6], 2)?, random(&[8, 6], 3)?];
            assert_close(
                &a.apply(&vars[0], &vars[1], &vars[2], &segments, Tape::OFF)?,
                &a.composed(&vars[0], &vars[1], &vars[2], &segments)?,
                1e-6,
            )?;
            assert_gradients(&vars, |v, tape| a.apply(&v[0], &v[1], &v[2], &segments, tape))?;
        }
        Ok(())
    }

    #[test]
    fn blocks_of_long_sequences_join_without_a_seam() -> Result<()> {
        let n = 2 * BLOCK + 7;
        let segments = Segments::new(vec![n, 5]);
        for (window, softcap) in [
            (None, None),
            (Some(10), None),
            (Some(BLOCK + 1), None),
            (None, Some(0.8)),
            (Some(10), Some(0.8)),
            (Some(BLOCK + 1), Some(0.8)),
        ] {
            let a = attention(window, softcap);
            let vars = [random(&[n + 5, 12], 1)?, random(&[n + 5, 6], 2)?, random(&[n + 5, 6], 3)?];
            let fused = |v: &[Tensor], tape: Tape| a.apply(&v[0], &v[1], &v[2], &segments, tape);
            let composed = |v: &[Tensor], tape: Tape| {
                tape.composed(&[&v[0], &v[1], &v[2]], |v| a.composed(&v[0], &v[1], &v[2], &segments))
            };
            assert_close(&fused(&vars, Tape::OFF)?, &composed(&vars, Tape::OFF)?, 1e-5)?;
            for (ours, theirs) in gradients(&vars, fused)?.iter().zip(&gradients(&vars, composed)?) {
                assert_close(ours, theirs, 2e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn with_a_cache_token_by_token_equals_the_whole() -> Result<()> {
        for (window, softcap) in [(None, None), (Some(3), None), (None, Some(0.8)), (Some(3), Some(0.8))] {
            let a = attention(window, softcap);
            let (q, k, v) = (random(&[9, 12], 1)?, random(&[9, 6], 2)?, random(&[9, 6], 3)?);
            let whole = a.apply(&q, &k, &v, &Segments::new(vec![9]), Tape::OFF)?;
            let mut cache = LayerCache::default();
            let mut parts = Vec::new();
            for (start, len) in [(0, 4), (4, 1), (5, 1), (6, 3)] {
                let part = |t: &Tensor| t.narrow(0, start, len);
                let segments = Segments::with_past(vec![len], vec![start]);
                parts.push(a.apply_cached(&part(&q)?, &part(&k)?, &part(&v)?, &segments, &mut cache)?);
            }
            assert_close(&Tensor::cat(&parts, 0)?, &whole, 1e-6)?;
        }
        Ok(())
    }
}
