//! Where models compute: one device for the whole process, chosen before the first model is loaded.

use std::fmt;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use anyhow::Result;
use candle_core::Device;

use crate::bail_input;

/// What a user may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    Cpu,
    /// A GPU of NVIDIA by its number, as the driver counts those that it shows (`CUDA_VISIBLE_DEVICES`).
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |digits: &str| digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
        match (text, text.strip_prefix("cuda:").and_then(number)) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(index)) => Ok(Self::Cuda(index)),
            _ => Err("expected cpu, cuda or cuda:N".into()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What was asked for; `None` within: nothing.
static CHOSEN: OnceLock<Option<DeviceChoice>> = OnceLock::new();

/// The device, once it is open.
static OPENED: Mutex<Option<Device>> = Mutex::new(None);

/// Decides what [`device`] opens. `None`: the first GPU where this build has CUDA and finds one, a GPU of Apple where it has
/// Metal, else the CPU.
///
/// # Errors
/// An [`crate::error::InputError`] if the process has another device already: tensors of two do not mix.
pub fn choose_device(choice: Option<DeviceChoice>) -> Result<()> {
    let chosen = *CHOSEN.get_or_init(|| choice);
    if chosen != choice {
        let shown = |choice: Option<DeviceChoice>| choice.map_or("the default".into(), |c| c.to_string());
        bail_input!("device {}: this process computes on {} already", shown(choice), shown(chosen));
    }
    Ok(())
}

/// What [`choose_device`] was asked for.
pub fn chosen_device() -> Option<DeviceChoice> {
    CHOSEN.get().copied().flatten()
}

/// The device of this process. The first call opens it, every other call gets the same.
///
/// # Errors
/// An [`crate::error::InputError`] if there is no such device, or if it cannot run the kernels of this build.
pub fn device() -> Result<Device> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = &*opened {
        return Ok(device.clone());
    }
    // Who asks for a device has decided that the default is what was chosen.
    let device = open(*CHOSEN.get_or_init(|| None))?;
    *opened = Some(device.clone());
    Ok(device)
}

/// The device in words for a manifest: `cpu`, or what decides the bytes that a GPU computes.
pub fn device_name() -> String {
    match device() {
        Ok(Device::Cpu) if is_composed() => "cpu, composed operations".into(),
        Ok(Device::Cpu) => "cpu".into(),
        Ok(Device::Metal(_)) => "metal".into(),
        #[cfg(feature = "cuda")]
        Ok(Device::Cuda(gpu)) => cuda::name(&gpu),
        #[cfg(not(feature = "cuda"))]
        Ok(Device::Cuda(_)) => "cuda".into(),
        Err(_) => "none".into(),
    }
}

/// Whether operations run in candle's own ops on a CPU too, as they do on a GPU: `TRAINER_COMPOSED=1`, by which tests run the path
/// of a GPU from end to end without one.
pub fn is_composed() -> bool {
    static ASKED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("TRAINER_COMPOSED").is_some_and(|value| value == "1"));
    *ASKED
}

/// Whether there is the device that was chosen, for those who leave it to other processes: opens nothing.
///
/// # Errors
/// An [`crate::error::InputError`] if there is none.
pub fn check_device() -> Result<()> {
    match chosen_device() {
        None => Ok(()),
        #[cfg(feature = "cuda")]
        Some(DeviceChoice::Cuda(index)) => cuda::must_exist(index),
        choice => open(choice).map(drop),
    }
}

#[cfg(not(any(feature = "cuda", feature = "metal")))]
fn open(choice: Option<DeviceChoice>) -> Result<Device> {
    match choice {
        None | Some(DeviceChoice::Cpu) => Ok(Device::Cpu),
        Some(gpu) => bail_input!(
            "--device {gpu}: this build computes on the CPU only; scripts/build_cuda makes one for GPUs of NVIDIA (docs/gpu.md)"
        ),
    }
}

#[cfg(all(feature = "metal", not(feature = "cuda")))]
fn open(choice: Option<DeviceChoice>) -> Result<Device> {
    match choice {
        None => Ok(Device::new_metal(0)?),
        Some(DeviceChoice::Cpu) => Ok(Device::Cpu),
        Some(gpu) => {
            bail_input!("--device {gpu}: this build knows GPUs of Apple only; expected cpu, or no --device")
        }
    }
}

#[cfg(feature = "cuda")]
fn open(choice: Option<DeviceChoice>) -> Result<Device> {
    match choice {
        Some(DeviceChoice::Cpu) => Ok(Device::Cpu),
        Some(DeviceChoice::Cuda(index)) => cuda::open(index),
        None => match cuda::count() {
            Ok(1..) => cuda::open(0),
            Ok(_) => {
                crate::progress::say("no GPU found: computing on the CPU");
                Ok(Device::Cpu)
            }
            Err(why) => {
                crate::progress::say(format_args!("no GPU found ({why}): computing on the CPU"));
                Ok(Device::Cpu)
            }
        },
    }
}

/// What only a build with CUDA can do. It compiles in CI and has never run: no machine of ours has a GPU (docs/gpu.md).
#[cfg(feature = "cuda")]
mod cuda {
    use anyhow::Result;
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError};
    use candle_core::{CudaDevice, Device, Tensor};

    use crate::bail_input;

    /// GPUs that the driver shows, or why it shows none, in its words.
    pub(super) fn count() -> Result<usize, String> {
        let count = CudaContext::device_count().map_err(|e| words(&e))?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Refuses the number of a GPU that is not there.
    pub(super) fn must_exist(index: usize) -> Result<()> {
        match count() {
            Ok(0) => bail_input!("--device cuda:{index}: the driver shows no GPU"),
            Ok(gpus) if index >= gpus => {
                bail_input!("--device cuda:{index}: the driver shows {gpus} GPUs, numbered from 0")
            }
            Ok(_) => Ok(()),
            Err(why) => bail_input!("--device cuda:{index}: the driver shows no GPU: {why}"),
        }
    }

    fn words(error: &DriverError) -> String {
        let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
        text.unwrap_or_else(|_| format!("{error:?}"))
    }

    /// A GPU, with one stream for all threads: candle's default gives every thread a stream of its own, so that a copy by one
    /// thread would not wait for what another has begun.
    pub(super) fn open(index: usize) -> Result<Device> {
        must_exist(index)?;
        let device = match Device::new_cuda_with_stream(index) {
            Ok(device) => device,
            Err(e) => bail_input!("--device cuda:{index}: cannot be opened: {e}"),
        };
        // The first kernel shows whether this build has code for the GPU.
        let one = || (Tensor::new(&[0.5f32], &device)? + 0.5)?.to_vec1::<f32>();
        match one() {
            Ok(one) if one == [1.0] => Ok(device),
            Ok(other) => bail_input!("--device cuda:{index}: computes 0.5 + 0.5 = {other:?}"),
            Err(e) => bail_input!(
                "--device cuda:{index}: {} cannot run the kernels of this build: {e}; see \"compute capability\" in docs/gpu.md",
                device.as_cuda_device().map_or_else(|_| "the GPU".into(), name)
            ),
        }
    }

    /// Model and compute capability: they choose the kernels of cuBLAS, hence the order of sums.
    pub(super) fn name(gpu: &CudaDevice) -> String {
        let stream = gpu.cuda_stream();
        let context = stream.context();
        let model = context.name().unwrap_or_else(|e| words(&e));
        let (major, minor) = context.compute_capability().unwrap_or_default();
        format!("cuda, {model}, compute capability {major}.{minor}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_in_pytorch() {
        for (text, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:12", DeviceChoice::Cuda(12)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for text in [
            "",
            "gpu",
            "CUDA",
            "cuda:",
            "cuda:-1",
            "cuda:+1",
            "cuda:1x",
            "cuda:99999999999999999999",
            "cpu:0",
        ] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
