//! Rotary position embedding (Su et al., arXiv 2104.09864, eq. 34) in the half-split layout of Hugging
//! Face checkpoints: the first half of each head pairs with the second half.

use std::sync::{Arc, Mutex};

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::kernels::cpu::{fused, rows_per_task, tensor, view, written};
use super::kernels::exp::vectorized;
use super::segments::Segments;
use super::tape::Tape;

/// Angles of one kind of rotary embedding; the table grows with the longest sequence seen.
#[derive(Debug)]
pub struct Rotary {
    inv_freq: Vec<f32>,
    magnitude: f32,
    table: Mutex<Arc<Table>>,
}

/// magnitude · cos and magnitude · sin of position · frequency, `(positions, head_dim / 2)` each, built in f32 as transformers does.
#[derive(Debug, Default)]
struct Table {
    positions: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// From the inverse frequencies, `head_dim / 2` of them, and the factor on cos and sin (1 except with YaRN).
    pub fn new(inv_freq: Vec<f32>, magnitude: f32) -> Self {
        Self { inv_freq, magnitude, table: Mutex::default() }
    }

    /// The inverse frequencies.
    pub fn inv_freq(&self) -> &[f32] {
        &self.inv_freq
    }

    /// The factor on cos and sin.
    pub fn magnitude(&self) -> f32 {
        self.magnitude
    }

    fn table(&self, positions: usize) -> Arc<Table> {
        let mut held = self.table.lock().expect("no panic while the table is held");
        if held.positions < positions {
            let positions = positions.next_power_of_two().max(128);
            let angles: Vec<f32> =
                (0..positions).flat_map(|p| self.inv_freq.iter().map(move |f| p as f32 * f)).collect();
            *held = Arc::new(Table {
                positions,
                cos: angles.iter().map(|a| a.cos() * self.magnitude).collect(),
                sin: angles.iter().map(|a| a.sin() * self.magnitude).collect(),
            });
        }
        held.clone()
    }

    /// Rotates every head of x `(tokens, heads · head_dim)` by its token's position.
    pub fn apply(&self, x: &Tensor, segments: &Segments, tape: Tape) -> Result<Tensor> {
        let op = self.rotation(segments);
        if !fused(x.device()) {
            return tape.composed(&[x], |v| op.composed(&v[0]));
        }
        let x = x.contiguous()?;
        let (tokens, width) = x.dims2()?;
        let y = tensor(op.rotate(&view(&x)?, width, 1.0), (tokens, width))?;
        if tape.tracks(&x) {
            let x = x.id(); // its elements are not needed again
            tape.record(&y, move |gradient, into| {
                // The transpose turns by the opposite angle, with the same factor.
                let gradient = gradient.contiguous()?;
                into.add(x, tensor(op.rotate(&view(&gradient)?, width, -1.0), (tokens, width))?)
            });
        }
        Ok(y)
    }

    fn rotation(&self, segments: &Segments) -> Rotation {
        Rotation {
            table: self.table(segments.max_len()),
            positions: segments.positions(),
            half: self.inv_freq.len(),
        }
    }
}

/// The angles of the tokens of one pass.
struct Rotation {
    table: Arc<Table>,
    positions: Vec<usize>,
    half: usize,
}

impl Rotation {
    /// Rows of `width` elements; `sign` turns forwards or back.
    fn rotate(&self, x: &[f32], width: usize, sign: f32) -> Vec<f32> {
        let half = self.half;
        let rows = rows_per_task(width);
        written(x.len(), |y| {
            y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).enumerate().for_each(
                |(task, (y, x))| {
                    vectorized!({
                        for (row, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate()
                        {
                            let at = self.positions[task * rows + row] * half;
                            let (cos, sin) = (&self.table.cos[at..at + half], &self.table.sin[at..at + half]);
                            for (y, x) in y.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                                let (y1, y2) = y.split_at_mut(half);
                                let (x1, x2) = x.split_at(half);
                                for i in 0..half {
                                    let s = sign * sin[i];
                                    y1[i] = x1[i] * cos[i] - x2[i] * s;
                                    y2[i] = x2[i] * cos[i] + x1[i] * s;
                                }
                            }
                        }
                    })
                },
            )
        })
    }

    /// The same rotation in candle's own ops.
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let half = self.half;
        let pick = |table: &[f32]| -> Result<Tensor> {
            let rows: Vec<f32> =
                self.positions.iter().flat_map(|p| table[p * half..(p + 1) * half].iter().copied()).collect();
            Tensor::from_vec(rows, (tokens, 1, half), x.device())
        };
        let (cos, sin) = (pick(&self.table.cos)?, pick(&self.table.sin)?);
        let x = x.reshape((tokens, width / (2 * half), 2 * half))?; // (tokens, heads, head_dim)
        let (x1, x2) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let y1 = (x1.broadcast_mul(&cos)? - x2.broadcast_mul(&sin)?)?;
        let y2 = (x2.broadcast_mul(&cos)? + x1.broadcast_mul(&sin)?)?;
        Tensor::cat(&[y1, y2], 2)?.reshape((tokens, width))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, random};
    use super::*;

    #[test]
    fn equals_composed_and_has_the_right_gradient() -> Result<()> {
        let rotary = Rotary::new(vec![1.0, 0.3, 0.01], 1.3);
        let segments = Segments::with_past(vec![3, 2], vec![0, 200]);
        let x = random(&[5, 12], 1)?; // 2 heads of 6
        assert_close(
            &rotary.apply(&x, &segments, Tape::OFF)?,
            &rotary.rotation(&segments).composed(&x)?,
            1e-6,
        )?;
        assert_gradients(&[x], |v, tape| rotary.apply(&v[0], &segments, tape))
    }
}
