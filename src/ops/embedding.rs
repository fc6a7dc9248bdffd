//! Rows of an embedding table: `y_t = s·E[id_t]`, and `∂/∂E[v] = s·Σ_{t: id_t = v} g_t`.
//!
//! Shapes: E `(vocab, hidden)`, y `(tokens, hidden)`.

use candle_core::{Result, Tensor};

use super::kernels::cpu::{fused, view};
use super::tape::Tape;
use super::weight::Matrix;

/// The rows of `ids`, times a factor, with a gradient for the table.
///
/// # Errors
/// If an id is outside the vocabulary.
pub fn embedding(table: &Matrix, ids: &[u32], scale: f64, tape: Tape) -> Result<Tensor> {
    let scaled = |x: Tensor| if scale == 1.0 { Ok(x) } else { x * scale };
    if !fused(table.device()) {
        let index = Tensor::from_slice(ids, ids.len(), table.device())?;
        return tape.composed(&[&table.dense()?], |v| scaled(v[0].index_select(&index, 0)?));
    }
    let x = scaled(table.rows(ids)?)?;
    if let Some(id) = table.tracked(tape) {
        let (table, dims, ids) = (id, table.dims2()?, ids.to_vec());
        tape.record(&x, move |gradient, into| {
            let gradient = gradient.contiguous()?;
            let g = view(&gradient)?;
            // Into the sum itself: a tied table already holds the gradient of the head, and is large.
            into.add_with(table, dims, |de, add| {
                if !add {
                    de.fill(0.0);
                }
                for (id, g) in ids.iter().zip(g.chunks_exact(dims.1)) {
                    let row = &mut de[*id as usize * dims.1..][..dims.1];
                    row.iter_mut().zip(g).for_each(|(d, g)| *d += scale as f32 * g);
                }
            })
        });
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_gradients, random};
    use super::*;

    #[test]
    fn has_the_right_gradient_also_for_a_repeated_id() -> Result<()> {
        let table = random(&[5, 3], 1)?;
        assert_gradients(&[table], |v, tape| embedding(&v[0].clone().into(), &[4, 0, 4], 1.5, tape))
    }

    #[test]
    fn an_id_outside_the_table_is_an_error() -> Result<()> {
        assert!(embedding(&random(&[5, 3], 1)?.into(), &[5], 1.0, Tape::OFF).is_err());
        Ok(())
    }
}
