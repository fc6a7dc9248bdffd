//! Contiguous f32 views of candle tensors on the CPU.

use std::ops::Deref;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// The elements of a contiguous f32 storage.
pub(super) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => bail!("a fused op needs a contiguous tensor, got strides {:?}", layout.stride()),
    }
}

/// Read access to the elements of a contiguous f32 tensor for as long as the view lives.
pub(super) struct View<G> {
    guard: G,
    range: (usize, usize),
}

impl<G: Deref<Target = Storage>> Deref for View<G> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.guard {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.range.0..self.range.1],
            _ => unreachable!("checked in view()"),
        }
    }
}

/// Views a contiguous f32 CPU tensor as a slice.
pub(super) fn view(t: &Tensor) -> Result<View<impl Deref<Target = Storage> + '_>> {
    let (guard, layout) = t.storage_and_layout();
    let Some(range) = layout.contiguous_offsets() else {
        bail!("a fused op needs a contiguous tensor, got strides {:?}", layout.stride())
    };
    match &*guard {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(View { guard, range }),
        _ => bail!("a fused op needs an f32 tensor on the CPU"),
    }
}

/// A tensor on the CPU from its elements.
pub(super) fn tensor(data: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(data, like.shape(), like.device())
}

/// Rows that one rayon task takes, so that a task has about 16k elements.
pub(super) fn rows_per_task(width: usize) -> usize {
    (16 * 1024 / width.max(1)).max(1)
}
