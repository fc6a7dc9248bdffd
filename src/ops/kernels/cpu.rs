//! Contiguous f32 views of candle tensors on the CPU.

use std::cell::Cell;
use std::ops::Deref;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Shape, Storage, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::exp::vectorized;
use crate::device::is_composed;

/// Read access to the elements of a contiguous f32 tensor for as long as the view lives.
pub(in crate::ops) struct CpuView<G> {
    guard: G,
    range: (usize, usize),
}

impl<G: Deref<Target = Storage>> Deref for CpuView<G> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.guard {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.range.0..self.range.1],
            _ => unreachable!("checked in view()"),
        }
    }
}

thread_local! {
    /// Whether this thread is within [`composed`].
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Whether operations on this device run as the fused versions with hand-written backwards. Otherwise they are composed of
/// candle's own ops: on a GPU, within `composed`, and where [`is_composed`] says so.
pub fn fused(device: &Device) -> bool {
    device.is_cpu() && !COMPOSED.get() && !is_composed()
}

/// Runs the operations of `f` as on a GPU: composed of candle's own ops, if this thread calls them.
pub(in crate::ops) fn composed<R>(f: impl FnOnce() -> R) -> R {
    struct Restored(bool);
    impl Drop for Restored {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _restored = Restored(COMPOSED.replace(true));
    f()
}

/// Views a contiguous f32 CPU tensor as a slice.
pub(in crate::ops) fn view(t: &Tensor) -> Result<CpuView<impl Deref<Target = Storage> + '_>> {
    let (guard, layout) = t.storage_and_layout();
    let Some(range) = layout.contiguous_offsets() else {
        bail!("a fused op needs a contiguous tensor, got strides {:?}", layout.stride())
    };
    match &*guard {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(CpuView { guard, range }),
        _ => bail!("a fused op needs an f32 tensor on the CPU"),
    }
}

/// A tensor on the CPU from its elements.
pub(in crate::ops) fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), &Device::Cpu)
}

/// `len` elements as `write` leaves them, which is to write every one and read none before. One that it leaves out is zero,
/// and not what was in the memory; in tests it is NaN, so that it shows.
pub(in crate::ops) fn written(len: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut data = vec![if cfg!(any(test, debug_assertions)) { f32::NAN } else { 0.0 }; len];
    write(&mut data);
    data
}

/// f32 in a line of the cache.
pub(in crate::ops) const LINE: usize = 16;

/// Asks the processor to bring the line of the cache that holds element `at` counted from the first of `data`, within it or
/// beyond, into the first cache or the second (`CACHE`). A hint: nothing happens where there is no such memory, or on a
/// processor for which no instruction is named here.
#[inline(always)]
pub(in crate::ops) fn prefetch<const CACHE: u8>(data: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction reads nothing that the program sees and never faults, whatever the address (Intel's manual,
    // PREFETCHh); the address is computed without the promise that it lies in `data`. Tested in `a_hint_is_only_a_hint`.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let line = data.as_ptr().wrapping_add(at).cast();
        match CACHE {
            1 => _mm_prefetch::<_MM_HINT_T0>(line),
            _ => _mm_prefetch::<_MM_HINT_T1>(line),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, at);
}

/// Number of f32 in a vector of this processor.
pub(in crate::ops) fn lanes() -> usize {
    struct Lanes;

    impl WithSimd for Lanes {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }

    Arch::new().dispatch(Lanes)
}

/// Hands the columns of a `(rows, columns)` matrix, whose rows lie `stride` apart, to about so many tasks, which run at once:
/// to each the number of its first column and its columns of every row, a multiple of `width` of them but for the last.
pub(in crate::ops) fn by_columns(
    matrix: &mut [f32],
    stride: usize,
    (rows, columns): (usize, usize),
    width: usize,
    tasks: usize,
    task: impl Fn(usize, Vec<&mut [f32]>) + Sync,
) {
    let each = columns.div_ceil(tasks).next_multiple_of(width);
    let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
    parts.resize_with(columns.div_ceil(each), || Vec::with_capacity(rows));
    for row in matrix.chunks_mut(stride).take(rows) {
        for (part, columns) in parts.iter_mut().zip(row[..columns].chunks_mut(each)) {
            part.push(columns);
        }
    }
    let task = |(i, part)| task(i * each, part);
    match parts.len() {
        1 => parts.into_iter().enumerate().for_each(task),
        _ => parts.into_par_iter().enumerate().for_each(task),
    }
}

/// Elements that one rayon task takes: fewer are done before another thread is awake.
pub(in crate::ops) const TASK: usize = 64 * 1024;

/// x + y for tensors of one shape, on any device.
pub(in crate::ops) fn sum(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if !fused(x.device()) {
        return x + y;
    }
    if x.dims() != y.dims() {
        bail!("a sum of {:?} and {:?}", x.dims(), y.dims())
    }
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let (xs, ys) = (view(&x)?, view(&y)?);
    let (xs, ys): (&[f32], &[f32]) = (&xs, &ys);
    let out = written(xs.len(), |out| {
        out.par_chunks_mut(TASK).zip(xs.par_chunks(TASK)).zip(ys.par_chunks(TASK)).for_each(
            |((out, x), y)| {
                vectorized!({
                    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                        *out = x + y;
                    }
                })
            },
        );
    });
    tensor(out, x.shape())
}

/// own + other, in the storage of `own`, which nobody else may hold.
pub(in crate::ops) fn add_into(own: Tensor, other: &Tensor) -> Result<Tensor> {
    if !fused(own.device()) || !own.is_contiguous() {
        return own + other;
    }
    if own.dims() != other.dims() {
        bail!("a gradient of shape {:?} added to one of {:?}", other.dims(), own.dims())
    }
    let other = other.contiguous()?;
    let addend = view(&other)?;
    let addend: &[f32] = &addend;
    with_mut(&own, |own| {
        own.par_chunks_mut(TASK).zip(addend.par_chunks(TASK)).for_each(|(own, addend)| {
            vectorized!(own.iter_mut().zip(addend).for_each(|(o, a)| *o += a));
        })
    })?;
    Ok(own)
}

/// Lets `write` change the elements of a contiguous f32 tensor on the CPU, for everyone who holds its storage.
pub(in crate::ops) fn with_mut<R>(t: &Tensor, write: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    struct InPlace<F, R>(Cell<Option<F>>, Cell<Option<R>>);
    impl<F: FnOnce(&mut [f32]) -> R, R> InplaceOp1 for InPlace<F, R> {
        fn name(&self) -> &'static str {
            "in-place"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            match (storage, layout.contiguous_offsets(), self.0.take()) {
                (CpuStorage::F32(all), Some((from, to)), Some(write)) => {
                    self.1.set(Some(write(&mut all[from..to])));
                    Ok(())
                }
                _ => bail!("in place only in a contiguous f32 tensor"),
            }
        }
    }
    let op = InPlace(Cell::new(Some(write)), Cell::new(None));
    t.inplace_op1(&op)?;
    op.1.take().ok_or_else(|| candle_core::Error::Msg("in place: nothing was done".into()))
}

/// Rows that one rayon task takes, so that a task has about [`TASK`] elements.
pub(in crate::ops) fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_only_a_hint() {
        let data = [1.0, 2.0];
        for at in [0, 1, 2, 1 << 20, usize::MAX / 4, usize::MAX] {
            prefetch::<1>(&data, at);
            prefetch::<1>(&[], at);
            prefetch::<2>(&data, at);
        }
        assert_eq!(data, [1.0, 2.0]);
    }

    #[test]
    fn what_is_not_written_shows() {
        let data = written(5, |data| data[..3].fill(1.5));
        assert_eq!(data[..3], [1.5; 3]);
        assert!(data[3..].iter().all(|x| x.is_nan()));
        assert!(written(0, |data| assert!(data.is_empty())).is_empty());
    }
}
