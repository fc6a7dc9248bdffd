//! Sums: the residual connection, and terms of a layer.

use candle_core::{Result, Tensor};

use super::kernels::cpu;
use super::tape::Tape;

/// x + y, same shapes, with gradients for both.
///
/// # Errors
/// If the shapes differ.
pub fn add(x: &Tensor, y: &Tensor, tape: Tape) -> Result<Tensor> {
    let sum = cpu::sum(x, y)?;
    if tape.tracks(x) || tape.tracks(y) {
        let (x, y) = (x.id(), y.id());
        tape.record(&sum, move |gradient, into| {
            into.add_shared(x, gradient)?;
            into.add_shared(y, gradient)
        });
    }
    Ok(sum)
}

/// own + other, same shapes, in the storage of `own`, which nobody else may hold. Without gradients.
///
/// # Errors
/// If the shapes differ.
pub fn add_into(own: Tensor, other: &Tensor) -> Result<Tensor> {
    cpu::add_into(own, other)
}

/// x − y, same shapes, with gradients for both.
///
/// # Errors
/// If the shapes differ.
pub fn sub(x: &Tensor, y: &Tensor, tape: Tape) -> Result<Tensor> {
    let difference = (x.detach() - y.detach())?;
    if tape.tracks(x) || tape.tracks(y) {
        let (x, y) = (x.id(), y.id());
        tape.record(&difference, move |gradient, into| {
            into.add_shared(x, gradient)?;
            into.add(y, gradient.neg()?)
        });
    }
    Ok(difference)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_gradients, random};
    use super::*;

    #[test]
    fn sums_and_differences_and_their_gradients() -> Result<()> {
        let v = [random(&[40, 700], 1)?, random(&[40, 700], 2)?]; // several tasks
        assert_close(&add(&v[0], &v[1], Tape::OFF)?, &(&v[0] + &v[1])?, 0.0)?;
        assert_close(&sub(&v[0], &v[1], Tape::OFF)?, &(&v[0] - &v[1])?, 0.0)?;
        let v = [random(&[3, 4], 1)?, random(&[3, 4], 2)?];
        assert_gradients(&v, |v, tape| add(&v[0], &v[1], tape))?;
        assert_gradients(&v, |v, tape| sub(&v[0], &v[1], tape))?;
        // One tensor on both sides.
        assert_gradients(&v[..1], |v, tape| add(&v[0], &add(&v[0], &v[0], tape)?, tape))
    }
}
