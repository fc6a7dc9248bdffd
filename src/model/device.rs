//! Where a model computes.

use anyhow::Result;
use candle_core::Device;

/// The device of this build: a GPU where a feature asks for one, else the CPU.
///
/// # Errors
/// If the GPU cannot be opened.
pub fn device() -> Result<Device> {
    if cfg!(feature = "cuda") {
        return Ok(Device::new_cuda(0)?);
    }
    if cfg!(feature = "metal") {
        return Ok(Device::new_metal(0)?);
    }
    Ok(Device::Cpu)
}
